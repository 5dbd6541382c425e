package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// authority signs certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	a := &authority{key: key}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.cert = a.sign(t, template, template, key)
	return a
}

// sign returns template with a key, signed under parent.
func (a *authority) sign(t testing.TB, template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) pem() []byte { return certPEM(a.cert) }

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// serverCertificate is for this machine.
func (a *authority) serverCertificate(t testing.TB) tls.Certificate {
	key := newKey(t)
	cert := a.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"kubernetes", "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// verify returns the name in a client certificate of the authority.
func (a *authority) verify(c *x509.Certificate) (string, bool) {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return c.Subject.CommonName, err == nil
}

// ClientCert returns a certificate that is the login of user, and its key, as
// PEM.
func (s *Server) ClientCert(t testing.TB, user string) (cert, key []byte) {
	t.Helper()
	return s.ids.clientCert(t, user)
}

// ForeignClientCert returns what looks like [Server.ClientCert], by an
// authority that the server does not know.
func (s *Server) ForeignClientCert(t testing.TB, user string) (cert, key []byte) {
	t.Helper()
	return newAuthority(t, "kube-client-ca").clientCert(t, user)
}

func (a *authority) clientCert(t testing.TB, user string) (cert, key []byte) {
	t.Helper()
	private := newKey(t)
	c := a.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: []string{"system:operators"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, private)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM(c), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Config returns a kubeconfig with one context, "site", whose user "me" has no
// login yet.
func (s *Server) Config() *api.Config {
	c := api.NewConfig()
	c.Clusters["site"] = &api.Cluster{Server: s.URL(), CertificateAuthorityData: s.CA()}
	c.AuthInfos["me"] = &api.AuthInfo{}
	c.Contexts["site"] = &api.Context{Cluster: "site", AuthInfo: "me"}
	c.CurrentContext = "site"
	return c
}

// TokenConfig writes a kubeconfig whose login is token, and returns its name.
func (s *Server) TokenConfig(t testing.TB, token string) string {
	t.Helper()
	c := s.Config()
	c.AuthInfos["me"].Token = token
	return WriteConfig(t, c)
}

// CertConfig writes a kubeconfig whose login is a client certificate of user,
// and returns its name.
func (s *Server) CertConfig(t testing.TB, user string) string {
	t.Helper()
	c := s.Config()
	c.AuthInfos["me"].ClientCertificateData, c.AuthInfos["me"].ClientKeyData = s.ClientCert(t, user)
	return WriteConfig(t, c)
}

// WriteConfig writes c to a file of the test, and returns its name.
func WriteConfig(t testing.TB, c *api.Config) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, name); err != nil {
		t.Fatal(err)
	}
	return name
}
