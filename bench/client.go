package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
)

// registryClient does the requests of OCI Distribution that the floors and the
// verification need, without TLS, login, retries or any look at the answers
// but their status.
type registryClient struct {
	base string
	http *http.Client
}

func newRegistryClient(host string, jobs int) *registryClient {
	return &registryClient{"http://" + host, newHTTPClient(jobs)}
}

func newHTTPClient(jobs int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         dialForFiles,
		MaxIdleConnsPerHost: jobs, DisableCompression: true, IdleConnTimeout: time.Minute,
	}}
}

// do sends a request and refuses another status than want. The caller closes
// the body of the answer.
func (c *registryClient) do(req *http.Request, want int) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %s %s", req.Method, req.URL.Path, resp.Status, text)
	}
	return resp, nil
}

// drop ends an answer whose body does not matter.
func drop(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (c *registryClient) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, c.base+"/v2/"+path, body)
}

// blob returns the answer with the content of a blob.
func (c *registryClient) blob(ctx context.Context, repository, digest string) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, repository+"/blobs/"+digest, nil)
	if err != nil {
		return nil, err
	}
	return c.do(req, http.StatusOK)
}

// putBlob sends a blob monolithically: POST, then PUT. A *filePart as the body
// is sent within the kernel.
func (c *registryClient) putBlob(ctx context.Context, repository, digest string, size int64, body io.Reader) error {
	post, err := c.request(ctx, http.MethodPost, repository+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	resp, err := c.do(post, http.StatusAccepted)
	if err := drop(resp, err); err != nil {
		return err
	}
	location, err := post.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", digest)
	location.RawQuery = query.Encode()
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, location.String(), body)
	if err != nil {
		return err
	}
	put.ContentLength = size
	put.Header.Set("Content-Type", "application/octet-stream")
	return drop(c.do(put, http.StatusCreated))
}

func (c *registryClient) mount(ctx context.Context, repository, digest, from string) error {
	req, err := c.request(ctx, http.MethodPost, repository+"/blobs/uploads/?mount="+url.QueryEscape(digest)+"&from="+url.QueryEscape(from), nil)
	if err != nil {
		return err
	}
	return drop(c.do(req, http.StatusCreated))
}

func (c *registryClient) putManifest(ctx context.Context, m planManifest) error {
	req, err := c.request(ctx, http.MethodPut, m.Repository+"/manifests/"+m.reference(), bytes.NewReader(m.Data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", m.MediaType)
	return drop(c.do(req, http.StatusCreated))
}

// head asks for the digest of a manifest.
func (c *registryClient) head(ctx context.Context, m planManifest) (string, error) {
	req, err := c.request(ctx, http.MethodHead, m.Repository+"/manifests/"+m.reference(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", m.MediaType)
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return resp.Header.Get("Docker-Content-Digest"), nil
}

// hasBlob returns an error unless a repository has a blob of this size.
func (c *registryClient) hasBlob(ctx context.Context, repository, digest string, size int64) error {
	req, err := c.request(ctx, http.MethodHead, repository+"/blobs/"+digest, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.ContentLength != size {
		return fmt.Errorf("%s in %s has %d bytes, want %d", digest, repository, resp.ContentLength, size)
	}
	return nil
}

// send sends one blob to its first repository.
type send func(ctx context.Context, c *registryClient, b planBlob) error

// sendPart sends blobs as the parts of files that open returns. The transport
// closes them.
func sendPart(open func(planBlob) (*filePart, error)) send {
	return func(ctx context.Context, c *registryClient, b planBlob) error {
		part, err := open(b)
		if err != nil {
			return err
		}
		return c.putBlob(ctx, b.Repositories[0], b.Digest, b.Size, part)
	}
}

// pushAll pushes what is in the plan into an empty registry: each blob is sent
// once and mounted elsewhere, then manifests, children before indexes.
func pushAll(ctx context.Context, c *registryClient, p *plan, jobs int, send send) error {
	defer c.http.CloseIdleConnections()
	err := each(ctx, jobs, p.Blobs, func(ctx context.Context, b planBlob) error {
		if err := send(ctx, c, b); err != nil {
			return err
		}
		for _, repository := range b.Repositories[1:] {
			if err := c.mount(ctx, repository, b.Digest, b.Repositories[0]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, indexes := range []bool{false, true} {
		var list []planManifest
		for _, m := range p.Manifests {
			if (m.MediaType == mediaIndex) == indexes {
				list = append(list, m)
			}
		}
		if err := each(ctx, jobs, list, c.putManifest); err != nil {
			return err
		}
	}
	return nil
}

// each calls do for all items, some at a time.
func each[T any](ctx context.Context, jobs int, items []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, item := range items {
		g.Go(func() error { return do(ctx, item) })
	}
	return g.Wait()
}

func digestOfBytes(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
