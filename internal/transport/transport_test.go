package transport

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client returns a client that waits little between attempts.
func client(t *testing.T, o Options) *http.Client {
	t.Helper()
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// serve starts a server that is stopped when the test ends.
func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

func serveTLS(t *testing.T, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = discardLog()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// get makes a request without a body and returns its status and body.
func get(t *testing.T, c *http.Client, u string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestDefaults(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "x"})
		io.WriteString(w, r.UserAgent()+"|"+r.Header.Get("Cookie")+"|"+r.Header.Get("Accept-Encoding"))
	})
	c := client(t, Options{})
	for range 2 { // the second time with the cookie that was offered
		if _, body, err := get(t, c, s.URL); err != nil || body != "ferry||" {
			t.Fatalf("agent|cookie|encoding = %q, %v, want %q", body, err, "ferry||")
		}
	}
	c = client(t, Options{UserAgent: "ferry/7"})
	if _, body, err := get(t, c, s.URL); err != nil || body != "ferry/7||" {
		t.Fatalf("agent = %q, %v", body, err)
	}
	req, _ := http.NewRequest(http.MethodGet, s.URL, nil)
	req.Header.Set("User-Agent", "mine")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "mine||" {
		t.Errorf("agent = %q, want the request's own", b)
	}
}

// T69
func TestTLS(t *testing.T) {
	s := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	other := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	u, _ := url.Parse(s.URL)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, append([]byte("a comment\n"), block...), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		o    Options
		url  string
		ok   bool
	}{
		{"unknown authority", Options{}, s.URL, false},
		{"authority from a file", Options{CAFiles: []string{ca}}, s.URL, true},
		{"other name", Options{CAFiles: []string{ca}}, "https://localhost:" + u.Port(), false},
		{"insecure host", Options{Insecure: []string{"127.0.0.1"}}, s.URL, true},
		{"insecure host and port", Options{Insecure: []string{u.Host}}, s.URL, true},
		{"insecure is another port", Options{Insecure: []string{u.Host}}, other.URL, false},
		{"insecure is another host", Options{Insecure: []string{"localhost"}}, s.URL, false},
		{"insecure IPv6", Options{Insecure: []string{"::1"}}, s.URL, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			tt.o.Backoff = time.Second // a certificate must not be tried again
			status, body, err := get(t, client(t, tt.o), tt.url)
			if ok := err == nil && status == 200 && body == "hello"; ok != tt.ok {
				t.Errorf("get = %d %q %v, want ok %v", status, body, err, tt.ok)
			}
			var cert *tls.CertificateVerificationError
			if !tt.ok && !errors.As(err, &cert) {
				t.Errorf("error %v is not about a certificate", err)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

func TestOldTLS(t *testing.T) { // T69
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	s.Config.ErrorLog = discardLog()
	s.StartTLS()
	defer s.Close()
	if _, _, err := get(t, client(t, Options{Insecure: []string{"127.0.0.1"}, Backoff: time.Minute}), s.URL); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestPlainServerForHTTPS(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {})
	_, _, err := get(t, client(t, Options{Backoff: time.Minute}), strings.Replace(s.URL, "http:", "https:", 1))
	if !errors.Is(err, http.ErrSchemeMismatch) {
		t.Errorf("error = %v, want ErrSchemeMismatch at once", err)
	}
}

func TestBadOptions(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no")}))
	tests := []struct {
		o    Options
		want string
	}{
		{Options{CAFiles: []string{filepath.Join(dir, "missing")}}, "missing"},
		{Options{CAFiles: []string{write("empty.pem", "")}}, "no certificate"},
		{Options{CAFiles: []string{write("broken.pem", broken)}}, "certificate 1"},
		{Options{Insecure: []string{""}}, "insecure host"},
		{Options{Insecure: []string{"https://host"}}, "insecure host"},
		{Options{Insecure: []string{"host:"}}, "insecure host"},
		{Options{Insecure: []string{"user@host"}}, "insecure host"},
	}
	for _, tt := range tests {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%+v) = %v, want an error with %q", tt.o, err, tt.want)
		}
	}
}

func TestParseHostPort(t *testing.T) {
	tests := []struct {
		in   string
		want hostPort
	}{
		{"Harbor.Site", hostPort{"harbor.site", ""}},
		{"harbor.site:8443", hostPort{"harbor.site", "8443"}},
		{"10.0.0.1", hostPort{"10.0.0.1", ""}},
		{"::1", hostPort{"::1", ""}},
		{"[::1]", hostPort{"::1", ""}},
		{"[::1]:5000", hostPort{"::1", "5000"}},
	}
	for _, tt := range tests {
		if got, err := parseHostPort(tt.in); err != nil || got != tt.want {
			t.Errorf("parseHostPort(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}

// T67
func TestHeaderFlood(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 300 {
			w.Header().Add("X-Flood", strings.Repeat("x", 1024))
		}
	})
	if _, _, err := get(t, client(t, Options{Retries: -1}), s.URL); err == nil {
		t.Error("300 KiB of headers were accepted")
	}
}

// T67
func TestStalls(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
			<-release
		case "/headers":
			<-release
		case "/slow", "/trickle": // slower in all than the idle time, but never idle
			size := map[string]int{"/slow": least, "/trickle": 1}[r.URL.Path]
			for range 6 {
				time.Sleep(50 * time.Millisecond)
				io.WriteString(w, strings.Repeat("x", size))
				w.(http.Flusher).Flush()
			}
		}
	})
	t.Cleanup(func() { close(release) }) // runs before the server is closed
	c := client(t, Options{Idle: 150 * time.Millisecond, Retries: -1})
	var idle *IdleError
	if _, body, err := get(t, c, s.URL+"/body"); !errors.As(err, &idle) || idle.In != "body" || body != "first" {
		t.Errorf("stalled body: %q, %v", body, err)
	}
	if _, _, err := get(t, c, s.URL+"/headers"); !errors.As(err, &idle) || idle.In != "headers" {
		t.Errorf("stalled headers: %v", err)
	}
	if _, body, err := get(t, c, s.URL+"/slow"); err != nil || body != strings.Repeat("x", 6*least) {
		t.Errorf("slow body: %d bytes, %v", len(body), err)
	}
	if _, body, err := get(t, c, s.URL+"/trickle"); !errors.As(err, &idle) || idle.Received == 0 || int64(len(body)) != idle.Received {
		t.Errorf("trickling body: %q, %v", body, err)
	}
}

func TestPatience(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { time.Sleep(200 * time.Millisecond) })
	c := client(t, Options{Idle: 50 * time.Millisecond, Retries: -1})
	req, _ := http.NewRequestWithContext(Patience(t.Context(), 10*time.Second), http.MethodGet, s.URL, nil)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("a patient request: %v", err)
	}
	resp.Body.Close()
}

// A server that takes no more bytes ends an upload.
func TestStalledUpload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		<-t.Context().Done() // never reads
	}()
	t.Cleanup(func() { l.Close(); <-done })
	c := client(t, Options{Idle: 200 * time.Millisecond})
	req, _ := http.NewRequest(http.MethodPatch, "http://"+l.Addr().String(), io.LimitReader(zeros{}, 1<<30))
	begin := time.Now()
	resp, err := c.Do(req)
	if err == nil {
		resp.Body.Close()
		t.Fatal("a GiB was sent to a server that reads nothing")
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %s", d)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCause(t *testing.T) {
	_, err := client(t, Options{Retries: -1}).Get("ftp://user:secret@host/path?X-Amz-Signature=canary")
	if err == nil || !errors.Is(err, errScheme) {
		t.Fatalf("error = %v", err)
	}
	if s := Cause(err).Error(); strings.Contains(s, "canary") || strings.Contains(s, "secret") {
		t.Errorf("Cause(err) = %q", s)
	}
	if plain := errors.New("x"); Cause(plain) != plain {
		t.Error("Cause changes other errors")
	}
}

// An insecure host does not make a proxy on the way to it insecure.
func TestInsecureIsNotForProxies(t *testing.T) {
	host := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	proxy := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("the proxy was asked: %s", r.Method) })
	c := client(t, Options{Insecure: []string{"registry.test"}, Retries: -1})
	lax, err := c.Transport.(*retrier).hosts.transport(hostPort{"registry.test", "1"})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := url.Parse(proxy.URL)
	lax.Proxy = http.ProxyURL(p)
	if _, _, err := get(t, c, "https://registry.test:1/"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v, want one about the proxy's certificate", err)
	}
	c = client(t, Options{Insecure: []string{"localhost"}})
	if _, body, err := get(t, c, strings.Replace(host.URL, "127.0.0.1", "localhost", 1)); err != nil || body != "hello" {
		t.Errorf("insecure name: %q, %v", body, err)
	}
}
