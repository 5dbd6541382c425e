package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore-go/pkg/verify"
)

const (
	// MaxEvidence, in bytes, bounds one signature or attestation: it is parsed
	// in memory. A signature has about 300, the SBOM of a large image some
	// millions.
	MaxEvidence = 16 << 20
	// MaxEvidences bounds the signatures and attestations of one image, each of
	// which is tried with every key. Builds that sign the same image each day
	// leave some hundred.
	MaxEvidences = 512
	// maxTrustedRoot, in bytes, bounds a trusted_root.json; that of the public
	// Sigstore has about 10,000.
	maxTrustedRoot = 1 << 20
)

// ImageRule is which signatures of their own the images of some repositories
// must carry. The first entry of a policy that fits a repository decides.
type ImageRule struct {
	name         string // for messages
	patterns     []string
	keys         []*policyKey
	identities   []identity
	threshold    int
	root         *root.TrustedRoot // for identities, else nil
	attestations []string          // predicate types
	sbom         bool
}

// identity is whose keyless signatures count.
type identity struct {
	sigstore.CertificateIdentity
	name string // for messages
}

// HasImageRules reports whether p has a rule for images at all.
func (p *Policy) HasImageRules() bool { return p != nil && len(p.images) > 0 }

// ImageRule returns the first rule that fits a repository, by its path as it
// stands in the bundle, or nil when its images need no signature of their own.
func (p *Policy) ImageRule(repository string) *ImageRule {
	if p == nil {
		return nil
	}
	for _, r := range p.images {
		if slices.ContainsFunc(r.patterns, func(pattern string) bool { return fits(pattern, repository) }) {
			return r
		}
	}
	return nil
}

// everything is the name in a pattern that stands for one name or more.
const everything = "**"

// fits reports whether a pattern of [DraftImage] fits a whole repository path.
func fits(pattern, repository string) bool {
	names := strings.Split(repository, "/")
	want := strings.Split(pattern, "/")
	for i, w := range want {
		if w == everything {
			return len(names) > i
		}
		if i >= len(names) {
			return false
		}
		if ok, err := path.Match(w, names[i]); !ok || err != nil {
			return false
		}
	}
	return len(names) == len(want)
}

// checkPattern returns an error when nothing can fit the pattern.
func checkPattern(pattern string) error {
	names := strings.Split(pattern, "/")
	for i, name := range names {
		_, err := path.Match(name, "")
		switch {
		case err != nil, strings.Trim(name, ".") == "", strings.ContainsAny(name, `\:@`), strings.ToLower(name) != name:
			return fmt.Errorf("%q is not a pattern of repository paths, like team/* or platform/**", pattern)
		case strings.Contains(name, everything) && (name != everything || i != len(names)-1):
			return fmt.Errorf("%q has ** elsewhere than as its last name", pattern)
		}
	}
	return nil
}

func (p *Policy) newImageRule(d DraftImage, files fs.FS) (*ImageRule, error) {
	r := &ImageRule{name: strings.Join(d.Repositories, ", "), patterns: d.Repositories, threshold: d.Threshold, attestations: d.Attestations, sbom: d.SBOM}
	if len(d.Repositories) == 0 {
		return nil, errors.New(`repositories are missing; "**" is all`)
	}
	for _, pattern := range d.Repositories {
		if err := checkPattern(pattern); err != nil {
			return nil, err
		}
	}
	var err error
	if r.keys, err = p.allNamed(d.Keys); err != nil {
		return nil, err
	}
	for i, text := range d.Identities {
		id, err := text.identity()
		if err != nil {
			return nil, fmt.Errorf("identity %d: %w", i+1, err)
		}
		if slices.Contains(d.Identities[:i], text) {
			return nil, fmt.Errorf("identity %d is there twice", i+1)
		}
		r.identities = append(r.identities, id)
	}
	if n := len(r.keys) + len(r.identities); r.threshold < 1 || r.threshold > n {
		return nil, fmt.Errorf("threshold %d is not between 1 and its %d keys and identities", r.threshold, n)
	}
	if (d.TrustedRoot != nil) != (len(r.identities) > 0) {
		return nil, errors.New("identities need a trustedRoot, and nothing else does")
	}
	if d.TrustedRoot != nil {
		if r.root, err = d.TrustedRoot.trustedRoot(files); err != nil {
			return nil, fmt.Errorf("trustedRoot: %w", err)
		}
	}
	for i, predicate := range r.attestations {
		switch {
		case !strings.Contains(predicate, ":") || strings.ContainsAny(predicate, " \t\r\n"):
			return nil, fmt.Errorf("attestation %q is not a predicate type, like https://slsa.dev/provenance/v1", predicate)
		case predicate == predicateSignature:
			return nil, fmt.Errorf("attestation %q is what a signature says, which is wanted anyway", predicate)
		case slices.Contains(r.attestations[:i], predicate):
			return nil, fmt.Errorf("attestation %q is there twice", predicate)
		}
	}
	return r, nil
}

func (d DraftIdentity) identity() (identity, error) {
	issuer, err := exactly("issuer", d.Issuer, d.IssuerRegexp)
	if err != nil {
		return identity{}, err
	}
	subject, err := exactly("subject", d.Subject, d.SubjectRegexp)
	if err != nil {
		return identity{}, err
	}
	id := identity{name: d.Subject + d.SubjectRegexp}
	id.CertificateIdentity, err = sigstore.NewShortCertificateIdentity(d.Issuer, issuer, d.Subject, subject)
	return id, err
}

// exactly returns the regular expression of one of two fields, for the whole
// of a text, or "" when the other one is given, which has no expression.
func exactly(field, text, expression string) (string, error) {
	if (text == "") == (expression == "") {
		return "", fmt.Errorf("want one of %s and %sRegexp", field, field)
	}
	if expression == "" {
		return "", nil
	}
	if _, err := regexp.Compile(expression); err != nil { // of its own: "a)|(b" would be whole only within others
		return "", fmt.Errorf("%sRegexp: %w", field, err)
	}
	return "^(?:" + expression + ")$", nil
}

// trustedRoot returns what a file of Sigstore's trusted_root.json says.
func (d DraftFile) trustedRoot(files fs.FS) (*root.TrustedRoot, error) {
	switch want, err := ParseDigest("sha256:" + d.SHA256); {
	case d.File == "":
		return nil, errors.New("file is missing")
	case err != nil:
		return nil, errors.New("it needs a sha256 of 64 lower-case hex digits, for the policy's signature does not cover the file")
	case files == nil:
		return nil, errors.New("there are no files beside this policy")
	default:
		f, err := files.Open(d.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		content, err := io.ReadAll(io.LimitReader(f, maxTrustedRoot+1))
		if err != nil {
			return nil, err
		}
		if len(content) > maxTrustedRoot {
			return nil, fmt.Errorf("%s has more than %d bytes", d.File, maxTrustedRoot)
		}
		if got := DigestOf(content); got != want {
			return nil, fmt.Errorf("%s has sha256 %s, not %s", d.File, got.Hex(), want.Hex())
		}
		trusted, err := root.NewTrustedRootFromJSON(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.File, err)
		}
		if len(trusted.FulcioCertificateAuthorities()) == 0 || len(trusted.RekorLogs()) == 0 {
			return nil, fmt.Errorf("%s has no certificate authority or no transparency log: no keyless signature could count", d.File)
		}
		return trusted, nil
	}
}

// ImageVerdict is what [ImageRule.Check] has found.
type ImageVerdict struct {
	// Signers are those whose signatures of the image counted, each once.
	Signers []ImageSigner `json:"signers"`
	// Attestations are the predicate types that the rule wants, the SBOM's as
	// the last.
	Attestations []string `json:"attestations,omitempty"`
}

// ImageSigner is a key or an identity that has signed an image.
type ImageSigner struct {
	Key         string `json:"key,omitempty"` // its name in the policy
	Fingerprint string `json:"fingerprint,omitempty"`
	Issuer      string `json:"issuer,omitempty"` // of the identity in a certificate
	Subject     string `json:"subject,omitempty"`
}

// String returns the signer for people.
func (s ImageSigner) String() string {
	if s.Key != "" {
		return s.Key
	}
	return s.Subject
}

// Check returns who has signed an image, the digest of its manifest or index,
// when that is as the rule wants it at the time now.
//
// One piece of evidence counts when it is a good signature over the image by
// one of the rule's keys or identities, whatever else there is: who may write
// to the source may add to it. A key counts while it is valid; a keyless
// signature when its certificate was valid at a time that the trusted root's
// log or time stamping authority vouches for, and the log has an entry of it.
// Where the trusted root names logs of certificates, these must have the
// certificate, too. A key or identity counts once. The threshold is for the
// image, and for each attestation.
//
// An attestation is no signature: it says how an image came to be, not that
// anybody stands for it. What is not signed, such as cosign's .sbom, is no
// evidence.
//
// Errors: [ErrUntrusted], as one of the refusals that begin with ErrImage, as
// [ErrAttestation], [ErrSBOM], [ErrKeyExpired] or [ErrKeyNotYetValid]; those of
// reading the evidence.
func (r *ImageRule) Check(ctx context.Context, image Digest, evidence []Evidence, now time.Time) (*ImageVerdict, error) {
	if len(evidence) > MaxEvidences {
		return nil, fmt.Errorf("%w: there are %d signatures and attestations, more than %d", ErrImageSignature, len(evidence), MaxEvidences)
	}
	demands := r.demands()
	for _, e := range evidence {
		if e.MediaType == mediaTypeDSSE && len(demands) == 1 {
			continue // an attestation, which nobody wants
		}
		if e.Size > MaxEvidence {
			for _, d := range demands {
				d.notes = append(d.notes, fmt.Sprintf("%s has %d bytes, more than %d", e.Name, e.Size, MaxEvidence))
			}
			continue
		}
		err := e.Read(ctx, func(content []byte) error {
			r.weigh(image, e, content, demands)
			return ctx.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	verdict := &ImageVerdict{}
	for _, d := range demands {
		signers, err := d.meet(r, now)
		if err != nil {
			return nil, err
		}
		if d.predicate == predicateSignature {
			verdict.Signers = signers
		} else {
			verdict.Attestations = append(verdict.Attestations, d.found)
		}
	}
	return verdict, nil
}

// demand is one thing that a rule wants to be signed, with what there is of it.
type demand struct {
	predicate string // predicateSignature, a predicate type, or "" for an SBOM
	found     string // the predicate type that counted
	signers   []signer
	about     int      // evidence about the image that none of the rule's has signed
	bad       []string // evidence that is damaged or about something else, and how
	notes     []string // other reasons why evidence did not count
}

// signer is who has signed one piece of evidence.
type signer struct {
	key      *policyKey
	identity int // in the rule's list, when key is nil; else 0
	ImageSigner
}

func (r *ImageRule) demands() []*demand {
	list := []*demand{{predicate: predicateSignature}}
	for _, predicate := range r.attestations {
		list = append(list, &demand{predicate: predicate})
	}
	if r.sbom {
		list = append(list, &demand{})
	}
	return list
}

// wants reports whether a predicate type is what d asks for.
func (d *demand) wants(predicate string) bool {
	if d.predicate != "" {
		return d.predicate == predicate
	}
	return slices.ContainsFunc(predicatesSBOM, func(base string) bool {
		return predicate == base || strings.HasPrefix(predicate, base+"/")
	})
}

// weigh adds a piece of evidence to the demands that it is about.
func (r *ImageRule) weigh(image Digest, e Evidence, content []byte, demands []*demand) {
	s, err := parseEvidence(e, content)
	for _, d := range demands {
		if err != nil {
			d.bad = append(d.bad, fmt.Sprintf("%s: %v", e.Name, err))
			continue
		}
		if !d.wants(s.predicate) {
			continue
		}
		if !slices.Contains(s.images, image) {
			d.bad = append(d.bad, fmt.Sprintf("%s is of another image, %s", e.Name, describeImages(s.images)))
			continue
		}
		who, reason := r.who(image, s)
		switch {
		case who != nil:
			d.signers, d.found = append(d.signers, *who), s.predicate
		case reason != nil:
			d.bad = append(d.bad, fmt.Sprintf("%s: %v", e.Name, reason))
		default:
			d.about++
		}
	}
}

func describeImages(list []Digest) string {
	if len(list) != 1 {
		return fmt.Sprintf("one of %d", len(list))
	}
	return list[0].String()
}

// who returns the key or the identity of the rule that has signed s, or nil.
// The error says that s is wrong though it claims to be of one of them.
func (r *ImageRule) who(image Digest, s *statement) (*signer, error) {
	for _, key := range r.keys {
		if s.byKey == nil {
			break
		}
		if err := s.checkKey(image, key.Key); err != nil {
			if s.hint == key.fingerprint {
				return nil, fmt.Errorf("it is not the signature of %q that it says it is: %w", key.name, err)
			}
			continue
		}
		return &signer{key: key, ImageSigner: ImageSigner{Key: key.name, Fingerprint: key.fingerprint}}, nil
	}
	if s.byCertificate == nil || r.root == nil {
		return nil, nil
	}
	claimed, err := s.summary()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.identities, func(id identity) bool { return id.Verify(claimed) == nil })
	if i < 0 {
		return nil, nil
	}
	subject, err := s.checkCertificate(image, r.root, r.identities[i].CertificateIdentity)
	if err != nil {
		return nil, fmt.Errorf("it is not the signature of %q that it says it is: %w", claimed.SubjectAlternativeName, err)
	}
	return &signer{identity: i, ImageSigner: ImageSigner{Issuer: subject.Issuer, Subject: subject.SubjectAlternativeName}}, nil
}

// meet returns those who count at the time now, or an error when they are fewer
// than the rule wants.
func (d *demand) meet(r *ImageRule, now time.Time) ([]ImageSigner, error) {
	var counted []signer
	var early, late *policyKey
	again := 0
	for _, s := range d.signers {
		same := func(c signer) bool { return c.key == s.key && c.identity == s.identity }
		switch {
		case s.key != nil && now.Before(s.key.notBefore):
			early = s.key
		case s.key != nil && !s.key.notAfter.IsZero() && !now.Before(s.key.notAfter):
			late = s.key
		case slices.ContainsFunc(counted, same):
			again++ // T22
		default:
			counted = append(counted, s)
		}
	}
	if len(counted) >= r.threshold {
		var signers []ImageSigner
		for _, s := range counted {
			signers = append(signers, s.ImageSigner)
		}
		return signers, nil
	}
	short := fmt.Sprintf("%d of the %d keys and identities that are needed of the rule for %s", len(counted), r.threshold, r.name)
	var kind refusal
	var reason string
	switch {
	case late != nil:
		kind, reason = ErrKeyExpired, fmt.Sprintf("%q counted until %s", late.name, late.notAfter.Format(time.RFC3339))
	case early != nil:
		kind, reason = ErrKeyNotYetValid, fmt.Sprintf("%q counts from %s", early.name, early.notBefore.Format(time.RFC3339))
	case again > 0:
		kind, reason = ErrImageThreshold, fmt.Sprintf("%q counts once", counted[0])
	case len(counted) > 0:
		kind = ErrImageThreshold
	case len(d.bad) > 0:
		kind = ErrImageSignature
	case d.about > 0:
		kind, reason = ErrImageSigner, fmt.Sprintf("of %d signatures none is good with a key or identity of the rule", d.about)
	default:
		kind = ErrImageUnsigned
	}
	if d.predicate != predicateSignature {
		kind, short = d.missing(), d.want()+": "+short
	}
	reasons := slices.DeleteFunc(slices.Concat([]string{reason}, d.bad, d.notes), func(s string) bool { return s == "" })
	const most = 3 // that anybody reads
	if more := len(reasons) - most; more > 0 {
		reasons = append(reasons[:most], fmt.Sprintf("and %d more", more))
	}
	return nil, fmt.Errorf("%w: %s", kind, strings.Join(append(reasons, short), "; "))
}

func (d *demand) missing() refusal {
	if d.predicate == "" {
		return ErrSBOM
	}
	return ErrAttestation
}

func (d *demand) want() string {
	if d.predicate == "" {
		return "SPDX or CycloneDX"
	}
	return d.predicate
}

// bytesOf returns a policy for content that was signed as it is.
func bytesOf(content []byte) func(Digest) sigstore.ArtifactPolicyOption {
	return func(Digest) sigstore.ArtifactPolicyOption { return sigstore.WithArtifact(bytes.NewReader(content)) }
}

// digestOf is a policy for what names the image by its digest.
func digestOf(image Digest) sigstore.ArtifactPolicyOption {
	return sigstore.WithArtifactDigest("sha256", image[:])
}
