package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/internal/ui"
	"ferry/verify"
)

// app is what all commands share: how they talk, and how they reach servers.
type app struct {
	process
	*ui.UI
	flags struct {
		format, progress               string
		caFiles, insecure, plain, auth []string
		certDirs, clientCerts          []string
		s3Endpoint                     string
		jobs, hostJobs                 int
		rate, memory                   string
		site                           siteFlags
	}
	services *services // nil without a cluster
	client   *http.Client
	gate     *transfer.Gate
	rate     *transport.Rate // nil without --rate
	memory   int64           // bytes, as --memory says
	keychain authn.Keychain
	command  string // the command that was called, as "ferry import"
	closed   []func()
}

func newApp(p process) *app {
	a := &app{process: p}
	// Until the flags are read, ferry talks plainly.
	a.UI, _ = ui.New(ui.Options{Stdout: p.stdout, Stderr: p.stderr, Progress: ui.ProgressPlain})
	return a
}

// usageError says that a command was called the wrong way.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// addFlags adds the flags of all commands.
func (a *app) addFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&a.flags.format, "format", "text", "what stdout gets: text or json")
	f.StringVar(&a.flags.progress, "progress", "auto", "what stderr shows of a transfer: auto, plain, json or none")
	listVar(f, &a.flags.caFiles, "ca-file", "PEM `FILE` with certificates to trust besides the system's (repeatable)")
	listVar(f, &a.flags.certDirs, "cert-dir", "`DIR` of folders HOST[:PORT] with a host's *.crt, *.cert and *.key, besides docker's and podman's certs.d (repeatable)")
	f.StringArrayVar(&a.flags.clientCerts, "client-cert", nil, "`HOST=CERT,KEY`: PEM files to log in to a host with (repeatable)")
	listVar(f, &a.flags.insecure, "insecure", "`HOST` whose certificate is not checked (repeatable)")
	listVar(f, &a.flags.plain, "plain-http", "`HOST` that is reached without TLS (repeatable)")
	listVar(f, &a.flags.auth, "auth-host", "`HOST` of a token service that may get registry logins, besides the registry's own (repeatable)")
	f.StringVar(&a.flags.s3Endpoint, "s3-endpoint", "", "`URL` of the S3 service, for s3:// locations")
	a.flags.site.add(f)
	f.IntVar(&a.flags.jobs, "jobs", 4, "how many blobs or requests are under way at once")
	f.IntVar(&a.flags.hostJobs, "host-jobs", 0, "how many of them are under way at once with one host (default no limit but --jobs)")
	f.StringVar(&a.flags.memory, "memory", "128MiB", "`SIZE` of buffers; all but 32MiB of it is for the parts of volumes on their way to S3")
	f.StringVar(&a.flags.rate, "rate", "", "`SIZE/s`: how many bytes (not bits) go to and come from one host in a second, like 50MB/s (default no limit)")
}

// start sets up what the flags say.
func (a *app) start(cmd *cobra.Command, args []string) error {
	progress := a.flags.progress
	if progress == ui.ProgressAuto && a.env("TERM") == "dumb" {
		progress = ui.ProgressPlain
	}
	talk, err := ui.New(ui.Options{Stdout: a.stdout, Stderr: a.stderr, Format: a.flags.format, Progress: progress})
	if err != nil {
		return usageError{err}
	}
	a.UI = talk
	if a.flags.jobs < 1 || a.flags.jobs > 64 {
		return usagef("--jobs %d is not between 1 and 64", a.flags.jobs)
	}
	if affordable := affordableJobs(a.flags.jobs, openFiles()); affordable < a.flags.jobs {
		a.Warn("%d blobs at once instead of %d: the process may open only %d files (see ulimit -n)", affordable, a.flags.jobs, openFiles())
		a.flags.jobs = affordable
	}
	if err := a.limitHosts(cmd); err != nil {
		return err
	}
	if err := a.limitMemory(); err != nil {
		return err
	}
	for _, host := range a.flags.insecure {
		a.Warn("the certificate of %s is not checked, as --insecure says: whoever is between can read and change everything", host)
	}
	for _, host := range a.flags.plain {
		a.Warn("%s is reached without TLS, as --plain-http says", host)
	}
	if err := a.openSite(cmd.Context(), cmd, args); err != nil {
		return err
	}
	if a.keychain, err = a.logins(); err != nil {
		return err
	}
	var o transport.Options
	if cmd.Name() == "doctor" {
		o.Retries = 1 // who asks how things are does not want to wait
	}
	a.client, err = a.newClient(o)
	return err
}

// limitHosts sets up what the flags say of each host. Work is bounded under
// cmd's context.
func (a *app) limitHosts(cmd *cobra.Command) error {
	most := a.flags.hostJobs
	if cmd.Flags().Changed("host-jobs") {
		if most < 1 || most > 64 {
			return usagef("--host-jobs %d is not between 1 and 64", most)
		}
	} else {
		most = 2 * a.flags.jobs // as many as there are, when references are resolved
	}
	a.gate = transfer.NewGate(most)
	cmd.SetContext(a.gate.With(cmd.Context()))
	if a.flags.rate == "" {
		return nil
	}
	size, err := ui.ParseBytes(strings.TrimSuffix(a.flags.rate, "/s"))
	switch {
	case err != nil:
		return usagef("--rate: %w", err)
	case size < transport.MinRate:
		return usagef("--rate %q is less than %d KiB/s", a.flags.rate, transport.MinRate>>10)
	}
	a.rate = transport.NewRate(size)
	return nil
}

const (
	// minMemory, in bytes, is that of two parts of a volume in S3: one that
	// is sent, and one that is written meanwhile.
	minMemory = 16 << 20
	// besideParts, in bytes, is what streams, copies and requests take.
	besideParts = 32 << 20
)

// partsMemory returns what the parts of volumes may take, in bytes.
func (a *app) partsMemory() int64 { return max(a.memory-besideParts, minMemory) }

// limitMemory reads what --memory says.
func (a *app) limitMemory() error {
	size, err := ui.ParseBytes(a.flags.memory)
	switch {
	case err != nil:
		return usagef("--memory: %w", err)
	case size < minMemory:
		return usagef("--memory %q is less than %d MiB", a.flags.memory, minMemory>>20)
	}
	a.memory = size
	return nil
}

// newClient returns an HTTP client with what the flags say of TLS and rate. Who
// is not told otherwise tells the gate what comes of its requests.
func (a *app) newClient(o transport.Options) (*http.Client, error) {
	o.CertDirs, o.UserCertDirs = a.flags.certDirs, certDirs(runtime.GOOS, a.env("HOME"))
	o.CAFiles, o.Insecure, o.UserAgent, o.Log = a.flags.caFiles, a.flags.insecure, "ferry/"+version(), a.Say
	if o.Rate = a.rate; o.Observe == nil {
		o.Observe = a.gate.Observe
	}
	if ca := a.services.authorities(); len(ca) > 0 {
		o.Authorities = append(o.Authorities, ca)
	}
	for _, s := range a.flags.clientCerts {
		host, files, _ := strings.Cut(s, "=")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || host == "" || cert == "" || key == "" {
			return nil, usagef("--client-cert %q is not HOST=CERT,KEY", s)
		}
		o.ClientCerts = append(o.ClientCerts, transport.ClientCert{Host: host, CertFile: cert, KeyFile: key})
	}
	client, err := transport.New(o)
	if err != nil {
		return nil, usageError{err}
	}
	a.onClose(client.CloseIdleConnections)
	return client, nil
}

func (a *app) close() {
	for _, f := range a.closed {
		f()
	}
}

// onClose has f called when the command ends.
func (a *app) onClose(f func()) { a.closed = append(a.closed, f) }

// finish tells about err, and returns the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		err = a.Err()
	}
	if err == nil {
		return 0
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		a.Error("interrupted: run the same command again to go on")
		return code
	}
	var failed *preflight.FailedError
	var notBegun notBegunError
	switch { // each check has been told
	case errors.As(err, &notBegun):
		a.Error("nothing was written")
		return code
	case errors.As(err, &failed):
		a.Error("%s failed", count(len(failed.Checks), "check"))
		return code
	}
	a.Fail(err)
	hint := hintFor(err, code)
	if hint == "" && code == exitUsage {
		hint = a.command + " --help shows how it is called"
	}
	if hint != "" {
		a.Hint("%s", hint)
	}
	return code
}

// certDirs returns where other tools keep certificates by host.
func certDirs(goos, home string) []string {
	if goos == "windows" {
		return nil
	}
	dirs := []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}
	if home != "" {
		dirs = append(dirs, filepath.Join(home, ".config/docker/certs.d"), filepath.Join(home, ".config/containers/certs.d"))
	}
	return dirs
}

// registry returns a client for registries.
func (a *app) registry() *registry.Client {
	return registry.New(registry.Options{HTTP: a.client, Keychain: a.keychain, PlainHTTP: a.flags.plain, AuthHosts: a.flags.auth})
}

// follow shows the progress of what verb names while do runs.
func (a *app) follow(verb string, do func(transfer.Progress) error) error {
	progress, stop := a.StartProgress(verb)
	defer stop()
	return do(progress)
}

// readKeys returns the public keys in the files.
func readKeys(files []string) ([]verify.Key, error) {
	if len(files) == 0 {
		return nil, verify.ErrNoKey
	}
	var keys []verify.Key
	for _, name := range files {
		pem, err := readFile(name, 64<<10)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		if bytes.Contains(pem, []byte("PRIVATE KEY-----")) {
			return nil, usagef("%s is a private key, which stays with the exporter: give the public one, cosign.pub", name)
		}
		key, err := verify.ParseKey(pem)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readFile returns the content of a file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return content, err
}

// signer opens the private key in a file, with the password in
// COSIGN_PASSWORD or asked for on the terminal.
func (a *app) signer(ctx context.Context, file string) (*verify.Signer, error) {
	unlock, err := a.lockedSigner(ctx, file)
	if err != nil {
		return nil, err
	}
	return unlock()
}

// lockedSigner is signer up to where the key is decrypted, which unlock does.
func (a *app) lockedSigner(ctx context.Context, file string) (unlock func() (*verify.Signer, error), err error) {
	pem, err := readFile(file, 64<<10)
	if err != nil {
		return nil, err
	}
	password, err := a.password(ctx, "password of "+file, false)
	if err != nil {
		return nil, err
	}
	return func() (*verify.Signer, error) {
		signer, err := verify.LoadSigner(pem, password)
		debug.FreeOSMemory() // scrypt took 64 MiB, which nobody needs again
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return signer, nil
	}, nil
}

var errNoPassword = errors.New("no password: set COSIGN_PASSWORD, or run on a terminal to be asked")

// trimScheme returns s without a leading "oci:", "docker://" or the like that
// users know from other tools.
func trimScheme(s string) string {
	for _, scheme := range []string{"docker://", "oci://", "https://"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			return strings.TrimSuffix(rest, "/")
		}
	}
	return s
}

// count returns n with its noun, in the plural when that is due.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
