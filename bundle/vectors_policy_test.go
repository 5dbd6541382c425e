package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/vectors"
	"ferry/verify"
)

// vectorPolicy is the policy that those of the vectors are made from: key two
// signs the policy itself, key one bundles.
func vectorPolicy(t testing.TB) *verify.Draft {
	d := &verify.Draft{Version: 1, Root: verify.DraftQuorum{Keys: []string{"two"}, Threshold: 1},
		Roles: []verify.DraftRole{{Name: "team", DraftQuorum: verify.DraftQuorum{Keys: []string{"one"}, Threshold: 1}, Bundles: []string{"demo"}, Targets: []string{"team"}}}}
	for _, name := range []string{"one", "two"} {
		d.Keys = append(d.Keys, verify.DraftKey{Name: name, PEM: publicPEM(t, name)})
	}
	return d
}

func publicPEM(t testing.TB, name string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER(t, name)}))
}

// policyText returns d in YAML, whatever it says. It is written here, so that
// another version of a library does not change the vectors.
func policyText(d *verify.Draft) string {
	var b strings.Builder
	line := func(indent, key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, key, value)
		}
	}
	list := func(values []string) string {
		quoted := []string{}
		for _, v := range values {
			quoted = append(quoted, fmt.Sprintf("%q", v))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	line("", "version", fmt.Sprint(d.Version))
	line("", "expires", d.Expires)
	b.WriteString("keys:\n")
	for _, k := range d.Keys {
		line("  - ", "name", fmt.Sprintf("%q", k.Name))
		if k.PEM != "" {
			line("    ", "pem", "|\n      "+strings.ReplaceAll(strings.TrimSpace(k.PEM), "\n", "\n      "))
		}
		line("    ", "file", k.File)
		line("    ", "fingerprint", k.Fingerprint)
		line("    ", "notBefore", k.NotBefore)
		line("    ", "notAfter", k.NotAfter)
	}
	b.WriteString("root:\n")
	line("  ", "keys", list(d.Root.Keys))
	line("  ", "threshold", fmt.Sprint(d.Root.Threshold))
	b.WriteString("roles:\n")
	for _, r := range d.Roles {
		line("  - ", "name", fmt.Sprintf("%q", r.Name))
		line("    ", "keys", list(r.Keys))
		line("    ", "threshold", fmt.Sprint(r.Threshold))
		line("    ", "bundles", list(r.Bundles))
		line("    ", "targets", list(r.Targets))
		line("    ", "maxAge", r.MaxAge)
		if r.MaxJump != 0 {
			line("    ", "maxJump", fmt.Sprint(r.MaxJump))
		}
	}
	return b.String()
}

// signedPolicy returns the files of a policy: its text and one signature of
// each of the keys.
func signedPolicy(t testing.TB, file, text string, keys ...string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{file: []byte(text)}
	for i, key := range keys {
		name := file + ".sigstore.json"
		if i > 0 {
			name = fmt.Sprintf("%s.%d.sigstore.json", file, i+1)
		}
		files[name] = append(signFixed(t, key, []byte(text)), '\n')
	}
	return files
}

const (
	policyFile  = "trust.yaml"
	tinyBundle  = "good-tiny" // the bundle that most policies are about
	badPolicy   = "untrusted/policy-invalid"
	twoSigners  = "good-signature-second" // that bundle, also signed with key two
	sameSigners = "good-signature-second-of-same-key"
)

// policy adds a vector of the text of a policy that the keys have signed.
func (m *vectorMaker) policy(name, expect, text string, keys ...string) *vectors.Vector {
	m.t.Helper()
	m.list = append(m.list, vectors.Vector{Name: "policy-" + name, Expect: expect, Bundle: tinyBundle, Policies: []string{policyFile}, Trust: signedPolicy(m.t, policyFile, text, keys...)})
	return &m.list[len(m.list)-1]
}

// draft is policy for a change of vectorPolicy, signed with key two.
func (m *vectorMaker) draft(name, expect string, change func(*verify.Draft)) *vectors.Vector {
	m.t.Helper()
	d := vectorPolicy(m.t)
	change(d)
	return m.policy(name, expect, policyText(d), "two")
}

// policyTexts are signed, and have more than one meaning or none (T11).
func (m *vectorMaker) policyTexts() {
	good := policyText(vectorPolicy(m.t))
	text := func(name, expect, text string) {
		if text == good {
			m.t.Errorf("policy-%s is not changed", name)
		}
		if expect == "ok" {
			m.policy("good-"+name, expect, text, "two")
			return
		}
		m.policy("text-"+name, expect, text, "two")
	}
	replace := func(name, old, new string) { text(name, badPolicy, strings.Replace(good, old, new, 1)) }
	text("as-it-is", "ok", good+"\n")
	text("with-comments", "ok", "# a comment\n"+good+"# and another\n")
	text("with-a-marker", "ok", "---\n"+good)
	text("with-lines-of-windows", "ok", strings.ReplaceAll(good, "\n", "\r\n"))
	text("without-the-last-newline", "ok", strings.TrimSuffix(good, "\n"))
	text("of-64-KiB", "ok", good+strings.Repeat("#", verify.MaxPolicy-len(good)))
	text("of-64-KiB-and-a-byte", badPolicy, good+strings.Repeat("#", verify.MaxPolicy-len(good)+1))
	text("empty", badPolicy, "")
	text("only-a-comment", badPolicy, "# nothing\n")
	text("a-list", badPolicy, "- version: 1\n")
	text("a-text", badPolicy, "version\n")
	text("not-yaml", badPolicy, "version: [\n")
	text("nul", badPolicy, good+"\x00")
	text("utf-16", badPolicy, "\xff\xfev\x00e\x00")
	text("not-utf8", badPolicy, good+"# \xff\n")
	text("byte-order-mark", badPolicy, "\ufeff"+good)
	text("unknown-key", badPolicy, good+"vesion: 2\n")
	replace("key-in-other-case", "version:", "Version:")
	replace("unknown-key-of-a-key", `  - name: "one"`, "  - nmae: x\n    name: \"one\"")
	replace("unknown-key-of-root", "root:\n", "root:\n  keyes: [a]\n")
	replace("unknown-key-of-a-role", "    threshold: 1\n", "    treshold: 1\n")
	replace("key-of-root-in-a-role", `    bundles:`, "    root: 1\n    bundles:")
	text("duplicate-key", badPolicy, good+"version: 2\n")
	text("duplicate-key-of-same-value", badPolicy, good+"version: 1\n")
	replace("duplicate-key-of-root", "  threshold: 1\n", "  threshold: 1\n  threshold: 1\n")
	replace("duplicate-key-quoted", "version: 1\n", "version: 1\n\"version\": 2\n")
	text("second-document", badPolicy, good+"---\n"+good)
	text("second-document-empty", badPolicy, good+"---\n")
	text("second-document-broken", badPolicy, good+"---\n[\n")
	replace("anchor", `keys: ["two"]`, `keys: &x ["two"]`)
	replace("alias", `keys: ["two"]`, "keys: &x [\"two\"]\nexpires: *x")
	replace("merge", "root:\n", "root:\n  <<: {threshold: 1}\n")
	replace("tag", "version: 1", `version: !!int "1"`)
	replace("tag-of-text", `name: "one"`, "name: !!str one")
	replace("binary", `name: "one"`, "name: !!binary b25l")
	replace("own-tag", `name: "one"`, "name: !secret one")
	replace("null", "version: 1", "version: null")
	replace("tilde", "version: 1", "version: ~")
	replace("nothing", "version: 1", "version:")
	replace("boolean", `name: "one"`, "name: true")
	replace("number-for-a-text", `name: "one"`, "name: 1")
	replace("norway", `name: "team"`, "name: no\n    x: 1")
	for form, number := range map[string]string{"float": "1.0", "exponent": "1e0", "hexadecimal": "0x1", "octal": "01", "new-octal": "0o1", "underscore": "1_0", "plus": "+1", "minus": "-1", "too-large": "99999999999999999",
		"quoted": `"1"`, "infinite": ".inf", "base-60": "1:30", "list": "[1]"} {
		replace("version-"+form, "version: 1", "version: "+number)
		if form == "float" || form == "quoted" || form == "minus" {
			replace("threshold-"+form, "threshold: 1", "threshold: "+number)
		}
	}
	replace("number-for-a-list", `keys: ["two"]`, "keys: 1")
	replace("text-for-a-list", `keys: ["two"]`, "keys: two")
	replace("list-of-a-list", `keys: ["two"]`, `keys: [["two"]]`)
	replace("null-in-a-list", `keys: ["two"]`, `keys: ["two", null]`)
	replace("roles-a-map", "roles:\n  - name", "roles:\n    name")
	text("number-as-key", badPolicy, good+"1: 2\n")
	text("map-as-key", badPolicy, good+"? {a: b}\n: c\n")
	text("deep", badPolicy, good+"x: "+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+"\n")
	text("tab", badPolicy, strings.Replace(good, "  keys:", "\tkeys:", 1))
}

// policyMeanings are well written, and mean what a policy must not.
func (m *vectorMaker) policyMeanings() {
	bad := func(name string, change func(*verify.Draft)) { m.draft("means-"+name, badPolicy, change) }
	good := func(name string, change func(*verify.Draft)) { m.draft("good-"+name, "ok", change) }
	key := func(change func(*verify.DraftKey)) func(*verify.Draft) {
		return func(d *verify.Draft) { change(&d.Keys[0]) }
	}
	role := func(change func(*verify.DraftRole)) func(*verify.Draft) {
		return func(d *verify.Draft) { change(&d.Roles[0]) }
	}
	good("version-2-to-the-53", func(d *verify.Draft) { d.Version = 1 << 53 })
	bad("version-2-to-the-53-and-1", func(d *verify.Draft) { d.Version = 1<<53 + 1 })
	bad("version-0", func(d *verify.Draft) { d.Version = 0 })
	for name, text := range map[string]string{"never": "never", "a-day": `"2027-11-21"`, "without-zone": "2027-11-21T00:00:00", "year-1": `"0001-01-01T00:00:00Z"`} {
		bad("expires-"+name, func(d *verify.Draft) { d.Expires = text })
		bad("not-before-"+name, key(func(k *verify.DraftKey) { k.NotBefore = text }))
		bad("not-after-"+name, key(func(k *verify.DraftKey) { k.NotAfter = text }))
	}
	good("expires-with-an-offset", func(d *verify.Draft) { d.Expires = "2026-11-21T13:00:01+01:00" })
	bad("no-keys", func(d *verify.Draft) { d.Keys = []verify.DraftKey{} })
	for name, text := range map[string]string{"empty": "", "with-escape": "a\x1b[m", "with-space": "a b", "with-slash": "a/b", "of-65-letters": strings.Repeat("k", 65), "dash-first": "-a"} {
		bad("key-name-"+name, key(func(k *verify.DraftKey) { k.Name = text }))
		if name == "empty" || name == "with-escape" {
			bad("role-name-"+name, role(func(r *verify.DraftRole) { r.Name = text }))
		}
	}
	long := strings.Repeat("k", 64)
	good("names-of-64-letters", func(d *verify.Draft) { d.Keys[0].Name, d.Roles[0].Name, d.Roles[0].Keys = long, long, []string{long} })
	good("names-like-addresses", func(d *verify.Draft) {
		d.Keys[0].Name, d.Roles[0].Keys = "alice+ferry@site.example", []string{"alice+ferry@site.example"}
	})
	bad("two-keys-of-a-name", func(d *verify.Draft) { d.Keys[1].Name = "one" })
	bad("one-key-of-two-names", func(d *verify.Draft) { d.Keys[1].PEM = d.Keys[0].PEM }) // T22
	bad("key-without-pem-and-file", key(func(k *verify.DraftKey) { k.PEM = "" }))
	bad("key-with-pem-and-file", key(func(k *verify.DraftKey) { k.File, k.Fingerprint = "one.pub", fingerprintOf(m.t, "one") }))
	bad("key-that-is-no-pem", key(func(k *verify.DraftKey) { k.PEM = "one" }))
	bad("key-that-is-cut", key(func(k *verify.DraftKey) { k.PEM = k.PEM[:100] }))
	bad("key-of-no-key", key(func(k *verify.DraftKey) { k.PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" }))
	bad("key-with-the-fingerprint-of-another", key(func(k *verify.DraftKey) { k.Fingerprint = fingerprintOf(m.t, "two") }))
	good("key-with-its-fingerprint", key(func(k *verify.DraftKey) { k.Fingerprint = fingerprintOf(m.t, "one") }))
	bad("key-that-ends-before-it-begins", key(func(k *verify.DraftKey) { k.NotBefore, k.NotAfter = "2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z" }))
	bad("key-that-ends-when-it-begins", key(func(k *verify.DraftKey) { k.NotBefore, k.NotAfter = "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z" }))
	file := func(name, expect, path, fingerprint string, files map[string][]byte) {
		v := m.draft(name, expect, key(func(k *verify.DraftKey) { *k = verify.DraftKey{Name: "one", File: path, Fingerprint: fingerprint} }))
		maps.Copy(v.Trust, files)
	}
	beside := map[string][]byte{"keys/one.pub": []byte(publicPEM(m.t, "one")), "keys/two.pub": []byte(publicPEM(m.t, "two"))}
	file("good-key-in-a-file", "ok", "keys/one.pub", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-a-file-without-fingerprint", badPolicy, "keys/one.pub", "", beside)
	file("means-key-in-another-file", badPolicy, "keys/two.pub", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-no-file", badPolicy, "keys/one.pem", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-a-folder", badPolicy, "keys", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-a-file-above", badPolicy, "../policy/keys/one.pub", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-a-file-through-above", badPolicy, "keys/../keys/one.pub", fingerprintOf(m.t, "one"), beside)
	file("means-key-in-a-file-at-the-root", badPolicy, "/keys/one.pub", fingerprintOf(m.t, "one"), beside)
	bad("root-without-keys", func(d *verify.Draft) { d.Root.Keys = []string{} })
	bad("root-with-an-unknown-key", func(d *verify.Draft) { d.Root.Keys = []string{"two", "three"} })
	bad("root-with-a-key-twice", func(d *verify.Draft) { d.Root = verify.DraftQuorum{Keys: []string{"two", "two"}, Threshold: 1} })
	bad("root-threshold-0", func(d *verify.Draft) { d.Root.Threshold = 0 })
	bad("root-threshold-out-of-reach", func(d *verify.Draft) { d.Root.Threshold = 2 })
	bad("no-roles", func(d *verify.Draft) { d.Roles = []verify.DraftRole{} })
	bad("role-without-keys", role(func(r *verify.DraftRole) { r.Keys = []string{} }))
	bad("role-with-an-unknown-key", role(func(r *verify.DraftRole) { r.Keys = []string{"one", "three"} }))
	bad("role-with-a-key-twice", role(func(r *verify.DraftRole) { r.Keys, r.Threshold = []string{"one", "one"}, 2 }))
	bad("role-threshold-0", role(func(r *verify.DraftRole) { r.Threshold = 0 }))
	bad("role-threshold-out-of-reach", role(func(r *verify.DraftRole) { r.Threshold = 2 }))
	bad("role-named-root", role(func(r *verify.DraftRole) { r.Name = "root" }))
	bad("two-roles-of-a-name", func(d *verify.Draft) { d.Roles = append(d.Roles, d.Roles[0]) })
	bad("role-without-bundles", role(func(r *verify.DraftRole) { r.Bundles = nil }))
	bad("role-without-targets", role(func(r *verify.DraftRole) { r.Targets = nil }))
	bad("a-later-role-is-wrong", func(d *verify.Draft) {
		d.Roles = append(d.Roles, verify.DraftRole{Name: "later", DraftQuorum: d.Roles[0].DraftQuorum, Bundles: []string{"["}, Targets: []string{"*"}})
	})
	for name, pattern := range map[string]string{"open": "[", "open-range": "[a-", "empty": "", "escape-at-the-end": `demo\`, "range-backwards": "[z-a"} {
		bad("pattern-"+name, role(func(r *verify.DraftRole) { r.Bundles = []string{pattern} }))
	}
	for name, target := range map[string]string{"empty": "", "slash-last": "team/", "slash-first": "/team", "two-slashes": "team//app", "above": "../team", "through-above": "team/../app", "dot": ".", "pattern": "team/*", "question": "te?m",
		"tag": "team/app:v2", "digest": "team/app@sha256", "backslash": `team\app`, "class": "te[a]m"} {
		bad("target-"+name, role(func(r *verify.DraftRole) { r.Targets = []string{target} }))
	}
	for name, age := range map[string]string{"without-unit": `"24"`, "0": "0h", "negative": "-1h", "in-days": "30d", "of-words": "a day", "too-long": "9999999h"} {
		bad("max-age-"+name, role(func(r *verify.DraftRole) { r.MaxAge = age }))
	}
	bad("max-jump-negative", role(func(r *verify.DraftRole) { r.MaxJump = -1 }))
	bad("max-jump-2-to-the-53-and-1", role(func(r *verify.DraftRole) { r.MaxJump = 1<<53 + 1 }))
	good("max-jump-2-to-the-53", role(func(r *verify.DraftRole) { r.MaxJump = 1 << 53 }))
}

// policySignatures are about who has signed a good policy, and when.
func (m *vectorMaker) policySignatures() {
	good := policyText(vectorPolicy(m.t))
	pair := vectorPolicy(m.t)
	pair.Keys = append(pair.Keys, verify.DraftKey{Name: "three", PEM: publicPEM(m.t, "three")})
	pair.Root = verify.DraftQuorum{Keys: []string{"two", "three"}, Threshold: 2}
	two := policyText(pair)
	signed := func(name, expect, text string, keys ...string) *vectors.Vector {
		if expect == "ok" {
			return m.policy("good-signed-"+name, expect, text, keys...)
		}
		return m.policy("signed-"+name, expect, text, keys...)
	}
	signed("once", "ok", good, "two")
	signed("by-nobody", "untrusted/unsigned", good)
	signed("by-a-stranger", "untrusted/wrong-key", good, "three")
	signed("by-a-key-that-is-not-root", "untrusted/wrong-key", good, "one")
	signed("by-root-and-a-stranger", "ok", good, "three", "two")
	signed("by-root-and-another-key", "ok", good, "one", "two")
	signed("by-both", "ok", two, "two", "three")
	signed("by-both-the-other-way-round", "ok", two, "three", "two")
	signed("by-one-of-two", "untrusted/threshold", two, "two")
	signed("by-one-of-two-and-a-stranger", "untrusted/threshold", two, "three", "four")
	signed("by-one-of-two-and-a-key-that-is-not-root", "untrusted/threshold", two, "three", "one")
	signed("by-one-of-two-twice", "untrusted/same-key", two, "two", "two") // T22
	signed("by-both-one-of-them-twice", "ok", two, "two", "two", "three")
	edit := func(name, expect string, keys []string, change func(files map[string][]byte, sig string)) {
		v := signed(name, expect, good, keys...)
		change(v.Trust, policyFile+".sigstore.json")
	}
	edit("empty", "untrusted/signature", []string{"two"}, func(f map[string][]byte, sig string) { f[sig] = []byte{} })
	edit("null", "untrusted/signature", []string{"two"}, func(f map[string][]byte, sig string) { f[sig] = []byte("null\n") })
	edit("over-another-text", "untrusted/signature", []string{"two"}, func(f map[string][]byte, _ string) { f[policyFile] = []byte(good + "# later\n") })
	edit("flipped", "untrusted/signature", []string{"two"}, func(f map[string][]byte, sig string) {
		f[sig] = bytes.Replace(f[sig], []byte(`"signature":"M`), []byte(`"signature":"N`), 1)
	})
	edit("with-64-KiB-and-a-byte", "untrusted/signature", []string{"two"}, func(f map[string][]byte, sig string) {
		f[sig] = append(f[sig], bytes.Repeat([]byte(" "), verify.MaxSignature+1-len(f[sig]))...)
	})
	edit("and-damaged-beside", "untrusted/signature", []string{"two", "three"}, func(f map[string][]byte, sig string) {
		f[policyFile+".2.sigstore.json"] = []byte("{}\n")
	})
	edit("with-spoofed-hint", "untrusted/signature", []string{"two"}, func(f map[string][]byte, sig string) {
		digest := sha256.Sum256([]byte(good))
		f[sig] = sigstoreText(fingerprintOf(m.t, "two"), digest[:], signDER(m.t, "four", digest))
	})
	edit("in-files-of-other-names", "untrusted/unsigned", []string{"two"}, func(f map[string][]byte, sig string) {
		f["trust.sigstore.json"], f["trust.yml.sigstore.json"], f["xtrust.yaml.sigstore.json"] = f[sig], f[sig], f[sig]
		delete(f, sig)
	})
	for n, expect := range map[int]string{verify.MaxSignatures: "ok", verify.MaxSignatures + 1: "untrusted/signature"} {
		signed(fmt.Sprintf("%d-times", n), expect, good, slices.Repeat([]string{"two"}, n)...)
	}
	root := func(name, expect string, change func(*verify.DraftKey)) {
		d := vectorPolicy(m.t)
		change(&d.Keys[1])
		signed(name, expect, policyText(d), "two")
	}
	root("by-a-key-that-has-ended", "untrusted/key-expired", func(k *verify.DraftKey) { k.NotAfter = "2026-11-21T12:00:00Z" })
	root("by-a-key-that-ends-soon", "ok", func(k *verify.DraftKey) { k.NotAfter = "2026-11-21T12:00:01Z" })
	root("by-a-key-that-begins-soon", "untrusted/key-not-yet-valid", func(k *verify.DraftKey) { k.NotBefore = "2026-11-21T12:00:01Z" })
	root("by-a-key-that-has-just-begun", "ok", func(k *verify.DraftKey) { k.NotBefore = "2026-11-21T12:00:00Z" })
	late := *pair
	late.Keys = slices.Clone(pair.Keys)
	late.Keys[2].NotAfter = "2026-11-21T12:00:00Z"
	signed("by-both-one-of-which-has-ended", "untrusted/key-expired", policyText(&late), "two", "three")
}

// policyAdmits is about what a good policy says to a good bundle, of the name
// demo, for team/app, 12 hours old, signed with key one.
func (m *vectorMaker) policyAdmits() {
	admit := func(name, expect, bundle string, change func(*verify.Draft)) {
		if expect == "ok" {
			name = "good-" + name
		}
		m.draft(name, expect, change).Bundle = bundle
	}
	role := func(change func(*verify.DraftRole)) func(*verify.Draft) {
		return func(d *verify.Draft) { change(&d.Roles[0]) }
	}
	for pattern, expect := range map[string]string{"*": "ok", "d*": "ok", "dem?": "ok", "d[a-f]mo": "ok", "[^x]emo": "ok", `d\emo`: "ok", "demo?": "untrusted/name", "dem": "untrusted/name", "Demo": "untrusted/name", "emo": "untrusted/name",
		"d[f-z]mo": "untrusted/name", "demo*x": "untrusted/name", "demo/*": "untrusted/name", "other": "untrusted/name"} {
		name := strings.NewReplacer("*", "star", "?", "any", "[", "", "]", "", "^", "not-", `\`, "escaped-", "/", "-slash-", "Demo", "upper-case").Replace(pattern)
		admit("pattern-"+name, expect, tinyBundle, role(func(r *verify.DraftRole) { r.Bundles = []string{pattern} }))
	}
	admit("second-pattern", "ok", tinyBundle, role(func(r *verify.DraftRole) { r.Bundles = []string{"other", "demo"} }))
	for i, v := range []struct {
		expect  string
		targets []string
	}{{"ok", []string{"*"}}, {"ok", []string{"team/app"}}, {"ok", []string{"other", "team"}}, {"untrusted/target", []string{"tea"}}, {"untrusted/target", []string{"team/ap"}}, {"untrusted/target", []string{"team/app/web"}},
		{"untrusted/target", []string{"app"}}, {"untrusted/target", []string{"Team"}}, {"untrusted/target", []string{"other", "teams"}}} { // T29
		admit(fmt.Sprintf("targets-%d-%s", i+1, strings.ReplaceAll(strings.NewReplacer("*", "all", "/", "-", "Team", "upper-case").Replace(strings.Join(v.targets, "-")), " ", "")), v.expect, tinyBundle,
			role(func(r *verify.DraftRole) { r.Targets = v.targets }))
	}
	both := func(expect, name string, targets ...string) {
		admit("two-images-"+name, expect, "good-one-volume", role(func(r *verify.DraftRole) { r.Targets = targets }))
	}
	both("ok", "both-allowed", "team", "library/base")
	both("untrusted/target", "one-elsewhere", "team")
	both("untrusted/target", "other-elsewhere", "library")
	incremental := func(expect, name string, targets ...string) {
		admit("base-"+name, expect, "good-manifest-base-elsewhere", role(func(r *verify.DraftRole) { r.Targets = targets }))
	}
	m.alone("good-manifest-base-elsewhere", "ok", m.bundle(tiny(), 0, func(b *Manifest) {
		b.Base = &Base{Blobs: []BaseBlob{{verify.DigestOf([]byte("elsewhere")), 9, "secret/app"}}, Digest: verify.DigestOf([]byte("base")), Name: "demo", Version: "0"}
	}))
	incremental("ok", "allowed", "team", "secret")
	incremental("untrusted/target", "from-elsewhere", "team")                                                                                                                                      // a blob of the base is mounted from its target
	for age, expect := range map[string]string{"12h": "ok", "11h59m59s": "untrusted/too-old", "1s": "untrusted/too-old", "1000000h": "ok", "12h0m0.5s": "ok", "43199999ms": "untrusted/too-old"} { // T26
		admit("max-age-"+age, expect, tinyBundle, role(func(r *verify.DraftRole) { r.MaxAge = age }))
	}
	for at, expect := range map[string]string{"2026-11-21T00:00:00Z": "ok", "2026-11-20T12:00:00Z": "ok", "2026-11-20T11:59:59Z": "untrusted/future", "2026-11-21T12:00:01Z": "untrusted/too-old", "2025-11-21T00:00:00Z": "untrusted/future"} {
		name := "made-now"
		admit(name, expect, tinyBundle, role(func(r *verify.DraftRole) { r.MaxAge = "12h" }))
		v := &m.list[len(m.list)-1]
		v.Name = strings.Replace(v.Name, name, "at-"+strings.ToLower(strings.ReplaceAll(at, ":", "")), 1)
		v.Now, _ = time.Parse(time.RFC3339, at)
	}
	for name, v := range map[string]struct{ expect, at string }{"a-second-later": {"ok", "2026-11-21T12:00:01Z"}, "now": {"untrusted/policy-expired", "2026-11-21T12:00:00Z"}, "long-ago": {"untrusted/policy-expired", "2020-01-01T00:00:00Z"}} {
		admit("expires-"+name, v.expect, tinyBundle, func(d *verify.Draft) { d.Expires = v.at }) // T23
	}

	// Roles and thresholds.
	three := func(change func(*verify.Draft)) func(*verify.Draft) {
		return func(d *verify.Draft) {
			d.Keys = append(d.Keys, verify.DraftKey{Name: "three", PEM: publicPEM(m.t, "three")})
			d.Roles[0].Keys = []string{"one", "two", "three"}
			change(d)
		}
	}
	need := func(n int) func(*verify.Draft) { return three(func(d *verify.Draft) { d.Roles[0].Threshold = n }) }
	admit("one-of-three", "ok", tinyBundle, need(1))
	admit("two-of-three", "ok", twoSigners, need(2))
	admit("two-of-three-signed-by-one", "untrusted/threshold", tinyBundle, need(2))
	admit("two-of-three-signed-by-one-twice", "untrusted/same-key", sameSigners, need(2)) // T22
	admit("three-of-three-signed-by-two", "untrusted/threshold", twoSigners, need(3))
	admit("two-of-three-signed-by-one-and-a-stranger", "untrusted/threshold", twoSigners, func(d *verify.Draft) {
		d.Keys = append(d.Keys, verify.DraftKey{Name: "three", PEM: publicPEM(m.t, "three")})
		d.Roles[0].DraftQuorum = verify.DraftQuorum{Keys: []string{"one", "three"}, Threshold: 2}
	})
	admit("two-of-three-one-of-which-has-ended", "untrusted/key-expired", twoSigners, three(func(d *verify.Draft) {
		d.Keys[0].NotAfter = "2026-11-21T12:00:00Z"
		d.Roles[0].Threshold = 2
	}))
	admit("two-of-three-one-of-which-begins-later", "untrusted/key-not-yet-valid", twoSigners, three(func(d *verify.Draft) {
		d.Keys[0].NotBefore = "2026-11-21T12:00:01Z"
		d.Roles[0].Threshold = 2
	}))
	admit("one-of-two-one-of-which-has-ended", "ok", twoSigners, three(func(d *verify.Draft) { d.Keys[0].NotAfter = "2026-11-21T12:00:00Z" }))
	admit("signed-with-a-key-of-another-role", "untrusted/wrong-key", tinyBundle, func(d *verify.Draft) {
		d.Roles[0].Keys = []string{"two"}
		d.Roles = append(d.Roles, verify.DraftRole{Name: "other", DraftQuorum: verify.DraftQuorum{Keys: []string{"one"}, Threshold: 1}, Bundles: []string{"other"}, Targets: []string{"*"}})
	})
	admit("signed-with-the-key-of-the-root-alone", "untrusted/wrong-key", "good-bundle-of-key-two", func(*verify.Draft) {})
	admit("signed-with-a-key-of-no-role", "untrusted/wrong-key", tinyBundle, func(d *verify.Draft) { d.Roles[0].Keys = []string{"two"} })
	admit("signed-with-a-key-that-is-not-in-the-policy", "untrusted/wrong-key", tinyBundle, func(d *verify.Draft) {
		d.Keys, d.Roles[0].Keys = d.Keys[1:], []string{"two"}
	})
	first := func(second string) func(*verify.Draft) {
		return func(d *verify.Draft) {
			d.Roles = append([]verify.DraftRole{{Name: "first", DraftQuorum: verify.DraftQuorum{Keys: []string{"two"}, Threshold: 1}, Bundles: []string{second}, Targets: []string{"*"}}}, d.Roles...)
		}
	}
	admit("the-first-role-does-not-fit", "ok", tinyBundle, first("other"))
	admit("the-first-role-decides", "untrusted/wrong-key", tinyBundle, first("*"))
	admit("the-first-role-decides-for-the-other-key", "ok", "good-bundle-of-key-two", first("*"))
	admit("the-first-role-decides-about-targets", "untrusted/target", tinyBundle, func(d *verify.Draft) {
		strict := d.Roles[0]
		strict.Name, strict.Targets = "strict", []string{"library"}
		d.Roles = append([]verify.DraftRole{strict}, d.Roles...)
	})
	admit("a-stripped-bundle", "untrusted/unsigned", "signature-stripped", func(*verify.Draft) {})
	admit("a-damaged-signature-beside", "untrusted/signature", "signature-second-is-damaged", need(1))
	admit("an-expired-bundle", "untrusted/expired", "expired-now", func(*verify.Draft) {})
	admit("an-invalid-bundle", "invalid", "manifest-name-of-129-letters", func(*verify.Draft) {})
	admit("a-corrupt-bundle", "corrupt", "volume-content-flipped", func(*verify.Draft) {})
	admit("an-incomplete-bundle", "incomplete", "volume-2-missing", func(*verify.Draft) {})
	alone := m.draft("two-of-two-from-a-volume-alone", "untrusted/threshold", func(d *verify.Draft) {
		d.Roles[0].DraftQuorum = verify.DraftQuorum{Keys: []string{"one", "two"}, Threshold: 2}
	})
	alone.Bundle, alone.Start = twoSigners, VolumeName(0)

	p := m.partsOf(tiny(), 0)
	raw := []byte(p.raw(m.t))
	m.alone("good-bundle-of-key-two", "ok", p.with(m.t, raw, padded(signFixed(m.t, "two", raw))))
	m.list[len(m.list)-1].Keys = []string{"two"}
}

// policyGrid has each beginning of a key's time with each end, around now (T23).
func (m *vectorMaker) policyGrid() {
	times := []struct {
		name  string
		after time.Duration
	}{{"1h-ago", -time.Hour}, {"1s-ago", -time.Second}, {"now", 0}, {"in-1s", time.Second}, {"in-1h", time.Hour}}
	for _, begin := range times {
		for _, end := range times {
			expect, name := "ok", "good-"
			switch {
			case end.after <= begin.after:
				expect, name = badPolicy, ""
			case begin.after > 0:
				expect, name = "untrusted/key-not-yet-valid", ""
			case end.after <= 0:
				expect, name = "untrusted/key-expired", ""
			}
			m.draft(name+"key-from-"+begin.name+"-to-"+end.name, expect, func(d *verify.Draft) {
				d.Keys[0].NotBefore = vectors.Now.Add(begin.after).Format(time.RFC3339)
				d.Keys[0].NotAfter = vectors.Now.Add(end.after).Format(time.RFC3339)
			})
		}
	}
}

// policyChains are versions of a policy, each signed by the root before it and
// by its own (T23).
func (m *vectorMaker) policyChains() {
	// root of each version: two; two and three; three and four, of which both
	// have to sign.
	version := func(n int64, roots ...string) *verify.Draft {
		d := vectorPolicy(m.t)
		d.Version, d.Root = n, verify.DraftQuorum{Keys: roots, Threshold: len(roots)}
		d.Keys = d.Keys[:1]
		for _, name := range roots {
			if name != "one" {
				d.Keys = append(d.Keys, verify.DraftKey{Name: name, PEM: publicPEM(m.t, name)})
			}
		}
		return d
	}
	type step struct {
		policy *verify.Draft
		by     string
	}
	chain := func(name, expect string, steps ...step) {
		if expect == "ok" {
			name = "good-" + name
		}
		v := vectors.Vector{Name: "policy-chain-" + name, Expect: expect, Bundle: tinyBundle, Trust: map[string][]byte{}}
		for i, s := range steps {
			file := fmt.Sprintf("trust-%d.yaml", i+1)
			v.Policies = append(v.Policies, file)
			maps.Copy(v.Trust, signedPolicy(m.t, file, policyText(s.policy), strings.Fields(s.by)...))
		}
		m.list = append(m.list, v)
	}
	v1, v2, v3 := version(1, "two"), version(2, "two", "three"), version(3, "three", "four")
	with := func(d *verify.Draft, change func(*verify.Draft)) *verify.Draft {
		c := *d
		c.Keys, c.Roles = slices.Clone(d.Keys), slices.Clone(d.Roles)
		change(&c)
		return &c
	}
	chain("1-2", "ok", step{v1, "two"}, step{v2, "two three"})
	chain("1-2-3", "ok", step{v1, "two"}, step{v2, "two three"}, step{v3, "two three four"})
	chain("1-3-when-the-old-root-agrees", "ok", step{v1, "two"}, step{v3, "two three four"})
	chain("1-3-without-the-old-root", "untrusted/wrong-key", step{v1, "two"}, step{v3, "three four"})
	chain("1-2-3-without-one-of-the-old-root", "untrusted/threshold", step{v1, "two"}, step{v2, "two three"}, step{v3, "three four"})
	chain("1-2-3-without-the-new-root", "untrusted/threshold", step{v1, "two"}, step{v2, "two three"}, step{v3, "two three"})
	chain("1-2-without-the-new-root", "untrusted/threshold", step{v1, "two"}, step{v2, "two"})
	chain("1-2-without-the-old-root", "untrusted/wrong-key", step{v1, "two"}, step{v2, "three"})
	chain("1-2-unsigned", "untrusted/unsigned", step{v1, "two"}, step{v2, ""})
	chain("1-2-signed-by-the-old-root-twice", "untrusted/same-key", step{v1, "two"}, step{v2, "two two"}) // T22
	chain("1-unsigned-2", "untrusted/unsigned", step{v1, ""}, step{v2, "two three"})
	chain("1-1", "untrusted/policy-version", step{v1, "two"}, step{v1, "two"})
	chain("1-1-with-another-text", "untrusted/policy-version", step{v1, "two"}, step{with(v1, func(d *verify.Draft) { d.Expires = "2030-01-01T00:00:00Z" }), "two"})
	chain("2-1", "untrusted/policy-version", step{v2, "two three"}, step{v1, "two three"}) // T24
	chain("1-2-1", "untrusted/policy-version", step{v1, "two"}, step{v2, "two three"}, step{v1, "two three"})
	chain("1-2-2", "untrusted/policy-version", step{v1, "two"}, step{v2, "two three"}, step{v2, "two three"})
	chain("1-to-the-largest", "ok", step{v1, "two"}, step{with(v1, func(d *verify.Draft) { d.Version = 1 << 53 }), "two"})
	chain("expired-1-2", "ok", step{with(v1, func(d *verify.Draft) { d.Expires = "2026-01-01T00:00:00Z" }), "two"}, step{v2, "two three"})
	chain("1-expired-2", "untrusted/policy-expired", step{v1, "two"}, step{with(v2, func(d *verify.Draft) { d.Expires = "2026-01-01T00:00:00Z" }), "two three"})
	chain("1-invalid-2", badPolicy, step{v1, "two"}, step{with(v2, func(d *verify.Draft) { d.Root.Threshold = 3 }), "two three"})
	chain("invalid-1-2", badPolicy, step{with(v1, func(d *verify.Draft) { d.Root.Threshold = 2 }), "two"}, step{v2, "two three"})
	chain("1-2-by-a-root-that-has-ended", "untrusted/key-expired", step{v1, "two"}, step{with(v2, func(d *verify.Draft) { d.Keys[2].NotAfter = "2026-11-21T12:00:00Z" }), "two three"})
	chain("1-2-by-a-root-that-begins-later", "untrusted/key-not-yet-valid", step{v1, "two"}, step{with(v2, func(d *verify.Draft) { d.Keys[2].NotBefore = "2026-11-21T12:00:01Z" }), "two three"})
	// What the new version takes away counts no more, and what it gives does.
	chain("2-takes-the-key-of-the-bundle", "untrusted/wrong-key", step{v1, "two"}, step{with(v1, func(d *verify.Draft) { d.Version, d.Keys, d.Roles[0].Keys = 2, d.Keys[1:], []string{"two"} }), "two"})
	chain("2-takes-the-target", "untrusted/target", step{v1, "two"}, step{with(v1, func(d *verify.Draft) { d.Version, d.Roles[0].Targets = 2, []string{"library"} }), "two"})
	chain("2-gives-the-target", "ok", step{with(v1, func(d *verify.Draft) { d.Roles[0].Targets = []string{"library"} }), "two"}, step{with(v1, func(d *verify.Draft) { d.Version = 2 }), "two"})
	chain("2-wants-another-signature", "untrusted/threshold", step{v1, "two"}, step{with(v1, func(d *verify.Draft) {
		d.Version, d.Roles[0].DraftQuorum = 2, verify.DraftQuorum{Keys: []string{"one", "two"}, Threshold: 2}
	}), "two"})
}
