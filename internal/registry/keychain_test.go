package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"

	"ferry/internal/registrytest"
)

func writeFile(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func auth(user, password string) string {
	return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// helper puts a credential helper on the PATH that knows one host.
func helper(t *testing.T, name, host, user, secret string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the helper is a shell script")
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "docker-credential-"+name), fmt.Sprintf(`#!/bin/sh
read -r host
if [ "$host" = %q ]; then
	echo '{"ServerURL":"x","Username":%q,"Secret":%q}'
else
	echo 'credentials not found in native keychain'
	exit 1
fi
`, host, user, secret), 0o700)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestKeychainFile(t *testing.T) {
	helper(t, "ferrytest", "helped.io", "robot$h", `q"uo$te`)
	file := writeFile(t, filepath.Join(t.TempDir(), "auth.json"), `{
		"auths": {
			"h.io": `+auth("host", "1")+`,
			"h.io/team": `+auth("team", "2")+`,
			"h.io/team/app": `+auth("app", "3")+`,
			"only.io/part": `+auth("part", "4")+`,
			"https://old.io/v1/": `+auth("old", "5")+`,
			"port.io:5000": `+auth("port", "a:b$c")+`,
			"token.io": {"identitytoken": "idt"},
			"registrytoken.io": {"registrytoken": "rt"},
			"https://index.docker.io/v1/": `+auth("hub", "6")+`
		},
		"credHelpers": {"helped.io": "ferrytest"}
	}`, 0o600)
	tests := []struct {
		repo Repository
		want credentials
	}{
		{Repository{"h.io", "team/app"}, credentials{user: "app", password: "3"}},
		{Repository{"h.io", "team/app/sub"}, credentials{user: "app", password: "3"}},
		{Repository{"h.io", "team/application"}, credentials{user: "team", password: "2"}},
		{Repository{"h.io", "other/app"}, credentials{user: "host", password: "1"}},
		{Repository{"h.io", ""}, credentials{user: "host", password: "1"}},
		{Repository{"only.io", "part/x"}, credentials{user: "part", password: "4"}},
		{Repository{"only.io", "other/x"}, credentials{}},
		{Repository{"old.io", "x"}, credentials{user: "old", password: "5"}},
		{Repository{"port.io:5000", "x"}, credentials{user: "port", password: "a:b$c"}},
		{Repository{"port.io", "x"}, credentials{}},
		{Repository{"token.io", "x"}, credentials{identity: "idt"}},
		{Repository{"registrytoken.io", "x"}, credentials{token: "rt"}},
		{Repository{"helped.io", "a/b"}, credentials{user: "robot$h", password: `q"uo$te`}},
		{Repository{"docker.io", "library/alpine"}, credentials{user: "hub", password: "6"}},
		{Repository{"unknown.io", "x"}, credentials{}},
	}
	// Another configuration, that must not be looked at.
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	writeFile(t, filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), `{"auths":{"unknown.io":`+auth("wrong", "x")+`}}`, 0o600)
	c := newClient(t, Options{Keychain: Keychain(file)})
	for _, tt := range tests {
		if got, err := c.credentials(t.Context(), tt.repo); err != nil || got != tt.want {
			t.Errorf("login for %v = %v, %v, want %v", tt.repo, got, err, tt.want)
		}
	}
}

func TestKeychainStore(t *testing.T) {
	helper(t, "ferrystore", "https://index.docker.io/v1/", "<token>", "idt")
	file := writeFile(t, filepath.Join(t.TempDir(), "auth.json"), `{"credsStore":"ferrystore"}`, 0o600)
	c := newClient(t, Options{Keychain: Keychain(file)})
	if got, err := c.credentials(t.Context(), Repository{"docker.io", "a/b"}); err != nil || got != (credentials{identity: "idt"}) {
		t.Errorf("login for docker.io = %v, %v", got, err)
	}
	if got, err := c.credentials(t.Context(), Repository{"h.io", "a/b"}); err != nil || got != (credentials{}) {
		t.Errorf("login for h.io = %v, %v", got, err)
	}
}

// Without a file docker's own configuration counts.
func TestKeychainDefault(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", dir)
	writeFile(t, filepath.Join(dir, "config.json"), `{"auths":{"h.io":`+auth("docker", "1")+`,"https://index.docker.io/v1/":`+auth("hub", "2")+`}}`, 0o600)
	c := newClient(t, Options{Keychain: Keychain("")})
	for host, want := range map[string]credentials{
		"h.io": {user: "docker", password: "1"}, "docker.io": {user: "hub", password: "2"}, "x.io": {},
	} {
		if got, err := c.credentials(t.Context(), Repository{host, "a/b"}); err != nil || got != want {
			t.Errorf("login for %s = %v, %v, want %v", host, got, err, want)
		}
	}
}

func TestKeychainErrors(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"broken.json": `{"auths":`,
		"auth.json":   `{"auths":{"h.io":{"auth":"%%%"}}}`,
		"helper.json": `{"credHelpers":{"h.io":"ferry-that-is-not-there"}}`,
		"":            "",
	} {
		file := filepath.Join(dir, "missing.json")
		if name != "" {
			file = writeFile(t, filepath.Join(dir, name), content, 0o600)
		}
		c := newClient(t, Options{Keychain: Keychain(file)})
		got, err := c.credentials(t.Context(), Repository{"h.io", "a/b"})
		if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %v, %v, want an error on one line", name, got, err)
		}
	}
}

// hardLogins are names and passwords that something on the way may change.
var hardLogins = []credentials{
	{user: "robot$team+ci", password: "plain"},
	{user: "robot$team+ci", password: "$HOME ${PATH} $$ $(id)"},
	{user: "robot$team+ci", password: "a:b::c:"},
	{user: "robot$team+ci", password: "100%25 %zz +a+b"},
	{user: "robot$ci", password: " before and after "},
	{user: "robot$ci", password: `"quoted" 'too' \\ \u0041`},
	{user: "robot$ci", password: "pässwörd 密码 \U0001F511"},
	{user: "müller@site/x", password: "tab\tline\nend"},
	{user: "$USER", password: "${PASSWORD}"},
	{user: "a b+c%20", password: "{\"auths\":{}}"},
}

// T70: a login arrives as it is from every source, and by every way to log in.
func TestLoginsVerbatim(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_AUTH_CONFIG", "")
	t.Setenv("PASSWORD", "expanded")
	object := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for i, want := range hardLogins {
		users := map[string]string{want.user: want.password}
		tokens := &registrytest.Tokens{Users: users, Strict: true}
		bearer, basic := memory(t, tokens.Guard), memory(t, registrytest.Basic(users))
		for _, s := range []*registrytest.Server{bearer, basic} {
			plain := map[string]string{"username": want.user, "password": want.password}
			forms := map[string]string{
				"auth":     `{"auths":{"` + s.Host + `":` + auth(want.user, want.password) + `}}`,
				"password": object(map[string]any{"auths": map[string]any{s.Host: plain}}),
				"syncer":   object(map[string]any{s.Host: plain, "quay.io": map[string]string{}}),
			}
			sources := map[string]authn.Keychain{
				"static":          Static{s.Host, want.user, want.password},
				"after anonymous": authn.NewMultiKeychain(Static{"h.io", "x", "y"}, keys{}, Static{s.Host, want.user, want.password}),
			}
			dir := t.TempDir()
			for form, content := range forms {
				k, err := KeychainOf([]byte(content))
				if err != nil {
					t.Fatal(err)
				}
				sources[form+" in content"] = k
				sources[form+" in file"] = Keychain(writeFile(t, filepath.Join(dir, form), content, 0o600))
			}
			for source, k := range sources {
				if err := newClient(t, Options{Keychain: k}).Ping(t.Context(), s.Host); err != nil {
					t.Errorf("login %d, %s: %v", i, source, err)
				}
			}
			t.Setenv("DOCKER_CONFIG", dir)
			writeFile(t, filepath.Join(dir, "config.json"), forms["auth"], 0o600)
			if err := newClient(t, Options{Keychain: Keychain("")}).Ping(t.Context(), s.Host); err != nil {
				t.Errorf("login %d, docker's configuration: %v", i, err)
			}
		}
	}
}

// A fixed login goes to its host and port and to no other.
func TestStatic(t *testing.T) {
	tests := []struct {
		host, asked string
		ok          bool
	}{
		{"harbor.site", "harbor.site", true},
		{"Harbor.Site", "harbor.site", true},
		{"harbor.site:8443", "harbor.site:8443", true},
		{"docker.io", "docker.io", true},
		{"index.docker.io", "docker.io", true},
		{"harbor.site", "harbor.site:8443", false},
		{"harbor.site:8443", "harbor.site", false},
		{"harbor.site", "a.harbor.site", false},
		{"harbor.site", "harbor.site.evil.test", false},
		{"harbor.site/team", "harbor.site", false},
		{"site", "harbor.site", false},
		{"docker.io", "auth.docker.io", false},
		{"", "harbor.site", false},
	}
	for _, tt := range tests {
		s := Static{tt.host, "robot$x", "canary"}
		c := newClient(t, Options{Keychain: s})
		got, err := c.credentials(t.Context(), Repository{tt.asked, "team/app"})
		if err != nil || (got == credentials{user: "robot$x", password: "canary"}) != tt.ok || !tt.ok && got != (credentials{}) {
			t.Errorf("login of %q for %q = %v, %v, want %v", tt.host, tt.asked, got, err, tt.ok)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); strings.Contains(text, "canary") { // T54
			t.Errorf("%q shows the password", text)
		}
	}
	c := newClient(t, Options{Keychain: Static{Host: "h.io"}})
	if got, err := c.credentials(t.Context(), Repository{"h.io", "x"}); err != nil || got != (credentials{}) {
		t.Errorf("an empty login = %v, %v", got, err)
	}
}

// The first source that has a login for a repository counts.
func TestKeychainsInTurn(t *testing.T) {
	first, err := KeychainOf([]byte(`{"auths":{"a.io":{},"b.io/team":` + auth("first", "1") + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	second, err := KeychainOf([]byte(`{"a.io":{"username":"second","password":"2"},"b.io":{"username":"second","password":"3","insecure":true},
		"b.io/team/app":{"username":"closer","password":"4"}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{Keychain: authn.NewMultiKeychain(first, second)})
	for r, want := range map[Repository]credentials{
		{"a.io", "x"}:        {user: "second", password: "2"},
		{"b.io", "team/app"}: {user: "first", password: "1"},
		{"b.io", "teams"}:    {user: "second", password: "3"},
		{"c.io", "x"}:        {},
	} {
		if got, err := c.credentials(t.Context(), r); err != nil || got != want {
			t.Errorf("login for %v = %v, %v, want %v", r, got, err, want)
		}
	}
	c = newClient(t, Options{Keychain: second})
	if got, err := c.credentials(t.Context(), Repository{"b.io", "team/app/x"}); err != nil || got.user != "closer" {
		t.Errorf("the closest login = %v, %v", got, err)
	}
}

// What a named file says is not mixed with the environment.
func TestKeychainIgnoresEnvironment(t *testing.T) {
	helper(t, "ferryenv", "h.io", "right", "1")
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"h.io":`+auth("wrong", "2")+`,"x.io":`+auth("wrong", "3")+`}}`)
	c := newClient(t, Options{Keychain: Keychain(writeFile(t, filepath.Join(t.TempDir(), "f"), `{"credsStore":"ferryenv"}`, 0o600))})
	for host, want := range map[string]credentials{"h.io": {user: "right", password: "1"}, "x.io": {}} {
		if got, err := c.credentials(t.Context(), Repository{host, "a"}); err != nil || got != want {
			t.Errorf("login for %s = %v, %v, want %v", host, got, err, want)
		}
	}
}

func TestKeychainOfErrors(t *testing.T) {
	for _, content := range []string{
		"x", "[]", `{"auths":`, `{"auths":{"h.io":{"auth":"canary!"}}}`, `{"auths":{"h.io":{"auth":"Y2FuYXJ5"}}}`,
		`{"auths":[]}`, `{"auths":{"h.io":"canary"}}`, strings.Repeat(" ", maxLogins) + "{}",
	} {
		k, err := KeychainOf([]byte(content))
		if err == nil {
			t.Errorf("KeychainOf(%.40q) = %v", content, k)
		} else if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "Y2Fu") {
			t.Errorf("KeychainOf(%.40q): %v holds a secret", content, err) // T54
		}
	}
	// Not image-syncer's, and so without a login.
	for _, content := range []string{
		"", `{}`, `{"proxies":{}}`, `{"h.io":{"username":"u","password":"p"},"auths":{}}`, `{"h.io":{"username":"u","other":"p"}}`, `{"team":{"username":"u"}}`,
	} {
		k, err := KeychainOf([]byte(content))
		if err != nil {
			t.Errorf("KeychainOf(%q): %v", content, err)
			continue
		}
		if a, err := k.Resolve(resource{host: "h.io"}); err != nil || a != authn.Anonymous {
			t.Errorf("login in %q = %v, %v", content, a, err)
		}
	}
}
