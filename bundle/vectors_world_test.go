package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

const layerType = "application/vnd.oci.image.layer.v1.tar"

// worlds are signed and well formed; those that are invalid are not whole, or
// contradict themselves (T13, T14, T15, T16, T17, T28).
func (m *vectorMaker) worlds() {
	without := func(name string, expect string, drop func(g *Group)) {
		s := tiny()
		drop(&s.groups[0])
		m.alone("world-"+name, expect, m.bundle(s, 0))
	}
	const no = "invalid"
	without("layer-not-listed", no, func(g *Group) { g.Layers = g.Layers[1:] })
	without("layer-of-signature-not-listed", no, func(g *Group) { g.Layers = g.Layers[:1] })
	without("config-not-listed", no, func(g *Group) { g.Small = g.Small[:2] })
	without("signature-not-listed", no, func(g *Group) { g.Small = slices.Delete(g.Small, 1, 2) })
	without("manifest-not-listed", no, func(g *Group) { g.Small = g.Small[1:] })
	without("only-manifest-listed", no, func(g *Group) { *g = Group{Small: g.Small[:1]} })

	p := m.partsOf(tiny(), 0)
	extra := Document{Content: []byte("nothing refers to this")} // T28: it is signed, and goes nowhere
	extra.Path = BlobPath(verify.DigestOf(extra.Content))
	p.manifest.Volumes[0].Entries = append(p.manifest.Volumes[0].Entries, extra.Entry())
	p.volumes[0] = append(p.volumes[0], extra)
	m.alone("good-blob-that-nothing-refers-to", "ok", p.objects(m.t, p.raw(m.t)))

	m.image("good-image-without-referrers", "ok", func(*sample, map[string]any) {})
	m.image("good-image-of-docker", "ok", func(s *sample, d map[string]any) {
		d["mediaType"] = oci.MediaTypeDockerManifest
		d["config"] = descriptor(oci.MediaTypeDockerConfig, s.addBlob([]byte(`{"os":"linux","architecture":"amd64"}`)))
	})
	m.image("good-image-without-layers", "ok", func(s *sample, d map[string]any) { d["layers"] = []oci.Descriptor{} })
	m.image("good-image-without-media-type", "ok", func(_ *sample, d map[string]any) { delete(d, "mediaType") })
	m.image("good-image-with-other-keys", "ok", func(_ *sample, d map[string]any) { d["x"] = map[string]any{"y": 1} })
	m.image("good-image-with-annotations", "ok", func(_ *sample, d map[string]any) {
		d["annotations"] = map[string]string{"Digest": "x", "digest": "y", "": "z"}
	})
	m.image("good-image-with-the-same-layer-twice", "ok", func(s *sample, d map[string]any) {
		b := s.addBlob([]byte("a layer"))
		d["layers"] = []oci.Descriptor{descriptor(layerType, b), descriptor(layerType, b)}
	})
	m.image("good-image-with-an-empty-layer", "ok", func(s *sample, d map[string]any) {
		d["layers"] = []oci.Descriptor{descriptor(layerType, s.addBlob([]byte{}))}
	})
	m.image("good-image-with-urls", "ok", func(s *sample, d map[string]any) { // T18
		layer := descriptor(layerType, s.addBlob([]byte("a layer")))
		layer.URLs = []string{"http://203.0.113.1/layer"}
		d["layers"] = []oci.Descriptor{layer}
	})
	m.image("world-urls-in-place-of-a-layer", no, func(s *sample, d map[string]any) { // T18
		layer := descriptorOf("application/vnd.oci.image.layer.nondistributable.v1.tar", []byte("elsewhere"))
		layer.URLs = []string{"http://203.0.113.1/layer"}
		d["layers"] = []oci.Descriptor{layer}
	})
	m.image("good-image-about-another", "ok", func(_ *sample, d map[string]any) {
		d["subject"] = descriptorOf(oci.MediaTypeManifest, []byte("is not here"))
	})
	layers := func(n int) func(s *sample, d map[string]any) {
		return func(s *sample, d map[string]any) {
			d["layers"] = slices.Repeat([]oci.Descriptor{descriptor(layerType, s.addBlob([]byte("a layer")))}, n)
		}
	}
	m.image("good-image-with-4095-layers", "ok", layers(4095)) // and a config
	m.image("document-4096-layers", no, layers(4096))
	filled := func(n int) func(s *sample, d map[string]any) {
		return func(_ *sample, d map[string]any) {
			short, err := compactJSON(d)
			if err != nil {
				m.t.Fatal(err)
			}
			d["x"] = strings.Repeat("x", n-len(short)-len(`,"x":""`))
		}
	}
	m.image("good-image-of-4-MiB", "ok", filled(oci.MaxManifest)) // T15
	m.image("image-of-4-MiB-and-a-byte", no, filled(oci.MaxManifest+1))
	m.sizes()
	m.indexes()
}

// image adds a bundle of one image, whose manifest change has made.
func (m *vectorMaker) image(name, expect string, change func(s *sample, d map[string]any)) {
	m.t.Helper()
	s := newSample()
	d := map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": descriptor(oci.MediaTypeConfig, s.addBlob([]byte(`{"os":"linux","architecture":"amd64"}`))),
		"layers": []oci.Descriptor{descriptor(layerType, s.addBlob([]byte(layerOf("hello", "hello\n"))))}}
	change(s, d)
	mediaType, _ := d["mediaType"].(string)
	text, err := compactJSON(d)
	if err != nil {
		m.t.Fatal(err)
	}
	m.rooted(name, expect, s, mediaType, text)
}

// rooted adds a bundle of the blobs in s whose one image has the manifest text.
func (m *vectorMaker) rooted(name, expect string, s *sample, mediaType string, text []byte) {
	m.t.Helper()
	if mediaType == "" {
		mediaType = oci.MediaTypeManifest
	}
	root := verify.DigestOf(text)
	g := Group{Small: []Blob{{root, int64(len(text))}}}
	var rest []Blob
	for d, content := range s.blobs {
		if d != root {
			rest = append(rest, Blob{d, int64(len(content))})
		}
	}
	slices.SortFunc(rest, func(a, b Blob) int { return strings.Compare(a.Digest.Hex(), b.Digest.Hex()) })
	g.Small = append(g.Small, rest...)
	s.blobs[root] = text
	s.groups = []Group{g}
	s.manifest.Images = []Image{{Digest: root, MediaType: mediaType, Size: int64(len(text)), Source: "registry.example/team/app:v2", Tags: []string{"v2"}, Target: "team/app"}}
	if expect == "ok" {
		m.alone(name, expect, m.bundle(s, 0))
		return
	}
	// What the packer would refuse is packed with a size that it takes.
	size := min(int64(len(text)), oci.MaxManifest)
	s.manifest.Images[0].Size = size
	m.alone(name, expect, m.bundle(s, 0, func(b *Manifest) { b.Images[0].Size = int64(len(text)) }))
}

// sizes are descriptors that say another size than that of their blob (T13).
func (m *vectorMaker) sizes() {
	blob := []byte(layerOf("hello", "hello\n"))
	for name, size := range map[string]any{"one-less": len(blob) - 1, "one-more": len(blob) + 1, "0": 0, "negative": -1, "2-to-the-62": int64(1) << 62, "2-to-the-63": json.Number("9223372036854775808"),
		"float": json.Number(fmt.Sprintf("%d.0", len(blob))), "exponent": json.Number(fmt.Sprintf("%de0", len(blob))), "text": fmt.Sprint(len(blob)), "boolean": true, "list": []int{len(blob)}} {
		for key, mediaType := range map[string]string{"layers": layerType, "config": oci.MediaTypeConfig} {
			if key == "config" && !strings.HasPrefix(name, "one-") {
				continue
			}
			m.image("world-size-of-"+key+"-"+name, "invalid", func(s *sample, d map[string]any) {
				b := s.addBlob(blob)
				text := map[string]any{"mediaType": mediaType, "digest": b.Digest, "size": size}
				if d[key] = any(text); key == "layers" {
					d[key] = []any{text}
				}
			})
		}
	}
	m.image("world-two-sizes-of-a-layer", "invalid", func(s *sample, d map[string]any) {
		layer := descriptor(layerType, s.addBlob([]byte("a layer")))
		longer := layer
		longer.Size++
		d["layers"] = []oci.Descriptor{layer, longer}
	})
	for form, text := range digestForms { // T12
		m.image("document-digest-"+form, "invalid", func(s *sample, d map[string]any) {
			b := s.addBlob([]byte("a layer"))
			if strings.Contains(text, "%") {
				text = fmt.Sprintf(text, b.Digest.Hex())
			}
			d["layers"] = []any{map[string]any{"mediaType": layerType, "digest": json.RawMessage(`"` + text + `"`), "size": b.Size}}
		})
	}
}

// indexes are images of several platforms.
func (m *vectorMaker) indexes() {
	const no = "invalid"
	type list = []oci.Descriptor
	index := func(name, expect string, children func(s *sample) list) {
		s := newSample()
		text, err := compactJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": children(s)})
		if err != nil {
			m.t.Fatal(err)
		}
		m.rooted(name, expect, s, oci.MediaTypeIndex, text)
	}
	child := func(s *sample, os, arch string) oci.Descriptor {
		config := s.addJSON(map[string]any{"architecture": arch, "os": os})
		text := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest, "config": descriptor(oci.MediaTypeConfig, config),
			"layers": list{descriptor(layerType, s.addBlob([]byte(layerOf("arch", arch))))}})
		d := descriptor(oci.MediaTypeManifest, text)
		d.Platform = &oci.Platform{OS: os, Architecture: arch}
		return d
	}
	both := func(s *sample) list { return list{child(s, "linux", "amd64"), child(s, "linux", "arm64")} }
	index("good-index", "ok", both)
	index("good-index-of-nothing", "ok", func(*sample) list { return list{} })
	index("good-index-with-a-child-twice", "ok", func(s *sample) list { c := child(s, "linux", "amd64"); return list{c, c} })
	index("good-index-with-another-platform-than-the-config", "ok", func(s *sample) list { // T17
		c := both(s)
		c[0].Platform, c[1].Platform = c[1].Platform, c[0].Platform
		return c
	})
	index("good-index-without-platforms", "ok", func(s *sample) list { // T17
		c := both(s)
		c[0].Platform = nil
		return c
	})
	index("good-index-with-an-attestation", "ok", func(s *sample) list { // T17
		a := child(s, "unknown", "unknown")
		a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
		return append(both(s), a)
	})
	edit := func(change func(s *sample, d *oci.Descriptor)) func(*sample) list {
		return func(s *sample) list {
			c := both(s)
			change(s, &c[1])
			return c
		}
	}
	index("world-child-not-listed", no, edit(func(s *sample, d *oci.Descriptor) { delete(s.blobs, d.Digest) }))
	index("world-child-size-one-more", no, edit(func(_ *sample, d *oci.Descriptor) { d.Size++ }))
	index("world-child-size-one-less", no, edit(func(_ *sample, d *oci.Descriptor) { d.Size-- }))
	index("world-child-of-other-media-type", no, edit(func(_ *sample, d *oci.Descriptor) { d.MediaType = oci.MediaTypeDockerManifest }))
	index("world-child-is-called-an-index", no, edit(func(_ *sample, d *oci.Descriptor) { d.MediaType = oci.MediaTypeIndex }))
	index("world-child-is-called-a-layer", no, edit(func(_ *sample, d *oci.Descriptor) { d.MediaType = layerType }))
	index("world-child-without-media-type", no, edit(func(_ *sample, d *oci.Descriptor) { d.MediaType = "" }))
	index("world-child-is-a-layer", no, edit(func(s *sample, d *oci.Descriptor) {
		*d = descriptor(oci.MediaTypeManifest, s.addBlob([]byte("a layer")))
	}))
	index("world-layer-of-a-child-not-listed", no, edit(func(s *sample, _ *oci.Descriptor) { delete(s.blobs, verify.DigestOf([]byte(layerOf("arch", "arm64")))) }))
	index("world-config-of-a-child-not-listed", no, edit(func(s *sample, _ *oci.Descriptor) {
		delete(s.blobs, verify.DigestOf([]byte(`{"architecture":"arm64","os":"linux"}`)))
	}))
	index("world-child-over-4-MiB", no, edit(func(_ *sample, d *oci.Descriptor) { d.Size = oci.MaxManifest + 1 }))
	many := func(n int) func(*sample) list {
		return func(s *sample) list { return slices.Repeat(list{child(s, "linux", "amd64")}, n) }
	}
	index("good-index-of-4096", "ok", many(oci.MaxDescriptors)) // T15
	index("document-index-of-4097", no, many(oci.MaxDescriptors+1))
	wrap := func(s *sample, children ...oci.Descriptor) oci.Descriptor {
		return descriptor(oci.MediaTypeIndex, s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": children}))
	}
	deep := func(n int) func(*sample) list {
		return func(s *sample) list {
			d := child(s, "linux", "amd64")
			for range n - 2 { // the root is one more
				d = wrap(s, d)
			}
			return list{d}
		}
	}
	index("good-index-of-8-levels", "ok", deep(8)) // T16
	index("world-index-of-9-levels", no, deep(9))
	index("world-index-of-100-levels", no, deep(100))
	index("good-index-that-is-a-diamond", "ok", func(s *sample) list { // T16
		a, b := child(s, "linux", "amd64"), child(s, "linux", "arm64")
		return list{wrap(s, a, b), wrap(s, b, a)}
	})
	index("world-child-of-two-media-types", no, func(s *sample) list {
		c := child(s, "linux", "amd64")
		other := c
		other.MediaType = oci.MediaTypeDockerManifest
		return list{wrap(s, c), wrap(s, other)}
	})
	// An index cannot name itself by its digest; one that tries names nothing.
	index("world-index-of-a-digest-of-zeros", no, func(*sample) list { return list{{MediaType: oci.MediaTypeIndex, Size: 200}} })
	index("world-index-of-what-is-not-there", no, func(*sample) list { return list{descriptorOf(oci.MediaTypeIndex, []byte("itself"))} })
}

// documents are manifests of images that JSON readers take differently, or that
// are of two kinds (T11, T14). All they lead to is in the bundle.
func (m *vectorMaker) documents() {
	s := newSample()
	config, layer := s.addBlob([]byte(`{"os":"linux","architecture":"amd64"}`)), s.addBlob([]byte(layerOf("hello", "hello\n")))
	good := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":%d},"layers":[{"mediaType":"%s","digest":"%s","size":%d}]}`,
		oci.MediaTypeManifest, oci.MediaTypeConfig, config.Digest, config.Size, layerType, layer.Digest, layer.Size)
	layerText := good[strings.Index(good, `{"mediaType":"`+layerType) : len(good)-2]
	document := func(name, expect, mediaType, text string) {
		if text == good && mediaType == "" {
			m.t.Errorf("document-%s is not changed", name)
		}
		s := newSample()
		s.addBlob([]byte(`{"os":"linux","architecture":"amd64"}`))
		s.addBlob([]byte(layerOf("hello", "hello\n")))
		m.rooted(name, expect, s, mediaType, []byte(text))
	}
	change := func(name, expect, old, new string) { document(name, expect, "", strings.Replace(good, old, new, 1)) }
	no := func(name, old, new string) { change("document-"+name, "invalid", old, new) }
	const schema = `"schemaVersion":2,`
	no("duplicate-key", schema, schema+schema)
	no("duplicate-layers", `"layers":[`, `"layers":[],"layers":[`)
	no("duplicate-key-in-descriptor", `"digest":`, `"digest":"sha256:`+strings.Repeat("0", 64)+`","digest":`)
	no("duplicate-key-in-annotations", schema, schema+`"annotations":{"a":"1","a":"2"},`)
	no("duplicate-key-in-what-nobody-knows", schema, schema+`"x":[{"a":1,"a":2}],`)
	no("duplicate-key-escaped", schema, schema+`"schema\u0056ersion":2,`)
	no("key-in-other-case", `"layers"`, `"Layers"`)
	no("key-in-both-cases", `"layers"`, `"LAYERS":[],"layers"`)
	no("key-in-other-case-in-descriptor", `"digest"`, `"Digest"`)
	no("key-in-other-case-anywhere", schema, schema+`"x":{"Digest":1},`)
	no("key-with-a-long-s", `"config"`, `"layerſ":[],"config"`) // folds to layers
	no("schema-version-1", schema, `"schemaVersion":1,`)
	no("schema-version-3", schema, `"schemaVersion":3,`)
	no("schema-version-missing", schema, "")
	no("schema-version-float", schema, `"schemaVersion":2.0,`)
	no("schema-version-text", schema, `"schemaVersion":"2",`)
	no("media-type-of-an-index", oci.MediaTypeManifest, oci.MediaTypeIndex)
	no("media-type-of-docker", oci.MediaTypeManifest, oci.MediaTypeDockerManifest)
	no("media-type-unknown", oci.MediaTypeManifest, "text/plain")
	no("media-type-a-number", `"`+oci.MediaTypeManifest+`"`, `2`)
	no("image-and-index", schema, schema+`"manifests":[],`)
	no("image-and-docker-1", schema, schema+`"fsLayers":[],`)
	no("without-config", `"config":`, `"other":`)
	no("config-null", good[strings.Index(good, `"config":`):strings.Index(good, `,"layers"`)], `"config":null`)
	no("config-list", good[strings.Index(good, `"config":`):strings.Index(good, `,"layers"`)], `"config":[]`)
	no("layers-an-object", `"layers":[`+layerText+`]`, `"layers":`+layerText)
	no("layer-null", layerText, layerText+`,null`)
	no("layer-empty", layerText, layerText+`,{}`)
	no("layer-without-digest", layerText, `{"mediaType":"`+layerType+`","size":1}`)
	no("subject-without-digest", schema, schema+`"subject":{"mediaType":"`+oci.MediaTypeManifest+`","size":1},`)
	no("trailing-comma", "]}", "],}")
	no("not-utf8", schema, schema+"\"x\":\"\xff\",")
	no("raw-newline-in-text", schema, schema+"\"x\":\"\n\",")
	no("comment", schema, schema+"/* */")
	no("single-quotes", `"layers"`, `'layers'`)
	no("not-a-number", schema, schema+`"x":NaN,`)
	no("leading-zero", schema, schema+`"x":01,`)
	no("hexadecimal", schema, schema+`"x":0x1,`)
	nested := func(n int) string { return schema + `"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "," }
	change("good-document-of-32-levels", "ok", schema, nested(32))
	no("of-34-levels", schema, nested(34))
	no("of-20000-levels", schema, nested(20000))
	for name, text := range map[string]string{"empty": "", "null": "null", "list": "[" + good + "]", "text": `"x"`, "number": "2", "twice": good + good, "followed-by-null": good + "null", "followed-by-text": good + "x",
		"byte-order-mark": "\ufeff" + good, "utf-16": "\xff\xfe{\x00}\x00", "cut": good[:len(good)-1], "nul-behind": good + "\x00"} {
		if name == "empty" {
			continue // no manifest has 0 bytes: see image-size-0
		}
		document("document-"+name, "invalid", "", text)
	}
	document("good-document-indented", "ok", "", indentedJSON(m, good))
	document("good-document-with-space-behind", "ok", "", good+" \n")
	asIndex := func(keys string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s",%s"manifests":[]}`, oci.MediaTypeIndex, keys)
	}
	document("document-index-with-layers", "invalid", oci.MediaTypeIndex, asIndex(`"layers":[`+layerText+`],`))
	document("document-index-with-layers-null", "invalid", oci.MediaTypeIndex, asIndex(`"layers":null,`))
	document("document-index-with-config", "invalid", oci.MediaTypeIndex, asIndex(good[strings.Index(good, `"config":`):strings.Index(good, `,"layers"`)]+","))
	document("document-index-with-docker-1", "invalid", oci.MediaTypeIndex, asIndex(`"fsLayers":[],`))
	document("document-index-that-is-an-image", "invalid", oci.MediaTypeIndex, good)
	document("document-image-without-media-type-as-index", "invalid", oci.MediaTypeIndex, strings.Replace(good, `"mediaType":"`+oci.MediaTypeManifest+`",`, "", 1))
	document("good-document-index-with-other-keys", "ok", oci.MediaTypeIndex, asIndex(`"x":{},`))
}

func indentedJSON(m *vectorMaker, text string) string {
	m.t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "   "); err != nil {
		m.t.Fatal(err)
	}
	return b.String()
}
