package harbortest

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

func getCurrentUser(c *call) error {
	switch {
	case c.who.robot != nil:
		return precondition("get current user not available for security context: robot")
	case c.who.user == nil:
		return errUnauthorized
	}
	u := c.who.user
	return c.json(map[string]any{
		"admin_role_in_auth": false, "comment": "admin user", "creation_time": stamp(u.created), "update_time": stamp(u.created),
		"realname": "system admin", "sysadmin_flag": u.admin, "user_id": u.id, "username": u.name,
	})
}

func strong(password string) bool {
	return len(password) >= 8 && len(password) <= 128 && strings.ContainsFunc(password, unicode.IsUpper) &&
		strings.ContainsFunc(password, unicode.IsLower) && strings.ContainsFunc(password, unicode.IsDigit)
}

var errWeak = errf(http.StatusBadRequest, "BAD_REQUEST",
	"the password or secret must be 8-128, inclusively, characters long with at least 1 uppercase letter, 1 lowercase letter and 1 number")

func postUser(c *call) error {
	if err := c.needAdmin(); err != nil {
		return err
	}
	var doc struct{ Username, Password string }
	if err := c.body("userReq", &doc); err != nil {
		return err
	}
	switch {
	case !strong(doc.Password):
		return errWeak
	case c.st.users[doc.Username] != nil:
		c.st.users_.next()
		return conflict("user %s already exists", doc.Username)
	}
	u := &user{id: c.st.users_.next(), name: doc.Username, password: doc.Password, created: c.now}
	c.st.users[u.name] = u
	return c.empty(http.StatusCreated, fmt.Sprintf("%s/users/%d", apiRoot, u.id))
}

var robotPattern = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// permissions that a robot can have.
var robotRights = regexp.MustCompile(`^(repository:(push|pull|list|read|update|delete)|artifact:(list|read|create|delete)|tag:(list|create|delete)|` +
	`project:(create|list|read|update|delete)|quota:(read|list)|immutable-tag:(list|create|update|delete)|accessory:list|member:create)$`)

func postRobot(c *call) error {
	if !c.who.authenticated() {
		return errUnauthorized
	}
	var doc struct {
		Name        string       `json:"name"`
		Level       string       `json:"level"`
		Duration    int64        `json:"duration"`
		Permissions []permission `json:"permissions"`
	}
	if err := c.body("robot", &doc); err != nil {
		return err
	}
	b := &robot{name: "robot$" + doc.Name, level: doc.Level, duration: doc.Duration, expires: -1, permissions: doc.Permissions,
		secret: randomHex(16) + "Aa1", created: c.now}
	if doc.Duration > 0 {
		b.expires = c.now.AddDate(0, 0, int(doc.Duration)).Unix()
	}
	switch {
	case !robotPattern.MatchString(doc.Name):
		return badRequest("robot name is not in lower case or contains illegal characters")
	case doc.Duration == 0 || doc.Duration < -1:
		return badRequest("bad request error duration input: %d, duration must be either -1(Never) or a positive integer", doc.Duration)
	}
	for _, p := range doc.Permissions {
		for _, a := range p.Access {
			if right := a.Resource + ":" + a.Action; !robotRights.MatchString(right) {
				return badRequest("bad request permission: %s", right)
			}
		}
	}
	conflictName := b.name
	if doc.Level == "project" {
		if len(doc.Permissions) == 0 {
			return badRequest("bad request permission: none")
		}
		name := doc.Permissions[0].Namespace
		if b.project = c.st.projects[name]; b.project == nil {
			return notFound("project %s not found", name)
		}
		b.name = "robot$" + name + "+" + doc.Name
		conflictName = fmt.Sprintf("%d:%s+%s", b.project.id, name, doc.Name)
	}
	if err := c.need(b.project, "robot:create"); err != nil {
		return err
	}
	b.id = c.st.robots_.next()
	if c.st.robots[b.name] != nil {
		return conflict("robot account %s already exists", conflictName)
	}
	c.st.robots[b.name] = b
	c.w.Header().Set("Location", fmt.Sprintf("%s/robots/%d", apiRoot, b.id))
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusCreated)
	return c.json(map[string]any{"creation_time": stamp(c.now), "expires_at": b.expires, "id": b.id, "name": b.name, "secret": b.secret})
}

func (b *robot) json() map[string]any {
	return map[string]any{
		"creation_time": stamp(b.created), "update_time": stamp(b.created), "creator_ref": 1, "creator_type": "local",
		"disable": b.disabled, "duration": b.duration, "editable": true, "expires_at": b.expires, "id": b.id, "level": b.level,
		"name": b.name, "permissions": b.permissions,
	}
}

// listRobots shows those of the whole system.
func listRobots(c *call) error {
	if err := c.needAdmin(); err != nil {
		return err
	}
	var found []*robot
	for _, b := range c.st.robots {
		if b.level == "system" {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b *robot) int { return cmp.Compare(b.id, a.id) })
	docs := []any{}
	for _, b := range pageOf(c.w, c.q, c.path, found) {
		docs = append(docs, b.json())
	}
	return c.json(docs)
}

// robot returns the robot with the id of the path, for administrators.
func (c *call) robot() (*robot, error) {
	if err := c.needAdmin(); err != nil {
		return nil, err
	}
	for _, b := range c.st.robots {
		if b.id == c.idOf(0) {
			return b, nil
		}
	}
	return nil, notFound("robot %s not found", c.vars[0])
}

func getRobot(c *call) error {
	b, err := c.robot()
	if err != nil {
		return err
	}
	return c.json(b.json())
}

func putRobot(c *call) error {
	b, err := c.robot()
	if err != nil {
		return err
	}
	var doc struct {
		Disable     bool         `json:"disable"`
		Permissions []permission `json:"permissions"`
	}
	if err := c.body("robot", &doc); err != nil {
		return err
	}
	b.disabled, b.permissions = doc.Disable, doc.Permissions
	return c.empty(http.StatusOK, "")
}

// patchRobot sets a new secret, a random one for an empty one.
func patchRobot(c *call) error {
	b, err := c.robot()
	if err != nil {
		return err
	}
	var doc struct{ Secret string }
	if err := c.body("robotSec", &doc); err != nil {
		return err
	}
	switch {
	case doc.Secret == "":
		b.secret = randomHex(16) + "Aa1"
		return c.json(map[string]string{"secret": b.secret})
	case !strong(doc.Secret):
		return errWeak
	}
	b.secret = doc.Secret
	return c.json(struct{}{})
}
