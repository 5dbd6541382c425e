package transfer_test

import (
	"testing"

	"ferry/internal/registrytest"
	"ferry/internal/transfer"
)

// Images go from registry to registry without a bundle, with all that belongs
// to them; the second time nothing is written.
func TestRegistryToRegistry(t *testing.T) {
	samples, requests := site(t, 100)
	inside := registrytest.Start(t, registrytest.Options{})
	client, ctx := newClient(t), t.Context()
	move := func() *transfer.PushResult {
		t.Helper()
		selection, err := transfer.Resolve(ctx, client, requests, nil, 4)
		if err != nil {
			t.Fatal(err)
		}
		deliveries, err := selection.Deliveries(transfer.Destination{Host: inside.Host, Prefix: "mirror"})
		if err != nil {
			t.Fatal(err)
		}
		src, o := selection.Source(client), transfer.PushOptions{Progress: transfer.Silent{}}
		plan, err := transfer.PlanPush(ctx, client, src, deliveries, o)
		if err != nil {
			t.Fatal(err)
		}
		result, err := transfer.Push(ctx, client, src, plan, o)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	if result := move(); len(result.Images) != len(samples) || result.BlobsPushed == 0 {
		t.Errorf("%d images, %d blobs", len(result.Images), result.BlobsPushed)
	}
	checkArrived(t, client, inside.Host, "mirror/", samples)
	inside.Reset()
	if result := move(); result.BlobsPushed+result.BlobsMounted+result.Manifests+result.TagsWritten > 0 {
		t.Errorf("again: %+v", result)
	}
	if writes := inside.Writes(); len(writes) > 0 {
		t.Errorf("again: %v", writes)
	}
}
