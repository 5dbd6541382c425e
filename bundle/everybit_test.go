package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/verify"
)

// class returns the one verdict that err is, and "?" when it is none.
func class(err error) string {
	for _, c := range []struct {
		name string
		kind error
	}{{"untrusted", verify.ErrUntrusted}, {"invalid", ErrInvalid}, {"invalid", oci.ErrInvalid}, {"incomplete", ErrIncomplete}, {"corrupt", ErrCorrupt}} {
		if errors.Is(err, c.kind) {
			return c.name
		}
	}
	if err == nil {
		return "ok"
	}
	return "?"
}

// flippedBits are the bits of a byte that are flipped: that which changes the
// case of a letter, and that which leaves ASCII; [TestEveryByte] flips the lowest.
// With FERRY_SOAK set all of them.
func flippedBits() []int {
	if os.Getenv("FERRY_SOAK") != "" {
		return []int{0, 1, 2, 3, 4, 5, 6, 7}
	}
	return []int{5, 7}
}

// T01, T02, T03: no bit of manifest, signature and tar headers can change, and
// what is wrong is told exactly: the signature where it is over the bytes, the
// volume where it is not what they say.
func TestEveryBitExact(t *testing.T) {
	t.Parallel()
	store := newMemory()
	set := small().write(t, store, 0)
	headers := [][2]int64{{0, 512}} // of bundle.json
	signature := 512 + (int64(len(set.Raw()))+511)/512*512
	headers = append(headers, [2]int64{signature, signature + 512})
	for _, f := range set.Volumes()[0].Files {
		headers = append(headers, [2]int64{f.Start, f.Start + int64(len(f.Header()))})
	}
	whole := func(content []byte) [][2]int64 { return [][2]int64{{0, int64(len(content))}} }
	for _, tt := range []struct {
		name, start string
		ranges      [][2]int64
		want        []string
	}{
		{ManifestName, "", whole(store.objects[ManifestName]), []string{"untrusted"}},
		// A signature that still verifies, written in other words, is not canonical.
		{SignatureName, "", whole(store.objects[SignatureName]), []string{"untrusted", "invalid"}},
		{VolumeName(0), "", headers, []string{"corrupt"}},
		// Alone it is not a volume of a bundle any more, or its signature is wrong.
		{VolumeName(0), VolumeName(0), headers, []string{"corrupt"}},
		{VolumeName(0), VolumeName(0), [][2]int64{{512, 512 + int64(len(set.Raw()))}}, []string{"untrusted"}},
		{VolumeName(0), VolumeName(0), [][2]int64{{signature + 512, signature + 512 + SignatureSize}}, []string{"untrusted", "invalid"}},
	} {
		damaged := store.clone()
		content := bytes.Clone(damaged.objects[tt.name])
		damaged.objects[tt.name] = content
		flips := 0
		for _, r := range tt.ranges {
			for _, i := range positions(content[r[0]:r[1]]) {
				at := r[0] + int64(i)
				for _, bit := range flippedBits() {
					content[at] ^= 1 << bit
					if got := class(readAll(damaged, tt.start, readOptions("one"))); !slices.Contains(tt.want, got) {
						t.Fatalf("%s from %q, bit %d of byte %d: %s, want %s", tt.name, tt.start, bit, at, got, tt.want)
					}
					content[at] ^= 1 << bit
					flips++
				}
			}
		}
		if flips < 500 || !bytes.Equal(content, store.objects[tt.name]) {
			t.Errorf("%s from %q: %d bits were flipped", tt.name, tt.start, flips)
		}
	}
}

// T03: no cut at a block of 512 bytes, or one byte beside it, is taken for the
// whole.
func TestEveryBlockCut(t *testing.T) {
	t.Parallel()
	store := newMemory()
	small().write(t, store, 0)
	whole := store.objects[VolumeName(0)]
	for _, start := range []string{"", VolumeName(0)} {
		damaged := store.clone()
		for block := 0; block <= len(whole); block += 512 {
			for n := max(block-1, 0); n <= min(block+1, len(whole)-1); n++ {
				damaged.objects[VolumeName(0)] = whole[:n]
				if got := class(readAll(damaged, start, readOptions("one"))); got != "corrupt" {
					t.Errorf("from %q, cut to %d of %d bytes: %s", start, n, len(whole), got)
				}
			}
		}
	}
}

// sixVolumes returns the set of a bundle in six volumes, and where it is.
func sixVolumes(t *testing.T, sequence int64) (*Set, *memory) {
	t.Helper()
	s := newSample()
	s.manifest.Sequence = sequence
	for i := range 6 {
		s.addImage(fmt.Sprintf("image%d", i), "1", strings.Repeat(fmt.Sprint(i), 3<<10))
	}
	docs, err := LayoutDocuments(s.manifest.Images, s.parsed)
	if err != nil {
		t.Fatal(err)
	}
	for size := int64(16 << 10); size < 256<<10; size += 512 {
		manifest := *s.manifest
		if manifest.Pack(docs, s.groups, size) == nil && len(manifest.Volumes) == 6 {
			store := newMemory()
			return s.write(t, store, size), store
		}
	}
	t.Fatal("no size gives six volumes")
	return nil, nil
}

// T04, T05: of all subsets of six volumes, and of all their orders, only the
// whole set is one, whatever its files are called. Of the orders it takes every
// twelfth, with FERRY_SOAK set all.
func TestEverySubsetAndOrder(t *testing.T) {
	t.Parallel()
	set, store := sixVolumes(t, 7)
	n := len(set.Volumes())
	for subset := range 1 << n {
		some := newMemory()
		some.objects[ManifestName], some.objects[SignatureName] = store.objects[ManifestName], store.objects[SignatureName]
		var missing []string
		for v := range n {
			if subset>>v&1 == 1 {
				some.objects[VolumeName(v)] = store.objects[VolumeName(v)]
			} else {
				missing = append(missing, VolumeName(v))
			}
		}
		err := readAll(some, "", readOptions("one"))
		want := "incomplete"
		if missing == nil {
			want = "ok"
		}
		if class(err) != want {
			t.Errorf("without %q: %v", missing, err)
		}
		for _, name := range missing {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("without %q: %v does not name %s", missing, err, name)
			}
		}
	}
	orders := 0
	eachOrder(n, func(order []int) {
		if orders++; orders%12 != 0 && os.Getenv("FERRY_SOAK") == "" {
			return
		}
		renamed := newMemory()
		renamed.objects[ManifestName], renamed.objects[SignatureName] = store.objects[ManifestName], store.objects[SignatureName]
		for v, as := range order {
			renamed.objects[VolumeName(as)] = store.objects[VolumeName(v)]
		}
		if err := readAll(renamed, "", readOptions("one")); err != nil {
			t.Errorf("order %v: %v", order, err)
		}
	})
	if orders != 720 {
		t.Errorf("%d orders", orders)
	}
}

// eachOrder calls f with every order of the numbers below n (Heap's algorithm).
func eachOrder(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var visit func(k int)
	visit = func(k int) {
		if k <= 1 {
			f(order)
			return
		}
		for i := range k {
			visit(k - 1)
			if k%2 == 0 {
				order[i], order[k-1] = order[k-1], order[i]
			} else {
				order[0], order[k-1] = order[k-1], order[0]
			}
		}
	}
	visit(n)
}

// T27: of all mixes of the files of two bundles in six volumes only the two
// themselves are bundles.
func TestMixesOfVolumes(t *testing.T) {
	t.Parallel()
	set, a := sixVolumes(t, 7)
	_, b := sixVolumes(t, 8)
	names := []string{ManifestName, SignatureName}
	for v := range set.Volumes() {
		names = append(names, VolumeName(v))
	}
	for mix := range 1 << len(names) {
		store := newMemory()
		for i, name := range names {
			store.objects[name] = a.objects[name]
			if mix>>i&1 == 1 {
				store.objects[name] = b.objects[name]
			}
		}
		var want string
		switch documents := mix & 3; {
		case mix == 0 || mix == 1<<len(names)-1:
			want = "ok"
		case documents == 1 || documents == 2: // manifest and signature do not belong together
			want = "untrusted"
		default:
			want = "corrupt"
		}
		if err := readAll(store, "", readOptions("one")); class(err) != want {
			t.Errorf("mix %08b: %v, want %s", mix, err, want)
		}
	}
}
