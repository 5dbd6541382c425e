package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxAnswer, in bytes, bounds what an answer may make us hold in memory:
	// etcd takes objects of at most 1.5 MiB, and the discovery of a big
	// cluster has less than 1 MiB.
	maxAnswer = 4 << 20
	// maxRetryAfter, in seconds, is how long client-go may wait because a
	// server asks for it.
	maxRetryAfter = 5
)

var (
	errTooLarge = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	errTimeout  = errors.New("no answer in time")
)

// guard is a transport that bounds time and size of answers, and knows the
// login that is sent, so that it can be taken out of errors. It sits below
// client-go's own wrappers, which add the login: the time that an exec plugin
// takes to get it, perhaps from a person, does not count.
type guard struct {
	next    http.RoundTripper
	timeout time.Duration

	mu     sync.Mutex
	logins []string // as sent, without their scheme
}

// clock is when the first of several attempts began.
type clock struct {
	once  sync.Once
	start time.Time
}

type clockKey struct{}

// begin returns the context of one call, of which all attempts together have
// the guard's time-out.
func (g *guard) begin(ctx context.Context) context.Context {
	return context.WithValue(ctx, clockKey{}, &clock{})
}

// WrappedRoundTripper lets client-go find what has the connections.
func (g *guard) WrappedRoundTripper() http.RoundTripper { return g.next }

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	g.learn(r.Header.Get("Authorization"))
	left := g.timeout
	if c, ok := r.Context().Value(clockKey{}).(*clock); ok {
		c.once.Do(func() { c.start = time.Now() })
		left -= time.Since(c.start)
	}
	if left <= 0 {
		return nil, errTimeout
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), left, errTimeout)
	resp, err := g.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == errTimeout {
			err = errTimeout
		}
		cancel()
		return nil, err
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds > maxRetryAfter {
		resp.Header.Del("Retry-After")
	}
	resp.Body = &guardedBody{ReadCloser: resp.Body, left: maxAnswer, ctx: ctx, cancel: cancel}
	return resp, nil
}

// learn remembers the value of an Authorization header.
func (g *guard) learn(header string) {
	_, login, _ := strings.Cut(header, " ")
	if login == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, known := range g.logins {
		if known == login {
			return
		}
	}
	g.logins = append(g.logins, login)
}

// redact takes out every login that was sent, for servers that repeat it.
func (g *guard) redact(s string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, login := range g.logins {
		s = strings.ReplaceAll(s, login, hidden)
	}
	return s
}

// guardedBody is the body of an answer.
type guardedBody struct {
	io.ReadCloser
	left   int // bytes
	ctx    context.Context
	cancel context.CancelFunc
}

// readError is a body that ended too early.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, readError{errTooLarge}
	}
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case context.Cause(b.ctx) == errTimeout:
		return n, readError{errTimeout}
	}
	return n, readError{err}
}

func (b *guardedBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
