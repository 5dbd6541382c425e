package faultproxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/faultproxy"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells about what comes after an answer
	goleak.VerifyTestMain(m)
}

// server answers with the body that it is sent, or else with size bytes, and
// keeps count.
type server struct {
	*httptest.Server
	whole, broken atomic.Int64 // requests, by whether their body came whole
	host          atomic.Value
}

const size = 10_000 // bytes

func newServer(t *testing.T) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.host.Store(r.Host)
		content, err := io.ReadAll(r.Body)
		if err != nil {
			s.broken.Add(1)
			return
		}
		s.whole.Add(1)
		if len(content) == 0 {
			content = bytes.Repeat([]byte("x"), size)
		}
		w.Header().Set("X-Server", "real")
		if r.URL.Path == "/empty" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.URL.Path != "/chunked" {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		}
		w.Write(content[:1])
		w.(http.Flusher).Flush()
		w.Write(content[1:])
	}))
	t.Cleanup(s.Close)
	return s
}

// client waits a little for headers and for all of a body.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{ResponseHeaderTimeout: 300 * time.Millisecond, ExpectContinueTimeout: 5 * time.Second,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 600 * time.Millisecond}
}

// outcome is what a client sees of an answer.
type outcome struct {
	code int
	n    int // bytes of the body
	end  string
}

func do(t *testing.T, c *http.Client, method, url string, body []byte) outcome {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, struct{ io.Reader }{bytes.NewReader(body)}) // no second attempt of net/http's own
	if err != nil {
		t.Fatal(err)
	}
	if r.ContentLength = int64(len(body)); len(body) == 0 {
		r.Body = nil
	}
	resp, err := c.Do(r)
	if err != nil {
		return outcome{end: endOf(err)}
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return outcome{resp.StatusCode, len(content), endOf(err)}
}

func endOf(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "eof"
	case strings.Contains(err.Error(), "malformed HTTP"):
		return "malformed"
	}
	return err.Error()
}

// Each fault is what its name says, to the client and to the server, and the
// next request is well.
func TestFaults(t *testing.T) {
	type is = outcome
	all := bytes.Repeat([]byte("y"), size)
	for _, tt := range []struct {
		name   string
		fault  faultproxy.Fault
		method string
		path   string
		body   []byte
		want   outcome
		server string // what it got: "whole", "broken" or nothing
	}{
		{"none", faultproxy.Fault{}, "GET", "/", nil, is{200, size, ""}, "whole"},
		{"none with body", faultproxy.Fault{}, "PUT", "/", all, is{200, size, ""}, "whole"},
		{"none chunked", faultproxy.Fault{}, "GET", "/chunked", nil, is{200, size, ""}, "whole"},
		{"none without content", faultproxy.Fault{}, "GET", "/empty", nil, is{204, 0, ""}, "whole"},
		{"none HEAD", faultproxy.Fault{}, "HEAD", "/", nil, is{200, 0, ""}, "whole"},
		{"latency", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 50 * time.Millisecond}, "GET", "/", nil, is{200, size, ""}, "whole"},
		{"long latency", faultproxy.Fault{Kind: faultproxy.Latency, Delay: time.Hour}, "GET", "/", nil, is{0, 0, "timeout"}, ""},
		{"stall", faultproxy.Fault{Kind: faultproxy.Stall}, "PUT", "/", all, is{0, 0, "timeout"}, ""},
		{"reset before", faultproxy.Fault{Kind: faultproxy.ResetBefore}, "PUT", "/", all, is{0, 0, "reset"}, "whole"},
		{"reset in body", faultproxy.Fault{Kind: faultproxy.ResetBody}, "GET", "/", nil, is{200, size / 2, "reset"}, "whole"},
		{"reset in chunked body", faultproxy.Fault{Kind: faultproxy.ResetBody}, "GET", "/chunked", nil, is{200, size / 2, "reset"}, "whole"},
		{"reset in header", faultproxy.Fault{Kind: faultproxy.ResetBody}, "HEAD", "/", nil, is{0, 0, "eof"}, "whole"},
		{"reset in request", faultproxy.Fault{Kind: faultproxy.ResetRequest}, "PUT", "/", all, is{0, 0, "reset"}, "broken"},
		{"reset in request without body", faultproxy.Fault{Kind: faultproxy.ResetRequest}, "GET", "/", nil, is{0, 0, "reset"}, ""},
		{"short", faultproxy.Fault{Kind: faultproxy.ShortBody}, "GET", "/", nil, is{200, size / 2, "eof"}, "whole"},
		{"short header", faultproxy.Fault{Kind: faultproxy.ShortBody}, "GET", "/empty", nil, is{0, 0, "eof"}, "whole"},
		{"length too large", faultproxy.Fault{Kind: faultproxy.LongLength}, "GET", "/", nil, is{200, size, "timeout"}, "whole"},
		{"length too small", faultproxy.Fault{Kind: faultproxy.ShortLength}, "GET", "/", nil, is{200, size / 2, ""}, "whole"},
		{"trickle", faultproxy.Fault{Kind: faultproxy.Trickle}, "GET", "/", nil, is{200, 1, "timeout"}, "whole"},
		{"trickled header", faultproxy.Fault{Kind: faultproxy.Trickle}, "HEAD", "/", nil, is{0, 0, "timeout"}, "whole"},
		{"status", faultproxy.Fault{Kind: faultproxy.Status, Code: 503, Body: "busy"}, "PUT", "/", all, is{503, 4, ""}, ""},
		{"status HEAD", faultproxy.Fault{Kind: faultproxy.Status, Code: 503, Body: "busy"}, "HEAD", "/", nil, is{503, 0, ""}, ""},
		{"garbage", faultproxy.Fault{Kind: faultproxy.Garbage}, "GET", "/", nil, is{0, 0, "malformed"}, ""},
		{"refuse", faultproxy.Fault{Kind: faultproxy.Refuse, Delay: time.Millisecond}, "GET", "/", nil, is{0, 0, "reset"}, ""},
		{"close", faultproxy.Fault{Kind: faultproxy.Close}, "PUT", "/", all, is{0, 0, "eof"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			p, c := faultproxy.Start(t, s.URL, faultproxy.Options{}), client(t)
			p.Add(tt.fault)
			got := do(t, c, tt.method, p.URL+tt.path, tt.body)
			if got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			seen := p.Requests()
			for i := 0; i < 100 && tt.want.end == "" && seen[0].Answered.IsZero(); i++ { // the client is faster than the log
				time.Sleep(time.Millisecond)
				seen = p.Requests()
			}
			if len(seen) != 1 || seen[0].Method != tt.method || seen[0].Target != tt.path || seen[0].Fault != tt.fault.Kind {
				t.Fatalf("the log is %+v", seen)
			}
			if tt.fault.Kind != faultproxy.Refuse && tt.fault.Kind != faultproxy.ResetRequest && seen[0].In != int64(len(tt.body)) {
				t.Errorf("%d bytes came, of %d", seen[0].In, len(tt.body))
			}
			if tt.want.end == "" && seen[0].Out != int64(tt.want.n) && tt.fault.Kind != faultproxy.ShortLength {
				if tt.path != "/chunked" {
					t.Errorf("%d bytes went, of %d", seen[0].Out, tt.want.n)
				}
			}
			time.Sleep(10 * time.Millisecond) // a server sees a broken body later
			if whole, broken := s.whole.Load(), s.broken.Load(); whole != b2i(tt.server == "whole") || broken != b2i(tt.server == "broken") {
				t.Errorf("the server got %d whole and %d broken requests, want %q", whole, broken, tt.server)
			}
			for i := range 200 { // a refusal ends in its own time
				if got = do(t, c, "GET", p.URL+"/", nil); got.end != "refused" || i == 199 {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			// The rest of a body with a wrong length stands in the way once.
			if got != (is{200, size, ""}) && tt.fault.Kind != faultproxy.ShortLength {
				t.Errorf("the next request: %+v", got)
			}
		})
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// A fault hits the n-th request that matches and as many after it as it says;
// a Match looks at method, path and query.
func TestPositions(t *testing.T) {
	s := newServer(t)
	p, c := faultproxy.Start(t, s.URL, faultproxy.Options{}), client(t)
	p.Add(faultproxy.Fault{Kind: faultproxy.Status, Code: 500, Match: faultproxy.Target("GET|PUT", `^/a.*[?&]n=`), From: 2, Times: 2})
	p.Add(faultproxy.Fault{Kind: faultproxy.Status, Code: 418, Match: faultproxy.Target("GET", `^/a`), From: 6, Times: -1})
	var got []int
	for _, step := range []string{"GET /a?n=1", "GET /b?n=1", "DELETE /a?n=1", "GET /a", "GET /a?n=2", "PUT /ab?n=3", "GET /a?n=4", "GET /a?n=5", "GET /a", "GET /a"} {
		method, target, _ := strings.Cut(step, " ")
		got = append(got, do(t, c, method, p.URL+target, nil).code)
	}
	if want := fmt.Sprint([]int{200, 200, 200, 200, 500, 500, 200, 200, 418, 418}); fmt.Sprint(got) != want {
		t.Errorf("codes %v, want %v", got, want)
	}
	p.Clear()
	if code := do(t, c, "GET", p.URL+"/a", nil).code; code != 200 {
		t.Errorf("after Clear: %d", code)
	}
	if host := s.host.Load(); host != p.Host {
		t.Errorf("the server is asked as %v, want %s", host, p.Host)
	}
}

// A refusal without an end lasts until Clear, on the same port.
func TestRefusal(t *testing.T) {
	s := newServer(t)
	p, c := faultproxy.Start(t, s.URL, faultproxy.Options{}), client(t)
	p.Add(faultproxy.Fault{Kind: faultproxy.Refuse, Times: -1})
	do(t, c, "GET", p.URL, nil)
	for range 3 {
		if got := do(t, c, "GET", p.URL, nil); got.end != "refused" {
			t.Errorf("%+v", got)
		}
	}
	p.Clear()
	if got := do(t, c, "GET", p.URL, nil); got.code != 200 {
		t.Errorf("after Clear: %+v", got)
	}
	p.Close()
	p.Close()
	if got := do(t, c, "GET", p.URL, nil); got.end != "refused" {
		t.Errorf("after Close: %+v", got)
	}
}

// Of a request that waits for 100 Continue, the body is asked for when the
// server wants it, and not at all by an answer of the proxy's own.
func TestExpectContinue(t *testing.T) {
	s := newServer(t)
	p, c := faultproxy.Start(t, s.URL, faultproxy.Options{}), client(t)
	p.Add(faultproxy.Fault{Kind: faultproxy.Status, Code: 503})
	for _, want := range []struct {
		code int
		in   int64
	}{{503, 0}, {200, size}} {
		r, _ := http.NewRequestWithContext(t.Context(), "PUT", p.URL, bytes.NewReader(make([]byte, size)))
		r.Header.Set("Expect", "100-continue")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		seen := p.Requests()
		if in := seen[len(seen)-1].In; resp.StatusCode != want.code || in != want.in {
			t.Errorf("status %d after %d bytes, want %+v", resp.StatusCode, in, want)
		}
	}
}

// With TLS it is the same, and a connection can end before its handshake.
func TestTLS(t *testing.T) {
	own := httptest.NewTLSServer(nil)
	defer own.Close()
	s := newServer(t)
	p, c := faultproxy.Start(t, s.URL, faultproxy.Options{TLS: &tls.Config{Certificates: own.TLS.Certificates}}), client(t)
	p.Add(faultproxy.Fault{Kind: faultproxy.Handshake})
	p.Add(faultproxy.Fault{Kind: faultproxy.ResetBody, From: 2})
	for i, want := range []outcome{{end: "eof"}, {200, size, ""}, {200, size / 2, "reset"}, {200, size, ""}} {
		got := do(t, c, "GET", p.URL, nil)
		if i == 0 && got.end == "reset" { // of the client's hello, unread
			got.end = "eof"
		}
		if got != want {
			t.Errorf("request %d: %+v, want %+v", i, got, want)
		}
	}
}
