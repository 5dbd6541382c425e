package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"go.uber.org/goleak"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/transport"
	"ferry/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient returns a client that waits little between attempts.
func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	if o.HTTP == nil {
		o.HTTP = newHTTP(t, transport.Options{})
	}
	c := New(o)
	c.pause, c.lockout = time.Millisecond, time.Millisecond
	return c
}

func newHTTP(t testing.TB, o transport.Options) *http.Client {
	t.Helper()
	o.Backoff = time.Millisecond
	if o.Idle == 0 {
		o.Idle = 20 * time.Second
	}
	h, err := transport.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	return h
}

// keys is a keychain of passwords by host.
type keys map[string]authn.AuthConfig

func (k keys) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := k[r.RegistryStr()]; ok {
		return authn.FromConfig(a), nil
	}
	return authn.Anonymous, nil
}

func user(name, password string) authn.AuthConfig {
	return authn.AuthConfig{Username: name, Password: password}
}

// sample returns the sample in the repository path.
func sample(t testing.TB, path string) *registrytest.Sample {
	t.Helper()
	for _, s := range registrytest.Samples() {
		if s.Repository == path {
			return s
		}
	}
	t.Fatalf("no sample %s", path)
	return nil
}

// push puts s into a registry.
func push(t testing.TB, s *registrytest.Sample, host string) Repository {
	t.Helper()
	if err := s.Push(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	_, bare, ok := strings.Cut(host, "@")
	if !ok {
		bare = host
	}
	return Repository{Host: bare, Path: s.Repository}
}

// backends are the registries that all behaviour is shown on.
func backends(t *testing.T, test func(t *testing.T, start func(testing.TB, ...registrytest.Fault) *registrytest.Server)) {
	t.Run("memory", func(t *testing.T) {
		test(t, func(t testing.TB, f ...registrytest.Fault) *registrytest.Server {
			return registrytest.Memory(t, registrytest.Options{Faults: f})
		})
	})
	t.Run("distribution", func(t *testing.T) {
		test(t, func(t testing.TB, f ...registrytest.Fault) *registrytest.Server {
			return registrytest.Start(t, registrytest.Options{Faults: f})
		})
	})
}

func readBlob(t testing.TB, c *Client, r Repository, d oci.Descriptor) ([]byte, error) {
	t.Helper()
	body, err := c.Blob(t.Context(), r, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// Everything that registries hold is pulled as it is, and pushed so that it is
// the same.
func TestRoundTrip(t *testing.T) {
	backends(t, func(t *testing.T, start func(testing.TB, ...registrytest.Fault) *registrytest.Server) {
		source, target := start(t), start(t)
		c := newClient(t, Options{})
		for _, s := range registrytest.Samples() {
			t.Run(s.Name, func(t *testing.T) {
				from := push(t, s, source.Host)
				to := Repository{Host: target.Host, Path: "copy/" + s.Repository}
				for _, b := range s.Blobs {
					open := func(ctx context.Context, off int64) (io.ReadCloser, error) {
						if off != 0 {
							return nil, errors.New("it was opened in the middle without a break")
						}
						return c.Blob(ctx, from, b.Descriptor)
					}
					if got, err := c.PushBlob(t.Context(), to, b.Descriptor, open, nil); err != nil || got.Mounted {
						t.Fatalf("PushBlob = %v, %v", got, err)
					}
					if got, err := c.PushBlob(t.Context(), to, b.Descriptor, nil, nil); err != nil || !got.Existed {
						t.Fatalf("PushBlob again = %v, %v", got, err)
					}
				}
				for _, m := range s.Manifests {
					d, content, err := c.Get(t.Context(), from.Digest(m.Digest))
					if err != nil || d.Digest != m.Digest || d.MediaType != m.MediaType || d.Size != m.Size {
						t.Fatalf("Get = %v, %v, want %v", d, err, m.Descriptor)
					}
					if err := c.PushManifest(t.Context(), to.Digest(d.Digest), d.MediaType, content); err != nil {
						t.Fatal(err)
					}
				}
				for tag, digest := range s.Tags {
					d, content, err := c.Get(t.Context(), from.Tag(tag))
					if err != nil || d.Digest != digest {
						t.Fatalf("Get %s = %v, %v, want %v", tag, d.Digest, err, digest)
					}
					if err := c.PushManifest(t.Context(), to.Tag(tag), d.MediaType, content); err != nil {
						t.Fatal(err)
					}
					if d, err := c.Head(t.Context(), to.Tag(tag)); err != nil || d.Digest != digest || d.Size != int64(len(content)) {
						t.Errorf("Head %s = %v, %v, want %v", tag, d, err, digest)
					}
				}
				for _, m := range s.Manifests {
					if _, content, err := c.Get(t.Context(), to.Digest(m.Digest)); err != nil || string(content) != string(m.Bytes) {
						t.Errorf("manifest %s came back as %q, %v", m.Digest, content, err)
					}
				}
				for _, b := range s.Blobs {
					if content, err := readBlob(t, c, to, b.Descriptor); err != nil || string(content) != string(b.Bytes) {
						t.Errorf("blob %s came back with %d bytes, %v", b.Digest, len(content), err)
					}
				}
			})
		}
	})
}

func TestPing(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	c := newClient(t, Options{})
	if err := c.Ping(t.Context(), s.Host); err != nil {
		t.Error(err)
	}
	if base, err := c.BaseURL(t.Context(), s.Host); err != nil || base != s.URL {
		t.Errorf("BaseURL = %q, %v, want %q", base, err, s.URL)
	}
	if _, err := c.BaseURL(t.Context(), "a/b"); !errors.Is(err, ErrName) {
		t.Errorf("BaseURL(a/b) = %v, want ErrName", err)
	}
	if err := c.Ping(t.Context(), "a/b"); !errors.Is(err, ErrName) {
		t.Errorf("Ping(a/b) = %v, want ErrName", err)
	}
	gone := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{
		registrytest.Reset(-1, registrytest.All, false)}})
	if _, err := c.BaseURL(t.Context(), gone.Host); !errors.Is(err, ErrUnavailable) {
		t.Errorf("BaseURL of a registry that hangs up: %v", err)
	}
	if err := c.Ping(t.Context(), gone.Host); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a registry that hangs up: %v, want ErrUnavailable", err)
	}
	other := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{
		registrytest.Answer(-1, registrytest.Path("/v2/"), 404, http.Header{"Content-Type": {"text/plain"}}, "no registry here")}})
	var e *Error
	if err := c.Ping(t.Context(), other.Host); !errors.As(err, &e) || e.Status != 404 || !strings.Contains(err.Error(), "no registry here") {
		t.Errorf("something else than a registry: %v", err)
	}
	if n := len(s.Requests()); n != 1 { // TLS was tried before, and is no request here
		t.Errorf("%d requests for a ping, want 1", n)
	}
}

// Plain HTTP is for loopback and for listed hosts only.
func TestPlainHTTP(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	tls := registrytest.Memory(t, registrytest.Options{TLS: true})
	_, port, _ := strings.Cut(s.Host, ":")
	// A host that is no loopback for who reads its name.
	resolve := newHTTP(t, transport.Options{Retries: -1})
	resolve.Transport = redial{resolve.Transport, "registry.test:" + port, s.Host}
	name := "registry.test:" + port
	tests := []struct {
		name, host string
		o          Options
		ok         bool
	}{
		{"loopback", s.Host, Options{}, true},
		{"elsewhere", name, Options{HTTP: resolve}, false},
		{"elsewhere and listed", name, Options{HTTP: resolve, PlainHTTP: []string{"Registry.test:" + port}}, true},
		{"elsewhere and another listed", name, Options{HTTP: resolve, PlainHTTP: []string{"registry.test"}}, false},
		{"TLS on loopback", tls.Host, Options{HTTP: newHTTP(t, transport.Options{CAFiles: []string{tls.CAFile(t)}})}, true},
		{"TLS of an unknown authority on loopback", tls.Host, Options{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newClient(t, tt.o).Ping(t.Context(), tt.host)
			if (err == nil) != tt.ok {
				t.Errorf("Ping = %v, want ok %v", err, tt.ok)
			}
			if err != nil && errors.Is(err, ErrUnavailable) {
				t.Errorf("%v is ErrUnavailable, as if it might get better", err)
			}
		})
	}
}

// redial sends requests for one host to another.
type redial struct {
	next     http.RoundTripper
	from, to string
}

func (r redial) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != r.from {
		return r.next.RoundTrip(req)
	}
	clone := req.Clone(req.Context())
	clone.URL.Host, clone.Host = r.to, r.from
	resp, err := r.next.RoundTrip(clone)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (r redial) CloseIdleConnections() {
	if c, ok := r.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// A cancelled context ends everything at once.
func TestCancelled(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	img := sample(t, "team/single")
	r := push(t, img, s.Host)
	c := newClient(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := img.Blobs[0].Descriptor
	other := Repository{Host: s.Host, Path: "other/x"}
	calls := map[string]func() error{
		"Ping":         func() error { return c.Ping(ctx, s.Host) },
		"Get":          func() error { _, _, err := c.Get(ctx, r.Tag("latest")); return err },
		"Head":         func() error { _, err := c.Head(ctx, r.Tag("latest")); return err },
		"Blob":         func() error { _, err := c.Blob(ctx, r, b); return err },
		"HasBlob":      func() error { _, _, err := c.HasBlob(ctx, r, b.Digest); return err },
		"PushBlob":     func() error { _, err := c.PushBlob(ctx, other, b, nil, nil); return err },
		"PushManifest": func() error { return c.PushManifest(ctx, other.Tag("1"), oci.MediaTypeManifest, []byte("{}")) },
		"Tags":         func() error { _, err := c.Tags(ctx, r); return err },
		"Referrers":    func() error { _, _, err := c.Referrers(ctx, r, img.Root.Digest); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
}

// No name that was put together wrongly gets into a URL.
func TestBadNames(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	c := newClient(t, Options{})
	bad := Repository{Host: s.Host, Path: "a/../../v1"}
	var none verify.Digest
	d := oci.Descriptor{Digest: verify.DigestOf(nil)}
	good := Repository{Host: s.Host, Path: "a"}
	calls := map[string]func() error{
		"Get":             func() error { _, _, err := c.Get(t.Context(), bad.Tag("1")); return err },
		"Get bad tag":     func() error { _, _, err := c.Get(t.Context(), good.Tag("../1")); return err },
		"Get nothing":     func() error { _, _, err := c.Get(t.Context(), good.Tag("")); return err },
		"Head":            func() error { _, err := c.Head(t.Context(), bad.Tag("1")); return err },
		"Blob":            func() error { _, err := c.Blob(t.Context(), bad, d); return err },
		"Blob no digest":  func() error { _, err := c.Blob(t.Context(), good, oci.Descriptor{}); return err },
		"HasBlob":         func() error { _, _, err := c.HasBlob(t.Context(), bad, d.Digest); return err },
		"PushBlob":        func() error { _, err := c.PushBlob(t.Context(), bad, d, nil, nil); return err },
		"PushManifest":    func() error { return c.PushManifest(t.Context(), bad.Tag("1"), "x", nil) },
		"Tags":            func() error { _, err := c.Tags(t.Context(), bad); return err },
		"Referrers":       func() error { _, _, err := c.Referrers(t.Context(), bad, d.Digest); return err },
		"Referrers empty": func() error { _, _, err := c.Referrers(t.Context(), good, none); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrName) {
			t.Errorf("%s = %v, want ErrName", name, err)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

// insecure returns the options for a TLS server whose certificate is not
// checked.
func insecure(host string) transport.Options {
	return transport.Options{Insecure: []string{host}}
}
