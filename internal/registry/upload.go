package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ferry/internal/oci"
	"ferry/internal/transport"
	"ferry/verify"
)

const (
	// SmallBlob, in bytes, is up to where [Client.PushBlob] reads a blob into
	// memory and sends it with the closing request; below the 1 MiB that
	// nginx takes.
	SmallBlob = 512 << 10
	// minChunk, in bytes, is what chunks are halved down to when a proxy
	// refuses larger ones (T58); firstChunk is where that begins.
	minChunk   = 1 << 20
	firstChunk = 64 << 20
	// maxUploads is how often the upload of one blob is begun.
	maxUploads = 5
	// closing is how long a registry may take to check and file a blob
	// before it answers; one that keeps blobs in S3 copies them then.
	closing = 15 * time.Minute
	// cancelling bounds the courtesy of cancelling an upload.
	cancelling = 5 * time.Second
)

// OpenFunc opens the content of a blob from byte off on. The caller closes
// what it returns, and cancels ctx when it needs no more. It may be called
// several times for one blob, one after another.
type OpenFunc func(ctx context.Context, off int64) (io.ReadCloser, error)

// PushResult says how a blob came to be where it was to be pushed.
type PushResult struct {
	Mounted bool // the registry had it in another repository
	Existed bool // it was there
}

// PushBlob makes sure that r has the blob d. When it is not there, it is
// mounted from one of the repositories in from, or else uploaded with the
// bytes that open gives. These are hashed as they are sent: an upload is
// finished only after d.Size bytes that have the digest, and cancelled when
// they have not. After [Client.LeaveHashTo] the registry alone does that, but
// for small blobs, and a blob that it refuses is sent once more with the hash.
// An upload that breaks goes on where the registry says that it broke, or
// begins anew, a limited number of times. Afterwards the registry has been
// asked whether it has the blob.
//
// Of from, repositories on other hosts are passed over; a blob is mounted from
// one that holds it with the same digest, whatever its content (T63).
//
// Errors: what open and its readers give, [verify.ErrMismatch] when the
// content is not d's, [ErrUnauthorized] ([ErrNoProject], [ErrProxyCache]),
// [ErrNotFound], [ErrQuota], [ErrReadOnly], [ErrTooLarge], [ErrUnavailable],
// [ErrName], [ErrLost]. A cancelled ctx leaves an unfinished upload at most,
// which nobody sees.
func (c *Client) PushBlob(ctx context.Context, r Repository, d oci.Descriptor, open OpenFunc, from []Repository) (PushResult, error) {
	if err := checkBlob(r, d); err != nil {
		return PushResult{}, err
	}
	size, ok, err := c.hasBlob(ctx, r, d.Digest, true)
	if err != nil {
		return PushResult{}, err
	}
	if ok && (size == d.Size || size < 0) {
		return PushResult{Existed: true}, nil
	}
	return c.PushAbsentBlob(ctx, r, d, open, from)
}

// PushAbsentBlob is [Client.PushBlob] for a blob of which it is known that r
// does not have it: it is not asked for first.
func (c *Client) PushAbsentBlob(ctx context.Context, r Repository, d oci.Descriptor, open OpenFunc, from []Repository) (PushResult, error) {
	if err := checkBlob(r, d); err != nil {
		return PushResult{}, err
	}
	u := &upload{c: c, repo: r, d: d, open: open, hashes: !c.leavesHashTo(r.Host), used: make(map[string]bool)}
	mounted, err := u.mount(ctx, from)
	if err == nil && !mounted {
		err = u.run(ctx)
	}
	if err != nil {
		return PushResult{}, err
	}
	return PushResult{Mounted: mounted}, nil
}

func checkBlob(r Repository, d oci.Descriptor) error {
	if d.Size < 0 {
		return fmt.Errorf("pushing %s: descriptor has size %d", d.Digest, d.Size)
	}
	return r.Digest(d.Digest).check()
}

// upload is the way of one blob into a registry.
type upload struct {
	c    *Client
	repo Repository
	d    oci.Descriptor
	open OpenFunc

	hashes bool // what is sent is hashed here, and not by the registry alone
	// indirect says that a break may have been one of the source, which is not
	// told apart when the kernel sends from a file.
	indirect bool
	at       *url.URL        // where the next request goes; nil: no session
	trail    *trail          // what was hashed
	source   error           // what the source failed with: no use to go on
	used     map[string]bool // reasons to begin anew that count once
	denied   int             // how often a login was refused since bytes were last taken
}

// call returns a call about the blob.
func (u *upload) call(op, method string, want ...int) call {
	k := at(op, u.repo, u.d.Digest.String())
	k.method, k.want, k.push = method, want, true
	return k
}

// mount tries to mount the blob, and reports whether it is there now. When it
// is not there may be a session for its upload.
func (u *upload) mount(ctx context.Context, from []Repository) (bool, error) {
	for _, f := range from {
		if f.Host != u.repo.Host || f == u.repo || f.check() != nil {
			continue
		}
		u.cancel(ctx)
		k := u.call("mount blob", http.MethodPost, http.StatusCreated, http.StatusAccepted)
		k.path = "/v2/" + u.repo.Path + "/blobs/uploads/"
		k.query = url.Values{"mount": {u.d.Digest.String()}, "from": {f.Path}}
		k.from, k.once = []Repository{f}, true
		resp, err := u.c.do(transport.Repeatable(ctx), k)
		switch {
		case errors.Is(err, ErrQuota), errors.Is(err, ErrReadOnly), ctx.Err() != nil:
			return false, err
		case err != nil:
			continue // Harbor says 401 when it has no such project
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusAccepted {
			if err := u.follow(ctx, resp); err != nil {
				return false, k.fail(err)
			}
			continue
		}
		if there, err := u.there(ctx); there || err != nil {
			return there, err
		}
	}
	return false, nil
}

// there asks the registry whether it has the blob, a few times as some
// registries take a moment to notice.
func (u *upload) there(ctx context.Context) (bool, error) {
	for try := 0; ; try++ {
		size, ok, err := u.c.hasBlob(ctx, u.repo, u.d.Digest, true)
		if err != nil || ok && (size == u.d.Size || size < 0) {
			return ok, err
		}
		if try == 2 {
			return false, nil
		}
		if err := u.c.backoff(ctx, try); err != nil {
			return false, u.fail(err)
		}
	}
}

func (u *upload) fail(err error) error {
	k := u.call("push blob", "")
	return k.fail(err)
}

// run uploads the blob.
func (u *upload) run(ctx context.Context) error {
	var err error
	for n := range maxUploads {
		if n > 0 {
			if err := u.c.backoff(ctx, n-1); err != nil {
				return u.fail(err)
			}
		}
		if err = u.once(ctx); err == nil {
			return nil
		}
		u.cancel(ctx)
		if !u.again(ctx, err) {
			break
		}
	}
	return err
}

// again reports whether it is of use to begin anew after err.
func (u *upload) again(ctx context.Context, err error) bool {
	if u.source != nil || ctx.Err() != nil {
		return false
	}
	if errors.Is(err, ErrLost) {
		return u.first("lost")
	}
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	if e.kind() == ErrUnavailable {
		return true
	}
	hashed := u.hashes
	u.hashes = true // to tell whether the source is to blame
	switch {
	case e.Status == http.StatusRequestedRangeNotSatisfiable:
		return true
	case e.Code == "DIGEST_INVALID", e.Code == "SIZE_INVALID": // mixed up where it was resumed, or by the source
		return u.first("digest")
	case e.Status == http.StatusBadRequest && !hashed: // not every registry says why
		return u.first("digest")
	case e.Code == "BLOB_UPLOAD_UNKNOWN", e.Code == "BLOB_UPLOAD_INVALID":
		return true
	case e.Status == http.StatusUnauthorized && e.Op == opSend:
		return u.denied == 1 // the login was dropped, so there will be another
	}
	return false
}

// first reports whether reason has not been used yet, and uses it.
func (u *upload) first(reason string) bool {
	was := u.used[reason]
	u.used[reason] = true
	return !was
}

// ErrLost says that a registry acknowledged a blob and does not have it.
var ErrLost = errors.New("the registry took the blob and does not have it")

// once uploads the blob in one session.
func (u *upload) once(ctx context.Context) error {
	if u.at == nil {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	u.trail = newTrail(u.hashes)
	var content []byte
	var err error
	if chunk := u.c.chunk.Load(); u.d.Size <= SmallBlob && (chunk == 0 || u.d.Size <= chunk) {
		content, err = u.readAll(ctx)
	} else {
		err = u.sendAll(ctx)
	}
	if err != nil {
		return err
	}
	if err := u.finish(ctx, content); err != nil {
		return err
	}
	switch there, err := u.there(ctx); {
	case err != nil:
		return err
	case !there:
		return u.fail(ErrLost)
	}
	return nil
}

// begin opens a session.
func (u *upload) begin(ctx context.Context) error {
	k := u.call("begin upload of blob", http.MethodPost, http.StatusAccepted)
	k.path, k.begins = "/v2/"+u.repo.Path+"/blobs/uploads/", true
	resp, err := u.c.do(transport.Repeatable(ctx), k)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if err := u.follow(ctx, resp); err != nil {
		return k.fail(err)
	}
	return nil
}

// follow takes over the location in resp, if there is one.
func (u *upload) follow(ctx context.Context, resp *http.Response) error {
	location := resp.Header.Get("Location")
	if location == "" && u.at != nil {
		return nil
	}
	h, err := u.c.host(ctx, u.repo.Host)
	if err == nil {
		u.at, err = h.own(resp.Request.URL, location)
	}
	return err
}

// readAll reads a small blob.
func (u *upload) readAll(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var content []byte
	src, err := u.open(ctx, 0)
	if err == nil {
		content, err = io.ReadAll(verify.NewReader(src, u.d.Digest, u.d.Size))
		src.Close()
	}
	if err != nil {
		u.source = err
		return nil, fmt.Errorf("reading %s: %w", u.d.Digest, err)
	}
	return content, nil
}

// finish closes the session: the registry checks and files the blob. Content
// is what was not sent before. An answer that was lost is made up for by
// asking whether the blob is there.
func (u *upload) finish(ctx context.Context, content []byte) error {
	k := u.call("push blob", http.MethodPut, http.StatusCreated)
	k.url = u.at
	k.query = url.Values{"digest": {u.d.Digest.String()}}
	k.header = http.Header{"Content-Type": {"application/octet-stream"}}
	k.body = content
	resp, err := u.c.do(transport.Patience(ctx, closing), k)
	if err != nil {
		var e *Error
		if errors.Is(err, ErrTooLarge) {
			return tooLarge(err, int64(len(content)))
		}
		lost := errors.Is(err, ErrUnavailable) || errors.As(err, &e) && e.Status == http.StatusNotFound
		if lost && ctx.Err() == nil {
			if size, ok, headErr := u.c.hasBlob(ctx, u.repo, u.d.Digest, true); headErr == nil && ok && size == u.d.Size {
				u.at = nil
				return nil
			}
		}
		return err
	}
	resp.Body.Close()
	u.at = nil
	told, err := toldDigest(resp.Header)
	switch {
	case err != nil:
		return k.fail(err)
	case !told.IsZero() && told != u.d.Digest:
		return k.fail(fmt.Errorf("the registry stored something else: %w",
			&verify.MismatchError{Want: u.d.Digest, Got: told, Size: u.d.Size, Read: u.d.Size}))
	}
	return nil
}

// cancel tells the registry, if there is a session, that nothing more comes.
// Nobody sees an unfinished upload, so a failure is of no matter.
func (u *upload) cancel(ctx context.Context) {
	if u.at == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelling)
	defer stop()
	k := u.call("cancel upload of blob", http.MethodDelete, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
	k.url, k.once = u.at, true
	u.at = nil
	if resp, err := u.c.do(ctx, k); err == nil {
		resp.Body.Close()
	}
}

// status asks how many bytes of the blob the registry has; -1 when it can not
// say.
func (u *upload) status(ctx context.Context) (int64, error) {
	k := u.call("ask for upload of blob", http.MethodGet, http.StatusNoContent)
	k.url = u.at
	resp, err := u.c.do(ctx, k)
	if err != nil {
		return -1, err
	}
	resp.Body.Close()
	if err := u.follow(ctx, resp); err != nil {
		return -1, k.fail(err)
	}
	return received(resp.Header), nil
}

// received returns how many bytes a registry says that it has, or -1.
// Registries say "0-0" for one byte and for none.
func received(h http.Header) int64 {
	var first, last int64
	s := strings.TrimPrefix(h.Get("Range"), "bytes=")
	n, err := fmt.Sscanf(s, "%d-%d", &first, &last)
	if n != 2 || err != nil || first != 0 || last <= 0 || last == math.MaxInt64 {
		return -1
	}
	return last + 1
}
