package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"ferry/verify"
)

// Another bundle in the folder is not written over, whenever it comes.
func TestVacant(t *testing.T) {
	s := several()
	s.pack(t, 90<<10)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	store := newMemory()
	store.objects[ManifestName] = []byte("{}")
	if err := s.writeSet(store, set); !errors.Is(err, ErrExists) || len(store.objects) != 1 {
		t.Errorf("another bundle: %v, %d objects", err, len(store.objects))
	}
	if _, err := set.Gap(t.Context(), store, GapOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("Gap with another bundle: %v", err)
	}
	dir := NewDir(t.TempDir())
	if err := dir.Put(t.Context(), ManifestName, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Gap(t.Context(), dir, GapOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("Gap in a folder with another bundle: %v", err)
	}
	// It comes while this one is written, before or after it is looked for again.
	for _, when := range []string{"Put " + SignatureName, "PutNew " + ManifestName} {
		for other, want := range map[string]error{"{}": ErrExists, string(raw): nil} {
			store := newMemory()
			f := &arriving{faulty: faulty{memory: store, fails: -1}, when: when, name: ManifestName, content: []byte(other)}
			err := s.writeSet(f, set)
			if !errors.Is(err, want) || string(store.objects[ManifestName]) != other {
				t.Errorf("%q arrives before %s: %v, want %v", other[:2], when, err, want)
			}
		}
	}
}

// arriving is a store in which an object appears just before a call.
type arriving struct {
	faulty
	when, name string
	content    []byte
}

func (a *arriving) Put(ctx context.Context, name string, content []byte) error {
	a.arrive("Put " + name)
	return a.faulty.Put(ctx, name, content)
}

func (a *arriving) PutNew(ctx context.Context, name string, content []byte) error {
	a.arrive("PutNew " + name)
	return a.faulty.PutNew(ctx, name, content)
}

func (a *arriving) arrive(call string) {
	if call == a.when {
		a.objects[a.name] = a.content
	}
}

// Only a volume of the right size with the head of this set is taken for
// written, and one that is said to be wrong is not.
func TestVolumeThere(t *testing.T) {
	s := several()
	whole := newMemory()
	set := s.write(t, whole, 50<<10)
	name := VolumeName(0)
	l := set.Volumes()[0]
	for what, tt := range map[string]struct {
		do    func(m *memory)
		wrong []string
		there bool
	}{
		"whole":         {func(*memory) {}, nil, true},
		"another wrong": {func(*memory) {}, []string{VolumeName(1), "x"}, true},
		"said to be so": {func(*memory) {}, []string{name}, false},
		"missing":       {func(m *memory) { delete(m.objects, name) }, nil, false},
		"empty":         {func(m *memory) { m.objects[name] = nil }, nil, false},
		"all missing": {func(m *memory) {
			for v := range set.Volumes() {
				delete(m.objects, VolumeName(v))
			}
		}, nil, false},
		"a byte less":     {func(m *memory) { m.objects[name] = m.objects[name][:l.Size-1] }, nil, false},
		"a byte more":     {func(m *memory) { m.objects[name] = append(m.objects[name], 0) }, nil, false},
		"last of head":    {func(m *memory) { m.objects[name][l.HeadSize-1] = 1 }, nil, false},
		"of another sign": {func(m *memory) { copy(m.objects[name], head(set.raw, signRaw(t, set.raw, "two"))) }, nil, false},
	} {
		store := whole.clone()
		tt.do(store)
		w, err := NewWriter(t.Context(), store, set, s.docs, tt.wrong...)
		if err != nil {
			t.Fatal(err)
		}
		if w.volumes[0].there != tt.there {
			t.Errorf("%s: it is there: %t", what, w.volumes[0].there)
		}
		var parts, blobs int
		var size, blobSize int64
		for v, l := range set.Volumes() {
			for _, f := range l.Files {
				if f.isBlob() && w.volumes[v].there {
					blobs++
					blobSize += f.Size
				}
				if f.isPiece() && w.volumes[v].there {
					blobs++
					blobSize += f.Size
				}
			}
		}
		placed, missing, placedBytes, missingBytes := w.Count()
		for part, err := range w.Parts(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			parts++
			size += part.Size
		}
		if missing != parts || missingBytes != size {
			t.Errorf("%s: %d parts of %d bytes are missing, %d of %d are asked for", what, missing, missingBytes, parts, size)
		}
		if tt.there && len(tt.wrong) == 0 && (placed != blobs || placedBytes != blobSize) {
			t.Errorf("%s: %d parts of %d bytes are in place, want %d of %d", what, placed, placedBytes, blobs, blobSize)
		}
		w.Close()
	}
}

// What is not written is named, and nothing gets its name.
func TestFinishIncomplete(t *testing.T) {
	s := several()
	s.pack(t, 90<<10)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	store := newMemory()
	w, err := NewWriter(t.Context(), store, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Finish(t.Context()); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), fmt.Sprintf("%s lacks %d files", VolumeName(0), len(set.Volumes()[0].Files))) {
		t.Errorf("Finish = %v", err)
	}
	var skipped Part
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if skipped.Digest.IsZero() {
			skipped = part
			continue
		}
		if err := w.Write(t.Context(), part, bytes.NewReader(s.blobs[part.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(t.Context()); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "lacks 1 files") {
		t.Errorf("Finish with one file less = %v", err)
	}
	if store.objects[ManifestName] != nil || store.objects[SignatureName] != nil {
		t.Error("the bundle is visible")
	}
	if raw, sig, err := Signed(t.Context(), store, true); err != nil || !bytes.Equal(raw, set.raw) || !bytes.Equal(sig, set.signature) {
		t.Errorf("what is pending: %d and %d bytes, %v", len(raw), len(sig), err)
	}
	if _, _, err := Signed(t.Context(), store, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is finished: %v", err)
	}
	if err := w.Write(t.Context(), skipped, bytes.NewReader(s.blobs[skipped.Digest])); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := Signed(t.Context(), store, false); err != nil {
		t.Error(err)
	}
	if err := Discard(t.Context(), store, set); err != nil {
		t.Error(err)
	}
	for name := range store.objects {
		if strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, PendingSuffix) {
			t.Errorf("%s is left", name)
		}
	}
}

// Where the content of a cut blob is wrong, no piece of it counts, also when
// some of its volumes are in place already.
func TestWriteCutBlob(t *testing.T) {
	s := several()
	whole := newMemory()
	set := s.write(t, whole, 50<<10)
	var cut Part
	for _, places := range set.places {
		if len(places) > 1 {
			cut = set.part(places[0].volume, places[0].file)
		}
	}
	if len(cut.places) < 2 {
		t.Fatal("no blob is cut")
	}
	content := s.blobs[cut.Digest]
	wrong := bytes.Clone(content)
	wrong[0] ^= 1
	for _, missing := range [][]int{{0}, {1}, {0, 1}} {
		for name, tt := range map[string]struct {
			content []byte
			want    error
		}{
			"right":      {content, nil},
			"first byte": {wrong, verify.ErrMismatch},
			"short":      {content[:len(content)-1], verify.ErrMismatch},
			"very short": {content[:1], verify.ErrMismatch},
			"empty":      {nil, verify.ErrMismatch},
			"long":       {append(bytes.Clone(content), 'x'), verify.ErrMismatch},
		} {
			store := whole.clone()
			delete(store.objects, ManifestName)
			for _, i := range missing {
				delete(store.objects, VolumeName(cut.places[i].volume))
			}
			w, err := NewWriter(t.Context(), store, set, s.docs)
			if err != nil {
				t.Fatal(err)
			}
			for part, err := range w.Parts(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				given := s.blobs[part.Digest]
				if part.Digest == cut.Digest {
					given = tt.content
				}
				if err := w.Write(t.Context(), part, bytes.NewReader(given)); part.Digest == cut.Digest && !errors.Is(err, tt.want) || part.Digest != cut.Digest && err != nil {
					t.Errorf("%s, volumes %d missing: %v, want %v", name, missing, err, tt.want)
				}
			}
			if err := w.Finish(t.Context()); (err == nil) != (tt.want == nil) {
				t.Errorf("%s, volumes %d missing: Finish = %v", name, missing, err)
			}
			for _, i := range missing {
				if volume := store.objects[VolumeName(cut.places[i].volume)]; (volume != nil) != (tt.want == nil) {
					t.Errorf("%s: %s is there: %t", name, VolumeName(cut.places[i].volume), volume != nil)
				}
			}
			w.Close()
		}
	}
}

// A source that fails where the content ends has given all of it, and is told
// nevertheless: only its end says that there is no more.
func TestWriteBrokenSource(t *testing.T) {
	s := small()
	s.pack(t, 0)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	store := newMemory()
	w, err := NewWriter(t.Context(), store, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	broken := readerFunc(func([]byte) (int, error) { return 0, errBroken })
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		content := s.blobs[part.Digest]
		for _, n := range []int{0, 1, len(content)} {
			if err := w.Write(t.Context(), part, io.MultiReader(bytes.NewReader(content[:n]), broken)); !errors.Is(err, errBroken) {
				t.Errorf("after %d of %d bytes: %v", n, len(content), err)
			}
		}
	}
	if err := w.Finish(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Finish = %v", err)
	}
}

// Bytes that end too early are never the end of what was asked for.
func TestUnexpected(t *testing.T) {
	for err, want := range map[error]error{nil: io.ErrUnexpectedEOF, io.EOF: io.ErrUnexpectedEOF, io.ErrUnexpectedEOF: io.ErrUnexpectedEOF, errBroken: errBroken} {
		if got := unexpected(err); got != want {
			t.Errorf("unexpected(%v) = %v, want %v", err, got, want)
		}
	}
}

// What can not be packed says why.
func TestPackRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(s *sample)
		size int64
		says string // empty when it can be packed
	}{
		{"one volume", func(s *sample) { s.addImage("a", "1", "x") }, 0, ""},
		{"no room for a head", func(s *sample) { s.addImage("a", "1", "x") }, 20 << 10, "is too small: bundle.json, signature and manifests of one image take"},
		{"no room for a manifest", func(s *sample) {
			s.addIndex("a", nil, s.addBlob([]byte("x")))
			s.groups[0].Small = append(s.groups[0].Small, s.addBlob(make([]byte, 100<<10)))
		}, 60 << 10, "is too small: bundle.json"},
		{"no room for a manifest without layers", func(s *sample) {
			s.addIndex("a", nil)
			s.groups[0].Small = append(s.groups[0].Small, s.addBlob(make([]byte, 100<<10)))
		}, 60 << 10, "is too small: bundle.json"},
		{"room for the second manifest in the next volume", func(s *sample) {
			for i := range 2 {
				s.addIndex(fmt.Sprint("a", i), nil)
				s.groups[i].Small = append(s.groups[i].Small, s.addBlob(bytes.Repeat([]byte{byte(i)}, 30<<10)))
			}
		}, 70 << 10, ""},
		{"a target that is none", func(s *sample) { s.addImage("A", "1", "x") }, 0, `target "A"`},
		{"too many volumes", func(s *sample) {
			s.addImage("a", "1")
			b := Blob{Digest: verify.DigestOf([]byte("large")), Size: 2000 * (8 << 20)}
			s.groups[0].Layers = append(s.groups[0].Layers, b)
		}, 8 << 20, "volumes of 8388608 bytes would be needed, more than 999"},
	} {
		s := newSample()
		tt.make(s)
		docs, err := LayoutDocuments(s.manifest.Images, s.parsed)
		if err != nil {
			t.Fatal(err)
		}
		err = s.manifest.Pack(docs, s.groups, tt.size)
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		for v, l := range s.manifest.Volumes {
			if tt.says == "" && len(l.Entries) <= len(docs) {
				t.Errorf("%s: volume %d has %d entries", tt.name, v, len(l.Entries))
			}
		}
	}
}

// The largest piece that fits is found, also where its size takes a longer
// header.
func TestPieceRoom(t *testing.T) {
	for _, room := range []int64{0, 1, 511, 512, 513, 1023, 1024, 1025, 1 << 20, maxOctal - 1, maxOctal, maxOctal + 511, maxOctal + 512, maxOctal + 1024, maxOctal + 1536, maxOctal + 2048, maxOctal + 4096, 1 << 40} {
		size := pieceRoom(room)
		if size > 0 && fileSize(size) > room {
			t.Errorf("%d bytes do not fit into %d: they take %d", size, room, fileSize(size))
		}
		if next := max(size, 0)/blockSize*blockSize + blockSize; fileSize(next) <= room {
			t.Errorf("%d bytes would fit into %d, not only %d", next, room, size)
		}
	}
}

// Reading what was left ends with its context, and then nothing of it counts.
func TestFindKeptCancelled(t *testing.T) {
	k := newKeptTrial(t, strings.Repeat("content", 100<<10))
	if n, whole := findKept(t.Context(), bytes.NewReader(k.whole), k.file); n != k.file.Size || !whole {
		t.Errorf("findKept = %d, %t", n, whole)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, whole := findKept(ctx, bytes.NewReader(k.whole), k.file); n != 0 || whole {
		t.Errorf("findKept = %d, %t after its end", n, whole)
	}
}
