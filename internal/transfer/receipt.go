package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// Receipt says what an import has done, for the records of the site.
type Receipt struct {
	Bundle      ReceiptBundle `json:"bundle"`
	Destination string        `json:"destination"`
	Started     time.Time     `json:"started"`
	Finished    time.Time     `json:"finished"`
	// Verified are the images whose own signatures the policy has asked for.
	Verified []VerifiedImage `json:"verifiedImages,omitempty"`
	PushResult
}

// ReceiptBundle names the bundle of a [Receipt].
type ReceiptBundle struct {
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Sequence int64         `json:"sequence"`
	Digest   verify.Digest `json:"digest"` // of bundle.json
	Signers  []string      `json:"signers"`
	Policy   int64         `json:"policy,omitempty"` // its version; none with --key
	// Override is why somebody has accepted the bundle, and Refused what the
	// trust state had against it.
	Override string `json:"override,omitempty"`
	Refused  string `json:"refused,omitempty"`
	// Known is what the site knew of the name's bundles then, this one included.
	Known verify.KnownBundles `json:"known,omitempty"`
}

// NewReceipt returns the receipt of the import of r that had result.
func NewReceipt(r *bundle.Reader, destination string, started, finished time.Time, result *PushResult, known verify.KnownBundles) *Receipt {
	m := r.Manifest()
	receipt := &Receipt{
		Bundle:      ReceiptBundle{Name: m.Name, Version: m.Version, Sequence: m.Sequence, Digest: r.Digest(), Known: known},
		Destination: destination,
		Started:     started.UTC().Truncate(time.Second),
		Finished:    finished.UTC().Truncate(time.Second),
		PushResult:  *result,
	}
	doc := r.Document()
	receipt.Bundle.Policy = doc.Policy().Version()
	if refused := doc.Overridden(); refused != nil {
		receipt.Bundle.Override, receipt.Bundle.Refused = doc.Override(), refused.Error()
	}
	for _, key := range r.Signers() {
		receipt.Bundle.Signers = append(receipt.Bundle.Signers, key.Fingerprint())
	}
	return receipt
}

// Witness is what a receipt tells of a bundle that was accepted.
type Witness struct {
	Receipt  string // where it is
	Name     string // of the bundle
	Sequence int64
	Policy   int64 // version
	Known    verify.KnownBundles
}

// MaxReceipt, in bytes, bounds a receipt that is read: about 20,000 images.
const MaxReceipt = 16 << 20

// ErrReceipt says that something else stands where a receipt should.
var ErrReceipt = errors.New("not a receipt of ferry import")

// ParseWitness returns what the receipt in content tells. Fields that it does
// not know may be there. Errors: [ErrReceipt].
func ParseWitness(content []byte, where string) (Witness, error) {
	var r struct {
		Bundle      ReceiptBundle `json:"bundle"`
		Destination string        `json:"destination"`
		Finished    time.Time     `json:"finished"`
	}
	b := &r.Bundle
	if err := json.Unmarshal(content, &r); err != nil || b.Digest.IsZero() || !bundle.ValidName(b.Name) || r.Destination == "" {
		return Witness{}, fmt.Errorf("%s: %w: it is no JSON that names a bundle and where it was imported to", where, ErrReceipt)
	}
	w := Witness{where, b.Name, b.Sequence, b.Policy, verify.KnownBundles{}}
	for fingerprint, known := range b.Known {
		w.Known[fingerprint] = known
	}
	for _, fingerprint := range b.Signers {
		if b.Sequence > w.Known[fingerprint].Sequence {
			w.Known[fingerprint] = verify.KnownBundle{Accepted: r.Finished.UTC().Format(time.RFC3339), Digest: b.Digest, Sequence: b.Sequence}
		}
	}
	return w, nil
}

// Media types of a receipt in a registry.
const (
	typeReceipt  = "application/vnd.ferry.receipt.v1+json"
	typeSigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// receiptTag returns the tag of the newest receipt of a bundle of that name. A
// tag has no "+"; no two names have one tag.
func receiptTag(name string) string {
	if !strings.Contains(name, "+") {
		return name
	}
	return strings.ReplaceAll(name, "+", "_")[:min(len(name), 100)] + "-" + verify.DigestOf([]byte(name)).Hex()[:16]
}

// PutReceipt stores a receipt about the bundle of a name in a repository, as an
// artifact with the name for its tag; an older one keeps only its digest. The
// signature may be nil.
func PutReceipt(ctx context.Context, client *registry.Client, at registry.Repository, name string, content, signature []byte) error {
	m := struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		ArtifactType  string           `json:"artifactType"`
		Config        oci.Descriptor   `json:"config"`
		Layers        []oci.Descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, ArtifactType: typeReceipt}
	put := func(mediaType string, blob []byte) (oci.Descriptor, error) {
		d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(blob), Size: int64(len(blob))}
		_, err := client.PushBlob(ctx, at, d, func(_ context.Context, off int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(blob[off:])), nil
		}, nil)
		return d, err
	}
	var err error
	if m.Config, err = put(oci.MediaTypeEmpty, []byte("{}")); err != nil {
		return err
	}
	for _, blob := range []struct {
		mediaType string
		content   []byte
	}{{typeReceipt, content}, {typeSigstore, signature}} {
		if blob.content == nil {
			continue
		}
		layer, err := put(blob.mediaType, blob.content)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, layer)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return client.PushManifest(ctx, at.Tag(receiptTag(name)), oci.MediaTypeManifest, raw)
}

// GetReceipt returns what [PutReceipt] has stored last about bundles of a name.
// Errors: [registry.ErrNotFound], [ErrReceipt] when the tag is of something
// else.
func GetReceipt(ctx context.Context, client *registry.Client, at registry.Repository, name string) (content, signature []byte, err error) {
	tag := at.Tag(receiptTag(name))
	d, raw, err := client.Get(ctx, tag)
	if err != nil {
		return nil, nil, err
	}
	m, err := oci.Parse(raw, d.MediaType)
	if err != nil {
		return nil, nil, err
	}
	for _, layer := range m.Layers {
		var to *[]byte
		var limit int64
		switch layer.MediaType {
		case typeReceipt:
			to, limit = &content, MaxReceipt
		case typeSigstore:
			to, limit = &signature, verify.MaxSignature
		}
		if m.ArtifactType != typeReceipt || to == nil || layer.Size > limit {
			return nil, nil, fmt.Errorf("%s: %w", tag, ErrReceipt)
		}
		body, err := client.Blob(ctx, at, layer)
		if errors.Is(err, registry.ErrNotFound) { // the tag is there: this is not "no receipt"
			return nil, nil, fmt.Errorf("%s: %w: its content is gone: %v", tag, ErrReceipt, err)
		}
		if err != nil {
			return nil, nil, err
		}
		*to, err = io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil {
			return nil, nil, err
		}
	}
	return content, signature, nil
}
