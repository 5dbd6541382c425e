package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ferry/verify"
)

// Parts returns everything that is in the volumes behind their heads, in
// order: documents, blobs wherever they are, and cut blobs once.
func (s *Set) Parts() []Part {
	var parts []Part
	for v, l := range s.layouts {
		for i, f := range l.Files {
			if !f.isPiece() || f.Offset == 0 {
				parts = append(parts, s.part(v, i))
			}
		}
	}
	return parts
}

func (s *Set) part(v, i int) Part {
	f := s.layouts[v].Files[i]
	if !f.isPiece() {
		return Part{Digest: f.Digest, Size: f.Size, Document: !f.isBlob(), places: []place{{v, i}}}
	}
	size, _ := s.Has(f.Digest)
	return Part{Digest: f.Digest, Size: size, places: s.places[f.Digest]}
}

// Volumes returns the names of the volumes that a part is in.
func (p Part) Volumes() []string {
	names := make([]string, len(p.places))
	for i, at := range p.places {
		names[i] = VolumeName(at.volume)
	}
	return names
}

// Check reads a part and compares every byte of it with what the manifest
// says; seen, unless nil, is called with how many bytes were read.
// Errors: [ErrCorrupt], and those of reading.
func (r *Reader) Check(ctx context.Context, p Part, seen func(n int64)) error {
	body := &blobReader{ctx: ctx, r: r, places: p.places}
	defer body.Close()
	content := verify.NewReader(body, p.Digest, p.Size)
	if seen != nil {
		content = io.TeeReader(content, writerFunc(func(b []byte) (int, error) {
			seen(int64(len(b)))
			return len(b), nil
		}))
	}
	_, err := io.Copy(io.Discard, content)
	if err != nil {
		return corrupt(strings.Join(p.Volumes(), ", ")+": "+r.file(p.places[0]).Path, err)
	}
	return nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Inspect returns a reader of what store has of the set under the volumes'
// own names, and the names of the volumes that are missing there or do not have
// the right size, head and trailer. The reader must not be used for those.
func (s *Set) Inspect(ctx context.Context, store Store) (*Reader, []string, error) {
	r := &Reader{Set: s, store: store, volumes: make([]Object, len(s.layouts))}
	var bad []string
	for v, l := range s.layouts {
		name := VolumeName(v)
		object, err := store.Open(ctx, name)
		if err == nil {
			r.volumes[v] = object
			err = s.checkFrame(ctx, object, l)
		}
		switch {
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrCorrupt):
			bad = append(bad, name)
		case err != nil:
			return nil, nil, errors.Join(fmt.Errorf("%s in %s: %w", name, store, err), r.Close())
		}
	}
	return r, bad, nil
}

// checkFrame checks what of a volume does not depend on its content.
func (s *Set) checkFrame(ctx context.Context, object Object, l VolumeLayout) error {
	if object.Size() != l.Size {
		return fmt.Errorf("%w: it has %d bytes, want %d", ErrCorrupt, object.Size(), l.Size)
	}
	got, err := readRange(ctx, object, 0, l.HeadSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, head(s.raw, s.signature)) {
		return fmt.Errorf("%w: its head is not %s and %s of this bundle", ErrCorrupt, ManifestName, SignatureName)
	}
	return checkTrailer(ctx, object, l)
}

func checkTrailer(ctx context.Context, object Object, l VolumeLayout) error {
	trailer, err := readRange(ctx, object, l.Trailer(), trailerSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(trailer, make([]byte, trailerSize)) {
		return fmt.Errorf("%w: its last %d bytes are not zero", ErrCorrupt, trailerSize)
	}
	return nil
}
