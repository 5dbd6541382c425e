package layout

import (
	"context"
	"fmt"
	"io"
	"sync"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

// copyBuffer, in bytes, is what each blob that is moved holds in memory.
const copyBuffer = 256 << 10

// copyBlob copies the content of d from r to w, and returns an error where it
// is not that content.
func copyBlob(ctx context.Context, w io.Writer, d oci.Descriptor, r io.Reader) error {
	// io.CopyBuffer would use a ReadFrom of w, which may not use buffer.
	w = struct{ io.Writer }{w}
	_, err := io.CopyBuffer(w, withContext(ctx, verify.NewReader(r, d.Digest, d.Size)), make([]byte, copyBuffer))
	return err
}

// checkBlob returns an error when d can not be a blob.
func checkBlob(d oci.Descriptor) error {
	if d.Digest.IsZero() || d.Size < 0 || d.Size > bundle.MaxSize {
		return fmt.Errorf("blob %s with %d bytes is not supported", d.Digest, d.Size)
	}
	return nil
}

// turns lets one writer at a time write a blob. The zero turns is ready to use.
type turns struct{ m sync.Map }

// take waits until nobody writes d, and returns what ends the turn.
func (t *turns) take(ctx context.Context, d verify.Digest) (end func(), err error) {
	c, _ := t.m.LoadOrStore(d, make(chan struct{}, 1))
	turn := c.(chan struct{})
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
