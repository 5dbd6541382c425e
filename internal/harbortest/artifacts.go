package harbortest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// artifact returns the artifact of the path for who has the right.
func (c *call) artifact(right string) (*artifact, error) {
	p := c.st.projects[c.vars[0]]
	if err := c.need(p, right); err != nil {
		return nil, err
	}
	name := c.vars[0] + "/" + c.vars[1]
	a := c.st.repo(name).find(c.vars[2])
	if a == nil {
		return nil, artifactNotFound(name, c.vars[2])
	}
	return a, nil
}

func getArtifact(c *call) error {
	a, err := c.artifact("artifact:read")
	if err != nil {
		return err
	}
	return c.json(c.artifactJSON(a))
}

func deleteArtifact(c *call) error {
	a, err := c.artifact("artifact:delete")
	if err != nil {
		return err
	}
	if err := a.deletable(); err != nil {
		return err
	}
	c.st.remove(a)
	return c.empty(http.StatusOK, "")
}

// listArtifacts answers with an empty list for repositories that are not
// there, and to administrators for projects that are not there.
func listArtifacts(c *call) error {
	p := c.st.projects[c.vars[0]]
	if err := c.need(p, "artifact:list"); err != nil {
		return err
	}
	var all []*artifact
	if p != nil && p.repos[c.vars[1]] != nil {
		for _, a := range p.repos[c.vars[1]].artifacts {
			all = append(all, a)
		}
	}
	return c.answerArtifacts(all)
}

func listProjectArtifacts(c *call) error {
	p, err := c.projectFor("artifact:list")
	if err != nil {
		return err
	}
	var all []*artifact
	for _, r := range p.repos {
		for _, a := range r.artifacts {
			all = append(all, a)
		}
	}
	return c.answerArtifacts(all)
}

func (c *call) answerArtifacts(all []*artifact) error {
	terms, err := parseQuery(c.q.Get("q"))
	if err != nil {
		return err
	}
	children, err := checkTerms(terms)
	if err != nil {
		return err
	}
	var found []*artifact
	for _, a := range all {
		ok, err := matchArtifact(a, terms)
		if err != nil {
			return err
		}
		if ok && c.st.visible(a, children) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(a, b *artifact) int { return cmp.Compare(a.id, b.id) })
	newest := func(a, b *artifact) int { return b.pushed.Compare(a.pushed) }
	sorted(found, c.q.Get("sort"), map[string]func(a, b *artifact) int{
		"push_time": func(a, b *artifact) int { return a.pushed.Compare(b.pushed) },
		"PushTime":  func(a, b *artifact) int { return a.pushed.Compare(b.pushed) },
		"pull_time": comparePulls,
		"id":        by(func(a *artifact) int64 { return a.id }),
		"digest":    by(func(a *artifact) string { return a.digest }),
		"size":      by(func(a *artifact) int64 { return a.size }),
		"type":      by((*artifact).kind),
	}, newest)
	docs := []any{}
	for _, a := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, c.artifactJSON(a))
	}
	return c.json(docs)
}

// comparePulls takes what was never pulled for the latest, as the database
// does with what is not there.
func comparePulls(a, b *artifact) int {
	switch {
	case a.pulled.IsZero() == b.pulled.IsZero():
		return a.pulled.Compare(b.pulled)
	case a.pulled.IsZero():
		return 1
	}
	return -1
}

// checkTerms refuses conditions that Harbor refuses, and reports whether
// children of indexes are wanted.
func checkTerms(terms []term) (children bool, err error) {
	for _, t := range terms {
		switch {
		case t.key == "tags" && t.op != '=' && t.op != '~':
			return false, badRequest(`the value of "tags" query can only be fuzzy match value or exact match value`)
		case t.key == "base" && t.value != "*":
			return false, badRequest(`the value of "base" query can only be exact match value with "*"`)
		case t.key == "labels":
			return false, badRequest(`the value of "labels" query can only be integer list with intersetion relationship`)
		case t.key == "size" || t.key == "id":
			if _, err := t.matchNumber(0); err != nil {
				return false, err
			}
		}
		children = children || t.key == "base"
	}
	return children, nil
}

func matchArtifact(a *artifact, terms []term) (bool, error) {
	for _, t := range terms {
		ok, err := true, error(nil)
		switch t.key {
		case "tags":
			ok = matchTags(a.repo.tagsOf(a), t)
		case "digest":
			ok = t.matchText(a.digest)
		case "type":
			ok = t.matchText(a.kind())
		case "media_type":
			ok = t.matchText(a.shownType())
		case "artifact_type":
			ok = t.matchText(a.artifactType())
		case "push_time":
			ok, err = t.matchTime(a.pushed)
		case "size":
			ok, err = t.matchNumber(a.size)
		case "id":
			ok, err = t.matchNumber(a.id)
		}
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func matchTags(tags []*tag, t term) bool {
	switch {
	case t.op == '=' && t.value == "*":
		return len(tags) > 0
	case t.op == '=' && t.value == "nil":
		return len(tags) == 0
	}
	return slices.ContainsFunc(tags, func(x *tag) bool { return t.matchText(x.name) })
}

func (a *artifact) isIndex() bool { return a.mediaType == typeIndex || a.mediaType == typeDockerList }

// shownType is the media type that Harbor shows: that of the config.
func (a *artifact) shownType() string {
	if a.isIndex() || a.doc.Config == nil {
		return a.mediaType
	}
	return a.doc.Config.MediaType
}

const (
	typeConfig       = "application/vnd.oci.image.config.v1+json"
	typeDockerConfig = "application/vnd.docker.container.image.v1+json"
)

// kind is Harbor's own word for the type: it is read from the name of the
// config's type.
func (a *artifact) kind() string {
	t := a.shownType()
	switch {
	case a.isIndex(), t == typeConfig, t == typeDockerConfig:
		return "IMAGE"
	case t == "application/vnd.cncf.helm.config.v1+json":
		return "CHART"
	}
	return "UNKNOWN"
}

func (c *call) artifactJSON(a *artifact) map[string]any {
	doc := map[string]any{
		"accessories": nil, "digest": a.digest, "icon": "", "id": a.id, "labels": nil,
		"manifest_media_type": a.mediaType, "media_type": a.shownType(), "project_id": a.repo.project.id,
		"pull_time": stamp(a.pulled), "push_time": stamp(a.pushed), "references": a.references(),
		"repository_id": a.repo.id, "repository_name": a.repo.fullName(), "size": a.size, "tags": nil, "type": a.kind(),
	}
	if len(a.doc.Annotations) > 0 {
		doc["annotations"] = a.doc.Annotations
	}
	if t := a.artifactType(); t != "" && !a.isIndex() {
		doc["artifact_type"] = t
	}
	c.addDetails(a, doc)
	if tags := a.repo.tagsOf(a); c.q.Get("with_tag") != "false" && len(tags) > 0 {
		var docs []any
		for _, t := range tags {
			docs = append(docs, tagJSON(a.repo, t, c.q.Get("with_immutable_status") == "true"))
		}
		doc["tags"] = docs
	}
	if found := c.st.accessories(a.repo, a.digest); c.q.Get("with_accessory") == "true" && len(found) > 0 {
		doc["accessories"] = accessoriesJSON(a.repo, found)
	}
	return doc
}

// addDetails adds what Harbor reads in the config, and where there is more.
func (c *call) addDetails(a *artifact, doc map[string]any) {
	additions := map[string][]string{
		"IMAGE": {"build_history"},
		"CHART": {"dependencies", "readme.md", "values.yaml"},
	}[a.kind()]
	if a.isIndex() || additions == nil {
		return
	}
	self := repositoryAPIPath(a.repo) + "/artifacts/" + a.digest
	links := map[string]any{}
	for _, name := range additions {
		links[name] = map[string]any{"absolute": false, "href": self + "/additions/" + name}
	}
	doc["addition_links"] = links
	var config map[string]any
	json.Unmarshal(a.config, &config)
	if a.kind() == "CHART" {
		if config != nil {
			doc["extra_attrs"] = config
		}
		return
	}
	extra := map[string]any{"architecture": "", "author": "", "config": map[string]any{}, "created": nil, "os": ""}
	for key := range extra {
		if v, ok := config[key]; ok {
			extra[key] = v
		}
	}
	if settings, ok := extra["config"].(map[string]any); ok {
		for key, v := range settings { // empty settings are not shown
			if m, isMap := v.(map[string]any); v == nil || isMap && len(m) == 0 {
				delete(settings, key)
			}
		}
	}
	doc["extra_attrs"] = extra
}

// repositoryAPIPath returns the path of a repository as Harbor escapes it.
func repositoryAPIPath(r *repository) string {
	return projectPath(r.project.name) + "/repositories/" + url.PathEscape(url.PathEscape(r.name))
}

func (a *artifact) references() any {
	if len(a.doc.Manifests) == 0 {
		return nil
	}
	var docs []any
	for _, d := range a.doc.Manifests {
		ref := map[string]any{"child_digest": d.Digest, "child_id": int64(0), "parent_id": a.id, "urls": nil}
		if child := a.repo.artifacts[d.Digest]; child != nil {
			ref["child_id"] = child.id
		}
		if len(d.Platform) > 0 {
			platform := map[string]any{"OsFeatures": nil}
			json.Unmarshal(d.Platform, &platform)
			ref["platform"] = platform
		}
		docs = append(docs, ref)
	}
	return docs
}

func accessoriesJSON(r *repository, found []*accessory) []any {
	docs := []any{}
	for _, x := range found {
		doc := map[string]any{
			"artifact_id": x.of.id, "creation_time": stamp(x.created), "digest": x.of.digest, "icon": "", "id": x.id, "size": x.of.size,
			"subject_artifact_digest": x.subject, "subject_artifact_repo": r.fullName(), "type": x.kind, "subject_artifact_id": int64(0),
		}
		if subject := r.artifacts[x.subject]; subject != nil {
			doc["subject_artifact_id"] = subject.id
		}
		docs = append(docs, doc)
	}
	return docs
}

func listAccessories(c *call) error {
	a, err := c.artifact("accessory:list")
	if err != nil {
		return err
	}
	terms, err := parseQuery(c.q.Get("q"))
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(c.st.accessories(a.repo, a.digest), func(x *accessory) bool {
		return slices.ContainsFunc(terms, func(t term) bool { return t.key == "type" && !t.matchText(x.kind) })
	})
	return c.json(accessoriesJSON(a.repo, pageOf(c.w, c.q, c.path, found)))
}

// copyArtifact copies an artifact with all its tags, or an index with its
// children, from another repository.
func copyArtifact(c *call) error {
	p := c.st.projects[c.vars[0]]
	if err := c.need(p, "artifact:create"); err != nil {
		return err
	}
	from := c.q.Get("from")
	if from == "" {
		return unprocessable("from in query is required")
	}
	if p == nil {
		return notFound("project %s not found", c.vars[0])
	}
	if !projectPattern.MatchString(strings.ReplaceAll(c.vars[1], "/", "-")) {
		return notFound("http status code: 404, body: 404 page not found\n")
	}
	name, reference, ok := strings.Cut(from, "@")
	if !ok {
		i := strings.LastIndexByte(from, ':')
		if i < 0 {
			return badRequest("artifact %s not found", from)
		}
		name, reference = from[:i], from[i+1:]
	}
	source := c.st.repo(name).find(reference)
	if source == nil {
		return badRequest("artifact %s not found", from)
	}
	if err := c.need(source.repo.project, "artifact:read"); err != nil {
		return err
	}
	if err := c.copyInto(p, source); err != nil {
		return err
	}
	location := projectPath(c.vars[0]) + "/repositories/" + url.PathEscape(c.vars[1]) + "/artifacts/" + reference
	return c.empty(http.StatusCreated, location)
}

func projectPath(name string) string { return apiRoot + "/projects/" + name }

// copyInto copies one artifact, its children first, and its accessories last.
func (c *call) copyInto(p *project, source *artifact) error {
	for _, d := range source.doc.Manifests {
		if child := source.repo.artifacts[d.Digest]; child != nil {
			if err := c.copyInto(p, child); err != nil {
				return err
			}
		}
	}
	var more int64
	blobs := append(source.doc.blobs(), descriptor{Digest: source.digest, Size: int64(len(source.body))})
	for _, d := range blobs {
		if _, there := p.blobs[d.Digest]; !there {
			more += d.Size
		}
	}
	if err := p.checkQuota(more); err != nil {
		return err
	}
	target := p.name + "/" + c.vars[1]
	rc := &registryCall{s: c.s, w: c.w, r: c.r, name: target, project: p}
	for _, d := range source.doc.blobs() {
		if err := rc.copyBlob(source.repo.fullName(), d); err != nil {
			return err
		}
	}
	if rec := rc.sendManifest(source.digest, source.mediaType, source.body); rec.Code != http.StatusCreated {
		return errInternal
	}
	a := c.s.store(p, target, source.digest, source.mediaType, source.body, source.doc, source.config)
	for _, t := range source.repo.tagsOf(source) {
		c.st.setTag(a.repo, t.name, a, c.now)
	}
	for _, x := range c.st.accessories(source.repo, source.digest) {
		if x.of == source {
			continue
		}
		if err := c.copyInto(p, x.of); err != nil {
			return err
		}
		if of := a.repo.artifacts[x.of.digest]; of != nil {
			c.st.accessory = append(c.st.accessory, &accessory{id: c.st.accessories_.next(), repo: a.repo, of: of,
				subject: a.digest, kind: x.kind, created: c.now})
		}
	}
	return nil
}
