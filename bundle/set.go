package bundle

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"ferry/verify"
)

// Set is a bundle whose manifest was verified, with all that follows from
// the manifest. [Open] is the only way to get one.
type Set struct {
	manifest  *Manifest
	doc       *verify.Document
	raw       []byte
	signature []byte // as it is in the volumes: padded
	layouts   []VolumeLayout
	places    map[verify.Digest][]place // of each blob; a cut one has one for each piece
}

// place is a file of a volume by its numbers.
type place struct{ volume, file int }

// Envelope is a bundle.json with its signatures. Nothing of it is trusted yet.
type Envelope struct {
	Raw       []byte
	Signature []byte   // as the volumes carry it, see [PadSignature]
	Others    [][]byte // that stand beside it
}

// Open returns the set whose bundle.json is e.Raw when the policy admits it.
// The signature of the volumes must be at its full size and have only one
// encoding. The expiry of the bundle is not looked at: see [Set.Expired].
// Errors: [verify.ErrUntrusted], [ErrInvalid].
func Open(ctx context.Context, e Envelope, o ReadOptions) (*Set, error) {
	var m *Manifest
	signatures := append([][]byte{bytes.TrimRight(e.Signature, " ")}, e.Others...)
	doc, err := o.Policy.Open(ctx, e.Raw, signatures, o.Now, func(raw []byte) (claims verify.Claims, err error) {
		if m, err = parse(raw); err != nil {
			return claims, err
		}
		return m.claims()
	})
	if err != nil {
		return nil, err
	}
	return newSet(doc, m, e.Signature)
}

// claims returns what a policy has a say in. A blob of the base is mounted from
// its target, so that counts too.
func (m *Manifest) claims() (verify.Claims, error) {
	created, err := time.Parse(time.RFC3339, m.Created)
	if err != nil { // validate has refused it
		return verify.Claims{}, err
	}
	c := verify.Claims{Name: m.Name, Sequence: m.Sequence, Created: created}
	for _, image := range m.Images {
		c.Targets = append(c.Targets, image.Target)
	}
	if m.Base != nil {
		for _, b := range m.Base.Blobs {
			c.Targets = append(c.Targets, b.Target)
		}
	}
	return c, nil
}

func newSet(doc *verify.Document, m *Manifest, signature []byte) (*Set, error) {
	if len(signature) != SignatureSize || !verify.IsCanonical(bytes.TrimRight(signature, " ")) {
		return nil, fmt.Errorf("%w: %s is not %d bytes in canonical form", ErrInvalid, SignatureName, SignatureSize)
	}
	s := &Set{
		manifest:  m,
		doc:       doc,
		raw:       doc.Bytes(),
		signature: signature,
		layouts:   m.Layout(int64(len(doc.Bytes()))),
		places:    map[verify.Digest][]place{},
	}
	for v, l := range s.layouts {
		for i, f := range l.Files {
			// The small content of an image may be in several volumes.
			if f.isPiece() || f.isBlob() && s.places[f.Digest] == nil {
				s.places[f.Digest] = append(s.places[f.Digest], place{v, i})
			}
		}
	}
	return s, nil
}

// Manifest returns the verified manifest, which must not be changed.
func (s *Set) Manifest() *Manifest { return s.manifest }

// Raw returns the exact bytes of bundle.json, which must not be changed.
func (s *Set) Raw() []byte { return s.raw }

// Digest returns the digest of bundle.json: the identity of the bundle.
func (s *Set) Digest() verify.Digest { return verify.DigestOf(s.raw) }

// Signers returns the trusted keys that have signed the bundle.
func (s *Set) Signers() []verify.Key { return s.doc.Signers() }

// Document returns bundle.json as the policy has admitted it.
func (s *Set) Document() *verify.Document { return s.doc }

// Volumes returns the layout of each volume.
func (s *Set) Volumes() []VolumeLayout { return s.layouts }

// Has reports whether a blob or manifest is in the volumes, and its size in
// bytes.
func (s *Set) Has(d verify.Digest) (size int64, ok bool) {
	for _, p := range s.places[d] {
		size += s.file(p).Size
	}
	return size, s.places[d] != nil
}

// Bytes returns the size of all volumes in bytes.
func (s *Set) Bytes() int64 {
	var n int64
	for _, l := range s.layouts {
		n += l.Size
	}
	return n
}

// Expired returns an error that is [verify.ErrExpired] when the bundle has
// a time of expiry that is not after now.
func (s *Set) Expired(now time.Time) error {
	if s.manifest.Expires == "" {
		return nil
	}
	// The time was checked by parse.
	if when, err := time.Parse(time.RFC3339, s.manifest.Expires); err != nil || !now.Before(when) {
		return fmt.Errorf("%w at %s", verify.ErrExpired, s.manifest.Expires)
	}
	return nil
}

func (s *Set) file(p place) File { return s.layouts[p.volume].Files[p.file] }
