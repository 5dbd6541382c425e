package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// source opens b at any offset, and counts.
type memSource struct {
	b      []byte
	opens  atomic.Int32
	open   atomic.Int32 // those that are not closed
	offset atomic.Int64 // of the last
}

func (s *memSource) Open(ctx context.Context, off int64) (io.ReadCloser, error) {
	s.opens.Add(1)
	s.open.Add(1)
	s.offset.Store(off)
	return &memReader{Reader: bytes.NewReader(s.b[min(off, int64(len(s.b))):]), s: s}, nil
}

type memReader struct {
	*bytes.Reader
	s      *memSource
	closed bool
}

func (r *memReader) Close() error {
	if !r.closed {
		r.closed = true
		r.s.open.Add(-1)
	}
	return nil
}

// T41, T57, T58, T62, T63: a blob gets there whole, or there is an error and
// it is not there.
func TestPushBlob(t *testing.T) {
	patch, put, post := registrytest.Uploads("PATCH"), registrytest.Uploads("PUT"), registrytest.Uploads("POST")
	unknown := registrytest.Errors("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
	answer, reset, cut := registrytest.Answer, registrytest.Reset, registrytest.CutUpload
	tests := []struct {
		name   string
		faults []registrytest.Fault
		chunk  int64
		want   error
	}{
		{"sound", nil, 0, nil},
		{"chunks", nil, 1 << 20, nil},
		{"odd chunks", nil, 777_777, nil},
		{"relative locations", []registrytest.Fault{registrytest.RelativeLocation()}, 0, nil},
		{"POST resets", []registrytest.Fault{reset(2, post, false)}, 0, nil},
		{"POST resets after it was done", []registrytest.Fault{reset(2, post, true)}, 0, nil},
		{"POST busy", []registrytest.Fault{answer(2, post, 429, http.Header{"Retry-After": {"0"}}, "")}, 0, nil}, // T42
		{"PATCH resets at once", []registrytest.Fault{cut(1, patch, 0)}, 0, nil},
		{"PATCH resets in the middle", []registrytest.Fault{cut(1, patch, 2_000_000)}, 0, nil},
		{"PATCH resets several times", []registrytest.Fault{cut(3, patch, 600_000)}, 0, nil},
		{"PATCH resets in chunks", []registrytest.Fault{cut(3, patch, 300_000)}, 1 << 20, nil},
		{"PATCH resets after it was done", []registrytest.Fault{reset(1, patch, true)}, 0, nil},
		{"PATCH busy", []registrytest.Fault{answer(2, patch, 503, http.Header{"Retry-After": {"0"}}, "")}, 0, nil}, // T42
		{"PATCH broken by a proxy", []registrytest.Fault{answer(1, patch, 502, nil, "")}, 0, nil},
		{"PATCH unknown upload", []registrytest.Fault{answer(1, patch, 404, nil, unknown)}, 0, nil}, // T57
		{"PATCH out of order", []registrytest.Fault{answer(1, patch, 416, nil, "")}, 0, nil},
		{"PATCH by a proxy that does not know Expect", []registrytest.Fault{answer(-1, func(r *http.Request) bool { return r.Header.Get("Expect") != "" }, 417, nil, "")}, 0, nil},
		{"PATCH always resets", []registrytest.Fault{cut(-1, patch, 0)}, 0, ErrUnavailable},
		{"PATCH always broken", []registrytest.Fault{answer(-1, patch, 500, nil, "")}, 0, ErrUnavailable},
		{"PATCH not allowed", []registrytest.Fault{answer(-1, patch, 405, nil, "")}, 0, errAny},
		{"PUT resets", []registrytest.Fault{reset(2, put, false)}, 0, nil},
		{"PUT resets after it was done", []registrytest.Fault{reset(1, put, true)}, 0, nil},
		{"PUT unknown upload", []registrytest.Fault{answer(1, put, 404, nil, unknown)}, 0, nil},
		{"PUT refuses the digest once", []registrytest.Fault{answer(1, put, 400, nil, registrytest.Errors("DIGEST_INVALID", ""))}, 0, nil},
		{"PUT refuses the digest", []registrytest.Fault{answer(-1, put, 400, nil, registrytest.Errors("DIGEST_INVALID", ""))}, 0, verify.ErrMismatch},
		{"PUT stores another", []registrytest.Fault{registrytest.TellDigest(put, verify.DigestOf(nil).String())}, 0, verify.ErrMismatch},
		{"limit 2 MiB", []registrytest.Fault{registrytest.TooLarge(2 << 20)}, 0, nil}, // T58
		{"limit 1 MiB", []registrytest.Fault{registrytest.TooLarge(1 << 20)}, 0, nil}, // T58
		{"limit 1 MiB, chunks of 3", []registrytest.Fault{registrytest.TooLarge(1 << 20)}, 3 << 20, nil},
		{"limit below a MiB", []registrytest.Fault{registrytest.TooLarge(1<<20 - 1)}, 0, ErrTooLarge},
		{"over quota", []registrytest.Fault{answer(-1, put, 403, nil, registrytest.Errors("DENIED", "will exceed the configured upper limit of 1 B"))}, 0, ErrQuota}, // T59
		{"read-only", []registrytest.Fault{answer(-1, post, 403, nil, registrytest.Errors("DENIED", "The system is in read only mode."))}, 0, ErrReadOnly},           // T59
		{"no right", []registrytest.Fault{answer(-1, post, 403, nil, registrytest.Errors("DENIED", "no"))}, 0, ErrUnauthorized},
		{"acknowledged and dropped", []registrytest.Fault{registrytest.LieUpload()}, 0, ErrLost}, // T62
		{"acknowledged chunk of another length", []registrytest.Fault{registrytest.Header(registrytest.Path("/uploads/"), func(_ *http.Request, _ int, h http.Header) { h.Set("Range", "0-99999999") })}, 0, ErrUnavailable},
		{"uploads go elsewhere", []registrytest.Fault{registrytest.EvilLocation("http://127.0.0.1:1")}, 0, errAny}, // T65
	}
	b, d := content(5 << 20)
	backends(t, func(t *testing.T, start func(testing.TB, ...registrytest.Fault) *registrytest.Server) {
		for i, tt := range slices.Concat(tests, tests) {
			left := i >= len(tests)
			t.Run(fmt.Sprintf("%s, hash left to the registry: %t", tt.name, left), func(t *testing.T) {
				t.Parallel()
				s := start(t, tt.faults...)
				src := &memSource{b: b}
				c := newClient(t, Options{ChunkSize: tt.chunk})
				c.hashLeftTo[s.Host] = left
				r := Repository{s.Host, "a/b"}
				got, err := c.PushBlob(t.Context(), r, d, src.Open, nil)
				if !is(err, tt.want) || got != (PushResult{}) {
					t.Fatalf("PushBlob = %v, %v, want %v", got, err, tt.want)
				}
				size, ok, headErr := c.HasBlob(t.Context(), r, d.Digest)
				if headErr != nil || ok != (err == nil) && tt.want != verify.ErrMismatch || ok && size != d.Size {
					t.Errorf("after %v the blob is there: %v, %d bytes, %v", err, ok, size, headErr)
				}
				if n := src.open.Load(); n != 0 {
					t.Errorf("%d readers of the source were left open", n)
				}
				if n := len(s.Requests()); n > 150 {
					t.Errorf("%d requests", n)
				}
			})
		}
	})
}

// T57, I4: what was sent before a break is not sent again.
func TestPushBlobResumes(t *testing.T) {
	b, d := content(40 << 20)
	s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{registrytest.CutUpload(1, registrytest.Uploads("PATCH"), 30<<20)}})
	src := &memSource{b: b}
	if _, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{s.Host, "a"}, d, src.Open, nil); err != nil {
		t.Fatal(err)
	}
	var sent int64
	for _, r := range s.Requests() {
		sent += r.BytesIn
	}
	if sent > d.Size+1<<20 {
		t.Errorf("%d bytes were sent for a blob of %d", sent, d.Size)
	}
	if off := src.offset.Load(); off < 16<<20 {
		t.Errorf("the source was read again from %d", off)
	}
	if n := s.Count("POST", "/uploads/"); n != 1 {
		t.Errorf("%d uploads were begun", n)
	}
}

// T01, T31: an upload of wrong bytes is never finished, but cancelled.
func TestPushBlobWrongContent(t *testing.T) {
	good, d := content(3 << 20)
	small := d
	small.Size, small.Digest = 1000, verify.DigestOf(good[:1000])
	change := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 0x10
		return b
	}
	broken := errors.New("the disk is broken")
	swap := func() OpenFunc { // other bytes when it is opened again
		first := true
		return func(ctx context.Context, off int64) (io.ReadCloser, error) {
			b := good
			if !first {
				b = change(good, 1<<20)
			}
			first = false
			return io.NopCloser(bytes.NewReader(b[off:])), nil
		}
	}
	mem := func(b []byte) OpenFunc { return (&memSource{b: b}).Open }
	tests := []struct {
		name   string
		d      oci.Descriptor
		open   OpenFunc
		faults []registrytest.Fault
		want   error
	}{
		{"first bit", d, mem(change(good, 0)), nil, verify.ErrMismatch},
		{"bit in the middle", d, mem(change(good, 1<<20)), nil, verify.ErrMismatch},
		{"last bit", d, mem(change(good, 3<<20-1)), nil, verify.ErrMismatch},
		{"short", d, mem(good[:3<<20-1]), nil, verify.ErrMismatch},
		{"empty", d, mem(nil), nil, verify.ErrMismatch},
		{"long", d, mem(append(bytes.Clone(good), 'x')), nil, verify.ErrMismatch},
		{"small: bit", small, mem(change(good[:1000], 5)), nil, verify.ErrMismatch},
		{"small: short", small, mem(good[:999]), nil, verify.ErrMismatch},
		{"small: long", small, mem(good), nil, verify.ErrMismatch},
		{"source does not open", d, func(context.Context, int64) (io.ReadCloser, error) { return nil, broken }, nil, broken},
		{"small: source does not open", small, func(context.Context, int64) (io.ReadCloser, error) { return nil, broken }, nil, broken},
		{"source breaks", d, func(_ context.Context, off int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(good[min(off, 1<<20):1<<20]), iotest.ErrReader(broken))), nil
		}, nil, broken},
		{"source breaks at the end", d, func(_ context.Context, off int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(good[off:]), iotest.ErrReader(broken))), nil
		}, nil, broken},
		{"source changes in between", d, swap(), []registrytest.Fault{registrytest.CutUpload(1, registrytest.Uploads("PATCH"), 2<<20)}, verify.ErrMismatch},
	}
	for _, chunk := range []int64{0, 1 << 20} {
		for _, tt := range tests {
			if chunk > 0 && tt.faults != nil {
				continue
			}
			t.Run(fmt.Sprintf("%s, chunks of %d", tt.name, chunk), func(t *testing.T) {
				s := registrytest.Start(t, registrytest.Options{Faults: tt.faults})
				c := newClient(t, Options{ChunkSize: chunk})
				_, err := c.PushBlob(t.Context(), Repository{s.Host, "a"}, tt.d, tt.open, nil)
				if !errors.Is(err, tt.want) || errors.Is(err, ErrUnavailable) {
					t.Errorf("PushBlob: %v, want %v", err, tt.want)
				}
				if n := s.Count("PUT", ""); n != 0 {
					t.Errorf("%d uploads were finished", n)
				}
				if n := s.Count("DELETE", "/uploads/"); n != 1 {
					t.Errorf("%d uploads were cancelled, want 1", n)
				}
			})
		}
	}
}

// T63
func TestMount(t *testing.T) {
	b, d := content(2 << 20)
	post := registrytest.Uploads("POST")
	isMount := func(r *http.Request) bool { return post(r) && r.URL.Query().Has("mount") }
	tests := []struct {
		name    string
		faults  []registrytest.Fault
		from    []string
		mounted bool
		puts    int
		want    error
	}{
		{"from where it is", nil, []string{"a/b"}, true, 0, nil},
		{"from the second", nil, []string{"no/such", "a/b"}, true, 0, nil},
		{"from nowhere", nil, []string{"no/such", "nor/this"}, false, 1, nil},
		{"from itself", nil, []string{"to"}, false, 1, nil},
		{"from no name", nil, []string{"A/../B"}, false, 1, nil},
		{"no source project", []registrytest.Fault{registrytest.Answer(-1, isMount, 401, http.Header{"Www-Authenticate": {""}},
			registrytest.Errors("UNAUTHORIZED", "project nosuch not found"))}, []string{"a/b"}, false, 1, nil},
		{"mount breaks", []registrytest.Fault{registrytest.Reset(-1, isMount, false)}, []string{"a/b"}, false, 1, nil},
		{"mount is a lie", []registrytest.Fault{registrytest.LieMount()}, []string{"a/b"}, false, 1, nil},
		{"mount over quota", []registrytest.Fault{registrytest.Answer(-1, isMount, 403, nil,
			registrytest.Errors("DENIED", "will exceed the configured upper limit of 1 B"))}, []string{"a/b"}, false, 0, ErrQuota},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.Start(t, registrytest.Options{Faults: tt.faults})
			store(t, s, b)
			s.Reset()
			c := newClient(t, Options{})
			from := []Repository{{"other.host", "a/b"}}
			for _, f := range tt.from {
				from = append(from, Repository{s.Host, f})
			}
			got, err := c.PushBlob(t.Context(), Repository{s.Host, "to"}, d, (&memSource{b: b}).Open, from)
			if !is(err, tt.want) || got.Mounted != tt.mounted || got.Existed {
				t.Errorf("PushBlob = %v, %v, want mounted %v, %v", got, err, tt.mounted, tt.want)
			}
			if n := s.Count("PUT", "/uploads/"); n != tt.puts {
				t.Errorf("%d uploads, want %d", n, tt.puts)
			}
			if _, ok, _ := c.HasBlob(t.Context(), Repository{s.Host, "to"}, d.Digest); ok != (err == nil) {
				t.Errorf("the blob is there: %v", ok)
			}
		})
	}
}

// A registry in maintenance says so.
func TestReadOnly(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{ReadOnly: true})
	b, d := content(1000)
	if _, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{s.Host, "a"}, d, (&memSource{b: b}).Open, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("PushBlob: %v, want ErrReadOnly", err)
	}
	if err := newClient(t, Options{}).PushManifest(t.Context(), Repository{s.Host, "a"}.Tag("1"), oci.MediaTypeManifest, []byte("{}")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("PushManifest: %v, want ErrReadOnly", err)
	}
}

// T58: a limit that nothing can be done about is a proxy's, and is said to be.
func TestProxyLimit(t *testing.T) {
	for _, size := range []int{400_000, 5 << 20} {
		s := memory(t, registrytest.TooLarge(1000))
		b, d := content(size)
		_, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{s.Host, "a"}, d, (&memSource{b: b}).Open, nil)
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// T62: a registry that says it has a blob of another size is not believed.
func TestPushBlobExistsOtherwise(t *testing.T) {
	b, d := content(1000)
	s := memory(t, registrytest.Answer(1, registrytest.Blobs("HEAD"), 200, http.Header{"Content-Length": {"7"}}, ""))
	if got, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{s.Host, "a"}, d, (&memSource{b: b}).Open, nil); err != nil || got.Existed {
		t.Errorf("PushBlob = %v, %v", got, err)
	}
	if n := s.Count("PUT", "/uploads/"); n != 1 {
		t.Errorf("%d uploads", n)
	}
}

// T65: an upload that is sent to another host goes nowhere.
func TestUploadLocation(t *testing.T) {
	var hits atomic.Int32
	other := registrytest.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }), registrytest.Options{})
	b, d := content(1 << 20)
	for _, base := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), "https://127.0.0.1:1", "//" + other.Host, "ftp://x", "http://user:pw@" + other.Host} {
		s := memory(t, registrytest.EvilLocation(base))
		if _, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{s.Host, "a"}, d, (&memSource{b: b}).Open, nil); err == nil {
			t.Errorf("an upload went to %s", base)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("error %v", err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("%d requests went to another host", hits.Load())
	}
	// Who we are is not for the registry to say, not even to itself.
	named := memory(t, registrytest.Header(registrytest.Path("/uploads/"), func(r *http.Request, _ int, h http.Header) {
		if l := h.Get("Location"); l != "" {
			h.Set("Location", "http://user:pw@"+r.Host+l)
		}
	}))
	if _, err := newClient(t, Options{}).PushBlob(t.Context(), Repository{named.Host, "a"}, d, (&memSource{b: b}).Open, nil); err == nil {
		t.Error("a location with a user was followed")
	}
	// A registry behind a proxy that ends TLS may think that it is reached
	// by plain HTTP.
	var host string
	s := registrytest.Memory(t, registrytest.Options{TLS: true, Faults: []registrytest.Fault{
		registrytest.Header(registrytest.Path("/uploads/"), func(_ *http.Request, _ int, h http.Header) {
			if l := h.Get("Location"); l != "" {
				h.Set("Location", "http://"+host+l)
			}
		})}})
	host = s.Host
	c := newClient(t, Options{HTTP: newHTTP(t, insecure(s.Host))})
	if _, err := c.PushBlob(t.Context(), Repository{s.Host, "a"}, d, (&memSource{b: b}).Open, nil); err != nil {
		t.Errorf("locations without TLS on the registry's own host: %v", err)
	}
}

func TestPushManifest(t *testing.T) {
	put := registrytest.Manifests("PUT")
	immutable := registrytest.Errors("PRECONDITION", "configured as immutable")
	tests := []struct {
		name   string
		faults []registrytest.Fault
		want   error
		puts   int
	}{
		{"sound", nil, nil, 1},
		{"busy", []registrytest.Fault{registrytest.Answer(2, put, 429, nil, "")}, nil, 3},
		{"broken once", []registrytest.Fault{registrytest.Answer(1, put, 500, nil, "")}, nil, 2},
		{"broken", []registrytest.Fault{registrytest.Answer(-1, put, 500, nil, "")}, ErrUnavailable, 3},
		{"reset", []registrytest.Fault{registrytest.Reset(1, put, true)}, nil, 2},
		{"stores another", []registrytest.Fault{registrytest.TellDigest(put, verify.DigestOf(nil).String())}, verify.ErrMismatch, 1}, // T62
		{"tells nothing", []registrytest.Fault{registrytest.TellDigest(put, "")}, nil, 1},
		{"does not say it is created", []registrytest.Fault{registrytest.Answer(-1, put, 202, nil, "")}, errAny, 1},
		{"too large", []registrytest.Fault{registrytest.Answer(-1, put, 413, nil, "")}, ErrTooLarge, 1},
		{"immutable", []registrytest.Fault{registrytest.Answer(-1, put, 412, nil, immutable)}, ErrConflict, 1}, // T60
		{"over quota", []registrytest.Fault{registrytest.Answer(-1, put, 403, nil, registrytest.Errors("DENIED", "quota"))}, ErrQuota, 1},
		{"no right", []registrytest.Fault{registrytest.Answer(-1, put, 401, nil, "")}, ErrUnauthorized, 1},
	}
	img := sample(t, "team/single")
	m, _ := img.Manifest(img.Root.Digest)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := memory(t, tt.faults...)
			c := newClient(t, Options{})
			r := Repository{s.Host, "a/b"}
			ref := r.Tag("1")
			ref.Digest = img.Root.Digest
			err := c.PushManifest(t.Context(), ref, img.Root.MediaType, m)
			if !is(err, tt.want) {
				t.Errorf("PushManifest: %v, want %v", err, tt.want)
			}
			if n := s.Count("PUT", "/manifests/1"); n != tt.puts {
				t.Errorf("%d requests, want %d", n, tt.puts)
			}
			d, headErr := c.Head(t.Context(), r.Tag("1"))
			if err == nil && (headErr != nil || d.Digest != img.Root.Digest || d.MediaType != img.Root.MediaType) {
				t.Errorf("Head = %v, %v", d, headErr)
			}
		})
	}
}

// T60: what is under an immutable tag already may be pushed there.
func TestPushImmutable(t *testing.T) {
	img, other := sample(t, "team/single"), sample(t, "team/thirty")
	var locked atomic.Bool
	s := memory(t, registrytest.Answer(-1, func(r *http.Request) bool { return registrytest.Manifests("PUT")(r) && locked.Load() }, 412, nil,
		registrytest.Errors("PRECONDITION", "Failed to process request due to 'app:1.0' configured as immutable.")))
	r := push(t, img, s.Host)
	locked.Store(true)
	c := newClient(t, Options{})
	same, _ := img.Manifest(img.Root.Digest)
	if err := c.PushManifest(t.Context(), r.Tag("latest"), img.Root.MediaType, same); err != nil {
		t.Errorf("the same: %v", err)
	}
	another, _ := other.Manifest(other.Root.Digest)
	if err := c.PushManifest(t.Context(), r.Tag("latest"), other.Root.MediaType, another); !errors.Is(err, ErrConflict) {
		t.Errorf("another: %v, want ErrConflict", err)
	}
}

// A manifest that is not what its reference says is not sent at all; one that
// refers to what is missing is refused.
func TestPushManifestWrong(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	img := sample(t, "team/single")
	m, _ := img.Manifest(img.Root.Digest)
	c := newClient(t, Options{})
	r := Repository{s.Host, "a/b"}
	if err := c.PushManifest(t.Context(), r.Digest(img.Root.Digest), img.Root.MediaType, append(m, ' ')); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("wrong digest: %v", err)
	}
	if n := s.Count("PUT", ""); n != 0 {
		t.Errorf("%d requests", n)
	}
	if err := c.PushManifest(t.Context(), r.Tag("1"), img.Root.MediaType, m); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing blobs: %v, want ErrNotFound", err)
	}
}

// The states of a hash lead to the same digest wherever it goes back to.
func TestTrail(t *testing.T) {
	b := registrytest.Random(3, 50<<10)
	want := verify.DigestOf(b)
	tr := newTrail(true)
	tr.every = 8 << 10
	tr.Write(b[:30<<10+5])
	for _, off := range []int64{30<<10 + 4, 25 << 10, 8 << 10, 8<<10 - 1, 100, 0, 30 << 10} {
		from := tr.rewind(off)
		if from > off || off-from > tr.every {
			t.Fatalf("rewind(%d) = %d", off, from)
		}
		if _, err := tr.Write(b[from : 30<<10+5]); err != nil {
			t.Fatal(err)
		}
	}
	if n := tr.rewind(40 << 10); n != 30<<10+5 {
		t.Errorf("rewind forward = %d", n)
	}
	tr.Write(b[30<<10+5:])
	if tr.sum() != want || tr.n != 50<<10 || tr.most != 50<<10 {
		t.Errorf("digest %s of %d bytes", tr.sum(), tr.n)
	}
	from := tr.rewind(9 << 10)
	other := bytes.Clone(b)
	other[45<<10] ^= 1
	if _, err := tr.Write(other[from:]); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("other bytes the second time: %v", err)
	}
	long := newTrail(true)
	long.every = 1 << 10
	for range 60 {
		long.Write(b[:1<<10])
	}
	if len(long.marks) > maxMarks || long.marks[0].n != 0 || !slices.IsSortedFunc(long.marks, func(a, b mark) int { return int(a.n - b.n) }) {
		t.Errorf("%d marks", len(long.marks))
	}
	if n := long.rewind(5 << 10); n != 0 {
		t.Errorf("rewind before the marks that are kept = %d", n)
	}
}

// The same for any way of writing and going back.
func TestTrailProperty(t *testing.T) {
	b := registrytest.Random(4, 4000)
	rapid.Check(t, func(t *rapid.T) {
		tr := newTrail(true)
		tr.every = rapid.Int64Range(1, 500).Draw(t, "every")
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			from := tr.rewind(rapid.Int64Range(0, 4000).Draw(t, "off"))
			to := rapid.Int64Range(from, 4000).Draw(t, "to")
			if _, err := tr.Write(b[from:to]); err != nil {
				t.Fatal(err)
			}
			if tr.n != to || tr.sum() != verify.DigestOf(b[:to]) {
				t.Fatalf("%d bytes, want %d", tr.n, to)
			}
		}
	})
}
