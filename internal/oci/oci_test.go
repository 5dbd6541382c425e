package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	a = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	b = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func blob(digest string, size int) string {
	return fmt.Sprintf(`{"mediaType":"application/x","digest":%q,"size":%d}`, digest, size)
}

func child(digest string, size int) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}`, MediaTypeManifest, digest, size)
}

func image(more string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, MediaTypeManifest, blob(a, 1), blob(b, 2), more)
}

func index(children, more string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]%s}`, MediaTypeIndex, children, more)
}

func TestParse(t *testing.T) {
	m, err := Parse([]byte(image(`,"subject":`+child(b, 2)+`,"annotations":{"Config":"mine","config":"too"},"custom":{"x":[1.5e3]}`)), MediaTypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	if m.IsIndex() || len(m.Blobs()) != 2 || m.Blobs()[0].Digest.String() != a || m.Type() != "application/x" || m.Subject.Platform.String() != "linux/arm64/v8" {
		t.Errorf("Parse = %+v", m)
	}
	m, err = Parse([]byte(index(child(a, 5)+","+child(b, 6), `,"artifactType":"application/y"`)), "")
	if err != nil || !m.IsIndex() || len(m.Manifests) != 2 || m.Blobs() != nil || m.Type() != "application/y" {
		t.Errorf("Parse of an index = %+v, %v", m, err)
	}
	// Without a mediaType of its own a document is what its descriptor says.
	m, err = Parse([]byte(strings.Replace(image(""), fmt.Sprintf(`"mediaType":%q,`, MediaTypeManifest), "", 1)), MediaTypeManifest)
	if err != nil || m.MediaType != MediaTypeManifest {
		t.Errorf("Parse without mediaType = %+v, %v", m, err)
	}
	// One blob as config and layer counts once.
	m, err = Parse([]byte(strings.Replace(image(""), b, a, 1)), "")
	if err == nil {
		t.Errorf("%s has two sizes and is accepted: %+v", a, m)
	}
}

// T11, T13, T14, T15
func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	many := strings.TrimSuffix(strings.Repeat(blob(b, 2)+",", MaxDescriptors), ",")
	for _, tt := range []struct{ name, content, mediaType string }{
		{"nothing", "", ""},
		{"no JSON", "x", ""},
		{"null", "null", ""},
		{"a list", "[]", ""},
		{"cut", image("")[:50], ""},
		{"two documents", image("") + image(""), ""},
		{"trailing text", image("") + "x", ""},
		{"a byte order mark", "\ufeff" + image(""), ""},
		{"not UTF-8", image(",\"x\":\"\xff\""), ""},
		{"too deep", image(`,"x":` + deep), ""},
		{"manifests and layers", image(`,"manifests":[]`), ""},
		{"manifests null and layers", image(`,"manifests":null`), ""},
		{"index with layers", index(child(a, 1), `,"layers":[]`), ""},
		{"index with config", index(child(a, 1), `,"config":`+blob(b, 1)), ""},
		{"fsLayers", image(`,"fsLayers":[]`), ""},
		{"key twice", image(`,"schemaVersion":2`), ""},
		{"layers twice", image(`,"layers":[]`), ""},
		{"Layers", image(`,"Layers":[]`), ""},
		{"MANIFESTS", image(`,"MANIFESTS":[]`), ""},
		{"Digest in a descriptor", strings.Replace(image(""), `"digest"`, `"Digest"`, 1), ""},
		{"digest twice", strings.Replace(image(""), `"digest":`, `"digest":"`+b+`","digest":`, 1), ""},
		{"Kelvin sign in a key", image(`,"mediaType":"` + MediaTypeIndex + `"`), ""},
		{"other mediaType", image(""), MediaTypeIndex},
		{"docker's mediaType", image(""), MediaTypeDockerManifest},
		{"unknown mediaType", strings.Replace(image(""), MediaTypeManifest, "application/json", 1), ""},
		{"no mediaType at all", strings.Replace(image(""), fmt.Sprintf(`"mediaType":%q,`, MediaTypeManifest), "", 1), ""},
		{"schema 1", strings.Replace(image(""), `:2,`, `:1,`, 1), ""},
		{"schema 2.0", strings.Replace(image(""), `:2,`, `:2.5,`, 1), ""},
		{"no config", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"layers":[]}`, MediaTypeManifest), ""},
		{"md5", strings.Replace(image(""), a, "md5:d41d8cd98f00b204e9800998ecf8427e", 1), ""},
		{"sha512", strings.Replace(image(""), a, "sha512:"+strings.Repeat("a", 128), 1), ""},
		{"upper case digest", strings.Replace(image(""), a, strings.ToUpper(a), 1), ""},
		{"path as digest", strings.Replace(image(""), a, "sha256:../../etc/passwd", 1), ""},
		{"no digest", strings.Replace(image(""), `"digest":"`+a+`",`, "", 1), ""},
		{"zero digest", strings.Replace(image(""), a, "sha256:"+strings.Repeat("0", 64), 1), ""},
		{"negative size", strings.Replace(image(""), `"size":1`, `"size":-1`, 1), ""},
		{"size 2^63", strings.Replace(image(""), `"size":1`, `"size":9223372036854775808`, 1), ""},
		{"size 1e3", strings.Replace(image(""), `"size":1`, `"size":1e3`, 1), ""},
		{"size as text", strings.Replace(image(""), `"size":1`, `"size":"1"`, 1), ""},
		{"two sizes", strings.Replace(image(""), b, a, 1), ""},
		{"blob as child", index(blob(a, 1), ""), ""},
		{"giant child", index(child(a, MaxManifest+1), ""), ""},
		{"too many", image(`,"subject":` + blob(a, 1) + `,"x":[]`)[:0] + strings.Replace(image(""), blob(b, 2), many, 1), ""},
		{"too long", image(`,"x":"` + strings.Repeat("x", MaxManifest) + `"`), ""},
	} {
		if m, err := Parse([]byte(tt.content), tt.mediaType); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", tt.name, m, err)
		}
	}
}

// FuzzParse shows that a manifest that is taken is one thing for every reader:
// it keeps its meaning when another writes it, and what it refers to is in
// bounds (T11 to T15).
func FuzzParse(f *testing.F) {
	for _, content := range []string{image(""), index(child(a, 1), ""), index(child(a, 1), `,"layers":[]`), image(`,"layers":[]`), image(`,"Layers":[]`),
		image(`,"subject":` + blob(a, 1)), strings.Replace(image(""), b, a, 1), image(`,"annotations":{"a":"b","A":"c"}`), image(`,"x":{"\u0064igest":1}`)} {
		for _, mediaType := range append([]string{""}, ManifestTypes...) {
			f.Add([]byte(content), mediaType)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte, mediaType string) {
		m, err := Parse(content, mediaType)
		if err != nil {
			if m != nil || !errors.Is(err, ErrInvalid) {
				t.Errorf("Parse(%q) = %v, %v", content, m, err)
			}
			return
		}
		if m.IsIndex() == (m.Config != nil) || m.IsIndex() && m.Layers != nil || !m.IsIndex() && m.Manifests != nil || mediaType != "" && m.MediaType != mediaType {
			t.Errorf("%q is an index and an image, or not %q", content, mediaType)
		}
		sizes := map[string]int64{}
		for _, d := range slices.Concat(m.Blobs(), m.Manifests) {
			if was, ok := sizes[d.Digest.String()]; d.Digest.IsZero() || d.Size < 0 || ok && was != d.Size {
				t.Errorf("%q refers to %s with %d bytes", content, d.Digest, d.Size)
			}
			sizes[d.Digest.String()] = d.Size
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, content); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(compact.Bytes(), m.MediaType)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%q is %+v, and compact %+v, %v", content, m, again, err)
		}
		// A reader that takes keys as they are spelt finds the same.
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(content, &keys); err != nil {
			t.Fatal(err)
		}
		var layers []json.RawMessage
		if err := json.Unmarshal(orNull(keys["layers"]), &layers); err != nil || len(layers) != len(m.Layers) {
			t.Errorf("%q has %d layers for another reader, %v, want %d", content, len(layers), err, len(m.Layers))
		}
	})
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}
