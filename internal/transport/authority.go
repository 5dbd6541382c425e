package transport

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// maxName, in bytes, is how much of a certificate's name an error shows.
const maxName = 256

// UnknownAuthorityError says that a server's certificate is signed by an
// authority that is not trusted, and which one that is. It wraps the errors of
// crypto/tls and crypto/x509.
type UnknownAuthorityError struct {
	// Host is the host, with its port where the URL has one, that showed
	// the certificate: the one that was asked, or a proxy before it.
	Host string
	// Subject and Issuer are the names in the server's certificate, as the
	// server wrote them: foreign text.
	Subject, Issuer string
	// Fingerprint is the SHA-256 of the server's certificate, in the form
	// "AB:CD:…" that openssl prints.
	Fingerprint string
	// TopSubject, TopIssuer and TopFingerprint are those of the last
	// certificate that the server sent: its authority's, when it sends
	// that, and its own when it sends no other.
	TopSubject, TopIssuer, TopFingerprint string
	// Err is the error of crypto/tls.
	Err error
}

func (e *UnknownAuthorityError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: the certificate of %q is issued by %s, SHA-256 fingerprint %s",
		e.Err, e.Host, name(e.Issuer), e.Fingerprint)
	if e.TopFingerprint != e.Fingerprint {
		fmt.Fprintf(&b, "; the last that it sent is that of %s, SHA-256 fingerprint %s", name(e.TopSubject), e.TopFingerprint)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *UnknownAuthorityError) Unwrap() error { return e.Err }

// name returns the name in a certificate for use in a message.
func name(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

// explain returns err, with which r over pool ended, with what is to be known
// of an authority that is not trusted.
func explain(pool *http.Transport, r *http.Request, err error) error {
	var unknown x509.UnknownAuthorityError
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &unknown) || !errors.As(err, &failed) || len(failed.UnverifiedCertificates) == 0 {
		return err
	}
	leaf, top := failed.UnverifiedCertificates[0], failed.UnverifiedCertificates[len(failed.UnverifiedCertificates)-1]
	e := &UnknownAuthorityError{
		Host: r.URL.Host, Err: err,
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Fingerprint: fingerprint(leaf),
		TopSubject: top.Subject.String(), TopIssuer: top.Issuer.String(), TopFingerprint: fingerprint(top),
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		if proxy, proxyErr := pool.Proxy(r); proxyErr == nil && proxy != nil {
			e.Host = proxy.Host
		}
	}
	return e
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}
