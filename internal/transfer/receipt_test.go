package transfer_test

import (
	"errors"
	"strings"
	"testing"

	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/transfer"
	"ferry/verify"
)

const receiptText = `{"bundle":{"name":"n+1","version":"2","sequence":7,"digest":"sha256:` +
	`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","signers":["x"],"policy":3},"destination":"h.io/p",` +
	`"started":"2026-11-21T12:00:00Z","finished":"2026-11-21T12:00:01Z","images":[],"new":1}`

func TestParseWitness(t *testing.T) {
	name, w, err := transfer.ParseWitness([]byte(receiptText), "place")
	if err != nil || name != "n+1" || w.Receipt != "place" || w.Bundle.Sequence != 7 || w.Bundle.Policy != 3 ||
		w.Bundle.Accepted != "2026-11-21T12:00:01Z" || w.Bundle.Digest != verify.DigestOf(nil) || w.Bundle.Signers[0] != "x" {
		t.Errorf("%q, %+v, %v", name, w, err)
	}
	for what, text := range map[string]string{
		"empty": "", "other JSON": "{}", "no digest": strings.Replace(receiptText, `"digest"`, `"d"`, 1), "cut": receiptText[:200],
		"no destination": strings.Replace(receiptText, "h.io/p", "", 1), "a name that climbs": strings.Replace(receiptText, "n+1", "../n", 1),
		"two": receiptText + receiptText,
	} {
		if _, _, err := transfer.ParseWitness([]byte(text), "place"); !errors.Is(err, transfer.ErrReceipt) || !strings.HasPrefix(err.Error(), "place: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add([]byte(receiptText))
	f.Add([]byte(`{"bundle":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		name, w, err := transfer.ParseWitness(text, "place")
		if (err == nil) != (name != "") || err != nil && !errors.Is(err, transfer.ErrReceipt) {
			t.Fatalf("%q, %v", name, err)
		}
		if m := (&verify.Memory{}); err == nil && m.Witness(name, w.Bundle) && m.Bundles[name].Sequence < 0 {
			t.Errorf("sequence %d", m.Bundles[name].Sequence)
		}
	})
}

// A receipt in a registry: the newest of a name, with its signature or without.
func TestReceiptInRegistry(t *testing.T) {
	s := registrytest.Memory(t, registrytest.Options{})
	client, at := newClient(t), registry.Repository{Host: s.Host, Path: "ops/receipts"}
	if _, _, err := transfer.GetReceipt(t.Context(), client, at, "n"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	for _, tt := range []struct{ name, content, signature string }{{"n", "one", "sig"}, {"n", "two", ""}, {"n+1", "three", "sig 3"}} {
		var signature []byte
		if tt.signature != "" {
			signature = []byte(tt.signature)
		}
		if err := transfer.PutReceipt(t.Context(), client, at, tt.name, []byte(tt.content), signature); err != nil {
			t.Fatal(err)
		}
		content, sig, err := transfer.GetReceipt(t.Context(), client, at, tt.name)
		if err != nil || string(content) != tt.content || string(sig) != tt.signature || (sig == nil) != (tt.signature == "") {
			t.Errorf("%q, %q, %v", content, sig, err)
		}
	}
	if content, _, err := transfer.GetReceipt(t.Context(), client, at, "n"); err != nil || string(content) != "two" {
		t.Errorf("another name's receipt took its place: %q, %v", content, err)
	}
	sample := registrytest.Samples()[0]
	if err := sample.Push(t.Context(), s.Host); err != nil {
		t.Fatal(err)
	}
	other := registry.Repository{Host: s.Host, Path: sample.Repository}
	if _, _, err := transfer.GetReceipt(t.Context(), client, other, sample.ImageTags()[0]); !errors.Is(err, transfer.ErrReceipt) {
		t.Errorf("an image: %v", err)
	}
}
