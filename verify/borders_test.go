package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"ferry/internal/sigstoretest"
)

// What is exactly as large as allowed is taken, and one more is not.
func TestEvidenceLimits(t *testing.T) {
	signer := testSigner(t, "a")
	for n, want := range map[int]error{MaxEvidence: nil, MaxEvidence + 1: ErrImageUnsigned} {
		payload := simplePayload(anImage)
		payload = append(payload, bytes.Repeat([]byte(" "), n-len(payload))...)
		e := classicSignature(t, "a", anImage)
		e = piece(e.MediaType, payload, map[string]string{annotationSignature: encode64(rawSignature(t, signer, payload))})
		checkImage(t, n, nil, []Evidence{e}, want)
		e.Size = 1 // as an unsigned descriptor may say
		if want != nil {
			want = ErrImageSignature
		}
		checkImage(t, n, nil, []Evidence{e}, want)
	}
	for n, want := range map[int]error{MaxEvidences: nil, MaxEvidences + 1: ErrImageSignature} {
		all := []Evidence{classicSignature(t, "a", anImage)}
		other := classicAttestation(t, "b", anImage, spdx)
		for len(all) < n {
			all = append(all, other)
		}
		checkImage(t, n, nil, all, want)
	}
}

func checkImage(t *testing.T, what any, change func(*DraftImage), evidence []Evidence, want error) {
	t.Helper()
	verdict, err := policyOf(t, imageDraft(t, change)).ImageRule("team/app").Check(t.Context(), anImage, evidence, noon)
	if !errors.Is(err, want) || (verdict == nil) != (want != nil) {
		t.Errorf("%v: %v, want %v", what, err, want)
	}
}

// Evidence that is no evidence is told as what it is, and never counts.
func TestEvidenceThatIsNone(t *testing.T) {
	certificate := func(content []byte) map[string]string {
		return map[string]string{annotationCertificate: string(content), annotationSignature: encode64([]byte("x"))}
	}
	envelope := envelopeOf(t, testSigner(t, "a"), sigstoretest.Statement(anImage.Hex(), spdx), payloadInToto, payloadInToto)
	wantsSBOM := func(r *DraftImage) { r.SBOM = true }
	good := classicSignature(t, "a", anImage)
	for _, tt := range []struct {
		name   string
		change func(*DraftImage)
		e      Evidence
		want   error
	}{
		{"of an unknown type", nil, piece("text/plain", []byte("x"), nil), ErrImageSignature},
		{"certificate of another kind", nil, piece(mediaTypeSimpleSigning, simplePayload(anImage), certificate(publicPEM(t, "a"))), ErrImageSignature},
		{"attestation whose certificate is none", wantsSBOM, piece(mediaTypeDSSE, envelope, certificate([]byte("x"))), ErrSBOM},
		{"attestation whose certificate is of another kind", wantsSBOM, piece(mediaTypeDSSE, envelope, certificate(publicPEM(t, "a"))), ErrSBOM},
		{"certificate of junk", nil, piece(mediaTypeSimpleSigning, simplePayload(anImage),
			certificate(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))), ErrImageSigner},
	} {
		evidence := []Evidence{tt.e}
		if tt.change != nil {
			evidence = append(evidence, good)
		}
		checkImage(t, tt.name, tt.change, evidence, tt.want)
	}
}

func TestHasImageRules(t *testing.T) {
	for name, tt := range map[string]struct {
		p    *Policy
		want bool
	}{
		"none":          {nil, false},
		"of keys":       {KeyPolicy(testSigner(t, "a").Key()), false},
		"without rules": {policyOf(t, draft(t)), false},
		"with one":      {policyOf(t, imageDraft(t, nil)), true},
	} {
		if got := tt.p.HasImageRules(); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

// A trusted root has both authorities and logs, and at most so many bytes.
func TestTrustedRoots(t *testing.T) {
	whole := sigstoretest.New(t).TrustedRoot(false)
	without := func(field string) []byte {
		var all map[string]any
		if err := json.Unmarshal(whole, &all); err != nil {
			t.Fatal(err)
		}
		if all[field] == nil {
			t.Fatalf("%s has no %q", whole, field)
		}
		delete(all, field)
		content, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	pad := func(n int) []byte { return append(bytes.Clone(whole), bytes.Repeat([]byte(" "), n-len(whole))...) }
	for name, tt := range map[string]struct {
		content []byte
		says    string
	}{
		"whole": {whole, ""}, "as large as allowed": {pad(maxTrustedRoot), ""}, "larger": {pad(maxTrustedRoot + 1), "has more than 1048576 bytes"},
		"without logs": {without("tlogs"), "no transparency log"}, "without authorities": {without("certificateAuthorities"), "no certificate authority"},
	} {
		files := fstest.MapFS{"root.json": {Data: tt.content}}
		d := imageDraft(t, func(r *DraftImage) {
			r.Keys, r.Identities = nil, []DraftIdentity{{Issuer: "x", Subject: "y"}}
			r.TrustedRoot = &DraftFile{"root.json", DigestOf(tt.content).Hex()}
		})
		if _, err := d.Encode(files); (tt.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

// brokenFS has a file that opens, and can not be read.
type brokenFS struct{ fstest.MapFS }

type brokenFile struct{ fs.File }

func (brokenFile) Read([]byte) (int, error) { return 0, errors.New("broken medium") }

func (b brokenFS) Open(name string) (fs.File, error) {
	f, err := b.MapFS.Open(name)
	return brokenFile{f}, err
}

func TestKeyFiles(t *testing.T) {
	d := draft(t)
	d.Keys[0] = DraftKey{Name: "a", File: "a.pub", Fingerprint: testSigner(t, "a").Key().Fingerprint()}
	files := fstest.MapFS{"a.pub": {Data: publicPEM(t, "a")}}
	for name, tt := range map[string]struct {
		files fs.FS
		says  string
	}{
		"there": {files, ""}, "no files": {nil, "there are no files beside this policy"}, "broken": {brokenFS{files}, "broken medium"},
		"missing": {fstest.MapFS{}, "a.pub"},
	} {
		if _, err := d.Encode(tt.files); (tt.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

func TestMaxJumpLimits(t *testing.T) {
	for n, ok := range map[int64]bool{-1: false, 0: true, 1: true, maxInteger: true, maxInteger + 1: false} {
		d := draft(t)
		d.Roles[0].MaxJump = n
		if _, err := d.Encode(nil); (err == nil) != ok {
			t.Errorf("maxJump %d: %v", n, err)
		}
	}
	good := string(encode(t, imageDraft(t, func(r *DraftImage) { r.SBOM = true })))
	if d, err := ParseDraft([]byte(strings.Replace(good, "sbom: true", "sbom: false", 1))); err != nil || d.Images[0].SBOM {
		t.Errorf("sbom: false: %v", err)
	}
}

// A state is as long as MaxMemory, or is not written.
func TestMemoryLimits(t *testing.T) {
	of := func(n int) *Memory { return &Memory{Bundles: map[string]KnownBundles{strings.Repeat("n", n): {}}} }
	empty, err := of(0).Encode()
	if err != nil {
		t.Fatal(err)
	}
	text, err := of(MaxMemory - len(empty)).Encode()
	if err != nil || len(text) != MaxMemory {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if _, err := ParseMemory(text); err != nil {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if _, err := of(MaxMemory - len(empty) + 1).Encode(); err == nil {
		t.Error("one byte more is written")
	}
	m := &Memory{Policy: &KnownPolicy{Version: maxInteger, Threshold: 1, Keys: []KnownKey{{Name: "a", PEM: string(publicPEM(t, "a"))}}}}
	for version, want := range map[int64]error{1: nil, maxInteger: nil, maxInteger + 1: ErrMemory, 0: ErrMemory} {
		m.Policy.Version = version
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMemory(text); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("policy version %d: %v, want %v", version, err, want)
		}
	}
}

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
