package harbortest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const apiRoot = "/api/v2.0"

// call is one request of the API. Its handler runs with s.mu held.
type call struct {
	s    *Server
	st   *state
	w    http.ResponseWriter
	r    *http.Request
	who  caller
	q    url.Values
	vars []string // what the stars of the route stand for, unescaped
	path string   // for Link headers
	now  time.Time
}

// route is a path with "*" for one part, and what each method does, in the
// order in which a 405 lists them.
type route struct {
	path    string
	methods []method
}

type method struct {
	name   string
	handle func(*call) error
}

var routes = []route{
	{"ping", []method{{"GET", getPing}}},
	{"systeminfo", []method{{"GET", getSystemInfo}}},
	{"health", []method{{"GET", getHealth}}},
	{"configurations", []method{{"GET", getConfigurations}, {"PUT", putConfigurations}}},
	{"users", []method{{"POST", postUser}}},
	{"users/current", []method{{"GET", getCurrentUser}}},
	{"robots", []method{{"GET", listRobots}, {"POST", postRobot}}},
	{"robots/*", []method{{"GET", getRobot}, {"PUT", putRobot}, {"PATCH", patchRobot}}},
	{"projects", []method{{"HEAD", headProject}, {"GET", listProjects}, {"POST", postProject}}},
	{"projects/*", []method{{"GET", getProject}, {"DELETE", deleteProject}}},
	{"projects/*/summary", []method{{"GET", getSummary}}},
	{"projects/*/_deletable", []method{{"GET", getDeletable}}},
	{"projects/*/members", []method{{"POST", postMember}}},
	{"projects/*/immutabletagrules", []method{{"GET", listRules}, {"POST", postRule}}},
	{"projects/*/repositories", []method{{"GET", listRepositories}}},
	{"projects/*/repositories/*", []method{{"GET", getRepository}, {"PUT", putRepository}, {"DELETE", deleteRepository}}},
	{"projects/*/repositories/*/artifacts", []method{{"GET", listArtifacts}, {"POST", copyArtifact}}},
	{"projects/*/repositories/*/artifacts/*", []method{{"GET", getArtifact}, {"DELETE", deleteArtifact}}},
	{"projects/*/repositories/*/artifacts/*/tags", []method{{"GET", listTags}, {"POST", postTag}}},
	{"projects/*/repositories/*/artifacts/*/tags/*", []method{{"DELETE", deleteTag}}},
	{"projects/*/repositories/*/artifacts/*/accessories", []method{{"GET", listAccessories}}},
	{"projects/*/artifacts", []method{{"GET", listProjectArtifacts}}},
	{"repositories", []method{{"GET", listAllRepositories}}},
	{"quotas", []method{{"GET", listQuotas}}},
	{"quotas/*", []method{{"GET", getQuota}, {"PUT", putQuota}}},
	{"retentions", []method{{"POST", postRetention}}},
	{"retentions/*", []method{{"GET", getRetention}}},
}

// match reports whether the escaped path is this route, and what its stars
// stand for.
func (rt route) match(path string) ([]string, bool) {
	want, got := strings.Split(rt.path, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	var vars []string
	for i, part := range want {
		text, err := url.PathUnescape(got[i])
		switch {
		case err != nil || text == "":
			return nil, false
		case part == "*":
			vars = append(vars, text)
		case part != text:
			return nil, false
		}
	}
	return vars, true
}

// serveAPI answers a request whose path the front proxy has unescaped once.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, path string) {
	rest := strings.TrimSuffix(strings.TrimPrefix(path, apiRoot+"/"), "/")
	for _, rt := range routes {
		vars, ok := rt.match(rest)
		if !ok {
			continue
		}
		if len(vars) > 1 && strings.HasPrefix(rt.path, "projects/*/repositories/") {
			if name, err := url.PathUnescape(vars[1]); err == nil {
				vars[1] = name // Harbor unescapes the repository's name itself, too
			}
		}
		s.dispatch(w, r, rt, vars)
		return
	}
	writeError(w, notFound("path %s was not found", path))
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, rt route, vars []string) {
	var names []string
	for _, m := range rt.methods {
		names = append(names, m.name)
		if m.name != r.Method {
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		c := &call{s: s, st: &s.state, w: w, r: r, who: s.identify(r), q: r.URL.Query(), vars: vars, path: r.URL.EscapedPath(), now: s.now()}
		if c.who.token != nil {
			c.who = caller{} // a registry token means nothing here
		}
		err := checkPage(c.q)
		if err == nil {
			err = m.handle(c)
		}
		if err != nil {
			writeError(w, err)
		}
		return
	}
	writeError(w, errf(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "method %s is not allowed, but [%s] are", r.Method, strings.Join(names, ",")))
}

func (c *call) json(v any) error {
	writeJSON(c.w, "application/json", v)
	return nil
}

// empty answers with a status, and a Location unless that is empty.
func (c *call) empty(status int, location string) error {
	if location != "" {
		c.w.Header().Set("Location", location)
	}
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(status)
	return nil
}

// body parses the request's JSON into v, which the API calls name.
func (c *call) body(name string, v any) error {
	t, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if t == "" {
		t = "application/octet-stream"
	}
	if t != "application/json" {
		return unprocessable("unsupported media type %q, only [application/json] are allowed", t)
	}
	text, err := io.ReadAll(c.r.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return unprocessable("parsing %s body from \"\" failed, because %v", name, err)
	}
	return nil
}

var (
	errUnauthorized = errf(http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
	errForbidden    = errf(http.StatusForbidden, "FORBIDDEN", "forbidden")
)

// need refuses callers without a right in the project, which may be nil.
func (c *call) need(p *project, right string) error {
	switch {
	case c.who.can(p, right):
		return nil
	case !c.who.authenticated():
		return errUnauthorized
	}
	return errForbidden
}

// needAdmin refuses everybody but administrators.
func (c *call) needAdmin() error {
	switch {
	case c.who.admin():
		return nil
	case !c.who.authenticated():
		return errUnauthorized
	}
	return errf(http.StatusForbidden, "FORBIDDEN", "%s", c.who.name())
}

func getPing(c *call) error {
	c.w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(c.w, "Pong")
	return nil
}

func getSystemInfo(c *call) error {
	info := map[string]any{"auth_mode": "db_auth", "banner_message": "", "oidc_provider_name": "", "primary_auth_mode": false, "self_registration": false}
	if c.who.authenticated() {
		creation := "everyone"
		if c.st.adminOnly {
			creation = "adminonly"
		}
		external := c.s.opts.ExternalURL
		if external == "" {
			external = origin(c.r)
		}
		_, host, _ := strings.Cut(external, "://")
		info["current_time"] = stamp(c.now)
		info["external_url"] = external
		info["harbor_version"] = "v2.16.0-c50c7dd"
		info["has_ca_root"] = strings.HasPrefix(external, "https:")
		info["notification_enable"] = true
		info["project_creation_restriction"] = creation
		info["read_only"] = c.st.readOnly
		info["registry_storage_provider_name"] = "filesystem"
		info["registry_url"] = host
	}
	return c.json(info)
}

// getHealth answers 200 whatever it says.
func getHealth(c *call) error {
	components := []map[string]string{}
	for _, name := range []string{"core", "database", "jobservice", "portal", "redis", "registry", "registryctl"} {
		components = append(components, map[string]string{"name": name, "status": "healthy"})
	}
	return c.json(map[string]any{"components": components, "status": "healthy"})
}

// getConfigurations shows the few settings that are imitated.
func getConfigurations(c *call) error {
	if err := c.needAdmin(); err != nil {
		return err
	}
	setting := func(value any) map[string]any { return map[string]any{"editable": true, "value": value} }
	creation := "everyone"
	if c.st.adminOnly {
		creation = "adminonly"
	}
	return c.json(map[string]any{"read_only": setting(c.st.readOnly), "project_creation_restriction": setting(creation),
		"quota_per_project_enable": setting(true), "storage_per_project": setting(c.st.storagePerProject)})
}

func putConfigurations(c *call) error {
	if err := c.needAdmin(); err != nil {
		return err
	}
	var doc struct {
		ReadOnly *bool   `json:"read_only"`
		Creation *string `json:"project_creation_restriction"`
		Storage  *int64  `json:"storage_per_project"`
	}
	if err := c.body("configurations", &doc); err != nil {
		return err
	}
	if doc.ReadOnly != nil {
		c.st.readOnly = *doc.ReadOnly
	}
	if doc.Creation != nil {
		c.st.adminOnly = *doc.Creation == "adminonly"
	}
	if doc.Storage != nil {
		c.st.storagePerProject = *doc.Storage
	}
	return c.empty(http.StatusOK, "")
}

// idOf returns a path's variable as a number, or -1.
func (c *call) idOf(i int) int64 {
	n, err := strconv.ParseInt(c.vars[i], 10, 64)
	if err != nil {
		return -1
	}
	return n
}
