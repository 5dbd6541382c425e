package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/faultproxy"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/transport"
	"ferry/verify"
)

const octets = "application/octet-stream"

func memory(t testing.TB, f ...registrytest.Fault) *registrytest.Server {
	t.Helper()
	return registrytest.Memory(t, registrytest.Options{Faults: f})
}

// T30, T62: what a registry says of a manifest is compared with its bytes.
func TestGet(t *testing.T) {
	manifests := registrytest.Manifests
	other := verify.DigestOf([]byte("other")).String()
	headers := func(name, value string) registrytest.Fault {
		return registrytest.Header(registrytest.Path("/manifests/"), func(_ *http.Request, _ int, h http.Header) {
			h.Del(name)
			if value != "" {
				h.Set(name, value)
			}
		})
	}
	tests := []struct {
		name  string
		fault registrytest.Fault
		want  error // nil: it works all the same
	}{
		{"sound", nil, nil},
		{"no digest told", registrytest.TellDigest(manifests("GET"), ""), nil},
		{"digest of another algorithm told", registrytest.TellDigest(manifests("GET"), "sha512:"+strings.Repeat("a", 128)), nil},
		{"other digest told", registrytest.TellDigest(manifests("GET"), other), verify.ErrMismatch},
		{"malformed digest told", registrytest.TellDigest(manifests("GET"), "sha256:xyz"), errAny},            // T12
		{"upper-case digest told", registrytest.TellDigest(manifests("GET"), strings.ToUpper(other)), errAny}, // T12
		{"bit flipped", registrytest.Flip(manifests("GET"), 10), verify.ErrMismatch},
		{"truncated", registrytest.Truncate(manifests("GET"), 100), verify.ErrMismatch},
		{"lengthened", registrytest.Append(manifests("GET"), " "), verify.ErrMismatch},
		{"no content type", headers("Content-Type", ""), nil},
		{"content type of no use", headers("Content-Type", "application/json"), nil},
		{"content type with parameters", headers("Content-Type", oci.MediaTypeManifest+"; charset=utf-8"), nil},
		{"wants all types listed", registrytest.NeedAccept(oci.ManifestTypes...), nil},
		{"body cut once", registrytest.CutBody(1, manifests("GET"), 50), nil},
		{"body cut often", registrytest.CutBody(5, manifests("GET"), 50), nil},
		{"body cut always", registrytest.CutBody(-1, manifests("GET"), 50), ErrUnavailable},
		{"endless", registrytest.Endless(manifests("GET"), oci.MediaTypeManifest), oci.ErrInvalid}, // T15, T67
		{"missing", registrytest.Answer(-1, manifests("GET"), 404, nil, registrytest.Errors("MANIFEST_UNKNOWN", "")), ErrNotFound},
		{"blocked", registrytest.Answer(-1, manifests("GET"), 412, nil, registrytest.Errors("PROJECTPOLICYVIOLATION", "not signed")), ErrBlocked}, // T61
		{"busy for a while", registrytest.Answer(3, manifests("GET"), 429, nil, ""), nil},                                                         // T42
		{"broken for a while", registrytest.Answer(5, manifests("GET"), 502, nil, ""), nil},                                                       // T42
		{"broken", registrytest.Answer(-1, manifests("GET"), 503, nil, ""), ErrUnavailable},
		{"resets", registrytest.Reset(2, manifests("GET"), false), nil},
	}
	img := sample(t, "team/single")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f []registrytest.Fault
			if tt.fault != nil {
				f = append(f, tt.fault)
			}
			s := memory(t, f...)
			r := push(t, img, s.Host)
			both := Reference{Host: r.Host, Repository: r.Path, Tag: "gone", Digest: img.Root.Digest}
			for _, ref := range []Reference{r.Tag("latest"), r.Digest(img.Root.Digest), both} {
				d, content, err := newClient(t, Options{}).Get(t.Context(), ref)
				if !is(err, tt.want) {
					t.Fatalf("Get(%v) = %v, want %v", ref, err, tt.want)
				}
				want, _ := img.Manifest(img.Root.Digest)
				if err == nil && (d.MediaType != oci.MediaTypeManifest || d.Digest != img.Root.Digest || string(content) != string(want)) {
					t.Errorf("Get(%v) = %v with %d bytes", ref, d, len(content))
				}
			}
		})
	}
}

// T62: what is asked for by digest is compared with it, though the registry
// tells none.
func TestGetByDigest(t *testing.T) {
	img := sample(t, "team/single")
	gets := registrytest.Manifests("GET")
	s := memory(t, registrytest.TellDigest(gets, ""), registrytest.Flip(gets, 10))
	r := push(t, img, s.Host)
	if d, _, err := newClient(t, Options{}).Get(t.Context(), r.Digest(img.Root.Digest)); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("Get = %v, %v, want a mismatch", d, err)
	}
}

// errAny stands for an error that is none of the package's.
var errAny = errors.New("any error")

func is(err, want error) bool {
	if want == nil || want == errAny {
		return (err != nil) == (want != nil)
	}
	return errors.Is(err, want)
}

// T15: a manifest of the largest size is taken, one of a byte more is not.
func TestGetLimit(t *testing.T) {
	for n, want := range map[int]error{oci.MaxManifest: nil, oci.MaxManifest + 1: oci.ErrInvalid} {
		body := strings.Repeat(" ", n)
		s := memory(t, registrytest.Answer(-1, registrytest.Manifests("GET"), 200, http.Header{"Content-Type": {oci.MediaTypeManifest}}, body))
		_, content, err := newClient(t, Options{}).Get(t.Context(), Repository{s.Host, "a"}.Tag("1"))
		if !is(err, want) || err == nil && len(content) != n {
			t.Errorf("a manifest of %d bytes: %v, want %v", n, err, want)
		}
	}
}

// T14
func TestGetMediaType(t *testing.T) {
	tests := []struct {
		contentType, body, want string
	}{
		{oci.MediaTypeIndex, `{}`, oci.MediaTypeIndex},
		{"text/plain", `{"mediaType":"` + oci.MediaTypeDockerList + `"}`, oci.MediaTypeDockerList},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, ""},
		{"application/json", `{"mediaType":"application/json"}`, ""},
		{"", `not json`, ""},
	}
	for _, tt := range tests {
		s := memory(t, registrytest.Answer(-1, registrytest.Manifests("GET"), 200, http.Header{"Content-Type": {tt.contentType}}, tt.body))
		d, _, err := newClient(t, Options{}).Get(t.Context(), Repository{s.Host, "a"}.Tag("1"))
		if d.MediaType != tt.want || (tt.want == "") != errors.Is(err, oci.ErrInvalid) {
			t.Errorf("content type %q and %s: %q, %v, want %q", tt.contentType, tt.body, d.MediaType, err, tt.want)
		}
	}
}

func TestHead(t *testing.T) {
	img := sample(t, "team/multi")
	heads := registrytest.Manifests("HEAD")
	other := verify.DigestOf([]byte("other")).String()
	tests := []struct {
		name  string
		fault registrytest.Fault
		gets  int // manifests that were fetched because the answer was not enough
		want  error
	}{
		{"sound", nil, 0, nil},
		{"wants all types listed", registrytest.NeedAccept(oci.ManifestTypes...), 0, nil},
		{"no digest", registrytest.TellDigest(heads, ""), 1, nil},
		{"no length", registrytest.Header(heads, func(_ *http.Request, _ int, h http.Header) { h.Del("Content-Length") }), 1, nil},
		{"no type", registrytest.Header(heads, func(_ *http.Request, _ int, h http.Header) { h.Set("Content-Type", "text/plain") }), 1, nil},
		{"not implemented", registrytest.Answer(-1, heads, 405, nil, ""), 1, nil},
		{"wrong digest", registrytest.TellDigest(heads, other), 0, verify.ErrMismatch},
		{"malformed digest", registrytest.TellDigest(heads, "sha256:"), 0, errAny},
		{"missing", registrytest.Answer(-1, heads, 404, nil, ""), 0, ErrNotFound},
		{"not yours", registrytest.Answer(-1, heads, 401, nil, ""), 0, ErrUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f []registrytest.Fault
			if tt.fault != nil {
				f = append(f, tt.fault)
			}
			s := memory(t, f...)
			r := push(t, img, s.Host)
			s.Reset()
			d, err := newClient(t, Options{}).Head(t.Context(), r.Digest(img.Root.Digest))
			if !is(err, tt.want) || err == nil && (d.Digest != img.Root.Digest || d.MediaType != img.Root.MediaType || d.Size != img.Root.Size) {
				t.Errorf("Head = %v, %v, want %v, %v", d, err, img.Root, tt.want)
			}
			if n := s.Count("GET", "/manifests/"); n != tt.gets {
				t.Errorf("%d manifests were fetched, want %d", n, tt.gets)
			}
			if n := s.Count("HEAD", "/manifests/"); n != 1 {
				t.Errorf("%d requests, want one for an image that is there", n)
			}
		})
	}
}

// content is a blob of many reads, and its descriptor.
func content(n int) ([]byte, oci.Descriptor) {
	b := registrytest.Random(7, n)
	return b, oci.Descriptor{MediaType: octets, Digest: verify.DigestOf(b), Size: int64(n)}
}

// store puts a blob into s.
func store(t testing.TB, s *registrytest.Server, b []byte) Repository {
	t.Helper()
	img := &registrytest.Sample{Repository: "a/b", Blobs: []registrytest.Content{{
		Descriptor: oci.Descriptor{Digest: verify.DigestOf(b), Size: int64(len(b))}, Bytes: b}}}
	return push(t, img, s.Host)
}

// T41, T62: a blob comes whole and once, whatever happens on the way, or not
// at all.
func TestBlob(t *testing.T) {
	b, d := content(1 << 20)
	gets := registrytest.Blobs("GET")
	tests := []struct {
		name   string
		faults []registrytest.Fault
		want   error
	}{
		{"sound", nil, nil},
		{"cut once", []registrytest.Fault{registrytest.CutBody(1, gets, 300_000)}, nil},
		{"cut before the first byte", []registrytest.Fault{registrytest.CutBody(3, gets, 0)}, nil},
		{"cut before the last byte", []registrytest.Fault{registrytest.CutBody(1, gets, 1<<20-1)}, nil},
		{"cut after the last byte", []registrytest.Fault{registrytest.CutBody(1, gets, 1<<20)}, nil},
		{"cut again and again, with progress", []registrytest.Fault{registrytest.CutBody(-1, gets, 64<<10)}, nil},
		{"cut again and again, with too little", []registrytest.Fault{registrytest.CutBody(-1, gets, 100)}, ErrUnavailable},
		{"cut always at once", []registrytest.Fault{registrytest.CutBody(-1, gets, 0)}, ErrUnavailable},
		{"cut, ranges ignored", []registrytest.Fault{registrytest.CutBody(2, gets, 300_000), registrytest.IgnoreRange()}, nil},
		{"cut in what is skipped", []registrytest.Fault{registrytest.CutBody(1, gets, 300_000), registrytest.CutBody(1, gets, 400_000), registrytest.IgnoreRange()}, nil},
		{"cut, then busy", []registrytest.Fault{registrytest.CutBody(1, gets, 300_000),
			registrytest.Answer(2, func(r *http.Request) bool { return r.Header.Get("Range") != "" }, 503, nil, "")}, nil},
		{"cut, then gone", []registrytest.Fault{registrytest.CutBody(1, gets, 300_000),
			registrytest.Answer(-1, func(r *http.Request) bool { return r.Header.Get("Range") != "" }, 404, nil, "")}, ErrNotFound},
		{"cut, other bytes from there", []registrytest.Fault{registrytest.CutBody(1, gets, 300_000),
			registrytest.Header(gets, func(r *http.Request, status int, h http.Header) {
				if status == 206 {
					h.Set("Content-Range", "bytes 400000-1048575/1048576")
				}
			})}, errAny},
		{"bit flipped", []registrytest.Fault{registrytest.Flip(gets, 77)}, verify.ErrMismatch},
		{"last bit flipped", []registrytest.Fault{registrytest.Flip(gets, 1<<20)}, verify.ErrMismatch},
		{"shorter", []registrytest.Fault{registrytest.Truncate(gets, 1000), registrytest.IgnoreRange()}, verify.ErrMismatch},
		{"a byte shorter", []registrytest.Fault{registrytest.Truncate(gets, 1<<20-1), registrytest.IgnoreRange()}, verify.ErrMismatch},
		{"empty", []registrytest.Fault{registrytest.Truncate(gets, 0)}, verify.ErrMismatch},
		{"a byte longer", []registrytest.Fault{registrytest.Append(gets, "x")}, verify.ErrMismatch},
		{"endless", []registrytest.Fault{registrytest.Endless(gets, octets)}, verify.ErrMismatch},
		{"missing", []registrytest.Fault{registrytest.Answer(-1, gets, 404, nil, "")}, ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := memory(t, tt.faults...)
			r := store(t, s, b)
			got, err := readBlob(t, newClient(t, Options{}), r, d)
			if !is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if len(got) > len(b) || err == nil && !bytes.Equal(got, b) {
				t.Errorf("%d bytes were delivered, equal %v", len(got), bytes.Equal(got, b))
			}
			if err != nil && tt.want == ErrUnavailable && s.Count("GET", "/blobs/") > 40 {
				t.Errorf("%d requests", s.Count("GET", "/blobs/"))
			}
		})
	}
}

// A blob from an offset on is what follows it, whatever happens on the way.
func TestOpenBlob(t *testing.T) {
	b, d := content(1 << 20)
	gets := registrytest.Blobs("GET")
	tests := []struct {
		name   string
		faults []registrytest.Fault
		want   error
	}{
		{"sound", nil, nil},
		{"ranges ignored", []registrytest.Fault{registrytest.IgnoreRange()}, nil},
		{"cut", []registrytest.Fault{registrytest.CutBody(2, gets, 20_000)}, nil},
		{"cut in what is skipped", []registrytest.Fault{registrytest.CutBody(2, gets, 1000), registrytest.IgnoreRange()}, nil},
		{"cut always", []registrytest.Fault{registrytest.CutBody(-1, gets, 0)}, ErrUnavailable},
		{"missing", []registrytest.Fault{registrytest.Answer(-1, gets, 404, nil, "")}, ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, off := range []int64{0, 1, 500_000, 1<<20 - 1} {
				s := memory(t, tt.faults...)
				r := store(t, s, b)
				var got []byte
				body, err := newClient(t, Options{}).OpenBlob(t.Context(), r, d, off)
				if err == nil {
					got, err = io.ReadAll(body)
					body.Close()
				}
				if !is(err, tt.want) || err == nil && !bytes.Equal(got, b[off:]) {
					t.Errorf("from %d: %d bytes, %v, want %v", off, len(got), err, tt.want)
				}
			}
		})
	}
	s := memory(t)
	r := store(t, s, b)
	c := newClient(t, Options{})
	s.Reset()
	body, err := c.OpenBlob(t.Context(), r, d, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); len(got) != 0 || err != nil || s.Count("GET", "/blobs/") != 0 {
		t.Errorf("from the end: %d bytes, %v, %d requests", len(got), err, s.Count("GET", "/blobs/"))
	}
	body.Close()
	for _, off := range []int64{-1, d.Size + 1} {
		if _, err := c.OpenBlob(t.Context(), r, d, off); err == nil {
			t.Errorf("offset %d was taken", off)
		}
	}
	// A blob that is shorter than its descriptor says just ends.
	long := d
	long.Size *= 2
	body, err = c.OpenBlob(t.Context(), r, long, d.Size+10)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); len(got) != 0 || err != nil {
		t.Errorf("beyond the end: %d bytes, %v", len(got), err)
	}
}

// T41: cut at every 64 KiB in turn.
func TestBlobCutAnywhere(t *testing.T) {
	b, d := content(300_001)
	for cut := int64(0); cut <= d.Size; cut += 64 << 10 {
		s := memory(t, registrytest.CutBody(1, registrytest.Blobs("GET"), cut))
		r := store(t, s, b)
		if got, err := readBlob(t, newClient(t, Options{}), r, d); err != nil || !bytes.Equal(got, b) {
			t.Errorf("cut at %d: %d bytes, %v", cut, len(got), err)
		}
		if n := s.Count("GET", "/blobs/"); n > 2 {
			t.Errorf("cut at %d: %d requests", cut, n)
		}
	}
}

// A broken blob is taken up with a condition that it is still the same.
func TestBlobIfRange(t *testing.T) {
	b, d := content(1 << 20)
	var condition atomic.Value
	s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{
		registrytest.Header(registrytest.Blobs("GET"), func(r *http.Request, _ int, _ http.Header) { condition.Store(r.Header.Get("If-Range")) }),
		registrytest.CutBody(1, registrytest.Blobs("GET"), 500_000),
	}})
	r := store(t, s, b)
	if got, err := readBlob(t, newClient(t, Options{}), r, d); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if got, want := condition.Load(), `"`+d.Digest.String()+`"`; got != want {
		t.Errorf("If-Range %v, want %v", got, want)
	}
	n := slices.IndexFunc(s.Requests(), func(r registrytest.Request) bool { return r.Status == http.StatusPartialContent })
	if n < 0 {
		t.Error("there was no answer with a part")
	}
}

// A registry may send a part that begins earlier than it was asked for.
func TestBlobEarlierRange(t *testing.T) {
	b, d := content(1 << 20)
	earlier := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var first, last int64
			if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n == 2 {
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first-1000, last))
			}
			next.ServeHTTP(w, r)
		})
	}
	s := memory(t, registrytest.CutBody(1, registrytest.Blobs("GET"), 500_000), earlier)
	r := store(t, s, b)
	if got, err := readBlob(t, newClient(t, Options{}), r, d); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// T13: sizes that can not be true are refused before a request.
func TestBlobSize(t *testing.T) {
	b, d := content(5000)
	s := memory(t)
	r := store(t, s, b)
	c := newClient(t, Options{})
	for _, size := range []int64{-1, -1 << 63, 0, 4999, 5001, 1 << 40, 1<<63 - 1} {
		d.Size = size
		got, err := readBlob(t, c, r, d)
		if err == nil || int64(len(got)) > max(size, 0) {
			t.Errorf("size %d: %d bytes, %v, want an error", size, len(got), err)
		}
		if size >= 0 && !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("size %d: %v, want a mismatch", size, err)
		}
	}
}

// T18: the urls of a descriptor are never asked.
func TestBlobURLs(t *testing.T) {
	var hits atomic.Int32
	canary := registrytest.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }), registrytest.Options{})
	s := memory(t)
	_, d := content(10)
	d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	d.URLs = []string{canary.URL + "/layer"}
	if _, err := readBlob(t, newClient(t, Options{}), Repository{s.Host, "a"}, d); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	if hits.Load() != 0 {
		t.Errorf("%d requests went to the URL of a foreign layer", hits.Load())
	}
}

// T64: a blob may be on another host, which sees no credential.
func TestBlobRedirect(t *testing.T) {
	b, d := content(1 << 20)
	var secrets atomic.Int32
	data := registrytest.MemoryHandler(true)
	elsewhere := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Referer") != "" {
			secrets.Add(1)
		}
		data.ServeHTTP(w, r)
	}), registrytest.Options{Faults: []registrytest.Fault{registrytest.CutBody(2, registrytest.Blobs("GET"), 200_000)}})
	store(t, elsewhere, b)
	s := registrytest.Serve(t, data, registrytest.Options{Faults: []registrytest.Fault{
		registrytest.Basic(map[string]string{"u": "canary"}), registrytest.Redirect(registrytest.Blobs("GET"), elsewhere.URL)}})
	c := newClient(t, Options{Keychain: keys{s.Host: user("u", "canary")}})
	got, err := readBlob(t, c, Repository{s.Host, "a/b"}, d)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if secrets.Load() != 0 {
		t.Errorf("%d requests took a credential to another host", secrets.Load())
	}
	// The signed address is nowhere in an error.
	gone := registrytest.Serve(t, data, registrytest.Options{Faults: []registrytest.Fault{
		registrytest.Redirect(registrytest.Blobs("GET"), "http://127.0.0.1:1")}})
	_, err = readBlob(t, newClient(t, Options{HTTP: newHTTP(t, transport.Options{Retries: -1})}), Repository{gone.Host, "a/b"}, d)
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

// T67: a body that stalls is taken up again, and given up when it always does.
func TestBlobStalls(t *testing.T) {
	b, d := content(1 << 20)
	stall := func(n int32) registrytest.Fault {
		var hits atomic.Int32
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !registrytest.Blobs("GET")(r) || hits.Add(1) > n {
					next.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(d.Size))
				w.Write(b[:100_000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
		}
	}
	for n, want := range map[int32]error{2: nil, 100: ErrUnavailable} {
		s := memory(t, stall(n))
		r := store(t, s, b)
		c := newClient(t, Options{HTTP: newHTTP(t, transport.Options{Idle: 100 * time.Millisecond})})
		got, err := readBlob(t, c, r, d)
		if !is(err, want) || err == nil && !bytes.Equal(got, b) {
			t.Errorf("%d stalls: %d bytes, %v, want %v", n, len(got), err, want)
		}
	}
}

// Closing in the middle ends the request.
func TestBlobClose(t *testing.T) {
	b, d := content(1 << 20)
	s := memory(t)
	r := store(t, s, b)
	body, err := newClient(t, Options{}).Blob(t.Context(), r, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, body, 10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := io.Copy(io.Discard, body); err == nil {
		t.Errorf("%d bytes after Close without an error", n)
	}
}

func TestHasBlob(t *testing.T) {
	backends(t, func(t *testing.T, start func(testing.TB, ...registrytest.Fault) *registrytest.Server) {
		b, d := content(5000)
		s := start(t)
		r := store(t, s, b)
		c := newClient(t, Options{})
		if size, ok, err := c.HasBlob(t.Context(), r, d.Digest); size != 5000 || !ok || err != nil {
			t.Errorf("HasBlob = %d, %v, %v", size, ok, err)
		}
		if size, ok, err := c.HasBlob(t.Context(), r, verify.DigestOf([]byte("none"))); size != 0 || ok || err != nil {
			t.Errorf("HasBlob of none = %d, %v, %v", size, ok, err)
		}
	})
	s := memory(t, registrytest.Answer(-1, registrytest.Blobs("HEAD"), 403, nil, ""))
	if _, _, err := newClient(t, Options{}).HasBlob(t.Context(), Repository{s.Host, "a"}, verify.DigestOf(nil)); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("HasBlob where it is forbidden: %v", err)
	}
	s = memory(t, registrytest.Answer(-1, registrytest.Blobs("HEAD"), 200, http.Header{"Docker-Content-Digest": {verify.DigestOf([]byte("x")).String()}}, ""))
	if _, _, err := newClient(t, Options{}).HasBlob(t.Context(), Repository{s.Host, "a"}, verify.DigestOf(nil)); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("HasBlob of another blob: %v", err)
	}
}

// A manifest whose length the registry told too small is asked for once more,
// and no more often when it is wrong again.
func TestManifestCutShort(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	sample := registrytest.Samples()[0]
	if err := sample.Push(t.Context(), s.Host); err != nil {
		t.Fatal(err)
	}
	for _, times := range []int{1, -1} {
		p := faultproxy.Start(t, s.URL, faultproxy.Options{})
		p.Add(faultproxy.Fault{Kind: faultproxy.ShortLength, Match: faultproxy.Target("GET", "/manifests/"), Times: times})
		c := newClient(t, Options{PlainHTTP: []string{p.Host}})
		d, content, err := c.Get(t.Context(), Repository{p.Host, sample.Repository}.Digest(sample.Root.Digest))
		if times == 1 && (err != nil || d.Digest != sample.Root.Digest || verify.DigestOf(content) != d.Digest) {
			t.Errorf("wrong once: %v", err)
		}
		if times == -1 && !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("wrong always: %v", err)
		}
		if n := len(p.Requests()); n > 3 { // the first asks how the host is spoken to
			t.Errorf("%d requests", n)
		}
	}
}
