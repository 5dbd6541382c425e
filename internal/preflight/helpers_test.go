package preflight_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/harbor"
	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/verify"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // test servers log broken connections
	goleak.VerifyTestMain(m)
}

// site is a Harbor over TLS.
type site struct {
	*harbortest.Server
	t    *testing.T
	host string
	http *http.Client
}

func newSite(t *testing.T, o harbortest.Options) *site {
	t.Helper()
	s := &site{Server: harbortest.New(registrytest.MemoryHandler(true), o), t: t}
	web := registrytest.Serve(t, s.Server, registrytest.Options{TLS: true})
	s.host = web.Host
	var err error
	if s.http, err = transport.New(transport.Options{CAFiles: []string{web.CAFile(t)}, Retries: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

// options returns those for a login; the user "" is nobody.
func (s *site) options(user, password string) preflight.Options {
	o := registry.Options{HTTP: s.http}
	if user != "" {
		o.Keychain = registry.Static{Host: s.host, Username: user, Password: password}
	}
	return preflight.Options{Registry: registry.New(o), Host: s.host, LoginAdvice: "log in", Harbor: func(_ context.Context, base string, _ registry.Repository) (*harbor.Client, error) {
		return harbor.New(base, harbor.Options{HTTP: s.http, Username: user, Password: password})
	}}
}

func (s *site) admin() preflight.Options {
	return s.options(harbortest.AdminName, harbortest.AdminPassword)
}

func (s *site) repository(path string) registry.Repository {
	return registry.Repository{Host: s.host, Path: path}
}

// untouched fails the test if anything was written, or begun.
func (s *site) untouched() {
	s.t.Helper()
	for _, e := range s.Log() {
		if e.Method != http.MethodGet && e.Method != http.MethodHead {
			s.t.Errorf("Harbor was asked: %s %s", e.Method, e.Path)
		}
	}
}

// expired makes a robot that has expired.
func (s *site) expired(name string) (fullName, secret string) {
	s.t.Helper()
	r := s.Admin(s.t, http.MethodPost, "/api/v2.0/robots", map[string]any{"name": name, "level": "system", "duration": 1,
		"permissions": []any{map[string]any{"kind": "project", "namespace": "*",
			"access": []any{map[string]any{"resource": "repository", "action": "push"}, map[string]any{"resource": "repository", "action": "pull"}}}}})
	var doc struct{ Name, Secret string }
	if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
		s.t.Fatal(err)
	}
	s.SetClock(func() time.Time { return time.Now().AddDate(0, 0, 2) })
	return doc.Name, doc.Secret
}

// find returns the first check of a name.
func find(t *testing.T, r *preflight.Report, name string) preflight.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c preflight.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no check %s in %s", name, summary(r))
	}
	return r.Checks[i]
}

// summary returns the checks that found something, "name:level".
func summary(r *preflight.Report) string {
	var all []string
	for _, c := range r.Checks {
		if c.Level != preflight.OK {
			all = append(all, c.Name+":"+string(c.Level))
		}
	}
	return strings.Join(all, " ")
}

// content is a [transfer.Source] in memory.
type content map[verify.Digest][]byte

func (c content) Manifest(_ context.Context, d oci.Descriptor) ([]byte, error) {
	if b, ok := c[d.Digest]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("no %s", d.Digest)
}

func (c content) OpenBlob(_ context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c[d.Digest][off:])), nil
}

func (c content) add(mediaType string, b []byte) oci.Descriptor {
	d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(b), Size: int64(len(b))}
	c[d.Digest] = b
	return d
}

// image adds an image of layers with these contents.
func (c content) image(layers ...string) oci.Descriptor {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	plain := func(d oci.Descriptor) descriptor { return descriptor{d.MediaType, d.Digest.String(), d.Size} }
	var list []descriptor
	for _, l := range layers {
		list = append(list, plain(c.add("application/vnd.oci.image.layer.v1.tar", []byte(l))))
	}
	config := c.add("application/vnd.oci.image.config.v1+json", fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Labels":{"n":%q}}}`, strings.Join(layers, "+")))
	manifest, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": plain(config), "layers": list})
	return c.add("application/vnd.oci.image.manifest.v1+json", manifest)
}

func (s *site) delivery(root oci.Descriptor, path string, tags ...string) transfer.Delivery {
	return transfer.Delivery{Item: transfer.Item{Name: path, Root: root, Tags: tags}, Repository: s.repository(path)}
}

// look looks at the destination of deliveries and at their plan.
func (s *site) look(src transfer.Source, deliveries []transfer.Delivery, o preflight.Options) (*preflight.Destination, *transfer.PushPlan) {
	s.t.Helper()
	var repos []registry.Repository
	for _, d := range deliveries {
		repos = append(repos, d.Repository)
	}
	d := preflight.Look(s.t.Context(), repos, o)
	if d.Err() != nil {
		return d, nil
	}
	plan, err := transfer.PlanPush(s.t.Context(), o.Registry, src, deliveries, transfer.PushOptions{Absent: d.Absent})
	if err != nil {
		s.t.Fatal(err)
	}
	d.CheckPlan(s.t.Context(), plan)
	return d, plan
}

func (s *site) push(src transfer.Source, plan *transfer.PushPlan, o preflight.Options) error {
	_, err := transfer.Push(s.t.Context(), o.Registry, src, plan, transfer.PushOptions{Progress: transfer.Silent{}})
	return err
}

// used returns what a project stores, in bytes.
func (s *site) used(project string) int64 {
	s.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/v2.0/projects/"+project+"/summary", nil)
	r.SetBasicAuth(harbortest.AdminName, harbortest.AdminPassword)
	s.ServeHTTP(w, r)
	var doc struct {
		Quota struct{ Used struct{ Storage int64 } }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		s.t.Fatal(err, w.Body)
	}
	return doc.Quota.Used.Storage
}
