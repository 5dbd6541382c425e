package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// committed is the signer of all tests; scrypt makes it slow to open.
var committed = sync.OnceValues(func() (*verify.Signer, error) {
	pem, err := os.ReadFile("../../testdata/keys/one.key")
	if err != nil {
		return nil, err
	}
	return verify.LoadSigner(pem, []byte("one"))
})

func testSigner(t *testing.T) *verify.Signer {
	t.Helper()
	signer, err := committed()
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newClient(t *testing.T) *registry.Client {
	t.Helper()
	h := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(h.CloseIdleConnections)
	return registry.New(registry.Options{HTTP: h})
}

// requestsFor asks for all samples at a host, each by all of its tags.
func requestsFor(t *testing.T, host string, samples []*registrytest.Sample) []transfer.Request {
	t.Helper()
	var list []transfer.Request
	for _, s := range samples {
		for _, tag := range s.ImageTags() {
			list = append(list, request(t, host+"/"+s.Repository+":"+tag))
		}
	}
	return list
}

func request(t *testing.T, ref string) transfer.Request {
	t.Helper()
	r, err := registry.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return transfer.Request{Reference: r, Source: ref}
}

type exported struct {
	plan *transfer.ExportPlan
	done transfer.Totals
}

func options(t *testing.T, name string) transfer.ExportOptions {
	return transfer.ExportOptions{Name: name, Version: "1", Now: testTime, Progress: transfer.Silent{}, Say: t.Logf}
}

// export exports requests into store.
func export(t *testing.T, client *registry.Client, requests []transfer.Request, store bundle.Store, o transfer.ExportOptions) (exported, error) {
	t.Helper()
	ctx := t.Context()
	selection, err := transfer.Resolve(ctx, client, requests, nil, 8)
	if err != nil {
		return exported{}, err
	}
	plan, err := transfer.PlanExport(ctx, selection, store, testSigner(t), o)
	if err != nil {
		return exported{}, err
	}
	done, err := transfer.Export(ctx, plan, client, o)
	return exported{plan, done}, err
}

func openReader(t *testing.T, store bundle.Store, volume string) *bundle.Reader {
	t.Helper()
	r, err := tryReader(t, store, volume)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryReader(t *testing.T, store bundle.Store, volume string) (*bundle.Reader, error) {
	t.Helper()
	r, err := bundle.OpenReader(t.Context(), store, volume, bundle.ReadOptions{Policy: verify.KeyPolicy(testSigner(t).Key()), Now: testTime})
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

// importTo imports a bundle to a host.
func importTo(t *testing.T, client *registry.Client, r *bundle.Reader, to transfer.Destination) (*transfer.PushResult, error) {
	t.Helper()
	ctx := t.Context()
	deliveries, assumed, err := transfer.Deliveries(r, to)
	if err != nil {
		return nil, err
	}
	o := transfer.PushOptions{Progress: transfer.Silent{}, Assumed: assumed}
	plan, err := transfer.PlanPush(ctx, client, transfer.BundleSource(r), deliveries, o)
	if err != nil {
		return nil, err
	}
	return transfer.Push(ctx, client, transfer.BundleSource(r), plan, o)
}

// checkArrived compares everything of the samples with what is at a host.
func checkArrived(t *testing.T, client *registry.Client, host, prefix string, samples []*registrytest.Sample) {
	t.Helper()
	ctx := t.Context()
	for _, s := range samples {
		repo := registry.Repository{Host: host, Path: prefix + s.Repository}
		for tag, want := range s.Tags {
			d, _, err := client.Get(ctx, repo.Tag(tag))
			if err != nil || d.Digest != want {
				t.Errorf("%s: %s:%s is %s, %v; want %s", s.Name, repo, tag, d.Digest, err, want)
			}
		}
		for _, m := range s.Manifests {
			d, content, err := client.Get(ctx, repo.Digest(m.Digest))
			if err != nil || !bytes.Equal(content, m.Bytes) || d.MediaType != m.MediaType {
				t.Errorf("%s: manifest %s: %q, %v", s.Name, m.Digest, d.MediaType, err)
			}
		}
		for subject, want := range s.Referrers {
			got, _, err := client.Referrers(ctx, repo, subject)
			if err != nil {
				t.Errorf("%s: referrers of %s: %v", s.Name, subject, err)
			}
			for _, digest := range want {
				if !slices.ContainsFunc(got, func(d oci.Descriptor) bool { return d.Digest == digest }) {
					t.Errorf("%s: %s is not listed as a referrer of %s", s.Name, digest, subject)
				}
			}
		}
	}
}

// The whole trip: a real registry, a real S3 server, another real registry.
func TestTrip(t *testing.T) {
	outside, inside := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	api := registrytest.Memory(t, registrytest.Options{})
	client, samples := newClient(t), registrytest.Samples()
	if len(samples) < 12 {
		t.Fatalf("only %d samples", len(samples))
	}
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	store := s3Store(t)
	requests := requestsFor(t, outside.Host, samples)
	e, err := export(t, client, requests, store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	if e.done.Items == 0 || e.done.SkippedItems != 0 {
		t.Errorf("the first export moved %+v", e.done)
	}
	r := openReader(t, bundle.Sub(store, "demo/1"), "")
	for name, to := range map[string]struct {
		server *registrytest.Server
		prefix string
	}{"distribution": {inside, "site/"}, "with referrers API": {api, ""}} {
		t.Run(name, func(t *testing.T) {
			d := transfer.Destination{Host: to.server.Host, Prefix: strings.TrimSuffix(to.prefix, "/")}
			if _, err := importTo(t, client, r, d); err != nil {
				t.Fatal(err)
			}
			checkArrived(t, client, to.server.Host, to.prefix, samples)
			before := len(to.server.Requests())
			result, err := importTo(t, client, r, d)
			if err != nil {
				t.Fatal(err)
			}
			if result.BlobsPushed+result.BlobsMounted+result.Manifests+result.TagsWritten != 0 {
				t.Errorf("the second import has done %+v", result)
			}
			for _, i := range result.Images {
				if !i.Present {
					t.Errorf("%s is not present at the second import", i.Repository)
				}
			}
			again := to.server.Requests()[before:]
			for _, q := range again {
				if q.Method != "HEAD" && q.Path != "/v2/" && !isReferrersRequest(q) {
					t.Errorf("the second import asks %s", q)
				}
			}
			if want := manifestsToAsk(r); len(again) > want {
				t.Errorf("the second import has %d requests for %d tags and referrers", len(again), want)
			}
		})
	}
	// A second export finds the first.
	e, err = export(t, client, requests, store, options(t, "demo"))
	if err != nil || !e.plan.Unchanged || e.done.Items != 0 {
		t.Errorf("the second export: %+v, %v", e.done, err)
	}
	o := options(t, "demo")
	o.Version = ""
	e, err = export(t, client, requests, store, o)
	if err != nil || !e.plan.Unchanged || e.plan.Folder != "demo/1" {
		t.Errorf("the second export without a version: %+v, %v", e.plan, err)
	}
}

func isReferrersRequest(q registrytest.Request) bool {
	return q.Method == "GET" && (strings.Contains(q.Path, "/referrers/sha256:") || strings.Contains(q.Path, "/manifests/sha256-"))
}

// manifestsToAsk is how many requests an import of a complete bundle may have:
// one for each tag, and for each referrer without one.
func manifestsToAsk(r *bundle.Reader) int {
	n := 0
	for _, i := range r.Manifest().Images {
		n += max(len(i.Tags), 1) + len(i.Referrers)
		for _, r := range i.Referrers {
			if r.Tag == "" {
				n += 2 // whether it is listed: by the API, else by the referrers tag
			}
		}
	}
	return n
}

func TestExportConflicts(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	client, samples := newClient(t), registrytest.Samples()[:2]
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	requests := requestsFor(t, outside.Host, samples)
	store := &storetest.Mem{}
	if _, err := export(t, client, requests[:1], store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	if _, err := export(t, client, requests, store, options(t, "demo")); !errors.Is(err, transfer.ErrConflict) {
		t.Errorf("the same version with other content: %v", err)
	}
	a, b := requests[0], requests[len(requests)-1]
	a.Target, b.Target, a.Tag, b.Tag = "same/name", "same/name", "1", "1"
	_, err := export(t, client, []transfer.Request{a, b}, &storetest.Mem{}, options(t, "demo"))
	if !errors.Is(err, transfer.ErrConflict) || !strings.Contains(err.Error(), "same/name:1") {
		t.Errorf("two images of one name: %v", err)
	}
}

// Every call to the store fails in turn; the same export goes on and ends with
// the same bytes.
func TestExportGoesOn(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	client, samples := newClient(t), registrytest.Samples()[:3]
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	requests := requestsFor(t, outside.Host, samples)
	broken := errors.New("broken")
	for n := 1; ; n++ {
		store := &storetest.Mem{}
		store.FailCall(n, broken)
		o := options(t, "demo")
		o.Version = ""
		_, err := export(t, client, requests, store, o)
		if err == nil {
			if n < 10 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Fatalf("call %d: %v", n, err)
		}
		store.Before(nil)
		o.Now = testTime.Add(time.Hour) // another version, if it were made anew
		e, err := export(t, client, requests, store, o)
		if err != nil {
			t.Fatalf("after call %d: %v", n, err)
		}
		r := openReader(t, bundle.Sub(store, e.plan.Folder), "")
		if _, err := transfer.Verify(t.Context(), r, 2, transfer.Silent{}); err != nil {
			t.Fatalf("after call %d: %v", n, err)
		}
		found, err := bundle.List(t.Context(), store)
		if err != nil || len(found) != 1 || found[0].Pending {
			t.Fatalf("after call %d: %+v, %v", n, found, err)
		}
	}
}

// Item 4 of the whole trip: nothing of a damaged bundle reaches the registry
// but blobs that are signed, and no tag at all.
func TestDamagedBundles(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	client := newClient(t)
	samples := registrytest.Samples()[:1]
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	store := &storetest.Mem{}
	e, err := export(t, client, requestsFor(t, outside.Host, samples), store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	volume := "demo/1/" + bundle.VolumeName(0)
	whole, _ := store.Get(volume)
	for _, f := range e.plan.Set.Volumes()[0].Files {
		for _, at := range []int64{f.Start, f.Start + 156, f.Content(), f.Content() + f.Size/2, f.End() - 1} {
			content := bytes.Clone(whole)
			content[at] ^= 1
			store.Set(volume, content)
			checkRefused(t, client, store, e.plan.Set, fmt.Sprintf("byte %d of %s", at, f.Path))
		}
	}
}

func checkRefused(t *testing.T, client *registry.Client, store bundle.Store, set *bundle.Set, what string) {
	t.Helper()
	inside := registrytest.Memory(t, registrytest.Options{})
	r, err := tryReader(t, bundle.Sub(store, "demo/1"), "")
	if err == nil {
		_, err = importTo(t, client, r, transfer.Destination{Host: inside.Host})
	}
	if !errors.Is(err, bundle.ErrCorrupt) && !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("%s: %v", what, err)
	}
	for _, q := range inside.Requests() {
		if q.Method == http.MethodPut && strings.Contains(q.Path, "/manifests/") {
			t.Errorf("%s: %s was pushed", what, q.Path)
		}
		if _, digest, found := strings.Cut(q.Query, "digest=sha256%3A"); found && q.Status < 300 && q.Method == http.MethodPut {
			d, err := verify.ParseDigest("sha256:" + digest[:64])
			if _, signed := set.Has(d); err != nil || !signed {
				t.Errorf("%s: unsigned %s was pushed", what, digest) // I2
			}
		}
	}
}

func TestPlatforms(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	client := newClient(t)
	var sample *registrytest.Sample
	for _, s := range registrytest.Samples() {
		if s.Root.MediaType == oci.MediaTypeIndex && sample == nil {
			sample = s
		}
	}
	if err := sample.Push(t.Context(), outside.Host); err != nil {
		t.Fatal(err)
	}
	content, _ := sample.Manifest(sample.Root.Digest)
	index, err := oci.Parse(content, sample.Root.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	requests := requestsFor(t, outside.Host, []*registrytest.Sample{sample})[:1]
	one := *index.Manifests[0].Platform
	selection, err := transfer.Resolve(t.Context(), client, requests, []oci.Platform{one}, 2)
	if err != nil {
		t.Fatal(err)
	}
	image := selection.Images[0]
	if image.Digest != index.Manifests[0].Digest || image.Original == nil || *image.Original != sample.Root.Digest || len(selection.Dropped) == 0 {
		t.Errorf("image for %s is %+v, dropped %q", one, image, selection.Dropped)
	}
	if _, err := transfer.Resolve(t.Context(), client, requests, []oci.Platform{{OS: "plan9", Architecture: "mips"}}, 2); err == nil || !strings.Contains(err.Error(), "it is not for plan9/mips") {
		t.Errorf("a platform that is not there: %v", err)
	}
}

func TestDestination(t *testing.T) {
	d := transfer.Destination{Host: "h", Prefix: "p", Maps: []transfer.Map{{"library", "lib"}, {"library/nginx", "proxy/web"}}}
	for target, want := range map[string]string{"library/nginx": "h/p/proxy/web", "library/nginx/x": "h/p/proxy/web/x", "library/nginxx": "h/p/lib/nginxx",
		"libraryx/y": "h/p/libraryx/y", "library": "h/p/lib", "a/library": "h/p/a/library"} {
		got, err := d.Repository(target)
		if err != nil || got.String() != want {
			t.Errorf("Repository(%q) = %v, %v; want %s", target, got, err, want)
		}
	}
	if got, err := d.Repository(strings.Repeat("a", 254)); err == nil {
		t.Errorf("a path of 256 bytes is %v", got)
	}
	for _, s := range []string{"", "a", "=", "a=", "=b", "A=b", "a=b=c", "/a=b", "a=b/", "a=../b"} {
		if m, err := transfer.ParseMap(s); err == nil {
			t.Errorf("ParseMap(%q) = %v", s, m)
		}
	}
}
