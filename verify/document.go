package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// ErrUntrusted is what every error of [Open] is: nothing may be done with the
// document.
var ErrUntrusted = errors.New("not trusted")

const (
	// MaxSignature, in bytes, bounds one signature; a key signature has
	// about 400, one with certificates and log entries about 10,000.
	MaxSignature = 64 << 10
	// MaxSignatures bounds how many signatures of one document are tried.
	MaxSignatures = 32
)

// Document is a byte string that was signed with a trusted key. Only [Open]
// makes one that holds anything.
type Document struct {
	raw     []byte
	signers []Key
}

// Bytes returns the signed bytes, which must not be changed.
func (d *Document) Bytes() []byte { return d.raw }

// Signers returns the trusted keys whose signature was good, each once.
func (d *Document) Signers() []Key { return d.signers }

// Open returns the document in raw if at least one of the signatures over it
// is good and was made with one of the keys. A signature with a key that is not
// among them counts for nothing; one that is damaged, or names a trusted key
// and is wrong, is an error even beside a good one. Errors: [ErrUntrusted].
func Open(ctx context.Context, raw []byte, signatures [][]byte, keys []Key) (*Document, error) {
	switch {
	case len(keys) == 0:
		return nil, fmt.Errorf("%w: no key to verify with", ErrUntrusted)
	case len(signatures) == 0:
		return nil, fmt.Errorf("%w: there is no signature", ErrUntrusted)
	case len(signatures) > MaxSignatures:
		return nil, fmt.Errorf("%w: more than %d signatures", ErrUntrusted, MaxSignatures)
	}
	doc := &Document{raw: bytes.Clone(raw)}
	var strangers []string
	for i, text := range signatures {
		sig, err := parseSignature(text)
		if errors.Is(err, errStranger) {
			strangers = append(strangers, "of another kind")
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: signature %d: %w", ErrUntrusted, i+1, err)
		}
		key, err := sig.check(ctx, doc.raw, keys)
		switch {
		case errors.Is(err, errStranger):
			strangers = append(strangers, sig.hint)
		case err != nil:
			return nil, fmt.Errorf("%w: signature %d: %w", ErrUntrusted, i+1, err)
		case !doc.signedBy(key):
			doc.signers = append(doc.signers, key)
		}
	}
	if len(doc.signers) == 0 {
		return nil, fmt.Errorf("%w: signed with key %q, which is none of the trusted keys", ErrUntrusted, strangers)
	}
	return doc, nil
}

func (d *Document) signedBy(key Key) bool {
	for _, k := range d.signers {
		if k.fingerprint == key.fingerprint {
			return true
		}
	}
	return false
}

// errStranger says that a signature was made with none of the keys.
var errStranger = errors.New("made with another key")

type parsedSignature struct {
	bundle *bundle.Bundle
	hint   string
}

func parseSignature(text []byte) (*parsedSignature, error) {
	if len(text) > MaxSignature {
		return nil, fmt.Errorf("more than %d bytes", MaxSignature)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	if b.GetMessageSignature() == nil {
		return nil, fmt.Errorf("%w: it has no message signature", errStranger)
	}
	key := b.GetVerificationMaterial().GetPublicKey()
	if key == nil {
		return nil, fmt.Errorf("%w: it was not made with a key pair", errStranger)
	}
	return &parsedSignature{bundle: &b, hint: key.GetHint()}, nil
}

// check returns the key that made the signature over raw. The hint only says
// which key to blame: what counts is which key verifies.
func (s *parsedSignature) check(ctx context.Context, raw []byte, keys []Key) (Key, error) {
	// The digest in the bundle is a hint too; one that disagrees is refused, so
	// that no part of a good signature can be changed.
	hint := s.bundle.GetMessageSignature().GetMessageDigest()
	if want := DigestOf(raw); hint != nil && (hint.GetAlgorithm() != common.HashAlgorithm_SHA2_256 || !bytes.Equal(hint.GetDigest(), want[:])) {
		return Key{}, fmt.Errorf("it is over other content (%s %x, this is %s)", hint.GetAlgorithm(), hint.GetDigest(), want)
	}
	named := false
	for _, key := range keys {
		opts := &cosign.CheckOpts{SigVerifier: key.verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true,
			TrustedMaterial: &root.BaseTrustedMaterial{}}
		_, err := cosign.VerifyNewBundle(ctx, opts, sigstore.WithArtifact(bytes.NewReader(raw)), s.bundle)
		if err == nil && s.hint != "" && s.hint != key.fingerprint {
			return Key{}, fmt.Errorf("it names key %q and was made with %q", s.hint, key.fingerprint)
		}
		if err == nil {
			return key, nil
		}
		named = named || s.hint == key.fingerprint
	}
	if named || s.hint == "" {
		return Key{}, errors.New("it is wrong")
	}
	return Key{}, errStranger
}
