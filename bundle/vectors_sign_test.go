package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
)

// fixedKeys are the private keys of testdata/keys. The generator opens them
// itself, to sign as [verify.Signer] never does: the same bytes give the same
// signature (RFC 6979).
var fixedKeys = map[string]func() (*ecdsa.PrivateKey, error){
	"one": openFixedKey("one"), "two": openFixedKey("two"), "three": openFixedKey("three"), "four": openFixedKey("four"),
}

func openFixedKey(name string) func() (*ecdsa.PrivateKey, error) {
	return sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
		text, err := os.ReadFile("../testdata/keys/" + name + ".key")
		if err != nil {
			return nil, err
		}
		return decryptKey(text, []byte(name))
	})
}

// decryptKey opens a private key as cosign writes it: JSON in PEM, with a
// PKCS #8 key in a secret box that scrypt has locked.
func decryptKey(text, password []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	var locked struct {
		KDF struct {
			Params struct{ N, R, P int }
			Salt   []byte
		}
		Cipher     struct{ Nonce []byte }
		Ciphertext []byte
	}
	if err := json.Unmarshal(block.Bytes, &locked); err != nil {
		return nil, err
	}
	key, err := scrypt.Key(password, locked.KDF.Salt, locked.KDF.Params.N, locked.KDF.Params.R, locked.KDF.Params.P, 32)
	if err != nil {
		return nil, err
	}
	der, ok := secretbox.Open(nil, locked.Ciphertext, (*[24]byte)(locked.Cipher.Nonce), (*[32]byte)(key))
	if !ok {
		return nil, errors.New("wrong password")
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return private.(*ecdsa.PrivateKey), nil
}

func fixedKey(t testing.TB, name string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := fixedKeys[name]()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fingerprintOf returns the hint that a signature names a key by.
func fingerprintOf(t testing.TB, name string) string {
	t.Helper()
	sum := sha256.Sum256(publicDER(t, name))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func publicDER(t testing.TB, name string) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(fixedKey(t, name).Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// signDER returns the signature of a key over a digest.
func signDER(t testing.TB, name string, digest [32]byte) []byte {
	t.Helper()
	sig, err := fixedKey(t, name).Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// signFixed returns the Sigstore bundle over raw, not filled up.
func signFixed(t testing.TB, name string, raw []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(raw)
	return sigstoreText(fingerprintOf(t, name), digest[:], signDER(t, name, digest))
}

func sigstoreText(hint string, digest, sig []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"%s"}},`+
		`"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"%s"},"signature":"%s"}}`, hint, b64(digest), b64(sig))
}
