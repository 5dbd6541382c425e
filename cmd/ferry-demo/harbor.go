package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ferry/internal/oci"
	"ferry/verify"
)

// harborFront makes a registry answer as a Harbor does, just as far as
// `ferry import --create-projects`, `ferry latest` and `ferry tags` ask: ping,
// what there is to know before a push, projects, and the artifacts of a
// repository with the times of their pushes, which it takes down when
// manifests go by. The API is for demoUser, content for anybody. As in a
// Harbor, signatures, other referrers and the children of an index are no
// artifacts of their own, and a project that is not there can neither be read
// nor be pushed to.
type harborFront struct {
	registry http.Handler

	mu           sync.Mutex
	last         int64 // id of the artifact that came last
	projects     map[string]bool
	repositories map[string][]*artifact // by path
}

// artifact is in JSON what Harbor's listArtifacts gives; tags of an artifact
// without one are null.
type artifact struct {
	ID           int64     `json:"id"`
	Type         string    `json:"type"`
	Digest       string    `json:"digest"`
	ManifestType string    `json:"manifest_media_type"`
	MediaType    string    `json:"media_type"`
	Size         int64     `json:"size"` // bytes
	PushTime     time.Time `json:"push_time"`
	Tags         []tag     `json:"tags"`

	hidden bool
}

type tag struct {
	Name      string    `json:"name"`
	PushTime  time.Time `json:"push_time"`
	Immutable bool      `json:"immutable"`
}

func newHarborFront(registry http.Handler) *harborFront {
	return &harborFront{registry: registry, projects: map[string]bool{"library": true}, repositories: map[string][]*artifact{}}
}

const harborAPI = "/api/v2.0/"

// Login of the administrator inside.
const (
	demoUser     = "admin"
	demoPassword = "only-for-the-demo"
)

// mayPass reports whether a request needs no login or has the right one.
func mayPass(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	public := r.URL.Path == harborAPI+"ping" || strings.HasPrefix(r.URL.Path, "/v2/") && r.URL.Path != "/v2/"
	return public || user == demoUser && password == demoPassword
}

func (h *harborFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	api, isAPI := strings.CutPrefix(r.URL.EscapedPath(), harborAPI)
	repository, reference := manifestPath(r.URL.Path)
	switch {
	case !mayPass(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="harbor"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
	case isAPI:
		h.serveAPI(w, r, strings.Split(api, "/"))
	case !h.hasProject(r.URL.Path):
		w.Header()["Www-Authenticate"] = []string{""}
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "project not found")
	case r.Method == http.MethodPut && reference != "":
		h.putManifest(w, r, repository, reference)
	default:
		h.registry.ServeHTTP(w, r)
	}
}

// manifestPath splits "/v2/REPOSITORY/manifests/REFERENCE".
func manifestPath(path string) (repository, reference string) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	i := strings.LastIndex(rest, "/manifests/")
	if !ok || i < 0 {
		return "", ""
	}
	return rest[:i], rest[i+len("/manifests/"):]
}

// hasProject reports whether the project that a path of the registry's API is
// about is there. A path without one has no need of it.
func (h *harborFront) hasProject(path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	project, _, _ := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/")
	return project == "" || path == "/v2" || h.projects[project]
}

// status remembers the status of an answer.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// putManifest passes a manifest on and takes it down when it was taken.
func (h *harborFront) putManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, oci.MaxManifest))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "MANIFEST_INVALID", err.Error())
		return
	}
	parsed, err := oci.Parse(content, r.Header.Get("Content-Type"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	s := &status{ResponseWriter: w, code: http.StatusOK}
	h.registry.ServeHTTP(s, r)
	if s.code == http.StatusCreated {
		h.record(repository, reference, content, parsed)
	}
}

var signatureTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}\.sig$`)

// record notes when a digest first came and when a tag was made or moved.
func (h *harborFront) record(repository, reference string, content []byte, m *oci.Manifest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now().UTC().Truncate(time.Millisecond) // as exact as a Harbor is
	a := h.artifact(repository, verify.DigestOf(content))
	if a == nil {
		h.last++
		a = &artifact{ID: h.last, Type: "IMAGE", Digest: verify.DigestOf(content).String(), ManifestType: m.MediaType, MediaType: m.MediaType,
			Size: int64(len(content)), PushTime: now, hidden: m.Subject != nil}
		if m.Config != nil {
			a.MediaType = m.Config.MediaType
		}
		for _, b := range m.Blobs() {
			a.Size += b.Size
		}
		h.repositories[repository] = append(h.repositories[repository], a)
	}
	for _, child := range m.Manifests {
		if c := h.artifact(repository, child.Digest); c != nil {
			c.hidden = true
		}
	}
	is := func(t tag) bool { return t.Name == reference }
	if strings.HasPrefix(reference, "sha256:") || slices.ContainsFunc(a.Tags, is) {
		return
	}
	for _, other := range h.repositories[repository] {
		other.Tags = slices.DeleteFunc(other.Tags, is)
	}
	a.Tags = append(a.Tags, tag{Name: reference, PushTime: now})
	a.hidden = a.hidden || signatureTag.MatchString(reference)
}

// artifact returns what has that digest in a repository, or nil.
func (h *harborFront) artifact(repository string, d verify.Digest) *artifact {
	for _, a := range h.repositories[repository] {
		if a.Digest == d.String() {
			return a
		}
	}
	return nil
}

// tags returns how many tags there are in all repositories.
func (h *harborFront) tags() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, list := range h.repositories {
		for _, a := range list {
			n += len(a.Tags)
		}
	}
	return n
}

// serveAPI answers for a path below the root of Harbor's API.
func (h *harborFront) serveAPI(w http.ResponseWriter, r *http.Request, path []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	is := func(method string, parts int, last string) bool {
		return r.Method == method && len(path) == parts && (last == "" || path[parts-1] == last)
	}
	switch {
	case is(http.MethodGet, 1, "ping"):
		io.WriteString(w, "Pong")
	case is(http.MethodGet, 1, "systeminfo"):
		writeJSON(w, map[string]any{"harbor_version": "of the demo", "auth_mode": "db_auth", "read_only": false, "project_creation_restriction": "everyone"})
	case is(http.MethodGet, 2, "current"):
		writeJSON(w, map[string]any{"username": demoUser, "sysadmin_flag": true})
	case is(http.MethodGet, 1, "configurations"):
		writeJSON(w, map[string]any{"storage_per_project": map[string]any{"value": -1}})
	case is(http.MethodGet, 3, "summary") && h.projects[path[1]]:
		writeJSON(w, map[string]any{"quota": map[string]any{"hard": map[string]int{"storage": -1}, "used": map[string]int{"storage": 0}}})
	case is(http.MethodGet, 3, "immutabletagrules") && h.projects[path[1]]:
		writeJSON(w, []any{})
	case path[0] == "projects" && is(http.MethodGet, 2, "") && h.projects[path[1]]:
		writeJSON(w, map[string]any{"project_id": 1, "name": path[1], "metadata": map[string]string{"public": "true"}})
	case is(http.MethodHead, 1, "projects"):
		if !h.projects[r.URL.Query().Get("project_name")] {
			w.WriteHeader(http.StatusNotFound)
		}
	case is(http.MethodPost, 1, "projects"):
		h.createProject(w, r)
	case path[0] == "projects" && (is(http.MethodGet, 4, "") || is(http.MethodGet, 5, "artifacts")) && path[2] == "repositories":
		// Slashes in a repository's name are escaped twice.
		name, _ := url.PathUnescape(path[3])
		name, _ = url.PathUnescape(name)
		list := h.repositories[path[1]+"/"+name]
		switch {
		case len(path) == 5:
			listArtifacts(w, r, list)
		case len(list) == 0:
			refuse(w, http.StatusNotFound, "NOT_FOUND", "repository not found")
		default:
			writeJSON(w, map[string]any{"name": path[1] + "/" + name})
		}
	default:
		refuse(w, http.StatusNotFound, "NOT_FOUND", "this is only a part of Harbor's API")
	}
}

func (h *harborFront) createProject(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Name string `json:"project_name"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&asked)
	switch {
	case err != nil || asked.Name == "" || strings.Contains(asked.Name, "/"):
		refuse(w, http.StatusBadRequest, "BAD_REQUEST", "no name of a project")
	case h.projects[asked.Name]:
		refuse(w, http.StatusConflict, "CONFLICT", "The project named "+asked.Name+" already exists")
	default:
		h.projects[asked.Name] = true
		w.Header().Set("Location", fmt.Sprint(harborAPI, "projects/", len(h.projects)))
		w.WriteHeader(http.StatusCreated)
	}
}

// listArtifacts answers with a page of those that are not hidden, by id.
func listArtifacts(w http.ResponseWriter, r *http.Request, list []*artifact) {
	shown := slices.DeleteFunc(slices.Clone(list), func(a *artifact) bool { return a.hidden })
	page, size := number(r, "page", 1), number(r, "page_size", 10)
	w.Header().Set("X-Total-Count", strconv.Itoa(len(shown)))
	from := min((page-1)*size, len(shown))
	writeJSON(w, append([]*artifact{}, shown[from:min(from+size, len(shown))]...))
}

// number returns a number from 1 to 100 that the query has, or missing.
func number(r *http.Request, key string, missing int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil {
		return missing
	}
	return min(max(n, 1), 100)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, kind, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": kind, "message": message}}})
}
