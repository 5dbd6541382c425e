package bundle

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/vectors"
	"ferry/verify"
)

var update = flag.Bool("update", false, "make testdata/vectors again")

const vectorsDir = "../testdata/vectors"

// The committed vectors are what the generator makes of the committed keys, no
// more and no less, so that -update changes no file. How files are compressed
// does not count.
func TestVectorsAreMade(t *testing.T) {
	list := makeVectors(t)
	names := map[string]bool{}
	for _, v := range list {
		if names[v.Name] {
			t.Errorf("two vectors are named %s", v.Name)
		}
		names[v.Name] = true
		file := filepath.Join(vectorsDir, v.Name+".txtar")
		text, err := os.ReadFile(file)
		was, wrong := vectors.Parse(v.Name, text)
		if err == nil && wrong == nil && was.Equal(v) {
			continue
		}
		if !*update {
			t.Errorf("%s is not what the generator makes: run go test ./bundle -run TestVectorsAreMade -update", file)
		} else if err := os.WriteFile(file, v.Text(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(vectorsDir + "/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if names[strings.TrimSuffix(filepath.Base(file), ".txtar")] {
			continue
		}
		if !*update {
			t.Errorf("the generator does not make %s", file)
		} else if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// makeVectors makes all vectors.
func makeVectors(t *testing.T) []vectors.Vector {
	m := &vectorMaker{t: t}
	m.goodBundles()
	m.signatures()
	m.volumes()
	m.headers()
	m.mixes()
	m.manifestTexts()
	m.manifestFields()
	m.manifestImages()
	m.manifestVolumes()
	m.worlds()
	m.documents()
	m.policyTexts()
	m.policyMeanings()
	m.policySignatures()
	m.policyAdmits()
	m.policyGrid()
	m.policyChains()
	m.memories()
	m.damagedMemories()
	return m.list
}

type vectorMaker struct {
	t    *testing.T
	list []vectors.Vector
}

// add adds a vector with objects of its own.
func (m *vectorMaker) add(name, expect string, objects map[string][]byte) *vectors.Vector {
	m.list = append(m.list, vectors.Vector{Name: name, Expect: expect, Objects: objects})
	return &m.list[len(m.list)-1]
}

// alone is add for a bundle whose only volume gets the same verdict when it is
// all there is.
func (m *vectorMaker) alone(name, expect string, objects map[string][]byte) {
	m.add(name, expect, objects).Alone = VolumeName(0)
}

// parts are what a bundle is put together from, without any of the checks of
// the writer: whatever its manifest says, the rest of the bundle agrees, so
// that a reader that overlooks one thing takes all of it.
type parts struct {
	manifest *Manifest
	volumes  [][]Document // behind the heads; the path is that of the tar header
}

// partsOf packs a sample. changes are made to the manifest after that.
func (m *vectorMaker) partsOf(s *sample, volumeSize int64, changes ...func(*Manifest)) parts {
	m.t.Helper()
	s.pack(m.t, volumeSize)
	content := maps.Clone(s.blobs)
	for _, d := range s.docs {
		content[verify.DigestOf(d.Content)] = d.Content
	}
	p := parts{manifest: s.manifest}
	for _, volume := range s.manifest.Volumes {
		var files []Document
		for _, e := range volume.Entries {
			files = append(files, Document{e.Path, content[e.Digest][e.Offset : e.Offset+e.Size]})
		}
		p.volumes = append(p.volumes, files)
	}
	for _, change := range changes {
		change(p.manifest)
	}
	return p
}

// raw returns the manifest in the form of the one encoding, valid or not.
func (p parts) raw(t testing.TB) string {
	t.Helper()
	raw, err := compactJSON(p.manifest)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// objects returns the bundle with the text raw as its bundle.json, signed with
// key one.
func (p parts) objects(t testing.TB, raw string) map[string][]byte {
	t.Helper()
	return p.with(t, []byte(raw), padded(signFixed(t, "one", []byte(raw))))
}

func (p parts) with(t testing.TB, raw, signature []byte) map[string][]byte {
	t.Helper()
	objects := map[string][]byte{ManifestName: raw, SignatureName: signature}
	for v, files := range p.volumes {
		files = append([]Document{{ManifestName, raw}, {SignatureName, signature}}, files...)
		objects[VolumeName(v)] = tarOf(files)
	}
	return objects
}

func tarOf(files []Document) []byte {
	var b bytes.Buffer
	for _, f := range files {
		size := int64(len(f.Content))
		b.Write(TarHeader(f.Path, size))
		b.Write(f.Content)
		b.Write(make([]byte, padding(size)))
	}
	b.Write(make([]byte, trailerSize))
	return b.Bytes()
}

func padded(signature []byte) []byte {
	if len(signature) > SignatureSize {
		return signature
	}
	return append(bytes.Clone(signature), bytes.Repeat([]byte(" "), SignatureSize-len(signature))...)
}

// bundle returns a sample as it is.
func (m *vectorMaker) bundle(s *sample, volumeSize int64, changes ...func(*Manifest)) map[string][]byte {
	m.t.Helper()
	p := m.partsOf(s, volumeSize, changes...)
	return p.objects(m.t, p.raw(m.t))
}

// several is a sample of several volumes, one blob of which is cut.
func several() *sample {
	s := small()
	s.addImage("team/large", "v3", strings.Repeat("large ", 10<<10))
	return s
}

// tiny is a sample of one image that can be extracted.
func tiny() *sample {
	s := newSample()
	s.addImage("team/app", "v2", layerOf("hello", "hello from a vector\n"))
	return s
}

// wide is a tiny sample for volumes of wideVolume bytes: three, with a blob that
// is cut.
func wide() *sample {
	s := newSample()
	s.addImage("team/app", "v2", layerOf("first", strings.Repeat("first ", 1000)), layerOf("second", strings.Repeat("second", 5000)))
	return s
}

const wideVolume = 48 << 10

// layerOf returns a layer with one file.
func layerOf(name, content string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
		panic(err)
	}
	fmt.Fprint(w, content)
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

func (m *vectorMaker) goodBundles() {
	m.alone("good-tiny", "ok", m.bundle(tiny(), 0))
	m.alone("good-one-volume", "ok", m.bundle(small(), 0))
	alone := m.bundle(small(), 0)
	m.add("good-volume-alone", "ok", map[string][]byte{VolumeName(0): alone[VolumeName(0)]}).Start = VolumeName(0)
	m.add("good-several-volumes", "ok", m.bundle(several(), 50<<10))
	for v := range 3 {
		set := m.bundle(wide(), wideVolume)
		delete(set, ManifestName)
		delete(set, SignatureName)
		m.add(fmt.Sprintf("good-volumes-without-manifest-from-%d", v+1), "ok", set).Start = VolumeName(v)
	}
	three := m.bundle(wide(), wideVolume)
	if three[VolumeName(2)] == nil || three[VolumeName(3)] != nil {
		m.t.Fatal("a wide sample has not three volumes")
	}
	m.add("good-three-volumes", "ok", three)
	for _, order := range [][3]int{{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} { // T04
		set := m.bundle(wide(), wideVolume)
		was := maps.Clone(set)
		for at, v := range order {
			set[VolumeName(at)] = was[VolumeName(v)]
		}
		m.add(fmt.Sprintf("good-volumes-swapped-%d-%d-%d", order[0]+1, order[1]+1, order[2]+1), "ok", set)
	}
	renamed := m.bundle(several(), 50<<10)
	renamed["a.tar"], renamed["b.tar"] = renamed[VolumeName(1)], renamed[VolumeName(0)]
	delete(renamed, VolumeName(0))
	delete(renamed, VolumeName(1))
	renamed["notes.txt"] = []byte("carried with them")
	m.add("good-renamed-volumes", "ok", renamed)
	whole := m.bundle(small(), 0)
	whole["other.tar"] = whole[VolumeName(0)]
	delete(whole, VolumeName(0))
	m.add("good-renamed-only-volume", "ok", whole)
	m.decoys()

	base := verify.DigestOf([]byte("the base layer"))
	based := func(with int64) *sample {
		s := small()
		for i := range s.groups {
			s.groups[i].Layers = slices.DeleteFunc(s.groups[i].Layers, func(b Blob) bool { return b.Digest == base })
		}
		s.manifest.Base = &Base{Blobs: []BaseBlob{{base, with, "library/base"}}, Digest: verify.DigestOf([]byte("base")), Name: "demo", Version: "0"}
		return s
	}
	m.alone("good-incremental", "ok", m.bundle(based(14), 0))
	m.alone("world-base-with-another-size", "invalid", m.bundle(based(15), 0))
	m.alone("world-base-lacks-a-blob", "invalid", m.bundle(based(14), 0, func(b *Manifest) { b.Base.Blobs = []BaseBlob{} }))
	m.alone("world-base-has-what-is-in-the-volumes", "invalid", m.bundle(small(), 0, func(b *Manifest) { b.Base = based(14).manifest.Base }))
}

// decoys stand beside a bundle and mean nothing (T06).
func (m *vectorMaker) decoys() {
	other := m.partsOf(small(), 0, func(b *Manifest) { b.Name = "other" })
	foreign := other.objects(m.t, other.raw(m.t))
	for name, beside := range map[string]map[string][]byte{
		"bak":               {"volume-001.tar.bak": []byte("old"), "bundle.json.bak": []byte("{}"), "bundle.json~": []byte("{}"), "bundle.sigstore.json.bak": {}},
		"other-numbers":     {"volume-1.tar": []byte("x"), "volume-01.tar": {}, "volume-0001.tar": []byte("x"), "part-01": []byte("x")},
		"copies":            {"volume-001 (1).tar": []byte("half a volume"), "Copy of volume-001.tar": make([]byte, 600)},
		"a-volume-too-many": {"volume-002.tar": foreign[VolumeName(0)]},
		"hidden":            {".bundle.sigstore.json": []byte("{}"), ".DS_Store": {0, 0, 0, 1}, "._volume-001.tar": {}},
		"other-signatures":  {"sigstore.json": []byte("{}"), "bundle.sigstore": []byte("{}"), "bundlesigstore.json": []byte("{}"), "xbundle.x.sigstore.json": []byte("{}")},
		"below":             {"old/bundle.json": foreign[ManifestName], "old/bundle.sigstore.json": foreign[SignatureName], "old/volume-001.tar": foreign[VolumeName(0)]},
	} {
		objects := m.bundle(tiny(), 0)
		maps.Copy(objects, beside)
		m.add("good-decoys-"+name, "ok", objects)
	}
}

func descriptorOf(mediaType string, content []byte) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
}
