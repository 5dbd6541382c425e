package harbortest

import (
	"cmp"
	"net/http"
)

// visible reports whether the artifact is in lists: accessories hang on their
// subject, and untagged children of an index hide behind it.
func (st *state) visible(a *artifact, children bool) bool {
	switch {
	case st.isAccessory(a):
		return false
	case children:
		return true
	}
	return len(a.repo.parents(a)) == 0 || len(a.repo.tagsOf(a)) > 0
}

func (st *state) repoJSON(r *repository) map[string]any {
	n := 0
	for _, a := range r.artifacts {
		if st.visible(a, false) {
			n++
		}
	}
	doc := map[string]any{
		"artifact_count": n, "creation_time": stamp(r.created), "update_time": stamp(r.updated), "id": r.id,
		"name": r.fullName(), "project_id": r.project.id, "pull_count": r.pulls,
	}
	if r.description != "" {
		doc["description"] = r.description
	}
	return doc
}

// answerRepositories lists those that meet the query.
func (c *call) answerRepositories(all []*repository) error {
	terms, err := parseQuery(c.q.Get("q"))
	if err != nil {
		return err
	}
	var found []*repository
	for _, r := range all {
		ok := true
		for _, t := range terms {
			ok = ok && (t.key != "name" || t.matchText(r.fullName()))
		}
		if ok {
			found = append(found, r)
		}
	}
	sorted(found, c.q.Get("sort"), map[string]func(a, b *repository) int{
		"name":          by((*repository).fullName),
		"creation_time": func(a, b *repository) int { return a.created.Compare(b.created) },
		"update_time":   func(a, b *repository) int { return a.updated.Compare(b.updated) },
	}, func(a, b *repository) int { return cmp.Compare(b.id, a.id) })
	docs := []any{}
	for _, r := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, c.st.repoJSON(r))
	}
	return c.json(docs)
}

func listRepositories(c *call) error {
	p, err := c.projectNamed("repository:list")
	if err != nil {
		return err
	}
	var all []*repository
	for _, r := range p.repos {
		all = append(all, r)
	}
	return c.answerRepositories(all)
}

func listAllRepositories(c *call) error {
	var all []*repository
	for _, p := range c.st.projects {
		if !c.sees(p) {
			continue
		}
		for _, r := range p.repos {
			all = append(all, r)
		}
	}
	return c.answerRepositories(all)
}

// projectNamed is projectFor where the path can only have a name.
func (c *call) projectNamed(right string) (*project, error) {
	p := c.st.projects[c.vars[0]]
	if err := c.need(p, right); err != nil {
		return nil, err
	}
	if p == nil {
		return nil, notFound("project %s not found", c.vars[0])
	}
	return p, nil
}

// repository returns the repository of the path for who has the right.
func (c *call) repository(right string) (*repository, error) {
	p := c.st.projects[c.vars[0]]
	if err := c.need(p, right); err != nil {
		return nil, err
	}
	if p == nil || p.repos[c.vars[1]] == nil {
		return nil, notFound("repository %s/%s not found", c.vars[0], c.vars[1])
	}
	return p.repos[c.vars[1]], nil
}

func getRepository(c *call) error {
	r, err := c.repository("repository:read")
	if err != nil {
		return err
	}
	return c.json(c.st.repoJSON(r))
}

func putRepository(c *call) error {
	r, err := c.repository("repository:update")
	if err != nil {
		return err
	}
	var doc struct{ Description string }
	if err := c.body("repository", &doc); err != nil {
		return err
	}
	r.description = doc.Description
	return c.empty(http.StatusOK, "")
}

func deleteRepository(c *call) error {
	r, err := c.repository("repository:delete")
	if err != nil {
		return err
	}
	// An immutable tag anywhere keeps it all; the newest is named.
	var first *tag
	for _, t := range r.tags {
		if r.project.immutable(r.name, t.name) && (first == nil || t.pushed.After(first.pushed)) {
			first = t
		}
	}
	if first != nil {
		return precondition("the tag %s configured as immutable, cannot be deleted", first.name)
	}
	for _, a := range r.artifacts {
		if r.artifacts[a.digest] != nil {
			c.st.remove(a)
		}
	}
	delete(r.project.repos, r.name)
	return c.empty(http.StatusOK, "")
}

// listTags lists the tags of one artifact.
func listTags(c *call) error {
	a, err := c.artifact("tag:list")
	if err != nil {
		return err
	}
	terms, err := parseQuery(c.q.Get("q"))
	if err != nil {
		return err
	}
	var found []*tag
	for _, t := range a.repo.tagsOf(a) {
		ok := true
		for _, q := range terms {
			ok = ok && (q.key != "name" || q.matchText(t.name))
		}
		if ok {
			found = append(found, t)
		}
	}
	sorted(found, c.q.Get("sort"), map[string]func(a, b *tag) int{
		"name":      by(func(t *tag) string { return t.name }),
		"push_time": func(a, b *tag) int { return a.pushed.Compare(b.pushed) },
	}, func(a, b *tag) int { return cmp.Or(b.pushed.Compare(a.pushed), cmp.Compare(b.id, a.id)) })
	docs := []any{}
	for _, t := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, tagJSON(a.repo, t, c.q.Get("with_immutable_status") == "true"))
	}
	return c.json(docs)
}

func tagJSON(r *repository, t *tag, immutable bool) map[string]any {
	return map[string]any{
		"artifact_id": t.artifact.id, "id": t.id, "name": t.name, "repository_id": r.id,
		"push_time": stamp(t.pushed), "pull_time": stamp(t.pulled),
		"immutable": immutable && r.project.immutable(r.name, t.name),
	}
}

// postTag makes a tag; it never moves one.
func postTag(c *call) error {
	a, err := c.artifact("tag:create")
	if err != nil {
		return err
	}
	var doc struct{ Name string }
	if err := c.body("tag", &doc); err != nil {
		return err
	}
	switch {
	case doc.Name == "":
		return unprocessable("validation failure list:\nname in body is required")
	case !tagPattern.MatchString(doc.Name):
		return badRequest("bad request: invalid tag name: %s", doc.Name)
	case a.repo.tags[doc.Name] != nil:
		return conflict("tag %s already exists under the repository %d", doc.Name, a.repo.id)
	}
	c.st.setTag(a.repo, doc.Name, a, c.now)
	return c.empty(http.StatusCreated, "")
}

func deleteTag(c *call) error {
	a, err := c.artifact("tag:delete")
	if err != nil {
		return err
	}
	t := a.repo.tags[c.vars[3]]
	switch {
	case t == nil || t.artifact != a:
		return notFound("tag %s attached to artifact %d not found", c.vars[3], a.id)
	case a.repo.project.immutable(a.repo.name, t.name):
		return precondition("the tag %s configured as immutable, cannot be deleted", t.name)
	}
	delete(a.repo.tags, t.name)
	return c.empty(http.StatusOK, "")
}
