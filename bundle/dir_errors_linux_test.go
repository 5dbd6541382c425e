package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What an operating system answers keeps its kind and loses its path, which is
// said once.
func TestDirFail(t *testing.T) {
	d := NewDir("/store")
	for _, tt := range []struct {
		err  error
		is   []error
		isNo []error
	}{
		{&fs.PathError{Op: "openat", Path: "x", Err: syscall.ENOENT}, []error{fs.ErrNotExist}, []error{ErrNoSpace, ErrReadOnly}},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, []error{ErrNoSpace, syscall.ENOSPC}, []error{ErrReadOnly}},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}, []error{ErrNoSpace}, []error{ErrReadOnly}},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EROFS}, []error{ErrReadOnly, fs.ErrPermission}, []error{ErrNoSpace}},
		{&os.LinkError{Op: "renameat", Old: "x", New: "y", Err: syscall.ENOSPC}, []error{ErrNoSpace}, nil},
		{&kindError{&fs.PathError{Op: "openat", Path: "x", Err: syscall.ENOTDIR}, ErrNotFound}, []error{ErrNotFound, syscall.ENOTDIR}, nil},
		{errBroken, []error{errBroken}, []error{ErrNotFound, ErrNoSpace, ErrReadOnly}},
	} {
		err := d.fail("doing", "a/b", tt.err)
		for _, target := range tt.is {
			if !errors.Is(err, target) {
				t.Errorf("%v is not %v", err, target)
			}
		}
		for _, target := range tt.isNo {
			if errors.Is(err, target) {
				t.Errorf("%v is %v", err, target)
			}
		}
		if !strings.HasPrefix(err.Error(), "doing /store/a/b: ") || strings.Contains(err.Error(), `openat x`) || strings.Contains(err.Error(), "renameat") {
			t.Errorf("it reads %q", err)
		}
	}
}

// A file of the same name that is another one is not read on, nor is one that
// was written to since (T31).
func TestDirChanged(t *testing.T) {
	dir := t.TempDir()
	s := NewDir(dir)
	name := filepath.Join(dir, "object")
	// As it was, but for one thing: what that was is kept by its time.
	sameTime := func(change func() error) func() error {
		return func() error {
			was, err := os.Stat(name)
			if err != nil {
				return err
			}
			return errors.Join(change(), os.Chtimes(name, time.Time{}, was.ModTime()))
		}
	}
	for what, change := range map[string]func() error{
		"another file of its size and time": sameTime(func() error {
			return errors.Join(os.WriteFile(name+"2", []byte("contend"), 0o644), os.Rename(name+"2", name))
		}),
		"longer, of its time": sameTime(func() error { return os.WriteFile(name, []byte("content and more"), 0o644) }),
		"removed":             func() error { return os.Remove(name) },
		"replaced": func() error {
			return errors.Join(os.WriteFile(name+"2", []byte("other"), 0o644), os.Rename(name+"2", name))
		},
		"longer": func() error { return os.WriteFile(name, []byte("content and more"), 0o644) },
		"rewritten": func() error {
			return errors.Join(os.WriteFile(name, []byte("contend"), 0o644), os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
		},
		"now a folder":   func() error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o755)) },
		"all is removed": func() error { return os.RemoveAll(dir) },
		"all is a file":  func() error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)) },
	} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.WriteFile(name, []byte("content"), 0o644)); err != nil {
			t.Fatal(err)
		}
		o, err := s.Open(t.Context(), "object")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range [][2]int64{{0, 7}, {7, 0}, {3, 2}} {
			if body, err := o.Range(t.Context(), r[0], r[1]); err != nil {
				t.Errorf("Range(%d, %d) = %v", r[0], r[1], err)
			} else if got, err := io.ReadAll(body); err != nil || string(got) != "content"[r[0]:r[0]+r[1]] {
				t.Errorf("Range(%d, %d): %q, %v", r[0], r[1], got, err)
			} else {
				body.Close()
			}
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		_, err = o.Range(t.Context(), 0, 7)
		whole := strings.HasPrefix(what, "all") // the folder itself is gone: that has an error of its own
		if err == nil || !whole && !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Folders where a file should be, and files where folders should be, are
// refused, and nothing is touched.
func TestDirObstacles(t *testing.T) {
	path := t.TempDir()
	s := NewDir(path)
	if err := errors.Join(os.MkdirAll(filepath.Join(path, "folder", "inside"), 0o755), os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o644),
		os.Symlink("loop", filepath.Join(path, "loop")), os.MkdirAll(filepath.Join(path, "up.3.partial"), 0o755),
		os.MkdirAll(filepath.Join(path, "stale.4.partial", "x"), 0o755)); err != nil {
		t.Fatal(err)
	}
	before := files(t, path)
	create := func(name string, size int64) error {
		u, err := s.Create(t.Context(), name, size)
		if err == nil {
			err = fmt.Errorf("%s is begun", name)
			u.Close()
			t.Error(err)
		}
		return err
	}
	for what, err := range map[string]error{
		"Put below a file":               s.Put(t.Context(), "file/x", nil),
		"PutNew below a file":            s.PutNew(t.Context(), "file/x", nil),
		"Create below a file":            create("file/x", 1),
		"Put over a folder":              s.Put(t.Context(), "folder", nil),
		"Put below a loop":               s.Put(t.Context(), "loop/x", nil),
		"Create below a loop":            create("loop/x", 1),
		"Create, unfinished is a folder": create("up", 3),
		"Create of less than nothing":    create("x", -1),
		"Create above":                   create("../x", 1),
		"a store below a file":           NewDir(filepath.Join(path, "file", "store")).Put(t.Context(), "x", nil),
		"a store that is a loop":         NewDir(filepath.Join(path, "loop")).Put(t.Context(), "x", nil),
		"Remove from a store that is":    NewDir(filepath.Join(path, "file")).Remove(t.Context(), "x"),
		"Open in a loop":                 second(s.Open(t.Context(), "loop/x")),
		"List a loop":                    second(NewDir(filepath.Join(path, "loop")).List(t.Context(), "")),
		"Remove below a loop":            s.Remove(t.Context(), "loop/x"),
		"Remove above":                   s.Remove(t.Context(), "../x"),
	} {
		if err == nil {
			t.Errorf("%s succeeds", what)
		}
	}
	if err := s.PutNew(t.Context(), "folder", nil); !errors.Is(err, ErrExists) {
		t.Errorf("PutNew over a folder: %v", err)
	}
	if err := NewDirWithoutLinks(path).PutNew(t.Context(), "folder", nil); !errors.Is(err, ErrExists) {
		t.Errorf("PutNew over a folder without links: %v", err)
	}
	for what, err := range map[string]error{
		"Remove below a file":  s.Remove(t.Context(), "file/x"),
		"Remove of a folder":   s.Remove(t.Context(), "folder"),
		"Remove below nothing": s.Remove(t.Context(), "none/x"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := s.List(t.Context(), "none/"); len(list) != 0 || err != nil {
		t.Errorf("List below nothing: %v, %v", list, err)
	}
	if list, err := s.List(t.Context(), "file/"); len(list) != 0 || err != nil {
		t.Errorf("List below a file: %v, %v", list, err)
	}
	if list, err := s.List(t.Context(), "../"); len(list) != 0 || err != nil {
		t.Errorf("List above: %v, %v", list, err)
	}
	// The times of folders change where a temporary file was made and removed.
	names := func(s string) (list []string) {
		for line := range strings.Lines(s) {
			list = append(list, strings.Join(strings.Fields(line)[:2], " "))
		}
		return list
	}
	if after := files(t, path); strings.Join(names(after), "\n") != strings.Join(names(before), "\n") {
		t.Errorf("there was\n%s\nand is\n%s", before, after)
	}
	if err := create("stale", 5); err == nil {
		t.Error("a folder is discarded as an unfinished file")
	}
	if err := s.Remove(t.Context(), "stale"); err == nil {
		t.Error("a folder is removed as an unfinished file")
	}
}

// Whoever waits for the lock of a folder, where there are no hard links, stops
// waiting when its context ends; and has it when the other is done.
func TestRenameNewWaits(t *testing.T) {
	path := t.TempDir()
	s := NewDirWithoutLinks(path)
	holder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if !lock(holder) {
		t.Fatal("the folder is locked")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.PutNew(ctx, "x", []byte("x")) }()
	// It has written its temporary file when it asks for the lock.
	for {
		if names, err := filepath.Glob(filepath.Join(path, "x.tmp*")); err != nil {
			t.Fatal(err)
		} else if len(names) > 0 {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("PutNew = %v", err)
		default:
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("PutNew = %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(path, "*")); err != nil || len(names) != 0 {
		t.Errorf("%q is left, %v", names, err)
	}
	go func() { ended <- s.PutNew(t.Context(), "x", []byte("x")) }()
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lock(holder) != true {
		t.Error("a file that is closed is locked")
	}
}

// An upload that can not be finished keeps nothing of what the disk may have
// dropped, and is told; so is one that goes on after its end.
func TestUploadFails(t *testing.T) {
	path := t.TempDir()
	s := NewDir(path)
	begin := func() *dirUpload {
		t.Helper()
		u, err := s.Create(t.Context(), "object", 10)
		if err != nil {
			t.Fatal(err)
		}
		return u.(*dirUpload)
	}
	u := begin()
	for what, err := range map[string]error{
		"before":     u.WriteAt(t.Context(), []byte("x"), -1),
		"behind":     u.WriteAt(t.Context(), []byte("xx"), 9),
		"far behind": u.WriteAt(t.Context(), []byte("x"), 11),
	} {
		if err == nil || !strings.Contains(err.Error(), "range of") {
			t.Errorf("written %s: %v", what, err)
		}
	}
	if err := u.WriteAt(t.Context(), []byte("012345678"), 0); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "1 of 10 bytes were not written") {
		t.Errorf("one byte short: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(u.WriteAt(t.Context(), []byte("9"), 9)); err != nil {
		t.Fatal(err)
	}
	if err := u.WriteAt(ctx, []byte("9"), 9); !errors.Is(err, context.Canceled) {
		t.Errorf("WriteAt = %v", err)
	}
	if err := u.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit = %v", err)
	}
	if err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit again = %v", err)
	}
	if err := u.WriteAt(t.Context(), []byte("0"), 0); err == nil {
		t.Error("it is written after its end")
	}
	if err := errors.Join(u.Close(), u.Close()); err != nil {
		t.Error(err)
	}
	// A file that can not be brought to the disk: here, one that is closed.
	if err := s.Remove(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	u = begin()
	if err := errors.Join(u.WriteAt(t.Context(), []byte("0123456789"), 0), u.file.Close()); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit of a file that can not be synced = %v", err)
	}
	if _, err := s.Open(t.Context(), "object"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is visible: %v", err)
	}
	if err := u.Close(); err == nil {
		t.Error("a close that fails is not told")
	}
	// The name is a folder by then.
	u = begin()
	if err := errors.Join(u.WriteAt(t.Context(), []byte("0123456789"), 0), os.MkdirAll(filepath.Join(path, "object", "x"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.Join(path, "object")) {
		t.Errorf("Commit over a folder = %v", err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

// Much that is written is brought on its way to the disk meanwhile, and all of it
// is there in the end.
func TestUploadWriteback(t *testing.T) {
	s := NewDir(t.TempDir())
	const size = 2*writebackStep + 1
	u, err := s.Create(t.Context(), "object", size)
	if err != nil {
		t.Fatal(err)
	}
	step := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for off := int64(0); off < size; off += int64(len(step)) {
		if err := u.WriteAt(t.Context(), step[:min(int64(len(step)), size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(u.Commit(t.Context()), u.Close()); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(t.Context(), "object")
	if err != nil || o.Size() != size {
		t.Fatalf("%v, %v", o, err)
	}
}

// What goes wrong with the entries of a folder is told.
func TestEachEntry(t *testing.T) {
	path := t.TempDir()
	for i := range 3 {
		writeSized(t, filepath.Join(path, fmt.Sprint(i)), 1)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := eachEntry(t.Context(), root, ".", func(fs.DirEntry) error { return errBroken }); err != errBroken {
		t.Errorf("what is told of an entry: %v", err)
	}
	if err := eachEntry(t.Context(), root, "0", func(fs.DirEntry) error { return nil }); err == nil {
		t.Error("a file is listed")
	}
	if err := eachEntry(t.Context(), root, "none", func(fs.DirEntry) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eachEntry(ctx, root, ".", func(fs.DirEntry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	if err := syncDirs(root, "none/x"); err == nil {
		t.Error("a folder that is not there is synced")
	}
	if err := syncDirs(root, "0"); err != nil {
		t.Error(err)
	}
}
