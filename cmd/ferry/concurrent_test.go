package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ferry/internal/harbortest"
	"ferry/verify"
)

// together runs imports at once, which must all end with 0 and tell no error,
// and returns what they tell.
func (s *trial) together(imports ...[]string) []string {
	s.t.Helper()
	talk := make([]string, len(imports))
	codes := make([]int, len(imports))
	start := make(chan struct{})
	var group sync.WaitGroup
	for i, args := range imports {
		group.Go(func() {
			<-start
			codes[i], _, talk[i] = runFerry(s.t.Context(), s.env, append(append([]string{"import"}, args...), "--key", s.key, "--ca-file", s.ca)...)
		})
	}
	close(start)
	group.Wait()
	for i, stderr := range talk {
		if codes[i] != 0 || strings.Contains(stderr, "ferry: error: ") || strings.Contains(stderr, "has moved") {
			s.t.Errorf("ferry import %q ends with %d\n%s", imports[i], codes[i], stderr)
		}
	}
	return talk
}

// meet holds the first n requests of that method and path until all n are
// there.
func meet(n int, method, part string) harbortest.Fault {
	var mu sync.Mutex
	arrived, all := 0, make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == method && strings.Contains(r.URL.EscapedPath(), part) {
			mu.Lock()
			arrived++
			if arrived == n {
				close(all)
			}
			wait := arrived <= n
			mu.Unlock()
			if wait {
				select {
				case <-all:
				case <-r.Context().Done():
				}
			}
		}
		next.ServeHTTP(w, r)
	}
}

// Imports at once do not trip over each other.
func TestConcurrent(t *testing.T) {
	g := newGoods(t)
	t.Run("one bundle", func(t *testing.T) { testOneBundle(t, g) })
	t.Run("bundles that share", func(t *testing.T) { testSharingBundles(t, g) })
	t.Run("one is refused", func(t *testing.T) { testOneRefused(t, g) })
}

// Four imports of one bundle that all find the project missing, and all ask
// for it at the same moment: one creates it, and all go on.
func testOneBundle(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	s.Misbehave(meet(4, http.MethodPost, "/api/v2.0/projects"))
	args := []string{s.both, s.host + "/fresh", "--create-projects", "--project-quota", "10MB", "--project-public"}
	talk := strings.Join(s.together(args, args, args, args), "")
	if created, refused := s.count(http.MethodPost, "/api/v2.0/projects", http.StatusCreated), s.count(http.MethodPost, "/api/v2.0/projects", http.StatusConflict); created != 1 || refused != 3 {
		t.Errorf("%d created the project, %d were told that it is there", created, refused)
	}
	if strings.Count(talk, "ferry: created project fresh") != 1 || strings.Count(talk, "by somebody else") != 3 {
		t.Errorf("they tell\n%s", talk)
	}
	s.arrived(s.single, "fresh/team/single")
	s.arrived(s.shares, "fresh/team/sharing")
	if r := s.ask(http.MethodGet, "/api/v2.0/projects/fresh", asAdmin, ""); !strings.Contains(r.body, `"public":"true"`) {
		t.Errorf("%s", r.body)
	}
	s.ResetLog()
	s.importing(0, s.both, "/fresh", "--create-projects")
	s.untouched()
}

// Two bundles that share blobs go into the same repositories at once, each
// twice, and a push besides.
func testSharingBundles(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	s.Misbehave(meet(4, http.MethodPost, "/api/v2.0/projects"))
	both, more := []string{s.both, s.host + "/shared", "--create-projects"}, []string{s.more, s.host + "/shared", "--create-projects"}
	s.together(both, more, both, more)
	multi := *sampleOf(t, "team/multi")
	s.arrived(s.single, "shared/team/single")
	s.arrived(s.shares, "shared/team/sharing")
	s.arrived(&multi, "shared/team/multi")
	if n := s.count(http.MethodPost, "/api/v2.0/projects", http.StatusCreated); n != 1 {
		t.Errorf("%d created the project", n)
	}
	for _, bundle := range []string{s.both, s.more} {
		s.ResetLog()
		s.importing(0, bundle, "/shared")
		s.untouched()
	}
	s.together(both, more)

	dir := filepath.Join(t.TempDir(), "pulled")
	if stdout, _ := s.ferry(0, "pull", s.host+"/shared/team/single:latest", dir); !strings.Contains(stdout, s.single.Root.Digest.String()) {
		t.Errorf("pull: %s", stdout)
	}
}

// Imports of one repository into two projects, and of two repositories into
// one, at once; those with too little quota do not disturb the others.
func testOneRefused(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	s.AddProject("tiny", false, 10)
	var refused string
	var code int
	var group sync.WaitGroup
	group.Go(func() {
		code, _, refused = runFerry(t.Context(), s.env, "import", s.both, s.host+"/tiny", "--key", s.key, "--ca-file", s.ca)
	})
	s.together([]string{s.both, s.host + "/roomy", "--create-projects"}, []string{s.one, s.host})
	group.Wait()
	if code != exitNoSpace || !strings.Contains(refused, "quota of tiny") {
		t.Errorf("%d\n%s", code, refused)
	}
	s.arrived(s.shares, "roomy/team/sharing")
	s.arrived(s.single, "team/single")
	if n := s.count("", "/v2/tiny/team/single/blobs/uploads", 0); n != 0 {
		t.Errorf("%d uploads to the project that is full", n)
	}
	if got := s.manifest("tiny/team/single", "latest"); verify.DigestOf([]byte(got.body)) == s.single.Root.Digest {
		t.Error("the project that is full has the image")
	}
}
