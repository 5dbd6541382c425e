package verify

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// What of a signature may be missing, and who is to blame for one that is wrong
// (T21, T22).
func TestSignatureParts(t *testing.T) {
	raw := []byte("the document")
	a, b, c := testSigner(t, "a").Key(), testSigner(t, "b").Key(), testSigner(t, "c").Key()
	byA, byB := sign(t, "a", raw), sign(t, "b", raw)
	edit := func(sig []byte, do func(material, message map[string]any)) []byte {
		var all map[string]any
		if err := json.Unmarshal(sig, &all); err != nil {
			t.Fatal(err)
		}
		do(all["verificationMaterial"].(map[string]any), all["messageSignature"].(map[string]any))
		edited, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return edited
	}
	noDigest := edit(byA, func(_, message map[string]any) { delete(message, "messageDigest") })
	sha512 := edit(byA, func(_, message map[string]any) { message["messageDigest"].(map[string]any)["algorithm"] = "SHA2_512" })
	noHint := edit(byB, func(material, _ map[string]any) { material["publicKey"] = map[string]any{} })
	keyless := edit(byA, func(material, _ map[string]any) {
		delete(material, "publicKey")
		material["certificate"] = map[string]any{"rawBytes": "AAAA"}
	})
	spoofed := bytes.Replace(byB, []byte(b.Fingerprint()), []byte(a.Fingerprint()), 1)
	many := func(n int) [][]byte {
		list := make([][]byte, n)
		for i := range list {
			list[i] = byA
		}
		return list
	}
	long := func(n int) [][]byte {
		return [][]byte{append(bytes.Clone(byA), bytes.Repeat([]byte(" "), n-len(byA))...)}
	}
	for _, tt := range []struct {
		name string
		sigs [][]byte
		keys []Key
		want error
		says string
	}{
		{"no digest in it", [][]byte{noDigest}, []Key{a}, ErrSignature, "it is wrong"},
		{"another algorithm in it", [][]byte{sha512}, []Key{a}, ErrSignature, "it is over other content (SHA2_512"},
		{"wrong, and names nobody", [][]byte{noHint}, []Key{a}, ErrSignature, "it is wrong"},
		{"wrong, and names nobody, beside a good one", [][]byte{byA, noHint}, []Key{a}, ErrSignature, "2: it is wrong"},
		{"wrong, and names the first of two", [][]byte{spoofed}, []Key{a, c}, ErrSignature, "it is wrong"},
		{"wrong, and names the last of two", [][]byte{spoofed}, []Key{c, a}, ErrSignature, "it is wrong"},
		{"a certificate", [][]byte{keyless}, []Key{a}, ErrWrongKey, "of another kind"},
		{"a certificate beside a good one", [][]byte{keyless, byA}, []Key{a}, nil, ""},
		{"as many as may be", many(MaxSignatures), []Key{a}, nil, ""},
		{"one too many", many(MaxSignatures + 1), []Key{a}, ErrSignature, "more than 32 signatures"},
		{"as long as may be", long(MaxSignature), []Key{a}, nil, ""},
		{"one byte too long", long(MaxSignature + 1), []Key{a}, ErrSignature, "more than 65536 bytes"},
	} {
		doc, err := openWith(t, raw, tt.sigs, tt.keys...)
		if tt.want == nil && (err != nil || len(doc.Signers()) != 1) || tt.want != nil && (doc != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
	}
}

// The bytes that were verified are the ones that come out, also when who gave
// them changes them later (T31).
func TestDocumentIsOwn(t *testing.T) {
	raw := []byte("the document")
	doc, err := openWith(t, raw, signAll(t, "a", raw), testSigner(t, "a").Key())
	if err != nil {
		t.Fatal(err)
	}
	raw[0] = 'T'
	if string(doc.Bytes()) != "the document" {
		t.Errorf("the document is %q now", doc.Bytes())
	}
}

// A key without limits counts at any time; one with limits within them (T23).
func TestKeyTimes(t *testing.T) {
	raw := []byte("the document")
	a := testSigner(t, "a").Key()
	open := func(k *policyKey, now time.Time) error {
		p := &Policy{keys: []*policyKey{k}}
		p.roles = []role{{quorum: quorum{"all", p.keys, 1}, bundles: []string{"*"}, targets: []string{"*"}}}
		_, err := p.Open(t.Context(), raw, signAll(t, "a", raw), now, func([]byte) (Claims, error) { return Claims{Name: "demo"}, nil })
		return err
	}
	before := time.Time{}.Add(-time.Hour)
	for _, tt := range []struct {
		name string
		key  policyKey
		now  time.Time
		want error
	}{
		{"no limits", policyKey{Key: a}, noon, nil},
		{"no limits, before the first day", policyKey{Key: a}, before, nil},
		{"at its beginning", policyKey{Key: a, notBefore: noon}, noon, nil},
		{"before its beginning", policyKey{Key: a, notBefore: noon}, noon.Add(-1), ErrKeyNotYetValid},
		{"just before its end", policyKey{Key: a, notAfter: noon}, noon.Add(-1), nil},
		{"at its end", policyKey{Key: a, notAfter: noon}, noon, ErrKeyExpired},
		{"within", policyKey{Key: a, notBefore: noon.Add(-1), notAfter: noon.Add(1)}, noon, nil},
	} {
		if err := open(&tt.key, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A key that can not verify anything, or is too long, is none.
func TestParseKeyRefused(t *testing.T) {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchange, err := cryptoutils.MarshalPublicKeyToPEM(private.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseKey(exchange); err == nil || !strings.Contains(err.Error(), "public key: ") {
		t.Errorf("a key to exchange keys with: %v", err)
	}
	good := publicPEM(t, "a")
	for n, ok := range map[int]bool{maxKey: true, maxKey + 1: false} {
		key, err := ParseKey(append(bytes.Clone(good), bytes.Repeat([]byte("\n"), n-len(good))...))
		if (err == nil) != ok || ok && key.Fingerprint() != testSigner(t, "a").Key().Fingerprint() {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	secret, _, err := GenerateKeys([]byte("p"))
	if err != nil {
		t.Fatal(err)
	}
	for n, ok := range map[int]bool{maxKey: true, maxKey + 1: false} {
		_, err := LoadSigner(append(bytes.Clone(secret), bytes.Repeat([]byte("\n"), n-len(secret))...), []byte("p"))
		if (err == nil) != ok || !ok && !strings.Contains(err.Error(), "more than 65536 bytes") {
			t.Errorf("a private key of %d bytes: %v", n, err)
		}
	}
}

// A text that is no digest is none in JSON either (T12).
func TestDigestText(t *testing.T) {
	want := DigestOf([]byte("x"))
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Digest
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%s is %v, %v", text, got, err)
	}
	for _, bad := range []string{`""`, `"sha256:"`, `"sha512:` + want.Hex() + `"`, `"` + strings.ToUpper(want.String()) + `"`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is the digest %v", bad, got)
		}
	}
}

// A reader that has failed fails for good: a source that goes on behind an
// error does not make content whole.
func TestReaderStaysBroken(t *testing.T) {
	text := "the content"
	broken := errors.New("broken")
	once := false
	src := readerFunc(func(p []byte) (int, error) {
		if !once {
			once = true
			return copy(p, text[:3]), broken
		}
		return copy(p, text[3:]), io.EOF
	})
	r := NewReader(src, DigestOf([]byte(text)), int64(len(text)))
	for i := range 3 {
		n, err := r.Read(make([]byte, 100))
		if err != broken || n != map[bool]int{true: 3, false: 0}[i == 0] {
			t.Errorf("Read %d = %d, %v", i, n, err)
		}
	}
	wrong := NewReader(iotest.OneByteReader(strings.NewReader(text+"x")), DigestOf([]byte(text)), int64(len(text)))
	_, first := io.ReadAll(wrong)
	if _, again := io.ReadAll(wrong); first == nil || again != first {
		t.Errorf("%v, then %v", first, again)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Each way in which content can be wrong has its own words.
func TestMismatchSays(t *testing.T) {
	const text = "the content"
	d := DigestOf([]byte(text))
	for content, says := range map[string]string{
		"the":          "ends after 3 of 11 bytes",
		"the contents": "goes on after its 11 bytes",
		"The content":  "has digest " + DigestOf([]byte("The content")).String() + ", want " + d.String() + " (11 bytes)",
	} {
		_, err := io.ReadAll(NewReader(strings.NewReader(content), d, int64(len(text))))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", content, err, says)
		}
	}
}

// A policy is as long as may be, as deep as may be, of the greatest version,
// and no more.
func TestPolicyLimits(t *testing.T) {
	good := encode(t, draft(t))
	for n, ok := range map[int]bool{MaxPolicy: true, MaxPolicy + 1: false} {
		if _, err := ParseDraft(append(bytes.Clone(good), bytes.Repeat([]byte("#"), n-len(good))...)); (err == nil) != ok {
			t.Errorf("a policy of %d bytes: %v", n, err)
		}
	}
	d := draft(t)
	d.Roles[0].Bundles = []string{"x"}
	short := len(encode(t, d))
	for n, ok := range map[int]bool{MaxPolicy: true, MaxPolicy + 1: false} {
		d.Roles[0].Bundles = []string{strings.Repeat("x", n-short+1)}
		raw, err := d.Encode(nil)
		if ok && (err != nil || len(raw) != n) || !ok && !errors.Is(err, ErrPolicy) {
			t.Errorf("writing %d bytes: %d, %v", n, len(raw), err)
		}
	}
	for version, ok := range map[int64]bool{-1: false, 0: false, 1: true, maxInteger: true, maxInteger + 1: false} {
		d := draft(t)
		d.Version = version
		if _, err := d.Encode(nil); (err == nil) != ok {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// Who has not signed is told so before anything is parsed (T21).
func TestUnsignedPolicy(t *testing.T) {
	for _, raw := range []string{"", "not a policy", string(encode(t, draft(t)))} {
		if p, err := OpenPolicy(t.Context(), []byte(raw), nil, nil, noon); p != nil || !errors.Is(err, ErrUnsigned) {
			t.Errorf("%.10q: %v", raw, err)
		}
	}
}

// Those who have signed a policy, of its root, each once and while they count.
func TestRootSigners(t *testing.T) {
	d := draft(t)
	d.Keys[1].NotAfter = noon.Add(time.Hour).Format(time.RFC3339)
	raw := encode(t, d)
	for _, tt := range []struct {
		signers string
		now     time.Time
		want    int
	}{{"", noon, 0}, {"a", noon, 1}, {"aa", noon, 1}, {"ab", noon, 2}, {"ab", noon.Add(time.Hour), 1}, {"c", noon, 0}, {"ca", noon, 1}} {
		var signatures [][]byte
		for _, name := range tt.signers {
			signatures = append(signatures, sign(t, string(name), raw))
		}
		got, err := d.RootSigners(t.Context(), raw, signatures, nil, tt.now)
		if err != nil || len(got) != tt.want {
			t.Errorf("%q at %s: %d, %v, want %d", tt.signers, tt.now, len(got), err, tt.want)
		}
	}
	if got, err := d.RootSigners(t.Context(), raw, [][]byte{sign(t, "a", []byte("other"))}, nil, noon); got != nil || !errors.Is(err, ErrSignature) {
		t.Errorf("over another text: %v, %v", got, err)
	}
	if got, err := (&Draft{}).RootSigners(t.Context(), raw, nil, nil, noon); got != nil || !errors.Is(err, ErrPolicy) {
		t.Errorf("no policy: %v, %v", got, err)
	}
}

// The fingerprints of a policy's keys by their names, when it is one.
func TestFingerprints(t *testing.T) {
	d := draft(t)
	got, err := d.Fingerprints(nil)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for name, print := range got {
		if want := testSigner(t, name).Key().Fingerprint(); print != want {
			t.Errorf("key %q has %q, want %q", name, print, want)
		}
	}
	d.Version = 0
	if got, err := d.Fingerprints(nil); got != nil || !errors.Is(err, ErrPolicy) {
		t.Errorf("of no policy: %v, %v", got, err)
	}
}

// Of two faults of a role the first is told; a private key is no text of a
// policy.
func TestRoleFaults(t *testing.T) {
	d := draft(t)
	d.Roles[1].Name, d.Roles[1].Threshold = d.Roles[0].Name, 0
	if _, err := d.Encode(nil); err == nil || !strings.Contains(err.Error(), "threshold 0 is not between 1 and its 1 keys") {
		t.Errorf("%v", err)
	}
}

// A signature of another shape than Sign writes is not canonical, whatever it
// means.
func TestCanonicalMediaType(t *testing.T) {
	good := sign(t, "a", []byte("x"))
	if !IsCanonical(good) {
		t.Fatalf("%s", good)
	}
	for _, bad := range []string{
		strings.Replace(string(good), "v0.3+json", "v0.2+json", 1), strings.Replace(string(good), bundleMediaType, "", 1),
		"", "null", "{}", "[" + string(good) + "]", string(good) + string(good), strings.Replace(string(good), `"hint":"`, `"hint": "`, 1),
	} {
		if IsCanonical([]byte(bad)) {
			t.Errorf("%.40q is canonical", bad)
		}
	}
}

// A bundle may be as old as its role allows, and as far ahead, and no more (T26).
func TestAgeBorders(t *testing.T) {
	r := role{quorum: quorum{name: "r"}, targets: []string{"*"}, maxAge: time.Hour}
	for age, want := range map[time.Duration]error{0: nil, time.Hour: nil, time.Hour + 1: ErrTooOld, -time.Hour: nil, -time.Hour - 1: ErrFuture} {
		if err := r.admit(Claims{Created: noon.Add(-age)}, noon); !errors.Is(err, want) {
			t.Errorf("%s old: %v, want %v", age, err, want)
		}
	}
	r.maxAge = 0
	if err := r.admit(Claims{Created: noon.Add(-time.Hour * 100_000)}, noon); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

type brokenSigner struct{ signature.SignerVerifier }

func (brokenSigner) SignMessage(io.Reader, ...signature.SignOption) ([]byte, error) {
	return nil, errors.New("broken")
}

// A key that can not sign gives no signature.
func TestSignFails(t *testing.T) {
	s := &Signer{key: testSigner(t, "a").Key(), private: brokenSigner{}}
	if sig, err := s.Sign([]byte("x")); sig != nil || err == nil || err.Error() != "signing: broken" {
		t.Errorf("Sign = %q, %v", sig, err)
	}
}
