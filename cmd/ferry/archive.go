package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/s3store"
)

// archive is where an image layout or archive of another tool is: a path, or an
// object or a prefix in a bucket.
type archive struct {
	path  string // as the user wrote it
	store bundle.Store
	name  string // in store, "" for all of it; of no meaning without a store
}

// archiveAt returns the place that a location names, a path or s3://bucket/key.
// With a slash at its end that is a prefix and never an object. Nothing is
// looked for there.
func (a *app) archiveAt(ctx context.Context, location string) (archive, error) {
	at := archive{path: location}
	if scheme, _, found := strings.Cut(location, "://"); !found {
		return at, nil
	} else if scheme != "s3" {
		return at, usagef("location %q: %s:// is not supported, only paths and s3://bucket/key", location, scheme)
	}
	o, err := s3store.ParseURL(location)
	if err != nil {
		return at, usageError{err}
	}
	if strings.HasSuffix(location, "/") {
		at.store, err = a.store(ctx, location)
		return at, err
	}
	at.store, err = a.store(ctx, "s3://"+o.Bucket)
	at.name = o.Prefix
	return at, err
}

func (at archive) open(ctx context.Context) (*layout.Source, error) {
	if at.store == nil {
		return layout.OpenContext(ctx, at.path)
	}
	return layout.OpenStore(ctx, at.store, at.name)
}

// isBundle reports whether what is there is a bundle or a volume of one, and
// not an image layout or archive. Errors are those of a bucket.
func (at archive) isBundle(ctx context.Context) (bool, error) {
	if at.store == nil {
		return isBundle(ctx, at.path), nil
	}
	if at.name != "" {
		is, err := beginsVolume(ctx, at.store, at.name)
		if !errors.Is(err, bundle.ErrNotFound) {
			return is, err
		}
	}
	folder := bundle.Sub(at.store, at.name)
	index, err := folder.Open(ctx, "index.json")
	if err == nil {
		return false, index.Close()
	}
	if !errors.Is(err, bundle.ErrNotFound) {
		return false, err
	}
	// Who may not list may read a layout all the same.
	found, err := bundle.List(ctx, folder)
	if err == nil && len(found) > 0 {
		return true, nil
	}
	is, err := beginsVolume(ctx, folder, bundle.VolumeName(0))
	return is && err == nil, ctx.Err()
}

// beginsVolume reports whether an object begins like a volume of a bundle,
// whole or not.
func beginsVolume(ctx context.Context, store bundle.Store, name string) (bool, error) {
	object, err := store.Open(ctx, name)
	if err != nil {
		return false, err
	}
	defer object.Close()
	if object.Size() < int64(len(volumeStart)) {
		return false, nil
	}
	r, err := object.Range(ctx, 0, int64(len(volumeStart)))
	if err != nil {
		return false, err
	}
	defer r.Close()
	begin := make([]byte, len(volumeStart))
	_, err = io.ReadFull(r, begin)
	return string(begin) == volumeStart, err
}
