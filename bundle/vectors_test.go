package bundle

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"ferry/internal/oci"
	"ferry/verify"
)

var update = flag.Bool("update", false, "make testdata/vectors again")

// verdicts are the classes that a vector can have; testdata/vectors/README.md
// describes them for other implementations.
var verdicts = []struct {
	name  string
	errIs func(error) bool
}{
	{"ok", func(err error) bool { return err == nil }},
	{"untrusted", func(err error) bool { return errors.Is(err, verify.ErrUntrusted) }},
	{"invalid", func(err error) bool { return errors.Is(err, ErrInvalid) || errors.Is(err, oci.ErrInvalid) }},
	{"incomplete", func(err error) bool { return errors.Is(err, ErrIncomplete) }},
	{"corrupt", func(err error) bool { return errors.Is(err, ErrCorrupt) }},
	{"absent", func(err error) bool { return errors.Is(err, ErrNotFound) }},
}

func verdictOf(err error) string {
	for _, v := range verdicts {
		if v.errIs(err) {
			return v.name
		}
	}
	return fmt.Sprintf("none of the verdicts: %v", err)
}

// vector is one bundle, whole or damaged, with the verdict it must get.
type vector struct {
	name, expect, start string
	objects             map[string][]byte
}

const vectorsDir = "../testdata/vectors"

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t, makeVectors(t))
	}
	files, err := filepath.Glob(vectorsDir + "/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, file := range files {
		v := readVector(t, file)
		for path, store := range map[string]Store{"memory": &memory{objects: v.objects, failAfter: -1}, "directory": v.directory(t)} {
			if got := verdictOf(readAll(store, v.start, readOptions("one"))); got != v.expect {
				t.Errorf("%s (%s): %s, want %s", v.name, path, got, v.expect)
			}
		}
	}
}

// directory puts the vector into a folder.
func (v vector) directory(t *testing.T) Store {
	dir := t.TempDir()
	for name, content := range v.objects {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return NewDir(dir)
}

func readVector(t testing.TB, file string) vector {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{name: strings.TrimSuffix(filepath.Base(file), ".txtar"), objects: map[string][]byte{}}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "expect":
			v.expect = value
		case "start":
			v.start = value
		}
	}
	for _, f := range archive.Files {
		zipped, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(f.Data)), ""))
		if err != nil {
			t.Fatal(err)
		}
		zr, err := gzip.NewReader(bytes.NewReader(zipped))
		if err != nil {
			t.Fatal(err)
		}
		if v.objects[f.Name], err = io.ReadAll(zr); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func writeVectors(t *testing.T, list []vector) {
	t.Helper()
	old, _ := filepath.Glob(vectorsDir + "/*.txtar")
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(vectorsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		archive := &txtar.Archive{Comment: fmt.Appendf(nil, "expect: %s\n", v.expect)}
		if v.start != "" {
			archive.Comment = fmt.Appendf(archive.Comment, "start: %s\n", v.start)
		}
		for _, name := range slices.Sorted(maps.Keys(v.objects)) {
			var b bytes.Buffer
			zw, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
			zw.Write(v.objects[name])
			zw.Close()
			text := base64.StdEncoding.EncodeToString(b.Bytes())
			var lines []byte
			for chunk := range slices.Chunk([]byte(text), 100) {
				lines = append(append(lines, chunk...), '\n')
			}
			archive.Files = append(archive.Files, txtar.File{Name: name, Data: lines})
		}
		if err := os.WriteFile(filepath.Join(vectorsDir, v.name+".txtar"), txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// makeVectors makes all vectors from the committed keys.
func makeVectors(t *testing.T) []vector {
	m := &vectorMaker{t: t}
	m.good()
	m.signatures()
	m.volumes()
	m.manifests()
	m.worlds()
	return m.list
}

type vectorMaker struct {
	t    *testing.T
	list []vector
}

func (m *vectorMaker) add(name, expect, start string, objects map[string][]byte) {
	m.list = append(m.list, vector{name, expect, start, objects})
}

func (m *vectorMaker) bundle(s *sample, volumeSize int64) map[string][]byte {
	store := newMemory()
	s.write(m.t, store, volumeSize)
	return store.objects
}

// several is a sample of several volumes, one blob of which is cut.
func several() *sample {
	s := small()
	s.addImage("team/large", "v3", strings.Repeat("large ", 10<<10))
	return s
}

func (m *vectorMaker) good() {
	m.add("good-one-volume", "ok", "", m.bundle(small(), 0))
	alone := m.bundle(small(), 0)
	delete(alone, ManifestName)
	delete(alone, SignatureName)
	m.add("good-volume-alone", "ok", VolumeName(0), alone)
	m.add("good-several-volumes", "ok", "", m.bundle(several(), 50<<10))
	renamed := m.bundle(several(), 50<<10)
	renamed["a.tar"], renamed["b.tar"] = renamed[VolumeName(1)], renamed[VolumeName(0)]
	delete(renamed, VolumeName(0))
	delete(renamed, VolumeName(1))
	renamed["notes.txt"] = []byte("carried with them")
	m.add("good-renamed-volumes", "ok", "", renamed)
	second := m.bundle(small(), 0)
	second["bundle.second.sigstore.json"] = bytes.TrimRight(signRaw(m.t, second[ManifestName], "two"), " ")
	m.add("good-second-signature", "ok", "", second)
	expiring := small()
	expiring.manifest.Expires = "2099-01-01T00:00:00Z"
	m.add("good-not-expired", "ok", "", m.bundle(expiring, 0))
	based := small()
	base := based.addBlob([]byte("the base layer"))
	for i := range based.groups {
		based.groups[i].Layers = slices.DeleteFunc(based.groups[i].Layers, func(b Blob) bool { return b.Digest == base.Digest })
	}
	based.manifest.Base = &Base{Blobs: []BaseBlob{{base.Digest, base.Size, "library/base"}}, Digest: verify.DigestOf([]byte("base")), Name: "demo", Version: "0"}
	m.add("good-incremental", "ok", "", m.bundle(based, 0))
}

func (m *vectorMaker) signatures() {
	whole := m.bundle(small(), 0)
	with := func(name, expect string, sig []byte) {
		objects := maps.Clone(whole)
		objects[SignatureName] = sig
		if sig == nil {
			delete(objects, SignatureName)
		}
		m.add("signature-"+name, expect, "", objects)
	}
	sig := whole[SignatureName]
	with("stripped", "untrusted", nil)
	with("empty", "untrusted", []byte{})
	with("null", "untrusted", []byte("null"))
	with("other-key", "untrusted", signRaw(m.t, whole[ManifestName], "two"))
	with("of-other-content", "untrusted", signRaw(m.t, []byte("{}"), "one"))
	with("hint-of-other-key", "untrusted", bytes.Replace(sig, []byte(testKeys()["one"].Key().Fingerprint()), []byte(testKeys()["two"].Key().Fingerprint()), 1))
	with("bit-flipped", "untrusted", bytes.Replace(sig, []byte(`"signature":"M`), []byte(`"signature":"N`), 1))
	with("not-filled-up", "invalid", bytes.TrimRight(sig, " "))
	with("filled-up-with-tabs", "invalid", bytes.ReplaceAll(sig, []byte("  "), []byte("\t\t")))
	with("one-space-less", "invalid", sig[:len(sig)-1])
	with("one-space-more", "invalid", append(bytes.Clone(sig), ' '))
	objects := maps.Clone(whole)
	objects["bundle.bad.sigstore.json"] = []byte("{}")
	m.add("signature-second-is-damaged", "untrusted", "", objects)
	expired := small()
	expired.manifest.Expires = "2026-11-21T12:00:00Z"
	m.add("expired", "untrusted", "", m.bundle(expired, 0))
}

func (m *vectorMaker) volumes() {
	store := newMemory()
	set := several().write(m.t, store, 50<<10)
	damage := func(name, expect string, do func(objects map[string][]byte)) {
		objects := store.clone().objects
		do(objects)
		m.add("volume-"+name, expect, "", objects)
	}
	flip := func(v int, at int64) func(map[string][]byte) {
		return func(objects map[string][]byte) { objects[VolumeName(v)][at] ^= 1 }
	}
	files := set.Volumes()[0].Files
	last := files[len(files)-1]
	damage("missing", "incomplete", func(o map[string][]byte) { delete(o, VolumeName(1)) })
	damage("all-missing", "incomplete", func(o map[string][]byte) {
		maps.DeleteFunc(o, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".tar") })
	})
	damage("twice-instead-of-another", "incomplete", func(o map[string][]byte) { o[VolumeName(1)] = o[VolumeName(0)] })
	damage("head-flipped", "corrupt", flip(0, 0))
	damage("signature-in-head-flipped", "corrupt", flip(0, set.Volumes()[0].HeadSize-1))
	damage("manifest-in-head-flipped", "corrupt", flip(1, 600))
	damage("document-flipped", "corrupt", flip(0, files[0].Content()))
	damage("header-of-document-flipped", "corrupt", flip(0, files[1].Start+100))
	damage("content-flipped", "corrupt", flip(0, last.Content()))
	damage("header-flipped", "corrupt", flip(0, last.Start+156))
	damage("padding-flipped", "corrupt", flip(1, set.Volumes()[1].Files[0].End()-1))
	damage("trailer-flipped", "corrupt", flip(0, set.Volumes()[0].Trailer()))
	damage("cut-by-one", "corrupt", func(o map[string][]byte) { o[VolumeName(0)] = o[VolumeName(0)][:len(o[VolumeName(0)])-1] })
	damage("cut-by-trailer", "corrupt", func(o map[string][]byte) { o[VolumeName(0)] = o[VolumeName(0)][:set.Volumes()[0].Trailer()] })
	damage("zeros-appended", "corrupt", func(o map[string][]byte) { o[VolumeName(0)] = append(o[VolumeName(0)], make([]byte, 512)...) })
	damage("volume-appended", "corrupt", func(o map[string][]byte) { o[VolumeName(0)] = append(o[VolumeName(0)], o[VolumeName(1)]...) })
	damage("entry-inserted", "corrupt", func(o map[string][]byte) {
		at := files[0].Start
		extra := append(TarHeader("extra", 1), append([]byte("x"), make([]byte, 511)...)...)
		o[VolumeName(0)] = slices.Insert(o[VolumeName(0)], int(at), extra...)
	})
	damage("empty", "corrupt", func(o map[string][]byte) { o[VolumeName(0)] = nil })
	damage("no-manifest", "absent", func(o map[string][]byte) { delete(o, ManifestName) })
	alone := m.bundle(small(), 0)
	alone = map[string][]byte{VolumeName(0): alone[VolumeName(0)]}
	alone[VolumeName(0)][124] ^= 1
	m.add("volume-alone-with-wrong-size-in-header", "corrupt", VolumeName(0), alone)
	negative := map[string][]byte{VolumeName(0): append(ustarBlock(ManifestName, -1, '0'), make([]byte, 40<<10)...)}
	m.add("volume-alone-with-negative-size-in-header", "corrupt", VolumeName(0), negative)
	whole := m.bundle(small(), 0)
	whole["other.tar"] = whole[VolumeName(0)]
	delete(whole, VolumeName(0))
	m.add("good-renamed-only-volume", "ok", "", whole)
}

// manifests are signed as they are: only the strict reader refuses them.
func (m *vectorMaker) manifests() {
	whole := m.bundle(several(), 50<<10)
	raw := string(whole[ManifestName])
	signed := func(name, text string) {
		if text == raw {
			m.t.Errorf("manifest-%s is not changed", name)
		}
		objects := maps.Clone(whole)
		objects[ManifestName] = []byte(text)
		objects[SignatureName] = signRaw(m.t, []byte(text), "one")
		m.add("manifest-"+name, "invalid", "", objects)
	}
	replace := func(name, old, new string) { signed(name, strings.Replace(raw, old, new, 1)) }
	signed("empty", "")
	signed("null", "null")
	signed("list", "[]")
	signed("trailing-newline", raw+"\n")
	signed("leading-space", " "+raw)
	signed("byte-order-mark", "\ufeff"+raw)
	signed("twice", raw+raw)
	signed("cut", raw[:len(raw)-1])
	signed("not-utf8", strings.Replace(raw, `"name":"demo"`, "\"name\":\"d\xffmo\"", 1))
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(raw), "", " "); err != nil {
		m.t.Fatal(err)
	}
	signed("indented", indented.String())
	replace("unknown-key", `"format":1`, `"extra":1,"format":1`)
	replace("duplicate-key", `"name":"demo"`, `"name":"demo","name":"demo"`)
	replace("other-case-key", `"name":"demo"`, `"Name":"demo"`)
	replace("keys-not-sorted", `"name":"demo","sequence":7`, `"sequence":7,"name":"demo"`)
	replace("escaped-letter", `"name":"demo"`, `"name":"d\u0065mo"`)
	replace("optional-null", `"format":1`, `"expires":"","format":1`)
	replace("format-2", `"format":1`, `"format":2`)
	replace("format-missing", `"format":1,`, ``)
	replace("format-text", `"format":1`, `"format":"1"`)
	replace("format-float", `"format":1`, `"format":1.0`)
	replace("name-with-slash", `"name":"demo"`, `"name":"../demo"`)
	replace("name-empty", `"name":"demo"`, `"name":""`)
	replace("version-dot", `"version":"1"`, `"version":"1."`)
	replace("sequence-negative", `"sequence":7`, `"sequence":-7`)
	replace("sequence-too-large", `"sequence":7`, `"sequence":9007199254740993`)
	replace("sequence-exponent", `"sequence":7`, `"sequence":7e0`)
	replace("created-not-utc", `"created":"2026-11-21T00:00:00Z"`, `"created":"2026-11-21T01:00:00+01:00"`)
	replace("created-empty", `"created":"2026-11-21T00:00:00Z"`, `"created":""`)
	replace("created-with-fraction", `"created":"2026-11-21T00:00:00Z"`, `"created":"2026-11-21T00:00:00.5Z"`)
	replace("source-with-escape", `"source":"registry`, `"source":"\u001b[31mregistry`)
	replace("source-with-bidi", `"source":"registry`, "\"source\":\"\u202eregistry")
	replace("target-upper-case", `"target":"team/app"`, `"target":"Team/app"`)
	replace("target-climbs", `"target":"team/app"`, `"target":"team/../app"`)
	replace("tag-with-slash", `"tags":["v2"]`, `"tags":["v/2"]`)
	replace("tags-null", `"tags":["v2"]`, `"tags":null`)
	replace("tags-not-sorted", `"tags":["v2"]`, `"tags":["v2","v1"]`)
	replace("tag-twice", `"tags":["v2"]`, `"tags":["v2","v2"]`)
	replace("same-name-twice", `"tags":["v2"],"target":"team/app"`, `"tags":["1.0"],"target":"library/base"`)
	replace("digest-upper-case", `"digest":"sha256:`, `"digest":"SHA256:`)
	replace("digest-short", `"digest":"sha256:`, `"digest":"sha256:0`)
	replace("size-negative", `"path":"oci-layout","size":30`, `"path":"oci-layout","size":-30`)
	replace("path-climbs", `"path":"oci-layout"`, `"path":"../oci-layout"`)
	replace("path-absolute", `"path":"oci-layout"`, `"path":"/oci-layout"`)
	replace("path-unknown", `"path":"oci-layout"`, `"path":"etc/passwd"`)
	replace("path-twice", `"path":"oci-layout"`, `"path":"index.json"`)
	replace("path-of-other-blob", `"path":"blobs/sha256/`, `"path":"blobs/sha256/0`)
	replace("piece-with-gap", `"offset":`, `"offset":1`)
	replace("no-volumes", raw[strings.Index(raw, `"volumes":`):], `"volumes":[]}`)
	signed("many-empty-objects", strings.Replace(raw, `"images":[`, `"images":[`+strings.Repeat("{},", 10000), 1))
	replace("no-images", raw[strings.Index(raw, `"images":`):strings.Index(raw, `,"name":"demo"`)], `"images":[]`)
}

// worlds are signed, well formed, and not whole.
func (m *vectorMaker) worlds() {
	without := small()
	without.groups[1].Layers = slices.DeleteFunc(without.groups[1].Layers, func(b Blob) bool {
		return b.Digest == verify.DigestOf([]byte("the layer of the app"))
	})
	m.add("world-blob-not-listed", "invalid", "", m.bundle(without, 0))
	noConfig := small()
	noConfig.groups[1].Small = noConfig.groups[1].Small[:2]
	m.add("world-config-not-listed", "invalid", "", m.bundle(noConfig, 0))
	noSignature := small()
	noSignature.groups[1].Small = slices.Delete(noSignature.groups[1].Small, 1, 2)
	m.add("world-signature-not-listed", "invalid", "", m.bundle(noSignature, 0))
	typed := small()
	typed.manifest.Images[1].MediaType = oci.MediaTypeDockerManifest
	m.add("world-media-type-of-manifest-differs", "invalid", "", m.bundle(typed, 0))
	sized := small()
	sized.manifest.Images[1].Size++
	m.add("world-size-of-manifest-differs", "invalid", "", m.bundle(sized, 0))
	both := small()
	image := &both.manifest.Images[1]
	text := bytes.Replace(both.blobs[image.Digest], []byte(`"schemaVersion"`), []byte(`"manifests":[],"schemaVersion"`), 1)
	b := both.addBlob(text)
	image.Digest, image.Size = b.Digest, b.Size
	both.groups[1].Small[0] = b
	m.add("world-manifest-is-image-and-index", "invalid", "", m.bundle(both, 0)) // T14
}
