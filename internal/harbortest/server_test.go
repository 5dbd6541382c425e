package harbortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"ferry/verify"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// fixture is a Server with a clock that the test sets.
type fixture struct {
	*Server
	now time.Time
}

func newFixture(o Options) *fixture {
	f := &fixture{now: time.Date(2026, 11, 21, 2, 40, 0, 0, time.UTC)}
	o.Clock = func() time.Time { return f.now }
	f.Server = New(memory(), o)
	return f
}

// TestLoginLock is the timeline of recording 18: one wrong password, and the
// right one is refused, or taken for nobody's, for 1.5 seconds.
func TestLoginLock(t *testing.T) {
	f := newFixture(Options{})
	status := func(path, password string) (int, bool) {
		w := do(f, http.MethodGet, path, AdminName, password, "")
		return w.Code, strings.Contains(w.Body.String(), "current_user_role_id\"")
	}
	if code, _ := status("/v2/", "wrong"); code != 401 {
		t.Fatalf("wrong password: %d", code)
	}
	for _, step := range []struct {
		after time.Duration
		user  int
		known bool
	}{{0, 401, false}, {1400 * time.Millisecond, 401, false}, {200 * time.Millisecond, 200, true}} {
		f.now = f.now.Add(step.after)
		user, _ := status("/api/v2.0/users/current", AdminPassword)
		list, known := status("/api/v2.0/projects", AdminPassword)
		if user != step.user || list != 200 || known != step.known {
			t.Errorf("%v later: users/current %d, projects %d, known %v; want %d, 200, %v", step.after, user, list, known, step.user, step.known)
		}
	}
	f.AddUser("other", "Otherpass1")
	do(f, http.MethodGet, "/v2/", AdminName, "wrong", "")
	if w := do(f, http.MethodGet, "/v2/", "other", "Otherpass1", ""); w.Code != 200 {
		t.Errorf("the lock of one user keeps another out: %d", w.Code)
	}
}

func TestRecording18(t *testing.T) {
	content, err := os.ReadFile("testdata/recordings/18-login-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Exchanges []struct {
			Note []struct {
				Who        string
				Start, End float64
				Current    int  `json:"users/current"`
				Projects   int  `json:"GET projects"`
				Known      bool `json:"has_current_user_role_id"`
			}
		}
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		t.Fatal(err)
	}
	// Harbor answers a wrong password when the lock is over: so it begins
	// lockTime before the answer.
	f := newFixture(Options{})
	begin, events := f.now, 0
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	var wrong float64
	for _, n := range doc.Exchanges[0].Note {
		if n.Who == "wrong password" {
			wrong = n.End
		}
	}
	for _, n := range doc.Exchanges[0].Note {
		if n.Who == "wrong password" || n.Start < wrong-lockTime.Seconds() {
			continue // the wrong one itself, and one that ran while it was checked
		}
		if events++; events == 1 {
			f.now = at(wrong).Add(-lockTime)
			do(f, http.MethodGet, "/v2/", AdminName, "wrong", "")
		}
		f.now = at(n.Start)
		if w := do(f, http.MethodGet, "/api/v2.0/users/current", AdminName, AdminPassword, ""); w.Code != n.Current {
			t.Errorf("at %v: users/current %d, recorded %d", n.Start, w.Code, n.Current)
		}
		w := do(f, http.MethodGet, "/api/v2.0/projects", AdminName, AdminPassword, "")
		if known := strings.Contains(w.Body.String(), "current_user_role_id\""); w.Code != n.Projects || known != n.Known {
			t.Errorf("at %v: projects %d, known %v, recorded %d, %v", n.Start, w.Code, known, n.Projects, n.Known)
		}
	}
	if events < 10 {
		t.Fatalf("only %d logins compared", events)
	}
}

func TestTokens(t *testing.T) {
	f := newFixture(Options{TokenLife: time.Minute})
	f.AddProject("p", false, -1)
	token := func(user, password string) string {
		w := do(f, http.MethodGet, "/service/token?service=harbor-registry&scope=repository:p/a:pull,push", user, password, "")
		var doc struct {
			Token   string
			Expires int `json:"expires_in"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 || doc.Expires != 60 {
			t.Fatalf("token: %d %s", w.Code, w.Body)
		}
		return doc.Token
	}
	use := func(tok string) int {
		return do(f, http.MethodPost, "/v2/p/a/blobs/uploads/", "", "", "", "Authorization", "Bearer "+tok).Code
	}
	good := token(AdminName, AdminPassword)
	if code := use(good); code != 202 {
		t.Errorf("a good token: %d", code)
	}
	for user, password := range map[string]string{"": "", "nobody": "x", AdminName: "wrong"} {
		if code := use(token(user, password)); code != 401 {
			t.Errorf("the token of %q: %d, want 401", user, code)
		}
	}
	f.now = f.now.Add(time.Minute)
	if code := use(good); code != 401 { // T55
		t.Errorf("an expired token: %d, want 401", code)
	}
}

// TestRoutesAreDescribed checks that the server has no path that Harbor's
// description has not.
func TestRoutesAreDescribed(t *testing.T) {
	d, err := loadDescription()
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range routes {
		for _, m := range rt.methods {
			path := "/" + strings.ReplaceAll(rt.path, "*", "1")
			if _, ok := d.find(m.name, path); !ok {
				t.Errorf("%s /%s is not in the description", m.name, rt.path)
			}
		}
	}
}

func TestDescribed(t *testing.T) {
	for _, test := range []struct {
		method, target, header string
		ok                     bool
	}{
		{"GET", "/api/v2.0/projects?page=1&page_size=100", "", true},
		{"GET", "/api/v2.0/projects?pagesize=100", "", false},
		{"HEAD", "/api/v2.0/projects?project_name=x", "", true},
		{"HEAD", "/api/v2.0/projects", "", false},
		{"PATCH", "/api/v2.0/projects", "", false},
		{"GET", "/api/v2.0/nosuch", "", false},
		{"GET", "/api/v2.0/projects/1", "X-Is-Resource-Name", true},
		{"GET", "/api/v2.0/projects/1/repositories", "X-Is-Resource-Name", false},
		{"GET", "/api/v2.0/projects/p/repositories/a%252Fb/artifacts?with_tag=true&sort=id", "", true},
		{"GET", "/api/v2.0/projects/p/repositories/a/b/artifacts", "", false},
		{"GET", "/v2/", "", true},
	} {
		r := httptest.NewRequest(test.method, test.target, nil)
		if test.header != "" {
			r.Header.Set(test.header, "true")
		}
		if err := Described(r); (err == nil) != test.ok {
			t.Errorf("Described(%s %s) = %v, want success %v", test.method, test.target, err, test.ok)
		}
	}
}

func TestManifestTooLarge(t *testing.T) {
	f := newFixture(Options{})
	big := `{"schemaVersion":2,"manifests":[],"annotations":{"x":"` + strings.Repeat("x", maxManifest) + `"}}`
	w := do(f, http.MethodPut, "/v2/library/big/manifests/1", AdminName, AdminPassword, big, "Content-Type", typeIndex)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a manifest of %d bytes: %d %s", len(big), w.Code, w.Body)
	}
}

// TestStockClient pushes and pulls with go-containerregistry over TLS, with
// the token service, as a robot.
func TestStockClient(t *testing.T) {
	for backend, handler := range map[string]func(*testing.T) http.Handler{
		"memory":       func(*testing.T) http.Handler { return memory() },
		"distribution": distribution,
	} {
		t.Run(backend, func(t *testing.T) {
			s := New(handler(t), Options{})
			s.AddProject("p", false, -1)
			s.AddRobot("robot$p+ci", "Secret$:1", "p", "repository:pull", "repository:push")
			server := httptest.NewTLSServer(s)
			defer server.Close()
			ref, err := name.NewTag(strings.TrimPrefix(server.URL, "https://") + "/p/some/image:1.0")
			if err != nil {
				t.Fatal(err)
			}
			index, err := random.Index(3000, 2, 3)
			if err != nil {
				t.Fatal(err)
			}
			transport := server.Client().Transport.(*http.Transport)
			defer transport.CloseIdleConnections()
			options := []remote.Option{remote.WithTransport(transport), remote.WithAuth(&authn.Basic{Username: "robot$p+ci", Password: "Secret$:1"})}
			if err := remote.WriteIndex(ref, index, options...); err != nil {
				t.Fatal(err)
			}
			got, err := remote.Index(ref, options...)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := index.Digest()
			if digest, err := got.Digest(); err != nil || digest != want {
				t.Errorf("digest %v, %v, want %v", digest, err, want)
			}
			w := do(s, http.MethodGet, "/api/v2.0/projects/p/repositories/some%252Fimage/artifacts", AdminName, AdminPassword, "")
			if n := w.Header().Get("X-Total-Count"); n != "1" || !strings.Contains(w.Body.String(), want.String()) {
				t.Errorf("%s artifacts: %s", n, w.Body)
			}
			anonymous := remote.WithAuth(authn.Anonymous)
			if _, err := remote.Index(ref, remote.WithTransport(transport), anonymous); err == nil {
				t.Error("anybody may pull from a private project")
			}
		})
	}
}

func TestUploadInChunks(t *testing.T) {
	for backend, handler := range map[string]func(*testing.T) http.Handler{
		"memory":       func(*testing.T) http.Handler { return memory() },
		"distribution": distribution,
	} {
		t.Run(backend, func(t *testing.T) {
			s := New(handler(t), Options{})
			content := bytes.Repeat([]byte("0123456789"), 100)
			w := do(s, http.MethodPost, "/v2/library/a/blobs/uploads/", AdminName, AdminPassword, "")
			if w.Code != http.StatusAccepted {
				t.Fatal(w.Code, w.Body)
			}
			w = do(s, http.MethodPatch, w.Header().Get("Location"), AdminName, AdminPassword, string(content[:400]),
				"Content-Type", "application/octet-stream", "Content-Range", "0-399")
			if w.Code != http.StatusAccepted || w.Header().Get("Range") != "0-399" {
				t.Fatal(w.Code, w.Header(), w.Body)
			}
			state := do(s, http.MethodGet, w.Header().Get("Location"), AdminName, AdminPassword, "")
			if state.Code != http.StatusNoContent || state.Header().Get("Range") != "0-399" {
				t.Errorf("state of the upload: %d %v", state.Code, state.Header())
			}
			digest := verify.DigestOf(content)
			w = do(s, http.MethodPut, w.Header().Get("Location")+"&digest="+digest.String(), AdminName, AdminPassword, string(content[400:]),
				"Content-Type", "application/octet-stream", "Content-Range", "400-999")
			if w.Code != http.StatusCreated {
				t.Fatal(w.Code, w.Body)
			}
			got := do(s, http.MethodGet, "/v2/library/a/blobs/"+digest.String(), AdminName, AdminPassword, "")
			if !bytes.Equal(got.Body.Bytes(), content) {
				t.Errorf("the blob came back with %d bytes, status %d", got.Body.Len(), got.Code)
			}
			// Blobs belong to their repository, whatever the backend does.
			if w := do(s, http.MethodHead, "/v2/library/b/blobs/"+digest.String(), AdminName, AdminPassword, ""); w.Code != http.StatusNotFound {
				t.Errorf("the blob is in another repository: %d", w.Code)
			}
			if w := do(s, http.MethodPost, "/v2/library/b/blobs/uploads/?mount="+digest.String()+"&from=library/a", AdminName, AdminPassword, ""); w.Code != http.StatusCreated {
				t.Errorf("mount: %d", w.Code)
			}
			if w := do(s, http.MethodGet, "/v2/library/b/blobs/"+digest.String(), AdminName, AdminPassword, ""); !bytes.Equal(w.Body.Bytes(), content) {
				t.Errorf("after the mount: %d", w.Code)
			}
		})
	}
}

// TestBrokenUpload goes on with an upload after its connection broke. T57.
func TestBrokenUpload(t *testing.T) {
	s := New(distribution(t), Options{})
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	start := do(s, http.MethodPost, "/v2/library/a/blobs/uploads/", AdminName, AdminPassword, "")
	r := httptest.NewRequest(http.MethodPatch, start.Header().Get("Location"), io.MultiReader(bytes.NewReader(content[:600_000]), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.ContentLength = int64(len(content))
	r.SetBasicAuth(AdminName, AdminPassword)
	broken := httptest.NewRecorder()
	s.ServeHTTP(broken, r)
	if broken.Code < 400 {
		t.Fatalf("half a chunk: %d", broken.Code)
	}
	var state *httptest.ResponseRecorder
	var last, calm int
	for range 500 { // the registry may still be writing what it got
		before := last
		state = do(s, http.MethodGet, start.Header().Get("Location"), AdminName, AdminPassword, "")
		fmt.Sscanf(state.Header().Get("Range"), "0-%d", &last)
		if calm++; last == 0 || last != before {
			calm = 0
		}
		if calm == 10 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if last <= 0 || last >= 600_000 {
		t.Fatalf("state of the upload: %d %v", state.Code, state.Header())
	}
	digest := verify.DigestOf(content)
	end := do(s, http.MethodPut, state.Header().Get("Location")+"&digest="+digest.String(), AdminName, AdminPassword, string(content[last+1:]),
		"Content-Type", "application/octet-stream")
	if end.Code != http.StatusCreated {
		t.Fatalf("the rest from %d on: %d %s", last+1, end.Code, end.Body)
	}
}

func TestLog(t *testing.T) {
	f := newFixture(Options{})
	do(f, http.MethodPost, "/v2/library/a/blobs/uploads/?x=1", AdminName, AdminPassword, "hello")
	f.PushImage(t, "library/b", "not logged", "1")
	log := f.Log()
	if len(log) != 1 {
		t.Fatalf("%d entries: %v", len(log), log)
	}
	if e := log[0]; e.Method != "POST" || e.Path != "/v2/library/a/blobs/uploads/" || e.Query != "x=1" || e.Status != 202 || e.User != AdminName {
		t.Errorf("entry %+v", e)
	}
	f.ResetLog()
	if len(f.Log()) != 0 {
		t.Error("the log is not reset")
	}
}

// TestTimes shows what the times mean: recording 08 has the same.
func TestTimes(t *testing.T) {
	f := newFixture(Options{})
	push := func(content string, tags ...string) {
		f.now = f.now.Add(time.Minute)
		f.PushImage(t, "library/a", content, tags...)
	}
	push("one", "1.0")            // :41
	push("two", "2.0", "latest")  // :42
	push("one", "latest")         // :43, back again
	push("one", "latest")         // :44, nothing new
	f.SetClock(func() time.Time { // set back by an hour
		return f.now.Add(-time.Hour)
	})
	push("three", "3.0") // 01:45
	w := do(f, http.MethodGet, "/api/v2.0/projects/library/repositories/a/artifacts?sort=id", AdminName, AdminPassword, "")
	var docs []struct {
		PushTime string `json:"push_time"`
		Tags     []struct {
			Name     string
			PushTime string `json:"push_time"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &docs); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range docs {
		line := d.PushTime[11:16]
		for _, tag := range d.Tags {
			line += fmt.Sprintf(" %s@%s", tag.Name, tag.PushTime[11:16])
		}
		got = append(got, line)
	}
	want := "02:41 latest@02:43 1.0@02:41, 02:42 2.0@02:42, 01:45 3.0@01:45"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("artifacts %s\nwant      %s", s, want)
	}
}

func TestFaults(t *testing.T) {
	f := newFixture(Options{})
	const list = "/api/v2.0/projects"
	get := func() *httptest.ResponseRecorder { return do(f, http.MethodGet, list, "", "", "") }
	f.Misbehave(FailOnce("", "/projects"))
	if a, b := get().Code, get().Code; a != 500 || b != 200 {
		t.Errorf("FailOnce: %d, %d", a, b)
	}
	f.Misbehave(HTMLPage("/projects", 200))
	if w := get(); !strings.Contains(w.Body.String(), "<html>") {
		t.Errorf("HTMLPage: %s", w.Body)
	}
	f.Misbehave()
	whole := get().Body.Len()
	f.Misbehave(CutJSON("/projects"))
	if w := get(); w.Body.Len() != whole/2 || json.Valid(w.Body.Bytes()) {
		t.Errorf("CutJSON: %s", w.Body)
	}
	f.Misbehave(HideTotal("/projects"))
	if w := get(); w.Header().Get("X-Total-Count") != "" || w.Body.Len() != whole {
		t.Errorf("HideTotal: %v", w.Header())
	}
	f.Misbehave(CutBody("/projects"))
	server := httptest.NewServer(f)
	defer server.Close()
	resp, err := server.Client().Get(server.URL + list)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("CutBody: the whole body came")
	}
}
