package transfer_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sync/errgroup"

	"ferry/bundle"
	"ferry/internal/faultproxy"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/s3store"
	"ferry/verify"
)

// The fault matrix: each operation meets each fault at its first, middle and
// last request, a few times and for ever (T41). Real servers stand behind the
// proxy. What a fault does with a time in it is scaled: ferry waits a minute
// for a byte, and here registryIdle.
const (
	registryIdle = time.Second
	s3Idle       = 2 * time.Second
	// cellDeadline is when a fault that lasts must have been told.
	cellDeadline = 3 * time.Minute
)

// operation is a kind of request within a flow.
type operation struct {
	name           string
	flow           string
	method, target string // regular expressions
	big            bool   // it takes volumes of several parts
}

var operations = []operation{
	{"get manifest", "export", "GET", "/manifests/", false},
	{"get blob", "export", "GET", "/blobs/sha256:", false},
	{"create upload", "export to S3", "POST", `[?&]uploads`, true},
	{"send part", "export to S3", "PUT", `partNumber=`, true},
	{"complete upload", "export to S3", "POST", `[?&]uploadId=`, true},
	{"put bundle.json", "export to S3", "PUT", `/bundle\.json(\?|$)`, false},
	{"list bucket", "export to S3", "GET", `list-type=2`, false},
	{"head manifest", "import", "HEAD", "/manifests/", false},
	{"head blob", "import", "HEAD", "/blobs/sha256:", false},
	{"begin upload", "import", "POST", "/blobs/uploads/", false},
	{"send blob", "import", "PATCH|PUT", "/blobs/uploads/", false},
	{"put manifest", "import", "PUT", "/manifests/sha256:", false},
	{"put tag", "import", "PUT", "/manifests/v[0-9]", false},
	{"get range", "import from S3", "GET", `\.tar(\?|$)`, false},
	{"get bundle.json", "import from S3", "GET", `/bundle\.json(\?|$)`, false},
	{"copy", "copy in S3", "", "", false},
}

// faultCase is a column of the matrix.
type faultCase struct {
	name string
	faultproxy.Fault
	// reaches says that the server does what it is asked: ferry may find
	// out and go on.
	reaches bool
	exits   []int // that are right when it does not end; docs/cli.md
}

var (
	busy  = http.Header{"Retry-After": {"1"}}
	login = http.Header{"Www-Authenticate": {`Basic realm="test"`}}
)

var faultCases = []faultCase{
	{"latency", faultproxy.Fault{Kind: faultproxy.Latency, Delay: 100 * time.Millisecond}, true, nil},
	{"stall", faultproxy.Fault{Kind: faultproxy.Stall}, false, []int{8}},
	{"reset before", faultproxy.Fault{Kind: faultproxy.ResetBefore}, true, []int{8}},
	{"reset in answer", faultproxy.Fault{Kind: faultproxy.ResetBody}, true, []int{8}},
	{"reset in request", faultproxy.Fault{Kind: faultproxy.ResetRequest}, false, []int{8}},
	{"short", faultproxy.Fault{Kind: faultproxy.ShortBody}, true, []int{8}},
	{"length too large", faultproxy.Fault{Kind: faultproxy.LongLength}, true, []int{4, 8}},
	{"length too small", faultproxy.Fault{Kind: faultproxy.ShortLength}, true, []int{4, 8}},
	{"trickle", faultproxy.Fault{Kind: faultproxy.Trickle, Delay: registryIdle / 60}, true, []int{8}}, // 1 B/s
	{"500", faultproxy.Fault{Kind: faultproxy.Status, Code: 500}, false, []int{8}},
	{"502", faultproxy.Fault{Kind: faultproxy.Status, Code: 502}, false, []int{8}},
	{"503", faultproxy.Fault{Kind: faultproxy.Status, Code: 503, Header: busy}, false, []int{8}},
	{"429", faultproxy.Fault{Kind: faultproxy.Status, Code: 429, Header: busy}, false, []int{8}},
	{"401", faultproxy.Fault{Kind: faultproxy.Status, Code: 401, Header: login, Body: `<Error><Code>ExpiredToken</Code></Error>`}, false, []int{5}},
	{"garbage", faultproxy.Fault{Kind: faultproxy.Garbage}, false, []int{8}},
	{"refuse", faultproxy.Fault{Kind: faultproxy.Refuse, Delay: 5 * time.Millisecond}, false, []int{8}},
	{"close", faultproxy.Fault{Kind: faultproxy.Close}, false, []int{8}},
}

// cell is one trial of the matrix.
type cell struct {
	operation
	faultCase
	position string
	lasting  bool
}

func (c cell) String() string {
	times := "passing"
	if c.lasting {
		times = "lasting"
	}
	return fmt.Sprintf("%s, %s: %s, %s, %s", c.flow, c.operation.name, c.faultCase.name, c.position, times)
}

var positions = []string{"first", "middle", "last"}

// allCells returns every cell.
func allCells() []cell {
	var all []cell
	for _, o := range operations {
		for _, f := range faultCases {
			for _, p := range positions {
				all = append(all, cell{o, f, p, false}, cell{o, f, p, true})
			}
		}
	}
	return all
}

// sampleCells returns some cells, the same each time: each operation and each
// fault twice at least where it passes, and each fault once where it lasts, in
// one of those that do not try for long: many are made of several requests, each
// of which is repeated.
func sampleCells(t *testing.T) []cell {
	all := allCells()
	r := rand.New(rand.NewPCG(4, 2026))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	ops, faults, lasting := map[string]int{}, map[string]int{}, map[string]int{}
	chosen := slices.DeleteFunc(all, func(c cell) bool {
		switch {
		case c.lasting:
			quick := c.operation.name == "get manifest" || c.operation.name == "put tag"
			if !quick || lasting[c.faultCase.name] > 0 {
				return true
			}
			lasting[c.faultCase.name]++
		case ops[c.operation.name] >= 2 && faults[c.faultCase.name] >= 2:
			return true
		default:
			ops[c.operation.name]++
			faults[c.faultCase.name]++
		}
		return false
	})
	if len(ops) != len(operations) || len(faults) != len(faultCases) || len(lasting) != len(faultCases) {
		t.Fatalf("the sample has %d operations, %d and %d faults", len(ops), len(faults), len(lasting))
	}
	slices.SortStableFunc(chosen, func(a, b cell) int { // what takes long begins first
		switch {
		case a.lasting == b.lasting:
			return 0
		case a.lasting:
			return -1
		}
		return 1
	})
	return chosen
}

// TestFaultMatrix: faults that pass end with equal content and at most three
// times the requests; those that last end in time with the right error, and
// what is visible then is whole; the same call without the fault succeeds. A
// request to a host does not come before Retry-After is over.
func TestFaultMatrix(t *testing.T) {
	cells := sampleCells(t)
	if os.Getenv("FERRY_SOAK") != "" {
		cells = allCells()
	}
	log.SetOutput(io.Discard) // net/http tells about what comes after an answer
	defer log.SetOutput(os.Stderr)
	s := newFaultSite(t)
	s.measure(t)
	var g errgroup.Group
	g.SetLimit(20) // most wait
	for _, c := range cells {
		if c.operation.name == "send blob" && c.Kind == faultproxy.Stall {
			// A registry has a quarter of an hour to file a blob, which
			// nothing here makes shorter.
			c.method = "PATCH"
		}
		g.Go(func() error {
			t.Run(c.String(), func(t *testing.T) { s.try(t, c) })
			return nil
		})
	}
	g.Wait()
	t.Logf("%d cells, of which %d have the requests of another position; at most %.2f times the requests",
		len(cells), s.same.Load(), float64(s.worst.Load())/100)
}

// faultSite is what all cells share: servers, content, and what an undisturbed
// run of each flow does.
type faultSite struct {
	outside, inside *registrytest.Server
	s3              *storetest.S3
	small, big      []*registrytest.Sample
	folder          bundle.Store // with the bundle of small
	numbers         atomic.Int64
	same, worst     atomic.Int64 // worst in percent
	// By flow and content:
	requests map[string][]faultproxy.Request
	digests  map[bool]verify.Digest // of the bundle, by big
}

// faultSamples returns images of layers with such sizes, with two tags each.
func faultSamples(n int, sizes ...int) []*registrytest.Sample {
	var all []*registrytest.Sample
	for i := range n {
		s := &registrytest.Sample{Name: fmt.Sprintf("fault %d", i), Repository: fmt.Sprintf("fault/image%d-%d", i, sizes[0]),
			Tags: map[string]verify.Digest{}, Referrers: map[verify.Digest][]verify.Digest{}}
		add := func(mediaType string, content []byte) oci.Descriptor {
			c := registrytest.Content{Descriptor: oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}, Bytes: content}
			s.Blobs = append(s.Blobs, c)
			return c.Descriptor
		}
		doc := map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
			"config": add(oci.MediaTypeConfig, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","sample":"%d of %d"}`, i, sizes[0]))}
		var layers []oci.Descriptor
		for k, size := range sizes {
			layers = append(layers, add("application/vnd.oci.image.layer.v1.tar", registrytest.Random(uint64(100*i+k), size)))
		}
		doc["layers"] = layers
		content, err := json.Marshal(doc)
		if err != nil {
			panic(err)
		}
		s.Root = oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: verify.DigestOf(content), Size: int64(len(content))}
		s.Manifests = []registrytest.Content{{Descriptor: s.Root, Bytes: content}}
		s.Tags["v1"], s.Tags["v2"] = s.Root.Digest, s.Root.Digest
		all = append(all, s)
	}
	return all
}

const bigVolume = 10 << 20 // bytes: two parts each

func newFaultSite(t *testing.T) *faultSite {
	t.Helper()
	s := &faultSite{
		outside: registrytest.Start(t, registrytest.Options{}), inside: registrytest.Start(t, registrytest.Options{}), s3: storetest.StartS3(t),
		small: faultSamples(3, 700<<10, 5000, 200<<10), big: faultSamples(3, 10<<20), // above 512 KiB a blob is sent by PATCH
		requests: map[string][]faultproxy.Request{}, digests: map[bool]verify.Digest{},
	}
	if err := registrytest.PushAll(t.Context(), s.outside.Host, slices.Concat(s.small, s.big)); err != nil {
		t.Fatal(err)
	}
	s.folder = bundle.NewDir(t.TempDir())
	direct, err := s3store.New(t.Context(), s3store.Options{Bucket: s.s3.Bucket, Prefix: "from", HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []bundle.Store{s.folder, direct} {
		if _, err := export(t, newClient(t), s.requestsAt(t, s.outside.Host, false), store, options(t, "demo")); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *faultSite) samples(big bool) []*registrytest.Sample {
	if big {
		return s.big
	}
	return s.small
}

// requestsAt asks for the samples at a host; the bundle does not say which.
func (s *faultSite) requestsAt(t *testing.T, host string, big bool) []transfer.Request {
	list := requestsFor(t, host, s.samples(big))
	for i := range list {
		list[i].Source = "registry.example/" + list[i].Reference.Repository + ":" + list[i].Reference.Tag
	}
	return list
}

// trial is one run of a flow through a proxy of its own, into a place of its
// own. Run can be called again.
type trial struct {
	proxy *faultproxy.Proxy
	run   func(ctx context.Context) error
	// whole checks that everything is there, and visible returns whether
	// anything is.
	whole   func(t *testing.T)
	visible func(t *testing.T) bool
}

type anyLogin struct{}

func (anyLogin) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: "dev", Password: "secret"}), nil
}

func (s *faultSite) client(t *testing.T, host string) *registry.Client {
	t.Helper()
	h, err := transport.New(transport.Options{Idle: registryIdle, Backoff: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseIdleConnections)
	return registry.New(registry.Options{HTTP: h, Keychain: anyLogin{}, PlainHTTP: []string{host}})
}

// store returns the store at a prefix, through a proxy as the command sets it
// up, or directly when there is none.
func (s *faultSite) store(t *testing.T, prefix string, p *faultproxy.Proxy) bundle.Store {
	t.Helper()
	o := s3store.Options{Bucket: s.s3.Bucket, Prefix: prefix, HTTP: storetest.Client(t)}
	if p != nil {
		var err error
		if o.HTTP, err = transport.New(transport.Options{Idle: s3Idle, Retries: -1}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.HTTP.CloseIdleConnections)
		o.Endpoint = p.URL
	}
	store, err := s3store.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// begin sets up the flow of an operation.
func (s *faultSite) begin(t *testing.T, o operation) *trial {
	t.Helper()
	place := fmt.Sprintf("cell%d", s.numbers.Add(1))
	switch o.flow {
	case "export":
		p := faultproxy.Start(t, s.outside.URL, faultproxy.Options{})
		dir := t.TempDir()
		store := func() bundle.Store { return bundle.NewDir(dir) }
		return s.bundleTrial(p, o, store(), store, func() string { return p.Host })
	case "export to S3":
		p := faultproxy.Start(t, s.s3.Endpoint, faultproxy.Options{})
		t.Cleanup(func() { os.RemoveAll(s.s3.File(place)) })
		return s.bundleTrial(p, o, s.store(t, place, p), func() bundle.Store { return s.store(t, place, nil) }, func() string { return s.outside.Host })
	case "import":
		p := faultproxy.Start(t, s.inside.URL, faultproxy.Options{})
		return s.importTrial(t, p, o, place, p.Host, bundle.Sub(s.folder, "demo/1"))
	case "import from S3":
		p := faultproxy.Start(t, s.s3.Endpoint, faultproxy.Options{})
		return s.importTrial(t, p, o, place, s.inside.Host, bundle.Sub(s.store(t, "from", p), "demo/1"))
	case "copy in S3":
		p := faultproxy.Start(t, s.s3.Endpoint, faultproxy.Options{})
		t.Cleanup(func() { os.RemoveAll(s.s3.File(place)) })
		from, to := s.store(t, "from/demo/1", p), s.store(t, place+"/demo/1", p)
		tr := s.bundleTrial(p, o, nil, func() bundle.Store { return s.store(t, place, nil) }, nil)
		tr.run = func(ctx context.Context) error {
			r, err := s.reader(ctx, from)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = transfer.Copy(ctx, r, to, transfer.CopyOptions{Progress: transfer.Silent{}, Say: t.Logf})
			return err
		}
		return tr
	}
	t.Fatalf("there is no flow %q", o.flow)
	return nil
}

func (s *faultSite) reader(ctx context.Context, store bundle.Store) (*bundle.Reader, error) {
	signer, err := committed()
	if err != nil {
		return nil, err
	}
	return bundle.OpenReader(ctx, store, "", bundle.ReadOptions{Policy: verify.KeyPolicy(signer.Key()), Now: testTime})
}

// bundleTrial is a trial that ends with a bundle in a store: the export from
// the registry at host into to. Direct opens the store without the proxy.
func (s *faultSite) bundleTrial(p *faultproxy.Proxy, o operation, to bundle.Store, direct func() bundle.Store, host func() string) *trial {
	tr := &trial{proxy: p}
	tr.visible = func(t *testing.T) bool {
		found, err := bundle.List(t.Context(), direct())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(f bundle.Found) bool { return !f.Pending })
	}
	tr.whole = func(t *testing.T) {
		r, err := s.reader(t.Context(), bundle.Sub(direct(), "demo/1"))
		if err != nil {
			t.Errorf("the bundle: %v", err)
			return
		}
		defer r.Close()
		if _, err := transfer.Verify(t.Context(), r, 2, transfer.Silent{}); err != nil {
			t.Errorf("the bundle: %v", err)
		}
		if s.digests[o.big].IsZero() { // undisturbed
			s.digests[o.big] = r.Digest()
		}
		if want := s.digests[o.big]; r.Digest() != want {
			t.Errorf("the bundle is %s, want %s", r.Digest(), want)
		}
	}
	tr.run = func(ctx context.Context) error {
		t := testOf(ctx)
		client := s.client(t, host())
		selection, err := transfer.Resolve(ctx, client, s.requestsAt(t, host(), o.big), nil, 4)
		if err != nil {
			return err
		}
		opts := options(t, "demo")
		if o.big {
			opts.VolumeSize = bigVolume
		}
		plan, err := transfer.PlanExport(ctx, selection, to, testSigner(t), opts)
		if err != nil {
			return err
		}
		_, err = transfer.Export(ctx, plan, client, opts)
		return err
	}
	return tr
}

// importTrial is a trial that ends with images in the registry inside, which
// is asked at host.
func (s *faultSite) importTrial(t *testing.T, p *faultproxy.Proxy, o operation, place, host string, from bundle.Store) *trial {
	tr, samples := &trial{proxy: p}, s.samples(o.big)
	direct := newClient(t)
	tr.whole = func(t *testing.T) {
		checkArrived(t, direct, s.inside.Host, place+"/", samples)
		s.checkBlobs(t, direct, place, samples)
	}
	tr.visible = func(t *testing.T) bool {
		any := false
		for _, sample := range samples {
			repo := registry.Repository{Host: s.inside.Host, Path: place + "/" + sample.Repository}
			tags, err := direct.Tags(t.Context(), repo)
			if err != nil && !errors.Is(err, registry.ErrNotFound) {
				t.Fatal(err)
			}
			for _, tag := range tags {
				any = true
				d, _, err := direct.Get(t.Context(), repo.Tag(tag))
				if err != nil || d.Digest != sample.Tags[tag] {
					t.Errorf("%s:%s is %s, %v", repo, tag, d.Digest, err)
				}
			}
			if len(tags) > 0 {
				s.checkBlobs(t, direct, place, []*registrytest.Sample{sample})
			}
		}
		return any
	}
	tr.run = func(ctx context.Context) error {
		r, err := s.reader(ctx, from)
		if err != nil {
			return err
		}
		defer r.Close()
		deliveries, assumed, err := transfer.Deliveries(r, transfer.Destination{Host: host, Prefix: place})
		if err != nil {
			return err
		}
		client := s.client(testOf(ctx), host)
		opts := transfer.PushOptions{Progress: transfer.Silent{}, Assumed: assumed}
		plan, err := transfer.PlanPush(ctx, client, transfer.BundleSource(r), deliveries, opts)
		if err != nil {
			return err
		}
		_, err = transfer.Push(ctx, client, transfer.BundleSource(r), plan, opts)
		return err
	}
	return tr
}

// checkBlobs checks that a registry has every blob of the samples.
func (s *faultSite) checkBlobs(t *testing.T, client *registry.Client, place string, samples []*registrytest.Sample) {
	for _, sample := range samples {
		repo := registry.Repository{Host: s.inside.Host, Path: place + "/" + sample.Repository}
		for _, b := range sample.Blobs {
			if n, ok, err := client.HasBlob(t.Context(), repo, b.Digest); !ok || n != b.Size || err != nil {
				t.Errorf("blob %s in %s: %d, %v, %v", b.Digest, repo, n, ok, err)
			}
		}
	}
}

type testKey struct{}

// testOf returns the test that a trial runs in.
func testOf(ctx context.Context) *testing.T { return ctx.Value(testKey{}).(*testing.T) }

// do runs a trial under a deadline.
func (tr *trial) do(t *testing.T) error {
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), testKey{}, t), cellDeadline)
	defer cancel()
	return tr.run(ctx)
}

// key names what an undisturbed run depends on.
func (o operation) key() string { return fmt.Sprintf("%s %v", o.flow, o.big) }

// measure runs each flow without a fault.
func (s *faultSite) measure(t *testing.T) {
	for _, o := range operations {
		if s.requests[o.key()] != nil {
			continue
		}
		tr := s.begin(t, o)
		if err := tr.do(t); err != nil {
			t.Fatalf("%s, undisturbed: %v", o.flow, err)
		}
		if !tr.visible(t) {
			t.Fatalf("%s, undisturbed: nothing is there", o.flow)
		}
		tr.whole(t)
		s.requests[o.key()] = tr.proxy.Requests()
	}
}

// count returns how many requests of an undisturbed run an operation has.
func (s *faultSite) count(o operation) int {
	match, n := faultproxy.Target(o.method, o.target), 0
	for _, r := range s.requests[o.key()] {
		q, err := http.NewRequest(r.Method, "http://x"+r.Target, nil)
		if err == nil && match(q) {
			n++
		}
	}
	return n
}

// try runs one cell.
func (s *faultSite) try(t *testing.T, c cell) {
	n := s.count(c.operation)
	if n == 0 {
		t.Fatal("an undisturbed run has no such request")
	}
	from := map[string]int{"first": 1, "middle": (n + 1) / 2, "last": n}[c.position]
	if c.position != "first" && from == 1 || c.position == "last" && from == (n+1)/2 {
		s.same.Add(1)
		return
	}
	tr := s.begin(t, c.operation)
	f := c.Fault
	f.Match, f.From, f.Times = faultproxy.Target(c.method, c.target), from, 1+(n+len(c.faultCase.name)+from)%2
	if c.Code == http.StatusUnauthorized {
		f.Times = 1 // more is a login that does not work
	}
	if c.lasting {
		f.Times = -1
		if f.Kind == faultproxy.Refuse {
			f.Delay = 0
		}
	}
	tr.proxy.Add(f)
	begin := time.Now()
	err := tr.do(t)
	took := time.Since(begin).Round(time.Millisecond)
	seen := tr.proxy.Requests()
	tr.proxy.Clear()
	if !slices.ContainsFunc(seen, func(r faultproxy.Request) bool { return r.Fault == f.Kind }) {
		t.Errorf("no request was hit")
	}
	checkRetryAfter(t, f, seen)
	lie := (f.Kind == faultproxy.ShortLength || f.Kind == faultproxy.LongLength) && slices.ContainsFunc(seen, func(r faultproxy.Request) bool {
		return r.Fault == f.Kind && r.Method == http.MethodHead
	})
	if lie { // about the size of what is there: a wrong fact, not a break
		c.exits, c.lasting = []int{4, 6, 8}, true
	}
	if !c.lasting {
		ratio := 100 * len(seen) / len(s.requests[c.key()])
		for was := s.worst.Load(); was < int64(ratio) && !s.worst.CompareAndSwap(was, int64(ratio)); was = s.worst.Load() {
		}
		if err != nil {
			t.Fatalf("after %s, %d requests: %v", took, len(seen), err)
		}
		if ratio > 300 {
			t.Errorf("%d requests, undisturbed %d", len(seen), len(s.requests[c.key()]))
		}
		tr.whole(t)
		return
	}
	s.checkLasting(t, c, tr, err, took)
	if err := tr.do(t); err != nil {
		t.Fatalf("again, without the fault: %v", err)
	}
	tr.whole(t)
}

// checkLasting checks how a run has ended whose fault did not pass.
func (s *faultSite) checkLasting(t *testing.T, c cell, tr *trial, err error, took time.Duration) {
	switch exit := exitOf(err); {
	case errors.Is(err, context.DeadlineExceeded):
		t.Errorf("not ended after %s: %v", took, err)
	case exit == 0 && !c.reaches:
		t.Error("it ends without an error")
	case exit != 0 && !slices.Contains(c.exits, exit):
		t.Errorf("exit code %d, want %v: %v", exit, c.exits, err)
	}
	if tr.visible(t) && !c.reaches && c.position == "first" && c.operation.name != "put tag" {
		t.Error("something is visible")
	}
	if strings.HasPrefix(c.flow, "export") && tr.visible(t) {
		tr.whole(t)
	}
}

// exitOf returns the exit code that the command has for err.
func exitOf(err error) int {
	var network *net.OpError
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case err == nil:
		return 0
	case is(registry.ErrUnauthorized, s3store.ErrDenied):
		return 5
	case is(transfer.ErrConflict, registry.ErrConflict, bundle.ErrExists):
		return 6
	case is(registry.ErrUnavailable, s3store.ErrUnavailable, bundle.ErrChanged) || errors.As(err, &network):
		return 8
	case is(bundle.ErrCorrupt, bundle.ErrIncomplete, bundle.ErrInvalid, verify.ErrMismatch, oci.ErrInvalid, transfer.ErrLost):
		return 4
	}
	return 1
}

// checkRetryAfter checks that after an answer with Retry-After nothing comes
// for a second: not the same request, nor, after what was under way already,
// any other.
func checkRetryAfter(t *testing.T, f faultproxy.Fault, seen []faultproxy.Request) {
	t.Helper()
	if f.Header.Get("Retry-After") == "" {
		return
	}
	var once sync.Once
	for _, hit := range seen {
		if hit.Fault != f.Kind {
			continue
		}
		for _, r := range seen {
			gap := r.Start.Sub(hit.Answered)
			same := r.Method == hit.Method && r.Target == hit.Target && (r.Method == http.MethodPut || r.Method == http.MethodPatch) // of others several may be under way
			if gap > 0 && gap < 990*time.Millisecond && (same || gap > 500*time.Millisecond) {
				once.Do(func() {
					t.Errorf("%s %s comes %s after %d to %s %s", r.Method, r.Target, gap, hit.Code, hit.Method, cmp.Or(hit.Target, "/"))
				})
			}
		}
	}
}
