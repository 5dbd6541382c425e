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

const (
	// MaxSignature, in bytes, bounds one signature; a key signature has
	// about 400, one with certificates and log entries about 10,000.
	MaxSignature = 64 << 10
	// MaxSignatures bounds how many signatures of one document are tried.
	MaxSignatures = 32
)

// Document is a byte string that a policy admits. Only [Policy.Open] makes one
// that holds anything.
type Document struct {
	raw     []byte
	signers []Key

	claims     Claims
	policy     *Policy
	role       *role // of the policy, that covers the claims
	overridden error // refusal that a person has overruled
}

// Bytes returns the signed bytes, which must not be changed.
func (d *Document) Bytes() []byte { return d.raw }

// Signers returns the keys whose signature counted, each once.
func (d *Document) Signers() []Key { return d.signers }

// Policy returns the policy that has admitted the document.
func (d *Document) Policy() *Policy { return d.policy }

// Override returns the reason that the policy's override gives, or "".
func (d *Document) Override() string { return d.policy.override }

// Overridden returns why the document would have been refused but for the
// override of the policy, and nil when it would not.
func (d *Document) Overridden() error { return d.overridden }

// check returns, for each good signature over raw that one of the keys has
// made, that key: there is at least one. The errors are [ErrUntrusted].
func check(ctx context.Context, raw []byte, signatures [][]byte, keys []*policyKey) ([]*policyKey, error) {
	switch {
	case len(signatures) == 0:
		return nil, ErrUnsigned
	case len(signatures) > MaxSignatures:
		return nil, fmt.Errorf("%w: more than %d signatures", ErrSignature, MaxSignatures)
	}
	var made []*policyKey
	var strangers []string
	for i, text := range signatures {
		sig, err := parseSignature(text)
		if errors.Is(err, errStranger) {
			strangers = append(strangers, "of another kind")
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w %d: %w", ErrSignature, i+1, err)
		}
		key, err := sig.check(ctx, raw, keys)
		switch {
		case errors.Is(err, errStranger):
			strangers = append(strangers, sig.hint)
		case err != nil:
			return nil, fmt.Errorf("%w %d: %w", ErrSignature, i+1, err)
		default:
			made = append(made, key)
		}
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("%w: %q, which is none of the trusted keys", ErrWrongKey, strangers)
	}
	return made, nil
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
func (s *parsedSignature) check(ctx context.Context, raw []byte, keys []*policyKey) (*policyKey, error) {
	// The digest in the bundle is a hint too; one that disagrees is refused, so
	// that no part of a good signature can be changed.
	hint := s.bundle.GetMessageSignature().GetMessageDigest()
	if want := DigestOf(raw); hint != nil && (hint.GetAlgorithm() != common.HashAlgorithm_SHA2_256 || !bytes.Equal(hint.GetDigest(), want[:])) {
		return nil, fmt.Errorf("it is over other content (%s %x, this is %s)", hint.GetAlgorithm(), hint.GetDigest(), want)
	}
	named := false
	for _, key := range keys {
		opts := &cosign.CheckOpts{SigVerifier: key.verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true,
			TrustedMaterial: &root.BaseTrustedMaterial{}}
		_, err := cosign.VerifyNewBundle(ctx, opts, sigstore.WithArtifact(bytes.NewReader(raw)), s.bundle)
		if err == nil && s.hint != "" && s.hint != key.fingerprint {
			return nil, fmt.Errorf("it names key %q and was made with %q", s.hint, key.fingerprint)
		}
		if err == nil {
			return key, nil
		}
		named = named || s.hint == key.fingerprint
	}
	if named || s.hint == "" {
		return nil, errors.New("it is wrong")
	}
	return nil, errStranger
}
