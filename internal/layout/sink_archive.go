package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

// Archive is a tar archive of an OCI image layout that is written. Its methods
// but Close are safe for concurrent use.
//
// Each blob gets its place when it is begun, for its size is known, so several
// can be written at once. Until Finish all is in a file beside, whose name has
// ".partial" added. The archive has mode 0644 less the umask.
type Archive struct {
	path  string
	lock  bundle.Upload
	turns turns
	// link is os.Link; tests make it fail as FAT does.
	link func(oldName, newName string) error

	mu    sync.Mutex
	file  *os.File // nil when it is closed
	begun bool     // the file has its first name
	end   int64    // of what has its place, in bytes
	blobs map[verify.Digest]*slot
}

// slot is the place of a blob in an [Archive].
type slot struct {
	off  int64 // of the header, in bytes
	size int64 // of the blob, in bytes
	done bool
}

// NewArchive begins the archive path, which is there after Finish. Errors:
// [ErrExists] when there is anything of that name; [bundle.ErrBusy] when
// another process writes it (not seen on Windows).
func NewArchive(path string) (*Archive, error) {
	a := &Archive{path: filepath.Clean(path), link: os.Link, blobs: map[verify.Digest]*slot{}}
	if err := a.begin(); err != nil {
		a.Close()
		return nil, fmt.Errorf("writing %q: %w", path, diskError(err))
	}
	return a, nil
}

func (a *Archive) begin() error {
	if err := a.free(); err != nil {
		return err
	}
	dir, base := filepath.Split(a.path)
	var err error
	a.lock, err = bundle.NewDir(dir).Create(context.Background(), base+".lock", 0)
	if err != nil {
		return err
	}
	// An interrupted run may have left one, which is ours with the lock.
	if err := os.Remove(a.partial()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.file, err = os.OpenFile(a.partial(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	a.begun = true
	return a.append(markerName, []byte(marker))
}

func (a *Archive) partial() string { return a.path + ".partial" }

// free returns an [ErrExists] when the name is taken.
func (a *Archive) free() error {
	_, err := os.Lstat(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(err, ErrExists)
}

// reserve returns the offset of a file of size bytes with its header.
func (a *Archive) reserve(name string, size int64) (off int64, header []byte) {
	header = bundle.TarHeader(name, size)
	off = a.end
	a.end += int64(len(header)) + size + -size&(tarBlock-1)
	return off, header
}

// append writes a small file at the end.
func (a *Archive) append(name string, content []byte) error {
	off, header := a.reserve(name, int64(len(content)))
	_, err := a.file.WriteAt(append(header, content...), off)
	return err
}

// Has reports whether the content of d was written.
func (a *Archive) Has(_ context.Context, d oci.Descriptor) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.blobs[d.Digest]
	return s != nil && s.done && s.size == d.Size, nil
}

// WriteBlob stores the content of d, which it reads from r, unless it was
// written before: then r is not read. After an error it can be called again for
// the same blob. Errors: [verify.ErrMismatch], [bundle.ErrNoSpace], those of r.
func (a *Archive) WriteBlob(ctx context.Context, d oci.Descriptor, r io.Reader) error {
	err := checkBlob(d)
	if err == nil {
		err = a.write(ctx, d, r)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, diskError(err))
	}
	return nil
}

func (a *Archive) write(ctx context.Context, d oci.Descriptor, r io.Reader) error {
	end, err := a.turns.take(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer end()
	s, header, err := a.slot(d)
	if err != nil || s.done {
		return err
	}
	if _, err := a.file.WriteAt(header, s.off); err != nil {
		return err
	}
	// The padding is a hole: nothing was ever written there.
	if err := copyBlob(ctx, io.NewOffsetWriter(a.file, s.off+int64(len(header))), d, r); err != nil {
		return err
	}
	a.mu.Lock()
	s.done = true
	a.mu.Unlock()
	return nil
}

// slot returns the place of a blob, whose turn the caller has, and its header.
func (a *Archive) slot(d oci.Descriptor) (*slot, []byte, error) {
	name := blobName(d.Digest)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil, nil, fs.ErrClosed
	}
	if s := a.blobs[d.Digest]; s != nil {
		if s.size != d.Size {
			return nil, nil, fmt.Errorf("it has two sizes, %d and %d", s.size, d.Size)
		}
		return s, bundle.TarHeader(name, d.Size), nil
	}
	off, header := a.reserve(name, d.Size)
	s := &slot{off: off, size: d.Size}
	a.blobs[d.Digest] = s
	return s, header, nil
}

// Finish writes index.json, with images, and gives the archive its name, once.
// It is an error while a blob is not whole. Errors:
// [bundle.ErrNotFound] for a manifest that was not written, [ErrExists]
// when the name was taken meanwhile, [bundle.ErrNoSpace].
func (a *Archive) Finish(ctx context.Context, images []Named) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.finish(ctx, images); err != nil {
		return fmt.Errorf("finishing %q: %w", a.path, diskError(err))
	}
	return nil
}

func (a *Archive) finish(ctx context.Context, images []Named) error {
	if a.file == nil {
		return fs.ErrClosed
	}
	for d, s := range a.blobs {
		if !s.done {
			return fmt.Errorf("%s was not written whole", d)
		}
	}
	for _, i := range images {
		if s := a.blobs[i.Descriptor.Digest]; s == nil || s.size != i.Descriptor.Size {
			return fmt.Errorf("listing %s in %s: %w", i.Descriptor.Digest, indexName, bundle.ErrNotFound)
		}
	}
	index, err := mergeIndex(nil, images)
	if err != nil {
		return err
	}
	if err := a.append(indexName, index); err != nil {
		return err
	}
	// Padding and trailer are zeros, as is what Truncate adds.
	if err := a.file.Truncate(a.end + 2*tarBlock); err != nil {
		return err
	}
	if err := cmp.Or(a.file.Sync(), ctx.Err()); err != nil {
		return err
	}
	return a.publish()
}

// publish closes the file and gives it its name, which must be free.
func (a *Archive) publish() error {
	written, err := a.file.Stat()
	if err != nil {
		return err
	}
	// Where locks do not work, somebody else may have begun the same archive.
	named, err := os.Lstat(a.partial())
	if err != nil {
		return err
	}
	if !os.SameFile(written, named) {
		a.begun = false // that one is not ours
		return bundle.ErrBusy
	}
	// Windows renames no open files.
	err = a.file.Close()
	a.file = nil
	if err != nil {
		return err
	}
	switch err = a.link(a.partial(), a.path); {
	case errors.Is(err, fs.ErrExist):
		return ErrExists
	case err == nil:
		err = os.Remove(a.partial())
	default:
		// A file system without hard links (FAT): others than ferry may
		// take the name between the look and the renaming.
		if err = a.free(); err == nil {
			err = os.Rename(a.partial(), a.path)
		}
	}
	if err != nil {
		return err
	}
	a.begun = false
	return syncDir(filepath.Dir(a.path))
}

// Close removes what was not finished.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	if a.file != nil {
		err = a.file.Close()
		a.file = nil
	}
	if a.begun {
		err = cmp.Or(err, os.Remove(a.partial()))
		a.begun = false
	}
	if a.lock != nil {
		err = cmp.Or(err, a.lock.Close())
	}
	return err
}

// syncDir makes what was done in a folder survive a loss of power, where a
// folder can be synced.
func syncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// diskError returns err, which is an [bundle.ErrNoSpace] too when it says that
// a disk or a quota is full.
func diskError(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if runtime.GOOS == "windows" { // ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL, ERROR_DISK_QUOTA_EXCEEDED
		for _, code := range []syscall.Errno{39, 112, 1295} {
			full = full || errors.Is(err, code)
		}
	}
	if full && !errors.Is(err, bundle.ErrNoSpace) {
		return fmt.Errorf("%w: %w", bundle.ErrNoSpace, err)
	}
	return err
}
