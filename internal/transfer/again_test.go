package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
)

// site is a registry outside with samples, and requests for them.
func site(t *testing.T, n int) ([]*registrytest.Sample, []transfer.Request) {
	t.Helper()
	outside := registrytest.Memory(t, registrytest.Options{})
	samples := registrytest.Samples()
	samples = samples[:min(n, len(samples))]
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	return samples, requestsFor(t, outside.Host, samples)
}

// A bundle that expires after some time is the same bundle when it is exported
// again later.
func TestExportAgainWithLifetime(t *testing.T) {
	_, requests := site(t, 1)
	store, client := &storetest.Mem{}, newClient(t)
	o := options(t, "demo")
	o.Lifetime = time.Hour
	if _, err := export(t, client, requests, store, o); err != nil {
		t.Fatal(err)
	}
	o.Now = o.Now.Add(time.Minute)
	e, err := export(t, client, requests, store, o)
	if err != nil || !e.plan.Unchanged {
		t.Errorf("a minute later: %+v, %v", e.plan, err)
	}
	o.Version, o.Now = "", testTime.Add(2*time.Hour)
	e, err = export(t, client, requests, store, o)
	if err != nil || e.plan.Unchanged {
		t.Errorf("after it has expired: %+v, %v", e.plan, err)
	}
}

// An export that was killed at its very end is complete, and what it has left
// beside is removed by the next.
func TestExportTidies(t *testing.T) {
	_, requests := site(t, 1)
	store, client := &storetest.Mem{}, newClient(t)
	e, err := export(t, client, requests, store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{e.plan.Folder + "/" + bundle.ManifestName, e.plan.Folder + "/" + bundle.SignatureName}
	for i := range names { // the signature goes last
		for _, name := range names[i:] {
			content, _ := store.Get(name)
			store.Set(name+bundle.PendingSuffix, content)
		}
		e, err := export(t, client, requests, store, options(t, "demo"))
		if err != nil || !e.plan.Unchanged {
			t.Errorf("%+v, %v", e.plan, err)
		}
		for _, name := range names {
			if _, ok := store.Get(name + bundle.PendingSuffix); ok {
				t.Errorf("%s%s is left", name, bundle.PendingSuffix)
			}
		}
	}
}

// An export to where volumes were lost writes them again.
func TestExportMendsVolumes(t *testing.T) {
	_, requests := site(t, 3)
	store, client := &storetest.Mem{}, newClient(t)
	e, err := export(t, client, requests, store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	name := e.plan.Folder + "/" + bundle.VolumeName(0)
	whole, _ := store.Get(name)
	for what, content := range map[string][]byte{"missing": nil, "cut": whole[:len(whole)-1], "without trailer": append(bytes.Clone(whole[:len(whole)-1]), 1)} {
		if content == nil {
			if err := store.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		} else {
			store.Set(name, content)
		}
		e, err := export(t, client, requests, store, options(t, "demo"))
		if err != nil || e.plan.Unchanged || e.done.Items == 0 {
			t.Errorf("volume %s: %+v, %v", what, e.done, err)
		}
		if again, _ := store.Get(name); !bytes.Equal(again, whole) {
			t.Errorf("volume %s: it is not mended", what)
		}
	}
}

// To copy a damaged bundle onto itself fails and loses nothing.
func TestCopyOntoItself(t *testing.T) {
	_, requests := site(t, 1)
	store, client := &storetest.Mem{}, newClient(t)
	e, err := export(t, client, requests, store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	name := e.plan.Folder + "/" + bundle.VolumeName(0)
	damaged, _ := store.Get(name)
	files := e.plan.Set.Volumes()[0].Files
	damaged[files[len(files)-1].Content()] ^= 1
	store.Set(name, damaged)
	at := bundle.Sub(store, e.plan.Folder)
	if _, err := transfer.Copy(t.Context(), openReader(t, at, ""), at, transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf}); err == nil {
		t.Error("it succeeds")
	}
	if after, _ := store.Get(name); !bytes.Equal(after, damaged) {
		t.Error("the volume has changed")
	}
}

// Further signatures are copied with the bundle.
func TestCopySignatures(t *testing.T) {
	_, requests := site(t, 1)
	store, to, client := &storetest.Mem{}, &storetest.Mem{}, newClient(t)
	e, err := export(t, client, requests, store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := testSigner(t).Sign(e.plan.Set.Raw())
	if err != nil {
		t.Fatal(err)
	}
	store.Set(e.plan.Folder+"/bundle.site.sigstore.json", sig)
	if _, err := transfer.Copy(t.Context(), openReader(t, bundle.Sub(store, e.plan.Folder), ""), to, transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf}); err != nil {
		t.Fatal(err)
	}
	if got, _ := to.Get("bundle.site.sigstore.json"); !bytes.Equal(got, sig) {
		t.Error("the signature is not in the copy")
	}
}

// Every write of an import fails in turn; the same import goes on, and at the
// end everything is there, referrers listed.
func TestImportGoesOn(t *testing.T) {
	samples, requests := site(t, 99)
	var signed []*registrytest.Sample
	for _, s := range samples {
		if len(s.Referrers) > 0 {
			signed = append(signed, s)
		}
	}
	store, client := &storetest.Mem{}, newClient(t)
	var chosen []transfer.Request
	for _, r := range requests {
		for _, s := range signed {
			if r.Reference.Repository == s.Repository {
				chosen = append(chosen, r)
			}
		}
	}
	if _, err := export(t, client, chosen, store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, bundle.Sub(store, "demo/1"), "")
	for n := 0; ; n++ {
		broken := failWrite(n)
		inside := registrytest.Memory(t, registrytest.Options{NoReferrers: true, Faults: []registrytest.Fault{broken.fault}})
		_, err := importTo(t, client, r, transfer.Destination{Host: inside.Host})
		if err == nil {
			if n < 5 {
				t.Errorf("only %d writes", n)
			}
			return
		}
		for _, q := range inside.Requests() {
			if q.Method == http.MethodPut && q.Status < 300 && strings.Contains(q.Path, "/manifests/") && isImageTag(signed, q.Path) && !broken.atTags() {
				t.Errorf("write %d failed before the tags and %s is written", n, q.Path)
			}
		}
		if _, err := importTo(t, client, r, transfer.Destination{Host: inside.Host}); err != nil {
			t.Fatalf("after write %d failed: %v", n, err)
		}
		checkArrived(t, client, inside.Host, "", signed)
		if t.Failed() {
			t.Fatalf("after write %d failed", n)
		}
	}
}

// failure refuses the write of a manifest with a number.
type failure struct {
	n, seen int
	path    string
}

func failWrite(n int) *failure { return &failure{n: n} }

func (f *failure) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			if f.seen++; f.seen == f.n+1 {
				f.path = r.URL.Path
				http.Error(w, registrytest.Errors("DENIED", "not now"), http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (f *failure) atTags() bool {
	return !strings.Contains(f.path, "/manifests/sha256:") && !strings.Contains(f.path, "/manifests/sha256-")
}

func isImageTag(samples []*registrytest.Sample, path string) bool {
	for _, s := range samples {
		for _, tag := range s.ImageTags() {
			if strings.HasSuffix(path, s.Repository+"/manifests/"+tag) {
				return true
			}
		}
	}
	return false
}

// The same image from two registries has the signatures of both; two that
// would have one name are a conflict.
func TestSignaturesOfTwoRegistries(t *testing.T) {
	var signed *registrytest.Sample
	for _, s := range registrytest.Samples() {
		for tag := range s.Tags {
			if strings.HasSuffix(tag, ".sig") && signed == nil {
				signed = s
			}
		}
	}
	bare, full := registrytest.Memory(t, registrytest.Options{}), registrytest.Memory(t, registrytest.Options{})
	if err := signed.Push(t.Context(), full.Host); err != nil {
		t.Fatal(err)
	}
	client := newClient(t)
	tag := signed.ImageTags()[0]
	// Only the image, without what belongs to it.
	e, err := export(t, client, []transfer.Request{request(t, full.Host+"/"+signed.Repository+":"+tag)}, &storetest.Mem{}, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range signed.Blobs {
		pushBlob(t, client, bare.Host, signed.Repository, b)
	}
	for _, m := range signed.Manifests {
		if m.Digest == signed.Root.Digest || signed.Root.MediaType != m.MediaType {
			ref := request(t, bare.Host+"/"+signed.Repository+"@"+m.Digest.String()).Reference
			if err := client.PushManifest(t.Context(), ref, m.MediaType, m.Bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, _ := signed.Manifest(signed.Root.Digest)
	at := request(t, bare.Host+"/"+signed.Repository+":"+tag)
	if err := client.PushManifest(t.Context(), at.Reference, signed.Root.MediaType, root); err != nil {
		t.Fatal(err)
	}
	want := len(e.plan.Set.Manifest().Images[0].Referrers)
	two, err := export(t, client, []transfer.Request{at, request(t, full.Host+"/"+signed.Repository+":"+tag)}, &storetest.Mem{}, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	images := two.plan.Set.Manifest().Images
	if len(images) != 1 || len(images[0].Referrers) < want || want == 0 {
		t.Errorf("%d images with %d referrers, want 1 with %d", len(images), len(images[0].Referrers), want)
	}
}

func pushBlob(t *testing.T, client *registry.Client, host, path string, b registrytest.Content) {
	t.Helper()
	open := func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes[off:])), nil
	}
	if _, err := client.PushBlob(t.Context(), registry.Repository{Host: host, Path: path}, b.Descriptor, open, nil); err != nil {
		t.Fatal(err)
	}
}

// A volume that an interrupted run has finished is read before it counts: what
// is wrong in it is written again, by export and by copy.
func TestGoesOnOverDamage(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	samples := []*registrytest.Sample{registrytest.Heavy("team/heavy", 700<<10, 800<<10, 900<<10, 700<<10)}
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	requests, client := requestsFor(t, outside.Host, samples), newClient(t)
	o := options(t, "demo")
	o.VolumeSize = 1 << 20
	dir := t.TempDir()
	folder := filepath.Join(dir, "demo", "1")
	store := bundle.NewDir(dir)
	if _, err := export(t, client, requests, store, o); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	if err := os.CopyFS(source, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	volumes, err := filepath.Glob(filepath.Join(folder, "volume-*.tar"))
	if err != nil || len(volumes) < 3 {
		t.Fatalf("%d volumes, %v", len(volumes), err)
	}
	interrupt := func() {
		t.Helper()
		for _, name := range []string{bundle.ManifestName, bundle.SignatureName} {
			path := filepath.Join(folder, name)
			if err := os.Rename(path, path+bundle.PendingSuffix); err != nil {
				t.Fatal(err)
			}
		}
		flip(t, volumes[0])
		if err := os.Remove(volumes[len(volumes)-1]); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(what string) {
		t.Helper()
		r := openReader(t, bundle.Sub(store, "demo/1"), "")
		if _, err := transfer.Verify(t.Context(), r, 2, transfer.Silent{}); err != nil {
			t.Errorf("after the second %s: %v", what, err)
		}
	}
	damaged := []string{bundle.VolumeName(0), bundle.VolumeName(2)}
	for _, name := range damaged {
		flip(t, filepath.Join(folder, name))
	}
	_, err = transfer.Verify(t.Context(), openReader(t, bundle.Sub(store, "demo/1"), ""), 2, transfer.Silent{})
	for _, name := range damaged {
		if !errors.Is(err, bundle.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("verifying where %q are wrong: %v", damaged, err)
		}
		flip(t, filepath.Join(folder, name))
	}
	interrupt()
	e, err := export(t, client, requests, store, o)
	if err != nil || !e.plan.Resumed || e.done.SkippedItems == 0 {
		t.Errorf("export: %+v, %v", e.done, err)
	}
	whole("export")
	interrupt()
	r := openReader(t, bundle.NewDir(source), "")
	if _, err := transfer.Copy(t.Context(), r, bundle.Sub(store, "demo/1"), transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf}); err != nil {
		t.Error(err)
	}
	whole("copy")
}

// flip changes a bit in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
