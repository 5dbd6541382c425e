package harbortest

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var projectPattern = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// AddProject adds a project of the administrator with a quota in bytes, or -1
// for none.
func (s *Server) AddProject(name string, public bool, quota int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.addProject(name, s.state.users[AdminName], AdminName, public, quota, s.now())
}

// AddProxyCache adds a project that mirrors another registry.
func (s *Server) AddProxyCache(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.addProject(name, s.state.users[AdminName], AdminName, false, -1, s.now()).registryID = 1
}

// project returns the project of the first variable, or nil: by id when it is
// a number, unless the request says that it is a name.
func (c *call) project() *project {
	byName, _ := strconv.ParseBool(c.r.Header.Get("X-Is-Resource-Name"))
	if id := c.idOf(0); id >= 0 && !byName {
		for _, p := range c.st.projects {
			if p.id == id {
				return p
			}
		}
		return nil
	}
	return c.st.projects[c.vars[0]]
}

// projectFor returns the project of the first variable if the caller has that
// right in it; only who could see it learns that it is missing.
func (c *call) projectFor(right string) (*project, error) {
	p := c.project()
	if err := c.need(p, right); err != nil {
		return nil, err
	}
	if p == nil {
		return nil, notFound("project %s not found", c.vars[0])
	}
	return p, nil
}

func (p *project) json(c *call, detail bool) map[string]any {
	allowlist := map[string]any{"id": p.id, "project_id": p.id, "items": []any{}, "creation_time": "0001-01-01T00:00:00.000Z", "update_time": "0001-01-01T00:00:00.000Z"}
	doc := map[string]any{
		"creation_time": stamp(p.created), "update_time": stamp(p.created), "current_user_role_ids": nil,
		"name": p.name, "owner_id": 1, "project_id": p.id, "repo_count": p.repoCount(),
	}
	if p.owner != nil {
		doc["owner_id"] = p.owner.id
	}
	role := 0
	if u := c.who.user; u != nil {
		role = p.members[u.name]
		if u.admin {
			role = roleAdmin
		}
	}
	if role != 0 {
		doc["current_user_role_id"], doc["current_user_role_ids"] = role, []int{role}
	}
	if detail {
		metadata := map[string]string{"public": strconv.FormatBool(p.public)}
		if p.retention != nil {
			metadata["retention_id"] = strconv.FormatInt(p.retention.id, 10)
		}
		doc["metadata"], doc["owner_name"] = metadata, p.ownerName
	} else {
		delete(allowlist, "id")
		delete(allowlist, "project_id")
		allowlist["items"] = nil
	}
	if p.registryID > 0 {
		doc["registry_id"] = p.registryID
	}
	doc["cve_allowlist"] = allowlist
	return doc
}

func (p *project) repoCount() int { return len(p.repos) }

// headProject says to anybody with a login whether there is such a project.
func headProject(c *call) error {
	name := c.q.Get("project_name")
	switch {
	case name == "":
		return unprocessable("project_name in query is required")
	case !c.who.authenticated():
		return errUnauthorized
	case c.st.projects[name] == nil:
		return notFound("project %s not found", name)
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func listProjects(c *call) error {
	terms, err := parseQuery(c.q.Get("q"))
	if err != nil {
		return err
	}
	if name := c.q.Get("name"); name != "" {
		terms = append(terms, term{key: "name", op: '~', value: name})
	}
	if public := c.q.Get("public"); public != "" {
		terms = append(terms, term{key: "public", op: '=', value: public})
	}
	var found []*project
	for _, p := range c.st.projects {
		ok := c.sees(p)
		for _, t := range terms {
			switch t.key {
			case "name":
				ok = ok && t.matchText(p.name)
			case "public":
				public, _ := strconv.ParseBool(t.value)
				ok = ok && public == p.public
			}
		}
		if ok {
			found = append(found, p)
		}
	}
	sorted(found, c.q.Get("sort"), map[string]func(a, b *project) int{
		"name":          by(func(p *project) string { return p.name }),
		"project_id":    by(func(p *project) int64 { return p.id }),
		"creation_time": func(a, b *project) int { return a.created.Compare(b.created) },
	}, by(func(p *project) string { return p.name }))
	docs := []any{}
	for _, p := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, p.json(c, c.q.Get("with_detail") != "false"))
	}
	return c.json(docs)
}

// sees reports whether the caller finds p in a list.
func (c *call) sees(p *project) bool {
	switch {
	case c.who.admin() || p.public:
		return true
	case c.who.user != nil:
		return p.members[c.who.user.name] != 0
	case c.who.robot != nil:
		return slices.ContainsFunc(c.who.robot.permissions, func(x permission) bool {
			return x.Kind == "project" && (x.Namespace == "*" || x.Namespace == p.name)
		})
	}
	return false
}

func getProject(c *call) error {
	p, err := c.projectFor("project:read")
	if err != nil {
		return err
	}
	return c.json(p.json(c, true))
}

func postProject(c *call) error {
	if !c.who.authenticated() {
		return errUnauthorized
	}
	var doc struct {
		Name     string            `json:"project_name"`
		Public   *bool             `json:"public"`
		Metadata map[string]string `json:"metadata"`
		Limit    *int64            `json:"storage_limit"`
		Registry *int64            `json:"registry_id"`
	}
	if err := c.body("project", &doc); err != nil {
		return projectReq(err)
	}
	if len(doc.Name) > 255 {
		return unprocessable("validation failure list:\nproject_name in body should be at most 255 chars long")
	}
	switch {
	case c.who.robot != nil && c.who.robot.level != "system":
		return errf(http.StatusForbidden, "FORBIDDEN", "Only system level robot can create project")
	case c.who.robot != nil && !c.who.robot.can("system", "/", "project:create"):
		return errForbidden
	case c.st.adminOnly && c.who.user != nil && !c.who.admin():
		return errf(http.StatusForbidden, "FORBIDDEN", "Only system admin can create project")
	case doc.Name == "":
		return badRequest("Project name %s is illegal in length. (greater than 255 or less than 1)", doc.Name)
	case !projectPattern.MatchString(doc.Name):
		return badRequest("project name is not in lower case or contains illegal characters")
	case doc.Registry != nil && *doc.Registry <= 0:
		return badRequest("bad request: %d is invalid value of registry_id, it should be geater than 0", *doc.Registry)
	case doc.Limit != nil && *doc.Limit < -1:
		return badRequest("bad request: invalid non-positive value for quota limit, value=%d", *doc.Limit)
	case c.st.projects[doc.Name] != nil:
		c.st.projects_.next()
		return conflict("The project named %s already exists", doc.Name)
	}
	hard := c.st.storagePerProject
	if doc.Limit != nil && *doc.Limit > 0 && (c.who.admin() || c.who.robot != nil) {
		hard = *doc.Limit
	}
	public := doc.Metadata["public"] == "true" || doc.Metadata["public"] == "" && doc.Public != nil && *doc.Public
	owner := c.who.user
	if owner == nil {
		owner = c.st.users[AdminName]
	}
	p := c.st.addProject(doc.Name, owner, owner.name, public, hard, c.now)
	if doc.Registry != nil {
		p.registryID = *doc.Registry
	}
	location := fmt.Sprintf("%s/projects/%d", apiRoot, p.id)
	if c.r.Header.Get("X-Resource-Name-In-Location") == "true" {
		location = apiRoot + "/projects/" + p.name
	}
	return c.empty(http.StatusCreated, location)
}

// projectReq names the type in messages of the JSON decoder as Harbor does.
func projectReq(err error) error {
	if e, ok := err.(*apiError); ok {
		e.message = strings.Replace(e.message, "Go struct field .", "Go struct field ProjectReq.", 1)
	}
	return err
}

func deleteProject(c *call) error {
	p, err := c.projectFor("project:delete")
	if err != nil {
		return err
	}
	if p.repoCount() > 0 {
		return precondition("precondition failed: the project contains repositories, can not be deleted")
	}
	delete(c.st.projects, p.name)
	return c.empty(http.StatusOK, "")
}

func getDeletable(c *call) error {
	p, err := c.projectFor("project:delete")
	switch {
	case err != nil:
		return err
	case p.repoCount() > 0:
		return c.json(map[string]any{"message": "the project contains repositories, can not be deleted"})
	}
	return c.json(map[string]any{"deletable": true})
}

func getSummary(c *call) error {
	p, err := c.projectFor("project:read")
	if err != nil {
		return err
	}
	doc := map[string]any{"project_admin_count": 1, "repo_count": p.repoCount()}
	if c.who.can(p, "quota:read") {
		doc["quota"] = map[string]any{"hard": storage(p.hard), "used": storage(p.used())}
	}
	return c.json(doc)
}

func storage(n int64) map[string]int64 { return map[string]int64{"storage": n} }

func (p *project) quotaJSON() map[string]any {
	return map[string]any{
		"id": p.quotaID, "creation_time": stamp(p.created), "update_time": stamp(p.quotaUpdated),
		"hard": storage(p.hard), "used": storage(p.used()),
		"ref": map[string]any{"id": p.id, "name": p.name, "owner_name": ""},
	}
}

func listQuotas(c *call) error {
	if err := c.needAdmin(); err != nil {
		return err
	}
	var found []*project
	for _, p := range c.st.projects {
		if ref := c.q.Get("reference_id"); ref == "" || ref == strconv.FormatInt(p.id, 10) {
			found = append(found, p)
		}
	}
	sorted(found, c.q.Get("sort"), map[string]func(a, b *project) int{
		"used.storage": by((*project).used),
		"hard.storage": by(func(p *project) int64 { return p.hard }),
	}, func(a, b *project) int { return cmp.Compare(b.quotaID, a.quotaID) })
	docs := []any{}
	for _, p := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, p.quotaJSON())
	}
	return c.json(docs)
}

// quota returns the project whose quota has the id of the path.
func (c *call) quota() (*project, error) {
	if err := c.needAdmin(); err != nil {
		return nil, err
	}
	for _, p := range c.st.projects {
		if p.quotaID == c.idOf(0) {
			return p, nil
		}
	}
	return nil, notFound("quota %s not found", c.vars[0])
}

func getQuota(c *call) error {
	p, err := c.quota()
	if err != nil {
		return err
	}
	return c.json(p.quotaJSON())
}

func putQuota(c *call) error {
	p, err := c.quota()
	if err != nil {
		return err
	}
	var doc struct {
		Hard struct{ Storage int64 } `json:"hard"`
	}
	if err := c.body("hard", &doc); err != nil {
		return err
	}
	p.hard, p.quotaUpdated = doc.Hard.Storage, c.now
	return c.empty(http.StatusOK, "")
}

func postMember(c *call) error {
	p, err := c.projectFor("member:create")
	if err != nil {
		return err
	}
	var doc struct {
		Role int                       `json:"role_id"`
		User struct{ Username string } `json:"member_user"`
	}
	if err := c.body("project_member", &doc); err != nil {
		return err
	}
	if c.st.users[doc.User.Username] == nil {
		return notFound("user %s not found", doc.User.Username)
	}
	if p.members[doc.User.Username] != 0 {
		return conflict("The project member specified already exist")
	}
	p.members[doc.User.Username] = doc.Role
	return c.empty(http.StatusCreated, fmt.Sprintf("%s/projects/%s/members/%d", apiRoot, c.vars[0], c.st.members_.next()))
}
