package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ferry/internal/harbortest"
)

// outcome is how a command has ended.
type outcome struct {
	code int
	talk string
}

// atOnce runs as many commands at once as there are lists of arguments, each in
// a process of its own.
func atOnce(t *testing.T, dir string, commands [][]string) []outcome {
	t.Helper()
	running := make([]*exec.Cmd, len(commands))
	talk := make([]bytes.Buffer, len(commands))
	for i, args := range commands {
		running[i] = ferryCommand(t, dir, args...)
		running[i].Stderr = &talk[i]
		if err := running[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	ends := make([]outcome, len(commands))
	for i, cmd := range running {
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		ends[i] = outcome{cmd.ProcessState.ExitCode(), talk[i].String()}
	}
	return ends
}

// crowds are how many do the same at once: with FERRY_SOAK all from 2 to 8,
// several times.
func crowds() []int {
	if !soak() {
		return []int{2, 8}
	}
	var list []int
	for range 5 {
		list = append(list, 2, 3, 4, 5, 6, 7, 8)
	}
	return list
}

// TestCrowd: of several that import the same bundle at once all end well, and
// the content is equal. Of several that export it to the same folder one does
// at least, and the others end well too or are told that it is busy.
func TestCrowd(t *testing.T) {
	k := newKillSite(t, 3<<20, 100<<10, 1<<20)
	t.Run("import", func(t *testing.T) {
		k.TB = t
		trial := k.importTrial()
		for i, n := range crowds() {
			place := fmt.Sprintf("crowd%d", i)
			trial.prepare(t, place)
			for _, end := range atOnce(t, k.dir, times(n, trial.args(place))) {
				if end.code != 0 {
					t.Errorf("of %d importers one ended with %d\n%s", n, end.code, end.talk)
				}
			}
			trial.arrived(t, place)
		}
	})
	g := newGoods(t)
	t.Run("project made meanwhile", func(t *testing.T) { testProjectMadeMeanwhile(t, g) })
	t.Run("import to Harbor", func(t *testing.T) {
		for _, n := range crowds() {
			s := newTrial(t, g, harbortest.Options{})
			s.admin()
			s.together(times(n, []string{s.both, s.host + "/crowd", "--create-projects"})...)
			s.arrived(s.single, "crowd/team/single")
			s.arrived(s.shares, "crowd/team/sharing")
		}
	})
	for _, trial := range []killTrial{k.exportTrial(), k.copyTrial()} {
		t.Run(trial.name, func(t *testing.T) {
			k.TB = t
			for i := range choose(50, 2) {
				place := fmt.Sprintf("%s%d", strings.ReplaceAll(trial.name, " ", ""), i)
				trial.prepare(t, place)
				done := 0
				for _, end := range atOnce(t, k.dir, times(3, trial.args(place))) {
					switch {
					case end.code == 0:
						done++
					case end.code != exitConflict || !strings.Contains(end.talk, "being written by somebody else"):
						t.Errorf("one of three ended with %d\n%s", end.code, end.talk)
					}
				}
				if done == 0 {
					t.Error("none of three has done it")
				}
				trial.arrived(t, place)
				mustFerry(t, k.dir, "verify", filepath.Join(place, "n/1"), "--key", k.public)
				trial.remove(t, place)
			}
		})
	}
}

// times returns a list of n times args.
func times(n int, args []string) (list [][]string) {
	for range n {
		list = append(list, args)
	}
	return list
}

// A project that somebody else makes between the plan, which is refused, and
// the preflight, which finds it, is there.
func testProjectMadeMeanwhile(t *testing.T, g *goods) {
	s := newTrial(t, g, harbortest.Options{})
	s.admin()
	var once sync.Once
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(w, r)
		if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/late/") {
			once.Do(func() { s.AddProject("late", false, -1) })
		}
	})
	s.importing(0, s.both, "/late")
	s.arrived(s.single, "late/team/single")
}
