package transfer_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// bundleFrom returns a bundle of samples that was exported from a server.
func bundleFrom(t *testing.T, outside *registrytest.Server, samples []*registrytest.Sample) *bundle.Reader {
	t.Helper()
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	store := &storetest.Mem{}
	if _, err := export(t, newClient(t), requestsFor(t, outside.Host, samples), store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	return openReader(t, bundle.Sub(store, "demo/1"), "")
}

// Content is pushed in an order that a registry takes which refuses what refers
// to something that is not there yet, be it a subject.
func TestPushOrder(t *testing.T) {
	strict := registrytest.Options{Faults: []registrytest.Fault{registrytest.Strict()}}
	samples, client := registrytest.Samples(), newClient(t)
	for name, r := range map[string]*bundle.Reader{
		"from one with referrers API":    bundleFrom(t, registrytest.Olareg(t, registrytest.Options{}), samples),
		"from one without referrers API": bundleFrom(t, registrytest.Start(t, registrytest.Options{}), samples),
	} {
		for to, server := range map[string]*registrytest.Server{"distribution": registrytest.Start(t, strict), "olareg": registrytest.Olareg(t, strict),
			"memory": registrytest.Memory(t, strict)} {
			t.Run(name+" to "+to, func(t *testing.T) {
				if _, err := importTo(t, client, r, transfer.Destination{Host: server.Host}); err != nil {
					t.Fatal(err)
				}
				checkArrived(t, client, server.Host, "", samples)
			})
		}
	}
	// It can say no.
	server := registrytest.Memory(t, strict)
	for _, s := range samplesAt(t, "team/chain", "team/multi", "team/single") {
		for _, m := range slices.Backward(s.Manifests) {
			repo := registry.Repository{Host: server.Host, Path: "a/b"}
			if err := client.PushManifest(t.Context(), repo.Digest(m.Digest), m.MediaType, m.Bytes); err == nil {
				t.Errorf("%s was taken without what it refers to", m.Digest)
			}
		}
	}
}

// lists returns the tags at a host under which referrers are listed.
func lists(t *testing.T, server *registrytest.Server, path string) []string {
	t.Helper()
	tags, err := newClient(t).Tags(t.Context(), registry.Repository{Host: server.Host, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(tags, func(tag string) bool { return len(tag) != len("sha256-")+64 })
}

// Where a registry lists referrers itself no list is pushed, which it could
// take for its own; where it does not, the list is there. To do it again is to
// do nothing.
func TestListsOfReferrers(t *testing.T) {
	samples := samplesAt(t, "team/signed", "team/chain")
	r := bundleFrom(t, registrytest.Start(t, registrytest.Options{}), samples)
	harbor := harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{})
	harbor.AddRobot("robot$x", "secret", "*", "repository:push", "repository:pull")
	for name, tt := range map[string]struct {
		server *registrytest.Server
		lists  int
		absent bool
	}{
		"olareg":                      {registrytest.Olareg(t, registrytest.Options{}), 0, false},
		"memory":                      {registrytest.Memory(t, registrytest.Options{}), 0, false},
		"Harbor, a project to create": {registrytest.Serve(t, harbor, registrytest.Options{}), 0, true},
		"memory, without the API":     {registrytest.Memory(t, registrytest.Options{NoReferrers: true}), 2, false},
		"distribution":                {registrytest.Start(t, registrytest.Options{}), 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := &http.Client{Transport: &http.Transport{}}
			t.Cleanup(h.CloseIdleConnections)
			client := registry.New(registry.Options{HTTP: h, Keychain: registry.Static{Host: tt.server.Host, Username: "robot$x", Password: "secret"}})
			to := transfer.Destination{Host: tt.server.Host}
			deliveries, _, err := transfer.Deliveries(r, to)
			if err != nil {
				t.Fatal(err)
			}
			o := transfer.PushOptions{Progress: transfer.Silent{}}
			if tt.absent {
				o.Absent = func(registry.Repository) bool { return true }
				o.Prepare = func(context.Context) error { harbor.AddProject("team", true, -1); return nil }
			}
			src := transfer.BundleSource(r)
			plan, err := transfer.PlanPush(t.Context(), client, src, deliveries, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := transfer.Push(t.Context(), client, src, plan, o); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, q := range tt.server.Writes() {
				if _, tag, found := strings.Cut(q.Path, "/manifests/sha256-"); found && len(tag) == 64 {
					n++
				}
			}
			if name != "Harbor, a project to create" {
				if got := len(lists(t, tt.server, "team/signed")); got != tt.lists {
					t.Errorf("%d lists of referrers, want %d", got, tt.lists)
				}
			}
			if (n > 0) != (tt.lists > 0) {
				t.Errorf("%d lists were written", n)
			}
			if _, err := transfer.ReadBack(t.Context(), client, src, deliveries, transfer.ReadBackOptions{Progress: transfer.Silent{}}); err != nil {
				t.Error(err)
			}
			checkArrived(t, client, tt.server.Host, "", samples)
			again, err := importTo(t, client, r, to)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range again.Images {
				if !i.Present || again.Manifests+again.TagsWritten != 0 {
					t.Errorf("the second import has done %+v", again)
				}
				for _, d := range i.Referrers { // what is told is there
					if _, err := client.Head(t.Context(), registry.Repository{Host: tt.server.Host, Path: strings.TrimPrefix(i.Repository, tt.server.Host+"/")}.Digest(d)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// A signature or the like whose content is lost at the source after it was
// found is an error, and no bundle is made; its manifest has been read by then,
// and is carried.
func TestLostAtSource(t *testing.T) {
	sample := samplesAt(t, "team/signed")[0]
	for name, start := range map[string]func(testing.TB, registrytest.Options) *registrytest.Server{"distribution": registrytest.Start, "olareg": registrytest.Olareg} {
		t.Run(name, func(t *testing.T) {
			outside, client := start(t, registrytest.Options{}), newClient(t)
			referrers := bundleFrom(t, outside, []*registrytest.Sample{sample}).Manifest().Images[0].Referrers
			if len(referrers) < 6 {
				t.Fatalf("only %d referrers", len(referrers))
			}
			for _, r := range referrers {
				if r.MediaType == oci.MediaTypeIndex {
					continue // a list
				}
				content, _ := sample.Manifest(r.Digest)
				m, err := oci.Parse(content, r.MediaType)
				if err != nil {
					t.Fatal(err)
				}
				for _, what := range []string{"manifests/" + r.Digest.String(), "blobs/" + m.Layers[0].Digest.String()} {
					if err := sample.Push(t.Context(), outside.Host); err != nil {
						t.Fatal(err)
					}
					selection, err := transfer.Resolve(t.Context(), client, requestsFor(t, outside.Host, []*registrytest.Sample{sample}), nil, 2)
					if err != nil {
						t.Fatal(err)
					}
					store := &storetest.Mem{}
					plan, err := transfer.PlanExport(t.Context(), selection, store, testSigner(t), options(t, "demo"))
					if err != nil {
						t.Fatal(err)
					}
					send(t, http.MethodDelete, outside.URL+"/v2/"+sample.Repository+"/"+what, "", nil)
					_, err = transfer.Export(t.Context(), plan, client, options(t, "demo"))
					found, listErr := bundle.List(t.Context(), store)
					if listErr != nil {
						t.Fatal(listErr)
					}
					complete := slices.ContainsFunc(found, func(f bundle.Found) bool { return !f.Pending })
					if carried := strings.HasPrefix(what, "manifests/"); carried != (err == nil) || carried != complete || !carried && !errors.Is(err, registry.ErrNotFound) {
						t.Errorf("without %s of %s: %v, complete %v", what, r.Digest, err, complete)
					}
				}
			}
		})
	}
}

// vanishing deletes the manifest d as soon as it was put under a name for which
// when is true.
func vanishing(d verify.Digest, when func(name string) bool) registrytest.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			base, name, _ := strings.Cut(r.URL.Path, "/manifests/")
			if r.Method != http.MethodPut || !when(name) {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
			r = r.Clone(r.Context())
			r.Method, r.URL.Path, r.Body, r.ContentLength = http.MethodDelete, base+"/manifests/"+d.String(), http.NoBody, 0
			next.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}

// A signature or the like that does not stay at the destination is an error,
// and the image gets no tag.
func TestLostAtDestination(t *testing.T) {
	sample := samplesAt(t, "team/signed")[0]
	r := bundleFrom(t, registrytest.Olareg(t, registrytest.Options{}), []*registrytest.Sample{sample})
	client := newClient(t)
	for name, start := range map[string]func(testing.TB, registrytest.Options) *registrytest.Server{"distribution": registrytest.Start, "olareg": registrytest.Olareg} {
		for _, ref := range r.Manifest().Images[0].Referrers {
			whens := map[string]func(string) bool{"pushed": func(name string) bool { return name == ref.Digest.String() }}
			if ref.Tag != "" {
				whens["tagged"] = func(name string) bool { return name == ref.Tag }
			}
			for what, when := range whens {
				t.Run(name+" "+ref.ArtifactType+" "+ref.Tag+" "+what, func(t *testing.T) {
					server := start(t, registrytest.Options{Faults: []registrytest.Fault{vanishing(ref.Digest, when)}})
					_, err := importTo(t, client, r, transfer.Destination{Host: server.Host})
					if !errors.Is(err, transfer.ErrLost) {
						t.Errorf("%v", err)
					}
					for _, tag := range sample.ImageTags() {
						if _, err := client.Head(t.Context(), registry.Repository{Host: server.Host, Path: sample.Repository}.Tag(tag)); !errors.Is(err, registry.ErrNotFound) {
							t.Errorf("tag %s: %v", tag, err)
						}
					}
				})
			}
		}
	}
}
