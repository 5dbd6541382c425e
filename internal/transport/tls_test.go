package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// leaf says what a certificate is for.
type leaf struct {
	name    string // common name
	hosts   []string
	expired bool
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// sign returns a certificate and its key, in PEM.
func (a *authority) sign(t *testing.T, l leaf) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: l.name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if l.expired {
		template.NotAfter = time.Now().Add(-time.Hour)
	}
	for _, h := range l.hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

func (a *authority) pem() []byte { return encode("CERTIFICATE", a.cert.Raw) }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// site is a TLS server that says which client certificate it was shown.
type site struct {
	*httptest.Server
	port string
	mu   sync.Mutex
	seen []string // common names, "" for none
}

// startSite starts a server with a certificate for l, which wants client
// certificates of clients when that is not nil, and sends more after its own.
func (a *authority) startSite(t *testing.T, l leaf, clients *authority, edit func(*tls.Config), more ...[]byte) *site {
	t.Helper()
	if l.hosts == nil {
		l.hosts = []string{"127.0.0.1", "localhost"}
	}
	cert, key := a.sign(t, l)
	for _, m := range more {
		cert = append(cert, m...)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		s.mu.Lock()
		s.seen = append(s.seen, name)
		s.mu.Unlock()
		io.WriteString(w, r.Proto+" "+name)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(clients.cert)
	}
	if edit != nil {
		edit(s.TLS)
	}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = discardLog()
	s.StartTLS()
	t.Cleanup(s.Close)
	_, s.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return s
}

// tree writes files, contents by path, and returns the folder.
func tree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// T69: which servers are trusted, and which are shown a client certificate.
func TestTLSMatrix(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("folders for host and port are called otherwise")
	}
	ca, otherCA, clientCA := newAuthority(t, "Site CA"), newAuthority(t, "Other CA"), newAuthority(t, "Client CA")
	plain := ca.startSite(t, leaf{name: "plain"}, nil, nil)
	expired := ca.startSite(t, leaf{name: "expired", expired: true}, nil, nil)
	misnamed := ca.startSite(t, leaf{name: "misnamed", hosts: []string{"elsewhere.test"}}, nil, nil)
	old := ca.startSite(t, leaf{name: "old"}, nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
	mutual := ca.startSite(t, leaf{name: "mutual"}, clientCA, nil)
	mutual12 := ca.startSite(t, leaf{name: "mutual12"}, clientCA, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	me, myKey := clientCA.sign(t, leaf{name: "me"})
	stranger, strangeKey := otherCA.sign(t, leaf{name: "stranger"})
	files := tree(t, map[string][]byte{
		"ca.pem": ca.pem(), "other.pem": otherCA.pem(), "me.cert": me, "me.key": myKey, "s.cert": stranger, "s.key": strangeKey,
	})
	file := func(name string) string { return filepath.Join(files, name) }
	crt := func(hosts ...string) []string {
		all := map[string][]byte{"readme": []byte("nothing")}
		for _, h := range hosts {
			all[h+"/ca.crt"], all[h+"/README"] = ca.pem(), []byte("x")
		}
		return []string{filepath.Join(t.TempDir(), "missing"), tree(t, all)}
	}
	mine := func(host string) []ClientCert { return []ClientCert{{host, file("me.cert"), file("me.key")}} }
	trusted := []string{file("ca.pem")}
	all := func(host string) []string {
		return []string{tree(t, map[string][]byte{host + "/a.crt": ca.pem(), host + "/me.cert": me, host + "/me.key": myKey})}
	}
	port := func(s *site) string { return "127.0.0.1:" + s.port }
	tests := []struct {
		name string
		o    Options
		site *site
		want string // what the site answers; empty: an error
		text string // in that error
	}{
		{"no CA", Options{}, plain, "", `issued by "CN=Site CA"`},
		{"wrong CA", Options{CAFiles: []string{file("other.pem")}}, plain, "", "unknown authority"},
		{"CAFiles", Options{CAFiles: trusted}, plain, "HTTP/2.0 ", ""},
		{"several CAFiles", Options{CAFiles: []string{file("other.pem"), file("ca.pem")}}, plain, "HTTP/2.0 ", ""},
		{"certs.d of host and port", Options{CertDirs: crt(port(plain))}, plain, "HTTP/2.0 ", ""},
		{"certs.d of host", Options{CertDirs: crt("127.0.0.1")}, plain, "HTTP/2.0 ", ""},
		{"certs.d adds to CAFiles", Options{CAFiles: trusted, CertDirs: []string{tree(t, map[string][]byte{"127.0.0.1/x.crt": otherCA.pem()})}}, plain, "HTTP/2.0 ", ""},
		{"certs.d of another port", Options{CertDirs: crt(port(mutual))}, plain, "", "unknown authority"},
		{"certs.d of another host", Options{CertDirs: crt("localhost", "127.0.0.2", "0.0.1", "localhost:"+plain.port)}, plain, "", "unknown authority"},
		{"certs.d itself", Options{CertDirs: []string{tree(t, map[string][]byte{"ca.crt": ca.pem()})}}, plain, "", "unknown authority"},
		{"expired", Options{CAFiles: trusted}, expired, "", "expired"},
		{"wrong name", Options{CAFiles: trusted}, misnamed, "", "127.0.0.1"},
		{"old TLS", Options{CAFiles: trusted}, old, "", "protocol version"},
		{"old TLS, insecure", Options{Insecure: []string{"127.0.0.1"}}, old, "", "protocol version"},
		{"old TLS, own CA", Options{CertDirs: crt("127.0.0.1")}, old, "", "protocol version"},
		{"insecure", Options{Insecure: []string{"127.0.0.1"}}, plain, "HTTP/2.0 ", ""},
		{"insecure, expired", Options{Insecure: []string{port(expired)}}, expired, "HTTP/2.0 ", ""},
		{"insecure, another", Options{Insecure: []string{port(expired), "localhost"}}, plain, "", "unknown authority"},
		{"client certificate absent", Options{CAFiles: trusted}, mutual, "", "certificate required"},
		{"client certificate absent, TLS 1.2", Options{CAFiles: trusted}, mutual12, "", "tls: "},
		{"client certificate", Options{CAFiles: trusted, ClientCerts: mine("127.0.0.1")}, mutual, "HTTP/2.0 me", ""},
		{"client certificate, TLS 1.2", Options{CAFiles: trusted, ClientCerts: mine("127.0.0.1")}, mutual12, "HTTP/2.0 me", ""},
		{"client certificate for host and port", Options{CAFiles: trusted, ClientCerts: mine(port(mutual))}, mutual, "HTTP/2.0 me", ""},
		{"client certificate for another port", Options{CAFiles: trusted, ClientCerts: mine(port(plain))}, mutual, "", "certificate required"},
		{"client certificate for another host", Options{CAFiles: trusted, ClientCerts: mine("localhost")}, mutual, "", "certificate required"},
		{"client certificate that nobody knows", Options{CAFiles: trusted, ClientCerts: []ClientCert{{"127.0.0.1", file("s.cert"), file("s.key")}}}, mutual, "", "tls: "},
		{"client certificate of several", Options{CAFiles: trusted, ClientCerts: append([]ClientCert{{"127.0.0.1", file("s.cert"), file("s.key")}}, mine(port(mutual))...)}, mutual, "HTTP/2.0 me", ""},
		{"client certificate, wrong CA", Options{ClientCerts: mine("127.0.0.1")}, mutual, "", "unknown authority"},
		{"client certificate is not asked for", Options{CAFiles: trusted, ClientCerts: mine("127.0.0.1")}, plain, "HTTP/2.0 ", ""},
		{"insecure with client certificate", Options{Insecure: []string{"127.0.0.1"}, ClientCerts: mine("127.0.0.1")}, mutual, "HTTP/2.0 me", ""},
		{"insecure without client certificate", Options{Insecure: []string{"127.0.0.1"}}, mutual, "", "certificate required"},
		{"certs.d has both", Options{CertDirs: all(port(mutual))}, mutual, "HTTP/2.0 me", ""},
		{"certs.d has both, host", Options{CertDirs: all("127.0.0.1")}, mutual12, "HTTP/2.0 me", ""},
		{"certs.d has both, another host", Options{CertDirs: all("localhost"), CAFiles: trusted}, mutual, "", "certificate required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Backoff, tt.o.Retries = time.Hour, 1 // what is certain must not be tried again
			if tt.text == "certificate required" || tt.text == "tls: " {
				// The refusal may come after the connection has broken.
				tt.o.Backoff, tt.o.Retries = time.Millisecond, 50
			}
			_, body, err := get(t, client(t, tt.o), tt.site.URL)
			if body != tt.want || (err == nil) != (tt.want != "") {
				t.Fatalf("get = %q, %v, want %q", body, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v does not say %q", err, tt.text)
			}
		})
	}
}

// T69: what a redirect leads to sees no client certificate, and no trust that
// was given to another host.
func TestRedirectChangesTLS(t *testing.T) {
	ca, clientCA := newAuthority(t, "Site CA"), newAuthority(t, "Client CA")
	me, key := clientCA.sign(t, leaf{name: "me"})
	asks := func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }
	second := ca.startSite(t, leaf{}, nil, asks)
	first := ca.startSite(t, leaf{}, clientCA, nil)
	first.Config.Handler = http.RedirectHandler(strings.Replace(second.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
	dir := tree(t, map[string][]byte{"127.0.0.1/ca.crt": ca.pem(), "127.0.0.1/me.cert": me, "127.0.0.1/me.key": key})
	if _, _, err := get(t, client(t, Options{CertDirs: []string{dir}}), first.URL); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("after the redirect: %v, want an unknown authority", err)
	}
	c := client(t, Options{CertDirs: []string{dir}, Insecure: []string{"localhost"}})
	if _, body, err := get(t, c, first.URL); err != nil || body != "HTTP/2.0 " {
		t.Errorf("after the redirect: %q, %v", body, err)
	}
	if !slices.Equal(second.seen, []string{""}) {
		t.Errorf("the other host saw %q", second.seen)
	}
}

// T69: a proxy on the way, plain or TLS, sees no client certificate, and the
// host behind it does.
func TestProxyAndClientCert(t *testing.T) {
	ca, clientCA, proxyCA := newAuthority(t, "Site CA"), newAuthority(t, "Client CA"), newAuthority(t, "Proxy CA")
	me, key := clientCA.sign(t, leaf{name: "me"})
	s := ca.startSite(t, leaf{hosts: []string{"registry.test"}}, clientCA, nil)
	var connects, shown atomic.Int32
	tunnel := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects.Add(1)
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			shown.Add(1)
		}
		there, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { defer close(done); io.Copy(there, here); there.Close() }()
		io.Copy(here, there)
		here.Close()
		<-done
	})
	plain := httptest.NewServer(tunnel)
	t.Cleanup(plain.Close)
	cert, proxyKey := proxyCA.sign(t, leaf{hosts: []string{"127.0.0.1"}})
	pair, _ := tls.X509KeyPair(cert, proxyKey)
	secure := httptest.NewUnstartedServer(tunnel)
	secure.Config.ErrorLog = discardLog()
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	dir := tree(t, map[string][]byte{"registry.test/ca.crt": ca.pem(), "registry.test/me.cert": me, "registry.test/me.key": key})
	caFile := filepath.Join(tree(t, map[string][]byte{"ca.pem": proxyCA.pem()}), "ca.pem")
	ask := func(proxy string, o Options) (string, error) {
		c := client(t, o)
		own, err := c.Transport.(*retrier).hosts.transport(hostPort{"registry.test", "444"})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(proxy)
		own.Proxy = http.ProxyURL(u)
		_, body, err := get(t, c, "https://registry.test:444/")
		c.CloseIdleConnections()
		return body, err
	}
	if body, err := ask(plain.URL, Options{CertDirs: []string{dir}}); err != nil || body != "HTTP/2.0 me" {
		t.Errorf("through a plain proxy: %q, %v", body, err)
	}
	if body, err := ask(secure.URL, Options{CertDirs: []string{dir}, CAFiles: []string{caFile}}); err != nil || body != "HTTP/2.0 me" {
		t.Errorf("through a TLS proxy: %q, %v", body, err)
	}
	if connects.Load() != 2 || shown.Load() != 0 {
		t.Errorf("the proxies were asked %d times, and shown %d client certificates", connects.Load(), shown.Load())
	}
	_, err := ask(secure.URL, Options{CertDirs: []string{dir}, Insecure: []string{"registry.test"}})
	var unknown *UnknownAuthorityError
	if !errors.As(err, &unknown) || unknown.Host != secure.Listener.Addr().String() || unknown.Issuer != "CN=Proxy CA" {
		t.Errorf("a proxy that nobody knows: %v", err)
	}
}

func TestUnknownAuthorityError(t *testing.T) {
	ca := newAuthority(t, "Site\x1b[31m \"CA\"\n"+strings.Repeat("x", 1000))
	lone := ca.startSite(t, leaf{name: "harbor.site"}, nil, nil)
	chain := ca.startSite(t, leaf{name: "harbor.site"}, nil, nil, ca.pem())
	print := func(der []byte) string {
		sum := sha256.Sum256(der)
		s := strings.ToUpper(hex.EncodeToString(sum[:]))
		var parts []string
		for i := 0; i < len(s); i += 2 {
			parts = append(parts, s[i:i+2])
		}
		return strings.Join(parts, ":")
	}
	for _, tt := range []struct {
		site *site
		top  []byte
	}{{lone, lone.TLS.Certificates[0].Certificate[0]}, {chain, ca.cert.Raw}} {
		_, _, err := get(t, client(t, Options{Backoff: time.Hour}), tt.site.URL)
		var e *UnknownAuthorityError
		var x x509.UnknownAuthorityError
		var failed *tls.CertificateVerificationError
		if !errors.As(err, &e) || !errors.As(err, &x) || !errors.As(err, &failed) {
			t.Fatalf("error %v", err)
		}
		own := tt.site.TLS.Certificates[0].Certificate[0]
		if e.Host != tt.site.Listener.Addr().String() || e.Subject != "CN=harbor.site" || e.Issuer != ca.cert.Subject.String() ||
			e.Fingerprint != print(own) || e.TopFingerprint != print(tt.top) {
			t.Errorf("error %+v", e)
		}
		text := Cause(err).Error()
		for _, want := range []string{"unknown authority", e.Fingerprint, e.TopFingerprint, `Site\x1b[31m`} {
			if !strings.Contains(text, want) {
				t.Errorf("%q does not hold %q", text, want)
			}
		}
		if strings.ContainsAny(text, "\x1b\n") || len(text) > 2000 {
			t.Errorf("%q has foreign text as it came", text)
		}
	}
}

// A broken file concerns its host only, and at its first use.
func TestBrokenCertDir(t *testing.T) {
	ca := newAuthority(t, "CA")
	s := ca.startSite(t, leaf{}, nil, nil)
	cert, key := ca.sign(t, leaf{name: "me"})
	_, otherKey := ca.sign(t, leaf{name: "other"})
	tests := map[string]struct {
		files map[string][]byte
		names string // the file that is named
	}{
		"no certificate":     {map[string][]byte{"ca.crt": []byte("x")}, "ca.crt"},
		"empty":              {map[string][]byte{"ca.crt": nil}, "ca.crt"},
		"broken certificate": {map[string][]byte{"ca.crt": encode("CERTIFICATE", []byte("no"))}, "ca.crt"},
		"folder":             {map[string][]byte{"ca.crt/x": nil}, "ca.crt"},
		"no key":             {map[string][]byte{"me.cert": cert, "ca.crt": ca.pem()}, "me.cert"},
		"no certificate for": {map[string][]byte{"me.key": key, "ca.crt": ca.pem()}, "me.key"},
		"other key":          {map[string][]byte{"me.cert": cert, "me.key": otherKey}, "me.cert"},
		"broken key":         {map[string][]byte{"me.cert": cert, "me.key": []byte("canary")}, "me.cert"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{"127.0.0.1/ok.crt": ca.pem()}
			for name, content := range tt.files {
				files["localhost/"+name] = content
			}
			dir := tree(t, files)
			c := client(t, Options{CertDirs: []string{dir}, Backoff: time.Hour})
			if _, _, err := get(t, c, s.URL); err != nil {
				t.Errorf("another host: %v", err)
			}
			for range 2 {
				_, _, err := get(t, c, strings.Replace(s.URL, "127.0.0.1", "localhost", 1))
				var bad *CertFileError
				if !errors.As(err, &bad) || bad.File != filepath.Join(dir, "localhost", tt.names) || !strings.Contains(err.Error(), tt.names) {
					t.Errorf("error %v, want one about %s", err, tt.names)
				}
				if err != nil && strings.Contains(err.Error(), "canary") {
					t.Errorf("error %v holds a key", err)
				}
			}
		})
	}
}

func TestBadClientCerts(t *testing.T) {
	ca := newAuthority(t, "CA")
	cert, key := ca.sign(t, leaf{name: "me"})
	dir := tree(t, map[string][]byte{"me.cert": cert, "me.key": key})
	certFile, keyFile, missing := filepath.Join(dir, "me.cert"), filepath.Join(dir, "me.key"), filepath.Join(dir, "missing")
	for want, c := range map[string]ClientCert{
		"missing": {"h.io", missing, keyFile}, `missing"`: {"h.io", certFile, missing}, "me.key": {"h.io", keyFile, keyFile},
		"client certificate for host": {"", certFile, keyFile}, `"https://h.io"`: {"https://h.io", certFile, keyFile},
	} {
		if _, err := New(Options{ClientCerts: []ClientCert{c}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New with %v = %v, want an error with %q", c, err, want)
		}
	}
}

// T69: a key that others can read is reported, once.
func TestOpenKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	ca := newAuthority(t, "CA")
	s := ca.startSite(t, leaf{}, ca, nil)
	cert, key := ca.sign(t, leaf{name: "me"})
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o400: 0, 0o640: 1, 0o604: 1, 0o644: 1} {
		dir := tree(t, map[string][]byte{"127.0.0.1/ca.crt": ca.pem(), "127.0.0.1/me.cert": cert, "127.0.0.1/me.key": key})
		keyFile := filepath.Join(dir, "127.0.0.1", "me.key")
		if err := os.Chmod(keyFile, mode); err != nil {
			t.Fatal(err)
		}
		var lines []string
		c := client(t, Options{
			CertDirs:    []string{dir},
			ClientCerts: []ClientCert{{"localhost", filepath.Join(dir, "127.0.0.1", "me.cert"), keyFile}},
			Log:         func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) },
		})
		for range 2 {
			if _, body, err := get(t, c, s.URL); err != nil || body != "HTTP/2.0 me" {
				t.Fatalf("get = %q, %v", body, err)
			}
		}
		if len(lines) != want || want > 0 && !strings.Contains(lines[0], keyFile) {
			t.Errorf("mode %o: reports %q, want %d", mode, lines, want)
		}
	}
}

// SSL_CERT_FILE replaces the system's authorities, and CAFiles are added. The
// system's are read once in a process, so this takes one of its own.
func TestSystemRoots(t *testing.T) {
	if urls := os.Getenv("TEST_URLS"); urls != "" {
		c := client(t, Options{CAFiles: filepath.SplitList(os.Getenv("TEST_CA_FILES")), CertDirs: []string{os.Getenv("TEST_CERT_DIR")}, Retries: -1})
		for _, u := range strings.Split(urls, " ") {
			_, body, err := get(t, c, u)
			fmt.Printf("%s: %v\n", u, err == nil && body == "HTTP/2.0 ")
		}
		return
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("SSL_CERT_FILE means nothing here")
	}
	system, extra, local, other := newAuthority(t, "system"), newAuthority(t, "extra"), newAuthority(t, "local"), newAuthority(t, "other")
	var urls []string
	for _, ca := range []*authority{system, extra, local, other} {
		urls = append(urls, ca.startSite(t, leaf{}, nil, nil).URL)
	}
	files := tree(t, map[string][]byte{"system.pem": system.pem(), "extra.pem": extra.pem(),
		"d/" + strings.TrimPrefix(urls[2], "https://") + "/ca.crt": local.pem()})
	for _, withExtra := range []bool{false, true} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSystemRoots$")
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(files, "system.pem"), "SSL_CERT_DIR="+t.TempDir(),
			"TEST_CERT_DIR="+filepath.Join(files, "d"), "TEST_URLS="+strings.Join(urls, " "))
		if withExtra {
			cmd.Env = append(cmd.Env, "TEST_CA_FILES="+filepath.Join(files, "extra.pem"))
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for i, want := range []bool{true, withExtra, true, false} {
			if line := fmt.Sprintf("%s: %v\n", urls[i], want); !strings.Contains(string(out), line) {
				t.Errorf("CAFiles %v: output %q, want %q", withExtra, out, line)
			}
		}
	}
}

func TestFolderNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("folders are called otherwise")
	}
	tests := []struct {
		in   hostPort
		want []string
	}{
		{hostPort{"harbor.site", "8443"}, []string{"harbor.site:8443", "harbor.site"}},
		{hostPort{"::1", "443"}, []string{"[::1]:443", "::1", "[::1]"}},
		{hostPort{"..", "443"}, []string{"..:443"}},
		{hostPort{".", "443"}, []string{".:443"}},
		{hostPort{`..\x`, "443"}, nil},
		{hostPort{"../x", "443"}, nil},
	}
	for _, tt := range tests {
		if got := folderNames(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("folderNames(%v) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
