package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ferry/bundle"
	"ferry/internal/oci"
)

// BufferSize, in bytes, is what each blob holds in memory while it is written.
const BufferSize = copyBuffer

// Preview tells of a [Folder] or [Archive] that is not begun yet what is there
// and what room it will take. It writes nothing.
type Preview struct {
	folder  *Folder
	archive *Archive // nil for a folder
}

// NewPreview looks at the place of a folder or an archive. Errors: those of
// [NewFolder] and [NewArchive], but for what only writing shows.
func NewPreview(ctx context.Context, path string, archive bool) (*Preview, error) {
	p := &Preview{folder: &Folder{path: path, store: bundle.NewDir(path)}}
	var err error
	if archive {
		p.archive = &Archive{path: filepath.Clean(path)}
		err = p.archive.free()
	} else {
		_, err = p.folder.check(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("writing an image layout to %q: %w", path, err)
	}
	return p, nil
}

// Dir returns the directory that is written to.
func (p *Preview) Dir() *bundle.Dir {
	if p.archive != nil {
		return bundle.NewDir(filepath.Dir(p.archive.path))
	}
	return bundle.NewDir(p.folder.path)
}

// Has reports whether the content of d is there already.
func (p *Preview) Has(ctx context.Context, d oci.Descriptor) (bool, error) {
	if p.archive != nil {
		return false, nil
	}
	return p.folder.Has(ctx, d)
}

// Room returns what writing those blobs and manifests, each once, and listing
// those images takes, and what there is. What file systems take for folders and
// their own lists is not counted.
func (p *Preview) Room(ctx context.Context, blobs, manifests []oci.Descriptor, images []Named) (*bundle.Room, error) {
	usage := bundle.NewUsage(ctx, p.Dir())
	var err error
	if p.archive != nil {
		err = p.addArchive(usage, append(blobs[:len(blobs):len(blobs)], manifests...), images)
	} else {
		err = p.addFolder(ctx, usage, blobs, manifests, images)
	}
	if err != nil {
		return nil, err
	}
	return usage.Room()
}

func (p *Preview) addFolder(ctx context.Context, usage *bundle.Usage, blobs, manifests []oci.Descriptor, images []Named) error {
	if _, err := readSmall(ctx, p.folder.store, markerName, maxMarker); errors.Is(err, bundle.ErrNotFound) {
		usage.Put(markerName, int64(len(marker)))
	}
	for _, d := range blobs {
		usage.Create(blobName(d.Digest), d.Size)()
	}
	for _, d := range manifests { // which are written even when they are there
		usage.Put(blobName(d.Digest), d.Size)
	}
	old, err := p.folder.index(ctx)
	if err != nil {
		return err
	}
	index, err := mergeIndex(old, images)
	if err != nil {
		return err
	}
	usage.Put(indexName, int64(len(index)))
	return nil
}

func (p *Preview) addArchive(usage *bundle.Usage, content []oci.Descriptor, images []Named) error {
	index, err := mergeIndex(nil, images)
	if err != nil {
		return err
	}
	var size Archive
	size.reserve(markerName, int64(len(marker)))
	for _, d := range content {
		size.reserve(blobName(d.Digest), d.Size)
	}
	size.reserve(indexName, int64(len(index)))
	left, err := os.Stat(p.archive.partial())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		left = nil
	}
	usage.Replace(left, size.end+2*tarBlock)
	return nil
}
