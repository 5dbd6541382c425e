package bundle

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"ferry/verify"
)

// keptTrial is a set with one blob of interest, and its volume as it must be.
type keptTrial struct {
	*sample
	set   *Set
	whole []byte
	file  File
}

func newKeptTrial(t testing.TB, layer string) *keptTrial {
	t.Helper()
	s := small()
	s.addImage("team/cut", "v1", layer)
	s.pack(t, 0)
	raw, sig := signManifest(t, s.manifest, "one")
	k := &keptTrial{sample: s, set: openSet(t, raw, sig)}
	store := newMemory()
	if err := s.writeSet(store, k.set); err != nil {
		t.Fatal(err)
	}
	k.whole = store.objects[VolumeName(0)]
	for _, f := range k.set.Volumes()[0].Files {
		if f.Digest == verify.DigestOf([]byte(layer)) {
			k.file = f
		}
	}
	return k
}

// resume writes the set where partial was left, and returns how the blob of
// interest came as a part. Of content that is refused all is written again.
func (k *keptTrial) resume(t *testing.T, partial []byte) (part Part, refused bool) {
	t.Helper()
	store := newMemory()
	store.partial[VolumeName(0)] = bytes.Clone(partial)
	w, err := NewWriter(t.Context(), store, k.set, k.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for p, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Digest == k.file.Digest {
			part = p
		}
		if p.Kept {
			continue
		}
		err := w.Write(t.Context(), p, bytes.NewReader(k.blobs[p.Digest][p.Offset:]))
		if p.Offset > 0 && errors.Is(err, verify.ErrMismatch) {
			refused, p.Offset = true, 0
			err = w.Write(t.Context(), p, bytes.NewReader(k.blobs[p.Digest]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(store.objects[VolumeName(0)], k.whole) {
		t.Error("the volume is not as one that was written at once")
	}
	return part, refused
}

// An export that broke in the middle of a blob goes on there, wherever that is
// and whatever zeros the content has.
func TestKeptPrefix(t *testing.T) {
	zero := strings.Repeat("\x00", 300<<10)
	for name, layer := range map[string]string{
		"no zeros":           strings.Repeat("content", 100<<10),
		"zeros in it":        strings.Repeat("a", 70<<10) + zero + strings.Repeat("b", 300<<10),
		"zeros first":        zero + strings.Repeat("b", 70<<10),
		"zeros last":         strings.Repeat("b", 70<<10) + zero,
		"nothing but zeros":  zero,
		"zeros at the seams": strings.Repeat(strings.Repeat("c", 256<<10-1)+"\x00", 2),
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeptTrial(t, layer)
			for _, n := range []int{0, 1, 4096, 70 << 10, 256 << 10, 300 << 10, 310<<10 + 1, len(layer)} {
				n = min(n, len(layer))
				at := int(k.file.Content()) + n
				left := append(bytes.Clone(k.whole[:at]), make([]byte, len(k.whole)-at)...)
				want := int64(len(strings.TrimRight(layer[:n], "\x00")))
				wholeFile := strings.Trim(layer[n:], "\x00") == "" // what is missing is as if it was written
				part, refused := k.resume(t, left)
				if part.Kept != wholeFile || !wholeFile && part.Offset != want || refused {
					t.Errorf("after %d of %d bytes: kept %t, offset %d (want %t, %d), refused %t", n, len(layer), part.Kept, part.Offset, wholeFile, want, refused)
				}
			}
		})
	}
}

// A file that ends early, a header that is not there, and bytes that a loss of
// power has changed: nothing wrong is kept.
func TestKeptWrong(t *testing.T) {
	layer := strings.Repeat("content", 100<<10) + "."
	k := newKeptTrial(t, layer)
	start, half := int(k.file.Content()), len(layer)/2
	damaged := func(change func(p []byte)) []byte {
		p := bytes.Clone(k.whole)
		change(p)
		return p
	}
	for _, tt := range []struct {
		name    string
		partial []byte
		offset  int64
		refused bool
	}{
		{"header is missing", damaged(func(p []byte) { clear(p[k.file.Start:start]) }), 0, false},
		{"a byte has changed", damaged(func(p []byte) { p[start+half] ^= 1 }), int64(len(layer)), true},
		{"a page is missing", damaged(func(p []byte) { clear(p[start+4096 : start+8192]) }), int64(len(layer)), true},
		{"a page is missing before the break", damaged(func(p []byte) { clear(p[start : start+4096]); clear(p[start+half:]) }), int64(half), true},
		{"padding is not zeros", damaged(func(p []byte) { p[start+len(layer)] = 1 }), int64(len(layer)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if k.file.Padding() == 0 {
				t.Fatal("the file has no padding")
			}
			part, refused := k.resume(t, tt.partial)
			if part.Kept || part.Offset != tt.offset || refused != tt.refused {
				t.Errorf("kept %t, offset %d, refused %t; want offset %d, refused %t", part.Kept, part.Offset, refused, tt.offset, tt.refused)
			}
		})
	}
}

// What was kept is found in a file that is shorter than the volume will be.
func TestKeptShort(t *testing.T) {
	layer := strings.Repeat("content", 100<<10)
	k := newKeptTrial(t, layer)
	old := bytes.NewReader(k.whole[:k.file.Content()+5000])
	if n, whole := findKept(t.Context(), old, k.file); n != 5000 || whole {
		t.Errorf("findKept = %d, %t, want 5000 bytes", n, whole)
	}
}
