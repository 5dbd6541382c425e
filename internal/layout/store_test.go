package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/s3store"
	"ferry/verify"
)

// maxCompared, in bytes, bounds the archives that are also opened in memory.
const maxCompared = 64 << 20

// tryOpen opens a path, and what is there once more in a store: both are the
// same source, or fail for the same reason.
func tryOpen(t testing.TB, path string) (*Source, error) {
	t.Helper()
	s, err := Open(path)
	store, ok := inMemory(t, path)
	if !ok {
		return s, err
	}
	other, otherErr := OpenStore(t.Context(), store, "g/x.tar")
	if otherErr == nil {
		defer other.Close()
	}
	switch {
	case err != nil || otherErr != nil:
		if got, want := reason(otherErr), reason(err); got != want {
			t.Errorf("OpenStore = %v, Open = %v", otherErr, err)
		}
	case !reflect.DeepEqual(other.images, s.images) || !reflect.DeepEqual(other.manifests, s.manifests):
		t.Errorf("in a store there are %+v, in a file %+v", other.images, s.images)
	default:
		if a, ok := s.blobs.(*archive); ok && !reflect.DeepEqual(other.blobs.(*archive).blobs, a.blobs) {
			t.Errorf("in a store the blobs are at %+v, in a file at %+v", other.blobs.(*archive).blobs, a.blobs)
		}
	}
	return s, err
}

// reason returns the text of err without the place; a store without an image
// layout is the only thing that a folder calls otherwise.
func reason(err error) string {
	if err == nil {
		return ""
	}
	if errors.Is(err, bundle.ErrNotFound) {
		return ErrUnknown.Error() + ": there is no " + markerName + " in it"
	}
	_, text, _ := strings.Cut(err.Error(), `": `)
	return text
}

// inMemory returns a store that has the file or the folder path at g/x.tar, and
// whether it is one that a store can have.
func inMemory(t testing.TB, path string) (*storetest.Mem, bool) {
	t.Helper()
	store := &storetest.Mem{}
	ok := true
	err := filepath.Walk(path, func(file string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if ok = ok && info.Mode().IsRegular() && info.Size() <= maxCompared; !ok {
			return filepath.SkipAll
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(path, file)
		store.Set(strings.TrimSuffix("g/x.tar/"+filepath.ToSlash(below), "/."), content)
		return err
	})
	return store, ok && err == nil
}

// startS3 returns a real server and a store that is its bucket.
func startS3(t *testing.T) (*storetest.S3, bundle.Store) {
	t.Helper()
	server := storetest.StartS3(t)
	store, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	return server, store
}

// upload puts a file, or the files of a folder, into a store.
func upload(t testing.TB, store bundle.Store, path, name string) {
	t.Helper()
	files := []string{"."}
	if info, err := os.Stat(path); err != nil {
		t.Fatal(err)
	} else if info.IsDir() {
		files = list(t, path)
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(path, filepath.FromSlash(file)))
		if err == nil {
			err = store.Put(t.Context(), strings.TrimSuffix(name+"/"+file, "/."), content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func mustOpenStore(t testing.TB, store bundle.Store, name string) *Source {
	t.Helper()
	s, err := OpenStore(t.Context(), store, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What skopeo and crane write is the same image in a bucket as on a disk, and
// every request but the first for an object says which one it wants.
func TestToolsInBucket(t *testing.T) {
	skopeo, crane := systemTool(t, "skopeo"), registrytest.Tool(t, "crane")
	registry := registrytest.Memory(t, registrytest.Options{})
	sample := registrytest.Samples()[0]
	if err := sample.Push(t.Context(), registry.Host); err != nil {
		t.Fatal(err)
	}
	ref := registry.Host + "/" + sample.Repository + ":" + sample.ImageTags()[0]
	dir := t.TempDir()
	for _, transport := range []string{"oci", "oci-archive", "docker-archive"} {
		run(t, skopeo, "copy", "-q", "--src-tls-verify=false", "docker://"+ref, transport+":"+filepath.Join(dir, "skopeo-"+transport)+":localhost/demo:v1")
	}
	for _, format := range []string{"oci", "tarball", "legacy"} {
		run(t, crane, "pull", "--insecure", "--format="+format, ref, filepath.Join(dir, "crane-"+format))
	}
	saved, _, _ := oldSave(t)
	if err := os.WriteFile(filepath.Join(dir, "docker-old"), tarOf(t, saved...), 0o600); err != nil {
		t.Fatal(err)
	}
	server, store := startS3(t)
	for _, kind := range []string{"skopeo-oci", "skopeo-oci-archive", "skopeo-docker-archive", "crane-oci", "crane-tarball", "crane-legacy", "docker-old"} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(dir, kind)
			name := "g/" + kind + ".tar"
			upload(t, store, path, name)
			server.Proxy.Reset()
			want, got := mustOpen(t, path), mustOpenStore(t, store, name)
			if opened := len(server.Proxy.Requests("")); opened > 9 {
				t.Errorf("opening took %d requests", opened)
			}
			if len(want.Images()) == 0 || !reflect.DeepEqual(got.Images(), want.Images()) {
				t.Fatalf("Images() = %+v, want %+v", got.Images(), want.Images())
			}
			for _, image := range got.Images() {
				gotManifests, gotBlobs := checkImage(t, got, image.Descriptor)
				if wantManifests, wantBlobs := checkImage(t, want, image.Descriptor); gotManifests != wantManifests || gotBlobs != wantBlobs {
					t.Errorf("%d manifests and %d blobs, want %d and %d", gotManifests, gotBlobs, wantManifests, wantBlobs)
				}
			}
			for _, r := range server.Proxy.Requests("GetObject") {
				if r.Header.Get("If-Match") == "" && r.Status == http.StatusPartialContent {
					t.Errorf("%s %s %s has no If-Match", r.Method, r.Path, r.Header.Get("Range"))
				}
			}
			if n := len(server.Proxy.Requests("ListObjectsV2")); n > 0 {
				t.Errorf("%d lists", n)
			}
		})
	}
}

// bulky returns a docker archive as old docker wrote it, of n layers with size
// bytes each: four entries for each.
func bulky(t testing.TB, n, size int) []byte {
	t.Helper()
	var files []file
	var layers, names []string
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range n {
		content := make([]byte, size)
		rnd.Read(content)
		id := digestOf(fmt.Sprint(i)).Hex()
		layers, names = append(layers, string(content)), append(names, id+"/layer.tar")
		files = append(files, file{name: id + "/"}, file{name: id + "/VERSION", content: "1.0"},
			file{name: id + "/json", content: strings.Repeat("{}", 500)}, file{name: names[i], content: string(content)})
	}
	config := configOf(t, layers...)
	return tarOf(t, append(files, file{name: digestOf(config).Hex() + ".json", content: config},
		file{name: dockerName, content: toJSON(t, []dockerImage{{Config: digestOf(config).Hex() + ".json", RepoTags: []string{"demo:1"}, Layers: names}})},
		file{name: "repositories", content: "{}"})...)
}

// Opening costs few requests where entries are small, and one for each large
// entry, of which little is read.
func TestRequests(t *testing.T) {
	for _, c := range []struct {
		layers, size    int
		requests, bytes int64 // at most
	}{
		{1, 100, 1, 64 << 10},
		{25, 1000, 2, 320 << 10},           // 103 entries
		{500, 0, 5, 5 << 20},               // 2003
		{25, 40_000, 4, 4 << 20},           // read over
		{20, 2 << 20, 21, 21 * (64 << 10)}, // a request for each layer
		{3, 20 << 20, 4, 4 * (64 << 10)},   // however large
		{100, 300_000, 35, 31 << 20},       // less than a request for each
		{2, maxAhead, 3, 6 * (64 << 10)},   // not worth a jump
	} {
		store := &storetest.Mem{}
		store.Set("x.tar", bulky(t, c.layers, c.size))
		mustOpenStore(t, store, "x.tar")
		read, _ := store.Bytes()
		if n := int64(store.Count("Range")); n > c.requests || read > c.bytes || store.Count("Open") != 1 || store.Count("List") != 0 {
			t.Errorf("%d layers of %d bytes: %d requests for %d bytes, want at most %d for %d: %+v", c.layers, c.size, n, read, c.requests, c.bytes, store.Calls())
		}
	}
}

// A blob is one request, of the bytes that are wanted and no others.
func TestBlobRequests(t *testing.T) {
	s := newSmall(t)
	store := &storetest.Mem{}
	store.Set("x.tar", tarOf(t, s.layout(t)...))
	src := mustOpenStore(t, store, "x.tar")
	before := len(store.Calls())
	r, err := src.OpenBlob(t.Context(), digestOf(s.layer), 700)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != s.layer[700:] || errors.Join(err, r.Close()) != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	calls := store.Calls()[before:]
	if len(calls) != 1 || calls[0].Op != "Range" || calls[0].Size != int64(len(s.layer)-700) {
		t.Errorf("calls = %+v", calls)
	}
}

// A layer of 2 GiB costs a request, and neither memory nor a file.
func TestLargeLayerInBucket(t *testing.T) {
	const size = 2 << 30
	server, store := startS3(t)
	zeros := verify.DigestOf([]byte("not read"))
	config := toJSON(t, map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": []verify.Digest{zeros}}})
	rest := tarOf(t, file{name: "config.json", content: config},
		file{name: dockerName, content: toJSON(t, []dockerImage{{Config: "config.json", RepoTags: []string{"demo:1"}, Layers: []string{"layer.tar"}}})})
	f, err := os.Create(server.File("large.tar"))
	if err != nil {
		t.Fatal(err)
	}
	_, first := f.Write(bundle.TarHeader("layer.tar", size))
	_, last := f.WriteAt(rest, tarBlock+size)
	if err := errors.Join(first, last, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nowhere"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	src := mustOpenStore(t, store, "large.tar")
	if n := len(server.Proxy.Requests("GetObject")); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	r, err := src.OpenBlob(t.Context(), zeros, size-200<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); n != 200<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d bytes of memory for an archive of 2 GiB", got)
	}
}

// An archive that is replaced is an error from then on, and never read as a
// mixture (T45).
func TestReplaced(t *testing.T) {
	old, next := bulky(t, 3, 2<<20), bulky(t, 3, 2<<20)
	next[len(next)/2] ^= 1
	t.Run("while it is opened", func(t *testing.T) {
		for n := 1; n <= 4; n++ {
			store := &storetest.Mem{}
			store.Set("x.tar", old)
			store.Before(func(c storetest.Call) error {
				if store.Count("Range") == n {
					store.Set("x.tar", next)
				}
				return nil
			})
			if _, err := OpenStore(t.Context(), store, "x.tar"); !errors.Is(err, bundle.ErrChanged) {
				t.Errorf("replaced before request %d: OpenStore = %v", n, err)
			}
		}
	})
	t.Run("in a bucket", func(t *testing.T) {
		server, store := startS3(t)
		put := func(content []byte) {
			if err := store.Put(context.WithoutCancel(t.Context()), "x.tar", content); err != nil {
				t.Error(err)
			}
		}
		put(old)
		src := mustOpenStore(t, store, "x.tar")
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, CutAfter: 1 << 20})
		layer := layersOf(t, src, src.Images()[0].Descriptor).Layers[1]
		r, err := src.OpenBlob(t.Context(), layer.Digest, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 1<<19)); err != nil {
			t.Fatal(err)
		}
		put(next)
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("read %d more bytes, %v", n, err)
		}
		if _, err := readBlob(src, layer); !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("another blob after that: %v", err)
		}
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Before: func() { put(old) }})
		if _, err := OpenStore(t.Context(), store, "x.tar"); !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("replaced after the first look: OpenStore = %v", err)
		}
	})
	t.Run("a file that is cut", func(t *testing.T) {
		path := write(t, old)
		src := mustOpen(t, path)
		layer := layersOf(t, src, src.Images()[0].Descriptor).Layers[2]
		if err := os.Truncate(path, 5<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := readBlob(src, layer); !errors.Is(err, bundle.ErrChanged) {
			t.Errorf("reading it = %v", err)
		}
	})
}

// What breaks on the way is asked for again, and what stays broken is what the
// store says (T41).
func TestFaults(t *testing.T) {
	server, store := startS3(t)
	content := bulky(t, 3, 2<<20)
	if err := store.Put(t.Context(), "g/x.tar", content); err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]storetest.Fault{
		"reset in the middle":   {Op: "GetObject", Times: 4, CutAfter: 20_000},
		"reset before the body": {Op: "GetObject", Times: 1, BeforeBody: true},
		"no time":               {Times: 1, Status: http.StatusServiceUnavailable, Code: "SlowDown"},
		"lost answers":          {Op: "HeadObject", Times: 1, LoseReply: true},
	} {
		t.Run(name, func(t *testing.T) {
			server.Proxy.Reset()
			server.Proxy.Add(fault)
			src := mustOpenStore(t, store, "g/x.tar")
			server.Proxy.Add(fault)
			if m, b := checkImage(t, src, src.Images()[0].Descriptor); m != 1 || b != 4 {
				t.Errorf("%d manifests and %d blobs", m, b)
			}
		})
	}
	for _, c := range []struct {
		name  string
		fault storetest.Fault
		want  error
	}{
		{"denied", storetest.Fault{Times: -1, Status: http.StatusForbidden, Code: "AccessDenied"}, s3store.ErrDenied},
		{"denied after the look", storetest.Fault{Op: "GetObject", Times: -1, Status: http.StatusForbidden, Code: "AccessDenied"}, s3store.ErrDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			server.Proxy.Reset()
			server.Proxy.Add(c.fault)
			for _, name := range []string{"g/x.tar", "g", ""} {
				if name != "g/x.tar" && c.fault.Op != "" {
					continue // nothing is got there
				}
				if _, err := OpenStore(t.Context(), store, name); !errors.Is(err, c.want) || errors.Is(err, ErrInvalid) {
					t.Errorf("OpenStore(%q) = %v, want %v", name, err, c.want)
				}
			}
		})
	}
	server.Proxy.Reset()
	for _, name := range []string{"missing.tar", "g/missing", "g"} {
		if _, err := OpenStore(t.Context(), store, name); !errors.Is(err, bundle.ErrNotFound) || !strings.Contains(err.Error(), "s3://ferry-test/"+name) {
			t.Errorf("OpenStore(%q) = %v, want ErrNotFound", name, err)
		}
	}
	if _, err := OpenStore(t.Context(), store, ""); !errors.Is(err, ErrUnknown) {
		t.Errorf("OpenStore of a bucket = %v", err)
	}
	nowhere, err := s3store.New(t.Context(), s3store.Options{Bucket: "no-such-bucket", HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x.tar", ""} {
		if _, err := OpenStore(t.Context(), nowhere, name); err == nil || errors.Is(err, bundle.ErrNotFound) || !strings.Contains(err.Error(), `no bucket "no-such-bucket"`) {
			t.Errorf("OpenStore(%q) in no bucket = %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenStore(ctx, store, "g/x.tar"); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenStore after cancel = %v", err)
	}
}

// A store whose streams end too early, and one that fails at any of the calls
// that opening takes, is never taken for a damaged archive.
func TestFailingStore(t *testing.T) {
	broken := errors.New("broken")
	content := bulky(t, 3, 2<<20)
	calls := 0
	for n := 1; n == 1 || n <= calls; n++ {
		store := &storetest.Mem{}
		store.Set("x.tar", content)
		if n == 1 {
			mustOpenStore(t, store, "x.tar")
			if calls = len(store.Calls()); calls < 4 {
				t.Fatalf("%d calls", calls)
			}
		}
		store.FailCall(n+len(store.Calls()), broken)
		if _, err := OpenStore(t.Context(), store, "x.tar"); !errors.Is(err, broken) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnknown) {
			t.Errorf("call %d fails: OpenStore = %v", n, err)
		}
	}
	store := &storetest.Mem{}
	store.Set("x.tar", content)
	store.CutStreams(1, 1000)
	if _, err := OpenStore(t.Context(), store, "x.tar"); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrInvalid) {
		t.Errorf("a stream of 1000 bytes: OpenStore = %v", err)
	}
}

// The object of a name goes before the layout below it; a slash more than that
// is the caller's affair.
func TestObjectOrFolder(t *testing.T) {
	s := newSmall(t)
	store := &storetest.Mem{}
	for _, f := range s.layout(t) {
		store.Set("a/x/"+f.name, []byte(f.content))
	}
	checkImage(t, mustOpenStore(t, store, "a/x"), descriptorOf(s.manifest))
	checkImage(t, mustOpenStore(t, bundle.Sub(store, "a/x"), ""), descriptorOf(s.manifest))
	store.Set("a/x", []byte("text"))
	if _, err := OpenStore(t.Context(), store, "a/x"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "a/x") {
		t.Errorf("OpenStore = %v, want ErrUnknown", err)
	}
	store.Set("a/x", []byte(gzipOf(t, string(tarOf(t, s.layout(t)...)))))
	if _, err := OpenStore(t.Context(), store, "a/x"); !errors.Is(err, ErrCompressed) {
		t.Errorf("OpenStore = %v, want ErrCompressed", err)
	}
	store.Set("b/"+markerName, []byte(marker))
	if _, err := OpenStore(t.Context(), store, "b"); !errors.Is(err, ErrInvalid) || errors.Is(err, bundle.ErrNotFound) {
		t.Errorf("a layout without index.json: OpenStore = %v, want ErrInvalid", err)
	}
}

// The window has the bytes of the object, wherever one looks.
func TestWindow(t *testing.T) {
	content := make([]byte, 5<<20+123)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	store := &storetest.Mem{}
	store.Set("x", content)
	object, err := store.Open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	w := newWindow(t.Context(), object)
	whole := bytes.NewReader(content)
	sizes := []int{0, 1, 6, tarBlock, minAhead, minAhead + 1, maxAhead - 1, maxAhead, maxAhead + 1, 3 << 20, len(content), len(content) + 1}
	off := int64(0)
	for i := range 2000 {
		switch rnd.IntN(4) {
		case 0:
			off = rnd.Int64N(int64(len(content)) + 1000)
		case 1:
			off += rnd.Int64N(2 * tarBlock)
		}
		size := sizes[rnd.IntN(6)]
		if i%50 == 0 {
			size = sizes[rnd.IntN(len(sizes))]
		}
		got, want := make([]byte, size), make([]byte, size)
		n, err := w.ReadAt(got, off)
		wantN, wantErr := whole.ReadAt(want, off)
		if size == 0 {
			wantErr = nil // bytes.Reader says where it is
		}
		if n != wantN || err != wantErr || !slices.Equal(got, want) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v; want %d, %v", size, off, n, err, wantN, wantErr)
		}
		if cap(w.held) > maxAhead {
			t.Fatalf("the window has %d bytes", cap(w.held))
		}
		off += int64(n)
	}
}

// Damaged archives are what they are on a disk, object for object.
func TestDamagedInStore(t *testing.T) {
	whole := bulky(t, 2, 3<<19)
	for _, n := range []int{0, 5, tarBlock, 1 << 19, len(whole) / 2, len(whole) - 3*tarBlock, len(whole) - 1} {
		src, err := tryOpen(t, write(t, whole[:n]))
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnknown) {
			t.Errorf("cut to %d of %d bytes: Open = %v", n, len(whole), err)
			src.Close()
		}
	}
	lying := bytes.Clone(whole)
	at := bytes.Index(lying, []byte(fmt.Sprintf("%011o", 3<<19)))
	copy(lying[at:], fmt.Sprintf("%011o", 1<<30))
	sign(lying[at-124 : at-124+tarBlock])
	if _, err := tryOpen(t, write(t, lying)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "ends after") {
		t.Errorf("a layer that claims 1 GiB: Open = %v", err)
	}
	flipped := bytes.Clone(whole)
	flipped[1<<20] ^= 1
	store := &storetest.Mem{}
	store.Set("x.tar", flipped)
	src := mustOpenStore(t, store, "x.tar")
	layer := layersOf(t, src, src.Images()[0].Descriptor).Layers[0]
	if _, err := readBlob(src, oci.Descriptor{Digest: layer.Digest, Size: layer.Size}); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("a flipped bit in a layer: %v", err)
	}
}
