package harbor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
)

// recorded returns the answers of a real Harbor that are JSON.
func recorded(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob("../internal/harbortest/testdata/recordings/*.json")
	if err != nil || len(files) < 17 {
		f.Fatalf("%d recordings, %v", len(files), err)
	}
	var all [][]byte
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var doc struct {
			Exchanges []struct {
				Response struct{ Body json.RawMessage }
			}
		}
		if err := json.Unmarshal(content, &doc); err != nil {
			f.Fatal(err)
		}
		for _, e := range doc.Exchanges {
			var text string
			switch body := e.Response.Body; {
			case json.Unmarshal(body, &text) == nil && text != "":
				all = append(all, []byte(text))
			case len(body) > 0 && len(body) < 8<<10:
				all = append(all, body)
			}
		}
	}
	return all
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// canary is a password that no error may show.
const canary = "s3cret-canary"

// FuzzAnswer shows that whatever a Harbor answers, no address that it gives is
// gone to, requests are few, and there are whole artifacts or none; no error
// shows the password or what a terminal would obey (T40, T54, T67).
func FuzzAnswer(f *testing.F) {
	for i, body := range recorded(f) {
		f.Add(body, 200, "1", "application/json", "")
		f.Add(body, 400+i%30, "", "text/plain", `</api/v2.0/x>; rel="next"`)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, text := range []string{`[{"digest":"` + digest + `","tags":[{"name":"a"},{"name":"a"}]}]`, `[{"digest":"` + digest + `","references":[{"child_digest":"` + digest + `"}]}]`,
		`[null]`, `null`, `[{"digest":"x"}]`, `[{"digest":"` + digest + `","extra_attrs":5,"annotations":[]}]`, strings.Repeat("x", maxMessage-5) + canary} {
		f.Add([]byte(text), 200, "", "application/json; charset=utf-8", "<https://evil.site/>; rel=next")
		f.Add([]byte(text), 500, "", "text/plain", "")
		f.Add([]byte(text), 302, "1", "text/plain", "https://evil.site/"+canary)
	}
	f.Add([]byte(nil), 302, "", "text/plain", "\x7f"+canary)
	f.Add([]byte(nil), 302, "", "text/plain", strings.Repeat("\x7f\xff", maxMessage))
	f.Fuzz(func(t *testing.T, body []byte, status int, total, mediaType, link string) {
		if status < 200 || status > 599 {
			return
		}
		requests := 0
		c, err := New("https://harbor.site", Options{Username: "robot", Password: canary, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			requests++
			if r.URL.Host != "harbor.site" || r.URL.Scheme != "https" || !strings.HasPrefix(r.URL.Path, "/api/v2.0/projects/library/repositories/") {
				t.Errorf("%s was asked", r.URL)
			}
			header := http.Header{"Content-Type": {mediaType}, "Link": {link}, "Location": {link}, "X-Total-Count": {total}}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		c.sleep = func(context.Context, time.Duration) error { return nil }
		artifacts, err := c.Artifacts(t.Context(), "library", "app")
		if err != nil {
			var e *Error
			if artifacts != nil || !errors.As(err, &e) {
				t.Errorf("%d artifacts, %v", len(artifacts), err)
			}
			if text := err.Error(); strings.Contains(text, canary[:len(canary)/2]) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 3*maxMessage {
				t.Errorf("an error of %d bytes: %q", len(text), text)
			}
		}
		if requests > listTries*2+2 {
			t.Errorf("%d requests for one page", requests)
		}
		tags := map[string]bool{}
		for _, a := range artifacts {
			if a.Digest.IsZero() || !a.Created.IsZero() && a.Created.Before(firstCreated) {
				t.Errorf("artifact %+v", a)
			}
			for _, tag := range a.Tags {
				if tags[tag.Name] || !tagName.MatchString(tag.Name) {
					t.Errorf("tag %q twice, or none", tag.Name)
				}
				tags[tag.Name] = true
			}
			if text := a.Type + a.MediaType + a.ManifestMediaType; strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("artifact with %q", text)
			}
		}
		if err == nil {
			c.AddCreated(t.Context(), "library", "app", artifacts)
			if choice, err := Latest(artifacts, LatestRule{}); err == nil && !tags[choice.Tag] {
				t.Errorf("the latest tag is %q, which is none of %v", choice.Tag, tags)
			}
		}
	})
}

// FuzzSelector shows that a pattern of a rule at the server is judged in a
// limited number of steps, and the same for what is kept and what is not.
func FuzzSelector(f *testing.F) {
	for _, p := range []string{"**", "*", "v*", "{a,b}", "[", "a\\", "release-[0-9]*", "{v1.*,v2.*}", "**/**/**", strings.Repeat("{*,*}", 50), "{" + strings.Repeat("a,", 200) + "}", strings.Repeat("{", 50)} {
		f.Add(p, "v1.0")
		f.Add(p, strings.Repeat("a", 60))
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		selects := Selector{Pattern: pattern}.Selects(name)
		if excludes := (Selector{Pattern: pattern, Exclude: true}).Selects(name); excludes == selects {
			t.Errorf("pattern %q selects %q and excludes it: %t", pattern, name, selects)
		}
	})
}
