package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/internal/harbortest"
	"ferry/internal/registrytest"
)

// The secrets of these tests.
const (
	canaryUser     = "robot$ci"
	canaryPassword = "Canary-password-6b1e"
	canaryIdentity = "Canary-identity-93f0"
	canaryAWS      = "Canary-aws-secret-0d7c"
	canarySession  = "Canary-aws-session-55aa"
)

// thief is a server on another address that takes whatever it is sent, and asks
// for more.
type thief struct {
	URL, Host string
	mu        sync.Mutex
	taken     []string // requests, whole
}

func newThief(t *testing.T) *thief {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &thief{Host: listener.Addr().String(), URL: "http://" + listener.Addr().String()}
	web := httptest.NewUnstartedServer(h)
	web.Listener.Close()
	web.Listener = listener
	web.Start()
	t.Cleanup(web.Close)
	return h
}

// ServeHTTP asks for a login in every way there is.
func (h *thief) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dump, _ := httputil.DumpRequest(r, true)
	h.mu.Lock()
	h.taken = append(h.taken, string(dump))
	h.mu.Unlock()
	w.Header().Add("Www-Authenticate", `Basic realm="more"`)
	w.Header().Add("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, h.URL))
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, `{"token":"x","errors":[{"code":"UNAUTHORIZED","message":"log in here"}]}`)
}

// canary is a case: a registry that misbehaves, and what is asked of it.
type canary struct {
	name     string
	identity bool // the login is an identity token
	basic    bool // the registry wants basic authentication, no token
	faults   func(h *thief) []registrytest.Fault
	realm    func(h *thief) string // of the token service; nil means the registry's own
	args     func(host string) []string
	flags    []string
	works    bool
}

func pullArgs(host string) []string { return []string{"pull", host + "/team/single:latest", "out"} }
func pushArgs(host string) []string {
	return []string{"push", "layout", host + "/team/new:1", "--allow-unsigned"}
}

func one(fault func(h *thief) registrytest.Fault) func(*thief) []registrytest.Fault {
	return func(h *thief) []registrytest.Fault { return []registrytest.Fault{fault(h)} }
}

// sendAway answers what matches with a redirect to an address.
func sendAway(status int, match registrytest.Match, to func(*http.Request) string) registrytest.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !match(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Location", to(r))
			w.WriteHeader(status)
		})
	}
}

// withLogin matches requests that carry a login, so that it is known to be there.
func withLogin(match registrytest.Match) registrytest.Match {
	return func(r *http.Request) bool { return match(r) && r.Header.Get("Authorization") != "" }
}

// addresses are ways to write that of the thief.
var addresses = []struct {
	name string
	of   func(h *thief) string
}{
	{"another address", func(h *thief) string { return h.URL }},
	{"no scheme", func(h *thief) string { return "//" + h.Host }},
	{"a login in it", func(h *thief) string { return "http://" + url.UserPassword("127.0.0.1", "x").String() + "@" + h.Host }},
	{"the registry's name as a user", func(h *thief) string { return "http://127.0.0.1@" + h.Host }},
}

func canaries() []canary {
	var cases []canary
	requests := []struct {
		name  string
		match registrytest.Match
		args  func(string) []string
	}{
		{"manifest", registrytest.Manifests("GET"), pullArgs},
		{"blob", registrytest.Blobs("GET"), pullArgs},
		{"tags", registrytest.Path("/tags/list"), func(host string) []string { return []string{"tags", host + "/team/single"} }},
		{"begin of an upload", registrytest.Uploads("POST"), pushArgs},
		{"question for a manifest", registrytest.Manifests("HEAD"), pushArgs},
		{"end of an upload", registrytest.Uploads("PUT"), pushArgs},
		{"manifest pushed", registrytest.Manifests("PUT"), pushArgs},
	}
	for _, q := range requests {
		for _, basic := range []bool{false, true} {
			cases = append(cases, canary{name: fmt.Sprintf("redirect of %s, basic %t", q.name, basic), basic: basic, args: q.args,
				faults: one(func(h *thief) registrytest.Fault {
					return sendAway(http.StatusTemporaryRedirect, withLogin(q.match), func(r *http.Request) string { return h.URL + r.URL.Path })
				})})
		}
	}
	for _, status := range []int{301, 302, 303, 308} {
		cases = append(cases, canary{name: fmt.Sprint("redirect with ", status), args: pullArgs, faults: one(func(h *thief) registrytest.Fault {
			return sendAway(status, withLogin(registrytest.Blobs("GET")), func(r *http.Request) string { return h.URL + r.URL.Path })
		})})
	}
	for _, a := range addresses {
		cases = append(cases,
			canary{name: "redirect to " + a.name, basic: true, args: pullArgs, faults: one(func(h *thief) registrytest.Fault {
				return sendAway(http.StatusFound, withLogin(registrytest.Manifests("GET")), func(r *http.Request) string { return a.of(h) + r.URL.Path })
			})},
			canary{name: "upload at " + a.name, args: pushArgs, faults: one(func(h *thief) registrytest.Fault { return registrytest.EvilLocation(a.of(h)) })},
			canary{name: "upload at " + a.name + ", basic", basic: true, args: pushArgs, faults: one(func(h *thief) registrytest.Fault { return registrytest.EvilLocation(a.of(h)) })},
			canary{name: "realm at " + a.name, args: pullArgs, realm: func(h *thief) string { return a.of(h) + "/token" }},
			canary{name: "realm at " + a.name + ", identity token", identity: true, args: pushArgs, realm: func(h *thief) string { return a.of(h) + "/token" }},
			canary{name: "next page at " + a.name, args: func(host string) []string { return []string{"tags", host + "/team/single"} },
				faults: one(func(h *thief) registrytest.Fault {
					return registrytest.LinkTo(registrytest.Path("/tags/list"), func(*http.Request) string { return a.of(h) + "/v2/team/single/tags/list?last=x" })
				})},
		)
	}
	return append(cases,
		canary{name: "token service sends away", args: pullArgs, faults: one(func(h *thief) registrytest.Fault {
			return sendAway(http.StatusTemporaryRedirect, registrytest.Path("/service/token"), func(*http.Request) string { return h.URL + "/token" })
		})},
		canary{name: "token service sends an identity away", identity: true, args: pullArgs, faults: one(func(h *thief) registrytest.Fault {
			return sendAway(http.StatusPermanentRedirect, registrytest.Path("/service/token"), func(*http.Request) string { return h.URL + "/token" })
		})},
		canary{name: "a second challenge", args: pullArgs, works: true, faults: one(func(h *thief) registrytest.Fault {
			return registrytest.Header(registrytest.All, func(_ *http.Request, status int, header http.Header) {
				if status == http.StatusUnauthorized {
					header.Add("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, h.URL))
				}
			})
		})},
		canary{name: "a realm that is listed", args: pullArgs, flags: []string{"--auth-host", "127.0.0.3"}, works: true},
		canary{name: "nothing wrong", args: pullArgs, works: true},
		canary{name: "nothing wrong, identity token", identity: true, args: pushArgs, works: true},
		canary{name: "nothing wrong, basic", basic: true, args: pushArgs, works: true},
	)
}

// T54, T64 to T66, I6: whatever a registry says, no login goes to another
// address, and none is written anywhere.
func TestCanaries(t *testing.T) {
	cases := canaries()
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	layout := filepath.Join(t.TempDir(), "layout")
	source := registrytest.Memory(t, registrytest.Options{})
	if err := sampleOf(t, "team/single").Push(t.Context(), source.Host); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runFerry(t.Context(), nil, "pull", source.Host+"/team/single:latest", layout); code != 0 {
		t.Fatal(stderr)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, layout) })
	}
}

func (c canary) run(t *testing.T, layout string) {
	h := newThief(t)
	tokens := &registrytest.Tokens{Users: map[string]string{canaryUser: canaryPassword}}
	if c.identity {
		tokens.Identity = map[string]string{canaryIdentity: canaryUser}
	}
	if c.realm != nil {
		tokens.Realm = c.realm(h)
	}
	if len(c.flags) > 0 { // the token service of an honest Harbor, on another private address
		tokens.Realm = serveAt(t, "127.0.0.3:0", tokens) + "/service/token"
	}
	guard := tokens.Guard
	if c.basic {
		guard = registrytest.Basic(tokens.Users)
	}
	var faults []registrytest.Fault
	if c.faults != nil {
		faults = c.faults(h)
	}
	content := registrytest.MemoryHandler(true)
	if c.args("")[0] != "push" {
		filled := registrytest.Serve(t, content, registrytest.Options{})
		if err := sampleOf(t, "team/single").Push(t.Context(), filled.Host); err != nil {
			t.Fatal(err)
		}
	}
	site := registrytest.Serve(t, content, registrytest.Options{Faults: append(faults, guard)})
	w := newWatched(t, site.Host, c.identity)
	if err := os.CopyFS(filepath.Join(w.dir, "layout"), os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	code := w.ferry(t, append(c.args(site.Host), c.flags...)...)
	if (code == 0) != c.works {
		t.Errorf("exit code %d, works %t\n%s", code, c.works, w.talk.String())
	}
	secrets := w.secrets
	_, seen := tokens.Seen()
	for _, header := range seen {
		secrets = append(secrets, strings.TrimPrefix(header, "Bearer "))
	}
	h.check(t, secrets)
	w.check(t, secrets)
}

// check looks for secrets in what the thief was sent.
func (h *thief) check(t *testing.T, secrets []string) {
	t.Helper()
	for _, request := range h.taken {
		checkSecretless(t, "what the thief got", request, secrets)
		if strings.Contains(request, "Authorization:") || strings.Contains(request, "Cookie:") {
			t.Errorf("the thief got a login:\n%s", request)
		}
	}
}

// serveAt serves handler at an address, and returns the URL.
func serveAt(t *testing.T, address string, handler http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(handler)
	web.Listener.Close()
	web.Listener = listener
	web.Start()
	t.Cleanup(web.Close)
	return web.URL
}

// watched is a folder in which ferry runs, with all secrets in its environment
// and its login from a helper that tells what it sees of them.
type watched struct {
	dir     string
	helpers string // folder of the helper, beside dir
	env     []string
	talk    bytes.Buffer
	secrets []string
}

func newWatched(t *testing.T, host string, identity bool) *watched {
	t.Helper()
	w := &watched{dir: t.TempDir()}
	login := map[string]string{"ServerURL": host, "Username": canaryUser, "Secret": canaryPassword}
	if identity {
		login["Username"], login["Secret"] = "<token>", canaryIdentity
	}
	answer, err := json.Marshal(login)
	if err != nil {
		t.Fatal(err)
	}
	w.helpers = t.TempDir() // these files hold the secret on purpose
	for name, content := range map[string]string{
		"answer.json":           string(answer),
		"docker-credential-spy": "#!/bin/sh\ncat > /dev/null\nenv > \"$SPY/child-env\"\ntr '\\0' ' ' < /proc/$PPID/cmdline > \"$SPY/parent-argv\"\ncat " + w.helpers + "/answer.json\n",
		"config.json":           fmt.Sprintf(`{"credHelpers":{%q:"spy"}}`, host),
	} {
		if err := os.WriteFile(filepath.Join(w.helpers, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"tmp", "home", "spy"} {
		if err := os.Mkdir(filepath.Join(w.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.env = []string{"PATH=" + w.helpers + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(w.dir, "home"), "TMPDIR=" + filepath.Join(w.dir, "tmp"),
		"SPY=" + filepath.Join(w.dir, "spy"), "DOCKER_CONFIG=" + w.helpers, "COSIGN_PASSWORD=Canary-cosign-71c2",
		"FERRY_HOST=elsewhere.site", "FERRY_USERNAME=me", "FERRY_PASSWORD=Canary-ferry-88d3",
		"AWS_ACCESS_KEY_ID=AKIACANARY", "AWS_SECRET_ACCESS_KEY=" + canaryAWS, "AWS_SESSION_TOKEN=" + canarySession,
		"DOCKER_AUTH_CONFIG=" + `{"auths":{"third.site":{"username":"me","password":"Canary-docker-4e4e"}}}`}
	w.secrets = []string{canaryPassword, canaryIdentity, canaryAWS, canarySession, "Canary-cosign-71c2", "Canary-ferry-88d3", "Canary-docker-4e4e",
		base64.StdEncoding.EncodeToString([]byte(canaryUser + ":" + canaryPassword))}
	return w
}

// ferry runs a command and returns its exit code.
func (w *watched) ferry(t *testing.T, args ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ferry", args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.env, &w.talk, &w.talk
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// check looks for secrets in what ferry has said and written, and in what its
// child has seen.
func (w *watched) check(t *testing.T, secrets []string) {
	t.Helper()
	if files := w.scan(t, secrets); !slices.Contains(files, filepath.Join("spy", "child-env")) {
		t.Errorf("nobody asked the helper: %q\n%s", files, w.talk.String())
	}
}

// scan looks for secrets in what ferry has said and written, and returns the
// files.
func (w *watched) scan(t *testing.T, secrets []string) (files []string) {
	t.Helper()
	checkSecretless(t, "stdout and stderr", w.talk.String(), secrets)
	err := filepath.WalkDir(w.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		rel, _ := filepath.Rel(w.dir, name)
		files = append(files, rel)
		checkSecretless(t, rel, string(content), secrets)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
	return files
}

func checkSecretless(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), url.QueryEscape(s)} {
			if strings.Contains(text, form) {
				t.Errorf("%s has the secret %q", what, s)
			}
		}
	}
}

// The same of S3, whose session token is in a header of each request, and of
// Harbor's own API.
func TestCanariesElsewhere(t *testing.T) {
	for _, status := range []int{301, 302, 307, 308} {
		t.Run(fmt.Sprint("S3 ", status), func(t *testing.T) {
			h := newThief(t)
			asked := 0
			bucket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked++; !strings.Contains(fmt.Sprint(r.Header), canarySession) {
					t.Error("the bucket got no session token")
				}
				w.Header().Set("Location", h.URL+r.URL.Path)
				w.WriteHeader(status)
				fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>PermanentRedirect</Code><Message>go there</Message><Endpoint>%s</Endpoint></Error>`, h.Host)
			}))
			defer bucket.Close()
			w := newWatched(t, "127.0.0.1:1", false)
			if code := w.ferry(t, "list", "s3://bucket/prefix", "--s3-endpoint", bucket.URL); code == 0 || asked == 0 {
				t.Errorf("exit code %d after %d requests\n%s", code, asked, w.talk.String())
			}
			h.check(t, w.secrets)
			w.scan(t, w.secrets)
		})
	}
	for name, fault := range map[string]func(h *thief) http.HandlerFunc{
		"redirect": func(h *thief) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, h.URL+r.URL.Path, http.StatusTemporaryRedirect)
			}
		},
		"next page": func(h *thief) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", fmt.Sprintf(`<%s/api/v2.0/projects/team/repositories/app/artifacts?page=2>; rel="next"`, h.URL))
				w.Header().Set("X-Total-Count", "101")
				w.Header().Set("Content-Type", "application/json")
				io.WriteString(w, "[]")
			}
		},
	} {
		t.Run("Harbor "+name, func(t *testing.T) {
			h := newThief(t)
			logins := 0
			harbor := harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{})
			harbor.AddProject("team", false, -1)
			harbor.AddRobot(canaryUser, canaryPassword, "team", "repository:pull", "artifact:list", "artifact:read", "tag:list")
			harbor.PushImage(t, "team/app", "content", "v1")
			site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/artifacts") {
					harbor.ServeHTTP(w, r)
					return
				}
				if r.Header.Get("Authorization") != "" {
					logins++
				}
				fault(h)(w, r)
			}))
			defer site.Close()
			host := strings.TrimPrefix(site.URL, "http://")
			w := newWatched(t, host, false)
			if code := w.ferry(t, "latest", host+"/team/app"); code == 0 || logins == 0 {
				t.Errorf("exit code %d with %d logins\n%s", code, logins, w.talk.String())
			}
			h.check(t, w.secrets)
			w.check(t, w.secrets)
		})
	}
}

// T54: no core dump of ferry, or of a helper, holds a password.
func TestNoCoreDumps(t *testing.T) {
	guard := registrytest.Basic(map[string]string{canaryUser: canaryPassword})
	site := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{guard}})
	w := newWatched(t, site.Host, false)
	script := "#!/bin/sh\nulimit -c > \"$SPY/core\"\nulimit -H -c >> \"$SPY/core\"\n"
	if err := os.WriteFile(filepath.Join(w.helpers, "docker-credential-spy"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	w.ferry(t, "tags", site.Host+"/team/app")
	limits, err := os.ReadFile(filepath.Join(w.dir, "spy", "core"))
	if err != nil || string(limits) != "0\n0\n" {
		t.Errorf("limits of core dumps: %q, %v\n%s", limits, err, w.talk.String())
	}
}
