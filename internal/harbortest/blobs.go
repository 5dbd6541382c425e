package harbortest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
)

// upload is a blob in the making.
type upload struct {
	name     string // of the repository
	state    string // the client must send it back
	location string // at the backend
	received int64  // bytes
}

// bytesText writes a size as Harbor's quota messages do.
func bytesText(n int64) string {
	const unit = 1024
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	case n < unit*unit*unit:
		return fmt.Sprintf("%.1f MiB", float64(n)/unit/unit)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/unit/unit/unit)
}

// hasBlob reports whether the repository has the blob; the caller holds s.mu.
func (s *Server) hasBlob(name, digest string) (size int64, ok bool) {
	size, ok = s.state.blobs[name][digest]
	return size, ok
}

// addBlob notes that the repository has the blob.
func (s *Server) addBlob(c *registryCall, digest string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.blobs[c.name] == nil {
		s.state.blobs[c.name] = map[string]int64{}
	}
	s.state.blobs[c.name][digest] = size
	c.project.blobs[digest] = size
}

// checkBlobQuota refuses a blob that the project does not have and that does
// not fit.
func (s *Server) checkBlobQuota(c *registryCall, digest string, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := c.project.blobs[digest]; there {
		return nil
	}
	return c.project.checkQuota(size)
}

func serveBlob(c *registryCall) error {
	digest := c.ref
	c.s.mu.Lock()
	_, here := c.s.hasBlob(c.name, digest)
	anywhere := false
	for _, blobs := range c.s.state.blobs {
		_, has := blobs[digest]
		anywhere = anywhere || has
	}
	c.s.mu.Unlock()
	switch {
	case c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		return errf(http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
	case !here && !anywhere && c.r.Method == http.MethodHead:
		return notFound("blob %s not found", digest) // Harbor itself knows that
	case !here:
		c.w.Header().Set(apiVersion, "registry/2.0")
		e := errf(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		e.detail = digest
		return e
	}
	w := &headerWriter{ResponseWriter: c.w, edit: func(status int, h http.Header) {
		if status == http.StatusOK || status == http.StatusPartialContent {
			h.Set("Accept-Ranges", "bytes")
			h.Set("Cache-Control", "max-age=31536000")
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Docker-Content-Digest", digest)
			h.Set("Etag", `"`+digest+`"`)
		}
		h.Set(apiVersion, "registry/2.0")
	}}
	c.forward(w, c.r.Method, c.r.URL.EscapedPath(), nil)
	return nil
}

// startUpload begins an upload, or mounts a blob.
func startUpload(c *registryCall) error {
	if c.r.Method != http.MethodPost {
		return errf(http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
	}
	if len(c.name) > 255 {
		c.w.Header().Set(apiVersion, "registry/2.0")
		e := errf(http.StatusInternalServerError, "UNKNOWN", "unknown error")
		e.detail = map[string]any{"Name": c.name, "Reason": struct{}{}}
		return e
	}
	q := c.r.URL.Query()
	if mount, from := q.Get("mount"), q.Get("from"); mount != "" && from != "" {
		if done, err := c.mount(mount, from); done || err != nil {
			return err
		}
	}
	// An upload in a single POST is not done: its digest is ignored.
	rec := c.ask(http.MethodPost, "/v2/"+c.name+"/blobs/uploads/")
	location, err := url.Parse(rec.Header().Get("Location"))
	if rec.Code != http.StatusAccepted || err != nil {
		return pass(c.w, rec)
	}
	u := &upload{name: c.name, state: randomHex(32), location: location.RequestURI()}
	id := path.Base(location.Path)
	c.s.mu.Lock()
	c.s.state.uploads[id] = u
	c.s.mu.Unlock()
	c.uploadState(http.StatusAccepted, id, u)
	return nil
}

// uploadState answers with where to go on.
func (c *registryCall) uploadState(status int, id string, u *upload) {
	h := c.w.Header()
	h.Set(apiVersion, "registry/2.0")
	h.Set("Docker-Upload-Uuid", id)
	h.Set("Location", fmt.Sprintf("%s/v2/%s/blobs/uploads/%s?_state=%s", origin(c.r), c.name, id, u.state))
	h.Set("Range", fmt.Sprintf("0-%d", max(0, u.received-1)))
	h.Set("Content-Length", "0")
	c.w.WriteHeader(status)
}

// blobCreated answers 201.
func (c *registryCall) blobCreated(digest string) {
	h := c.w.Header()
	h.Set(apiVersion, "registry/2.0")
	h.Set("Docker-Content-Digest", digest)
	h.Set("Location", fmt.Sprintf("%s/v2/%s/blobs/%s", origin(c.r), c.name, digest))
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
}

// mount reports whether it has answered.
func (c *registryCall) mount(digest, from string) (bool, error) {
	c.s.mu.Lock()
	size, there := c.s.hasBlob(from, digest)
	c.s.mu.Unlock()
	if !there {
		return false, nil
	}
	if err := c.s.checkBlobQuota(c, digest, size); err != nil {
		return false, err
	}
	rec := c.ask(http.MethodPost, "/v2/"+c.name+"/blobs/uploads/?"+url.Values{"mount": {digest}, "from": {from}}.Encode())
	if rec.Code != http.StatusCreated && c.ask(http.MethodHead, "/v2/"+c.name+"/blobs/"+digest).Code != http.StatusOK {
		return false, nil // neither mounted, nor shared by all repositories of the backend
	}
	c.s.addBlob(c, digest, size)
	c.blobCreated(digest)
	return true, nil
}

// serveUpload goes on with an upload.
func serveUpload(c *registryCall) error {
	id, q := c.ref, c.r.URL.Query()
	c.s.mu.Lock()
	u := c.s.state.uploads[id]
	c.s.mu.Unlock()
	if u == nil || u.name != c.name {
		c.w.Header().Set(apiVersion, "registry/2.0")
		return errf(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
	}
	if q.Get("_state") != u.state {
		c.w.Header().Set(apiVersion, "registry/2.0")
		e := errf(http.StatusNotFound, "BLOB_UPLOAD_INVALID", "blob upload invalid")
		e.detail = struct{}{}
		return e
	}
	switch c.r.Method {
	case http.MethodGet:
		c.refresh(u)
		c.uploadState(http.StatusNoContent, id, u)
		return nil
	case http.MethodPatch:
		return c.patch(id, u)
	case http.MethodPut:
		return c.finish(id, u, q.Get("digest"))
	case http.MethodDelete:
		c.s.mu.Lock()
		delete(c.s.state.uploads, id)
		c.s.mu.Unlock()
		return pass(c.w, c.ask(http.MethodDelete, u.location))
	}
	return errf(http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
}

// refresh asks the backend how much of an upload it has, which is less than
// was sent when a connection broke. Not every registry can tell.
func (c *registryCall) refresh(u *upload) {
	rec := c.ask(http.MethodGet, u.location)
	if rec.Code != http.StatusNoContent {
		return
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	var last int64
	if _, err := fmt.Sscanf(rec.Header().Get("Range"), "0-%d", &last); err == nil && last > 0 {
		u.received = last + 1
	}
	if l, err := url.Parse(rec.Header().Get("Location")); err == nil && l.Path != "" {
		u.location = l.RequestURI()
	}
}

// patch passes on one chunk; the quota is not looked at.
func (c *registryCall) patch(id string, u *upload) error {
	before := c.received()
	rec := httptest.NewRecorder()
	c.forward(rec, http.MethodPatch, u.location, nil)
	if rec.Code != http.StatusAccepted && rec.Code != http.StatusNoContent {
		return pass(c.w, rec)
	}
	c.s.mu.Lock()
	u.received += c.received() - before
	if l, err := url.Parse(rec.Header().Get("Location")); err == nil && l.Path != "" {
		u.location = l.RequestURI()
	}
	c.s.mu.Unlock()
	c.uploadState(http.StatusAccepted, id, u)
	return nil
}

// received returns how many bytes of the request's body were read.
func (c *registryCall) received() int64 {
	if b, ok := c.r.Body.(*countingReader); ok {
		return b.n.Load()
	}
	return 0
}

// finish closes an upload, perhaps with a last chunk.
func (c *registryCall) finish(id string, u *upload, digest string) error {
	if err := c.s.checkBlobQuota(c, digest, u.received+max(0, c.r.ContentLength)); err != nil {
		return err
	}
	target, err := url.Parse(u.location)
	if err != nil {
		return err
	}
	q := target.Query()
	q.Set("digest", digest)
	target.RawQuery = q.Encode()
	before := c.received()
	rec := httptest.NewRecorder()
	c.forward(rec, http.MethodPut, target.String(), nil)
	if rec.Code != http.StatusCreated {
		if bytes.Contains(rec.Body.Bytes(), []byte("DIGEST_INVALID")) {
			c.w.Header().Set(apiVersion, "registry/2.0")
			e := errf(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
			e.detail = map[string]any{"Digest": digest, "Reason": struct{}{}}
			return e
		}
		return pass(c.w, rec)
	}
	c.s.mu.Lock()
	delete(c.s.state.uploads, id)
	size := u.received + c.received() - before
	c.s.mu.Unlock()
	c.s.addBlob(c, digest, size)
	c.blobCreated(digest)
	return nil
}

// pass sends what the backend has answered.
func pass(w http.ResponseWriter, rec *httptest.ResponseRecorder) error {
	copyHeader(w.Header(), rec.Header())
	w.Header().Set(apiVersion, "registry/2.0")
	w.WriteHeader(rec.Code)
	_, err := w.Write(rec.Body.Bytes())
	return err
}

// copyBlob makes the backend have the blob of another repository, for Harbor's
// own copying. The caller holds s.mu.
func (c *registryCall) copyBlob(from string, d descriptor) error {
	query := url.Values{"mount": {d.Digest}, "from": {from}}
	rec := c.ask(http.MethodPost, "/v2/"+c.name+"/blobs/uploads/?"+query.Encode())
	if rec.Code != http.StatusCreated && c.ask(http.MethodHead, "/v2/"+c.name+"/blobs/"+d.Digest).Code != http.StatusOK {
		return errInternal
	}
	if c.s.state.blobs[c.name] == nil {
		c.s.state.blobs[c.name] = map[string]int64{}
	}
	c.s.state.blobs[c.name][d.Digest] = d.Size
	c.project.blobs[d.Digest] = d.Size
	return nil
}
