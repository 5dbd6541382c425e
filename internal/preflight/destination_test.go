package preflight_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ferry/harbor"
	"ferry/internal/harbortest"
	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/transfer"
)

const pushPull = "repository:push repository:pull"

// Every login that Harbor knows, against a project that is there, one that is
// not, and one that is to be created. NOTES 1, 2, 5, 7, 10.
func TestLoginsAndProjects(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	s.AddProject("other", false, -1)
	s.AddProject("open", true, -1)
	s.AddProxyCache("cache")
	for user, role := range map[string]int{"guest": harbortest.RoleGuest, "dev": harbortest.RoleDeveloper, "boss": harbortest.RoleMaintainer} {
		s.AddUser(user, "Devpass123")
		s.SetRole(t, "team", user, role)
	}
	s.AddUser("nobody", "Devpass123")
	s.AddRobot("robot$team+ci", "x", "team", strings.Fields(pushPull)...)
	s.AddRobot("robot$team+pull", "x", "team", "repository:pull")
	s.AddRobot("robot$all", "x", "*", strings.Fields(pushPull+" project:read system:project:create")...)
	const own, absent = "team/app", "absent/app"
	for _, c := range []struct {
		user, path string
		create     bool
		want       string
		err        error
	}{
		{"admin", own, false, "", nil},
		{"admin", absent, false, "project:error", preflight.ErrNoProject},
		{"admin", absent, true, "", nil},
		{"admin", "cache/app", false, "project:error", harbor.ErrProxyCache},
		{"admin", "Team/app", false, "project:error", harbor.ErrInvalidName},
		{"admin", own + " " + absent + " cache/x", false, "project:error project:error", preflight.ErrNoProject},
		{"dev", own, false, "", nil},
		{"boss", own, false, "", nil},
		{"guest", own, false, "rights:error", registry.ErrUnauthorized},
		{"nobody", own, false, "project:warning rights:error", registry.ErrUnauthorized},
		{"nobody", "open/app", false, "rights:error", registry.ErrUnauthorized},
		{"nobody", absent, true, "", nil},
		{"robot$team+ci", own, false, "project:warning", nil},
		{"robot$team+ci", "other/app", false, "project:warning rights:error", registry.ErrUnauthorized},
		{"robot$team+ci", absent, false, "project:error", preflight.ErrNoProject},
		{"robot$team+ci", absent, true, "project:error", harbor.ErrForbidden},
		{"robot$team+pull", own, false, "project:warning rights:error", registry.ErrUnauthorized},
		{"robot$all", own, false, "", nil},
		{"robot$all", absent, true, "", nil},
		{"", own, false, "login:error", harbor.ErrUnauthorized},
		{"wrong", own, false, "login:error", harbor.ErrUnauthorized},
	} {
		password := map[bool]string{true: "x", false: "Devpass123"}[strings.HasPrefix(c.user, "robot")]
		if c.user == "admin" {
			password = harbortest.AdminPassword
		}
		o := s.options(c.user, password)
		o.CreateProjects = c.create
		s.ResetLog()
		var repos []registry.Repository
		for _, path := range strings.Fields(c.path) {
			repos = append(repos, s.repository(path))
		}
		d := preflight.Look(t.Context(), repos, o)
		if got := summary(&d.Report); got != c.want || !errors.Is(d.Err(), c.err) {
			t.Errorf("%s, %s, create %t: %q, %v; want %q, %v", c.user, c.path, c.create, got, d.Err(), c.want, c.err)
		}
		for _, check := range d.Checks {
			if check.Level == preflight.Error && check.Advice == "" && !errors.Is(check.Err(), harbor.ErrInvalidName) {
				t.Errorf("%s, %s: no advice for %+v", c.user, c.path, check)
			}
		}
		s.untouched()
	}
}

// Where only administrators may create projects, others are told so.
func TestAdminOnly(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddUser("dev", "Devpass123")
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"project_creation_restriction": "adminonly"})
	for user, want := range map[string]error{"dev": harbor.ErrForbidden, harbortest.AdminName: nil} {
		o := s.options(user, map[string]string{"dev": "Devpass123", harbortest.AdminName: harbortest.AdminPassword}[user])
		o.CreateProjects = true
		if d := preflight.Look(t.Context(), []registry.Repository{s.repository("new/app")}, o); !errors.Is(d.Err(), want) {
			t.Errorf("%s: %v", user, d.Err())
		}
	}
}

// A robot that has expired, one that is disabled and a wrong secret look alike.
func TestExpiredRobot(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	name, secret := s.expired("old")
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("team/app")}, s.options(name, secret))
	if c := find(t, &d.Report, preflight.Login); c.Level != preflight.Error || !strings.Contains(c.Advice, "expired") || !errors.Is(d.Err(), harbor.ErrUnauthorized) {
		t.Errorf("%+v", c)
	}
}

// The lock after somebody's wrong password does not become an error. NOTES 2.
func TestLockedUser(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	wrong, err := harbor.New("https://"+s.host, harbor.Options{HTTP: s.http, Username: harbortest.AdminName, Password: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.ProjectExists(t.Context(), "team"); !errors.Is(err, harbor.ErrUnauthorized) {
		t.Fatal(err)
	}
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("team/app")}, s.admin())
	if d.Err() != nil {
		t.Errorf("while the user is locked: %v", d.Err())
	}
}

// NOTES 23.
func TestReadOnly(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"read_only": true})
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("team/app")}, s.admin())
	if got := summary(&d.Report); got != "read-only:error" || !errors.Is(d.Err(), harbor.ErrReadOnly) {
		t.Errorf("%q, %v", got, d.Err())
	}
	s.untouched()
}

// What is not there, speaks another protocol or has a wrong certificate.
func TestReach(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	o := s.admin()
	o.Host = "127.0.0.1:1"
	if d := preflight.Look(t.Context(), nil, o); summary(&d.Report) != "reach:error" || !errors.Is(d.Err(), registry.ErrUnavailable) {
		t.Errorf("nobody there: %q, %v", summary(&d.Report), d.Err())
	}
	o = s.admin()
	o.Registry = registry.New(registry.Options{})
	d := preflight.Look(t.Context(), nil, o)
	if c := find(t, &d.Report, preflight.TLS); c.Level != preflight.Error || !strings.Contains(c.Found, "unknown authority") || !strings.Contains(c.Found, "ingerprint") {
		t.Errorf("an unknown authority: %+v", c)
	}
	o = s.admin()
	o.Unchecked = true
	if d := preflight.Look(t.Context(), nil, o); summary(&d.Report) != "tls:warning" {
		t.Errorf("insecure: %q", summary(&d.Report))
	}
}

// Of a registry that is no Harbor little can be asked.
func TestPlainRegistry(t *testing.T) {
	web := registrytest.Memory(t, registrytest.Options{})
	s := newSite(t, harbortest.Options{})
	o := s.admin()
	o.Host = web.Host
	d := preflight.Look(t.Context(), []registry.Repository{{Host: web.Host, Path: "a/b"}, {Host: web.Host, Path: "a/c"}}, o)
	if d.Err() != nil || !strings.Contains(find(t, &d.Report, preflight.Version).Found, "not a Harbor") {
		t.Errorf("%v, %+v", d.Err(), d.Checks)
	}
	src := content{}
	deliveries := []transfer.Delivery{{Item: transfer.Item{Root: src.image("x"), Tags: []string{"1"}}, Repository: registry.Repository{Host: web.Host, Path: "a/b"}}}
	if d, _ := s.look(src, deliveries, o); d.Err() != nil || len(d.MissingProjects()) > 0 {
		t.Errorf("%v, %v", d.Err(), d.MissingProjects())
	}
	if writes := web.Writes(); len(writes) > 0 {
		t.Errorf("it wrote %v", writes)
	}
}

// Projects are created as asked, by whoever is first. NOTES 8.
func TestCreateProject(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddUser("dev", "Devpass123")
	o := s.admin()
	o.CreateProjects = true
	o.Project = harbor.CreateOptions{Public: true, StorageLimit: 12345}
	var mu sync.Mutex
	existed := 0
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			d := preflight.Look(t.Context(), []registry.Repository{s.repository("new/app")}, o)
			for _, name := range d.MissingProjects() {
				made, err := d.CreateProject(t.Context(), name)
				if err != nil || made.QuotaRefused {
					t.Errorf("%+v, %v", made, err)
				}
				mu.Lock()
				if made.Existed {
					existed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	admin, _ := o.Harbor(t.Context(), "https://"+s.host, s.repository("new/app"))
	p, err := admin.Project(t.Context(), "new")
	if err != nil || !p.Public {
		t.Errorf("%+v, %v", p, err)
	}
	if q, err := admin.Quota(t.Context(), "new"); err != nil || q.Limit != 12345 {
		t.Errorf("%+v, %v", q, err)
	}
	// Harbor ignores the quota of who is no administrator.
	o = s.options("dev", "Devpass123")
	o.CreateProjects, o.Project = true, harbor.CreateOptions{StorageLimit: 777}
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("own/app")}, o)
	if summary(&d.Report) != "project:warning" {
		t.Errorf("not told: %q", summary(&d.Report))
	}
	if made, err := d.CreateProject(t.Context(), "own"); err != nil || !made.QuotaRefused {
		t.Errorf("%+v, %v", made, err)
	}
}

// The quota of a project that is still to be created counts, too.
func TestQuotaOfNewProject(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	src := content{}
	o := s.admin()
	o.CreateProjects, o.Project.StorageLimit = true, 10
	d, _ := s.look(src, []transfer.Delivery{s.delivery(src.image("0123456789"), "new/app", "1")}, o)
	if !errors.Is(d.Err(), harbor.ErrQuota) {
		t.Errorf("%v", d.Err())
	}
	s.untouched()
}

// The default quota of new projects counts for who gives none.
func TestDefaultQuota(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddUser("dev", "Devpass123")
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"storage_per_project": 10})
	src := content{}
	for user, want := range map[string]string{harbortest.AdminName: "quota:error", "dev": "quota:warning"} {
		o := s.options(user, map[string]string{harbortest.AdminName: harbortest.AdminPassword, "dev": "Devpass123"}[user])
		o.CreateProjects = true
		d, _ := s.look(src, []transfer.Delivery{s.delivery(src.image("0123456789"), "new/app", "1")}, o)
		if got := summary(&d.Report); got != want {
			t.Errorf("%s: %q, want %q", user, got, want)
		}
	}
}

// A login that is a token is of no use to Harbor's API; pushes are still made.
func TestTokenLogin(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	o := s.admin()
	o.Harbor = func(_ context.Context, base string, _ registry.Repository) (*harbor.Client, error) {
		h, err := harbor.New(base, harbor.Options{HTTP: s.http})
		return h, errors.Join(err, preflight.ErrToken)
	}
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("team/app")}, o)
	if got := summary(&d.Report); got != "login:warning" || find(t, &d.Report, preflight.Rights).Level != preflight.OK {
		t.Errorf("%q", got)
	}
}

// A server that answers as no Harbor does at this moment may be none.
func TestPingUnavailable(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	s.AddProject("team", false, -1)
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			http.Error(w, "no backend", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("team/app")}, s.admin())
	if got := summary(&d.Report); got != "version:warning" || find(t, &d.Report, preflight.Rights).Level != preflight.OK {
		t.Errorf("%q, %v", got, d.Err())
	}
}

func TestFailedError(t *testing.T) {
	s := newSite(t, harbortest.Options{})
	d := preflight.Look(t.Context(), []registry.Repository{s.repository("a/x"), s.repository("b/x")}, s.admin())
	var failed *preflight.FailedError
	if err := d.Err(); !errors.As(err, &failed) || len(failed.Checks) != 2 || err.Error() != "project of a: there is no such project (and 1 more)" {
		t.Errorf("%v", err)
	}
}
