package bundle

import (
	"fmt"
	"maps"
	"strings"

	"ferry/internal/vectors"
	"ferry/verify"
)

// memory adds a vector of the tiny bundle at a site that remembers something.
func (m *vectorMaker) memory(name, expect string, known *verify.Memory) *vectors.Vector {
	m.t.Helper()
	text, err := known.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	return m.memoryText(name, expect, text)
}

func (m *vectorMaker) memoryText(name, expect string, text []byte) *vectors.Vector {
	if name = "memory-" + name; expect == "ok" {
		name = "good-" + name
	}
	m.list = append(m.list, vectors.Vector{Name: name, Expect: expect, Bundle: tinyBundle, Memory: text})
	return &m.list[len(m.list)-1]
}

// knownBundle is one that was accepted long ago, signed with key one.
func (m *vectorMaker) knownBundle(sequence int64, digest verify.Digest) verify.KnownBundles {
	return m.knownOf("one", sequence, digest)
}

func (m *vectorMaker) knownOf(key string, sequence int64, digest verify.Digest) verify.KnownBundles {
	return verify.KnownBundles{fingerprintOf(m.t, key): {Accepted: "2026-01-01T00:00:00Z", Digest: digest, Sequence: sequence}}
}

func memoryOf(name string, b verify.KnownBundles) *verify.Memory {
	return &verify.Memory{Bundles: map[string]verify.KnownBundles{name: b}}
}

// memories are about bundles and policies that the site has seen (T24, T25).
// The bundle has the name demo and the sequence 7.
func (m *vectorMaker) memories() {
	raw := m.bundle(tiny(), 0)[ManifestName]
	this, other := verify.DigestOf(raw), verify.DigestOf([]byte("another bundle.json"))
	known := func(sequence int64, digest verify.Digest) *verify.Memory {
		return memoryOf("demo", m.knownBundle(sequence, digest))
	}
	m.memory("of-nothing", "ok", &verify.Memory{})
	m.memory("of-a-lower-sequence", "ok", known(6, other))
	m.memory("of-sequence-0", "ok", known(0, other))
	m.memory("of-this-bundle", "ok", known(7, this))
	m.memory("of-another-name", "ok", memoryOf("demos", m.knownBundle(8, other)))
	m.memory("of-the-name-in-capitals", "ok", memoryOf("Demo", m.knownBundle(8, other)))
	m.memory("of-the-next-sequence", "untrusted/rollback", known(8, other))
	m.memory("of-this-bundle-with-a-higher-sequence", "untrusted/rollback", known(8, this))
	m.memory("of-a-sequence-of-today", "untrusted/rollback", known(vectors.Now.Unix(), other))
	m.memory("of-the-highest-sequence", "untrusted/rollback", known(1<<53, other))
	m.memory("of-another-bundle-of-the-sequence", "untrusted/equivocation", known(7, other))
	m.memory("of-the-base", "untrusted/equivocation", known(7, verify.DigestOf([]byte("base"))))

	const ahead = 10000
	now, future := vectors.Now.Unix(), int64(3_000_000_000)
	for name, v := range map[string]struct {
		expect          string
		sequence, known int64
	}{
		"of-the-clock":                        {"ok", now, -1},
		"10000-ahead-of-the-clock":            {"ok", now + ahead, -1},
		"10001-ahead-of-the-clock":            {"untrusted/fast-forward", now + ahead + 1, -1},
		"10001-ahead-of-the-clock-after-6":    {"untrusted/fast-forward", now + ahead + 1, 6},
		"far-from-what-is-known":              {"ok", now, 6},
		"10000-ahead-of-what-is-known":        {"ok", future + ahead, future},
		"10001-ahead-of-what-is-known":        {"untrusted/fast-forward", future + ahead + 1, future},
		"the-highest-after-one-that-is-close": {"ok", 1 << 53, 1<<53 - ahead},
		"the-highest-after-one-that-is-not":   {"untrusted/fast-forward", 1 << 53, 1<<53 - ahead - 1},
	} {
		memory := &verify.Memory{}
		if v.known >= 0 {
			memory = known(v.known, other)
		}
		added := m.memory("sequence-"+name, v.expect, memory)
		added.Bundle, added.Alone, added.Objects = "", VolumeName(0), m.bundle(tiny(), 0, func(b *Manifest) { b.Sequence = v.sequence })
	}
	jump := func(name, expect string, known *verify.Memory, maxJump int64) {
		d := vectorPolicy(m.t)
		d.Roles[0].MaxJump = maxJump
		m.withPolicy(m.memory(name, expect, known), d, "two")
	}
	jump("of-sequence-6-and-a-jump-of-1", "ok", known(6, other), 1)
	jump("of-sequence-5-and-a-jump-of-1", "untrusted/fast-forward", known(5, other), 1)
	jump("of-sequence-0-and-a-jump-of-7", "ok", known(0, other), 7)
	jump("of-sequence-0-and-a-jump-of-6", "untrusted/fast-forward", known(0, other), 6)
	jump("of-nothing-and-a-jump-of-1", "ok", &verify.Memory{}, 1)

	m.memoriesOfPolicies(known, other)
}

// withPolicy makes d the policy of a vector.
func (m *vectorMaker) withPolicy(v *vectors.Vector, d *verify.Draft, keys ...string) {
	v.Policies, v.Trust = []string{policyFile}, signedPolicy(m.t, policyFile, policyText(d), keys...)
}

func (m *vectorMaker) memoriesOfPolicies(known func(int64, verify.Digest) *verify.Memory, other verify.Digest) {
	root := func(names ...string) (keys []verify.KnownKey) {
		for _, name := range names {
			keys = append(keys, verify.KnownKey{Name: name, PEM: publicPEM(m.t, name)})
		}
		return keys
	}
	remember := func(version int64, digest verify.Digest, keys ...verify.KnownKey) *verify.Memory {
		return &verify.Memory{Policy: &verify.KnownPolicy{Digest: digest, Keys: keys, Threshold: len(keys), Version: version}}
	}
	version := func(n int64) *verify.Draft {
		d := vectorPolicy(m.t)
		d.Version = n
		return d
	}
	digest := verify.DigestOf([]byte(policyText(version(2))))
	add := func(name, expect string, memory *verify.Memory, by ...string) {
		m.withPolicy(m.memory("of-policy-"+name, expect, memory), version(2), by...)
	}
	two, pair := root("two"), root("two", "three")
	add("2-that-it-is", "ok", remember(2, digest, two...), "two")
	add("1", "ok", remember(1, other, two...), "two")
	add("1-of-two-keys", "ok", remember(1, other, pair...), "two", "three")
	add("1-of-two-keys-one-of-which-signs", "untrusted/threshold", remember(1, other, pair...), "two")
	add("1-of-two-keys-one-of-which-signs-twice", "untrusted/same-key", remember(1, other, pair...), "two", "two")
	add("1-of-another-key", "untrusted/wrong-key", remember(1, other, root("three")...), "two")
	add("2-with-another-text", "untrusted/policy-fork", remember(2, other, two...), "two")
	add("3", "untrusted/policy-version", remember(3, other, two...), "two")
	add("of-the-highest-version", "untrusted/policy-version", remember(1<<53, other, two...), "two")
	add("1-and-now-nobody-signs", "untrusted/unsigned", remember(1, other, two...))
	ended := root("two")
	ended[0].NotAfter = "2026-11-21T12:00:00Z"
	add("1-of-a-key-that-has-ended", "untrusted/key-expired", remember(1, other, ended...), "two")
	soon := root("two")
	soon[0].NotBefore = "2026-11-21T12:00:01Z"
	add("1-of-a-key-that-begins-soon", "untrusted/key-not-yet-valid", remember(1, other, soon...), "two")
	m.memory("of-a-policy-and-a-key-is-given", "ok", remember(1, other, two...)) // told, not refused

	// What a key has signed counts while it can sign: with a policy that has keys
	// one and four for the bundles.
	this := verify.DigestOf(m.bundle(tiny(), 0)[ManifestName])
	void := func(name, expect string, known ...verify.KnownBundles) {
		all := verify.KnownBundles{}
		for _, k := range known {
			maps.Copy(all, k)
		}
		m.withPolicy(m.memory(name, expect, memoryOf("demo", all)), version(2), "two")
	}
	void("of-the-highest-sequence-of-a-key-that-is-gone", "ok", m.knownOf("three", 1<<53, other))
	void("of-the-highest-sequence-of-a-key-that-stays", "untrusted/rollback", m.knownOf("one", 1<<53, other))
	void("of-a-key-that-is-gone-and-less-of-one-that-stays", "ok", m.knownOf("three", 9, other), m.knownOf("one", 6, other))
	void("of-a-key-that-is-gone-and-more-of-one-that-stays", "untrusted/rollback", m.knownOf("three", 9, other), m.knownOf("one", 8, other))
	void("of-a-key-that-is-gone-and-another-of-one-that-stays", "untrusted/equivocation", m.knownOf("three", 9, other), m.knownOf("one", 7, other))
	void("of-a-key-that-is-gone-and-this", "ok", m.knownOf("three", 9, other), m.knownOf("one", 7, this))
	m.memory("of-another-key-with-a-key", "ok", memoryOf("demo", m.knownOf("three", 9, other)))
}

// damagedMemories are no text that was ever written.
func (m *vectorMaker) damagedMemories() {
	const damaged = "untrusted/memory"
	memory := &verify.Memory{Bundles: map[string]verify.KnownBundles{"demo": m.knownBundle(6, verify.DigestOf([]byte("x")))},
		Policy: &verify.KnownPolicy{Digest: verify.DigestOf([]byte("p")), Keys: []verify.KnownKey{{Name: "two", PEM: publicPEM(m.t, "two")}}, Threshold: 1, Version: 1}}
	text, err := memory.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	good := string(text)
	m.memoryText("that-is-whole", "ok", text)
	add := func(name, text string) {
		if text == good {
			m.t.Errorf("memory-%s is not changed", name)
		}
		m.memoryText(name, damaged, []byte(text))
	}
	replace := func(name, old, new string) { add(name, strings.Replace(good, old, new, 1)) }
	add("empty", "")
	add("null", "null\n")
	add("list", "[]\n")
	add("cut", good[:len(good)/2])
	add("twice", good+good)
	add("without-the-newline", strings.TrimSuffix(good, "\n"))
	add("with-a-space-behind", good+" ")
	add("of-zeros", string(make([]byte, 512)))
	replace("format-0", `"format": 1`, `"format": 0`)
	replace("format-2", `"format": 1`, `"format": 2`)
	replace("unknown-key", `"format": 1`, `"extra": 1, "format": 1`)
	replace("key-in-other-case", `"format"`, `"Format"`)
	replace("duplicate-key", `"format": 1`, "\"format\": 1,\n  \"format\": 1")
	replace("sequence-negative", `"sequence": 6`, `"sequence": -6`)
	replace("sequence-over-2-to-the-53", `"sequence": 6`, `"sequence": 9007199254740993`)
	replace("sequence-float", `"sequence": 6`, `"sequence": 6.0`)
	replace("digest-short", `"digest": "sha256:`, `"digest": "sha256:0`)
	replace("policy-version-0", `"version": 1`, `"version": 0`)
	replace("policy-threshold-0", `"threshold": 1`, `"threshold": 0`)
	replace("policy-threshold-out-of-reach", `"threshold": 1`, `"threshold": 2`)
	replace("policy-without-keys", `"keys": [`+between(good, `"keys": [`, "]")+"]", `"keys": []`)
	replace("policy-key-damaged", "BEGIN PUBLIC KEY", "BEGIN PRIVATE KEY")
	names := maps.Clone(memory.Bundles)
	for i := range 3 {
		names[fmt.Sprint("other-", i)] = m.knownBundle(1<<53, verify.DigestOf([]byte("x")))
	}
	m.memory("of-many-names", "ok", &verify.Memory{Bundles: names})
}

// between returns what stands between two texts.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}
