package registry

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"runtime"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// I7: what is moved is not held in memory, however large.
func TestMemoryIsBounded(t *testing.T) {
	const size = 64 << 20
	h := sha256.New()
	io.CopyN(h, zeros{}, size)
	d := oci.Descriptor{Digest: verify.Digest(h.Sum(nil)), Size: size}
	var there bool
	s := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch r.Method {
		case "HEAD":
			if !there {
				w.WriteHeader(404)
			}
			w.Header().Set("Content-Length", "67108864")
		case "POST", "PATCH":
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(202)
		case "PUT":
			there = true
			w.WriteHeader(201)
		case "GET":
			if r.URL.Path != "/v2/" {
				w.Header().Set("Content-Length", "67108864")
				io.CopyN(w, zeros{}, size)
			}
		}
	}), registrytest.Options{})
	c := newClient(t, Options{ChunkSize: 30 << 20})
	r := Repository{s.Host, "a"}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	open := func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size-off)), nil
	}
	if _, err := c.PushBlob(t.Context(), r, d, open, nil); err != nil {
		t.Fatal(err)
	}
	body, err := c.Blob(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 12<<20 {
		t.Errorf("%d bytes were allocated in all to move %d twice", n, size)
	}
}
