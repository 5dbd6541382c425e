// Package layout hides how OCI image layouts and docker archives lie on a
// disk or in a bucket: it reads the images that other tools left there, and
// writes image layouts that they read.
//
// # Reading
//
// [Open] tells by the content what a path is, and [OpenStore] what an object or
// a prefix in a store is:
//
//   - a folder that is an OCI image layout (skopeo's oci:, crane, oras, regctl);
//   - a tar archive of one (skopeo's oci-archive:, docker save since 25.0,
//     buildkit, a volume of ferry). Files that are no part of the layout are
//     ignored;
//   - a docker archive (docker save before 25.0, skopeo's docker-archive:,
//     crane, kaniko). An archive that is both counts as a layout.
//
// Archives are read where they are, by offset: nothing is unpacked or copied.
// So a compressed archive is an [ErrCompressed]. One pass over the headers
// finds every file; names that could mean two things are refused. The pass
// reads ahead, 64 KiB after a jump of 1 MiB or more, up to 1 MiB where files
// are smaller: each large file costs one request, and many small ones one.
//
// A docker archive has no manifest, so Open makes one for each image, always
// the same for the same archive: an OCI image manifest with the config as it
// is (its digest, the image ID, survives) and the layers as they are. A layer
// that is a plain tar stays plain: its digest is the diff_id of the config, and
// nothing has to be read to know it; who uses the layer checks it. The digest
// of a layer that is compressed, with gzip or zstd, is not written anywhere:
// Open reads such layers once.
//
// # Writing
//
// [Folder] and [Archive] write OCI image layouts. A blob gets its name, or its
// place among the finished ones, when its digest was found right; index.json is
// last.
//
// # Limits
//
// An archive has at most [MaxEntries] entries with names of at most 255 bytes,
// regular files and folders only, and in docker archives symbolic links that
// stay in it. It ends with the two blocks of zeros of POSIX and at most 1 MiB
// of zeros. An index.json has at most 32 MiB and 100,000 entries, a
// manifest.json 4 MiB and 65,536 layers. Digests are sha256.
//
// # Sources
//
// OCI Image Layout 1.1.1, https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md;
// Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset
// Format"; POSIX.1-2017, pax, "ustar Interchange Format"; the annotation
// io.containerd.image.name of containerd's image import.
package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

var (
	// ErrUnknown says that a path is neither an image layout nor a docker
	// archive.
	ErrUnknown = errors.New("neither an OCI image layout nor a docker archive")
	// ErrCompressed says that an archive is compressed as a whole, so that
	// nothing in it can be found without reading all before it.
	ErrCompressed = errors.New("archive is compressed; decompress it first")
	// ErrInvalid says that a layout or an archive is damaged, or is one that
	// two readers could understand differently.
	ErrInvalid = errors.New("invalid image layout or archive")
	// ErrExists says that something else is where a layout or archive is to
	// be written. It is [bundle.ErrExists].
	ErrExists = bundle.ErrExists
)

// invalid returns an [ErrInvalid].
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Image is one image or artifact of a [Source].
type Image struct {
	// Names are what the layout calls it, as written there, each once: the
	// annotations io.containerd.image.name and
	// org.opencontainers.image.ref.name of index.json, in this order, or
	// the RepoTags of a docker archive. There may be none, and other images
	// may have the same: docker calls each image after its tag alone, too.
	Names []string
	// Descriptor is that of the manifest or index.
	Descriptor oci.Descriptor
}

// Source is an image layout or an archive that is read. Its methods are safe
// for concurrent use.
type Source struct {
	images    []Image
	manifests map[verify.Digest][]byte // those that were made for a docker archive
	blobs     blobs
}

// blobs is where the content of a [Source] lies.
type blobs interface {
	// open returns the content of d from off on, or a [bundle.ErrNotFound].
	open(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error)
	// size returns the size of d in bytes, or a [bundle.ErrNotFound].
	size(ctx context.Context, d verify.Digest) (int64, error)
	close() error
}

// Open is [OpenContext] without a way to interrupt it.
func Open(path string) (*Source, error) { return OpenContext(context.Background(), path) }

// OpenContext opens the folder or archive at path, which the caller closes. ctx
// bounds the opening alone, which reads the compressed layers of a docker
// archive once. Errors: [ErrUnknown], [ErrCompressed], [ErrInvalid],
// [fs.ErrNotExist].
func OpenContext(ctx context.Context, path string) (*Source, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", path, err)
	}
	return s, nil
}

// OpenStore is [OpenContext] for what store has under a name: the archive that
// is the object of that name; or, where there is no such object, the image
// layout below name, "" for the whole store. Nothing is kept but what a Source
// needs: content comes from the store when it is read. An archive is one object
// from the opening on: one that is replaced meanwhile is a [bundle.ErrChanged].
// Errors: those of [OpenContext] and of store; [bundle.ErrNotFound] when there
// is neither.
func OpenStore(ctx context.Context, store bundle.Store, name string) (*Source, error) {
	s, err := openStore(ctx, store, name)
	if errors.Is(err, ErrUnknown) || errors.Is(err, ErrCompressed) || errors.Is(err, ErrInvalid) {
		return nil, fmt.Errorf("opening %q: %w", bundle.Sub(store, name).String(), err)
	}
	return s, err // of the store, which says where
}

func openStore(ctx context.Context, store bundle.Store, name string) (*Source, error) {
	if name == "" {
		return openFolder(ctx, store)
	}
	object, err := store.Open(ctx, name)
	if errors.Is(err, bundle.ErrNotFound) {
		s, folderErr := openFolder(ctx, bundle.Sub(store, name))
		if errors.Is(folderErr, ErrUnknown) {
			return nil, fmt.Errorf("%w; and there is no %s below it", err, markerName)
		}
		return s, folderErr
	}
	if err != nil {
		return nil, err
	}
	s, err := openArchive(ctx, object)
	if err != nil {
		object.Close()
		return nil, err
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Source, error) {
	// Without O_NONBLOCK, opening a fifo would wait for a writer (T36).
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, plainCause(err)
	}
	info, err := f.Stat()
	var s *Source
	switch {
	case err != nil:
	case info.IsDir():
		f.Close()
		return openFolder(ctx, bundle.NewDir(path))
	case !info.Mode().IsRegular():
		err = fmt.Errorf("not a regular file: %w", ErrUnknown)
	default:
		s, err = openArchive(ctx, fileObject{f, info.Size()})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// plainCause returns err without the path that it names.
func plainCause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// Images returns what index.json or manifest.json lists, in that order; an
// image that stands there several times is one with all its names. A layout
// may be empty.
func (s *Source) Images() []Image {
	list := slices.Clone(s.images)
	for i := range list {
		list[i].Names = slices.Clone(list[i].Names)
	}
	return list
}

// Manifest returns the bytes of the manifest or index d, which have its digest
// and size. Errors: those of the place; [bundle.ErrNotFound], [verify.ErrMismatch]; [ErrInvalid]
// when d has more than [oci.MaxManifest] bytes.
func (s *Source) Manifest(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > oci.MaxManifest {
		return nil, invalid("manifest %s has %d bytes, more than %d", d.Digest, d.Size, oci.MaxManifest)
	}
	r, err := s.OpenBlob(ctx, d.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(verify.NewReader(r, d.Digest, d.Size))
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", d.Digest, err)
	}
	return content, nil
}

// OpenBlob returns the content of the blob or manifest d from offset off on, in
// bytes. The caller closes it, and checks the content with [verify.NewReader];
// ctx must live as long as the stream. Errors: [bundle.ErrNotFound]; those of
// [bundle.CheckRange] for an offset that is not in the blob.
func (s *Source) OpenBlob(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error) {
	if content, ok := s.manifests[d]; ok {
		if err := bundle.CheckRange(off, 0, int64(len(content))); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(content[off:])), nil
	}
	r, err := s.blobs.open(ctx, d, off)
	if err != nil {
		return nil, fmt.Errorf("opening blob %s: %w", d, err)
	}
	return r, nil
}

// Size returns the size of the blob or manifest d in bytes, and reports whether
// it is there.
func (s *Source) Size(ctx context.Context, d verify.Digest) (int64, bool) {
	if content, ok := s.manifests[d]; ok {
		return int64(len(content)), true
	}
	size, err := s.blobs.size(ctx, d)
	return size, err == nil
}

// Close closes the archive. Streams of OpenBlob are not read after it.
func (s *Source) Close() error { return s.blobs.close() }

// imageList collects images, each once with all its names.
type imageList struct {
	images []Image
	at     map[verify.Digest]int // positions in images
	named  map[imageName]bool
}

type imageName struct {
	digest verify.Digest
	name   string
}

func newImageList() *imageList {
	return &imageList{at: map[verify.Digest]int{}, named: map[imageName]bool{}}
}

// add adds an image, or more names of one that is there.
func (l *imageList) add(d oci.Descriptor, names ...string) error {
	i, ok := l.at[d.Digest]
	if !ok {
		i = len(l.images)
		l.at[d.Digest] = i
		l.images = append(l.images, Image{Descriptor: d})
	}
	if was := l.images[i].Descriptor; was.Size != d.Size || was.MediaType != d.MediaType {
		return invalid("manifest %s is both %s with %d bytes and %s with %d bytes",
			d.Digest, was.MediaType, was.Size, d.MediaType, d.Size)
	}
	for _, name := range names {
		if key := (imageName{d.Digest, name}); name != "" && !l.named[key] {
			l.named[key] = true
			l.images[i].Names = append(l.images[i].Names, name)
		}
	}
	return nil
}
