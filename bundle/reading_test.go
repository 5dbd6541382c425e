package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"ferry/verify"
)

// alike is a sample of several volumes of the same size, with the same heads and
// documents, which only their blobs tell apart.
func alike(n int) *sample {
	s := newSample()
	for i := range n {
		b := s.addBlob(bytes.Repeat([]byte{byte('a' + i)}, 40<<10))
		config := s.addBlob([]byte("{}"))
		m := s.addManifest(config, b)
		s.groups = append(s.groups, Group{Small: []Blob{m, config}, Layers: []Blob{b}})
		s.manifest.Images = append(s.manifest.Images, Image{Digest: m.Digest, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: m.Size,
			Source: "r.example/a", Target: fmt.Sprintf("image%d", i), Tags: []string{"1"}})
	}
	return s
}

// Volumes of one size that have other names are told apart by their headers, in
// as few requests as that takes (T04).
func TestIdentify(t *testing.T) {
	store := newMemory()
	set := alike(4).write(t, store, 90<<10)
	for v, l := range set.Volumes() {
		if len(set.Volumes()) != 4 || l.Size != set.Volumes()[0].Size {
			t.Fatalf("volume %d of %d has %d bytes", v, len(set.Volumes()), l.Size)
		}
	}
	renamed := newMemory()
	renamed.objects[ManifestName], renamed.objects[SignatureName] = store.objects[ManifestName], store.objects[SignatureName]
	for v := range 4 {
		renamed.objects[fmt.Sprintf("x%d.tar", 3-v)] = store.objects[VolumeName(v)]
	}
	if err := readAll(renamed, "", readOptions("one")); err != nil {
		t.Error(err)
	}
	// The first header in which they differ is another: it is none of them.
	files := set.Volumes()[2].Files
	i := slices.IndexFunc(files, func(f File) bool { return f.isBlob() })
	for _, at := range []int64{files[i].Start, files[i].Start + 100, files[i].Content() - 1} {
		damaged := store.clone()
		damaged.objects[VolumeName(2)][at] ^= 1
		err := readAll(damaged, "", readOptions("one"))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), VolumeName(2)) {
			t.Errorf("byte %d of %s: %v", at, VolumeName(2), err)
		}
	}
	r := &Reader{Set: set, store: store}
	for v := range 4 {
		object, err := store.Open(t.Context(), VolumeName(v))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.identify(t.Context(), object); got != v || err != nil {
			t.Errorf("%s is %d, %v", VolumeName(v), got, err)
		}
	}
}

// A volume that has no more files where others of its size go on is not what
// those are.
func TestIdentifyFewerFiles(t *testing.T) {
	s := small()
	s.pack(t, 0)
	// As long as two empty files with their headers is one with a block of content.
	one := newEntry(strings.Repeat("x", 512), 512)
	two, three := newEntry("", 0), Entry{Digest: verify.DigestOf([]byte("{}")), Path: pathIndex, Size: 0}
	three.Digest = two.Digest
	s.manifest.Volumes = append(s.manifest.Volumes, Volume{[]Entry{one}}, Volume{[]Entry{two, three}}, Volume{[]Entry{two}})
	s.manifest.Volumes[2].Entries = []Entry{three, two}
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	l := set.Volumes()
	if l[1].Size != l[2].Size {
		t.Fatalf("sizes %d and %d", l[1].Size, l[2].Size)
	}
	volume := func(v int, contents ...string) []byte {
		p := head(set.raw, set.signature)
		for i, content := range contents {
			p = append(append(append(p, l[v].Files[i].Header()...), content...), make([]byte, l[v].Files[i].Padding())...)
		}
		return append(p, make([]byte, trailerSize)...)
	}
	r := &Reader{Set: set}
	for v, content := range map[int][]byte{1: volume(1, strings.Repeat("x", 512)), 2: volume(2, "", "")} {
		if got, err := r.identify(t.Context(), memoryObject(content)); got != v || err != nil {
			t.Errorf("volume %d is %d, %v", v, got, err)
		}
	}
}

// A stream is handed over without a buffer where the store can do that, from
// the content on, and what follows it is checked as ever.
func TestBlobHandsOver(t *testing.T) {
	s := several()
	dir := NewDir(t.TempDir())
	s.write(t, dir, 90<<10)
	r, err := OpenReader(t.Context(), dir, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for d, want := range s.blobs {
		body, err := r.OpenBlob(t.Context(), d, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for {
			n, err := body.(*blobReader).WriteNTo(&got, 1<<40)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 { // what comes next is to be read: a header, padding, the end
				if _, err := io.CopyN(&got, body, 1); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: %d bytes, want %d", d, got.Len(), len(want))
		}
		if err := errors.Join(body.Close(), body.Close()); err != nil {
			t.Error(err)
		}
	}
	mem := newMemory()
	s.write(t, mem, 90<<10)
	inMemory, err := OpenReader(t.Context(), mem, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := inMemory.OpenBlob(t.Context(), s.manifest.Images[0].Digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n, err := body.(*blobReader).WriteNTo(io.Discard, 10); n != 0 || err != nil {
		t.Errorf("a stream of memory is handed over: %d, %v", n, err)
	}
}

// openSeveral returns a bundle of several volumes, where it is, and its reader.
func openSeveral(t *testing.T) (*Set, *memory, *Reader) {
	t.Helper()
	store := newMemory()
	set := several().write(t, store, 90<<10)
	r, err := OpenReader(t.Context(), store, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return set, store, r
}

// The padding behind the rest of a blob is checked, also where only its end
// is asked for.
func TestOpenBlobPadding(t *testing.T) {
	set, store, r := openSeveral(t)
	for d, places := range set.places {
		p := places[len(places)-1]
		f := set.file(p)
		if f.Padding() == 0 {
			continue
		}
		size, _ := set.Has(d)
		volume := store.objects[VolumeName(p.volume)]
		volume[f.End()-1] = 1
		for _, off := range []int64{0, size - 1} {
			body, err := r.OpenBlob(t.Context(), d, off)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, body); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "padding after") {
				t.Errorf("%s from %d: %v", d, off, err)
			}
			body.Close()
		}
		volume[f.End()-1] = 0
		volume[f.Start] ^= 1
		body, err := r.OpenBlob(t.Context(), d, size-f.Size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, body); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "header of") {
			t.Errorf("%s with a wrong header: %v", d, err)
		}
		body.Close()
		volume[f.Start] ^= 1
	}
}

// expect ends only where the bytes are as they must be, and says what is cut.
func TestExpect(t *testing.T) {
	for _, tt := range []struct {
		have, want string
		err        error
	}{
		{"abc", "abc", nil}, {"abcd", "abc", nil}, {"", "", nil}, {"abx", "abc", ErrCorrupt},
		{"ab", "abc", io.ErrUnexpectedEOF}, {"", "abc", io.ErrUnexpectedEOF},
	} {
		r := expect(strings.NewReader(tt.have), []byte(tt.want), "it")
		got, err := io.ReadAll(r)
		if len(got) != 0 || !errors.Is(err, tt.err) {
			t.Errorf("%q for %q: %q, %v", tt.have, tt.want, got, err)
		}
		if n, err := r.Read(make([]byte, 1)); tt.err == nil && (n != 0 || err != io.EOF) {
			t.Errorf("%q for %q, again: %d, %v", tt.have, tt.want, n, err)
		}
	}
}

// closing is an object of which closing, or closing a stream, fails.
type closing struct {
	memoryObject
	closeErr, streamErr error
}

func (c closing) Close() error { return c.closeErr }

func (c closing) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, err := c.memoryObject.Range(ctx, off, n)
	return struct {
		io.Reader
		io.Closer
	}{body, closerFunc(func() error { return c.streamErr })}, err
}

// streams is an object whose streams are made of its content's.
type streams struct {
	memoryObject
	of func(io.Reader) io.Reader
}

func (s streams) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	body, err := s.memoryObject.Range(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(s.of(body)), nil
}

// A range that ends together with its last byte is not the end of all; an error
// that comes with it, or an end before it, is told.
func TestStepReaderEnds(t *testing.T) {
	content := bytes.Repeat([]byte("content."), 3*firstStep/8)
	read := func(of func(io.Reader) io.Reader) ([]byte, error) {
		return io.ReadAll(&stepReader{ctx: t.Context(), object: streams{content, of}, end: int64(len(content))})
	}
	if got, err := read(iotest.DataErrReader); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d of %d bytes, %v", len(got), len(content), err)
	}
	broken := func(r io.Reader) io.Reader {
		whole := iotest.DataErrReader(r)
		return readerFunc(func(p []byte) (int, error) {
			n, err := whole.Read(p)
			if err == io.EOF {
				err = errBroken
			}
			return n, err
		})
	}
	if got, err := read(broken); err != errBroken || len(got) != firstStep {
		t.Errorf("an error with the last byte of a range: %d bytes, %v", len(got), err)
	}
	short := func(r io.Reader) io.Reader { return io.LimitReader(r, 1000) }
	if got, _ := read(short); len(got) != 1000 {
		t.Errorf("a range that ends early: %d bytes", len(got))
	}
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// A close that fails is told.
func TestCloseFails(t *testing.T) {
	r := &Reader{volumes: []Object{nil, closing{closeErr: errBroken}, closing{}}}
	if err := r.Close(); !errors.Is(err, errBroken) {
		t.Errorf("Reader.Close = %v", err)
	}
	content := make([]byte, 4*firstStep)
	step := &stepReader{ctx: t.Context(), object: closing{memoryObject: content, streamErr: errBroken}, end: int64(len(content))}
	if n, err := io.Copy(io.Discard, step); n != firstStep || !errors.Is(err, errBroken) {
		t.Errorf("stepReader: %d bytes, %v", n, err)
	}
	s := several()
	store := newMemory()
	s.write(t, store, 90<<10)
	reader, err := OpenReader(t.Context(), store, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for v, object := range reader.volumes {
		reader.volumes[v] = closing{memoryObject: object.(memoryObject), streamErr: errBroken}
	}
	for _, p := range reader.Parts() {
		if err := reader.Check(t.Context(), p, nil); !errors.Is(err, errBroken) {
			t.Errorf("Check of %s = %v", p.Digest, err)
		}
	}
}

// A part that is wrong is told with the volumes that it is in.
func TestCheckNames(t *testing.T) {
	set, store, r := openSeveral(t)
	for _, p := range r.Parts() {
		f := set.file(p.places[0])
		volume := store.objects[VolumeName(p.places[0].volume)]
		volume[f.Content()] ^= 1
		err := r.Check(t.Context(), p, nil)
		if !errors.Is(err, ErrCorrupt) || !errors.Is(err, verify.ErrMismatch) || !strings.HasPrefix(err.Error(), strings.Join(p.Volumes(), ", ")+": "+f.Path) {
			t.Errorf("%s: %v", f.Path, err)
		}
		volume[f.Content()] ^= 1
	}
}

// A folder that stands in the place of a volume, and one whose name only ends
// like a volume's, are no volumes.
func TestFolderAsVolume(t *testing.T) {
	s := several()
	path := t.TempDir()
	dir := NewDir(path)
	s.write(t, dir, 90<<10)
	if err := errors.Join(os.Rename(filepath.Join(path, VolumeName(0)), filepath.Join(path, "other.tar")),
		os.MkdirAll(filepath.Join(path, VolumeName(0)), 0o755), os.MkdirAll(filepath.Join(path, "sub.tar"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := readAll(dir, "", readOptions("one")); err != nil {
		t.Error(err)
	}
	if err := os.Rename(filepath.Join(path, "other.tar"), filepath.Join(path, "sub.tar", "other.tar")); err != nil {
		t.Fatal(err)
	}
	if err := readAll(dir, "", readOptions("one")); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a volume in another folder: %v", err)
	}
}
