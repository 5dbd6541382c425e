package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/harbortest"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// goods are what the tests with a Harbor import and push.
type goods struct {
	single *registrytest.Sample // team/single
	shares *registrytest.Sample // team/sharing, which has a layer of team/single
	layout string               // image layout of team/single
	one    string               // bundle of team/single
	both   string               // bundle of the two
	more   string               // bundle of team/sharing and team/multi; tests of many imports have it
	key    string
}

// newGoods makes them with ferry itself.
func newGoods(t *testing.T) *goods {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", "")
	outside := registrytest.Memory(t, registrytest.Options{})
	if err := registrytest.PushAll(t.Context(), outside.Host, registrytest.Samples()); err != nil {
		t.Fatal(err)
	}
	g := &goods{single: sampleOf(t, "team/single"), shares: sampleOf(t, "team/sharing"), key: testKey(t, "one.pub")}
	dir := t.TempDir()
	images := func(repositories ...string) (refs []string) {
		for _, repository := range repositories {
			for _, tag := range sampleOf(t, repository).ImageTags() {
				refs = append(refs, outside.Host+"/"+repository+":"+tag)
			}
		}
		return refs
	}
	do := func(args ...string) {
		if code, _, stderr := runFerry(t.Context(), map[string]string{"COSIGN_PASSWORD": "one"}, args...); code != 0 {
			t.Fatalf("ferry %q: %d\n%s", args, code, stderr)
		}
	}
	export := func(name string, repositories ...string) string {
		do(append(append([]string{"export"}, images(repositories...)...), dir, "--name", name, "--version", "1", "--key", testKey(t, "one.key"))...)
		return filepath.Join(dir, name, "1")
	}
	g.one, g.both, g.more = export("one", "team/single"), export("both", "team/single", "team/sharing"), export("more", "team/sharing", "team/multi")
	g.layout = filepath.Join(dir, "layout")
	do("pull", outside.Host+"/team/single:latest", g.layout)
	return g
}

// runFerry runs a command with nothing but env in its environment, and with a
// trust state that nobody else has unless env names one.
func runFerry(ctx context.Context, env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, talk bytes.Buffer
	code = run(ctx, args, process{stdin: strings.NewReader(""), stdout: &out, stderr: &talk, now: time.Now,
		lookupEnv: func(name string) (string, bool) {
			if value, ok := env[name]; ok {
				return value, true
			}
			return ownState(name)
		}})
	return code, out.String(), talk.String()
}

// trial is a Harbor that is reached over TLS, and a login for it.
type trial struct {
	*harbortest.Server
	*goods
	t         *testing.T
	host, url string
	ca        string
	env       map[string]string
	client    *http.Client
}

// Rights of the robots in trials. None can create projects.
var robotRights = []string{"repository:push", "repository:pull", "repository:list", "repository:read", "artifact:list", "artifact:read",
	"tag:list", "project:read", "quota:read", "immutable-tag:list"}

const (
	trialRobot  = "robot$team+ci"
	trialSecret = "Canary-robot-51d0"
)

// newTrial returns a Harbor with the private project "team" and its robot,
// whose login the environment has.
func newTrial(t *testing.T, g *goods, o harbortest.Options) *trial {
	t.Helper()
	s := &trial{Server: harbortest.New(registrytest.MemoryHandler(true), o), goods: g, t: t}
	s.AddProject("team", false, -1)
	s.AddRobot(trialRobot, trialSecret, "team", robotRights...)
	front := registrytest.Serve(t, s.Server, registrytest.Options{TLS: true})
	s.host, s.url, s.ca = front.Host, front.URL, front.CAFile(t)
	s.client = trialClient(t, s.ca)
	s.login(trialRobot, trialSecret)
	return s
}

// login makes that the login of the commands to come.
func (s *trial) login(user, secret string) {
	s.env = map[string]string{"FERRY_HOST": s.host, "FERRY_USERNAME": user, "FERRY_PASSWORD": secret}
}

func (s *trial) admin() { s.login(harbortest.AdminName, harbortest.AdminPassword) }

// ferry runs a command that must end with that code, and must not tell a
// secret.
func (s *trial) ferry(code int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	args = append(args, "--ca-file", s.ca)
	got, stdout, stderr := runFerry(s.t.Context(), s.env, args...)
	if got != code {
		s.t.Errorf("ferry %q ends with %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	login := s.env["FERRY_USERNAME"] + ":" + s.env["FERRY_PASSWORD"]
	for _, secret := range []string{s.env["FERRY_PASSWORD"], base64.StdEncoding.EncodeToString([]byte(login))} {
		if secret != "" && (strings.Contains(stdout, secret) || strings.Contains(stderr, secret)) {
			s.t.Errorf("ferry %q tells a secret\n%s%s", args, stdout, stderr) // T54
		}
	}
	return stdout, stderr
}

// says reports words that are not in text.
func (s *trial) says(text string, words ...string) {
	s.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			s.t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

// count returns how many requests the server has got since its log was reset
// that have the method, or any for "", a path with part and the status, or
// any for 0.
func (s *trial) count(method, part string, status int) int {
	n := 0
	for _, e := range s.Log() {
		if (method == "" || e.Method == method) && strings.Contains(e.Path, part) && (status == 0 || e.Status == status) {
			n++
		}
	}
	return n
}

// untouched reports requests since the log was reset that write, or begin to.
func (s *trial) untouched() {
	s.t.Helper()
	for _, e := range s.Log() {
		if e.Method != http.MethodGet && e.Method != http.MethodHead {
			s.t.Errorf("something was sent: %s %s %d (%d bytes)", e.Method, e.Path, e.Status, e.Received)
		}
	}
}

// arrived reports what of a sample is not in a repository, byte for byte.
func (s *trial) arrived(sample *registrytest.Sample, repository string) {
	s.t.Helper()
	for tag, want := range sample.Tags {
		if got := s.manifest(repository, tag); verify.DigestOf([]byte(got.body)) != want {
			s.t.Errorf("%s:%s is %d %s, want %s", repository, tag, got.status, verify.DigestOf([]byte(got.body)), want)
		}
	}
	for _, blob := range sample.Blobs {
		if got := s.ask(http.MethodGet, "/v2/"+repository+"/blobs/"+blob.Digest.String(), asAdmin, ""); got.body != string(blob.Bytes) {
			s.t.Errorf("%s: %s has %d %d bytes, want %d", repository, blob.Digest, got.status, len(got.body), len(blob.Bytes))
		}
	}
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

const (
	asNobody = ""
	asAdmin  = harbortest.AdminName + ":" + harbortest.AdminPassword
	asRobot  = trialRobot + ":" + trialSecret
)

// ask sends a request as a naive client does. The login is "name:password";
// header is pairs of names and values.
func (s *trial) ask(method, target, login, body string, header ...string) reply {
	s.t.Helper()
	if !strings.Contains(target, "://") {
		target = s.url + target
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if user, password, ok := strings.Cut(login, ":"); ok {
		r.SetBasicAuth(user, password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(content)}
}

// expect reports a trap that is not there: an answer that is not the recorded
// one, or lacks words.
func (s *trial) expect(r reply, status int, words ...string) {
	s.t.Helper()
	if r.status != status {
		s.t.Errorf("the trap is not there: %d %s, want %d", r.status, r.body, status)
	}
	s.says(r.body, words...)
}

func (s *trial) manifest(repository, reference string) reply {
	return s.ask(http.MethodGet, "/v2/"+repository+"/manifests/"+reference, asAdmin, "", "Accept", strings.Join(registryTypes, ", "))
}

// registryTypes are the media types of manifests.
var registryTypes = []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}

// upload sends a blob as simple clients do, and returns the last answer.
func (s *trial) upload(repository string, content []byte, login string) reply {
	s.t.Helper()
	started := s.ask(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", login, "")
	if started.status != http.StatusAccepted {
		return started
	}
	sent := s.ask(http.MethodPatch, started.header.Get("Location"), login, string(content))
	if sent.status != http.StatusAccepted {
		return sent
	}
	return s.ask(http.MethodPut, sent.header.Get("Location")+"&digest="+verify.DigestOf(content).String(), login, "")
}

// tagsIn returns the tags that a list of artifacts shows, the first first.
func (s *trial) tagsIn(list reply) (tags []string) {
	s.t.Helper()
	var artifacts []struct{ Tags []struct{ Name string } }
	if err := json.Unmarshal([]byte(list.body), &artifacts); err != nil {
		s.t.Fatalf("%v: %d %s", err, list.status, list.body)
	}
	for _, a := range artifacts {
		for _, t := range a.Tags {
			tags = append(tags, t.Name)
		}
	}
	return tags
}

// findings returns the checks of a doctor's JSON by name, as "level: found".
func (s *trial) findings(stdout string) map[string]string {
	s.t.Helper()
	var doc struct {
		Checks []struct{ Check, About, Level, Found string }
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		s.t.Fatalf("%v: %s", err, stdout)
	}
	all := map[string]string{}
	for _, c := range doc.Checks {
		all[c.Check] = c.Level + ": " + c.Found
	}
	return all
}

// finds reports checks whose result does not begin as wanted.
func (s *trial) finds(stdout string, want map[string]string) {
	s.t.Helper()
	got := s.findings(stdout)
	for _, check := range slices.Sorted(maps.Keys(want)) {
		if !strings.HasPrefix(got[check], want[check]) {
			s.t.Errorf("%s is %q, want %q", check, got[check], want[check])
		}
	}
}
