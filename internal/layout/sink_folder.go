package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"ferry/bundle"
	"ferry/internal/oci"
)

// lockName is what a [Folder] has begun to write for as long as it is open,
// so that no other writes there.
const lockName = ".ferry-lock"

// Folder is an OCI image layout in a folder that is written. Its methods but
// Close are safe for concurrent use.
//
// A blob stands under its name when its digest was found right and it is on the
// disk, so that an interrupted run can be continued; index.json names an image
// when all runs before it and Finish went well. Files have mode 0644 less the
// umask.
type Folder struct {
	path    string
	store   bundle.Store
	lock    bundle.Upload
	turns   turns
	written sync.Map // verify.Digest of the blobs of this run

	mu sync.Mutex // of index.json
}

// NewFolder makes the folder path an image layout, if it is none, to be written
// until it is closed. Errors: [ErrExists] for a folder that has other
// things in it, and for a file; [bundle.ErrBusy] when another process writes
// there (not seen on Windows); [ErrInvalid] for a layout that can not be read.
func NewFolder(path string) (*Folder, error) {
	f := &Folder{path: path, store: bundle.NewDir(path)}
	if err := f.begin(context.Background()); err != nil {
		f.Close()
		return nil, fmt.Errorf("writing an image layout to %q: %w", path, err)
	}
	return f, nil
}

func (f *Folder) begin(ctx context.Context) error {
	there, err := f.check(ctx)
	if err != nil {
		return err
	}
	if f.lock, err = f.store.Create(ctx, lockName, 0); err != nil {
		return err
	}
	if !there {
		if err := f.store.Put(ctx, markerName, []byte(marker)); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(f.path)
	if err != nil {
		return err
	}
	return cmp.Or(root.MkdirAll(strings.TrimSuffix(blobFolder, "/"), 0o755), root.Close())
}

// check reports whether there is a layout already. Anything else but an empty
// folder is an error; what interrupted runs have left does not count.
func (f *Folder) check(ctx context.Context) (bool, error) {
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(f.path); err == nil {
			return false, fmt.Errorf("%w: a link to nothing", ErrExists)
		}
		return false, nil
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("not a folder: %w", ErrExists)
	}
	if err != nil {
		return false, plainCause(err)
	}
	content, err := readSmall(ctx, f.store, markerName, maxMarker)
	if err == nil {
		// What is wrong with it is said before anything is moved.
		if err := checkMarker(content); err != nil {
			return false, err
		}
		old, err := f.index(ctx)
		if err == nil {
			_, err = mergeIndex(old, nil)
		}
		return true, err
	}
	if !errors.Is(err, bundle.ErrNotFound) {
		return false, err
	}
	return false, f.empty()
}

// empty returns an [ErrExists] when something is in the folder.
func (f *Folder) empty() error {
	dir, err := os.Open(f.path)
	if err != nil {
		return plainCause(err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(100)
		for _, name := range names {
			if !strings.HasSuffix(name, ".partial") {
				return fmt.Errorf("%w: the folder is not empty, and no image layout", ErrExists)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// index returns the content of index.json, or nil when there is none.
func (f *Folder) index(ctx context.Context) ([]byte, error) {
	content, err := readSmall(ctx, f.store, indexName, maxIndex)
	if errors.Is(err, bundle.ErrNotFound) {
		return nil, nil
	}
	return content, err
}

// Has reports whether the content of d is there with its size. Its digest was
// checked before it got its name.
func (f *Folder) Has(ctx context.Context, d oci.Descriptor) (bool, error) {
	size, err := objectSize(ctx, f.store, blobName(d.Digest))
	if errors.Is(err, bundle.ErrNotFound) {
		return false, nil
	}
	return err == nil && size == d.Size, err
}

// WriteBlob stores the content of d, which it reads from r, and replaces what
// is there, unless it was written through f before: then r is not read. Nothing
// is left of a blob that is not whole. Errors: [verify.ErrMismatch],
// [bundle.ErrNoSpace], those of r.
func (f *Folder) WriteBlob(ctx context.Context, d oci.Descriptor, r io.Reader) error {
	if err := checkBlob(d); err != nil {
		return err
	}
	end, err := f.turns.take(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer end()
	if _, ok := f.written.Load(d.Digest); ok {
		return nil
	}
	if err := f.write(ctx, d, r); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	f.written.Store(d.Digest, true)
	return nil
}

func (f *Folder) write(ctx context.Context, d oci.Descriptor, r io.Reader) (err error) {
	u, err := f.store.Create(ctx, blobName(d.Digest), d.Size)
	if err != nil {
		return err
	}
	defer func() {
		u.Close()
		if err != nil {
			f.discard(ctx, d)
		}
	}()
	if err := copyBlob(ctx, &uploadWriter{ctx: ctx, upload: u}, d, r); err != nil {
		return err
	}
	return u.Commit(ctx)
}

// discard removes what a write that broke off has left. A store discards that
// when the object is begun anew with another size.
func (f *Folder) discard(ctx context.Context, d oci.Descriptor) {
	u, err := f.store.Create(context.WithoutCancel(ctx), blobName(d.Digest), d.Size+1)
	if err == nil {
		u.Close()
	}
}

// uploadWriter writes an object from its beginning.
type uploadWriter struct {
	ctx    context.Context
	upload bundle.Upload
	off    int64 // bytes
}

func (w *uploadWriter) Write(p []byte) (int, error) {
	if err := w.upload.WriteAt(w.ctx, p, w.off); err != nil {
		return 0, err
	}
	w.off += int64(len(p))
	return len(p), nil
}

// Finish lists images in index.json, which is replaced at once. An entry there
// of the same name gives way, the others stay. It can be called again. Errors:
// [bundle.ErrNotFound] for a manifest that was not written.
func (f *Folder) Finish(ctx context.Context, images []Named) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range images {
		ok, err := f.Has(ctx, i.Descriptor)
		if err == nil && !ok {
			err = bundle.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("listing %s in %s: %w", i.Descriptor.Digest, indexName, err)
		}
	}
	old, err := f.index(ctx)
	if err != nil {
		return err
	}
	content, err := mergeIndex(old, images)
	if err != nil {
		return err
	}
	return f.store.Put(ctx, indexName, content)
}

// Close lets others write to the folder. Blobs that are whole stay, so that
// the next run has them.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Close()
}
