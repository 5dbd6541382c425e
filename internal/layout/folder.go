package layout

import (
	"cmp"
	"context"
	"errors"
	"io"

	"ferry/bundle"
	"ferry/verify"
)

// folder has the blobs of an image layout in a folder or below a prefix of a
// bucket. A store in a folder refuses what leads out of it, fifos and the like.
type folder struct{ store bundle.Store }

func openFolder(ctx context.Context, store bundle.Store) (*Source, error) {
	marker, err := readSmall(ctx, store, markerName, maxMarker)
	if errors.Is(err, bundle.ErrNotFound) {
		return nil, unknownf("there is no %s in it", markerName)
	}
	if err == nil {
		err = checkMarker(marker)
	}
	if err != nil {
		return nil, err
	}
	index, err := readSmall(ctx, store, indexName, maxIndex)
	if errors.Is(err, bundle.ErrNotFound) {
		return nil, invalid("there is no %s: it was not finished", indexName)
	}
	if err != nil {
		return nil, err
	}
	images, err := parseIndex(index)
	if err != nil {
		return nil, err
	}
	return &Source{images: images, blobs: folder{store}}, nil
}

func blobName(d verify.Digest) string { return blobFolder + d.Hex() }

func (f folder) open(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error) {
	object, err := f.store.Open(ctx, blobName(d))
	if err != nil {
		return nil, err
	}
	r, err := object.Range(ctx, off, max(object.Size()-off, 0))
	if err != nil {
		object.Close()
		return nil, err
	}
	return objectReader{r, object}, nil
}

// objectReader is a stream that closes the object it comes from.
type objectReader struct {
	io.ReadCloser
	object bundle.Object
}

func (r objectReader) Close() error { return cmp.Or(r.ReadCloser.Close(), r.object.Close()) }

func (f folder) size(ctx context.Context, d verify.Digest) (int64, error) {
	return objectSize(ctx, f.store, blobName(d))
}

func (f folder) close() error { return nil }

func objectSize(ctx context.Context, store bundle.Store, name string) (int64, error) {
	object, err := store.Open(ctx, name)
	if err != nil {
		return 0, err
	}
	return object.Size(), object.Close()
}

// readSmall returns the content of an object of at most limit bytes.
func readSmall(ctx context.Context, store bundle.Store, name string, limit int64) ([]byte, error) {
	object, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer object.Close()
	if object.Size() > limit {
		return nil, invalid("%s has %d bytes, more than %d", name, object.Size(), limit)
	}
	r, err := object.Range(ctx, 0, object.Size())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
