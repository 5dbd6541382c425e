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
}

// NewReceipt returns the receipt of the import of r that had result.
func NewReceipt(r *bundle.Reader, destination string, started, finished time.Time, result *PushResult) *Receipt {
	m := r.Manifest()
	receipt := &Receipt{
		Bundle:      ReceiptBundle{Name: m.Name, Version: m.Version, Sequence: m.Sequence, Digest: r.Digest()},
		Destination: destination,
		Started:     started.UTC().Truncate(time.Second),
		Finished:    finished.UTC().Truncate(time.Second),
		PushResult:  *result,
	}
	doc := r.Document()
	receipt.Bundle.Policy = doc.PolicyVersion()
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
	Receipt string // where it is
	Bundle  verify.KnownBundle
}

// MaxReceipt, in bytes, bounds a receipt that is read: about 20,000 images.
const MaxReceipt = 16 << 20

// ErrReceipt says that something else stands where a receipt should.
var ErrReceipt = errors.New("not a receipt of ferry import")

// ParseWitness returns what the receipt in content tells, and the name of the
// bundle that it is about. Fields that it does not know may be there. Errors:
// [ErrReceipt].
func ParseWitness(content []byte, where string) (name string, w Witness, err error) {
	var r Receipt
	err = json.Unmarshal(content, &r)
	if err == nil && (r.Bundle.Digest.IsZero() || !bundle.ValidName(r.Bundle.Name) || r.Destination == "") {
		err = errors.New("it names no bundle")
	}
	if err != nil {
		return "", w, fmt.Errorf("%s: %w: %w", where, ErrReceipt, err)
	}
	return r.Bundle.Name, Witness{where, verify.KnownBundle{Accepted: r.Finished.UTC().Format(time.RFC3339), Digest: r.Bundle.Digest,
		Policy: r.Bundle.Policy, Sequence: r.Bundle.Sequence, Signers: r.Bundle.Signers}}, nil
}

// Media types of a receipt in a registry.
const (
	typeReceipt  = "application/vnd.ferry.receipt.v1+json"
	typeSigstore = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// receiptTag returns the tag of the newest receipt of a bundle of that name. A
// tag has no "+".
func receiptTag(name string) string { return strings.ReplaceAll(name, "+", "__") }

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
