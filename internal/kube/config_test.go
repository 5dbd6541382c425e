package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/kubetest"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// write returns the name of a new file.
func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestLogins reads the site with each way to log in.
func TestLogins(t *testing.T) {
	s := newSite(t)
	cert, key := s.ClientCert(t, "operator")
	dir := t.TempDir()
	write(t, dir, "token", canaryToken+"\n", 0o600)
	write(t, dir, "ca.crt", string(s.CA()), 0o600)
	write(t, dir, "me.crt", string(cert), 0o600)
	write(t, dir, "me.key", string(key), 0o600)
	plugin := func(status string) string {
		return "#!/bin/sh\ncat <<'END'\n" + `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":` + status + "}\nEND\n"
	}
	write(t, dir, "plugin", plugin(`{"token":"`+canaryToken+`"}`), 0o700)
	quote := func(b []byte) string { return fmt.Sprintf("%q", b) }
	write(t, dir, "certplugin", plugin(`{"clientCertificateData":`+quote(cert)+`,"clientKeyData":`+quote(key)+`}`), 0o700)
	exec := func(command string) *api.ExecConfig {
		return &api.ExecConfig{Command: command, APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: api.NeverExecInteractiveMode}
	}
	for _, c := range []struct {
		name     string
		user     api.AuthInfo
		cluster  func(c *api.Cluster)
		warnings int
	}{
		{"token", api.AuthInfo{Token: canaryToken}, nil, 0},
		{"token file", api.AuthInfo{TokenFile: "token"}, nil, 0},
		{"certificate", api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}, nil, 0},
		{"certificate files", api.AuthInfo{ClientCertificate: "me.crt", ClientKey: "me.key"}, nil, 0},
		{"CA file", api.AuthInfo{Token: canaryToken}, func(c *api.Cluster) { c.CertificateAuthorityData, c.CertificateAuthority = nil, "ca.crt" }, 0},
		{"exec plugin", api.AuthInfo{Exec: exec("./plugin")}, nil, 0},
		{"exec plugin with a certificate", api.AuthInfo{Exec: exec("./certplugin")}, nil, 0},
		{"no check", api.AuthInfo{Token: canaryToken}, func(c *api.Cluster) { c.CertificateAuthorityData, c.InsecureSkipTLSVerify = nil, true }, 1},
		{"server name", api.AuthInfo{Token: canaryToken}, func(c *api.Cluster) { c.TLSServerName = "kubernetes" }, 0},
	} {
		config := s.Config()
		config.AuthInfos["me"] = &c.user
		if c.cluster != nil {
			c.cluster(config.Clusters["site"])
		}
		name := filepath.Join(dir, "kubeconfig")
		if err := clientcmd.WriteToFile(*config, name); err != nil {
			t.Fatal(err)
		}
		k := open(t, Options{Kubeconfig: name})
		if err := readAll(t.Context(), k); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(k.Warnings) != c.warnings || c.warnings > 0 && !strings.Contains(k.Warnings[0], "insecure-skip-tls-verify") {
			t.Errorf("%s: warnings are %q", c.name, k.Warnings)
		}
		if k.Context != "site" || k.Server != s.URL() {
			t.Errorf("%s: context %q, server %q", c.name, k.Context, k.Server)
		}
		if text := fmt.Sprintf("%v %+v %#v", k, k, *k); strings.Contains(text, "canary") {
			t.Errorf("%s: a secret is in %s", c.name, text)
		}
		for _, e := range s.Log() {
			if e.User != "operator" || e.Status != 200 {
				t.Errorf("%s: %v", c.name, e)
			}
		}
		s.ResetLog()
	}
	if err := readAll(t.Context(), open(t, Options{Kubeconfig: s.CertConfig(t, "operator")})); err != nil {
		t.Error(err)
	}
}

// TestProxyURL goes through the proxy of the kubeconfig.
func TestProxyURL(t *testing.T) {
	s := newSite(t)
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	config := s.Config()
	config.AuthInfos["me"].Token = canaryToken
	config.Clusters["site"].ProxyURL = strings.Replace(proxy.URL, "://", "://canary:canary@", 1)
	_, err := open(t, Options{Kubeconfig: kubetest.WriteConfig(t, config)}).Login(t.Context(), Names{})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	checkText(t, "proxy", err)
	target, _ := url.Parse(s.URL())
	if asked.Load() != "CONNECT "+target.Host {
		t.Errorf("the proxy was asked for %v", asked.Load())
	}
	expectRequests(t, s)
}

// TestFiles finds the kubeconfig, and merges several.
func TestFiles(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	// One file has the cluster, one the user, with a file that is relative to
	// it, and one is not there.
	cluster, user := s.Config(), api.NewConfig()
	cluster.AuthInfos, cluster.CurrentContext = nil, ""
	user.AuthInfos["me"] = &api.AuthInfo{TokenFile: "token"}
	user.Contexts["other"] = &api.Context{Cluster: "site", AuthInfo: "nobody"}
	user.CurrentContext = "site"
	for sub, c := range map[string]*api.Config{"a": cluster, "b": user} {
		if err := clientcmd.WriteToFile(*c, filepath.Join(dir, sub, "config")); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "b"), "token", canaryToken, 0o600)
	list := strings.Join([]string{filepath.Join(dir, "none"), filepath.Join(dir, "a/config"), "", filepath.Join(dir, "b/config")}, string(filepath.ListSeparator))
	home := t.TempDir()
	if err := clientcmd.WriteToFile(*s.Config(), filepath.Join(home, ".kube/config")); err != nil {
		t.Fatal(err)
	}
	token := s.TokenConfig(t, canaryToken)
	for _, c := range []struct {
		name string
		o    Options
		kind error // of reading, as the one in home has no login
	}{
		{"list", Options{KubeconfigList: list, Home: home}, nil},
		{"file before list", Options{Kubeconfig: token, KubeconfigList: "/none", Home: home}, nil},
		{"home", Options{Home: home}, ErrDenied},
	} {
		if _, err := open(t, c.o).Login(t.Context(), Names{}); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// client-go reads these by itself, in its own defaults.
	t.Setenv("KUBECONFIG", token)
	t.Setenv("HOME", home)
	t.Setenv("KUBERNETES_MASTER", s.URL())
	if _, err := Open(Options{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "none is named") {
		t.Errorf("without options: %v", err)
	}
}

func TestContexts(t *testing.T) {
	s := newSite(t)
	config := s.Config()
	config.AuthInfos["me"].Token = "wrong"
	config.AuthInfos["op"] = &api.AuthInfo{Token: canaryToken}
	config.Contexts["b\x1b"] = &api.Context{Cluster: "site", AuthInfo: "op"}
	config.Contexts["lost"] = &api.Context{Cluster: "away", AuthInfo: "op"}
	config.Contexts["nobody"] = &api.Context{Cluster: "site", AuthInfo: "gone"}
	name := kubetest.WriteConfig(t, config)
	if err := readAll(t.Context(), open(t, Options{Kubeconfig: name, Context: "b\x1b"})); err != nil {
		t.Error(err)
	}
	for context, want := range map[string]string{
		"c":      `no context "c"; there are "b\\x1b", "lost", "nobody", "site"`,
		"lost":   `context "lost": there is no cluster "away"`,
		"nobody": `context "nobody": there is no user "gone"`,
	} {
		_, err := Open(Options{Kubeconfig: name, Context: context})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %s", context, err, want)
			continue
		}
		checkText(t, context, err)
	}
	config.CurrentContext = ""
	for i := range 30 {
		config.Contexts[fmt.Sprintf("x%02d", i)] = config.Contexts["site"]
	}
	_, err := Open(Options{Kubeconfig: kubetest.WriteConfig(t, config)})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "no context is named") || !strings.Contains(err.Error(), "and 14 more") {
		t.Errorf("no current context: %v", err)
	}
}

// TestBadConfig quotes nothing of a file that is full of secrets.
func TestBadConfig(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	changed := func(change func(c *api.Config)) string {
		config := s.Config()
		config.AuthInfos["me"].Token = canaryToken
		change(config)
		return kubetest.WriteConfig(t, config)
	}
	unreadable := write(t, dir, "unreadable", "x", 0)
	big := write(t, dir, "big", "", 0o600)
	if err := os.Truncate(big, maxConfig+1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, text string }{
		{"missing", filepath.Join(dir, "none"), "no such file"},
		{"folder", dir, "is a directory"},
		{"big", big, "is longer than"},
		{"tabs", write(t, dir, "a", "users:\n\t- token: canary\n", 0o600), "line 2"},
		{"alias", write(t, dir, "b", "users:\n- name: me\n  user:\n    password: *canary\n", 0o600), "malformed"},
		{"wrong type", write(t, dir, "c", "users: canary\n", 0o600), "malformed"},
		{"wrong kind", write(t, dir, "d", "kind: canary\napiVersion: v1\n", 0o600), "malformed"},
		{"base64", write(t, dir, "e", "users:\n- name: me\n  user:\n    client-key-data: canary!\n", 0o600), "illegal base64"},
		{"empty", write(t, dir, "f", "", 0o600), "no context is named"},
		{"other text", write(t, dir, "g", "canary", 0o600), "malformed"},
		{"no server", changed(func(c *api.Config) { c.Clusters["site"].Server = "" }), "is not https://HOST"},
		{"server with a login", changed(func(c *api.Config) { c.Clusters["site"].Server = "https://canary:canary@x" }), "must not hold a login"},
		{"server that is none", changed(func(c *api.Config) { c.Clusters["site"].Server = "https://a b/" }), "not a URL"},
		{"proxy", changed(func(c *api.Config) { c.Clusters["site"].ProxyURL = "ftp://canary:canary@x" }), "proxy-url"},
		{"proxy that is none", changed(func(c *api.Config) { c.Clusters["site"].ProxyURL = "http://canary:canary@ x" }), "proxy-url"},
		{"token file", changed(func(c *api.Config) { c.AuthInfos["me"].Token, c.AuthInfos["me"].TokenFile = "", "none" }), "none"},
		{"CA", changed(func(c *api.Config) { c.Clusters["site"].CertificateAuthorityData = []byte("canary") }), "site"},
		{"CA file", changed(func(c *api.Config) {
			c.Clusters["site"].CertificateAuthorityData, c.Clusters["site"].CertificateAuthority = nil, "none"
		}), "certificate-authority"},
		{"certificate", changed(func(c *api.Config) {
			c.AuthInfos["me"].ClientCertificateData, c.AuthInfos["me"].ClientKeyData = []byte("canary"), []byte("canary")
		}), "site"},
		{"no check, and a CA", changed(func(c *api.Config) { c.Clusters["site"].InsecureSkipTLSVerify = true }), "insecure"},
		{"old plugin", changed(func(c *api.Config) {
			c.AuthInfos["me"] = &api.AuthInfo{AuthProvider: &api.AuthProviderConfig{Name: "gcp"}}
		}), "gcp"},
		{"two logins", changed(func(c *api.Config) { c.AuthInfos["me"].Username, c.AuthInfos["me"].Password = "canary", "canary" }), "more than one"},
		{"unreadable", unreadable, "permission denied"},
	} {
		if c.name == "unreadable" && os.Geteuid() == 0 {
			continue // nothing is unreadable for root
		}
		_, err := Open(Options{Kubeconfig: c.file})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.file) {
			t.Errorf("%s: error is %v, want %q", c.name, err, c.text)
			continue
		}
		checkText(t, c.name, err)
		if want := c.name == "missing" || strings.HasSuffix(c.name, " file"); errors.Is(err, fs.ErrNotExist) != want {
			t.Errorf("%s: is fs.ErrNotExist: %v", c.name, !want)
		}
	}
	_, err := Open(Options{KubeconfigList: filepath.Join(dir, "x") + string(filepath.ListSeparator) + filepath.Join(dir, "y")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "x\", \"") || !strings.Contains(err.Error(), "/y") {
		t.Errorf("a list of missing files: %v", err)
	}
	_, err = Open(Options{Home: dir})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, ".kube", "config")) {
		t.Errorf("no file in home: %v", err)
	}
}

// TestWarnPlain warns of secrets without TLS, but not on one machine.
func TestWarnPlain(t *testing.T) {
	s := newSite(t)
	for server, want := range map[string]bool{
		"http://api.example:8080": true, "http://10.0.0.1": true,
		"http://127.0.0.1:8001": false, "http://localhost:8001": false, "http://[::1]:8001": false, "https://api.example": false,
	} {
		config := s.Config()
		config.Clusters["site"].Server = server
		c := open(t, Options{Kubeconfig: kubetest.WriteConfig(t, config)})
		if got := len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], "without TLS"); got != want || len(c.Warnings) > 1 {
			t.Errorf("%s: warnings are %q", server, c.Warnings)
		}
	}
}
