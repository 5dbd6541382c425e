package harbortest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// event is a recorded request, or something that was done off the record.
type event struct {
	at  time.Time
	do  func(*replayer)
	rec *exchange
}

// replayer sends recorded requests to a Server of ours.
type replayer struct {
	t         *testing.T
	s         *Server
	c         *corpus
	now       time.Time
	passwords map[string]string
	uploads   map[string]string // our path and query of an upload, by its recorded id
	offsets   map[string]int64  // bytes of an upload so far
	blobOf    map[string]string // recorded digest that an upload ends with
	learned   map[string]string // cookies and tokens of the recording, and ours
	bearer    map[string]string // tokens by the exchange that got them
}

// TestReplay sends the recorded requests in the order of their time, and
// compares the answers: with a registry in memory, and with a real one.
func TestReplay(t *testing.T) {
	t.Run("memory", func(t *testing.T) { replayAll(t, memory()) })
	t.Run("distribution", func(t *testing.T) { replayAll(t, distribution(t)) })
}

func replayAll(t *testing.T, backend http.Handler) {
	recorded := loadRecordings(t)
	r := &replayer{
		t: t, c: newCorpus(t, recorded), s: New(backend, Options{}),
		passwords: map[string]string{"admin": AdminPassword, "dev1": "Devpass123"},
		uploads:   map[string]string{}, offsets: map[string]int64{}, blobOf: map[string]string{},
		learned: map[string]string{}, bearer: map[string]string{},
	}
	r.s.SetClock(func() time.Time {
		r.now = r.now.Add(time.Millisecond)
		return r.now
	})
	var events []event
	for _, e := range recorded {
		events = append(events, event{at: e.at, rec: e})
		if m := uploadID.FindStringSubmatch(e.Request.URL); m != nil {
			if d := digestInIt.FindStringSubmatch(e.Request.URL); d != nil {
				r.blobOf[m[1]] = d[1]
			}
		}
	}
	events = append(events, offRecord(t, r.c, recorded)...)
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })

	claimed := map[string]int{}
	total := map[string]int{}
	for _, e := range events {
		r.now = laterOf(r.now, e.at)
		if e.rec != nil && slices.Contains(wrongPassword[e.rec.file], e.rec.index) {
			r.now = e.at.Add(-lockTime) // Harbor answered only when the lock was over
		}
		if e.rec == nil {
			e.do(r)
			continue
		}
		total[e.rec.file]++
		if why := unclaimed(e.rec); why != "" {
			continue
		}
		claimed[e.rec.file]++
		r.replay(e.rec)
	}
	all, ok := 0, 0
	for file, n := range total {
		all, ok = all+n, ok+claimed[file]
	}
	for _, file := range slices.Sorted(mapKeys(total)) {
		t.Logf("%s: %d of %d requests claimed", file, claimed[file], total[file])
	}
	t.Logf("%d of %d recorded requests claimed", ok, all)
	if ok < minClaimed {
		t.Errorf("only %d requests are claimed, want at least %d", ok, minClaimed)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

var fuzzyDigest = regexp.MustCompile(`~[0-9a-f]{8}\b`)

var uploadID = regexp.MustCompile(`/blobs/uploads/([0-9a-f-]{36})`)

// replay sends one request and compares.
func (r *replayer) replay(e *exchange) {
	req := r.request(e)
	rec := httptest.NewRecorder()
	if strings.HasPrefix(e.Request.URL, "http://127.0.0.1:18080/") {
		r.s.Core().ServeHTTP(rec, req)
	} else {
		r.s.ServeHTTP(rec, req)
	}
	r.learn(e, rec)
	if diffs := r.compare(e, rec); len(diffs) > 0 {
		r.t.Errorf("%v (%s):\n\t%s", e, text(e.Note), strings.Join(diffs[:min(len(diffs), 8)], "\n\t"))
	}
}

// request translates a recorded request into one for our Server.
func (r *replayer) request(e *exchange) *http.Request {
	target, body := e.Request.URL, []byte(nil)
	if m := uploadID.FindStringSubmatch(target); m != nil {
		target = r.uploadTarget(e, m[1])
	}
	target = hexDigest.ReplaceAllStringFunc(target, r.c.ours)
	target = fuzzyDigest.ReplaceAllStringFunc(target, func(s string) string { return "~" + r.c.ours(r.c.full(r.t, s[1:]))[:8] })
	switch raw := e.Request.Body; {
	case len(raw) == 0 || string(raw) == "null":
	case raw[0] == '"':
		body = r.bytes(e, text(raw))
	default:
		body = r.document(e, raw)
	}
	req := httptest.NewRequest(e.Request.Method, target, bytes.NewReader(body))
	for k, v := range e.Request.Headers {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, r.translate(v))
	}
	switch kind, name, _ := strings.Cut(e.Request.Auth, " "); kind {
	case "basic":
		password := r.passwords[name]
		if slices.Contains(wrongPassword[e.file], e.index) {
			password = "wrong"
		}
		req.SetBasicAuth(name, password)
	case "bearer":
		req.Header.Set("Authorization", "Bearer "+r.bearer[bearerFrom[fmt.Sprint(e.file, "#", e.index)]])
	}
	return req
}

// uploadTarget puts our upload in the place of the recorded one, and begins
// it when that was done off the record.
func (r *replayer) uploadTarget(e *exchange, id string) string {
	recorded, err := url.Parse(e.Request.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.uploads[id] == "" {
		name := strings.TrimPrefix(recorded.Path[:strings.Index(recorded.Path, "/blobs/")], "/v2/")
		r.uploads[id] = r.s.Admin(r.t, http.MethodPost, "/v2/"+name+"/blobs/uploads/", "").Header.Get("Location")
	}
	ours, err := url.Parse(r.uploads[id])
	if err != nil {
		r.t.Fatal(err)
	}
	q := recorded.Query()
	if q.Has("_state") {
		q.Set("_state", ours.Query().Get("_state"))
	}
	recorded.Path, recorded.RawQuery = ours.Path, q.Encode()
	return recorded.String()
}

// bytes makes up a body of which only the number of bytes is known: the next
// ones of the blob that the upload ends with, or something broken.
func (r *replayer) bytes(e *exchange, s string) []byte {
	m := byteCount.FindStringSubmatch(s)
	if m == nil {
		return []byte(s)
	}
	var n int64
	fmt.Sscan(m[1], &n)
	if id := uploadID.FindStringSubmatch(e.Request.URL); id != nil && n > 0 {
		if content, ok := r.c.content(r.blobOf[id[1]]); ok && r.offsets[id[1]]+n <= int64(len(content)) {
			from := r.offsets[id[1]]
			r.offsets[id[1]] += n
			return content[from : from+n]
		}
	}
	if n == 4 {
		return []byte("{bad")
	}
	return bytes.Repeat([]byte("x"), int(n))
}

// document returns a JSON body: our version of a manifest or config whose
// digest is recorded, or the same with our digests in it. What a manifest
// that is accepted refers to is supplied.
func (r *replayer) document(e *exchange, raw json.RawMessage) []byte {
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		r.t.Fatal(err)
	}
	doc := compact.Bytes()
	hex := strings.TrimPrefix(e.header.Get("Docker-Content-Digest"), "sha256:")
	if d := digestInIt.FindStringSubmatch(e.Request.URL); d != nil {
		hex = d[1]
	}
	if hex != "" {
		if content, ok := r.c.content(hex); ok {
			doc = content
		}
	} else {
		doc = []byte(r.translate(hexDigest.ReplaceAllStringFunc(string(doc), r.c.ours)))
	}
	if m := manifestPath.FindStringSubmatch(strings.TrimPrefix(e.Request.URL, "http://127.0.0.1:8085")); m != nil && e.Response.Status == http.StatusCreated {
		r.supply(m[1], doc)
	}
	return doc
}

// supply pushes the blobs and children of one of our manifests.
func (r *replayer) supply(repo string, doc []byte) {
	var m manifest
	if err := json.Unmarshal(doc, &m); err != nil {
		r.t.Fatal(repo, err, string(doc))
	}
	for _, d := range append(m.blobs(), m.Manifests...) {
		r.s.mu.Lock()
		_, there := r.s.hasBlob(repo, d.Digest)
		there = there || r.s.state.repo(repo).find(d.Digest) != nil
		r.s.mu.Unlock()
		if there {
			continue
		}
		content := r.c.ourContent(d.Digest)
		if content == nil {
			r.t.Fatalf("%s: nothing is known of %s", repo, d.Digest)
		}
		if strings.Contains(d.MediaType, "manifest.v") {
			r.supply(repo, content)
			r.s.PushManifest(r.t, repo, "", d.MediaType, content)
		} else {
			r.s.PushBlob(r.t, repo, content)
		}
	}
}

// ourContent returns the content of one of our digests.
func (c *corpus) ourContent(digest string) []byte {
	for hex, b := range c.bytes {
		if b != nil && "sha256:"+c.ours(hex) == digest {
			return b
		}
	}
	return nil
}

// translate puts our cookies, tokens and secrets in the place of recorded ones.
func (r *replayer) translate(s string) string {
	for recorded, ours := range r.learned {
		s = strings.ReplaceAll(s, recorded, ours)
	}
	return s
}

var cookie = regexp.MustCompile(`^(sid|_gorilla_csrf)=([^;]+)`)

// learn notes what later requests refer to.
func (r *replayer) learn(e *exchange, rec *httptest.ResponseRecorder) {
	if id := e.header.Get("Docker-Upload-Uuid"); id != "" {
		r.uploads[id] = rec.Header().Get("Location")
	}
	for _, theirs := range e.header.Values("Set-Cookie") {
		for _, ours := range rec.Header().Values("Set-Cookie") {
			a, b := cookie.FindStringSubmatch(theirs), cookie.FindStringSubmatch(ours)
			if a != nil && b != nil && a[1] == b[1] {
				r.learned[a[2]] = b[2]
			}
		}
	}
	if theirs, ours := e.header.Get("X-Harbor-Csrf-Token"), rec.Header().Get("X-Harbor-Csrf-Token"); theirs != "" && ours != "" {
		r.learned[theirs] = ours
	}
	var doc struct{ Token, Secret, Name string }
	if json.Unmarshal(rec.Body.Bytes(), &doc) == nil {
		if doc.Token != "" {
			r.bearer[fmt.Sprint(e.file, "#", e.index)] = doc.Token
		}
		if doc.Secret != "" && doc.Name != "" {
			r.passwords[doc.Name] = doc.Secret
		}
	}
	if e.file == "10-robots-users-rbac" && e.index == 54 { // the admin gave it a new secret
		r.passwords["robot$team-r+ci"] = "Abcdefg1234"
	}
}

// headersThatMatter are compared, missing ones too.
var headersThatMatter = []string{
	"Content-Type", "Www-Authenticate", "Location", "Link", "X-Total-Count", "Docker-Content-Digest",
	"Docker-Distribution-Api-Version", "Range", "Content-Range", "Accept-Ranges", "Cache-Control", "Etag",
	"Oci-Subject", "Oci-Filters-Applied", "Vary", "Content-Disposition", "X-Content-Type-Options",
}

// presence of these is compared; their values are random.
var randomHeaders = []string{"Docker-Upload-Uuid", "X-Harbor-Csrf-Token"}

var (
	stateParam = regexp.MustCompile(`_state=[^&]*`)
	uuid       = regexp.MustCompile(`uploads/[^?]*`)
	numbersOf  = regexp.MustCompile(`\b(repository|artifact|policy|members)([ /])\d+`)
)

// plain takes out of a header or message what differs from run to run.
func plain(s string) string {
	s = stateParam.ReplaceAllString(s, "_state=S")
	s = uuid.ReplaceAllString(s, "uploads/U")
	return numbersOf.ReplaceAllString(s, "$1${2}N")
}

func (r *replayer) compare(e *exchange, rec *httptest.ResponseRecorder) (diffs []string) {
	diff := func(format string, args ...any) { diffs = append(diffs, fmt.Sprintf(format, args...)) }
	if rec.Code != e.Response.Status {
		diff("status %d, recorded %d; body %.200s", rec.Code, e.Response.Status, rec.Body)
		return diffs
	}
	for _, name := range headersThatMatter {
		want, got := e.header.Values(name), rec.Header().Values(name)
		wantText := plain(hexDigest.ReplaceAllStringFunc(strings.Join(want, "\n"), r.c.ours))
		if gotText := plain(strings.Join(got, "\n")); gotText != wantText || len(got) != len(want) {
			diff("%s: %q, recorded %q", name, gotText, wantText)
		}
	}
	for _, name := range randomHeaders {
		if (e.header.Get(name) != "") != (rec.Header().Get(name) != "") {
			diff("%s: %q, recorded %q", name, rec.Header().Get(name), e.header.Get(name))
		}
	}
	if got, want := cookieNames(rec.Header()), cookieNames(e.header); got != want {
		diff("cookies %s, recorded %s", got, want)
	}
	if e.Request.Method == http.MethodHead || len(e.Response.Body) == 0 || bodyDiffers[fmt.Sprint(e.file, "#", e.index)] != "" {
		return diffs
	}
	var want, got any
	if err := json.Unmarshal(e.Response.Body, &want); err != nil {
		r.t.Fatal(err)
	}
	if s, isText := want.(string); isText {
		if !strings.Contains(e.header.Get("Content-Type"), "text/plain") && s != "" {
			return diffs // not recorded as it was
		}
		if rec.Body.String() != s {
			diff("body %q, recorded %q", rec.Body, s)
		}
		return diffs
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		diff("body %q is not JSON", rec.Body)
		return diffs
	}
	return append(diffs, r.compareJSON("", got, want)...)
}

func cookieNames(h http.Header) string {
	var names []string
	for _, c := range h.Values("Set-Cookie") {
		name, _, _ := strings.Cut(c, "=")
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// ignored values differ from run to run; the keys must be there.
var ignored = regexp.MustCompile(`(^|_)(id|icon|token|issued_at|secret|expires_at|current_time|owner_id)$|^(creation|update)_time$`)

const timeTolerance = 20 * time.Second // the recording machine was busy

// compareJSON compares ours with what was recorded. Lists of artifacts must
// have the same order.
func (r *replayer) compareJSON(at string, got, want any) (diffs []string) {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("body%s is %v, recorded an object", at, got)}
		}
		for _, key := range slices.Sorted(mapKeys(want)) {
			value, there := got[key]
			switch {
			case !there:
				diffs = append(diffs, fmt.Sprintf("body%s.%s is missing", at, key))
			case ignored.MatchString(key):
			case key == "push_time" || key == "pull_time":
				if !sameTime(value, want[key]) {
					diffs = append(diffs, fmt.Sprintf("body%s.%s is %v, recorded %v", at, key, value, want[key]))
				}
			default:
				diffs = append(diffs, r.compareJSON(at+"."+key, value, want[key])...)
			}
		}
		for _, key := range slices.Sorted(mapKeys(got)) {
			if _, there := want[key]; !there {
				diffs = append(diffs, fmt.Sprintf("body%s.%s is %v, recorded nothing", at, key, got[key]))
			}
		}
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return []string{fmt.Sprintf("body%s has %d items, recorded %d", at, len(got), len(want))}
		}
		if strings.HasSuffix(at, ".actions") { // in any order
			text := func(a, b any) int { return cmp.Compare(a.(string), b.(string)) }
			got, want = slices.SortedFunc(slices.Values(got), text), slices.SortedFunc(slices.Values(want), text)
		}
		for i := range want {
			diffs = append(diffs, r.compareJSON(fmt.Sprintf("%s[%d]", at, i), got[i], want[i])...)
		}
	case string:
		got, _ := got.(string)
		wanted := plain(hexDigest.ReplaceAllStringFunc(want, r.c.ours))
		if plain(got) != wanted {
			diffs = append(diffs, fmt.Sprintf("body%s is %q, recorded %q", at, got, wanted))
		}
	default:
		if got != want {
			diffs = append(diffs, fmt.Sprintf("body%s is %v, recorded %v", at, got, want))
		}
	}
	return diffs
}

func sameTime(got, want any) bool {
	a, err1 := time.Parse(time.RFC3339, fmt.Sprint(got))
	b, err2 := time.Parse(time.RFC3339, fmt.Sprint(want))
	return err1 == nil && err2 == nil && a.Sub(b).Abs() < timeTolerance
}
