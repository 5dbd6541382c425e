package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxDrain, in bytes, is how much of an unwanted body is read so that its
// connection can be used again.
const maxDrain = 64 << 10

type ctxKey int

const (
	repeatableKey ctxKey = iota
	patienceKey
)

// Repeatable returns a context under which a POST or PATCH is repeated like a
// PUT, because doing it twice does no harm.
func Repeatable(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatableKey, true)
}

// Patience returns a context under which the headers of a response may take
// as long as d, where a server has much to do before it can answer. The waits
// of bodies are not changed.
func Patience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey, d)
}

// IdleError says that the other side sent nothing, or next to nothing, for too
// long.
type IdleError struct {
	After    time.Duration
	In       string // what was waited for: "headers" or "body"
	Received int64  // bytes of the body in that time, too few
}

func (e *IdleError) Error() string {
	if e.Received > 0 {
		return fmt.Sprintf("only %d bytes received in %s of the response's %s", e.Received, e.After, e.In)
	}
	return fmt.Sprintf("nothing received for %s while waiting for the response's %s", e.After, e.In)
}

// Timeout implements [net.Error].
func (e *IdleError) Timeout() bool { return true }

// Temporary implements [net.Error].
func (e *IdleError) Temporary() bool { return true }

// retrier is the http.RoundTripper of the clients that New makes.
type retrier struct {
	strict  *http.Transport
	hosts   *hosts // those with TLS needs of their own
	agent   string
	retries int
	backoff time.Duration
	idle    time.Duration
	log     func(string, ...any)
	observe func(context.Context, string, Outcome) // may be nil
	rate    *Rate                                  // may be nil

	mu        sync.Mutex
	notBefore map[string]time.Time // by host: what Retry-After said
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *retrier) CloseIdleConnections() {
	t.strict.CloseIdleConnections()
	t.hosts.closeIdle()
}

// RoundTrip implements [http.RoundTripper].
func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("%w: %q", errScheme, req.URL.Scheme)
	}
	pool, err := t.pick(req)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		body, err := t.bodyFor(req, attempt)
		if err != nil {
			return nil, err
		}
		if err := t.await(req); err != nil {
			if body != nil {
				body.Close()
			}
			return nil, err
		}
		resp, err := t.once(pool, req, body)
		t.tell(req, outcome(resp, err))
		wait, again := t.wait(req, resp, err, attempt)
		if !again {
			return resp, err
		}
		if t.log != nil {
			what := fmt.Sprintf("%q", fmt.Sprint(err))
			if err == nil {
				what = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
			}
			t.log("%s %q: %s; attempt %d of %d in %s", req.Method, req.URL.Scheme+"://"+req.URL.Host+req.URL.Path,
				what, attempt+2, t.retries+1, wait.Round(time.Millisecond))
		}
		if resp != nil {
			discard(resp.Body)
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// bodyFor returns the body of one attempt: the request's own, then copies.
func (t *retrier) bodyFor(req *http.Request, attempt int) (io.ReadCloser, error) {
	if attempt == 0 || req.Body == nil || req.Body == http.NoBody {
		return req.Body, nil
	}
	return req.GetBody()
}

// once makes one attempt, with its time-outs.
func (t *retrier) once(pool *http.Transport, req *http.Request, body io.ReadCloser) (*http.Response, error) {
	patience, ok := req.Context().Value(patienceKey).(time.Duration)
	if !ok {
		patience = t.idle
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	dog := newWatchdog(cancel, &IdleError{After: patience, In: "headers"})
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { dog.watch() },
	})
	r := req.Clone(ctx)
	r.Body = body
	// The AWS SDK leaves them zero, and then net/http sends the body without
	// waiting for 100 Continue: a refusal with its Retry-After may get lost.
	r.ProtoMajor, r.ProtoMinor = 1, 1
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", t.agent)
	}
	if t.rate != nil {
		t.rate.request(r)
	}
	resp, err := pool.RoundTrip(r)
	dog.end()
	if err != nil {
		err = explain(pool, r, cause(ctx, err))
		cancel(nil)
		return nil, err
	}
	if resp.Body == http.NoBody {
		cancel(nil)
		return resp, nil
	}
	resp.Body = &watchedBody{
		body:   resp.Body,
		ctx:    ctx,
		cancel: cancel,
		dog:    newWatchdog(cancel, &IdleError{After: t.idle, In: "body"}),
		stuck:  func() { t.tell(req, TimedOut) },
	}
	if t.rate != nil {
		resp.Body = t.rate.body(ctx, req.URL.Host, resp.Body)
	}
	return resp, nil
}

// pick returns the transport for the host of r.
func (t *retrier) pick(r *http.Request) (*http.Transport, error) {
	if r.URL.Scheme != "https" {
		return t.strict, nil
	}
	own, err := t.hosts.transport(hostPort{strings.ToLower(r.URL.Hostname()), port(r.URL)})
	if err != nil {
		return nil, err
	}
	return cmp.Or(own, t.strict), nil
}

// wait reports whether the request is to be made again, and after how long.
func (t *retrier) wait(req *http.Request, resp *http.Response, err error, attempt int) (time.Duration, bool) {
	hasBody := req.Body != nil && req.Body != http.NoBody
	asked, isAsked := retryAfter(resp)
	if isAsked {
		t.hold(req.URL.Host, asked)
	}
	switch {
	case attempt >= t.retries, hasBody && req.GetBody == nil, req.Context().Err() != nil:
		return 0, false
	case err != nil && !retryError(req, err):
		return 0, false
	case err == nil && !retryStatus(req, resp.StatusCode):
		return 0, false
	}
	most := min(t.backoff<<min(attempt, 20), maxWait)
	return asked + rand.N(most), true
}

// idempotent reports whether doing req twice is like doing it once.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return true
	}
	repeatable, _ := req.Context().Value(repeatableKey).(bool)
	return repeatable
}

func retryStatus(req *http.Request, status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return idempotent(req)
	case http.StatusInternalServerError:
		return req.Method == http.MethodGet || req.Method == http.MethodHead
	}
	return false
}

func retryError(req *http.Request, err error) bool {
	var (
		cert  *tls.CertificateVerificationError
		plain tls.RecordHeaderError
		dns   *net.DNSError
		op    *net.OpError
	)
	switch {
	case errors.As(err, &cert), errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errScheme):
		return false
	case errors.As(err, &dns) && dns.IsNotFound:
		return false
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		return false // a TLS alert
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return true
	}
	return idempotent(req)
}

// retryAfter returns how long the server of resp asks to wait, at most
// maxWait, and whether it does ask.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	v := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxWait), true
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), maxWait), true
	}
	return 0, false
}

// hold keeps all requests to host back for d.
func (t *retrier) hold(host string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := time.Now().Add(d); until.After(t.notBefore[host]) {
		t.notBefore[host] = until
	}
}

// await waits until the host of req may be asked again, also when it asks for
// more meanwhile.
func (t *retrier) await(req *http.Request) error {
	for {
		t.mu.Lock()
		until, held := t.notBefore[req.URL.Host]
		left := time.Until(until)
		if held && left <= 0 {
			delete(t.notBefore, req.URL.Host)
		}
		t.mu.Unlock()
		if !held || left <= 0 {
			return nil
		}
		if err := sleep(req.Context(), left+rand.N(t.backoff)); err != nil { // so that not all come back at once
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// discard closes body, after reading what little may be left of it.
func discard(body io.ReadCloser) {
	io.Copy(io.Discard, io.LimitReader(body, maxDrain))
	body.Close()
}
