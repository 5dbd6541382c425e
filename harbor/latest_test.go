package harbor

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/verify"

	"pgregory.net/rapid"
)

// latest reads the repository and chooses.
func (s *site) latest(repository string, rule LatestRule) (Choice, error) {
	s.t.Helper()
	project, name, err := SplitRepository(repository)
	if err != nil {
		s.t.Fatal(err)
	}
	as, err := s.admin().Artifacts(s.t.Context(), project, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return Latest(as, rule)
}

// TestLatest is the whole trap: 250 artifacts, a tag that is moved back, and
// signatures that come last. NOTES 12, 16; T68.
func TestLatest(t *testing.T) {
	s := newSite(t)
	s.fill(250)
	choice, err := s.latest("library/app/api", LatestRule{})
	if err != nil || choice.Tag != "v250" || !choice.PushTime.Equal(s.now) || !strings.Contains(choice.Reason, "250 tags") ||
		!strings.Contains(choice.Reason, "next is v249 of 2026-11-21T02:44:09.000Z") {
		t.Errorf("Latest = %+v, %v", choice, err)
	}
	// Back to an image of page 1.
	digest := s.push("library/app/api", "image 7", "latest")
	first := s.raw(http.MethodGet, repoPath+"?sort=-push_time&page_size=1")
	body := make([]byte, 4096)
	n, _ := first.Body.Read(body)
	if strings.Contains(string(body[:n]), digest) {
		t.Fatal("the trap is not there: the sort finds the newest tag")
	}
	choice, err = s.latest("library/app/api", LatestRule{})
	if err != nil || choice.Tag != "latest" || choice.Digest.String() != digest {
		t.Errorf("after the rollback: %+v, %v, want latest %s", choice, err, digest)
	}
	// Pushing the same again changes nothing.
	moved := s.now
	s.push("library/app/api", "image 7", "latest", "v7")
	if choice, err = s.latest("library/app/api", LatestRule{}); err != nil || choice.Tag != "latest" || !choice.PushTime.Equal(moved) {
		t.Errorf("after the same again: %+v, %v", choice, err)
	}
	// Attestations are ordinary artifacts to Harbor.
	hex := strings.TrimPrefix(digest, "sha256:")
	pushCosign(s, "library/app/api", "sha256-"+hex+".sig", "application/vnd.dev.cosign.simplesigning.v1+json")
	att := pushCosign(s, "library/app/api", "sha256-"+hex+".att", "application/vnd.dsse.envelope.v1+json")
	pushCosign(s, "library/app/api", "sha256-"+hex+".sbom", "text/spdx")
	pushCosign(s, "library/app/api", "sha256-"+hex, "application/json")
	as, err := s.admin().Artifacts(t.Context(), "library", "app/api")
	if err != nil || !slices.ContainsFunc(as, func(a Artifact) bool { return a.Digest.String() == att }) {
		t.Fatalf("the trap is not there: no .att among %d artifacts, %v", len(as), err)
	}
	choice, err = Latest(as, LatestRule{})
	if err != nil || choice.Tag != "latest" || choice.Digest.String() != digest || !strings.Contains(choice.Reason, "(3 signature or unwanted tags left out)") {
		t.Errorf("with signatures: %+v, %v", choice, err)
	}
	// A rule chooses among some.
	choice, err = Latest(as, LatestRule{Match: []string{"v1*", "*.att"}})
	if err != nil || choice.Tag != "v199" {
		t.Errorf("v1*: %+v, %v", choice, err)
	}
	if tags := Tags(as); len(tags) != 254 || tags[3].Tag.Name != "latest" || tags[4].Tag.Name != "v250" || tags[253].Tag.Name != "v1" {
		t.Errorf("%d tags", len(tags))
	}
}

// TestEqualTimes: a clock that stands still. T68.
func TestEqualTimes(t *testing.T) {
	s := newSite(t)
	one := s.PushImage(t, "library/a", "one", "latest", "1.9.0", "1.10.0", "1.10.0-rc.1")
	choice, err := s.latest("library/a", LatestRule{})
	if err != nil || choice.Tag != "1.10.0" || choice.Digest != one || !strings.Contains(choice.Reason, "all have this digest") {
		t.Errorf("tags of one digest: %+v, %v", choice, err)
	}
	two := s.PushImage(t, "library/a", "two", "2.0")
	_, err = s.latest("library/a", LatestRule{})
	var e *AmbiguousError
	if !errors.Is(err, ErrAmbiguous) || !errors.As(err, &e) || len(e.Tied) != 5 ||
		!strings.Contains(err.Error(), one.String()) || !strings.Contains(err.Error(), two.String()) {
		t.Errorf("two digests: %v", err)
	}
	// Made to choose among one's tags, it can.
	if choice, err := s.latest("library/a", LatestRule{Match: []string{"1*"}}); err != nil || choice.Digest != one {
		t.Errorf("1*: %+v, %v", choice, err)
	}
	// Of two tags that are set at one time, the artifact that arrived later
	// decides, and the reason says so.
	s.PushImage(t, "library/b", "old")
	s.advance(time.Hour)
	s.PushImage(t, "library/b", "old", "x")
	younger := s.PushImage(t, "library/b", "new", "y")
	choice, err = s.latest("library/b", LatestRule{})
	if err != nil || choice.Tag != "y" || choice.Digest != younger || !strings.Contains(choice.Reason, "x has the same time, but its artifact is older, of 2026-11-21T02:40:00.000Z") {
		t.Errorf("equal times of tags: %+v, %v", choice, err)
	}
}

func TestNoTag(t *testing.T) {
	s := newSite(t)
	s.PushImage(t, "library/a", "untagged")
	if _, err := s.latest("library/a", LatestRule{}); !errors.Is(err, ErrNoTag) {
		t.Errorf("untagged: %v", err)
	}
	if _, err := Latest(nil, LatestRule{}); !errors.Is(err, ErrNoTag) {
		t.Errorf("nothing: %v", err)
	}
	s.PushImage(t, "library/a", "tagged", "only")
	if choice, err := s.latest("library/a", LatestRule{}); err != nil || choice.Reason != "the only tag" {
		t.Errorf("one tag: %+v, %v", choice, err)
	}
}

// TestClockSetBack: the rule stays the rule, and the reason has a warning. T68.
func TestClockSetBack(t *testing.T) {
	s := newSite(t)
	s.push("library/a", "one", "1.0")
	s.advance(-time.Hour)
	s.push("library/a", "two", "2.0")
	choice, err := s.latest("library/a", LatestRule{})
	if err != nil || choice.Tag != "1.0" || !strings.Contains(choice.Reason, "clock was set back") {
		t.Errorf("Latest = %+v, %v", choice, err)
	}
}

func TestIsSignatureTag(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for tag, want := range map[string]bool{
		"sha256-" + hex: true, "sha256-" + hex + ".sig": true, "sha256-" + hex + ".att": true, "sha256-" + hex + ".sbom": true,
		"sha256-" + hex + ".txt": false, "sha256-" + hex[1:]: false, "x-sha256-" + hex: false, "1.0.sig": false, "latest": false,
		"sha256-" + strings.ToUpper(hex): false,
	} {
		if got := IsSignatureTag(tag); got != want {
			t.Errorf("IsSignatureTag(%q) = %v, want %v", tag, got, want)
		}
	}
}

// TestVersions has the example of Semantic Versioning 2.0.0, section 11, among
// others, in ascending order.
func TestVersions(t *testing.T) {
	ascending := []string{
		"0", "0.0.1", "v0.1", "1.0.0-0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
		"1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.9.0", "v1.10.0-rc.1_build.5", "v1.10.0", "2", "10.0.0", "99999999999999999999.0.0", "100000000000000000000.0.0",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			av, aok := parseVersion(a)
			bv, bok := parseVersion(b)
			if !aok || !bok {
				t.Fatalf("%q or %q is no version", a, b)
			}
			if got := compareVersions(av, bv); cmp.Compare(got, 0) != cmp.Compare(i, j) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
		}
	}
	for _, tag := range []string{"latest", "v", "1.", "1.2.3.4", "1.0-", "1..2", "x1.0", "", "1.0.0-a..b", "-1"} {
		if v, ok := parseVersion(tag); ok {
			t.Errorf("%q is version %v", tag, v)
		}
	}
}

// artifactsGen makes repositories with many equal times and few names.
func artifactsGen() *rapid.Generator[[]Artifact] {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := rapid.Map(rapid.IntRange(0, 4), func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) })
	name := rapid.OneOf(
		rapid.SampledFrom([]string{"latest", "stable", "1.0.0", "1.0", "v1.0.0", "1.1.0-rc.1", "1.1.0", "2", "z"}),
		rapid.Just("sha256-"+strings.Repeat("ab", 32)+".att"),
	)
	return rapid.Custom(func(t *rapid.T) []Artifact {
		taken := map[string]bool{}
		var as []Artifact
		for i := range rapid.IntRange(0, 6).Draw(t, "artifacts") {
			a := Artifact{ID: int64(i + 1), Digest: verify.DigestOf(fmt.Append(nil, i)), PushTime: at.Draw(t, "arrived")}
			for _, n := range rapid.SliceOfN(name, 0, 3).Draw(t, "names") {
				if !taken[n] {
					taken[n] = true
					a.Tags = append(a.Tags, Tag{Name: n, PushTime: at.Draw(t, "tagged")})
				}
			}
			as = append(as, a)
		}
		return as
	})
}

// TestLatestProperty compares with the rule written out: of all pairs, the one
// that no other one beats. T68.
func TestLatestProperty(t *testing.T) {
	signature := regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.(sig|att|sbom))?$`)
	type pair struct {
		a Artifact
		t Tag
	}
	rapid.Check(t, func(t *rapid.T) {
		as := artifactsGen().Draw(t, "repository")
		var pairs []pair
		for _, a := range as {
			for _, tag := range a.Tags {
				if !signature.MatchString(tag.Name) {
					pairs = append(pairs, pair{a, tag})
				}
			}
		}
		beats := func(x, y pair) bool {
			switch {
			case !x.t.PushTime.Equal(y.t.PushTime):
				return x.t.PushTime.After(y.t.PushTime)
			case !x.a.PushTime.Equal(y.a.PushTime):
				return x.a.PushTime.After(y.a.PushTime)
			case x.a.Digest != y.a.Digest:
				return false // neither
			}
			xv, xok := parseVersion(x.t.Name)
			yv, yok := parseVersion(y.t.Name)
			if xok != yok {
				return xok
			}
			if c := compareVersions(xv, yv); xok && c != 0 {
				return c > 0
			}
			return x.t.Name > y.t.Name
		}
		var best []pair
		for _, x := range pairs {
			if !slices.ContainsFunc(pairs, func(y pair) bool { return beats(y, x) }) {
				best = append(best, x)
			}
		}
		got, err := Latest(as, LatestRule{})
		switch {
		case len(pairs) == 0:
			if !errors.Is(err, ErrNoTag) {
				t.Fatalf("no tag: %+v, %v", got, err)
			}
		case len(best) > 1:
			if !errors.Is(err, ErrAmbiguous) {
				t.Fatalf("%d tie: %+v, %v", len(best), got, err)
			}
		case err != nil || got.Tag != best[0].t.Name || got.Digest != best[0].a.Digest || !got.PushTime.Equal(best[0].t.PushTime) || got.Reason == "":
			t.Fatalf("Latest = %+v, %v, want %+v", got, err, best[0])
		}
		// The order of the artifacts does not matter.
		shuffled := rapid.Permutation(as).Draw(t, "shuffled")
		if again, err2 := Latest(shuffled, LatestRule{}); again != got || fmt.Sprint(err2) != fmt.Sprint(err) {
			t.Fatalf("in another order: %+v, %v; before %+v, %v", again, err2, got, err)
		}
		// Tags has them all, each beaten by none behind it.
		tags := Tags(as)
		if !reflect.DeepEqual(Tags(shuffled), tags) {
			t.Fatalf("Tags depend on the order of the artifacts")
		}
		for i := 1; i < len(tags); i++ {
			if x, y := tags[i-1], tags[i]; x.Tag.PushTime.Equal(y.Tag.PushTime) && x.Artifact.PushTime.Equal(y.Artifact.PushTime) &&
				x.Artifact.Digest.String() < y.Artifact.Digest.String() {
				t.Fatalf("%v stands behind %v", y, x)
			}
			if beats(pair{tags[i].Artifact, tags[i].Tag}, pair{tags[i-1].Artifact, tags[i-1].Tag}) {
				t.Fatalf("%v stands behind %v", tags[i], tags[i-1])
			}
		}
	})
}
