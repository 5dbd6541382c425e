package preflight_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"ferry/harbor"
	"ferry/internal/harbortest"
	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/transfer"
)

// A quota that is as large as what is added lets the push through; with one
// byte less nothing is sent. NOTES 22.
func TestQuotaToTheByte(t *testing.T) {
	src := content{}
	shared, mounted := strings.Repeat("shared", 100), strings.Repeat("mounted", 100)
	before, app, tool := src.image(mounted), src.image(shared, mounted, "app"), src.image(shared, "tool")
	deliver := func(s *site) []transfer.Delivery {
		return []transfer.Delivery{s.delivery(app, "team/app", "1", "latest"), s.delivery(tool, "team/tool", "1"), s.delivery(app, "team/again", "2")}
	}
	start := func(quota int64) *site {
		s := newSite(t, harbortest.Options{})
		s.AddProject("team", false, quota)
		s.AddProject("other", false, -1)
		// What another project has is mounted, and counts all the same.
		o := s.admin()
		_, plan := s.look(src, []transfer.Delivery{s.delivery(before, "other/base", "1")}, o)
		if err := s.push(src, plan, o); err != nil {
			t.Fatal(err)
		}
		s.ResetLog()
		return s
	}
	s := start(-1)
	o := s.admin()
	d, plan := s.look(src, deliver(s), o)
	if found := find(t, &d.Report, preflight.Quota); found.Level != preflight.OK || !strings.Contains(found.Found, "no limit") {
		t.Errorf("without a limit: %+v", found)
	}
	if err := s.push(src, plan, o); err != nil {
		t.Fatal(err)
	}
	need := s.used("team")

	s = start(need)
	o = s.admin()
	d, plan = s.look(src, deliver(s), o)
	if err := d.Err(); err != nil {
		t.Fatalf("with %d bytes: %v", need, err)
	}
	if err := s.push(src, plan, o); err != nil {
		t.Fatalf("with %d bytes: %v", need, err)
	}
	// A second time there is nothing to add, and no room is needed.
	if d, _ = s.look(src, deliver(s), o); d.Err() != nil {
		t.Errorf("again: %v", d.Err())
	}

	s = start(need - 1)
	o = s.admin()
	d, plan = s.look(src, deliver(s), o)
	if err := d.Err(); !errors.Is(err, harbor.ErrQuota) {
		t.Errorf("with one byte too few: %v", err)
	}
	if found := find(t, &d.Report, preflight.Quota); !strings.Contains(found.Found, fmt.Sprintf("%d bytes will be added, %d are left of %d: 1 too few", need, need-1, need-1)) {
		t.Errorf("found %q", found.Found)
	}
	s.untouched()
	// The preflight was right: Harbor refuses.
	if err := s.push(src, plan, o); !errors.Is(err, registry.ErrQuota) {
		t.Errorf("pushed all the same: %v", err)
	}
	// Who insists may go on.
	o.Ignore = []string{preflight.Quota}
	if d, _ = s.look(src, deliver(s), o); d.Err() != nil || find(t, &d.Report, preflight.Quota).Level != preflight.Warning {
		t.Errorf("ignored: %v, %s", d.Err(), summary(&d.Report))
	}
}

// What is said to be added to a quota is what Harbor then counts, whatever was
// there before, and however images share blobs and projects.
func TestQuotaIsWhatHarborCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 25 {
		s := newSite(t, harbortest.Options{})
		src := content{}
		var deliveries []transfer.Delivery
		for _, p := range []string{"a", "b"} {
			s.AddProject(p, false, 1<<40)
		}
		for i := range 2 + random.IntN(5) {
			var layers []string
			for range 1 + random.IntN(4) {
				layers = append(layers, strings.Repeat("x", 1+random.IntN(8)))
			}
			root := src.image(layers...)
			for range 1 + random.IntN(3) { // the same image in several places
				path := fmt.Sprintf("%c/r%d", 'a'+random.IntN(2), random.IntN(3))
				deliveries = append(deliveries, s.delivery(root, path, fmt.Sprintf("t%d", i)))
			}
		}
		// The first ones alone, so that something is there already.
		for _, part := range [][]transfer.Delivery{deliveries[:random.IntN(min(3, len(deliveries)))], deliveries} {
			o := s.admin()
			d, plan := s.look(src, part, o)
			if d.Err() != nil {
				t.Fatal(d.Err())
			}
			said := map[string]string{}
			for _, c := range d.Checks {
				if c.Name == preflight.Quota {
					said[c.About] = c.Found
				}
			}
			before := map[string]int64{"a": s.used("a"), "b": s.used("b")}
			if err := s.push(src, plan, o); err != nil {
				t.Fatal(err)
			}
			for p, found := range said {
				if want := fmt.Sprintf("; %d B will be added", s.used(p)-before[p]); !strings.HasSuffix(found, want) && s.used(p)-before[p] < 1024 {
					t.Errorf("round %d: project %s: %q, want …%q", round, p, found, want)
				}
			}
		}
	}
}

// Blobs that only another repository of the project has need no room, however
// full it is.
func TestQuotaElsewhere(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	src := content{}
	s.AddProject("team", false, -1)
	base := strings.Repeat("base", 1000)
	o := s.admin()
	_, plan := s.look(src, []transfer.Delivery{s.delivery(src.image(base), "team/base", "1")}, o)
	if err := s.push(src, plan, o); err != nil {
		t.Fatal(err)
	}
	s.Admin(t, http.MethodPut, "/api/v2.0/quotas/2", map[string]any{"hard": map[string]any{"storage": s.used("team") + 6000}})
	o = s.admin()
	app := []transfer.Delivery{s.delivery(src.image(base, "app"), "team/app", "1")}
	d, plan := s.look(src, app, o)
	if d.Err() != nil {
		t.Errorf("%v", d.Err())
	}
	if err := s.push(src, plan, o); err != nil {
		t.Error(err)
	}
	more := []transfer.Delivery{s.delivery(src.image(strings.Repeat("more", 1000)), "team/more", "1")}
	if d, _ := s.look(src, more, s.admin()); !errors.Is(d.Err(), harbor.ErrQuota) {
		t.Errorf("what nobody has: %v", d.Err())
	}
}

// A project that is missing is not created for who has not asked for it, even
// when the check is ignored.
func TestIgnoredProject(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	o := s.admin()
	o.Ignore = []string{preflight.Project}
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("nosuch/app")}, o)
	if d.Err() != nil || len(d.MissingProjects()) > 0 || d.Absent(s.repository("nosuch/app")) {
		t.Errorf("%v, %v", d.Err(), d.MissingProjects())
	}
}

// A tag that is kept as it is stops the import before the first byte; the
// same content under it does not, nor does a new tag. NOTES 21, T60.
func TestImmutable(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	src := content{}
	old, newer := src.image("old"), src.image("newer")
	s.AddProject("team", false, -1)
	o := s.admin()
	_, plan := s.look(src, []transfer.Delivery{s.delivery(old, "team/app/sub", "1.0", "dev"), s.delivery(newer, "team/app/sub", "1.1")}, o)
	if err := s.push(src, plan, o); err != nil {
		t.Fatal(err)
	}
	s.AddImmutableRule(t, "team", "1.*")
	s.AddRobot("robot$team+ci", "x", "team", "repository:push", "repository:pull", "project:read", "quota:read")
	for _, c := range []struct {
		what, tags string
		root       bool // the old image
		user       string
		want       string
	}{
		{"equal digests", "1.0 dev", true, "", ""},
		{"a tag that no rule keeps", "dev", false, "", ""},
		{"equal, and a new tag of the rule", "1.1 1.2", false, "", ""},
		{"one tag too many", "1.0 dev", false, "", "immutable:error"},
		{"two", "1.1 1.0", true, "", "immutable:error"},
		{"whoever may not see the rule is warned", "1.0", false, "robot$team+ci", "immutable:warning"},
	} {
		o := s.admin()
		if c.user != "" {
			o = s.options(c.user, "x")
		}
		root := newer
		if c.root {
			root = old
		}
		s.ResetLog()
		d, _ := s.look(src, []transfer.Delivery{s.delivery(root, "team/app/sub", strings.Fields(c.tags)...)}, o)
		if got := summary(&d.Report); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if err := d.Err(); strings.HasSuffix(c.want, "error") != errors.Is(err, harbor.ErrImmutable) {
			t.Errorf("%s: %v", c.what, err)
		}
		s.untouched()
	}
}

// A policy that would delete what is pushed is told; it stops nothing.
func TestRetentionPolicy(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	src := content{}
	s.AddProject("team", false, -1)
	s.Admin(t, http.MethodPost, "/api/v2.0/retentions", map[string]any{
		"algorithm": "or", "scope": map[string]any{"level": "project", "ref": 2}, "trigger": map[string]any{"kind": "Schedule"},
		"rules": []any{map[string]any{"action": "retain", "template": "latestPushedK", "params": map[string]any{"latestPushedK": 1},
			"tag_selectors":   []any{map[string]any{"kind": "doublestar", "decoration": "matches", "pattern": "v*"}},
			"scope_selectors": map[string]any{"repository": []any{map[string]any{"kind": "doublestar", "decoration": "repoMatches", "pattern": "app/**"}}},
		}},
	})
	s.AddRobot("robot$team+ci", "x", "team", "repository:push", "repository:pull", "project:read", "quota:read")
	one, two, three := src.image("1"), src.image("2"), src.image("3")
	deliveries := []transfer.Delivery{s.delivery(one, "team/app/x", "v1"), s.delivery(two, "team/app/x", "v2", "latest"),
		s.delivery(three, "team/app/x", "dev"), s.delivery(three, "team/else", "dev")}
	d, _ := s.look(src, deliveries, s.admin())
	var lost []string
	for _, c := range d.Checks {
		if c.Name == preflight.Retention {
			lost = append(lost, string(c.Level)+" "+c.About)
		}
	}
	if got, want := strings.Join(lost, ", "), "warning team/app/x:v1, warning team/app/x:dev"; got != want || d.Err() != nil {
		t.Errorf("lost %q, %v, want %q", got, d.Err(), want)
	}
	if d, _ := s.look(src, deliveries[1:2], s.admin()); find(t, &d.Report, preflight.Retention).Level != preflight.OK {
		t.Errorf("what is retained: %s", summary(&d.Report))
	}
	if d, _ := s.look(src, deliveries[:1], s.options("robot$team+ci", "x")); summary(&d.Report) != "retention:warning" {
		t.Errorf("who may not read the policy: %s", summary(&d.Report))
	}
}
