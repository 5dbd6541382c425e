package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/transport"
	"ferry/verify"
)

// T55: a request may last longer than the token it began with; the next one
// has another.
func TestTokenEndsInStream(t *testing.T) {
	_, s, c, _ := harbor(t, harbortest.Options{TokenLife: time.Second})
	b, d := content(2 << 20)
	open := func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[off:1<<20]), pause(1500*time.Millisecond), bytes.NewReader(b[1<<20:]))), nil
	}
	if _, err := c.PushBlob(t.Context(), Repository{s.Host, "team/slow"}, d, open, nil); err != nil {
		t.Error(err)
	}
	var sent int64
	for _, q := range s.Requests() {
		if sent += q.BytesIn; q.Status == 401 && q.Path != "/v2/" {
			t.Errorf("%s: a token was used for too long", q)
		}
	}
	if n := s.Count("PATCH", ""); n != 1 || sent != d.Size {
		t.Errorf("%d bytes in %d requests", sent, n)
	}
}

// pause is a reader of nothing that takes its time.
type pause time.Duration

func (p pause) Read([]byte) (int, error) { time.Sleep(time.Duration(p)); return 0, io.EOF }

// T55, I4: a token that becomes void at one request of a push costs one token
// more, and no byte that was taken is sent again.
func TestRefusedInPush(t *testing.T) {
	isMount := func(r *http.Request) bool { return r.Method == "POST" && r.URL.Query().Has("mount") }
	begins := func(r *http.Request) bool { return registrytest.Uploads("POST")(r) && !isMount(r) }
	patch, put := registrytest.Uploads("PATCH"), registrytest.Uploads("PUT")
	const size = 1 << 20
	tests := []struct {
		name  string
		match registrytest.Match
		nth   int32 // of the requests that match
		reads int64 // bytes of it before it is refused
		chunk int64
		posts int
	}{
		{"HEAD", registrytest.Blobs("HEAD"), 2, 0, 0, 1}, // the second, as no token is held before the first
		{"POST", begins, 1, 0, 0, 2},
		{"PATCH", patch, 1, 0, 0, 2},
		{"PATCH in the middle", patch, 1, size / 2, 0, 2},
		{"second PATCH", patch, 2, 0, 300_000, 1},
		{"second PATCH in the middle", patch, 2, 100_000, 300_000, 1},
		{"last PATCH", patch, 4, 0, 300_000, 1},
		{"PUT", put, 1, 0, 0, 1},
		{"mount", isMount, 2, 0, 0, 0},
		{"manifest PUT", registrytest.Manifests("PUT"), 1, 0, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tokens := &registrytest.Tokens{Users: map[string]string{"robot$ci": "p$ss:wörd"}}
			var n atomic.Int32
			void := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if tt.match(r) && r.Header.Get("Authorization") != "" && n.Add(1) == tt.nth {
						io.CopyN(io.Discard, r.Body, tt.reads)
						tokens.Revoke()
					}
					next.ServeHTTP(w, r)
				})
			}
			s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{void, tokens.Guard}})
			c := newClient(t, Options{Keychain: keys{s.Host: robot}, ChunkSize: tt.chunk})
			r, from := Repository{s.Host, "a/b"}, []Repository(nil)
			b, d := content(size)
			push := func() (PushResult, error) {
				return c.PushBlob(t.Context(), r, d, (&memSource{b: b}).Open, from)
			}
			if tt.name == "mount" { // the first mount gets the token that the second is refused with
				from = []Repository{{s.Host, "from"}}
				for _, blob := range [][]byte{b, b[:1000]} {
					if _, err := c.PushBlob(t.Context(), from[0], descriptor(blob), (&memSource{b: blob}).Open, nil); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := c.PushBlob(t.Context(), r, descriptor(b[:1000]), nil, from); err != nil || !got.Mounted {
					t.Fatalf("PushBlob = %v, %v", got, err)
				}
			}
			s.Reset()
			before := tokens.Count()
			got, err := push()
			if err == nil {
				err = c.PushManifest(t.Context(), r.Tag("1"), oci.MediaTypeIndex, []byte(emptyIndex))
			}
			if err != nil || got.Mounted != (tt.name == "mount") {
				t.Fatalf("PushBlob = %v, %v", got, err)
			}
			if n.Load() < tt.nth {
				t.Fatalf("only %d requests", n.Load())
			}
			var taken int64
			for _, q := range s.Requests() {
				if strings.Contains(q.Path, "/uploads/") && q.Status < 300 {
					taken += q.BytesIn
				}
			}
			want := d.Size
			if got.Mounted {
				want = 0
			}
			if taken != want {
				t.Errorf("%d bytes were taken of a blob of %d: %v", taken, want, s.Requests())
			}
			posts := 0
			for _, q := range s.Requests() {
				if q.Method == "POST" && !strings.Contains(q.Query, "mount") {
					posts++
				}
			}
			if posts != tt.posts {
				t.Errorf("%d uploads were begun, want %d", posts, tt.posts)
			}
			// For a client that had none: one to push, and one more.
			if n := tokens.Count() - before; n > 2 {
				t.Errorf("%d tokens were asked for", n)
			}
		})
	}
}

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// T56: a registry that refuses every PATCH, or all but the first, is not asked
// over and over.
func TestPatchRefused(t *testing.T) {
	for chunk, want := range map[int64]int{0: 2, 300_000: 3} {
		tokens := &registrytest.Tokens{Users: map[string]string{"robot$ci": "p$ss:wörd"}}
		void := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch && !strings.HasPrefix(r.Header.Get("Content-Range"), "0-") {
					tokens.Revoke()
				}
				next.ServeHTTP(w, r)
			})
		}
		s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{void, tokens.Guard}})
		c := newClient(t, Options{Keychain: keys{s.Host: robot}, ChunkSize: chunk})
		b, d := content(1 << 20)
		_, err := c.PushBlob(t.Context(), Repository{s.Host, "a/b"}, d, (&memSource{b: b}).Open, nil)
		if !errors.Is(err, ErrUnauthorized) {
			t.Errorf("error %v", err)
		}
		if n := s.Count("PATCH", ""); n != want {
			t.Errorf("chunks of %d: %d times sent, want %d", chunk, n, want)
		}
	}
}

// harborUser returns a Harbor with a user who may push to the project "team",
// a client as that user that waits as long as clients do, and a function that
// locks the user out.
func harborUser(t *testing.T, password string) (*harbortest.Server, *registrytest.Server, *Client, func()) {
	t.Helper()
	hb := harbortest.New(registrytest.Backend(t, registrytest.Options{}), harbortest.Options{})
	hb.AddProject("team", false, -1)
	hb.AddUser("dev", "p$:1")
	hb.SetRole(t, "team", "dev", harbortest.RoleDeveloper)
	s := registrytest.Serve(t, hb, registrytest.Options{TLS: true})
	c := newClient(t, Options{HTTP: newHTTP(t, transport.Options{CAFiles: []string{s.CAFile(t)}}), Keychain: Static{s.Host, "dev", password}})
	c.lockout = 2 * time.Second
	lock := func() {
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.SetBasicAuth("dev", "somebody else's mistake")
		hb.ServeHTTP(httptest.NewRecorder(), r)
	}
	return hb, s, c, lock
}

// T56: somebody else's wrong password locks a user out at any one request for
// a token; the push goes on.
func TestHarborLockout(t *testing.T) {
	for nth := int32(1); nth <= 3; nth++ {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			t.Parallel()
			hb, s, c, lock := harborUser(t, "p$:1")
			var n atomic.Int32
			hb.Misbehave(harbortest.Before(http.MethodGet, "/service/token", func(*url.URL) {
				if n.Add(1) == nth {
					lock()
				}
			}))
			if err := c.Ping(t.Context(), s.Host); err != nil {
				t.Error(err)
			}
			b, d := content(1 << 20)
			r := Repository{s.Host, "team/app"}
			if _, err := c.PushBlob(t.Context(), r, d, (&memSource{b: b}).Open, nil); err != nil {
				t.Error(err)
			}
			if _, err := readBlob(t, c, r, d); err != nil {
				t.Error(err)
			}
			if n.Load() != 4 { // to ping, to push, to pull, and again
				t.Errorf("%d tokens were asked for, want 4", n.Load())
			}
		})
	}
	t.Run("in a PATCH", func(t *testing.T) {
		t.Parallel()
		hb, s, c, lock := harborUser(t, "p$:1")
		var once atomic.Bool
		hb.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPatch && !once.Swap(true) { // void, and then locked out
				lock()
				r.Header.Set("Authorization", "Bearer void")
			}
			next.ServeHTTP(w, r)
		})
		b, d := content(1 << 20)
		if _, err := c.PushBlob(t.Context(), Repository{s.Host, "team/app"}, d, (&memSource{b: b}).Open, nil); err != nil {
			t.Error(err)
		}
		if n := s.Count("", "/service/token"); n != 3 {
			t.Errorf("%d tokens were asked for, want 3", n)
		}
	})
}

// T56: a wrong password is one error after two tries.
func TestHarborWrongPassword(t *testing.T) {
	b, d := content(1 << 20)
	for name, call := range map[string]func(*Client, Repository) error{
		"ping":   func(c *Client, r Repository) error { return c.Ping(t.Context(), r.Host) },
		"rights": func(c *Client, r Repository) error { _, err := c.Rights(t.Context(), r); return err },
		"push": func(c *Client, r Repository) error {
			_, err := c.PushBlob(t.Context(), r, d, (&memSource{b: b}).Open, nil)
			return err
		},
		"pull": func(c *Client, r Repository) error { _, _, err := c.Get(t.Context(), r.Tag("1")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			_, s, c, _ := harborUser(t, "wrong")
			c.lockout = time.Millisecond
			err := call(c, Repository{s.Host, "team/app"})
			var e *Error
			if !errors.Is(err, ErrUnauthorized) || !errors.As(err, &e) || e.User != "dev" || strings.Count(strings.ReplaceAll(err.Error(), s.Host, ""), "401") != 1 {
				t.Errorf("error %v", err)
			}
			if n := s.Count("", "/service/token"); n != 2 {
				t.Errorf("%d tokens were asked for, want 2", n)
			}
		})
	}
}

// A lock in the middle of the work of a password that goes with each request.
func TestBasicLockout(t *testing.T) {
	var until atomic.Int64
	var refused atomic.Int32
	lock := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if time.Now().UnixNano() < until.Load() && r.Header.Get("Authorization") != "" {
				refused.Add(1)
				r.Header.Del("Authorization")
			}
			next.ServeHTTP(w, r)
		})
	}
	users := map[string]string{"robot$ci": "p$ss:wörd"}
	s := memory(t, lock, registrytest.Basic(users))
	c := newClient(t, Options{Keychain: keys{s.Host: robot}})
	c.lockout = 300 * time.Millisecond
	r := Repository{s.Host, "a/b"}
	if err := trip(t.Context(), c, r); err != nil {
		t.Fatal(err)
	}
	time.Sleep(c.lockout) // the login is not new any more
	until.Store(time.Now().Add(150 * time.Millisecond).UnixNano())
	if err := trip(t.Context(), c, r); err != nil || refused.Load() != 1 {
		t.Errorf("%v after %d refusals, want 1", err, refused.Load())
	}
	refused.Store(0)
	until.Store(time.Now().Add(time.Hour).UnixNano())
	if err := c.Ping(t.Context(), s.Host); !errors.Is(err, ErrUnauthorized) || refused.Load() != 2 {
		t.Errorf("%v after %d refusals, want 2", err, refused.Load())
	}
}

// What Harbor says of a project is told apart from what it says of rights.
func TestHarborProjects(t *testing.T) {
	hb, s, pusher, puller := harbor(t, harbortest.Options{})
	hb.AddProxyCache("cache")
	hb.AddRobot("robot$all", "p", "*", "repository:pull", "repository:push")
	c := newClient(t, Options{HTTP: newHTTP(t, insecure(s.Host)), Keychain: Static{s.Host, "robot$all", "p"}})
	b, d := content(1 << 20)
	push := func(c *Client, path string) error {
		_, err := c.PushBlob(t.Context(), Repository{s.Host, path}, d, (&memSource{b: b}).Open, nil)
		return err
	}
	put := func(c *Client, path string) error {
		return c.PushManifest(t.Context(), Repository{s.Host, path}.Tag("1"), oci.MediaTypeIndex, []byte(emptyIndex))
	}
	tests := []struct {
		name             string
		err              error
		noProject, proxy bool
	}{
		{"push a blob to no project", push(c, "nosuch/app"), true, false}, // the answer to HEAD
		{"push a manifest to no project", put(c, "nosuch/app"), true, false},
		{"push to no project as another", push(pusher, "nosuch/app"), true, false},
		{"tags of no project", func() error { _, err := c.Tags(t.Context(), Repository{s.Host, "nosuch/app"}); return err }(), true, false},
		{"push a blob to a proxy cache", push(c, "cache/app"), false, true},
		{"push a manifest to a proxy cache", put(c, "cache/app"), false, true},
		{"push without the right", push(puller, "team/app"), false, false},
		{"push a manifest without the right", put(puller, "team/app"), false, false},
		{"another project", push(pusher, "cache/app"), false, false},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, ErrUnauthorized) || errors.Is(tt.err, ErrNoProject) != tt.noProject || errors.Is(tt.err, ErrProxyCache) != tt.proxy {
			t.Errorf("%s: %v, want no project %v, proxy cache %v", tt.name, tt.err, tt.noProject, tt.proxy)
		}
	}
	s.Reset()
	push(c, "nosuch/again")
	if n := s.Count("", "nosuch"); n != 1 {
		t.Errorf("a missing project was asked for %d times", n)
	}
}

func TestHarborRights(t *testing.T) {
	hb, s, _, _ := harbor(t, harbortest.Options{})
	hb.AddProject("open", true, -1)
	hb.AddProject("other", false, -1)
	h := newHTTP(t, insecure(s.Host))
	both, pull, none := Rights{true, true, true}, Rights{true, false, true}, Rights{false, false, true}
	tests := []struct {
		name, user, password, path string
		want                       Rights
		err                        error
	}{
		{"push robot", "robot$team+ci", "p$:1", "team/app", both, nil},
		{"pull robot", "robot$team+ro", "p$:2", "team/app", pull, nil},
		{"push robot, public project", "robot$team+ci", "p$:1", "open/app", pull, nil},
		{"push robot, other project", "robot$team+ci", "p$:1", "other/app", none, nil},
		{"push robot, missing project", "robot$team+ci", "p$:1", "nosuch/app", none, nil},
		{"wrong password", "robot$team+ci", "x", "team/app", Rights{}, ErrUnauthorized},
		{"wrong password, public project", "robot$team+ci", "x", "open/app", Rights{}, ErrUnauthorized},
		{"nobody", "", "", "team/app", none, nil},
		{"nobody, public project", "", "", "open/app", pull, nil},
		{"bad name", "robot$team+ci", "p$:1", "Team/App", Rights{}, ErrName},
	}
	for _, tt := range tests {
		s.Reset()
		c := newClient(t, Options{HTTP: h, Keychain: Static{s.Host, tt.user, tt.password}})
		got, err := c.Rights(t.Context(), Repository{s.Host, tt.path})
		if got != tt.want || !is(err, tt.err) {
			t.Errorf("%s: Rights = %+v, %v, want %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
		if w := s.Count("", "/uploads/") + s.Count("", "/manifests/"); w != 0 {
			t.Errorf("%s: %d requests about content", tt.name, w)
		}
	}
}

// The token that tells the rights is the one that is used, and a user who is
// locked out in the middle has his rights.
func TestHarborRightsLockout(t *testing.T) {
	_, s, c, lock := harborUser(t, "p$:1")
	lock()
	if got, err := c.Rights(t.Context(), Repository{s.Host, "team/app"}); err != nil || got != (Rights{true, true, true}) {
		t.Errorf("Rights = %+v, %v", got, err)
	}
	s.Reset()
	b, d := content(1000)
	if _, err := c.PushBlob(t.Context(), Repository{s.Host, "team/app"}, d, (&memSource{b: b}).Open, nil); err != nil {
		t.Error(err)
	}
	if n := s.Count("", "/service/token"); n != 0 {
		t.Errorf("%d tokens more", n)
	}
}

// Registries that do not say what a login may do.
func TestRightsUnknown(t *testing.T) {
	users := map[string]string{"robot$ci": "p$ss:wörd"}
	opaque := &registrytest.Tokens{Users: users, Strict: true}
	for name, tt := range map[string]struct {
		server   *registrytest.Server
		password string
		err      error
	}{
		"open":                  {memory(t), "p$ss:wörd", nil},
		"basic":                 {memory(t, registrytest.Basic(users)), "p$ss:wörd", nil},
		"basic, wrong password": {memory(t, registrytest.Basic(users)), "x", ErrUnauthorized},
		"opaque tokens":         {memory(t, opaque.Guard), "p$ss:wörd", nil},
		"opaque, wrong":         {memory(t, opaque.Guard), "x", ErrUnauthorized},
	} {
		c := newClient(t, Options{Keychain: keys{tt.server.Host: user("robot$ci", tt.password)}})
		if got, err := c.Rights(t.Context(), Repository{tt.server.Host, "a/b"}); got != (Rights{}) || !is(err, tt.err) {
			t.Errorf("%s: Rights = %+v, %v, want %v", name, got, err, tt.err)
		}
	}
}

func TestReadClaims(t *testing.T) {
	enc := base64.RawURLEncoding.EncodeToString
	for payload, known := range map[string]bool{
		`{"sub":"x","access":[]}`: true, `{"access":[{"type":"repository","name":"a/b","actions":["pull"]}]}`: true,
		`{"sub":"x","access":null}`: false, `{"sub":"x"}`: false, `{"sub":1,"access":[]}`: true, `{"access":{}}`: false, `x`: false, ``: false,
	} {
		if _, got := readClaims("Bearer h." + enc([]byte(payload)) + ".s"); got != known {
			t.Errorf("readClaims(%s) known %v, want %v", payload, got, known)
		}
	}
	for _, header := range []string{"", "Bearer ", "Bearer a.b", "Bearer a.%%%.c", "Bearer a.b.c.d", "Basic eDp5"} {
		if _, known := readClaims(header); known {
			t.Errorf("readClaims(%q) is known", header)
		}
	}
	padded := base64.URLEncoding.EncodeToString([]byte(`{"access":[{"type":"repository","name":"a/b","actions":["*"]},{"type":"registry","name":"c","actions":["*"]}]}`))
	c, known := readClaims("Bearer h." + padded + ".s")
	if !known || !c.allow("a/b", "push") || c.allow("a", "push") || c.allow("c", "pull") {
		t.Errorf("claims %+v, %v", c, known)
	}
}

func descriptor(b []byte) oci.Descriptor {
	return oci.Descriptor{Digest: verify.DigestOf(b), Size: int64(len(b))}
}

// T69: what is wrong with certificates is not a registry that may come back,
// and can be told.
func TestCertificateErrors(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{TLS: true})
	err := newClient(t, Options{}).Ping(t.Context(), s.Host)
	var unknown *transport.UnknownAuthorityError
	if !errors.As(err, &unknown) || unknown.Host != s.Host || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), unknown.Fingerprint) {
		t.Errorf("error %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "127.0.0.1"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "127.0.0.1", "ca.crt"), "nothing", 0o600)
	err = newClient(t, Options{HTTP: newHTTP(t, transport.Options{CertDirs: []string{dir}})}).Ping(t.Context(), s.Host)
	var file *transport.CertFileError
	if !errors.As(err, &file) || errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
