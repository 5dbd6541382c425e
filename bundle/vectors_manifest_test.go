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

// digestForms are no digests (T12); %s is the 64 digits of a good one.
var digestForms = map[string]string{
	"md5":               "md5:d41d8cd98f00b204e9800998ecf8427e",
	"sha512":            "sha512:%[1]s%[1]s",
	"algorithm-upper":   "SHA256:%s",
	"no-algorithm":      "%s",
	"algorithm-empty":   ":%s",
	"colon-missing":     "sha256%s",
	"two-colons":        "sha256::%s",
	"one-digit-more":    "sha256:%s0",
	"one-digit-less":    "sha256:%.63s",
	"empty":             "",
	"only-algorithm":    "sha256:",
	"no-hex":            "sha256:%.63sg",
	"path":              "sha256:../../%.58s",
	"space-before":      " sha256:%s",
	"space-behind":      "sha256:%s ",
	"newline-behind":    `sha256:%s\n`,
	"full-width-digits": "sha256:%.61s１",
	"of-zeros":          "sha256:" + strings.Repeat("0", 64),
	"two-algorithms":    "sha256+sha512:%s",
}

// manifestTexts are signed as they are: only the strict reader refuses them,
// for the rest of each bundle agrees with what a lenient one would read (T11).
func (m *vectorMaker) manifestTexts() {
	p := m.partsOf(tiny(), 0)
	raw := p.raw(m.t)
	add := func(name, expect, text string) {
		if text == raw {
			m.t.Errorf("%s is not changed", name)
		}
		m.alone(name, expect, p.objects(m.t, text))
	}
	signed := func(name, text string) { add("manifest-"+name, "invalid", text) }
	replace := func(name, old, new string) { signed(name, strings.Replace(raw, old, new, 1)) }
	last := func(name, old, new string) {
		i := strings.LastIndex(raw, old)
		signed(name, raw[:i]+new+raw[i+len(old):])
	}
	signed("empty", "")
	signed("null", "null")
	signed("list", "["+raw+"]")
	signed("text", fmt.Sprintf("%q", raw))
	signed("trailing-newline", raw+"\n")
	signed("trailing-nul", raw+"\x00")
	signed("trailing-comma", strings.TrimSuffix(raw, "}")+",}")
	signed("leading-space", " "+raw)
	signed("byte-order-mark", "\ufeff"+raw)
	signed("utf-16", "\xff\xfe"+strings.Join(strings.Split(raw, ""), "\x00")+"\x00")
	signed("twice", raw+raw)
	signed("cut", raw[:len(raw)-1])
	signed("comment", strings.Replace(raw, "{", "{/* */", 1))
	replace("not-utf8", `"name":"demo"`, "\"name\":\"d\xffmo\"")
	replace("overlong-utf8", `"source":"`, "\"source\":\"\xc0\xaf")
	replace("surrogate-in-utf8", `"source":"`, "\"source\":\"\xed\xa0\x80")
	replace("lone-surrogate", `"source":"`, `"source":"\ud800`)
	replace("name-with-nul", `"name":"demo"`, `"name":"demo\u0000"`)
	replace("raw-control-character", `"source":"`, "\"source\":\"\x01")
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(raw), "", " "); err != nil {
		m.t.Fatal(err)
	}
	signed("indented", indented.String())
	replace("space-after-colon", `"format":1`, `"format": 1`)
	// Keys, at each place that has some.
	for place, key := range map[string]string{"": `"format":`, "image-": `"mediaType":`, "referrer-": `"subject":`, "entry-": `"path":`} {
		name := strings.Trim(key, `":`)
		replace(place+"unknown-key", key, `"extra":1,`+key)
		replace(place+"empty-key", key, `"":1,`+key)
		replace(place+"key-in-other-case", key, `"`+strings.ToUpper(name[:1])+name[1:]+`":`)
		replace(place+"key-in-both-cases", key, `"`+strings.ToUpper(name)+`":null,`+key)
		replace(place+"key-escaped", key, `"`+fmt.Sprintf(`\u%04x`, name[0])+name[1:]+`":`)
		from := strings.Index(raw, key)
		value := raw[from : from+strings.IndexAny(raw[from:], ",}")]
		replace(place+"duplicate-key", value, value+","+value)
		replace(place+"key-missing", value+",", "")
	}
	replace("duplicate-key-with-another-value", `"name":"demo"`, `"name":"other","name":"demo"`)
	replace("keys-not-sorted", `"name":"demo","sequence":7`, `"sequence":7,"name":"demo"`)
	replace("escaped-letter", `"name":"demo"`, `"name":"d\u0065mo"`)
	replace("escaped-slash", `"target":"team/app"`, `"target":"team\/app"`)
	replace("optional-empty", `"format":1`, `"expires":"","format":1`)
	replace("optional-null", `"format":1`, `"expires":null,"format":1`)
	replace("base-null", `{"created"`, `{"base":null,"created"`)
	replace("feature-empty", `"mediaType"`, `"feature":"","mediaType"`)
	replace("offset-zero", `,"path":"oci-layout"`, `,"offset":0,"path":"oci-layout"`)
	replace("tag-of-referrer-empty", `"tag":"sha256-`, `"tag":"","x":"sha256-`)
	replace("deep", `"format":1`, `"extra":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`,"format":1`)
	replace("many-empty-objects", `"images":[`, `"images":[`+strings.Repeat("{},", 10000))
	// Numbers.
	for form, text := range map[string]string{"float": "%s.0", "exponent": "%se0", "text": `"%s"`, "plus": "+%s", "leading-zero": "0%s", "hexadecimal": "0x%s",
		"list": "[%s]", "boolean": "true", "null": "null", "missing-value": "", "too-long": "18446744073709551616%s"} {
		number := func(old string) string { return strings.Replace(text, "%s", old, 1) }
		replace("sequence-"+form, `"sequence":7`, `"sequence":`+number("7"))
		if form == "float" || form == "text" || form == "exponent" {
			replace("format-"+form, `"format":1`, `"format":`+number("1"))
		}
		last("size-"+form, `"size":21}`, `"size":`+number("21")+"}")
	}
	last("size-minus-zero", `"size":21}`, `"size":-0}`)
	for form, text := range digestForms {
		hex := verify.DigestOf([]byte("x")).Hex()
		if strings.Contains(text, "%") {
			text = fmt.Sprintf(text, hex)
		}
		at := strings.LastIndex(raw, `"digest":"`) + len(`"digest":"`)
		signed("digest-"+form, raw[:at]+text+raw[at+len("sha256:")+64:])
	}
	add("good-source-with-html", "ok", strings.Replace(raw, `"source":"registry`, `"source":"<&>registry`, 1))
	replace("source-with-escaped-html", `"source":"registry`, `"source":"\u003c\u0026\u003eregistry`)
	add("good-source-with-emoji", "ok", strings.Replace(raw, `"source":"registry`, `"source":"🚢registry`, 1))
	replace("source-with-escaped-emoji", `"source":"registry`, `"source":"\ud83d\udea2registry`)
	add("good-source-with-quote", "ok", strings.Replace(raw, `"source":"registry`, `"source":"\"\\registry`, 1))
}

// field is a value of a manifest at its limit, or just past it.
type field struct {
	name, expect string
	change       func(*Manifest)
}

func (m *vectorMaker) fields(prefix string, list []field) {
	for _, f := range list {
		name := prefix + "-" + f.name
		if f.expect == "ok" {
			name = "good-" + name
		}
		p := m.partsOf(tiny(), 0, f.change)
		for v := range min(len(p.manifest.Volumes), 1) {
			for i, e := range p.manifest.Volumes[v].Entries {
				if i < len(p.volumes[v]) && len(e.Path) < 100 { // a header has no room for more
					p.volumes[v][i].Path = e.Path
				}
			}
		}
		m.alone(name, f.expect, p.objects(m.t, p.raw(m.t)))
	}
}

// manifestFields are the limits of each field that is not about an image or a
// volume.
func (m *vectorMaker) manifestFields() {
	const ok, no = "ok", "invalid"
	var list []field
	long := strings.Repeat("n", 128)
	for name, v := range map[string]struct{ expect, text string }{
		"one-letter": {ok, "n"}, "digits": {ok, "2026"}, "with-plus": {ok, "a+b_c-d.e"}, "of-128-letters": {ok, long}, "of-129-letters": {no, long + "n"},
		"empty": {no, ""}, "dot-first": {no, ".n"}, "dot-last": {no, "n."}, "dots": {no, ".."}, "dash-first": {no, "-n"}, "with-slash": {no, "a/b"}, "climbs": {no, "../demo"},
		"with-backslash": {no, `a\b`}, "with-colon": {no, "c:"}, "with-space": {no, "a b"}, "with-newline": {no, "demo\n"}, "with-umlaut": {no, "dömo"}, "with-escape": {no, "d\x1b[m"},
	} {
		list = append(list, field{"name-" + name, v.expect, func(b *Manifest) { b.Name = v.text }})
		if strings.HasPrefix(name, "of-12") || strings.HasPrefix(name, "dot") || name == "empty" {
			list = append(list, field{"version-" + name, v.expect, func(b *Manifest) { b.Version = v.text }})
		}
	}
	for name, v := range map[string]struct {
		expect string
		number int64
	}{"0": {ok, 0}, "2-to-the-53": {"untrusted/fast-forward", 1 << 53}, "2-to-the-53-and-1": {no, 1<<53 + 1}, "negative": {no, -1}, "2-to-the-63": {no, -1 << 63}} {
		list = append(list, field{"sequence-" + name, v.expect, func(b *Manifest) { b.Sequence = v.number }})
	}
	for _, n := range []int{0, 2, -1, 1 << 31} {
		list = append(list, field{fmt.Sprintf("format-is-%d", n), no, func(b *Manifest) { b.Format = n }})
	}
	for name, v := range map[string]struct{ expect, text string }{
		"leap-day": {ok, "2024-02-29T00:00:00Z"}, "no-leap-day": {no, "2026-02-29T00:00:00Z"}, "last-second": {ok, "2026-11-20T23:59:59Z"}, "hour-24": {no, "2026-11-20T24:00:00Z"},
		"leap-second": {no, "2026-06-30T23:59:60Z"}, "year-9999": {ok, "9999-12-31T23:59:59Z"}, "year-10000": {no, "10000-01-01T00:00:00Z"}, "not-utc": {no, "2026-11-21T01:00:00+01:00"},
		"utc-as-offset": {no, "2026-11-21T00:00:00+00:00"}, "with-fraction": {no, "2026-11-21T00:00:00.5Z"}, "with-fraction-0": {no, "2026-11-21T00:00:00.0Z"}, "small-z": {no, "2026-11-21T00:00:00z"},
		"small-t": {no, "2026-11-21t00:00:00Z"}, "a-space": {no, "2026-11-21 00:00:00Z"}, "no-zone": {no, "2026-11-21T00:00:00"}, "a-day": {no, "2026-11-21"}, "unix": {no, "1795219200"},
	} {
		list = append(list, field{"created-" + name, v.expect, func(b *Manifest) { b.Created = v.text }})
		if name == "not-utc" || name == "with-fraction" || name == "a-day" || name == "no-leap-day" {
			list = append(list, field{"expires-" + name, no, func(b *Manifest) { b.Expires = v.text }})
		}
	}
	list = append(list, field{"created-empty", no, func(b *Manifest) { b.Created = "" }})
	based := func(change func(*Base)) func(*Manifest) {
		return func(b *Manifest) {
			b.Base = &Base{Blobs: []BaseBlob{}, Digest: verify.DigestOf([]byte("base")), Name: "demo", Version: "0"}
			change(b.Base)
		}
	}
	blob := func(size int64, target string) func(*Manifest) {
		return based(func(b *Base) { b.Blobs = []BaseBlob{{verify.DigestOf([]byte("elsewhere")), size, target}} })
	}
	list = append(list,
		field{"base-of-no-blobs", ok, based(func(*Base) {})},
		field{"base-blobs-null", no, based(func(b *Base) { b.Blobs = nil })},
		field{"base-digest-of-zeros", no, based(func(b *Base) { b.Digest = verify.Digest{} })},
		field{"base-name-climbs", no, based(func(b *Base) { b.Name = ".." })},
		field{"base-version-empty", no, based(func(b *Base) { b.Version = "" })},
		field{"base-blob-size-negative", no, blob(-1, "team/app")},
		field{"base-blob-size-over-the-limit", no, blob(MaxSize+1, "team/app")},
		field{"base-blob-target-upper-case", no, blob(1, "Team")},
		field{"base-blob-target-climbs", no, blob(1, "team/../app")},
		field{"base-blob-target-empty", no, blob(1, "")},
	)
	m.fields("manifest", list)
}

// manifestImages are the limits of what an image says.
func (m *vectorMaker) manifestImages() {
	const ok, no = "ok", "invalid"
	image := func(name, expect string, change func(*Image)) field {
		return field{name, expect, func(b *Manifest) { change(&b.Images[0]) }}
	}
	referrer := func(name, expect string, change func(*Referrer)) field {
		return image("referrer-"+name, expect, func(i *Image) { change(&i.Referrers[0]) })
	}
	list := []field{
		{"images-none", no, func(b *Manifest) { b.Images = []Image{} }},
		{"images-null", no, func(b *Manifest) { b.Images = nil }},
		{"image-twice", no, func(b *Manifest) { b.Images = append(b.Images, b.Images[0]) }},
		{"image-twice-with-other-tags", no, func(b *Manifest) {
			again := b.Images[0]
			again.Tags = []string{"v3"}
			b.Images = append(b.Images, again)
		}},
		{"image-at-two-targets", ok, func(b *Manifest) {
			again := b.Images[0]
			again.Target = "team/copy"
			b.Images = append(b.Images, again)
		}},
		{"tag-of-two-images", no, func(b *Manifest) {
			signature := b.Images[0].Referrers[0]
			b.Images = append(b.Images, Image{Digest: signature.Digest, MediaType: signature.MediaType, Size: signature.Size, Source: "x", Tags: []string{"v2"}, Target: "team/app"})
		}},
		image("tag-is-that-of-the-signature", no, func(i *Image) { i.Tags = append([]string{i.Referrers[0].Tag}, i.Tags...) }),
		image("digest-of-zeros", no, func(i *Image) { i.Digest = verify.Digest{} }),
		image("digest-of-something-else", no, func(i *Image) { i.Digest = verify.DigestOf([]byte("something else")) }),
		image("size-0", no, func(i *Image) { i.Size = 0 }),
		image("size-negative", no, func(i *Image) { i.Size = -1 }),
		image("size-one-less", no, func(i *Image) { i.Size-- }),
		image("size-one-more", no, func(i *Image) { i.Size++ }),
		image("size-over-4-MiB", no, func(i *Image) { i.Size = oci.MaxManifest + 1 }),
		image("size-2-to-the-63", no, func(i *Image) { i.Size = -1 << 63 }),
		image("original-without-platforms", no, func(i *Image) { i.Original = &i.Digest }),
		image("platforms-without-original", no, func(i *Image) { i.Platforms = []string{"linux/amd64"} }),
		image("tags-null", no, func(i *Image) { i.Tags = nil }),
		image("tags-none", ok, func(i *Image) { i.Tags = []string{} }),
		image("tags-two", ok, func(i *Image) { i.Tags = []string{"v2", "v3"} }),
		image("tags-not-sorted", no, func(i *Image) { i.Tags = []string{"v3", "v2"} }),
		image("tag-twice", no, func(i *Image) { i.Tags = []string{"v2", "v2"} }),
		referrer("without-tag", ok, func(r *Referrer) { r.Tag = "" }),
		referrer("without-type", ok, func(r *Referrer) { r.ArtifactType = "" }),
		referrer("subject-of-zeros", no, func(r *Referrer) { r.Subject = verify.Digest{} }),
		referrer("digest-of-zeros", no, func(r *Referrer) { r.Digest = verify.Digest{} }),
		referrer("digest-of-something-else", no, func(r *Referrer) { r.Digest = verify.DigestOf([]byte("something else")) }),
		referrer("size-0", no, func(r *Referrer) { r.Size = 0 }),
		referrer("size-one-more", no, func(r *Referrer) { r.Size++ }),
		referrer("media-type-of-a-layer", no, func(r *Referrer) { r.MediaType = "application/vnd.oci.image.layer.v1.tar" }),
	}
	for name, v := range map[string]struct {
		expect    string
		platforms []string
	}{"one": {ok, []string{"linux/amd64"}}, "two": {ok, []string{"linux/amd64", "linux/arm64"}}, "not-sorted": {no, []string{"linux/arm64", "linux/amd64"}},
		"twice": {no, []string{"linux/amd64", "linux/amd64"}}, "empty": {no, []string{""}}, "with-escape": {no, []string{"\x1b[m"}}} {
		list = append(list, image("platforms-"+name, v.expect, func(i *Image) {
			original := verify.DigestOf([]byte("the original"))
			i.Original, i.Platforms = &original, v.platforms
		}))
	}
	for name, mediaType := range map[string]string{"empty": "", "of-a-layer": "application/vnd.oci.image.layer.v1.tar", "of-a-config": oci.MediaTypeConfig, "upper-case": strings.ToUpper(oci.MediaTypeManifest),
		"with-parameter": oci.MediaTypeManifest + "; charset=utf-8", "of-docker-1": "application/vnd.docker.distribution.manifest.v1+json", "of-an-index": oci.MediaTypeIndex, "of-docker": oci.MediaTypeDockerManifest} { // T14
		list = append(list, image("media-type-"+name, no, func(i *Image) { i.MediaType = mediaType }))
	}
	fill := func(s string, n int) string { return s + strings.Repeat("x", n-len(s)) }
	for name, v := range map[string]struct{ expect, text string }{
		"of-one-letter": {ok, "x"}, "of-1024-bytes": {ok, fill("r.example/", 1024)}, "of-1025-bytes": {no, fill("r.example/", 1025)}, "with-umlaut": {ok, "büro.example/x"}, "empty": {no, ""},
		"with-escape": {no, "\x1b[31mregistry"}, "with-newline": {no, "a\nb"}, "with-tab": {no, "a\tb"}, "with-nul": {no, "a\x00b"}, "with-delete": {no, "a\x7fb"}, "with-c1": {no, "a\u009bb"},
		"with-bidi": {no, "\u202eregistry"}, "with-isolate": {no, "\u2066registry"}, "with-zero-width": {no, "a\u200bb"}, "with-no-break-space": {no, "a\u00a0b"}, "with-line-separator": {no, "a\u2028b"}, "with-byte-order-mark": {no, "\ufeffa"},
	} { // T40
		list = append(list, image("source-"+name, v.expect, func(i *Image) { i.Source = v.text }))
		if strings.HasPrefix(name, "of-102") || name == "with-escape" || name == "with-bidi" {
			list = append(list, referrer("type-"+name, v.expect, func(r *Referrer) { r.ArtifactType = v.text }))
		}
	}
	for name, v := range map[string]struct{ expect, text string }{
		"of-128-letters": {ok, fill("v", 128)}, "of-129-letters": {no, fill("v", 129)}, "of-one-underscore": {ok, "_"}, "upper-case": {ok, "V2"}, "dots": {ok, "1.0..2"}, "empty": {no, ""}, "dot-first": {no, ".v2"},
		"dash-first": {no, "-v2"}, "with-slash": {no, "v/2"}, "with-colon": {no, "v:2"}, "with-at": {no, "v@2"}, "with-plus": {no, "v+2"}, "with-space": {no, "v 2"}, "with-newline": {no, "v2\n"}, "with-umlaut": {no, "vü"},
	} {
		list = append(list, image("tag-"+name, v.expect, func(i *Image) { i.Tags = []string{v.text} }))
		if strings.HasPrefix(name, "of-12") || name == "with-slash" || name == "with-colon" {
			list = append(list, referrer("tag-"+name, no, func(r *Referrer) { r.Tag = v.text }))
		}
	}
	for name, v := range map[string]struct{ expect, form string }{ // HEX is the subject's
		"of-a-signature": {ok, "sha256-HEX.sig"}, "of-an-attestation": {ok, "sha256-HEX.att"}, "of-an-sbom": {ok, "sha256-HEX.sbom"}, "of-the-list": {ok, "sha256-HEX"},
		"latest": {no, "latest"}, "v9": {no, "v9"}, "of-another-subject": {no, "sha256-" + verify.DigestOf([]byte("another")).Hex() + ".sig"}, "of-itself": {no, "sha256-SELF.sig"},
		"upper-case-hex": {no, "sha256-UPPER.sig"}, "upper-case-algorithm": {no, "SHA256-HEX.sig"}, "upper-case-suffix": {no, "sha256-HEX.SIG"}, "other-algorithm": {no, "sha512-HEX.sig"}, "without-algorithm": {no, "HEX.sig"},
		"with-other-suffix": {no, "sha256-HEX.cosign"}, "with-two-suffixes": {no, "sha256-HEX.sig.att"}, "with-a-dot": {no, "sha256-HEX."}, "with-a-digit-more": {no, "sha256-HEX0"}, "with-a-letter-before": {no, "xsha256-HEX.sig"},
	} { // T28
		list = append(list, referrer("tag-"+name, v.expect, func(r *Referrer) {
			hex := r.Subject.Hex()
			r.Tag = strings.NewReplacer("HEX", hex, "UPPER", strings.ToUpper(hex), "SELF", r.Digest.Hex()).Replace(v.form)
		}))
	}
	for name, v := range map[string]struct{ expect, text string }{
		"of-255-letters": {ok, fill("team/", 255)}, "of-256-letters": {no, fill("team/", 256)}, "of-one-letter": {ok, "x"}, "of-eight-elements": {ok, "a/b/c/d/e/f/g/h"}, "separators": {ok, "a.b/c_d/e__f/g-h/i---j"}, "empty": {no, ""},
		"upper-case": {no, "Team/app"}, "climbs": {no, "team/../app"}, "dot": {no, "team/./app"}, "dot-first": {no, ".team/app"}, "dash-last": {no, "team-/app"}, "two-dots": {no, "te..am/app"}, "three-underscores": {no, "a___b"},
		"slash-first": {no, "/team/app"}, "slash-last": {no, "team/app/"}, "two-slashes": {no, "team//app"}, "with-backslash": {no, `team\app`}, "with-tag": {no, "team/app:v2"}, "with-digest": {no, "team/app@sha256"},
		"with-port": {no, "host:5000/app"}, "with-space": {no, "team /app"}, "with-newline": {no, "team/app\n"}, "with-percent": {no, "team%2fapp"}, "with-query": {no, "team/app?x"}, "with-umlaut": {no, "bü/ro"},
	} { // T29
		list = append(list, image("target-"+name, v.expect, func(i *Image) { i.Target = v.text }))
	}
	for name, v := range map[string]struct{ expect, text string }{
		"of-64-letters": {ok, fill("f", 64)}, "of-65-letters": {no, fill("f", 65)}, "of-one-digit": {ok, "1"}, "dot-first": {no, ".f"}, "with-slash": {no, "a/b"}, "with-space": {no, "a b"}, "with-newline": {no, "f\n"},
	} {
		list = append(list, image("feature-"+name, v.expect, func(i *Image) { i.Feature = v.text }))
	}
	m.fields("image", list)
}

// manifestVolumes are the limits of what a volume says. What cannot be put into
// a vector, for it is too large, is incomplete up to its limit, and invalid
// behind it.
func (m *vectorMaker) manifestVolumes() {
	const ok, no, missing = "ok", "invalid", "incomplete"
	entry := func(name, expect string, change func(*Entry)) field {
		return field{name, expect, func(b *Manifest) {
			entries := b.Volumes[0].Entries
			change(&entries[len(entries)-1]) // the layer of the signature
		}}
	}
	path := func(name, text string) field {
		return entry("path-"+name, no, func(e *Entry) {
			e.Path = strings.NewReplacer("HEX", e.Digest.Hex(), "UPPER", strings.ToUpper(e.Digest.Hex())).Replace(text)
		})
	}
	m.fields("volume", []field{
		{"none", no, func(b *Manifest) { b.Volumes = []Volume{} }},
		{"null", no, func(b *Manifest) { b.Volumes = nil }},
		{"entries-null", no, func(b *Manifest) { b.Volumes[0].Entries = nil }},
		{"entry-twice", no, func(b *Manifest) {
			v := &b.Volumes[0]
			v.Entries = append(v.Entries, v.Entries[len(v.Entries)-1])
		}},
		entry("digest-of-zeros", no, func(e *Entry) { *e = Entry{Path: BlobPath(verify.Digest{}), Size: e.Size} }),
		entry("digest-of-something-else", no, func(e *Entry) { e.Digest = verify.DigestOf([]byte("else")); e.Path = BlobPath(e.Digest) }),
		entry("size-negative", no, func(e *Entry) { e.Size = -1 }),
		entry("size-2-to-the-63", no, func(e *Entry) { e.Size = -1 << 63 }),
		entry("size-over-1-PiB", no, func(e *Entry) { e.Size = MaxSize + 1 }),
		entry("offset-negative", no, func(e *Entry) { e.Offset = -1 }),
		entry("offset-of-a-whole-blob", no, func(e *Entry) { e.Offset = 1 }),
		entry("piece-alone", no, func(e *Entry) { e.Path = PiecePath(e.Digest, 0) }),
		path("of-other-blob", "blobs/sha256/"+strings.Repeat("0", 64)),
		path("with-a-digit-more", "blobs/sha256/0HEX"),
		path("absolute", "/blobs/sha256/HEX"),
		path("climbs", "../blobs/sha256/HEX"),
		path("climbs-within", "blobs/x/../sha256/HEX"),
		path("dot", "./blobs/sha256/HEX"),
		path("two-slashes", "blobs//sha256/HEX"),
		path("slash-last", "blobs/sha256/HEX/"),
		path("backslashes", `blobs\sha256\HEX`),
		path("with-nul", "blobs/sha256/HEX\x00"),
		path("upper-case", "blobs/sha256/UPPER"),
		path("upper-case-folder", "Blobs/sha256/HEX"),
		path("other-algorithm", "blobs/sha512/HEX"),
		path("empty", ""),
		path("unknown", "etc/passwd"),
		path("whiteout", "blobs/sha256/.wh.HEX"),
		path("of-the-manifest", ManifestName),
		path("of-the-signature", SignatureName),
		path("of-a-document-in-capitals", "INDEX.JSON"),
		path("twice", "index.json"),
		path("of-a-piece-with-few-digits", "pieces/HEX/0"),
	})
	m.largeVolumes()
	m.pieces()
}

// largeVolumes are manifests alone.
func (m *vectorMaker) largeVolumes() {
	only := func(name, expect string, change func(*Manifest)) {
		p := m.partsOf(tiny(), 0, change)
		raw := []byte(p.raw(m.t))
		m.add("volume-"+name, expect, map[string][]byte{ManifestName: raw, SignatureName: padded(signFixed(m.t, "one", raw))})
	}
	layer := func(size int64) func(*Manifest) {
		return func(b *Manifest) {
			entries := b.Volumes[0].Entries
			entries[len(entries)-1].Size = size
		}
	}
	rest := func(b *Manifest) (n int64) {
		for _, e := range b.Volumes[0].Entries {
			n += e.Size
		}
		return n - b.Volumes[0].Entries[len(b.Volumes[0].Entries)-1].Size
	}
	left := rest(m.partsOf(tiny(), 0).manifest)
	only("of-1-PiB", "incomplete", layer(MaxSize-left))
	only("of-1-PiB-and-a-byte", "invalid", layer(MaxSize-left+1))
	only("entry-of-8-GiB", "incomplete", layer(maxOctal))
	many := func(n int) func(*Manifest) {
		return func(b *Manifest) {
			for len(b.Volumes) < n {
				b.Volumes = append(b.Volumes, Volume{b.Volumes[0].Entries[:1]})
			}
		}
	}
	only("999", "incomplete", many(MaxVolumes))
	only("1000", "invalid", many(MaxVolumes+1))
	piece := func(first, second int64) func(*Manifest) {
		return func(b *Manifest) {
			d := verify.DigestOf([]byte("large"))
			b.Volumes = append(b.Volumes, Volume{[]Entry{{Digest: d, Path: PiecePath(d, 0), Size: first}}}, Volume{[]Entry{{Digest: d, Offset: first, Path: PiecePath(d, first), Size: second}}})
		}
	}
	only("pieces-of-1-PiB", "incomplete", piece(MaxSize-1, 1))
	only("pieces-of-1-PiB-and-a-byte", "invalid", piece(MaxSize, 1))
}

// pieces are about the blob that is cut, in volumes that agree.
func (m *vectorMaker) pieces() {
	add := func(name string, change func(*parts)) {
		p := m.partsOf(wide(), wideVolume)
		was := p.raw(m.t)
		change(&p)
		raw := p.raw(m.t)
		if raw == was {
			m.t.Errorf("pieces-%s is not changed", name)
		}
		m.add("pieces-"+name, "invalid", p.objects(m.t, raw))
	}
	find := func(p *parts, n int) (v, e int) {
		for v, volume := range p.manifest.Volumes {
			for e, entry := range volume.Entries {
				if entry.isPiece() {
					if n--; n < 0 {
						return v, e
					}
				}
			}
		}
		m.t.Fatal("there are too few pieces")
		return 0, 0
	}
	shift := func(n int, by int64) func(*parts) {
		return func(p *parts) {
			v, e := find(p, n)
			entry := &p.manifest.Volumes[v].Entries[e]
			entry.Offset += by
			entry.Path = PiecePath(entry.Digest, entry.Offset)
			p.volumes[v][e].Path = entry.Path
		}
	}
	drop := func(n int) func(*parts) {
		return func(p *parts) {
			v, e := find(p, n)
			p.manifest.Volumes[v].Entries = slices.Delete(p.manifest.Volumes[v].Entries, e, e+1)
			p.volumes[v] = slices.Delete(p.volumes[v], e, e+1)
		}
	}
	add("with-gap", shift(1, 1))
	add("that-overlap", shift(1, -1))
	add("that-begin-late", shift(0, 1))
	add("without-the-first", drop(0))
	add("without-the-last", func(p *parts) { drop(1)(p) })
	add("in-other-order", func(p *parts) {
		slices.Reverse(p.manifest.Volumes)
		slices.Reverse(p.volumes)
	})
	add("in-one-volume", func(p *parts) {
		v, e := find(p, 1)
		entry, file := p.manifest.Volumes[v].Entries[e], p.volumes[v][e]
		drop(1)(p)
		p.manifest.Volumes[v-1].Entries = append(p.manifest.Volumes[v-1].Entries, entry)
		p.volumes[v-1] = append(p.volumes[v-1], file)
	})
	add("with-a-volume-between", func(p *parts) {
		v, _ := find(p, 1)
		p.manifest.Volumes = slices.Insert(p.manifest.Volumes, v, Volume{[]Entry{}})
		p.volumes = slices.Insert(p.volumes, v, []Document{})
	})
	add("and-whole", func(p *parts) {
		v, e := find(p, 0)
		d := p.manifest.Volumes[v].Entries[e].Digest
		whole := wide().blobs[d]
		p.manifest.Volumes[v].Entries = append(p.manifest.Volumes[v].Entries, Entry{Digest: d, Path: BlobPath(d), Size: int64(len(whole))})
		p.volumes[v] = append(p.volumes[v], Document{BlobPath(d), whole})
	})
	add("of-nothing", func(p *parts) {
		v, e := find(p, 0)
		entry := p.manifest.Volumes[v].Entries[e]
		entry.Size = 0
		p.manifest.Volumes = slices.Insert(p.manifest.Volumes, v, Volume{[]Entry{entry}})
		p.volumes = slices.Insert(p.volumes, v, []Document{{entry.Path, nil}})
	})
	add("without-offset", func(p *parts) {
		v, e := find(p, 1)
		p.manifest.Volumes[v].Entries[e].Offset = 0
	})
	add("with-15-digits", func(p *parts) {
		v, e := find(p, 1)
		entry := &p.manifest.Volumes[v].Entries[e]
		entry.Path = strings.Replace(entry.Path, "/0", "/", 1)
		p.volumes[v][e].Path = entry.Path
	})
	add("with-17-digits", func(p *parts) {
		v, e := find(p, 1)
		entry := &p.manifest.Volumes[v].Entries[e]
		i := strings.LastIndex(entry.Path, "/")
		entry.Path = entry.Path[:i] + "/0" + entry.Path[i+1:]
		p.volumes[v][e].Path = entry.Path
	})
	add("of-two-sizes", func(p *parts) {
		first := p.manifest.Volumes[0].Entries
		small := first[len(first)-1]
		small.Size++
		p.manifest.Volumes[1].Entries = append(p.manifest.Volumes[1].Entries, small)
		p.volumes[1] = append(p.volumes[1], Document{small.Path, slices.Concat(wide().blobs[small.Digest], []byte("x"))})
	})
}
