package harbor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"ferry/internal/harbortest"
)

const repoPath = "/api/v2.0/projects/library/repositories/app%252Fapi/artifacts"

// fill pushes n images v1 ... vn.
func (s *site) fill(n int) {
	s.t.Helper()
	for i := range n {
		s.push("library/app/api", fmt.Sprint("image ", i+1), fmt.Sprint("v", i+1))
	}
}

// TestArtifacts reads 250 artifacts over three pages, in a repository with a
// slash. NOTES 11, 17.
func TestArtifacts(t *testing.T) {
	s := newSite(t)
	s.fill(250)
	// What a client meets that does not know: 10 items, 422, a Link with only
	// a path.
	if n := s.raw(http.MethodGet, repoPath+"?page_size=101").StatusCode; n != 422 {
		t.Fatalf("page_size=101: %d", n)
	}
	if r := s.raw(http.MethodGet, repoPath); !strings.HasPrefix(r.Header.Get("Link"), "</api/") || r.Header.Get("X-Total-Count") != "250" {
		t.Fatalf("page 1: %v", r.Header)
	}
	for _, path := range []string{"app%2Fapi", "app/api"} {
		if n := s.raw(http.MethodGet, "/api/v2.0/projects/library/repositories/"+path+"/artifacts").StatusCode; n != 404 {
			t.Fatalf("%s: %d", path, n)
		}
	}
	s.ResetLog()
	as, err := s.admin().Artifacts(t.Context(), "library", "app/api")
	if err != nil || len(as) != 250 {
		t.Fatalf("%d artifacts, %v", len(as), err)
	}
	for i, a := range as {
		if len(a.Tags) != 1 || a.Tags[0].Name != fmt.Sprint("v", i+1) || a.Type != "IMAGE" || a.Size == 0 || a.Digest.IsZero() ||
			a.ManifestMediaType != "application/vnd.oci.image.manifest.v1+json" || a.MediaType != "application/vnd.oci.image.config.v1+json" {
			t.Fatalf("artifact %d: %+v", i, a)
		}
		if i > 0 && (!a.PushTime.After(as[i-1].PushTime) || a.ID <= as[i-1].ID) {
			t.Fatalf("artifact %d is not after the one before: %+v", i, a)
		}
	}
	log := s.Log()
	if len(log) != 6 { // three pages, and once more
		t.Errorf("%d requests: %v", len(log), log)
	}
	for i, e := range log {
		q, _ := url.ParseQuery(e.Query)
		if e.Path != repoPath || q.Get("page") != fmt.Sprint(i%3+1) || q.Get("page_size") != "100" {
			t.Errorf("request %d: %s?%s", i, e.Path, e.Query)
		}
	}
}

// TestLinkTrap shows why Link is not followed: its query has lost its
// escaping. NOTES 14, 17.
func TestLinkTrap(t *testing.T) {
	s := newSite(t)
	s.fill(3)
	page := s.raw(http.MethodGet, repoPath+"?page_size=1&q=media_type%3Dapplication/vnd.oci.image.config.v1%252Bjson")
	target, _, _ := strings.Cut(strings.TrimPrefix(page.Header.Get("Link"), "<"), ">")
	if page.Header.Get("X-Total-Count") != "3" || target == "" {
		t.Fatalf("page 1: %v", page.Header)
	}
	if next := s.raw(http.MethodGet, target); next.StatusCode != 200 || next.Header.Get("X-Total-Count") != "0" {
		t.Fatalf("the trap is not there: %d %v", next.StatusCode, next.Header)
	}
	s.Misbehave(harbortest.Before("", "/artifacts", func(u *url.URL) {
		if strings.Contains(u.RawQuery, "q=") {
			t.Errorf("asked for %s", u)
		}
	}))
	if as, err := s.admin().Artifacts(t.Context(), "library", "app/api"); err != nil || len(as) != 3 {
		t.Errorf("%d artifacts, %v", len(as), err)
	}
}

// Harbor answers 200 [] for what is not there. NOTES 18.
func TestMissingRepository(t *testing.T) {
	s := newSite(t)
	c, ctx := s.admin(), t.Context()
	if r := s.raw(http.MethodGet, "/api/v2.0/projects/nosuch/repositories/x/artifacts"); r.StatusCode != 200 {
		t.Fatalf("the trap is not there: %d", r.StatusCode)
	}
	for _, path := range []string{"nosuch/x", "library/nosuch", "library/app"} {
		project, repository, _ := SplitRepository(path)
		if _, err := c.Artifacts(ctx, project, repository); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, ErrNotFound)
		}
	}
	// Signatures alone make a repository without artifacts.
	tag := "sha256-" + strings.Repeat("a", 64) + ".sig"
	pushCosign(s, "library/only", tag, "application/vnd.dev.cosign.simplesigning.v1+json")
	if as, err := c.Artifacts(ctx, "library", "only"); err != nil || len(as) != 0 {
		t.Errorf("an empty repository: %v, %v", as, err)
	}
}

// pushCosign pushes a manifest of one layer of that type, as cosign does.
func pushCosign(s *site, repository, tag, layerType string) string {
	s.t.Helper()
	layer := []byte("payload for " + tag)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		s.PushBlob(s.t, repository, []byte("{}")), layerType, s.PushBlob(s.t, repository, layer), len(layer))
	s.advance(1e9)
	return s.PushManifest(s.t, repository, tag, "application/vnd.oci.image.manifest.v1+json", manifest).String()
}

// TestHostileLists: no list makes ferry loop, or believe in a part of it. T67.
func TestHostileLists(t *testing.T) {
	s := newSite(t)
	s.fill(120)
	c := s.admin()
	total := func(n string) harbortest.Fault {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(totalWriter{w, n}, r)
		}
	}
	for _, test := range []struct {
		name   string
		faults []harbortest.Fault
		want   error
		most   int // requests
	}{
		{"no end", []harbortest.Fault{harbortest.EndlessPages("/artifacts")}, ErrUnexpected, maxPages},
		{"the same page", []harbortest.Fault{harbortest.RepeatPage("/artifacts")}, ErrUnexpected, 2},
		{"the same page, no total", []harbortest.Fault{harbortest.RepeatPage("/artifacts"), harbortest.HideTotal("/artifacts")}, ErrUnexpected, 2},
		{"empty pages", []harbortest.Fault{harbortest.Rewrite("/artifacts", func([]byte) []byte { return []byte("[]") })}, ErrUnavailable, listTries},
		{"one more than there are", []harbortest.Fault{total("121")}, ErrUnavailable, 3 * listTries},
		{"one more, and the last page again", []harbortest.Fault{total("121"), harbortest.Before("", "/artifacts", func(u *url.URL) {
			if q := u.Query(); q.Get("page") > "2" {
				q.Set("page", "2")
				u.RawQuery = q.Encode()
			}
		})}, ErrUnavailable, 3 * listTries},
		{"a total that is none", []harbortest.Fault{total("many")}, ErrUnexpected, 1},
		{"a negative total", []harbortest.Fault{total("-1")}, ErrUnexpected, 1},
		{"an absurd total", []harbortest.Fault{total("100001")}, ErrUnexpected, 1},
		{"one tag twice", []harbortest.Fault{harbortest.Rewrite("/artifacts", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"v1"`, `"v2"`, 1))
		})}, ErrUnexpected, 4},
	} {
		s.ResetLog()
		s.Misbehave(test.faults...)
		as, err := c.Artifacts(t.Context(), "library", "app/api")
		if !errors.Is(err, test.want) || as != nil {
			t.Errorf("%s: %d artifacts, %v, want %v", test.name, len(as), err, test.want)
		}
		if n := len(s.Log()); n > test.most {
			t.Errorf("%s: %d requests, want at most %d", test.name, n, test.most)
		}
	}
	// Without a total the length of the pages decides.
	s.Misbehave(harbortest.HideTotal("/artifacts"))
	if as, err := c.Artifacts(t.Context(), "library", "app/api"); err != nil || len(as) != 120 {
		t.Errorf("no total: %d artifacts, %v", len(as), err)
	}
}

// totalWriter sends another total.
type totalWriter struct {
	http.ResponseWriter
	total string
}

func (w totalWriter) Write(p []byte) (int, error) {
	w.Header().Set("X-Total-Count", w.total)
	return w.ResponseWriter.Write(p)
}

// TestFullPagesWithoutTotal: exactly full pages need one more request.
func TestFullPagesWithoutTotal(t *testing.T) {
	s := newSite(t)
	s.fill(100)
	s.Misbehave(harbortest.HideTotal("/artifacts"))
	if as, err := s.admin().Artifacts(t.Context(), "library", "app/api"); err != nil || len(as) != 100 {
		t.Errorf("%d artifacts, %v", len(as), err)
	}
}

// TestListChanges: what is pushed, deleted or moved between two pages does
// not make ferry lose anything. T68.
func TestListChanges(t *testing.T) {
	for name, change := range map[string]func(s *site){
		"push":      func(s *site) { s.push("library/app/api", "new", "new") },
		"delete":    func(s *site) { s.Admin(s.t, http.MethodDelete, repoPath+"/v50", nil) },
		"move":      func(s *site) { s.push("library/app/api", "image 150", "v1") },
		"move back": func(s *site) { s.push("library/app/api", "image 1", "v150") },
	} {
		s := newSite(t)
		s.fill(150)
		requests := 0
		s.Misbehave(harbortest.Before(http.MethodGet, "/artifacts", func(*url.URL) {
			if requests++; requests == 2 { // between the two pages
				change(s)
			}
		}))
		got, err := s.admin().Artifacts(t.Context(), "library", "app/api")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s.Misbehave()
		want, err := s.admin().Artifacts(t.Context(), "library", "app/api")
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if string(a) != string(b) {
			t.Errorf("%s: %d artifacts are not the %d that there are", name, len(got), len(want))
		}
	}
	// A list that never stands still is an error at last.
	s := newSite(t)
	s.fill(101)
	n := 101
	s.Misbehave(harbortest.Before(http.MethodGet, "/artifacts", func(u *url.URL) {
		if n++; u.Query().Get("page") == "2" {
			s.Admin(s.t, http.MethodDelete, fmt.Sprintf("%s/v%d", repoPath, n-100), nil)
			s.push("library/app/api", fmt.Sprint("more ", n), fmt.Sprint("more", n))
		}
	}))
	if _, err := s.admin().Artifacts(t.Context(), "library", "app/api"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a list that always changes: %v", err)
	}
}
