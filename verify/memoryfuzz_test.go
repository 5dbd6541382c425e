package verify

import (
	"bytes"
	"testing"
)

// No text of a trust state is taken but one that would be written so, and none
// makes anything panic.
func FuzzMemory(f *testing.F) {
	m := &Memory{}
	m.Bundles = map[string]KnownBundles{"n": {"x": {Sequence: 5, Accepted: "2026-11-21T12:00:00Z", Digest: DigestOf(nil)}}}
	whole, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	_, public, err := GenerateKeys(nil)
	if err != nil {
		f.Fatal(err)
	}
	m.Policy = &KnownPolicy{Version: 1, Threshold: 1, Digest: DigestOf(nil), Keys: []KnownKey{{Name: "a", PEM: string(public)}}}
	withPolicy, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range [][]byte{whole, withPolicy, nil, []byte("{}"), []byte("null"), whole[:len(whole)/2], append(whole, whole...)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMemory(text)
		if err != nil {
			if m != nil {
				t.Error("there is a memory with the error")
			}
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q becomes %q, %v", text, again, err)
		}
		if _, err := m.OpenPolicy(t.Context(), []byte("version: 1"), nil, nil, noon); err == nil {
			t.Error("a policy that nobody has signed opens")
		}
		for name, b := range m.Bundles {
			if m.Witness(name, b, 0) {
				t.Errorf("what is known of %q is news", name)
			}
		}
	})
}
