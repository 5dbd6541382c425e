package harbortest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Roles of project members, with Harbor's numbers.
const (
	roleAdmin = 1 + iota
	RoleDeveloper
	RoleGuest
	RoleMaintainer
)

// lockTime is how long one wrong password locks a user. Harbor also delays
// the refusal itself for as long, so that only others notice the lock; here
// the refusal comes at once, and who comes next does.
const lockTime = 1500 * time.Millisecond

// caller is who sent a request. Nobody is the zero caller.
type caller struct {
	user  *user
	robot *robot
	token *token // a registry token, good on /v2 only
}

func (c caller) authenticated() bool { return c.name() != "" }
func (c caller) admin() bool         { return c.user != nil && c.user.admin }

func (c caller) name() string {
	switch {
	case c.user != nil:
		return c.user.name
	case c.robot != nil:
		return c.robot.name
	case c.token != nil:
		return c.token.subject
	}
	return ""
}

// identify returns who sent r. A wrong password makes the caller nobody, and
// locks the user. The caller holds s.mu.
func (s *Server) identify(r *http.Request) caller {
	now := s.now()
	if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if t := s.state.tokens[text]; t != nil && now.Before(t.expires) {
			return caller{token: t}
		}
		return caller{}
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		return caller{}
	}
	if b := s.state.robots[name]; b != nil {
		if b.secret != password || b.disabled || b.expires >= 0 && now.Unix() >= b.expires {
			return caller{}
		}
		return caller{robot: b}
	}
	u := s.state.users[name]
	switch {
	case u == nil, now.Before(u.lockedUntil):
		return caller{}
	case u.password != password:
		u.lockedUntil = now.Add(lockTime)
		return caller{}
	}
	return caller{user: u}
}

var (
	readers    = []string{"repository:pull", "repository:list", "repository:read", "artifact:list", "artifact:read", "tag:list", "accessory:list", "project:read"}
	developers = append(slices.Clip(readers), "repository:push", "artifact:create", "tag:create", "quota:read", "immutable-tag:list")
	admins     = append(slices.Clip(developers), "repository:delete", "repository:update", "artifact:delete", "tag:delete", "project:delete", "project:update",
		"immutable-tag:create", "immutable-tag:update", "immutable-tag:delete", "tag-retention:create", "tag-retention:read", "member:create", "robot:create", "robot:read")
)

// can reports whether c may do what "resource:action" says in p, which is nil
// for a project that is not there.
func (c caller) can(p *project, right string) bool {
	switch {
	case c.admin():
		return true
	case p == nil:
		return false
	case p.public && slices.Contains(readers, right):
		return true
	case c.robot != nil:
		return c.robot.can("project", p.name, right)
	case c.token != nil:
		return false
	case c.user == nil:
		return false
	}
	switch p.members[c.user.name] {
	case roleAdmin, RoleMaintainer:
		return slices.Contains(admins, right)
	case RoleDeveloper:
		return slices.Contains(developers, right)
	case RoleGuest:
		return slices.Contains(readers, right)
	}
	return false
}

func (b *robot) can(kind, namespace, right string) bool {
	for _, p := range b.permissions {
		if p.Kind != kind || p.Namespace != namespace && p.Namespace != "*" {
			continue
		}
		for _, a := range p.Access {
			if a.Resource+":"+a.Action == right {
				return true
			}
		}
	}
	return false
}

// token is a registry token and what it allows.
type token struct {
	subject string // empty when it was given to nobody
	expires time.Time
	access  []tokenAccess
}

type tokenAccess struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// canRegistry reports whether c may pull from, push to or delete in a
// repository of p.
func (c caller) canRegistry(p *project, repository, action string) bool {
	if c.token == nil {
		return c.can(p, "repository:"+action)
	}
	return slices.ContainsFunc(c.token.access, func(a tokenAccess) bool {
		return a.Type == "repository" && a.Name == repository && slices.Contains(a.Actions, action)
	})
}

// serveToken answers as the token service does: always with a token, however
// little it allows.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	q := r.URL.Query()
	if service := q.Get("service"); service != "harbor-registry" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, "Unable to handle service: "+service)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.identify(r), s.now()
	t := &token{subject: c.name(), expires: now.Add(s.opts.TokenLife), access: []tokenAccess{}}
	for _, scope := range q["scope"] {
		kind, rest, ok := strings.Cut(scope, ":")
		i := strings.LastIndexByte(rest, ':')
		if !ok || kind != "repository" || i < 0 {
			continue
		}
		a := tokenAccess{Type: kind, Name: rest[:i], Actions: []string{}}
		project, _, _ := strings.Cut(a.Name, "/")
		if p := s.state.projects[project]; p != nil {
			for _, action := range []string{"pull", "push", "delete"} {
				if c.can(p, "repository:"+action) {
					a.Actions = append(a.Actions, action)
				}
			}
		}
		t.access = append(t.access, a)
	}
	text := s.jwt(t, now)
	s.state.tokens[text] = t
	writeJSON(w, "application/json; charset=utf-8", map[string]any{
		"token": text, "access_token": "", "expires_in": int64(s.opts.TokenLife / time.Second),
		"issued_at": now.Format("2006-01-02T15:04:05Z"),
	})
}

// jwt returns a token that reads like Harbor's; its signature is random.
func (s *Server) jwt(t *token, now time.Time) string {
	claims, _ := json.Marshal(map[string]any{
		"iss": "harbor-token-issuer", "sub": t.subject, "aud": "harbor-registry",
		"exp": t.expires.Unix(), "nbf": now.Unix(), "iat": now.Unix(), "jti": randomHex(8), "access": t.access,
	})
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc(claims) + "." + randomHex(128)
}

// AddUser adds a user who has no role anywhere.
func (s *Server) AddUser(name, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.users[name] = &user{id: s.state.users_.next(), name: name, password: password, created: s.now()}
}

// SetRole makes a user a member of a project.
func (s *Server) SetRole(t testing.TB, project, user string, role int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.state.projects[project]
	if p == nil || s.state.users[user] == nil {
		t.Fatalf("no project %q or no user %q", project, user)
	}
	p.members[user] = role
}

// AddRobot adds a robot that has the rights, such as "repository:push", in a
// project, or in all of them for "*", and "system:" rights, such as
// "system:project:create", in Harbor itself. Its full name is given, such as
// "robot$project+ci". It never expires.
func (s *Server) AddRobot(fullName, secret, project string, rights ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &robot{id: s.state.robots_.next(), name: fullName, secret: secret, level: "project", duration: -1, expires: -1,
		created: s.now(), project: s.state.projects[project]}
	if project == "*" {
		b.level = "system"
	}
	own, system := permission{Kind: "project", Namespace: project}, permission{Kind: "system", Namespace: "/"}
	for _, right := range rights {
		to := &own
		if rest, ok := strings.CutPrefix(right, "system:"); ok {
			right, to = rest, &system
		}
		resource, action, _ := strings.Cut(right, ":")
		to.Access = append(to.Access, access{resource, action})
	}
	b.permissions = []permission{own, system}
	s.state.robots[fullName] = b
}
