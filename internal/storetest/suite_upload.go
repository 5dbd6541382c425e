package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"ferry/bundle"
)

// PartSize, in bytes, is that of the parts in which [ferry/s3store] sends an
// object. The suite uses sizes around it with every store.
const PartSize = 8 << 20

type span struct{ off, n int64 }

// cut returns spans that cover size bytes in ascending order, of 1 to longest
// bytes each.
func cut(size, longest int64, seed uint64) []span {
	random := rand.New(rand.NewPCG(seed, 0))
	var spans []span
	for off := int64(0); off < size; {
		n := min(size-off, 1+random.Int64N(longest))
		spans = append(spans, span{off, n})
		off += n
	}
	return spans
}

// Create begins the upload of an object, or ends the test. The upload is
// closed with the test, if it is not before.
func Create(t *testing.T, s bundle.Store, name string, size int64) bundle.Upload {
	t.Helper()
	u, err := s.Create(t.Context(), name, size)
	if err != nil {
		t.Fatalf("Create(%q, %d) = %v", name, size, err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// Write writes the bytes of content from off on with several writers, which
// begin their ranges in ascending order and write each in ascending order.
func Write(t *testing.T, u bundle.Upload, content []byte, off int64, writers int) error {
	t.Helper()
	spans := make(chan span)
	go func() {
		defer close(spans)
		for _, r := range cut(int64(len(content))-off, PartSize/3, 1) {
			spans <- span{off + r.off, r.n}
		}
	}()
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for r := range spans {
				for _, c := range cut(r.n, 400_000, uint64(r.off)) {
					if errs[i] != nil {
						break // and leave the spans to the others
					}
					p := bytes.Clone(content[r.off+c.off:][:c.n])
					errs[i] = u.WriteAt(t.Context(), p, r.off+c.off)
					clear(p) // the upload does not keep p
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// upload writes and commits an object, or ends the test.
func upload(t *testing.T, s bundle.Store, name string, content []byte) {
	t.Helper()
	u := Create(t, s, name, int64(len(content)))
	finishUpload(t, u, content, 0)
}

func finishUpload(t *testing.T, u bundle.Upload, content []byte, off int64) {
	t.Helper()
	if err := Write(t, u, content, off, 4); err != nil {
		t.Fatalf("WriteAt = %v", err)
	}
	if err := u.Commit(t.Context()); err != nil {
		t.Fatalf("Commit() = %v", err)
	}
	if err := u.Close(); err != nil {
		t.Fatalf("Close() after Commit = %v", err)
	}
}

func checkObject(t *testing.T, s bundle.Store, name string, want []byte) {
	t.Helper()
	if got := Read(t, s, name); !bytes.Equal(got, want) {
		t.Errorf("%q has %d bytes that are not the %d that were written", name, len(got), len(want))
	}
}

func checkMissing(t *testing.T, s bundle.Store, name string) {
	t.Helper()
	if _, err := s.Open(t.Context(), name); !errors.Is(err, bundle.ErrNotFound) {
		t.Errorf("Open(%q) = %v, want ErrNotFound", name, err)
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Errorf("List = %q, want nothing", got)
	}
}

// Each size replaces the object that the one before has made.
func testUpload(t *testing.T, s bundle.Store) {
	for i, size := range []int64{1, 0, 1000, PartSize - 1, PartSize, PartSize + 1, 2 * PartSize, 3*PartSize + 12_345} {
		content := Content(size, byte(i))
		upload(t, s, "dir/object", content)
		checkObject(t, s, "dir/object", content)
		if got, want := list(t, s, ""), []string{fmt.Sprint("dir/object ", size)}; !slices.Equal(got, want) {
			t.Errorf("List = %q, want %q", got, want)
		}
	}
}

// One writer that jumps about is slow on memory, but not wrong.
func testUploadAnyOrder(t *testing.T, s bundle.Store) {
	content := Content(2*PartSize+PartSize/2, 1)
	spans := cut(int64(len(content)), PartSize/2, 2)
	rand.New(rand.NewPCG(3, 0)).Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
	u := Create(t, s, "object", int64(len(content)))
	for _, r := range spans {
		if err := u.WriteAt(t.Context(), content[r.off:r.off+r.n], r.off); err != nil {
			t.Fatal(err)
		}
		if err := u.WriteAt(t.Context(), nil, r.off); err != nil {
			t.Fatalf("WriteAt of nothing = %v", err)
		}
	}
	finishUpload(t, u, nil, 0)
	checkObject(t, s, "object", content)
}

func testUploadInvisible(t *testing.T, s bundle.Store) {
	for _, size := range []int64{0, 1000, PartSize + 1} {
		name, content := fmt.Sprint("object", size), Content(size, 1)
		u := Create(t, s, name, size)
		checkMissing(t, s, name)
		if err := Write(t, u, content, 0, 2); err != nil {
			t.Fatal(err)
		}
		checkMissing(t, s, name)
		finishUpload(t, u, nil, 0)
		checkObject(t, s, name, content)
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// An upload that lacks bytes can not be finished, and does not touch the
// object that is there.
func testUploadIncomplete(t *testing.T, s bundle.Store) {
	for _, size := range []int64{1, 1000, 2*PartSize + 1} {
		content := Content(size, 1)
		for _, missing := range []int64{0, size / 2, size - 1} {
			u := Create(t, s, "object", size)
			err := u.WriteAt(t.Context(), content[:missing], 0)
			if err == nil {
				err = u.WriteAt(t.Context(), content[missing+1:], missing+1)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Commit(t.Context()); err == nil {
				t.Errorf("Commit of %d bytes without byte %d succeeds", size, missing)
			}
			if err := u.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			if err := u.Commit(t.Context()); err == nil {
				t.Errorf("Commit after Close succeeds")
			}
			checkMissing(t, s, "object")
			if err := s.Remove(t.Context(), "object"); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, s, "object", []byte("old"))
	u := Create(t, s, "object", 10)
	if err := u.Commit(t.Context()); err == nil {
		t.Error("Commit of 10 bytes with none written succeeds")
	}
	checkObject(t, s, "object", []byte("old"))
}

func testUploadBounds(t *testing.T, s bundle.Store) {
	if u, err := s.Create(t.Context(), "object", -1); err == nil {
		u.Close()
		t.Error("Create of -1 bytes succeeds")
	}
	for _, size := range []int64{0, 100} {
		for _, r := range []span{{-1, 1}, {0, size + 1}, {size, 1}, {1 << 62, 1}, {1<<63 - 1, 1}} {
			u := Create(t, s, "object", size)
			if err := u.WriteAt(t.Context(), make([]byte, r.n), r.off); err == nil {
				t.Errorf("WriteAt of %d bytes at %d of %d succeeds", r.n, r.off, size)
			}
			u.Close()
		}
	}
	checkMissing(t, s, "object")
}

// Close keeps what was written; the next Create goes on (T50).
func testUploadResumed(t *testing.T, s bundle.Store) {
	content := Content(3*PartSize+1000, 1)
	half := int64(len(content)) / 2
	u := Create(t, s, "object", int64(len(content)))
	if u.Kept() != nil {
		t.Error("Kept() of a first upload is not nil")
	}
	if err := Write(t, u, content[:half], 0, 2); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	checkMissing(t, s, "object")
	u = Create(t, s, "object", int64(len(content)))
	from := int64(0)
	if kept := u.Kept(); kept != nil {
		got := make([]byte, half)
		if n, err := kept.ReadAt(got, 0); int64(n) != half || !bytes.Equal(got, content[:half]) {
			t.Fatalf("Kept has %d bytes, want the %d written before: %v", n, half, err)
		}
		if n, err := kept.ReadAt(make([]byte, 10), half-1); n != 1 || err != io.EOF {
			t.Errorf("ReadAt over the end of what was kept = %d, %v, want 1, EOF", n, err)
		}
		if n, err := kept.ReadAt(make([]byte, 10), half); n != 0 || err != io.EOF {
			t.Errorf("ReadAt behind what was kept = %d, %v, want 0, EOF", n, err)
		}
		from = half
	}
	finishUpload(t, u, content, from)
	checkObject(t, s, "object", content)
	u = Create(t, s, "object", int64(len(content)))
	if u.Kept() != nil {
		t.Error("Kept() after a Commit is not nil")
	}
}

// What was kept need not be right: whoever finds it wrong writes it again.
func testUploadResumedOverGarbage(t *testing.T, s bundle.Store) {
	const size = 2*PartSize + 10
	u := Create(t, s, "object", size)
	if err := Write(t, u, Content(size, 1), 0, 2); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	u = Create(t, s, "object", size)
	if kept := u.Kept(); kept != nil {
		if _, err := kept.ReadAt(make([]byte, size), 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	finishUpload(t, u, Content(size, 2), 0)
	checkObject(t, s, "object", Content(size, 2))
}

func testUploadOtherSize(t *testing.T, s bundle.Store) {
	for i, size := range []int64{3 * PartSize, 3*PartSize + 1, 3*PartSize - 1, PartSize, 10, 2 * PartSize} {
		u := Create(t, s, "object", size)
		if u.Kept() != nil {
			t.Errorf("Kept() of an upload of %d bytes after one of another size is not nil", size)
		}
		if err := Write(t, u, Content(size, byte(i)), 0, 2); err != nil {
			t.Fatal(err)
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const size = 2*PartSize + 1
	upload(t, s, "object", Content(size, 99))
	checkObject(t, s, "object", Content(size, 99))
}

func testUploadRemoved(t *testing.T, s bundle.Store) {
	const size = 2 * PartSize
	u := Create(t, s, "object", size)
	if err := Write(t, u, Content(size, 1), 0, 2); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "object"); err != nil {
		t.Fatalf("Remove = %v", err)
	}
	u = Create(t, s, "object", size)
	if u.Kept() != nil {
		t.Error("Kept() after Remove is not nil")
	}
	if err := u.Commit(t.Context()); err == nil {
		t.Error("Commit with nothing written after Remove succeeds")
	}
}

// Uploads of several objects, names that begin alike among them, do not mix.
func testUploadsAtOnce(t *testing.T, s bundle.Store) {
	names := []string{"a", "a.1", "a.1.2", "b/a"}
	uploads := make([]bundle.Upload, len(names))
	for i, name := range names {
		uploads[i] = Create(t, s, name, PartSize+10)
	}
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			if err := Write(t, uploads[i], Content(PartSize+10, byte(i)), 0, 2); err != nil {
				t.Errorf("writing %q: %v", names[i], err)
			}
		})
	}
	wg.Wait()
	for i, name := range names {
		finishUpload(t, uploads[i], nil, 0)
		checkObject(t, s, name, Content(PartSize+10, byte(i)))
	}
}
