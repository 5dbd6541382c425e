package harbortest

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// minClaimed guards against claiming less by accident.
const minClaimed = 577

// wrongPassword lists the requests that were sent with a wrong password, as
// their notes or answers say: recordings hold no passwords.
var wrongPassword = map[string][]int{
	"01-system":                 {12, 15, 17},
	"02-projects":               {33},
	"03-token-flow":             {8},
	"04-push":                   {56},
	"10-robots-users-rbac":      {55},
	"16-latest-and-media-types": {31, 32, 33, 34},
}

// bearerFrom says which token request the "<token>" of a request came from.
var bearerFrom = map[string]string{
	"03-token-flow#15":        "03-token-flow#6",
	"03-token-flow#16":        "03-token-flow#6",
	"03-token-flow#17":        "03-token-flow#6",
	"03-token-flow#18":        "03-token-flow#6",
	"03-token-flow#19":        "03-token-flow#5", // the one that nobody got
	"03-token-flow#20":        "03-token-flow#5",
	"04-push#48":              "03-token-flow#9",
	"10-robots-users-rbac#20": "10-robots-users-rbac#18",
}

// bodyDiffers says where the body can not be as it was recorded; status and
// headers are compared all the same.
var bodyDiffers = map[string]string{
	"01-system#6":       "some components were not running",
	"05-artifacts#37":   "sorted by digest, and ours are others",
	"07-accessories#10": "sorted by tags that have digests in them",
	"11-quota#44":       "projects that other recordings do not show",
}

// unclaimed says why a recorded request is not replayed, or nothing.
func unclaimed(e *exchange) string {
	path := strings.TrimPrefix(e.Request.URL, "http://127.0.0.1:8085/api/v2.0/")
	for _, not := range []struct{ prefix, why string }{
		{"systeminfo/getcert", "ferry does not call it"},
		{"systeminfo/volumes", "ferry does not call it"},
		{"statistics", "ferry does not call it"},
		{"users/current/permissions", "ferry does not call it"},
		{"labels", "labels are not imitated"},
		{"auditlog", "no audit log"},
		{"audit-logs", "no audit log"},
		{"scanners", "no scanners"},
		{"registries", "no replication"},
		{"search", "ferry does not call it"},
		{"system/gc", "no garbage collection"},
		{"retentions/metadatas", "policies are not carried out"},
		{"retentions/1/executions", "policies are not carried out"},
	} {
		if strings.HasPrefix(path, not.prefix) {
			return not.why
		}
	}
	switch {
	case strings.Contains(path, "sort=-extra_attrs"), strings.Contains(path, "sort=annotations"):
		return "the order of JSON columns is the database's"
	case e.file == "15-direct-core-encoding" && e.index == 7:
		return "it was sent with cookies that were not recorded"
	case e.file == "01-system" && e.index == 8:
		return "GET of all configurations is not imitated"
	case strings.Contains(path, "/additions/"), strings.HasSuffix(path, "/scan"):
		return "no scanners and no additions"
	case e.file == "09-labels-scan-misc":
		return "labels are not imitated"
	}
	return ""
}

// projectsOff are projects that were made off the record, with their ids.
var projectsOff = []struct {
	at, name string
	id       counter
	proxy    bool
}{
	{"02:53:40.0", "team-sig", 26, false},
	{"02:53:41.0", "team-r", 27, false},
	{"02:53:42.0", "team-r2", 28, false},
	{"02:54:24.412", "clients", 30, false},
	{"02:58:50.0", "team-t", 34, false},
	{"02:58:51.0", "team-u", 35, false},
	{"02:59:30.989", "team-i", 37, false},
	{"03:05:00.0", "proxyp", 52, true},
	{"03:06:40.0", "team-m", 53, false},
}

// imagesOff are images that were pushed off the record and that no recorded
// list shows, or not in that repository; size is that of the whole image.
var imagesOff = []struct {
	at, repo, tag, digest string
	size                  int64
}{
	{"02:48:05.0", "team-a/app/backend", "1", "", 2900},
	{"02:57:25.0", "team-a/q-src", "1", "d744fa", 0},
	{"02:58:00.0", "team-q/app", "n0", "", 30951},
	{"02:58:01.0", "team-q/app", "n1", "", 30951 + 313}, // it shares its config
	{"03:01:07.440", "team-t/app", "only", "74154a", 0},
}

func recordedDay(clock string) time.Time {
	at, err := time.Parse("2006-01-02T15:04:05.999", "2026-11-21T"+clock)
	if err != nil {
		panic(err)
	}
	return at
}

// offRecord returns what was done between the recorded requests: it follows
// from their notes, and from lists that show what nobody was seen to push.
func offRecord(t *testing.T, c *corpus, recorded []*exchange) []event {
	var events []event
	add := func(at time.Time, do func(*replayer)) { events = append(events, event{at: at, do: do}) }
	for i := range 13 {
		add(recordedDay("02:42:03.111"), func(r *replayer) { r.s.AddProject(fmt.Sprintf("page-%02d", i), false, -1) })
	}
	add(recordedDay("02:42:50"), func(r *replayer) {
		for i := range 12 {
			r.s.Admin(t, http.MethodDelete, projectPath(fmt.Sprintf("page-%02d", i+1)), nil)
		}
	})
	add(recordedDay("03:02:30"), func(r *replayer) { r.s.state.projects_ = 38 })
	for _, e := range recorded { // one copy failed, and worked when tried again
		if e.file == "08-tags-copy-delete" && e.index == 25 {
			add(e.at.Add(-time.Millisecond), func(r *replayer) { r.s.Misbehave(FailOnce(http.MethodPost, "/team-u/")) })
		}
	}
	add(recordedDay("02:57:05"), func(r *replayer) { // the blobs of an image whose manifest came much later
		content, _ := c.content(c.full(t, "d744fa"))
		r.supply("team-a/q-src", content)
	})
	// The children of an index of which only the size of all is known.
	c.totals[c.full(t, "311ec2")], c.totals[c.full(t, "e48d7f")] = 2490, 3309-2490
	for _, p := range projectsOff {
		add(recordedDay(p.at), func(r *replayer) {
			r.s.state.projects_ = p.id - 1
			if p.proxy {
				r.s.AddProxyCache(p.name)
				r.s.state.projects[p.name].retention = &retention{id: 2}
			} else {
				r.s.AddProject(p.name, false, -1)
			}
		})
	}
	for _, img := range imagesOff {
		hex := fmt.Sprintf("%064x", len(events))
		if img.digest != "" {
			hex = c.full(t, img.digest)
		} else {
			c.totals[hex] = img.size
		}
		add(recordedDay(img.at), func(r *replayer) { r.pushOff(img.repo, img.tag, hex) })
	}
	for _, l := range listed(recorded) {
		if !onRecord(c, recorded, l) {
			add(l.at, func(r *replayer) { r.pushOff(l.repo, l.tag, l.hex) })
		}
	}
	return events
}

// onRecord reports whether a recorded request did what a list shows.
func onRecord(c *corpus, recorded []*exchange, l listedTag) bool {
	for _, e := range recorded {
		if age := e.at.Sub(l.at); age < -time.Second || age > 30*time.Second || e.Response.Status != http.StatusCreated {
			continue
		}
		path := strings.TrimPrefix(e.Request.URL, "http://127.0.0.1:8085")
		if m := manifestPath.FindStringSubmatch(path); m != nil && m[1] == l.repo &&
			(l.tag == "" && strings.HasSuffix(e.header.Get("Docker-Content-Digest"), l.hex) || l.tag != "" && m[2] == l.tag) {
			return true
		}
		in, name, _ := strings.Cut(l.repo, "/")
		repoPath := repositoryAPIPath(&repository{name: name, project: &project{name: in}}) + "/artifacts"
		if strings.HasPrefix(path, repoPath+"?from=") {
			return true // copied, with whatever tags
		}
		if strings.HasPrefix(path, repoPath) && strings.HasSuffix(path, "/tags") {
			var doc struct{ Name string }
			if json.Unmarshal(e.Request.Body, &doc) == nil && doc.Name == l.tag {
				return true
			}
		}
	}
	return false
}

// pushOff pushes the image with that recorded digest.
func (r *replayer) pushOff(repo, tag, hex string) {
	content, ok := r.c.content(hex)
	if !ok {
		r.t.Fatalf("%s:%s: nothing is known of %s", repo, tag, hex)
	}
	r.supply(repo, content)
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		r.t.Fatal(err)
	}
	r.s.PushManifest(r.t, repo, tag, m.MediaType, content)
}

// TestConcurrentCreates is the note of recording 13 #24: of eight who create a
// project at once one gets 201.
func TestConcurrentCreates(t *testing.T) {
	s := New(http.NotFoundHandler(), Options{})
	codes := make(chan int, 8)
	for range 8 {
		go func() {
			rec := do(s, http.MethodPost, "/api/v2.0/projects", AdminName, AdminPassword, `{"project_name":"race-p"}`)
			codes <- rec.Code
		}()
	}
	count := map[int]int{}
	for range 8 {
		count[<-codes]++
	}
	if count[201] != 1 || count[409] != 7 {
		t.Errorf("answers %v, want one 201 and seven 409", count)
	}
}
