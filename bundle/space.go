package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Space is what a file system has left for a folder.
type Space struct {
	Folder     string // that was asked; one above it when it is not there yet
	FileSystem string // the same for two folders of one file system
	Free       int64  // bytes that this user can still write
	Block      int64  // bytes; a file takes a whole number of blocks at least
}

// Round returns the bytes that size bytes of a file take.
func (s Space) Round(size int64) int64 {
	block := max(s.Block, 1)
	return (size + block - 1) / block * block
}

// OnDisk returns the directory that a store writes to, and false when it
// writes to none, as a bucket does.
func OnDisk(store Store) (*Dir, bool) {
	switch s := store.(type) {
	case *Dir:
		return s, true
	case sub:
		if d, ok := OnDisk(s.store); ok {
			return NewDir(filepath.Join(d.path, filepath.FromSlash(s.prefix))), true
		}
	}
	return nil, false
}

// Space returns what room there is in the directory, or where it would be made.
// Blocks that only root may use do not count, nor do those behind a quota that
// the system tells. It writes nothing. Errors: [errors.ErrUnsupported] where
// the file system does not tell, as some on a network.
func (d *Dir) Space(ctx context.Context) (Space, error) {
	if err := ctx.Err(); err != nil {
		return Space{}, err
	}
	folder, err := nearest(d.path)
	if err == nil {
		var s Space
		if s, err = spaceOf(folder); err == nil {
			return s, nil
		}
	}
	return Space{}, fmt.Errorf("room in %s: %w", d.path, err)
}

// nearest returns path, or the first folder above it that is there.
func nearest(path string) (string, error) {
	for {
		_, err := os.Stat(path)
		parent := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || parent == path {
			return path, err
		}
		path = parent
	}
}

// Left is what stands in a directory under the name of an object, and beside
// it from uploads that were interrupted. Sizes are bytes that the file system
// has given out, which are fewer than a file's length when it has holes.
type Left struct {
	Object int64 // the object itself
	Kept   int64 // what the next Create of the same size goes on with
	Stale  int64 // what the next Create discards
}

// Left looks at what is there of the object name, of size bytes. It writes
// nothing.
func (d *Dir) Left(ctx context.Context, name string, size int64) (Left, error) {
	var left Left
	root, err := d.openForReading(ctx, name)
	if root == nil || err != nil {
		return left, err
	}
	defer root.Close()
	if info, err := root.Stat(filepath.FromSlash(name)); err == nil && info.Mode().IsRegular() {
		left.Object = allocated(info)
	}
	if info, err := root.Stat(filepath.Dir(filepath.FromSlash(name))); err != nil || !info.IsDir() {
		return left, nil
	}
	names, err := leftovers(root, name)
	if err != nil {
		return left, d.fail("looking for", name, err)
	}
	for _, partial := range names {
		info, err := root.Lstat(filepath.FromSlash(partial))
		switch {
		case err != nil || isTemp(partial):
		case partial == partialName(name, size):
			left.Kept = allocated(info)
		default:
			left.Stale += allocated(info)
		}
	}
	return left, nil
}

// kept returns what an interrupted upload has left of the object name, or nil.
// Unlike [Upload.Kept] it takes no lock and makes nothing.
func (d *Dir) kept(ctx context.Context, name string, size int64) (io.ReaderAt, func(), error) {
	root, err := d.openForReading(ctx, name)
	if root == nil || err != nil {
		return nil, nil, err
	}
	defer root.Close()
	f, info, err := openRegular(root, partialName(name, size))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, d.fail("reading what is left of", name, err)
	}
	if info.Size() == 0 || info.Size() > size {
		f.Close()
		return nil, nil, nil
	}
	return f, func() { f.Close() }, nil
}

// openForReading returns the directory, or nil when it is not there.
func (d *Dir) openForReading(ctx context.Context, name string) (*os.Root, error) {
	if err := errors.Join(ctx.Err(), CheckName(name)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.fail("opening", ".", err)
	}
	return root, nil
}

// partialName is what [Dir.Create] calls the file that it writes.
func partialName(name string, size int64) string {
	return fmt.Sprintf("%s.%d%s", name, size, partialSuffix)
}

// Usage adds up what a run of writes takes of the file system of a directory.
// Its methods write nothing; they are called in the order of the writes.
type Usage struct {
	ctx       context.Context // of the look, which is short
	dir       *Dir
	space     Space
	taken     map[string]int64 // bytes, by objects of this run
	now, peak int64            // bytes more than are taken now
	err       error
}

// NewUsage begins to add up.
func NewUsage(ctx context.Context, dir *Dir) *Usage {
	space, err := dir.Space(ctx)
	if err != nil { // a write will tell what is wrong, if anything is
		space = Space{Folder: dir.path, Free: -1}
	}
	return &Usage{ctx: ctx, dir: dir, space: space, taken: map[string]int64{}}
}

// Room is what a run of writes needs of a file system, and what there is.
type Room struct {
	Space        // with -1 bytes free where that is not told
	Needed int64 // bytes at the peak, more than are taken now
}

// Missing returns how many bytes are too few; 0 when it fits, or when that can
// not be told.
func (r Room) Missing() int64 {
	if r.Free < 0 {
		return 0
	}
	return max(0, r.Needed-r.Free)
}

// Room returns the sum, or the first error there was.
func (u *Usage) Room() (*Room, error) { return &Room{Space: u.space, Needed: u.peak}, u.err }

// Put counts [Dir.Put]: the new object is written beside the old.
func (u *Usage) Put(name string, size int64) {
	old := u.left(name, size).Object
	u.taken[name] = u.space.Round(size)
	u.add(u.taken[name])
	u.add(-old)
}

// Create counts [Dir.Create] and all of its writing, in blocks that an
// interrupted one has not taken yet. An object that has the name stays until
// replaced is called.
func (u *Usage) Create(name string, size int64) (replaced func()) {
	left := u.left(name, size)
	u.add(-left.Stale)
	u.taken[name] = u.space.Round(size)
	u.add(max(0, u.taken[name]-left.Kept))
	return func() { u.add(-left.Object) }
}

// Replace counts a file of size bytes that is written after one has been
// removed; removed may be nil.
func (u *Usage) Replace(removed fs.FileInfo, size int64) {
	if removed != nil {
		u.add(-allocated(removed))
	}
	u.add(u.space.Round(size))
}

// discard counts [Dir.Remove].
func (u *Usage) discard(name string, size int64) {
	left := u.left(name, size)
	u.taken[name] = 0
	u.add(-left.Object - left.Kept - left.Stale)
}

func (u *Usage) add(n int64) {
	u.now += n
	u.peak = max(u.peak, u.now)
}

// left returns what stands under a name and beside it.
func (u *Usage) left(name string, size int64) Left {
	if n, ok := u.taken[name]; ok {
		return Left{Object: n}
	}
	left, err := u.dir.Left(u.ctx, name, size)
	u.err = cmp.Or(u.err, err)
	return left
}
