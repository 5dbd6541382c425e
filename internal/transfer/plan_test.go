package transfer_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
)

// largeSite is site with all samples and one whose layers are cut into small
// volumes.
func largeSite(t *testing.T, start func(testing.TB, registrytest.Options) *registrytest.Server) ([]*registrytest.Sample, []transfer.Request) {
	t.Helper()
	outside := start(t, registrytest.Options{})
	samples := append(registrytest.Samples(), registrytest.Heavy("team/heavy", 1_500_000, 700_000, 90_000))
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	return samples, requestsFor(t, outside.Host, samples)
}

// breaking is a [transfer.Progress] that ends a transfer with its item n.
type breaking struct {
	transfer.Silent
	left atomic.Int64
	end  context.CancelFunc
}

func (b *breaking) Start(name string, size int64) transfer.Task {
	if b.left.Add(-1) == 0 {
		b.end()
	}
	return b.Silent.Start(name, size)
}

// breakAfter calls do with a progress that cancels it amid item n.
func breakAfter(t *testing.T, n int64, do func(context.Context, transfer.Progress) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := &breaking{end: cancel}
	b.left.Store(n)
	if err := do(ctx, b); !errors.Is(err, context.Canceled) {
		t.Fatalf("it was to be interrupted: %v", err)
	}
}

// checkShares compares the shares of images with the sizes of all that they
// have, and their sum with what is moved.
func checkShares(t *testing.T, what string, s transfer.Shares, items []transfer.Item, samples []*registrytest.Sample, repeated, moved int64) {
	t.Helper()
	var sum transfer.Share
	for i, share := range s.Images {
		var want int64
		n := slices.IndexFunc(samples, func(s *registrytest.Sample) bool { return s.Root.Digest == items[i].Root.Digest })
		if n < 0 {
			t.Fatalf("%s: no sample is %s", what, items[i].Name)
		}
		for _, c := range slices.Concat(samples[n].Blobs, samples[n].Manifests) {
			want += c.Size
		}
		// A registry without a list of referrers has one as a manifest.
		listed := len(samples[n].Referrers) > 0
		if got := share.New + share.Shared + share.There; got < want || got > want && !listed {
			t.Errorf("%s: %s has %d bytes, %+v are %d", what, items[i].Name, want, share, got)
		}
		sum = transfer.Share{New: sum.New + share.New, Shared: sum.Shared + share.Shared, There: sum.There + share.There}
	}
	if sum != s.Sum {
		t.Errorf("%s: %+v in all, and the images add up to %+v", what, s.Sum, sum)
	}
	if s.Sum.New+repeated != moved {
		t.Errorf("%s: %d bytes and %d again were planned, and %d moved", what, s.Sum.New, repeated, moved)
	}
}

// What an export tells before is what it moves then: into an empty place, after
// an interruption, after the loss of a volume, upon a base, and at last
// nothing.
func TestExportShares(t *testing.T) {
	samples, requests := largeSite(t, registrytest.Start)
	client := newClient(t)
	second := requests[0]
	second.Target = "team/again"
	requests = append(requests, second)
	for _, place := range []struct {
		name  string
		store bundle.Store
	}{{"folder", bundle.NewDir(t.TempDir())}, {"S3", s3Store(t)}} {
		o := options(t, "demo")
		o.VolumeSize = 1 << 20
		var all int64
		run := func(what string, o transfer.ExportOptions, requests []transfer.Request) (planned transfer.Share) {
			t.Helper()
			what = place.name + ", " + what
			selection, err := transfer.Resolve(t.Context(), client, requests, nil, 8)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := transfer.PlanExport(t.Context(), selection, place.store, testSigner(t), o)
			if err != nil {
				t.Fatal(err)
			}
			before, err := place.store.List(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			gap, err := plan.Gap(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if after, err := place.store.List(t.Context(), ""); err != nil || !slices.Equal(after, before) {
				t.Errorf("%s: there was %v, and is %v, %v", what, before, after, err)
			}
			done, err := transfer.Export(t.Context(), plan, client, o)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Unchanged {
				done.Bytes = 0
			}
			s := plan.Shares(gap)
			checkShares(t, what, s, plan.Items(), samples, gap.Bytes()-s.Sum.New, done.Bytes)
			all = plan.Bytes
			return s.Sum
		}
		breakAfter(t, 9, func(ctx context.Context, p transfer.Progress) error {
			selection, err := transfer.Resolve(ctx, client, requests, nil, 8)
			if err != nil {
				return err
			}
			o := o
			o.Progress, o.Jobs = p, 1
			plan, err := transfer.PlanExport(ctx, selection, place.store, testSigner(t), o)
			if err != nil {
				return err
			}
			_, err = transfer.Export(ctx, plan, client, o)
			return err
		})
		if s := run("interrupted", o, requests); place.name == "folder" && s.There == 0 || s.Shared == 0 || s.New == 0 {
			t.Errorf("%s, interrupted: %+v", place.name, s)
		}
		if s := run("complete", o, requests); s.New != 0 || s.Shared != 0 {
			t.Errorf("%s, complete: %+v", place.name, s)
		}
		if err := place.store.Remove(t.Context(), "demo/1/"+bundle.VolumeName(1)); err != nil {
			t.Fatal(err)
		}
		if s := run("a volume is lost", o, requests); s.New == 0 || s.New >= all {
			t.Errorf("%s, a volume is lost: %+v of %d bytes", place.name, s, all)
		}
		o.Version, o.Base = "2", openReader(t, bundle.Sub(place.store, "demo/1"), "")
		if s := run("upon a base", o, requests); s.There == 0 {
			t.Errorf("%s, upon a base: %+v", place.name, s)
		}
		o.Version, o.Base = "3", nil
		if s := run("anew", o, requests); s.There != 0 {
			t.Errorf("%s, anew: %+v", place.name, s)
		}
	}
}

// What a copy tells before is what it moves then.
func TestCopyShares(t *testing.T) {
	samples, requests := largeSite(t, registrytest.Memory)
	original, client := &storetest.Mem{}, newClient(t)
	o := options(t, "demo")
	o.VolumeSize = 1 << 20
	if _, err := export(t, client, requests, original, o); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, bundle.Sub(original, "demo/1"), "")
	for _, to := range []bundle.Store{bundle.NewDir(t.TempDir()), s3Store(t)} {
		co := transfer.CopyOptions{Jobs: 1, Progress: transfer.Silent{}, Say: t.Logf}
		run := func(what string) transfer.Share {
			t.Helper()
			gap, err := transfer.CopyGap(t.Context(), r, to, co)
			if err != nil {
				t.Fatal(err)
			}
			s, err := transfer.CopyShares(t.Context(), r, gap)
			if err != nil {
				t.Fatal(err)
			}
			done, err := transfer.Copy(t.Context(), r, to, co)
			if err != nil {
				t.Fatal(err)
			}
			checkShares(t, what, s, transfer.BundleItems(r), samples, gap.Bytes()-s.Sum.New, done.Bytes)
			return s.Sum
		}
		breakAfter(t, 9, func(ctx context.Context, p transfer.Progress) error {
			co := co
			co.Progress = p
			_, err := transfer.Copy(ctx, r, to, co)
			return err
		})
		run("interrupted")
		if s := run("complete"); s.New != 0 {
			t.Errorf("complete: %+v", s)
		}
		name := bundle.VolumeName(1)
		content := storetest.Read(t, to, name)
		content[len(content)/2] ^= 1
		if err := to.Put(t.Context(), name, content); err != nil {
			t.Fatal(err)
		}
		if s := run("wrong"); s.New == 0 {
			t.Errorf("wrong: %+v", s)
		}
	}
}

// A copy whose check fails has written nothing.
func TestCopyChecked(t *testing.T) {
	_, requests := site(t, 2)
	original, to, client := &storetest.Mem{}, &storetest.Mem{}, newClient(t)
	e, err := export(t, client, requests, original, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	var seen *bundle.Gap
	_, err = transfer.Copy(t.Context(), openReader(t, bundle.Sub(original, "demo/1"), ""), to, transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf,
		Check: func(gap *bundle.Gap) error { seen = gap; return refused }})
	if !errors.Is(err, refused) || seen == nil || seen.Bytes() != e.plan.Bytes || seen.Room != nil {
		t.Errorf("%v, %+v", err, seen)
	}
	if list, err := to.List(t.Context(), ""); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

// What a push tells before is what it sends then, and about how many requests
// it needs: to an empty registry, to one that has some of it in another
// repository, and to one that has all.
func TestPushShares(t *testing.T) {
	samples, requests := largeSite(t, registrytest.Start)
	second := requests[len(requests)-1]
	second.Target = "team/second"
	store, client := &storetest.Mem{}, newClient(t)
	if _, err := export(t, client, append(requests, second), store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, bundle.Sub(store, "demo/1"), "")
	inside := registrytest.Start(t, registrytest.Options{})
	run := func(what string, to transfer.Destination) transfer.Share {
		t.Helper()
		deliveries, assumed, err := transfer.Deliveries(r, to)
		if err != nil {
			t.Fatal(err)
		}
		o := transfer.PushOptions{Progress: transfer.Silent{}, Assumed: assumed}
		plan, err := transfer.PlanPush(t.Context(), client, transfer.BundleSource(r), deliveries, o)
		if err != nil {
			t.Fatal(err)
		}
		s, about := plan.Shares(), plan.Requests()
		inside.Reset()
		result, err := transfer.Push(t.Context(), client, transfer.BundleSource(r), plan, o)
		if err != nil {
			t.Fatal(err)
		}
		var items []transfer.Item
		for _, d := range deliveries {
			items = append(items, d.Item)
		}
		checkShares(t, what, s, items, samples, -s.Manifests, result.BytesPushed)
		if n := len(inside.Requests()); n > about*3/2+8 || about > n*3/2+8 {
			t.Errorf("%s: %d requests, planned were about %d", what, n, about)
		}
		return s.Sum
	}
	if s := run("empty", transfer.Destination{Host: inside.Host}); s.Shared == 0 || s.There != 0 {
		t.Errorf("empty: %+v", s)
	}
	if s := run("complete", transfer.Destination{Host: inside.Host}); s.New != 0 || s.Shared != 0 {
		t.Errorf("complete: %+v", s)
	}
	moved := transfer.Destination{Host: inside.Host, Maps: []transfer.Map{{From: "team/second", To: "team/heavy"}}}
	if s := run("a repository that has it", moved); s.New != 0 {
		t.Errorf("a repository that has it: %+v", s)
	}
}

// What a save tells before is what it moves then.
func TestSaveShares(t *testing.T) {
	samples, requests := largeSite(t, registrytest.Memory)
	store, client := &storetest.Mem{}, newClient(t)
	if _, err := export(t, client, requests, store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, bundle.Sub(store, "demo/1"), "")
	items, dir := transfer.BundleItems(r), t.TempDir()
	run := func(what string, items []transfer.Item) transfer.Share {
		t.Helper()
		sink, err := layout.NewFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer sink.Close()
		plan, err := transfer.PlanSave(t.Context(), transfer.BundleSource(r), items, sink.Has)
		if err != nil {
			t.Fatal(err)
		}
		done, err := plan.Save(t.Context(), sink, 4, transfer.Silent{})
		if err != nil {
			t.Fatal(err)
		}
		checkShares(t, what, plan.Shares, items, samples, -plan.Shares.Manifests, done.Bytes)
		return plan.Shares.Sum
	}
	run("one", items[:1])
	run("all", items)
	if s := run("again", items); s.New != 0 || s.Shared != 0 {
		t.Errorf("again: %+v", s)
	}
}
