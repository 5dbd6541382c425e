package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// T42, T57
func TestRetryByStatus(t *testing.T) {
	const always = 1 << 20
	tests := []struct {
		method     string
		status     int
		fails      int // so many times, then 200
		repeatable bool
		want       int
		requests   int
	}{
		{"GET", 503, 1, false, 200, 2},
		{"GET", 429, 5, false, 200, 6},
		{"GET", 503, 6, false, 503, 6},
		{"GET", 503, 50, false, 503, 6},
		{"GET", 500, 2, false, 200, 3},
		{"HEAD", 500, 2, false, 200, 3},
		{"GET", 502, 2, false, 200, 3},
		{"GET", 504, 2, false, 200, 3},
		{"GET", 501, always, false, 501, 1},
		{"GET", 505, always, false, 505, 1},
		{"GET", 404, always, false, 404, 1},
		{"GET", 401, always, false, 401, 1},
		{"GET", 408, always, false, 408, 1},
		{"PUT", 502, 1, false, 200, 2},
		{"PUT", 500, always, false, 500, 1},
		{"DELETE", 504, 1, false, 200, 2},
		{"POST", 503, 1, false, 200, 2},
		{"POST", 429, 1, false, 200, 2},
		{"POST", 502, always, false, 502, 1},
		{"POST", 500, always, false, 500, 1},
		{"POST", 502, 1, true, 200, 2},
		{"PATCH", 503, 1, false, 200, 2},
		{"PATCH", 504, always, false, 504, 1},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d x%d %v", tt.method, tt.status, tt.fails, tt.repeatable), func(t *testing.T) {
			var n atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); r.Method != "GET" && r.Method != "HEAD" && string(b) != "body" {
					t.Errorf("attempt %d had the body %q", n.Load(), b)
				}
				if int(n.Add(1)) <= tt.fails {
					w.WriteHeader(tt.status)
				}
			})
			ctx := t.Context()
			if tt.repeatable {
				ctx = Repeatable(ctx)
			}
			var body io.Reader
			if tt.method != "GET" && tt.method != "HEAD" {
				body = strings.NewReader("body")
			}
			req, _ := http.NewRequestWithContext(ctx, tt.method, s.URL, body)
			resp, err := client(t, Options{}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.want || int(n.Load()) != tt.requests {
				t.Errorf("status %d after %d requests, want %d after %d", resp.StatusCode, n.Load(), tt.want, tt.requests)
			}
		})
	}
}

// A body that can not be had again is sent once.
func TestNoRetryOfStream(t *testing.T) {
	var n atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		n.Add(1)
		w.WriteHeader(503)
	})
	req, _ := http.NewRequest(http.MethodPut, s.URL, io.LimitReader(zeros{}, 100))
	resp, err := client(t, Options{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n.Load() != 1 || resp.StatusCode != 503 {
		t.Errorf("status %d after %d requests, want 503 after 1", resp.StatusCode, n.Load())
	}
}

// T57: the connection breaks without a response.
func TestRetryAfterReset(t *testing.T) {
	tests := []struct {
		method     string
		repeatable bool
		requests   int
		ok         bool
	}{
		{"GET", false, 3, true},
		{"PUT", false, 3, true},
		{"POST", false, 1, false},
		{"POST", true, 3, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %v", tt.method, tt.repeatable), func(t *testing.T) {
			var n atomic.Int32
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if n.Add(1) < 3 {
					reset(w)
				}
			})
			ctx := t.Context()
			if tt.repeatable {
				ctx = Repeatable(ctx)
			}
			req, _ := http.NewRequestWithContext(ctx, tt.method, s.URL, strings.NewReader("body"))
			c := client(t, Options{})
			resp, err := c.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			if ok := err == nil; ok != tt.ok || int(n.Load()) != tt.requests {
				t.Errorf("error %v after %d requests, want ok %v after %d", err, n.Load(), tt.ok, tt.requests)
			}
		})
	}
}

// reset ends the connection of w without a response.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// A connection that was never made is tried again whatever the method.
func TestRetryOfDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var logs []string
	c := client(t, Options{Retries: 2, Log: func(f string, a ...any) { logs = append(logs, fmt.Sprintf(f, a...)) }})
	resp, err := c.Post("http://u:secret@"+addr+"/x?token=secret", "text/plain", strings.NewReader("body"))
	if err == nil {
		resp.Body.Close()
		t.Fatal("a closed port answered")
	}
	if len(logs) != 2 {
		t.Fatalf("%d attempts were logged, want 2: %q", len(logs), logs)
	}
	for _, l := range logs {
		if strings.Contains(l, "secret") || !strings.Contains(l, addr) {
			t.Errorf("log line %q", l)
		}
	}
	if !strings.Contains(logs[1], "attempt 3 of 3") {
		t.Errorf("log line %q", logs[1])
	}
}

func TestUnknownHost(t *testing.T) {
	begin := time.Now()
	if _, _, err := get(t, client(t, Options{Backoff: 10 * time.Second}), "http://host.invalid/"); err == nil {
		t.Error("host.invalid answered")
	} else {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound && time.Since(begin) > 5*time.Second {
			t.Errorf("an unknown name was tried again: %s", time.Since(begin))
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	at := time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat)
	tests := []struct {
		status int
		header string
		low    time.Duration
		high   time.Duration
		ok     bool
	}{
		{503, "7", 7 * time.Second, 7 * time.Second, true},
		{429, "0", 0, 0, true},
		{503, " 5 ", 5 * time.Second, 5 * time.Second, true},
		{503, "999999", time.Minute, time.Minute, true},
		{503, at, time.Second, 3 * time.Second, true},
		{503, "Mon, 02 Jan 2006 15:04:05 GMT", 0, 0, true},
		{503, "Fri, 02 Jan 2999 15:04:05 GMT", time.Minute, time.Minute, true},
		{503, "-1", 0, 0, false},
		{503, "1.5", 0, 0, false},
		{503, "99999999999999999999", 0, 0, false},
		{503, "soon", 0, 0, false},
		{503, "", 0, 0, false},
		{500, "7", 0, 0, false},
	}
	for _, tt := range tests {
		resp := &http.Response{StatusCode: tt.status, Header: http.Header{"Retry-After": {tt.header}}}
		got, ok := retryAfter(resp)
		if ok != tt.ok || got < tt.low || got > tt.high {
			t.Errorf("retryAfter(%d, %q) = %s, %v, want %s..%s, %v", tt.status, tt.header, got, ok, tt.low, tt.high, tt.ok)
		}
	}
}

// Who asks for 100 Continue keeps the body back until then, also in a request
// made by hand as the AWS SDK makes them.
func TestExpectContinue(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
	})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	body := &countReads{Reader: bytes.NewReader(make([]byte, 1<<20))}
	req := (&http.Request{Method: "PUT", URL: u, Header: http.Header{"Expect": {"100-continue"}}, Body: io.NopCloser(body), ContentLength: 1 << 20}).WithContext(t.Context())
	resp, err := client(t, Options{}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := body.n.Load(); n > 0 || resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d after %d reads of the body", resp.StatusCode, n)
	}
}

type countReads struct {
	io.Reader
	n atomic.Int32
}

func (c *countReads) Read(p []byte) (int, error) {
	c.n.Add(1)
	return c.Reader.Read(p)
}

// T42: who waits already waits longer when the host asks for more meanwhile.
func TestRetryAfterAgain(t *testing.T) {
	r := &retrier{backoff: 1, notBefore: map[string]time.Time{}}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://host/", nil)
	begin := time.Now()
	r.hold("host", 200*time.Millisecond)
	timer := time.AfterFunc(20*time.Millisecond, func() { r.hold("host", 400*time.Millisecond) })
	defer timer.Stop()
	if err := r.await(req); err != nil || time.Since(begin) < 420*time.Millisecond {
		t.Errorf("it waited %s, %v", time.Since(begin), err)
	}
}

// T42: Retry-After is obeyed, by other requests to that host as well.
func TestRetryAfterHolds(t *testing.T) {
	var (
		mu    sync.Mutex
		times []time.Time
	)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		if len(times) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}
	})
	c := client(t, Options{})
	done := make(chan error, 1)
	go func() {
		resp, err := c.Get(s.URL + "/a")
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	for seen := 0; seen == 0; time.Sleep(time.Millisecond) {
		mu.Lock()
		seen = len(times)
		mu.Unlock()
	}
	time.Sleep(50 * time.Millisecond) // until the 429 has been read
	if status, _, err := get(t, c, s.URL+"/b"); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(times) != 3 {
		t.Fatalf("%d requests, want 3", len(times))
	}
	for _, at := range times[1:] {
		if d := at.Sub(times[0]); d < 900*time.Millisecond {
			t.Errorf("a request came %s after the 429, want a second", d)
		}
	}
}

// A cancelled context ends the pause between attempts.
func TestCancelDuringPause(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(503)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	begin := time.Now()
	resp, err := client(t, Options{}).Do(req)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 10*time.Second {
		t.Errorf("error %v after %s", err, time.Since(begin))
	}
}

// T42: the pauses are random between nothing and a bound that doubles.
func TestBackoffGrows(t *testing.T) {
	r := &retrier{retries: 100, backoff: time.Second, notBefore: map[string]time.Time{}}
	req, _ := http.NewRequest(http.MethodGet, "http://host/", nil)
	resp := &http.Response{StatusCode: 503}
	for attempt, bound := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 90: time.Minute} {
		var most time.Duration
		for range 300 {
			d, again := r.wait(req, resp, nil, attempt)
			if !again || d < 0 || d >= bound {
				t.Fatalf("wait after attempt %d = %s, %v, want less than %s", attempt, d, again, bound)
			}
			most = max(most, d)
		}
		if most < bound/2 {
			t.Errorf("300 pauses after attempt %d were all under %s, of %s", attempt, most, bound)
		}
	}
}
