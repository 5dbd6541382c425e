package transfer_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"ferry/bundle"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/s3store"
)

// s3Store returns a store in a bucket of a real S3 server.
func s3Store(t *testing.T) bundle.Store {
	t.Helper()
	server := storetest.StartS3(t)
	store, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, Prefix: "trip", HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Copies between a bucket and a folder, in both directions, are equal to the
// original; the second copy moves nothing, and what is wrong is mended.
func TestCopy(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	client, samples := newClient(t), registrytest.Samples()
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	original := &storetest.Mem{}
	o := options(t, "demo")
	o.VolumeSize = 2 << 20
	e, err := export(t, client, requestsFor(t, outside.Host, samples), original, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.plan.Set.Volumes()) < 2 {
		t.Fatalf("%d volumes", len(e.plan.Set.Volumes()))
	}
	from := bundle.Sub(original, "demo/1")
	for _, step := range []struct {
		name string
		to   bundle.Store
	}{{"memory to S3", s3Store(t)}, {"S3 to folder", bundle.NewDir(t.TempDir())}, {"folder to S3", s3Store(t)}, {"S3 to S3", s3Store(t)}} {
		to := bundle.Sub(step.to, "demo/1")
		copyTo(t, step.name, from, to, false)
		copyTo(t, step.name+", again", from, to, true)
		checkEqual(t, step.name, bundle.Sub(original, "demo/1"), to)
		// A volume that is wrong, and one that is missing, are mended.
		if err := to.Remove(t.Context(), bundle.VolumeName(0)); err != nil {
			t.Fatal(err)
		}
		content := storetest.Read(t, to, bundle.VolumeName(1))
		content[len(content)/2] ^= 1
		if err := to.Put(t.Context(), bundle.VolumeName(1), content); err != nil {
			t.Fatal(err)
		}
		copyTo(t, step.name+", mended", from, to, false)
		checkEqual(t, step.name+", mended", bundle.Sub(original, "demo/1"), to)
		from = to
	}
}

func copyTo(t *testing.T, name string, from, to bundle.Store, nothing bool) {
	t.Helper()
	r := openReader(t, from, "")
	done, err := transfer.Copy(t.Context(), r, to, transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if nothing != (done.Items == 0) {
		t.Errorf("%s: moved %+v", name, done)
	}
}

func checkEqual(t *testing.T, name string, a, b bundle.Store) {
	t.Helper()
	want, err := a.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
	for _, info := range want {
		if !bytes.Equal(storetest.Read(t, a, info.Name), storetest.Read(t, b, info.Name)) {
			t.Errorf("%s: %s is not equal", name, info.Name)
		}
	}
}

// Blobs that are cut over more volumes than have room in the memory for parts
// come through, however many are written at once.
func TestCutBlobsAndMemory(t *testing.T) {
	outside, s3, client := registrytest.Memory(t, registrytest.Options{}), storetest.StartS3(t), newClient(t)
	sample := registrytest.Heavy("team/heavy", 1<<20, 30<<20, 2<<20, 25<<20, 3<<20)
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{sample}); err != nil {
		t.Fatal(err)
	}
	for _, volume := range []int64{3 << 20, 9 << 20} { // volumes of one part, and of two
		for _, jobs := range []int{1, 4, 64} {
			store, err := s3store.New(t.Context(), s3store.Options{Bucket: s3.Bucket, Prefix: fmt.Sprint(volume, "/", jobs), Endpoint: s3.Endpoint,
				HTTP: storetest.Client(t), Memory: 8 << 20, Parallel: jobs})
			if err != nil {
				t.Fatal(err)
			}
			o := options(t, "demo")
			o.VolumeSize, o.Jobs = volume, jobs
			if _, err := export(t, client, requestsFor(t, outside.Host, []*registrytest.Sample{sample}), store, o); err != nil {
				t.Fatal(err)
			}
			if _, err := transfer.Verify(t.Context(), openReader(t, bundle.Sub(store, "demo/1"), ""), jobs, transfer.Silent{}); err != nil {
				t.Error(err)
			}
		}
	}
}
