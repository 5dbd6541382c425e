package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/verify"
)

// readAll opens and checks a whole bundle.
func readAll(store Store, volume string, o ReadOptions) error {
	ctx := context.Background()
	r, err := OpenReader(ctx, store, volume, o)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, p := range r.Parts() {
		if err := r.Check(ctx, p, nil); err != nil {
			return err
		}
	}
	return nil
}

// isVerdict reports whether err is one that a damaged bundle must give.
func isVerdict(err error) bool {
	for _, target := range []error{verify.ErrUntrusted, ErrCorrupt, ErrIncomplete, ErrInvalid} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int64{0, 64 << 10} {
		s := small()
		s.addImage("team/large", "v3", strings.Repeat("large ", 20<<10), "x")
		store := newMemory()
		set := s.write(t, store, size)
		if err := readAll(store, "", readOptions("one")); err != nil {
			t.Fatal(err)
		}
		if size == 0 && len(set.Volumes()) != 1 || size != 0 && len(set.Volumes()) < 3 {
			t.Errorf("%d volumes at size %d", len(set.Volumes()), size)
		}
		r, err := OpenReader(t.Context(), store, VolumeName(0), readOptions("one"))
		if err != nil {
			t.Fatal(err)
		}
		for d, want := range s.blobs {
			for _, off := range []int64{0, 1, int64(len(want)) / 2, int64(len(want)) - 1, int64(len(want))} {
				body, err := r.OpenBlob(t.Context(), d, off)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				if err != nil || !bytes.Equal(got, want[off:]) {
					t.Errorf("size %d: %s from %d: %d bytes, %v", size, d, off, len(got), err)
				}
				if err := body.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		for v, l := range set.Volumes() {
			volume := store.objects[VolumeName(v)]
			if int64(len(volume)) != l.Size || size != 0 && l.Size > size {
				t.Errorf("%s has %d bytes, layout %d, limit %d", VolumeName(v), len(volume), l.Size, size)
			}
			checkTar(t, volume, l)
		}
	}
}

// checkTar compares what archive/tar reads with the layout.
func checkTar(t *testing.T, volume []byte, l VolumeLayout) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(volume))
	want := []string{ManifestName, SignatureName}
	for _, f := range l.Files {
		want = append(want, f.Path)
	}
	var got []string
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || h.Mode != 0o444 || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Uname+h.Gname != "" {
			t.Errorf("%s: header %+v", h.Name, h)
		}
		got = append(got, h.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("tar has %q, want %q", got, want)
	}
}

// positions returns every place in content, but of a run of one byte that is
// longer than 64 only its ends and some between; with FERRY_SOAK set all.
func positions(content []byte) []int {
	var list []int
	run := 0
	for i := range content {
		if i > 0 && content[i] == content[i-1] {
			run++
		} else {
			run = 0
		}
		last := i+1 == len(content) || content[i+1] != content[i]
		if run < 32 || run%509 == 0 || last || os.Getenv("FERRY_SOAK") != "" {
			list = append(list, i)
		}
	}
	return list
}

// T01, T02, T03: no byte of a bundle can change, in any file.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	store := newMemory()
	small().write(t, store, 0)
	for _, name := range []string{ManifestName, SignatureName, VolumeName(0)} {
		damaged := store.clone()
		content := damaged.objects[name]
		starts := []string{"", VolumeName(0)}
		if name != VolumeName(0) {
			starts = starts[:1] // the volume is whole by itself
		}
		for n, i := range positions(content) {
			if testing.Short() && n%7 != 0 {
				continue
			}
			was := content[i]
			for _, b := range []byte{was ^ 1, ' '} {
				if b == was || b == ' ' && name == VolumeName(0) {
					continue
				}
				content[i] = b
				for _, start := range starts {
					if err := readAll(damaged, start, readOptions("one")); !isVerdict(err) {
						t.Fatalf("%s from %q: byte %d is %q instead of %q: %v", name, start, i, b, was, err)
					}
				}
			}
			content[i] = was
		}
		if err := readAll(damaged, "", readOptions("one")); err != nil {
			t.Fatal(err)
		}
	}
}

// T03, T07: nothing can be cut off or appended.
func TestEveryCut(t *testing.T) {
	t.Parallel()
	store := newMemory()
	small().write(t, store, 0)
	for _, name := range []string{ManifestName, SignatureName, VolumeName(0)} {
		whole := store.objects[name]
		var contents [][]byte
		for i, n := range positions(whole) {
			if testing.Short() && i%7 != 0 {
				continue
			}
			contents = append(contents, whole[:n])
		}
		for _, more := range []string{"\x00", " ", "\n", "x", strings.Repeat("\x00", 512), strings.Repeat("\x00", 10240), string(whole)} {
			contents = append(contents, append(bytes.Clone(whole), more...))
		}
		for _, content := range contents {
			damaged := store.clone()
			damaged.objects[name] = content
			if err := readAll(damaged, "", readOptions("one")); !isVerdict(err) {
				t.Fatalf("%s with %d bytes instead of %d: %v", name, len(content), len(whole), err)
			}
		}
	}
}

// T04, T05, T06: volumes may be renamed and have company, but not be missing.
func TestVolumeNames(t *testing.T) {
	s := newSample()
	for i := range 4 {
		s.addImage(fmt.Sprintf("image%d", i), "1", strings.Repeat(fmt.Sprint(i), 40<<10))
	}
	store := newMemory()
	set := s.write(t, store, 80<<10)
	n := len(set.Volumes())
	if n < 4 {
		t.Fatalf("%d volumes", n)
	}
	for range 30 {
		shuffled := newMemory()
		shuffled.objects[ManifestName], shuffled.objects[SignatureName] = store.objects[ManifestName], store.objects[SignatureName]
		for v, to := range rand.Perm(n) {
			shuffled.objects[fmt.Sprintf("part%d.tar", to)] = store.objects[VolumeName(v)]
		}
		shuffled.objects["stray.bak"] = []byte("stray")
		shuffled.objects["volume-1.tar"] = []byte("decoy")
		shuffled.objects["aa.tar"] = bytes.Repeat([]byte{0}, len(store.objects[VolumeName(0)]))
		if err := readAll(shuffled, "", readOptions("one")); err != nil {
			t.Fatalf("renamed volumes: %v", err)
		}
		if err := readAll(shuffled, "part1.tar", readOptions("one")); err != nil {
			t.Fatalf("renamed volumes, from one of them: %v", err)
		}
		delete(shuffled.objects, fmt.Sprintf("part%d.tar", rand.IntN(n)))
		if err := readAll(shuffled, "", readOptions("one")); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("a volume is missing: %v", err)
		}
	}
	for a := range n {
		for b := range a {
			damaged := store.clone()
			delete(damaged.objects, VolumeName(a))
			delete(damaged.objects, VolumeName(b))
			err := readAll(damaged, "", readOptions("one"))
			if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), VolumeName(a)) || !strings.Contains(err.Error(), VolumeName(b)) {
				t.Errorf("%s and %s missing: %v", VolumeName(a), VolumeName(b), err)
			}
			// Two copies of one volume do not stand for another.
			damaged = store.clone()
			damaged.objects[VolumeName(a)] = damaged.objects[VolumeName(b)]
			if err := readAll(damaged, "", readOptions("one")); !isVerdict(err) {
				t.Errorf("%s in the place of %s: %v", VolumeName(b), VolumeName(a), err)
			}
		}
	}
}

// T27: parts of two bundles do not make one.
func TestMixes(t *testing.T) {
	a, b := newMemory(), newMemory()
	small().write(t, a, 0)
	s := small()
	s.manifest.Sequence = 8
	s.write(t, b, 0)
	names := []string{ManifestName, SignatureName, VolumeName(0)}
	for mix := range 1 << len(names) {
		store := newMemory()
		for i, name := range names {
			from := a
			if mix>>i&1 == 1 {
				from = b
			}
			store.objects[name] = from.objects[name]
		}
		err := readAll(store, "", readOptions("one"))
		if pure := mix == 0 || mix == 1<<len(names)-1; pure && err != nil || !pure && !isVerdict(err) {
			t.Errorf("mix %03b: %v", mix, err)
		}
	}
}

func TestSignatures(t *testing.T) {
	store := newMemory()
	set := small().write(t, store, 0)
	second := bytes.TrimRight(signRaw(t, set.Raw(), "two"), " ")
	for _, tt := range []struct {
		name string
		do   func(m *memory)
		keys []string
		want error
	}{
		{"right key", func(*memory) {}, []string{"one"}, nil},
		{"wrong key", func(*memory) {}, []string{"two"}, verify.ErrWrongKey},
		{"no key", func(*memory) {}, nil, verify.ErrNoKey},
		{"stripped", func(m *memory) { delete(m.objects, SignatureName) }, []string{"one"}, verify.ErrUnsigned}, // T21
		{"second signature beside it", func(m *memory) { m.objects["bundle.site.sigstore.json"] = second }, []string{"two"}, nil},
		{"second signature of other content", func(m *memory) {
			m.objects["bundle.site.sigstore.json"] = signRaw(t, []byte("other"), "two")
		}, []string{"one"}, verify.ErrUntrusted},
		{"signed again with another key", func(m *memory) { m.objects[SignatureName] = signRaw(t, set.Raw(), "two") }, []string{"two"}, ErrCorrupt},
		{"no manifest", func(m *memory) { delete(m.objects, ManifestName) }, []string{"one"}, ErrNotFound},
	} {
		damaged := store.clone()
		tt.do(damaged)
		if err := readAll(damaged, "", readOptions(tt.keys...)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	expired := readOptions("one")
	s := small()
	s.manifest.Expires = testTime.Format("2006-01-02T15:04:05Z")
	store = newMemory()
	s.write(t, store, 0)
	if err := readAll(store, "", expired); !errors.Is(err, verify.ErrExpired) {
		t.Errorf("expired bundle: %v", err)
	}
	expired.Now = testTime.Add(-1)
	if err := readAll(store, "", expired); err != nil {
		t.Errorf("bundle just before it expires: %v", err)
	}
}

// An interrupted export is continued by the same calls, and the bytes are the
// same as those of one that was not.
func TestInterruptedWriter(t *testing.T) {
	s := small()
	s.addImage("team/large", "v3", strings.Repeat("large ", 50<<10), "x")
	s.pack(t, 100<<10)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	whole := newMemory()
	if err := s.writeSet(whole, set); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		store := newMemory()
		store.failAfter = n
		err := s.writeSet(store, set)
		if err == nil {
			if n < 20 {
				t.Errorf("only %d writes", n)
			}
			break
		}
		if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("write %d: %v", n, err)
		}
		if _, ok := store.objects[ManifestName]; ok {
			t.Fatalf("write %d failed and %s is there", n, ManifestName)
		}
		store.failAfter = -1
		if err := s.writeSet(store, set); err != nil {
			t.Fatalf("after %d writes: %v", n, err)
		}
		for name, want := range whole.objects {
			if !bytes.Equal(store.objects[name], want) {
				t.Fatalf("after %d writes: %s is not the same", n, name)
			}
		}
		if len(store.objects) != len(whole.objects) || len(store.partial) != 0 {
			t.Errorf("after %d writes: %d objects and %d partial ones", n, len(store.objects), len(store.partial))
		}
	}
	// The third time there is nothing to write.
	w, err := NewWriter(t.Context(), whole, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	if _, missing, _, _ := w.Count(); missing != 0 {
		t.Errorf("%d parts are missing in a whole bundle", missing)
	}
}

// T01: what an earlier run left counts only when it is right.
func TestKeptGarbage(t *testing.T) {
	s := small()
	s.pack(t, 0)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	store := newMemory()
	store.partial[VolumeName(0)] = bytes.Repeat([]byte{0xaa}, int(set.Volumes()[0].Size))
	if err := s.writeSet(store, set); err != nil {
		t.Fatal(err)
	}
	if err := readAll(store, "", readOptions("one")); err != nil {
		t.Error(err)
	}
}

func TestWriterRefusesWrongContent(t *testing.T) {
	for name, content := range map[string]string{"other": "the layer of the xpp", "short": "the layer", "long": "the layer of the app!", "empty": ""} {
		s := small()
		s.pack(t, 0)
		raw, sig := signManifest(t, s.manifest, "one")
		s.blobs[verify.DigestOf([]byte("the layer of the app"))] = []byte(content)
		store := newMemory()
		err := s.writeSet(store, openSet(t, raw, sig))
		if !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("%s content: %v", name, err)
		}
		if store.objects[VolumeName(0)] != nil || store.objects[ManifestName] != nil {
			t.Errorf("%s content: the bundle is visible", name)
		}
	}
}

// A config of one image can be a layer of another.
func TestConfigAsLayer(t *testing.T) {
	s := newSample()
	s.addImage("a/a", "1", "layer")
	config := s.groups[0].Small[2]
	s.addImage("b/b", "1", string(s.blobs[config.Digest]), "other")
	store := newMemory()
	s.write(t, store, 0)
	if err := readAll(store, "", readOptions("one")); err != nil {
		t.Error(err)
	}
}

func TestInspect(t *testing.T) {
	s := newSample()
	for i := range 3 {
		s.addImage(fmt.Sprintf("image%d", i), "1", strings.Repeat(fmt.Sprint(i), 40<<10))
	}
	store := newMemory()
	set := s.write(t, store, 80<<10)
	delete(store.objects, VolumeName(0))
	store.objects[VolumeName(1)] = store.objects[VolumeName(1)][1:]
	r, bad, err := set.Inspect(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if want := []string{VolumeName(0), VolumeName(1)}; !slices.Equal(bad, want) {
		t.Errorf("Inspect finds %q, want %q", bad, want)
	}
}

// Pack keeps to the size, takes each layer once, and cuts only what it must.
func TestPackProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSample()
		sizes := rapid.SliceOfN(rapid.IntRange(0, 60<<10), 1, 12).Draw(t, "sizes")
		for i, size := range sizes {
			layers := []string{strings.Repeat(string(rune('a'+i)), size)}
			if i > 0 {
				shared := rapid.IntRange(0, i-1).Draw(t, "shared")
				layers = append(layers, strings.Repeat(string(rune('a'+shared)), sizes[shared]))
			}
			s.addImage(fmt.Sprintf("image%d", i), "1", layers...)
		}
		limit := int64(rapid.IntRange(60, 200).Draw(t, "limit")) << 10
		docs, err := LayoutDocuments(s.manifest.Images, s.parsed)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.manifest.Pack(docs, s.groups, limit); err != nil {
			if !strings.Contains(err.Error(), "too small") {
				t.Fatal(err)
			}
			return
		}
		raw, err := s.manifest.Encode()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[verify.Digest]int64{}
		for v, l := range s.manifest.Layout(int64(len(raw))) {
			if l.Size > limit {
				t.Fatalf("volume %d has %d bytes, limit %d", v+1, l.Size, limit)
			}
			for _, f := range l.Files {
				if f.isPiece() {
					if headSize(int64(len(raw)))+fileSize(int64(len(s.blobs[f.Digest])))+trailerSize < limit/2 {
						t.Fatalf("a blob of %d bytes was cut at a limit of %d", len(s.blobs[f.Digest]), limit)
					}
					seen[f.Digest] += f.Size
				} else if f.isBlob() {
					seen[f.Digest] = f.Size
				}
			}
		}
		for d, content := range s.blobs {
			if seen[d] != int64(len(content)) {
				t.Fatalf("%d of %d bytes of %s are packed", seen[d], len(content), d)
			}
		}
		again, err := parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := again.Encode(); err != nil || !bytes.Equal(b, raw) {
			t.Fatalf("parse and Encode: %v", err)
		}
	})
}

func TestTarHeaderOfLargeFile(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, maxOctal - 1, maxOctal, maxOctal + 1, 99_999_999_999, MaxSize} {
		h := TarHeader(PiecePath(verify.Digest{}, MaxSize-1), size)
		if int64(len(h)) != headerSize(size) {
			t.Errorf("header of %d bytes has %d bytes, want %d", size, len(h), headerSize(size))
		}
		got, err := tar.NewReader(bytes.NewReader(h)).Next()
		if err != nil || got.Size != size || got.Name != PiecePath(verify.Digest{}, MaxSize-1) {
			t.Errorf("archive/tar reads %v, %v; want size %d", got, err, size)
		}
	}
}
