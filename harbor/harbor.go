// Package harbor hides Harbor's own API: projects, repositories, artifacts
// with the times of their tags, and which tag is the latest. It knows nothing
// of bundles, and it moves no content: that is the registry protocol's work.
//
// # Login
//
// Harbor answers a wrong password as it answers nobody: public data with
// status 200. Only [Client.CheckLogin] says whether a login is right. One
// wrong password also locks that user for about 1.5 seconds, in which right
// ones are refused; so every 401 is tried once more after two seconds.
//
// Cookies are never kept: Harbor demands a CSRF token from whoever sends its
// session cookie back.
//
// # Limits
//
// An answer has at most 16 MiB, a list at most 1,000 pages of 100, and an
// error message at most 1 KiB. Redirects are not followed.
//
// # Compatibility
//
// Harbor API v2.0, as Harbor 2.0 and later have it; seen on Harbor 2.16.0.
//
// # Sources
//
// Harbor's API description, https://github.com/goharbor/harbor/blob/main/api/v2.0/swagger.yaml;
// recordings of a real Harbor 2.16.0, in internal/harbortest/testdata.
package harbor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxAnswer, in bytes, bounds what one answer may make us hold in
	// memory; a page of 100 artifacts has about 200 KiB.
	maxAnswer = 16 << 20
	// loginRetry is how long a 401 waits before its second try: longer than
	// the 1.5 seconds for which Harbor locks a user after a wrong password.
	loginRetry = 2 * time.Second
	// defaultTimeout is generous because Harbor hashes a password for each
	// request, which takes it seconds under load.
	defaultTimeout = time.Minute
)

// Options are the settings of a [Client]; the zero Options are an anonymous
// caller with Go's default HTTP client.
type Options struct {
	// HTTP carries private CAs, proxies and retries of 5xx; nil means
	// [http.DefaultClient]. Its cookie jar and its redirect policy are not
	// used.
	HTTP *http.Client

	// Username and Password are sent verbatim with HTTP Basic, robots like
	// "robot$project+name" included. Without a Username there is no login.
	Username, Password string

	// UserAgent names the program to the server; empty means "ferry".
	UserAgent string

	// Timeout bounds each single request. Zero means one minute.
	Timeout time.Duration
}

// Client talks to one Harbor. It is safe for concurrent use. Every method
// that asks the server returns an [*Error] when that fails, whose kind is one
// of the errors listed with it.
type Client struct {
	base  *url.URL
	http  http.Client
	opts  Options
	sleep func(context.Context, time.Duration) error
}

// New returns a client of the Harbor at baseURL, such as
// "https://harbor.site". It does not contact the server.
func New(baseURL string, o Options) (*Client, error) {
	base, err := url.Parse(baseURL)
	switch {
	case err != nil:
		return nil, errors.New("harbor: the address is not a URL")
	case base.User != nil:
		return nil, fmt.Errorf("harbor: the address of %q must not hold a login", base.Host)
	case base.Scheme != "https" && base.Scheme != "http", base.Host == "",
		strings.Trim(base.Path, "/") != "", base.RawQuery != "", base.Fragment != "":
		return nil, fmt.Errorf("harbor: address %q is not https://HOST[:PORT]", baseURL)
	case strings.Contains(o.Username, ":"):
		return nil, errors.New("harbor: a user name must not have a colon")
	}
	o.UserAgent = cmp.Or(o.UserAgent, "ferry")
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	c := &Client{base: &url.URL{Scheme: base.Scheme, Host: base.Host}, opts: o, sleep: sleep}
	if o.HTTP != nil {
		c.http = *o.HTTP
	}
	c.http.Jar = nil
	// A redirect would carry the password elsewhere, or turn a POST into a
	// GET; Harbor's API has none.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Host returns the host and port of the server.
func (c *Client) Host() string { return c.base.Host }

// Username returns whose login is sent, or "" when there is none.
func (c *Client) Username() string { return c.opts.Username }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request is one call of the API.
type request struct {
	op     string // what the caller wants, for the error: `listing ...`
	method string
	path   string // escaped, from the root on
	query  url.Values
	byName bool // the path has a project's name where an id could be, too
	nobody bool // the login is not sent
	body   any  // sent as JSON unless nil
}

// answer is what came back, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends r and returns the answer if its status is 2xx. A 401 is tried once
// more when there is a login.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	for attempt := 1; ; attempt++ {
		a, err := c.send(ctx, r)
		if err != nil {
			return nil, err
		}
		switch {
		case a.status >= 200 && a.status < 300:
			return a, nil
		case a.status == http.StatusUnauthorized && attempt == 1 && c.opts.Username != "":
			if err := c.sleep(ctx, loginRetry); err != nil {
				return nil, &Error{Op: r.op, err: err}
			}
		default:
			return nil, c.errorOf(r.op, a)
		}
	}
}

// send makes one HTTP request.
func (c *Client) send(ctx context.Context, r request) (*answer, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(parent, c.opts.Timeout)
	defer cancel()
	fail := func(err error) (*answer, error) {
		if parent.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", c.opts.Timeout)
		}
		if text := err.Error(); c.redact(text) != text { // an address that the server gave
			err = errors.New(c.redact(text))
		}
		return nil, transportError(r.op, err)
	}
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return fail(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fail(fmt.Errorf("reading the answer: %w", err))
	}
	if len(body) > maxAnswer {
		return nil, unexpected(r.op, resp.StatusCode, "the answer is longer than %d bytes", maxAnswer)
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	target := c.base.String() + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.byName {
		req.Header.Set("X-Is-Resource-Name", "true")
	}
	if c.opts.Username != "" && !r.nobody {
		req.SetBasicAuth(c.opts.Username, c.opts.Password)
	}
	return req, nil
}

// getJSON asks for r and parses the answer into v.
func (c *Client) getJSON(ctx context.Context, r request, v any) (*answer, error) {
	r.method = http.MethodGet
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	// A portal or a proxy's login page answers 200 to any path.
	if t, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); t != "application/json" {
		return nil, unexpected(r.op, a.status, "the answer has type %q instead of JSON", clean(t))
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return nil, unexpected(r.op, a.status, "the answer is not the JSON of Harbor's API: %s", clean(err.Error()))
	}
	return a, nil
}
