package harbortest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/verify"
)

// exchange is one recorded request and its answer.
type exchange struct {
	file    string // "04-push"
	index   int
	Note    json.RawMessage
	Request *struct {
		Method  string
		URL     string
		Auth    string
		Headers map[string]string
		Body    json.RawMessage
	}
	Response struct {
		Status  int
		Headers json.RawMessage
		Body    json.RawMessage
	}
	header http.Header // of the response
	at     time.Time
}

func (e *exchange) String() string {
	return fmt.Sprintf("%s #%d %s %s", e.file, e.index, e.Request.Method, e.Request.URL)
}

// text returns a body that was recorded as text.
func text(raw json.RawMessage) string {
	var s string
	json.Unmarshal(raw, &s)
	return s
}

// loadRecordings returns all recorded requests in the order of their time.
func loadRecordings(t *testing.T) []*exchange {
	t.Helper()
	files, err := filepath.Glob("testdata/recordings/*.json")
	if err != nil || len(files) < 17 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	var all []*exchange
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Exchanges []*exchange }
		if err := json.Unmarshal(content, &doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for i, e := range doc.Exchanges {
			if e.Request == nil {
				continue
			}
			e.file, e.index = strings.TrimSuffix(filepath.Base(file), ".json"), i
			e.header = http.Header{}
			var pairs [][2]string
			if err := json.Unmarshal(e.Response.Headers, &pairs); err != nil {
				t.Fatalf("%v: %v", e, err)
			}
			for _, h := range pairs {
				e.header.Add(h[0], h[1])
			}
			if e.at, err = http.ParseTime(e.header.Get("Date")); err != nil {
				t.Fatalf("%v: %v", e, err)
			}
			// The date is cut to the second: what was set up within that
			// second was there already.
			e.at = e.at.Add(999 * time.Millisecond)
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b *exchange) int { return a.at.Compare(b.at) })
	return all
}

var (
	hexDigest  = regexp.MustCompile(`[0-9a-f]{64}`)
	byteCount  = regexp.MustCompile(`^<(\d+) bytes>$`)
	digestInIt = regexp.MustCompile(`digest=sha256(?::|%3A)([0-9a-f]{64})`)
)

// corpus knows the content behind recorded digests. The bytes of layers were
// not recorded: others of the same size take their place, with another digest.
// So each recorded digest has one of ours, and all sizes stay as they were.
type corpus struct {
	texts  map[string]string         // exact JSON documents by digest
	sizes  map[string]int64          // of blobs and manifests, from descriptors
	totals map[string]int64          // of artifacts with all their blobs, from lists
	extra  map[string]map[string]any // what Harbor read in the configs of artifacts
	bytes  map[string][]byte         // ours
}

// spaced writes JSON as Python does, with spaces after commas and colons.
func spaced(compact []byte) []byte {
	var out []byte
	inText := false
	for i, c := range compact {
		out = append(out, c)
		if c == '"' && (i == 0 || compact[i-1] != '\\') {
			inText = !inText
		}
		if !inText && (c == ',' || c == ':') {
			out = append(out, ' ')
		}
	}
	return out
}

func newCorpus(t *testing.T, recorded []*exchange) *corpus {
	c := &corpus{texts: map[string]string{}, sizes: map[string]int64{}, totals: map[string]int64{}, extra: map[string]map[string]any{}, bytes: map[string][]byte{}}
	c.add([]byte("{}"))
	for _, e := range recorded {
		for _, raw := range []json.RawMessage{e.Request.Body, e.Response.Body} {
			if len(raw) > 0 && raw[0] == '{' {
				var b bytes.Buffer
				if err := json.Compact(&b, raw); err != nil {
					t.Fatal(err)
				}
				c.add(b.Bytes())
				c.add(spaced(b.Bytes()))
			}
			var v any
			if json.Unmarshal(raw, &v) == nil {
				c.learn(v)
			}
		}
		// A blob that came in one piece says its size.
		if m, n := digestInIt.FindStringSubmatch(e.Request.URL), byteCount.FindStringSubmatch(text(e.Request.Body)); m != nil && n != nil && n[1] != "0" {
			var size int64
			fmt.Sscan(n[1], &size)
			if c.sizes[m[1]] == 0 && e.Response.Status != http.StatusBadRequest {
				c.sizes[m[1]] = size
			}
		}
	}
	// What was read in the config of a known manifest belongs to the config.
	for hex, doc := range c.texts {
		var m manifest
		if json.Unmarshal([]byte(doc), &m) == nil && m.Config != nil && c.extra[hex] != nil {
			c.extra[strings.TrimPrefix(m.Config.Digest, "sha256:")] = c.extra[hex]
		}
	}
	return c
}

func (c *corpus) add(doc []byte) { c.texts[verify.DigestOf(doc).Hex()] = string(doc) }

// learn takes sizes from descriptors and from lists of artifacts.
func (c *corpus) learn(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			c.learn(x)
		}
	case map[string]any:
		digest, _ := v["digest"].(string)
		size, ok := v["size"].(float64)
		hex := strings.TrimPrefix(digest, "sha256:")
		switch {
		case !ok || hex == "":
		case v["manifest_media_type"] != nil || v["subject_artifact_digest"] != nil:
			c.totals[hex] = int64(size)
		default:
			c.sizes[hex] = int64(size)
		}
		if extra, ok := v["extra_attrs"].(map[string]any); ok {
			c.extra[hex] = extra
		}
		for _, x := range v {
			c.learn(x)
		}
	}
}

// content returns our bytes for a recorded digest, and whether there are any.
func (c *corpus) content(hex string) ([]byte, bool) {
	if b, ok := c.bytes[hex]; ok {
		return b, b != nil
	}
	var b []byte
	switch doc, ok := c.texts[hex]; {
	case ok:
		b = []byte(hexDigest.ReplaceAllStringFunc(doc, c.ours))
	case c.totals[hex] > 0:
		b = c.image(hex)
	case c.sizes[hex] > 0 && c.extra[hex] != nil:
		b = imageConfig(c.extra[hex], int(c.sizes[hex]))
	case c.sizes[hex] > 0:
		b = bytes.Repeat([]byte(hex), int(c.sizes[hex])/len(hex)+1)[:c.sizes[hex]]
	}
	c.bytes[hex] = b
	return b, b != nil
}

// ours returns our digest for a recorded one; one that nothing is known of
// stays as it is.
func (c *corpus) ours(hex string) string {
	if b, ok := c.content(hex); ok {
		return verify.DigestOf(b).Hex()
	}
	return hex
}

// imageManifest is the form of the images in the recordings; filled in it has
// 419 bytes.
const imageManifest = `{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", ` +
	`"config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:%s", "size": %d}, ` +
	`"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:%s", "size": %d}]}`

// imageConfig returns a config of that many bytes in which that can be read.
func imageConfig(extra map[string]any, size int) []byte {
	doc, err := json.Marshal(extra)
	if err != nil {
		panic(err)
	}
	return append(doc, bytes.Repeat([]byte(" "), max(0, size-len(doc)))...)
}

// image makes up an image of which only the digest and the size are known.
func (c *corpus) image(hex string) []byte {
	const configSize = 314
	config := imageConfig(c.extra[hex], configSize)
	configHex := verify.DigestOf(config).Hex()
	c.texts[configHex] = string(config)
	layerHex := verify.DigestOf([]byte("layer of " + hex)).Hex()
	for range 2 { // the size of the manifest depends on how many digits that of the layer has
		manifest := fmt.Sprintf(imageManifest, configHex, configSize, layerHex, max(1, c.sizes[layerHex]))
		c.sizes[layerHex] = c.totals[hex] - int64(len(manifest)) - configSize
	}
	return fmt.Appendf(nil, imageManifest, c.ours(configHex), configSize, c.ours(layerHex), c.sizes[layerHex])
}

// full returns the recorded digest that begins with prefix.
func (c *corpus) full(t *testing.T, prefix string) string {
	t.Helper()
	for _, known := range []map[string]int64{c.totals, c.sizes} {
		for hex := range known {
			if strings.HasPrefix(hex, prefix) {
				return hex
			}
		}
	}
	for hex := range c.texts {
		if strings.HasPrefix(hex, prefix) {
			return hex
		}
	}
	t.Fatalf("no digest %s in the recordings", prefix)
	return ""
}

// listedTag is a tag that a recorded list shows.
type listedTag struct {
	repo, hex, tag string
	at             time.Time
}

// listed returns when which artifact arrived, under the empty tag, and when
// which tag was set, as far as lists in the recordings say.
func listed(recorded []*exchange) []listedTag {
	seen := map[listedTag]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			repo, _ := v["repository_name"].(string)
			digest, _ := v["digest"].(string)
			pushed, _ := v["push_time"].(string)
			if repo == "" || digest == "" || pushed == "" {
				return
			}
			add := func(tag, at string) {
				when, err := time.Parse(time.RFC3339, at)
				if err != nil {
					panic(err)
				}
				seen[listedTag{repo, strings.TrimPrefix(digest, "sha256:"), tag, when}] = true
			}
			add("", pushed)
			tags, _ := v["tags"].([]any)
			for _, x := range tags {
				m := x.(map[string]any)
				add(m["name"].(string), m["push_time"].(string))
			}
		}
	}
	for _, e := range recorded {
		var v any
		if unclaimed(e) == "" && json.Unmarshal(e.Response.Body, &v) == nil {
			walk(v)
		}
	}
	var all []listedTag
	for l := range seen {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b listedTag) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.tag, b.tag)) })
	return all
}
