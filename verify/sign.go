package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Signer signs documents with a private key.
type Signer struct {
	key     Key
	private signature.SignerVerifier
}

// LoadSigner opens the private key in a PEM file such as cosign.key.
// Errors: [ErrPassword].
func LoadSigner(pem, password []byte) (*Signer, error) {
	if len(pem) > maxKey {
		return nil, fmt.Errorf("private key: more than %d bytes", maxKey)
	}
	private, err := cosign.LoadPrivateKey(pem, password, nil)
	if err != nil {
		if strings.Contains(err.Error(), "decryption failed") {
			return nil, ErrPassword
		}
		return nil, fmt.Errorf("private key: %w", err)
	}
	public, err := private.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, err := newKey(public)
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, private: private}, nil
}

// Key returns the public half of the signer's key.
func (s *Signer) Key() Key { return s.key }

// Sign returns a canonical Sigstore bundle over the exact bytes of raw.
func (s *Signer) Sign(raw []byte) ([]byte, error) {
	sig, err := s.private.SignMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	digest := DigestOf(raw)
	var b sigstoreBundle
	b.MediaType = bundleMediaType
	b.VerificationMaterial.PublicKey.Hint = s.key.fingerprint
	b.MessageSignature.MessageDigest.Algorithm = "SHA2_256"
	b.MessageSignature.MessageDigest.Digest = digest[:]
	b.MessageSignature.Signature = sig
	return json.Marshal(b)
}

const bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// sigstoreBundle is the one shape of bundle that Sign writes. It is written
// with encoding/json because protojson varies its white space on purpose.
type sigstoreBundle struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	MessageSignature struct {
		MessageDigest struct {
			Algorithm string `json:"algorithm"`
			Digest    []byte `json:"digest"`
		} `json:"messageDigest"`
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
}

// IsCanonical reports whether sig is byte for byte what [Signer.Sign] would
// write for the values in it, so that no two texts mean the same signature.
func IsCanonical(sig []byte) bool {
	var b sigstoreBundle
	if json.Unmarshal(sig, &b) != nil || b.MediaType != bundleMediaType {
		return false
	}
	again, err := json.Marshal(b)
	return err == nil && bytes.Equal(again, sig)
}
