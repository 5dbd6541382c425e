package ui

import (
	"slices"
	"sync"
	"time"

	"ferry/internal/transfer"
)

const (
	// rateSlots of slotTime are the ten seconds over which a rate is
	// measured: short enough to show a stall, long enough to be calm.
	rateSlots = 20
	slotTime  = 500 * time.Millisecond

	// minRateTime is the least time a rate is taken from, and minLeftTime
	// the least that is enough to foretell the end.
	minRateTime = time.Second
	minLeftTime = 3 * time.Second
)

// window counts bytes over the last ten seconds.
type window struct {
	began time.Time
	last  int64 // number of the slot that is being filled, from began on
	bytes [rateSlots]int64
}

// add counts n bytes at the time now.
func (w *window) add(now time.Time, n int64) {
	w.advance(now)
	w.bytes[w.last%rateSlots] += n
}

func (w *window) advance(now time.Time) {
	slot := int64(now.Sub(w.began) / slotTime)
	if slot-w.last >= rateSlots {
		w.bytes, w.last = [rateSlots]int64{}, slot
	}
	for w.last < slot {
		w.last++
		w.bytes[w.last%rateSlots] = 0
	}
}

// rate returns the bytes per second, and the time it was measured over.
func (w *window) rate(now time.Time) (perSecond int64, over time.Duration) {
	w.advance(now)
	over = now.Sub(w.began)
	if w.last >= rateSlots {
		over = (rateSlots-1)*slotTime + over%slotTime
	}
	var sum int64
	for _, n := range w.bytes {
		sum += n
	}
	return perSec(sum, over), over
}

// perSec returns n bytes in d as a rate, and 0 when d is too short for one.
func perSec(n int64, d time.Duration) int64 {
	if n <= 0 || d < time.Millisecond {
		return 0
	}
	return int64(float64(n) / d.Seconds())
}

// meter is a [transfer.Progress] that counts.
type meter struct {
	// onStart and onDone, where they are not nil, are told of each item,
	// outside of any lock.
	onStart func(name string, size int64, first bool)
	onDone  func(name string, moved int64, err error)

	mu      sync.Mutex
	total   transfer.Totals
	began   time.Time // when the first item started; zero before
	items   int       // that arrived whole
	bytes   int64     // in place of total.Bytes
	moved   int64     // over the wire
	rate    window
	running []*item // the oldest first
	silent  bool    // reports whether onStart and onDone are told no more
}

// item is a [transfer.Task].
type item struct {
	meter *meter
	name  string
	size  int64

	// Guarded by meter.mu:
	moved int64
	rate  window
	ended bool
}

func (m *meter) Total(t transfer.Totals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total.Items += t.Items
	m.total.Bytes += t.Bytes
	m.total.SkippedItems += t.SkippedItems
	m.total.SkippedBytes += t.SkippedBytes
}

func (m *meter) Start(name string, size int64) transfer.Task {
	now := time.Now()
	i := &item{meter: m, name: name, size: size, rate: window{began: now}}
	m.mu.Lock()
	first := m.began.IsZero()
	if first {
		m.began = now
		m.rate.began = now
	}
	m.running = append(m.running, i)
	tell := m.onStart != nil && !m.silent
	m.mu.Unlock()
	if tell {
		m.onStart(name, size, first)
	}
	return i
}

func (i *item) Add(n int64) {
	now, m := time.Now(), i.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	if i.ended {
		return
	}
	i.moved += n
	i.rate.add(now, n)
	m.bytes += n
	m.moved += n
	m.rate.add(now, n)
}

func (i *item) Done(err error) {
	m := i.meter
	m.mu.Lock()
	if i.ended {
		m.mu.Unlock()
		return
	}
	i.ended = true
	moved := i.moved
	if err == nil {
		// What arrived whole without moving, a mounted blob, is in place too.
		m.items++
		if i.size >= 0 {
			m.bytes += i.size - moved
		}
	}
	m.running = slices.DeleteFunc(m.running, func(r *item) bool { return r == i })
	tell := m.onDone != nil && !m.silent
	m.mu.Unlock()
	if tell {
		m.onDone(i.name, moved, err)
	}
}

// silence ends the calls of onStart and onDone.
func (m *meter) silence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent = true
}

// view is what a meter showed at one moment.
type view struct {
	now     time.Time
	total   transfer.Totals
	started bool
	elapsed time.Duration // since the first item started
	items   int
	bytes   int64
	moved   int64
	rate    int64         // bytes per second of late; 0 when unknown or none
	rated   bool          // reports whether rate is known
	left    time.Duration // until the end; 0 when unknown
	running []running     // the oldest first
}

// running is one item of a view.
type running struct {
	name        string
	size, moved int64
	rate        int64 // bytes per second
	rated       bool
	age         time.Duration
}

func (m *meter) look() view {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	v := view{now: now, total: m.total, items: m.items, bytes: max(m.bytes, 0), moved: max(m.moved, 0)}
	if m.began.IsZero() {
		return v
	}
	v.started = true
	v.elapsed = now.Sub(m.began)
	rate, over := m.rate.rate(now)
	if over >= minRateTime {
		v.rate, v.rated = rate, true
	}
	if rest := m.total.Bytes - v.bytes; over >= minLeftTime && rate > 0 && rest > 0 {
		// A second at least, so that it is not taken for unknown.
		v.left = time.Duration(max(float64(rest)/float64(rate), 1) * float64(time.Second))
		if v.left < 0 || v.left > maxLeft {
			v.left = 0
		}
	}
	for _, i := range m.running {
		r := running{name: i.name, size: i.size, moved: max(i.moved, 0), age: now.Sub(i.rate.began)}
		if rate, over := i.rate.rate(now); over >= minRateTime {
			r.rate, r.rated = rate, true
		}
		v.running = append(v.running, r)
	}
	return v
}

// maxLeft bounds a time left that is told: beyond it, the transfer stands.
const maxLeft = 100 * 24 * time.Hour

// percent returns how much of the bytes is in place: 100 when all are, and
// not before.
func (v view) percent() int {
	switch {
	case v.total.Bytes <= 0:
		return 0
	case v.bytes >= v.total.Bytes:
		return 100
	}
	return min(int(float64(v.bytes)/float64(v.total.Bytes)*100), 99)
}

// complete reports whether all that was announced has arrived.
func (v view) complete() bool {
	return v.items >= v.total.Items && len(v.running) == 0
}
