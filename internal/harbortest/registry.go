package harbortest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
)

const apiVersion = "Docker-Distribution-Api-Version"

// Paths below /v2/. As with Harbor, the first part of a name may look like a
// host, upper case included, and the others may not.
var (
	namePart    = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	namePattern = `((?:[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*)(?:/` + namePart + `)*)`

	anyRegistryPath = regexp.MustCompile(`^/v2/` + namePattern + `/(?:manifests|tags|referrers|blobs)/`)

	catalogPath   = regexp.MustCompile(`^/v2/_catalog$`)
	manifestPath  = regexp.MustCompile(`^/v2/` + namePattern + `/manifests/([^/]+)$`)
	tagsPath      = regexp.MustCompile(`^/v2/` + namePattern + `/tags/list$`)
	referrersPath = regexp.MustCompile(`^/v2/` + namePattern + `/referrers/([^/]+)$`)
	blobPath      = regexp.MustCompile(`^/v2/` + namePattern + `/blobs/(sha256:[^/]+)$`)
	uploadsPath   = regexp.MustCompile(`^/v2/` + namePattern + `/blobs/uploads/?$`)
	uploadPath    = regexp.MustCompile(`^/v2/` + namePattern + `/blobs/uploads/([^/]+)$`)
)

// registryCall is a request for a repository after the checks of [Server.mayUse].
type registryCall struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	name    string // of the repository, in full
	ref     string // tag, digest or upload, where there is one
	project *project
}

func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	c := s.identify(r)
	s.mu.Unlock()
	if r.URL.Path == "/v2/" {
		if !c.authenticated() {
			s.challenge(w, r, "unauthorized", "")
			return
		}
		w.Header().Set(apiVersion, "registry/2.0")
		writeJSON(w, "application/json; charset=utf-8", struct{}{})
		return
	}
	if catalogPath.MatchString(r.URL.Path) {
		if !c.admin() {
			s.challenge(w, r, "unauthorized to list catalog", "")
			return
		}
		s.serveCatalog(w, r)
		return
	}
	handle, m := (func(*registryCall) error)(nil), []string(nil)
	for _, route := range []struct {
		path   *regexp.Regexp
		handle func(*registryCall) error
	}{
		{manifestPath, serveManifest}, {tagsPath, serveTags}, {referrersPath, serveReferrers},
		{blobPath, serveBlob}, {uploadsPath, startUpload}, {uploadPath, serveUpload},
	} {
		if m = route.path.FindStringSubmatch(r.URL.Path); m != nil {
			handle = route.handle
			break
		}
	}
	if handle == nil {
		s.refuse(w, "", fmt.Sprintf("un-recognized request: %s %s", r.Method, r.URL.Path))
		return
	}
	call := &registryCall{s: s, w: w, r: r, name: m[1]}
	if len(m) > 2 {
		call.ref = m[2]
	}
	if !call.mayUse(c) {
		return
	}
	if err := handle(call); err != nil {
		writeError(w, err)
	}
}

// refuse answers 401 with a challenge; Harbor says everything twice.
func (s *Server) refuse(w http.ResponseWriter, challenge, message string) {
	w.Header().Set(apiVersion, "registry/2.0")
	w.Header().Set("Www-Authenticate", challenge)
	writeError(w, errf(http.StatusUnauthorized, "UNAUTHORIZED", "%s: %s", message, message))
}

// challenge refuses with a challenge that sends to the token service, or asks
// for Basic when the caller has tried already.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request, message, scope string) {
	if r.Header.Get("Authorization") != "" || catalogPath.MatchString(r.URL.Path) {
		s.refuse(w, `Basic realm="harbor"`, message)
		return
	}
	realm := "http"
	if r.TLS != nil {
		realm = "https" // whatever X-Forwarded-Proto says
	}
	if u, err := url.Parse(s.opts.ExternalURL); err == nil && u.Scheme != "" {
		realm = u.Scheme
	}
	text := fmt.Sprintf(`Bearer realm="%s://%s/service/token",service="harbor-registry"`, realm, r.Host)
	if scope != "" {
		text += fmt.Sprintf(`,scope="repository:%s"`, scope)
	}
	s.refuse(w, text, message)
}

// mayUse checks the project and the rights, of the source of a mount first,
// and answers when they are missing.
func (c *registryCall) mayUse(who caller) bool {
	action, scope := "push", "pull,push"
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		action, scope = "pull", "pull"
	} else if c.r.Method == http.MethodDelete && manifestPath.MatchString(c.r.URL.Path) {
		action, scope = "delete", "delete"
	}
	if action == "pull" && c.r.Header.Get("Authorization") == "" {
		c.s.challenge(c.w, c.r, "authorize header needed to send HEAD to repository", c.name+":"+scope)
		return false
	}
	check := func(name, action string) bool {
		project, _, _ := strings.Cut(name, "/")
		c.s.mu.Lock()
		p := c.s.state.projects[project]
		ok := p != nil && who.canRegistry(p, name, action)
		c.s.mu.Unlock()
		switch {
		case p == nil:
			c.s.refuse(c.w, "", fmt.Sprintf("project %s not found", project))
		case !ok:
			c.s.challenge(c.w, c.r, fmt.Sprintf("unauthorized to access repository: %s, action: %s", name, action), c.name+":"+scope)
		}
		return ok
	}
	if from := c.r.URL.Query().Get("from"); from != "" && c.r.URL.Query().Get("mount") != "" && !check(from, "pull") {
		return false
	}
	if !check(c.name, action) {
		return false
	}
	project, _, _ := strings.Cut(c.name, "/")
	c.s.mu.Lock()
	c.project = c.s.state.projects[project]
	c.s.mu.Unlock()
	if action == "push" && c.project.registryID > 0 {
		writeError(c.w, errf(http.StatusForbidden, "DENIED", "denied: can not push artifact to a proxy project: %s", project))
		return false
	}
	return true
}

// forward sends a request to the backend: without the login, which is
// Harbor's matter, and without cookies.
func (c *registryCall) forward(w http.ResponseWriter, method, target string, edit func(*http.Request)) {
	r := c.r.Clone(c.r.Context())
	u, err := url.Parse(target)
	if err != nil {
		writeError(w, err)
		return
	}
	r.Method, r.URL, r.RequestURI = method, u, target
	r.Header.Del("Authorization")
	r.Header.Del("Cookie")
	if edit != nil {
		edit(r)
	}
	c.s.backend.ServeHTTP(w, r)
}

// ask forwards a request without a body and returns the answer.
func (c *registryCall) ask(method, target string, header ...string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	c.forward(rec, method, target, func(r *http.Request) {
		r.Body, r.ContentLength = http.NoBody, 0
		r.Header = http.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
	})
	return rec
}

// headerWriter edits the header of an answer that is passed on.
type headerWriter struct {
	http.ResponseWriter
	edit func(status int, h http.Header)
	done bool
}

func (w *headerWriter) WriteHeader(status int) {
	if !w.done {
		w.done = true
		w.edit(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *headerWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}
