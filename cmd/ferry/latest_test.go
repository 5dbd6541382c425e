package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// harborSite is a Harbor that anybody may read, whose clock goes on by a
// second with each push.
type harborSite struct {
	*harbortest.Server
	t    *testing.T
	host string
	now  atomic.Int64 // Unix seconds
}

func newHarborSite(t *testing.T) *harborSite {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", "")
	s := &harborSite{t: t}
	s.now.Store(time.Date(2026, 11, 21, 2, 40, 0, 0, time.UTC).Unix())
	s.Server = harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{Clock: func() time.Time { return time.Unix(s.now.Load(), 0) }})
	web := httptest.NewServer(s.Server)
	t.Cleanup(web.Close)
	s.host = web.Listener.Addr().String()
	return s
}

func (s *harborSite) push(repository, content string, tags ...string) verify.Digest {
	s.t.Helper()
	s.now.Add(1)
	return s.PushImage(s.t, repository, content, tags...)
}

// ferry runs a command that must end with 0.
func (s *harborSite) ferry(args ...string) (stdout, stderr string) {
	s.t.Helper()
	code, stdout, stderr := try(s.t.Context(), time.Unix(s.now.Load(), 0), args...)
	if code != 0 {
		s.t.Fatalf("ferry %q: %d\n%s", args, code, stderr)
	}
	return stdout, stderr
}

// The newest of 205 artifacts is on the third page, and after a tag was moved
// back on the first one. T68, NOTES 12, 17.
func TestLatestOfMany(t *testing.T) {
	s := newHarborSite(t)
	for i := range 205 {
		s.push("library/many", fmt.Sprint("content ", i), fmt.Sprintf("v1.%d", i))
	}
	stdout, stderr := s.ferry("latest", s.host+"/library/many")
	if stdout != "v1.204\n" || !strings.Contains(stderr, "newest of 205 tags") || strings.Contains(stderr, "it would be") {
		t.Errorf("%q\n%s", stdout, stderr)
	}
	back := s.push("library/many", "content 3", "stable")
	stdout, stderr = s.ferry("latest", s.host+"/library/many")
	if stdout != "stable\n" || !strings.Contains(stderr, back.String()) || !strings.Contains(stderr, "by semver it would be v1.204 (sha256:") {
		t.Errorf("moved back: %q\n%s", stdout, stderr)
	}
	if stdout, _ = s.ferry("latest", s.host+"/library/many", "--match", "v1.1?"); stdout != "v1.19\n" {
		t.Errorf("--match: %q", stdout)
	}
}

// What :@latest pulls is what was chosen, although the tag moves as soon as
// the list is read (T30).
func TestPullLatestRace(t *testing.T) {
	s := newHarborSite(t)
	chosen := s.push("library/app", "first", "stable")
	moved := 0
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		if strings.HasSuffix(r.URL.Path, "/artifacts") && r.Method == http.MethodGet {
			moved++
			s.push("library/app", fmt.Sprint("later ", moved), "stable")
		}
	})
	dir := filepath.Join(t.TempDir(), "app")
	stdout, stderr := s.ferry("pull", s.host+"/library/app:@latest", dir)
	if moved == 0 {
		t.Fatal("the trap is not there: the tag has not moved")
	}
	if !strings.HasPrefix(stdout, s.host+"/library/app:stable  "+chosen.String()) || !strings.Contains(stderr, "stable: "+chosen.String()) {
		t.Errorf("%q\n%s", stdout, stderr)
	}
	content, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(content, &index); err != nil || len(index.Manifests) != 1 || index.Manifests[0].Digest != chosen.String() ||
		index.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "stable" {
		t.Errorf("%v: %s", err, content)
	}
}

// By creation: the config's time counts, whatever was pushed last, and an
// index has that of its newest child.
func TestLatestByCreated(t *testing.T) {
	s := newHarborSite(t)
	push := func(tag, created string) verify.Digest {
		s.now.Add(1)
		config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created":%q,"config":{},"rootfs":{"type":"layers","diff_ids":[]}}`, created)
		return s.PushManifest(t, "library/built", tag, "application/vnd.oci.image.manifest.v1+json",
			fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
				`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
				s.PushBlob(t, "library/built", config), len(config)))
	}
	push("v2", "2026-02-02T02:02:02Z")
	push("v1", "2026-01-01T01:01:01Z")
	stdout, stderr := s.ferry("latest", s.host+"/library/built", "--by", "created")
	if stdout != "v2\n" || !strings.Contains(stderr, "by push-time it would be v1 (") {
		t.Errorf("%q\n%s", stdout, stderr)
	}
	if _, stderr = s.ferry("latest", s.host+"/library/built"); !strings.Contains(stderr, "by created it would be v2 (") {
		t.Errorf("%s", stderr)
	}
	push("epoch", "1970-01-01T00:00:00Z")
	child := push("", "2026-03-03T03:03:03Z")
	s.PushManifest(t, "library/built", "multi", "application/vnd.oci.image.index.v1+json",
		fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"digest":%q,"size":2}]}`,
			"application/vnd.oci.image.manifest.v1+json", child))
	stdout, _ = s.ferry("latest", s.host+"/library/built", "--by", "created", "--format", "json")
	var result struct{ Tag, Created, Reason string }
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || result.Tag != "multi" || result.Created != "2026-03-03T03:03:03Z" ||
		!strings.Contains(result.Reason, "1 tag without a time of creation") {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 21, 2, 40, 0, 0, time.UTC)
	a := newApp(process{now: func() time.Time { return now }})
	for age, want := range map[time.Duration]string{
		0: "just now", 59 * time.Second: "just now", time.Minute: "1m ago", 3*time.Minute + 59*time.Second: "3m ago", 59 * time.Minute: "59m ago",
		time.Hour: "1h ago", 23*time.Hour + 59*time.Minute: "23h ago", 24 * time.Hour: "1d ago", 5*24*time.Hour + time.Hour: "5d ago",
		800 * 24 * time.Hour: "800d ago", -4 * time.Minute: "just now", -6 * time.Minute: "in 6m", -49 * time.Hour: "in 2d",
	} {
		if got := a.ago(now.Add(-age)); got != want {
			t.Errorf("%v ago is %q, want %q", age, got, want)
		}
	}
}
