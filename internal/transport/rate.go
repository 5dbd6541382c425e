package transport

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// MinRate, in bytes a second, is the lowest that a [Rate] may be: less
	// would let servers and proxies lose their patience with a body.
	MinRate = 64 << 10
	// minBurst and maxBurst, in bytes, bound what is moved at once between
	// two waits; in between it is a sixteenth of a second's.
	minBurst = 4 << 10
	maxBurst = 1 << 20
)

// Rate bounds how many bytes of bodies go to and come from each host in a
// second, over all clients that have it in their [Options]. It is safe for
// concurrent use.
type Rate struct {
	perSecond int64
	now       func() time.Time
	pause     func(context.Context, time.Duration) error

	mu    sync.Mutex
	hosts map[string]*rate.Limiter
}

// NewRate returns a Rate of bytes per second, which are [MinRate] at least.
func NewRate(perSecond int64) *Rate {
	return &Rate{perSecond: max(perSecond, MinRate), now: time.Now, pause: sleep, hosts: map[string]*rate.Limiter{}}
}

// Takes returns how long it takes at least to move n bytes from or to a host.
func (r *Rate) Takes(n int64) time.Duration {
	return time.Duration(float64(max(n-int64(r.burst()), 0)) / float64(r.perSecond) * float64(time.Second))
}

// burst returns how many bytes may be moved at once.
func (r *Rate) burst() int { return int(min(max(r.perSecond/16, minBurst), maxBurst)) }

func (r *Rate) host(name string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = strings.ToLower(name)
	l := r.hosts[name]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(r.perSecond), r.burst())
		r.hosts[name] = l
	}
	return l
}

// body returns body at the rate of a host, until ctx ends.
func (r *Rate) body(ctx context.Context, host string, body io.ReadCloser) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	return &slowBody{body: body, rate: r, host: r.host(host), ctx: ctx, cancel: cancel}
}

// request has the body of req, and each copy of it, sent at the rate.
func (r *Rate) request(req *http.Request) {
	if req.Body == nil || req.Body == http.NoBody {
		return
	}
	ctx, host := req.Context(), req.URL.Host
	req.Body = r.body(ctx, host, req.Body)
	if again := req.GetBody; again != nil {
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			if err != nil {
				return nil, err
			}
			return r.body(ctx, host, body), nil
		}
	}
}

// slowBody waits after each read until what it has read was due. It stands
// outside of the watchdog, which does not count these waits.
type slowBody struct {
	body   io.ReadCloser
	rate   *Rate
	host   *rate.Limiter
	ctx    context.Context // of the one request the body belongs to
	cancel context.CancelFunc
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p[:min(len(p), b.host.Burst())])
	if n == 0 {
		return n, err
	}
	now := b.rate.now()
	if wait := b.host.ReserveN(now, n).DelayFrom(now); wait > 0 {
		if ended := b.rate.pause(b.ctx, wait); ended != nil {
			return n, ended
		}
	}
	return n, err
}

// Close ends a wait too.
func (b *slowBody) Close() error {
	b.cancel()
	return b.body.Close()
}
