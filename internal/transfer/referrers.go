package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// maxReferrers bounds the referrers of one image, over all its children.
const maxReferrers = 4096

// findReferrers returns everything that belongs to the manifests in nodes, and
// to what is found, in a fixed order: by the referrers API, by cosign's tags,
// by the referrers tag.
func findReferrers(ctx context.Context, client *registry.Client, repo registry.Repository, src *memory, nodes []node) ([]referrer, error) {
	f := finder{client: client, repo: repo, src: src, known: map[verify.Digest]bool{}}
	var subjects []verify.Digest
	for _, n := range slices.Backward(nodes) {
		f.known[n.Digest] = true
		subjects = append(subjects, n.Digest)
	}
	for len(subjects) > 0 {
		var next []verify.Digest
		for _, subject := range subjects {
			found, err := f.find(ctx, subject)
			if err != nil {
				return nil, fmt.Errorf("signatures and referrers of %s: %w", subject, err)
			}
			for _, r := range found {
				f.referrers = append(f.referrers, r)
				for _, n := range r.nodes {
					if !f.known[n.Digest] {
						f.known[n.Digest] = true
						next = append(next, n.Digest)
					}
				}
			}
			if len(f.referrers) > maxReferrers {
				return nil, fmt.Errorf("more than %d referrers", maxReferrers)
			}
		}
		subjects = next
	}
	return f.referrers, nil
}

type finder struct {
	client    *registry.Client
	repo      registry.Repository
	src       *memory
	known     map[verify.Digest]bool // manifests whose referrers were or will be looked up
	referrers []referrer
}

// find returns the referrers of one manifest.
func (f *finder) find(ctx context.Context, subject verify.Digest) ([]referrer, error) {
	listed, api, err := f.client.ListReferrers(ctx, f.repo, subject)
	if err != nil {
		return nil, err
	}
	var tagged []taggedReferrer
	for _, tag := range bundle.ReferrerTags(subject) {
		d, content, err := f.client.Get(ctx, f.repo.Tag(tag))
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.src.add(d.Digest, content)
		tagged = append(tagged, taggedReferrer{d, tag})
		if !api && tag == registry.FallbackTag(subject) {
			if listed, err = registry.FallbackReferrers(d, content); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(listed, func(a, b oci.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	var found []referrer
	for _, d := range listed {
		if f.known[d.Digest] {
			continue
		}
		r, err := f.load(ctx, d, subject, "")
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	for _, t := range tagged {
		r, err := f.load(ctx, t.Descriptor, subject, t.tag)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}

// taggedReferrer is what a tag of signatures and the like names.
type taggedReferrer struct {
	oci.Descriptor
	tag string
}

func (f *finder) load(ctx context.Context, d oci.Descriptor, subject verify.Digest, tag string) (referrer, error) {
	nodes, err := walk(ctx, f.src.Manifest, d)
	if err != nil {
		return referrer{}, err
	}
	self := nodes[len(nodes)-1]
	return referrer{bundle.Referrer{ArtifactType: self.parsed.Type(), Digest: d.Digest,
		MediaType: d.MediaType, Size: d.Size, Subject: subject, Tag: tag}, nodes}, nil
}
