package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// behaviour is something that a Harbor was recorded to do and that nobody
// expects: naive shows that it leads simple clients astray, ferry that it does
// not lead ferry astray.
type behaviour struct {
	name      string
	recording string // a file in internal/harbortest/testdata/recordings
	note      int    // in shared/harbor/NOTES.md
	options   harbortest.Options
	naive     func(s *trial)
	ferry     func(s *trial)
}

// Each recorded behaviour is a trap, and ferry is not caught in it. Nothing of
// this is known without a Harbor: a plain registry does none of it.
func TestHarborBehaviours(t *testing.T) {
	g := newGoods(t)
	all := slices.Concat(loginBehaviours, projectBehaviours, listBehaviours, pushBehaviours)
	if len(all) < 22 {
		t.Errorf("only %d behaviours", len(all))
	}
	seen := map[string]bool{}
	for _, b := range all {
		if seen[b.name] {
			t.Errorf("%s: a second one", b.name)
		}
		seen[b.name] = true
		t.Run(b.name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(registrytest.Root(t), "internal/harbortest/testdata/recordings", b.recording+".json")); err != nil {
				t.Error(err)
			}
			s := newTrial(t, g, b.options)
			b.naive(s)
			if t.Failed() {
				t.Fatal("without the trap the rest would prove nothing")
			}
			s.ResetLog()
			b.ferry(s)
		})
	}
}

func trialClient(t *testing.T, caFile string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

// largest returns the largest blob of a sample.
func largest(sample *registrytest.Sample) registrytest.Content {
	return slices.MaxFunc(sample.Blobs, func(a, b registrytest.Content) int { return int(a.Size - b.Size) })
}

// root returns the manifest of a sample.
func root(sample *registrytest.Sample) string {
	content, _ := sample.Manifest(sample.Root.Digest)
	return string(content)
}

// putManifest puts a manifest under a tag.
func (s *trial) putManifest(repository, tag, content string) reply {
	return s.ask(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, asRobot, content, "Content-Type", oci.MediaTypeManifest)
}

func (s *trial) importing(code int, bundle, dest string, flags ...string) (stdout, stderr string) {
	s.t.Helper()
	return s.ferry(code, append([]string{"import", bundle, s.host + dest, "--key", s.key}, flags...)...)
}

var loginBehaviours = []behaviour{
	{
		name: "a wrong password locks the user for a while", recording: "18-login-lock", note: 2,
		naive: func(s *trial) {
			s.AddUser("alice", "Right-passw0rd")
			s.SetRole(s.t, "team", "alice", harbortest.RoleDeveloper)
			s.expect(s.ask(http.MethodGet, "/v2/", "alice:wrong", ""), http.StatusUnauthorized)
			s.expect(s.ask(http.MethodGet, "/v2/", "alice:Right-passw0rd", ""), http.StatusUnauthorized)
		},
		ferry: func(s *trial) {
			s.login("alice", "Right-passw0rd")
			for _, args := range [][]string{
				{"push", s.layout, s.host + "/team/app:v1", "--allow-unsigned"},
				{"tags", s.host + "/team/app"},
			} {
				// Somebody else gives a wrong password whenever ferry is about
				// to log in first.
				var locked atomic.Bool
				s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					if user, _, _ := r.BasicAuth(); user == "alice" && locked.CompareAndSwap(false, true) {
						r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
						r.SetBasicAuth("alice", "wrong")
						next.ServeHTTP(httptest.NewRecorder(), r)
					}
					next.ServeHTTP(w, r)
				})
				s.ferry(0, args...)
				if !locked.Load() {
					s.t.Error("alice was never locked")
				}
			}
		},
	},
	{
		name: "a wrong password reads what is public", recording: "16-latest-and-media-types", note: 1,
		naive: func(s *trial) {
			s.PushImage(s.t, "library/app", "content", "v1")
			list := s.ask(http.MethodGet, "/api/v2.0/projects/library/repositories/app/artifacts?with_tag=true", "robot$team+ci:wrong", "")
			s.expect(list, http.StatusOK, `"v1"`)
		},
		ferry: func(s *trial) {
			s.login(trialRobot, "Wr0ng-c4n4ry")
			_, stderr := s.importing(exitDenied, s.one, "/library")
			s.says(stderr, "login of "+s.host, "the robot's secret is wrong")
			s.untouched()
		},
	},
	{
		name: "a token without any right", recording: "03-token-flow", note: 1,
		naive: func(s *trial) {
			for _, login := range []string{asNobody, "admin:wrong"} {
				r := s.ask(http.MethodGet, "/service/token?service=harbor-registry&scope=repository:team/app:pull,push", login, "")
				s.expect(r, http.StatusOK, `"token"`)
			}
			s.AddRobot("robot$team+reader", trialSecret, "team", "repository:pull", "project:read")
			r := s.ask(http.MethodGet, "/service/token?service=harbor-registry&scope=repository:team/app:pull,push", "robot$team+reader:"+trialSecret, "")
			s.expect(r, http.StatusOK, `"token"`)
		},
		ferry: func(s *trial) {
			s.login("robot$team+reader", trialSecret)
			_, stderr := s.importing(exitDenied, s.one, "")
			s.says(stderr, "rights of team: pull, but not push", "hint: ")
			s.untouched()
			s.AddRobot("robot$none", trialSecret, "other", "repository:pull", "repository:push", "project:read")
			s.login("robot$none", trialSecret)
			_, stderr = s.importing(exitDenied, s.one, "")
			s.says(stderr, "neither pull nor push")
			s.untouched()
		},
	},
	{
		name: "robots are refused by users/current", recording: "10-robots-users-rbac", note: 1,
		naive: func(s *trial) {
			s.expect(s.ask(http.MethodGet, "/api/v2.0/users/current", asRobot, ""), http.StatusPreconditionFailed)
		},
		ferry: func(s *trial) {
			stdout, _ := s.ferry(0, "doctor", s.host+"/team/app", "--format", "json")
			s.finds(stdout, map[string]string{"login": `ok: accepted, of robot "robot$team+ci"`, "rights": "ok: pull and push"})
		},
	},
	{
		name: "who sends a cookie back needs a CSRF token", recording: "13-readonly-csrf-concurrency", note: 4,
		naive: func(s *trial) {
			cookie := s.ask(http.MethodGet, "/api/v2.0/projects", asRobot, "").header.Get("Set-Cookie")
			cookie, _, _ = strings.Cut(cookie, ";")
			r := s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/", asRobot, "", "Cookie", cookie)
			s.expect(r, http.StatusForbidden, "CSRF token not found in request")
		},
		ferry: func(s *trial) {
			var given, sent atomic.Int64
			s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				sent.Add(int64(len(r.Cookies())))
				next.ServeHTTP(w, r)
				given.Add(int64(len(w.Header().Values("Set-Cookie"))))
			})
			s.importing(0, s.one, "")
			if given.Load() == 0 || sent.Load() != 0 {
				s.t.Errorf("%d cookies were set, %d came back", given.Load(), sent.Load())
			}
		},
	},
	{
		name: "the token service is named with another scheme", recording: "03-token-flow", note: 6,
		options: harbortest.Options{ExternalURL: "http://harbor.site.local"},
		naive: func(s *trial) {
			challenge := s.ask(http.MethodGet, "/v2/", asNobody, "").header.Get("Www-Authenticate")
			realm := regexp.MustCompile(`realm="(http://[^"]+)"`).FindStringSubmatch(challenge)
			if realm == nil {
				s.t.Fatalf("the challenge is %q", challenge)
			}
			s.expect(s.ask(http.MethodGet, realm[1]+"?service=harbor-registry", asRobot, ""), http.StatusBadRequest)
		},
		ferry: func(s *trial) {
			s.importing(0, s.one, "")
			if s.count(http.MethodGet, "/service/token", http.StatusOK) == 0 {
				s.t.Error("no token was fetched over https")
			}
		},
	},
	{
		name: "an upload goes on at an address with another scheme", recording: "15-direct-core-encoding", note: 6,
		naive: func(s *trial) {
			s.Misbehave(forwardedProto("http"))
			location := s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/", asRobot, "").header.Get("Location")
			if !strings.HasPrefix(location, "http://"+s.host+"/") { // where the token would go in the clear
				s.t.Errorf("the trap is not there: %s", location)
			}
		},
		ferry: func(s *trial) {
			s.importing(0, s.one, "")
			s.arrived(s.single, "team/single")
		},
	},
	{
		name: "the token service takes no POST", recording: "03-token-flow", note: 6,
		naive: func(s *trial) {
			form := "grant_type=password&service=harbor-registry&client_id=x&username=" + url.QueryEscape(trialRobot) + "&password=" + trialSecret
			r := s.ask(http.MethodPost, "/service/token", asNobody, form, "Content-Type", "application/x-www-form-urlencoded")
			s.expect(r, http.StatusMethodNotAllowed)
		},
		ferry: func(s *trial) {
			s.ferry(0, "push", s.layout, s.host+"/team/app:v1", "--allow-unsigned")
			if s.count(http.MethodPost, "/service/token", 0) != 0 || s.count(http.MethodGet, "/service/token", http.StatusOK) == 0 {
				s.t.Error("tokens were not fetched with GET alone")
			}
		},
	},
	{
		name: "nobody is told the version", recording: "01-system", note: 19,
		naive: func(s *trial) {
			for _, login := range []string{asNobody, "admin:wrong"} {
				r := s.ask(http.MethodGet, "/api/v2.0/systeminfo", login, "")
				s.expect(r, http.StatusOK, "auth_mode")
				if strings.Contains(r.body, "harbor_version") {
					s.t.Errorf("the trap is not there: %s", r.body)
				}
			}
		},
		ferry: func(s *trial) {
			stdout, _ := s.ferry(0, "doctor", s.host+"/team/app", "--format", "json")
			s.finds(stdout, map[string]string{"version": "ok: Harbor v2.16.0"})
			s.env = nil
			stdout, _ = s.ferry(exitDenied, "doctor", s.host+"/team/app", "--format", "json")
			s.finds(stdout, map[string]string{"version": "ok: Harbor, which tells its version to nobody", "login": "error: there is none for this host"})
		},
	},
}

// forwardedProto is a proxy before Harbor that says how requests came in.
func forwardedProto(scheme string) harbortest.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Set("X-Forwarded-Proto", scheme)
		next.ServeHTTP(w, r)
	}
}

var projectBehaviours = []behaviour{
	{
		name: "a missing project is a 401 with an empty challenge", recording: "04-push", note: 5,
		naive: func(s *trial) {
			r := s.ask(http.MethodHead, "/v2/nosuch/app/manifests/v1", asRobot, "")
			s.expect(r, http.StatusUnauthorized)
			if values, ok := r.header["Www-Authenticate"]; !ok || values[0] != "" || r.body != "" {
				s.t.Errorf("the trap is not there: challenge %q, body %q", values, r.body)
			}
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(exitDenied, s.one, "/nosuch")
			s.says(stderr, "project of nosuch: there is no such project", "hint: --create-projects")
			s.untouched()
			_, stderr = s.ferry(exitDenied, "push", s.layout, s.host+"/nosuch/app:v1", "--allow-unsigned")
			s.says(stderr, "there is no such project")
			s.untouched()
		},
	},
	{
		name: "a missing project and one of others look alike", recording: "10-robots-users-rbac", note: 7,
		naive: func(s *trial) {
			s.AddProject("other", false, -1)
			missing := s.ask(http.MethodGet, "/api/v2.0/projects/nosuch", asRobot, "")
			others := s.ask(http.MethodGet, "/api/v2.0/projects/other", asRobot, "")
			s.expect(missing, http.StatusForbidden)
			s.expect(others, http.StatusForbidden)
		},
		ferry: func(s *trial) {
			stdout, _ := s.ferry(exitDenied, "doctor", s.host+"/nosuch/app", "--format", "json")
			s.finds(stdout, map[string]string{"project": "error: there is no such project"})
			stdout, _ = s.ferry(exitDenied, "doctor", s.host+"/other/app", "--format", "json")
			s.finds(stdout, map[string]string{"project": "warning: exists", "rights": "error: "})
		},
	},
	{
		name: "a project of digits is read as an id", recording: "02-projects", note: 9,
		naive: func(s *trial) {
			s.AddProject("1", false, -1) // whose id is 3, or so: 1 is library's
			s.expect(s.ask(http.MethodGet, "/api/v2.0/projects/1", asAdmin, ""), http.StatusOK, `"name":"library"`)
			s.expect(s.ask(http.MethodHead, "/api/v2.0/projects?project_name=2", asAdmin, ""), http.StatusNotFound)
			s.expect(s.ask(http.MethodGet, "/api/v2.0/projects/2", asAdmin, ""), http.StatusOK, `"name":"team"`)
		},
		ferry: func(s *trial) {
			s.admin()
			stdout, _ := s.ferry(0, "doctor", s.host+"/1/app", "--format", "json")
			s.finds(stdout, map[string]string{"project": "ok: exists, private"})
			s.importing(0, s.one, "/1")
			if stdout, _ := s.ferry(0, "latest", s.host+"/1/team/single"); strings.TrimSpace(stdout) != "latest" && strings.TrimSpace(stdout) != "1.0.0" {
				s.t.Errorf("latest is %q", stdout)
			}
			_, stderr := s.importing(0, s.one, "/2", "--create-projects", "--project-quota", "1GB")
			s.says(stderr, "created project 2")
			s.arrived(s.single, "2/team/single")
			if r := s.ask(http.MethodGet, "/api/v2.0/projects/2", asAdmin, "", "X-Is-Resource-Name", "true"); !strings.Contains(r.body, `"name":"2"`) {
				s.t.Errorf("there is no project 2: %s", r.body)
			}
			s.AddProject("7", false, 10)
			_, stderr = s.importing(exitNoSpace, s.one, "/7")
			s.says(stderr, "quota of 7: ")
		},
	},
	{
		name: "a project can be created meanwhile", recording: "13-readonly-csrf-concurrency", note: 8,
		naive: func(s *trial) {
			const doc = `{"project_name":"made"}`
			s.expect(s.ask(http.MethodPost, "/api/v2.0/projects", asAdmin, doc, "Content-Type", "application/json"), http.StatusCreated)
			s.expect(s.ask(http.MethodPost, "/api/v2.0/projects", asAdmin, doc, "Content-Type", "application/json"), http.StatusConflict)
		},
		ferry: func(s *trial) {
			s.admin()
			s.Misbehave(harbortest.Before(http.MethodPost, "/api/v2.0/projects", func(*url.URL) { s.AddProject("fresh", false, -1) }))
			_, stderr := s.importing(0, s.one, "/fresh", "--create-projects")
			if s.count(http.MethodPost, "/api/v2.0/projects", http.StatusConflict) != 1 {
				s.t.Error("nobody was faster")
			}
			s.says(stderr, "by somebody else")
			s.arrived(s.single, "fresh/team/single")
		},
	},
	{
		name: "a project's robot creates no projects", recording: "10-robots-users-rbac", note: 10,
		naive: func(s *trial) {
			r := s.ask(http.MethodPost, "/api/v2.0/projects", asRobot, `{"project_name":"made"}`, "Content-Type", "application/json")
			s.expect(r, http.StatusForbidden, "Only system level robot can create project")
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(exitDenied, s.one, "/fresh", "--create-projects")
			s.says(stderr, "project of fresh: ", "system robot with the right project:create")
			s.untouched()
		},
	},
	{
		name: "read-only mode", recording: "13-readonly-csrf-concurrency", note: 23,
		naive: func(s *trial) {
			s.Admin(s.t, http.MethodPut, "/api/v2.0/configurations", map[string]bool{"read_only": true}).Body.Close()
			s.expect(s.ask(http.MethodGet, "/v2/", asRobot, ""), http.StatusOK)
			s.expect(s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/", asRobot, ""), http.StatusForbidden, "DENIED")
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(exitDenied, s.one, "")
			s.says(stderr, "read-only of "+s.host, "nobody can push", "hint: wait until the administrator ends the read-only mode")
			s.untouched()
		},
	},
	{
		name: "a proxy cache takes no pushes", recording: "16-latest-and-media-types", note: 23,
		naive: func(s *trial) {
			s.AddProxyCache("hub")
			s.expect(s.ask(http.MethodHead, "/api/v2.0/projects?project_name=hub", asAdmin, ""), http.StatusOK)
			r := s.ask(http.MethodPost, "/v2/hub/app/blobs/uploads/", asAdmin, "")
			s.expect(r, http.StatusForbidden, "DENIED", "proxy project")
		},
		ferry: func(s *trial) {
			s.admin()
			_, stderr := s.importing(exitDenied, s.one, "/hub")
			s.says(stderr, "project of hub: a proxy cache takes no pushes", "hint: choose another project")
			s.untouched()
		},
	},
}

// artifactsOfApp is where the API lists the artifacts of team/app.
const artifactsOfApp = "/api/v2.0/projects/team/repositories/app/artifacts?with_tag=true"

// latestIs reports when ferry has another latest tag of a repository.
func (s *trial) latestIs(repository, want string) {
	s.t.Helper()
	if stdout, stderr := s.ferry(0, "latest", s.host+"/"+repository); stdout != want+"\n" {
		s.t.Errorf("the latest of %s is %q, want %q\n%s", repository, stdout, want, stderr)
	}
}

// pushMany pushes n images to team/app, v1 and so on, a second apart, and
// then moves the tag stable to the image of v1.
func (s *trial) pushMany(n int) {
	s.t.Helper()
	at := time.Date(2026, 11, 21, 2, 40, 0, 0, time.UTC)
	push := func(i int, tag string) {
		at = at.Add(time.Second)
		s.SetClock(func() time.Time { return at })
		s.PushImage(s.t, "team/app", fmt.Sprint("content ", i), tag)
	}
	for i := range n {
		push(i+1, fmt.Sprint("v", i+1))
	}
	push(1, "stable")
}

var listBehaviours = []behaviour{
	{
		name: "slashes in a repository's name are escaped twice", recording: "15-direct-core-encoding", note: 11,
		naive: func(s *trial) {
			s.PushImage(s.t, "team/app/backend/api", "content", "v1")
			for _, name := range []string{"app/backend/api", "app%2Fbackend%2Fapi"} {
				s.expect(s.ask(http.MethodGet, "/api/v2.0/projects/team/repositories/"+name+"/artifacts", asRobot, ""), http.StatusNotFound)
			}
		},
		ferry: func(s *trial) {
			s.latestIs("team/app/backend/api", "v1")
			if stdout, _ := s.ferry(0, "tags", s.host+"/team/app/backend/api"); !strings.HasPrefix(stdout, "v1 ") {
				s.t.Errorf("tags: %q", stdout)
			}
			if s.count(http.MethodGet, "app%252Fbackend%252Fapi", http.StatusOK) == 0 {
				s.t.Error("the API was not asked")
			}
		},
	},
	{
		name: "a page has a hundred at most", recording: "02-projects", note: 17,
		naive: func(s *trial) {
			s.pushMany(203)
			s.expect(s.ask(http.MethodGet, artifactsOfApp+"&page_size=101", asRobot, ""), http.StatusUnprocessableEntity)
		},
		ferry: func(s *trial) {
			s.latestIs("team/app", "stable")
			stdout, _ := s.ferry(0, "tags", s.host+"/team/app")
			if lines := strings.Count(stdout, "\n"); lines != 204 {
				s.t.Errorf("%d tags, want 204", lines)
			}
			if s.count(http.MethodGet, "/artifacts", http.StatusUnprocessableEntity) != 0 {
				s.t.Error("too large a page was asked for")
			}
		},
	},
	{
		name: "a page has ten unless asked", recording: "17-link-following", note: 17,
		naive: func(s *trial) {
			s.pushMany(25)
			list := s.ask(http.MethodGet, artifactsOfApp, asRobot, "")
			if tags := s.tagsIn(list); list.header.Get("X-Total-Count") != "25" || len(tags) != 10 || slices.Contains(tags, "stable") {
				s.t.Errorf("the trap is not there: %q of %s", tags, list.header.Get("X-Total-Count"))
			}
		},
		ferry: func(s *trial) { s.latestIs("team/app", "stable") },
	},
	{
		name: "the link to the next page has lost its escaping", recording: "17-link-following", note: 17,
		naive: func(s *trial) {
			s.pushMany(150)
			first := s.ask(http.MethodGet, artifactsOfApp+"&page_size=1&q=media_type%3Dapplication/vnd.oci.image.config.v1%252Bjson", asRobot, "")
			next := regexp.MustCompile(`<([^>]+)>; rel="next"`).FindStringSubmatch(first.header.Get("Link"))
			if next == nil || first.header.Get("X-Total-Count") != "150" {
				s.t.Fatalf("the trap is not there: %q", first.header)
			}
			if second := s.ask(http.MethodGet, next[1], asRobot, ""); second.status != http.StatusOK || second.header.Get("X-Total-Count") != "0" {
				s.t.Errorf("the trap is not there: %s leads to %d %s", next[1], second.status, second.body)
			}
		},
		ferry: func(s *trial) {
			// Who follows links gets to a page that is always empty.
			s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Query().Has("followed") {
					w.Write([]byte("[]"))
					return
				}
				next.ServeHTTP(&linkWriter{w}, r)
			})
			s.latestIs("team/app", "stable")
		},
	},
	{
		name: "sorting goes by when the digest first came", recording: "08-tags-copy-delete", note: 12,
		naive: func(s *trial) {
			s.pushMany(3)
			list := s.ask(http.MethodGet, artifactsOfApp+"&sort=-push_time&page_size=1", asRobot, "")
			if tags := s.tagsIn(list); !slices.Equal(tags, []string{"v3"}) {
				s.t.Errorf("the trap is not there: %q", tags)
			}
			list = s.ask(http.MethodGet, artifactsOfApp+"&sort=-tags.push_time&page_size=1", asRobot, "")
			if tags := s.tagsIn(list); list.status != http.StatusOK || slices.Contains(tags, "stable") {
				s.t.Errorf("the trap is not there: unknown keys sort: %d %q", list.status, tags)
			}
		},
		ferry: func(s *trial) { s.latestIs("team/app", "stable") },
	},
	{
		name: "an attestation is the newest artifact", recording: "07-accessories", note: 16,
		naive: func(s *trial) {
			s.pushMany(2)
			s.SetClock(func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC) })
			s.PushImage(s.t, "team/app", "attestation", "sha256-"+strings.Repeat("ab", 32)+".att")
			list := s.ask(http.MethodGet, artifactsOfApp+"&sort=-push_time&page_size=1", asRobot, "")
			if tags := s.tagsIn(list); len(tags) != 1 || !strings.HasSuffix(tags[0], ".att") {
				s.t.Errorf("the trap is not there: %q", tags)
			}
		},
		ferry: func(s *trial) {
			s.latestIs("team/app", "stable")
			if stdout, _ := s.ferry(0, "tags", s.host+"/team/app"); strings.Contains(stdout, ".att") {
				s.t.Errorf("tags: %s", stdout)
			}
		},
	},
	{
		name: "a missing repository has an empty list", recording: "06-repositories", note: 18,
		naive: func(s *trial) {
			s.expect(s.ask(http.MethodGet, "/api/v2.0/projects/team/repositories/nosuch/artifacts", asRobot, ""), http.StatusOK, "[]")
		},
		ferry: func(s *trial) {
			_, stderr := s.ferry(exitError, "latest", s.host+"/team/nosuch")
			s.says(stderr, "team/nosuch", "not found")
			s.ferry(exitError, "tags", s.host+"/team/nosuch")
		},
	},
}

// linkWriter makes the links to other pages lead astray.
type linkWriter struct{ http.ResponseWriter }

func (w *linkWriter) WriteHeader(status int) {
	if link := w.Header().Get("Link"); link != "" {
		w.Header().Set("Link", strings.ReplaceAll(link, "page=", "followed=1&page="))
	}
	w.ResponseWriter.WriteHeader(status)
}

// quotaNeeded is how a preflight tells it.
var quotaNeeded = regexp.MustCompile(`quota of \w+: (\d+) bytes will be added`)

var pushBehaviours = []behaviour{
	{
		name: "a manifest is hidden from who does not ask for its type", recording: "16-latest-and-media-types", note: 20,
		naive: func(s *trial) {
			s.importing(0, s.one, "")
			for _, accept := range []string{"*/*", "application/vnd.docker.distribution.manifest.v2+json", "application/json"} {
				s.expect(s.ask(http.MethodHead, "/v2/team/single/manifests/latest", asRobot, "", "Accept", accept), http.StatusNotFound)
			}
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(0, s.one, "")
			s.says(stderr, "nothing to do: all 1 images are there")
			s.untouched()
		},
	},
	{
		name: "an immutable tag refuses the content that it has", recording: "12-immutable-retention", note: 21,
		naive: func(s *trial) {
			s.importing(0, s.one, "")
			s.AddImmutableRule(s.t, "team", "**")
			r := s.putManifest("team/single", "latest", root(s.single))
			s.expect(r, http.StatusPreconditionFailed, "immutable")
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(0, s.one, "")
			s.says(stderr, "nothing to do")
			s.untouched()
			// a new tag beside it is written, and that one alone
			s.ferry(0, "push", s.layout, s.host+"/team/single:v9", "--allow-unsigned")
			s.ferry(0, "push", s.layout, s.host+"/team/single:v9", "--allow-unsigned")
			if n := s.count(http.MethodPut, "/manifests/", 0); n != 1 {
				s.t.Errorf("%d manifests were put", n)
			}
			s.arrived(s.single, "team/single")
		},
	},
	{
		name: "an immutable tag is refused after all was sent", recording: "12-immutable-retention", note: 21,
		naive: func(s *trial) {
			s.PushImage(s.t, "team/single", "other", "1.0.0")
			s.PushImage(s.t, "team/team/single", "other", "1.0.0")
			s.AddImmutableRule(s.t, "team", "1.*")
			for _, blob := range s.single.Blobs {
				s.expect(s.upload("team/single", blob.Bytes, asRobot), http.StatusCreated)
			}
			s.expect(s.putManifest("team/single", "1.0.0", root(s.single)), http.StatusPreconditionFailed, "PRECONDITION")
		},
		ferry: func(s *trial) {
			for _, dest := range []string{"", "/team"} {
				_, stderr := s.importing(exitConflict, s.one, dest)
				s.says(stderr, "immutable of team/", "single:1.0.0: it is immutable", "hint: ", "nothing was written")
				s.untouched()
			}
			s.importing(0, s.one, "", "--map", "team/single=team/elsewhere")
			s.arrived(s.single, "team/elsewhere")
		},
	},
	{
		name: "a quota is looked at when the last byte is there", recording: "11-quota", note: 22,
		naive: func(s *trial) {
			s.AddProject("small", false, 10)
			s.AddRobot(trialRobot, trialSecret, "*", robotRights...)
			blob := largest(s.single)
			started := s.ask(http.MethodPost, "/v2/small/app/blobs/uploads/", asRobot, "")
			s.expect(started, http.StatusAccepted)
			sent := s.ask(http.MethodPatch, started.header.Get("Location"), asRobot, string(blob.Bytes))
			s.expect(sent, http.StatusAccepted) // all of it
			r := s.ask(http.MethodPut, sent.header.Get("Location")+"&digest="+blob.Digest.String(), asRobot, "")
			s.expect(r, http.StatusForbidden, "exceed the configured upper limit")
		},
		ferry: func(s *trial) {
			_, stderr := s.importing(exitNoSpace, s.both, "/small")
			s.untouched()
			needed := quotaNeeded.FindStringSubmatch(stderr)
			if needed == nil {
				s.t.Fatalf("how much is needed is not said\n%s", stderr)
			}
			var need int64
			fmt.Sscan(needed[1], &need)
			s.AddProject("short", false, need-1)
			_, stderr = s.importing(exitNoSpace, s.both, "/short")
			s.says(stderr, ": 1 too few", "hint: have the quota raised", "nothing was written")
			s.untouched()
			s.AddProject("exact", false, need)
			s.importing(0, s.both, "/exact")
			s.arrived(s.single, "exact/team/single")
			s.arrived(s.shares, "exact/team/sharing")
		},
	},
	{
		name: "what is there may be tagged over the quota", recording: "11-quota", note: 22,
		naive: func(s *trial) {
			s.importing(0, s.one, "")
			s.setQuota("team", 1)
			s.expect(s.upload("team/single", []byte("anything else"), asRobot), http.StatusForbidden, "DENIED")
			s.expect(s.putManifest("team/single", "again", root(s.single)), http.StatusCreated)
		},
		ferry: func(s *trial) {
			s.ferry(0, "push", s.layout, s.host+"/team/single:more", "--allow-unsigned")
			_, stderr := s.importing(exitNoSpace, s.both, "")
			s.says(stderr, "quota of team: ")
		},
	},
	{
		name: "a mount from a missing project is a 401", recording: "04-push", note: 24,
		naive: func(s *trial) {
			r := s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/?from=gone/app&mount="+s.single.Blobs[0].Digest.String(), asRobot, "")
			s.expect(r, http.StatusUnauthorized)
		},
		ferry: func(s *trial) { s.mountsOther("from", "gone/app", http.StatusUnauthorized) },
	},
	{
		name: "a mount that can not be done begins an upload", recording: "04-push", note: 24,
		naive: func(s *trial) {
			s.PushImage(s.t, "team/from", "content", "v1")
			for _, from := range []string{"team/from", "team/nosuch"} {
				r := s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/?from="+from+"&mount="+s.single.Blobs[0].Digest.String(), asRobot, "")
				s.expect(r, http.StatusAccepted)
			}
			s.expect(s.ask(http.MethodHead, "/v2/team/app/blobs/"+s.single.Blobs[0].Digest.String(), asRobot, ""), http.StatusNotFound)
		},
		ferry: func(s *trial) { s.mountsOther("mount", verify.DigestOf(nil).String(), http.StatusAccepted) },
	},
	{
		name: "an upload in a single POST is not done", recording: "04-push", note: 24,
		naive: func(s *trial) {
			blob := s.single.Blobs[0]
			r := s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/?digest="+blob.Digest.String(), asRobot, string(blob.Bytes))
			s.expect(r, http.StatusAccepted)
			s.expect(s.ask(http.MethodHead, "/v2/team/app/blobs/"+blob.Digest.String(), asRobot, ""), http.StatusNotFound)
		},
		ferry: func(s *trial) {
			s.importing(0, s.both, "")
			s.arrived(s.single, "team/single")
			s.arrived(s.shares, "team/sharing")
		},
	},
	{
		name: "a 500 means nothing the first time", recording: "08-tags-copy-delete", note: 26,
		naive: func(s *trial) {
			s.Misbehave(harbortest.FailOnce(http.MethodPost, "/v2/"))
			s.expect(s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/", asRobot, ""), http.StatusInternalServerError)
			s.expect(s.ask(http.MethodPost, "/v2/team/app/blobs/uploads/", asRobot, ""), http.StatusAccepted)
		},
		ferry: func(s *trial) {
			faults := []harbortest.Fault{harbortest.FailOnce(http.MethodGet, "/service/token"), harbortest.FailOnce(http.MethodHead, "/api/v2.0/projects"),
				harbortest.FailOnce(http.MethodPost, "/blobs/uploads/"), harbortest.FailOnce(http.MethodPatch, "/blobs/uploads/"),
				harbortest.FailOnce(http.MethodPut, "/blobs/uploads/"), harbortest.FailOnce(http.MethodPut, "/manifests/")}
			s.Misbehave(faults...)
			s.importing(0, s.one, "")
			s.arrived(s.single, "team/single")
			if n := s.count("", "", http.StatusInternalServerError); n < 5 {
				s.t.Errorf("only %d requests failed", n)
			}
		},
	},
	{
		name: "a repository name over 255 is a 500", recording: "04-push", note: 24,
		naive: func(s *trial) {
			r := s.ask(http.MethodPost, "/v2/team/"+strings.Repeat("a", 251)+"/blobs/uploads/", asRobot, "")
			s.expect(r, http.StatusInternalServerError)
		},
		ferry: func(s *trial) {
			s.ferry(0, "push", s.layout, s.host+"/team/"+strings.Repeat("a", 250)+":v1", "--allow-unsigned")
			s.arrived(&registrytest.Sample{Tags: map[string]verify.Digest{"v1": s.single.Root.Digest}}, "team/"+strings.Repeat("a", 250))
			s.ResetLog()
			s.ferry(exitUsage, "push", s.layout, s.host+"/team/"+strings.Repeat("a", 251)+":v1", "--allow-unsigned")
			if n := len(s.Log()); n != 0 {
				s.t.Errorf("%d requests for a name that can not be", n)
			}
		},
	},
}

// setQuota changes the quota of a project that is there.
func (s *trial) setQuota(project string, bytes int64) {
	s.t.Helper()
	r := s.ask(http.MethodGet, "/api/v2.0/quotas?page_size=100", asAdmin, "")
	var quotas []struct {
		ID  int64
		Ref struct{ Name string }
	}
	if err := json.Unmarshal([]byte(r.body), &quotas); err != nil {
		s.t.Fatal(err)
	}
	for _, q := range quotas {
		if q.Ref.Name == project {
			doc := map[string]any{"hard": map[string]int64{"storage": bytes}}
			s.Admin(s.t, http.MethodPut, fmt.Sprintf("/api/v2.0/quotas/%d", q.ID), doc).Body.Close()
			return
		}
	}
	s.t.Fatalf("project %s has no quota: %s", project, r.body)
}

// mountsOther imports what can be mounted, has the parameter of all mounts be
// another, to which Harbor answers with that status, and wants all to arrive.
func (s *trial) mountsOther(parameter, value string, status int) {
	s.t.Helper()
	s.importing(0, s.one, "")
	s.ResetLog()
	s.Misbehave(harbortest.Before(http.MethodPost, "/blobs/uploads/", func(u *url.URL) {
		if q := u.Query(); q.Has("mount") {
			q.Set(parameter, value)
			u.RawQuery = q.Encode()
		}
	}))
	s.importing(0, s.both, "")
	mounts := 0
	for _, e := range s.Log() {
		if e.Method == http.MethodPost && strings.Contains(e.Query, "mount=") && e.Status == status {
			mounts++
		}
	}
	if mounts == 0 {
		s.t.Errorf("no mount was tried and answered %d", status)
	}
	s.arrived(s.shares, "team/sharing")
}
