package bundle

import (
	"slices"
	"testing"
)

// T06: what stands beside a bundle is told, however much it looks like a part.
func TestStrays(t *testing.T) {
	set, store := sixVolumes(t, 7)
	want := []string{"README.txt", "bundle.json.bak", "bundle.json.pending", "part-01.tar", "volume-0001.tar", "volume-001.tar.bak", "volume-007.tar", "x/volume-001.tar"}
	for _, name := range want {
		store.objects[name] = store.objects[VolumeName(0)]
	}
	// These two belong to it: a second signature, and a volume by another name.
	store.objects["bundle.site.sigstore.json"] = signRaw(t, set.Raw(), "two")
	store.objects["renamed.tar"] = store.objects[VolumeName(5)]
	delete(store.objects, VolumeName(5))
	for start, want := range map[string][]string{"": want, VolumeName(1): nil} {
		r, err := OpenReader(t.Context(), store, start, readOptions("one"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Strays(t.Context())
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("from %q: %q, %v, want %q", start, got, err, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
