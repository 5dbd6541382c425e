package transfer_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/s3store"
)

// front stands before a real server. Requests that count, from when the test
// begins on, go by a policy.
type front struct {
	Host, URL string
	begun     atomic.Bool
}

func (f *front) begin() { f.begun.Store(true) }

// policy passes a request on with next, or reports that it is refused: it may
// come again after a second.
type policy func(r *http.Request, next func()) (refused bool)

// newFront returns a front before target.
func newFront(t *testing.T, target string, counts func(*http.Request) bool, do policy) *front {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{}
	pool := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	proxy := &httputil.ReverseProxy{Transport: pool, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // which may be signed
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next := func() { proxy.ServeHTTP(w, r) }
		if !f.begun.Load() || !counts(r) {
			next()
		} else if do(r, next) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(func() { server.Close(); pool.CloseIdleConnections() })
	f.URL, f.Host = server.URL, strings.TrimPrefix(server.URL, "http://")
	return f
}

// crowd counts who is there at once.
type crowd struct {
	mu        sync.Mutex
	now, most int
}

func (c *crowd) come() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	c.most = max(c.most, c.now)
	return c.now
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
}

// linger counts a request that has come, for a moment in which others come that
// may. It goes before its answer: what a crowd has was sent at once.
func (c *crowd) linger(moment time.Duration) {
	c.come()
	time.Sleep(moment)
	c.leave()
}

// meeting keeps the first so many requests back until all of them are there.
type meeting struct {
	mu       sync.Mutex
	left     int
	everyone chan struct{} // closed then
}

func newMeeting(n int) *meeting { return &meeting{left: n, everyone: make(chan struct{})} }

// attend reports whether the request was one of those that met.
func (m *meeting) attend(r *http.Request) bool {
	m.mu.Lock()
	m.left--
	left := m.left
	m.mu.Unlock()
	if left == 0 {
		close(m.everyone)
	}
	select {
	case <-m.everyone:
	case <-r.Context().Done():
	}
	return left >= 0
}

func isBlobRequest(r *http.Request) bool   { return strings.Contains(r.URL.Path, "/blobs/") }
func isVolumeRequest(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".tar") }

// gated returns a client whose requests tell gate how busy hosts are.
func gated(t *testing.T, gate *transfer.Gate, host string) *registry.Client {
	t.Helper()
	h, err := transport.New(transport.Options{Backoff: 20 * time.Millisecond, Observe: gate.Observe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	return registry.New(registry.Options{HTTP: h, PlainHTTP: []string{host}})
}

// many is how many jobs the following transfers have.
const many = 8

// gatedTransfer is a transfer that has one host behind a front.
type gatedTransfer struct {
	name   string
	target func(s *gatedSite) string // the server behind the front
	counts func(*http.Request) bool
	run    func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, place string) error
}

var places atomic.Int64

// do runs the transfer into a place of its own, and checks that all arrives.
func (tr gatedTransfer) do(t *testing.T, s *gatedSite, gate *transfer.Gate, f *front) {
	t.Helper()
	if err := tr.run(t, gate.With(t.Context()), s, gate, f, fmt.Sprintf("place%d", places.Add(1))); err != nil {
		t.Fatal(err)
	}
}

// gatedSite has what gated transfers begin with: the samples in a registry, in
// a folder, and in a bucket.
type gatedSite struct {
	outside, inside *registrytest.Server
	samples         []*registrytest.Sample
	folder          bundle.Store
	s3              *storetest.S3
}

func newGatedSite(t *testing.T, samples []*registrytest.Sample) *gatedSite {
	s := &gatedSite{outside: registrytest.Start(t, registrytest.Options{}), inside: registrytest.Start(t, registrytest.Options{}),
		samples: samples, folder: bundle.NewDir(t.TempDir()), s3: storetest.StartS3(t)}
	if err := registrytest.PushAll(t.Context(), s.outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	client := newClient(t)
	if _, err := export(t, client, requestsFor(t, s.outside.Host, samples), s.folder, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	copyTo(t, "to the bucket", bundle.Sub(s.folder, "demo/1"), s.bucket(t, s.s3.Endpoint, nil), false)
	return s
}

func (s *gatedSite) bucket(t *testing.T, endpoint string, gate *transfer.Gate) bundle.Store {
	t.Helper()
	h, err := transport.New(transport.Options{Retries: -1, Observe: gate.ObserveBucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	store, err := s3store.New(t.Context(), s3store.Options{Bucket: s.s3.Bucket, Prefix: "trip/demo/1", Endpoint: endpoint, HTTP: h})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (s *gatedSite) reader(t *testing.T) *bundle.Reader {
	return openReader(t, bundle.Sub(s.folder, "demo/1"), "")
}

// push pushes what src has to a host.
func push(ctx context.Context, client *registry.Client, src transfer.Source, deliveries []transfer.Delivery) error {
	o := transfer.PushOptions{Jobs: many, Progress: transfer.Silent{}}
	plan, err := transfer.PlanPush(ctx, client, src, deliveries, o)
	if err == nil {
		_, err = transfer.Push(ctx, client, src, plan, o)
	}
	return err
}

func (s *gatedSite) importFrom(t *testing.T, ctx context.Context, client *registry.Client, r *bundle.Reader, host, place string) error {
	deliveries, _, err := transfer.Deliveries(r, transfer.Destination{Host: host, Prefix: place})
	if err != nil {
		return err
	}
	if err := push(ctx, client, transfer.BundleSource(r), deliveries); err != nil {
		return err
	}
	checkArrived(t, newClient(t), s.inside.Host, place+"/", s.samples)
	return nil
}

func gatedTransfers() []gatedTransfer {
	outside := func(s *gatedSite) string { return s.outside.URL }
	inside := func(s *gatedSite) string { return s.inside.URL }
	bucket := func(s *gatedSite) string { return s.s3.Endpoint }
	return []gatedTransfer{
		{"export", outside, isBlobRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, _ string) error {
			f.begin()
			client, o, to := gated(t, gate, f.Host), options(t, "demo"), bundle.NewDir(t.TempDir())
			requests := requestsFor(t, f.Host, s.samples)
			for i := range requests { // the bundle is to be the same
				requests[i].Source = s.outside.Host + strings.TrimPrefix(requests[i].Source, f.Host)
			}
			selection, err := transfer.Resolve(ctx, client, requests, nil, 2*many)
			if err != nil {
				return err
			}
			plan, err := transfer.PlanExport(ctx, selection, to, testSigner(t), o)
			if err != nil {
				return err
			}
			o.Jobs = many
			if _, err = transfer.Export(ctx, plan, client, o); err != nil {
				return err
			}
			_, err = transfer.Verify(t.Context(), openReader(t, bundle.Sub(to, "demo/1"), ""), 1, transfer.Silent{})
			return err
		}},
		{"import", inside, isBlobRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, place string) error {
			f.begin()
			return s.importFrom(t, ctx, gated(t, gate, f.Host), s.reader(t), f.Host, place)
		}},
		{"within one registry", outside, isBlobRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, place string) error {
			f.begin()
			client := gated(t, gate, f.Host)
			selection, err := transfer.Resolve(ctx, client, requestsFor(t, f.Host, s.samples), nil, 2*many)
			if err != nil {
				return err
			}
			deliveries, err := selection.Deliveries(transfer.Destination{Host: f.Host, Prefix: place})
			if err != nil {
				return err
			}
			if err := push(ctx, client, selection.Source(client), deliveries); err != nil {
				return err
			}
			checkArrived(t, newClient(t), s.outside.Host, place+"/", s.samples)
			return nil
		}},
		{"import from S3", bucket, isVolumeRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, place string) error {
			r := openReader(t, s.bucket(t, f.URL, gate), "")
			f.begin()
			return s.importFrom(t, ctx, gated(t, gate, s.inside.Host), r, s.inside.Host, place)
		}},
		{"copy from S3", bucket, isVolumeRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, _ string) error {
			from, to := s.bucket(t, f.URL, gate), bundle.NewDir(t.TempDir())
			o := transfer.CopyOptions{Jobs: many, Progress: transfer.Silent{}, Say: t.Logf}
			r := openReader(t, from, "")
			f.begin()
			if _, err := transfer.Copy(ctx, r, to, o); err != nil {
				return err
			}
			checkEqual(t, "copy from S3", bundle.Sub(s.folder, "demo/1"), to)
			return nil
		}},
		{"verify in S3", bucket, isVolumeRequest, func(t *testing.T, ctx context.Context, s *gatedSite, gate *transfer.Gate, f *front, _ string) error {
			r := openReader(t, s.bucket(t, f.URL, gate), "")
			f.begin()
			_, err := transfer.Verify(ctx, r, many, transfer.Silent{})
			return err
		}},
	}
}

// heavies are images with more blobs than there are jobs, and not in common.
func heavies() []*registrytest.Sample {
	return []*registrytest.Sample{
		registrytest.Heavy("team/heavy", 40_000, 50_000, 60_000, 70_000, 80_000, 90_000, 100_000, 600_000),
		registrytest.Heavy("team/heavier", 41_000, 51_000, 61_000, 71_000, 81_000, 91_000, 101_000, 1_100_000),
	}
}

// However many jobs there are, no more requests about blobs are under way with
// a host than its limit says: not even where one registry is both source and
// destination, which ends all the same.
func TestHostJobs(t *testing.T) {
	s := newGatedSite(t, heavies()[:1])
	for _, tr := range gatedTransfers() {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			var c crowd
			f := newFront(t, tr.target(s), tr.counts, func(_ *http.Request, next func()) bool { c.linger(10 * time.Millisecond); next(); return false })
			tr.do(t, s, transfer.NewGate(1), f)
			if c.most != 1 {
				t.Errorf("%d at once, want 1", c.most)
			}
			// Without a limit all jobs are there at once, or this would not end.
			all := newMeeting(many)
			f = newFront(t, tr.target(s), tr.counts, func(r *http.Request, next func()) bool { all.attend(r); next(); return false })
			tr.do(t, s, transfer.NewGate(2*many), f)
		})
	}
}

// T42: all that was under way is refused. It comes again when the server has
// said, and from then on fewer requests are there at once than before.
func TestBusyHost(t *testing.T) {
	// Of the limit 8 the half is left, and one more when 4 went well; 5 more
	// would have to go well for the next.
	const later, most = 8, 5
	s := newGatedSite(t, heavies())
	for _, tr := range gatedTransfers() {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			var (
				c        crowd
				mu       sync.Mutex
				first    = map[string]bool{} // requests that were refused
				fresh    int                 // requests that were not
				refusals []time.Time
				soonest  = time.Hour // from the first refusal to what came after all of them
			)
			all := newMeeting(many)
			f := newFront(t, tr.target(s), tr.counts, func(r *http.Request, next func()) bool {
				key := r.Method + r.URL.RequestURI() + r.Header.Get("Range")
				came := time.Now()
				if all.attend(r) {
					mu.Lock()
					defer mu.Unlock()
					first[key] = true
					refusals = append(refusals, time.Now())
					return true
				}
				mu.Lock()
				soonest = min(soonest, came.Sub(refusals[0]))
				counted := !first[key] && fresh < later
				if counted {
					fresh++
				}
				mu.Unlock()
				if counted {
					c.linger(100 * time.Millisecond)
				}
				next()
				return false
			})
			tr.do(t, s, transfer.NewGate(many), f)
			if len(refusals) != many || fresh != later || c.most < 1 || c.most > most {
				t.Errorf("%d refused; of %d after them %d at once, want at most %d", len(refusals), fresh, c.most, most)
			}
			if soonest < time.Second {
				t.Errorf("one came %s after it was told to wait a second", soonest)
			}
		})
	}
}

// T42: a server that refuses whatever is more than two at once gets everything.
func TestTwoAtOnce(t *testing.T) {
	s := newGatedSite(t, heavies()[:1])
	for _, tr := range gatedTransfers() {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			var c crowd
			var refused atomic.Int64
			all := newMeeting(3)
			f := newFront(t, tr.target(s), tr.counts, func(r *http.Request, next func()) bool {
				here := c.come()
				defer c.leave()
				all.attend(r)
				if here > 2 {
					refused.Add(1)
					return true
				}
				next()
				return false
			})
			tr.do(t, s, transfer.NewGate(many), f)
			if refused.Load() == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// Blobs that have room in a bucket's memory for one part only come to an end
// with any limit: who waits at the gate is not whom others wait for.
func TestLimitsAndMemory(t *testing.T) {
	outside, s3 := registrytest.Memory(t, registrytest.Options{}), storetest.StartS3(t)
	sizes := slices.Repeat([]int{3 << 20, 9 << 20}, 4)
	sample := registrytest.Heavy("team/heavy", sizes...)
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{sample}); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 2, many} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			gate := transfer.NewGate(limit)
			client := gated(t, gate, outside.Host)
			store, err := s3store.New(t.Context(), s3store.Options{Bucket: s3.Bucket, Prefix: t.Name(), Endpoint: s3.Endpoint,
				HTTP: storetest.Client(t), Memory: 8 << 20, Parallel: limit})
			if err != nil {
				t.Fatal(err)
			}
			ctx, o := gate.With(t.Context()), options(t, "demo")
			o.Jobs = many
			selection, err := transfer.Resolve(ctx, client, requestsFor(t, outside.Host, []*registrytest.Sample{sample}), nil, many)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := transfer.PlanExport(ctx, selection, store, testSigner(t), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := transfer.Export(ctx, plan, client, o); err != nil {
				t.Fatal(err)
			}
			if _, err := transfer.Verify(ctx, openReader(t, bundle.Sub(store, "demo/1"), ""), many, transfer.Silent{}); err != nil {
				t.Error(err)
			}
		})
	}
}
