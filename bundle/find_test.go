package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/verify"
)

// List tells bundles by their documents, finished or not, however deep.
func TestList(t *testing.T) {
	store := newMemory()
	for name, size := range map[string]int{
		"bundle.json": 10, "volume-001.tar": 1000, "volume-002.tar": 100, "notes.txt": 7,
		"a/bundle.json": 10, "a/volume-001.tar": 5, "a/bundle.json.pending": 10,
		"b/c/bundle.json.pending": 10, "b/c/volume-001.tar": 3,
		"d/bundle.json": 1, "d/bundle.sigstore.json.pending": 1, "d/e/bundle.json": 1,
		"f/volume-001.tar": 1, "g/notbundle.json": 1, "h/bundle.sigstore.json.pending": 1,
	} {
		store.objects[name] = make([]byte, size)
	}
	got, err := List(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	want := []Found{{Bytes: 1100}, {Folder: "a", Untidy: true, Bytes: 5}, {Folder: "b/c", Pending: true, Bytes: 3}, {Folder: "d", Untidy: true}, {Folder: "d/e"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A bundle below a folder is written, read, listed and removed as one at the
// root of a store, and touches nothing beside the folder.
func TestSub(t *testing.T) {
	store := newMemory()
	store.objects["volume-001.tar"] = []byte("of another")
	if Sub(store, "") != Store(store) {
		t.Error("the part below nothing is another store")
	}
	below := Sub(store, "a/b")
	if got, want := below.String(), "memory/a/b"; got != want {
		t.Errorf("it is called %q, want %q", got, want)
	}
	s := several()
	set := s.write(t, below, 90<<10)
	if err := readAll(below, "", readOptions("one")); err != nil {
		t.Error(err)
	}
	list, err := below.List(t.Context(), "bundle.")
	if want := []Info{{ManifestName, int64(len(set.Raw()))}, {SignatureName, SignatureSize}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("%v, %v, want %v", list, err, want)
	}
	if found, err := List(t.Context(), store); err != nil || len(found) != 1 || found[0].Folder != "a/b" || found[0].Bytes != set.Bytes() {
		t.Errorf("%+v, %v", found, err)
	}
	if err := below.PutNew(t.Context(), ManifestName, nil); !errors.Is(err, ErrExists) {
		t.Errorf("PutNew of what is there: %v", err)
	}
	if err := Discard(t.Context(), below, set); err != nil {
		t.Error(err)
	}
	for name := range store.objects {
		if strings.HasSuffix(name, ".tar") != (name == "volume-001.tar") {
			t.Errorf("%s is left", name)
		}
	}
}

// What a reader and a set say of themselves.
func TestSetSays(t *testing.T) {
	s := several()
	store := newMemory()
	set := s.write(t, store, 90<<10)
	other := bytes.TrimRight(signRaw(t, set.Raw(), "two"), " ")
	store.objects["bundle.two.sigstore.json"] = other
	store.objects["bundle.d/two.sigstore.json"] = []byte("not beside it")
	r, err := OpenReader(t.Context(), store, "", readOptions("one", "two"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Store() != Store(store) || r.Digest() != verify.DigestOf(set.Raw()) || r.Manifest().Name != "demo" {
		t.Errorf("%v, %s, %q", r.Store(), r.Digest(), r.Manifest().Name)
	}
	if len(r.Signers()) != 2 || len(set.Signers()) != 1 || set.Signers()[0].Fingerprint() != testKeys()["one"].Key().Fingerprint() {
		t.Errorf("%d and %d signers", len(r.Signers()), len(set.Signers()))
	}
	if others := r.OtherSignatures(); len(others) != 1 || !bytes.Equal(others["bundle.two.sigstore.json"], other) {
		t.Errorf("other signatures %q", others)
	}
	var bytesOfVolumes int64
	for name, content := range store.objects {
		if strings.HasSuffix(name, ".tar") {
			bytesOfVolumes += int64(len(content))
		}
	}
	if set.Bytes() != bytesOfVolumes {
		t.Errorf("%d bytes, want %d", set.Bytes(), bytesOfVolumes)
	}
	var paths []string
	for _, d := range r.LayoutDocuments() {
		paths = append(paths, d.Path)
	}
	if want := []string{"oci-layout", "index.json", "manifest.json"}; !slices.Equal(paths, want) {
		t.Errorf("documents %q, want %q", paths, want)
	}
	image := r.Manifest().Images[0]
	m, content := r.ManifestOf(image.Digest)
	if m == nil || !bytes.Equal(content, s.blobs[image.Digest]) || m.Config == nil {
		t.Errorf("the manifest is %v, %q", m, content)
	}
	if m, content := r.ManifestOf(m.Config.Digest); m != nil || content == nil {
		t.Errorf("the config is the manifest %v", m)
	}
	if m, content := r.ManifestOf(verify.Digest{}); m != nil || content != nil {
		t.Errorf("the zero digest is the manifest %v", m)
	}
	if _, err := r.OpenBlob(t.Context(), verify.Digest{}, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob that is not there: %v", err)
	}
}

// Each byte is seen while a part is checked.
func TestCheckSees(t *testing.T) {
	s := several()
	store := newMemory()
	s.write(t, store, 90<<10)
	r, err := OpenReader(t.Context(), store, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cut := 0
	for _, p := range r.Parts() {
		var seen int64
		if err := r.Check(t.Context(), p, func(n int64) { seen += n }); err != nil || seen != p.Size {
			t.Errorf("%s: %d of %d bytes were seen, %v", p.Digest, seen, p.Size, err)
		}
		if len(p.Volumes()) > 1 {
			cut++
		}
		if p.Document != (s.blobs[p.Digest] == nil) {
			t.Errorf("%s is a document: %t", p.Digest, p.Document)
		}
	}
	if cut != 1 {
		t.Errorf("%d blobs are cut, want 1", cut)
	}
}

// Inspect finds volumes that are wrong at their ends, each for itself.
func TestInspectFrame(t *testing.T) {
	s := several()
	whole := newMemory()
	set := s.write(t, whole, 90<<10)
	for name, do := range map[string]func(m *memory, l VolumeLayout){
		"missing":             func(m *memory, _ VolumeLayout) { delete(m.objects, VolumeName(0)) },
		"short":               func(m *memory, _ VolumeLayout) { m.objects[VolumeName(0)] = m.objects[VolumeName(0)][1:] },
		"long":                func(m *memory, _ VolumeLayout) { m.objects[VolumeName(0)] = append(m.objects[VolumeName(0)], 0) },
		"empty":               func(m *memory, _ VolumeLayout) { m.objects[VolumeName(0)] = nil },
		"first byte":          func(m *memory, _ VolumeLayout) { m.objects[VolumeName(0)][0] ^= 1 },
		"last byte of head":   func(m *memory, l VolumeLayout) { m.objects[VolumeName(0)][l.HeadSize-1] ^= 1 },
		"first byte of end":   func(m *memory, l VolumeLayout) { m.objects[VolumeName(0)][l.Trailer()] ^= 1 },
		"last byte":           func(m *memory, l VolumeLayout) { m.objects[VolumeName(0)][l.Size-1] ^= 1 },
		"head of another set": func(m *memory, l VolumeLayout) { copy(m.objects[VolumeName(0)], make([]byte, l.HeadSize)) },
		"signature of another": func(m *memory, l VolumeLayout) {
			copy(m.objects[VolumeName(0)], head(set.raw, signRaw(t, set.raw, "two")))
		},
	} {
		store := whole.clone()
		do(store, set.Volumes()[0])
		r, bad, err := set.Inspect(t.Context(), store)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(bad, []string{VolumeName(0)}) {
			t.Errorf("%s: %q are bad", name, bad)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	r, bad, err := set.Inspect(t.Context(), whole)
	if err != nil || bad != nil {
		t.Fatalf("%q, %v", bad, err)
	}
	defer r.Close()
	for _, p := range r.Parts() {
		if err := r.Check(t.Context(), p, nil); err != nil {
			t.Error(err)
		}
	}
}

// A signature is no longer than its room.
func TestPadSignature(t *testing.T) {
	for n, ok := range map[int]bool{0: true, 400: true, SignatureSize: true, SignatureSize + 1: false} {
		sig, err := PadSignature(bytes.Repeat([]byte("s"), n))
		if (err == nil) != ok || ok && (len(sig) != SignatureSize || len(bytes.TrimRight(sig, " ")) != n) {
			t.Errorf("%d bytes: %d, %v", n, len(sig), err)
		}
	}
}

// Documents beside the volumes that are too long are not read.
func TestSmallObjects(t *testing.T) {
	whole := newMemory()
	small().write(t, whole, 0)
	for name, limit := range map[string]int{ManifestName: MaxManifest, SignatureName: SignatureSize, "bundle.x.sigstore.json": verify.MaxSignature} {
		store := whole.clone()
		store.objects[name] = bytes.Repeat([]byte(" "), limit+1)
		f := &faulty{memory: store, fails: -1}
		err := readAll(f, "", readOptions("one"))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%s in memory has %d bytes, more than %d", name, limit+1, limit)) {
			t.Errorf("%s with one byte too many: %v", name, err)
		}
		if slices.Contains(f.calls, fmt.Sprintf("Range %s 0+%d", name, limit+1)) {
			t.Errorf("%s is read", name)
		}
		store.objects[name] = bytes.Repeat([]byte(" "), limit)
		if err := readAll(store, "", readOptions("one")); err == nil || strings.Contains(err.Error(), "more than") {
			t.Errorf("%s with just as many bytes as it may have: %v", name, err)
		}
	}
	// Beside the volumes' own there may be one signature less than may be tried.
	store := whole.clone()
	other := bytes.TrimRight(signRaw(t, store.objects[ManifestName], "two"), " ")
	for i := range verify.MaxSignatures - 1 {
		store.objects[fmt.Sprintf("bundle.%d.sigstore.json", i)] = other
	}
	if err := readAll(store, "", readOptions("one")); err != nil {
		t.Errorf("%d signatures: %v", verify.MaxSignatures, err)
	}
	for i := range 100 {
		store.objects[fmt.Sprintf("bundle.%d.sigstore.json", i)] = other
	}
	f := &faulty{memory: store, fails: -1}
	if err := readAll(f, "", readOptions("one")); !errors.Is(err, verify.ErrSignature) || !strings.Contains(err.Error(), "more than 32 signatures") {
		t.Errorf("101 signatures: %v", err)
	}
	if opened := strings.Count(strings.Join(f.calls, "\n"), "Open bundle."); opened > verify.MaxSignatures+2 {
		t.Errorf("%d signatures are read", opened)
	}
}

// What begins like a volume and is none.
func TestIsVolume(t *testing.T) {
	whole := newMemory()
	set := small().write(t, whole, 0)
	volume := whole.objects[VolumeName(0)]
	headSize := int(set.Volumes()[0].HeadSize)
	octal := func(size string) func([]byte) []byte {
		return func(p []byte) []byte { copy(p[124:], size); return p }
	}
	for name, tt := range map[string]struct {
		do   func(p []byte) []byte
		want bool
	}{
		"whole":              {func(p []byte) []byte { return p }, true},
		"head only":          {func(p []byte) []byte { return p[:headSize] }, true},
		"a byte less":        {func(p []byte) []byte { return p[:headSize-1] }, false},
		"one block":          {func(p []byte) []byte { return p[:512] }, false},
		"less than a block":  {func(p []byte) []byte { return p[:511] }, false},
		"empty":              {func(p []byte) []byte { return nil }, false},
		"other name":         {func(p []byte) []byte { p[0] = 'B'; return p }, false},
		"size is no number":  {octal("0000000000x"), false},
		"size below zero":    {octal("-0000000001"), false},
		"size of 8 GiB":      {octal("77777777777"), false},
		"no checksum":        {func(p []byte) []byte { clear(p[148:156]); return p }, false},
		"padding not zero":   {func(p []byte) []byte { p[headSize-SignatureSize-512-1] = 1; return p }, false},
		"signature's header": {func(p []byte) []byte { p[headSize-SignatureSize-512] = 'x'; return p }, false},
		"negative, whole": {func([]byte) []byte {
			return append(TarHeader(ManifestName, 0)[:124], ustarBlock(ManifestName, -1, '0')[124:]...)
		}, false},
	} {
		store := newMemory()
		store.objects["x"] = tt.do(bytes.Clone(volume))
		if got := IsVolume(t.Context(), store, "x"); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
		f := &faulty{memory: store, fails: -1}
		m, err := Unverified(t.Context(), f, "x")
		if tt.want != (err == nil && m.Name == "demo") || !tt.want && (!errors.Is(err, ErrCorrupt) || !strings.HasPrefix(err.Error(), "x in memory: ")) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		if ranges := strings.Count(strings.Join(f.calls, "\n"), "Range"); ranges > 1 && store.objects["x"][0] != 'b' {
			t.Errorf("%s: %d ranges are read of what does not begin like a volume", name, ranges)
		}
	}
	if IsVolume(t.Context(), newMemory(), "x") {
		t.Error("what is not there is a volume")
	}
	// A manifest of as many bytes as it may have and one more.
	for size, want := range map[int64]error{MaxManifest: ErrInvalid, MaxManifest + 1: ErrCorrupt} {
		raw := bytes.Repeat([]byte(" "), int(size))
		store := newMemory()
		store.objects["x"] = head(raw, bytes.Repeat([]byte(" "), SignatureSize))
		if _, err := Unverified(t.Context(), store, "x"); !errors.Is(err, want) {
			t.Errorf("a head with a manifest of %d bytes: %v, want %v", size, err, want)
		}
	}
}

// The layout's documents: an image without a tag goes by its digest; without a
// host in its source it is of Docker Hub; an index is no docker archive, unless it
// has one child.
func TestLayoutDocuments(t *testing.T) {
	s := newSample()
	s.addImage("library/base", "1.0", "layer")
	image := s.manifest.Images[0]
	child := oci.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	index := func(children ...oci.Descriptor) Image {
		b := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": children})
		return Image{Digest: b.Digest, MediaType: oci.MediaTypeIndex, Size: b.Size, Source: "registry.example:5000/i", Target: "i", Tags: []string{"1"}}
	}
	artifact := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": descriptor(oci.MediaTypeEmpty, s.addBlob([]byte("{}"))), "layers": []oci.Descriptor{}})
	for _, tt := range []struct {
		name  string
		image func() Image
		index []string // container name annotations
		repos []string // nil when there is no docker archive
	}{
		{"tagged", func() Image { return image }, []string{"registry.example/library/base:1.0"}, []string{"registry.example/library/base:1.0"}},
		{"no tag", func() Image { i := image; i.Tags = []string{}; return i }, []string{"registry.example/library/base@" + image.Digest.String()}, []string{}},
		{"no host", func() Image { i := image; i.Source = "base:1.0"; return i }, []string{"docker.io/library/base:1.0"}, []string{"docker.io/library/base:1.0"}},
		{"a path, no host", func() Image { i := image; i.Source = "library/base:1.0"; return i }, []string{"docker.io/library/base:1.0"}, []string{"docker.io/library/base:1.0"}},
		{"localhost", func() Image { i := image; i.Source = "localhost/base"; return i }, []string{"localhost/library/base:1.0"}, []string{"localhost/library/base:1.0"}},
		{"index of one", func() Image { return index(child) }, []string{"registry.example:5000/i:1"}, []string{"registry.example:5000/i:1"}},
		{"index of two", func() Image { return index(child, child) }, []string{"registry.example:5000/i:1"}, nil},
		{"artifact", func() Image {
			return Image{Digest: artifact.Digest, MediaType: oci.MediaTypeManifest, Size: artifact.Size, Source: "a.b/c", Target: "c", Tags: []string{"1"}}
		}, []string{"a.b/c:1"}, nil},
		{"index of an artifact", func() Image {
			return index(oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: artifact.Digest, Size: artifact.Size})
		}, []string{"registry.example:5000/i:1"}, nil},
	} {
		i := tt.image()
		i.Referrers = nil
		docs, err := LayoutDocuments([]Image{i}, s.parsed)
		if err != nil {
			t.Fatal(err)
		}
		if len(docs) != 2 && tt.repos == nil || len(docs) != 3 && tt.repos != nil {
			t.Errorf("%s: %d documents", tt.name, len(docs))
			continue
		}
		for _, name := range tt.index {
			if !bytes.Contains(docs[1].Content, []byte(`"io.containerd.image.name":"`+name+`"`)) {
				t.Errorf("%s: the index does not name %s: %s", tt.name, name, docs[1].Content)
			}
		}
		if refName := bytes.Contains(docs[1].Content, []byte("image.ref.name")); refName != (len(i.Tags) > 0) {
			t.Errorf("%s: the index has a reference name: %t", tt.name, refName)
		}
		if tt.repos != nil {
			want, err := compactJSON(tt.repos)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(docs[2].Content, append([]byte(`"RepoTags":`), want...)) || !bytes.Contains(docs[2].Content, []byte(BlobPath(verify.DigestOf([]byte("layer"))))) {
				t.Errorf("%s: manifest.json is %s, want tags %s", tt.name, docs[2].Content, want)
			}
		}
	}
}

// A path that does not fit into a tar header can not be written.
func TestTarHeaderPath(t *testing.T) {
	if h := TarHeader(strings.Repeat("x", 99), 1); len(h) != blockSize {
		t.Errorf("%d bytes", len(h))
	}
	defer func() {
		if recover() == nil {
			t.Error("a path of 100 bytes has a header")
		}
	}()
	TarHeader(strings.Repeat("x", 100), 1)
}
