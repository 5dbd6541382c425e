package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/internal/transfer"
	"ferry/verify"
)

// imageFlags say whether an export verifies what it takes.
type imageFlags struct {
	verify bool
	policy string // file
	state  stateFlag
}

func (i *imageFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&i.verify, "verify-images", false, "verify the images' own signatures, as the policy says, before anything is written")
	f.StringVar(&i.policy, "policy", "", "`FILE` with a signed policy, such as trust.yaml, for --verify-images")
	i.state.add(f)
}

// imagePolicy returns the policy that images are verified with, or nil.
func (a *app) imagePolicy(ctx context.Context, i imageFlags) (*verify.Policy, error) {
	switch {
	case !i.verify && i.policy == "":
		return nil, nil
	case !i.verify:
		return nil, usagef("--policy is for --verify-images: an export is signed with --key")
	case i.policy == "":
		return nil, usagef("--verify-images wants --policy, which says whose signatures count for which images")
	}
	policy, err := a.policy(ctx, trustFlags{policy: i.policy, state: i.state})
	if err != nil {
		return nil, err
	}
	if !policy.HasImageRules() {
		return nil, usagef("--verify-images: the policy %s has no rules for images", i.policy)
	}
	return policy, nil
}

// verifiedImages is a part of what commands print as JSON.
type verifiedImages struct {
	Verified []transfer.VerifiedImage `json:"verifiedImages,omitempty"`
}

// verifyImages verifies the images of src that the policy has rules for, and
// tells how many these are.
func (a *app) verifyImages(ctx context.Context, src transfer.Source, images []bundle.Image, policy *verify.Policy) (verifiedImages, error) {
	if !policy.HasImageRules() {
		return verifiedImages{}, nil
	}
	verified, err := transfer.VerifyImages(ctx, src, images, policy, a.now(), a.flags.jobs)
	if err != nil {
		return verifiedImages{}, fmt.Errorf("verifying the signatures of images: %w", err)
	}
	more := ""
	if n := len(images) - len(verified); n > 0 {
		more = fmt.Sprintf("; the policy has no rule for %s", count(n, "image"))
	}
	a.Say("verified the signatures of %s%s", count(len(verified), "image"), more)
	return verifiedImages{verified}, nil
}

// verifyBundleImages verifies the images of a bundle as the policy says that
// has admitted it.
func (a *app) verifyBundleImages(ctx context.Context, r *bundle.Reader) (verifiedImages, error) {
	return a.verifyImages(ctx, transfer.BundleSource(r), r.Manifest().Images, r.Document().Policy())
}

// isOfImage reports whether err says that an image's own signatures are not as
// the policy wants them.
func isOfImage(err error) bool {
	return slices.ContainsFunc([]error{verify.ErrImageUnsigned, verify.ErrImageSignature, verify.ErrImageSigner, verify.ErrImageThreshold,
		verify.ErrAttestation, verify.ErrSBOM}, func(kind error) bool { return errors.Is(err, kind) })
}

// shownRule is a rule for images as ferry trust show prints it.
type shownRule struct {
	Repositories []string        `json:"repositories"`
	Keys         []string        `json:"keys,omitempty"`
	Identities   []shownIdentity `json:"identities,omitempty"`
	Threshold    int             `json:"threshold"`
	TrustedRoot  string          `json:"trustedRoot,omitempty"` // file
	Attestations []string        `json:"attestations,omitempty"`
	SBOM         bool            `json:"sbom,omitempty"`
}

type shownIdentity struct {
	Issuer        string `json:"issuer,omitempty"`
	IssuerRegexp  string `json:"issuerRegexp,omitempty"`
	Subject       string `json:"subject,omitempty"`
	SubjectRegexp string `json:"subjectRegexp,omitempty"`
}

func newShownRule(d verify.DraftImage) shownRule {
	r := shownRule{Repositories: d.Repositories, Keys: d.Keys, Threshold: d.Threshold, Attestations: d.Attestations, SBOM: d.SBOM}
	for _, id := range d.Identities {
		r.Identities = append(r.Identities, shownIdentity(id))
	}
	if d.TrustedRoot != nil {
		r.TrustedRoot = d.TrustedRoot.File
	}
	return r
}

// String returns the rule for people.
func (r shownRule) String() string {
	signers := slices.Clone(r.Keys)
	for _, id := range r.Identities {
		signers = append(signers, id.String())
	}
	text := fmt.Sprintf("%s  %d of %s sign", strings.Join(r.Repositories, ", "), r.Threshold, strings.Join(signers, ", "))
	wanted := slices.Clone(r.Attestations)
	if r.SBOM {
		wanted = append(wanted, "an SBOM")
	}
	if len(wanted) > 0 {
		text += ", also " + strings.Join(wanted, ", ")
	}
	return text
}

// String returns the identity for people: regular expressions between slashes.
func (i shownIdentity) String() string {
	between := func(text, expression string) string {
		if expression != "" {
			return "/" + expression + "/"
		}
		return text
	}
	return between(i.Subject, i.SubjectRegexp) + " by " + between(i.Issuer, i.IssuerRegexp)
}
