package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/verify"
)

// packed returns the manifest of several volumes, one blob of which is cut,
// with a base.
func packed(t *testing.T) *Manifest {
	t.Helper()
	s := several()
	s.pack(t, 50<<10)
	s.manifest.Base = &Base{Digest: verify.DigestOf(nil), Name: "base", Version: "1", Blobs: []BaseBlob{
		{Digest: verify.DigestOf([]byte("in the base")), Size: 11, Target: "team/app"}}}
	return s.manifest
}

// pieces returns the entries that are pieces of a blob.
func pieces(m *Manifest) (list []*Entry) {
	for v := range m.Volumes {
		for i := range m.Volumes[v].Entries {
			if e := &m.Volumes[v].Entries[i]; e.isPiece() {
				list = append(list, e)
			}
		}
	}
	return list
}

// blobEntry returns the first whole blob of a volume.
func blobEntry(m *Manifest, volume int) *Entry {
	for i := range m.Volumes[volume].Entries {
		if e := &m.Volumes[volume].Entries[i]; e.isBlob() {
			return e
		}
	}
	return nil
}

func newEntry(text string, size int64) Entry {
	d := verify.DigestOf([]byte(text))
	return Entry{Digest: d, Path: BlobPath(d), Size: size}
}

func newPiece(text string, offset, size int64) Entry {
	d := verify.DigestOf([]byte(text))
	return Entry{Digest: d, Offset: offset, Path: PiecePath(d, offset), Size: size}
}

// appended puts entries at the ends of the volumes, one in each from the first on.
func appended(m *Manifest, entries ...Entry) {
	for v, e := range entries {
		m.Volumes[v].Entries = append(m.Volumes[v].Entries, e)
	}
}

// Whatever a manifest must not say is refused when it is written and, signed or
// not, when it is read; what is just allowed is not.
func TestManifestRefused(t *testing.T) {
	zero := verify.Digest{}
	image := func(do func(*Image)) func(*Manifest) { return func(m *Manifest) { do(&m.Images[1]) } }
	referrer := func(do func(*Referrer)) func(*Manifest) {
		return func(m *Manifest) { do(&m.Images[1].Referrers[0]) }
	}
	base := func(do func(*Base)) func(*Manifest) { return func(m *Manifest) { do(m.Base) } }
	baseBlob := func(do func(*BaseBlob)) func(*Manifest) { return func(m *Manifest) { do(&m.Base.Blobs[0]) } }
	blob := func(do func(*Entry)) func(*Manifest) { return func(m *Manifest) { do(blobEntry(m, 0)) } }
	text := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name string
		do   func(*Manifest)
		says string // empty when it is allowed
	}{
		{"as it is", func(*Manifest) {}, ""},
		{"format 0", func(m *Manifest) { m.Format = 0 }, "format 0 is not supported"},
		{"format 2", func(m *Manifest) { m.Format = 2 }, "format 2 is not supported"},
		{"name with a slash", func(m *Manifest) { m.Name = "a/b" }, `name "a/b"`},
		{"name with a full stop at its end", func(m *Manifest) { m.Name = "a." }, `name "a."`},
		{"longest name", func(m *Manifest) { m.Name = text(128) }, ""},
		{"name too long", func(m *Manifest) { m.Name = text(129) }, "is not of letters"},
		{"version", func(m *Manifest) { m.Version = "" }, `version ""`},
		{"sequence below zero", func(m *Manifest) { m.Sequence = -1 }, "sequence -1"},
		{"sequence zero", func(m *Manifest) { m.Sequence = 0 }, ""},
		{"greatest sequence", func(m *Manifest) { m.Sequence = 1 << 53 }, ""},
		{"sequence too great", func(m *Manifest) { m.Sequence = 1<<53 + 1 }, "sequence 9007199254740993"}, // T25
		{"no time of creation", func(m *Manifest) { m.Created = "" }, `time ""`},
		{"no time of creation but an expiry", func(m *Manifest) { m.Created, m.Expires = "", "2026-11-22T00:00:00Z" }, `time ""`},
		{"created in another zone", func(m *Manifest) { m.Created = "2026-11-21T01:00:00+01:00" }, "is not RFC 3339 in UTC"},
		{"expires in another zone", func(m *Manifest) { m.Expires = "2026-11-21T01:00:00+01:00" }, "is not RFC 3339 in UTC"},
		{"expires on no day", func(m *Manifest) { m.Expires = "2026-02-30T00:00:00Z" }, "is not RFC 3339 in UTC"},
		{"no images", func(m *Manifest) { m.Images = nil }, "no images"},
		{"image twice", func(m *Manifest) { m.Images = append(m.Images, m.Images[0]) }, "is there twice"},
		{"one image in two places", func(m *Manifest) {
			again := m.Images[0]
			again.Target = "elsewhere"
			m.Images = append(m.Images, again)
		}, ""},
		{"one tag for two images", func(m *Manifest) { m.Images[1].Target, m.Images[1].Tags = m.Images[0].Target, m.Images[0].Tags }, "is both"}, // T29
		{"two tags in one place", func(m *Manifest) { m.Images[1].Target = m.Images[0].Target }, ""},
		{"one tag of a referrer of two images", func(m *Manifest) {
			m.Images[1].Target = m.Images[0].Target
			m.Images[1].Referrers = append(m.Images[1].Referrers, m.Images[0].Referrers[0])
		}, ""},
		{"tag of an image and of a referrer", image(func(i *Image) { i.Tags = []string{i.Referrers[0].Tag} }), "is both"},

		{"image without a digest", image(func(i *Image) { i.Digest = zero }), "is not supported"},
		{"image of another type", image(func(i *Image) { i.MediaType = oci.MediaTypeConfig }), "is not supported"},
		{"empty image", image(func(i *Image) { i.Size = 0 }), "and 0 bytes is not supported"},
		{"image of less than nothing", image(func(i *Image) { i.Size = -1 }), "and -1 bytes is not supported"},
		{"smallest image", image(func(i *Image) { i.Size = 1 }), ""},
		{"largest image", image(func(i *Image) { i.Size = oci.MaxManifest }), ""},
		{"image too large", image(func(i *Image) { i.Size = oci.MaxManifest + 1 }), "and 4194305 bytes is not supported"}, // T15
		{"no source", image(func(i *Image) { i.Source = "" }), `source ""`},
		{"source with an escape", image(func(i *Image) { i.Source = "\x1b[m" }), "is not plain text"}, // T40
		{"source that turns", image(func(i *Image) { i.Source = "a\u202eb" }), "is not plain text"},   // T40
		{"source that is not UTF-8", image(func(i *Image) { i.Source = "a\xff" }), "is not plain text"},
		{"longest source", image(func(i *Image) { i.Source = text(maxText) }), ""},
		{"source too long", image(func(i *Image) { i.Source = text(maxText + 1) }), "is not plain text of at most 1024 bytes"},
		{"no target", image(func(i *Image) { i.Target = "" }), `target ""`},
		{"target above", image(func(i *Image) { i.Target = "../app" }), `target "../app"`}, // T33
		{"longest target", image(func(i *Image) { i.Target = text(maxTarget) }), ""},
		{"target too long", image(func(i *Image) { i.Target = text(maxTarget + 1) }), "is not a repository path"},
		{"feature", image(func(i *Image) { i.Feature = "gpu" }), ""},
		{"feature with a space", image(func(i *Image) { i.Feature = "g pu" }), `feature "g pu"`},
		{"tags are null", image(func(i *Image) { i.Tags = nil }), "tags are missing"},
		{"no tags", image(func(i *Image) { i.Tags = []string{} }), ""},
		{"tags not in order", image(func(i *Image) { i.Tags = []string{"b", "a"} }), "is not sorted"},
		{"tag twice", image(func(i *Image) { i.Tags = []string{"a", "a"} }), "has an element twice"},
		{"tag with a slash", image(func(i *Image) { i.Tags = []string{"a/b"} }), `"a/b" is not a tag`},
		{"tag too long", image(func(i *Image) { i.Tags = []string{text(129)} }), "is not a tag"},
		{"platforms", image(func(i *Image) { i.Platforms, i.Original = []string{"linux/amd64"}, &i.Digest }), ""},
		{"platforms not in order", image(func(i *Image) { i.Platforms, i.Original = []string{"b", "a"}, &i.Digest }), "is not sorted"},
		{"platform with an escape", image(func(i *Image) { i.Platforms, i.Original = []string{"\x1b"}, &i.Digest }), "is not plain text"},
		{"empty platform", image(func(i *Image) { i.Platforms, i.Original = []string{""}, &i.Digest }), `platform ""`},
		{"platforms without an original", image(func(i *Image) { i.Platforms = []string{"linux/amd64"} }), "stand together"},
		{"original without platforms", image(func(i *Image) { i.Original = &i.Digest }), "stand together"},

		{"referrer without a digest", referrer(func(r *Referrer) { r.Digest = zero }), "referrer: "},
		{"referrer too large", referrer(func(r *Referrer) { r.Size = oci.MaxManifest + 1 }), "referrer: "},
		{"referrer of nothing", referrer(func(r *Referrer) { r.Subject, r.Tag = zero, "" }), "subject or artifactType"},
		{"referrer without a tag", referrer(func(r *Referrer) { r.Tag = "" }), ""},
		{"referrer with a hard tag", referrer(func(r *Referrer) { r.Tag = "a/b" }), `tag "a/b"`},
		{"referrer with the tag of an image", referrer(func(r *Referrer) { r.Tag = "v9" }), `tag "v9" is not of its subject: want sha256-`}, // T28
		{"referrer with the tag of another subject", referrer(func(r *Referrer) { r.Tag = ReferrerTags(zero)[0] }), "is not of its subject"},
		{"referrer with the list's tag", referrer(func(r *Referrer) { r.Tag = "sha256-" + r.Subject.Hex() }), ""},
		{"referrer with a hard type", referrer(func(r *Referrer) { r.ArtifactType = "\x1b" }), "artifactType"},

		{"base without a digest", base(func(b *Base) { b.Digest = zero }), "base: "},
		{"base without a name", base(func(b *Base) { b.Name = "" }), `base: digest, name ""`},
		{"base without a version", base(func(b *Base) { b.Version = "../1" }), `version "../1"`},
		{"base with null", base(func(b *Base) { b.Blobs = nil }), "blobs are missing"},
		{"base without blobs", base(func(b *Base) { b.Blobs = []BaseBlob{} }), ""},
		{"blob of the base without a digest", baseBlob(func(b *BaseBlob) { b.Digest = zero }), "is wrong"},
		{"empty blob of the base", baseBlob(func(b *BaseBlob) { b.Size = 0 }), ""},
		{"blob of the base of less than nothing", baseBlob(func(b *BaseBlob) { b.Size = -1 }), "with -1 bytes"},
		{"largest blob of the base", baseBlob(func(b *BaseBlob) { b.Size = MaxSize }), ""},
		{"blob of the base too large", baseBlob(func(b *BaseBlob) { b.Size = MaxSize + 1 }), "is wrong"},
		{"blob of the base from above", baseBlob(func(b *BaseBlob) { b.Target = "../app" }), `at "../app" is wrong`},
		{"blob of the base in the volumes", func(m *Manifest) { m.Base.Blobs[0].Digest = blobEntry(m, 0).Digest }, "left to the base"},
		{"cut blob of the base in the volumes", func(m *Manifest) { m.Base.Blobs[0].Digest = pieces(m)[0].Digest }, "left to the base"},

		{"no volumes", func(m *Manifest) { m.Volumes = nil }, "0 volumes"},
		{"most volumes", func(m *Manifest) {
			for len(m.Volumes) < MaxVolumes {
				m.Volumes = append(m.Volumes, Volume{[]Entry{newEntry(fmt.Sprint(len(m.Volumes)), 1)}})
			}
		}, ""},
		{"too many volumes", func(m *Manifest) {
			for len(m.Volumes) <= MaxVolumes {
				m.Volumes = append(m.Volumes, Volume{[]Entry{}})
			}
		}, "1000 volumes"},
		{"volume with null", func(m *Manifest) { m.Volumes = append(m.Volumes, Volume{}) }, "has no entries"},
		{"blob without a digest", blob(func(e *Entry) { *e = Entry{Path: BlobPath(zero), Size: 1} }), "out of bounds"},
		{"empty blob", func(m *Manifest) { appended(m, newEntry("", 0)) }, ""},
		{"blob of less than nothing", func(m *Manifest) { appended(m, newEntry("x", -1)) }, "out of bounds"},
		{"largest blob", func(m *Manifest) { m.Volumes = append(m.Volumes, Volume{[]Entry{newEntry("x", MaxSize)}}) }, ""},
		{"blob too large", func(m *Manifest) { m.Volumes = append(m.Volumes, Volume{[]Entry{newEntry("x", MaxSize+1)}}) }, "size, offset or digest is out of bounds"},
		{"volume too large", func(m *Manifest) {
			m.Volumes = append(m.Volumes, Volume{[]Entry{newEntry("x", MaxSize), newEntry("y", 1)}})
		}, "the volume has more than"},
		{"offset below zero", func(m *Manifest) { appended(m, newPiece("x", -1, 1)) }, "out of bounds"},
		{"offset too great", func(m *Manifest) { appended(m, newPiece("x", MaxSize+1, 1)) }, "out of bounds"},
		{"path twice", func(m *Manifest) { appended(m, *blobEntry(m, 0)) }, "it is there twice"}, // T08
		{"blob in two volumes", func(m *Manifest) { m.Volumes = append(m.Volumes, Volume{[]Entry{*blobEntry(m, 0)}}) }, ""},
		{"two sizes", func(m *Manifest) {
			e := *blobEntry(m, 0)
			e.Size++
			m.Volumes = append(m.Volumes, Volume{[]Entry{e}})
		}, "it has two sizes"},
		{"blob with an offset", blob(func(e *Entry) { e.Offset = 1 }), "only a piece has an offset"},
		{"path of another blob", blob(func(e *Entry) { e.Path = BlobPath(verify.DigestOf([]byte("another"))) }), "neither a blob nor a document"},
		{"path above", blob(func(e *Entry) { e.Path = "../" + e.Path }), "neither a blob nor a document"}, // T33
		{"only a first piece", func(m *Manifest) { appended(m, newPiece("x", 0, 1)) }, "is in 1 pieces"},
		{"two pieces", func(m *Manifest) { appended(m, newPiece("x", 0, 1), newPiece("x", 1, 1)) }, ""},
		{"second piece missing", func(m *Manifest) { appended(m, newPiece("x", 0, 1), newPiece("x", 2, 1)) }, "must follow each other"},
		{"pieces overlap", func(m *Manifest) { appended(m, newPiece("x", 0, 2), newPiece("x", 1, 1)) }, "must follow each other"},
		{"empty piece", func(m *Manifest) { appended(m, newPiece("x", 0, 1), newPiece("x", 1, 0)) }, "must follow each other"},
		{"pieces in one volume", func(m *Manifest) {
			m.Volumes[0].Entries = append(m.Volumes[0].Entries, newPiece("x", 0, 1), newPiece("x", 1, 1))
		}, "one in each volume"},
		{"a volume between two pieces", func(m *Manifest) {
			m.Volumes = append(m.Volumes, Volume{[]Entry{newPiece("x", 0, 1)}}, Volume{[]Entry{}}, Volume{[]Entry{newPiece("x", 1, 1)}})
		}, "one in each volume"},
		{"whole and in pieces", func(m *Manifest) {
			appended(m, newPiece("x", 0, 1), newPiece("x", 1, 1))
			m.Volumes = append(m.Volumes, Volume{[]Entry{newEntry("x", 2)}})
		}, "is in 2 pieces, and whole: true"},
		{"largest blob in pieces", func(m *Manifest) {
			m.Volumes = append(m.Volumes, Volume{[]Entry{newPiece("x", 0, MaxSize-1)}}, Volume{[]Entry{newPiece("x", MaxSize-1, 1)}})
		}, ""},
		{"blob in pieces too large", func(m *Manifest) {
			m.Volumes = append(m.Volumes, Volume{[]Entry{newPiece("x", 0, MaxSize)}}, Volume{[]Entry{newPiece("x", MaxSize, 1)}})
		}, "has more than"},
	} {
		m := packed(t)
		tt.do(m)
		raw, err := m.Encode()
		if tt.says == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			} else if _, err := parse(raw); err != nil {
				t.Errorf("%s, read: %v", tt.name, err)
			}
			continue
		}
		if raw != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		// What another program has written and signed.
		if raw, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		if got, err := parse(raw); got != nil || !errors.Is(err, ErrInvalid) && !strings.Contains(err.Error(), "digest") {
			t.Errorf("%s, read: %v, want %v", tt.name, err, ErrInvalid)
		}
	}
}

// A manifest is read when it has as many bytes as it may have, and then not
// when it has one more. Nothing is held for an object that is none.
func TestManifestLimits(t *testing.T) {
	if _, err := parse(make([]byte, MaxManifest+1)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "67108865 bytes, more than 67108864") {
		t.Errorf("one byte more than MaxManifest: %v", err)
	}
	if _, err := parse(make([]byte, MaxManifest)); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "more than") {
		t.Errorf("MaxManifest bytes of nothing: %v", err)
	}
	// Each image takes 255 bytes for its target: these are as long as may be, and more.
	m := packed(t)
	for i := 0; i < 40_000; i++ {
		image := m.Images[0]
		image.Referrers = nil
		image.Target = fmt.Sprintf("%s/%08d", strings.Repeat("x", maxTarget-9), i)
		image.Source = strings.Repeat("x", maxText)
		m.Images = append(m.Images, image)
	}
	raw, err := m.Encode()
	if err != nil || len(raw) > MaxManifest {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	last := len(m.Images)
	for i := 0; len(raw)+(len(m.Images)-last)*1400 < MaxManifest+1400; i++ {
		image := m.Images[last-1]
		image.Target = fmt.Sprintf("%s/%08d", strings.Repeat("y", maxTarget-9), i)
		m.Images = append(m.Images, image)
	}
	if raw, err := m.Encode(); raw != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "more than 67108864") {
		t.Errorf("a manifest that can not be read is written: %d bytes, %v", len(raw), err)
	}
	few := []byte(`{"format":1,"images":[` + strings.Repeat(`{},`, 63) + `{}]}`)
	if _, err := parse(few); err == nil || strings.Contains(err.Error(), "more objects") {
		t.Errorf("65 objects: %v", err)
	}
	many := []byte(`{"format":1,"images":[` + strings.Repeat(`{},`, 6300) + `{}]}`)
	if _, err := parse(many); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "more objects") {
		t.Errorf("6302 objects: %v", err)
	}
}

// The message about a text that is not canonical says where.
func TestFirstDifference(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 0}, {"abc", "abd", 2}, {"abc", "ab", 2}, {"xbc", "abc", 0}} {
		if got := firstDifference([]byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("firstDifference(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
	raw, err := packed(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = parse(append(bytes.Clone(raw), ' '))
	if want := fmt.Sprintf("not in canonical form at byte %d", len(raw)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// Which names a bundle, an image, a tag may have.
func TestValidNames(t *testing.T) {
	for _, tt := range []struct {
		is   func(string) bool
		good []string
		bad  []string
	}{
		{ValidName, []string{"a", "A1", "a.b-c_d+e", strings.Repeat("x", 128)}, []string{"", ".", "..", "a.", ".a", "-a", "a/b", `a\b`, "a b", "a\n", "é", strings.Repeat("x", 129)}},
		{ValidTarget, []string{"a", "a/b", "a-b/c_d/e__f.g", strings.Repeat("x", 255)}, []string{"", "/", "/a", "a/", "a//b", "A", "a/../b", ".", "..", "a:b", "a@b", "a_", "a___b", "a..b", strings.Repeat("x", 256)}},
		{ValidTag, []string{"a", "_", "v1.0-A_b", strings.Repeat("x", 128)}, []string{"", ".a", "-a", "a/b", "a b", "a:b", strings.Repeat("x", 129)}},
	} {
		for _, s := range tt.good {
			if !tt.is(s) {
				t.Errorf("%q is refused", s)
			}
		}
		for _, s := range tt.bad {
			if tt.is(s) {
				t.Errorf("%q is taken", s)
			}
		}
	}
}

// The pieces of a blob sort in their order, up to the largest.
func TestPiecePaths(t *testing.T) {
	var d verify.Digest
	var paths []string
	for _, offset := range []int64{0, 1, 9, 10, 1 << 20, 1 << 33, MaxSize} {
		paths = append(paths, PiecePath(d, offset))
	}
	if !slices.IsSorted(paths) {
		t.Errorf("%q", paths)
	}
}
