package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/verify"
)

// T30, T68: a tag that is moved before any request of latest, or of a pull of
// @latest, gives the newest of before or of after, under a tag that it had.
func TestLatestMovesAnywhere(t *testing.T) {
	for _, many := range []int{2, 103} { // pages of 100
		s := newHarborSite(t)
		var seen, at atomic.Int64
		var move func()
		s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if seen.Add(1) == at.Load() {
				move()
			}
			next.ServeHTTP(w, r)
		})
		answers := map[string]int{}
		runs := 0
		for n := int64(1); ; n++ {
			repository := fmt.Sprintf("library/app%d-%d", many, n)
			at.Store(0)
			old := s.push(repository, "old", "stable", "v0")
			for i := range many {
				s.push(repository, fmt.Sprint("content ", i), fmt.Sprintf("v1.%d", i))
			}
			before := s.push(repository, "before", "v2")
			var after verify.Digest
			move = func() { after = s.push(repository, "after", "stable") }
			allowed := func() map[string]bool {
				return map[string]bool{"v2 " + before.String(): true, "stable " + after.String(): true}
			}
			run := func(args ...string) string {
				seen.Store(0)
				at.Store(n)
				stdout, _ := s.ferry(args...)
				return stdout
			}
			var choice struct{ Tag, Digest string }
			if err := json.Unmarshal([]byte(run("latest", s.host+"/"+repository, "--format", "json")), &choice); err != nil {
				t.Fatal(err)
			}
			if got := choice.Tag + " " + choice.Digest; !allowed()[got] {
				t.Errorf("of %d, moved before request %d of latest: %s; stable was %s", many, n, got, old)
			}
			latestOver := seen.Load() < n
			answers[choice.Tag]++
			runs++

			at.Store(0)
			before = s.push(repository, "before, again", "v2")
			move = func() { after = s.push(repository, "after, again", "stable") }
			pulled := run("pull", s.host+"/"+repository+":@latest", filepath.Join(t.TempDir(), "app"))
			name, rest, _ := strings.Cut(pulled, "  ")
			digest, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if got := name[strings.LastIndex(name, ":")+1:] + " " + digest; !allowed()[got] {
				t.Errorf("of %d, moved before request %d of pull: %s", many, n, got)
			}
			if latestOver && seen.Load() < n {
				break
			}
		}
		if runs < 3 || answers["v2"] == 0 || answers["stable"] == 0 {
			t.Errorf("of %d: %d runs, %v", many, runs, answers)
		}
	}
}
