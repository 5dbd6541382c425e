package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// countedObject notes which ranges were asked for, and refuses them with err if
// it is not nil.
type countedObject struct {
	memoryObject
	ranges []string
	err    error
}

func (o *countedObject) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	o.ranges = append(o.ranges, fmt.Sprintf("%d+%d", off, n))
	if o.err != nil {
		return nil, o.err
	}
	return o.memoryObject.Range(ctx, off, n)
}

// The documents of a volume are read in ranges that are never longer than twice
// what is used, but for the first.
func TestStepReader(t *testing.T) {
	content := make([]byte, 10<<20)
	for i := range content {
		content[i] = byte(i >> 10)
	}
	o := &countedObject{memoryObject: content}
	if err := iotest.TestReader(&stepReader{ctx: t.Context(), object: o, at: 5, end: 9 << 20}, content[5:9<<20]); err != nil {
		t.Error(err)
	}
	want := []string{"5+1048576", "1048581+1048576", "2097157+2097152", "4194309+4194304", "8388613+1048571"}
	if !slices.Equal(o.ranges, want) {
		t.Errorf("ranges %q, want %q", o.ranges, want)
	}
	o.ranges = nil
	few := make([]byte, 1000)
	r := &stepReader{ctx: t.Context(), object: o, at: 0, end: 9 << 20}
	if _, err := io.ReadFull(r, few); err != nil || !bytes.Equal(few, content[:1000]) || len(o.ranges) != 1 {
		t.Errorf("%q, %v", o.ranges, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	short := &stepReader{ctx: t.Context(), object: &countedObject{memoryObject: content[:100]}, at: 0, end: 200}
	if _, err := io.ReadAll(short); err != io.ErrUnexpectedEOF {
		t.Errorf("a short object: %v", err)
	}
	refused := &stepReader{ctx: t.Context(), object: &countedObject{err: ErrNotFound}, at: 0, end: 200}
	for range 2 {
		if n, err := refused.Read(few); n != 0 || err != ErrNotFound {
			t.Errorf("a range that is refused: %d bytes, %v", n, err)
		}
	}
}
