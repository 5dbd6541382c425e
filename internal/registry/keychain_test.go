package registry

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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
