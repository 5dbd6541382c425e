package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/verify"
)

// handedOver counts the bytes of blobs that a source hands to a connection.
type handedOver struct {
	transfer.Source
	bytes *atomic.Int64
}

func (s handedOver) OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	body, err := s.Source.OpenBlob(ctx, d, off)
	return countedDirect{body, s.bytes}, err
}

type countedDirect struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (b countedDirect) WriteNTo(w io.Writer, n int64) (int64, error) {
	n, err := b.ReadCloser.(transport.Direct).WriteNTo(w, n)
	b.bytes.Add(n)
	return n, err
}

// tally is a [transfer.Progress] that sums up what was moved, and keeps the
// most that was counted at once.
type tally struct {
	transfer.Silent
	mu          sync.Mutex
	bytes, most int64
}

func (p *tally) Start(string, int64) transfer.Task { return p }
func (p *tally) Done(error)                        {}

func (p *tally) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += n
	p.most = max(p.most, n)
}

// exportHeavy exports one image with layers of these sizes and returns the
// set, with the one volume that it is.
func exportHeavy(t *testing.T, sizes ...int) (*bundle.Set, []byte) {
	t.Helper()
	outside := registrytest.Memory(t, registrytest.Options{})
	samples := []*registrytest.Sample{registrytest.Heavy("team/heavy", sizes...)}
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	store := &storetest.Mem{}
	e, err := export(t, newClient(t), requestsFor(t, outside.Host, samples), store, options(t, "demo"))
	if err != nil {
		t.Fatal(err)
	}
	volume, _ := store.Get("demo/1/" + bundle.VolumeName(0))
	return e.plan.Set, volume
}

// pushVolume imports a volume to inside, from a folder or from a store that
// gives streams, and returns how many bytes were handed over.
func pushVolume(t *testing.T, volume []byte, folder bool, inside *registrytest.Server, o transfer.PushOptions) (*transfer.PushResult, int64, error) {
	t.Helper()
	mem := &storetest.Mem{}
	mem.Set(bundle.VolumeName(0), volume)
	var store bundle.Store = mem
	if folder {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, bundle.VolumeName(0)), volume, 0o600); err != nil {
			t.Fatal(err)
		}
		store = bundle.NewDir(dir)
	}
	r := openReader(t, store, bundle.VolumeName(0))
	deliveries, _, err := transfer.Deliveries(r, transfer.Destination{Host: inside.Host})
	if err != nil {
		t.Fatal(err)
	}
	h, err := transport.New(transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	client := registry.New(registry.Options{HTTP: h, PlainHTTP: []string{inside.Host}})
	src := handedOver{transfer.BundleSource(r), new(atomic.Int64)}
	plan, err := transfer.PlanPush(t.Context(), client, src, deliveries, o)
	if err != nil {
		t.Fatal(err)
	}
	result, err := transfer.Push(t.Context(), client, src, plan, o)
	return result, src.bytes.Load(), err
}

// The hash of what is sent is left to a registry that has refused a wrong
// blob, when there is much to send and the caller does not want it here.
func TestWhoHashes(t *testing.T) {
	_, heavy := exportHeavy(t, 9<<20, 8<<20)
	_, light := exportHeavy(t, 9<<20)
	vague := registrytest.Answer(1, registrytest.Uploads(http.MethodPut), http.StatusBadRequest, nil, "")
	tests := []struct {
		name     string
		volume   []byte
		folder   bool
		always   bool
		fault    []registrytest.Fault
		hashed   string
		unproven bool
		refused  int  // wrong blobs
		direct   bool // bytes go from the file to the connection
	}{
		{"folder", heavy, true, false, nil, transfer.HashedThere, false, 1, true},
		{"stream", heavy, false, false, nil, transfer.HashedThere, false, 1, false},
		{"always", heavy, true, true, nil, transfer.HashedHere, false, 0, false},
		{"no proof", heavy, true, false, []registrytest.Fault{vague}, transfer.HashedHere, true, 1, false},
		{"little", light, true, false, nil, transfer.HashedHere, false, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inside, progress := registrytest.Start(t, registrytest.Options{Faults: tt.fault}), &tally{}
			result, direct, err := pushVolume(t, tt.volume, tt.folder, inside, transfer.PushOptions{Hash: tt.always, Progress: progress})
			if err != nil {
				t.Fatal(err)
			}
			if result.Hashed != tt.hashed || result.Unproven != tt.unproven {
				t.Errorf("hashed %q, unproven %t, want %q and %t", result.Hashed, result.Unproven, tt.hashed, tt.unproven)
			}
			if (direct >= 16<<20) != tt.direct || !tt.direct && direct > 0 {
				t.Errorf("%d bytes were handed over", direct)
			}
			if progress.bytes != result.BytesPushed || progress.most > 1<<20 {
				t.Errorf("%d bytes counted, %d of them at once, %d pushed", progress.bytes, progress.most, result.BytesPushed)
			}
			refused := 0
			for _, q := range inside.Requests() {
				if q.Method == http.MethodPut && q.Status == http.StatusBadRequest {
					refused++
				}
			}
			if refused != tt.refused {
				t.Errorf("%d blobs were refused, want %d", refused, tt.refused)
			}
		})
	}
}

// T01: a volume that was damaged is told from a registry that fails, also
// where the registry hashes; no manifest is pushed.
func TestDamageFoundByRegistry(t *testing.T) {
	set, whole := exportHeavy(t, 9<<20, 8<<20)
	files := set.Volumes()[0].Files
	layer := files[len(files)-1]
	places := map[string]int64{"header": layer.Start + 156, "first byte": layer.Content(), "middle": layer.Content() + layer.Size/2,
		"last byte": layer.Content() + layer.Size - 1}
	if layer.Padding() > 0 {
		places["padding"] = layer.End() - 1
	}
	for name, at := range places {
		for _, folder := range []bool{true, false} {
			volume, inside := bytes.Clone(whole), registrytest.Start(t, registrytest.Options{})
			volume[at] ^= 1
			result, _, err := pushVolume(t, volume, folder, inside, transfer.PushOptions{Progress: transfer.Silent{}})
			var refused *registry.Error
			if !errors.Is(err, bundle.ErrCorrupt) && !errors.Is(err, verify.ErrMismatch) || errors.As(err, &refused) {
				t.Errorf("%s, folder %t: %+v, %v", name, folder, result, err)
			}
			if n := inside.Count(http.MethodPut, "/manifests/"); n > 0 {
				t.Errorf("%s, folder %t: %d manifests were pushed", name, folder, n)
			}
		}
	}
}
