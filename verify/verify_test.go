package verify

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// testSigner returns a signer; scrypt makes each one take about a second, so
// tests share them.
var (
	testSigners = map[string]*Signer{}
	testPublic  = map[string][]byte{} // PEM
)

func testSigner(t *testing.T, name string) *Signer {
	t.Helper()
	if testSigners[name] == nil {
		private, public, err := GenerateKeys([]byte(name))
		if err != nil {
			t.Fatal(err)
		}
		s, err := LoadSigner(private, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		key, err := ParseKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if key.Fingerprint() != s.Key().Fingerprint() {
			t.Fatalf("public key %q, private key %q", key.Fingerprint(), s.Key().Fingerprint())
		}
		testSigners[name], testPublic[name] = s, public
	}
	return testSigners[name]
}

func sign(t *testing.T, name string, raw []byte) []byte {
	t.Helper()
	sig, err := testSigner(t, name).Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// openWith opens raw with a policy of keys, whatever it claims.
func openWith(t *testing.T, raw []byte, sigs [][]byte, keys ...Key) (*Document, error) {
	t.Helper()
	return KeyPolicy(keys...).Open(t.Context(), raw, sigs, time.Time{}, func([]byte) (Claims, error) { return Claims{Name: "demo"}, nil })
}

func TestOpen(t *testing.T) {
	raw := []byte("the document")
	a, b := testSigner(t, "a").Key(), testSigner(t, "b").Key()
	byA, byB, other := sign(t, "a", raw), sign(t, "b", raw), sign(t, "a", []byte("another"))
	noHint := bytes.Replace(byA, []byte(a.Fingerprint()), nil, 1)
	spoofed := bytes.Replace(byB, []byte(b.Fingerprint()), []byte(a.Fingerprint()), 1)
	dsse := []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`)
	for _, tt := range []struct {
		name    string
		sigs    [][]byte
		keys    []Key
		want    string // part of the error, or "" for success
		signers int
	}{
		{"good", [][]byte{byA}, []Key{a}, "", 1},
		{"good with two keys", [][]byte{byA}, []Key{b, a}, "", 1},
		{"two signatures, one trusted", [][]byte{byB, byA}, []Key{a}, "", 1},
		{"two signatures, both trusted", [][]byte{byB, byA}, []Key{a, b}, "", 2},
		{"the same signature twice counts once", [][]byte{byA, byA}, []Key{a}, "", 1}, // T22
		{"no hint", [][]byte{noHint}, []Key{a}, "", 1},
		{"no keys", [][]byte{byA}, nil, "no key to verify with", 0},
		{"stripped", nil, []Key{a}, "there is no signature", 0}, // T21
		{"empty", [][]byte{{}}, []Key{a}, "it is empty", 0},
		{"null", [][]byte{[]byte("null")}, []Key{a}, "not a Sigstore bundle", 0},
		{"empty object", [][]byte{[]byte("{}")}, []Key{a}, "not a Sigstore bundle", 0},
		{"wrong key", [][]byte{byB}, []Key{a}, "none of the trusted keys", 0},
		{"spoofed hint, trusted key named", [][]byte{spoofed}, []Key{a}, "it is wrong", 0},
		{"spoofed hint, both trusted", [][]byte{spoofed}, []Key{a, b}, "it names key", 0},
		{"over other content", [][]byte{other}, []Key{a}, "it is over other content", 0},
		{"bad beside good", [][]byte{byA, other}, []Key{a}, "signature 2", 0},
		{"another payload type", [][]byte{dsse}, []Key{a}, "of another kind", 0}, // T22
		{"another kind beside a good one", [][]byte{dsse, byA}, []Key{a}, "", 1},
		{"too long", [][]byte{make([]byte, MaxSignature+1)}, []Key{a}, "more than 65536 bytes", 0},
		{"too many", make([][]byte, MaxSignatures+1), []Key{a}, "more than 32 signatures", 0},
	} {
		doc, err := openWith(t, raw, tt.sigs, tt.keys...)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			} else if !bytes.Equal(doc.Bytes(), raw) || len(doc.Signers()) != tt.signers {
				t.Errorf("%s: %d signers, want %d", tt.name, len(doc.Signers()), tt.signers)
			}
			continue
		}
		if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), tt.want) || doc != nil {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// T02: no bit of a document or of its canonical signature can change.
func TestEveryBit(t *testing.T) {
	raw := []byte(`{"a":"document"}`)
	sig := sign(t, "a", raw)
	keys := []Key{testSigner(t, "a").Key()}
	open := func(raw, sig []byte) error {
		if !IsCanonical(sig) {
			return ErrUntrusted
		}
		_, err := openWith(t, raw, [][]byte{sig}, keys...)
		return err
	}
	if err := open(raw, sig); err != nil {
		t.Fatal(err)
	}
	for _, text := range []*[]byte{&raw, &sig} {
		for i := range len(*text) * 8 {
			(*text)[i/8] ^= 1 << (i % 8)
			if open(raw, sig) == nil {
				t.Errorf("bit %d of %.20q… changed and it still opens", i, *text)
			}
			(*text)[i/8] ^= 1 << (i % 8)
		}
	}
	for n := range sig {
		if open(raw, sig[:n]) == nil {
			t.Errorf("the signature opens when cut to %d bytes", n)
		}
	}
	for n := range raw {
		if open(raw[:n], sig) == nil {
			t.Errorf("the document opens when cut to %d bytes", n)
		}
	}
	for _, more := range []string{" ", "\n", "{}", "x"} {
		if open(append(bytes.Clone(raw), more...), sig) == nil || open(raw, append(bytes.Clone(sig), more...)) == nil {
			t.Errorf("it opens with %q appended", more)
		}
	}
}

func TestLoadSignerErrors(t *testing.T) {
	private, _, err := GenerateKeys([]byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner(private, []byte("wrong")); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: %v", err)
	}
	for _, pem := range [][]byte{nil, []byte("x"), make([]byte, maxKey+1), private[:len(private)/2]} {
		if _, err := LoadSigner(pem, []byte("right")); err == nil {
			t.Errorf("LoadSigner(%.10q…) succeeds", pem)
		}
		if _, err := ParseKey(pem); err == nil {
			t.Errorf("ParseKey(%.10q…) succeeds", pem)
		}
	}
}

// T12
func TestParseDigest(t *testing.T) {
	good := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	d, err := ParseDigest(good)
	if err != nil || d.String() != good || "sha256:"+d.Hex() != good || d.IsZero() {
		t.Errorf("ParseDigest(%q) = %v, %v", good, d, err)
	}
	hex := good[len("sha256:"):]
	for _, bad := range []string{
		"", "sha256:", "sha256", hex, ":" + hex, "sha256:" + hex[1:], good + "0", good + "\n", " " + good, good + " ",
		"SHA256:" + hex, "sha256:" + strings.ToUpper(hex), "Sha256:" + hex, "sha-256:" + hex, "sha256-" + hex,
		"md5:" + hex[:32], "md5:" + hex, "sha1:" + hex[:40], "sha512:" + hex + hex, "sha384:" + hex + hex[:32], "blake3:" + hex,
		"sha256::" + hex, "sha256:" + hex[:63] + "g", "sha256:" + hex[:63] + "/", "sha256:../" + hex[3:], "sha256:" + hex[:61] + "/..",
		"sha256:" + hex[:32] + "\x00" + hex[33:], "sha256:0x" + hex[2:], "sha256:" + hex + ":" + hex, "sha256:" + hex + "@", "sha256:" + hex + "?x",
		"sha256:%30" + hex[3:], "sha256:" + hex[:62] + "é", "sha256:" + hex[:60] + "٠٠", "multihash+base58:" + hex, "sha256+b64:" + hex,
		"\ufeff" + good, good + ",", "sha256:" + hex[:31] + "-" + hex[32:], "sha256:\t" + hex[1:], "sha256:-" + hex[1:], "sha256:+" + hex[1:],
	} {
		if d, err := ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q) = %v", bad, d)
		}
	}
}

// T13
func TestReader(t *testing.T) {
	const text = "content of some length"
	d := DigestOf([]byte(text))
	size := int64(len(text))
	for _, tt := range []struct {
		name, content string
		want          Digest
		size          int64
		ok            bool
	}{
		{"right", text, d, size, true},
		{"empty", "", DigestOf(nil), 0, true},
		{"other content", strings.ToUpper(text), d, size, false},
		{"short", text[1:], d, size, false},
		{"long", text + "x", d, size, false},
		{"very long", strings.Repeat(text, 1000), d, size, false},
		{"size too small", text, d, size - 1, false},
		{"size too large", text, d, size + 1, false},
		{"size zero", text, d, 0, false},
		{"nothing", "", d, size, false},
		{"no digest", text, Digest{}, size, false},
		{"negative size", text, d, -1, false},
		{"greatest size", text, d, 1<<63 - 1, false},
	} {
		for _, r := range []io.Reader{
			strings.NewReader(tt.content),
			iotest.OneByteReader(strings.NewReader(tt.content)),
			iotest.DataErrReader(strings.NewReader(tt.content)),
			iotest.HalfReader(strings.NewReader(tt.content)),
		} {
			got, err := io.ReadAll(NewReader(r, tt.want, tt.size))
			if tt.ok && (err != nil || string(got) != tt.content) {
				t.Errorf("%s: %q, %v", tt.name, got, err)
			}
			if !tt.ok && !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: error %v", tt.name, err)
			}
			if int64(len(got)) > max(tt.size, 0) {
				t.Errorf("%s: %d bytes passed on of %d", tt.name, len(got), tt.size)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(NewReader(io.MultiReader(strings.NewReader(text[:3]), iotest.ErrReader(broken)), d, size)); err != broken {
		t.Errorf("a broken source gives %v", err)
	}
	if err := iotest.TestReader(NewReader(strings.NewReader(text), d, size), []byte(text)); err != nil {
		t.Error(err)
	}
}
