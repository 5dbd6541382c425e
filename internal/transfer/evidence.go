package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

// VerifiedImage is an image whose own signatures are as a policy wants them.
type VerifiedImage struct {
	Target string        `json:"target"` // repository path in the bundle
	Digest verify.Digest `json:"digest"`
	verify.ImageVerdict
}

const (
	// largeEvidence, in bytes, is what a signature never has: attestations
	// above are parsed one at a time, since that takes a multiple of their size.
	largeEvidence = 1 << 20
	// maxRefused bounds the images that an error names.
	maxRefused = 10
)

// VerifyImages checks the signatures of those images that the policy has a rule
// for, and returns these. It reads manifests and signatures from src, with
// their digests checked, and nothing else: no network but that of src.
//
// Errors: [verify.ErrUntrusted], for all images that are refused; those of src.
func VerifyImages(ctx context.Context, src Source, images []bundle.Image, policy *verify.Policy, now time.Time, jobs int) ([]VerifiedImage, error) {
	if err := policy.Expired(now); err != nil {
		return nil, err
	}
	c := evidenceReader{src: src, large: make(chan struct{}, 1)}
	var work []*imageWork
	for _, image := range images {
		rule := policy.ImageRule(image.Target)
		if rule == nil {
			continue
		}
		w, err := c.collect(ctx, image)
		if err != nil {
			return nil, fmt.Errorf("signatures of %s@%s: %w", image.Target, image.Digest, err)
		}
		w.rule = rule
		work = append(work, w)
	}
	err := eachAt(ctx, jobs, work, func(w *imageWork) []string { return w.hosts }, func(ctx context.Context, w *imageWork) error {
		verdict, err := w.rule.Check(ctx, w.image.Digest, w.evidence, now)
		if err == nil {
			w.verified = VerifiedImage{w.image.Target, w.image.Digest, *verdict}
			return nil
		}
		if w.refused = w.explain(err); errors.Is(err, verify.ErrUntrusted) {
			return nil // of the others one wants to know, too
		}
		return w.refused
	})
	if err != nil {
		return nil, err
	}
	var verified []VerifiedImage
	var refused []error
	for _, w := range work {
		if w.refused != nil {
			refused = append(refused, w.refused)
		} else {
			verified = append(verified, w.verified)
		}
	}
	if more := len(refused) - maxRefused; more > 0 {
		refused = append(refused[:maxRefused], fmt.Errorf("%w: %d more images", verify.ErrUntrusted, more))
	}
	return verified, errors.Join(refused...)
}

// imageWork is an image with what may vouch for it, and what came of that.
type imageWork struct {
	image    bundle.Image
	rule     *verify.ImageRule
	evidence []verify.Evidence
	hosts    []string // that have the evidence
	verified VerifiedImage
	refused  error
}

// explain says of which image err is, and what there is to know of it.
func (w *imageWork) explain(err error) error {
	err = fmt.Errorf("%s@%s: %w", w.image.Target, w.image.Digest, err)
	if w.image.Original != nil && errors.Is(err, verify.ErrUntrusted) {
		err = fmt.Errorf("%w (--platform has made it from %s, whose signatures do not cover it: only those of what was chosen count)", err, w.image.Original)
	}
	return err
}

type evidenceReader struct {
	src   Source
	large chan struct{} // held while large evidence is in memory
}

// collect returns what there is about the very manifest or index that is the
// image: what is about a child of it, or about a signature, says nothing of it.
func (c *evidenceReader) collect(ctx context.Context, image bundle.Image) (*imageWork, error) {
	w := &imageWork{image: image}
	known := map[verify.Digest]bool{}
	for _, ref := range image.Referrers {
		if ref.Subject != image.Digest {
			continue
		}
		// The list under a referrers tag leads to further ones.
		nodes, err := walk(ctx, c.src.Manifest, ref.Descriptor())
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if !known[n.Digest] {
				known[n.Digest] = true
				c.add(w, n)
			}
		}
	}
	return w, nil
}

// add adds the layers of a manifest that can be evidence.
func (c *evidenceReader) add(w *imageWork, n node) {
	for i, layer := range n.parsed.Layers {
		if !verify.IsEvidence(layer.MediaType) {
			continue
		}
		for _, host := range sourceHosts(c.src, layer) {
			if !slices.Contains(w.hosts, host) {
				w.hosts = append(w.hosts, host)
			}
		}
		w.evidence = append(w.evidence, verify.Evidence{
			Name: fmt.Sprintf("layer %d of %s", i+1, n.Digest), MediaType: layer.MediaType, Annotations: layer.Annotations, Size: layer.Size,
			Read: func(ctx context.Context, use func([]byte) error) error { return c.read(ctx, layer, use) },
		})
	}
}

// read calls use with the content of a layer, whose digest is checked.
func (c *evidenceReader) read(ctx context.Context, layer oci.Descriptor, use func([]byte) error) error {
	if layer.Size > largeEvidence {
		select {
		case c.large <- struct{}{}:
			defer func() { <-c.large }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	body, err := c.src.OpenBlob(ctx, layer, 0)
	if errors.Is(err, ErrBaseMissing) {
		return fmt.Errorf("%w: the signature was left to the base of the bundle, where it can not be read: export it again", verify.ErrImageUnsigned)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	content, err := io.ReadAll(verify.NewReader(body, layer.Digest, layer.Size))
	if err != nil {
		return err
	}
	return use(content)
}
