package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/harbortest"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
)

// Secrets of the servers that scripts use. None of them may ever be printed
// (T54).
const (
	privateUser   = "operator"
	privateSecret = "canary-private-7d1f"
	robotName     = "robot$ferry"
	robotSecret   = "canary-robot-93ac"
)

// site is what all scripts share: real servers, and one bundle that was
// exported once. Scripts keep apart by the project that has their name.
type site struct {
	t                        *testing.T
	outside, inside, private *registrytest.Server
	s3                       *storetest.S3
	bundle                   string // folder of the bundle
	secrets                  []string
}

// TestScripts runs testdata/script with the command ferry on real servers. In
// their environment scripts have:
//
//	OUTSIDE, INSIDE   registries (distribution); OUTSIDE has all samples
//	PRIVATE           one that wants a login, which scripts do not have
//	HARBOR            a Harbor of the script's own, with the project "team" and a login
//	BUCKET            s3://bucket/prefix of the script's own
//	CLOSED            a host where nothing listens
//	P                 the script's name: the project it writes to
//	BUNDLE            a folder with the bundle demo 1, of team/single and team/signed
//	KEY, PUB, OTHER   private key, its public key, another public key
//	DIGEST_…          the digest of each sample, such as DIGEST_team_single
func TestScripts(t *testing.T) {
	s := newSite(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               s.setup,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           condition,
		Cmds:                scriptCommands,
	})
}

func newSite(t *testing.T) *site {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil && os.Getenv("CI") != "" {
		t.Fatal("skopeo is missing: run make tools")
	} else if err != nil {
		t.Skip("skopeo is missing: run make tools")
	}
	t.Setenv("PATH", os.Getenv("PATH")+string(os.PathListSeparator)+filepath.Dir(registrytest.Tool(t, "crane")))
	s := &site{t: t, s3: storetest.StartS3(t)}
	s.outside, s.inside = registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	s.private = registrytest.Start(t, registrytest.Options{Users: map[string]string{privateUser: privateSecret}})
	if err := registrytest.PushAll(t.Context(), s.outside.Host, registrytest.Samples()); err != nil {
		t.Fatal(err)
	}
	if err := sampleOf(t, "team/single").Push(t.Context(), privateUser+":"+privateSecret+"@"+s.private.Host); err != nil {
		t.Fatal(err)
	}
	s.secrets = []string{privateSecret, robotSecret, s.s3.SecretKey}
	for _, login := range []string{privateUser + ":" + privateSecret, robotName + ":" + robotSecret} {
		s.secrets = append(s.secrets, base64.StdEncoding.EncodeToString([]byte(login)))
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "ferry", "export", s.outside.Host+"/team/single:1.0.0", s.outside.Host+"/team/single:latest",
		s.outside.Host+"/team/signed:3.0", s.outside.Host+"/team/signed:stable", dir, "--name", "demo", "--version", "1", "--key", testKey(t, "one.key"))
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ferry export: %v\n%s", err, out)
	}
	s.bundle = filepath.Join(dir, "demo", "1")
	return s
}

func sampleOf(t testing.TB, repository string) *registrytest.Sample {
	t.Helper()
	for _, s := range registrytest.Samples() {
		if s.Repository == repository {
			return s
		}
	}
	t.Fatalf("there is no sample %s", repository)
	return nil
}

func testKey(t testing.TB, name string) string {
	return filepath.Join(registrytest.Root(t), "testdata", "keys", name)
}

// scripted is what the commands of one script work on.
type scripted struct {
	*site
	testing.TB
	project    string
	harbor     *harbortest.Server
	harborHost string
	pushed     atomic.Int64                    // seconds that Harbor's clock is ahead: each "harbor push" takes one
	stopped    atomic.Int64                    // Harbor's time in Unix seconds when its clock stands still, or 0
	servers    map[string]*registrytest.Server // that the script has started
	marks      map[string]int                  // requests to forget, by server
}

// harborTime is the clock of the script's Harbor.
func (s *scripted) harborTime() time.Time {
	if at := s.stopped.Load(); at != 0 {
		return time.Unix(at, 0)
	}
	return time.Now().Add(time.Duration(s.pushed.Load()) * time.Second)
}

type scriptedKey struct{}

func (s *site) setup(env *testscript.Env) error {
	name := strings.ReplaceAll(strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"), "_", "-")
	own := &scripted{site: s, TB: env.T().(testing.TB), project: name, servers: map[string]*registrytest.Server{}, marks: map[string]int{}}
	env.Values[scriptedKey{}] = own
	own.harbor = harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{Clock: own.harborTime})
	own.harbor.AddProject("team", false, -1)
	own.harbor.AddRobot(robotName, robotSecret, "*", "repository:push", "repository:pull", "repository:list", "artifact:read", "artifact:list",
		"tag:list", "project:read", "quota:read", "system:project:create")
	web := httptest.NewServer(own.harbor)
	env.Defer(web.Close)
	own.harborHost = web.Listener.Addr().String()
	docker := filepath.Join(env.WorkDir, ".docker")
	if err := os.Mkdir(docker, 0o700); err != nil {
		return err
	}
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, own.harborHost, base64.StdEncoding.EncodeToString([]byte(robotName+":"+robotSecret)))
	if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(config), 0o600); err != nil {
		return err
	}
	for key, value := range map[string]string{
		"OUTSIDE": s.outside.Host, "INSIDE": s.inside.Host, "PRIVATE": s.private.Host, "HARBOR": own.harborHost, "CLOSED": "127.0.0.1:1",
		"BUCKET": "s3://" + s.s3.Bucket + "/" + name, "P": name, "BUNDLE": s.bundle,
		"KEY": testKey(own, "one.key"), "PUB": testKey(own, "one.pub"), "OTHER": testKey(own, "two.pub"), "COSIGN_PASSWORD": "one",
		"XDG_STATE_HOME": filepath.Join(env.WorkDir, ".state"),
		"DOCKER_CONFIG":  docker, "REGISTRY_AUTH_FILE": "", "AWS_ACCESS_KEY_ID": s.s3.AccessKey, "AWS_SECRET_ACCESS_KEY": s.s3.SecretKey,
		"AWS_ENDPOINT_URL": s.s3.Endpoint, "AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		env.Setenv(key, value)
	}
	for _, sample := range registrytest.Samples() {
		env.Setenv("DIGEST_"+strings.ReplaceAll(sample.Repository, "/", "_"), sample.Root.Digest.String())
	}
	return nil
}

// condition knows [mount]: whether a file system can be mounted, as in CI it
// must be.
func condition(name string) (bool, error) {
	if name != "mount" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if !canMount() && os.Getenv("CI") != "" {
		return false, errors.New("mounting a tmpfs needs root")
	}
	return canMount(), nil
}
