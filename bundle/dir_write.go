package bundle

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	dirMode     fs.FileMode = 0o755 // less the umask
	fileMode    fs.FileMode = 0o644 // less the umask, when finished
	partialMode fs.FileMode = 0o600
)

// Put implements [Store].
func (d *Dir) Put(ctx context.Context, name string, content []byte) error {
	return d.put(ctx, name, content, func(root *os.Root, temp string) error {
		return root.Rename(filepath.FromSlash(temp), filepath.FromSlash(name))
	})
}

// PutNew implements [Store].
func (d *Dir) PutNew(ctx context.Context, name string, content []byte) error {
	return d.put(ctx, name, content, func(root *os.Root, temp string) error {
		err := d.link(root, filepath.FromSlash(temp), filepath.FromSlash(name))
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		return renameNew(ctx, root, temp, name)
	})
}

// put writes content to a temporary file, which publish gives its name.
func (d *Dir) put(ctx context.Context, name string, content []byte, publish func(root *os.Root, temp string) error) error {
	root, err := d.openForWriting(ctx, name)
	if err != nil {
		return err
	}
	defer root.Close()
	for range maxSwept {
		if err = d.putOnce(ctx, root, name, content, publish); !errors.Is(err, errSwept) {
			break
		}
	}
	if err == nil {
		err = syncDirs(root, name)
	}
	if err != nil {
		return d.fail("writing", name, err)
	}
	return nil
}

// errSwept says that a Remove at the same time has taken a temporary file for a
// leftover, before it was locked. maxSwept is how often that is put up with.
var errSwept = errors.New("the temporary file was removed by somebody else")

const maxSwept = 10

func (d *Dir) putOnce(ctx context.Context, root *os.Root, name string, content []byte, publish func(root *os.Root, temp string) error) error {
	temp := name + ".tmp" + rand.Text() + partialSuffix
	f, err := root.OpenFile(filepath.FromSlash(temp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, partialMode)
	if err != nil {
		return err
	}
	lock(f) // so that a Remove at the same time does not take it for a leftover
	defer root.Remove(filepath.FromSlash(temp))
	_, err = f.Write(content)
	if err == nil {
		err = finish(f)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = publish(root, temp)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		if _, gone := root.Lstat(filepath.FromSlash(temp)); errors.Is(gone, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errSwept, err)
		}
	}
	return cmp.Or(err, f.Close())
}

// finish gives a file that has been written its final mode and makes it last.
func finish(f *os.File) error {
	f.Chmod(fileMode &^ umask) // file systems without modes (FAT) refuse
	return f.Sync()
}

// openForWriting returns the directory, made if it was not there, with those
// that name needs. The caller closes it.
func (d *Dir) openForWriting(ctx context.Context, name string) (*os.Root, error) {
	if err := cmp.Or(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	if err := makeDirs(d.path); err != nil {
		return nil, d.fail("creating", ".", err)
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, d.fail("opening", ".", err)
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(filepath.FromSlash(dir), dirMode); err != nil {
			root.Close()
			return nil, d.fail("creating", dir, err)
		}
	}
	return root, nil
}

// makeDirs is os.MkdirAll of directories that survive a loss of power.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer root.Close()
	return syncDir(root, ".")
}

// syncDirs syncs the directories from that of name up to the root: each of
// them may be new.
func syncDirs(root *os.Root, name string) error {
	for name != "." {
		name = path.Dir(name)
		if err := syncDir(root, name); err != nil {
			return err
		}
	}
	return nil
}

// Create implements [Store].
func (d *Dir) Create(ctx context.Context, name string, size int64) (Upload, error) {
	if size < 0 {
		return nil, fmt.Errorf("creating %s: size %d: %w", name, size, fs.ErrInvalid)
	}
	root, err := d.openForWriting(ctx, name)
	if err != nil {
		return nil, err
	}
	u := &dirUpload{dir: d, root: root, name: name, size: size}
	u.partial = partialName(name, size)
	if u.file, err = openPartial(root, u.partial, os.O_CREATE); err == nil {
		err = u.begin()
	}
	if err != nil {
		u.Close()
		return nil, d.fail("creating", name, err)
	}
	return u, nil
}

// openPartial opens the file name and locks it, or returns [ErrBusy].
func openPartial(root *os.Root, name string, flag int) (*os.File, error) {
	local := filepath.FromSlash(name)
	// The file may have got its final name, or have been removed, between
	// opening and locking, so that the lock is one of another file than the
	// name's. A link in that place is never the file that was opened.
	for range 10 {
		f, err := root.OpenFile(local, os.O_RDWR|flag, partialMode)
		if err != nil {
			return nil, err
		}
		if !lock(f) {
			f.Close()
			return nil, ErrBusy
		}
		opened, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		named, err := root.Lstat(local)
		if err == nil && os.SameFile(opened, named) && named.Mode().IsRegular() {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, errors.New("the unfinished file is a link or is replaced all the time")
}

// begin looks at what is in the file, and discards what other sizes left.
func (u *dirUpload) begin() error {
	names, err := leftovers(u.root, u.name)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == u.partial || isTemp(name) {
			continue
		}
		if err := discard(u.root, name); err != nil {
			return err
		}
	}
	u.file.Chmod(partialMode) // a Commit that broke off may have changed it
	info, err := u.file.Stat()
	if err != nil {
		return err
	}
	u.kept = info.Size()
	if u.kept > u.size {
		u.kept = 0
		if err := u.file.Truncate(0); err != nil {
			return err
		}
	}
	return reserve(u.file, u.size)
}

var leftoverPattern = regexp.MustCompile(`^\.([0-9]{1,19}|tmp[A-Z2-7]{26})\.partial$`)

func isTemp(name string) bool {
	return strings.HasPrefix(path.Ext(strings.TrimSuffix(name, partialSuffix)), ".tmp")
}

// leftovers returns the names of the unfinished files of the object name.
func leftovers(root *os.Root, name string) ([]string, error) {
	var names []string
	dir, base := path.Split(name)
	err := eachEntry(context.Background(), root, path.Join(".", dir), func(e fs.DirEntry) error {
		if rest, ok := strings.CutPrefix(e.Name(), base); ok && leftoverPattern.MatchString(rest) {
			names = append(names, dir+e.Name())
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// discard removes the unfinished file name, unless somebody is writing it.
func discard(root *os.Root, name string) error {
	f, err := openPartial(root, name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := root.Remove(filepath.FromSlash(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove implements [Store]. It is an [ErrBusy] while the object is written.
// Directories stay.
func (d *Dir) Remove(ctx context.Context, name string) error {
	if err := cmp.Or(ctx.Err(), CheckName(name)); err != nil {
		return err
	}
	root, err := os.OpenRoot(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer root.Close()
		err = remove(root, name)
	}
	if err != nil {
		return d.fail("removing", name, err)
	}
	return nil
}

func remove(root *os.Root, name string) error {
	// When the directory is missing, there is nothing to remove.
	if info, err := root.Stat(filepath.FromSlash(path.Dir(name))); err != nil || !info.IsDir() {
		if errors.Is(err, fs.ErrNotExist) || err == nil {
			return nil
		}
		return err
	}
	names, err := leftovers(root, name)
	if err != nil {
		return err
	}
	for _, left := range names {
		err := discard(root, left)
		if err != nil && !(isTemp(left) && errors.Is(err, ErrBusy)) {
			return err
		}
	}
	info, err := root.Lstat(filepath.FromSlash(name))
	if err == nil && !info.IsDir() {
		err = root.Remove(filepath.FromSlash(name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(root, path.Dir(name))
}

// dirUpload is an object in the making, in a file beside its place.
type dirUpload struct {
	dir     *Dir
	root    *os.Root
	file    *os.File
	name    string
	partial string
	size    int64 // bytes, of the whole object
	kept    int64 // bytes that were in the file at the start
	written Spans
	// turn is held by who writes: the kernel lets one write to a file at a
	// time, and who waits there burns the time of a core.
	turn   sync.Mutex
	closed atomic.Bool

	dirty     atomic.Int64   // bytes written since the last writeback was begun
	writeback sync.WaitGroup // those that are being begun
}

// writebackStep, in bytes, is how much is written before it is sent on its way
// to the disk, so that Commit does not wait for all of it.
const writebackStep = 32 << 20

// WriteAt implements [Upload]. Bytes may be written again.
func (u *dirUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := cmp.Or(ctx.Err(), CheckRange(off, int64(len(p)), u.size)); err != nil {
		return u.dir.fail("writing", u.name, err)
	}
	u.turn.Lock()
	n, err := u.file.WriteAt(p, off)
	u.turn.Unlock()
	u.written.Add(off, int64(n))
	if err != nil {
		return u.dir.fail("writing", u.name, err)
	}
	if dirty := u.dirty.Add(int64(n)); dirty >= writebackStep && u.dirty.CompareAndSwap(dirty, 0) {
		u.writeback.Go(func() { beginWriteback(u.file) })
	}
	return nil
}

// Kept implements [Upload].
func (u *dirUpload) Kept() io.ReaderAt {
	if u.kept == 0 {
		return nil
	}
	return keptReader{u}
}

type keptReader struct{ upload *dirUpload }

func (r keptReader) ReadAt(p []byte, off int64) (int, error) {
	u := r.upload
	if off < 0 || off >= u.kept {
		return 0, io.EOF
	}
	want := min(int64(len(p)), u.kept-off)
	n, err := u.file.ReadAt(p[:want], off)
	u.written.Add(off, int64(n))
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Commit implements [Upload].
func (u *dirUpload) Commit(ctx context.Context) error {
	if u.closed.Load() {
		return u.dir.fail("finishing", u.name, fs.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := u.publish(); err != nil {
		return u.dir.fail("finishing", u.name, err)
	}
	// The file stays open until it has its name, because that keeps the lock.
	if err := cmp.Or(syncDirs(u.root, u.name), u.release()); err != nil {
		return u.dir.fail("finishing", u.name, err)
	}
	return nil
}

func (u *dirUpload) publish() error {
	if missing := u.size - u.written.Bytes(); missing > 0 {
		return fmt.Errorf("%d of %d bytes were not written", missing, u.size)
	}
	if err := finish(u.file); err != nil {
		// The kernel may have dropped what it could not write, and would
		// call it written the next time: nothing of it can be kept.
		u.file.Truncate(0)
		return err
	}
	return u.root.Rename(filepath.FromSlash(u.partial), filepath.FromSlash(u.name))
}

// release closes the files, once.
func (u *dirUpload) release() error {
	if u.closed.Swap(true) {
		return nil
	}
	var err error
	if u.file != nil {
		u.writeback.Wait()
		err = u.file.Close()
	}
	return cmp.Or(err, u.root.Close())
}

// Close implements [Upload]. An empty file is not worth keeping.
func (u *dirUpload) Close() error {
	if !u.closed.Load() && u.file != nil {
		if info, err := u.file.Stat(); err == nil && info.Size() == 0 {
			u.root.Remove(filepath.FromSlash(u.partial))
		}
	}
	if err := u.release(); err != nil {
		return u.dir.fail("closing", u.name, err)
	}
	return nil
}
