package verify

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	intoto "github.com/in-toto/attestation/go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

// Media types of the layers that evidence comes in.
const (
	mediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	mediaTypeDSSE          = "application/vnd.dsse.envelope.v1+json"
	mediaTypeBundle        = "application/vnd.dev.sigstore.bundle" // and a version
)

// Annotations that cosign gives such layers.
const (
	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationRekor       = "dev.sigstore.cosign/bundle"
)

const (
	// predicateSignature is what cosign 3 says in a bundle that is a signature
	// of an image.
	predicateSignature = "https://sigstore.dev/cosign/sign/v1"
	// payloadInToto is the type of the payload in a DSSE envelope.
	payloadInToto = "application/vnd.in-toto+json"
	// typeSimpleSigning is the type that a simple signing payload names.
	typeSimpleSigning = "cosign container image signature"
	// typeStatement is what the types of in-toto statements begin with.
	typeStatement = "https://in-toto.io/Statement/"
)

// predicatesSBOM are the predicate types of software bills of materials, to
// which a version may be added.
var predicatesSBOM = []string{"https://spdx.dev/Document", "https://cyclonedx.org/bom"}

// Evidence is something that came with an image and may say who stands for it.
// Nothing of it is trusted.
type Evidence struct {
	Name        string            // for messages
	MediaType   string            // of the layer that it is
	Annotations map[string]string // of that layer
	Size        int64             // bytes
	// Read calls use with the content, which use does not keep. Its error is
	// that of reading, or else of use.
	Read func(ctx context.Context, use func(content []byte) error) error
}

// IsEvidence reports whether a layer of that media type can be [Evidence]: a
// signature or an attestation as cosign 2 and 3 write them.
func IsEvidence(mediaType string) bool {
	return mediaType == mediaTypeSimpleSigning || mediaType == mediaTypeDSSE || strings.HasPrefix(mediaType, mediaTypeBundle)
}

// statement is what a piece of evidence claims, and the signature to check it
// with: every form becomes a Sigstore bundle, so that there is one way to check
// one.
type statement struct {
	predicate string   // type; predicateSignature when it is a signature
	images    []Digest // that it is about
	hint      string   // of the key, or ""
	// byKey and byCertificate are the signature as one by a key pair and as a
	// keyless one; nil when it can not be that.
	byKey, byCertificate *bundle.Bundle
	inToto               *intoto.Statement // without its predicate; nil when there is none
	artifact             func(image Digest) sigstore.ArtifactPolicyOption
}

func parseEvidence(e Evidence, content []byte) (*statement, error) {
	switch {
	case len(content) > MaxEvidence:
		return nil, fmt.Errorf("more than %d bytes", MaxEvidence)
	case e.MediaType == mediaTypeSimpleSigning:
		return parseSimpleSigning(e, content)
	case e.MediaType == mediaTypeDSSE:
		return parseAttestation(e, content)
	case IsEvidence(e.MediaType):
		return parseBundle(content)
	}
	return nil, fmt.Errorf("media type %q is unknown", e.MediaType)
}

// parseSimpleSigning parses a layer of cosign's .sig: a payload that names the
// image, its signature in an annotation.
func parseSimpleSigning(e Evidence, payload []byte) (*statement, error) {
	var claims struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("the payload is no simple signing claim: %w", err)
	}
	if claims.Critical.Type != typeSimpleSigning {
		return nil, fmt.Errorf("the payload is of type %q, not %q", claims.Critical.Type, typeSimpleSigning)
	}
	image, err := ParseDigest(claims.Critical.Image.Digest)
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(e.Annotations[annotationSignature])
	if err != nil || len(sig) == 0 {
		return nil, errors.New("the layer has no signature in its annotations")
	}
	digest := DigestOf(payload)
	s := &statement{predicate: predicateSignature, images: []Digest{image}, artifact: bytesOf(payload)}
	return s, s.classic(e, func(b *protobundle.Bundle) {
		b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &common.MessageSignature{
			MessageDigest: &common.HashOutput{Algorithm: common.HashAlgorithm_SHA2_256, Digest: digest[:]}, Signature: sig}}
	})
}

// parseAttestation parses a layer of cosign's .att: a DSSE envelope.
func parseAttestation(e Evidence, content []byte) (*statement, error) {
	var envelope struct {
		PayloadType string
		Payload     []byte
		Signatures  []struct {
			KeyID string
			Sig   []byte
		}
	}
	if err := json.Unmarshal(content, &envelope); err != nil {
		return nil, fmt.Errorf("it is no DSSE envelope: %w", err)
	}
	s := &statement{artifact: digestOf}
	if err := s.setStatement(envelope.PayloadType, envelope.Payload); err != nil {
		return nil, err
	}
	dsse := &protodsse.Envelope{PayloadType: envelope.PayloadType, Payload: envelope.Payload}
	for _, sig := range envelope.Signatures {
		dsse.Signatures = append(dsse.Signatures, &protodsse.Signature{Sig: sig.Sig, Keyid: sig.KeyID})
	}
	return s, s.classic(e, func(b *protobundle.Bundle) { b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: dsse} })
}

// parseBundle parses a Sigstore bundle: a DSSE envelope, or a signature over
// the manifest itself.
func parseBundle(content []byte) (*statement, error) {
	b := new(bundle.Bundle)
	if err := b.UnmarshalJSON(content); err != nil {
		return nil, fmt.Errorf("it is no Sigstore bundle: %w", err)
	}
	s := &statement{artifact: digestOf}
	if key := b.GetVerificationMaterial().GetPublicKey(); key != nil {
		s.byKey, s.hint = b, key.GetHint()
	} else {
		s.byCertificate = b
	}
	if envelope := b.GetDsseEnvelope(); envelope != nil {
		return s, s.setStatement(envelope.GetPayloadType(), envelope.GetPayload())
	}
	hash := b.GetMessageSignature().GetMessageDigest()
	if hash.GetAlgorithm() != common.HashAlgorithm_SHA2_256 || len(hash.GetDigest()) != len(Digest{}) {
		return nil, errors.New("it does not name what is signed by its SHA-256 digest")
	}
	s.predicate, s.images = predicateSignature, []Digest{Digest(hash.GetDigest())}
	return s, nil
}

// setStatement takes from the payload of a DSSE envelope what it is about.
func (s *statement) setStatement(payloadType string, payload []byte) (err error) {
	if payloadType != payloadInToto {
		return fmt.Errorf("the envelope has a payload of type %q, not %q", payloadType, payloadInToto)
	}
	if s.inToto, err = parseInToto(payload); err != nil {
		return fmt.Errorf("it has no in-toto statement: %w", err)
	}
	if !strings.HasPrefix(s.inToto.Type, typeStatement) {
		return fmt.Errorf("it has a statement of type %q, not of in-toto", s.inToto.Type)
	}
	s.predicate = s.inToto.PredicateType
	for _, subject := range s.inToto.Subject {
		if d, err := ParseDigest("sha256:" + subject.Digest["sha256"]); err == nil {
			s.images = append(s.images, d)
		}
	}
	return nil
}

// maxSubjects bounds what a statement is about; sigstore-go refuses more.
const maxSubjects = 1024

// parseInToto parses an in-toto statement, but not its predicate: to have that
// in memory takes up to fifty times its size, and nobody looks at it. Unknown
// and duplicate keys and further data are errors (T11).
func parseInToto(payload []byte) (*intoto.Statement, error) {
	r := json.NewDecoder(bytes.NewReader(payload))
	if t, err := r.Token(); t != json.Delim('{') {
		return nil, errors.Join(errors.New("it is no JSON object"), err)
	}
	var s intoto.Statement
	seen := map[string]bool{}
	for r.More() {
		t, err := r.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string) // that of an object always is one
		if seen[key] {
			return nil, fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		switch key {
		case "_type":
			err = r.Decode(&s.Type)
		case "predicateType":
			err = r.Decode(&s.PredicateType)
		case "predicate":
			err = r.Decode(&skipped{})
		case "subject":
			s.Subject, err = parseSubjects(r)
		default:
			err = fmt.Errorf("key %q is unknown", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := r.Token(); err != nil { // the end of the object
		return nil, err
	}
	if _, err := r.Token(); err != io.EOF {
		return nil, errors.New("there is more after it")
	}
	return &s, nil
}

// skipped is a JSON value that is not kept.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }

func parseSubjects(r *json.Decoder) (list []*intoto.ResourceDescriptor, err error) {
	if t, err := r.Token(); t != json.Delim('[') {
		return nil, errors.Join(errors.New("subject is no list"), err)
	}
	for r.More() {
		if len(list) == maxSubjects {
			return nil, fmt.Errorf("it has more than %d subjects", maxSubjects)
		}
		var subject struct{ Digest map[string]string }
		if err := r.Decode(&subject); err != nil {
			return nil, err
		}
		list = append(list, &intoto.ResourceDescriptor{Digest: subject.Digest})
	}
	_, err = r.Token()
	return list, err
}

// entity is a bundle whose statement was parsed already.
type entity struct {
	*bundle.Bundle
	statement *intoto.Statement
}

func (e entity) SignatureContent() (sigstore.SignatureContent, error) {
	content, err := e.Bundle.SignatureContent()
	if err != nil || e.statement == nil {
		return content, err
	}
	return signatureContent{content, e.statement}, nil
}

type signatureContent struct {
	sigstore.SignatureContent
	statement *intoto.Statement
}

func (c signatureContent) EnvelopeContent() sigstore.EnvelopeContent {
	return envelope{c.SignatureContent.EnvelopeContent(), c.statement}
}

type envelope struct {
	sigstore.EnvelopeContent
	statement *intoto.Statement
}

func (e envelope) Statement() (*intoto.Statement, error) { return e.statement, nil }

// classic sets the signature of a layer whose proofs stand in its annotations.
// It is in the oldest version of a bundle, which needs no more of a log entry
// than cosign keeps: the log's promise. The time stamp of an attestation is over
// something else than in a bundle, so none is taken; the log has the time.
func (s *statement) classic(e Evidence, content func(*protobundle.Bundle)) (err error) {
	key := &protobundle.Bundle{MediaType: mediaTypeBundle + "+json;version=0.1", VerificationMaterial: &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &common.PublicKeyIdentifier{}}}}
	content(key)
	if s.byKey, err = bundle.NewBundle(key); err != nil {
		return err
	}
	text := e.Annotations[annotationCertificate]
	if text == "" {
		return nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("the certificate in its annotations is not in PEM form")
	}
	keyless := &protobundle.Bundle{MediaType: key.MediaType, VerificationMaterial: &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_Certificate{Certificate: &common.X509Certificate{RawBytes: block.Bytes}}}}
	content(keyless)
	if text := e.Annotations[annotationRekor]; text != "" {
		entry, err := parseLogEntry([]byte(text))
		if err != nil {
			return fmt.Errorf("the log entry in its annotations: %w", err)
		}
		keyless.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	s.byCertificate, err = bundle.NewBundle(keyless)
	return err
}

// parseLogEntry parses an entry of Rekor as cosign keeps it.
func parseLogEntry(text []byte) (*protorekor.TransparencyLogEntry, error) {
	var entry struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte
			IntegratedTime int64
			LogIndex       int64
			LogID          string
		}
	}
	if err := json.Unmarshal(text, &entry); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(entry.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("log ID: %w", err)
	}
	var kind struct{ Kind, APIVersion string }
	if err := json.Unmarshal(entry.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: entry.Payload.LogIndex, LogId: &common.LogId{KeyId: id}, IntegratedTime: entry.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: entry.SignedEntryTimestamp},
		CanonicalizedBody: entry.Payload.Body,
	}, nil
}

// checkKey returns an error unless the key has signed that s is about the
// image. No log is asked for: whoever has the key answers for it.
func (s *statement) checkKey(image Digest, key Key) error {
	trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(key.verifier, time.Time{}, time.Time{}), nil
	})
	verifier, err := sigstore.NewVerifier(trusted, sigstore.WithNoObserverTimestamps())
	if err != nil {
		return err
	}
	_, err = verifier.Verify(entity{s.byKey, s.inToto}, sigstore.NewPolicy(s.artifact(image), sigstore.WithKey()))
	return err
}

// summary returns what the certificate of s claims, which nobody has checked.
func (s *statement) summary() (certificate.Summary, error) {
	content, err := s.byCertificate.VerificationContent()
	if err != nil {
		return certificate.Summary{}, err
	}
	return summarize(content.Certificate())
}

func summarize(c *x509.Certificate) (certificate.Summary, error) {
	if c == nil {
		return certificate.Summary{}, errors.New("it has neither key nor certificate")
	}
	return certificate.SummarizeCertificate(c)
}

// checkCertificate returns who has signed that s is about the image, when that
// is the identity, with a certificate that the trusted root vouches for.
func (s *statement) checkCertificate(image Digest, trusted *root.TrustedRoot, id sigstore.CertificateIdentity) (certificate.Summary, error) {
	options := []sigstore.VerifierOption{sigstore.WithTransparencyLog(1), sigstore.WithObserverTimestamps(1)}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, sigstore.WithSignedCertificateTimestamps(1))
	}
	verifier, err := sigstore.NewVerifier(trusted, options...)
	if err != nil {
		return certificate.Summary{}, err
	}
	result, err := verifier.Verify(entity{s.byCertificate, s.inToto}, sigstore.NewPolicy(s.artifact(image), sigstore.WithCertificateIdentity(id)))
	if err != nil {
		return certificate.Summary{}, err
	}
	return *result.Signature.Certificate, nil
}
