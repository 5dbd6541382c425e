package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// minProgress, in bytes, is how much must come between two breaks of a
// transfer for the second not to count as one more without progress (T41).
const minProgress = 16 << 10

// HasBlob reports whether r has the blob with that digest, and its size in
// bytes, as the registry tells them; -1 when it tells no size. Errors:
// [ErrUnauthorized], [ErrUnavailable], [ErrName].
func (c *Client) HasBlob(ctx context.Context, r Repository, digest verify.Digest) (size int64, ok bool, err error) {
	if err := r.Digest(digest).check(); err != nil {
		return 0, false, err
	}
	return c.hasBlob(ctx, r, digest, false)
}

// hasBlob is HasBlob with the rights of one who pushes, when push is set, so
// that no second token is needed.
func (c *Client) hasBlob(ctx context.Context, r Repository, digest verify.Digest, push bool) (int64, bool, error) {
	k := at("head blob", r, digest.String())
	k.method, k.push = http.MethodHead, push
	k.path = "/v2/" + r.Path + "/blobs/" + digest.String()
	resp, err := c.do(ctx, k)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	resp.Body.Close()
	told, err := toldDigest(resp.Header)
	switch {
	case err != nil:
		return 0, false, k.fail(err)
	case !told.IsZero() && told != digest:
		return 0, false, k.fail(&verify.MismatchError{Want: digest, Got: told})
	}
	return resp.ContentLength, true, nil
}

// Blob returns the content of d in r as a stream, which the caller closes; ctx
// must live as long. What it delivers is verified: the stream ends with io.EOF
// only after d.Size bytes that have the digest, and with a
// [*verify.MismatchError] otherwise. A stream that breaks is taken up where it
// broke, without a byte delivered twice. Errors, from Blob or from the stream:
// [ErrNotFound], [ErrUnauthorized], [ErrBlocked], [ErrUnavailable],
// [verify.ErrMismatch], [ErrName].
func (c *Client) Blob(ctx context.Context, r Repository, d oci.Descriptor) (io.ReadCloser, error) {
	body, err := c.OpenBlob(ctx, r, d, 0)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{verify.NewReader(body, d.Digest, d.Size), body}, nil
}

// OpenBlob is [Client.Blob] from the offset off on, in bytes, and without the
// hash: who reads the whole content checks its size and digest, once, where
// the last byte is used. A registry that goes on after d.Size bytes is not
// stopped. A stream that stays too short ends with io.EOF.
func (c *Client) OpenBlob(ctx context.Context, r Repository, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	if err := r.Digest(d.Digest).check(); err != nil {
		return nil, err
	}
	k := at("get blob", r, d.Digest.String())
	if d.Size < 0 || off < 0 || off > d.Size {
		return nil, k.fail(fmt.Errorf("offset %d in a blob of %d bytes", off, d.Size))
	}
	k.path = "/v2/" + r.Path + "/blobs/" + d.Digest.String()
	b := &blobReader{c: c, ctx: ctx, call: k, size: d.Size, off: off}
	if off > 0 && off == d.Size {
		b.err = io.EOF
		return b, nil
	}
	err := b.open()
	var broken *brokenError
	if errors.As(err, &broken) { // Read goes on, or tells
		b.strike(broken.cause)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// blobReader reads a blob and goes on after breaks.
type blobReader struct {
	c    *Client
	ctx  context.Context // of the stream, which [Client.OpenBlob] began
	call call
	size int64 // bytes, as promised

	body  io.ReadCloser // nil after a break
	etag  string        // of the first response, when strong
	off   int64         // of the next byte to deliver
	since int64         // bytes delivered since the last break
	idle  int           // breaks without progress, one after another
	err   error         // the end
}

func (b *blobReader) Close() error {
	if b.err == nil {
		b.err = errors.New("blob: read after close")
	}
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.body == nil {
			if err := b.reopen(); err != nil {
				b.err = err
				break
			}
		}
		n, err := b.body.Read(p)
		b.off += int64(n)
		b.since += int64(n)
		if err != nil {
			b.broke(err)
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
	return 0, b.err
}

// broke takes note that the body ended with err.
func (b *blobReader) broke(err error) {
	if b.off >= b.size { // whether it is right is for the digest to say
		b.err = io.EOF
		return
	}
	b.body.Close()
	b.body = nil
	b.strike(err)
}

// strike counts a break. Too many without progress are the end: io.EOF, which
// the verifying reader turns into a mismatch, when the content is just short,
// and the break itself otherwise.
func (b *blobReader) strike(err error) {
	if b.since >= minProgress {
		b.idle = 0
	}
	b.since = 0
	b.idle++
	switch {
	case b.ctx.Err() != nil:
		b.err = b.call.fail(context.Cause(b.ctx))
	case b.idle <= tries:
	case err == io.EOF:
		b.err = err
	default:
		e := b.call.fail(err)
		e.network = e.network || e.Status == 0
		b.err = e
	}
}

// reopen opens the blob again, after a pause.
func (b *blobReader) reopen() error {
	for {
		if err := b.c.backoff(b.ctx, b.idle-1); err != nil {
			return b.call.fail(err)
		}
		err := b.open()
		var broken *brokenError
		if !errors.As(err, &broken) {
			return err
		}
		if b.strike(broken.cause); b.err != nil {
			return b.err
		}
	}
}

// brokenError says that a body broke before the byte that was wanted.
type brokenError struct{ cause error }

func (e *brokenError) Error() string { return e.cause.Error() }

// open opens the blob at b.off.
func (b *blobReader) open() error {
	k := b.call
	if b.off > 0 && b.off < b.size {
		k.want = []int{http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable}
		k.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", b.off, b.size-1)}}
		if b.etag != "" {
			k.header["If-Range"] = []string{b.etag}
		}
	}
	resp, err := b.c.do(b.ctx, k)
	if err != nil {
		return err
	}
	skip := b.off
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable: // the blob is shorter than promised
		resp.Body.Close()
		return &brokenError{io.EOF}
	case http.StatusPartialContent:
		first, ok := firstByte(resp.Header.Get("Content-Range"))
		if !ok || first > b.off {
			resp.Body.Close()
			return k.fail(fmt.Errorf("the registry answers bytes from %d on with %s", b.off, clean(resp.Header.Get("Content-Range"))))
		}
		skip -= first
	}
	if tag := resp.Header.Get("Etag"); b.etag == "" && strings.HasPrefix(tag, `"`) {
		b.etag = tag
	}
	if skip > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
			resp.Body.Close()
			return &brokenError{err}
		}
	}
	b.body = resp.Body
	return nil
}

// firstByte returns the offset at which a Content-Range begins, and whether it
// says one.
func firstByte(contentRange string) (int64, bool) {
	var first int64
	if _, err := fmt.Sscanf(contentRange, "bytes %d-", &first); err != nil || first < 0 {
		return 0, false
	}
	return first, true
}
