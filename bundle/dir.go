package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Dir is a [Store] in a directory of the file system: an object is the regular
// file of its name. Symbolic links count as what they lead to, as long as that
// lies in the directory; a link to a directory is not listed.
//
// Reading never writes, so the directory may be a read-only medium: only Put,
// PutNew and Create make the directory, and those below it.
//
// Every write goes to a file beside its object whose name ends in ".partial".
// Such files are private (mode 0600) and are never listed or opened; finished
// ones have mode 0644 and directories 0755, less the umask, like what any
// other tool writes. What is finished has been synced to the disk, the
// directory entry too.
//
//   - NAME.SIZE.partial is what [Dir.Create] writes. It is as long as what has
//     been written: a file system without holes (FAT) would fill a longer one
//     with zeros, and each byte would go to a slow medium twice. It is locked
//     (flock), so that a second writer gets [ErrBusy]. Windows has no such lock.
//   - NAME.tmpRANDOM.partial is what [Dir.Put] and [Dir.PutNew] write.
//
// PutNew makes a hard link to get a name that nobody has. On a file system
// without links it locks the directory, looks whether the name is free, and
// renames. A part is never seen there either, and of several PutNew on one
// machine one wins; but a Put of that name at the same time may be replaced.
//
// Errors are those of [Store]; and a file system that is mounted read-only is
// an [ErrReadOnly] and an [fs.ErrPermission], missing rights are an
// [fs.ErrPermission], a full disk or quota is an [ErrNoSpace].
type Dir struct {
	path string
	// link is root.Link; tests make it fail as FAT does.
	link func(root *os.Root, oldName, newName string) error
}

var _ Store = (*Dir)(nil)

// NewDir returns the store in the directory path, which need not exist.
// It does not touch it.
func NewDir(path string) *Dir {
	return &Dir{path: filepath.Clean(path), link: (*os.Root).Link}
}

// String implements [Store]: it is the path.
func (d *Dir) String() string { return d.path }

// Open implements [Store].
func (d *Dir) Open(ctx context.Context, name string) (Object, error) {
	if err := cmp.Or(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, d.fail("opening", name, err)
	}
	defer root.Close()
	f, info, err := openRegular(root, name)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, d.fail("opening", name, err)
	}
	return &dirObject{dir: d, name: name, info: info}, nil
}

// openRegular opens the file name for reading if it is a regular one.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	// Without O_NONBLOCK, opening a fifo would wait for a writer (T36).
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil, &kindError{err, ErrNotFound}
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &kindError{errors.New("not a regular file"), ErrNotFound}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// dirObject is the file that had the name when it was opened. It holds no file
// descriptor: a bundle can have more volumes than a process may have files.
type dirObject struct {
	dir  *Dir
	name string
	info fs.FileInfo
}

func (o *dirObject) Size() int64 { return o.info.Size() }
func (*dirObject) Close() error  { return nil }

// Range opens the file anew, so that the stream has a file offset of its own
// and a connection can be handed the file itself.
func (o *dirObject) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	err := cmp.Or(ctx.Err(), CheckRange(off, n, o.Size()))
	var f *os.File
	if err == nil {
		f, err = o.reopen()
	}
	if err == nil {
		if _, err = f.Seek(off, io.SeekStart); err == nil {
			return &dirStream{ctx: ctx, object: o, file: f, left: n}, nil
		}
		f.Close()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, o.dir.fail("reading", o.name, err)
}

// reopen opens the file once more. Errors: [ErrChanged].
func (o *dirObject) reopen() (*os.File, error) {
	root, err := os.OpenRoot(o.dir.path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, info, err := openRegular(root, o.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrChanged
	}
	if err != nil {
		return nil, err
	}
	// The number of a file that is gone may be given to another one.
	if !os.SameFile(info, o.info) || info.Size() != o.info.Size() || !info.ModTime().Equal(o.info.ModTime()) {
		f.Close()
		return nil, ErrChanged
	}
	return f, nil
}

// dirStream reads the left bytes that come next from file, which is its own.
type dirStream struct {
	ctx    context.Context // of the Range, which lives as long as the stream
	object *dirObject
	file   *os.File
	left   int64
}

func (s *dirStream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.file.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, s.streamError(err)
}

// WriteNTo writes the next n bytes to w, or what is left of them, and hands it
// a plain file: it may have a faster way to take it than through a buffer
// (sendfile, copy_file_range).
func (s *dirStream) WriteNTo(w io.Writer, n int64) (int64, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := io.CopyN(w, s.file, min(s.left, n))
	s.left -= n
	return n, s.streamError(err)
}

func (s *dirStream) streamError(err error) error {
	switch {
	case err == nil || err == io.EOF && s.left == 0:
		return nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return s.object.dir.fail("reading", s.object.name, err)
}

func (s *dirStream) Close() error { return s.file.Close() }

// List implements [Store]. Directories below the store's that may not be read
// are left out: the root of a disk often has one (lost+found).
func (d *Dir) List(ctx context.Context, prefix string) ([]Info, error) {
	start := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		start = prefix[:i]
		if CheckName(start) != nil {
			return nil, ctx.Err() // no object's name begins so
		}
	}
	root, err := os.OpenRoot(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, d.fail("listing", ".", err)
	}
	defer root.Close()
	var list []Info
	for todo := []string{start}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		err := eachEntry(ctx, root, dir, func(e fs.DirEntry) error {
			name := path.Join(dir, e.Name())
			if CheckName(name) != nil {
				return nil
			}
			if e.IsDir() {
				if below := name + "/"; strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below) {
					todo = append(todo, name)
				}
				return nil
			}
			if size, ok := regularSize(root, name, e); ok && strings.HasPrefix(name, prefix) {
				list = append(list, Info{Name: name, Size: size})
			}
			if len(list)+len(todo) > MaxList {
				return fmt.Errorf("more than %d files", MaxList)
			}
			return nil
		})
		missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		hidden := dir != start && errors.Is(err, fs.ErrPermission)
		if err != nil && !missing && !hidden {
			return nil, d.fail("listing", dir, err)
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// eachEntry calls f for what is in the directory dir, in no order. It holds
// few of the entries in memory.
func eachEntry(ctx context.Context, root *os.Root, dir string, f func(fs.DirEntry) error) error {
	file, err := root.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		entries, err := file.ReadDir(1000)
		for _, e := range entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// regularSize returns the size in bytes of the regular file name, which may be
// one at the end of links that stay below root.
func regularSize(root *os.Root, name string, e fs.DirEntry) (int64, bool) {
	info, err := e.Info()
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = root.Stat(filepath.FromSlash(name))
	}
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// kindError is the error cause that is also the error kind to errors.Is.
type kindError struct{ cause, kind error }

func (e *kindError) Error() string   { return e.cause.Error() }
func (e *kindError) Unwrap() []error { return []error{e.cause, e.kind} }

// fail says what was done with which file, once, and of which kind err is.
func (d *Dir) fail(doing, name string, err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		err = unwrapTo(err, pathErr.Err)
	case errors.As(err, &linkErr):
		err = unwrapTo(err, linkErr.Err)
	}
	for _, e := range fullErrors {
		if errors.Is(err, e) {
			err = &kindError{err, ErrNoSpace}
			break
		}
	}
	if errors.Is(err, readOnlyError) {
		err = &kindError{&kindError{err, fs.ErrPermission}, ErrReadOnly}
	}
	return fmt.Errorf("%s %s: %w", doing, filepath.Join(d.path, filepath.FromSlash(name)), err)
}

// unwrapTo returns the cause inner of err, and keeps the kind that err has.
func unwrapTo(err, inner error) error {
	var kind *kindError
	if errors.As(err, &kind) {
		return &kindError{inner, kind.kind}
	}
	return inner
}
