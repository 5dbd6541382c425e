package harbor

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"ferry/verify"
)

// Errors of [Latest].
var (
	// ErrNoTag says that no tag of the repository is eligible.
	ErrNoTag = errors.New("no tag to choose")
	// ErrAmbiguous is what an [*AmbiguousError] is.
	ErrAmbiguous = errors.New("the latest tag is ambiguous")
)

var (
	signatureTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}\.(sig|att|sbom)$`)
	referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
)

// IsSignatureTag reports whether tag is one that names no version: where
// cosign puts signatures, attestations and SBOMs, or the tag that stands in
// for the referrers API. Harbor shows some of these as ordinary artifacts.
func IsSignatureTag(tag string) bool {
	return signatureTag.MatchString(tag) || referrersTag.MatchString(tag)
}

// TaggedArtifact is one tag, and the artifact it names.
type TaggedArtifact struct {
	Tag      Tag
	Artifact Artifact
}

// Tags returns all tags of the artifacts, signature tags included, in the
// order of [Latest]: the newest first.
func Tags(artifacts []Artifact) []TaggedArtifact {
	var all []TaggedArtifact
	for _, a := range artifacts {
		for _, t := range a.Tags {
			all = append(all, TaggedArtifact{t, a})
		}
	}
	slices.SortFunc(all, newerFirst)
	return all
}

// newerFirst is the total order of tags, which [Latest] documents.
func newerFirst(x, y TaggedArtifact) int {
	return cmp.Or(
		y.Tag.PushTime.Compare(x.Tag.PushTime),
		y.Artifact.PushTime.Compare(x.Artifact.PushTime),
		strings.Compare(y.Artifact.Digest.String(), x.Artifact.Digest.String()),
		compareTagNames(y.Tag.Name, x.Tag.Name),
	)
}

// compareTagNames orders tags of one artifact: any version comes after what
// is none, the greater one after the smaller, and then the text decides.
func compareTagNames(a, b string) int {
	av, aok := parseVersion(a)
	bv, bok := parseVersion(b)
	switch {
	case aok && !bok:
		return 1
	case bok && !aok:
		return -1
	}
	return cmp.Or(compareVersions(av, bv), strings.Compare(a, b))
}

// LatestRule says which tags [Latest] chooses from; the zero LatestRule takes
// all but signature tags.
type LatestRule struct {
	// Match reports whether a tag is eligible. Nil means every tag is.
	// Signature tags never are.
	Match func(tag string) bool
}

// Choice is the tag that [Latest] chose, and why.
type Choice struct {
	Tag      string
	Digest   verify.Digest
	PushTime time.Time // of the tag
	Reason   string    // a sentence for people, without full stop
}

// Latest returns the newest of the eligible tags. Tags are ordered by
//
//  1. the time when the tag was made or moved. It is not the artifact's
//     push time, which stays what it was when a tag is moved back;
//  2. the time when the artifact first arrived;
//  3. the digest as text, where two different digests tie;
//  4. among tags of one digest: the greater semantic version, any version
//     before what is none, and at last the greater text.
//
// Artifacts without a tag are no candidates. When two different digests tie
// in both times, nothing says which is newer, and Latest refuses to choose by
// digest. Errors:
//   - [ErrNoTag] when no tag is eligible;
//   - [ErrAmbiguous], an [*AmbiguousError] with the tags that tie.
func Latest(artifacts []Artifact, rule LatestRule) (Choice, error) {
	tags := Tags(artifacts)
	all := len(tags)
	tags = slices.DeleteFunc(tags, func(t TaggedArtifact) bool {
		return IsSignatureTag(t.Tag.Name) || rule.Match != nil && !rule.Match(t.Tag.Name)
	})
	if len(tags) == 0 {
		return Choice{}, fmt.Errorf("%w: of %d artifacts with %d tags none is eligible", ErrNoTag, len(artifacts), all)
	}
	best := tags[0]
	other := func(t TaggedArtifact) bool { return t.Artifact.Digest != best.Artifact.Digest }
	// What ties with the best in both times stands right behind it, but for
	// tags of its own digest.
	tied := slices.DeleteFunc(slices.Clone(tags), func(t TaggedArtifact) bool {
		return !t.Tag.PushTime.Equal(best.Tag.PushTime) || !t.Artifact.PushTime.Equal(best.Artifact.PushTime)
	})
	if slices.ContainsFunc(tied, other) {
		return Choice{}, &AmbiguousError{Tied: tied}
	}

	reason := fmt.Sprintf("newest of %d tags by the time of the tag", len(tags))
	if len(tags) == 1 {
		reason = "the only tag"
	}
	if n := all - len(tags); n > 0 {
		reason += fmt.Sprintf(" (%d signature or unwanted tags left out)", n)
	}
	if i := slices.IndexFunc(tags, other); i < 0 {
		if len(tags) > 1 {
			reason += "; all have this digest"
		}
	} else if next := tags[i]; next.Tag.PushTime.Equal(best.Tag.PushTime) {
		reason += fmt.Sprintf("; %s has the same time, but its artifact is older, of %s", next.Tag.Name, stamp(next.Artifact.PushTime))
	} else {
		reason += fmt.Sprintf("; next is %s of %s", next.Tag.Name, stamp(next.Tag.PushTime))
	}
	if x, y, back := clockSetBack(artifacts); back {
		reason += fmt.Sprintf("; the registry's clock was set back at least once: %s came after %s with an earlier time", y, x)
	}
	return Choice{Tag: best.Tag.Name, Digest: best.Artifact.Digest, PushTime: best.Tag.PushTime, Reason: reason}, nil
}

// stamp shows a time to the millisecond, which is what Harbor has.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// clockSlack is how much earlier than its predecessor an artifact may be
// stamped when many are pushed at once.
const clockSlack = time.Minute

// clockSetBack looks for two artifacts of which the later to arrive has the
// earlier time: then times tell less than they seem to.
func clockSetBack(artifacts []Artifact) (before, after verify.Digest, found bool) {
	byID := slices.SortedFunc(slices.Values(artifacts), func(a, b Artifact) int { return cmp.Compare(a.ID, b.ID) })
	var newest Artifact
	for _, a := range byID {
		if a.ID > newest.ID && a.PushTime.Before(newest.PushTime.Add(-clockSlack)) {
			return newest.Digest, a.Digest, true
		}
		if a.PushTime.After(newest.PushTime) {
			newest = a
		}
	}
	return before, after, false
}

// AmbiguousError lists the tags between which [Latest] can not decide: they
// have equal times and name different digests.
type AmbiguousError struct {
	Tied []TaggedArtifact // at least two, in the order of [Latest]
}

func (e *AmbiguousError) Error() string {
	const shown = 5
	var names []string
	for _, t := range e.Tied[:min(len(e.Tied), shown)] {
		names = append(names, t.Tag.Name+"@"+t.Artifact.Digest.String())
	}
	if n := len(e.Tied) - shown; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("%v: these were tagged and pushed at the same time, %s: %s",
		ErrAmbiguous, stamp(e.Tied[0].Tag.PushTime), strings.Join(names, ", "))
}

// Is reports whether target is [ErrAmbiguous].
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }
