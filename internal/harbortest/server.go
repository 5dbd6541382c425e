// Package harbortest hides a Harbor: an http.Handler that answers as Harbor
// 2.16.0 does, in front of a real registry. It is for tests only.
//
// What Harbor knows besides content (projects, users, robots, tags, times,
// quotas, rules) the server learns from its API, and from the registry
// traffic that it passes on: it shows nothing that was put into the registry
// behind its back. TLS is the caller's matter.
//
// # Use
//
//	s := harbortest.New(registry.New(), harbortest.Options{})
//	s.AddProject("team", false, -1)
//	s.AddRobot("robot$team+ci", "secret", "team", "repository:push", "repository:pull")
//	digest := s.PushImage(t, "team/app", "content", "1.0", "latest")
//	web := httptest.NewTLSServer(s)
//
// What a server does wrong is said with [Server.Misbehave] and
// [Server.SetClock]; what it was asked is in [Server.Log].
//
// # Compatibility
//
// The recordings of a real Harbor in testdata/recordings are the measure: a
// test replays them and compares. Where they are silent the server follows
// Harbor's API description, or leaves the answer to the registry.
//
// # Sources
//
// testdata/README.md tells where the recordings and the description are from.
package harbortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/verify"
)

// Login of the administrator whom every [Server] has.
const (
	AdminName     = "admin"
	AdminPassword = "Harbor12345"
)

// Options are the settings of a [Server]; the zero Options are usable.
type Options struct {
	// ExternalURL is the address that Harbor is configured with; its scheme
	// goes into the token realm. Empty means that of each request.
	ExternalURL string
	// TokenLife is how long a registry token is good. Zero means 30 minutes.
	TokenLife time.Duration
	// Clock replaces time.Now.
	Clock func() time.Time
}

// Server is a Harbor. It is safe for concurrent use.
type Server struct {
	backend http.Handler
	opts    Options
	log     requestLog

	mu     sync.Mutex // guards what follows
	clock  func() time.Time
	faults []Fault
	state  state
}

// New returns a Harbor in front of the registry backend, with the
// administrator and the public project "library". The backend must take
// everything from everybody; it may keep blobs apart by repository or not.
func New(backend http.Handler, o Options) *Server {
	if o.TokenLife == 0 {
		o.TokenLife = 30 * time.Minute
	}
	s := &Server{backend: backend, opts: o, clock: time.Now}
	if o.Clock != nil {
		s.clock = o.Clock
	}
	s.state.init(s.now())
	return s
}

// SetClock replaces the server's clock. A clock that stands still gives equal
// push times, one that jumps gives those of a server whose clock was set.
func (s *Server) SetClock(clock func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = clock
}

// now returns the time with Harbor's precision; the caller holds s.mu, or has
// the server for itself.
func (s *Server) now() time.Time { return s.clock().UTC().Truncate(time.Millisecond) }

// ServeHTTP answers as the front proxy of Harbor does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve(w, r, true) }

// Core returns the same Harbor without its front proxy, as an ingress sees it.
func (s *Server) Core() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, false) })
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, front bool) {
	body := &countingReader{src: r.Body}
	r.Body = body
	lw := &logWriter{ResponseWriter: w, log: &s.log, body: body, entry: Entry{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
	}}
	if name, _, ok := r.BasicAuth(); ok {
		lw.entry.User = name
	}
	defer lw.done()
	var next http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, front) })
	s.mu.Lock()
	faults := s.faults
	s.mu.Unlock()
	for _, f := range faults {
		inner := next
		next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, inner) })
	}
	next.ServeHTTP(lw, r)
}

// answer is Harbor itself: its filters in their order, then API or registry.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, front bool) {
	path := r.URL.EscapedPath()
	if _, counted := r.Body.(*countingReader); !counted {
		r.Body = &countingReader{src: r.Body}
	}
	if front {
		if path == "/v2" {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Location", origin(r)+"/v2/")
			w.WriteHeader(http.StatusMovedPermanently)
			fmt.Fprint(w, "<html>\r\n<head><title>301 Moved Permanently</title></head>\r\n</html>\r\n")
			return
		}
		// The proxy merges slashes and takes one escaping off.
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			http.Error(w, "Bad Request", http.StatusBadRequest)
			return
		}
	}
	s.mu.Lock()
	readOnly := s.state.readOnly
	s.mu.Unlock()
	if readOnly && !safe(r.Method) && path != apiRoot+"/configurations" {
		writeError(w, errf(http.StatusForbidden, "DENIED", "The system is in read only mode. Any modification is prohibited."))
		return
	}
	if m := anyRegistryPath.FindStringSubmatch(path); m != nil && !strings.Contains(m[1], "/") {
		writeError(w, badRequest("bad request: invalid repository name: %s", m[1]))
		return
	}
	if !s.checkSession(w, r) {
		writeError(w, errf(http.StatusForbidden, "FORBIDDEN", "CSRF token not found in request"))
		return
	}
	switch {
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		s.serveRegistry(w, r)
	case path == "/service/token":
		s.serveToken(w, r)
	case path == "/api/version":
		writeJSON(w, "text/plain; charset=utf-8", map[string]string{"version": "v2.0"})
	case path == apiRoot || strings.HasPrefix(path, apiRoot+"/"):
		s.serveAPI(w, r, path)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// checkSession sets the session cookie. Who sends one back is taken for a
// browser and must show a CSRF token, however stale the cookie is.
func (s *Server) checkSession(w http.ResponseWriter, r *http.Request) bool {
	if _, err := r.Cookie("sid"); err != nil {
		w.Header().Add("Set-Cookie", "sid="+randomHex(16)+"; Path=/; HttpOnly")
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, cookie := r.Header.Get("X-Harbor-CSRF-Token"), ""
	if c, err := r.Cookie("_gorilla_csrf"); err == nil {
		cookie = c.Value
	}
	known := cookie != "" && s.state.csrf[cookie] != nil
	ok := safe(r.Method) || known && s.state.csrf[cookie][token]
	if !known {
		cookie = randomHex(40)
		s.state.csrf[cookie] = map[string]bool{}
		w.Header().Add("Set-Cookie", "_gorilla_csrf="+cookie+"; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
	}
	if ok {
		w.Header().Set("Vary", "Cookie")
	}
	fresh := randomHex(32)
	s.state.csrf[cookie][fresh] = true
	w.Header().Set("X-Harbor-Csrf-Token", fresh)
	return ok
}

// scheme returns how r came in, as far as the front proxies tell.
func scheme(r *http.Request) string {
	if p := r.Header.Get("X-Forwarded-Proto"); p != "" {
		return p
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// origin returns the scheme and host that upload locations have.
func origin(r *http.Request) string { return scheme(r) + "://" + r.Host }

// Admin sends a request as the administrator, without a network and past the
// faults and the log, and fails the test when the answer is no success. A
// body that is no string is sent as JSON.
func (s *Server) Admin(t testing.TB, method, target string, body any, header ...string) *http.Response {
	t.Helper()
	text, isText := body.(string)
	if body != nil && !isText {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(text))
	r.SetBasicAuth(AdminName, AdminPassword)
	if body != nil && !isText {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.answer(w, r, true)
	if w.Code >= 300 {
		t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
	}
	return w.Result()
}

// PushBlob uploads a blob as the administrator, and returns its digest.
func (s *Server) PushBlob(t testing.TB, repository string, content []byte) verify.Digest {
	t.Helper()
	digest := verify.DigestOf(content)
	r := s.Admin(t, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "")
	s.Admin(t, http.MethodPut, r.Header.Get("Location")+"&digest="+digest.String(), string(content))
	return digest
}

// PushManifest puts a manifest as the administrator; an empty reference means
// its digest.
func (s *Server) PushManifest(t testing.TB, repository, reference, mediaType string, content []byte) verify.Digest {
	t.Helper()
	digest := verify.DigestOf(content)
	if reference == "" {
		reference = digest.String()
	}
	s.Admin(t, http.MethodPut, "/v2/"+repository+"/manifests/"+reference, string(content), "Content-Type", mediaType)
	return digest
}

// PushImage pushes a small image of one layer that holds content, under each
// of the tags, or by digest only when there are none.
func (s *Server) PushImage(t testing.TB, repository, content string, tags ...string) verify.Digest {
	t.Helper()
	layer := []byte(content)
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		verify.DigestOf(layer))
	var manifest bytes.Buffer
	fmt.Fprintf(&manifest, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, typeManifest,
		s.PushBlob(t, repository, config), len(config), s.PushBlob(t, repository, layer), len(layer))
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		s.PushManifest(t, repository, tag, typeManifest, manifest.Bytes())
	}
	return verify.DigestOf(manifest.Bytes())
}
