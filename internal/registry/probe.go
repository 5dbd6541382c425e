package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"

	"ferry/internal/oci"
	"ferry/verify"
)

// LeaveHashTo finds out whether the registry of r refuses a blob that does not
// have its digest, and reports it: it sends a few bytes to r under the digest
// of others, in the way that large blobs are sent. If the registry refuses
// them for their digest, the client hashes no large blob any more that it
// pushes to that registry, until the client ends. A registry that takes them
// keeps a blob of 32 bytes that nothing names. Errors: of ctx only; any other
// trouble is no proof.
func (c *Client) LeaveHashTo(ctx context.Context, r Repository) (bool, error) {
	refuses := c.refusesWrong(ctx, r)
	if err := ctx.Err(); err != nil {
		return false, context.Cause(ctx)
	}
	if refuses {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hashLeftTo[r.Host] = true
	}
	return refuses, nil
}

func (c *Client) leavesHashTo(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hashLeftTo[host]
}

// wrongSize, in bytes, is the size of the wrong blob: enough that no two are
// the same.
const wrongSize = 32

// refusesWrong reports whether the registry refuses a wrong blob.
func (c *Client) refusesWrong(ctx context.Context, r Repository) bool {
	if r.check() != nil {
		return false
	}
	wrong, right := make([]byte, wrongSize), make([]byte, wrongSize)
	rand.Read(wrong) // never fails
	rand.Read(right)
	u := &upload{c: c, repo: r, d: oci.Descriptor{Digest: verify.DigestOf(right), Size: wrongSize}}
	if u.begin(ctx) != nil {
		return false
	}
	defer func() { u.cancel(ctx) }()
	k := u.call(opSend, http.MethodPatch, http.StatusAccepted)
	k.url, k.body = u.at, wrong
	k.header = http.Header{"Content-Type": {"application/octet-stream"}}
	resp, err := c.do(ctx, k)
	if err != nil {
		return false
	}
	resp.Body.Close()
	if u.follow(ctx, resp) != nil {
		return false
	}
	k = u.call("push blob", http.MethodPut, http.StatusCreated)
	k.url, k.query = u.at, url.Values{"digest": {u.d.Digest.String()}}
	resp, err = c.do(ctx, k)
	if err == nil {
		resp.Body.Close()
		u.at = nil
		return false
	}
	var refusal *Error
	return errors.As(err, &refusal) && refusal.Status == http.StatusBadRequest && refusal.Code == "DIGEST_INVALID"
}
