package harbor

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"path"
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

// TestEqualVersions has tags that are one version: leading zeros, a "v",
// missing numbers and what stands for build metadata do not count.
func TestEqualVersions(t *testing.T) {
	for _, pair := range [][2]string{
		{"1", "1.0.0"}, {"v1.10", "1.10.0"}, {"2026.01", "2026.1.0"}, {"1.0.0_build.7", "1.0.0"}, {"1.0.0-rc.1_x", "1.0.0-rc.1"}, {"000001", "1"},
		{"1.0.0-rc.01", "1.0.0-rc.1"},
	} {
		a, aok := parseVersion(pair[0])
		b, bok := parseVersion(pair[1])
		if !aok || !bok || compareVersions(a, b) != 0 {
			t.Errorf("%q and %q are not equal", pair[0], pair[1])
		}
	}
}

// TestRules has one repository in which each rule has its own winner. T68.
func TestRules(t *testing.T) {
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return base.Add(time.Duration(hours) * time.Hour) }
	artifact := func(id, created int, tags ...string) Artifact {
		a := Artifact{ID: int64(id), Digest: verify.DigestOf(fmt.Append(nil, id)), PushTime: at(id)}
		if created > 0 {
			a.Created = at(-1000 + created)
		}
		for _, tag := range tags {
			a.Tags = append(a.Tags, Tag{Name: tag, PushTime: at(id)})
		}
		return a
	}
	as := []Artifact{
		artifact(1, 9, "v1.9.0", "stable"), artifact(2, 3, "v1.10.0", "1.10"), artifact(3, 5, "v2.0.0-rc.1"), artifact(4, 2, "nightly", "20260101"),
	}
	as[0].Tags[1].PushTime = at(5) // moved back
	for _, c := range []struct {
		rule   LatestRule
		tag    string
		reason string
		others string
	}{
		{LatestRule{}, "stable", "newest of 7 tags by the time of the tag; next is 20260101 of 2026-01-01T04:00:00.000Z|next is nightly", "semver v1.10.0"},
		{LatestRule{By: BySemver}, "v1.10.0", "greatest of 3 versions (1 pre-release, 3 tags without a version left out); next is v1.9.0", "push-time stable,created stable"},
		{LatestRule{By: BySemver, Prereleases: true}, "v2.0.0-rc.1", "greatest of 4 versions (3 tags without a version left out); next is v1.10.0", "push-time stable,created stable"},
		{LatestRule{By: ByCreated}, "stable", "newest of 7 tags by the time of creation, 2025-11-20T17:00:00.000Z; next is v2.0.0-rc.1 of 2025-11-20T13:00:00.000Z", "semver v1.10.0"},
		{LatestRule{Match: []string{"v1.*"}}, "v1.10.0", "newest of 2 tags by the time of the tag (5 signature or unwanted tags left out); next is v1.9.0", "created v1.9.0"},
		{LatestRule{Match: []string{"v*", "1*"}, Exclude: []string{"*-rc*", "v1.1?.*"}}, "1.10", "newest of 2 tags", "created v1.9.0"},
		{LatestRule{Match: []string{"{stable,nightly}"}, Exclude: []string{"[!n]*"}}, "nightly", "the only tag (6 ", ""},
		{LatestRule{By: BySemver, Match: []string{"v1.9*"}}, "v1.9.0", "the only version (6 signature or unwanted tags left out)", ""},
	} {
		choice, err := Latest(as, c.rule)
		if err != nil || choice.Tag != c.tag || choice.By != cmp.Or(c.rule.By, ByPushTime) {
			t.Errorf("%+v: %+v, %v, want %s", c.rule, choice, err, c.tag)
			continue
		}
		if !slices.ContainsFunc(strings.Split(c.reason, "|"), func(s string) bool { return strings.Contains(choice.Reason, s) }) {
			t.Errorf("%+v: reason %q, want %q", c.rule, choice.Reason, c.reason)
		}
		var others []string
		for _, o := range Disagreements(as, c.rule, choice) {
			others = append(others, string(o.By)+" "+o.Tag)
		}
		if got := strings.Join(others, ","); got != c.others {
			t.Errorf("%+v: others choose %q, want %q", c.rule, got, c.others)
		}
	}
	// One unknown time is enough, and creation has no say.
	as = append(as, artifact(6, 0, "untold"))
	if got := Disagreements(as, LatestRule{By: BySemver}, Choice{By: BySemver, Digest: as[1].Digest}); len(got) != 1 || got[0].Tag != "untold" {
		t.Errorf("with an unknown time: %+v", got)
	}
	if got := Disagreements(as, LatestRule{Exclude: []string{"untold"}, By: BySemver}, Choice{By: BySemver, Digest: as[1].Digest}); len(got) != 2 {
		t.Errorf("without it: %+v", got)
	}
}

func TestNoTagByRule(t *testing.T) {
	one := func(tags ...string) []Artifact {
		a := Artifact{ID: 1, Digest: verify.DigestOf(nil)}
		for _, tag := range tags {
			a.Tags = append(a.Tags, Tag{Name: tag})
		}
		return []Artifact{a}
	}
	for _, c := range []struct {
		tags        []string
		rule        LatestRule
		want, isNot error
		says        string
	}{
		{[]string{"latest"}, LatestRule{By: BySemver}, ErrNoTag, ErrOnlyPrereleases, "no tag to choose by semver: 1 tag without a version"},
		{[]string{"v1-rc.1", "v1-rc.2", "x"}, LatestRule{By: BySemver}, ErrOnlyPrereleases, nil, "all versions are pre-releases (2 pre-releases, 1 tag without a version)"},
		{[]string{"v1-rc.1"}, LatestRule{By: BySemver}, ErrNoTag, nil, ""},
		{[]string{"v1"}, LatestRule{By: ByCreated}, ErrNoTag, ErrOnlyPrereleases, "1 tag without a time of creation"},
		{[]string{"v1"}, LatestRule{By: BySemver, Match: []string{"v"}}, ErrNoTag, ErrOnlyPrereleases, "of 1 artifacts with 1 tags none is eligible"},
		{[]string{"v1"}, LatestRule{By: "size"}, ErrRule, ErrNoTag, `"size"`},
		{[]string{"v1"}, LatestRule{Match: []string{"v[1"}}, ErrRule, ErrNoTag, `"v[1"`},
		{[]string{"v1"}, LatestRule{Exclude: []string{""}}, ErrRule, ErrNoTag, `""`},
		{[]string{"v1"}, LatestRule{Exclude: []string{"{a,b"}}, ErrRule, ErrNoTag, `"{a,b"`},
	} {
		_, err := Latest(one(c.tags...), c.rule)
		if !errors.Is(err, c.want) || c.isNot != nil && errors.Is(err, c.isNot) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%q by %+v: %v", c.tags, c.rule, err)
		}
	}
}

// pushBuilt pushes an image that says when it was built, as JSON.
func pushBuilt(s *site, repository, created, annotation string, tags ...string) verify.Digest {
	s.t.Helper()
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":%s,"config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, created)
	annotations := ""
	if annotation != "" {
		annotations = fmt.Sprintf(`,"annotations":{"org.opencontainers.image.created":%q}`, annotation)
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]%s}`,
		s.PushBlob(s.t, repository, config), len(config), annotations)
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		s.PushManifest(s.t, repository, tag, "application/vnd.oci.image.manifest.v1+json", manifest)
	}
	return verify.DigestOf(manifest)
}

func pushIndex(s *site, repository, tag string, children ...verify.Digest) verify.Digest {
	s.t.Helper()
	var docs []string
	for _, d := range children {
		docs = append(docs, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":2}`, d))
	}
	return s.PushManifest(s.t, repository, tag, "application/vnd.oci.image.index.v1+json",
		fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}`, strings.Join(docs, ",")))
}

// TestCreated: the time is in the config or an annotation; what reproducible
// builds write is none; an index has that of its newest child, which Harbor
// hides from a plain list (NOTES 14, 15).
func TestCreated(t *testing.T) {
	const day = "2025-05-05T05:05:05"
	for _, c := range []struct{ created, annotation, want string }{
		{`"2025-05-05T05:05:05Z"`, "", day}, {`"2025-05-05T07:05:05.000000001+02:00"`, "", day},
		{`"2025-05-05T05:05:05Z"`, "2026-01-01T00:00:00Z", day}, {`null`, "2025-05-05T05:05:05Z", day},
		{`"1970-01-01T00:00:00Z"`, "", ""}, {`"1980-01-01T00:00:01Z"`, "", ""}, {`"0001-01-01T00:00:00Z"`, "", ""}, {`"1970-01-01T00:00:00Z"`, "2025-05-05T05:05:05Z", day},
		{`""`, "", ""}, {`7`, "", ""}, {`{"a":"2025-05-05T05:05:05Z"}`, "", ""}, {`"yesterday"`, "soon", ""}, {`"2025-05-05"`, "", ""},
	} {
		s := newSite(t)
		pushBuilt(s, "library/a", c.created, c.annotation, "x")
		as, err := s.admin().Artifacts(t.Context(), "library", "a")
		got := ""
		if err == nil && !as[0].Created.IsZero() {
			got = as[0].Created.Format("2006-01-02T15:04:05")
		}
		if err != nil || len(as) != 1 || got != c.want {
			t.Errorf("config %s, annotation %q: %q, %v, want %q", c.created, c.annotation, got, err, c.want)
		}
	}

	s := newSite(t)
	pushBuilt(s, "library/multi", `"2025-03-01T00:00:00Z"`, "", "v2")
	old := pushBuilt(s, "library/multi", `"2025-01-01T00:00:00Z"`, "")
	younger := pushBuilt(s, "library/multi", `"2025-06-01T00:00:00Z"`, "")
	untold := pushBuilt(s, "library/multi", `null`, "")
	s.advance(time.Second)
	index := pushIndex(s, "library/multi", "v1", old, younger, untold)
	pushIndex(s, "library/multi", "unknown", untold)
	client := s.admin()
	as, err := client.Artifacts(t.Context(), "library", "multi")
	if err != nil {
		t.Fatal(err)
	}
	if choice, err := Latest(as, LatestRule{By: ByCreated}); err != nil || choice.Tag != "v2" || !strings.Contains(choice.Reason, "2 tags without a time of creation") {
		t.Fatalf("the trap is not there: %+v, %v", choice, err)
	}
	before := len(s.Log())
	if err := client.AddCreated(t.Context(), "library", "multi", as); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Log()) - before; n != 1 {
		t.Errorf("%d requests for the children", n)
	}
	choice, err := Latest(as, LatestRule{By: ByCreated})
	if err != nil || choice.Tag != "v1" || choice.Digest != index || !choice.Created.Equal(time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("with children: %+v, %v", choice, err)
	}
	if got := as[slices.IndexFunc(as, func(a Artifact) bool { return len(a.Tags) > 0 && a.Tags[0].Name == "unknown" })]; !got.Created.IsZero() {
		t.Errorf("an index of untold children was created %v", got.Created)
	}
	// Indexes that name one another are each looked at once: else this would
	// not come to an end.
	var circle []Artifact
	byDigest := map[verify.Digest]Artifact{}
	for i := range 300 {
		circle = append(circle, Artifact{Digest: verify.DigestOf([]byte{byte(i), byte(i >> 8)})})
	}
	for i := range circle {
		for _, other := range circle {
			circle[i].Children = append(circle[i].Children, other.Digest)
		}
		byDigest[circle[i].Digest] = circle[i]
	}
	if at := newestCreated(circle[0], byDigest, map[verify.Digest]time.Time{}); !at.IsZero() {
		t.Errorf("indexes without a time were created %v", at)
	}
	// Nothing to find out, nothing asked.
	before = len(s.Log())
	if err := client.AddCreated(t.Context(), "library", "multi", as[:1]); err != nil || len(s.Log()) != before {
		t.Errorf("%v, %d requests", err, len(s.Log())-before)
	}
	var e *AmbiguousError
	pushBuilt(s, "library/multi", `"2025-06-01T00:00:00Z"`, "2026-01-01T00:00:00Z", "twin")
	if as, err = client.Artifacts(t.Context(), "library", "multi"); err == nil {
		err = client.AddCreated(t.Context(), "library", "multi", as)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Latest(as, LatestRule{By: ByCreated}); !errors.As(err, &e) || e.By != ByCreated || len(e.Tied) != 2 || !strings.Contains(err.Error(), "created at the same time, 2025-06-01") {
		t.Errorf("twins: %v", err)
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
	for _, tag := range []string{"latest", "v", "1.", "1.2.3.4", "1.0-", "1..2", "x1.0", "", "1.0.0-a..b", "-1", "20261121", "v4711815", "20261121-0a1b2c3", "V1.0"} {
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
		rapid.SampledFrom([]string{"latest", "stable", "1.0.0", "1.0", "v1.0.0", "1.0.0_b", "1.1.0-rc.1", "1.1.0-rc.1_x", "1.1.0", "2", "2-a", "z", "1.2.3.4"}),
		rapid.Just("sha256-"+strings.Repeat("ab", 32)+".att"),
	)
	return rapid.Custom(func(t *rapid.T) []Artifact {
		taken := map[string]bool{}
		var as []Artifact
		for i := range rapid.IntRange(0, 6).Draw(t, "artifacts") {
			a := Artifact{ID: int64(i + 1), Digest: verify.DigestOf(fmt.Append(nil, i)), PushTime: at.Draw(t, "arrived")}
			if n := rapid.IntRange(0, 3).Draw(t, "created"); n > 0 {
				a.Created = base.Add(time.Duration(n) * time.Hour)
			}
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

// TestRuleProperty compares each rule with what it says of all pairs: the
// winner is one of those that can win, no other is newer, and of those that
// are as new none has another digest. T68.
func TestRuleProperty(t *testing.T) {
	preview := regexp.MustCompile(`^2-a$|-rc`)
	number := map[string]int{"1.0.0": 100, "1.0": 100, "v1.0.0": 100, "1.0.0_b": 100, "1.1.0-rc.1": 109, "1.1.0-rc.1_x": 109, "1.1.0": 110, "2-a": 199, "2": 200}
	rapid.Check(t, func(t *rapid.T) {
		as := artifactsGen().Draw(t, "repository")
		rule := LatestRule{
			By:          rapid.SampledFrom([]By{"", ByPushTime, BySemver, ByCreated}).Draw(t, "by"),
			Prereleases: rapid.Bool().Draw(t, "pre"),
		}
		patterns := rapid.SampledFrom([]string{"1*", "*0*", "l*", "?", "[!1]*", "*-rc*"})
		rule.Match = rapid.SliceOfN(patterns, 0, 2).Draw(t, "match")
		rule.Exclude = rapid.SliceOfN(patterns, 0, 1).Draw(t, "exclude")
		fits := func(list []string, tag string) bool {
			return slices.ContainsFunc(list, func(p string) bool {
				ok, err := path.Match(strings.Replace(p, "[!", "[^", 1), tag)
				if err != nil {
					t.Fatal(err)
				}
				return ok
			})
		}
		var can []TaggedArtifact
		previews := false
		for _, a := range as {
			for _, tag := range a.Tags {
				_, isVersion := number[tag.Name]
				switch {
				case strings.HasPrefix(tag.Name, "sha256-"), len(rule.Match) > 0 && !fits(rule.Match, tag.Name), fits(rule.Exclude, tag.Name),
					rule.By == BySemver && !isVersion, rule.By == ByCreated && a.Created.IsZero():
				case rule.By == BySemver && !rule.Prereleases && preview.MatchString(tag.Name):
					previews = true
				default:
					can = append(can, TaggedArtifact{tag, a})
				}
			}
		}
		newer := func(x, y TaggedArtifact) bool {
			switch rule.By {
			case BySemver:
				return number[x.Tag.Name] > number[y.Tag.Name]
			case ByCreated:
				return x.Artifact.Created.After(y.Artifact.Created)
			}
			return x.Tag.PushTime.After(y.Tag.PushTime) || x.Tag.PushTime.Equal(y.Tag.PushTime) && x.Artifact.PushTime.After(y.Artifact.PushTime)
		}
		var best []TaggedArtifact
		digests := map[verify.Digest]bool{}
		for _, x := range can {
			if !slices.ContainsFunc(can, func(y TaggedArtifact) bool { return newer(y, x) }) {
				best = append(best, x)
				digests[x.Artifact.Digest] = true
			}
		}
		got, err := Latest(as, rule)
		var e *AmbiguousError
		switch {
		case len(can) == 0:
			if !errors.Is(err, ErrNoTag) || errors.Is(err, ErrOnlyPrereleases) != previews {
				t.Fatalf("%+v: no tag (pre-releases %v): %+v, %v", rule, previews, got, err)
			}
		case len(digests) > 1:
			if !errors.As(err, &e) || len(e.Tied) != len(best) {
				t.Fatalf("%+v: %d tie: %+v, %v", rule, len(best), got, err)
			}
		case err != nil || !slices.ContainsFunc(best, func(x TaggedArtifact) bool {
			return x.Tag.Name == got.Tag && x.Artifact.Digest == got.Digest && x.Tag.PushTime.Equal(got.PushTime)
		}):
			t.Fatalf("%+v: Latest = %+v, %v, want one of %+v", rule, got, err, best)
		}
		shuffled := rapid.Permutation(as).Draw(t, "shuffled")
		again, err2 := Latest(shuffled, rule)
		if again != got || fmt.Sprint(err2) != fmt.Sprint(err) {
			t.Fatalf("in another order: %+v, %v; before %+v, %v", again, err2, got, err)
		}
		if err == nil {
			for _, other := range Disagreements(as, rule, got) {
				rule.By = other.By
				if c, err := Latest(as, rule); err != nil || c != other || c.Digest == got.Digest || c.By == got.By {
					t.Fatalf("%+v disagrees with %+v; asked again: %+v, %v", other, got, c, err)
				}
			}
		}
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
