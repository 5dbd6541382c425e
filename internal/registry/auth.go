package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"ferry/internal/transport"
)

const (
	// maxToken, in bytes, bounds the answer of a token service; real ones
	// have a few KiB.
	maxToken = 1 << 20
	// defaultLife is how long a token holds when its service does not say,
	// by the token specification.
	defaultLife = time.Minute
	// maxLife bounds what a token service may claim.
	maxLife = 24 * time.Hour
)

// ErrRealm says that a registry sent us for a token to a host that must not
// see its login; the error names the host, and [Options].AuthHosts allows it.
var ErrRealm = errors.New("token service on a host that is not the registry's own")

// credentials are a login; the zero credentials are none.
type credentials struct {
	user, password string
	identity       string // an OAuth2 refresh token
	token          string // a bearer token, sent as it is
}

func (c credentials) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.password))
}

// name returns whose login it is, for errors.
func (c credentials) name() string {
	if c.user == "" && (c.identity != "" || c.token != "") {
		return "<token>"
	}
	return c.user
}

// resource is what a keychain is asked about.
type resource struct{ host, path string }

func (r resource) RegistryStr() string { return r.host }

func (r resource) String() string {
	if r.path == "" {
		return r.host
	}
	return r.host + "/" + r.path
}

// credentials returns the login for r, if there is one.
func (c *Client) credentials(ctx context.Context, r Repository) (credentials, error) {
	if c.keychain == nil {
		return credentials{}, nil
	}
	res := resource{host: r.Host, path: r.Path}
	if r.Host == dockerHub {
		res.host = dockerHubKey
	}
	var a *authn.AuthConfig
	auth, err := authn.Resolve(ctx, c.keychain, res)
	if err == nil {
		a, err = authn.Authorization(ctx, auth)
	}
	if err != nil {
		// A credential helper's output stands in it.
		return credentials{}, fmt.Errorf("credentials for %s: %s", r.Host, clean(err.Error()))
	}
	creds := credentials{user: a.Username, password: a.Password, identity: a.IdentityToken, token: a.RegistryToken}
	if creds == (credentials{}) && a.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return credentials{}, fmt.Errorf("credentials for %s: malformed auth", r.Host)
		}
		creds.user, creds.password = user, password
	}
	return creds, nil
}

// login is what a request is sent with.
type login struct {
	header string
	user   string    // whose it is; empty: nobody's
	got    time.Time // when the token was fetched
	slot   *tokenSlot
}

// isOld reports whether l, which was refused, says nothing of whether a new
// login will be: it is none, or a token that was fetched before then. A
// password is always new.
func (l login) isOld(then time.Time) bool {
	return l.header == "" || l.got.Before(then) && !strings.HasPrefix(l.header, "Basic ")
}

// tokenKey says what a token is for.
type tokenKey struct{ host, scopes string }

// tokenSlot is the place for one login.
type tokenSlot struct {
	turn   chan struct{} // held by who reads or fetches
	filled bool
	header string
	user   string
	got    time.Time
	until  time.Time // when to fetch another; zero: never
	end    time.Time // when the token ends
}

// login returns what k is to be sent with.
func (c *Client) login(ctx context.Context, h *hostState, k call) (login, error) {
	ch := h.challenge.Load()
	if ch.scheme == "" {
		return login{}, nil
	}
	scopes := k.scopes()
	slot := c.slot(tokenKey{h.name, strings.Join(scopes, " ")})
	if err := take(ctx, slot.turn); err != nil {
		return login{}, err
	}
	defer func() { <-slot.turn }()
	if !slot.filled || !slot.until.IsZero() && time.Now().After(slot.until) {
		err := c.fill(ctx, slot, h, ch, k, scopes)
		if err != nil && (!slot.filled || !time.Now().Before(slot.end)) {
			return login{}, err
		}
		slot.filled = true // or holds for some time still
	}
	return login{header: slot.header, user: slot.user, got: slot.got, slot: slot}, nil
}

func (c *Client) slot(key tokenKey) *tokenSlot {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.tokens[key]
	if slot == nil {
		slot = &tokenSlot{turn: make(chan struct{}, 1)}
		c.tokens[key] = slot
	}
	return slot
}

// scopes returns the rights that k needs, in the words of the token
// specification.
func (k *call) scopes() []string {
	if k.repo == "" {
		return nil
	}
	scope := "repository:" + k.repo + ":pull"
	if k.push {
		scope += ",push"
	}
	all := []string{scope}
	for _, f := range k.from {
		all = append(all, "repository:"+f.Path+":pull")
	}
	return all
}

// fill gets a login into slot. An error leaves slot as it was.
func (c *Client) fill(ctx context.Context, slot *tokenSlot, h *hostState, ch *challenge, k call, scopes []string) error {
	creds, err := c.credentials(ctx, Repository{Host: k.host, Path: k.repo})
	if err != nil {
		return err
	}
	fresh := tokenSlot{user: creds.name(), got: time.Now()}
	switch {
	case creds.token != "":
		fresh.header = "Bearer " + creds.token
	case ch.scheme == "basic" && (creds.user != "" || creds.password != ""):
		fresh.header = creds.basic()
	case ch.scheme == "bearer":
		token, life, err := c.fetchToken(ctx, h, ch, creds, scopes)
		if err != nil {
			return err
		}
		fresh.header = "Bearer " + token
		fresh.until, fresh.end = fresh.got.Add(life/2), fresh.got.Add(life)
	}
	slot.header, slot.user, slot.got, slot.until, slot.end = fresh.header, fresh.user, fresh.got, fresh.until, fresh.end
	return nil
}

// renew drops l, which was refused with the headers of a response, and
// reports whether another login may do better.
func (c *Client) renew(ctx context.Context, h *hostState, l login, refusal http.Header) bool {
	if l.slot == nil { // the registry did not say before that it wants a login
		ch := pickChallenge(refusal)
		return ch.scheme != "" && h.challenge.CompareAndSwap(h.challenge.Load(), ch)
	}
	if l.header == "" || take(ctx, l.slot.turn) != nil {
		return false
	}
	defer func() { <-l.slot.turn }()
	if l.slot.header == l.header {
		l.slot.filled = false
	}
	return true
}

// fetchToken asks the token service that ch names for a token, and returns it
// with the time it holds. Errors: [ErrRealm], [ErrUnauthorized],
// [ErrUnavailable].
func (c *Client) fetchToken(ctx context.Context, h *hostState, ch *challenge, creds credentials, scopes []string) (string, time.Duration, error) {
	realm, err := c.realm(h, ch.params["realm"])
	if err != nil {
		return "", 0, err
	}
	k := call{op: "log in to", host: h.name}
	req, err := tokenRequest(ctx, realm, ch.params["service"], creds, scopes)
	if err != nil {
		return "", 0, k.fail(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		e := k.fail(transport.Cause(err))
		e.User, e.network = creds.name(), true
		return "", 0, e
	}
	if resp.StatusCode != http.StatusOK {
		e := k.fail(nil).readError(resp)
		e.User = creds.name()
		if e.Status == http.StatusNotFound { // not the content that was asked for
			e.Err, e.Status = fmt.Errorf("its token service at %s answers 404", clean(realm.Host)), 0
		}
		return "", 0, e
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
	if err != nil {
		e := k.fail(err)
		e.network = true
		return "", 0, e
	}
	token, life, err := parseToken(body)
	if err != nil {
		return "", 0, k.fail(fmt.Errorf("token service at %s: %w", clean(realm.Host), err))
	}
	return token, life, nil
}

// tokenRequest returns the request for a token: a GET with a password or
// without a login, a POST with a refresh token.
func tokenRequest(ctx context.Context, realm *url.URL, service string, creds credentials, scopes []string) (*http.Request, error) {
	if creds.identity != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {creds.identity}, "client_id": {"ferry"}}
		if service != "" {
			form.Set("service", service)
		}
		if len(scopes) > 0 {
			form.Set("scope", strings.Join(scopes, " "))
		}
		ctx = transport.Repeatable(ctx)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	q := realm.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range scopes {
		q.Add("scope", s)
	}
	u := *realm
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && (creds.user != "" || creds.password != "") {
		req.Header.Set("Authorization", creds.basic())
	}
	return req, err
}

// parseToken parses the answer of a token service.
func parseToken(body []byte) (string, time.Duration, error) {
	var doc struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"` // seconds
	}
	if len(body) > maxToken {
		return "", 0, fmt.Errorf("answer of more than %d bytes", maxToken)
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", 0, errors.New("answer is not a token document")
	}
	token := doc.Token
	if token == "" {
		token = doc.AccessToken
	}
	if token == "" {
		return "", 0, errors.New("answer holds no token")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", 0, errors.New("token has characters that no header can hold")
	}
	life := defaultLife
	if doc.ExpiresIn > 0 {
		life = min(time.Duration(min(doc.ExpiresIn, maxLife.Seconds())*float64(time.Second)), maxLife)
	}
	return token, life, nil
}

// realm returns the address of the token service of h if it may be sent a
// login (T66). Errors: [ErrRealm].
func (c *Client) realm(h *hostState, realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%s names a malformed token service %s", h.name, clean(realm))
	}
	h.secure(u)
	u.Fragment = ""
	host, name := strings.ToLower(u.Host), strings.ToLower(u.Hostname())
	own := strings.EqualFold(name, h.base.Hostname()) || h.name == dockerHub && host == dockerHubAuth
	listed := slices.Contains(c.authHosts, host) || slices.Contains(c.authHosts, name)
	if !own && !listed {
		return nil, fmt.Errorf("%w: %s names %s", ErrRealm, h.name, clean(host))
	}
	plainAllowed := own && h.base.Scheme == "http" || slices.Contains(c.plain, host) || IsLoopback(host)
	if u.Scheme == "http" && !plainAllowed {
		return nil, fmt.Errorf("%w over TLS: %s names %s", ErrRealm, h.name, clean("http://"+host))
	}
	return u, nil
}

// challenge is how a registry wants to be logged in to.
type challenge struct {
	scheme string            // "bearer" or "basic"; empty: not at all
	params map[string]string // by lower-case name
}

// pickChallenge returns the challenge among the headers of a response that
// is to be met: bearer rather than basic.
func pickChallenge(header http.Header) *challenge {
	var best challenge
	for _, c := range parseChallenges(header.Values("Www-Authenticate")) {
		if c.scheme == "bearer" && c.params["realm"] != "" {
			return &c
		}
		if c.scheme == "basic" {
			best = c
		}
	}
	return &best
}

// parseChallenges parses WWW-Authenticate headers as RFC 9110, section
// 11.6.1, writes them, and ignores what it does not understand.
func parseChallenges(values []string) []challenge {
	var all []challenge
	for _, s := range values {
		for {
			s = strings.TrimLeft(s, ", \t")
			word, rest := cutToken(s)
			if word == "" {
				break
			}
			value, after, isParam := cutValue(rest)
			switch {
			case !isParam:
				all = append(all, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
				s = rest
			case len(all) > 0:
				all[len(all)-1].params[strings.ToLower(word)] = value
				s = after
			default:
				s = after
			}
		}
	}
	return all
}

// cutToken returns the token that s begins with, and the rest.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}

// cutValue returns what follows "=" at the beginning of s, a token or a
// quoted string, and the rest.
func cutValue(s string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
	if !ok {
		return "", s, false
	}
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ", \t")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			if i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "", true
}
