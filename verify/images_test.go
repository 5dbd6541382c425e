package verify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"ferry/internal/sigstoretest"
)

// anImage and anotherImage are the images that these tests are about.
var (
	anImage      = DigestOf([]byte("an image"))
	anotherImage = DigestOf([]byte("another image"))
)

const (
	provenance = "https://slsa.dev/provenance/v1"
	spdx       = "https://spdx.dev/Document"
)

var imageRefusals = []error{ErrImageUnsigned, ErrImageSignature, ErrImageSigner, ErrImageThreshold, ErrAttestation, ErrSBOM}

// piece is evidence with some content.
func piece(mediaType string, content []byte, annotations map[string]string) Evidence {
	return Evidence{Name: "a layer", MediaType: mediaType, Annotations: annotations, Size: int64(len(content)),
		Read: func(_ context.Context, use func([]byte) error) error { return use(content) }}
}

// simplePayload is what cosign signs of an image.
func simplePayload(image Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"x/y"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}`, image)
}

// rawSignature returns what the key of that name makes of a message.
func rawSignature(t testing.TB, s *Signer, message []byte) []byte {
	t.Helper()
	sig, err := s.private.SignMessage(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func signedLayer(t testing.TB, s *Signer, payload []byte) Evidence {
	return piece(mediaTypeSimpleSigning, payload, map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(rawSignature(t, s, payload))})
}

func classicSignature(t *testing.T, by string, image Digest) Evidence {
	t.Helper()
	return signedLayer(t, testSigner(t, by), simplePayload(image))
}

// envelopeOf returns a DSSE envelope that says payloadType, signed as if it said
// signedType.
func envelopeOf(t testing.TB, s *Signer, statement []byte, payloadType, signedType string) []byte {
	t.Helper()
	content, err := json.Marshal(map[string]any{"payloadType": payloadType, "payload": statement,
		"signatures": []any{map[string]any{"keyid": "", "sig": rawSignature(t, s, sigstoretest.PAE(signedType, statement))}}})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func classicAttestation(t *testing.T, by string, image Digest, predicate string) Evidence {
	t.Helper()
	return piece(mediaTypeDSSE, envelopeOf(t, testSigner(t, by), sigstoretest.Statement(image.Hex(), predicate), payloadInToto, payloadInToto), nil)
}

// newBundle returns a Sigstore bundle of a DSSE envelope, that names the key
// hint.
func newBundle(envelope []byte, hint string) Evidence {
	return piece(mediaTypeBundle+".v0.3+json", fmt.Appendf(nil,
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":%q}},"dsseEnvelope":%s}`, hint, envelope), nil)
}

func attestationBundle(t *testing.T, by string, image Digest, predicate string) Evidence {
	t.Helper()
	s := testSigner(t, by)
	return newBundle(envelopeOf(t, s, sigstoretest.Statement(image.Hex(), predicate), payloadInToto, payloadInToto), s.Key().Fingerprint())
}

func signatureBundle(t *testing.T, by string, image Digest) Evidence {
	t.Helper()
	return attestationBundle(t, by, image, predicateSignature)
}

// manifestBundle is what "cosign sign-blob" makes of the manifest itself.
func manifestBundle(t *testing.T, by string, manifest string) Evidence {
	t.Helper()
	return piece(mediaTypeBundle+".v0.3+json", sign(t, by, []byte(manifest)), nil)
}

// changed returns e with other content.
func changed(e Evidence, change func([]byte) []byte) Evidence {
	read := e.Read
	e.Read = func(ctx context.Context, use func([]byte) error) error {
		return read(ctx, func(content []byte) error { return use(change(bytes.Clone(content))) })
	}
	return e
}

func replacing(old, new string) func([]byte) []byte {
	return func(content []byte) []byte { return bytes.Replace(content, []byte(old), []byte(new), 1) }
}

// imageDraft is a policy with one rule for all images: one signature of a.
func imageDraft(t *testing.T, change func(*DraftImage)) *Draft {
	t.Helper()
	d := draft(t)
	d.Images = []DraftImage{{Repositories: []string{"**"}, Keys: []string{"a"}, Threshold: 1}}
	if change != nil {
		change(&d.Images[0])
	}
	return d
}

// The rule for key pairs: each refusal has its own error, all are ErrUntrusted.
func TestImageRule(t *testing.T) {
	rule := func(change func(*DraftImage)) func(*DraftImage) { return change }
	two := rule(func(r *DraftImage) { r.Keys, r.Threshold = []string{"a", "b"}, 2 })
	wantsProvenance := rule(func(r *DraftImage) { r.Attestations = []string{provenance} })
	wantsSBOM := rule(func(r *DraftImage) { r.SBOM = true })
	by := func(e ...Evidence) []Evidence { return e }
	good := classicSignature(t, "a", anImage)
	flipped := changed(good, replacing(`"x/y"`, `"x/z"`))
	broken := good
	broken.Annotations = map[string]string{annotationSignature: "%"}
	unsigned := good
	unsigned.Annotations = nil
	more := good
	more.Annotations = map[string]string{annotationSignature: good.Annotations[annotationSignature] + "!"}
	digest := DigestOf([]byte("manifest"))
	short := changed(manifestBundle(t, "a", "manifest"), replacing(base64.StdEncoding.EncodeToString(digest[:]), base64.StdEncoding.EncodeToString(digest[:31])))
	a := testSigner(t, "a")
	statement := sigstoretest.Statement(anImage.Hex(), provenance)
	raw := piece(mediaTypeDSSE, fmt.Appendf(nil, `{"payloadType":%q,"payload":%q,"signatures":[{"sig":%q}]}`, payloadInToto,
		base64.StdEncoding.EncodeToString(statement), base64.StdEncoding.EncodeToString(rawSignature(t, a, statement))), nil)
	large := classicAttestation(t, "a", anImage, spdx)
	large.Size = MaxEvidence + 1
	large.Read = func(context.Context, func([]byte) error) error { t.Error("what is too large is read"); return nil }
	lying := good
	lying.Read = func(_ context.Context, use func([]byte) error) error { return use(make([]byte, MaxEvidence+1)) }
	for _, tt := range []struct {
		name     string
		rule     func(*DraftImage)
		evidence []Evidence
		want     error
		says     string // of the error, or the signers
	}{
		{"classic", nil, by(good), nil, "a"},
		{"bundle", nil, by(signatureBundle(t, "a", anImage)), nil, "a"},
		{"bundle without a hint", nil, by(newBundle(envelopeOf(t, a, sigstoretest.Statement(anImage.Hex(), predicateSignature), payloadInToto, payloadInToto), "")), nil, "a"},
		{"bundle over the manifest", nil, by(manifestBundle(t, "a", "an image")), nil, "a"},
		{"good beside others", nil, by(classicSignature(t, "b", anImage), flipped, broken, classicSignature(t, "a", anotherImage), good), nil, "a"},
		{"two", two, by(classicSignature(t, "b", anImage), signatureBundle(t, "a", anImage)), nil, "b a"},
		{"one of two that is enough", func(r *DraftImage) { r.Keys = []string{"a", "b"} }, by(classicSignature(t, "b", anImage)), nil, "b"},

		{"none", nil, nil, ErrImageUnsigned, "0 of the 1 keys and identities that are needed of the rule for **"},
		{"only an attestation", nil, by(classicAttestation(t, "a", anImage, provenance)), ErrImageUnsigned, ""},
		{"only an attestation in a bundle", nil, by(attestationBundle(t, "a", anImage, provenance)), ErrImageUnsigned, ""},
		{"another key", nil, by(classicSignature(t, "b", anImage)), ErrImageSigner, "of 1 signatures none is good with a key"},
		{"another key in a bundle", nil, by(signatureBundle(t, "b", anImage)), ErrImageSigner, ""},
		{"another key that takes the name of ours", nil, by(changed(signatureBundle(t, "b", anImage), replacing(testSigner(t, "b").Key().Fingerprint(), a.Key().Fingerprint()))),
			ErrImageSignature, `not the signature of "a" that it says it is`},
		{"of another image", nil, by(classicSignature(t, "a", anotherImage)), ErrImageSignature, "of another image, " + anotherImage.String()},
		{"of another image, in a bundle", nil, by(signatureBundle(t, "a", anotherImage)), ErrImageSignature, "of another image, " + anotherImage.String()},
		{"of another image, over its manifest", nil, by(manifestBundle(t, "a", "another image")), ErrImageSignature, "of another image, " + anotherImage.String()},
		{"over its manifest, by another hash", nil, by(changed(manifestBundle(t, "a", "an image"), replacing("SHA2_256", "SHA3_256"))), ErrImageSignature, "by its SHA-256 digest"},
		{"of another image that was renamed", nil, by(changed(classicSignature(t, "a", anotherImage), replacing(anotherImage.String(), anImage.String()))), ErrImageSigner, ""},
		{"of another image that was renamed in a bundle", nil, by(changed(manifestBundle(t, "a", "another image"),
			replacing(base64.StdEncoding.EncodeToString(anotherImage[:]), base64.StdEncoding.EncodeToString(anImage[:])))), ErrImageSignature, ""},
		{"flipped", nil, by(flipped), ErrImageSigner, ""},
		{"no JSON", nil, by(changed(good, func(b []byte) []byte { return b[1:] })), ErrImageSignature, "no simple signing claim"},
		{"broken", nil, by(broken), ErrImageSignature, "no signature in its annotations"},
		{"without the annotation", nil, by(unsigned), ErrImageSignature, "no signature in its annotations"},
		{"larger than it says", nil, by(lying), ErrImageSignature, "more than 16777216 bytes"},
		{"empty", nil, by(changed(good, func([]byte) []byte { return nil })), ErrImageSignature, ""},
		{"of another kind of payload", nil, by(signedLayer(t, a, bytes.Replace(simplePayload(anImage), []byte("cosign container"), []byte("some other"), 1))), ErrImageSignature, `type "some other image signature"`},
		{"of a shorter digest", nil, by(signedLayer(t, a, bytes.Replace(simplePayload(anImage), []byte("sha256:"), []byte("sha256:0"), 1))), ErrImageSignature, "64 lower-case"},
		{"a signature of a document", nil, by(piece(mediaTypeBundle+".v0.3+json", sign(t, "a", simplePayload(anImage)), nil)), ErrImageSignature, "of another image"},
		{"signature with more behind it", nil, by(more), ErrImageSignature, "no signature in its annotations"},
		{"attestation that nobody has signed", wantsProvenance, by(good, piece(mediaTypeDSSE, fmt.Appendf(nil, `{"payloadType":%q,"payload":%q,"signatures":[]}`, payloadInToto,
			base64.StdEncoding.EncodeToString(statement)), nil)), ErrAttestation, "of 1 signatures none is good"},
		{"bundle of a short digest", nil, by(short), ErrImageSignature, "by its SHA-256 digest"},
		{"bundle that is none", nil, by(piece(mediaTypeBundle+".v0.3+json", []byte("{}"), nil)), ErrImageSignature, "no Sigstore bundle"},
		{"one of two is not enough", two, by(good), ErrImageThreshold, "1 of the 2 keys"},
		{"same key twice", two, by(good, signatureBundle(t, "a", anImage)), ErrImageThreshold, `"a" counts once; 1 of the 2`}, // T22
		{"same key twice, other bytes", two, by(good, classicSignature(t, "a", anImage), manifestBundle(t, "a", "an image")), ErrImageThreshold, "counts once"},
		{"too many", nil, make([]Evidence, MaxEvidences+1), ErrImageSignature, "513 signatures and attestations, more than 512"},

		{"attested", wantsProvenance, by(good, classicAttestation(t, "a", anImage, provenance)), nil, "a " + provenance},
		{"attested in a bundle", wantsProvenance, by(good, attestationBundle(t, "a", anImage, provenance)), nil, "a " + provenance},
		{"attested, not signed", wantsProvenance, by(attestationBundle(t, "a", anImage, provenance)), ErrImageUnsigned, ""},
		{"not attested", wantsProvenance, by(good), ErrAttestation, provenance + ": 0 of the 1"},
		{"attested of another type", wantsProvenance, by(good, classicAttestation(t, "a", anImage, "https://slsa.dev/provenance/v0.2")), ErrAttestation, provenance},
		{"attested of another image", wantsProvenance, by(good, classicAttestation(t, "a", anotherImage, provenance)), ErrAttestation, "of another image, " + anotherImage.String()},
		{"attested of another image in a bundle", wantsProvenance, by(good, attestationBundle(t, "a", anotherImage, provenance)), ErrAttestation, "of another image"},
		{"attested by a stranger", wantsProvenance, by(good, classicAttestation(t, "b", anImage, provenance)), ErrAttestation, "of 1 signatures none is good"},
		{"attested by one of two", func(r *DraftImage) { two(r); wantsProvenance(r) }, by(good, classicSignature(t, "b", anImage), classicAttestation(t, "b", anImage, provenance)), ErrAttestation, "1 of the 2"},
		{"payload type spoofed", wantsProvenance, by(good, piece(mediaTypeDSSE, envelopeOf(t, a, statement, payloadInToto, "application/vnd.other+json"), nil)), ErrAttestation, "none is good"}, // T22
		{"payload type of something else", wantsProvenance, by(good, piece(mediaTypeDSSE, envelopeOf(t, a, statement, "application/json", "application/json"), nil)), ErrAttestation, `type "application/json"`},
		{"payload type spoofed in a bundle", wantsProvenance, by(good, newBundle(envelopeOf(t, a, statement, payloadInToto, "text/plain"), "")), ErrAttestation, "none is good"},
		{"signed without its type", wantsProvenance, by(good, raw), ErrAttestation, "none is good"},
		{"a statement of another kind", wantsProvenance, by(good, piece(mediaTypeDSSE, envelopeOf(t, a, bytes.Replace(statement, []byte("in-toto.io"), []byte("example.com"), 1), payloadInToto, payloadInToto), nil)), ErrAttestation, "not of in-toto"},
		{"an ambiguous type", wantsProvenance, by(good, piece(mediaTypeDSSE, envelopeOf(t, a, bytes.Replace(statement, []byte(`"predicate":`), []byte(`"PredicateType":"x","predicate":`), 1), payloadInToto, payloadInToto), nil)),
			ErrAttestation, `key "PredicateType" is unknown`}, // T11
		{"a signature for a wanted attestation", wantsProvenance, by(good, signatureBundle(t, "a", anImage)), ErrAttestation, ""},
		{"too large", wantsProvenance, by(good, large), ErrAttestation, "16777217 bytes, more than 16777216"},

		{"with SPDX", wantsSBOM, by(good, classicAttestation(t, "a", anImage, spdx)), nil, "a " + spdx},
		{"with SPDX of a version", wantsSBOM, by(good, attestationBundle(t, "a", anImage, spdx+"/v2.3")), nil, "a " + spdx + "/v2.3"},
		{"with CycloneDX", wantsSBOM, by(good, attestationBundle(t, "a", anImage, "https://cyclonedx.org/bom")), nil, "a https://cyclonedx.org/bom"},
		{"without an SBOM", wantsSBOM, by(good, classicAttestation(t, "a", anImage, provenance)), ErrSBOM, "SPDX or CycloneDX: 0 of the 1"},
		{"with an SBOM of a name that begins alike", wantsSBOM, by(good, classicAttestation(t, "a", anImage, spdx+"s")), ErrSBOM, ""},
		{"with an SBOM by a stranger", wantsSBOM, by(good, classicAttestation(t, "b", anImage, spdx)), ErrSBOM, "none is good"},
		{"with all", func(r *DraftImage) { wantsProvenance(r); wantsSBOM(r) }, by(attestationBundle(t, "a", anImage, spdx), attestationBundle(t, "a", anImage, provenance), good), nil, "a " + provenance + " " + spdx},
	} {
		p := policyOf(t, imageDraft(t, tt.rule))
		verdict, err := p.ImageRule("team/app").Check(t.Context(), anImage, tt.evidence, noon)
		if tt.want == nil {
			if got := verdictText(verdict); err != nil || got != tt.says {
				t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.says)
			}
			continue
		}
		if verdict != nil || !errors.Is(err, tt.want) || !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
		for _, other := range append(imageRefusals, refusals...) {
			if other != tt.want && errors.Is(err, other) {
				t.Errorf("%s: it is also %v", tt.name, other)
			}
		}
	}
}

func verdictText(v *ImageVerdict) string {
	if v == nil {
		return ""
	}
	var words []string
	for _, s := range v.Signers {
		words = append(words, s.String())
	}
	return strings.Join(append(words, v.Attestations...), " ")
}

// A statement has one meaning, or none (T11).
func TestParseInToto(t *testing.T) {
	good := string(sigstoretest.Statement(anImage.Hex(), provenance))
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for text, says := range map[string]string{
		good:              "",
		" " + good + "\n": "",
		with(`"predicate":{}`, `"predicate":{"a":[1,{"_type":"x"}]}`): "",
		with(`"predicate":{}`, `"predicate_type":"x"`):                `"predicate_type" is unknown`,
		with(`"predicate":{}`, `"PredicateType":"x"`):                 `"PredicateType" is unknown`,
		with(`"predicate":{}`, `"predicateType":"x"`):                 `"predicateType" is there twice`,
		with(`"predicate":{}`, `"subject":[]`):                        `"subject" is there twice`,
		with(`"predicate":{}`, `"predicate":{`):                       "unexpected EOF",
		with(`"predicate":{}}`, `"predicate":{}`):                     "EOF",
		good + good:            "more after it",
		good + "]":             "more after it",
		"":                     "no JSON object",
		"[]":                   "no JSON object",
		`"x"`:                  "no JSON object",
		"{1:2}":                "invalid character",
		`{"_type":1}`:          "cannot unmarshal",
		`{"predicateType":[]}`: "cannot unmarshal",
		`{"subject":{}}`:       "subject is no list",
		`{"subject":[1]}`:      "cannot unmarshal",
		`{"subject":[{}`:       "EOF",
		`{"subject":[` + strings.Repeat("{},", maxSubjects) + `{}]}`: "more than 1024 subjects",
	} {
		s, err := parseInToto([]byte(text))
		if says == "" && (err != nil || s.PredicateType != provenance || len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != anImage.Hex()) {
			t.Errorf("%q is %v, %v", text, s, err)
		}
		if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.200q: %v, want %q", text, err, says)
		}
	}
}

// T23: a key counts while it is valid, by the time of the check.
func TestImageKeyValidity(t *testing.T) {
	d := imageDraft(t, func(r *DraftImage) { r.Keys, r.Attestations = []string{"c"}, []string{provenance} })
	d.Keys[2].NotBefore, d.Keys[2].NotAfter = clock(-time.Hour), clock(time.Hour)
	rule := policyOf(t, d).ImageRule("x")
	evidence := []Evidence{classicSignature(t, "c", anImage), classicAttestation(t, "c", anImage, provenance)}
	for at, want := range map[time.Duration]error{-time.Hour - time.Second: ErrKeyNotYetValid, -time.Hour: nil, time.Hour - time.Second: nil, time.Hour: ErrKeyExpired} {
		if _, err := rule.Check(t.Context(), anImage, evidence, noon.Add(at)); !errors.Is(err, want) {
			t.Errorf("at %s: %v, want %v", at, err, want)
		}
	}
}

// What can not be read is no refusal, and no verdict.
func TestImageEvidenceUnreadable(t *testing.T) {
	rule := policyOf(t, imageDraft(t, nil)).ImageRule("x")
	broken := errors.New("connection reset")
	unreadable := classicSignature(t, "a", anImage)
	unreadable.Read = func(context.Context, func([]byte) error) error { return broken }
	_, err := rule.Check(t.Context(), anImage, []Evidence{classicSignature(t, "a", anImage), unreadable}, noon)
	if !errors.Is(err, broken) || errors.Is(err, ErrUntrusted) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rule.Check(ctx, anImage, []Evidence{classicSignature(t, "a", anImage)}, noon); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestImagePatterns(t *testing.T) {
	for _, tt := range []struct{ pattern, repository string }{
		{"team/app", "team/app"}, {"team/*", "team/app"}, {"*", "app"}, {"*/app", "team/app"}, {"team/app-?", "team/app-1"}, {"team/[ab]*", "team/bin"},
		{"**", "app"}, {"**", "team/app/web"}, {"team/**", "team/app"}, {"team/**", "team/app/web"}, {"*/app/**", "team/app/web/x"},
	} {
		if !fits(tt.pattern, tt.repository) {
			t.Errorf("%q does not fit %q", tt.pattern, tt.repository)
		}
	}
	for _, tt := range []struct{ pattern, repository string }{
		{"team", "team/app"}, {"team/app", "team"}, {"team/*", "team"}, {"team/*", "team/app/web"}, {"*", "team/app"}, {"team/**", "team"}, {"team/**", "teams/app"},
		{"team/app", "team/app2"}, {"app", "team/app"}, {"*app", "team/app"}, {"", "team"}, {"team/app-?", "team/app-"},
	} {
		if fits(tt.pattern, tt.repository) {
			t.Errorf("%q fits %q", tt.pattern, tt.repository)
		}
	}
	d := imageDraft(t, func(r *DraftImage) { r.Repositories = []string{"team/x", "team/y"} })
	d.Images = append(d.Images, DraftImage{Repositories: []string{"team/**"}, Keys: []string{"b"}, Threshold: 1})
	p := policyOf(t, d)
	for repository, want := range map[string]string{"team/x": "a", "team/y": "a", "team/z": "b", "team/x/z": "b", "other/x": "", "team": ""} {
		rule, got := p.ImageRule(repository), ""
		if rule != nil {
			got = rule.keys[0].name
		}
		if got != want {
			t.Errorf("%s is for %q, want %q", repository, got, want)
		}
	}
	var none *Policy
	if !p.HasImageRules() || none.HasImageRules() || none.ImageRule("x") != nil || KeyPolicy(testSigner(t, "a").Key()).ImageRule("x") != nil {
		t.Error("there are rules where there are none, or none where there are")
	}
}

// identityDraft is a policy with a rule for images with keyless signatures, and
// the folder with its trusted root.
func identityDraft(t *testing.T, trusted []byte, identities ...DraftIdentity) (*Draft, fstest.MapFS) {
	t.Helper()
	d := imageDraft(t, func(r *DraftImage) {
		r.Keys, r.Identities, r.TrustedRoot = nil, identities, &DraftFile{"root.json", DigestOf(trusted).Hex()}
	})
	return d, fstest.MapFS{"root.json": {Data: trusted}}
}

func ruleWith(t *testing.T, d *Draft, files fstest.MapFS) *ImageRule {
	t.Helper()
	raw, err := d.Encode(files)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPolicy(t.Context(), raw, signAll(t, "ab", raw), files, noon)
	if err != nil {
		t.Fatal(err)
	}
	return p.ImageRule("team/app")
}

// Keyless signatures: who, and what proves it.
func TestImageIdentity(t *testing.T) {
	const issuer, subject = "https://token.example", "builder@example.com"
	s, other := sigstoretest.New(t), sigstoretest.New(t)
	who := sigstoretest.Options{Issuer: issuer, Subject: subject}
	with := func(change func(*sigstoretest.Options)) sigstoretest.Options {
		o := who
		change(&o)
		return o
	}
	classic := func(s *sigstoretest.Sigstore, o sigstoretest.Options) Evidence {
		payload := simplePayload(anImage)
		return piece(mediaTypeSimpleSigning, payload, s.SignPayload(payload, o))
	}
	bundled := func(o sigstoretest.Options, image Digest, predicate string) Evidence {
		return piece(mediaTypeBundle+".v0.3+json", s.Bundle(sigstoretest.Statement(image.Hex(), predicate), o), nil)
	}
	attested := func(o sigstoretest.Options) Evidence {
		content, annotations := s.Attest(sigstoretest.Statement(anImage.Hex(), provenance), o)
		return piece(mediaTypeDSSE, content, annotations)
	}
	exact := DraftIdentity{Issuer: issuer, Subject: subject}
	stripped := classic(s, who)
	delete(stripped.Annotations, annotationCertificate)
	mixed := classic(s, who)
	mixed.Annotations[annotationRekor] = classic(s, who).Annotations[annotationRekor]
	garbled := classic(s, who)
	garbled.Annotations[annotationRekor] = `{"SignedEntryTimestamp":"AAAA","Payload":{"body":1}}`
	noPEM := classic(s, who)
	noPEM.Annotations[annotationCertificate] = "x"
	for _, tt := range []struct {
		name     string
		evidence []Evidence
		identity DraftIdentity
		change   func(*DraftImage)
		want     error
		says     string
	}{
		{"classic", []Evidence{classic(s, who)}, exact, nil, nil, subject},
		{"bundle", []Evidence{bundled(who, anImage, predicateSignature)}, exact, nil, nil, subject},
		{"bundle with a time stamp", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.Timestamp = true }), anImage, predicateSignature)}, exact, nil, nil, subject},
		{"bundle with only a time stamp for the time", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.Timestamp, o.NoPromise = true, true }), anImage, predicateSignature)}, exact, nil, nil, subject},
		{"classic attestation", []Evidence{classic(s, who), attested(who)}, exact, func(r *DraftImage) { r.Attestations = []string{provenance} }, nil, subject + " " + provenance},
		{"regular expressions", []Evidence{classic(s, who)}, DraftIdentity{IssuerRegexp: `https://token\..*`, SubjectRegexp: `b.*@example\.com|x`}, nil, nil, subject},
		{"key or identity", []Evidence{classic(s, who)}, exact, func(r *DraftImage) { r.Keys = []string{"a"} }, nil, subject},
		{"key and identity", []Evidence{classic(s, who), classicSignature(t, "a", anImage)}, exact, func(r *DraftImage) { r.Keys, r.Threshold = []string{"a"}, 2 }, nil, subject + " a"},

		{"two identities", []Evidence{classic(s, who), classic(s, with(func(o *sigstoretest.Options) { o.Subject = "x@y" }))}, exact, func(r *DraftImage) {
			r.Identities, r.Threshold = append(r.Identities, DraftIdentity{Issuer: issuer, Subject: "x@y"}), 2
		}, nil, subject + " x@y"},

		{"none", nil, exact, nil, ErrImageUnsigned, ""},
		{"wrong issuer", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.Issuer = "https://other.example" }))}, exact, nil, ErrImageSigner, ""},
		{"wrong issuer in a bundle", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.Issuer = issuer + "/" }), anImage, predicateSignature)}, exact, nil, ErrImageSigner, ""},
		{"wrong subject", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.Subject = "x" + subject }))}, exact, nil, ErrImageSigner, ""},
		{"more than the regular expression", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.Subject = subject + ".evil" }))}, DraftIdentity{Issuer: issuer, SubjectRegexp: `builder@example\.com`}, nil, ErrImageSigner, ""},
		{"before the regular expression", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.Subject = "x" + subject }))}, DraftIdentity{Issuer: issuer, SubjectRegexp: `a|builder@example\.com`}, nil, ErrImageSigner, ""},
		{"no log entry", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.NoLog = true }))}, exact, nil, ErrImageSignature, "verified log entries"},
		{"no log entry in a bundle", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.NoLog = true }), anImage, predicateSignature)}, exact, nil, ErrImageSignature, "verified log entries"},
		{"no log entry but a time stamp", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.NoLog, o.Timestamp = true, true }), anImage, predicateSignature)}, exact, nil, ErrImageSignature, "verified log entries"},
		{"log entry of another signature", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.OtherEntry = true }))}, exact, nil, ErrImageSignature, "does not match"},
		{"log entry of another certificate", []Evidence{mixed}, exact, nil, ErrImageSignature, "does not match"},
		{"log entry that is none", []Evidence{garbled}, exact, nil, ErrImageSignature, "log entry"},
		{"another root", []Evidence{classic(other, who)}, exact, nil, ErrImageSignature, "verified log entries"},
		{"signed after the certificate's end", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.LogDelay = 11 * time.Minute }))}, exact, nil, ErrImageSignature, "outside certificate validity"},
		{"signed before its beginning", []Evidence{classic(s, with(func(o *sigstoretest.Options) { o.LogDelay = -time.Minute }))}, exact, nil, ErrImageSignature, "outside certificate validity"},
		{"nothing vouches for the time", []Evidence{bundled(with(func(o *sigstoretest.Options) { o.NoPromise = true }), anImage, predicateSignature)}, exact, nil, ErrImageSignature, "timestamps"},
		{"of another image", []Evidence{bundled(who, anotherImage, predicateSignature)}, exact, nil, ErrImageSignature, "of another image"},
		{"flipped", []Evidence{changed(classic(s, who), replacing(`"x/y"`, `"x/z"`))}, exact, nil, ErrImageSignature, ""},
		{"without the certificate", []Evidence{stripped}, exact, nil, ErrImageSigner, ""},
		{"a certificate that is none", []Evidence{noPEM}, exact, nil, ErrImageSignature, "PEM"},
		{"a key that has signed", []Evidence{classicSignature(t, "a", anImage)}, exact, nil, ErrImageSigner, ""},
		{"same identity twice", []Evidence{classic(s, who), bundled(who, anImage, predicateSignature)}, exact, func(r *DraftImage) { r.Keys, r.Threshold = []string{"a"}, 2 }, ErrImageThreshold, "counts once"},
		{"attestation by another", []Evidence{classic(s, who), attested(with(func(o *sigstoretest.Options) { o.Subject = "x@y" }))}, exact, func(r *DraftImage) { r.Attestations = []string{provenance} }, ErrAttestation, ""},
		{"attestation without a log entry", []Evidence{classic(s, who), attested(with(func(o *sigstoretest.Options) { o.NoLog = true }))}, exact, func(r *DraftImage) { r.Attestations = []string{provenance} }, ErrAttestation, "log entries"},
	} {
		d, files := identityDraft(t, s.TrustedRoot(false), tt.identity)
		if tt.change != nil {
			tt.change(&d.Images[0])
		}
		// The time of the check says nothing of a certificate that has ended.
		verdict, err := ruleWith(t, d, files).Check(t.Context(), anImage, tt.evidence, time.Now().Add(100000*time.Hour))
		if got := verdictText(verdict); tt.want == nil && (err != nil || got != tt.says) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.says)
		}
		if tt.want != nil && (verdict != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
	}
	d, files := identityDraft(t, s.TrustedRoot(true), exact)
	if _, err := ruleWith(t, d, files).Check(t.Context(), anImage, []Evidence{classic(s, who)}, noon); !errors.Is(err, ErrImageSignature) {
		t.Errorf("a certificate that is in no log of certificates: %v", err)
	}
}

// What a rule for images must not mean.
func TestImageDraftRefused(t *testing.T) {
	trusted := sigstoretest.New(t).TrustedRoot(false)
	sum := DigestOf(trusted).Hex()
	empty := []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	files := fstest.MapFS{"root.json": {Data: trusted}, "empty.json": {Data: empty}, "junk.json": {Data: []byte("junk")}, "large.json": {Data: make([]byte, maxTrustedRoot+1)}}
	some := DraftIdentity{Issuer: "https://x", Subject: "y"}
	keyless := func(r *DraftImage) {
		r.Keys, r.Identities, r.TrustedRoot = nil, []DraftIdentity{some}, &DraftFile{"root.json", sum}
	}
	if raw, err := imageDraft(t, keyless).Encode(files); err != nil {
		t.Errorf("a good one: %v", err)
	} else if d, err := ParseDraft(raw); err != nil || len(d.Images) != 1 || *d.Images[0].TrustedRoot != (DraftFile{"root.json", sum}) || d.Images[0].Identities[0] != some {
		t.Errorf("it comes back as %v, %v", d, err)
	}
	root := func(file, sum string) func(*DraftImage) {
		return func(r *DraftImage) { keyless(r); r.TrustedRoot = &DraftFile{file, sum} }
	}
	identity := func(id DraftIdentity) func(*DraftImage) {
		return func(r *DraftImage) { keyless(r); r.Identities[0] = id }
	}
	repositories := func(patterns ...string) func(*DraftImage) {
		return func(r *DraftImage) { r.Repositories = patterns }
	}
	for name, tt := range map[string]struct {
		change func(*DraftImage)
		says   string
	}{
		"no repositories":            {repositories(), "repositories are missing"},
		"empty":                      {repositories(""), `"" is not a pattern`},
		"at the root":                {repositories("/team"), `"/team" is not a pattern`},
		"slash at the end":           {repositories("team/"), `"team/" is not a pattern`},
		"above":                      {repositories("../team"), `"../team" is not a pattern`},
		"bad pattern":                {repositories("team/["), `"team/[" is not a pattern`},
		"with a tag":                 {repositories("team/app:v1"), `is not a pattern`},
		"with a digest":              {repositories("team/app@x"), `is not a pattern`},
		"upper case":                 {repositories("Team/*"), `is not a pattern`},
		"escaped":                    {repositories(`team/\*`), `is not a pattern`},
		"** within":                  {repositories("team/**/app"), "** elsewhere"},
		"** in a name":               {repositories("team/a**"), "** elsewhere"},
		"nobody":                     {func(r *DraftImage) { r.Keys = nil }, "threshold 1 is not between 1 and its 0"},
		"no threshold":               {func(r *DraftImage) { r.Threshold = 0 }, "threshold 0"},
		"threshold out of reach":     {func(r *DraftImage) { r.Threshold = 2 }, "threshold 2 is not between 1 and its 1"},
		"unknown key":                {func(r *DraftImage) { r.Keys = []string{"x"} }, `there is no key "x"`},
		"key twice":                  {func(r *DraftImage) { r.Keys = []string{"a", "a"} }, `key "a" is there twice`},
		"identity twice":             {func(r *DraftImage) { keyless(r); r.Identities = append(r.Identities, some) }, "identity 2 is there twice"},
		"identity without a root":    {func(r *DraftImage) { keyless(r); r.TrustedRoot = nil }, "identities need a trustedRoot"},
		"root without an identity":   {func(r *DraftImage) { r.TrustedRoot = &DraftFile{"root.json", sum} }, "identities need a trustedRoot"},
		"no issuer":                  {identity(DraftIdentity{Subject: "y"}), "identity 1: want one of issuer and issuerRegexp"},
		"two issuers":                {identity(DraftIdentity{Issuer: "x", IssuerRegexp: "x", Subject: "y"}), "want one of issuer and issuerRegexp"},
		"no subject":                 {identity(DraftIdentity{Issuer: "x"}), "want one of subject and subjectRegexp"},
		"two subjects":               {identity(DraftIdentity{Issuer: "x", Subject: "y", SubjectRegexp: "y"}), "want one of subject and subjectRegexp"},
		"bad expression":             {identity(DraftIdentity{Issuer: "x", SubjectRegexp: "("}), "subjectRegexp: error parsing"},
		"expression that breaks out": {identity(DraftIdentity{IssuerRegexp: "a)|(b", Subject: "y"}), "issuerRegexp: error parsing"},
		"root without a file":        {root("", sum), "file is missing"},
		"root without a sum":         {root("root.json", ""), "it needs a sha256"},
		"root with a digest":         {root("root.json", "sha256:"+sum), "it needs a sha256"},
		"root in upper case":         {root("root.json", strings.ToUpper(sum)), "it needs a sha256"},
		"another root":               {root("empty.json", sum), "has sha256 " + DigestOf(empty).Hex()},
		"no such root":               {root("none.json", sum), "none.json"},
		"root above":                 {root("../root.json", sum), "../root.json"},
		"large root":                 {root("large.json", sum), "more than 1048576 bytes"},
		"root of junk":               {root("junk.json", DigestOf([]byte("junk")).Hex()), "junk.json"},
		"root of nothing":            {root("empty.json", DigestOf(empty).Hex()), "no certificate authority"},
		"short predicate":            {func(r *DraftImage) { r.Attestations = []string{"slsaprovenance"} }, "is not a predicate type"},
		"empty predicate":            {func(r *DraftImage) { r.Attestations = []string{""} }, "is not a predicate type"},
		"predicate with a space":     {func(r *DraftImage) { r.Attestations = []string{"https://x y"} }, "is not a predicate type"},
		"predicate of signatures":    {func(r *DraftImage) { r.Attestations = []string{predicateSignature} }, "wanted anyway"},
		"predicate twice":            {func(r *DraftImage) { r.Attestations = []string{spdx, spdx} }, "is there twice"},
	} {
		raw, err := imageDraft(t, tt.change).Encode(files)
		if raw != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	if _, err := imageDraft(t, keyless).Encode(nil); err == nil {
		t.Error("a root is taken from nowhere")
	}
	good := string(encode(t, imageDraft(t, func(r *DraftImage) { r.SBOM = true })))
	if _, err := ParseDraft([]byte(good)); err != nil {
		t.Error(err)
	}
	for _, value := range []string{"yes", "on", "True", "1", `"true"`, "", "~", "[true]"} {
		if _, err := ParseDraft([]byte(strings.Replace(good, "sbom: true", "sbom: "+value, 1))); !errors.Is(err, ErrPolicy) {
			t.Errorf("sbom: %s is accepted: %v", value, err)
		}
	}
	for _, text := range []string{"images:\n  - sbomm: true\n", "images:\n  - repository: [x]\n", "images:\n  - keys: true\n", "images: true\n"} {
		if _, err := ParseDraft([]byte(good[:strings.Index(good, "images:")] + text)); !errors.Is(err, ErrPolicy) {
			t.Errorf("%q is accepted: %v", text, err)
		}
	}
}

func TestIsEvidence(t *testing.T) {
	for mediaType, want := range map[string]bool{
		"application/vnd.dev.cosign.simplesigning.v1+json": true, "application/vnd.dsse.envelope.v1+json": true,
		"application/vnd.dev.sigstore.bundle.v0.3+json": true, "application/vnd.dev.sigstore.bundle+json;version=0.2": true,
		"": false, "application/vnd.oci.image.layer.v1.tar+gzip": false, "text/spdx+json": false, "application/jose+json": false,
	} {
		if got := IsEvidence(mediaType); got != want {
			t.Errorf("IsEvidence(%q) = %t, want %t", mediaType, got, want)
		}
	}
}
