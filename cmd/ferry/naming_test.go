package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"ferry/internal/harbortest"
	"ferry/verify"
)

// waysToLogIn are the ways to give ferry a login for a host; each returns
// the environment for that.
var waysToLogIn = []struct {
	name string
	env  func(t *testing.T, host, user, secret string) map[string]string
}{
	{"docker config, auth", func(t *testing.T, host, user, secret string) map[string]string {
		t.Setenv("DOCKER_CONFIG", filepath.Dir(writeLogins(t, "config.json", map[string]any{"auths": map[string]any{host: authOf(user, secret)}})))
		return nil
	}},
	{"docker config, username and password", func(t *testing.T, host, user, secret string) map[string]string {
		t.Setenv("DOCKER_CONFIG", filepath.Dir(writeLogins(t, "config.json", map[string]any{"auths": map[string]any{
			"https://" + host: map[string]string{"username": user, "password": secret}}})))
		return nil
	}},
	{"REGISTRY_AUTH_FILE", func(t *testing.T, host, user, secret string) map[string]string {
		return map[string]string{"REGISTRY_AUTH_FILE": writeLogins(t, "auth.json", map[string]any{"auths": map[string]any{host: authOf(user, secret)}})}
	}},
	{"REGISTRY_AUTH_FILE, in image-syncer's form", func(t *testing.T, host, user, secret string) map[string]string {
		return map[string]string{"REGISTRY_AUTH_FILE": writeLogins(t, "auth.json", map[string]any{host: map[string]string{"username": user, "password": secret}})}
	}},
	{"DOCKER_AUTH_CONFIG", func(t *testing.T, host, user, secret string) map[string]string {
		content, err := os.ReadFile(writeLogins(t, "auth.json", map[string]any{"auths": map[string]any{host: authOf(user, secret)}}))
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"DOCKER_AUTH_CONFIG": string(content)}
	}},
	{"FERRY_PASSWORD", func(_ *testing.T, host, user, secret string) map[string]string {
		return map[string]string{"FERRY_HOST": host, "FERRY_USERNAME": user, "FERRY_PASSWORD": secret}
	}},
	{"FERRY_PASSWORD_FILE", func(t *testing.T, host, user, secret string) map[string]string {
		name := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]string{"FERRY_HOST": host, "FERRY_USERNAME": user, "FERRY_PASSWORD_FILE": name}
	}},
}

func authOf(user, secret string) map[string]string {
	return map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))}
}

func writeLogins(t *testing.T, name string, doc any) string {
	t.Helper()
	content, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// robotLogins are names that Harbor gives robots and people, and secrets that
// shells, URLs, INI files and templates read as something else.
var robotLogins = []struct{ user, secret string }{
	{"robot$team+ci", "Secret0-plain"},
	{"robot$ci", "$HOME${PATH}$(id)`id`"},
	{"robot$a+b", "a+b c%20d%41"},
	{"robot$team+a.b_c-d", `quo"te'd`},
	{"robot$1+2", `back\slash\n`},
	{"robot$" + strings.Repeat("r", 200), ":colons::everywhere:"},
	{"bot_xteam+ci", "$"},
	{"bot_x.ci", " space before and after "},
	{"$robot$$", "%%%"},
	{"{{.Name}}", "{{.Secret}}#;!&|<>"},
	{"alice@example.com", "üñ€ 漢字"},
	{`SITE\alice`, "=base64=="},
}

// Names of robots, projects and repositories, and secrets, arrive as they were
// written, or are refused by name before anything is sent.
func TestNames(t *testing.T) {
	g := newGoods(t)
	for name, test := range map[string]func(*testing.T, *goods){
		"logins": testLogins, "incomplete logins": testIncompleteLogins, "round trip": testGoodNames, "refused": testBadNames, "refused by Harbor": testHarborNames,
	} {
		t.Run(name, func(t *testing.T) { test(t, g) })
	}
}

// Each login arrives at Harbor as it was written, from each source.
func testLogins(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.PushImage(t, "team/app", "content", "v1")
	for _, login := range robotLogins {
		s.AddRobot(login.user, login.secret, "team", robotRights...)
		for _, source := range waysToLogIn {
			t.Run(fmt.Sprintf("%.20q from %s", login.user, source.name), func(t *testing.T) {
				s := *s
				s.t = t
				s.env = source.env(t, s.host, login.user, login.secret)
				s.ResetLog()
				stdout, _ := s.ferry(0, "tags", s.host+"/team/app")
				s.says(stdout, "v1 ")
				if !slices.ContainsFunc(s.Log(), func(e harbortest.Entry) bool { return e.User == login.user }) {
					t.Error("Harbor has not seen the name")
				}
				s.ferry(0, "push", s.layout, s.host+"/team/by-login:v1", "--allow-unsigned")
			})
		}
	}
}

// Half a login, or two, is refused before anything is asked.
func testIncompleteLogins(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	for name, env := range map[string]map[string]string{
		"no host":       {"FERRY_USERNAME": trialRobot, "FERRY_PASSWORD": trialSecret},
		"no name":       {"FERRY_HOST": s.host, "FERRY_PASSWORD": trialSecret},
		"bad host":      {"FERRY_HOST": "ho st", "FERRY_USERNAME": trialRobot, "FERRY_PASSWORD": trialSecret},
		"two passwords": {"FERRY_HOST": s.host, "FERRY_USERNAME": trialRobot, "FERRY_PASSWORD": trialSecret, "FERRY_PASSWORD_FILE": "x"},
		"no JSON":       {"DOCKER_AUTH_CONFIG": trialSecret},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.t, s.env = t, env
			s.ResetLog()
			s.ferry(exitUsage, "tags", s.host+"/team/app")
			if n := len(s.Log()); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// nested returns a path of n elements.
func nested(n int) string { return strings.TrimSuffix(strings.Repeat("e/", n), "/") }

// goodNames are paths of repositories that Harbor takes.
var goodNames = []string{
	"team/app",
	"1/1", "007/app", "4294967296/9223372036854775807", "0/0", // numbers, which are no ids
	"a/b", "z/0", "9/z", // one character
	nested(3), nested(4), nested(5), nested(6), nested(7), nested(8), nested(40),
	"a.b/c.d", "a-b/c-d", "a_b/c_d", "a.b-c_d.e/f.g-h_i.j", // each separator, in both
	"p/a--b", "p/a---b", "p/a__b", "p/a.b__c--d", // those that only repositories may have
	"p/a/b--c/d__e",
	"p/" + strings.Repeat("a", 253),
	"p/" + nested(126) + "/e", // 255 in 128 elements
	strings.Repeat("p", 200) + "/app",
	strings.Repeat("p", 253) + "/a",
	"library/library", "v2/v2", "api/v2.0", "service/token", "projects/repositories", "c/chartrepo", // words of URLs
	"x/manifests", "x/blobs/uploads", "x/tags/list", "x/artifacts/latest",
	"null/undefined", "true/false", "nan/inf", "con/aux", "latest/latest", "sha256/abc",
}

// Each name that Harbor takes comes back from it: what was pushed there is
// found by tags and latest, and pulled.
func testGoodNames(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	for i, path := range goodNames {
		t.Run(fmt.Sprintf("%.40s of %d", path, len(path)), func(t *testing.T) {
			s := *s
			s.t = t
			s.admin()
			ref := s.host + "/" + path
			s.ferry(0, "push", s.layout, ref+":v1", "--allow-unsigned", "--create-projects")
			if got := s.manifest(path, "v1"); verify.DigestOf([]byte(got.body)) != s.single.Root.Digest {
				t.Fatalf("at Harbor it is %d %.200s", got.status, got.body)
			}
			if stdout, _ := s.ferry(0, "tags", ref); !strings.HasPrefix(stdout, "v1 ") || strings.Count(stdout, "\n") != 1 {
				t.Errorf("tags: %q", stdout)
			}
			s.latestIs(path, "v1")
			for _, tag := range []string{"v1", "@latest"} {
				dir := filepath.Join(t.TempDir(), "pulled")
				if stdout, _ := s.ferry(0, "pull", ref+":"+tag, dir); !strings.Contains(stdout, s.single.Root.Digest.String()) {
					t.Errorf("pull: %q", stdout)
				}
			}
			s.ferry(0, "import", s.one, s.host, "--key", s.key, "--map", "team/single="+path)
			s.arrived(s.single, path)
			project, _, _ := strings.Cut(path, "/")
			stdout, _ := s.ferry(0, "doctor", ref, "--format", "json")
			s.finds(stdout, map[string]string{"project": "ok: exists, "})
			s.AddRobot(fmt.Sprintf("robot$%s+r%d", project, i), trialSecret, project, robotRights...)
			s.login(fmt.Sprintf("robot$%s+r%d", project, i), trialSecret)
			s.ferry(0, "push", s.layout, ref+":v2", "--allow-unsigned")
		})
	}
}

// badNames are paths of repositories that no registry takes, with what the
// message must have.
var badNames = []struct{ path, told string }{
	{"Team/app", "Team/app"}, {"team/App", "team/App"}, // upper case
	{"-team/app", "-team/app"}, {"team-/app", "team-/app"}, {".team/app", ".team/app"}, {"team./app", "team./app"},
	{"_team/app", "_team/app"}, {"team_/app", "team_/app"}, {"team/-app", "team/-app"}, {"team/app-", "team/app-"},
	{"team/.", "team/."}, {"team/..", "team/.."}, {"team/../library/app", "team/../library/app"},
	{"a..b/app", "a..b/app"}, {"team/a..b", "team/a..b"}, {"team/a._b", "team/a._b"}, {"team/a-_b", "team/a-_b"},
	{"team/a___b", "team/a___b"},
	{"team//app", "team//app"},                                                       // an empty element
	{"team/ü", "team/ü"}, {"team/а", "team/а"}, {"team/\u202eapp", `team/\u202eapp`}, // Unicode, Cyrillic
	{"team/a b", "team/a b"}, {"team/app\n", `team/app\n`}, {"team/a\nb", `team/a\nb`}, {"team/\x00", `team/\x00`}, {"team/\x1b[2J", `team/\x1b[2J`}, {"team/a\tb", `team/a\tb`},
	{"team%2Fapp", "team%2Fapp"}, {"team/app%252Fx", "team/app%252Fx"}, {"team/app?x=y", "team/app?x=y"}, {"team/app#x", "team/app#x"},
	{`team\app`, `team\\app`}, {"team/a+b", "team/a+b"}, {"team/$a", "team/$a"}, {"team/*", "team/*"}, {"team/~a", "team/~a"},
	{"p/" + strings.Repeat("a", 254), strings.Repeat("a", 200)}, {strings.Repeat("p", 300) + "/app", "ppp"},
}

// A name that can not be is refused as wrong usage, with the name in words
// that a terminal can have, before anything is asked (T40).
func testBadNames(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	for _, bad := range badNames {
		t.Run(fmt.Sprintf("%.40q of %d", bad.path, len(bad.path)), func(t *testing.T) {
			s := *s
			s.t = t
			for _, args := range [][]string{
				{"push", s.layout, s.host + "/" + bad.path + ":v1", "--allow-unsigned", "--create-projects"},
				{"import", s.one, s.host + "/" + bad.path, "--key", s.key, "--create-projects"},
				{"import", s.one, s.host, "--key", s.key, "--map", "team/single=" + bad.path, "--create-projects"},
				{"doctor", s.host + "/" + bad.path},
				{"tags", s.host + "/" + bad.path},
				{"latest", s.host + "/" + bad.path},
				{"pull", s.host + "/" + bad.path + ":v1", filepath.Join(t.TempDir(), "out")},
			} {
				if slices.Contains(args, "--map") && strings.Contains(bad.path, "\n") {
					continue // the value of the flag is a line of CSV: it ends there
				}
				s.ResetLog()
				_, stderr := s.ferry(exitUsage, args...)
				s.says(stderr, bad.told)
				if i := strings.IndexFunc(strings.ReplaceAll(stderr, "\n", ""), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
					t.Errorf("a terminal gets %q", stderr)
				}
				if n := len(s.Log()); n != 0 {
					t.Errorf("ferry %s has sent %d requests", args[0], n)
				}
			}
		})
	}
}

// Some paths are repositories of other registries but not of Harbor: they are
// refused before anything is written.
func testHarborNames(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	for _, path := range []string{"a__b/app", "a--b/app", "a---b/app", "a.b__c/d/e", strings.Repeat("a", 100) + "__b/app"} {
		t.Run(path, func(t *testing.T) {
			s := *s
			s.t = t
			for _, args := range [][]string{
				{"push", s.layout, s.host + "/" + path + ":v1", "--allow-unsigned", "--create-projects"},
				{"push", s.layout, s.host + "/" + path + ":v1", "--allow-unsigned"},
				{"import", s.one, s.host, "--key", s.key, "--map", "team/single=" + path, "--create-projects"},
				{"import", s.one, s.host, "--key", s.key, "--map", "team/single=" + path},
			} {
				s.ResetLog()
				code, _, stderr := runFerry(t.Context(), s.env, append(args, "--ca-file", s.ca)...)
				project, _, _ := strings.Cut(path, "/")
				if code != exitError && code != exitUsage || !strings.Contains(stderr, project) || !strings.Contains(stderr, "name") {
					t.Errorf("ferry %q ends with %d\n%s", args, code, stderr)
				}
				s.untouched()
			}
		})
	}
}
