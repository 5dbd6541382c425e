package harbortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ferry/verify"
)

const maxManifest = 4 << 20 // bytes; Harbor itself refuses more

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func serveManifest(c *registryCall) error {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.getManifest()
	case http.MethodPut:
		return c.putManifest()
	case http.MethodDelete:
		return c.deleteManifest()
	}
	return errf(http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
}

// artifact returns what the reference names. The caller holds s.mu.
func (c *registryCall) artifact() (*repository, *artifact, error) {
	r := c.s.state.repo(c.name)
	if r == nil {
		return nil, nil, notFound("repository %s not found", c.name)
	}
	a := r.find(c.ref)
	if a == nil {
		return nil, nil, artifactNotFound(c.name, c.ref)
	}
	return r, a, nil
}

func artifactNotFound(repository, reference string) error {
	sep := ":"
	if digestPattern.MatchString(reference) {
		sep = "@"
	}
	return notFound("artifact %s%s%s not found", repository, sep, reference)
}

// getManifest passes on what the backend has. Content of the OCI types is
// hidden from who does not ask for exactly that type.
func (c *registryCall) getManifest() error {
	c.s.mu.Lock()
	r, a, err := c.artifact()
	if err != nil {
		c.s.mu.Unlock()
		return err
	}
	mediaType, digest := a.mediaType, a.digest
	c.s.mu.Unlock()
	if mediaType != typeDockerManifest && !accepts(c.r, mediaType) {
		c.w.Header().Set(apiVersion, "registry/2.0")
		return errf(http.StatusNotFound, "MANIFEST_UNKNOWN", "the manifest has type %s, which the request does not accept", mediaType)
	}
	ok := false
	w := &headerWriter{ResponseWriter: c.w, edit: func(status int, h http.Header) {
		if ok = status == http.StatusOK; ok {
			h.Set("Docker-Content-Digest", digest)
			h.Set("Etag", `"`+digest+`"`)
		}
		h.Set(apiVersion, "registry/2.0")
	}}
	c.forward(w, c.r.Method, "/v2/"+c.name+"/manifests/"+digest, func(r *http.Request) {
		r.Header.Set("Accept", mediaType)
	})
	if c.r.Method == http.MethodGet && ok {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		now := c.s.now()
		r.pulls++
		a.pulled = now
		if t := r.tags[c.ref]; t != nil {
			t.pulled = now
		}
	}
	return nil
}

// accepts reports whether the Accept header names the type; wild cards do not
// count.
func accepts(r *http.Request, mediaType string) bool {
	for _, line := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			if t, _, err := mime.ParseMediaType(part); err == nil && t == mediaType {
				return true
			}
		}
	}
	return false
}

// readManifest reads and checks what is put.
func (c *registryCall) readManifest() (body []byte, doc manifest, err error) {
	body, err = io.ReadAll(io.LimitReader(c.r.Body, maxManifest+1))
	if err != nil {
		return nil, doc, badRequest("reading the manifest: %v", err)
	}
	if len(body) > maxManifest {
		return nil, doc, errf(http.StatusRequestEntityTooLarge, "REQUEST_ENTITY_TOO_LARGE", "manifest is larger than %d bytes", maxManifest)
	}
	invalid := func(format string, args ...any) error {
		return errf(http.StatusBadRequest, "MANIFEST_INVALID", "unmarshal manifest failed: "+format, args...)
	}
	mediaType := c.r.Header.Get("Content-Type")
	if !slices.Contains([]string{typeManifest, typeIndex, typeDockerManifest, typeDockerList}, mediaType) {
		return nil, doc, invalid("missing signature key") // taken for a Docker manifest of schema 1
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, doc, invalid("%v", err)
	}
	if doc.MediaType != "" && doc.MediaType != mediaType {
		return nil, doc, invalid("mediaType in manifest should be '%s' not '%s'", mediaType, doc.MediaType)
	}
	return body, doc, nil
}

// checkPut refuses what Harbor refuses before the registry sees it.
func (c *registryCall) checkPut(digest string, size int64) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	r := c.s.state.repo(c.name)
	if r != nil && r.tags[c.ref] != nil && c.project.immutable(r.name, c.ref) {
		return precondition("Failed to process request due to '%s:%s' configured as immutable.", r.name, c.ref)
	}
	if _, there := c.project.blobs[digest]; there {
		return nil
	}
	return c.project.checkQuota(size)
}

// checkParts refuses a manifest whose blobs or children are not there, as the
// registry does.
func (c *registryCall) checkParts(doc *manifest) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	r := c.s.state.repo(c.name)
	for _, d := range append(doc.blobs(), doc.Manifests...) {
		_, isBlob := c.s.hasBlob(c.name, d.Digest)
		if !isBlob && r.find(d.Digest) == nil {
			c.w.Header().Set(apiVersion, "registry/2.0")
			e := errf(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
			e.detail = d.Digest
			return e
		}
	}
	return nil
}

func (c *registryCall) putManifest() error {
	byDigest := strings.HasPrefix(c.ref, "sha256:")
	if !byDigest && !tagPattern.MatchString(c.ref) {
		return badRequest("bad request: invalid tag name: %s", c.ref)
	}
	body, doc, err := c.readManifest()
	if err != nil {
		return err
	}
	digest := verify.DigestOf(body).String()
	if err := c.checkPut(digest, int64(len(body))); err != nil {
		return err
	}
	if err := c.checkParts(&doc); err != nil {
		return err
	}
	if byDigest && c.ref != digest {
		c.w.Header().Set(apiVersion, "registry/2.0")
		return errf(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
	}
	rec := c.sendManifest(c.ref, c.r.Header.Get("Content-Type"), body)
	if rec.Code != http.StatusCreated {
		return pass(c.w, rec)
	}
	config := c.smallConfig(&doc)
	c.s.mu.Lock()
	a := c.s.store(c.project, c.name, digest, c.r.Header.Get("Content-Type"), body, doc, config)
	if !byDigest {
		c.s.state.setTag(a.repo, c.ref, a, c.s.now())
	}
	c.s.state.link(a, c.ref, c.s.now())
	c.s.mu.Unlock()

	h := c.w.Header()
	h.Set(apiVersion, "registry/2.0")
	h.Set("Docker-Content-Digest", digest)
	h.Set("Location", fmt.Sprintf("%s/v2/%s/manifests/%s", origin(c.r), c.name, digest))
	if doc.Subject != nil {
		h.Set("Oci-Subject", doc.Subject.Digest)
	}
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *registryCall) sendManifest(reference, mediaType string, body []byte) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	c.forward(rec, http.MethodPut, "/v2/"+c.name+"/manifests/"+reference, func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header = http.Header{"Content-Type": {mediaType}}
	})
	return rec
}

// smallConfig returns the config of an image if it is JSON of at most 1 MiB.
func (c *registryCall) smallConfig(doc *manifest) json.RawMessage {
	if doc.Config == nil || doc.Config.Size > 1<<20 {
		return nil
	}
	rec := c.ask(http.MethodGet, "/v2/"+c.name+"/blobs/"+doc.Config.Digest)
	if rec.Code != http.StatusOK || !json.Valid(rec.Body.Bytes()) {
		return nil
	}
	return bytes.Clone(rec.Body.Bytes())
}

// store makes the artifact, and its repository, unless they are there: the
// push time is the first one. The caller holds s.mu.
func (s *Server) store(p *project, fullName, digest, mediaType string, body []byte, doc manifest, config json.RawMessage) *artifact {
	name, now := strings.TrimPrefix(fullName, p.name+"/"), s.now()
	r := p.repos[name]
	if r == nil {
		r = &repository{id: s.state.repos_.next(), name: name, project: p, created: now, updated: now,
			artifacts: map[string]*artifact{}, tags: map[string]*tag{}}
		p.repos[name] = r
	}
	if a := r.artifacts[digest]; a != nil {
		return a
	}
	a := &artifact{id: s.state.artifacts_.next(), repo: r, digest: digest, mediaType: mediaType, doc: doc, body: body, config: config,
		size: int64(len(body)), pushed: now}
	for _, d := range doc.blobs() {
		a.size += d.Size
	}
	for _, d := range doc.Manifests {
		if child := r.artifacts[d.Digest]; child != nil {
			a.size += child.size
		}
	}
	r.artifacts[digest] = a
	r.updated = now
	p.blobs[digest] = int64(len(body))
	return a
}

func (c *registryCall) deleteManifest() error {
	if !digestPattern.MatchString(c.ref) {
		return errf(http.StatusBadRequest, "UNSUPPORTED", "unsupported digest %s: invalid checksum digest format", c.ref)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	_, a, err := c.artifact()
	if err != nil {
		return err
	}
	if err := a.deletable(); err != nil {
		return err
	}
	c.s.state.remove(a)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// deletable refuses for immutable tags and for children of an index.
func (a *artifact) deletable() error {
	for _, t := range a.repo.tagsOf(a) {
		if a.repo.project.immutable(a.repo.name, t.name) {
			return precondition("the tag %s configured as immutable, cannot be deleted", t.name)
		}
	}
	if len(a.repo.parents(a)) > 0 {
		return errf(http.StatusPreconditionFailed, "VIOLATE_FOREIGN_KEY_CONSTRAINT", "the deleting artifact is referenced by others")
	}
	return nil
}

// serveTags lists all tags, those of accessories included, by name.
func serveTags(c *registryCall) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	r := c.s.state.repo(c.name)
	if r == nil {
		return notFound("repository %s not found", c.name)
	}
	names := make([]string, 0, len(r.tags))
	for name := range r.tags {
		names = append(names, name)
	}
	names = c.s.page(c.w, c.r, names)
	writeJSON(c.w, "application/json; charset=utf-8", map[string]any{"name": c.name, "tags": names})
	return nil
}

// page sorts names and cuts them as n and last say.
func (s *Server) page(w http.ResponseWriter, r *http.Request, names []string) []string {
	slices.Sort(names)
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	if n, err := strconv.Atoi(q.Get("n")); err == nil && n > 0 && n < len(names) {
		names = names[:n]
		next := url.Values{"last": {names[n-1]}, "n": {strconv.Itoa(n)}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), next.Encode()))
	}
	return names
}

func (s *Server) serveCatalog(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	for _, p := range s.state.projects {
		for _, repo := range p.repos {
			if len(repo.artifacts) > 0 {
				names = append(names, repo.fullName())
			}
		}
	}
	writeJSON(w, "application/json; charset=utf-8", map[string]any{"repositories": s.page(w, r, names)})
}

// serveReferrers lists the accessories; a filter does not change the total.
func serveReferrers(c *registryCall) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	type entry struct {
		MediaType    string            `json:"mediaType"`
		Digest       string            `json:"digest"`
		Size         int               `json:"size"`
		Annotations  map[string]string `json:"annotations,omitempty"`
		ArtifactType string            `json:"artifactType"`
	}
	entries, filter, total := []entry{}, c.r.URL.Query().Get("artifactType"), 0
	if r := c.s.state.repo(c.name); r != nil {
		for _, x := range c.s.state.accessories(r, c.ref) {
			e := entry{x.of.mediaType, x.of.digest, len(x.of.body), x.of.doc.Annotations, x.of.artifactType()}
			if total++; filter == "" || filter == e.ArtifactType {
				entries = append(entries, e)
			}
		}
	}
	h := c.w.Header()
	if filter != "" {
		h.Set("Oci-Filters-Applied", "artifactType")
	}
	h.Set("X-Total-Count", strconv.Itoa(total))
	writeJSON(c.w, typeIndex, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": entries})
	return nil
}

// artifactType returns what an artifact says it is.
func (a *artifact) artifactType() string {
	if a.doc.ArtifactType == "" && a.doc.Config != nil {
		return a.doc.Config.MediaType
	}
	return a.doc.ArtifactType
}
