package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/verify"
)

var errBroken = errors.New("broken")

// faulty is a memory of which one call fails: of the store, of an object, of
// an upload, or the reading of a stream. It is safe for concurrent use.
type faulty struct {
	*memory
	lock  sync.Mutex
	calls []string
	fails int // the number of the call that fails, from 0; negative for none
	err   error
}

func (f *faulty) call(format string, args ...any) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if len(f.calls)-1 == f.fails {
		return f.err
	}
	return nil
}

func (f *faulty) Open(ctx context.Context, name string) (Object, error) {
	if err := f.call("Open %s", name); err != nil {
		return nil, err
	}
	o, err := f.memory.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &faultyObject{o, f, name}, nil
}

func (f *faulty) List(ctx context.Context, prefix string) ([]Info, error) {
	if err := f.call("List %s", prefix); err != nil {
		return nil, err
	}
	return f.memory.List(ctx, prefix)
}

func (f *faulty) Put(ctx context.Context, name string, content []byte) error {
	if err := f.call("Put %s", name); err != nil {
		return err
	}
	return f.memory.Put(ctx, name, content)
}

func (f *faulty) PutNew(ctx context.Context, name string, content []byte) error {
	if err := f.call("PutNew %s", name); err != nil {
		return err
	}
	return f.memory.PutNew(ctx, name, content)
}

func (f *faulty) Remove(ctx context.Context, name string) error {
	if err := f.call("Remove %s", name); err != nil {
		return err
	}
	return f.memory.Remove(ctx, name)
}

func (f *faulty) Create(ctx context.Context, name string, size int64) (Upload, error) {
	if err := f.call("Create %s", name); err != nil {
		return nil, err
	}
	u, err := f.memory.Create(ctx, name, size)
	return &faultyUpload{u, f, name}, err
}

type faultyObject struct {
	Object
	f    *faulty
	name string
}

func (o *faultyObject) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := o.f.call("Range %s %d+%d", o.name, off, n); err != nil {
		return nil, err
	}
	body, err := o.Object.Range(ctx, off, n)
	if err != nil {
		return nil, err
	}
	return &faultyStream{ReadCloser: body, o: o}, nil
}

type faultyStream struct {
	io.ReadCloser
	o *faultyObject
}

func (s *faultyStream) Read(p []byte) (int, error) {
	if err := s.o.f.call("Read %s", s.o.name); err != nil {
		return 0, err
	}
	return s.ReadCloser.Read(p)
}

type faultyUpload struct {
	Upload
	f    *faulty
	name string
}

func (u *faultyUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := u.f.call("WriteAt %s %d+%d", u.name, off, len(p)); err != nil {
		return err
	}
	return u.Upload.WriteAt(ctx, p, off)
}

func (u *faultyUpload) Commit(ctx context.Context) error {
	if err := u.f.call("Commit %s", u.name); err != nil {
		return err
	}
	return u.Upload.Commit(ctx)
}

// triedAgain reports whether call n was about the name of a volume that was
// opened anew when all files were looked through later, if it was there.
func (f *faulty) triedAgain(n int) bool {
	name := strings.Fields(f.calls[n])[1]
	opened := f.objects[name] == nil || slices.Contains(f.calls[n+1:], "Open "+name)
	return strings.HasSuffix(name, ".tar") && opened && slices.Contains(f.calls[n+1:], "List ")
}

// Whatever a store fails with comes back from whatever was asked for, and is no
// other error; nothing is finished meanwhile (T49).
func TestEveryCallFails(t *testing.T) {
	s := several()
	whole := newMemory()
	set := s.write(t, whole, 90<<10)
	ctx := t.Context()
	renamed := whole.clone()
	renamed.objects["zero.tar"] = renamed.objects[VolumeName(0)]
	delete(renamed.objects, VolumeName(0))
	half := newMemory()
	s.beginAll(t, half, set)
	empty := newMemory()
	writes := func(f *faulty) error { return s.writeSet(f, set) }
	for _, tt := range []struct {
		name  string
		store *memory
		do    func(f *faulty) error
		least int // calls
	}{
		{"read", whole, func(f *faulty) error { return readAll(f, "", readOptions("one")) }, 30},
		{"read from a volume", whole, func(f *faulty) error { return readAll(f, VolumeName(1), readOptions("one")) }, 30},
		{"read renamed", renamed, func(f *faulty) error { return readAll(f, "", readOptions("one")) }, 30},
		{"write", empty, writes, 30},
		{"write what is there", whole, writes, 10},
		{"write on", half, writes, 30},
		{"write below a folder", empty, func(f *faulty) error { return s.writeSet(Sub(f, "folder"), set) }, 30},
		{"discard below a folder", half, func(f *faulty) error { return Discard(ctx, Sub(f, "folder"), set) }, 4},
		{"inspect", whole, func(f *faulty) error {
			r, bad, err := set.Inspect(ctx, f)
			if err == nil && len(bad) > 0 {
				err = fmt.Errorf("%q are bad", bad)
			}
			if r != nil {
				err = errors.Join(err, r.Close())
			}
			return err
		}, 10},
		{"gap", whole, func(f *faulty) error { _, err := set.Gap(ctx, f, GapOptions{}); return err }, 6},
		{"signed", whole, func(f *faulty) error { _, _, err := Signed(ctx, f, false); return err }, 6},
		{"unverified", whole, func(f *faulty) error { _, err := Unverified(ctx, f, ""); return err }, 3},
		{"unverified volume", whole, func(f *faulty) error { _, err := Unverified(ctx, f, VolumeName(0)); return err }, 5},
		{"is a volume", whole, func(f *faulty) error {
			if !IsVolume(ctx, f, VolumeName(0)) {
				return errBroken
			}
			return nil
		}, 5},
		{"list", whole, func(f *faulty) error { _, err := List(ctx, f); return err }, 1},
		{"list below", whole, func(f *faulty) error { _, err := List(ctx, Sub(f, "folder")); return err }, 1},
		{"discard", half, func(f *faulty) error { return Discard(ctx, f, set) }, 4},
		{"tidy", half, func(f *faulty) error { return Tidy(ctx, f) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := 0; ; n++ {
				copied := tt.store.clone()
				for name, content := range tt.store.partial {
					copied.partial[name] = bytes.Clone(content)
				}
				f := &faulty{memory: copied, fails: n, err: errBroken}
				err := tt.do(f)
				if len(f.calls) <= n {
					if err != nil {
						t.Errorf("with no fault: %v", err)
					}
					if n < tt.least {
						t.Errorf("%d calls, want %d: %q", n, tt.least, f.calls)
					}
					return
				}
				if err == nil && f.triedAgain(n) {
					continue
				}
				if !errors.Is(err, errBroken) || isVerdict(err) || errors.Is(err, ErrNotFound) || errors.Is(err, verify.ErrMismatch) {
					t.Errorf("call %d fails, %s: %v", n+1, f.calls[n], err)
				}
				if strings.HasPrefix(tt.name, "write") && tt.store != whole && copied.objects[ManifestName] != nil && !strings.HasPrefix(f.calls[n], "Remove ") {
					t.Errorf("call %d fails, %s, and the bundle is visible", n+1, f.calls[n])
				}
			}
		})
	}
}

// beginAll writes the first half of all parts of a set, and gives up.
func (s *sample) beginAll(t *testing.T, store Store, set *Set) {
	t.Helper()
	w, err := NewWriter(t.Context(), store, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		content := s.blobs[part.Digest]
		broken := io.MultiReader(bytes.NewReader(content[:len(content)/2]), readerFunc(func([]byte) (int, error) { return 0, errBroken }))
		if err := w.Write(t.Context(), part, broken); !part.Kept && !errors.Is(err, errBroken) {
			t.Fatalf("writing half: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A volume that is not there when it is looked for, and a folder that can not be
// listed then, are two things.
func TestMissingAndUnreadable(t *testing.T) {
	whole := newMemory()
	several().write(t, whole, 90<<10)
	delete(whole.objects, VolumeName(1))
	last := func(f *faulty) error { return readAll(f, "", readOptions("one")) }
	f := &faulty{memory: whole, fails: -1}
	if err := last(f); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("a missing volume: %v", err)
	}
	n := slices.Index(f.calls, "List ")
	if n < 0 {
		t.Fatalf("the folder is not listed: %q", f.calls)
	}
	f = &faulty{memory: whole, fails: n, err: errBroken}
	if err := last(f); !errors.Is(err, errBroken) || errors.Is(err, ErrIncomplete) {
		t.Errorf("a folder that can not be listed: %v", err)
	}
	// Another file with the ending of a volume that can not be read may be it.
	whole.objects["other.tar"] = []byte("x")
	f = &faulty{memory: whole, fails: -1}
	if err := last(f); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("a missing volume, and a file: %v", err)
	}
	f = &faulty{memory: whole, fails: slices.Index(f.calls, "Open other.tar"), err: errBroken}
	if err := last(f); !errors.Is(err, errBroken) {
		t.Errorf("a file that can not be opened: %v", err)
	}
}

// A cancelled context is told from what was found.
func TestCancelled(t *testing.T) {
	s := several()
	whole := newMemory()
	set := s.write(t, whole, 90<<10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	left := newMemory()
	s.beginAll(t, left, set)
	w, err := NewWriter(t.Context(), left, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	told := false
	for _, err := range w.Parts(ctx) {
		told = told || errors.Is(err, context.Canceled)
	}
	if !told {
		t.Error("Parts goes on after the end of its context")
	}
	if _, err := set.Gap(ctx, newMemory(), GapOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Gap = %v", err)
	}
	dir := NewDir(t.TempDir())
	if err := s.writeSet(dir, set); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Put": dir.Put(ctx, "x", nil), "PutNew": dir.PutNew(ctx, "x", nil), "Remove": dir.Remove(ctx, ManifestName),
		"Open": second(dir.Open(ctx, ManifestName)), "List": second(dir.List(ctx, "")), "Create": second(dir.Create(ctx, "x", 1)),
		"Space": second(dir.Space(ctx)), "Left": second(dir.Left(ctx, "x", 1)), "Gap": second(set.Gap(ctx, dir, GapOptions{})),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v", name, err)
		}
	}
	if list, err := dir.List(t.Context(), "x"); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }
