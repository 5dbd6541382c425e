package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"ferry/verify"
)

const helmChart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

func titled(title, text string) Layer {
	l := blob([]byte(text))
	l.Title, l.MediaType = title, "application/octet-stream"
	return l
}

func packed(t *testing.T, title, entries string) Layer {
	l := blob(gz(archive(t, parse(entries)...)))
	l.Title, l.MediaType, l.Unpack = title, "application/vnd.oci.image.layer.v1.tar+gzip", true
	return l
}

func TestArtifact(t *testing.T) {
	hex := func(text string) string { return verify.DigestOf([]byte(text)).Hex() }
	chart := blob([]byte("chart"))
	chart.MediaType = helmChart
	prov := blob([]byte("prov"))
	prov.MediaType = "application/vnd.cncf.helm.chart.provenance.v1.prov"
	empty := blob([]byte("{}"))
	empty.MediaType = "application/vnd.oci.empty.v1+json"
	site := packed(t, "site", "site/ site/a=1 site/.wh.b=x site/l->a site/h=>site/a")
	for _, c := range []struct {
		name   string
		layers []Layer
		o      Options
		err    error
		tree   []string
	}{
		{name: "files", layers: []Layer{titled("a.txt", "1"), titled("dir/b.txt", "2")}, tree: []string{"a.txt=1", "dir/", "dir/b.txt=2"}},
		{name: "no blobs"},
		{name: "no title", layers: []Layer{titled("", "1")}, tree: []string{hex("1") + "=1"}},
		{name: "chart", layers: []Layer{chart, prov}, tree: []string{hex("chart") + ".tgz=chart", hex("prov") + ".prov=prov"}},
		{name: "empty descriptor", layers: []Layer{empty}},
		{name: "archive is a file", layers: []Layer{site}, tree: []string{"site.tar.gz=" + fmt.Sprintf("%x", sha(content1(t, site)))}},
		{name: "archive unpacked", o: Options{Unpack: true}, layers: []Layer{site, titled("x", "2")},
			tree: []string{"site/", "site/.wh.b=x", "site/a=1", "site/h=1", "site/l->a", "x=2"}},
		{name: "archive unpacked, hard link behind", o: Options{Unpack: true, Path: "site/h"}, layers: []Layer{site}, tree: []string{"site/", "site/h=1"}},
		{name: "archive has more", o: Options{Unpack: true}, layers: []Layer{packed(t, "site", "site/a=1 b=2")}, err: ErrUnsafe},
		{name: "archive named alike", o: Options{Unpack: true}, layers: []Layer{packed(t, "site", "site2/a=1")}, err: ErrUnsafe},
		{name: "archive with hard link to another", o: Options{Unpack: true}, layers: []Layer{titled("x", "1"), packed(t, "site", "site/h=>x")}, err: ErrUnsafe},
		{name: "archive that goes up", o: Options{Unpack: true}, layers: []Layer{packed(t, "site", "site/../../canary=1")}, err: ErrUnsafe},
		{name: "path", o: Options{Path: "dir"}, layers: []Layer{titled("a.txt", "1"), titled("dir/b.txt", "2")}, tree: []string{"dir/", "dir/b.txt=2"}},
		{name: "path missing", o: Options{Path: "b"}, layers: []Layer{titled("a", "1")}, err: ErrNotFound},
		{name: "title twice", layers: []Layer{titled("a", "1"), titled("a", "2")}, err: ErrInvalid},
		{name: "title below a title", layers: []Layer{titled("a", "1"), titled("a/b", "2")}, err: ErrInvalid},
		{name: "title above a title", layers: []Layer{titled("a/b", "1"), titled("a", "2")}, err: ErrInvalid},
		{name: "title in an archive", o: Options{Unpack: true}, layers: []Layer{titled("site/a", "1"), site}, err: ErrInvalid},
		{name: "too large", o: Options{MaxBytes: 3}, layers: []Layer{titled("a", "12"), titled("b", "34")}, err: ErrLimit},
		{name: "too large, all", o: Options{MaxBytes: 4}, layers: []Layer{titled("a", "12"), titled("b", "34")}, tree: []string{"a=12", "b=34"}},
		{name: "larger than it says", o: Options{MaxFileBytes: 4}, layers: []Layer{sized(titled("a", "12345"), 1)}, err: ErrLimit},
		{name: "wrong digest", layers: []Layer{titled("x", "fine"), wrong(titled("a", "1"))}, err: verify.ErrMismatch},
		{name: "open fails", layers: []Layer{{Name: "sha256:0", Title: "a", Open: func(context.Context) (io.ReadCloser, error) { return nil, errTest }}}, err: errTest},
		{name: "no digest", layers: []Layer{{Name: "x", Open: titled("", "1").Open}}, err: ErrUnsafe},
	} {
		t.Run(c.name, func(t *testing.T) { runArtifact(t, c.layers, c.o, c.err, c.tree) })
	}
	for _, title := range []string{"../canary", "/canary", "a/../../canary", "a/../b", ".", "..", "./a", "a/", "a//b", "a/./b", `a\b`, `..\canary`, "a\x00b",
		"./", "/", strings.Repeat("a", 256), strings.Repeat("a/", 1025) + "a"} { // T33
		t.Run(fmt.Sprintf("title %.20q", title), func(t *testing.T) {
			want := ErrUnsafe
			if len(title) > 200 {
				want = ErrLimit
			}
			runArtifact(t, []Layer{titled("fine", "1"), titled(title, "2")}, Options{}, want, nil)
		})
	}
}

func runArtifact(t *testing.T, layers []Layer, o Options, want error, tree []string) {
	t.Helper()
	f := newField(t, t.TempDir())
	rep, err := Artifact(t.Context(), layers, f.dest, o)
	f.check(t)
	if want != nil {
		if !errors.Is(err, want) {
			t.Errorf("Artifact = %v, want %v", err, want)
		}
		if _, err := os.Lstat(f.dest); err == nil {
			t.Error("there is a destination")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(tree)
	got := list(t, f.dest, false)
	if !slices.Equal(got, tree) {
		t.Errorf("destination has %q, want %q", got, tree)
	}
	checkReport(t, rep, f.dest)
}

func content1(t *testing.T, l Layer) []byte {
	t.Helper()
	rc, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sized(l Layer, size int64) Layer {
	l.Size = size
	return l
}

func wrong(l Layer) Layer {
	l.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(verify.NewReader(strings.NewReader("2"), verify.DigestOf([]byte("1")), 1)), nil
	}
	return l
}

func TestIsImageLayer(t *testing.T) {
	for mediaType, want := range map[string]bool{
		"application/vnd.oci.image.layer.v1.tar":                       true,
		"application/vnd.oci.image.layer.v1.tar+gzip":                  true,
		"application/vnd.oci.image.layer.v1.tar+zstd":                  true,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": true,
		"application/vnd.docker.image.rootfs.diff.tar":                 true,
		"application/vnd.docker.image.rootfs.diff.tar.gzip":            true,
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":    true,
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted":        false,
		"application/vnd.oci.empty.v1+json":                            false,
		helmChart:                                                      false,
		"":                                                             false,
		"application/octet-stream":                                     false,
	} {
		if got := IsImageLayer(mediaType); got != want {
			t.Errorf("IsImageLayer(%q) = %v, want %v", mediaType, got, want)
		}
	}
}
