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
	"syscall"
	"testing"
	"testing/iotest"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// What is written is read back, with every name, manifest and blob.
func TestRoundTrip(t *testing.T) {
	samples := registrytest.Samples()
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		s := mustMake(t, path, make)
		put(t, s, samples...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		src := mustOpen(t, path)
		images := src.Images()
		if len(images) != len(samples) {
			t.Fatalf("%d images, want %d", len(images), len(samples))
		}
		for i, sample := range samples {
			if got := images[i]; !slices.Equal(got.Names, []string{sampleName(sample)}) || got.Descriptor.Digest != sample.Root.Digest ||
				got.Descriptor.Size != sample.Root.Size || got.Descriptor.MediaType != sample.Root.MediaType {
				t.Errorf("image %d is %+v, want %s %+v", i, got, sampleName(sample), sample.Root)
			}
			for _, m := range sample.Manifests {
				if got, err := src.Manifest(t.Context(), m.Descriptor); err != nil || !bytes.Equal(got, m.Bytes) {
					t.Errorf("%s: manifest %s: %v", sample.Name, m.Digest, err)
				}
			}
			for _, b := range sample.Blobs {
				if got, err := readBlob(src, b.Descriptor); err != nil || !bytes.Equal(got, b.Bytes) {
					t.Errorf("%s: blob %s: %v", sample.Name, b.Digest, err)
				}
			}
		}
	})
}

// contentOf returns content of n bytes with its descriptor.
func contentOf(seed uint64, n int) (oci.Descriptor, []byte) {
	content := registrytest.Random(seed, n)
	return oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: verify.DigestOf(content), Size: int64(n)}, content
}

// Sizes around the blocks of tar, written by many at once, each of them twice
// (run with -race).
func TestConcurrentWriting(t *testing.T) {
	sizes := []int{0, 1, 511, 512, 513, 1024, copyBuffer - 1, copyBuffer, copyBuffer + 1, 1 << 20}
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		s := mustMake(t, path, make)
		var wg sync.WaitGroup
		for i, n := range sizes {
			d, content := contentOf(uint64(i), n)
			for range 3 {
				wg.Go(func() {
					if err := s.WriteBlob(context.Background(), d, iotest.HalfReader(bytes.NewReader(content))); err != nil {
						t.Error(err)
					}
					if ok, err := s.Has(context.Background(), d); !ok || err != nil {
						t.Errorf("Has of %d bytes = %t, %v", n, ok, err)
					}
				})
			}
		}
		wg.Wait()
		if err := errors.Join(s.Finish(t.Context(), nil), s.Close()); err != nil {
			t.Fatal(err)
		}
		src := mustOpen(t, path)
		for i, n := range sizes {
			d, content := contentOf(uint64(i), n)
			if got, err := readBlob(src, d); err != nil || !bytes.Equal(got, content) {
				t.Errorf("blob of %d bytes: %v", n, err)
			}
		}
	})
}

// errAway is what a broken connection gives.
var errAway = errors.New("connection is gone")

// A blob that is not whole leaves nothing, whatever stops it, and can be
// written again (T01, T13, T50).
func TestInterruptedWrite(t *testing.T) {
	d, content := contentOf(1, 3*copyBuffer)
	flipped := bytes.Clone(content)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name string
		r    func(cancel func()) io.Reader
		want error
	}{
		{"another byte", func(func()) io.Reader { return bytes.NewReader(flipped) }, verify.ErrMismatch},
		{"a byte less", func(func()) io.Reader { return bytes.NewReader(content[:len(content)-1]) }, verify.ErrMismatch},
		{"a byte more", func(func()) io.Reader { return bytes.NewReader(append(slices.Clip(content), 0)) }, verify.ErrMismatch},
		{"nothing", func(func()) io.Reader { return strings.NewReader("") }, verify.ErrMismatch},
		{"a broken connection", func(func()) io.Reader {
			return io.MultiReader(bytes.NewReader(content[:2*copyBuffer]), iotest.ErrReader(errAway))
		}, errAway},
		{"cancelled", func(cancel func()) io.Reader {
			return io.MultiReader(bytes.NewReader(content[:copyBuffer]), readerFunc(func(p []byte) (int, error) {
				cancel()
				return copy(p, content[copyBuffer:]), nil
			}))
		}, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
				s := mustMake(t, path, make)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := s.WriteBlob(ctx, d, c.r(cancel)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), d.Digest.String()) {
					t.Errorf("WriteBlob = %v, want %v and the digest", err, c.want)
				}
				if ok, err := s.Has(t.Context(), d); ok || err != nil {
					t.Errorf("Has = %t, %v", ok, err)
				}
				if err := s.Finish(t.Context(), []Named{{"x", d}}); err == nil {
					t.Error("Finish with a blob that is not whole is no error")
				}
				for _, name := range list(t, filepath.Dir(path)) {
					if strings.Contains(name, d.Digest.Hex()) || name == "out" || strings.HasSuffix(name, indexName) {
						t.Errorf("%s is left", name)
					}
				}
				if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content)); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(s.Finish(t.Context(), []Named{{"x", d}}), s.Close()); err != nil {
					t.Fatal(err)
				}
				if got, err := mustOpen(t, path).Manifest(t.Context(), d); err != nil || !bytes.Equal(got, content) {
					t.Errorf("after all: %v", err)
				}
				if left := slices.DeleteFunc(list(t, filepath.Dir(path)), func(name string) bool { return !strings.HasSuffix(name, ".partial") }); len(left) > 0 {
					t.Errorf("%q are left", left)
				}
			})
		})
	}
}

// What is closed before it is finished names nothing; an archive leaves
// nothing, a folder the blobs that are whole.
func TestCloseUnfinished(t *testing.T) {
	d, content := contentOf(1, 1000)
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		s := mustMake(t, path, make)
		err := s.WriteBlob(t.Context(), d, bytes.NewReader(content))
		if err := errors.Join(err, s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		var want []string
		if _, ok := s.(*Folder); ok {
			want = []string{"out/" + blobName(d.Digest), "out/" + markerName}
		}
		if got := list(t, filepath.Dir(path)); !slices.Equal(got, want) {
			t.Errorf("%q are left, want %q", got, want)
		}
		if _, err := Open(path); err == nil {
			t.Error("Open of it is no error")
		}
		// The next run goes on.
		s = mustMake(t, path, make)
		if ok, err := s.Has(t.Context(), d); err != nil || ok != (want != nil) {
			t.Errorf("Has = %t, %v in the second run", ok, err)
		}
	})
}

func TestFinishErrors(t *testing.T) {
	d, content := contentOf(1, 1000)
	other, _ := contentOf(2, 1000)
	longer := d
	longer.Size++
	layer := d
	layer.MediaType = typeTar
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		s := mustMake(t, path, make)
		if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			images []Named
			want   error
		}{
			"a manifest that was not written":    {[]Named{{"x", d}, {"y", other}}, bundle.ErrNotFound},
			"another size":                       {[]Named{{"x", longer}}, bundle.ErrNotFound},
			"a layer":                            {[]Named{{"x", layer}}, nil},
			"one name for two manifests":         {[]Named{{"x", d}, {"x", other}}, nil},
			"a manifest that nothing is said of": {[]Named{{}}, nil},
		} {
			if err := s.Finish(t.Context(), c.images); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: Finish = %v, want %v", name, err, c.want)
			}
		}
		if _, err := Open(path); err == nil {
			t.Error("Open after Finish has failed is no error")
		}
		for _, bad := range []oci.Descriptor{{Size: 1}, {Digest: d.Digest, Size: -1}, {Digest: d.Digest, Size: bundle.MaxSize + 1}} {
			if err := s.WriteBlob(t.Context(), bad, bytes.NewReader(content)); err == nil {
				t.Errorf("WriteBlob(%v) is no error", bad)
			}
		}
	})
}

// names returns the names and digests that index.json of a layout has.
func names(t testing.TB, path string) map[string]verify.Digest {
	t.Helper()
	got := map[string]verify.Digest{}
	for _, image := range mustOpen(t, path).Images() {
		for _, name := range image.Names {
			got[name] = image.Descriptor.Digest
		}
		if len(image.Names) == 0 {
			got["@"+image.Descriptor.Digest.Hex()[:8]] = image.Descriptor.Digest
		}
	}
	return got
}

// A second run adds its images to those of the first.
func TestMerge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "down", "out")
	var ds []oci.Descriptor
	for i := range 5 {
		d, _ := contentOf(uint64(i), 100)
		ds = append(ds, d)
	}
	at := func(i int) string { return "@" + ds[i].Digest.Hex()[:8] }
	for _, step := range []struct {
		add  []Named
		want map[string]verify.Digest
	}{
		{[]Named{{"a", ds[0]}, {"b", ds[1]}, {"", ds[2]}, {"a", ds[0]}}, map[string]verify.Digest{"a": ds[0].Digest, "b": ds[1].Digest, at(2): ds[2].Digest}},
		{nil, map[string]verify.Digest{"a": ds[0].Digest, "b": ds[1].Digest, at(2): ds[2].Digest}},
		// The same name, another image; a second name; a first name.
		{[]Named{{"a", ds[3]}, {"c", ds[1]}, {"d", ds[2]}}, map[string]verify.Digest{"a": ds[3].Digest, "b": ds[1].Digest, "c": ds[1].Digest, "d": ds[2].Digest}},
		// No name for what has one.
		{[]Named{{"", ds[1]}, {"", ds[4]}, {"e", ds[4]}}, map[string]verify.Digest{"a": ds[3].Digest, "b": ds[1].Digest, "c": ds[1].Digest, "d": ds[2].Digest, "e": ds[4].Digest}},
	} {
		s := mustMake(t, path, func(path string) (sink, error) { return NewFolder(path) })
		for i := range ds {
			d, content := contentOf(uint64(i), 100)
			if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.Finish(t.Context(), step.add), s.Close()); err != nil {
			t.Fatal(err)
		}
		if got := names(t, path); !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.add, got, step.want)
		}
		index, err := os.ReadFile(filepath.Join(path, indexName))
		if err != nil {
			t.Fatal(err)
		}
		if want := len(step.want); strings.Count(string(index), `"digest"`) != want {
			t.Errorf("after %v: want %d entries in %s", step.add, want, index)
		}
	}
}

// What another tool has written into index.json stays as it is.
func TestMergeForeign(t *testing.T) {
	d, _ := contentOf(1, 100)
	old := `{"schemaVersion":2,"manifests":[` +
		`{"mediaType":"x/y","digest":"sha512:00","size":1,"extra":[1, 2],"annotations":{"a":"<b>"}},` +
		`{"mediaType":"x/y","digest":"sha512:00","size":1,"annotations":{"org.opencontainers.image.ref.name":"v1"}}],"annotations":{"k":"v"}}`
	got, err := mergeIndex([]byte(old), []Named{{"v1", d}})
	want := `{"annotations":{"k":"v"},"manifests":[` +
		`{"mediaType":"x/y","digest":"sha512:00","size":1,"extra":[1,2],"annotations":{"a":"<b>"}},` +
		`{"mediaType":"` + oci.MediaTypeManifest + `","digest":"` + d.Digest.String() + `","size":100,"annotations":{"org.opencontainers.image.ref.name":"v1"}}],` +
		`"mediaType":"` + oci.MediaTypeIndex + `","schemaVersion":2}`
	if err != nil || string(got) != want {
		t.Errorf("mergeIndex = %s, %v\nwant %s", got, err, want)
	}
	for _, bad := range []string{`null`, `[]`, `{"manifests":{}}`, `{"manifests":[1]}`, `{"manifests":[{"digest":1}]}`, `{} {}`} {
		if got, err := mergeIndex([]byte(bad), nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("mergeIndex(%s) = %s, %v; want ErrInvalid", bad, got, err)
		}
	}
	many := make([]Named, maxImages+1)
	for i := range many {
		many[i] = Named{fmt.Sprint(i), d}
	}
	if _, err := mergeIndex(nil, many); err == nil {
		t.Error("mergeIndex writes more than Open reads")
	}
	if content, err := mergeIndex(nil, many[:maxImages]); err != nil {
		t.Error(err)
	} else if _, err := parseIndex(content); err != nil {
		t.Error(err)
	}
}

// Where something else is, nothing is written (T39).
func TestOccupied(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"file": "x", "full/file": "x", "future/" + markerName: `{"imageLayoutVersion":"2.0.0"}`,
		"broken/" + markerName: marker, "broken/" + indexName: "{", "left/.ferry-lock.0.partial": "", "left/oci-layout.tmpX.partial": "",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("nowhere", at("dangling")), os.Mkdir(at("empty"), 0o755)); err != nil {
		t.Fatal(err)
	}
	before := list(t, dir)
	for _, c := range []struct {
		name            string
		folder, archive error
	}{
		{"file", ErrExists, ErrExists},
		{"full", ErrExists, ErrExists},
		{"future", ErrInvalid, ErrExists},
		{"broken", ErrInvalid, ErrExists},
		{"dangling", fs.ErrExist, ErrExists},
		{"empty", nil, ErrExists},
		{"left", nil, ErrExists},
		{"empty/", nil, ErrExists},
		{"file/below", syscall.ENOTDIR, syscall.ENOTDIR},
		{"", ErrExists, ErrExists},
	} {
		a, err := NewArchive(at(c.name))
		if err == nil {
			a.Close()
		}
		if !errors.Is(err, c.archive) {
			t.Errorf("NewArchive(%q) = %v, want %v", c.name, err, c.archive)
		}
		if c.folder == nil {
			continue
		}
		f, err := NewFolder(at(c.name))
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, c.folder) {
			t.Errorf("NewFolder(%q) = %v, want %v", c.name, err, c.folder)
		}
	}
	if after := list(t, dir); !slices.Equal(before, after) {
		t.Errorf("there are %q, were %q", after, before)
	}
	for _, name := range []string{"empty", "left"} {
		f, err := NewFolder(at(name))
		if err != nil {
			t.Errorf("NewFolder(%q) = %v", name, err)
			continue
		}
		if err := errors.Join(f.Finish(t.Context(), nil), f.Close()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(at(name + "/blobs/sha256")); err != nil {
			t.Error(err) // a layout has that folder
		}
		mustOpen(t, at(name))
	}
}

// Of two writers at one place the second is told (T52).
func TestTwoWriters(t *testing.T) {
	eachSink(t, func(t *testing.T, path string, make func(string) (sink, error)) {
		first := mustMake(t, path, make)
		if _, err := make(path); !errors.Is(err, bundle.ErrBusy) {
			t.Errorf("the second writer: %v, want ErrBusy", err)
		}
		put(t, first, registrytest.Samples()[0])
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		checkImage(t, mustOpen(t, path), registrytest.Samples()[0].Root)
	})
}

// noLinks is os.Link on a file system without hard links.
func noLinks(string, string) error { return &os.LinkError{Op: "link", Err: syscall.EPERM} }

// Others may take the name of an archive while it is written: theirs stays.
func TestNameTaken(t *testing.T) {
	for name, link := range map[string]func(string, string) error{"links": os.Link, "no links": noLinks} {
		path := filepath.Join(t.TempDir(), "x.tar")
		a, err := NewArchive(path)
		if err != nil {
			t.Fatal(err)
		}
		a.link = link
		if err := os.WriteFile(path, []byte("theirs"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := a.Finish(t.Context(), nil); !errors.Is(err, ErrExists) {
			t.Errorf("%s: Finish = %v, want ErrExists", name, err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if content, err := os.ReadFile(path); string(content) != "theirs" {
			t.Errorf("%s: the file is %q, %v", name, content, err)
		}
		if got := list(t, filepath.Dir(path)); !slices.Equal(got, []string{"x.tar"}) {
			t.Errorf("%s: %q are left", name, got)
		}
	}
}

// A file system without hard links (FAT) gets archives too.
func TestNoLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	a, err := NewArchive(path)
	if err != nil {
		t.Fatal(err)
	}
	a.link = noLinks
	put(t, a, registrytest.Samples()[0])
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	checkImage(t, mustOpen(t, path), registrytest.Samples()[0].Root)
	if got := list(t, filepath.Dir(path)); !slices.Equal(got, []string{"x.tar"}) {
		t.Errorf("%q are left", got)
	}
}

// Where locks do not work, another process may begin the same archive: its
// unfinished file gets no name, and is not removed.
func TestFileReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	a, err := NewArchive(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(a.partial()), os.WriteFile(a.partial(), []byte("theirs"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(t.Context(), nil); !errors.Is(err, bundle.ErrBusy) {
		t.Errorf("Finish = %v, want ErrBusy", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if got := list(t, filepath.Dir(path)); !slices.Equal(got, []string{"x.tar.partial"}) {
		t.Errorf("there are %q", got)
	}
}

// A leftover of a killed run is no obstacle, whatever it is, and nothing is
// written through a link that stands in its place (T50, T53).
func TestArchiveLeftover(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	for name, plant := range map[string]func() error{
		"file": func() error { return os.WriteFile(path+".partial", make([]byte, 1<<20), 0o600) },
		"link": func() error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "other"), []byte("other"), 0o600), os.Symlink("other", path+".partial"))
		},
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		a, err := NewArchive(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		put(t, a, registrytest.Samples()[0])
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		checkImage(t, mustOpen(t, path), registrytest.Samples()[0].Root)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if content, err := os.ReadFile(filepath.Join(dir, "other")); string(content) != "other" {
		t.Errorf("the other file is %q, %v", content, err)
	}
}

// After Finish an archive is closed.
func TestArchiveFinished(t *testing.T) {
	d, content := contentOf(1, 100)
	a, err := NewArchive(filepath.Join(t.TempDir(), "x.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteBlob(t.Context(), d, bytes.NewReader(content)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteBlob = %v, want ErrClosed", err)
	}
	if err := a.Finish(t.Context(), nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Finish = %v, want ErrClosed", err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
}

// A blob that a folder has with other bytes, from whatever it was, is replaced
// by what is written, and stays when that is wrong.
func TestFolderReplaces(t *testing.T) {
	d, content := contentOf(1, 1000)
	dir := t.TempDir()
	name := filepath.Join(dir, blobName(d.Digest))
	s := mustMake(t, dir, func(path string) (sink, error) { return NewFolder(path) })
	for _, bad := range [][]byte{content[:10], bytes.Repeat([]byte("x"), 1000), append(slices.Clip(content), 1)} {
		if err := os.WriteFile(name, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if ok, err := s.Has(t.Context(), d); err != nil || ok != (len(bad) == 1000) {
			t.Errorf("Has with %d bytes = %t, %v", len(bad), ok, err)
		}
		if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content[:999])); !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("WriteBlob = %v", err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, bad) {
			t.Errorf("a write that failed has changed the file: %v", err)
		}
	}
	if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the blob was not replaced: %v", err)
	}
	// It is not read again in the same run.
	if err := s.WriteBlob(t.Context(), d, iotest.ErrReader(errAway)); err != nil {
		t.Errorf("WriteBlob of what was written = %v", err)
	}
}

func TestDiskError(t *testing.T) {
	for err, want := range map[error]bool{
		&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}: true,
		&fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}: true,
		&fs.PathError{Op: "write", Path: "x", Err: syscall.EIO}:    false,
		errAway: false,
	} {
		if got := diskError(err); errors.Is(got, bundle.ErrNoSpace) != want || !errors.Is(got, err) {
			t.Errorf("diskError(%v) = %v", err, got)
		}
	}
}
