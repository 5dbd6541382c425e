package extract

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"ferry/verify"
)

// DiffID reads a layer to its verified end and returns the digest of what it
// unpacks to, which the config of its image has as well. Nothing is written to
// disk. A layer that [Image] would refuse for its form or its size is an error,
// except for the names in it; of [Options] only the limits count. Errors:
// [ErrInvalid], [ErrLimit], and those of the layer's stream.
//
// Memory is that of the layer's zstd window, 128 MiB at most.
//
// # Sources
//
// OCI Image Configuration 1.1.1, "Layer DiffID".
func DiffID(ctx context.Context, l Layer, o Options) (verify.Digest, error) {
	o = o.withDefaults()
	hash := sha256.New()
	files, bytes := 0, int64(0)
	count := func(h *tar.Header, _ io.Reader) error {
		files++
		bytes += h.Size
		switch {
		case files > o.MaxFiles:
			return fmt.Errorf("%w: more than %d entries", ErrLimit, o.MaxFiles)
		case h.Size > o.MaxFileBytes, bytes > o.MaxBytes:
			return fmt.Errorf("%w: a file of more than %d bytes, or more than %d of all", ErrLimit, o.MaxFileBytes, o.MaxBytes)
		}
		return nil
	}
	err := l.read(ctx, func(src *source) error { return readTar(src, l.MediaType, o.MaxRatio, hash, count) })
	if err != nil {
		return verify.Digest{}, err
	}
	return verify.Digest(hash.Sum(nil)), nil
}
