package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"ferry/internal/oci"
	"ferry/verify"
)

// maxDocuments, in bytes, bounds the manifests and configs that a reader
// keeps in memory; at 5 KiB for each they are those of 25,000 images.
const maxDocuments = 256 << 20

// documents are the manifests and configs of a set. It learns which ones there
// are as it reads them, from the images on.
type documents struct {
	types   map[verify.Digest]string // media type of those to be read; "" for a config
	content map[verify.Digest][]byte
	parsed  map[verify.Digest]*oci.Manifest
	layout  []Document // the documents of the image layout, each once
	size    int64      // bytes of all
}

func newDocuments(m *Manifest) *documents {
	d := &documents{types: map[verify.Digest]string{}, content: map[verify.Digest][]byte{}, parsed: map[verify.Digest]*oci.Manifest{}}
	for _, image := range m.Images {
		d.types[image.Digest] = image.MediaType
		for _, r := range image.Referrers {
			d.types[r.Digest] = r.MediaType
		}
	}
	return d
}

// wants reports whether the blob is a manifest or config that is needed.
func (d *documents) wants(digest verify.Digest) bool {
	_, ok := d.types[digest]
	return ok
}

func (d *documents) addLayout(doc Document) {
	for _, known := range d.layout {
		if known.Path == doc.Path && bytes.Equal(known.Content, doc.Content) {
			return
		}
	}
	d.layout = append(d.layout, doc)
	d.size += int64(len(doc.Content))
}

func (d *documents) add(digest verify.Digest, content []byte) error {
	if d.content[digest] != nil {
		return nil
	}
	if d.size += int64(len(content)); d.size > maxDocuments {
		return fmt.Errorf("%w: more than %d bytes of manifests and configs", ErrInvalid, maxDocuments)
	}
	d.content[digest] = content
	mediaType := d.types[digest]
	if mediaType == "" {
		return nil
	}
	m, err := oci.Parse(content, mediaType)
	if err != nil {
		return err
	}
	d.parsed[digest] = m
	for _, child := range m.Manifests {
		if was, ok := d.types[child.Digest]; ok && was != child.MediaType {
			return fmt.Errorf("%w: %s is both %q and %q", ErrInvalid, child.Digest, was, child.MediaType)
		}
		d.types[child.Digest] = child.MediaType
	}
	if c := m.Config; c != nil && c.Size <= oci.MaxManifest && !d.wants(c.Digest) {
		d.types[c.Digest] = ""
	}
	return nil
}

// complete reads the manifests that were not at the head of a volume, and
// checks that the set has all that its manifests refer to.
func (d *documents) complete(ctx context.Context, r *Reader) error {
	for missing := d.missing(); missing != nil; missing = d.missing() {
		for _, digest := range missing {
			content, err := r.readBlob(ctx, digest)
			if err != nil {
				return err
			}
			if err := d.add(digest, content); err != nil {
				return fmt.Errorf("%s: %w", digest, err)
			}
		}
	}
	if err := d.checkDepth(r.manifest); err != nil {
		return err
	}
	for _, image := range r.manifest.Images {
		roots := []oci.Descriptor{image.Descriptor()}
		for _, referrer := range image.Referrers {
			roots = append(roots, referrer.Descriptor())
		}
		for _, root := range roots {
			if size, _ := r.Has(root.Digest); size != root.Size || d.types[root.Digest] != root.MediaType {
				return fmt.Errorf("%w: %s has %d bytes and type %q in the volumes, want %d and %q",
					ErrInvalid, root.Digest, size, d.types[root.Digest], root.Size, root.MediaType)
			}
		}
	}
	base := map[verify.Digest]int64{}
	if b := r.manifest.Base; b != nil {
		for _, blob := range b.Blobs {
			base[blob.Digest] = blob.Size
		}
	}
	for digest, m := range d.parsed {
		for _, blob := range append(m.Blobs(), m.Manifests...) {
			size, ok := r.Has(blob.Digest)
			if !ok {
				size, ok = base[blob.Digest]
			}
			if !ok {
				return fmt.Errorf("%w: it does not have %s, which %s refers to", ErrInvalid, blob.Digest, digest)
			}
			if size != blob.Size {
				return fmt.Errorf("%w: %s has %d bytes in the volumes and %d in %s", ErrInvalid, blob.Digest, size, blob.Size, digest)
			}
		}
	}
	return nil
}

// checkDepth checks that no manifest is more than [oci.MaxDepth] levels deep
// (T16). A manifest counts once for each level that it is on.
func (d *documents) checkDepth(m *Manifest) error {
	level := map[verify.Digest]bool{}
	for _, image := range m.Images {
		level[image.Digest] = true
		for _, r := range image.Referrers {
			level[r.Digest] = true
		}
	}
	for depth := 1; len(level) > 0; depth++ {
		next := map[verify.Digest]bool{}
		for digest := range level {
			if depth > oci.MaxDepth {
				return fmt.Errorf("%w: %s is nested deeper than %d levels", ErrInvalid, digest, oci.MaxDepth)
			}
			for _, child := range d.parsed[digest].Manifests {
				next[child.Digest] = true
			}
		}
		level = next
	}
	return nil
}

func (d *documents) missing() []verify.Digest {
	var list []verify.Digest
	for digest, mediaType := range d.types {
		if mediaType != "" && d.content[digest] == nil {
			list = append(list, digest)
		}
	}
	return list
}

func (r *Reader) readBlob(ctx context.Context, d verify.Digest) ([]byte, error) {
	size, ok := r.Has(d)
	if !ok || size > oci.MaxManifest {
		return nil, fmt.Errorf("%w: there is no manifest %s of at most %d bytes", ErrInvalid, d, oci.MaxManifest)
	}
	body, err := r.OpenBlob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(verify.NewReader(body, d, size))
	if err != nil {
		return nil, corrupt(d.String(), err)
	}
	return content, nil
}

// ManifestOf returns a manifest of the bundle, with its bytes, or nil when d is
// not one. Neither must be changed.
func (r *Reader) ManifestOf(d verify.Digest) (*oci.Manifest, []byte) {
	return r.docs.parsed[d], r.docs.content[d]
}
