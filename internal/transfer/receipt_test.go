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
	w, err := transfer.ParseWitness([]byte(receiptText), "place")
	want := verify.KnownBundle{Sequence: 7, Accepted: "2026-11-21T12:00:01Z", Digest: verify.DigestOf(nil)}
	if err != nil || w.Receipt != "place" || w.Name != "n+1" || w.Sequence != 7 || w.Policy != 3 || len(w.Known) != 1 || w.Known["x"] != want {
		t.Errorf("%+v, %v", w, err)
	}
	// What was known then counts, where it is more than the bundle itself.
	for of, tt := range map[string]struct {
		sequence int64
		keys     int
	}{
		`{"x":{"sequence":9}}`: {9, 1}, `{"x":{"sequence":3}}`: {7, 1}, `{"y":{"sequence":9}}`: {7, 2}, "null": {7, 1},
	} {
		w, err := transfer.ParseWitness([]byte(strings.Replace(receiptText, `"policy":3`, `"policy":3,"known":`+of, 1)), "place")
		if err != nil || w.Known["x"].Sequence != tt.sequence || len(w.Known) != tt.keys {
			t.Errorf("known %s: %+v, %v", of, w, err)
		}
	}
	for what, text := range map[string]string{
		"empty": "", "other JSON": "{}", "no digest": strings.Replace(receiptText, `"digest"`, `"d"`, 1), "cut": receiptText[:200],
		"no destination": strings.Replace(receiptText, "h.io/p", "", 1), "a name that climbs": strings.Replace(receiptText, "n+1", "../n", 1),
		"two": receiptText + receiptText,
	} {
		if _, err := transfer.ParseWitness([]byte(text), "place"); !errors.Is(err, transfer.ErrReceipt) || !strings.HasPrefix(err.Error(), "place: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add([]byte(receiptText))
	f.Add([]byte(`{"bundle":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := transfer.ParseWitness(text, "place")
		if (err == nil) != (w.Name != "") || err != nil && !errors.Is(err, transfer.ErrReceipt) {
			t.Fatalf("%+v, %v", w, err)
		}
		m := &verify.Memory{}
		m.Witness(w.Name, w.Known, w.Policy)
		for _, b := range m.Known(w.Name, true) {
			if b.Sequence < 0 || b.Sequence > 1<<53 {
				t.Errorf("sequence %d", b.Sequence)
			}
		}
		if len(m.Bundles) > 0 {
			t.Error("what a receipt tells would be written")
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
	for _, tt := range []struct{ name, content, signature string }{{"n", "one", "sig"}, {"n", "two", ""}, {"n+1", "three", "sig 3"}, {"n__1", "four", ""}, {"n_1", "five", ""}} {
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
