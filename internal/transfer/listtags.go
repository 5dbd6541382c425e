package transfer

import (
	"context"
	"slices"

	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// dropLists leaves out the lists of referrers, and the tags they stand under,
// that the registry of a delivery makes itself.
func (w *delivery) dropLists(ctx context.Context, client *registry.Client) error {
	for _, t := range slices.Clone(w.tags) {
		made, err := w.isMade(ctx, client, t)
		if err != nil {
			return err
		}
		if made {
			w.drop(t.node)
		}
	}
	return nil
}

// isMade reports whether a tagged manifest is a list of referrers that the
// registry makes itself: it has the referrers API, and all that is listed says
// whose referrer it is. Such a list is not pushed. A registry may keep its own
// under the same digest, and lose it then.
//
// Source: OCI Distribution 1.1.1, "Referrers Tag Schema": the tag is for
// registries without the API.
func (w *delivery) isMade(ctx context.Context, client *registry.Client, t taggedManifest) (bool, error) {
	subject, ok := w.listOf(t)
	if !ok {
		return false, nil
	}
	_, api, err := client.ListReferrers(ctx, w.Repository, subject)
	return api, err
}

// drop leaves out a referrer.
func (w *delivery) drop(n node) {
	isIt := func(o node) bool { return o.Digest == n.Digest }
	w.nodes = slices.DeleteFunc(w.nodes, isIt)
	w.referrers--
	w.missing = slices.DeleteFunc(w.missing, isIt)
	w.tags = slices.DeleteFunc(w.tags, func(t taggedManifest) bool { return isIt(t.node) })
}

// listOf returns the subject of which a tagged manifest is the list of
// referrers, and whether it is one of which every entry names that subject.
func (w *delivery) listOf(t taggedManifest) (subject verify.Digest, ok bool) {
	if !t.node.parsed.IsIndex() || t.node.Digest == w.Root.Digest {
		return subject, false
	}
	of := map[verify.Digest]verify.Digest{}
	for _, n := range w.nodes {
		if n.parsed.Subject != nil {
			of[n.Digest] = n.parsed.Subject.Digest
		}
	}
	names := func(d oci.Descriptor) bool { return t.tag == registry.FallbackTag(of[d.Digest]) }
	for _, d := range t.node.parsed.Manifests {
		if !names(d) {
			return subject, false
		}
		subject = of[d.Digest]
	}
	return subject, !subject.IsZero()
}
