package harbor

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"ferry/internal/harbortest"

	"github.com/google/go-containerregistry/pkg/registry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // test servers log broken connections
	goleak.VerifyTestMain(m)
}

// site is a Harbor over TLS with a clock of its own. Every request must be in
// Harbor's API description, or the test fails.
type site struct {
	*harbortest.Server
	t   *testing.T
	web *httptest.Server

	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, now: time.Date(2026, 11, 21, 2, 40, 0, 0, time.UTC)}
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Server = harbortest.New(backend, harbortest.Options{Clock: func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.now
	}})
	s.web = httptest.NewTLSServer(harbortest.CheckDescribed(t, s.Server))
	t.Cleanup(s.web.Close)
	return s
}

// advance moves the clock.
func (s *site) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// client returns a client whose waiting moves the clock.
func (s *site) client(user, password string) *Client {
	s.t.Helper()
	c, err := New(s.web.URL, Options{HTTP: s.web.Client(), Username: user, Password: password})
	if err != nil {
		s.t.Fatal(err)
	}
	s.fakeSleep(c)
	return c
}

func (s *site) fakeSleep(c *Client) {
	c.sleep = func(ctx context.Context, d time.Duration) error {
		s.advance(d)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.slept = append(s.slept, d)
		return ctx.Err()
	}
}

func (s *site) admin() *Client { return s.client(harbortest.AdminName, harbortest.AdminPassword) }

// push pushes an image one second after what was before.
func (s *site) push(repository, content string, tags ...string) string {
	s.t.Helper()
	s.advance(time.Second)
	return s.PushImage(s.t, repository, content, tags...).String()
}

// raw sends a request as a client would that knows nothing of Harbor, whether
// or not it is in the description.
func (s *site) raw(method, path string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	r.SetBasicAuth(harbortest.AdminName, harbortest.AdminPassword)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// against returns an anonymous client of a server that is h.
func against(t *testing.T, h http.Handler, o Options) *Client {
	t.Helper()
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)
	o.HTTP = web.Client()
	c, err := New(web.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	c.sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}
