package bundle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// volumes are damaged volumes of a good manifest.
func (m *vectorMaker) volumes() {
	good := m.bundle(wide(), wideVolume)
	set := openSet(m.t, good[ManifestName], good[SignatureName])
	damage := func(name, expect string, do func(o map[string][]byte)) {
		objects := maps.Clone(good)
		for name, content := range objects {
			objects[name] = bytes.Clone(content)
		}
		do(objects)
		if maps.EqualFunc(objects, good, bytes.Equal) {
			m.t.Errorf("volume-%s is not damaged", name)
		}
		m.add("volume-"+name, expect, objects)
	}
	const corrupt = "corrupt"
	flip := func(name string, v int, at int64) {
		damage(name+"-flipped", corrupt, func(o map[string][]byte) { o[VolumeName(v)][at] ^= 1 })
	}
	resize := func(name string, do func(volume []byte) []byte) {
		damage(name, corrupt, func(o map[string][]byte) { o[VolumeName(1)] = do(o[VolumeName(1)]) })
	}
	first, second := set.Volumes()[0], set.Volumes()[1]
	piece := second.Files[len(second.Files)-1]
	last := first.Files[len(first.Files)-1]
	remove := func(volumes ...int) func(map[string][]byte) {
		return func(o map[string][]byte) {
			for _, v := range volumes {
				delete(o, VolumeName(v))
			}
		}
	}
	for v := range 3 { // T05
		damage(fmt.Sprintf("%d-missing", v+1), "incomplete", remove(v))
		damage(fmt.Sprintf("%d-is-all-there-is", v+1), "incomplete", remove((v+1)%3, (v+2)%3))
		m.add(fmt.Sprintf("volume-%d-alone-of-three", v+1), "incomplete", map[string][]byte{VolumeName(v): good[VolumeName(v)]}).Start = VolumeName(v)
		damage(fmt.Sprintf("%d-empty", v+1), corrupt, func(o map[string][]byte) { o[VolumeName(v)] = []byte{} })
		damage(fmt.Sprintf("%d-twice", v+1), "incomplete", func(o map[string][]byte) { o[VolumeName((v+1)%3)] = o[VolumeName(v)] })
	}
	damage("all-missing", "incomplete", remove(0, 1, 2))
	flip("first-byte", 0, 0)
	flip("manifest-in-head", 1, 600)
	flip("padding-after-manifest", 2, first.HeadSize-SignatureSize-blockSize-1)
	flip("header-of-signature", 0, first.HeadSize-SignatureSize-100)
	flip("signature-in-head", 0, first.HeadSize-SignatureSize+300)
	flip("last-space-of-signature", 0, first.HeadSize-1)
	flip("document", 0, first.Files[0].Content())
	flip("header-of-document", 0, first.Files[1].Start+100)
	flip("index", 1, second.Files[1].Content()+30)
	flip("manifest-of-image", 0, first.Files[3].Content())
	flip("config", 0, first.Files[5].Content()+5)
	flip("content", 0, last.Content())
	flip("last-byte-of-content", 0, last.Content()+last.Size-1)
	flip("content-of-piece", 1, piece.Content()+100)
	flip("header", 0, last.Start+156)
	flip("header-of-piece", 1, piece.Start+3)
	flip("padding", 1, second.Files[0].End()-1)
	flip("trailer", 0, first.Trailer())
	flip("last-byte", 2, set.Volumes()[2].Size-1)
	for n, what := range map[int]string{1: "a-byte", blockSize: "a-block", trailerSize: "the-trailer", trailerSize + 1: "the-trailer-and-a-byte"} { // T03
		resize("cut-by-"+what, func(b []byte) []byte { return b[:len(b)-n] })
	}
	resize("cut-to-the-head", func(b []byte) []byte { return b[:second.HeadSize] })
	resize("cut-in-the-head", func(b []byte) []byte { return b[:blockSize+100] })
	resize("cut-to-a-block", func(b []byte) []byte { return b[:blockSize] })
	resize("cut-to-a-byte", func(b []byte) []byte { return b[:1] })
	for n, what := range map[int]string{1: "a-zero", blockSize: "a-block-of-zeros", 10240: "zeros-to-a-tape-record"} { // T07
		resize(what+"-appended", func(b []byte) []byte { return append(b, make([]byte, n)...) })
	}
	resize("text-appended", func(b []byte) []byte { return append(b, "more"...) })
	resize("a-volume-appended", func(b []byte) []byte { return append(b, good[VolumeName(0)]...) })
	resize("itself-appended", func(b []byte) []byte { return append(b, b...) })
	resize("a-byte-before", func(b []byte) []byte { return append([]byte{0}, b...) })
	extra := append(TarHeader("extra", 1), append([]byte("x"), make([]byte, 511)...)...)
	for _, at := range []struct {
		name   string
		offset int64
	}{{"first", 0}, {"behind-the-head", second.HeadSize}, {"between", second.Files[1].Start}, {"before-the-trailer", second.Trailer()}} {
		resize("entry-inserted-"+at.name, func(b []byte) []byte { return slices.Insert(b, int(at.offset), extra...) })
	}
	resize("entry-behind-the-trailer", func(b []byte) []byte { return append(append(b, extra...), make([]byte, trailerSize)...) })
	resize("entry-in-the-trailer", func(b []byte) []byte { copy(b[second.Trailer():], TarHeader("extra", 0)); return b })
	a, b := second.Files[0], second.Files[1]
	resize("entry-dropped", func(v []byte) []byte { return slices.Delete(v, int(a.Start), int(a.End())) })
	resize("entry-repeated", func(v []byte) []byte { return slices.Insert(v, int(a.End()), v[a.Start:a.End()]...) }) // T08
	resize("entries-swapped", func(v []byte) []byte {
		both := slices.Concat(v[b.Start:b.End()], v[a.Start:a.End()])
		copy(v[a.Start:], both)
		return v
	})
	resize("entry-renamed", func(v []byte) []byte { copy(v[piece.Start:], TarHeader("pieces/other", piece.Size)); return v })

	with := m.bundle(tiny(), 0)
	with["index.json"], with["oci-layout"] = []byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{"imageLayoutVersion":"1.0.0"}`)
	m.add("good-in-the-folder-of-a-layout", "ok", maps.Clone(with))
	delete(with, SignatureName)
	m.add("signature-stripped-in-the-folder-of-a-layout", "untrusted/unsigned", with)

	m.add("absent", "absent", map[string][]byte{"notes.txt": []byte("no bundle here")})
	m.add("absent-only-a-signature", "absent", map[string][]byte{SignatureName: good[SignatureName]})
	m.add("absent-other-letters", "absent", map[string][]byte{"Bundle.json": good[ManifestName], SignatureName: good[SignatureName]})
	m.add("absent-volume", "absent", maps.Clone(good)).Start = "volume-004.tar"
}

// headers are tar headers that stock tools take, and this format does not: as
// the first of a volume that is all there is, and as that of a blob (T10).
func (m *vectorMaker) headers() {
	good := m.bundle(tiny(), 0)
	set := openSet(m.t, good[ManifestName], good[SignatureName])
	volume := good[VolumeName(0)]
	files := set.Volumes()[0].Files
	layer := files[len(files)-2]
	at := func(name string, offset int64, was []byte, change func(header []byte) []byte) {
		b := bytes.Clone(was)
		b = change(b)
		if bytes.Equal(b, was) {
			m.t.Errorf("the header %s is not changed", name)
		}
		damaged := slices.Concat(volume[:offset], b, volume[offset+int64(len(was)):])
		expect := "corrupt"
		if name == "size-one-more" { // of the manifest, which has a byte more then
			expect = "untrusted/signature"
		}
		v := m.add("header-"+name, expect, map[string][]byte{VolumeName(0): damaged})
		v.Start = VolumeName(0)
	}
	set1 := func(offset int, text string) func([]byte) []byte {
		return func(h []byte) []byte {
			copy(h[offset:], text)
			sum(h)
			return h
		}
	}
	before := func(kind byte, name, content string) func([]byte) []byte {
		return func(h []byte) []byte {
			x := ustarBlock(name, int64(len(content)), kind)
			x = append(append(x, content...), make([]byte, padding(int64(len(content))))...)
			return append(x, h...)
		}
	}
	long := "blobs/sha256/" + strings.Repeat("0", 64)
	for name, change := range map[string]func([]byte) []byte{
		"mode":                    set1(100, "0000644\x00"),
		"setuid":                  set1(100, "0004444\x00"),
		"owner":                   set1(108, "0001750\x00"),
		"group":                   set1(116, "0001750\x00"),
		"time":                    set1(136, "14757340000\x00"),
		"time-in-binary":          set1(136, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"),
		"type-nul":                set1(156, "\x00"),
		"type-contiguous":         set1(156, "7"),
		"type-directory":          set1(156, "5"),
		"type-hard-link":          set1(156, "1"),
		"type-symbolic-link":      set1(156, "2"),
		"type-sparse":             set1(156, "S"),
		"type-unknown":            set1(156, "Z"),
		"link-name":               set1(157, "bundle.json"),
		"magic-of-gnu":            set1(257, "ustar  \x00"),
		"magic-missing":           set1(257, "\x00\x00\x00\x00\x00\x00\x00\x00"),
		"version-of-magic":        set1(263, "01"),
		"user-name":               set1(265, "root"),
		"group-name":              set1(297, "root"),
		"device":                  set1(329, "0000001\x00"),
		"prefix":                  set1(345, "prefix"),
		"end-of-block":            set1(511, "\x01"),
		"name-goes-on-behind-nul": set1(99, "x"),
		"size-filled-with-spaces": func(h []byte) []byte {
			copy(h[124:135], bytes.Replace(h[124:135], []byte("0"), []byte(" "), 1))
			sum(h)
			return h
		},
		"size-without-nul": set1(135, " "),
		"size-one-more":    func(h []byte) []byte { h[134]++; sum(h); return h },
		"size-in-binary": func(h []byte) []byte {
			var n int64
			fmt.Sscanf(string(h[124:135]), "%o", &n)
			copy(h[124:], []byte{0x80, 0, 0, 0, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			sum(h)
			return h
		},
		"size-in-binary-negative": set1(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"checksum-wrong":          func(h []byte) []byte { h[153] ^= 1; return h },
		"checksum-ends-otherwise": func(h []byte) []byte { h[154], h[155] = ' ', 0; return h },
		"checksum-signed-spaces":  func(h []byte) []byte { h[148] = ' '; return h },
		"pax-before":              before('x', "PaxHeaders/x", paxRecord("mtime", "1")),
		"pax-size-before":         before('x', "PaxHeaders/x", paxRecord("size", "1")),
		"pax-global-before":       before('g', "pax_global_header", paxRecord("comment", "hello")),
		"pax-upper-case-before":   before('X', "PaxHeaders/x", paxRecord("path", "other")),
		"gnu-long-name-before":    before('L', "././@LongLink", long+"\x00"),
		"gnu-long-link-before":    before('K', "././@LongLink", long+"\x00"),
		"volume-label-before":     before('V', "label", ""),
	} {
		at(name, 0, volume[:blockSize], change)
		at(name+"-of-a-blob", layer.Start, layer.Header(), change)
	}
	negative := append(ustarBlock(ManifestName, -1, '0'), make([]byte, 40<<10)...)
	m.add("header-size-negative", "corrupt", map[string][]byte{VolumeName(0): negative}).Start = VolumeName(0)
	huge := append(ustarBlock(ManifestName, MaxManifest+1, '0'), volume[blockSize:]...)
	m.add("header-size-over-the-limit", "corrupt", map[string][]byte{VolumeName(0): huge}).Start = VolumeName(0)
	beyond := append(ustarBlock(ManifestName, MaxManifest, '0'), volume[blockSize:]...)
	m.add("header-size-over-the-volume", "corrupt", map[string][]byte{VolumeName(0): beyond}).Start = VolumeName(0)
}

// sum makes the checksum of a header right, so that it is not what gives it
// away.
func sum(h []byte) {
	copy(h[148:], "        ")
	n := 0
	for _, c := range h[:blockSize] {
		n += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", n))
}

// mixes are all of the files of two bundles that differ in one layer, of the
// same size (T27).
func (m *vectorMaker) mixes() {
	other := newSample()
	other.addImage("team/app", "v2", layerOf("first", strings.Repeat("FIRST ", 1000)), layerOf("second", strings.Repeat("second", 5000)))
	sets := [2]map[string][]byte{m.bundle(wide(), wideVolume), m.bundle(other, wideVolume)}
	names := []string{ManifestName, SignatureName, VolumeName(0), VolumeName(1), VolumeName(2)}
	for mix := 1; mix < 1<<len(names)-1; mix++ {
		objects, from := map[string][]byte{}, ""
		for i, name := range names {
			objects[name] = sets[mix>>i&1][name]
			from += string("ab"[mix>>i&1])
		}
		expect := "corrupt"
		if from[0] != from[1] {
			expect = "untrusted/signature"
		}
		m.add("mix-"+from, expect, objects)
	}
	beside := maps.Clone(sets[0])
	beside["bundle.b.sigstore.json"] = bytes.TrimRight(sets[1][SignatureName], " ")
	m.add("mix-signature-of-the-other-beside", "untrusted/signature", beside)
	for _, v := range []int{0, 1, 2} {
		added := maps.Clone(sets[0])
		added["a-"+VolumeName(v)] = sets[1][VolumeName(v)]
		m.add(fmt.Sprintf("good-mix-volume-%d-of-the-other-beside", v+1), "ok", added)
		instead := maps.Clone(added)
		delete(instead, VolumeName(v))
		m.add(fmt.Sprintf("mix-volume-%d-of-the-other-instead", v+1), "incomplete", instead)
	}
}
