// Package sigstoretest hides how tests get keyless signatures without the
// public Sigstore: an authority, a log and a time stamping authority of their
// own, with the trusted root that vouches for them. It is for tests only.
package sigstoretest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
)

// Sigstore is one instance of Sigstore. Its authorities are valid for an hour.
type Sigstore struct {
	t       testing.TB
	virtual *ca.VirtualSigstore
	logID   []byte
}

// New returns a new instance, which no other one trusts.
func New(t testing.TB) *Sigstore {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	s := &Sigstore{t: t, virtual: virtual}
	id, err := virtual.RekorLogID()
	if err == nil {
		s.logID, err = hex.DecodeString(id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TrustedRoot returns the trusted_root.json of the instance. With logs of
// certificates, certificates must be in one of them, and none is.
func (s *Sigstore) TrustedRoot(certificateLogs bool) []byte {
	s.t.Helper()
	logs := s.virtual.RekorLogs()
	for _, log := range logs {
		log.ID = s.logID
	}
	certificates := map[string]*root.TransparencyLog{}
	if certificateLogs {
		certificates = s.virtual.CTLogs()
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.virtual.FulcioCertificateAuthorities(), certificates, s.virtual.TimestampingAuthorities(), logs)
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := trusted.MarshalJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// Options say who signs, and what is wrong with it.
type Options struct {
	Issuer, Subject string
	NoLog           bool          // without an entry in the log
	NoPromise       bool          // with a proof of the entry, but nothing that says when it was made
	Timestamp       bool          // with a time stamp, in a bundle
	LogDelay        time.Duration // of the entry; certificates are valid for ten minutes
	OtherEntry      bool          // with a log entry of another signature
}

// signature is one with what there is to prove it.
type signature struct {
	certificate *x509.Certificate
	sig         []byte
	body        []byte // of the log entry
	at          int64  // when that was made, in Unix seconds
	promise     []byte
	Options
}

// sign signs a message. The log's entry about it is of a kind that spec
// describes.
func (s *Sigstore) sign(message []byte, o Options, kind string, spec func(sig []byte, certificate string) map[string]any) signature {
	s.t.Helper()
	certificate, private, err := s.virtual.GenerateLeafCert(o.Subject, o.Issuer)
	if err != nil {
		s.t.Fatal(err)
	}
	hash := sha256.Sum256(message)
	sig, err := private.(crypto.Signer).Sign(rand.Reader, hash[:], crypto.SHA256)
	if err != nil {
		s.t.Fatal(err)
	}
	entered := sig
	if o.OtherEntry {
		if entered, err = ecdsa.SignASN1(rand.Reader, private.(*ecdsa.PrivateKey), hash[:]); err != nil {
			s.t.Fatal(err)
		}
	}
	signed := signature{certificate: certificate, sig: sig, at: time.Now().Add(o.LogDelay).Unix(), Options: o}
	signed.body = s.json(map[string]any{"apiVersion": "0.0.1", "kind": kind,
		"spec": spec(entered, base64.StdEncoding.EncodeToString(pemOf(certificate)))})
	signed.promise, err = s.virtual.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(signed.body),
		IntegratedTime: signed.at, LogIndex: 7, LogID: hex.EncodeToString(s.logID)})
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (s *Sigstore) json(v any) []byte {
	s.t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// annotations returns what cosign keeps beside a signature.
func (s *Sigstore) annotations(signed signature) map[string]string {
	all := map[string]string{"dev.sigstore.cosign/certificate": string(pemOf(signed.certificate))}
	if !signed.NoLog {
		all["dev.sigstore.cosign/bundle"] = string(s.json(map[string]any{"SignedEntryTimestamp": signed.promise, "Payload": map[string]any{
			"body": signed.body, "integratedTime": signed.at, "logIndex": 7, "logID": hex.EncodeToString(s.logID)}}))
	}
	return all
}

// SignPayload signs the content of a layer of cosign's .sig, and returns the
// annotations of that layer.
func (s *Sigstore) SignPayload(payload []byte, o Options) map[string]string {
	s.t.Helper()
	signed := s.sign(payload, o, "hashedrekord", func(sig []byte, certificate string) map[string]any {
		return map[string]any{"data": map[string]any{"hash": hashOf(payload)},
			"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": certificate}}}
	})
	all := s.annotations(signed)
	all["dev.cosignproject.cosign/signature"] = base64.StdEncoding.EncodeToString(signed.sig)
	return all
}

func hashOf(content []byte) map[string]any {
	sum := sha256.Sum256(content)
	return map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
}

const payloadType = "application/vnd.in-toto+json"

// PAE returns what is signed of a DSSE envelope.
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func (s *Sigstore) signStatement(statement []byte, o Options) signature {
	s.t.Helper()
	return s.sign(PAE(payloadType, statement), o, "dsse", func(sig []byte, certificate string) map[string]any {
		envelope := s.json(map[string]any{"payloadType": payloadType, "payload": statement, "signatures": []any{map[string]any{"sig": sig}}})
		return map[string]any{"envelopeHash": hashOf(envelope), "payloadHash": hashOf(statement),
			"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(sig), "verifier": certificate}}}
	})
}

// Attest signs an in-toto statement, and returns the content and the
// annotations of a layer of cosign's .att.
func (s *Sigstore) Attest(statement []byte, o Options) ([]byte, map[string]string) {
	s.t.Helper()
	signed := s.signStatement(statement, o)
	return s.json(map[string]any{"payloadType": payloadType, "payload": statement, "signatures": []any{map[string]any{"sig": signed.sig}}}), s.annotations(signed)
}

// Bundle signs an in-toto statement, and returns a Sigstore bundle v0.3.
func (s *Sigstore) Bundle(statement []byte, o Options) []byte {
	s.t.Helper()
	signed := s.signStatement(statement, o)
	material := map[string]any{"certificate": map[string]any{"rawBytes": signed.certificate.Raw}}
	if !o.NoLog {
		material["tlogEntries"] = []any{s.entry(signed)}
	}
	if o.Timestamp {
		stamp, err := s.virtual.TimestampResponse(signed.sig)
		if err != nil {
			s.t.Fatal(err)
		}
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamp}}}
	}
	return s.json(map[string]any{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": material,
		"dsseEnvelope": map[string]any{"payloadType": payloadType, "payload": statement, "signatures": []any{map[string]any{"sig": signed.sig}}}})
}

// entry returns the log's entry, with a proof that it is there.
func (s *Sigstore) entry(signed signature) map[string]any {
	s.t.Helper()
	proof, err := s.virtual.GetInclusionProof(signed.body)
	if err != nil {
		s.t.Fatal(err)
	}
	hash, err := hex.DecodeString(*proof.RootHash)
	if err != nil {
		s.t.Fatal(err)
	}
	entry := map[string]any{"logIndex": "7", "logId": map[string]any{"keyId": s.logID}, "kindVersion": map[string]any{"kind": "dsse", "version": "0.0.1"},
		"integratedTime": fmt.Sprint(signed.at), "inclusionPromise": map[string]any{"signedEntryTimestamp": signed.promise}, "canonicalizedBody": signed.body,
		"inclusionProof": map[string]any{"logIndex": fmt.Sprint(*proof.LogIndex), "rootHash": hash, "treeSize": fmt.Sprint(*proof.TreeSize),
			"hashes": []any{}, "checkpoint": map[string]any{"envelope": *proof.Checkpoint}}}
	if signed.NoPromise {
		delete(entry, "inclusionPromise")
	}
	return entry
}

// Statement returns an in-toto statement with an empty predicate about the
// content with a digest, written as 64 hex digits.
func Statement(digest, predicateType string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, digest, predicateType)
	return b.Bytes()
}
