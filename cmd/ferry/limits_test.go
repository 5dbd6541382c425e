package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/registrytest"
	"ferry/internal/storetest"
)

// turnstile passes requests on and counts how many of those that count have
// come at once. Each waits for a moment, in which others come that may.
type turnstile struct {
	counts func(*http.Request) bool

	mu             sync.Mutex
	now, most, all int
}

func (s *turnstile) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.counts(r) {
			s.mu.Lock()
			s.all++
			s.now++
			s.most = max(s.most, s.now)
			s.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			s.mu.Lock()
			s.now--
			s.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// check checks that at least some have come, and at most so many at once.
func (s *turnstile) check(t *testing.T, what string, some, most int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all < some || s.most < 1 || s.most > most {
		t.Errorf("%s: %d requests, %d at once; want at least %d, at most %d at once", what, s.all, s.most, some, most)
	}
	s.all, s.most = 0, 0
}

// startBucket returns the S3 server behind a turnstile.
func startBucket(t *testing.T, s3 *storetest.S3, s *turnstile) string {
	t.Helper()
	to, err := url.Parse(s3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	pool := &http.Transport{DisableCompression: true}
	proxy := &httputil.ReverseProxy{Transport: pool, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // which is signed
	}}
	server := httptest.NewServer(s.before(proxy))
	t.Cleanup(func() { server.Close(); pool.CloseIdleConnections() })
	return server.URL
}

// --host-jobs counts at each host, whatever --jobs says.
func TestHostJobsFlag(t *testing.T) {
	gets := &turnstile{counts: registrytest.Blobs("GET")}
	uploads := &turnstile{counts: func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }}
	parts := &turnstile{counts: func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }}
	ranges := &turnstile{counts: func(r *http.Request) bool { return r.Method == "GET" && strings.HasSuffix(r.URL.Path, ".tar") }}
	outside := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{gets.before}})
	inside := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{uploads.before}})
	s3 := storetest.StartS3(t)
	heavy := registrytest.Heavy("team/heavy", 9<<20, 8<<20, 7<<20, 50_000, 60_000, 70_000, 80_000, 90_000, 100_000)
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{heavy}); err != nil {
		t.Fatal(err)
	}
	dir, key, public := t.TempDir(), testKey(t, "one.key"), testKey(t, "one.pub")
	run := func(endpoint string, args ...string) {
		t.Helper()
		mustFerry(t, dir, append(args, "--jobs", "8", "--host-jobs", "1", "--s3-endpoint", endpoint)...)
	}
	from, bucket := outside.Host+"/team/heavy:heavy", "s3://"+s3.Bucket+"/limits"
	run(s3.Endpoint, "export", from, "usb", "--name", "n", "--version", "1", "--key", key)
	gets.check(t, "export", 10, 1)
	run(startBucket(t, s3, parts), "export", from, bucket, "--name", "n", "--version", "1", "--key", key)
	gets.check(t, "export to S3", 10, 1)
	parts.check(t, "export to S3", 3, 1)
	run(startBucket(t, s3, ranges), "import", bucket, inside.Host+"/site", "--key", public)
	uploads.check(t, "import from S3", 10, 1)
	ranges.check(t, "import from S3", 10, 1)
}

// --rate bounds a registry and a bucket. Without it these would take less than
// the bytes take at the rate; how much longer it takes is nobody's business.
func TestRateFlag(t *testing.T) {
	const size, rate = 150_000, 64 << 10
	outside, s3 := registrytest.Memory(t, registrytest.Options{}), storetest.StartS3(t)
	heavy := registrytest.Heavy("team/heavy", size)
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{heavy}); err != nil {
		t.Fatal(err)
	}
	dir, key, public := t.TempDir(), testKey(t, "one.key"), testKey(t, "one.pub")
	from, bucket := outside.Host+"/team/heavy:heavy", "s3://"+s3.Bucket+"/rate"
	const least = (size - rate/16) * time.Second / rate
	for _, args := range [][]string{
		{"export", from, "usb", "--name", "n", "--version", "1", "--key", key, "--rate", "64KiB/s"},
		{"copy", "usb/n/1", bucket, "--key", public, "--rate", "64KiB"},
		{"verify", bucket, "--key", public, "--rate", "0.065536MB/s"},
	} {
		begin := time.Now()
		mustFerry(t, dir, append(args, "--s3-endpoint", s3.Endpoint)...)
		if took := time.Since(begin); took < least {
			t.Errorf("ferry %s took %s, less than %s", args[0], took, least)
		}
	}
}
