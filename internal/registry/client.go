// Package registry hides how content is pulled from and pushed to an OCI
// registry: the protocol, logging in, and going on after a fault.
//
// # Trust
//
// Nothing a registry says is believed over a digest. What is pulled is hashed
// while it is read; what is pushed is hashed while it is sent, and an upload
// whose bytes were wrong is not finished but cancelled. "urls" in a
// descriptor are never followed.
//
// Secrets go to the registry's own host and to no other, with one exception:
// a token service, which must be on a host of the same name, be Docker's for
// docker.io, or be listed in [Options].AuthHosts. The locations of uploads
// and the links to further pages must be on the registry's own origin. A
// registry behind a proxy may believe that it is reached by plain HTTP; such
// an address on its own host is used with https instead.
//
// # Breaks
//
// Requests are repeated as [transport] says; a blob that breaks on its way is
// taken up at the byte where it broke, and a token that has become void is
// renewed once. A login that is refused is tried once more after two seconds:
// Harbor locks a user out for a moment when somebody else gives a wrong
// password. A registry may forget an upload that broke: distribution 2.8,
// and so Harbor, keeps none that broke within a request. The blob is then sent
// again from its beginning, five times at most.
//
// # Plain HTTP
//
// Only the hosts in [Options].PlainHTTP are asked without TLS, and those on
// the loopback interface ("localhost", 127.0.0.0/8, ::1) when they turn out
// not to speak TLS.
//
// # Limits
//
// A manifest has at most 4 MiB; a list of tags at most 1,000 pages of 8 MiB
// and 100,000 tags; a list of referrers at most 4,096 entries; an error's
// message at most 1 KiB.
//
// # Sources
//
// OCI Distribution 1.1.1,
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md;
// distribution's token authentication,
// https://distribution.github.io/distribution/spec/auth/token/; what Harbor
// 2.16 and distribution 2.8 and 3.1 answer.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"ferry/internal/transport"
)

// Options say how a client reaches registries. The zero Options are ready to
// use: TLS everywhere but on loopback, and no login.
type Options struct {
	// HTTP makes the requests; it must not keep cookies, and must retry and
	// redirect with the care of [transport.New]. Nil means one made by that.
	HTTP *http.Client
	// Keychain has the logins. Nil means none; see [Keychain].
	Keychain authn.Keychain
	// PlainHTTP lists the hosts, "host" or "host:port" as they stand in
	// references, that are asked without TLS.
	PlainHTTP []string
	// AuthHosts lists hosts, "host" or "host:port", that may be a token
	// service for any registry, and so be sent its login.
	AuthHosts []string
	// ChunkSize, in bytes, is the most that one request uploads, for
	// proxies that refuse more. Zero means no limit; a client that is
	// refused finds one by itself.
	ChunkSize int64
}

// Client pulls from and pushes to registries. It is safe for concurrent use,
// and leaves no goroutine behind when the idle connections of its
// http.Client are closed.
type Client struct {
	http      *http.Client
	keychain  authn.Keychain
	plain     []string
	authHosts []string
	chunk     atomic.Int64  // bytes in one request at most; zero: no limit
	noExpect  atomic.Bool   // a proxy does not know "Expect: 100-continue"
	pause     time.Duration // the first pause after a break
	lockout   time.Duration // how long a failed login may lock a user out

	mu         sync.Mutex
	hosts      map[string]*hostSlot
	tokens     map[tokenKey]*tokenSlot
	hashLeftTo map[string]bool // hosts that refuse content with another digest
}

// New returns a client for registries reached as o says.
func New(o Options) *Client {
	if o.HTTP == nil {
		o.HTTP, _ = transport.New(transport.Options{}) // fails on bad options only
	}
	c := &Client{
		http:      o.HTTP,
		keychain:  o.Keychain,
		plain:     lower(o.PlainHTTP),
		authHosts: lower(o.AuthHosts),
		pause:     500 * time.Millisecond,
		lockout:   2 * time.Second,
		hosts:     make(map[string]*hostSlot),
		tokens:    make(map[tokenKey]*tokenSlot),

		hashLeftTo: make(map[string]bool),
	}
	c.chunk.Store(max(o.ChunkSize, 0))
	return c
}

func lower(hosts []string) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, strings.ToLower(h))
	}
	return all
}

// Ping checks that host is a registry that answers, and when there is a login
// for it, that it is accepted. Errors: [ErrUnauthorized], [ErrUnavailable],
// [ErrName].
func (c *Client) Ping(ctx context.Context, host string) error {
	return c.CheckLogin(ctx, Repository{Host: host})
}

// CheckLogin is [Client.Ping] with the login for r, which may be another than
// that for its host.
func (c *Client) CheckLogin(ctx context.Context, r Repository) error {
	r.Host = normalHost(r.Host)
	if err := checkHost(r.Host); err != nil {
		return err
	}
	k := call{op: "ping", host: r.Host, repo: r.Path, method: http.MethodGet, path: "/v2/", want: []int{http.StatusOK}}
	creds, err := c.credentials(ctx, r)
	if err != nil {
		return k.fail(err)
	}
	if creds == (credentials{}) {
		_, err := c.host(ctx, r.Host)
		return err
	}
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// NeedsLogin reports whether host serves nobody without a login: it asks for a
// password and has no tokens. Errors: [ErrUnavailable], [ErrName].
func (c *Client) NeedsLogin(ctx context.Context, host string) (bool, error) {
	host = normalHost(host)
	if err := checkHost(host); err != nil {
		return false, err
	}
	h, err := c.host(ctx, host)
	return err == nil && h.challenge.Load().scheme == "basic", err
}

// call is one request to a registry, or rather the few that it may take.
type call struct {
	op     string     // for errors
	host   string     // of the registry, as in references
	repo   string     // the path of the repository; may be empty
	name   string     // for errors: the tag or digest concerned
	method string     //
	path   string     // from "/v2/" on; or else
	url    *url.URL   // in full, which [hostState.own] has let pass
	query  url.Values // added to path or url
	header http.Header
	body   []byte        // what is sent; or else
	stream io.ReadCloser // what is sent, which can not be had again,
	size   int64         // and its size in bytes
	want   []int         // statuses that are no error
	push   bool          // the right to push is needed as well
	begins bool          // it begins an upload or stores a manifest
	from   []Repository
	once   bool // a new login that is refused is not tried again
}

// at returns a call about name in r.
func at(op string, r Repository, name string) call {
	return call{op: op, host: r.Host, repo: r.Path, name: name, method: http.MethodGet, want: []int{http.StatusOK}}
}

// fail returns the error of k for the cause err.
func (k *call) fail(err error) *Error {
	var inner *Error
	if errors.As(err, &inner) {
		return inner
	}
	return &Error{Op: k.op, Host: k.host, Repository: k.repo, Name: k.name, Err: err, begins: k.begins}
}

// do makes the request k, with the login it needs, and returns the response
// if it has a status that k wants; the caller closes its body. When a token
// turns out to be void the request is made again with another, and when a new
// login is refused it is tried once more after [Client].lockout. Every error
// is an [*Error].
func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	h, err := c.host(ctx, k.host)
	if err != nil {
		return nil, k.fail(err)
	}
	begin := time.Now()
	for waited := false; ; {
		login, err := c.login(ctx, h, k)
		if err != nil {
			return nil, k.fail(err)
		}
		resp, err := c.send(ctx, h, k, login)
		if err != nil {
			e := k.fail(transport.Cause(err))
			e.User, e.network = login.user, true
			return nil, e
		}
		if slices.Contains(k.want, resp.StatusCode) {
			return resp, nil
		}
		e := k.fail(nil)
		e.User = login.user
		e.readError(resp)
		stale := e.Status == http.StatusUnauthorized && !e.noProject && transport.SameOrigin(resp.Request.URL, h.base)
		if !stale || !c.renew(ctx, h, login, resp.Header) || k.stream != nil {
			return nil, e
		}
		if login.isOld(begin) {
			continue // it became void
		}
		// A failed login locks its user out of Harbor for 1.5 s, in which
		// the right password is refused too.
		if waited || k.once || login.user == "" {
			return nil, e
		}
		waited = true
		if err := sleep(ctx, c.lockout); err != nil {
			return nil, k.fail(err)
		}
	}
}

// send makes one request.
func (c *Client) send(ctx context.Context, h *hostState, k call, l login) (*http.Response, error) {
	u := k.url
	if u == nil {
		u = h.base.JoinPath(k.path)
	}
	if len(k.query) > 0 {
		q := *u
		if q.RawQuery != "" { // kept as the server wrote it
			q.RawQuery += "&"
		}
		q.RawQuery += k.query.Encode()
		u = &q
	}
	var body io.Reader
	switch {
	case k.stream != nil:
		body = k.stream // not closed by whom it does not belong to
	case len(k.body) > 0:
		body = bytes.NewReader(k.body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if k.stream != nil {
		req.ContentLength = k.size
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if l.header != "" {
		req.Header.Set("Authorization", l.header)
	}
	return c.http.Do(req)
}

// hostSlot is the place for what is known of one host.
type hostSlot struct {
	turn  chan struct{} // held by who finds out
	state atomic.Pointer[hostState]
}

// hostState is what is known of a host that has answered.
type hostState struct {
	name      string   // as in references
	base      *url.URL // scheme and host
	challenge atomic.Pointer[challenge]
}

// host returns what is known of the registry name; the first caller asks it.
func (c *Client) host(ctx context.Context, name string) (*hostState, error) {
	c.mu.Lock()
	slot := c.hosts[name]
	if slot == nil {
		slot = &hostSlot{turn: make(chan struct{}, 1)}
		c.hosts[name] = slot
	}
	c.mu.Unlock()
	if h := slot.state.Load(); h != nil {
		return h, nil
	}
	if err := take(ctx, slot.turn); err != nil {
		return nil, err
	}
	defer func() { <-slot.turn }()
	if h := slot.state.Load(); h != nil {
		return h, nil
	}
	h, err := c.discover(ctx, name)
	if err == nil {
		slot.state.Store(h)
	}
	return h, err
}

// discover asks a registry how it is spoken to.
func (c *Client) discover(ctx context.Context, name string) (*hostState, error) {
	wire := name
	if name == dockerHub {
		wire = dockerHubWire
	}
	scheme := "https"
	if slices.Contains(c.plain, name) {
		scheme = "http"
	}
	h, err := c.probe(ctx, name, &url.URL{Scheme: scheme, Host: wire})
	if errors.Is(err, http.ErrSchemeMismatch) && IsLoopback(name) {
		return c.probe(ctx, name, &url.URL{Scheme: "http", Host: wire})
	}
	return h, err
}

func (c *Client) probe(ctx context.Context, name string, base *url.URL) (*hostState, error) {
	k := call{op: "ping", host: name}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("/v2/").String(), nil)
	if err != nil {
		return nil, k.fail(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		e := k.fail(transport.Cause(err))
		e.network = true
		return nil, e
	}
	h := &hostState{name: name, base: base}
	h.challenge.Store(&challenge{})
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		h.challenge.Store(pickChallenge(resp.Header))
	default:
		return nil, k.fail(nil).readError(resp)
	}
	return h, resp.Body.Close()
}

// own returns the address that the registry gave in the response to a request
// for from. It must lie on the registry's own origin (T65).
func (h *hostState) own(from *url.URL, address string) (*url.URL, error) {
	u, err := from.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("the registry gave a malformed address %s", clean(address))
	}
	h.secure(u)
	if u.User != nil || !transport.SameOrigin(u, h.base) {
		return nil, fmt.Errorf("the registry at %s gave an address at %s, which is not its own",
			h.base, clean(u.Scheme+"://"+u.Host))
	}
	return u, nil
}

// secure turns u to https when it is a plain address of the registry's own
// host, which itself is reached by TLS.
func (h *hostState) secure(u *url.URL) {
	samePort := u.Port() == "" || u.Port() == "80" || u.Port() == h.base.Port()
	if h.base.Scheme == "https" && u.Scheme == "http" && samePort && strings.EqualFold(u.Hostname(), h.base.Hostname()) {
		u.Scheme, u.Host = h.base.Scheme, h.base.Host
	}
}

// take takes its turn, or ends with ctx.
func take(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// backoff waits before the attempt after n breaks, a random time that grows.
func (c *Client) backoff(ctx context.Context, n int) error {
	most := min(c.pause<<min(n, 10), 30*time.Second)
	return sleep(ctx, rand.N(cmp.Or(most, 1)))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// BaseURL returns the scheme and host that a registry is reached at, such as
// "https://harbor.site": where Harbor's own API is too. Errors:
// [ErrUnavailable], [ErrName].
func (c *Client) BaseURL(ctx context.Context, host string) (string, error) {
	host = normalHost(host)
	if err := checkHost(host); err != nil {
		return "", err
	}
	h, err := c.host(ctx, host)
	if err != nil {
		return "", err
	}
	return h.base.Scheme + "://" + h.base.Host, nil
}
