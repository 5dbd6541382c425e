package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// packages are those whose checks are broken, and whose tests are run: its
// own first, then those that stand on it.
var packages = []struct {
	dir   string
	also  []string
	flags []string // that keep its tests from writing to the tree
}{
	{"verify", []string{"bundle"}, nil},
	{"bundle", nil, []string{"-rapid.nofailfile"}},
}

// steps are how much of a processor's time a test may take to be among those of
// each run: the shortest tests are run first.
var steps = []time.Duration{300 * time.Millisecond, 700 * time.Millisecond, 3 * time.Second, time.Hour}

// An endless loop and a wait without end are noticed too: after so many
// seconds of a processor, which do not depend on what else the machine does, and
// after so long.
const (
	cpuLimit  = 100
	timeLimit = 15 * time.Minute
)

// sample are the mutants of the short form, each with a test that must notice.
// The text is a part of the check's.
var sample = []struct{ where, op, text, dir, test string }{
	{"verify.parsedSignature.check", opOn, "; err == nil", "verify", "TestOpen"},
	{"verify.parsedSignature.check", opOff, "want := DigestOf(raw); hint != nil", "verify", "TestOpen"},
	{"verify.quorum.meet", opOn, "len(signers) >= q.threshold", "verify", "TestPolicy"},
	{"verify.reader.Read", opOff, "got != r.want || r.read != r.size", "verify", "TestReader"},
	{"bundle.parse", opOff, "!bytes.Equal(again, raw)", "bundle", "TestFirstDifference"},
	{"bundle.Manifest.validateVolumes", opOff, "e.Path != pathLayout", "bundle", "TestManifestRefused"},
	{"bundle.CheckName", opOff, "!valid", "bundle", "TestDirObstacles"},
	{"bundle.expect", opOff, "!bytes.Equal(got, want)", "bundle", "TestExpect"},
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// mutantsAndList returns all mutants, numbered from 1 on, and the list.
func mutantsAndList(t *testing.T) ([]mutant, map[string]entry) {
	t.Helper()
	var all []mutant
	for _, p := range packages {
		list, err := find(root(t), p.dir, len(all)+1)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	list, err := readList()
	if err != nil && !(*update && errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	return all, list
}

// TestMutants breaks one check after the other: the tests must notice. The
// short form takes a few of them.
func TestMutants(t *testing.T) {
	all, list := mutantsAndList(t)
	suites := map[string]*suite{}
	for dir, binary := range compile(t, all) {
		suites[dir] = &suite{dir: filepath.Join(root(t), filepath.FromSlash(dir)), binary: binary}
	}
	if os.Getenv("FERRY_SOAK") == "" {
		tryFew(t, suites, all)
		return
	}
	tryAll(t, suites, all, list)
}

// tryFew breaks the checks of the sample.
func tryFew(t *testing.T, suites map[string]*suite, all []mutant) {
	for _, c := range sample {
		found := 0
		for i, m := range all {
			if m.where != c.where || m.op != c.op || !strings.Contains(m.text, c.text) {
				continue
			}
			found++
			for n, want := range map[int]bool{0: true, i + 1: false} {
				if out, passed := suites[c.dir].passes(t, n, "^"+c.test+"$"); passed != want {
					t.Errorf("%s: %s: %s: with mutant %d %s passes: %t\n%s", m.where, m.op, m.text, n, c.test, passed, out)
				} else if passed && strings.Contains(out, "no tests to run") {
					t.Errorf("there is no %s in %s", c.test, c.dir)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d checks in %s are %q, want 1", found, c.where, c.text)
		}
	}
}

// tryAll breaks all checks, and counts.
func tryAll(t *testing.T, suites map[string]*suite, all []mutant, list map[string]entry) {
	filter := regexp.MustCompile(os.Getenv("FERRY_MUTANTS")) // of kind and key, to look at some
	caught, tried, equivalent := map[string]int{}, map[string]int{}, 0
	var survivors []string
	var mu sync.Mutex
	var g sync.WaitGroup
	turn := make(chan struct{}, runtime.NumCPU())
	for i, m := range all {
		e := list[m.key()]
		if !filter.MatchString(e.kind + "\t" + m.key()) {
			continue
		}
		if e.equivalent != "" {
			equivalent++
			continue
		}
		for _, dir := range m.suites() {
			if suites[dir].reach == nil {
				suites[dir].measure(t)
			}
		}
		turn <- struct{}{}
		g.Go(func() {
			defer func() { <-turn }()
			noticed := isCaught(t, suites, m, i+1)
			mu.Lock()
			defer mu.Unlock()
			tried[e.kind]++
			if noticed {
				caught[e.kind]++
				return
			}
			survivors = append(survivors, e.kind+"\t"+m.key())
			t.Logf("nobody notices: %s\t%s", e.kind, m.key())
			if slices.Contains(mustCatch, e.kind) {
				t.Errorf("no test notices a broken check of kind %s: %s: %s: %s", e.kind, m.where, m.op, m.text)
			}
		})
	}
	g.Wait()
	total, good := 0, 0
	for _, kind := range kinds {
		t.Logf("%-9s %3d of %3d caught", kind, caught[kind], tried[kind])
		total, good = total+tried[kind], good+caught[kind]
	}
	t.Logf("%d of %d caught, %d more make no difference", good, total, equivalent)
	if good*100 < total*95 {
		t.Errorf("%d of %d mutants are caught, want 95%%; not:\n%s", good, total, strings.Join(survivors, "\n"))
	}
}

// isCaught reports whether tests fail with mutant number n.
func isCaught(t *testing.T, suites map[string]*suite, m mutant, n int) bool {
	for _, dir := range m.suites() {
		for _, tests := range suites[dir].near(n) {
			if _, ok := suites[dir].passes(t, n, tests); !ok {
				return true
			}
		}
	}
	return false
}

// suites returns the folders of the packages whose tests may notice m.
func (m mutant) suites() []string {
	for _, p := range packages {
		if p.dir == filepath.Base(filepath.Dir(m.file)) {
			return append([]string{p.dir}, p.also...)
		}
	}
	return nil
}

// suite is the tests of a package.
type suite struct {
	dir, binary string
	reach       []reach // of each test, when it was measured
}

// reach is which mutants a test comes by, and how much of a processor's time it
// takes.
type reach struct {
	test string
	took time.Duration
	by   map[int]bool
}

// measure runs each test alone, with nothing broken.
func (s *suite) measure(t *testing.T) {
	t.Helper()
	out, _, ok := s.run(t, "", "-test.list", "^(Test|Fuzz|Example)")
	if !ok {
		t.Fatalf("%s: %s", s.dir, out)
	}
	for _, test := range strings.Fields(out) {
		file := filepath.Join(t.TempDir(), "reached")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		out, took, ok := s.run(t, "FERRY_REACHED="+file, "-test.run", "^"+test+"$")
		if !ok {
			t.Fatalf("%s fails with nothing broken:\n%s", test, out)
		}
		r := reach{test, took, map[int]bool{}}
		numbers, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Fields(string(numbers)) {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			r.by[n] = true
		}
		s.reach = append(s.reach, r)
	}
}

// near returns the tests that come by mutant number n, as patterns, the short
// ones first.
func (s *suite) near(n int) []string {
	var patterns []string
	for i, step := range steps {
		var tests []string
		for _, r := range s.reach {
			if r.by[n] && r.took < step && (i == 0 || r.took >= steps[i-1]) {
				tests = append(tests, r.test)
			}
		}
		if tests != nil {
			patterns = append(patterns, "^("+strings.Join(tests, "|")+")$")
		}
	}
	return patterns
}

// passes reports whether the tests of a pattern pass with mutant number n.
func (s *suite) passes(t *testing.T, n int, tests string) (string, bool) {
	out, _, ok := s.run(t, fmt.Sprintf("FERRY_MUTANT=%d", n), "-test.failfast", "-test.run", tests)
	return out, ok
}

// compile returns the test binaries of the packages, by folder, with all
// mutants in them.
func compile(t *testing.T, all []mutant) map[string]string {
	t.Helper()
	work := t.TempDir()
	files, err := instrumented(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		files[filepath.Join(root(t), p.dir, "mutant_switches.go")] = switches(path.Base(p.dir))
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, content := range files {
		at := filepath.Join(work, fmt.Sprintf("%d.go", len(overlay.Replace)))
		if err := os.WriteFile(at, content, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[name] = at
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(overlayFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	binaries := map[string]string{}
	for _, p := range packages {
		binaries[p.dir] = filepath.Join(work, path.Base(p.dir)+".test")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-overlay", overlayFile, "-o", binaries[p.dir], "./"+p.dir)
		build.Dir = root(t)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return binaries
}

// run runs the tests of a suite with one more variable in the environment.
func (s *suite) run(t *testing.T, variable string, args ...string) (out string, took time.Duration, ok bool) {
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	for _, p := range packages {
		if p.dir == filepath.Base(s.dir) {
			args = append(args, p.flags...)
		}
	}
	limited := fmt.Sprintf(`ulimit -t %d; exec "$0" "$@"`, cpuLimit)
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", limited, s.binary, "-test.short"}, args...)...)
	cmd.Dir = s.dir
	temp, err := os.MkdirTemp("", "ferry-mutant-")
	if err != nil {
		t.Error(err)
		return "", 0, true
	}
	defer os.RemoveAll(temp)
	// Whoever runs the long form of this test does not mean that of others.
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "FERRY_") })
	cmd.Env = append(env, variable, "TMPDIR="+temp)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	if state := cmd.ProcessState; state != nil {
		took = state.UserTime() + state.SystemTime()
	}
	return b.String(), took, err == nil
}
