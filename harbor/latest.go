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

	"github.com/bmatcuk/doublestar/v4"
)

// Errors of [Latest].
var (
	// ErrNoTag says that no tag of the repository is eligible.
	ErrNoTag = errors.New("no tag to choose")
	// ErrOnlyPrereleases says that all versions are pre-releases, which the
	// rule leaves out. It comes with [ErrNoTag].
	ErrOnlyPrereleases = errors.New("all versions are pre-releases")
	// ErrRule says that a [LatestRule] is none, or has a malformed pattern.
	ErrRule = errors.New("malformed rule for the latest tag")
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
// order of [Latest] by push time: the newest first.
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

// newerFirst is the total order of tags by push time, as [Latest] has it.
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

// By names the rule by which [Latest] takes one tag for the newest.
type By string

const (
	// ByPushTime takes the tag that was made or moved last. It is the rule
	// of the zero [LatestRule].
	ByPushTime By = "push-time"
	// BySemver takes the greatest semantic version.
	BySemver By = "semver"
	// ByCreated takes the image that was built last, as its builder says.
	ByCreated By = "created"
)

// LatestRule says which tags [Latest] chooses from, and how; the zero
// LatestRule takes all but signature tags, by the time of the push.
type LatestRule struct {
	// By is the rule. Empty means [ByPushTime].
	By By
	// Match lists patterns, of which an eligible tag fits one. None means
	// every tag is eligible. Signature tags never are. A pattern is for the
	// whole tag: * is any text, ? one character, [a-c] or [!a-c] one of some
	// or of the others, {x,y} one of several, and \ takes the next character
	// as it is.
	Match []string
	// Exclude lists patterns, of which an eligible tag fits none.
	Exclude []string
	// Prereleases says that versions such as 1.0.0-rc.1 count [BySemver].
	Prereleases bool
}

// Check says what is wrong with a rule. Errors: [ErrRule].
func (r LatestRule) Check() error {
	if !slices.Contains([]By{"", ByPushTime, BySemver, ByCreated}, r.By) {
		return fmt.Errorf("%w %q", ErrRule, r.By)
	}
	for _, p := range slices.Concat(r.Match, r.Exclude) {
		if p == "" || !doublestar.ValidatePattern(p) {
			return fmt.Errorf("%w: pattern %q", ErrRule, p)
		}
	}
	return nil
}

// eligible reports whether a tag may be chosen.
func (r LatestRule) eligible(tag string) bool {
	fits := func(pattern string) bool { return doublestar.MatchUnvalidated(pattern, tag) }
	return !IsSignatureTag(tag) && (len(r.Match) == 0 || slices.ContainsFunc(r.Match, fits)) && !slices.ContainsFunc(r.Exclude, fits)
}

// Choice is the tag that [Latest] chose, and why.
type Choice struct {
	By       By
	Tag      string
	Digest   verify.Digest
	PushTime time.Time // of the tag
	Created  time.Time // see [Artifact]; may be zero
	Reason   string    // a sentence for people, without full stop
}

// Latest returns the newest of the eligible tags. What is newer
//
//   - [ByPushTime] says the time when the tag was made or moved; it is not the
//     artifact's push time, which stays what it was when a tag is moved back.
//     Where that is equal, the time when the artifact first arrived says it.
//   - [BySemver] says the precedence of Semantic Versioning 2.0.0. A tag may
//     have a "v" before it, fewer than three numbers, leading zeros, and "_"
//     for "+". Tags that are no versions never win, nor do pre-releases unless
//     [LatestRule.Prereleases] is set. A lone number of more than six digits
//     is no version, nor are four numbers.
//   - [ByCreated] says [Artifact.Created]. Artifacts without it never win;
//     [Client.AddCreated] finds that of indexes.
//
// Among tags of one digest that the rule does not tell apart the greater
// version wins, then any version before what is none, and at last the greater
// text; by creation, the time of the tag comes before that. When the rule does
// not tell two digests apart, nothing says which is newer, and Latest refuses
// to choose. Artifacts without a tag are no candidates. Errors:
//   - [ErrNoTag] when no tag is eligible, which is [ErrOnlyPrereleases] too
//     when pre-releases would be;
//   - [ErrAmbiguous], an [*AmbiguousError] with the tags that tie;
//   - [ErrRule].
func Latest(artifacts []Artifact, rule LatestRule) (Choice, error) {
	if err := rule.Check(); err != nil {
		return Choice{}, err
	}
	rule.By = cmp.Or(rule.By, ByPushTime)
	c, err := newContest(artifacts, rule)
	if err != nil {
		return Choice{}, err
	}
	best := c.tags[0]
	if tied := c.tied(); slices.ContainsFunc(tied, best.differs) {
		e := &AmbiguousError{By: rule.By}
		for _, t := range tied {
			e.Tied = append(e.Tied, t.TaggedArtifact)
		}
		return Choice{}, e
	}
	reason := c.reason()
	if rule.By == ByPushTime {
		if x, y, back := clockSetBack(artifacts); back {
			reason += fmt.Sprintf("; the registry's clock was set back at least once: %s came after %s with an earlier time", y, x)
		}
	}
	return Choice{By: rule.By, Tag: best.Tag.Name, Digest: best.Artifact.Digest, PushTime: best.Tag.PushTime,
		Created: best.Artifact.Created, Reason: reason}, nil
}

// Disagreements returns what other rules than that of choice choose from the
// tags that rule makes eligible, each where it is another digest. A rule that
// can not choose is left out, and so is [ByCreated] when it does not know the
// times of all: then it would guess.
func Disagreements(artifacts []Artifact, rule LatestRule, choice Choice) []Choice {
	var all []Choice
	for _, by := range []By{ByPushTime, BySemver, ByCreated} {
		rule.By = by
		if by == choice.By || by == ByCreated && !rule.knowsCreated(artifacts) {
			continue
		}
		if c, err := Latest(artifacts, rule); err == nil && c.Digest != choice.Digest {
			all = append(all, c)
		}
	}
	return all
}

// knowsCreated reports whether all artifacts with an eligible tag have a time
// of creation.
func (r LatestRule) knowsCreated(artifacts []Artifact) bool {
	return !slices.ContainsFunc(artifacts, func(a Artifact) bool {
		return a.Created.IsZero() && slices.ContainsFunc(a.Tags, func(t Tag) bool { return r.eligible(t.Name) })
	})
}

// contest is how a rule sees the tags of a repository.
type contest struct {
	by      By
	tags    []candidate // the newest first
	leftOut []string    // what was, for people
}

type candidate struct {
	TaggedArtifact
	version version // by semver
}

func (x candidate) differs(y candidate) bool { return x.Artifact.Digest != y.Artifact.Digest }

// newContest orders the tags that can win. Errors: [ErrNoTag].
func newContest(artifacts []Artifact, rule LatestRule) (*contest, error) {
	c := &contest{by: rule.By}
	all, unwanted, without, previews := 0, 0, 0, 0
	for _, a := range artifacts {
		for _, t := range a.Tags {
			all++
			if !rule.eligible(t.Name) {
				unwanted++
				continue
			}
			v, isVersion := parseVersion(t.Name)
			switch {
			case rule.By == BySemver && !isVersion, rule.By == ByCreated && a.Created.IsZero():
				without++
			case rule.By == BySemver && len(v.prerelease) > 0 && !rule.Prereleases:
				previews++
			default:
				c.tags = append(c.tags, candidate{TaggedArtifact{t, a}, v})
			}
		}
	}
	what := map[By]string{BySemver: "without a version", ByCreated: "without a time of creation"}[rule.By]
	for _, left := range []string{counted(previews, "pre-release"), counted(without, "tag", what), counted(unwanted, "signature or unwanted tag")} {
		if left != "" {
			c.leftOut = append(c.leftOut, left)
		}
	}
	switch {
	case len(c.tags) > 0:
		slices.SortFunc(c.tags, func(x, y candidate) int {
			return cmp.Or(c.compare(y, x), strings.Compare(y.Artifact.Digest.String(), x.Artifact.Digest.String()), c.compareNames(y, x))
		})
		return c, nil
	case previews > 0:
		return nil, fmt.Errorf("%w: %w (%s)", ErrNoTag, ErrOnlyPrereleases, strings.Join(c.leftOut, ", "))
	case without > 0:
		return nil, fmt.Errorf("%w by %s: %s", ErrNoTag, rule.By, strings.Join(c.leftOut, ", "))
	}
	return nil, fmt.Errorf("%w: of %d artifacts with %d tags none is eligible", ErrNoTag, len(artifacts), all)
}

// counted returns n with its noun and what is said of it, or "" for none.
func counted(n int, noun string, more ...string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return strings.Join(append([]string{"1", noun}, more...), " ")
	}
	return strings.Join(append([]string{fmt.Sprint(n), noun + "s"}, more...), " ")
}

// compare returns whether x is newer than y, 1, or older, -1, as far as the
// rule goes.
func (c *contest) compare(x, y candidate) int {
	switch c.by {
	case BySemver:
		return compareVersions(x.version, y.version)
	case ByCreated:
		return x.Artifact.Created.Compare(y.Artifact.Created)
	}
	return cmp.Or(x.Tag.PushTime.Compare(y.Tag.PushTime), x.Artifact.PushTime.Compare(y.Artifact.PushTime))
}

// compareNames orders two tags of one digest that the rule does not.
func (c *contest) compareNames(x, y candidate) int {
	names := compareTagNames(x.Tag.Name, y.Tag.Name)
	if c.by == ByCreated {
		return cmp.Or(x.Tag.PushTime.Compare(y.Tag.PushTime), names)
	}
	return names
}

// tied returns the tags that the rule does not tell from the best, itself
// among them.
func (c *contest) tied() []candidate {
	n := slices.IndexFunc(c.tags, func(t candidate) bool { return c.compare(t, c.tags[0]) != 0 })
	if n < 0 {
		n = len(c.tags)
	}
	return c.tags[:n]
}

// reason says why the best is the best.
func (c *contest) reason() string {
	best, n := c.tags[0], len(c.tags)
	reason := map[By]string{
		ByPushTime: fmt.Sprintf("newest of %d tags by the time of the tag", n),
		BySemver:   fmt.Sprintf("greatest of %d versions", n),
		ByCreated:  fmt.Sprintf("newest of %d tags by the time of creation, %s", n, stamp(best.Artifact.Created)),
	}[c.by]
	if n == 1 {
		reason = map[By]string{
			ByPushTime: "the only tag",
			BySemver:   "the only version",
			ByCreated:  "the only tag with a time of creation, " + stamp(best.Artifact.Created),
		}[c.by]
	}
	if len(c.leftOut) > 0 {
		reason += fmt.Sprintf(" (%s left out)", strings.Join(c.leftOut, ", "))
	}
	i := slices.IndexFunc(c.tags, best.differs)
	if i < 0 {
		if n > 1 {
			reason += "; all have this digest"
		}
		return reason
	}
	next := c.tags[i]
	switch {
	case c.by == BySemver:
		return reason + "; next is " + next.Tag.Name
	case c.by == ByCreated:
		return reason + fmt.Sprintf("; next is %s of %s", next.Tag.Name, stamp(next.Artifact.Created))
	case next.Tag.PushTime.Equal(best.Tag.PushTime):
		return reason + fmt.Sprintf("; %s has the same time, but its artifact is older, of %s", next.Tag.Name, stamp(next.Artifact.PushTime))
	}
	return reason + fmt.Sprintf("; next is %s of %s", next.Tag.Name, stamp(next.Tag.PushTime))
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
// are equal by the rule and name different digests.
type AmbiguousError struct {
	By   By
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
	why := "were tagged and pushed at the same time, " + stamp(e.Tied[0].Tag.PushTime)
	switch e.By {
	case BySemver:
		why = "are the same version"
	case ByCreated:
		why = "were created at the same time, " + stamp(e.Tied[0].Artifact.Created)
	}
	return fmt.Sprintf("%v: these %s: %s", ErrAmbiguous, why, strings.Join(names, ", "))
}

// Is reports whether target is [ErrAmbiguous].
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }
