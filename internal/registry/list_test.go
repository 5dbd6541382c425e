package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// tagPages serves the list of n tags in pages of size.
func tagPages(n, size int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/tags/list") {
			return
		}
		first, _ := strconv.Atoi(r.URL.Query().Get("last"))
		var tags []string
		for i := first; i < min(first+size, n); i++ {
			tags = append(tags, fmt.Sprintf("t%06d", i))
		}
		if first+size < n { // as Harbor: path only, previous and next in one
			w.Header().Set("Link", fmt.Sprintf(`</v2/a/tags/list?last=%d&x=a,b>; rel="prev" , <%s?last=%d&x=a,b>; rel="next"`, first-size, r.URL.Path, first+size))
		}
		json.NewEncoder(w).Encode(map[string]any{"name": "a", "tags": tags})
	})
}

func TestTags(t *testing.T) {
	tests := []struct{ n, size, pages int }{
		{0, 10, 1}, {1, 10, 1}, {10, 10, 1}, {11, 10, 2}, {2500, 100, 25}, {1000, 1, 1000},
	}
	for _, tt := range tests {
		s := registrytest.Serve(t, tagPages(tt.n, tt.size), registrytest.Options{})
		tags, err := newClient(t, Options{}).Tags(t.Context(), Repository{s.Host, "a"})
		if err != nil || len(tags) != tt.n || !slices.IsSorted(tags) || s.Count("GET", "/tags/list") != tt.pages {
			t.Errorf("%d tags in pages of %d: %d tags, %v, %d pages", tt.n, tt.size, len(tags), err, s.Count("GET", "/tags/list"))
		}
	}
}

// T67
func TestTagsLimits(t *testing.T) {
	list := registrytest.Path("/tags/list")
	var hits atomic.Int32
	other := registrytest.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }), registrytest.Options{})
	body := func(tags ...string) string {
		b, _ := json.Marshal(map[string]any{"name": "a", "tags": tags})
		return string(b)
	}
	same := func(r *http.Request) string { return r.URL.RequestURI() }
	answer := func(b string) http.Handler {
		return registrytest.Answer(-1, list, 200, nil, b)(http.NotFoundHandler())
	}
	tests := []struct {
		name    string
		handler http.Handler
		fault   registrytest.Fault
		most    int // requests
	}{
		{"a page that links to itself", tagPages(5, 10), registrytest.LinkTo(list, same), 2},
		{"pages without end", tagPages(1<<30, 1), nil, maxPages},
		{"tags without end", tagPages(1<<30, 5000), nil, maxTags/5000 + 1},
		{"a link to another host", tagPages(5, 10), registrytest.LinkTo(list, func(*http.Request) string { return other.URL + "/v2/a/tags/list" }), 1},
		{"a link to another scheme", tagPages(5, 10), registrytest.LinkTo(list, func(r *http.Request) string { return "file:///etc/passwd" }), 1},
		{"a link to a user", tagPages(5, 10), registrytest.LinkTo(list, func(r *http.Request) string { return "http://evil@" + r.Host + "/v2/" }), 1},
		{"an endless page", registrytest.Endless(list, "application/json")(http.NotFoundHandler()), nil, 1},
		{"not JSON", answer("<html>"), nil, 1},
		{"a tag with a line break", answer(body("a\nb")), nil, 1}, // T40
		{"a tag with a path", answer(body("../x")), nil, 1},
		{"a tag too long", answer(body(strings.Repeat("x", 129))), nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f []registrytest.Fault
			if tt.fault != nil {
				f = append(f, tt.fault)
			}
			s := registrytest.Serve(t, registrytest.Answer(-1, func(r *http.Request) bool { return r.URL.Path == "/v2/" }, 200, nil, "")(tt.handler), registrytest.Options{Faults: f})
			tags, err := newClient(t, Options{}).Tags(t.Context(), Repository{s.Host, "a"})
			if err == nil || len(err.Error()) > 2000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%d tags, error %.300q", len(tags), fmt.Sprint(err))
			}
			if n := s.Count("GET", "/tags/list"); n > tt.most {
				t.Errorf("%d requests, want %d at most", n, tt.most)
			}
		})
	}
	if hits.Load() != 0 {
		t.Errorf("%d requests went to another host", hits.Load())
	}
}

func TestTagsOfBackends(t *testing.T) {
	backends(t, func(t *testing.T, start func(testing.TB, ...registrytest.Fault) *registrytest.Server) {
		img := sample(t, "team/single")
		for i := range 20 {
			img.Tags[fmt.Sprintf("v%03d", i)] = img.Root.Digest
		}
		s := start(t)
		r := push(t, img, s.Host)
		c := newClient(t, Options{})
		tags, err := c.Tags(t.Context(), r)
		if err != nil || len(tags) != len(img.Tags) {
			t.Errorf("%d tags, %v, want %d", len(tags), err, len(img.Tags))
		}
		if _, err := c.Tags(t.Context(), Repository{s.Host, "none"}); !errors.Is(err, ErrNotFound) {
			t.Errorf("tags of no repository: %v", err)
		}
	})
}

// Referrers are found by the API and by the fallback tag, and they are the
// same.
func TestReferrers(t *testing.T) {
	for name, s := range map[string]*registrytest.Server{
		"memory":       registrytest.Memory(t, registrytest.Options{}),
		"no API":       registrytest.Memory(t, registrytest.Options{NoReferrers: true}),
		"distribution": registrytest.Start(t, registrytest.Options{}),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, Options{})
			for _, path := range []string{"team/signed", "team/chain"} {
				img := sample(t, path)
				r := push(t, img, s.Host)
				for _, m := range img.Manifests {
					got, api, err := c.Referrers(t.Context(), r, m.Digest)
					if err != nil || api != (name == "memory") {
						t.Fatalf("Referrers = API %v, %v", api, err)
					}
					var digests []verify.Digest
					for _, d := range got {
						content, ok := img.Manifest(d.Digest)
						if !ok || d.Size != int64(len(content)) || d.MediaType != oci.MediaTypeManifest {
							t.Errorf("referrer %v", d)
						}
						digests = append(digests, d.Digest)
					}
					want := slices.Clone(img.Referrers[m.Digest])
					order := func(a, b verify.Digest) int { return strings.Compare(a.Hex(), b.Hex()) }
					slices.SortFunc(digests, order)
					slices.SortFunc(want, order)
					if !slices.Equal(digests, want) {
						t.Errorf("referrers of %s: %v, want %v", m.Digest, digests, want)
					}
				}
			}
			if got, _, err := c.Referrers(t.Context(), Repository{s.Host, "none/such"}, verify.DigestOf(nil)); err != nil || len(got) != 0 {
				t.Errorf("referrers in no repository: %v, %v", got, err)
			}
		})
	}
}

func TestReferrersAnswers(t *testing.T) {
	d := func(s string) oci.Descriptor {
		return oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: verify.DigestOf([]byte(s)), Size: int64(len(s))}
	}
	index := func(all ...oci.Descriptor) string {
		b, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": all})
		return string(b)
	}
	api := registrytest.Path("/referrers/")
	ofIndex := http.Header{"Content-Type": {oci.MediaTypeIndex}}
	many := make([]oci.Descriptor, 4000)
	for i := range many {
		many[i] = d(strconv.Itoa(i))
	}
	paged := func(pages ...string) registrytest.Fault {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !api(r) {
					next.ServeHTTP(w, r)
					return
				}
				i, _ := strconv.Atoi(r.URL.Query().Get("p"))
				w.Header().Set("Content-Type", oci.MediaTypeIndex)
				if i+1 < len(pages) {
					u := url.URL{Path: r.URL.Path, RawQuery: fmt.Sprintf("p=%d", i+1)}
					w.Header().Set("Link", "<"+u.String()+">; rel=next")
				}
				if pages[i] == "" {
					w.WriteHeader(404)
				}
				w.Write([]byte(pages[i]))
			})
		}
	}
	tests := []struct {
		name  string
		fault registrytest.Fault
		count int
		api   bool
		want  error
	}{
		{"one", registrytest.Answer(-1, api, 200, ofIndex, index(d("a"))), 1, true, nil},
		{"none", registrytest.Answer(-1, api, 200, ofIndex, index()), 0, true, nil},
		{"the same twice", registrytest.Answer(-1, api, 200, ofIndex, index(d("a"), d("a"))), 1, true, nil},
		{"pages", paged(index(d("a"), d("b")), index(d("b"), d("c")), index()), 3, true, nil},
		{"a page is missing", paged(index(d("a")), ""), 0, true, ErrNotFound},
		{"too many", paged(index(many...), index(many[:100]...)), 0, true, oci.ErrInvalid},
		{"malformed", registrytest.Answer(-1, api, 200, ofIndex, `{"schemaVersion":2,"manifests":[{"digest":"md5:x"}]}`), 0, false, oci.ErrInvalid}, // T12
		{"no index", registrytest.Answer(-1, api, 200, http.Header{"Content-Type": {"text/html"}}, "<html>"), 1, false, nil},
		{"bad request", registrytest.Answer(-1, api, 400, nil, ""), 1, false, nil},
		{"not allowed", registrytest.Answer(-1, api, 405, nil, ""), 1, false, nil},
		{"not yours", registrytest.Answer(-1, api, 403, nil, ""), 0, false, ErrUnauthorized},
		{"broken", registrytest.Answer(-1, api, 503, nil, ""), 0, false, ErrUnavailable},
	}
	subject := verify.DigestOf([]byte("subject"))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fallback := registrytest.Answer(-1, registrytest.Path("/manifests/"+FallbackTag(subject)), 200, ofIndex, index(d("f")))
			s := memory(t, tt.fault, fallback)
			got, api, err := newClient(t, Options{}).Referrers(t.Context(), Repository{s.Host, "a"}, subject)
			if !is(err, tt.want) || err == nil && (len(got) != tt.count || api != tt.api) {
				t.Errorf("Referrers = %d, API %v, %v, want %d, %v, %v", len(got), api, err, tt.count, tt.api, tt.want)
			}
		})
	}
	t.Run("fallback tag names an image", func(t *testing.T) {
		s := registrytest.Memory(t, registrytest.Options{NoReferrers: true, Faults: []registrytest.Fault{
			registrytest.Answer(-1, registrytest.Manifests("GET"), 200, http.Header{"Content-Type": {oci.MediaTypeManifest}}, "{}")}})
		if got, _, err := newClient(t, Options{}).Referrers(t.Context(), Repository{s.Host, "a"}, subject); err != nil || len(got) != 0 {
			t.Errorf("Referrers = %v, %v", got, err)
		}
	})
}
