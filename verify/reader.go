package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
)

// ErrMismatch is what every [MismatchError] is.
var ErrMismatch = errors.New("content does not match its digest")

// MismatchError says that content is not what its descriptor promised.
type MismatchError struct {
	Want, Got Digest // Got is zero when the size alone is wrong
	Size      int64  // bytes promised
	Read      int64  // bytes seen; one more than Size when there were too many
}

func (e *MismatchError) Error() string {
	switch {
	case e.Read < e.Size:
		return fmt.Sprintf("content of %s ends after %d of %d bytes", e.Want, e.Read, e.Size)
	case e.Read > e.Size:
		return fmt.Sprintf("content of %s goes on after its %d bytes", e.Want, e.Size)
	}
	return fmt.Sprintf("content has digest %s, want %s (%d bytes)", e.Got, e.Want, e.Size)
}

// Is reports whether target is [ErrMismatch].
func (e *MismatchError) Is(target error) bool { return target == ErrMismatch }

type reader struct {
	src  io.Reader
	hash hash.Hash
	want Digest
	size int64
	read int64
	err  error
}

// NewReader returns a reader of r that hashes what it passes on. Where r ends,
// it ends with io.EOF only if r had exactly size bytes with the digest want,
// and with a [*MismatchError] otherwise; so io.Copy can not succeed on wrong
// content. It reads at most one byte more than size.
func NewReader(r io.Reader, want Digest, size int64) io.Reader {
	size = max(size, -1) // less than nothing is as impossible as one less
	limit := size + 1
	if size == math.MaxInt64 {
		limit = size
	}
	return &reader{src: io.LimitReader(r, limit), hash: sha256.New(), want: want, size: size}
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.src.Read(p)
	r.hash.Write(p[:n])
	r.read += int64(n)
	if r.read > r.size {
		// The surplus byte is not passed on.
		n = max(0, n-int(r.read-r.size))
		err = &MismatchError{Want: r.want, Size: r.size, Read: r.read}
	} else if err == io.EOF {
		if got := Digest(r.hash.Sum(nil)); got != r.want || r.read != r.size {
			err = &MismatchError{Want: r.want, Got: got, Size: r.size, Read: r.read}
		}
	}
	r.err = err
	return n, err
}
