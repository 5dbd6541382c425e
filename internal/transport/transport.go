// Package transport hides how the TLS roots, the retries, the time-outs, the
// rate and the redirects of an HTTP client are set up.
//
// # Retries
//
// A request is repeated when its body can be had again (it has none, or
// GetBody is set), after a pause that grows and is random (full jitter), or
// that the server asked for with Retry-After:
//
//   - 429 and 503: every method.
//   - 502 and 504, and errors of the network: GET, HEAD, PUT, DELETE,
//     OPTIONS, and any method under the context of [Repeatable].
//   - 500: GET and HEAD.
//   - No connection was made at all: every method.
//
// A wrong certificate, a name that does not exist and a server that speaks no
// TLS are errors at once. What a server says with Retry-After holds for all
// requests to that host.
//
// # Redirects
//
// Only GET and HEAD follow a redirect, five at most, never from https to
// http. On its way to another scheme, host or port a request keeps only the
// headers that say what it wants: no credential, cookie or referer. Other
// methods get the redirect itself as their response.
//
// # Certificates
//
// TLS has version 1.2 or higher. A server's certificate must be signed by one
// of the system's authorities, those in [Options].CAFiles, or those for its
// host in [Options].CertDirs, unless the host is insecure by name. Each host
// with needs of its own has its own pool of connections, so that neither an
// authority nor a client certificate nor an exception counts for another
// host, or for a proxy on the way.
//
// The system's authorities are what [x509.SystemCertPool] finds. On Linux and
// the BSDs the environment variables SSL_CERT_FILE and SSL_CERT_DIR replace
// them, and CAFiles are added to what these name. On macOS and Windows the
// system's own store decides and these variables mean nothing; CAFiles are
// added all the same.
//
// # Limits
//
// The headers of a response have at most 256 KiB. A connection is made in
// 30 s, a TLS handshake in 15 s. Waiting for headers, between two reads of a
// body and for the other side to take what is sent is bounded by
// [Options].Idle, in which a body also brings 1 KiB at least or counts as
// stuck; waits that [Options].Rate makes do not count. The whole of a body is
// not bounded: a caller reads no more than it expects.
package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxHeader, in bytes, bounds the headers of a response (T67); real ones
	// have a few KiB.
	maxHeader = 256 << 10
	// maxCAFile, in bytes, bounds a file of certificates; the certificates
	// of all public authorities together have 200 KiB.
	maxCAFile = 16 << 20
	// handshakeTime bounds a TLS handshake.
	handshakeTime = 15 * time.Second
	// maxRedirects is how many redirects one request follows (T64).
	maxRedirects = 5
	// maxWait is the longest pause between two attempts, even when a
	// server asks for more.
	maxWait = time.Minute
	// maxIdlePerHost is how many connections to one host are kept, so that
	// parallel transfers need no new handshakes.
	maxIdlePerHost = 16
	// bufferSize, in bytes, is how much is read from or written to a
	// connection at once; the 4 KiB of net/http cost time on big blobs.
	bufferSize = 64 << 10
)

// Options say how a client is set up. The zero Options are ready to use.
type Options struct {
	// CAFiles name PEM files whose certificates are trusted in addition to
	// the system's.
	CAFiles []string
	// Authorities are PEM texts whose certificates are trusted as well.
	Authorities [][]byte
	// CertDirs name folders of the form of docker's /etc/docker/certs.d and
	// podman's /etc/containers/certs.d: in a folder HOST:PORT, or HOST for
	// all its ports, each *.crt holds authorities that are trusted in
	// addition, and each pair of *.cert and *.key is a client certificate,
	// for that host only. On Windows the folder's name has no colon, as
	// docker has it. A folder is read when its host is first asked; a
	// missing one is no error, a broken file is a [*CertFileError].
	CertDirs []string
	// UserCertDirs are like CertDirs, but what may not be looked into there
	// is passed over: they are where other tools keep certificates, perhaps
	// for another user.
	UserCertDirs []string
	// ClientCerts are shown to the hosts they name, when these ask for one,
	// and come before those in CertDirs.
	ClientCerts []ClientCert
	// Insecure lists the hosts, "host" for all its ports or "host:port",
	// whose certificate is not checked. Every other host's is.
	Insecure []string
	// UserAgent is sent with requests that have none. Empty means "ferry".
	UserAgent string
	// Retries is how often a request is repeated after its first attempt.
	// Zero means 5, a negative number never.
	Retries int
	// Backoff is the longest pause before the second attempt; the bound
	// doubles with each attempt up to a minute. Zero means 500 ms.
	Backoff time.Duration
	// Idle is the longest wait for the headers of a response, between two
	// reads of its body, and for one write to be taken, and the time in
	// which a body must bring 1 KiB. Zero means 60 s.
	Idle time.Duration
	// Log is told about each attempt that is going to be repeated, and
	// about each private key that others can read, in words without
	// secrets; foreign text in it is quoted. It may be nil, and is called
	// from several goroutines.
	Log func(format string, args ...any)
	// Observe is told what came of each attempt, with the context of the
	// request and the host, with its port, that was asked before any
	// redirect. It may be nil, and is called from several goroutines.
	Observe func(ctx context.Context, host string, o Outcome)
	// Rate bounds the bytes per second of each host, for all clients that
	// share it. Nil means no bound.
	Rate *Rate
}

// New returns a client set up as o says. It keeps no cookies, never
// decompresses, and uses the proxies that the environment names, like
// [http.ProxyFromEnvironment]. Closing its idle connections ends all its
// goroutines. It fails with a [*CertFileError] when a file in CAFiles or
// ClientCerts can not be read or does not hold what it should, and when a host
// in Insecure or ClientCerts is malformed.
func New(o Options) (*http.Client, error) {
	roots, err := loadRoots(o.CAFiles, o.Authorities)
	if err != nil {
		return nil, err
	}
	idle := cmp.Or(o.Idle, time.Minute)
	r := &retrier{
		strict:    newTransport(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, idle),
		hosts:     &hosts{roots: roots, certDirs: o.CertDirs, userDirs: o.UserCertDirs, log: o.Log, idle: idle, own: make(map[hostPort]*http.Transport)},
		agent:     cmp.Or(o.UserAgent, "ferry"),
		retries:   max(cmp.Or(o.Retries, 5), 0),
		backoff:   max(cmp.Or(o.Backoff, 500*time.Millisecond), 1),
		idle:      idle,
		log:       o.Log,
		observe:   o.Observe,
		rate:      o.Rate,
		notBefore: make(map[string]time.Time),
	}
	for _, s := range o.Insecure {
		h, err := parseHostPort(s)
		if err != nil {
			return nil, fmt.Errorf("insecure %w", err)
		}
		r.hosts.insecure = append(r.hosts.insecure, h)
	}
	for _, c := range o.ClientCerts {
		if err := r.hosts.addClientCert(c); err != nil {
			return nil, err
		}
	}
	return &http.Client{Transport: r, CheckRedirect: checkRedirect}, nil
}

func newTransport(config *tls.Config, idle time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &impatientConn{c, idle}, nil
		},
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    handshakeTime,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: idle / 2, PingTimeout: idle / 2},
		DisableCompression:     true, // digests and ranges are of the bytes as stored
		MaxIdleConns:           4 * maxIdlePerHost,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
	}
}

// hostPort is a host, and a port unless all of them are meant.
type hostPort struct{ host, port string }

// covers reports whether h means the host and port of other.
func (h hostPort) covers(other hostPort) bool {
	return h.host == other.host && (h.port == "" || h.port == other.port)
}

// Covers reports whether one of hosts, "host" for all its ports or
// "host:port", means host, which may have a port. Malformed ones mean none.
func Covers(hosts []string, host string) bool {
	to, err := parseHostPort(host)
	if err != nil {
		return false
	}
	to.port = cmp.Or(to.port, "443")
	return slices.ContainsFunc(hosts, func(s string) bool {
		h, err := parseHostPort(s)
		return err == nil && h.covers(to)
	})
}

// parseHostPort parses "host", "host:port", an IPv6 address with or without
// brackets, or "[address]:port".
func parseHostPort(s string) (hostPort, error) {
	h := strings.ToLower(s)
	if bare := strings.TrimSuffix(strings.TrimPrefix(h, "["), "]"); net.ParseIP(bare) != nil {
		return hostPort{host: bare}, nil
	}
	bad := fmt.Errorf("host %q is neither host nor host:port", s)
	if !strings.Contains(h, ":") {
		h += ":"
	} else if strings.HasSuffix(h, ":") {
		return hostPort{}, bad
	}
	host, port, err := net.SplitHostPort(h)
	_, portErr := strconv.ParseUint(cmp.Or(port, "0"), 10, 16)
	named := host != "" && !strings.ContainsAny(host, ":/@[] ") || net.ParseIP(host) != nil
	if err != nil || portErr != nil || !named {
		return hostPort{}, bad
	}
	return hostPort{host, port}, nil
}

// Cause returns err without what net/http puts around it, which holds the
// whole URL and with it, perhaps, the secrets in its query.
func Cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
