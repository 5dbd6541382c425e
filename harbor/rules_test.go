package harbor

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"ferry/internal/harbortest"
)

// Whether a tag is kept, by the rules or, without the right to read these, by
// the artifact. Recording 12.
func TestTagImmutable(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.AddProject("team", false, -1)
	s.AddImmutableRule(t, "team", "1.*")
	s.push("team/app/sub", "x", "1.0", "dev")
	s.AddUser("dev", "Devpass123")
	s.SetRole(t, "team", "dev", harbortest.RoleDeveloper)
	s.AddRobot("robot$team+reads", "x", "team", "artifact:read")
	s.AddRobot("robot$team+lists", "x", "team", "immutable-tag:list")
	s.AddRobot("robot$team+pushes", "x", "team", "repository:push", "repository:pull")
	for _, c := range []*Client{s.admin(), s.client("dev", "Devpass123"), s.client("robot$team+reads", "x")} {
		for tag, want := range map[string]bool{"1.0": true, "dev": false} {
			if got, err := c.TagImmutable(ctx, "team", "app/sub", tag); got != want || err != nil {
				t.Errorf("%s: %s: %v, %v", c.Username(), tag, got, err)
			}
		}
	}
	for _, c := range []*Client{s.admin(), s.client("dev", "Devpass123"), s.client("robot$team+lists", "x")} {
		rules, err := c.ImmutableRules(ctx, "team")
		if err != nil || len(rules) != 1 || !rules[0].Covers("app/sub", "1.0") || rules[0].Covers("app/sub", "dev") {
			t.Errorf("%s: %+v, %v", c.Username(), rules, err)
		}
	}
	pushes := s.client("robot$team+pushes", "x")
	if _, err := pushes.TagImmutable(ctx, "team", "app/sub", "1.0"); !errors.Is(err, ErrForbidden) {
		t.Errorf("without any right: %v", err)
	}
	if _, err := pushes.ImmutableRules(ctx, "team"); !errors.Is(err, ErrForbidden) {
		t.Errorf("without any right: %v", err)
	}
	if _, err := s.admin().TagImmutable(ctx, "team", "app/sub", "1.1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	for _, tag := range []string{"", "a/b", "..", "a%2fb", strings.Repeat("a", 129)} {
		if _, err := s.admin().TagImmutable(ctx, "team", "app", tag); !errors.Is(err, ErrInvalidName) {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}

func TestSelector(t *testing.T) {
	for _, c := range []struct {
		s    Selector
		name string
		want bool
	}{
		{Selector{"**", false}, "a/b", true},
		{Selector{"*", false}, "a/b", false},
		{Selector{"1.*", false}, "1.0", true},
		{Selector{"1.*", false}, "2.0", false},
		{Selector{"{dev,v*}", false}, "v7", true},
		{Selector{"{dev,v*}", true}, "v7", false},
		{Selector{"v[0-9]", false}, "vx", false},
		{Selector{"v[", false}, "v[", false},
		{Selector{"", false}, "anything", true},
	} {
		if got := c.s.Selects(c.name); got != c.want {
			t.Errorf("%+v selects %q: %v", c.s, c.name, got)
		}
	}
}

// A policy as Harbor stores it. Recording 12.
func TestRetention(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.AddProject("team", false, -1)
	admin := s.admin()
	p, err := admin.Project(ctx, "team")
	if err != nil || p.RetentionID != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	s.Admin(t, http.MethodPost, "/api/v2.0/retentions", map[string]any{
		"algorithm": "or", "scope": map[string]any{"level": "project", "ref": p.ID},
		"trigger": map[string]any{"kind": "Schedule", "settings": map[string]any{"cron": ""}},
		"rules": []any{map[string]any{"action": "retain", "template": "latestPushedK", "params": map[string]any{"latestPushedK": 2},
			"tag_selectors":   []any{map[string]any{"kind": "doublestar", "decoration": "excludes", "pattern": "dev*", "extras": `{"untagged":true}`}},
			"scope_selectors": map[string]any{"repository": []any{map[string]any{"kind": "doublestar", "decoration": "repoMatches", "pattern": "app/**"}}},
		}},
	})
	if p, err = admin.Project(ctx, "team"); err != nil || p.RetentionID == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	policy, err := admin.Retention(ctx, p.RetentionID)
	if err != nil || len(policy.Rules) != 1 {
		t.Fatalf("%+v, %v", policy, err)
	}
	r := policy.Rules[0]
	if r.Template != "latestPushedK" || r.Params["latestPushedK"] != 2 || !slices.Equal(r.Tags, []Selector{{"dev*", true}}) ||
		!slices.Equal(r.Repositories, []Selector{{"app/**", false}}) {
		t.Errorf("rule = %+v", r)
	}
	if _, err := admin.Retention(ctx, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such policy: %v", err)
	}
}

func TestLosses(t *testing.T) {
	every := []Selector{{"**", false}}
	rule := func(template string, n int, tags string) Rule {
		return Rule{Template: template, Params: map[string]int{template: n}, Tags: []Selector{{tags, false}}, Repositories: every}
	}
	elsewhere, off := rule("latestPushedK", 0, "**"), rule("latestPushedK", 0, "**")
	elsewhere.Repositories, off.Disabled = []Selector{{"other/**", false}}, true
	for name, c := range map[string]struct {
		rules     []Rule
		artifacts string // tags joined by +, artifacts by spaces
		lost      string
	}{
		"no rules":                    {nil, "1 2", ""},
		"another repository's":        {[]Rule{elsewhere}, "1 2", ""},
		"disabled":                    {[]Rule{off}, "1 2", ""},
		"always":                      {[]Rule{rule("always", 0, "**")}, "1 2", ""},
		"not selected":                {[]Rule{rule("always", 0, "v*")}, "v1 dev v2", "dev"},
		"one tag is selected":         {[]Rule{rule("always", 0, "v*")}, "v1+dev", ""},
		"the last two":                {[]Rule{rule("latestPushedK", 2, "**")}, "1 2 3 4", "1 2"},
		"the last two of those":       {[]Rule{rule("latestPushedK", 2, "v*")}, "v1 v2 x v3", "v1 x"},
		"exactly as many":             {[]Rule{rule("latestPushedK", 2, "**")}, "1 2", ""},
		"one rule of two retains":     {[]Rule{rule("latestPushedK", 1, "**"), rule("always", 0, "v*")}, "v1 2 3", "2"},
		"never pulled":                {[]Rule{rule("nDaysSinceLastPull", 30, "**")}, "1", "1"},
		"never pulled, by number":     {[]Rule{rule("latestPulledN", 3, "**")}, "1", "1"},
		"pushed today":                {[]Rule{rule("nDaysSinceLastPush", 7, "**")}, "1", ""},
		"pushed in the last 0 days":   {[]Rule{rule("nDaysSinceLastPush", 0, "**")}, "1", "1"},
		"a template of the future":    {[]Rule{rule("byMoonPhase", 1, "**")}, "1", ""},
		"a rule without its number":   {[]Rule{{Template: "latestPushedK", Tags: every, Repositories: every}}, "1 2", ""},
		"a rule that has no selector": {[]Rule{{Template: "always"}}, "1", ""},
	} {
		var artifacts [][]string
		for _, a := range strings.Fields(c.artifacts) {
			artifacts = append(artifacts, strings.Split(a, "+"))
		}
		var lost []string
		for _, l := range (Retention{c.rules}).Losses("app/sub", artifacts) {
			if lost = append(lost, strings.Join(l.Tags, "+")); l.Reason == "" {
				t.Errorf("%s: no reason", name)
			}
		}
		if got := strings.Join(lost, " "); got != c.lost {
			t.Errorf("%s: lost %q, want %q", name, got, c.lost)
		}
	}
}
