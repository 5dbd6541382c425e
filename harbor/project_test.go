package harbor

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestProjects(t *testing.T) {
	s := newSite(t)
	c, ctx := s.admin(), t.Context()
	if ok, err := c.ProjectExists(ctx, "p"); ok || err != nil {
		t.Errorf("before: %v, %v", ok, err)
	}
	if err := c.CreateProject(ctx, "p", CreateOptions{Public: true, StorageLimit: 5000}); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateProject(ctx, "p", CreateOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v, want %v", err, ErrExists)
	}
	if ok, err := c.ProjectExists(ctx, "p"); !ok || err != nil {
		t.Errorf("afterwards: %v, %v", ok, err)
	}
	p, err := c.Project(ctx, "p")
	if err != nil || p.Name != "p" || !p.Public || p.ProxyCache || p.Repositories != 0 || !p.Created.Equal(s.now) {
		t.Errorf("Project = %+v, %v", p, err)
	}
	var summary struct {
		Quota struct{ Hard struct{ Storage int64 } }
	}
	body, _ := io.ReadAll(s.raw(http.MethodGet, "/api/v2.0/projects/p/summary").Body)
	if err := json.Unmarshal(body, &summary); err != nil || summary.Quota.Hard.Storage != 5000 {
		t.Errorf("quota: %s, %v", body, err)
	}
	if err := c.CreateProject(ctx, "n", CreateOptions{StorageLimit: -1}); err == nil {
		t.Error("a negative quota is taken")
	}
	s.AddProxyCache("cache")
	if p, err := c.Project(ctx, "cache"); err != nil || !p.ProxyCache || p.Public {
		t.Errorf("proxy cache: %+v, %v", p, err)
	}
	if _, err := c.Project(ctx, "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"read_only": true})
	if err := c.CreateProject(ctx, "q", CreateOptions{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("read-only: %v, want %v", err, ErrReadOnly)
	}
}

// Of eight callers at once one creates the project. NOTES 8.
func TestCreateAtOnce(t *testing.T) {
	s := newSite(t)
	c := s.admin()
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = c.CreateProject(t.Context(), "race", CreateOptions{}) })
	}
	wg.Wait()
	created := 0
	for _, err := range errs {
		if err == nil {
			created++
		} else if !errors.Is(err, ErrExists) {
			t.Error(err)
		}
	}
	if created != 1 {
		t.Errorf("%d callers created the project", created)
	}
}

// A project named like another's number is found by its name. NOTES 9.
func TestNumericName(t *testing.T) {
	s := newSite(t)
	c, ctx := s.admin(), t.Context()
	if err := c.CreateProject(ctx, "1", CreateOptions{}); err != nil { // library has the id 1
		t.Fatal(err)
	}
	var naive struct{ Name string }
	body, _ := io.ReadAll(s.raw(http.MethodGet, "/api/v2.0/projects/1").Body)
	if err := json.Unmarshal(body, &naive); err != nil || naive.Name != "library" {
		t.Fatalf("the trap is not there: %s", body)
	}
	if p, err := c.Project(ctx, "1"); err != nil || p.Name != "1" || p.ID == 1 {
		t.Errorf("Project(1) = %+v, %v", p, err)
	}
	digest := s.push("1/2/3", "x", "4")
	if as, err := c.Artifacts(ctx, "1", "2/3"); err != nil || len(as) != 1 || as[0].Digest.String() != digest {
		t.Errorf("Artifacts = %v, %v", as, err)
	}
	if rs, err := c.Repositories(ctx, "1"); err != nil || len(rs) != 1 || rs[0].Name != "2/3" {
		t.Errorf("Repositories = %v, %v", rs, err)
	}
}

// Robots have names with $ and +, and fewer rights than they seem to. NOTES 1,
// 7, 10; T70.
func TestRobots(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.AddProject("team", false, -1)
	s.AddProject("other", false, -1)
	s.push("team/app", "x", "1.0")
	const secret = `a:b$c"d\e %`
	s.AddRobot("robot$team+ci", secret, "team", "repository:push", "repository:pull", "artifact:list", "artifact:read")
	s.AddRobot("robot$mirror", secret, "*", "system:project:create", "repository:push", "repository:pull", "repository:list", "artifact:list", "project:read")
	ci, mirror := s.client("robot$team+ci", secret), s.client("robot$mirror", secret)
	for _, c := range []*Client{ci, mirror} {
		if err := c.CheckLogin(ctx); err != nil {
			t.Errorf("login: %v", err)
		}
		if info, err := c.SystemInfo(ctx); err != nil || info.Version == "" {
			t.Errorf("SystemInfo = %+v, %v", info, err)
		}
		if ok, err := c.ProjectExists(ctx, "team"); !ok || err != nil {
			t.Errorf("ProjectExists(team) = %v, %v", ok, err)
		}
		if ok, err := c.ProjectExists(ctx, "nosuch"); ok || err != nil {
			t.Errorf("ProjectExists(nosuch) = %v, %v", ok, err)
		}
		if as, err := c.Artifacts(ctx, "team", "app"); err != nil || len(as) != 1 {
			t.Errorf("Artifacts = %v, %v", as, err)
		}
	}
	err := ci.CreateProject(ctx, "new", CreateOptions{})
	if !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "system level robot") {
		t.Errorf("a project robot creates: %v", err)
	}
	if err := mirror.CreateProject(ctx, "new", CreateOptions{}); err != nil {
		t.Errorf("a system robot creates: %v", err)
	}
	if _, err := ci.Repositories(ctx, "team"); !errors.Is(err, ErrForbidden) {
		t.Errorf("a robot without repository:list: %v", err)
	}
	if _, err := ci.Project(ctx, "team"); !errors.Is(err, ErrForbidden) {
		t.Errorf("a robot without project:read: %v", err)
	}
	if _, err := ci.Artifacts(ctx, "other", "app"); !errors.Is(err, ErrForbidden) {
		t.Errorf("another project: %v", err)
	}
	// It can not be told that the repository is missing: then the list is empty.
	if as, err := ci.Artifacts(ctx, "team", "nosuch"); err != nil || len(as) != 0 {
		t.Errorf("a missing repository, seen by a robot: %v, %v", as, err)
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 255)
	projects := map[string]bool{
		"a": true, "ab": true, "1": true, "123": true, "team-a": true, "team_a": true, "team.a": true, "1a": true, "a-b.c_d": true, long: true,
		"": false, "Team-A": false, "team a": false, "team/a": false, "-team": false, "team-": false, "team..a": false, "team__a": false,
		"team--a": false, "team.-a": false, "команда": false, " team": false, long + "x": false, "..": false, ".": false, "a\n": false, "a%2f": false,
	}
	for name, want := range projects {
		if err := CheckProjectName(name); (err == nil) != want || err != nil && !errors.Is(err, ErrInvalidName) {
			t.Errorf("CheckProjectName(%.30q) = %v, want success %v", name, err, want)
		}
	}
	repositories := map[string]bool{
		"p/a": true, "p/a/b/c/d": true, "p/dot.name/under_score": true, "p/a__b": true, "p/a---b": true, "1/2": true, "p/" + long[:253]: true,
		"p": false, "p/": false, "/a": false, "p//a": false, "p/a/": false, "p/UPPER": false, "P/a": false, "p/a..b": false, "p/../a": false,
		"p/a___b": false, "p/a b": false, "p/" + long[:254]: false, "p/a%2fb": false, "p/a:1": false, "p/a@b": false,
	}
	for path, want := range repositories {
		project, repository, err := SplitRepository(path)
		if (err == nil) != want || err != nil && !errors.Is(err, ErrInvalidName) {
			t.Errorf("SplitRepository(%.30q) = %v, want success %v", path, err, want)
		}
		if want && project+"/"+repository != path {
			t.Errorf("SplitRepository(%q) = %q, %q", path, project, repository)
		}
	}
	// Bad names are not sent.
	s := newSite(t)
	c, ctx := s.admin(), t.Context()
	for _, err := range []error{
		c.CreateProject(ctx, "A", CreateOptions{}),
		func() error { _, err := c.Project(ctx, ".."); return err }(),
		func() error { _, err := c.ProjectExists(ctx, "a/b"); return err }(),
		func() error { _, err := c.Repositories(ctx, "a?x"); return err }(),
		func() error { _, err := c.Artifacts(ctx, "a", "../b"); return err }(),
	} {
		if !errors.Is(err, ErrInvalidName) {
			t.Errorf("%v, want %v", err, ErrInvalidName)
		}
	}
	if n := len(s.Log()); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestRepositories(t *testing.T) {
	s := newSite(t)
	c, ctx := s.admin(), t.Context()
	var want []string
	for _, name := range []string{"web", "app/backend/api", "app/backend", "dot.name/under_score"} {
		s.push("library/"+name, name, "1")
		want = append(want, name)
	}
	slices.Sort(want)
	got, err := c.Repositories(ctx, "library")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Name)
		if r.Artifacts != 1 || r.Updated.IsZero() {
			t.Errorf("repository %+v", r)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("repositories %q, want %q", names, want)
	}
	s.AddProject("empty", false, -1)
	if rs, err := c.Repositories(ctx, "empty"); err != nil || len(rs) != 0 {
		t.Errorf("empty: %v, %v", rs, err)
	}
	if _, err := c.Repositories(ctx, "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.client("", "").Repositories(ctx, "empty"); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("anonymous: %v", err)
	}
}
