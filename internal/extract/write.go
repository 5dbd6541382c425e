package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// writer puts files and directories into a staging directory, within budgets.
type writer struct {
	root   *os.Root
	rep    *Report
	o      Options
	budget int64 // bytes that may still be written
	now    time.Time
	buf    []byte
}

func newWriter(root *os.Root, o Options) *writer {
	return &writer{root: root, rep: &Report{}, o: o, budget: o.MaxBytes, now: time.Now(), buf: make([]byte, 256<<10)}
}

// mkdir makes a directory whose parent is there.
func (w *writer) mkdir(name string) error {
	if err := w.root.Mkdir(name, 0o755); err != nil {
		return w.failed(name, err)
	}
	w.rep.Dirs++
	return nil
}

// file is the header of a regular file.
type file struct {
	size  int64 // bytes; -1 when not known
	exec  bool
	mtime time.Time // zero means now
}

// create writes a new regular file with the content of r, which has f.size
// bytes or ends with an error.
func (w *writer) create(name string, f file, r io.Reader) (err error) {
	if f.size > w.o.MaxFileBytes || f.size > w.budget {
		return fmt.Errorf("%w: %q has %d bytes (at most %d for a file, %d left for all)", ErrLimit, name, f.size, w.o.MaxFileBytes, w.budget)
	}
	perm := fs.FileMode(0o644)
	if f.exec {
		perm = 0o755
	}
	out, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return w.failed(name, err)
	}
	n, err := w.copy(out, name, r)
	if err == nil && syncEachFile {
		err = w.failed(name, out.Sync())
	}
	if cerr := out.Close(); err == nil {
		err = w.failed(name, cerr)
	}
	if err != nil {
		return err
	}
	w.rep.Files++
	w.rep.Bytes += n
	if f.mtime.IsZero() {
		return nil
	}
	mtime := f.mtime
	if epoch := time.Unix(0, 0); mtime.Before(epoch) {
		mtime = epoch
	} else if mtime.After(w.now) {
		mtime = w.now
	}
	return w.failed(name, w.root.Chtimes(name, time.Time{}, mtime))
}

// copy is io.Copy that tells errors of reading from those of writing, and
// keeps to the budgets.
func (w *writer) copy(out io.Writer, name string, r io.Reader) (n int64, err error) {
	for {
		k, rerr := r.Read(w.buf)
		n += int64(k)
		w.budget -= int64(k)
		if n > w.o.MaxFileBytes || w.budget < 0 {
			return n, fmt.Errorf("%w: %q has more bytes (%d for a file, %d for all)", ErrLimit, name, w.o.MaxFileBytes, w.o.MaxBytes)
		}
		if _, err := out.Write(w.buf[:k]); err != nil {
			return n, w.failed(name, err)
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, fmt.Errorf("%q: %w", name, invalid(rerr))
		}
	}
}

// remove takes back a file that create has written, for a later entry of the
// same name and layer.
func (w *writer) remove(name string) error {
	fi, err := w.root.Lstat(name)
	if err == nil {
		err = w.root.Remove(name)
	}
	if err != nil {
		return w.failed(name, err)
	}
	w.rep.Files--
	w.rep.Bytes -= fi.Size()
	return nil
}

// link makes name a further name of the file at. Where the file system has no
// hard links, or no more for this file, it is a copy.
func (w *writer) link(at, name string) error {
	if err := w.root.Link(at, name); err == nil {
		w.rep.Files++
		return nil
	}
	in, err := w.root.Open(at)
	if err != nil {
		return w.failed(at, err)
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return w.failed(at, err)
	}
	return w.create(name, file{fi.Size(), fi.Mode()&0o100 != 0, fi.ModTime()}, in)
}

// symlink makes a symbolic link.
func (w *writer) symlink(target, name string) error {
	if err := w.root.Symlink(target, name); err != nil {
		return w.failed(name, err)
	}
	w.rep.Links++
	return nil
}

// failed makes an error of the file system one of this package. All names that
// are written are new, so one that is there already is one that the file
// system takes for another.
func (w *writer) failed(name string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: the destination takes %q in %q for a name that it has", ErrCollision, path.Base(name), path.Dir(name))
	case errors.As(err, &pe):
		err = pe.Err // its text has the name unquoted
	case errors.As(err, &le):
		err = le.Err
	}
	if noSpace(err) {
		return fmt.Errorf("%w: writing %q: %w", ErrNoSpace, name, err)
	}
	return fmt.Errorf("writing %q: %w", name, err)
}
