package harbor

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ferry/internal/harbortest"

	"github.com/google/go-containerregistry/pkg/registry"
)

func TestNew(t *testing.T) {
	for _, test := range []struct {
		url string
		o   Options
		ok  bool
	}{
		{"https://harbor.site", Options{}, true},
		{"http://10.0.0.1:8080/", Options{Username: "robot$p+ci", Password: "a:b$c"}, true},
		{"harbor.site", Options{}, false},
		{"ftp://harbor.site", Options{}, false},
		{"https://", Options{}, false},
		{"https://harbor.site/sub", Options{}, false},
		{"https://harbor.site?x=1", Options{}, false},
		{"https://user:secretpw@harbor.site", Options{}, false},
		{"https://user:secretpw@harbor.site:bad", Options{}, false},
		{"https://harbor.site", Options{Username: "a:b"}, false},
	} {
		_, err := New(test.url, test.o)
		if (err == nil) != test.ok {
			t.Errorf("New(%q, %+v) = %v, want success %v", test.url, test.o, err, test.ok)
		}
		if err != nil && strings.Contains(err.Error(), "secretpw") { // T54
			t.Errorf("New shows the password: %v", err)
		}
	}
}

func TestPing(t *testing.T) {
	s := newSite(t)
	if err := s.admin().Ping(t.Context()); err != nil {
		t.Errorf("a Harbor: %v", err)
	}
	if log := s.Log(); len(log) != 1 || log[0].User != "" {
		t.Errorf("the login was sent: %v", log)
	}
	page := func(status int, header ...string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, "<html>Pong</html>")
		})
	}
	for name, test := range map[string]struct {
		server http.Handler
		want   error
	}{
		"plain registry": {registry.New(registry.Logger(log.New(io.Discard, "", 0))), ErrNotHarbor},
		"portal":         {page(200, "Content-Type", "text/html"), ErrNotHarbor},
		"login needed":   {page(401, "Www-Authenticate", "Basic"), ErrNotHarbor},
		"redirect":       {page(302, "Location", "/login"), ErrNotHarbor},
		"broken":         {page(503), ErrUnavailable},
		"too many":       {page(429), ErrUnavailable},
	} {
		if err := against(t, test.server, Options{}).Ping(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestSystemInfo(t *testing.T) {
	s := newSite(t)
	info, err := s.admin().SystemInfo(t.Context())
	if err != nil || info.Version != "v2.16.0-c50c7dd" || info.ReadOnly || info.AuthMode != "db_auth" ||
		info.ProjectCreation != "everyone" || !info.Time.Equal(s.now) || info.ExternalURL != s.web.URL {
		t.Errorf("SystemInfo = %+v, %v", info, err)
	}
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"read_only": true})
	if info, err := s.admin().SystemInfo(t.Context()); err != nil || !info.ReadOnly {
		t.Errorf("read-only: %+v, %v", info, err)
	}
	if info, err := s.client("", "").SystemInfo(t.Context()); err != nil || info.Version != "" || info.AuthMode != "db_auth" {
		t.Errorf("anonymous: %+v, %v", info, err)
	}
}

// A wrong password gets public data with status 200: who trusts that takes
// it for a right one. NOTES 1.
func TestWrongPassword(t *testing.T) {
	s := newSite(t)
	s.AddProject("secret", false, -1)
	c := s.client(harbortest.AdminName, "wrong")
	if resp := s.raw(http.MethodGet, "/api/v2.0/projects"); resp.StatusCode != 200 {
		t.Fatalf("the trap is not there: %d", resp.StatusCode)
	}
	for name, call := range map[string]func() error{
		"CheckLogin": func() error { return c.CheckLogin(t.Context()) },
		"SystemInfo": func() error { _, err := c.SystemInfo(t.Context()); return err },
		"Project":    func() error { _, err := c.Project(t.Context(), "secret"); return err },
		"ProjectExists": func() error {
			_, err := c.ProjectExists(t.Context(), "secret")
			return err
		},
		"CreateProject": func() error { return c.CreateProject(t.Context(), "new", CreateOptions{}) },
		"Artifacts":     func() error { _, err := c.Artifacts(t.Context(), "secret", "a"); return err },
	} {
		s.slept = nil
		s.ResetLog()
		err := call()
		if !errors.Is(err, ErrUnauthorized) || strings.Contains(fmt.Sprint(err), "wrong") {
			t.Errorf("%s: %v, want %v", name, err, ErrUnauthorized)
		}
		if n := len(s.Log()); n != 2 || len(s.slept) != 1 || s.slept[0] != 2*time.Second {
			t.Errorf("%s: %d requests, waited %v; want 2 and [2s]", name, n, s.slept)
		}
	}
	if err := s.client("", "").CheckLogin(t.Context()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("no login: %v", err)
	}
}

// Somebody's wrong password locks the user for 1.5 seconds. NOTES 2.
func TestLoginLock(t *testing.T) {
	s := newSite(t)
	s.AddProject("secret", false, -1)
	s.push("secret/a", "x", "1.0")
	c := s.admin()
	for name, call := range map[string]func() error{
		"CheckLogin": func() error { return c.CheckLogin(t.Context()) },
		"SystemInfo": func() error { _, err := c.SystemInfo(t.Context()); return err },
		"Artifacts":  func() error { _, err := c.Artifacts(t.Context(), "secret", "a"); return err },
	} {
		wrong, err := New(s.web.URL, Options{HTTP: s.web.Client(), Username: harbortest.AdminName, Password: "wrong"})
		if err != nil {
			t.Fatal(err)
		}
		wrong.sleep = func(context.Context, time.Duration) error { return errors.New("gives up") }
		wrong.CheckLogin(t.Context())
		if resp := s.raw(http.MethodGet, "/v2/"); resp.StatusCode != 401 {
			t.Fatalf("the user is not locked: %d", resp.StatusCode)
		}
		if err := call(); err != nil {
			t.Errorf("%s while the user is locked: %v", name, err)
		}
	}
}

// A cookie that is sent back makes Harbor want a CSRF token. NOTES 4.
func TestCookies(t *testing.T) {
	s := newSite(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	naive := *s.web.Client()
	naive.Jar = jar
	for range 2 {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.web.URL+"/api/v2.0/projects", strings.NewReader(`{"project_name":"naive"}`))
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(harbortest.AdminName, harbortest.AdminPassword)
		resp, err := naive.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if log := s.Log(); log[0].Status != 201 || log[1].Status != 403 {
		t.Fatalf("the trap is not there: %v", log)
	}
	c, err := New(s.web.URL, Options{HTTP: &naive, Username: harbortest.AdminName, Password: harbortest.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if err := c.CreateProject(t.Context(), name, CreateOptions{}); err != nil {
			t.Errorf("creating %s with a client that keeps cookies: %v", name, err)
		}
	}
	if naive.Jar == nil {
		t.Error("the caller's client was changed")
	}
}

// TestRedirect shows that the password goes nowhere else. T64.
func TestRedirect(t *testing.T) {
	hits := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer other.Close()
	for _, code := range []int{301, 302, 307, 308} {
		c := against(t, http.RedirectHandler(other.URL, code), Options{Username: "u", Password: "p"})
		err := c.CheckLogin(t.Context())
		if !errors.Is(err, ErrUnexpected) || !strings.Contains(err.Error(), "redirects") {
			t.Errorf("%d: %v, want %v", code, err, ErrUnexpected)
		}
	}
	if hits > 0 {
		t.Errorf("the other server got %d requests", hits)
	}
}

func TestErrorKinds(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   error
	}{
		{401, `{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized"}]}`, ErrUnauthorized},
		{403, `{"errors":[{"code":"FORBIDDEN","message":"forbidden"}]}`, ErrForbidden},
		{403, `{"errors":[{"code":"DENIED","message":"The system is in read only mode. Any modification is prohibited."}]}`, ErrReadOnly},
		{403, `{"errors":[{"code":"DENIED","message":"adding 195.6 KiB of storage resource, which when updated to current usage of 30.2 KiB will exceed the configured upper limit of 97.7 KiB."}]}`, ErrQuota},
		{403, `{"errors":[{"code":"DENIED","message":"denied: can not push artifact to a proxy project: proxyp"}]}`, ErrProxyCache},
		{404, `{"errors":[{"code":"NOT_FOUND","message":"project nosuch not found"}]}`, ErrNotFound},
		{409, `{"errors":[{"code":"CONFLICT","message":"The project named a already exists"}]}`, ErrExists},
		{412, `{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'app:1.0' configured as immutable."}]}`, ErrImmutable},
		{429, ``, ErrUnavailable},
		{500, `{"errors":[{"code":"UNKNOWN","message":"internal server error"}]}`, ErrUnavailable},
		{502, `<html>bad gateway</html>`, ErrUnavailable},
		{503, `not JSON {`, ErrUnavailable},
		{302, ``, ErrUnexpected},
	} {
		c := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(test.status)
			io.WriteString(w, test.body)
		}), Options{})
		err := c.CreateProject(t.Context(), "a", CreateOptions{})
		var e *Error
		if !errors.Is(err, test.want) || !errors.As(err, &e) || e.Status != test.status {
			t.Errorf("%d %s: %v, want %v", test.status, test.body, err, test.want)
		}
		for _, other := range []error{ErrUnauthorized, ErrForbidden, ErrReadOnly, ErrQuota, ErrProxyCache, ErrNotFound, ErrExists,
			ErrImmutable, ErrUnavailable, ErrUnexpected, ErrNotHarbor} {
			if other != test.want && errors.Is(err, other) {
				t.Errorf("%d %s: it is %v, too", test.status, test.body, other)
			}
		}
		if want := fmt.Sprintf(`creating project "a": %d `, test.status); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v does not begin with %q", err, want)
		}
	}
}

// TestHostileMessages: what a server says is cut, printable, and without the
// password. T40, T54, T67.
func TestHostileMessages(t *testing.T) {
	const password = "Pa55:word$"
	login := base64.StdEncoding.EncodeToString([]byte("robot$a+b:" + password))
	for name, message := range map[string]string{
		"terminal":  "\x1b[31mred\x1b[0m\r\n\u202ereversed\u0085\x00",
		"long":      strings.Repeat("é", 5000),
		"workflow":  "x\n::error::y",
		"the login": "you sent " + login + " and " + password,
		"invalid":   "\xff\xfe",
	} {
		c := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(400)
			io.WriteString(w, message)
		}), Options{Username: "robot$a+b", Password: password})
		err := c.CreateProject(t.Context(), "a", CreateOptions{})
		var e *Error
		if !errors.As(err, &e) || e.Message == "" || len(e.Message) > maxMessage {
			t.Errorf("%s: %d bytes: %v", name, len(e.Message), err)
		}
		for _, r := range err.Error() {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e {
				t.Errorf("%s: %q has %U", name, err, r)
			}
		}
		if text := err.Error(); strings.Contains(text, password) || strings.Contains(text, login) {
			t.Errorf("%s: %v shows the password", name, err)
		}
	}
}

// TestBadAnswers: nothing that is no answer of Harbor's passes for one.
func TestBadAnswers(t *testing.T) {
	s := newSite(t)
	s.push("library/a", "x", "1.0")
	c := s.admin()
	for _, test := range []struct {
		name  string
		fault harbortest.Fault
		want  error
	}{
		{"HTML with 200", harbortest.HTMLPage("/artifacts", 200), ErrUnexpected},
		{"HTML with 502", harbortest.HTMLPage("/artifacts", 502), ErrUnavailable},
		{"cut JSON", harbortest.CutJSON("/artifacts"), ErrUnexpected},
		{"cut body", harbortest.CutBody("/artifacts"), ErrUnavailable},
		{"500 once", harbortest.FailOnce("", "/artifacts"), ErrUnavailable},
		{"other JSON", harbortest.Rewrite("/artifacts", func([]byte) []byte { return []byte(`{"a":1}`) }), ErrUnexpected},
		{"bad digest", harbortest.Rewrite("/artifacts", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"digest":"sha256:`, `"digest":"sha256:../`, 1)) // T12
		}), ErrUnexpected},
		{"bad tag", harbortest.Rewrite("/artifacts", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"1.0"`, `"1.0\u001b[2J"`, 1)) // T40
		}), ErrUnexpected},
		{"too long", harbortest.Rewrite("/artifacts", func([]byte) []byte { return make([]byte, maxAnswer+1) }), ErrUnexpected},
	} {
		s.Misbehave(test.fault)
		_, err := c.Artifacts(t.Context(), "library", "a")
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	s.Misbehave()
	if _, err := c.Artifacts(t.Context(), "library", "a"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTransportErrors(t *testing.T) {
	s := newSite(t)
	closed := httptest.NewServer(nil)
	closed.Close()
	gone, err := New(closed.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Ping(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	strange, err := New(s.web.URL, Options{HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var cert *tls.CertificateVerificationError
	if err := strange.Ping(t.Context()); !errors.As(err, &cert) || errors.Is(err, ErrUnavailable) { // T69
		t.Errorf("unknown CA: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.admin().Ping(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
	release := make(chan bool)
	slow := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }), Options{Timeout: 50 * time.Millisecond})
	if err := slow.Ping(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "50ms") { // T67
		t.Errorf("no answer: %v", err)
	}
	close(release)
}

// A cancelled context ends the wait for the lock.
func TestSleep(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sleep = %v", err)
	}
	if err := sleep(t.Context(), time.Millisecond); err != nil {
		t.Errorf("sleep = %v", err)
	}
}
