package transfer_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// mover moves tags before request number at, counted from 1.
type mover struct {
	at, seen atomic.Int64
	to       map[string]registrytest.Content // by path of the tag's manifest
}

func (m *mover) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.seen.Add(1) == m.at.Load() {
			m.move(next)
		}
		next.ServeHTTP(w, r)
	})
}

func (m *mover) move(registry http.Handler) {
	for path, to := range m.to {
		put := httptest.NewRequest(http.MethodPut, path, bytes.NewReader(to.Bytes))
		put.Header.Set("Content-Type", to.MediaType)
		answer := httptest.NewRecorder()
		if registry.ServeHTTP(answer, put); answer.Code != http.StatusCreated {
			panic(answer.Body.String())
		}
	}
}

func rootOf(s *registrytest.Sample) registrytest.Content {
	i := slices.IndexFunc(s.Manifests, func(c registrytest.Content) bool { return c.Digest == s.Root.Digest })
	return s.Manifests[i]
}

// T30: a tag that is moved at the source before any request of an export gives
// the image of before or that of after, each with its own signatures and
// children, and never parts of both.
func TestTagMovesDuringExport(t *testing.T) {
	for _, noReferrers := range []bool{false, true} {
		samples := registrytest.Samples()
		find := func(repository string) *registrytest.Sample {
			return samples[slices.IndexFunc(samples, func(s *registrytest.Sample) bool { return s.Repository == repository })]
		}
		before, after := find("team/signed"), find("team/multi")
		tag := before.ImageTags()[0]
		m := &mover{}
		source := registrytest.MemoryHandler(!noReferrers)
		outside := registrytest.Serve(t, source, registrytest.Options{Faults: []registrytest.Fault{m.fault}})
		both := *after
		both.Repository, both.Tags = before.Repository, map[string]verify.Digest{}
		for name, d := range after.Tags {
			if d != after.Root.Digest {
				both.Tags[name] = d
			}
		}
		if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{before, &both}); err != nil {
			t.Fatal(err)
		}
		path := "/v2/" + before.Repository + "/manifests/" + tag
		client, asked := newClient(t), []transfer.Request{request(t, outside.Host+"/"+before.Repository+":"+tag)}
		seen := map[verify.Digest]int{}
		for n := int64(1); ; n++ {
			m.to = map[string]registrytest.Content{path: rootOf(before)}
			m.at.Store(0)
			m.move(source)
			m.to = map[string]registrytest.Content{path: rootOf(after)}
			m.seen.Store(0)
			m.at.Store(n)
			store := &storetest.Mem{}
			e, err := export(t, client, asked, store, options(t, "moved"))
			if err != nil {
				t.Fatalf("moved before request %d: %v", n, err)
			}
			r := openReader(t, bundle.Sub(store, e.plan.Folder), "")
			if _, err := transfer.Verify(t.Context(), r, 2, transfer.Silent{}); err != nil {
				t.Fatalf("moved before request %d: %v", n, err)
			}
			image := r.Manifest().Images[0]
			of := before
			if image.Digest == after.Root.Digest {
				of = after
			}
			seen[image.Digest]++
			if image.Digest != of.Root.Digest || len(r.Manifest().Images) != 1 {
				t.Fatalf("moved before request %d: the bundle has %s", n, image.Digest)
			}
			checkOnly(t, r, of)
			if m.seen.Load() < n {
				break // the export was over before
			}
		}
		if seen[before.Root.Digest] < 5 || seen[after.Root.Digest] < 1 {
			t.Errorf("%d exports of the image of before, %d of that of after", seen[before.Root.Digest], seen[after.Root.Digest])
		}
	}
}

// checkOnly checks that a bundle has all manifests of a sample and no other.
func checkOnly(t *testing.T, r *bundle.Reader, s *registrytest.Sample) {
	t.Helper()
	var want, got []verify.Digest
	for _, m := range s.Manifests {
		want = append(want, m.Digest)
		if _, ok := r.Has(m.Digest); ok {
			got = append(got, m.Digest)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the bundle has %v of the manifests %v", got, want)
	}
	known := func(d verify.Digest) bool {
		return slices.ContainsFunc(slices.Concat(s.Blobs, s.Manifests), func(c registrytest.Content) bool { return c.Digest == d })
	}
	for _, f := range r.Volumes()[0].Files {
		if f.Path != bundle.BlobPath(f.Digest) || known(f.Digest) {
			continue
		}
		// The list of referrers under a tag, which the registry has made.
		list, _ := r.ManifestOf(f.Digest)
		if list == nil || !list.IsIndex() || slices.ContainsFunc(list.Manifests, func(d oci.Descriptor) bool { return !known(d.Digest) }) {
			t.Errorf("the bundle has %s, which is not of %s", f.Digest, s.Name)
		}
	}
}
