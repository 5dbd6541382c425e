package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ClientCert is a client certificate for one host.
type ClientCert struct {
	Host     string // "host" for all its ports, or "host:port"
	CertFile string // PEM: the certificate, then those that lead to its authority
	KeyFile  string // PEM, without a passphrase
}

// CertFileError says which file of certificates or keys is of no use.
type CertFileError struct {
	File string
	Err  error
}

func (e *CertFileError) Error() string { return fmt.Sprintf("certificate file %q: %v", e.File, e.Err) }

// Unwrap returns e.Err.
func (e *CertFileError) Unwrap() error { return e.Err }

// hosts are the transports of the hosts with TLS needs of their own.
type hosts struct {
	roots    *x509.CertPool // of all hosts; nil means the system's
	certDirs []string
	userDirs []string // more of them, of which parts may be out of reach
	certs    []hostCert
	insecure []hostPort
	idle     time.Duration
	log      func(string, ...any)

	mu       sync.Mutex
	own      map[hostPort]*http.Transport // nil for a host without such needs
	reported []string                     // keys that others can read
}

// hostCert is a client certificate and whom it is for.
type hostCert struct {
	host hostPort
	cert tls.Certificate
}

// hostTLS is what certs.d says of one host.
type hostTLS struct {
	authorities []string // files
	certs       []tls.Certificate
}

// addClientCert adds c.
func (h *hosts) addClientCert(c ClientCert) error {
	host, err := parseHostPort(c.Host)
	if err != nil {
		return fmt.Errorf("client certificate for %w", err)
	}
	cert, err := h.loadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return err
	}
	h.certs = append(h.certs, hostCert{host, cert})
	return nil
}

// transport returns the transport for a host and port, or nil when that has no
// needs of its own. Errors: [*CertFileError].
func (h *hosts) transport(to hostPort) (*http.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.own[to]; ok {
		return t, nil
	}
	config, err := h.config(to)
	if err != nil {
		return nil, err // and read again next time
	}
	var t *http.Transport
	if config != nil {
		t = h.newHostTransport(to, config)
	}
	h.own[to] = t
	return t, nil
}

func (h *hosts) closeIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.own {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}

// config returns the configuration for a host and port, or nil when that of
// all hosts will do.
func (h *hosts) config(to hostPort) (*tls.Config, error) {
	found, err := h.readCertDirs(to)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: h.roots}
	config.InsecureSkipVerify = slices.ContainsFunc(h.insecure, func(i hostPort) bool { return i.covers(to) })
	for _, c := range h.certs {
		if c.host.covers(to) {
			config.Certificates = append(config.Certificates, c.cert)
		}
	}
	config.Certificates = append(config.Certificates, found.certs...)
	if len(found.authorities) > 0 {
		if config.RootCAs, err = addRoots(h.roots, found.authorities); err != nil {
			return nil, err
		}
	}
	if !config.InsecureSkipVerify && len(config.Certificates) == 0 && len(found.authorities) == 0 {
		return nil, nil
	}
	return config, nil
}

// newHostTransport returns a transport that uses config with the host it is
// for only. A proxy on the way that is itself reached by TLS must satisfy what
// holds for all hosts, and sees no client certificate: net/http would use
// config for both.
func (h *hosts) newHostTransport(to hostPort, config *tls.Config) *http.Transport {
	t := newTransport(config, h.idle)
	direct := config.Clone()
	direct.NextProtos = []string{"h2", "http/1.1"}
	proxy := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: h.roots}
	own := net.JoinHostPort(to.host, to.port)
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.EqualFold(addr, own) {
			return dialTLS(ctx, t.DialContext, network, addr, direct)
		}
		return dialTLS(ctx, t.DialContext, network, addr, proxy)
	}
	return t
}

// dialTLS returns a connection to addr after its TLS handshake.
func dialTLS(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network, addr string, config *tls.Config) (net.Conn, error) {
	raw, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(addr)
	conn := tls.Client(raw, config)
	limited, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(limited); err != nil {
		raw.Close()
		if limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("TLS handshake with %s takes more than %s", addr, handshakeTime)
		}
		return nil, err
	}
	return conn, nil
}

// readCertDirs returns what the folders for a host say.
func (h *hosts) readCertDirs(to hostPort) (hostTLS, error) {
	var found hostTLS
	for i, dir := range slices.Concat(h.certDirs, h.userDirs) {
		for _, name := range folderNames(to) {
			err := h.readCertDir(filepath.Join(dir, name), &found)
			switch {
			case i >= len(h.certDirs) && isOutOfReach(err):
				h.say("%v: passed over", err)
			case err != nil:
				return hostTLS{}, err
			}
		}
	}
	return found, nil
}

// isOutOfReach reports whether err says that a file may not be read, or that
// what should be a folder is none.
func isOutOfReach(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR)
}

func (h *hosts) say(format string, args ...any) {
	if h.log != nil {
		h.log(format, args...)
	}
}

// folderNames returns how the folders for a host may be called, the closest
// first.
func folderNames(to hostPort) []string {
	all := []string{net.JoinHostPort(to.host, to.port), to.host}
	if strings.Contains(to.host, ":") {
		all = append(all, "["+to.host+"]")
	}
	var names []string
	for _, name := range all {
		if runtime.GOOS == "windows" {
			name = strings.ReplaceAll(name, ":", "")
		}
		// A host named ".." must not lead out of the folder.
		if name != "." && filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`) {
			names = append(names, name)
		}
	}
	return names
}

// readCertDir adds what the folder dir says to found.
func (h *hosts) readCertDir(dir string, found *hostTLS) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &CertFileError{dir, bare(err)}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		base := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		switch filepath.Ext(e.Name()) {
		case ".crt":
			found.authorities = append(found.authorities, file)
		case ".cert":
			if !has(base + ".key") {
				return &CertFileError{file, fmt.Errorf("there is no %q beside it", base+".key")}
			}
			cert, err := h.loadPair(file, filepath.Join(dir, base+".key"))
			if err != nil {
				return err
			}
			found.certs = append(found.certs, cert)
		case ".key":
			if !has(base + ".cert") {
				return &CertFileError{file, fmt.Errorf("there is no %q beside it", base+".cert")}
			}
		}
	}
	return nil
}

// loadPair returns a client certificate, and reports a key that others can
// read (T69). The caller holds h.mu, or h is not in use yet.
func (h *hosts) loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, _, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, mode, err := readFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, &CertFileError{certFile, fmt.Errorf("with key file %q: %w", keyFile, err)}
	}
	if mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" && !slices.Contains(h.reported, keyFile) {
		h.reported = append(h.reported, keyFile)
		h.say("private key %q can be read by others than its owner (mode %04o)", keyFile, mode.Perm())
	}
	return pair, nil
}

// readFile returns the content and the mode of a file of at most maxCAFile
// bytes. Errors: [*CertFileError].
func readFile(name string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, &CertFileError{name, bare(err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, &CertFileError{name, bare(err)}
	}
	content, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err == nil && len(content) > maxCAFile {
		err = fmt.Errorf("more than %d bytes", maxCAFile)
	}
	if err != nil {
		return nil, 0, &CertFileError{name, bare(err)}
	}
	return content, info.Mode(), nil
}

// bare returns err without the file's name.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// loadRoots returns the system's certificates and those in files and PEM
// texts, or nil, which means the system's, when there are none.
func loadRoots(files []string, texts [][]byte) (*x509.CertPool, error) {
	if len(files)+len(texts) == 0 {
		return nil, nil
	}
	roots, err := addRoots(nil, files)
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		if err := addCertificates(roots, text); err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
	}
	return roots, nil
}

// addRoots returns the certificates in roots, or the system's when that is
// nil, and those in files. Errors: [*CertFileError].
func addRoots(roots *x509.CertPool, files []string) (*x509.CertPool, error) {
	var err error
	if roots == nil {
		roots, err = x509.SystemCertPool()
	} else {
		roots = roots.Clone()
	}
	if err != nil {
		return nil, fmt.Errorf("system certificates: %w", err)
	}
	for _, name := range files {
		content, _, err := readFile(name)
		if err != nil {
			return nil, err
		}
		if err := addCertificates(roots, content); err != nil {
			return nil, &CertFileError{name, err}
		}
	}
	return roots, nil
}

// addCertificates adds to pool every certificate in the PEM text rest.
func addCertificates(pool *x509.CertPool, rest []byte) error {
	found := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", found+1, err)
		}
		pool.AddCert(c)
		found++
	}
	if found == 0 {
		return errors.New("no certificate in it")
	}
	return nil
}
