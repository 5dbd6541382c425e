package registrytest

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"ferry/internal/oci"
)

// Fault makes a registry misbehave.
type Fault func(http.Handler) http.Handler

// Match chooses requests.
type Match func(*http.Request) bool

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

var (
	blobPath     = regexp.MustCompile(`^/v2/.+/blobs/sha256:[0-9a-f]{64}$`)
	uploadPath   = regexp.MustCompile(`^/v2/.+/blobs/uploads/`)
	manifestPath = regexp.MustCompile(`^/v2/.+/manifests/`)
)

// All chooses every request.
func All(*http.Request) bool { return true }

// Blobs chooses requests of that method for a blob.
func Blobs(method string) Match {
	return func(r *http.Request) bool { return r.Method == method && blobPath.MatchString(r.URL.Path) }
}

// Uploads chooses requests of that method that are part of an upload.
func Uploads(method string) Match {
	return func(r *http.Request) bool { return r.Method == method && uploadPath.MatchString(r.URL.Path) }
}

// Manifests chooses requests of that method for a manifest.
func Manifests(method string) Match {
	return func(r *http.Request) bool { return r.Method == method && manifestPath.MatchString(r.URL.Path) }
}

// Path chooses requests whose path contains part.
func Path(part string) Match {
	return func(r *http.Request) bool { return strings.Contains(r.URL.Path, part) }
}

// counter allows something so many times; -1 means always.
type counter struct{ left atomic.Int64 }

func times(n int) *counter {
	c := new(counter)
	c.left.Store(int64(n))
	return c
}

func (c *counter) take() bool {
	for {
		n := c.left.Load()
		switch {
		case n < 0:
			return true
		case n == 0:
			return false
		case c.left.CompareAndSwap(n, n-1):
			return true
		}
	}
}

// Answer gives an answer of its own to the first n requests that match (all
// with n = -1), without reading their bodies.
func Answer(n int, match Match, status int, header http.Header, body string) Fault {
	left := times(n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) || !left.take() {
				next.ServeHTTP(w, r)
				return
			}
			for name, values := range header {
				w.Header()[name] = values
			}
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				io.WriteString(w, body)
			}
		})
	}
}

// Errors returns the body of a registry's error.
func Errors(code, message string) string {
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	return string(mustJSON(map[string][]problem{"errors": {{code, message}}}))
}

// Reset ends the connection of the first n requests that match without an
// answer, after the registry has done what they ask if done is set.
func Reset(n int, match Match, done bool) Fault {
	left := times(n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) || !left.take() {
				next.ServeHTTP(w, r)
				return
			}
			if done {
				next.ServeHTTP(httptest.NewRecorder(), r)
			}
			panic(http.ErrAbortHandler)
		})
	}
}

// Header changes the headers of answers to requests that match, before they
// are sent.
func Header(match Match, change func(r *http.Request, status int, h http.Header)) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				w = &headerWriter{ResponseWriter: w, change: func(status int, h http.Header) { change(r, status, h) }}
			}
			next.ServeHTTP(w, r)
		})
	}
}

type headerWriter struct {
	http.ResponseWriter
	change func(int, http.Header)
	sent   bool
}

func (w *headerWriter) WriteHeader(status int) {
	if !w.sent && status >= 200 {
		w.sent = true
		w.change(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *headerWriter) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (w *headerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TellDigest makes the registry tell digest for what matches, or none when it
// is empty.
func TellDigest(match Match, digest string) Fault {
	return Header(match, func(_ *http.Request, _ int, h http.Header) {
		h.Del("Docker-Content-Digest")
		if digest != "" {
			h.Set("Docker-Content-Digest", digest)
		}
	})
}

// IgnoreRange makes the registry answer with the whole to a range.
func IgnoreRange() Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			next.ServeHTTP(w, r)
		})
	}
}

// CutBody breaks the connection after so many bytes of a body, in the first n
// answers to requests that match.
func CutBody(n int, match Match, after int64) Fault {
	left := times(n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) && left.take() {
				w = &cutWriter{ResponseWriter: w, left: after}
			}
			next.ServeHTTP(w, r)
		})
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) < w.left {
		w.left -= int64(len(p))
		return w.ResponseWriter.Write(p)
	}
	w.ResponseWriter.Write(p[:w.left])
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// Unwrap is for [http.ResponseController].
func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// CutUpload breaks the connection after the registry has read so many bytes
// of a request's body, in the first n requests that match.
func CutUpload(n int, match Match, after int64) Fault {
	left := times(n)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) || r.ContentLength <= after || !left.take() {
				next.ServeHTTP(w, r)
				return
			}
			r = r.WithContext(r.Context())
			r.Body = &cutReader{r.Body, after}
			func() {
				defer func() { recover() }() // of a proxy that notices
				next.ServeHTTP(httptest.NewRecorder(), r)
			}()
			panic(http.ErrAbortHandler)
		})
	}
}

type cutReader struct {
	io.ReadCloser
	left int64
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// TooLarge refuses requests with a body of more than limit bytes as nginx
// does.
func TooLarge(limit int64) Fault {
	return Answer(-1, func(r *http.Request) bool { return r.ContentLength > limit },
		http.StatusRequestEntityTooLarge, http.Header{"Content-Type": {"text/html"}, "Connection": {"close"}},
		"<html><head><title>413 Request Entity Too Large</title></head></html>")
}

// LieMount says of each mount that it was done, and does none.
func LieMount() Fault {
	return Answer(-1, func(r *http.Request) bool { return Uploads(http.MethodPost)(r) && r.URL.Query().Has("mount") },
		http.StatusCreated, nil, "")
}

// LieUpload acknowledges finished uploads and drops them.
func LieUpload() Fault {
	return Answer(-1, Uploads(http.MethodPut), http.StatusCreated, nil, "")
}

// Strict refuses a manifest that refers to what is not there: blobs, children,
// and a subject, which OCI Distribution would let pass.
func Strict() Fault {
	return func(next http.Handler) http.Handler {
		has := func(r *http.Request, path string) bool {
			rec := httptest.NewRecorder()
			head := r.Clone(r.Context())
			head.Method, head.Body, head.ContentLength = http.MethodHead, http.NoBody, 0
			head.URL.Path, head.URL.RawQuery = path, ""
			head.Header.Set("Accept", strings.Join(oci.ManifestTypes, ", "))
			next.ServeHTTP(rec, head)
			return rec.Code == http.StatusOK
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !Manifests(http.MethodPut)(r) {
				next.ServeHTTP(w, r)
				return
			}
			content, err := io.ReadAll(io.LimitReader(r.Body, oci.MaxManifest))
			m, invalid := oci.Parse(content, r.Header.Get("Content-Type"))
			if err != nil || invalid != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			repository, _, _ := strings.Cut(r.URL.Path, "/manifests/")
			var missing []string
			for _, d := range m.Blobs() {
				if !has(r, repository+"/blobs/"+d.Digest.String()) {
					missing = append(missing, "blob "+d.Digest.String())
				}
			}
			children := m.Manifests
			if m.Subject != nil {
				children = append(children, *m.Subject)
			}
			for _, d := range children {
				if !has(r, repository+"/manifests/"+d.Digest.String()) {
					missing = append(missing, "manifest "+d.Digest.String())
				}
			}
			if len(missing) > 0 {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, Errors("MANIFEST_INVALID", "not there: "+strings.Join(missing, ", ")))
				return
			}
			r = r.Clone(r.Context())
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(content)), int64(len(content))
			next.ServeHTTP(w, r)
		})
	}
}

// LieManifest acknowledges manifests and drops them.
func LieManifest() Fault {
	return Answer(-1, Manifests(http.MethodPut), http.StatusCreated, nil, "")
}

// LieHead says of each blob that it is there and has size bytes.
func LieHead(size int64) Fault {
	return Answer(-1, Blobs(http.MethodHead), http.StatusOK, http.Header{"Content-Length": {strconv.FormatInt(size, 10)}}, "")
}

// Truncate leaves out the end of bodies, as if they were no longer than most
// bytes.
func Truncate(match Match, most int) Fault {
	return rewrite(match, func(b []byte) []byte { return b[:min(len(b), most)] })
}

// Flip changes one bit in bodies, at the offset or, when they are shorter, at
// their end.
func Flip(match Match, offset int) Fault {
	return rewrite(match, func(b []byte) []byte {
		if len(b) > 0 {
			b[min(offset, len(b)-1)] ^= 1
		}
		return b
	})
}

// Append lengthens bodies.
func Append(match Match, more string) Fault {
	return rewrite(match, func(b []byte) []byte { return append(b, more...) })
}

// rewrite changes the bodies of answers of status 200.
func rewrite(match Match, change func([]byte) []byte) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if rec.Code == http.StatusOK {
				body = change(bytes.Clone(body))
			}
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			if r.Method != http.MethodHead {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
}

// Redirect sends requests that match to the same path at base, with a query
// that is a secret as in a signed URL.
func Redirect(match Match, base string) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Location", base+r.URL.Path+"?X-Amz-Signature=canary")
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
	}
}

// EvilLocation sends uploads to base, a scheme and a host.
func EvilLocation(base string) Fault {
	return Header(Path("/blobs/uploads/"), func(_ *http.Request, _ int, h http.Header) {
		u, err := url.Parse(h.Get("Location"))
		if h.Get("Location") == "" || err != nil {
			return
		}
		h.Set("Location", base+u.RequestURI())
	})
}

// RelativeLocation makes the locations of uploads relative to the host.
func RelativeLocation() Fault { return EvilLocation("") }

// Endless answers requests that match with a body that never ends, of that
// content type.
func Endless(match Match, contentType string) Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", contentType)
			block := bytes.Repeat([]byte(" "), 64<<10)
			for {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		})
	}
}

// LinkTo makes the answers to requests that match link to a next page.
func LinkTo(match Match, address func(*http.Request) string) Fault {
	return Header(match, func(r *http.Request, _ int, h http.Header) {
		h.Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", address(r)))
	})
}

// NeedAccept makes the registry answer 404 to requests for manifests that do
// not list all of types, as Harbor does for the type that it has.
func NeedAccept(types ...string) Fault {
	missing := func(r *http.Request) bool {
		if !manifestPath.MatchString(r.URL.Path) || r.Method == http.MethodPut {
			return false
		}
		accept := strings.Join(r.Header.Values("Accept"), ",")
		for _, t := range types {
			if !strings.Contains(accept, t) {
				return true
			}
		}
		return false
	}
	return Answer(-1, missing, http.StatusNotFound, nil, Errors("MANIFEST_UNKNOWN", "manifest unknown"))
}
