package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// checkReferrers asserts that the registry lists every referrer of a delivery,
// those included that an interrupted push has left unlisted. Where it has no referrers API, the list under the referrers
// tag is brought up to date first, as OCI Distribution asks of a client.
func (p *pusher) checkReferrers(ctx context.Context, w delivery) error {
	var subjects []verify.Digest
	of := map[verify.Digest][]node{}
	for _, n := range w.nodes[len(w.nodes)-w.referrers:] {
		if s := n.parsed.Subject; s != nil {
			if of[s.Digest] == nil {
				subjects = append(subjects, s.Digest)
			}
			of[s.Digest] = append(of[s.Digest], n)
		}
	}
	for _, subject := range subjects {
		if err := p.checkSubject(ctx, w, subject, of[subject]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pusher) checkSubject(ctx context.Context, w delivery, subject verify.Digest, referrers []node) error {
	listed, api, err := p.client.Referrers(ctx, w.Repository, subject)
	if err != nil {
		return fmt.Errorf("referrers of %s: %w", subject, err)
	}
	var lost []node
	for _, n := range referrers {
		if !slices.ContainsFunc(listed, func(d oci.Descriptor) bool { return d.Digest == n.Digest }) {
			lost = append(lost, n)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if api {
		return fmt.Errorf("%w: it does not list %s as a referrer of %s", ErrLost, lost[0].Digest, subject)
	}
	tag := registry.FallbackTag(subject)
	for _, t := range w.tags {
		if t.tag == tag {
			return nil // the list travels with the image and is written with the tags
		}
	}
	return p.writeReferrersTag(ctx, w.Repository.Tag(tag), listed, lost)
}

// covers reports whether a list of referrers has all of referrers.
func covers(index *oci.Manifest, referrers []node) bool {
	for _, n := range referrers {
		if !slices.ContainsFunc(index.Manifests, func(d oci.Descriptor) bool { return d.Digest == n.Digest }) {
			return false
		}
	}
	return true
}

// writeReferrersTag writes the list of referrers under their tag: those that
// are listed there, and more. Source: OCI Distribution 1.1.1, "Referrers Tag
// Schema".
func (p *pusher) writeReferrersTag(ctx context.Context, at registry.Reference, listed []oci.Descriptor, more []node) error {
	list := slices.Clone(listed)
	for _, n := range more {
		list = append(list, oci.Descriptor{MediaType: n.MediaType, Digest: n.Digest, Size: n.Size,
			ArtifactType: n.parsed.Type(), Annotations: n.parsed.Annotations})
	}
	slices.SortFunc(list, func(a, b oci.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	content, err := json.Marshal(struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []oci.Descriptor `json:"manifests"`
	}{2, oci.MediaTypeIndex, list})
	if err != nil {
		return err
	}
	if err := p.client.PushManifest(ctx, at, oci.MediaTypeIndex, content); err != nil {
		return fmt.Errorf("referrers tag %s: %w", at.Tag, err)
	}
	d, _, err := p.client.Get(ctx, at)
	if errors.Is(err, registry.ErrNotFound) || err == nil && d.Digest != verify.DigestOf(content) {
		return fmt.Errorf("%w: referrers tag %s", ErrLost, at.Tag)
	}
	return err
}
