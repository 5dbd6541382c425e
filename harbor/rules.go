package harbor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// TagImmutable reports whether a rule keeps the tag, which exists, as it is:
// for who may not read the rules with [Client.ImmutableRules]. Errors:
//   - [ErrForbidden] without the right "artifact:read";
//   - [ErrNotFound] when there is no such tag;
//   - [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable], [ErrUnexpected].
func (c *Client) TagImmutable(ctx context.Context, project, repository, tag string) (bool, error) {
	if err := CheckRepositoryName(project, repository); err != nil {
		return false, err
	}
	if !tagName.MatchString(tag) {
		return false, fmt.Errorf("%w: tag %q", ErrInvalidName, shorten(tag))
	}
	r := request{
		op:    fmt.Sprintf("reading tag %s of %q", tag, project+"/"+repository),
		path:  repositoryPath(project, repository) + "/artifacts/" + url.PathEscape(tag),
		query: url.Values{"with_tag": {"true"}, "with_immutable_status": {"true"}},
	}
	var doc artifactDoc
	if _, err := c.getJSON(ctx, r, &doc); err != nil {
		return false, err
	}
	for _, t := range doc.Tags {
		if t.Name == tag {
			return t.Immutable, nil
		}
	}
	return false, unexpected(r.op, http.StatusOK, "the artifact has no such tag")
}

// Rule says which tags of which repositories of a project something is about.
type Rule struct {
	ID           int64
	Disabled     bool
	Template     string         // of a retention rule, such as "latestPushedK"; else without meaning
	Params       map[string]int // of a retention rule, such as "latestPushedK": 10
	Tags         []Selector     // all must select the tag
	Repositories []Selector     // all must select the repository, without its project
}

// Selector selects names by a pattern of doublestar, in which "*" stops at a
// slash and "**" does not.
type Selector struct {
	Pattern string
	Exclude bool // it selects what does not match
}

// maxBranches bounds the ways through the alternatives of a pattern, each of
// which takes a match of its own: twenty times {a,b} would take seconds.
const maxBranches = 10_000

// Selects reports whether s selects name. A pattern that is malformed, or has
// alternatives beyond measure, matches nothing.
func (s Selector) Selects(name string) bool {
	if branches(s.Pattern) > maxBranches {
		return s.Exclude
	}
	ok, err := doublestar.Match(s.Pattern, name)
	return (ok && err == nil || s.Pattern == "") != s.Exclude
}

// branches returns how many ways there are at most through the alternatives of
// a pattern, or more than maxBranches.
func branches(pattern string) int {
	all := 1
	var open []int // alternatives so far, of each brace that is open
	for _, c := range pattern {
		switch last := len(open) - 1; {
		case c == '{':
			open = append(open, 1)
		case c == ',' && last >= 0:
			open[last]++
		case c == '}' && last >= 0:
			all = min(all*min(open[last], maxBranches+1), maxBranches+1)
			open = open[:last]
		}
	}
	return all
}

func selectAll(selectors []Selector, name string) bool {
	return !slices.ContainsFunc(selectors, func(s Selector) bool { return !s.Selects(name) })
}

// Covers reports whether the rule is in force for a tag of a repository, which
// is named without its project.
func (r Rule) Covers(repository, tag string) bool {
	return !r.Disabled && selectAll(r.Repositories, repository) && selectAll(r.Tags, tag)
}

type ruleDoc struct {
	ID        int64                      `json:"id"`
	Disabled  bool                       `json:"disabled"`
	Template  string                     `json:"template"`
	Params    map[string]json.RawMessage `json:"params"`
	Tags      []selectorDoc              `json:"tag_selectors"`
	Selectors map[string][]selectorDoc   `json:"scope_selectors"`
}

type selectorDoc struct {
	Decoration string `json:"decoration"`
	Pattern    string `json:"pattern"`
}

func (d ruleDoc) rule() Rule {
	r := Rule{ID: d.ID, Disabled: d.Disabled, Template: clean(d.Template), Params: map[string]int{},
		Tags: selectorsOf(d.Tags), Repositories: selectorsOf(d.Selectors["repository"])}
	for name, raw := range d.Params {
		var n int
		if json.Unmarshal(raw, &n) == nil {
			r.Params[name] = n
		}
	}
	return r
}

func selectorsOf(docs []selectorDoc) []Selector {
	var all []Selector
	for _, d := range docs {
		all = append(all, Selector{d.Pattern, strings.HasSuffix(strings.ToLower(d.Decoration), "excludes")})
	}
	return all
}

// ImmutableRules returns the rules of a project that keep tags as they are.
// Errors: [ErrForbidden] without the right "immutable-tag:list",
// [ErrNotFound], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable].
func (c *Client) ImmutableRules(ctx context.Context, project string) ([]Rule, error) {
	if err := CheckProjectName(project); err != nil {
		return nil, err
	}
	r := request{op: fmt.Sprintf("listing the immutable tag rules of project %q", project),
		path: projectPath(project) + "/immutabletagrules", byName: true}
	docs, err := list(ctx, c, r, func(d ruleDoc) string { return strconv.FormatInt(d.ID, 10) })
	var rules []Rule
	for _, d := range docs {
		rules = append(rules, d.rule())
	}
	return rules, err
}

// Retention is a policy that deletes the artifacts of a project which none of
// its rules retains.
type Retention struct {
	Rules []Rule
}

// Retention returns the policy of [Project].RetentionID. Errors:
// [ErrForbidden] without the right "tag-retention:read", [ErrNotFound],
// [ErrUnauthorized], [ErrUnavailable].
func (c *Client) Retention(ctx context.Context, id int64) (Retention, error) {
	var doc struct {
		Rules []ruleDoc `json:"rules"`
	}
	r := request{op: fmt.Sprintf("reading retention policy %d", id), path: fmt.Sprintf("%s/retentions/%d", apiRoot, id)}
	if _, err := c.getJSON(ctx, r, &doc); err != nil {
		return Retention{}, err
	}
	var p Retention
	for _, d := range doc.Rules {
		p.Rules = append(p.Rules, d.rule())
	}
	return p, nil
}

// Loss is an artifact that a policy would delete.
type Loss struct {
	Tags   []string
	Reason string // a phrase for people
}

// Losses returns which artifacts a policy would delete after they were pushed
// to a repository, each given by its tags, the oldest first. A repository
// that no rule is about keeps everything; in another, only what some rule
// retains. What the repository holds already is not looked at, nor is how
// long a rule by days retains.
func (p Retention) Losses(repository string, artifacts [][]string) []Loss {
	var rules []Rule
	for _, r := range p.Rules {
		if !r.Disabled && selectAll(r.Repositories, repository) {
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 {
		return nil
	}
	var losses []Loss
	for i, tags := range artifacts {
		reason := "no rule of the policy selects its tags"
		for _, r := range rules {
			if !r.selectsOne(tags) {
				continue
			}
			newer := 0
			for _, other := range artifacts[i+1:] {
				if r.selectsOne(other) {
					newer++
				}
			}
			if reason = r.deletes(newer); reason == "" {
				break
			}
		}
		if reason != "" {
			losses = append(losses, Loss{tags, reason})
		}
	}
	return losses
}

func (r Rule) selectsOne(tags []string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return selectAll(r.Tags, t) })
}

// deletes returns why the rule does not retain an artifact that was just
// pushed and that newer ones follow, or "" when it does.
func (r Rule) deletes(newer int) string {
	n, limited := r.Params[r.Template]
	switch r.Template {
	case "latestPushedK", "latestActiveK":
		if limited && newer >= n {
			return fmt.Sprintf("the policy retains the %d that were pushed last", n)
		}
	case "latestPulledN":
		return fmt.Sprintf("the policy retains the %d that were pulled last, and this one was never pulled", n)
	case "nDaysSinceLastPull":
		return fmt.Sprintf("the policy retains what was pulled in the last %d days, and this one was never pulled", n)
	case "nDaysSinceLastPush":
		if limited && n <= 0 {
			return "the policy retains what was pushed in the last 0 days"
		}
	}
	return ""
}
