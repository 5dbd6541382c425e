package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
)

func TestDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) bundle.Store {
		return bundle.NewDir(filepath.Join(t.TempDir(), "new", "store"))
	})
}

// The whole contract holds on a file system without hard links, too.
func TestDirWithoutLinks(t *testing.T) {
	storetest.Run(t, func(t *testing.T) bundle.Store {
		return bundle.NewDirWithoutLinks(t.TempDir())
	})
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// files returns the mode and name of everything below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := e.Info()
		if err == nil {
			rel, _ := filepath.Rel(dir, name)
			names = append(names, fmt.Sprint(info.Mode(), " ", filepath.ToSlash(rel)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Reading creates nothing, not even the directory.
func TestDirReadingNeverWrites(t *testing.T) {
	place := t.TempDir()
	s := bundle.NewDir(filepath.Join(place, "missing", "store"))
	if _, err := s.Open(t.Context(), "name"); !errors.Is(err, bundle.ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	if err := s.Remove(t.Context(), "a/b"); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if got := files(t, place); len(got) != 0 {
		t.Errorf("reading has made %q", got)
	}
	writeFile(t, filepath.Join(place, "missing", "store", "dir", "name"), "content")
	before := files(t, place)
	if got := storetest.Read(t, s, "dir/name"); string(got) != "content" {
		t.Errorf("read %q", got)
	}
	if list, err := s.List(t.Context(), "dir/"); err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v", list, err)
	}
	if got := files(t, place); !slices.Equal(got, before) {
		t.Errorf("reading has changed %q to %q", before, got)
	}
}

// A file where the directory should be is an error, not an empty place.
func TestDirIsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	s := bundle.NewDir(file)
	_, openErr := s.Open(t.Context(), "name")
	_, listErr := s.List(t.Context(), "")
	for _, err := range []error{openErr, listErr, s.Put(t.Context(), "name", nil)} {
		if err == nil || errors.Is(err, bundle.ErrNotFound) || !strings.Contains(err.Error(), file) {
			t.Errorf("error = %v, want one that names %s", err, file)
		}
	}
}

// Links that lead out are neither followed nor listed, and writing through
// one changes nothing outside (T34).
func TestDirLinks(t *testing.T) {
	place := t.TempDir()
	dir := filepath.Join(place, "store")
	writeFile(t, filepath.Join(place, "outside", "secret"), "secret")
	writeFile(t, filepath.Join(dir, "sub", "file"), "inside")
	for name, target := range map[string]string{
		"in": "sub/file", "in2": "sub/../sub/file", "dirin": "sub", "out": "../outside/secret", "dirout": "../outside",
		"abs": filepath.Join(place, "outside", "secret"), "dangling": "nothing", "loop": "loop",
		"victim.3.partial": "sub/file", "escape.3.partial": "../outside/secret",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := bundle.NewDir(dir)
	list, err := s.List(t.Context(), "")
	if got, want := fmt.Sprint(list, err), "[{in 6} {in2 6} {sub/file 6}] <nil>"; got != want {
		t.Errorf("List = %s, want %s", got, want)
	}
	if got := storetest.Read(t, s, "in"); string(got) != "inside" {
		t.Errorf("through a link inside: %q", got)
	}
	for _, name := range []string{"out", "abs", "dirout/secret", "loop", "dangling"} {
		if o, err := s.Open(t.Context(), name); err == nil {
			o.Close()
			t.Errorf("Open(%q) succeeds", name)
		}
	}
	for _, name := range []string{"victim", "escape", "dirout/file", "dirout/secret"} {
		if u, err := s.Create(t.Context(), name, 3); err == nil {
			u.Close()
			t.Errorf("Create(%q) through a link succeeds", name)
		}
	}
	if err := s.Put(t.Context(), "dirout/secret", []byte("changed")); err == nil {
		t.Error("Put through a link that leads out succeeds")
	}
	if err := s.Put(t.Context(), "out", []byte("changed")); err != nil { // replaces the link
		t.Errorf("Put over a link = %v", err)
	}
	if err := s.Remove(t.Context(), "abs"); err != nil {
		t.Errorf("Remove of a link = %v", err)
	}
	for name, want := range map[string]string{filepath.Join(place, "outside", "secret"): "secret", filepath.Join(dir, "sub", "file"): "inside"} {
		if got, err := os.ReadFile(name); string(got) != want {
			t.Errorf("%s holds %q (%v) now", name, got, err)
		}
	}
}

// Files are private while they are written, and like others afterwards (T53);
// nothing is left beside them.
func TestDirModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no modes")
	}
	if os.Getenv("TEST_DIR_MODES") == "" {
		// The umask belongs to the process: each gets one of its own.
		for _, mask := range []string{"000", "022", "027", "077"} {
			cmd := exec.Command("sh", "-c", "umask "+mask+`; exec "$0" -test.run='^TestDirModes$'`, os.Args[0])
			cmd.Env = append(os.Environ(), "TEST_DIR_MODES="+mask)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("umask %s: %v\n%s", mask, err, out)
			}
		}
		return
	}
	final := map[string]string{"000": "-rw-r--r--", "022": "-rw-r--r--", "027": "-rw-r-----", "077": "-rw-------"}[os.Getenv("TEST_DIR_MODES")]
	folder := map[string]string{"000": "drwxr-xr-x", "022": "drwxr-xr-x", "027": "drwxr-x---", "077": "drwx------"}[os.Getenv("TEST_DIR_MODES")]
	dir := t.TempDir()
	s := bundle.NewDir(dir)
	u := storetest.Create(t, s, "d/upload", 3)
	if got, want := files(t, dir), []string{folder + " d", "-rw------- d/upload.3.partial"}; !slices.Equal(got, want) {
		t.Errorf("while writing: %q, want %q", got, want)
	}
	err := errors.Join(storetest.Write(t, u, []byte("abc"), 0, 1), u.Commit(t.Context()), u.Close(),
		s.Put(t.Context(), "d/put", nil), s.PutNew(t.Context(), "d/putnew", nil))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, dir), []string{folder + " d", final + " d/put", final + " d/putnew", final + " d/upload"}; !slices.Equal(got, want) {
		t.Errorf("afterwards: %q, want %q", got, want)
	}
}

// Of 16 that create an object at once one may write it; the others are told
// at once (T52).
func TestDirBusy(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no advisory locks")
	}
	dir := t.TempDir()
	s := bundle.NewDir(dir)
	for round := range 20 {
		uploads, errs := make([]bundle.Upload, 16), make([]error, 16)
		var wg sync.WaitGroup
		for i := range uploads {
			wg.Go(func() { uploads[i], errs[i] = s.Create(t.Context(), "object", 10) })
		}
		wg.Wait()
		var won bundle.Upload
		for i, err := range errs {
			switch {
			case err == nil && won != nil:
				t.Fatal("two write the same object")
			case err == nil:
				won = uploads[i]
			case !errors.Is(err, bundle.ErrBusy):
				t.Errorf("Create = %v, want ErrBusy", err)
			}
		}
		if won == nil {
			t.Fatalf("nobody may write: %v", errs)
		}
		if _, err := s.Create(t.Context(), "object", 11); !errors.Is(err, bundle.ErrBusy) {
			t.Errorf("Create of another size = %v, want ErrBusy", err)
		}
		if err := s.Remove(t.Context(), "object"); !errors.Is(err, bundle.ErrBusy) {
			t.Errorf("Remove = %v, want ErrBusy", err)
		}
		if err := storetest.Write(t, won, []byte("0123456789"), 0, 1); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			if err := won.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := won.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("Remove has left %q", got)
	}
}

// While some commit an object and others begin it anew, what is committed is
// never written any more.
func TestDirCommitRace(t *testing.T) {
	s := bundle.NewDir(t.TempDir())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			content := bytes.Repeat([]byte{byte('a' + i)}, 1000)
			for commits := 0; commits < 40; {
				u, err := s.Create(t.Context(), "object", 1000)
				if errors.Is(err, bundle.ErrBusy) {
					continue
				}
				commits++
				if err == nil {
					err = errors.Join(u.WriteAt(t.Context(), content, 0), u.Commit(t.Context()), u.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
				o, err := s.Open(t.Context(), "object")
				if err != nil {
					t.Error(err)
					return
				}
				r, err := o.Range(t.Context(), 0, 1000)
				if errors.Is(err, bundle.ErrChanged) {
					continue
				}
				if err == nil {
					var got []byte
					got, err = io.ReadAll(r)
					if !bytes.Equal(got, bytes.Repeat(got[:1], 1000)) {
						t.Error("a committed object is a mixture")
					}
					r.Close()
				}
				if err = errors.Join(err, o.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Leftovers of killed processes: swept by Remove, discarded by Create, and no
// objects of their own.
func TestDirLeftovers(t *testing.T) {
	dir := t.TempDir()
	temp := "d/a.tmp" + strings.Repeat("A", 26) + ".partial"
	for _, name := range []string{"d/a.5.partial", "d/a.7.partial", temp, "d/a.5.6.partial", "d/ab.5.partial", "d/a.x.partial", "d/a"} {
		writeFile(t, filepath.Join(dir, name), "12345")
	}
	s := bundle.NewDir(dir)
	if list, err := s.List(t.Context(), ""); fmt.Sprint(list, err) != "[{d/a 5}] <nil>" {
		t.Errorf("List = %v, %v", list, err)
	}
	u := storetest.Create(t, s, "d/a", 7)
	if kept := u.Kept(); kept == nil {
		t.Error("the file of a killed process is not kept")
	} else if n, err := kept.ReadAt(make([]byte, 7), 0); n != 5 || err != io.EOF {
		t.Errorf("ReadAt = %d, %v, want 5, EOF", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "d/a.5.partial")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file of another size is still there: %v", err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "d/a"); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, f := range files(t, dir) {
		left = append(left, strings.Fields(f)[1])
	}
	if want := []string{"d", "d/a.5.6.partial", "d/a.x.partial", "d/ab.5.partial"}; !slices.Equal(left, want) {
		t.Errorf("after Remove: %q, want %q", left, want)
	}
	// An unfinished file longer than its name says is not trusted at all.
	writeFile(t, filepath.Join(dir, "b.3.partial"), "12345")
	u = storetest.Create(t, s, "b", 3)
	if u.Kept() != nil {
		t.Error("an unfinished file that is too long is kept")
	}
	if err := errors.Join(u.WriteAt(t.Context(), []byte("abc"), 0), u.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Read(t, s, "b"); string(got) != "abc" {
		t.Errorf("b holds %q", got)
	}
	// An upload that has got no byte leaves nothing.
	if err := storetest.Create(t, s, "c", 3).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "c.3.partial")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty unfinished file is left: %v", err)
	}
}

// A file that is cut while it is read ends with an error (T03).
func TestDirTruncated(t *testing.T) {
	dir := t.TempDir()
	s := bundle.NewDir(dir)
	content := storetest.Content(1<<20, 1)
	for _, read := range []func(io.Reader) (int64, error){
		func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }, // WriteTo
		func(r io.Reader) (int64, error) { p, err := io.ReadAll(r); return int64(len(p)), err },
	} {
		writeFile(t, filepath.Join(dir, "object"), string(content))
		o, err := s.Open(t.Context(), "object")
		if err != nil {
			t.Fatal(err)
		}
		r, err := o.Range(t.Context(), 10, 1<<20-10)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "object"), 1000); err != nil {
			t.Fatal(err)
		}
		if n, err := read(r); n != 990 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read %d bytes, %v; want 990 and io.ErrUnexpectedEOF", n, err)
		}
		if _, err := o.Range(t.Context(), 0, 10); !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("Range of a cut file = %v, want ErrChanged", err)
		}
		if err := errors.Join(r.Close(), o.Close()); err != nil {
			t.Error(err)
		}
	}
}

// plainFile is satisfied by what the kernel can copy from by itself.
type plainFile struct {
	bytes.Buffer
	plain bool
}

func (w *plainFile) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if ok {
		_, w.plain = limited.R.(*os.File)
	}
	return w.Buffer.ReadFrom(r)
}

// A connection is handed the file itself, so that it can use sendfile.
func TestDirHandsOverTheFile(t *testing.T) {
	s := bundle.NewDir(t.TempDir())
	content := storetest.Content(20<<20, 1)
	if err := s.Put(t.Context(), "object", content); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(t.Context(), "object")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	r, err := o.Range(t.Context(), 1, 19<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var w plainFile
	n, err := writeNTo(r, &w, 20<<20)
	if n != 19<<20 || err != nil || !bytes.Equal(w.Bytes(), content[1:1+19<<20]) {
		t.Errorf("copied %d bytes, %v", n, err)
	}
	if !w.plain {
		t.Error("the writer was not given an io.LimitedReader of an os.File")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if r, err = o.Range(ctx, 0, 20<<20); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if n, err := writeNTo(r, &w, 1); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("copying after cancel = %d, %v", n, err)
	}
}

func writeNTo(r io.Reader, w io.Writer, n int64) (int64, error) {
	return r.(interface {
		WriteNTo(io.Writer, int64) (int64, error)
	}).WriteNTo(w, n)
}

// A Remove takes no file of a Put at the same time, or the Put begins anew.
func TestDirPutWhileRemoved(t *testing.T) {
	s := bundle.NewDir(t.TempDir())
	var puts, removes sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	for range 2 {
		removes.Go(func() {
			for ctx.Err() == nil {
				if err := s.Remove(ctx, "d/object"); err != nil && ctx.Err() == nil && !errors.Is(err, bundle.ErrBusy) {
					t.Errorf("Remove: %v", err)
				}
			}
		})
		puts.Go(func() {
			for range 300 {
				if err := s.Put(t.Context(), "d/object", []byte("content")); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
			}
		})
	}
	puts.Wait()
	end()
	removes.Wait()
}
