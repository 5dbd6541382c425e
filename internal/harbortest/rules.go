package harbortest

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// immutableRule keeps tags as they are.
type immutableRule struct {
	id  int64
	doc ruleDoc
}

type ruleDoc struct {
	ID       int64                 `json:"id,omitempty"`
	Disabled bool                  `json:"disabled,omitempty"`
	Action   string                `json:"action"`
	Template string                `json:"template"`
	Tags     []selector            `json:"tag_selectors"`
	Scope    map[string][]selector `json:"scope_selectors"`
}

type selector struct {
	Kind       string `json:"kind"`
	Decoration string `json:"decoration"`
	Pattern    string `json:"pattern"`
}

// matches reports whether the selector takes the text; "excludes" and
// "repoExcludes" turn it round.
func (s selector) matches(text string) bool {
	return doublestar(s.Pattern).MatchString(text) != strings.HasSuffix(strings.ToLower(s.Decoration), "excludes")
}

// doublestar translates a pattern: "*" stops at slashes, "**" does not, and
// "{a,b}" is either.
func doublestar(pattern string) *regexp.Regexp {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	re, err := regexp.Compile("^(?:" + b.String() + ")$")
	if err != nil {
		return regexp.MustCompile(`^\z.`) // matches nothing
	}
	return re
}

// immutable reports whether a rule of the project keeps the tag.
func (p *project) immutable(repository, tag string) bool {
	for _, rule := range p.rules {
		ok := !rule.doc.Disabled
		for _, s := range rule.doc.Scope["repository"] {
			ok = ok && s.matches(repository)
		}
		for _, s := range rule.doc.Tags {
			ok = ok && s.matches(tag)
		}
		if ok {
			return true
		}
	}
	return false
}

// AddImmutableRule keeps the tags that match in all repositories of a project.
func (s *Server) AddImmutableRule(t testing.TB, project, tagPattern string) {
	t.Helper()
	s.Admin(t, http.MethodPost, projectPath(project)+"/immutabletagrules", ruleDoc{
		Action: "immutable", Template: "immutable_template",
		Tags:  []selector{{"doublestar", "matches", tagPattern}},
		Scope: map[string][]selector{"repository": {{"doublestar", "repoMatches", "**"}}},
	}, "X-Is-Resource-Name", "true")
}

func listRules(c *call) error {
	p, err := c.projectFor("immutable-tag:list")
	if err != nil {
		return err
	}
	docs := []any{}
	for _, rule := range pageOf(c.w, c.q, c.path, p.rules) {
		doc := rule.doc
		doc.ID = rule.id
		docs = append(docs, doc)
	}
	return c.json(docs)
}

func postRule(c *call) error {
	p, err := c.projectFor("immutable-tag:create")
	if err != nil {
		return err
	}
	var doc ruleDoc
	if err := c.body("ImmutableRule", &doc); err != nil {
		return err
	}
	id := c.st.rules_.next()
	for _, rule := range p.rules {
		if reflect.DeepEqual(rule.doc, doc) {
			return conflict("immutable rule already exists")
		}
	}
	p.rules = append(p.rules, &immutableRule{id, doc})
	return c.empty(http.StatusCreated, fmt.Sprintf("%s/projects/%s/immutabletagrules/%d", apiRoot, c.vars[0], id))
}

// postRetention keeps a policy; it is never carried out.
func postRetention(c *call) error {
	var doc map[string]any
	if err := c.body("policy", &doc); err != nil {
		return err
	}
	if trigger, ok := doc["trigger"].(map[string]any); ok {
		delete(trigger, "references") // of the job, Harbor's own affair
	}
	scope, _ := doc["scope"].(map[string]any)
	ref, _ := scope["ref"].(float64)
	var p *project
	for _, candidate := range c.st.projects {
		if candidate.id == int64(ref) {
			p = candidate
		}
	}
	if err := c.need(p, "tag-retention:create"); err != nil {
		return err
	}
	switch {
	case p == nil:
		return notFound("project %v not found", ref)
	case p.retention != nil:
		return badRequest("bad request: project %d already has retention policy %d", p.id, p.retention.id)
	}
	p.retention = &retention{c.st.retentions_.next(), doc}
	return c.empty(http.StatusCreated, fmt.Sprintf("%s/retentions/%d", apiRoot, p.retention.id))
}

func getRetention(c *call) error {
	for _, p := range c.st.projects {
		if p.retention == nil || strconv.FormatInt(p.retention.id, 10) != c.vars[0] {
			continue
		}
		if err := c.need(p, "tag-retention:read"); err != nil {
			return err
		}
		doc := map[string]any{"id": p.retention.id}
		for k, v := range p.retention.doc {
			doc[k] = v
		}
		return c.json(doc)
	}
	return notFound("retention policy %s not found", c.vars[0])
}
