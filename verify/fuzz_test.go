package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"ferry/internal/sigstoretest"
)

// committedSigner returns the signer of a key in testdata, so that what was
// found once is found again.
func committedSigner(f *testing.F, name string) *Signer {
	f.Helper()
	pem, err := os.ReadFile("../testdata/keys/" + name + ".key")
	if err != nil {
		f.Fatal(err)
	}
	s, err := LoadSigner(pem, []byte(name))
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// publicOf returns the key behind k.
func publicOf(t testing.TB, k Key) crypto.PublicKey {
	t.Helper()
	public, err := k.verifier.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// FuzzSignature shows that whatever stands in the place of a signature, a
// document opens only when there is a value in it that the key has made over
// it (T02, T21, T22).
func FuzzSignature(f *testing.F) {
	raw := []byte(`{"a":"document"}`)
	one, two := committedSigner(f, "one"), committedSigner(f, "two")
	sign := func(s *Signer, raw []byte) []byte {
		sig, err := s.Sign(raw)
		if err != nil {
			f.Fatal(err)
		}
		return sig
	}
	good, others := sign(one, raw), sign(two, raw)
	for _, text := range [][]byte{good, others, sign(one, []byte("other")), bytes.Replace(good, []byte(one.Key().Fingerprint()), nil, 1), nil,
		[]byte("null"), []byte("{}"), []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`),
		[]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`),
		[]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.1","verificationMaterial":{"certificate":{"rawBytes":"AAAA"},"tlogEntries":[{}]},"messageSignature":{}}`),
	} {
		f.Add(text, uint32(0), uint32(0), []byte(nil))
	}
	for i := 0; i < len(good); i += 20 {
		f.Add(good, uint32(i), uint32(1), []byte("A"))
	}
	public, _ := publicOf(f, one.Key()).(*ecdsa.PublicKey)
	hash := sha256.Sum256(raw)
	open := func(t *testing.T, raw []byte, sigs [][]byte, key *Signer) (*Document, error) {
		return KeyPolicy(key.Key()).Open(t.Context(), raw, sigs, time.Time{}, func(signed []byte) (Claims, error) {
			if !bytes.Equal(signed, raw) {
				t.Errorf("%q was parsed, which nobody has signed", signed)
			}
			return Claims{Name: "demo"}, nil
		})
	}
	f.Fuzz(func(t *testing.T, text []byte, at, cut uint32, insert []byte) {
		from := min(int(at), len(text))
		text = slices.Concat(text[:from], insert, text[min(from+int(cut), len(text)):])
		doc, err := open(t, raw, [][]byte{text}, one)
		beside, besideErr := open(t, raw, [][]byte{text, good}, one)
		if besideErr == nil && len(beside.Signers()) != 1 {
			t.Errorf("one key counts %d times", len(beside.Signers()))
		}
		if err != nil {
			if doc != nil || !errors.Is(err, ErrUntrusted) {
				t.Errorf("open = %v, %v", doc, err)
			}
			return
		}
		if besideErr != nil || !bytes.Equal(doc.Bytes(), raw) || len(doc.Signers()) != 1 || doc.Signers()[0].Fingerprint() != one.Key().Fingerprint() {
			t.Errorf("it opens with %d signers; beside another: %v", len(doc.Signers()), besideErr)
		}
		parsed, err := parseSignature(text)
		if err != nil || !ecdsa.VerifyASN1(public, hash[:], parsed.bundle.GetMessageSignature().GetSignature()) {
			t.Errorf("it opens with %q, %v, which is no signature", text, err)
		}
		if _, err := open(t, append(bytes.Clone(raw), '\n'), [][]byte{text}, one); err == nil {
			t.Error("it opens another document too")
		}
		if _, err := open(t, raw, [][]byte{text}, two); err == nil {
			t.Error("it opens with another key too")
		}
	})
}

// FuzzCanonical shows that the canonical form of a signature has one text for
// the values in it (T02).
func FuzzCanonical(f *testing.F) {
	good, err := committedSigner(f, "one").Sign([]byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{string(good), string(good) + " ", strings.Replace(string(good), `"hint":"`, `"hint":"\u0041`, 1),
		strings.Replace(string(good), `"signature":"`, `"signature":"\n`, 1), strings.ToUpper(string(good)), `{}`, `null`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !IsCanonical(text) {
			return
		}
		var values any
		if err := json.Unmarshal(text, &values); err != nil {
			t.Fatalf("%q is canonical, and no JSON: %v", text, err)
		}
		var fields []string
		var walk func(name string, v any)
		walk = func(name string, v any) {
			object, ok := v.(map[string]any)
			if !ok {
				fields = append(fields, name)
			}
			for key, value := range object {
				walk(name+"."+key, value)
			}
		}
		walk("", values)
		slices.Sort(fields)
		want := []string{".mediaType", ".messageSignature.messageDigest.algorithm", ".messageSignature.messageDigest.digest",
			".messageSignature.signature", ".verificationMaterial.publicKey.hint"}
		if !slices.Equal(fields, want) {
			t.Errorf("%q has the fields %q, want %q", text, fields, want)
		}
		for _, other := range [][]byte{append(bytes.Clone(text), ' '), append([]byte(" "), text...), bytes.Replace(text, []byte(":"), []byte(": "), 1)} {
			if IsCanonical(other) {
				t.Errorf("%q and %q are both canonical", text, other)
			}
		}
	})
}

// FuzzKey shows that a public key that is taken is the same key in each of its
// encodings.
func FuzzKey(f *testing.F) {
	for _, name := range []string{"one.pub", "two.pub", "one.key"} {
		pem, err := os.ReadFile("../testdata/keys/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem)
	}
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, pem []byte) {
		key, err := ParseKey(pem)
		if err != nil {
			if key != (Key{}) {
				t.Errorf("ParseKey = %v, %v", key, err)
			}
			return
		}
		again, err := cryptoutils.MarshalPublicKeyToPEM(publicOf(t, key))
		if err != nil {
			t.Fatal(err)
		}
		if other, err := ParseKey(again); err != nil || other.Fingerprint() != key.Fingerprint() || len(key.Fingerprint()) != 44 {
			t.Errorf("key %q is %q, %v, when it is encoded again", key.Fingerprint(), other.Fingerprint(), err)
		}
	})
}

// FuzzDigest shows that a digest has one text (T12).
func FuzzDigest(f *testing.F) {
	good := DigestOf(nil).String()
	for _, s := range []string{good, "", good[1:], good + "0", strings.ToUpper(good), "sha256:" + strings.Repeat("g", 64), "sha512:" + strings.Repeat("0", 128), good + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			if !d.IsZero() {
				t.Errorf("ParseDigest(%q) = %v, %v", s, d, err)
			}
			return
		}
		var text Digest
		if d.String() != s || text.UnmarshalText([]byte(s)) != nil || text != d || len(d.Hex()) != 64 || strings.Trim(d.Hex(), "0123456789abcdef") != "" {
			t.Errorf("ParseDigest(%q) = %v", s, d)
		}
	})
}

// FuzzReader shows that content ends well only when it is the content that was
// asked for, however it is read, and that nothing beyond its size is passed on
// (T13).
func FuzzReader(f *testing.F) {
	f.Add([]byte("content"), []byte("content"), int64(7), byte(0))
	f.Add([]byte("content"), []byte("content"), int64(6), byte(1))
	f.Add([]byte("content"), []byte("content"), int64(1<<63-1), byte(2))
	f.Add([]byte("content"), []byte("other"), int64(-1), byte(3))
	f.Fuzz(func(t *testing.T, content, want []byte, size int64, how byte) {
		var src io.Reader = bytes.NewReader(content)
		switch how % 4 {
		case 1:
			src = iotest.OneByteReader(src)
		case 2:
			src = iotest.DataErrReader(src)
		case 3:
			src = iotest.HalfReader(src)
		}
		got, err := io.ReadAll(NewReader(src, DigestOf(want), size))
		right := bytes.Equal(content, want) && size == int64(len(content))
		if right != (err == nil) || err != nil && !errors.Is(err, ErrMismatch) {
			t.Errorf("reading %q for %q of %d bytes: %v", content, want, size, err)
		}
		if int64(len(got)) > max(size, 0) || !bytes.HasPrefix(content, got) {
			t.Errorf("reading %q for %d bytes passes on %q", content, size, got)
		}
	})
}

// FuzzPolicy shows that a policy that is taken is the same when it is written
// again, and that each of its roles can be met and covers something.
func FuzzPolicy(f *testing.F) {
	pem, err := os.ReadFile("../testdata/keys/one.pub")
	if err != nil {
		f.Fatal(err)
	}
	key := "version: 1\nkeys:\n  - name: one\n    pem: |\n      " + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n      ") + "\n"
	rest := "root:\n  keys: [one]\n  threshold: 1\nroles:\n  - name: all\n    keys: [one]\n    threshold: 1\n    bundles: ['*']\n    targets: ['*']\n"
	if d, err := ParseDraft([]byte(key + rest)); err != nil {
		f.Fatal(err)
	} else if _, err := d.policy(nil); err != nil {
		f.Fatal(err)
	}
	images := "images:\n  - repositories: ['team/*', '**']\n    keys: [one]\n    threshold: 1\n    attestations: ['https://slsa.dev/provenance/v1']\n    sbom: true\n"
	if d, err := ParseDraft([]byte(key + rest + images)); err != nil {
		f.Fatal(err)
	} else if _, err := d.policy(nil); err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{key + rest, key + rest + images, "expires: 2027-01-01T00:00:00Z\n" + key + rest, key + strings.Replace(rest, "targets: ['*']", "targets: [team/app]\n    maxAge: 720h", 1),
		key + strings.Replace(rest, "threshold: 1", "threshold: 2", 1), key + strings.Replace(rest, "[one]", "[one, one]", 1), "", "null", "a: &a [*a]", "version: 0x1", "version: 1\nversion: 2"} {
		f.Add([]byte(text), uint32(0), uint32(0), []byte(nil))
		for at := 0; at < len(text); at += 25 {
			f.Add([]byte(text), uint32(at), uint32(1), []byte("&"))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, at, cut uint32, insert []byte) {
		from := min(int(at), len(text))
		text = slices.Concat(text[:from], insert, text[min(from+int(cut), len(text)):])
		d, err := ParseDraft(text)
		if err != nil {
			if d != nil || !errors.Is(err, ErrPolicy) {
				t.Errorf("ParseDraft(%q) = %v, %v", text, d, err)
			}
			return
		}
		p, err := d.policy(nil)
		again, encodeErr := d.Encode(nil)
		if err != nil || encodeErr != nil {
			if p != nil || again != nil || !errors.Is(err, ErrPolicy) && err != nil {
				t.Errorf("%q is %v, %v, and encoded %q, %v", text, p, err, again, encodeErr)
			}
			return
		}
		if other, err := ParseDraft(again); err != nil || !reflect.DeepEqual(other, d) {
			t.Errorf("%q is %+v, and encoded as %q %+v, %v", text, d, again, other, err)
		}
		quorums := []quorum{p.root}
		for _, r := range p.roles {
			quorums = append(quorums, r.quorum)
			if len(r.bundles) == 0 || len(r.targets) == 0 || r.maxAge < 0 {
				t.Errorf("%q has the role %+v", text, r)
			}
		}
		for _, r := range p.images {
			quorums = append(quorums, quorum{keys: r.keys, threshold: r.threshold})
			if len(r.patterns) == 0 || len(r.identities) > 0 {
				t.Errorf("%q has the rule %+v", text, r)
			}
		}
		for _, q := range quorums {
			prints := map[string]bool{}
			for _, k := range q.keys {
				prints[k.Fingerprint()] = true
			}
			if q.threshold < 1 || q.threshold > len(prints) {
				t.Errorf("%q needs %d of %d keys", text, q.threshold, len(prints))
			}
		}
	})
}

// FuzzEvidence shows that whatever comes with an image, it counts only when
// there is a signature in it that the key has made of this image (T02, T22).
func FuzzEvidence(f *testing.F) {
	one := committedSigner(f, "one")
	trusted := sigstoretest.New(f)
	content, err := root.NewTrustedRootFromJSON(trusted.TrustedRoot(false))
	if err != nil {
		f.Fatal(err)
	}
	id, err := DraftIdentity{Issuer: "https://x", Subject: "nobody@example.com"}.identity()
	if err != nil {
		f.Fatal(err)
	}
	rule := &ImageRule{keys: []*policyKey{{Key: one.Key(), name: "one"}}, identities: []identity{id}, threshold: 1, root: content}
	payload, statement := simplePayload(anImage), sigstoretest.Statement(anImage.Hex(), predicateSignature)
	by := sigstoretest.Options{Issuer: "https://x", Subject: "somebody@example.com"}
	keyless := trusted.SignPayload(payload, by)
	envelope := envelopeOf(f, one, statement, payloadInToto, payloadInToto)
	kinds := []string{mediaTypeSimpleSigning, mediaTypeDSSE, mediaTypeBundle + ".v0.3+json"}
	add := func(kind int, content []byte, annotations map[string]string) {
		for at := 0; at < len(content); at += 1 + len(content)/20 {
			f.Add(uint8(kind), content, annotations[annotationSignature], annotations[annotationCertificate], annotations[annotationRekor], uint32(at), uint32(1), []byte("a"))
		}
		f.Add(uint8(kind), content, annotations[annotationSignature], annotations[annotationCertificate], annotations[annotationRekor], uint32(0), uint32(0), []byte(nil))
	}
	add(0, payload, signedLayer(f, one, payload).Annotations)
	add(0, payload, keyless)
	add(1, envelope, nil)
	add(2, trusted.Bundle(statement, by), nil)
	err = newBundle(envelope, one.Key().Fingerprint()).Read(f.Context(), func(content []byte) error { add(2, content, nil); return nil })
	if err != nil {
		f.Fatal(err)
	}
	public, _ := publicOf(f, one.Key()).(*ecdsa.PublicKey)
	f.Fuzz(func(t *testing.T, kind uint8, content []byte, signature, certificate, entry string, at, cut uint32, insert []byte) {
		from := min(int(at), len(content))
		content = slices.Concat(content[:from], insert, content[min(from+int(cut), len(content)):])
		e := piece(kinds[int(kind)%len(kinds)], content, map[string]string{annotationSignature: signature, annotationCertificate: certificate, annotationRekor: entry})
		verdict, err := rule.Check(t.Context(), anImage, []Evidence{e}, noon)
		if err != nil {
			if verdict != nil || !errors.Is(err, ErrUntrusted) {
				t.Errorf("%v, %v", verdict, err)
			}
			return
		}
		// The certificates of the seeds are of somebody else, so it is the key.
		s, err := parseEvidence(e, content)
		if err != nil || len(verdict.Signers) != 1 || verdict.Signers[0].Key != "one" {
			t.Fatalf("it counts as %v, %v", verdict, err)
		}
		message, sig := content, s.byKey.GetMessageSignature().GetSignature()
		if dsse := s.byKey.GetDsseEnvelope(); dsse != nil {
			message, sig = sigstoretest.PAE(dsse.GetPayloadType(), dsse.GetPayload()), dsse.GetSignatures()[0].GetSig()
		} else if kind%3 == 2 {
			message = []byte("an image")
		}
		if hash := sha256.Sum256(message); !ecdsa.VerifyASN1(public, hash[:], sig) {
			t.Errorf("%q counts, which is no signature", content)
		}
		if _, err := rule.Check(t.Context(), anotherImage, []Evidence{e}, noon); err == nil {
			t.Error("it counts for another image, too")
		}
	})
}
