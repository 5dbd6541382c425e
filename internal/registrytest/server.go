// Package registrytest hides how tests get a registry: a real one, one in
// memory, one that misbehaves on request, one that wants a login, and content
// to put into it. It is for tests only.
package registrytest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/crypto/bcrypt"
)

// Options say what registry is wanted. The zero Options are ready to use.
type Options struct {
	// Faults stand before the registry; the first sees requests first.
	Faults []Fault
	// Users are the passwords by name of those whom distribution lets in
	// by basic authentication. None means that everyone may do all. It is
	// for [Start]; see [Basic] and [Tokens] for [Memory].
	Users map[string]string
	// TLS makes the server speak https, HTTP/2 too; see [Server.CAFile].
	TLS bool
	// NoReferrers makes [Memory] a registry without the referrers API.
	NoReferrers bool
	// ReadOnly makes distribution refuse what changes anything.
	ReadOnly bool
}

// Request is one that a server has answered.
type Request struct {
	Method, Path, Query string
	Status              int
	BytesIn             int64 // bytes of the request's body that were read
}

// String returns the request as a line of a log.
func (r Request) String() string {
	q := ""
	if r.Query != "" {
		q = "?" + r.Query
	}
	return fmt.Sprintf("%s %s%s %d (%d bytes in)", r.Method, r.Path, q, r.Status, r.BytesIn)
}

// Server is a registry that runs until its test ends, with a front that takes
// note of each request before any fault sees it.
type Server struct {
	// Host is "127.0.0.1:port".
	Host string
	// URL is the scheme and the host.
	URL string

	front *httptest.Server
	mu    sync.Mutex
	log   []Request
	busy  int // requests that are being answered
}

// Requests returns what was asked so far, in the order of the answers. An
// answer may be read before its handler has come to its end; so Requests
// waits, a second at most, for those that are still at work.
func (s *Server) Requests() []Request {
	s.lockIdle()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Reset forgets the requests so far.
func (s *Server) Reset() {
	s.lockIdle()
	defer s.mu.Unlock()
	s.log = nil
}

func (s *Server) lockIdle() {
	s.mu.Lock()
	for end := time.Now().Add(time.Second); s.busy > 0 && time.Now().Before(end); {
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
		s.mu.Lock()
	}
}

// Count returns how many requests so far had that method, or any when it is
// empty, and a path that contains part.
func (s *Server) Count(method, part string) int {
	n := 0
	for _, r := range s.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.Path, part) {
			n++
		}
	}
	return n
}

// Writes returns the requests so far that may have changed the registry and
// that it did not refuse.
func (s *Server) Writes() []Request {
	return slices.DeleteFunc(s.Requests(), func(r Request) bool {
		return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Status >= 400
	})
}

// CAFile writes the certificate of a TLS server to a file for the time of the
// test, and returns its name.
func (s *Server) CAFile(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pemOf(s.front.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Memory returns a registry in memory, go-containerregistry's: with the
// referrers API, without mounts, login or a status of uploads. Its blobs
// belong to no repository.
func Memory(t testing.TB, o Options) *Server {
	t.Helper()
	return Serve(t, MemoryHandler(!o.NoReferrers), o)
}

// MemoryHandler returns the handler of a registry in memory.
func MemoryHandler(referrers bool) http.Handler {
	return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(referrers))
}

// Serve returns a server that stands before handler.
func Serve(t testing.TB, handler http.Handler, o Options) *Server {
	t.Helper()
	for _, f := range slices.Backward(o.Faults) {
		handler = f(handler)
	}
	s := &Server{}
	s.front = httptest.NewUnstartedServer(s.record(handler))
	s.front.Config.ErrorLog = log.New(io.Discard, "", 0) // aborts on request are no news
	if o.TLS {
		s.front.EnableHTTP2 = true
		s.front.StartTLS()
	} else {
		s.front.Start()
	}
	t.Cleanup(s.front.Close)
	s.URL = s.front.URL
	s.Host = s.front.Listener.Addr().String()
	return s
}

// record returns a handler that notes what next answers.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.busy++
		s.mu.Unlock()
		body := &countingBody{ReadCloser: r.Body}
		r = r.WithContext(r.Context()) // net/http looks at its own Body when it ends an answer
		r.Body = body
		rw := &statusWriter{ResponseWriter: w}
		note := Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
		defer func() { // also when next aborts
			note.Status = cmp.Or(rw.status, http.StatusOK)
			note.BytesIn = body.count()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.log = append(s.log, note)
			s.busy--
		}()
		next.ServeHTTP(rw, r)
	})
}

type countingBody struct {
	io.ReadCloser
	mu sync.Mutex // a proxy may read on while its handler returns
	n  int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	return n, err
}

func (b *countingBody) count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Root returns the root of the repository, where go.mod is.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// Tool returns the path of the binary name in .tools/bin. When it is missing
// the test is skipped, and failed where the environment has CI.
func Tool(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(Root(t), ".tools", "bin", name)
	if _, err := os.Stat(p); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: run make tools", name)
		}
		t.Skipf("%s is missing: run make tools", name)
	}
	return p
}

// Start returns a real registry, CNCF distribution, that keeps its content in
// a folder of the test and allows deletion. It has no referrers API.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return Serve(t, Backend(t, o), o)
}

// Backend returns the handler of a registry as [Start] has one, to stand
// behind something else.
func Backend(t testing.TB, o Options) http.Handler {
	t.Helper()
	binary := Tool(t, "registry")
	dir, err := os.MkdirTemp("", "registry") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	config := writeConfig(t, dir, socket, o)
	pool := poolTo(t, "unix", socket)
	if err := launch(t, pool, binary, "serve", config); err != nil {
		t.Fatal(err)
	}
	return proxyTo(pool)
}

// Olareg returns a real registry, olareg, that keeps its content in memory. It
// has the referrers API, and allows deletion.
func Olareg(t testing.TB, o Options) *Server {
	t.Helper()
	binary := Tool(t, "olareg")
	for try := 0; ; try++ {
		port, err := freePort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pool := poolTo(t, "tcp", net.JoinHostPort("127.0.0.1", port))
		err = launch(t, pool, binary, "serve", "--addr", "127.0.0.1", "--port", port, "--store-type", "mem", "--gc-frequency", "-1s",
			"--api-delete", "--api-blob-delete")
		if err == nil {
			return Serve(t, proxyTo(pool), o)
		}
		if try == 4 { // somebody else has taken the port each time
			t.Fatal(err)
		}
	}
}

// freePort returns a port of 127.0.0.1 where nobody listens just now.
func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// poolTo returns connections to where a registry listens.
func poolTo(t testing.TB, network, address string) *http.Transport {
	pool := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: 16,
		DisableCompression:  true,
	}
	t.Cleanup(pool.CloseIdleConnections)
	return pool
}

// launch starts a registry that ends with the test, and waits until it answers.
func launch(t testing.TB, pool *http.Transport, binary string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.Stdout, cmd.Stderr = &out, &out
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	var end error
	go func() {
		end = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	if err := waitFor(t.Context(), pool, ended); err != nil {
		cmd.Process.Kill()
		<-ended
		return fmt.Errorf("%s: %w: %v\n%s", filepath.Base(binary), err, end, out.String())
	}
	return nil
}

// proxyTo returns a handler that stands before the registry behind pool.
func proxyTo(pool *http.Transport) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "registry"})
			p.Out.Host = p.In.Host // locations are made of it
			p.SetXForwarded()
			// The front itself says 100 Continue; of two, recorders of
			// answers take the first for the answer.
			p.Out.Header.Del("Expect")
		},
		Transport: pool,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.WriteHeader(http.StatusBadGateway)
		},
		FlushInterval: -1,
	}
}

// waitFor waits until the registry behind pool answers, or has ended.
func waitFor(ctx context.Context, pool http.RoundTripper, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://registry/v2/", nil)
		if err != nil {
			return err
		}
		if resp, err := pool.RoundTrip(req); err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return errors.New("it does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// writeConfig writes distribution's configuration and returns its name.
func writeConfig(t testing.TB, dir, socket string, o Options) string {
	t.Helper()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance:
    uploadpurging: {enabled: false}
    readonly: {enabled: %v}
http: {net: unix, addr: %q, secret: x}
`, filepath.Join(dir, "data"), o.ReadOnly, socket)
	if len(o.Users) > 0 {
		var lines strings.Builder
		for name, password := range o.Users {
			hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&lines, "%s:%s\n", name, hash)
		}
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", write("htpasswd", lines.String()))
	}
	return write("config.yml", config)
}
