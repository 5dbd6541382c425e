package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// small is an image of one layer.
type small struct{ layer, config, manifest string }

func newSmall(t testing.TB) small {
	s := small{layer: string(tarOf(t, file{name: "etc/motd", content: "hello"}))}
	s.config = toJSON(t, map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(s.layer).String()}}})
	s.manifest = toJSON(t, imageManifest{2, oci.MediaTypeManifest,
		oci.Descriptor{MediaType: oci.MediaTypeConfig, Digest: digestOf(s.config), Size: int64(len(s.config))},
		[]oci.Descriptor{{MediaType: typeTar, Digest: digestOf(s.layer), Size: int64(len(s.layer))}}})
	return s
}

func (s small) blobs() []file {
	var files []file
	for _, content := range []string{s.manifest, s.config, s.layer} {
		files = append(files, file{name: blobName(digestOf(content)), content: content})
	}
	return files
}

// index returns the index.json of s with some annotations for each entry.
func (s small) index(t testing.TB, annotations ...map[string]string) file {
	var entries []oci.Descriptor
	for _, a := range annotations {
		d := descriptorOf(s.manifest)
		d.Annotations = a
		entries = append(entries, d)
	}
	return file{name: indexName, content: toJSON(t, map[string]any{"schemaVersion": 2, "manifests": entries})}
}

// layout returns the files of an image layout with s.
func (s small) layout(t testing.TB) []file {
	return append([]file{{name: markerName, content: marker}, s.index(t, map[string]string{annotationRef: "demo:1"})}, s.blobs()...)
}

func TestOpenArchive(t *testing.T) {
	s := newSmall(t)
	docker := file{name: dockerName, content: toJSON(t, []dockerImage{{Config: blobName(digestOf(s.config)),
		RepoTags: []string{"of docker"}, Layers: []string{blobName(digestOf(s.layer))}}})}
	ref := func(full, short string) map[string]string {
		return map[string]string{annotationName: full, annotationRef: short}
	}
	// As docker 25.0 writes it: two tags of one image, another without.
	saved := append([]file{{name: "blobs/"}, {name: "blobs/sha256/"}}, s.blobs()...)
	saved = append(saved, s.index(t, ref("docker.io/library/a:1", "1"), ref("docker.io/library/b:1", "1"), nil), docker,
		file{name: markerName, content: marker + " \n"}, file{name: "repositories", content: "{}"})
	// As GNU tar packs a folder.
	var dotted []file
	for _, f := range append([]file{{name: ""}, {name: "blobs/"}, {name: "blobs/sha256/"}}, s.layout(t)...) {
		f.name = "./" + f.name
		dotted = append(dotted, f)
	}
	volume := append([]file{{name: "bundle.json", content: "{}"}, {name: "bundle.sigstore.json", content: strings.Repeat(" ", 16<<10)}},
		append(s.layout(t), docker, file{name: "pieces/" + strings.Repeat("a", 64) + "/0000000000000000", content: "piece"})...)
	for _, c := range []struct {
		name  string
		files []file
		names []string
	}{
		{"an image layout", s.layout(t), []string{"demo:1"}},
		{"docker save since 25.0", saved, []string{"docker.io/library/a:1", "1", "docker.io/library/b:1"}},
		{"packed by GNU tar", dotted, []string{"demo:1"}},
		{"a volume of ferry", volume, []string{"demo:1"}},
		{"other files in it", append(s.layout(t), file{name: "link", link: "/etc/passwd"}, file{name: "README", content: "x"}), []string{"demo:1"}},
		{"no names", append(s.blobs(), s.index(t, nil), file{name: markerName, content: marker}), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := mustOpen(t, write(t, tarOf(t, c.files...)))
			want := []Image{{Names: c.names, Descriptor: descriptorOf(s.manifest)}}
			got := src.Images()
			for i := range got {
				got[i].Descriptor.Annotations = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("Images() = %+v, want %+v", got, want)
			}
			if m, b := checkImage(t, src, got[0].Descriptor); m != 1 || b != 2 {
				t.Errorf("%d manifests and %d blobs, want 1 and 2", m, b)
			}
		})
	}
}

func TestEmptyLayout(t *testing.T) {
	src := mustOpen(t, write(t, tarOf(t, file{name: markerName, content: marker}, file{name: indexName, content: `{"schemaVersion":2,"manifests":[]}`})))
	if got := src.Images(); len(got) != 0 {
		t.Errorf("Images() = %v", got)
	}
}

// An index of indexes is read as deep as it goes.
func TestNestedIndex(t *testing.T) {
	s := newSmall(t)
	files := s.blobs()
	d := descriptorOf(s.manifest)
	for range 5 {
		content := toJSON(t, map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": []oci.Descriptor{d}})
		files = append(files, file{name: blobName(digestOf(content)), content: content})
		d = oci.Descriptor{MediaType: oci.MediaTypeIndex, Digest: digestOf(content), Size: int64(len(content))}
	}
	files = append(files, file{name: markerName, content: marker},
		file{name: indexName, content: toJSON(t, map[string]any{"schemaVersion": 2, "manifests": []oci.Descriptor{d}})})
	src := mustOpen(t, write(t, tarOf(t, files...)))
	if m, b := checkImage(t, src, src.Images()[0].Descriptor); m != 6 || b != 2 {
		t.Errorf("%d manifests and %d blobs, want 6 and 2", m, b)
	}
}

func TestOpenUnknown(t *testing.T) {
	dir := t.TempDir()
	content := tarOf(t, newSmall(t).layout(t)...)
	for _, c := range []struct {
		name    string
		content string
		want    error
	}{
		{"an empty file", "", ErrUnknown},
		{"text", "hello\n", ErrUnknown},
		{"zeros", string(make([]byte, 10240)), ErrUnknown},
		{"long text", strings.Repeat("hello\n", 1000), ErrUnknown},
		{"another archive", string(tarOf(t, file{name: "a", content: "b"})), ErrUnknown},
		{"a layout one level down", string(tarOf(t, file{name: "x/" + markerName, content: marker})), ErrUnknown},
		{"a marker that is a folder", string(tarOf(t, file{name: markerName + "/"})), ErrUnknown},
		{"gzip", gzipOf(t, string(content)), ErrCompressed},
		{"zstd", zstdOf(t, string(content)), ErrCompressed},
		{"bzip2", "BZh91AY&SY", ErrCompressed},
		{"xz", "\xfd7zXZ\x00\x00\x04", ErrCompressed},
	} {
		path := filepath.Join(dir, c.name)
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := tryOpen(t, path); !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Open = %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing = %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrUnknown) {
		t.Errorf("Open of a folder = %v", err)
	}
	if _, err := Open(os.DevNull); !errors.Is(err, ErrUnknown) {
		t.Errorf("Open of a device = %v", err)
	}
}

func writeFolder(t testing.TB, files []file) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && f.link != "" {
			err = os.Symlink(f.link, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(f.content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenFolder(t *testing.T) {
	s := newSmall(t)
	src := mustOpen(t, writeFolder(t, s.layout(t)))
	if got := src.Images(); len(got) != 1 || !slices.Equal(got[0].Names, []string{"demo:1"}) {
		t.Errorf("Images() = %v", got)
	}
	checkImage(t, src, src.Images()[0].Descriptor)
	for _, c := range []struct {
		name  string
		files []file
	}{
		{"no index.json", []file{{name: markerName, content: marker}}},
		{"another version", []file{{name: markerName, content: `{"imageLayoutVersion":"2.0.0"}`}, s.index(t)}},
		{"a marker that is no JSON", []file{{name: markerName, content: `1.0.0`}, s.index(t)}},
		{"a long marker", []file{{name: markerName, content: marker + strings.Repeat(" ", maxMarker)}, s.index(t)}},
		{"a broken index.json", []file{{name: markerName, content: marker}, {name: indexName, content: "{"}}},
		{"a long index.json", []file{{name: markerName, content: marker}, {name: indexName, content: strings.Repeat(" ", maxIndex+1)}}},
		{"an index.json elsewhere", []file{{name: markerName, content: marker}, {name: indexName, link: "/etc/passwd"}}},
	} {
		for _, path := range []string{writeFolder(t, c.files), write(t, tarOf(t, c.files...))} {
			_, err := tryOpen(t, path)
			escapes := strings.Contains(fmt.Sprint(err), "path escapes from parent") // os.Root's, which has no name
			if !errors.Is(err, ErrInvalid) && !escapes {
				t.Errorf("%s: Open(%s) = %v, want ErrInvalid", c.name, path, err)
			}
		}
	}
}

// Blobs that are not there, not files, or elsewhere are not found (T33, T36).
func TestMissingBlobs(t *testing.T) {
	s := newSmall(t)
	outside := write(t, []byte(s.layer))
	name := blobName(digestOf(s.layer))
	folder := func(change func(dir string) error) *Source {
		dir := writeFolder(t, s.layout(t))
		if err := errors.Join(os.Remove(filepath.Join(dir, name)), change(dir)); err != nil {
			t.Fatal(err)
		}
		return mustOpen(t, dir)
	}
	files := slices.DeleteFunc(s.layout(t), func(f file) bool { return f.name == name })
	for _, c := range []struct {
		name   string
		src    *Source
		absent bool
	}{
		{"no file in a folder", folder(func(string) error { return nil }), true},
		{"a folder", folder(func(dir string) error { return os.Mkdir(filepath.Join(dir, name), 0o700) }), true},
		{"a link out of the folder", folder(func(dir string) error { return os.Symlink(outside, filepath.Join(dir, name)) }), false},
		{"no file in an archive", mustOpen(t, write(t, tarOf(t, files...))), true},
	} {
		if _, err := readBlob(c.src, oci.Descriptor{Digest: digestOf(s.layer), Size: int64(len(s.layer))}); err == nil || c.absent && !errors.Is(err, bundle.ErrNotFound) {
			t.Errorf("%s: reading the blob = %v", c.name, err)
		}
		if size, ok := c.src.Size(t.Context(), digestOf(s.layer)); ok {
			t.Errorf("%s: Size = %d, true", c.name, size)
		}
	}
}

func TestOpenBlob(t *testing.T) {
	s := newSmall(t)
	docker := tarOf(t, file{name: "c.json", content: s.config}, file{name: "l.tar", content: s.layer},
		file{name: dockerName, content: toJSON(t, []dockerImage{{Config: "c.json", Layers: []string{"l.tar"}}})})
	for name, path := range map[string]string{
		"folder": writeFolder(t, s.layout(t)), "archive": write(t, tarOf(t, s.layout(t)...)), "docker archive": write(t, docker),
	} {
		src := mustOpen(t, path)
		manifest := src.Images()[0].Descriptor
		content, err := src.Manifest(t.Context(), manifest)
		if err != nil {
			t.Fatal(err)
		}
		for d, want := range map[verify.Digest]string{digestOf(s.layer): s.layer, manifest.Digest: string(content)} {
			size := int64(len(want))
			for _, off := range []int64{0, 1, size - 1, size} {
				r, err := src.OpenBlob(t.Context(), d, off)
				if err != nil {
					t.Fatalf("%s: OpenBlob(%d): %v", name, off, err)
				}
				got, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil || string(got) != want[off:] {
					t.Errorf("%s: from %d on: %d bytes, %v; want %d", name, off, len(got), err, size-off)
				}
			}
			if _, err := src.OpenBlob(t.Context(), d, size+1); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: OpenBlob past the end = %v", name, err)
			}
			if _, err := src.OpenBlob(t.Context(), d, -1); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s: OpenBlob(-1) = %v", name, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := src.OpenBlob(ctx, digestOf(s.layer), 0)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: reading after cancel = %v", name, err)
		}
		r.Close()
	}
}

// A manifest is what its descriptor says, or an error (T02, T13, T15).
func TestManifestMismatch(t *testing.T) {
	s := newSmall(t)
	files := s.layout(t)
	files[2].content = strings.Replace(files[2].content, "sha256", "sha257", 1)
	for _, path := range []string{writeFolder(t, files), write(t, tarOf(t, files...))} {
		src := mustOpen(t, path)
		d := descriptorOf(s.manifest)
		if _, err := src.Manifest(t.Context(), d); !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("Manifest of other bytes = %v", err)
		}
		layer := oci.Descriptor{Digest: digestOf(s.layer), Size: int64(len(s.layer))}
		for _, size := range []int64{0, layer.Size - 1, layer.Size + 1} {
			if _, err := src.Manifest(t.Context(), oci.Descriptor{Digest: layer.Digest, Size: size}); !errors.Is(err, verify.ErrMismatch) {
				t.Errorf("Manifest with size %d = %v", size, err)
			}
		}
		for _, size := range []int64{-1, oci.MaxManifest + 1} {
			if _, err := src.Manifest(t.Context(), oci.Descriptor{Digest: layer.Digest, Size: size}); !errors.Is(err, ErrInvalid) {
				t.Errorf("Manifest with size %d = %v", size, err)
			}
		}
		if _, err := src.Manifest(t.Context(), descriptorOf("missing")); !errors.Is(err, bundle.ErrNotFound) {
			t.Errorf("Manifest of nothing = %v", err)
		}
	}
}

func TestInvalidIndex(t *testing.T) {
	good := `{"mediaType":"` + oci.MediaTypeManifest + `","digest":"` + digestOf("x").String() + `","size":1}`
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	index := func(entries ...string) string {
		return `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
	}
	if _, err := parseIndex([]byte(index(good, good))); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"nothing":                  ``,
		"no JSON":                  `manifests`,
		"two documents":            index(good) + index(good),
		"no version":               `{"manifests":[` + good + `]}`,
		"version 1":                `{"schemaVersion":1,"manifests":[` + good + `]}`,
		"another media type":       `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeManifest + `","manifests":[]}`,
		"layers as well":           `{"schemaVersion":2,"manifests":[],"layers":[]}`, // T14
		"config as well":           `{"schemaVersion":2,"manifests":[],"config":{}}`,
		"no digest":                index(`{"mediaType":"` + oci.MediaTypeManifest + `","size":1}`),
		"digest of another kind":   index(with("sha256:", "sha512:")), // T12
		"digest in upper case":     index(with(digestOf("x").Hex(), strings.ToUpper(digestOf("x").Hex()))),
		"digest that climbs":       index(with("sha256:", "sha256:../")),
		"negative size":            index(with(`"size":1`, `"size":-1`)), // T13
		"no size":                  index(with(`,"size":1`, ``)),
		"size of 4 MiB and a byte": index(with(`"size":1`, fmt.Sprintf(`"size":%d`, oci.MaxManifest+1))), // T15
		"size beyond 64 bits":      index(with(`"size":1`, `"size":99999999999999999999`)),
		"media type of a layer":    index(with(oci.MediaTypeManifest, typeTar)),
		"two sizes":                index(good, with(`"size":1`, `"size":2`)),
		"two media types":          index(good, with(oci.MediaTypeManifest, oci.MediaTypeIndex)),
		"too many entries":         index(slices.Repeat([]string{good}, maxImages+1)...),
	} {
		if images, err := parseIndex([]byte(content)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: parseIndex = %v, %v; want ErrInvalid", name, images, err)
		}
	}
}

// Many read at once (run with -race).
func TestConcurrentReading(t *testing.T) {
	samples := registrytest.Samples()
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		out := mustMake(t, path, make)
		put(t, out, samples...)
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		src := mustOpen(t, path)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for _, s := range samples {
					for _, c := range slices.Concat(s.Blobs, s.Manifests) {
						got, err := readBlob(src, c.Descriptor)
						if err != nil || !bytes.Equal(got, c.Bytes) {
							t.Errorf("reading %s: %v", c.Digest, err)
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

// A blob of more than 8 GiB, of which the header has no room to say the size.
// The file has a hole for it.
func TestLargeBlob(t *testing.T) {
	const size = 9<<30 + 1
	s := newSmall(t)
	d := digestOf("large")
	start := bytes.TrimSuffix(tarOf(t, s.layout(t)...), make([]byte, 2*tarBlock))
	start = append(start, bundle.TarHeader(blobName(d), size)...)
	f, err := os.Create(filepath.Join(t.TempDir(), "large.tar"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(start)
	err = errors.Join(err, f.Truncate(int64(len(start))+size-1+3*tarBlock))
	if _, at := f.WriteAt([]byte("end"), int64(len(start))+size-3); errors.Join(err, at, f.Close()) != nil {
		t.Fatal(err, at)
	}
	src := mustOpen(t, f.Name())
	if got, ok := src.Size(t.Context(), d); got != size || !ok {
		t.Errorf("Size = %d, %t", got, ok)
	}
	r, err := src.OpenBlob(t.Context(), d, size-4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "\x00end" || err != nil {
		t.Errorf("the end is %q, %v", got, err)
	}

	a, err := NewArchive(filepath.Join(t.TempDir(), "x.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	before := a.end
	slot, header, err := a.slot(oci.Descriptor{Digest: d, Size: size})
	if err != nil || slot.off != before || len(header) != 3*tarBlock || a.end != before+3*tarBlock+size-1+tarBlock {
		t.Errorf("slot = %+v, header of %d bytes, %v; the archive goes on at %d", slot, len(header), err, a.end)
	}
}
