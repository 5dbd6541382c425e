package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/transport"
)

// gateTrial plays events at a gate. Nothing in it runs at the same time.
type gateTrial struct {
	*testing.T
	gate   *Gate
	inside map[string]func(bool)
	of     map[string]context.Context
}

func newGateTrial(t *testing.T, most int) *gateTrial {
	return &gateTrial{t, NewGate(most), map[string]func(bool){}, map[string]context.Context{}}
}

// enter lets a piece of work in, for which there must be room.
func (g *gateTrial) enter(name string, hosts ...string) {
	g.Helper()
	if !g.fits(hosts...) {
		g.Fatalf("there is no room for %s", name)
	}
	ctx, leave, err := g.gate.enter(g.gate.With(g.Context()), named(hosts), nil)
	if err != nil {
		g.Fatal(err)
	}
	g.of[name], g.inside[name] = ctx, leave
}

// fits reports whether a piece of work would be let in now.
func (g *gateTrial) fits(hosts ...string) bool {
	ctx, cancel := context.WithCancel(g.gate.With(g.Context()))
	cancel() // so that nothing waits
	for _, host := range named(hosts) {
		g.gate.mu.Lock()
		r := g.gate.hosts[host]
		full := r != nil && r.inside >= r.limit
		g.gate.mu.Unlock()
		if full {
			if _, _, err := g.gate.enter(ctx, named(hosts), nil); !errors.Is(err, context.Canceled) {
				g.Fatalf("a full host lets in: %v", err)
			}
			return false
		}
	}
	return true
}

func (g *gateTrial) limit(host string) int {
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	return g.gate.hosts[host].limit
}

// Halved at most once for all that was under way, up by one after as many good
// pieces as the limit, never above the beginning (T42).
func TestGateAdapts(t *testing.T) {
	// An event is NAME+ (enter), NAME. (leave, all went well), NAME! (leave
	// after an error), NAME:ok, NAME:busy, NAME:late (what a request met), or
	// =N (the limit is N now).
	tests := []struct {
		name   string
		most   int
		events string
	}{
		{"one refusal of many", 8, "a+ b+ c+ d+ e+ f+ g+ h+ =8 a:busy =4"},
		{"all refused at once", 8, "a+ b+ c+ d+ e+ f+ g+ h+ a:busy b:busy c:late h:busy =4"},
		{"again and again by the same piece", 8, "a+ b+ c+ d+ e+ f+ g+ h+ a:busy a:busy a:busy a:late =4"},
		{"half of what is under way, not of what might be", 8, "a+ b+ a:busy =1"},
		{"never below one", 8, "a+ a:busy =1 a. b+ b:busy =1 b. c+ c:busy =1"},
		{"a refused newcomer halves again", 8,
			"a+ b+ c+ d+ e+ f+ g+ h+ a:busy =4 a. b. c. d. e. i+ i:late =2"},
		{"old successes do not raise", 4, "a+ b+ c+ d+ a:busy =2 b:ok c:ok d:ok b. c. d. =2"},
		{"up after a run as long as the limit", 4,
			"a+ b+ c+ d+ a:busy =2 a. b. c. d. e+ e:ok e. =2 f+ f:ok f. =3 g+ g:ok g. h+ h:ok h. =3 i+ i:ok i. =4"},
		{"not above the beginning", 2, "a+ b+ a:busy =1 a. b. c+ c:ok c. =2 d+ d:ok d. e+ e:ok e. f+ f:ok f. =2"},
		{"who asks nothing proves nothing", 4, "a+ b+ c+ d+ a:busy =2 a. b. c. d. e+ e. f+ f. g+ g. =2"},
		{"a failure is no success", 4, "a+ b+ c+ d+ a:busy =2 a. b. c. d. e+ e:ok e! f+ f:ok f! g+ g:ok g. =2 h+ h:ok h. =3"},
		{"a refusal begins the run anew", 4,
			"a+ b+ c+ d+ a:busy =2 a. b. c. d. e+ e:ok e. f+ g+ f:busy =1 f. g. h+ h:ok h. =2 i+ i:ok i. =2 j+ j:ok j. =3"},
		{"accepted at last is no success", 4, "a+ a:busy =1 a:ok a. =1 b+ b:ok b. =2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateTrial(t, tt.most)
			for i, event := range strings.Fields(tt.events) {
				name, what := event[:1], event[1:]
				switch what {
				case "+":
					g.enter(name, "host")
				case ".", "!":
					g.inside[name](what == ".")
				case ":ok":
					g.gate.Observe(g.of[name], "host", transport.Accepted)
				case ":busy":
					g.gate.Observe(g.of[name], "host", transport.Overloaded)
				case ":late":
					g.gate.Observe(g.of[name], "host", transport.TimedOut)
				default:
					if got := "=" + fmt.Sprint(g.limit("host")); got != event {
						t.Errorf("event %d: the limit is %s, want %s", i+1, got[1:], event[1:])
					}
				}
			}
		})
	}
}

// What one host says is about that host, and work outside says nothing.
func TestGateObserves(t *testing.T) {
	g := newGateTrial(t, 8)
	g.enter("a", "docker.io", "other:5000")
	g.enter("b", "docker.io", "other:5000")
	g.gate.Observe(t.Context(), "other:5000", transport.Overloaded)
	g.gate.Observe(g.of["a"], "auth.docker.io", transport.Overloaded)
	if d, o := g.limit("docker.io"), g.limit("other:5000"); d != 8 || o != 8 {
		t.Errorf("limits %d and %d, want 8", d, o)
	}
	g.gate.Observe(g.of["a"], "registry-1.docker.io", transport.Overloaded) // its name on the wire
	if d, o := g.limit("docker.io"), g.limit("other:5000"); d != 1 || o != 8 {
		t.Errorf("limits %d and %d, want 1 and 8", d, o)
	}
	g.enter("c", bucketHost)
	g.enter("d", bucketHost)
	g.gate.ObserveBucket(g.of["c"], "bucket.s3.example.test", transport.TimedOut)
	if s := g.limit(bucketHost); s != 1 {
		t.Errorf("limit %d, want 1", s)
	}
}

// Who waits for one host keeps nobody from others, and holds nothing meanwhile;
// of those who wait for the same the first is first.
func TestGateOrder(t *testing.T) {
	gate := NewGate(1)
	ctx := gate.With(t.Context())
	var order []string
	var mu sync.Mutex
	var all sync.WaitGroup
	done := make(chan struct{})
	begin := func(name string, hosts ...string) {
		gate.mu.Lock()
		before := len(gate.waiting)
		gate.mu.Unlock()
		all.Go(func() {
			_, leave, err := gate.enter(ctx, named(hosts), nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			if name == "both" || name == "waits" {
				<-done
			}
			leave(true)
		})
		for { // until it waits, or is inside
			gate.mu.Lock()
			waits := len(gate.waiting) > before
			gate.mu.Unlock()
			mu.Lock()
			inside := slices.Contains(order, name)
			mu.Unlock()
			if waits || inside {
				return
			}
		}
	}
	begin("both", "x", "y")
	begin("first for x", "x", "z")
	begin("free", "z")
	begin("second for x", "x")
	begin("third for x", "x")
	close(done)
	all.Wait()
	if want := []string{"both", "free", "first for x", "second for x", "third for x"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	for name, r := range gate.hosts {
		if r.inside != 0 || len(gate.waiting) != 0 {
			t.Errorf("%d are left at %s, and %d wait", r.inside, name, len(gate.waiting))
		}
	}
}

// A context that ends ends the wait, and what is left is not counted.
func TestGateCancel(t *testing.T) {
	gate := NewGate(1)
	_, leave, err := gate.enter(t.Context(), []string{"x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := gate.enter(ctx, []string{"x", "y"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	leave(true)
	for range 100 { // both may be ready: whatever it is, nothing stays behind
		if _, leave, err := gate.enter(ctx, []string{"x", "y"}, nil); err == nil {
			leave(true)
		}
	}
	for name, r := range gate.hosts {
		if r.inside != 0 || len(gate.waiting) != 0 {
			t.Errorf("%d are left at %s, and %d wait", r.inside, name, len(gate.waiting))
		}
	}
}

// meter counts how many are at each place at once.
type meter struct {
	mu        sync.Mutex
	now, most map[string]int
	done      int
}

func newMeter() *meter { return &meter{now: map[string]int{}, most: map[string]int{}} }

func (m *meter) in(places []string, do func()) {
	m.mu.Lock()
	for _, p := range places {
		m.now[p]++
		m.most[p] = max(m.most[p], m.now[p])
	}
	m.mu.Unlock()
	do()
	m.mu.Lock()
	m.done++
	for _, p := range places {
		m.now[p]--
	}
	m.mu.Unlock()
}

// Work with many sets of hosts, source and destination in both orders and the
// same, keeps to the limits of all hosts and of the call, and ends. Work within
// work does not wait.
func TestEachAt(t *testing.T) {
	hosts := []string{"a", "b", "c", "d"}
	var list [][]string
	for i := range 400 {
		list = append(list, []string{hosts[i%4], hosts[(i/4)%4]})
	}
	list = append(list, nil) // needs no host
	for _, tt := range []struct{ jobs, most, atHost, atAll int }{{8, 1, 1, 5}, {8, 2, 2, 8}, {3, 8, 3, 3}, {0, 8, 4, 4}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			m := newMeter()
			ctx := NewGate(tt.most).With(t.Context())
			do := func(ctx context.Context, at []string) error {
				m.in(append(named(at), "all"), func() {
					nested := eachAt(ctx, 2, []string{"a", "b"}, func(h string) []string { return []string{h} }, func(context.Context, string) error { return nil })
					l, _ := newLane(ctx, 1)
					l.begin(at, func(context.Context) error { return nil })
					if err := errors.Join(nested, l.Wait()); err != nil {
						t.Error(err)
					}
				})
				return nil
			}
			if err := eachAt(ctx, tt.jobs, list, func(at []string) []string { return at }, do); err != nil {
				t.Fatal(err)
			}
			if m.done != len(list) || m.most["all"] > tt.atAll {
				t.Errorf("%d of %d were done, %d at once, want at most %d", m.done, len(list), m.most["all"], tt.atAll)
			}
			for _, host := range hosts {
				if m.most[host] < 1 || m.most[host] > tt.atHost {
					t.Errorf("%d at once at %s, want at most %d", m.most[host], host, tt.atHost)
				}
			}
		})
	}
}

// Work for one host that does not come to an end keeps no job from the others.
func TestEachAtPasses(t *testing.T) {
	list := []string{"stuck", "stuck", "stuck", "stuck", "stuck", "free", "free"}
	release := make(chan struct{})
	var mu sync.Mutex
	left := 2
	err := eachAt(NewGate(1).With(t.Context()), 2, list, func(h string) []string { return []string{h} }, func(_ context.Context, host string) error {
		if host == "free" {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				close(release) // all of them are done
			}
			return nil
		}
		<-release
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// The first error ends all, and a cancelled context lets nobody in.
func TestEachAtFails(t *testing.T) {
	broken := errors.New("broken")
	list := slices.Repeat([]string{"x", "y"}, 100)
	host := func(h string) []string { return []string{h} }
	ctx, cancel := context.WithCancel(NewGate(1).With(t.Context()))
	err := eachAt(ctx, 4, list, host, func(ctx context.Context, h string) error {
		if h == "x" {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	cancel()
	if err := eachAt(ctx, 4, list[:0], host, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A lane begins no more at once than its jobs and the hosts allow, and no later
// work while earlier work waits.
func TestLane(t *testing.T) {
	for _, tt := range []struct{ jobs, most, atHost, atAll int }{{8, 1, 1, 2}, {8, 2, 2, 4}, {3, 8, 3, 3}, {0, 8, 4, 4}, {3, 0, 3, 3}} {
		m, ctx := newMeter(), t.Context()
		if tt.most > 0 { // or there is no gate
			ctx = NewGate(tt.most).With(ctx)
		}
		l, _ := newLane(ctx, tt.jobs)
		for i := range 200 {
			host := []string{"a", "a", "b"}[i%3]
			l.begin([]string{host}, func(context.Context) error {
				m.in([]string{host, "all"}, func() {})
				return nil
			})
		}
		if err := l.Wait(); err != nil {
			t.Fatal(err)
		}
		if m.done != 200 || m.most["all"] > tt.atAll || max(m.most["a"], m.most["b"]) > tt.atHost {
			t.Errorf("%v: %d were done, %v at once", tt, m.done, m.most)
		}
	}
}

func TestLaneOrder(t *testing.T) {
	gate := NewGate(1)
	l, _ := newLane(gate.With(t.Context()), 8)
	var first, second atomic.Bool
	l.begin([]string{"x"}, func(context.Context) error {
		for waits := 0; waits == 0; { // until the second does
			gate.mu.Lock()
			waits = len(gate.waiting)
			gate.mu.Unlock()
		}
		first.Store(true)
		return nil
	})
	l.begin([]string{"x"}, func(context.Context) error { second.Store(true); return nil })
	l.begin([]string{"free"}, func(context.Context) error {
		if !first.Load() {
			t.Error("the third began while the second waited for the first")
		}
		return nil
	})
	if err := l.Wait(); err != nil || !second.Load() {
		t.Errorf("error %v", err)
	}
}

// What a lane begins ends with the first error, and it waits no longer then.
func TestLaneFails(t *testing.T) {
	broken := errors.New("broken")
	l, ctx := newLane(NewGate(1).With(t.Context()), 4)
	l.begin([]string{"x"}, func(context.Context) error { return broken })
	for range 10 {
		l.begin([]string{"x"}, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	}
	if err := l.Wait(); !errors.Is(err, broken) || ctx.Err() == nil {
		t.Errorf("error %v", err)
	}
}
