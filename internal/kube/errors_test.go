package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/kubetest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

func TestDenied(t *testing.T) {
	s := newSite(t)
	s.AddUser("u", "weak-token")

	_, err := open(t, Options{Kubeconfig: s.TokenConfig(t, "canary-wrong")}).Login(t.Context(), Names{})
	e := asError(t, err)
	if !errors.Is(err, ErrDenied) || e.Status != 401 || err.Error() != `reading secret "harbor-system/harbor-admin": 401 Unauthorized` {
		t.Errorf("wrong token: %+v", e)
	}
	checkText(t, "wrong token", err)

	_, err = open(t, Options{Kubeconfig: s.TokenConfig(t, "weak-token")}).Login(t.Context(), Names{})
	e = asError(t, err)
	if !errors.Is(err, ErrDenied) || e.Status != 403 || e.Verb != "get" || e.Resource != "secrets" || e.Group != "" ||
		e.Object != (Object{Namespace: "harbor-system", Name: "harbor-admin"}) || e.Kind != "secret" {
		t.Errorf("weak token: %+v", e)
	}
	want := `reading secret "harbor-system/harbor-admin": 403 Forbidden: secrets "harbor-admin" is forbidden: ` +
		`User "u" cannot get resource "secrets" in API group "" in the namespace "harbor-system"`
	if err.Error() != want {
		t.Errorf("error is %s, want %s", err, want)
	}

	// The server does not tell nobody whether there is such a secret.
	_, err = open(t, Options{Kubeconfig: kubetest.WriteConfig(t, s.Config())}).Login(t.Context(), Names{})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "system:anonymous") {
		t.Errorf("nobody: %v", err)
	}
	_, err = open(t, Options{Kubeconfig: kubetest.WriteConfig(t, s.Config())}).Address(t.Context(), Names{})
	if e := asError(t, err); !errors.Is(err, ErrDenied) || e.Path != "/apis" || e.Kind != "" {
		t.Errorf("nobody, discovery: %+v", e)
	}

	cert := s.Config()
	cert.AuthInfos["me"].ClientCertificateData, cert.AuthInfos["me"].ClientKeyData = s.ForeignClientCert(t, "operator")
	if _, err = open(t, Options{Kubeconfig: kubetest.WriteConfig(t, cert)}).Login(t.Context(), Names{}); statusOf(err) != 401 {
		t.Errorf("foreign certificate: %v", err)
	}
}

// TestAnswers has the server answer what is no secret. A naive client quotes
// the answer, and with it what it was asked for.
func TestAnswers(t *testing.T) {
	const data = `"data":{"secret":"Y2FuYXJ5","canary":"canary"}`
	const meta = `"metadata":{"name":"harbor-admin","namespace":"harbor-system"}`
	js := map[string]string{"Content-Type": "application/json"}
	with := func(k, v string) map[string]string {
		return map[string]string{"Content-Type": "application/json", k: v}
	}
	status := func(err error) string {
		doc, _ := kubetest.StatusOf(err)
		text, _ := json.Marshal(doc)
		return string(text)
	}
	for _, c := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		kind   error
		text   string
	}{
		{"no kind", 200, js, `{"apiVersion":"v1",` + meta + `,` + data + `}`, ErrUnexpected, "no object of Kubernetes"},
		{"another kind", 200, js, `{"kind":"ConfigMap","apiVersion":"v1",` + meta + `,` + data + `}`, ErrUnexpected, "another object"},
		{"another name", 200, js, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"canary","namespace":"harbor-system"},` + data + `}`, ErrUnexpected, "another object"},
		{"another namespace", 200, js, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"harbor-admin","namespace":"canary"},` + data + `}`, ErrUnexpected, "another object"},
		{"a list", 200, js, `{"kind":"SecretList","apiVersion":"v1","metadata":{},"items":[{` + data + `}]}`, ErrUnexpected, ""},
		{"no JSON", 200, js, `canary`, ErrUnexpected, "no object of Kubernetes"},
		{"half of JSON", 200, js, `{"kind":"Secret",` + data, ErrUnexpected, "no object of Kubernetes"},
		{"a page", 200, map[string]string{"Content-Type": "text/html"}, `<html>canary`, ErrUnexpected, ""},
		{"nothing", 200, js, ``, ErrUnexpected, ""},
		{"a failure with 200", 200, js, status(apierrors.NewUnauthorized("Unauthorized")), ErrUnexpected, ""},
		{"a success that is none", 200, js, `{"kind":"Status","apiVersion":"v1","status":"Success"}`, ErrUnexpected, ""},
		{"redirect", 302, with("Location", "https://elsewhere.example/"), ``, ErrUnexpected, "302 Found"},
		{"404 of another server", 404, map[string]string{"Content-Type": "text/html"}, `<html>no`, ErrUnexpected, "404"},
		{"403 of a proxy", 403, map[string]string{"Content-Type": "text/plain"}, "go \x1b[31maway", ErrDenied, `403 Forbidden: go \x1b[31maway`},
		{"500", 500, js, status(apierrors.NewInternalError(errors.New("etcd"))), ErrUnavailable, "500 Internal Server Error: Internal error occurred: etcd"},
		{"503 without Status", 503, nil, "upstream", ErrUnavailable, "503"},
		{"504", 504, nil, "", ErrUnavailable, "504"},
		{"429 for long", 429, with("Retry-After", "3600"), status(apierrors.NewTooManyRequests("slow down", 3600)), ErrUnavailable, "429"},
		{"token in the message", 401, js, status(apierrors.NewUnauthorized("bad token " + canaryToken)), ErrDenied, "bad token [secret]"},
		{"controls in the message", 401, js, status(apierrors.NewUnauthorized("a\u202eb\u0007\nc")), ErrDenied, `a\u202eb`},
		{"a long message", 401, js, status(apierrors.NewUnauthorized(strings.Repeat("é\x01", 100_000))), ErrDenied, "…"},
	} {
		s := newSite(t)
		s.Misbehave(always(c.status, c.header, c.body))
		_, err := openSite(t, s).Login(t.Context(), Names{})
		if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: error is %v, want %v, %q", c.name, err, c.kind, c.text)
			continue
		}
		checkText(t, c.name, err)
		_, err = openSite(t, s).Address(t.Context(), Names{})
		if err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: discovery is %v", c.name, err)
			continue
		}
		checkText(t, c.name+", discovery", err)
	}
}

// TestBadDiscovery does not take nonsense for "there is none".
func TestBadDiscovery(t *testing.T) {
	for _, body := range []string{
		`{}`, `[]`, `null`, `{"kind":"APIGroupDiscoveryList","items":{}}`, `{"kind":"APIGroupList","groups":{}}`, `{"kind":"Pod"}`, `{"kind":5}`,
	} {
		s := newSite(t)
		s.Misbehave(always(200, map[string]string{"Content-Type": "application/json"}, body))
		for _, n := range []Names{{}, {HarborGroup: "goharbor.io"}} {
			if _, err := openSite(t, s).Address(t.Context(), n); !errors.Is(err, ErrUnexpected) {
				t.Errorf("%s, group %q: %v", body, n.HarborGroup, err)
			}
		}
	}
}

// TestHostileDiscovery does not ask paths that a document makes up.
func TestHostileDiscovery(t *testing.T) {
	s := newSite(t)
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/apis" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"APIGroupDiscoveryList","items":[{"metadata":{"name":"../api"},"versions":[{"version":"v1","resources":[{"resource":"harborclusters"}]}]},
			{"metadata":{"name":"a.example"},"versions":[{"version":"v1/../..","resources":[{"resource":"harborclusters"}]}]}]}`)
	})
	if got, err := openSite(t, s).Address(t.Context(), Names{}); err != nil || got.Host != "harbor."+suffix {
		t.Errorf("Address = %v, %v", got, err)
	}
	expectRequests(t, s, getDNS)
}

// TestAwayGroups has a group whose own server is away, as metrics often are.
func TestAwayGroups(t *testing.T) {
	s := newSite(t)
	s.OldDiscovery()
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/apis/apps/v1" {
			always(503, map[string]string{"Content-Type": "text/plain"}, "service unavailable")(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := openSite(t, s).Address(t.Context(), Names{}); err != nil {
		t.Error(err)
	}
}

// TestRetry goes on when the server asks for a moment.
func TestRetry(t *testing.T) {
	s := newSite(t)
	var n atomic.Int64
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n.Add(1) <= 2 {
			always(429, map[string]string{"Content-Type": "text/plain", "Retry-After": "0"}, "wait")(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := openSite(t, s).Login(t.Context(), Names{}); err != nil || n.Load() != 3 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
}

// TestRedirect sends the token nowhere else (T64).
func TestRedirect(t *testing.T) {
	var got atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer elsewhere.Close()
	s := newSite(t)
	s.Misbehave(always(307, map[string]string{"Location": elsewhere.URL + "/x"}, ""))
	if _, err := openSite(t, s).Login(t.Context(), Names{}); !errors.Is(err, ErrUnexpected) || got.Load() != 0 {
		t.Errorf("%v, %d requests elsewhere", err, got.Load())
	}
}

// TestTooLong stops an answer that does not end (T67), compressed or not.
func TestTooLong(t *testing.T) {
	s := newSite(t)
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Secret","apiVersion":"v1","x":"`)
		block := bytes.Repeat([]byte("canary"), 10_000)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	_, err := openSite(t, s).Login(t.Context(), Names{})
	if !errors.Is(err, ErrUnexpected) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error is %v", err)
	}
	checkText(t, "too long", err)
}

// TestLongEnough takes a secret as long as etcd's limit.
func TestLongEnough(t *testing.T) {
	s := newSite(t)
	password := strings.Repeat("x", 1<<20)
	s.SetSecret("harbor-system", "harbor-admin", map[string]string{"secret": password})
	if got, err := openSite(t, s).Login(t.Context(), Names{}); err != nil || got.Password.Reveal() != password {
		t.Errorf("Login = %v", err)
	}
}

// TestSlow ends a server that does not answer, or not to the end.
func TestSlow(t *testing.T) {
	for _, begun := range []bool{false, true} {
		s := newSite(t)
		s.Misbehave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if begun {
				io.WriteString(w, "{")
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		})
		c := open(t, Options{Kubeconfig: s.TokenConfig(t, canaryToken), Timeout: 100 * time.Millisecond})
		_, err := c.Login(t.Context(), Names{})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 100ms") {
			t.Errorf("begun %v: error is %v", begun, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = openSite(t, s).Login(ctx, Names{})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnavailable) {
			t.Errorf("begun %v: context's error is %v", begun, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := newSite(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	config := s.Config()
	config.Clusters["site"].Server = "https://" + listener.Addr().String()
	_, err = open(t, Options{Kubeconfig: kubetest.WriteConfig(t, config)}).Login(t.Context(), Names{})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "/api/v1") {
		t.Errorf("error is %v", err)
	}
}

func TestUntrusted(t *testing.T) {
	s, other := newSite(t), kubetest.New(t)
	config := s.Config()
	config.AuthInfos["me"].Token = canaryToken
	for name, change := range map[string]func(c *api.Cluster){
		"another CA":   func(c *api.Cluster) { c.CertificateAuthorityData = other.CA() },
		"system's CAs": func(c *api.Cluster) { c.CertificateAuthorityData = nil },
		"another name": func(c *api.Cluster) { c.TLSServerName = "elsewhere.example" },
	} {
		changed := config.DeepCopy()
		change(changed.Clusters["site"])
		_, err := open(t, Options{Kubeconfig: kubetest.WriteConfig(t, changed)}).Login(t.Context(), Names{})
		var cert *tls.CertificateVerificationError
		if !errors.Is(err, ErrUntrusted) || errors.Is(err, ErrUnavailable) || !errors.As(err, &cert) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	expectRequests(t, s)
}

// TestBadPlugins quotes nothing of a plugin's output.
func TestBadPlugins(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	for name, c := range map[string]struct{ script, text string }{
		"missing":  {"", "no such file"},
		"fails":    {"#!/bin/sh\necho canary\nexit 3\n", "exit code 3"},
		"no JSON":  {"#!/bin/sh\necho canary\n", "no login"},
		"no kind":  {"#!/bin/sh\necho '{\"status\":{\"token\":\"canary\"}}'\n", "API version"},
		"nothing":  {"#!/bin/sh\n", "API version"},
		"no token": {"#!/bin/sh\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{}}'\n", "didn't return a token"},
	} {
		command := dir + "/" + strings.ReplaceAll(name, " ", "")
		if c.script != "" {
			command = write(t, dir, strings.ReplaceAll(name, " ", ""), c.script, 0o700)
		}
		config := s.Config()
		config.AuthInfos["me"].Exec = &api.ExecConfig{
			Command: command, APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: api.NeverExecInteractiveMode, InstallHint: "get it\x1b",
		}
		_, err := open(t, Options{Kubeconfig: kubetest.WriteConfig(t, config)}).Login(t.Context(), Names{})
		if !errors.Is(err, ErrDenied) || statusOf(err) != 0 || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: error is %v, want %q", name, err, c.text)
			continue
		}
		checkText(t, name, err)
	}
}

// TestSlowPlugin lets a plugin take longer than the server may: a person may
// be at work.
func TestSlowPlugin(t *testing.T) {
	s := newSite(t)
	script := "#!/bin/sh\nsleep 2.2\necho '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\",\"status\":{\"token\":\"" + canaryToken + "\"}}'\n"
	config := s.Config()
	config.AuthInfos["me"].Exec = &api.ExecConfig{
		Command: write(t, t.TempDir(), "plugin", script, 0o700), APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: api.NeverExecInteractiveMode,
	}
	c := open(t, Options{Kubeconfig: kubetest.WriteConfig(t, config), Timeout: 2 * time.Second})
	if _, err := c.Login(t.Context(), Names{}); err != nil {
		t.Error(err)
	}
}

const silentEnv = "FERRY_TEST_SILENT"

// TestSilent runs what client-go would log in a process of its own, and finds
// nothing on its outputs.
func TestSilent(t *testing.T) {
	if os.Getenv(silentEnv) != "" {
		runLoud(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSilent$")
	cmd.Env = append(os.Environ(), silentEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v, output is %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		// What "go test" says itself.
		if line = strings.TrimSpace(line); line != "PASS" && !strings.HasPrefix(line, "coverage: ") {
			t.Errorf("output has %q", line)
		}
	}
}

func runLoud(t *testing.T) {
	s := newSite(t)
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Warning", `299 - "canary is deprecated"`)
		next.ServeHTTP(w, r)
	})
	if err := readAll(t.Context(), openSite(t, s)); err != nil {
		t.Error(err)
	}
	klog.Error("canary")
	klog.Background().Info("canary")
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "{")
	})
	if _, err := openSite(t, s).Login(t.Context(), Names{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a broken answer: %v", err)
	}
}
