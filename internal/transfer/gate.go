package transfer

import (
	"context"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transport"
	"ferry/verify"
)

// Gate bounds how many pieces of work are under way with each host at once. A
// piece is what one element of a list means: a blob that is moved, a question
// that is asked.
//
// A piece names all hosts that it is going to talk to and enters for all of
// them at once, so that nobody who waits holds what another waits for. Who came
// first is let in first, but nobody waits for a host that he does not need.
//
// A host that says that it has too much to do, or does not answer in time, gets
// half of the work that is under way with it; when as many pieces as are
// allowed have gone well since then it gets one more, up to what it had in the
// beginning. Pieces that were under way when a limit was lowered say nothing
// about the new one.
//
// A Gate is safe for concurrent use. Where no Gate is, nothing is bounded.
type Gate struct {
	most int

	mu      sync.Mutex
	hosts   map[string]*room
	waiting []*visit // in the order in which they came
}

// NewGate returns a Gate that lets at most so many pieces of work be under way
// with one host.
func NewGate(most int) *Gate { return &Gate{most: max(most, 1), hosts: map[string]*room{}} }

// room is what may be under way at once with one host, or in one call.
type room struct {
	most   int
	limit  int
	inside int
	epoch  int // how often the limit was lowered
	good   int // pieces that went well since the limit was changed
}

// visit is a piece of work.
type visit struct {
	stays   []stay
	entered chan struct{} // closed when all rooms are entered
}

// stay is the part of a visit that concerns one room.
type stay struct {
	host     string // "" for a room that is no host's
	room     *room
	epoch    int // of the room when it was entered
	accepted bool
}

type gateKey int

const (
	ofGate gateKey = iota
	ofVisit
)

// With returns a context under which g bounds the work of this package.
func (g *Gate) With(ctx context.Context) context.Context {
	if g == nil {
		return ctx
	}
	return context.WithValue(ctx, ofGate, g)
}

// Observe is told what came of a request under a context that was made for a
// piece of work; it is for [transport.Options]. Requests of other contexts, and
// to hosts that the piece has not named, mean nothing.
func (g *Gate) Observe(ctx context.Context, host string, o transport.Outcome) {
	v, _ := ctx.Value(ofVisit).(*visit)
	if v == nil {
		return
	}
	host = gateName(host)
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range v.stays {
		if s := &v.stays[i]; s.host == host {
			s.observe(o)
		}
	}
}

// ObserveBucket is [Gate.Observe] for the service that keeps all buckets: it
// may have a host for each.
func (g *Gate) ObserveBucket(ctx context.Context, _ string, o transport.Outcome) {
	g.Observe(ctx, bucketHost, o)
}

func (s *stay) observe(o transport.Outcome) {
	switch {
	case o == transport.Accepted:
		s.accepted = true
	case s.epoch == s.room.epoch:
		s.room.limit = max(min(s.room.limit, s.room.inside)/2, 1)
		s.room.epoch++
		s.room.good = 0
	}
}

// leave ends a stay in which the work went well or not.
func (s *stay) leave(well bool) {
	r := s.room
	r.inside--
	if !well || !s.accepted || s.epoch != r.epoch {
		return
	}
	if r.good++; r.good >= r.limit {
		r.limit, r.good = min(r.limit+1, r.most), 0
	}
}

// enter waits until there is room with all hosts, and in more when it is not
// nil, or until ctx ends. The result is to be called when the work is done,
// with whether it went well; the work is done under the context.
func (g *Gate) enter(ctx context.Context, hosts []string, more *room) (context.Context, func(well bool), error) {
	v := &visit{entered: make(chan struct{})}
	g.mu.Lock()
	for _, host := range hosts {
		if g.hosts[host] == nil {
			g.hosts[host] = &room{most: g.most, limit: g.most}
		}
		v.stays = append(v.stays, stay{host: host, room: g.hosts[host]})
	}
	if more != nil {
		v.stays = append(v.stays, stay{room: more})
	}
	g.waiting = append(g.waiting, v)
	g.admit()
	g.mu.Unlock()
	select {
	case <-v.entered:
	case <-ctx.Done():
		g.mu.Lock()
		g.waiting = slices.DeleteFunc(g.waiting, func(w *visit) bool { return w == v })
		g.mu.Unlock()
		select {
		case <-v.entered:
			g.leave(v, false)
		default:
		}
		return nil, nil, ctx.Err()
	}
	return context.WithValue(ctx, ofVisit, v), func(well bool) { g.leave(v, well) }, nil
}

func (g *Gate) leave(v *visit, well bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range v.stays {
		v.stays[i].leave(well)
	}
	g.admit()
}

// admit lets in who waits and finds room.
func (g *Gate) admit() {
	g.waiting = slices.DeleteFunc(g.waiting, func(v *visit) bool {
		if slices.ContainsFunc(v.stays, func(s stay) bool { return s.room.inside >= s.room.limit }) {
			return false
		}
		for i := range v.stays {
			s := &v.stays[i]
			s.room.inside++
			s.epoch = s.room.epoch
		}
		close(v.entered)
		return true
	})
}

// gateOf returns the gate that bounds work under ctx, or nil. Work within a
// piece of work is a part of it: were it to wait, it would hold what it has.
func gateOf(ctx context.Context) *Gate {
	if ctx.Value(ofVisit) != nil {
		return nil
	}
	g, _ := ctx.Value(ofGate).(*Gate)
	return g
}

// lane does work that has to begin in an order: who waits for hosts keeps back
// all that come later. The range of a volume in S3 that was begun last may
// wait, inside, for those before it; were one of these to come later, it would
// find no room.
type lane struct {
	*errgroup.Group
	ctx    context.Context // of the work
	gate   *Gate           // may be nil
	places *room
}

// newLane returns a lane for so many jobs at a time, and the context that ends
// when one of them fails.
func newLane(ctx context.Context, jobs int) (*lane, context.Context) {
	l := &lane{gate: gateOf(ctx), places: newRoom(jobs)}
	l.Group, l.ctx = errgroup.WithContext(ctx)
	if l.gate == nil {
		l.SetLimit(l.places.limit)
	}
	return l, l.ctx
}

// begin waits until there is room for a piece of work, and begins it.
func (l *lane) begin(hosts []string, do func(context.Context) error) {
	if l.gate == nil {
		l.Go(func() error { return do(l.ctx) })
		return
	}
	ctx, leave, err := l.gate.enter(l.ctx, named(hosts), l.places)
	l.Go(func() error {
		if err != nil {
			return err
		}
		err := do(ctx)
		leave(err == nil)
		return err
	})
}

// eachAt is [each] for work that talks to hosts: what waits for one host does
// not keep back what needs others.
func eachAt[T any](ctx context.Context, jobs int, list []T, hosts func(T) []string, do func(context.Context, T) error) error {
	gate := gateOf(ctx)
	if gate == nil {
		return each(ctx, jobs, list, do)
	}
	places := newRoom(jobs)
	g, gctx := errgroup.WithContext(ctx)
	for _, group := range groupByHosts(list, hosts) {
		g.Go(func() error {
			for _, item := range group.items {
				ctx, leave, err := gate.enter(gctx, group.hosts, places)
				if err != nil {
					return err
				}
				g.Go(func() error {
					err := do(ctx, item)
					leave(err == nil)
					return err
				})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func newRoom(jobs int) *room {
	if jobs == 0 {
		jobs = defaultJobs
	}
	return &room{most: jobs, limit: jobs}
}

// hostGroup is work that talks to the same hosts.
type hostGroup[T any] struct {
	hosts []string
	items []T
}

// groupByHosts keeps the order of list within each group, and has the groups in
// the order of their first items.
func groupByHosts[T any](list []T, hosts func(T) []string) []*hostGroup[T] {
	var groups []*hostGroup[T]
	known := map[string]*hostGroup[T]{}
	for _, item := range list {
		names := named(hosts(item))
		key := strings.Join(names, " ")
		if known[key] == nil {
			known[key] = &hostGroup[T]{hosts: names}
			groups = append(groups, known[key])
		}
		known[key].items = append(known[key].items, item)
	}
	return groups
}

// named returns hosts by the names that a gate has for them, each once.
func named(hosts []string) []string {
	var names []string
	for _, host := range hosts {
		names = append(names, gateName(host))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// gateName returns the one name of a host that has several.
func gateName(host string) string {
	name, _ := registry.ParseHost(host)
	return name
}

// bucketHost stands for the S3 service: a command has one, whatever its buckets
// are called. No registry can have this name.
const bucketHost = "s3:"

// storeHosts returns the hosts that who reads or writes store talks to.
func storeHosts(store bundle.Store) []string {
	if strings.HasPrefix(store.String(), "s3://") {
		return []string{bucketHost}
	}
	return nil
}

// remote is a [Source] that talks to hosts.
type remote interface {
	// hostsOf returns where the manifest or blob is read from.
	hostsOf(d verify.Digest) []string
}

// sourceHosts returns the hosts that who reads d from src talks to.
func sourceHosts(src Source, d oci.Descriptor) []string {
	if r, ok := src.(remote); ok {
		return r.hostsOf(d.Digest)
	}
	return nil
}

func (s repositorySource) hostsOf(verify.Digest) []string { return []string{s.repo.Host} }

func (s selectionSource) hostsOf(d verify.Digest) []string { return s.s.hostsOf(d) }

func (s bundleSource) hostsOf(d verify.Digest) []string {
	if m, _ := s.r.ManifestOf(d); m != nil {
		return nil // in memory
	}
	return storeHosts(s.r.Store())
}

// hostsOf returns the host that has the blob d; manifests are in memory.
func (s *Selection) hostsOf(d verify.Digest) []string {
	if at, ok := s.origins[d]; ok {
		return []string{at.repo.Host}
	}
	return nil
}
