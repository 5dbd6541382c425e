package main

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
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
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/kubetest"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
)

// A site as WORKFLOWS.md has it: real names, TLS by the site's own authority,
// a Harbor, a real S3 server, and a cluster that knows of both.
const (
	siteSuffix = "site.test"
	siteHarbor = "harbor." + siteSuffix
	siteS3     = "objectstorage." + siteSuffix
	siteSecret = "object-storage-key-std-user-42"
	adminName  = harbortest.AdminName
)

type inside struct {
	t       *testing.T
	dir     string
	harbor  *harbortest.Server
	s3      *storetest.S3
	cluster *kubetest.Server
	config  string   // kubeconfig
	proxy   string   // the way to the site's names
	secrets []string // none of which may be seen

	mu     sync.Mutex
	dialed []string // hosts that were asked for by name
}

func newInside(t *testing.T) *inside {
	s := &inside{t: t, dir: t.TempDir(), s3: storetest.StartS3(t), cluster: kubetest.New(t),
		harbor: harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{ExternalURL: "https://" + siteHarbor})}
	ca, front := s.startFront()
	s.write("site-ca.pem", string(ca))
	s.proxy = s.startProxy(front)
	s.cluster.SetSite(kubetest.Site{S3Secret: siteSecret, AccessKey: s.s3.AccessKey, SecretKey: s.s3.SecretKey,
		Suffix: siteSuffix, HarborURL: "https://" + siteHarbor, Password: harbortest.AdminPassword, CA: string(ca)})
	s.cluster.AddUser("operator", "canary-token-5e1")
	s.cluster.AllowSite("operator", siteSecret)
	s.config = s.cluster.TokenConfig(t, "canary-token-5e1")
	s.secrets = []string{"canary-token-5e1", s.s3.SecretKey, harbortest.AdminPassword,
		base64.StdEncoding.EncodeToString([]byte(adminName + ":" + harbortest.AdminPassword))}
	for _, secret := range slices.Clone(s.secrets) {
		s.secrets = append(s.secrets, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
	return s
}

// startFront serves Harbor and S3 under their names with TLS.
func (s *inside) startFront() (ca []byte, address string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "front"}, DNSNames: []string{siteHarbor, siteS3},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	backend, err := url.Parse(s.s3.Endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	// The signature of a request holds the name that the client used.
	toS3 := &httputil.ReverseProxy{Transport: storetest.Client(s.t).Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(backend)
		r.Out.Host = r.In.Host
	}}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host {
		case siteHarbor:
			s.harbor.ServeHTTP(w, r)
		case siteS3:
			toS3.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: key}}}
	web.EnableHTTP2 = true
	web.StartTLS()
	s.t.Cleanup(web.Close)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), web.Listener.Addr().String()
}

// startProxy starts a proxy that leads the site's names to its front, as the
// site's DNS would.
func (s *inside) startProxy(front string) string {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.dialed = append(s.dialed, r.Host)
		s.mu.Unlock()
		if r.Method != http.MethodConnect || r.Host != siteHarbor+":443" && r.Host != siteS3+":443" {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		to, err := net.Dial("tcp", front)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		from, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			to.Close()
			return
		}
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		var both sync.WaitGroup
		relay := func(a, b net.Conn) {
			_, _ = io.Copy(a, b)
			a.Close()
			b.Close()
		}
		both.Go(func() { relay(to, from) })
		both.Go(func() { relay(from, to) })
		both.Wait()
	}))
	s.t.Cleanup(proxy.Close)
	return proxy.URL
}

func (s *inside) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// ferry runs the command as its user would: no docker, no AWS settings, one
// line. It returns what it answered and said.
func (s *inside) ferry(env []string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "ferry", args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "HTTPS_PROXY=" + s.proxy, "COSIGN_PASSWORD=one",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull}, env...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	s.t.Logf("ferry %s\n%s%s", strings.Join(args, " "), &talk, &out)
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatal(err)
	}
	for _, secret := range s.secrets {
		if strings.Contains(out.String()+talk.String(), secret) {
			s.t.Errorf("ferry %s prints a secret", strings.Join(args, " "))
		}
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

// ok is ferry where it must succeed.
func (s *inside) ok(env []string, args ...string) (stdout, stderr string) {
	s.t.Helper()
	stdout, stderr, code := s.ferry(env, args...)
	if code != 0 {
		s.t.Fatalf("exit code %d", code)
	}
	return stdout, stderr
}

func (s *inside) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(s.dialed)))
}

// W1: new artifacts in the bucket get into the site's Harbor with one command,
// be they a bundle or an archive made by other tools; who runs it has a
// kubeconfig and nothing else.
func TestWorkflow1(t *testing.T) {
	outside := newStock(t)
	s := newInside(t)
	sample := outside.samples[0]
	archive := filepath.Join(s.dir, "oracle_db.tar")
	outside.run(outside.crane, "pull", "--insecure", outside.outside.Host+"/"+sample.Repository+":"+sample.ImageTags()[0], archive)
	put := func(key, file string) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(s.s3.File(key)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.s3.File(key), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("g/oracle_db.tar", archive)
	outside.export("platform", outside.samples)
	folder := filepath.Join(outside.dir, "platform", "1")
	files, err := os.ReadDir(folder)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		put("platform/1/"+f.Name(), filepath.Join(folder, f.Name()))
	}
	bucket := "s3://" + s.s3.Bucket

	// The archive.
	stdout, stderr := s.ok(nil, "push", bucket+"/g/oracle_db.tar", siteHarbor+"/project/oracle_db:v2", "--allow-unsigned", "--create-projects",
		"--kubeconfig", s.config, "--s3-secret", siteSecret)
	if !strings.HasPrefix(stdout, siteHarbor+"/project/oracle_db:v2@sha256:") || !strings.Contains(stderr, "warning: nobody has signed") ||
		!strings.Contains(stderr, "created project project") {
		t.Errorf("%s%s", stdout, stderr)
	}
	if got, want := slices.Compact(slices.Sorted(slices.Values(s.cluster.Requests()))), []string{
		"GET /apis",
		"GET /apis/goharbor.io/v1beta1/namespaces/harbor-system/harborclusters/harbor",
		"GET /api/v1/namespaces/gpc-system/configmaps/dnssuffix",
		"GET /api/v1/namespaces/harbor-system/secrets/harbor-admin",
		"GET /api/v1/namespaces/object-storage-access-keys/secrets/" + siteSecret,
	}; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("the cluster was asked %q, want %q", got, want)
	}

	// The bundle, by Harbor's short name; the second time there is nothing to do.
	stdout, _ = s.ok(nil, "import", bucket+"/platform/1", "harbor://", "--key", testKey(t, "one.pub"), "--create-projects",
		"--kubeconfig", s.config, "--s3-secret", siteSecret)
	for _, sample := range outside.samples {
		for _, tag := range sample.ImageTags() {
			if want := siteHarbor + "/" + sample.Repository + ":" + tag + "@" + sample.Root.Digest.String(); !strings.Contains(stdout, want) {
				t.Errorf("no %s in\n%s", want, stdout)
			}
		}
	}
	s.harbor.ResetLog()
	_, stderr = s.ok(nil, "import", bucket+"/platform/1", siteHarbor, "--key", testKey(t, "one.pub"), "--kubeconfig", s.config, "--s3-secret", siteSecret)
	if !strings.Contains(stderr, "nothing to do") {
		t.Error(stderr)
	}
	for _, e := range s.harbor.Log() {
		if e.Method != http.MethodGet && e.Method != http.MethodHead {
			t.Errorf("the second import asks %s %s", e.Method, e.Path)
		}
	}
	if got, want := s.asked(), []string{siteHarbor + ":443", siteS3 + ":443"}; !slices.Equal(got, want) {
		t.Errorf("hosts asked: %q, want %q", got, want)
	}
	// What the manual way trips over.
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{2, "--s3-secret names the secret", []string{"import", bucket + "/platform/1", siteHarbor, "--key", testKey(t, "one.pub"), "--kubeconfig", s.config}},
		{2, "--kubeconfig names it", []string{"import", bucket + "/platform/1", "harbor://", "--key", testKey(t, "one.pub")}},
		{1, "certificate signed by unknown authority", []string{"latest", siteHarbor + "/project/oracle_db"}},
		{5, "login", []string{"latest", siteHarbor + "/project/oracle_db", "--ca-file", "site-ca.pem"}},
	} {
		if _, stderr, code := s.ferry(nil, c.args...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("ferry %q: exit code %d, want %d, with %q in\n%s", c.args, code, c.code, c.want, stderr)
		}
	}
}

// W2: the newest tag is found, pulled and extracted with one command each, or
// all in one, with a checked certificate and the login in a file.
func TestWorkflow2(t *testing.T) {
	s := newInside(t)
	s.harbor.AddProject("project", false, -1)
	s.harbor.AddRobot("robot$project+reader", "canary$robot+7", "project", "repository:pull", "artifact:list", "artifact:read")
	s.secrets = append(s.secrets, "canary$robot+7")
	clock := time.Now()
	var mu sync.Mutex
	s.harbor.SetClock(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return clock
	})
	layer := func(content string) string { return tarOf(t, "app/version", content) }
	push := func(content string, tags ...string) string {
		mu.Lock()
		clock = clock.Add(time.Minute)
		mu.Unlock()
		return s.harbor.PushImage(t, "project/apps/oracle_db", layer(content), tags...).String()
	}
	for i := range 120 {
		push(fmt.Sprint("build ", i), fmt.Sprintf("b%d", i))
	}
	v2 := push("two", "v2")
	push("three", "v3", "current")
	push("two", "current") // rolled back
	env := []string{"FERRY_HOST=" + siteHarbor, "FERRY_USERNAME=robot$project+reader", "FERRY_PASSWORD=canary$robot+7"}
	at := siteHarbor + "/project/apps/oracle_db"

	stdout, stderr := s.ok(env, "latest", at, "--ca-file", "site-ca.pem")
	if stdout != "current\n" || !strings.Contains(stderr, v2) {
		t.Errorf("%s%s", stdout, stderr)
	}
	stdout, _ = s.ok(env, "latest", at, "--ca-file", "site-ca.pem", "--by", "semver")
	if stdout != "v3\n" {
		t.Errorf("by version: %s", stdout)
	}
	s.ok(env, "pull", at+":@latest", "APP", "--ca-file", "site-ca.pem")
	s.ok(nil, "extract", "APP")
	s.ok(env, "extract", at+":@latest", "in-one-go", "--ca-file", "site-ca.pem")
	for _, dir := range []string{"APP-extracted", "in-one-go"} {
		if content, err := os.ReadFile(filepath.Join(s.dir, dir, "app", "version")); string(content) != "two" {
			t.Errorf("%s: %q, %v", dir, content, err)
		}
	}
	// The same with the login of the cluster.
	if stdout, _ := s.ok(nil, "latest", "harbor://project/apps/oracle_db", "--kubeconfig", s.config); stdout != "current\n" {
		t.Error(stdout)
	}
	// Without the CA there is one clear error that names it, and no password
	// goes out.
	s.harbor.ResetLog()
	_, stderr, code := s.ferry(env, "pull", at+":@latest", "never")
	if code != 1 || !strings.Contains(stderr, "--ca-file") || !strings.Contains(stderr, "--insecure") ||
		!strings.Contains(stderr, `"CN=site CA"`) || !strings.Contains(stderr, "fingerprint") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if log := s.harbor.Log(); len(log) > 0 {
		t.Errorf("Harbor was asked %v", log)
	}
}

// tarOf returns a tar archive of one file.
func tarOf(t *testing.T, name, content string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
