package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/transport"
	"ferry/verify"
)

func guarded(t testing.TB, tokens *registrytest.Tokens, f ...registrytest.Fault) *registrytest.Server {
	t.Helper()
	if tokens.Users == nil {
		tokens.Users = map[string]string{"robot$ci": "p$ss:wörd"}
	}
	return memory(t, append([]registrytest.Fault{tokens.Guard}, f...)...)
}

// robot is the login that [guarded] knows. T70
var robot = user("robot$ci", "p$ss:wörd")

// trip pushes and pulls a blob and a manifest.
func trip(ctx context.Context, c *Client, r Repository) error {
	b, d := content(1 << 20)
	if _, err := c.PushBlob(ctx, r, d, (&memSource{b: b}).Open, nil); err != nil {
		return err
	}
	m := []byte(`{"schemaVersion":2}`)
	if err := c.PushManifest(ctx, r.Tag("1"), oci.MediaTypeManifest, m); err != nil {
		return err
	}
	if _, _, err := c.Get(ctx, r.Tag("1")); err != nil {
		return err
	}
	body, err := c.Blob(ctx, r, d)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// A user gets in by each way to log in, and nobody else does.
func TestLogins(t *testing.T) {
	basic := func(*registrytest.Tokens) registrytest.Fault {
		return registrytest.Basic(map[string]string{"robot$ci": "p$ss:wörd"})
	}
	bearer := func(tokens *registrytest.Tokens) registrytest.Fault { return tokens.Guard }
	tests := []struct {
		name   string
		guard  func(*registrytest.Tokens) registrytest.Fault
		strict bool
		login  authn.AuthConfig
		ok     bool
	}{
		{"basic", basic, false, robot, true},
		{"basic, wrong password", basic, false, user("robot$ci", "x"), false},
		{"basic, nobody", basic, false, authn.AuthConfig{}, false},
		{"basic, undecoded", basic, false, authn.AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte("robot$ci:p$ss:wörd"))}, true},
		{"basic, undecodable", basic, false, authn.AuthConfig{Auth: "%%%"}, false},
		{"token", bearer, false, robot, true},
		{"token, wrong password as nobody", bearer, false, user("robot$ci", "x"), false},
		{"token, wrong password refused", bearer, true, user("robot$ci", "x"), false},
		{"token, nobody", bearer, false, authn.AuthConfig{}, false},
		{"identity token", bearer, false, authn.AuthConfig{IdentityToken: "refresh-me"}, true},
		{"identity token, wrong", bearer, true, authn.AuthConfig{IdentityToken: "x"}, false},
		{"registry token", bearer, false, authn.AuthConfig{RegistryToken: "issued"}, true},
		{"registry token, wrong", bearer, false, authn.AuthConfig{RegistryToken: "x"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tokens := &registrytest.Tokens{
				Users: map[string]string{"robot$ci": "p$ss:wörd"}, Identity: map[string]string{"refresh-me": "robot$ci"}, Strict: tt.strict,
			}
			tokens.Issue("issued", "a/b")
			s := memory(t, tt.guard(tokens))
			c := newClient(t, Options{Keychain: keys{s.Host: tt.login}})
			err := trip(t.Context(), c, Repository{s.Host, "a/b"})
			if (err == nil) != tt.ok {
				t.Fatalf("a trip: %v, want ok %v", err, tt.ok)
			}
			if tt.ok {
				return
			}
			if !errors.Is(err, ErrUnauthorized) && tt.name != "basic, undecodable" {
				t.Errorf("%v is not ErrUnauthorized", err)
			}
			if tt.login.Username != "" && !strings.Contains(err.Error(), `"robot$ci"`) {
				t.Errorf("%v does not say as whom", err)
			}
			if strings.Contains(err.Error(), "refresh-me") || strings.Contains(err.Error(), "p$ss") {
				t.Errorf("%v holds a secret", err) // T54
			}
			if n := tokens.Count(); n > 3 { // T56
				t.Errorf("%d tokens were asked for", n)
			}
		})
	}
}

// Ping says whether a login is accepted, also where a token service gives
// nobody's token for a wrong password.
func TestPingLogin(t *testing.T) {
	for _, strict := range []bool{true, false} {
		for password, want := range map[string]error{robot.Password: nil, "wrong": ErrUnauthorized} {
			s := guarded(t, &registrytest.Tokens{Strict: strict})
			c := newClient(t, Options{Keychain: keys{s.Host: user("robot$ci", password)}})
			if err := c.Ping(t.Context(), s.Host); !errors.Is(err, want) {
				t.Errorf("strict %v, password %q: %v, want %v", strict, password, err, want)
			}
		}
		s := guarded(t, &registrytest.Tokens{Strict: strict})
		if err := newClient(t, Options{}).Ping(t.Context(), s.Host); err != nil {
			t.Errorf("without a login: %v", err)
		}
	}
}

// One token serves all requests of a kind to a repository, however many there
// are at once.
func TestTokensAreShared(t *testing.T) {
	tokens := &registrytest.Tokens{}
	s := guarded(t, tokens)
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	r := Repository{s.Host, "a/b"}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := c.HasBlob(t.Context(), r, verify.DigestOf(nil)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := tokens.Count(); n != 1 {
		t.Errorf("%d tokens for one repository, want 1", n)
	}
	if err := trip(t.Context(), c, r); err != nil {
		t.Fatal(err)
	}
	if n := tokens.Count(); n != 2 {
		t.Errorf("%d tokens to pull and to push, want 2", n)
	}
	if n := s.Count("GET", "/v2/") - s.Count("GET", "/v2/a"); n != 1 {
		t.Errorf("the registry was pinged %d times", n)
	}
	service, registry := tokens.Seen()
	for _, a := range registry {
		if !strings.HasPrefix(a, "Bearer ") {
			t.Errorf("the registry was sent %q", a)
		}
	}
	if len(service) != 1 || !strings.HasPrefix(service[0], "Basic ") {
		t.Errorf("the token service was sent %q", service)
	}
}

// T55: a token is renewed at half its life, and once when it is refused.
func TestTokenRenewal(t *testing.T) {
	tokens := &registrytest.Tokens{Life: time.Second}
	s := guarded(t, tokens)
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	r := Repository{s.Host, "a/b"}
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, _, err := c.HasBlob(t.Context(), r, verify.DigestOf(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range s.Requests() {
		if q.Status == 401 && q.Path != "/v2/" {
			t.Errorf("%s: a token was used for too long", q)
		}
	}
	if n := tokens.Count(); n < 3 || n > 4 {
		t.Errorf("%d tokens in one and a half seconds, want one each half second", n)
	}
}

// T55: a token is used to its end when there is no other to be had.
func TestTokenServiceGone(t *testing.T) {
	tokens := &registrytest.Tokens{Life: 2 * time.Second}
	var gone atomic.Bool
	tokens.Users = map[string]string{"robot$ci": "p$ss:wörd"}
	s := registrytest.Serve(t, registrytest.Answer(-1, func(r *http.Request) bool { return gone.Load() && r.URL.Path == "/service/token" }, 404, nil, "")(
		tokens.Guard(registrytest.MemoryHandler(true))), registrytest.Options{})
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	has := func() error {
		_, _, err := c.HasBlob(t.Context(), Repository{s.Host, "a/b"}, verify.DigestOf(nil))
		return err
	}
	if err := has(); err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	time.Sleep(1200 * time.Millisecond)
	if err := has(); err != nil {
		t.Errorf("after half of the token's life: %v", err)
	}
	time.Sleep(time.Second)
	if err := has(); err == nil {
		t.Error("a token was used after its end")
	}
}

// T55: a token that becomes void before any one request of a trip.
func TestTokenExpiresAnywhere(t *testing.T) {
	for _, chunk := range []int64{0, 300_000} {
		for k := 1; ; k++ {
			tokens := &registrytest.Tokens{}
			var n atomic.Int32
			void := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") != "" && r.URL.Path != "/service/token" && int(n.Add(1)) == k {
						tokens.Revoke()
					}
					next.ServeHTTP(w, r)
				})
			}
			tokens.Users = map[string]string{"robot$ci": "p$ss:wörd"}
			s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{void, tokens.Guard}})
			c := newClient(t, Options{Keychain: keys{s.Host: robot}, ChunkSize: chunk})
			b, d := content(1 << 20)
			r := Repository{s.Host, "a/b"}
			if _, err := c.PushBlob(t.Context(), r, d, (&memSource{b: b}).Open, nil); err != nil {
				t.Errorf("void at request %d, chunks of %d: %v", k, chunk, err)
			}
			if got, err := readBlob(t, c, r, d); err != nil || len(got) != len(b) {
				t.Errorf("void at request %d: %d bytes, %v", k, len(got), err)
			}
			if tokens.Count() > 4 {
				t.Errorf("void at request %d: %d tokens", k, tokens.Count())
			}
			if int(n.Load()) < k {
				if k < 6 {
					t.Errorf("only %d requests", k)
				}
				break
			}
		}
	}
}

// T56: a right that is missing is not asked for over and over.
func TestMissingRight(t *testing.T) {
	tokens := &registrytest.Tokens{Allow: func(user, _, action string) bool { return action == "pull" }}
	s := guarded(t, tokens)
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	b, d := content(1 << 20)
	_, err := c.PushBlob(t.Context(), Repository{s.Host, "a/b"}, d, (&memSource{b: b}).Open, nil)
	if !errors.Is(err, ErrUnauthorized) {
		t.Errorf("error %v", err)
	}
	if n := tokens.Count(); n > 3 {
		t.Errorf("%d tokens were asked for", n)
	}
	if n := s.Count("PATCH", ""); n != 0 {
		t.Errorf("%d requests moved bytes", n)
	}
}

// A failed login locks a user out of Harbor for a moment: the right password
// is tried again after it.
func TestLockout(t *testing.T) {
	var locked atomic.Bool
	tokens := &registrytest.Tokens{Allow: func(user, _, _ string) bool { return user != "" && !locked.Load() }}
	s := guarded(t, tokens)
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	c.lockout = 300 * time.Millisecond
	locked.Store(true)
	time.AfterFunc(150*time.Millisecond, func() { locked.Store(false) })
	if err := trip(t.Context(), c, Repository{s.Host, "a/b"}); err != nil {
		t.Error(err)
	}
	if n := tokens.Count(); n > 3 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// A registry may want a login for a repository only.
func TestLateChallenge(t *testing.T) {
	tokens := &registrytest.Tokens{}
	open := registrytest.Answer(-1, func(r *http.Request) bool { return r.URL.Path == "/v2/" }, 200, nil, "{}")
	tokens.Users = map[string]string{"robot$ci": "p$ss:wörd"}
	s := memory(t, open, tokens.Guard)
	if err := trip(t.Context(), newClient(t, Options{Keychain: keys{s.Host: robot}}), Repository{s.Host, "a/b"}); err != nil {
		t.Error(err)
	}
}

// A mount needs the right to pull from where the blob is.
func TestMountScopes(t *testing.T) {
	tokens := &registrytest.Tokens{Users: map[string]string{"robot$ci": "p$ss:wörd"}}
	s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{tokens.Guard}})
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	b, d := content(1 << 20)
	from, to := Repository{s.Host, "from"}, Repository{s.Host, "to"}
	if _, err := c.PushBlob(t.Context(), from, d, (&memSource{b: b}).Open, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := c.PushBlob(t.Context(), to, d, nil, []Repository{from}); err != nil || !got.Mounted {
		t.Errorf("PushBlob = %v, %v", got, err)
	}
}

// T66: a login goes to the registry's own token service, or to a listed one.
func TestRealm(t *testing.T) {
	type secret struct{ what string }
	var mu sync.Mutex
	var stolen []secret
	elsewhere := &registrytest.Tokens{Users: map[string]string{"robot$ci": "p$ss:wörd"}}
	other := registrytest.Serve(t, elsewhere, registrytest.Options{})
	evil := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		stolen = append(stolen, secret{fmt.Sprint(r.Method, r.URL, r.Header)})
	}), registrytest.Options{})
	_, evilPort, _ := strings.Cut(evil.Host, ":")
	byName := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)
	tests := []struct {
		name  string
		realm string
		hosts []string
		ok    bool
		want  error
	}{
		{"own", "", nil, true, nil},
		{"own host, other port", other.URL + "/token", nil, true, nil},
		{"other host", byName + "/token", nil, false, ErrRealm},
		{"other host, other listed", byName + "/token", []string{"auth.site", "localhost:1"}, false, ErrRealm},
		{"other host, listed", strings.Replace(other.URL, "127.0.0.1", "localhost", 1) + "/token", []string{"LocalHost"}, true, nil},
		{"other host, listed with its port", strings.Replace(other.URL, "127.0.0.1", "localhost", 1) + "/token",
			[]string{strings.Replace(other.Host, "127.0.0.1", "localhost", 1)}, true, nil},
		{"docker's", "https://auth.docker.io/token", nil, false, ErrRealm},
		{"a name like it", "http://127.0.0.1.evil.test:" + evilPort + "/token", nil, false, ErrRealm},
		{"own host as a user", "http://127.0.0.1@localhost:" + evilPort + "/token", nil, false, errAny},
		{"own host with a user", strings.Replace(other.URL, "http://", "http://me:pw@", 1) + "/token", nil, false, errAny},
		{"not HTTP", "file:///etc/passwd", nil, false, errAny},
		{"relative", "/token", nil, false, errAny},
		{"nonsense", "http://%zz/", nil, false, errAny},
		{"listed, but plain and not on loopback", "http://auth.site/token", []string{"auth.site"}, false, ErrRealm},
	}
	for _, tt := range tests {
		for _, login := range []authn.AuthConfig{robot, {IdentityToken: "canary"}} {
			if tt.ok && login.IdentityToken != "" {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				tokens := elsewhere
				if tt.realm == "" || !tt.ok {
					tokens = &registrytest.Tokens{Users: elsewhere.Users}
				}
				tokens.Realm = tt.realm
				s := memory(t, tokens.Guard)
				c := newClient(t, Options{Keychain: keys{s.Host: login}, AuthHosts: tt.hosts, HTTP: newHTTP(t, transport.Options{Retries: -1})})
				err := trip(t.Context(), c, Repository{s.Host, "a/b"})
				if !is(err, tt.want) {
					t.Errorf("a trip: %v, want %v", err, tt.want)
				}
				if tt.want == errAny && !strings.Contains(err.Error(), "malformed token service") {
					t.Errorf("%v is not about the address", err)
				}
				if tt.want == ErrRealm && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnauthorized)) {
					t.Errorf("%v is also something else", err)
				}
			})
		}
	}
	if len(stolen) != 0 {
		t.Errorf("another host was asked: %v", stolen)
	}
}

// T66: an https registry sends no login to an http realm; its own host it
// asks by https.
func TestRealmScheme(t *testing.T) {
	tokens := &registrytest.Tokens{Users: map[string]string{"robot$ci": "p$ss:wörd"}}
	s := registrytest.Memory(t, registrytest.Options{TLS: true, Faults: []registrytest.Fault{
		registrytest.Header(registrytest.All, func(_ *http.Request, _ int, h http.Header) {
			if a := h.Get("Www-Authenticate"); a != "" {
				h.Set("Www-Authenticate", strings.Replace(a, "https://", "http://", 1))
			}
		}), tokens.Guard}})
	h := newHTTP(t, transport.Options{CAFiles: []string{s.CAFile(t)}, Retries: -1})
	c := newClient(t, Options{Keychain: keys{s.Host: robot}, HTTP: h})
	if err := trip(t.Context(), c, Repository{s.Host, "a/b"}); err != nil {
		t.Errorf("an http realm on the registry's own host: %v", err)
	}
	_, port, _ := strings.Cut(s.Host, ":")
	name := "registry.test:" + port
	h = newHTTP(t, transport.Options{Insecure: []string{"127.0.0.1"}, Retries: -1})
	h.Transport = redial{h.Transport, name, s.Host}
	for _, realm := range []string{"http://auth.site/token", "http://registry.test:8080/token"} {
		tokens.Realm = realm
		c := newClient(t, Options{Keychain: keys{name: robot}, HTTP: h, AuthHosts: []string{"auth.site"}})
		if err := trip(t.Context(), c, Repository{name, "a/b"}); !errors.Is(err, ErrRealm) {
			t.Errorf("realm %s: %v, want ErrRealm", realm, err)
		}
	}
}

// docker.io has its own names on the wire, for its tokens and for its login.
func TestDockerHub(t *testing.T) {
	tokens := &registrytest.Tokens{Users: map[string]string{"me": "secret"}, Realm: "https://auth.docker.io/token"}
	s := registrytest.Memory(t, registrytest.Options{TLS: true, Faults: []registrytest.Fault{tokens.Guard}})
	auth := registrytest.Serve(t, tokens, registrytest.Options{TLS: true})
	h := newHTTP(t, transport.Options{Insecure: []string{"127.0.0.1"}, Retries: -1})
	h.Transport = redial{redial{h.Transport, "registry-1.docker.io", s.Host}, "auth.docker.io", auth.Host}
	c := newClient(t, Options{HTTP: h, Keychain: keys{"index.docker.io": user("me", "secret")}})
	ref, err := ParseReference("alpine")
	if err != nil {
		t.Fatal(err)
	}
	if err := trip(t.Context(), c, ref.Repo()); err != nil {
		t.Fatal(err)
	}
	if n := s.Count("PUT", "/v2/library/alpine/manifests/1"); n != 1 {
		t.Errorf("%d manifests in library/alpine", n)
	}
}

// What a token service may answer.
func TestTokenAnswers(t *testing.T) {
	big := `{"token":"` + strings.Repeat("x", maxToken) + `"}`
	tests := []struct {
		name   string
		status int
		body   string
		want   error
	}{
		{"error", 401, registrytest.Errors("UNAUTHORIZED", "no"), ErrUnauthorized},
		{"forbidden", 403, "no", ErrUnauthorized},
		{"missing", 404, "", errAny},
		{"not allowed", 405, "", errAny},
		{"broken", 503, "", ErrUnavailable},
		{"no JSON", 200, "<html>", errAny},
		{"no token", 200, "{}", errAny},
		{"line break", 200, `{"token":"a\r\nX-Evil: 1"}`, errAny},
		{"too long", 200, big, errAny},
		{"redirect", 302, "", errAny},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := memory(t, registrytest.Answer(-1, registrytest.Path("/service/token"), tt.status, nil, tt.body), (&registrytest.Tokens{}).Guard)
			c := newClient(t, Options{Keychain: keys{s.Host: robot}, HTTP: newHTTP(t, transport.Options{Retries: 1})})
			_, err := c.Head(t.Context(), Repository{s.Host, "a"}.Tag("1"))
			if !is(err, tt.want) || errors.Is(err, ErrNotFound) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	t.Run("life", func(t *testing.T) {
		for body, want := range map[string]time.Duration{
			`{"token":"t"}`:                     time.Minute,
			`{"access_token":"t"}`:              time.Minute,
			`{"token":"t","expires_in":1800}`:   30 * time.Minute,
			`{"token":"t","expires_in":0.5}`:    500 * time.Millisecond,
			`{"token":"t","expires_in":-5}`:     time.Minute,
			`{"token":"t","expires_in":1e300}`:  maxLife,
			`{"token":"t","expires_in":999999}`: maxLife,
		} {
			if token, life, err := parseToken([]byte(body)); token != "t" || life != want || err != nil {
				t.Errorf("parseToken(%s) = %q, %s, %v, want %s", body, token, life, err, want)
			}
		}
	})
}

func TestParseChallenges(t *testing.T) {
	p := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	tests := []struct {
		in   []string
		want []challenge
	}{
		{[]string{`Bearer realm="https://h/t",service="s",scope="repository:a/b:pull,push"`},
			[]challenge{{"bearer", p("realm", "https://h/t", "service", "s", "scope", "repository:a/b:pull,push")}}},
		{[]string{`Basic realm="harbor"`}, []challenge{{"basic", p("realm", "harbor")}}},
		{[]string{`Basic`}, []challenge{{"basic", p()}}},
		{[]string{`BEARER Realm = "x" , Service=y`}, []challenge{{"bearer", p("realm", "x", "service", "y")}}},
		{[]string{`Basic realm="a", Bearer realm="b",service="c"`, `Negotiate`},
			[]challenge{{"basic", p("realm", "a")}, {"bearer", p("realm", "b", "service", "c")}, {"negotiate", p()}}},
		{[]string{`Bearer realm="a\"b\\c"`}, []challenge{{"bearer", p("realm", `a"b\c`)}}},
		{[]string{`Bearer realm="unended`}, []challenge{{"bearer", p("realm", "unended")}}},
		{[]string{`Bearer realm="x\`}, []challenge{{"bearer", p("realm", "x")}}},
		{[]string{``}, nil},
		{[]string{`,,, ,`}, nil},
		{[]string{`realm="x"`}, nil},
		{[]string{"\"\x00;;"}, nil},
	}
	for _, tt := range tests {
		if got := parseChallenges(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("parseChallenges(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
}
