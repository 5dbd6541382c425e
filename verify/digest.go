package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Digest is the SHA-256 digest of some content. It prints as
// "sha256:" and 64 lower-case hexadecimal digits. Having a Digest means that
// its text was well formed: there is no other way to make one than to parse
// or to compute it. The zero Digest stands for "none".
type Digest [sha256.Size]byte

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest returns the digest written as s. Any algorithm but sha256, any
// upper-case digit, and any other length is an error.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if !digestPattern.MatchString(s) {
		return d, fmt.Errorf("digest %q is not sha256 and 64 lower-case hex digits", s)
	}
	_, err := hex.Decode(d[:], []byte(s[len("sha256:"):]))
	return d, err
}

// DigestOf returns the digest of content.
func DigestOf(content []byte) Digest { return sha256.Sum256(content) }

// String returns the digest as it is written in OCI documents and URLs.
func (d Digest) String() string { return "sha256:" + d.Hex() }

// Hex returns the 64 hexadecimal digits without the algorithm.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is the zero Digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements [encoding.TextMarshaler].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] with [ParseDigest].
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}
