package bundle_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/storetest"
)

// Opening a fifo does not wait for a writer, and is no object (T36).
func TestDirFifo(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := bundle.NewDir(dir).Open(t.Context(), "fifo")
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, bundle.ErrNotFound) || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("Open = %v, want ErrNotFound", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("opening a fifo hangs")
	}
	if list, err := bundle.NewDir(dir).List(t.Context(), ""); len(list) != 0 || err != nil {
		t.Errorf("List = %v, %v", list, err)
	}
}

// A full disk is ErrNoSpace with the path, at the beginning of an upload: an
// upload that was begun has its room (T49).
func TestDirFull(t *testing.T) {
	dir := storetest.Tmpfs(t, 1<<20)
	s := bundle.NewDir(dir)
	content := storetest.Content(2<<20, 1)
	checkFull := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, bundle.ErrNoSpace) || !strings.Contains(err.Error(), filepath.Join(dir, "object")) {
			t.Errorf("%s on a full disk = %v, want ErrNoSpace and the path", what, err)
		}
	}
	checkFull("Put", s.Put(t.Context(), "object", content))
	checkFull("PutNew", s.PutNew(t.Context(), "object", content))
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("Put has left %v, %v", left, err)
	}
	_, err := s.Create(t.Context(), "object", 2<<20)
	checkFull("Create", err)
	if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
		t.Errorf("Create has left %v, %v", left, err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	u := storetest.Create(t, s, "object", 2<<20)
	if err := errors.Join(u.WriteAt(t.Context(), content[:1000], 0), u.Close()); err != nil {
		t.Fatal(err)
	}
	// What an interrupted upload has left keeps its room.
	if err := s.Put(t.Context(), "other", make([]byte, 6<<20)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "more", make([]byte, 1<<20)); !errors.Is(err, bundle.ErrNoSpace) {
		t.Errorf("Put beside it = %v, want ErrNoSpace", err)
	}
	u = storetest.Create(t, s, "object", 2<<20)
	kept := make([]byte, 2<<20)
	if n, _ := u.Kept().ReadAt(kept, 0); n != 1000 || string(kept[:n]) != string(content[:n]) {
		t.Errorf("kept %d bytes", n)
	}
	if err := errors.Join(u.WriteAt(t.Context(), content[1000:], 1000), u.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Read(t, s, "object"); string(got) != string(content) {
		t.Errorf("the object has %d other bytes", len(got))
	}
}

// A read-only medium is read, and says what it is when it is written.
func TestDirReadOnly(t *testing.T) {
	dir := storetest.Tmpfs(t, 1<<20)
	writeFile(t, filepath.Join(dir, "d", "object"), "content")
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s := bundle.NewDir(dir)
	if got := storetest.Read(t, s, "d/object"); string(got) != "content" {
		t.Errorf("read %q", got)
	}
	if list, err := s.List(t.Context(), ""); len(list) != 1 || err != nil {
		t.Errorf("List = %v, %v", list, err)
	}
	_, err := s.Create(t.Context(), "d/new", 1)
	for _, err := range []error{err, s.Put(t.Context(), "new", nil), s.PutNew(t.Context(), "e/new", nil), s.Remove(t.Context(), "d/object")} {
		if !errors.Is(err, bundle.ErrReadOnly) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), dir) {
			t.Errorf("writing = %v, want ErrReadOnly, fs.ErrPermission and the path", err)
		}
	}
}
