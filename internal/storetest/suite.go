// Package storetest holds what the tests of every [bundle.Store] share: one
// suite of the contract, a store in memory that misbehaves on request, and a
// real S3 server behind a proxy that counts and misbehaves on request.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"ferry/bundle"
)

// Run tests that what open returns is a [bundle.Store]. Each call of open
// returns an empty store.
func Run(t *testing.T, open func(t *testing.T) bundle.Store) {
	tests := []struct {
		name string
		run  func(*testing.T, bundle.Store)
	}{
		{"Empty", testEmpty},
		{"Names", testNames},
		{"Open", testOpen},
		{"Range", testRange},
		{"RangeParallel", testRangeParallel},
		{"Changed", testChanged},
		{"List", testList},
		{"Put", testPut},
		{"PutWhole", testPutWhole},
		{"PutNew", testPutNew},
		{"Remove", testRemove},
		{"Cancelled", testCancelled},
		{"Upload", testUpload},
		{"UploadAnyOrder", testUploadAnyOrder},
		{"UploadInvisible", testUploadInvisible},
		{"UploadIncomplete", testUploadIncomplete},
		{"UploadBounds", testUploadBounds},
		{"UploadResumed", testUploadResumed},
		{"UploadResumedOverGarbage", testUploadResumedOverGarbage},
		{"UploadOtherSize", testUploadOtherSize},
		{"UploadRemoved", testUploadRemoved},
		{"UploadsAtOnce", testUploadsAtOnce},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Content returns n bytes that depend on nothing but n and seed.
func Content(n int64, seed byte) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// Read returns the object name, read in one range, or ends the test.
func Read(t *testing.T, s bundle.Store, name string) []byte {
	t.Helper()
	content, err := read(t.Context(), s, name)
	if err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	return content
}

func read(ctx context.Context, s bundle.Store, name string) ([]byte, error) {
	o, err := s.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return readRange(ctx, o, 0, o.Size())
}

func readRange(ctx context.Context, o bundle.Object, off, n int64) ([]byte, error) {
	r, err := o.Range(ctx, off, n)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

func put(t *testing.T, s bundle.Store, name string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, content); err != nil {
		t.Fatalf("Put(%q) = %v", name, err)
	}
}

func open(t *testing.T, s bundle.Store, name string) bundle.Object {
	t.Helper()
	o, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("Open(%q) = %v", name, err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Errorf("closing %q: %v", name, err)
		}
	})
	return o
}

// list returns "name size" of each object, by calling List.
func list(t *testing.T, s bundle.Store, prefix string) []string {
	t.Helper()
	infos, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("List(%q) = %v", prefix, err)
	}
	var got []string
	for _, i := range infos {
		got = append(got, fmt.Sprint(i.Name, " ", i.Size))
	}
	return got
}

func testEmpty(t *testing.T, s bundle.Store) {
	for _, prefix := range []string{"", "a", "a/", "a/b/c"} {
		if got := list(t, s, prefix); len(got) != 0 {
			t.Errorf("List(%q) of an empty store = %q", prefix, got)
		}
	}
	if s.String() == "" {
		t.Error("String() is empty")
	}
}

func testNames(t *testing.T, s bundle.Store) {
	put(t, s, "a/b", nil)
	bad := []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/.", "a/./b", "../a", "a/..", "a/../b", "a/b/../../..",
		`a\b`, `..\a`, "a\x00b", "a\nb", "a\x1b[2J", "a\u202eb", "a\xff", "a.partial", "a/b.partial",
		strings.Repeat("n", 201), strings.Repeat("nnn/", 128) + "n",
	}
	for _, name := range bad {
		_, openErr := s.Open(t.Context(), name)
		_, createErr := s.Create(t.Context(), name, 1)
		for call, err := range map[string]error{
			"Open": openErr, "Create": createErr,
			"Put":    s.Put(t.Context(), name, []byte("x")),
			"PutNew": s.PutNew(t.Context(), name, []byte("x")),
			"Remove": s.Remove(t.Context(), name),
		} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s(%q) = %v, want fs.ErrInvalid", call, name, err)
			}
		}
	}
	for _, prefix := range []string{"../", "/", "a/../", "a//"} {
		if infos, _ := s.List(t.Context(), prefix); len(infos) != 0 {
			t.Errorf("List(%q) = %v", prefix, infos)
		}
	}
	good := []string{"...", "..a", "-", "a/b", "c d+e%20f&g=h#i?j", "ü/ß.tar", strings.Repeat("n", 200)}
	for _, name := range good {
		put(t, s, name, []byte(name))
		if got := Read(t, s, name); string(got) != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
	if got := list(t, s, ""); len(got) != len(good) {
		t.Errorf("List = %q, want %d names", got, len(good))
	}
}

func testOpen(t *testing.T, s bundle.Store) {
	put(t, s, "dir/file", []byte("content"))
	for _, name := range []string{"missing", "dir", "dir/missing", "dir/file/missing", "file", "missing/missing"} {
		if _, err := s.Open(t.Context(), name); !errors.Is(err, bundle.ErrNotFound) {
			t.Errorf("Open(%q) = %v, want ErrNotFound", name, err)
		}
	}
	if got := open(t, s, "dir/file").Size(); got != 7 {
		t.Errorf("Size() = %d, want 7", got)
	}
	put(t, s, "empty", nil)
	if got := open(t, s, "empty").Size(); got != 0 {
		t.Errorf("Size() of an empty object = %d", got)
	}
}

func testRange(t *testing.T, s bundle.Store) {
	const size = 100_000
	content := Content(size, 1)
	put(t, s, "object", content)
	put(t, s, "empty", nil)
	o := open(t, s, "object")
	for _, r := range []struct{ off, n int64 }{
		{0, 0}, {0, 1}, {0, size}, {1, size - 1}, {size - 1, 1}, {size, 0}, {size - 1, 0}, {511, 1024}, {33_333, 44_444},
	} {
		stream, err := o.Range(t.Context(), r.off, r.n)
		if err != nil {
			t.Fatalf("Range(%d, %d) = %v", r.off, r.n, err)
		}
		if err := iotest.TestReader(stream, content[r.off:r.off+r.n]); err != nil {
			t.Errorf("Range(%d, %d): %v", r.off, r.n, err)
		}
		if err := stream.Close(); err != nil {
			t.Errorf("Range(%d, %d): Close() = %v", r.off, r.n, err)
		}
		var copied bytes.Buffer // through WriteTo, where there is one
		if stream, err = o.Range(t.Context(), r.off, r.n); err == nil {
			_, err = io.Copy(&copied, stream)
			stream.Close()
		}
		if err != nil || !bytes.Equal(copied.Bytes(), content[r.off:r.off+r.n]) {
			t.Errorf("copying Range(%d, %d): %d bytes, %v", r.off, r.n, copied.Len(), err)
		}
	}
	for _, r := range []struct{ off, n int64 }{
		{0, size + 1}, {size, 1}, {size + 1, 0}, {size - 1, 2}, {1 << 62, 1}, {1, 1<<63 - 1}, {1<<63 - 1, 1<<63 - 1},
	} {
		if _, err := readRange(t.Context(), o, r.off, r.n); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Range(%d, %d) past the end: %v, want io.ErrUnexpectedEOF", r.off, r.n, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {0, -1}, {-1, -1}, {-1 << 63, 5}} {
		if _, err := readRange(t.Context(), o, r.off, r.n); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Range(%d, %d) = %v, want fs.ErrInvalid", r.off, r.n, err)
		}
	}
	if got, err := readRange(t.Context(), open(t, s, "empty"), 0, 0); err != nil || len(got) != 0 {
		t.Errorf("range of an empty object = %q, %v", got, err)
	}
	// A stream may be closed before its end.
	stream, err := o.Range(t.Context(), 0, size)
	if err == nil {
		_, err = io.ReadFull(stream, make([]byte, 10))
	}
	if err == nil {
		err = stream.Close()
	}
	if err != nil {
		t.Errorf("closing early: %v", err)
	}
}

func testRangeParallel(t *testing.T, s bundle.Store) {
	const size = 300_000
	content := Content(size, 1)
	put(t, s, "object", content)
	o := open(t, s, "object")
	var wg sync.WaitGroup
	for worker := range uint64(8) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for range 10 {
				off := random.Int64N(size)
				n := random.Int64N(size - off)
				got, err := readRange(t.Context(), o, off, n)
				if err != nil || !bytes.Equal(got, content[off:off+n]) {
					t.Errorf("Range(%d, %d): %d bytes, %v", off, n, len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

// An object that is replaced after Open gives its old bytes whole or
// ErrChanged, never new ones, not even when the size is the same (T45).
func testChanged(t *testing.T, s bundle.Store) {
	const size = 1 << 20
	before := Content(size, 1)
	for _, after := range [][]byte{Content(size, 2), Content(size/2, 2), Content(size*2, 2), nil} {
		put(t, s, "object", before)
		o := open(t, s, "object")
		begun, err := o.Range(t.Context(), 0, size)
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 100)
		if _, err := io.ReadFull(begun, head); err != nil {
			t.Fatal(err)
		}
		put(t, s, "object", after)
		got, err := readRange(t.Context(), o, 0, size)
		checkOld(t, "a range after the change", before, got, err)
		got, err = readRange(t.Context(), o, size-10, 10)
		checkOld(t, "the tail after the change", before[size-10:], got, err)
		rest, err := io.ReadAll(begun)
		begun.Close()
		checkOld(t, "a stream begun before the change", before, append(head, rest...), err)
		if got := Read(t, s, "object"); !bytes.Equal(got, after) {
			t.Errorf("after the change: %d bytes that are not the new ones", len(got))
		}
	}
}

func checkOld(t *testing.T, what string, want, got []byte, err error) {
	t.Helper()
	switch {
	case err == nil && !bytes.Equal(got, want):
		t.Errorf("%s: %d other bytes and no error", what, len(got))
	case err != nil && !errors.Is(err, bundle.ErrChanged):
		t.Errorf("%s: %v, want ErrChanged", what, err)
	case !bytes.HasPrefix(want, got):
		t.Errorf("%s: other bytes before %v", what, err)
	}
}

func testList(t *testing.T, s bundle.Store) {
	// A directory sorts before its files by tree, but not by name.
	names := []string{"a-x", "a.txt", "a/b.txt", "a/b/c", "a/b/d/e/f", "a/bc", "a0", "ab", "b/a", "B"}
	for i, name := range names {
		put(t, s, name, make([]byte, i))
	}
	u, err := s.Create(t.Context(), "a/unfinished", 10)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.WriteAt(t.Context(), make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "a/b/d/", "a/b/d/e/f", "a/b/d/e/f/", "ab", "b", "c", "a/b/d/x/"} {
		var want []string
		for i, name := range names {
			if strings.HasPrefix(name, prefix) {
				want = append(want, fmt.Sprint(name, " ", i))
			}
		}
		slices.SortFunc(want, func(a, b string) int {
			return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0])
		})
		if got := list(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func testPut(t *testing.T, s bundle.Store) {
	for i, size := range []int64{100, 0, 1, 100_000, 99_999} {
		want := Content(size, byte(i))
		put(t, s, "a/b", want)
		clear(want) // what was stored does not share memory with the caller
		want = Content(size, byte(i))
		if got := Read(t, s, "a/b"); !bytes.Equal(got, want) {
			t.Errorf("after Put of %d bytes: %d other bytes", size, len(got))
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a/b 99999"}) {
		t.Errorf("List = %q", got)
	}
}

// While one object is replaced again and again, readers see one or the other.
func testPutWhole(t *testing.T, s bundle.Store) {
	versions := [][]byte{Content(30_000, 1), Content(50_000, 2)}
	put(t, s, "object", versions[0])
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := read(t.Context(), s, "object")
				if err == nil && !bytes.Equal(got, versions[0]) && !bytes.Equal(got, versions[1]) {
					t.Errorf("read %d bytes that nobody has put", len(got))
				}
				if err != nil && !errors.Is(err, bundle.ErrChanged) {
					t.Errorf("reading: %v", err)
				}
			}
		})
	}
	for i := range 40 {
		put(t, s, "object", versions[i%2])
	}
	cancel()
	wg.Wait()
}

func testPutNew(t *testing.T, s bundle.Store) {
	const racers = 16
	for round := range 3 {
		name := fmt.Sprint("dir/object", round)
		var errs [racers]error
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range racers {
			wg.Go(func() {
				<-start
				errs[i] = s.PutNew(t.Context(), name, Content(1000, byte(i)))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("%s: both %d and %d have won", name, winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, bundle.ErrExists):
				t.Errorf("%s: PutNew = %v, want ErrExists", name, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody has won: %v", name, errs)
		}
		if got := Read(t, s, name); !bytes.Equal(got, Content(1000, byte(winner))) {
			t.Errorf("%s does not hold what the winner has put", name)
		}
		if err := s.PutNew(t.Context(), name, nil); !errors.Is(err, bundle.ErrExists) {
			t.Errorf("%s: PutNew = %v, want ErrExists", name, err)
		}
	}
	if got, want := list(t, s, ""), []string{"dir/object0 1000", "dir/object1 1000", "dir/object2 1000"}; !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
	if err := s.Remove(t.Context(), "dir/object0"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutNew(t.Context(), "dir/object0", []byte("again")); err != nil {
		t.Errorf("PutNew after Remove = %v", err)
	}
}

func testRemove(t *testing.T, s bundle.Store) {
	put(t, s, "a/b", []byte("1"))
	put(t, s, "a/bc", []byte("2"))
	for _, name := range []string{"a/b", "a/b", "missing", "missing/missing", "a", "a/bc/d"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Errorf("Remove(%q) = %v", name, err)
		}
	}
	if _, err := s.Open(t.Context(), "a/b"); !errors.Is(err, bundle.ErrNotFound) {
		t.Errorf("Open after Remove = %v, want ErrNotFound", err)
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a/bc 1"}) {
		t.Errorf("List = %q", got)
	}
}

func testCancelled(t *testing.T, s bundle.Store) {
	const size = 4 << 20
	put(t, s, "object", Content(size, 1))
	o := open(t, s, "object")
	u, err := s.Create(t.Context(), "upload", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := o.Range(ctx, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := io.ReadFull(stream, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, streamErr := io.Copy(io.Discard, stream)
	_, openErr := s.Open(ctx, "object")
	_, rangeErr := readRange(ctx, o, 0, size)
	_, listErr := s.List(ctx, "")
	_, createErr := s.Create(ctx, "other", 1)
	for call, err := range map[string]error{
		"a stream": streamErr, "Open": openErr, "Range": rangeErr, "List": listErr, "Create": createErr,
		"Put": s.Put(ctx, "put", nil), "PutNew": s.PutNew(ctx, "putnew", nil), "Remove": s.Remove(ctx, "object"),
		"WriteAt": u.WriteAt(ctx, []byte("x"), 0), "Commit": u.Commit(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context = %v", call, err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{fmt.Sprint("object ", size)}) {
		t.Errorf("List = %q", got)
	}
}
