package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"

	"ferry/internal/transport"
	"ferry/verify"
)

// opSend names the request that sends the bytes of a blob.
const opSend = "send blob"

// sendAll sends the whole blob in the session, in one request or in chunks,
// and returns nil only when the bytes that were read were the right ones.
// After a break it goes on where the registry says.
func (u *upload) sendAll(ctx context.Context) error {
	var off, best int64 // what the registry has, and had at most
	for breaks := 0; off < u.d.Size; {
		size, chunk := u.d.Size-off, u.c.chunk.Load()
		if chunk > 0 {
			size = min(size, chunk)
		}
		got, err := u.send(ctx, off, size, chunk > 0 || off > 0)
		if err == nil {
			off, best, breaks, u.denied = got, max(best, got), 0, 0
			continue
		}
		var e *Error
		if u.source != nil || ctx.Err() != nil || !errors.As(err, &e) {
			return err
		}
		if e.Status == http.StatusRequestEntityTooLarge {
			if !u.c.shrink(chunk, size) {
				return tooLarge(err, size)
			}
			continue
		}
		if e.Status == http.StatusExpectationFailed && !u.c.noExpect.Swap(true) {
			continue
		}
		if e.Status == http.StatusUnauthorized {
			if u.denied++; u.denied > 1 {
				return err
			}
		}
		if breaks++; breaks > tries || !resumable(e) || u.used["digest"] {
			return err
		}
		if err := u.c.backoff(ctx, breaks-1); err != nil {
			return u.fail(err)
		}
		has, statusErr := u.status(ctx)
		if statusErr != nil || has < 0 || has > u.trail.most {
			return err
		}
		if off = has; off >= best+minProgress {
			best, breaks = off, 0
		}
	}
	if !u.hashes {
		return nil // the registry checks it
	}
	if u.trail.n < u.d.Size { // what was sent before the last break
		src, err := u.openAt(ctx, u.d.Size)
		if err != nil {
			return err
		}
		src.stop()
	}
	if u.trail.sum() != u.d.Digest {
		return u.fail(errors.New("the registry says it has what was not sent"))
	}
	return nil
}

// resumable reports whether an upload can go on after e.
func resumable(e *Error) bool {
	return e.kind() == ErrUnavailable || e.Status == http.StatusUnauthorized ||
		e.Status == http.StatusRequestedRangeNotSatisfiable
}

// tooLarge adds to err, of status 413, what it is about: registries have no
// such limit for blobs, so it is a proxy's.
func tooLarge(err error, size int64) error {
	var e *Error
	if errors.As(err, &e) && e.Err == nil {
		e.Err = fmt.Errorf("a proxy before the registry refuses a request of %d bytes", size)
	}
	return err
}

// shrink finds a size for chunks after a request of sent bytes was too large,
// when chunk was the limit (T58). It reports whether there is a smaller one.
func (c *Client) shrink(chunk, sent int64) bool {
	next := max(min(firstChunk, sent/2), minChunk)
	if sent <= minChunk {
		return false
	}
	c.chunk.CompareAndSwap(chunk, next) // or else another upload has found one
	return true
}

// send sends size bytes from off on, and returns how many the registry has
// then.
func (u *upload) send(ctx context.Context, off, size int64, ranged bool) (int64, error) {
	src, err := u.openAt(ctx, off)
	if err != nil {
		return 0, err
	}
	defer src.stop()
	src.left, src.direct = size, !u.hashes && !u.indirect

	k := u.call(opSend, http.MethodPatch, http.StatusAccepted)
	k.url, k.stream, k.size = u.at, src, size
	k.header = http.Header{"Content-Type": {"application/octet-stream"}}
	if !u.c.noExpect.Load() {
		// A refusal is then known before bytes are read and sent in vain.
		k.header["Expect"] = []string{"100-continue"}
	}
	if ranged {
		k.header["Content-Range"] = []string{fmt.Sprintf("%d-%d", off, off+size-1)}
	}
	resp, err := u.c.do(ctx, k)
	src.stop() // the transport may still have been reading
	u.indirect = u.indirect || !src.direct
	if err == nil {
		resp.Body.Close()
	}
	if src.err != nil {
		u.source = src.err
		return 0, fmt.Errorf("reading %s: %w", u.d.Digest, src.err)
	}
	if err != nil {
		return 0, err
	}
	if err := u.follow(ctx, resp); err != nil {
		return 0, k.fail(err)
	}
	got := received(resp.Header)
	if got < 0 {
		got = off + size
	}
	if got <= off || got > u.trail.n {
		e := k.fail(fmt.Errorf("the registry says it has %d bytes after bytes from %d to %d were sent", got, off, u.trail.n))
		e.network = true
		return 0, e
	}
	return got, nil
}

// openAt opens the source such that what it delivers begins at off, and what
// was hashed ends there.
func (u *upload) openAt(ctx context.Context, off int64) (*source, error) {
	ctx, cancel := context.WithCancel(ctx)
	from := u.trail.rewind(off)
	src, err := u.open(ctx, from)
	if err != nil {
		cancel()
		u.source = err
		return nil, fmt.Errorf("reading %s: %w", u.d.Digest, err)
	}
	s := &source{src: src, cancel: cancel, trail: u.trail, want: u.d.Digest, size: u.d.Size, left: off - from}
	if _, err := io.CopyN(io.Discard, s, off-from); err != nil {
		s.stop()
		u.source = err
		return nil, fmt.Errorf("reading %s: %w", u.d.Digest, err)
	}
	return s, nil
}

// source is what is sent of a blob in one request, and the body of that. If
// its trail hashes, it does not deliver the last bytes of a blob that is not
// the right one.
type source struct {
	src    io.ReadCloser
	cancel context.CancelFunc
	want   verify.Digest
	size   int64 // bytes of the whole blob

	mu      sync.Mutex // as the transport may read on after it has answered
	trail   *trail
	left    int64 // bytes to deliver
	direct  bool  // may be handed to a connection by src
	stopped bool
	err     error // what reading ended with, if not well
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return 0, s.err
	case s.stopped:
		return 0, io.ErrClosedPipe
	case s.left == 0:
		return 0, io.EOF
	}
	n, err := s.src.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if _, changed := s.trail.Write(p[:n]); changed != nil {
		err = changed
	} else {
		err = s.checkRead(err)
	}
	if err != nil {
		s.err = err
		return 0, err
	}
	return n, nil
}

// WriteNTo implements [transport.Direct].
func (s *source) WriteNTo(w io.Writer, n int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	direct, ok := s.src.(transport.Direct)
	if !ok || !s.direct || s.err != nil || s.stopped {
		return 0, nil
	}
	n, err := direct.WriteNTo(w, min(n, s.left))
	s.left -= n
	s.trail.skip(n)
	if err != nil {
		s.direct = isBreak(err)
		return n, err
	}
	if s.err = s.checkRead(nil); s.err != nil {
		return n, s.err
	}
	return n, nil
}

// isBreak reports whether err is surely not one of the source: it is one of the
// connection, or of a request that was answered before it was sent.
func isBreak(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// Close implements [io.Closer] for net/http, which may not close the source.
func (s *source) Close() error { return nil }

// checkRead returns what is wrong with the bytes that were read so far, the
// last of them with err.
func (s *source) checkRead(err error) error {
	switch {
	case s.trail.n == s.size:
		return s.checkEnd(err)
	case err == io.EOF:
		return &verify.MismatchError{Want: s.want, Size: s.size, Read: s.trail.n}
	}
	return err
}

// checkEnd returns what is wrong with a blob of which all bytes were read,
// the last of them with err.
func (s *source) checkEnd(err error) error {
	if err == nil {
		var n int
		if n, err = io.ReadFull(s.src, make([]byte, 1)); n > 0 {
			return &verify.MismatchError{Want: s.want, Size: s.size, Read: s.size + 1}
		}
	}
	if err != io.EOF {
		return err
	}
	if got := s.trail.sum(); s.trail.hash != nil && got != s.want {
		return &verify.MismatchError{Want: s.want, Got: got, Size: s.size, Read: s.size}
	}
	return nil
}

// stop ends all reading; when it returns nothing reads from src any more, and
// src is closed.
func (s *source) stop() {
	s.cancel() // ends a read that waits
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		s.src.Close()
	}
}

const (
	// markEvery, in bytes, is how far apart the states of a hash are kept:
	// at most so much is read again after a break.
	markEvery = 8 << 20
	// maxMarks is how many are kept; a registry lags behind what was sent
	// by what buffers hold, and that is far less than so many.
	maxMarks = 32
)

// trail hashes the bytes of a blob from its beginning, and can go back. Bytes
// that it is given again must be the same: they may have been sent before.
// Without a hash it counts only.
type trail struct {
	every int64     // bytes from mark to mark
	hash  hash.Hash // nil when the registry checks what it gets
	n     int64     // bytes hashed, or counted
	most  int64     // the largest n there was
	marks []mark    // from where to go on, in ascending order
	known []mark    // what must be met again after going back
}

type mark struct {
	n     int64
	state []byte // of the hash
}

// errChanged says that a source gave other bytes than before.
var errChanged = fmt.Errorf("the source gave other bytes the second time: %w", verify.ErrMismatch)

func newTrail(hashes bool) *trail {
	t := &trail{every: markEvery}
	if hashes {
		t.hash = sha256.New()
		t.mark()
	}
	return t
}

// Write implements [io.Writer]. Errors: errChanged.
func (t *trail) Write(p []byte) (int, error) {
	if t.hash == nil {
		t.skip(int64(len(p)))
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), t.every-t.n%t.every)
		for _, m := range t.known {
			if m.n > t.n {
				k = min(k, m.n-t.n)
			}
		}
		t.hash.Write(rest[:k])
		t.n += k
		rest = rest[k:]
		for _, m := range t.known {
			if m.n == t.n && !bytes.Equal(m.state, t.state()) {
				return 0, errChanged
			}
		}
		// What comes later covers it too, should there be another break.
		t.known = slices.DeleteFunc(t.known, func(m mark) bool { return m.n <= t.n })
		if t.n%t.every == 0 {
			t.mark()
		}
	}
	t.most = max(t.most, t.n)
	return len(p), nil
}

// skip counts n bytes.
func (t *trail) skip(n int64) {
	t.n += n
	t.most = max(t.most, t.n)
}

// state returns the state of the hash.
func (t *trail) state() []byte {
	state, err := t.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("sha256 without a state: " + err.Error()) // it promises one
	}
	return state
}

func (t *trail) mark() {
	if len(t.marks) == maxMarks {
		t.marks = slices.Delete(t.marks, 1, 2) // the first is the beginning
	}
	t.marks = append(t.marks, mark{t.n, t.state()})
}

// rewind goes back so far that the bytes from the result to off are to be
// written next; it is off where that is possible, and never more.
func (t *trail) rewind(off int64) int64 {
	if off >= t.n {
		return t.n
	}
	if t.hash == nil {
		t.n = off
		return off
	}
	t.known = append(t.known, mark{t.n, t.state()})
	i := len(t.marks) - 1
	for t.marks[i].n > off {
		i--
	}
	t.marks = t.marks[:i+1]
	t.n = t.marks[i].n
	if err := t.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(t.marks[i].state); err != nil {
		panic("sha256 refuses its own state: " + err.Error())
	}
	return t.n
}

// sum returns the digest of what was hashed, zero without a hash.
func (t *trail) sum() verify.Digest {
	if t.hash == nil {
		return verify.Digest{}
	}
	return verify.Digest(t.hash.Sum(nil))
}
