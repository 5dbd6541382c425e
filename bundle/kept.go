package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"

	"ferry/verify"
)

// findKept reads what an interrupted writer has left of the file f in old. It
// returns how many bytes from the beginning of the content on seem to be there,
// and whether all of the file is, with header, padding and digest. A cancelled
// context ends it, with 0.
//
// What was not written yet reads as zeros, and content may have zeros too: so
// those count that have other bytes behind them, for a writer goes from the
// beginning to the end. That the kept bytes are the right ones is known only
// when the digest of all is (see [Writer.Write]).
func findKept(ctx context.Context, old io.ReaderAt, f File) (n int64, whole bool) {
	if !holds(old, f.Header(), f.Start) {
		return 0, false
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	h := sha256.New()
	content := io.NewSectionReader(old, f.Content(), f.Size)
	for at := int64(0); at < f.Size; {
		if ctx.Err() != nil {
			return 0, false
		}
		k, err := io.ReadFull(content, (*buffer)[:min(copyBuffer, f.Size-at)])
		if written := bytes.TrimRight((*buffer)[:k], "\x00"); len(written) > 0 {
			hashZeros(h, at-n)
			h.Write(written)
			n = at + int64(len(written))
		}
		if err != nil {
			return n, false
		}
		at += int64(k)
	}
	hashZeros(h, f.Size-n)
	if verify.Digest(h.Sum(nil)) != f.Digest {
		return n, false
	}
	return f.Size, holds(old, make([]byte, f.Padding()), f.Content()+f.Size)
}

// holds reports whether old has those bytes at off.
func holds(old io.ReaderAt, want []byte, off int64) bool {
	got := make([]byte, len(want))
	_, err := io.ReadFull(io.NewSectionReader(old, off, int64(len(want))), got)
	return err == nil && bytes.Equal(got, want)
}

var zeros [64 << 10]byte

func hashZeros(h hash.Hash, n int64) {
	for ; n > 0; n -= min(n, int64(len(zeros))) {
		h.Write(zeros[:min(n, int64(len(zeros)))])
	}
}
