package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/vectors"
	"ferry/verify"
)

// splice returns content in which text stands in the place of the cut bytes at
// at, as far as there are so many.
func splice(content []byte, at, cut uint32, text []byte) []byte {
	from := min(int(at), len(content))
	return slices.Concat(content[:from], text, content[min(from+int(cut), len(content)):])
}

// FuzzManifest shows that a manifest is taken in its one encoding only, and
// that one that is taken keeps what everything behind it relies on (T11, T12,
// T33, T38, T40).
func FuzzManifest(f *testing.F) {
	seen := map[string]bool{}
	for _, v := range vectors.Load(f, vectorsDir) {
		if raw := v.Objects[ManifestName]; !seen[string(raw)] && len(raw) < 16<<10 {
			f.Add(raw, uint32(0), uint32(0), []byte(nil))
			seen[string(raw)] = true
		}
	}
	whole := newMemory()
	several().write(f, whole, 50<<10)
	raw := whole.objects[ManifestName]
	for _, text := range []string{`"size":`, `"created":"`, `"offset":`, `"path":"`, `"tags":[`, `"target":"`, `"sequence":`} {
		at := uint32(bytes.Index(raw, []byte(text)) + len(text))
		for _, s := range []string{"-", "1", "..", "0x", `\u0000`, "é"} {
			f.Add(raw, at, uint32(1), []byte(s))
		}
	}
	f.Add(raw, uint32(bytes.Index(raw, []byte(`"created":"`))+11), uint32(20), []byte(nil))
	f.Fuzz(func(t *testing.T, raw []byte, at, cut uint32, text []byte) {
		raw = splice(raw, at, cut, text)
		m, err := parse(raw)
		if err != nil {
			if m != nil || !errors.Is(err, ErrInvalid) {
				t.Errorf("parse = %v, %v", m, err)
			}
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%q is encoded as %q, %v", raw, again, err)
		}
		checkManifest(t, m)
		checkLayouts(t, m, int64(len(raw)))
	})
}

// checkManifest checks a manifest that was taken, without what parse does it
// with.
func checkManifest(t *testing.T, m *Manifest) {
	t.Helper()
	if m.Format != Format || m.Sequence < 0 || len(m.Images) == 0 || len(m.Volumes) == 0 || len(m.Volumes) > MaxVolumes {
		t.Errorf("manifest of format %d, sequence %d, %d images, %d volumes", m.Format, m.Sequence, len(m.Images), len(m.Volumes))
	}
	times := []string{m.Created}
	if m.Expires != "" {
		times = append(times, m.Expires)
	}
	for _, s := range times {
		if at, err := time.Parse("2006-01-02T15:04:05Z", s); err != nil || at.Format("2006-01-02T15:04:05Z") != s {
			t.Errorf("time %q: %v", s, err)
		}
	}
	for _, name := range []string{m.Name, m.Version} {
		if !fs.ValidPath(name) || strings.ContainsAny(name, `/\:`) || strings.HasPrefix(name, ".") || len(name) > 128 {
			t.Errorf("name %q", name)
		}
	}
	tags := map[string]verify.Digest{}
	for _, i := range m.Images {
		if !fs.ValidPath(i.Target) || len(i.Target) > 255 || strings.ContainsAny(i.Target, `\:@`) || strings.ToLower(i.Target) != i.Target {
			t.Errorf("target %q", i.Target)
		}
		if i.Digest.IsZero() || i.Size <= 0 || i.Source == "" || strings.ContainsAny(i.Source, "\x00\x1b\n\r\u202e") {
			t.Errorf("image %+v", i)
		}
		for _, tag := range i.allTags() {
			at := i.Target + ":" + tag.name
			if was, ok := tags[at]; ok && was != tag.digest || tag.name == "" || strings.ContainsAny(tag.name, "/:@ ") {
				t.Errorf("tag %q of %s and %s", at, was, tag.digest)
			}
			tags[at] = tag.digest
		}
	}
}

// checkLayouts checks that the files of volumes follow one another, and stand
// where a reader of tar looks for them.
func checkLayouts(t *testing.T, m *Manifest, size int64) {
	t.Helper()
	for v, l := range m.Layout(size) {
		at := l.HeadSize
		for i, f := range l.Files {
			if f.Start != at || f.Start%blockSize != 0 || f.Content() <= f.Start || f.End() < f.Content()+f.Size || !fs.ValidPath(f.Path) {
				t.Fatalf("volume %d, file %d stands at %d to %d, want %d: %+v", v+1, i+1, f.Start, f.End(), at, f)
			}
			header := f.Header()
			if h, err := tar.NewReader(bytes.NewReader(header)).Next(); err != nil || h.Name != f.Path || h.Size != f.Size || int64(len(header)) != f.Content()-f.Start {
				t.Errorf("archive/tar reads the header of %q with %d bytes as %+v, %v", f.Path, f.Size, h, err)
			}
			at = f.End()
		}
		if l.Trailer() != at || l.Size < at {
			t.Errorf("volume %d has %d bytes, its files end at %d", v+1, l.Size, at)
		}
	}
}

// FuzzVolume shows that of all files only the true volume is taken: no byte of
// it can be another, missing, or added (T03, T07, T08, T10).
func FuzzVolume(f *testing.F) {
	store := newMemory()
	set := small().write(f, store, 0)
	truth := store.objects[VolumeName(0)]
	for _, at := range set.Volumes()[0].Files {
		f.Add([]byte(nil), uint32(at.Start), uint32(blockSize), TarHeader("../escape", at.Size))
		f.Add([]byte(nil), uint32(at.Content()), uint32(0), append(TarHeader("more", 1), make([]byte, blockSize)...))
		f.Add([]byte(nil), uint32(at.End()), uint32(1), []byte("x"))
	}
	f.Add([]byte(nil), uint32(124), uint32(11), []byte("77777777777"))
	f.Add([]byte(nil), uint32(len(truth)), uint32(0), make([]byte, blockSize))
	f.Add(ustarBlock(ManifestName, -1, '0'), uint32(0), uint32(0), []byte(nil))
	f.Add(TarHeader(ManifestName, 1<<20), uint32(0), uint32(0), []byte("x"))
	f.Fuzz(func(t *testing.T, whole []byte, at, cut uint32, text []byte) {
		if len(whole) == 0 {
			whole = truth
		}
		content := splice(whole, at, cut, text)
		damaged := newMemory()
		damaged.objects["any.tar"] = content
		err := readAll(damaged, "any.tar", readOptions("one"))
		if bytes.Equal(content, truth) != (err == nil) || err != nil && !isVerdict(err) {
			t.Errorf("%d bytes, of which %d are other than %d of the true volume at %d: %v", len(content), len(text), cut, at, err)
		}
		m, err := Unverified(t.Context(), damaged, "any.tar")
		if IsVolume(t.Context(), damaged, "any.tar") != (err == nil) && !errors.Is(err, ErrInvalid) {
			t.Errorf("IsVolume and Unverified, %v, do not agree", err)
		}
		if err == nil {
			checkManifest(t, m)
		}
	})
}

// setStep is one way to damage the files of a bundle: what, then which file,
// where or which other file, and how.
const setStep = 4

// damageSet does to the objects of a store what a program says, with texts
// to put into them.
func damageSet(m *memory, program, text []byte) {
	names := append([]string{ManifestName, SignatureName, "a.tar", "sub/a.tar", "bundle.x.sigstore.json", ManifestName + PendingSuffix},
		VolumeName(0), VolumeName(1), VolumeName(2), VolumeName(3))
	for step := range slices.Chunk(program, setStep) {
		if len(step) < setStep {
			return
		}
		name, other := names[int(step[1])%len(names)], names[int(step[2])%len(names)]
		content := m.objects[name]
		at := uint32(int(step[2]) * len(content) / 256)
		switch step[0] % 8 {
		case 0:
			delete(m.objects, name)
		case 1: // exchange
			m.objects[name], m.objects[other] = m.objects[other], content
		case 2:
			m.objects[other] = content
		case 3:
			m.objects[name] = content[:at]
		case 4:
			m.objects[name] = splice(content, at, uint32(step[3]), text)
		case 5:
			m.objects[name] = append(bytes.Clone(content), text...)
		case 6:
			m.objects[name] = text
		case 7:
			if int(at) < len(content) {
				content = bytes.Clone(content)
				content[at] ^= step[3]
				m.objects[name] = content
			}
		}
	}
	for name, content := range m.objects {
		if content == nil {
			delete(m.objects, name)
		}
	}
}

// FuzzVolumeSet shows that of whatever lies in a folder a bundle is read only
// when all of its files are there as they were, whatever their names (T03 to
// T06, T21, T27).
func FuzzVolumeSet(f *testing.F) {
	store := newMemory()
	set := several().write(f, store, 50<<10)
	volumes := len(set.Volumes())
	for _, program := range [][]byte{
		nil, {1, 6, 7, 0}, {1, 6, 2, 0, 1, 7, 3, 0}, {2, 6, 7, 0}, {0, 7, 0, 0}, {3, 6, 128, 0}, {7, 6, 200, 1},
		{2, 6, 2, 0, 0, 6, 0, 0}, {2, 1, 4, 0}, {1, 0, 1, 0}, {1, 0, 5, 0}, {5, 6, 0, 0}, {6, 4, 0, 0},
	} {
		f.Add(program, []byte("{}"), false)
		f.Add(program, make([]byte, blockSize), true)
	}
	f.Fuzz(func(t *testing.T, program, text []byte, fromVolume bool) {
		if len(program) > 16*setStep {
			return
		}
		damaged := store.clone()
		damageSet(damaged, program, text)
		start := ""
		if fromVolume {
			start = VolumeName(0)
		}
		err := readAll(damaged, start, readOptions("one"))
		if err != nil {
			if !isVerdict(err) && !errors.Is(err, ErrNotFound) {
				t.Errorf("%v: %v", program, err)
			}
			return
		}
		for v := range volumes {
			there := false
			for name, content := range damaged.objects {
				there = there || !strings.Contains(name, "/") && bytes.Equal(content, store.objects[VolumeName(v)])
			}
			if !there {
				t.Errorf("%v: it was read, and %s is not there", program, VolumeName(v))
			}
		}
		for _, name := range []string{ManifestName, SignatureName} {
			if !fromVolume && !bytes.Equal(damaged.objects[name], store.objects[name]) {
				t.Errorf("%v: it was read with another %s", program, name)
			}
		}
	})
}

// FuzzKept shows that whatever an interrupted writer has left, the next one
// makes the volume that one alone would have made, and that what counts as kept
// was there (T01).
func FuzzKept(f *testing.F) {
	layer := strings.Repeat("content", 20<<10) + strings.Repeat("\x00", 70<<10) + "end."
	k := newKeptTrial(f, layer)
	start, end := uint32(k.file.Content()), uint32(k.file.End())
	for _, at := range []uint32{0, start - 1, start, start + 1, start + 64<<10, end - 1, end, uint32(len(k.whole))} {
		f.Add(at, uint32(0), []byte(nil))
		f.Add(end, at, []byte("\x00"))
		f.Add(end, at, []byte("x"))
	}
	f.Fuzz(func(t *testing.T, n, at uint32, text []byte) {
		left := make([]byte, len(k.whole))
		copy(left, k.whole[:min(int(n), len(k.whole))])
		if int(at) < len(left) {
			copy(left[at:], text)
		}
		old := left[:min(int(n), len(left))]
		kept, whole := findKept(t.Context(), bytes.NewReader(old), k.file)
		if there := int64(len(old)) - k.file.Content(); kept > max(there, 0) || kept > k.file.Size {
			t.Errorf("%d bytes kept of %d", kept, there)
		}
		same := len(old) >= int(end) && bytes.Equal(old[k.file.Start:end], k.whole[k.file.Start:end])
		if whole != same {
			t.Errorf("the file is whole: %t, want %t", whole, same)
		}
		k.resume(t, left)
	})
}

func TestSplice(t *testing.T) {
	for _, tt := range []struct {
		at, cut uint32
		want    string
	}{{0, 0, "-abc"}, {1, 1, "a-c"}, {3, 9, "abc-"}, {9, 1 << 31, "abc-"}, {0, 3, "-"}} {
		if got := string(splice([]byte("abc"), tt.at, tt.cut, []byte("-"))); got != tt.want {
			t.Errorf("splice(%d, %d) = %q, want %q", tt.at, tt.cut, got, tt.want)
		}
	}
}
