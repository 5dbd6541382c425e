package verify

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// ErrPassword says that a private key does not open with the given password.
var ErrPassword = errors.New("wrong password for the private key")

// maxKey, in bytes, bounds a key file; cosign's have less than 1 KiB.
const maxKey = 64 << 10

// Key is a public key that documents may be signed with.
type Key struct {
	verifier    signature.Verifier
	fingerprint string
}

// ParseKey returns the public key in a PEM file such as cosign.pub.
func ParseKey(pem []byte) (Key, error) {
	if len(pem) > maxKey {
		return Key{}, fmt.Errorf("public key: more than %d bytes", maxKey)
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	return newKey(public)
}

func newKey(public crypto.PublicKey) (Key, error) {
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return Key{verifier: verifier, fingerprint: base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// Fingerprint returns the base64 SHA-256 of the key's PKIX form: the hint that
// Sigstore bundles name the key by.
func (k Key) Fingerprint() string { return k.fingerprint }

// GenerateKeys returns a new ECDSA P-256 key pair as cosign writes it:
// cosign.key, encrypted with password, and cosign.pub.
func GenerateKeys(password []byte) (private, public []byte, err error) {
	pair, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key pair: %w", err)
	}
	return pair.PrivateBytes, pair.PublicBytes, nil
}
