package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"ferry/verify"
)

// signatures are about the signatures of bundle.json, and its expiry.
func (m *vectorMaker) signatures() {
	p := m.partsOf(tiny(), 0)
	raw := []byte(p.raw(m.t))
	digest := sha256.Sum256(raw)
	good := signFixed(m.t, "one", raw)
	der := signDER(m.t, "one", digest)
	one, two := fingerprintOf(m.t, "one"), fingerprintOf(m.t, "two")
	b64 := base64.StdEncoding.EncodeToString

	// The volume has the same signature, so that it alone has the same verdict.
	whole := func(name, expect string, sig []byte) {
		if bytes.Equal(sig, good) {
			m.t.Errorf("signature-%s is the good one", name)
		}
		m.alone("signature-"+name, expect, p.with(m.t, raw, padded(sig)))
	}
	edit := func(name, expect, old, new string) {
		whole(name, expect, []byte(strings.Replace(string(good), old, new, 1)))
	}
	const bad, wrong = "untrusted/signature", "untrusted/wrong-key"
	whole("null", bad, []byte("null"))
	whole("no-json", bad, []byte("signed by me"))
	whole("list", bad, slices.Concat([]byte("["), good, []byte("]")))
	whole("cut", bad, good[:len(good)-1])
	whole("twice", bad, slices.Concat(good, good))
	whole("other-key", wrong, signFixed(m.t, "two", raw))
	whole("of-other-content", bad, signFixed(m.t, "one", []byte("{}")))
	whole("of-other-content-with-this-digest", bad, sigstoreText(one, digest[:], signDER(m.t, "one", sha256.Sum256([]byte("{}")))))
	whole("of-the-digest-as-text", bad, sigstoreText(one, digest[:], signDER(m.t, "one", sha256.Sum256([]byte(fmt.Sprintf("%x", digest))))))
	whole("hint-of-other-key", bad, sigstoreText(two, digest[:], der))
	whole("of-other-key-with-this-hint", bad, sigstoreText(one, digest[:], signDER(m.t, "two", digest)))
	whole("der-with-a-byte-more", bad, sigstoreText(one, digest[:], append(bytes.Clone(der), 0)))
	whole("der-cut", bad, sigstoreText(one, digest[:], der[:len(der)-1]))
	whole("der-of-zeros", bad, sigstoreText(one, digest[:], []byte{0x30, 6, 2, 1, 0, 2, 1, 0}))
	whole("without-bytes", bad, sigstoreText(one, digest[:], nil))
	whole("digest-empty", bad, sigstoreText(one, nil, der))
	whole("digest-with-a-byte-more", bad, sigstoreText(one, append(digest[:], 0), der))
	edit("digest-of-another-length", bad, `"SHA2_256"`, `"SHA2_384"`)
	edit("bit-flipped", bad, `"signature":"M`, `"signature":"N`)
	edit("media-type-unknown", bad, "v0.3+json", "v0.9+json")
	edit("media-type-empty", bad, "application/vnd.dev.sigstore.bundle.v0.3+json", "")
	edit("unknown-key", bad, `{"mediaType"`, `{"extra":1,"mediaType"`)
	edit("duplicate-key", bad, `"messageSignature":`, `"messageSignature":{},"messageSignature":`)
	edit("something-behind", bad, `"}}`, `"}}x`)
	dsse := fmt.Sprintf(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"%s"}},`+
		`"dsseEnvelope":{"payload":"%s","payloadType":"application/json","signatures":[{"sig":"%s","keyid":""}]}}`, one, b64(raw), b64(der))
	whole("of-an-envelope", wrong, []byte(dsse)) // T22
	// It verifies, and is not the one text that says so.
	edit("indented", "invalid", `,"mess`, `, "mess`)
	edit("media-type-of-older-form", "invalid", "application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3")
	edit("keys-with-underscores", "invalid", `"messageSignature"`, `"message_signature"`)
	edit("algorithm-as-number", "invalid", `"SHA2_256"`, `1`)
	edit("without-digest", bad, fmt.Sprintf(`"messageDigest":{"algorithm":"SHA2_256","digest":"%s"},`, b64(digest[:])), "")
	edit("list-of-log-entries", "invalid", `"publicKey"`, `"tlogEntries":[],"publicKey"`)
	edit("escaped-letter", "invalid", `"SHA2_256"`, `"SHA2_25\u0036"`)
	whole("leading-space", "invalid", append([]byte(" "), good...))
	whole("newline-before-the-spaces", "invalid", append(bytes.Clone(good), '\n'))

	// These are about the file: the volume has the good signature.
	beside := func(name, expect string, objects map[string][]byte) {
		set := p.objects(m.t, string(raw))
		for file, content := range objects {
			set[file] = content
			if content == nil {
				delete(set, file)
			}
		}
		m.add("signature-"+name, expect, set)
	}
	sig := padded(good)
	file := func(content []byte) map[string][]byte { return map[string][]byte{SignatureName: content} }
	beside("stripped", "untrusted/unsigned", file(nil))
	beside("stripped-with-another-beside", "untrusted/unsigned", map[string][]byte{SignatureName: nil, "bundle.x.sigstore.json": good})
	beside("empty", bad, file([]byte{}))
	beside("of-spaces", bad, file(bytes.Repeat([]byte(" "), SignatureSize)))
	beside("not-filled-up", "invalid", file(good))
	beside("filled-up-with-tabs", "invalid", file(bytes.ReplaceAll(sig, []byte("  "), []byte("\t\t"))))
	beside("filled-up-with-zeros", bad, file(append(bytes.Clone(good), make([]byte, SignatureSize-len(good))...)))
	beside("one-space-less", "invalid", file(sig[:len(sig)-1]))
	beside("one-space-more", "invalid", file(append(bytes.Clone(sig), ' ')))
	beside("of-other-key-beside-a-volume", wrong, file(padded(signFixed(m.t, "two", raw))))

	second := func(content []byte) map[string][]byte {
		return map[string][]byte{"bundle.second.sigstore.json": content}
	}
	again := signFixed(m.t, "two", raw)
	filled := func(n int) []byte { return append(bytes.Clone(again), bytes.Repeat([]byte(" "), n-len(again))...) }
	beside("second-is-damaged", bad, second([]byte("{}")))
	beside("second-is-empty", bad, second([]byte{}))
	beside("second-of-other-content", bad, second(signFixed(m.t, "two", []byte("{}"))))
	beside("second-names-the-trusted-key", bad, second(sigstoreText(one, digest[:], signDER(m.t, "two", digest))))
	beside("second-too-large", "invalid", second(filled(verify.MaxSignature+1)))
	many := func(n int) map[string][]byte {
		objects := map[string][]byte{}
		for i := range n {
			objects[fmt.Sprintf("bundle.%02d.sigstore.json", i)] = again
		}
		return objects
	}
	beside("33", bad, many(verify.MaxSignatures))
	good2 := func(name string, objects map[string][]byte) {
		beside(name, "ok", objects)
		m.list[len(m.list)-1].Name = "good-signature-" + name
	}
	good2("second", second(again))
	good2("second-of-same-key", second(good))
	good2("second-of-an-envelope", second([]byte(dsse)))
	good2("second-indented", second(bytes.Replace(again, []byte(`,"mess`), []byte(", \"mess"), 1)))
	good2("second-at-its-limit", second(filled(verify.MaxSignature)))
	good2("32", many(verify.MaxSignatures-1))

	// The volumes have the signature of a stranger, who packed them; the one
	// that counts stands beside.
	strange := p.with(m.t, raw, padded(again))
	strange["bundle.site.sigstore.json"] = good
	m.add("good-signature-beside-a-stranger", "ok", strange)
	m.add("signature-beside-is-not-in-the-volume", wrong, strange).Start = VolumeName(0)

	for name, v := range map[string]struct {
		expect string
		keys   []string
	}{
		"good-keys-one-of-two": {"ok", []string{"two", "one"}},
		"keys-of-others":       {wrong, []string{"two", "three"}},
		"keys-none":            {"untrusted/no-key", []string{"none"}},
	} {
		m.alone(name, v.expect, p.objects(m.t, string(raw)))
		m.list[len(m.list)-1].Keys = v.keys
	}
	for name, v := range map[string]struct{ expect, at string }{
		"expired-now":                {"untrusted/expired", "2026-11-21T12:00:00Z"},
		"expired-a-second-ago":       {"untrusted/expired", "2026-11-21T11:59:59Z"},
		"expired-before-it-was-made": {"untrusted/expired", "2025-01-01T00:00:00Z"},
		"good-expires-in-a-second":   {"ok", "2026-11-21T12:00:01Z"},
		"good-expires-much-later":    {"ok", "9999-12-31T23:59:59Z"},
	} {
		m.alone(name, v.expect, m.bundle(tiny(), 0, func(b *Manifest) { b.Expires = v.at }))
	}
}
