package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/transport"
	"ferry/verify"
)

// harbor returns a Harbor with a project, a robot that may push to it and one
// that may pull, reached by TLS, and clients as these two.
func harbor(t *testing.T, o harbortest.Options) (*harbortest.Server, *registrytest.Server, *Client, *Client) {
	t.Helper()
	hb := harbortest.New(registrytest.Backend(t, registrytest.Options{}), o)
	hb.AddProject("team", false, 10<<20)
	hb.AddRobot("robot$team+ci", "p$:1", "team", "repository:pull", "repository:push")
	hb.AddRobot("robot$team+ro", "p$:2", "team", "repository:pull")
	s := registrytest.Serve(t, hb, registrytest.Options{TLS: true})
	h := newHTTP(t, transport.Options{CAFiles: []string{s.CAFile(t)}})
	pusher := newClient(t, Options{HTTP: h, Keychain: keys{s.Host: user("robot$team+ci", "p$:1")}})
	puller := newClient(t, Options{HTTP: h, Keychain: keys{s.Host: user("robot$team+ro", "p$:2")}})
	return hb, s, pusher, puller
}

// copySample pushes all of a sample into r.
func copySample(t *testing.T, c *Client, s *registrytest.Sample, r Repository) error {
	t.Helper()
	for _, b := range s.Blobs {
		if _, err := c.PushBlob(t.Context(), r, b.Descriptor, (&memSource{b: b.Bytes}).Open, nil); err != nil {
			return err
		}
	}
	for _, m := range s.Manifests {
		if err := c.PushManifest(t.Context(), r.Digest(m.Digest), m.MediaType, m.Bytes); err != nil {
			return err
		}
	}
	for tag, d := range s.Tags {
		m, _ := s.Manifest(d)
		if err := c.PushManifest(t.Context(), r.Tag(tag), mediaTypeOf(t, m), m); err != nil {
			return err
		}
	}
	return nil
}

func mediaTypeOf(t *testing.T, manifest []byte) string {
	t.Helper()
	m, err := oci.Parse(manifest, "")
	if err != nil {
		t.Fatal(err)
	}
	return m.MediaType
}

// A robot brings all samples into Harbor, by tokens, and another reads them.
func TestHarbor(t *testing.T) {
	_, s, pusher, puller := harbor(t, harbortest.Options{ExternalURL: "http://harbor.behind.a.proxy"})
	if err := pusher.Ping(t.Context(), s.Host); err != nil {
		t.Errorf("Ping: %v", err)
	}
	for _, img := range registrytest.Samples() {
		r := Repository{s.Host, img.Repository}
		if err := copySample(t, pusher, img, r); err != nil {
			t.Fatal(err)
		}
		for tag, want := range img.Tags {
			if d, err := puller.Head(t.Context(), r.Tag(tag)); err != nil || d.Digest != want {
				t.Errorf("Head %s = %v, %v", tag, d, err)
			}
		}
		for _, b := range img.Blobs {
			if _, err := readBlob(t, puller, r, b.Descriptor); err != nil {
				t.Error(err)
			}
		}
		if tags, err := puller.Tags(t.Context(), r); err != nil || len(tags) != len(img.Tags) {
			t.Errorf("tags %v, %v, want %d", tags, err, len(img.Tags))
		}
	}
	for _, q := range s.Requests() {
		if q.Path == "/service/token" && strings.Contains(q.Query, "push") && q.Status != 200 {
			t.Errorf("%s", q)
		}
	}
}

// Harbor refuses a wrong blob, and nothing of it is left; where nothing can be
// pushed it proves nothing.
func TestHarborLeaveHashTo(t *testing.T) {
	hb, s, pusher, puller := harbor(t, harbortest.Options{})
	hb.AddProject("full", false, 1)
	hb.AddRobot("robot$full", "p$:3", "full", "repository:pull", "repository:push")
	h := newHTTP(t, insecure(s.Host))
	full := newClient(t, Options{HTTP: h, Keychain: keys{s.Host: user("robot$full", "p$:3")}})
	tests := []struct {
		name   string
		client *Client
		path   string
		want   bool
	}{
		{"no right to push", puller, "team/app", false},
		{"missing project", pusher, "nosuch/app", false},
		{"no quota left", full, "full/app", false},
		{"sound", pusher, "team/app", true},
	}
	for _, tt := range tests {
		if got, err := tt.client.LeaveHashTo(t.Context(), Repository{s.Host, tt.path}); got != tt.want || err != nil {
			t.Errorf("%s: LeaveHashTo = %t, %v, want %t", tt.name, got, err, tt.want)
		}
	}
	for _, q := range s.Requests() {
		if q.Status == http.StatusCreated {
			t.Errorf("stored: %s", q)
		}
	}
}

// What Harbor refuses is told apart, and is not asked for over and over.
func TestHarborRefusals(t *testing.T) {
	hb, s, pusher, puller := harbor(t, harbortest.Options{})
	hb.AddImmutableRule(t, "team", "fixed*")
	img := sample(t, "team/single")
	r := Repository{s.Host, "team/app"}
	if err := copySample(t, pusher, img, r); err != nil {
		t.Fatal(err)
	}
	m, _ := img.Manifest(img.Root.Digest)
	if err := pusher.PushManifest(t.Context(), r.Tag("fixed1"), img.Root.MediaType, m); err != nil {
		t.Fatal(err)
	}
	other := []byte(strings.Replace(string(m), `"layers"`, `"annotations":{"a":"b"},"layers"`, 1))
	b, d := content(12 << 20)
	h := newHTTP(t, insecure(s.Host))
	wrong := newClient(t, Options{HTTP: h, Keychain: keys{s.Host: user("robot$team+ci", "wrong")}})
	nobody := newClient(t, Options{HTTP: h})
	push := func(c *Client, path string) error {
		_, err := c.PushBlob(t.Context(), Repository{s.Host, path}, d, (&memSource{b: b}).Open, nil)
		return err
	}
	tests := []struct {
		name string
		call func() error
		want error
		text string
	}{
		{"over quota", func() error { return push(pusher, "team/big") }, ErrQuota, "exceed the configured upper limit"}, // T59
		{"missing project", func() error { return push(pusher, "nosuch/app") }, ErrUnauthorized, "robot$team+ci"},       // T56
		{"no right to push", func() error { return push(puller, "team/app") }, ErrUnauthorized, "robot$team+ro"},        // T56
		{"wrong password", func() error { return push(wrong, "team/app") }, ErrUnauthorized, "robot$team+ci"},           // T56
		{"nobody", func() error { return push(nobody, "team/app") }, ErrUnauthorized, ""},
		{"wrong password at ping", func() error { return wrong.Ping(t.Context(), s.Host) }, ErrUnauthorized, "robot$team+ci"},
		{"immutable, same", func() error { return pusher.PushManifest(t.Context(), r.Tag("fixed1"), img.Root.MediaType, m) }, nil, ""},                       // T60
		{"immutable, other", func() error { return pusher.PushManifest(t.Context(), r.Tag("fixed1"), img.Root.MediaType, other) }, ErrConflict, "immutable"}, // T60
		{"missing blob", func() error {
			return pusher.PushManifest(t.Context(), Repository{s.Host, "team/none"}.Tag("1"), img.Root.MediaType, m)
		}, ErrNotFound, "MANIFEST_BLOB_UNKNOWN"},
		{"missing manifest", func() error { _, _, err := pusher.Get(t.Context(), r.Tag("none")); return err }, ErrNotFound, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.Reset()
			err := tt.call()
			if !is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %v with %q", err, tt.want, tt.text)
			}
			if n := s.Count("", "/service/token"); n > 3 {
				t.Errorf("%d tokens were asked for", n)
			}
		})
	}
	hb.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]bool{"read_only": true})
	if err := push(pusher, "team/more"); !errors.Is(err, ErrReadOnly) { // T59
		t.Errorf("read-only: %v", err)
	}
	if err := pusher.PushManifest(t.Context(), r.Tag("2"), img.Root.MediaType, m); !errors.Is(err, ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
}

// T63: mounts in Harbor, from a repository, from none, and from no project.
func TestHarborMount(t *testing.T) {
	_, s, c, _ := harbor(t, harbortest.Options{})
	b, d := content(1 << 20)
	if _, err := c.PushBlob(t.Context(), Repository{s.Host, "team/from"}, d, (&memSource{b: b}).Open, nil); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"team/a": "nosuch/x", "team/b": "team/none", "team/c": "team/from"} {
		got, err := c.PushBlob(t.Context(), Repository{s.Host, to}, d, (&memSource{b: b}).Open, []Repository{{s.Host, from}})
		if err != nil || got.Mounted != (from == "team/from") {
			t.Errorf("PushBlob with a mount from %s = %v, %v", from, got, err)
		}
	}
}

// T55: Harbor's token ends while a blob goes up.
func TestHarborTokenEnds(t *testing.T) {
	_, s, c, _ := harbor(t, harbortest.Options{TokenLife: time.Second})
	b, d := content(4 << 20)

	c.chunk.Store(1 << 20)
	src := &memSource{b: b}
	open := func(ctx context.Context, off int64) (io.ReadCloser, error) {
		time.Sleep(400 * time.Millisecond)
		return src.Open(ctx, off)
	}
	if _, err := c.PushBlob(t.Context(), Repository{s.Host, "team/slow"}, d, open, nil); err != nil {
		t.Error(err)
	}
	if n := s.Count("", "/service/token"); n < 2 {
		t.Errorf("%d tokens in more than a second and a half", n)
	}
	if got, err := readBlob(t, c, Repository{s.Host, "team/slow"}, d); err != nil || verify.DigestOf(got) != d.Digest {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
