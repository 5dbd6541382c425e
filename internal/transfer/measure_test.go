package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ferry/internal/transfer"
)

// ticking is a clock that goes on by a step whenever it is asked.
type ticking struct {
	mu   sync.Mutex
	at   time.Time
	step time.Duration
}

func (c *ticking) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(c.step)
	return c.at
}

// counting reads zeros without end, and counts them.
type counting struct {
	bytes  int64
	closed bool
}

func (c *counting) Read(p []byte) (int, error) { c.bytes += int64(len(p)); return len(p), nil }
func (c *counting) Close() error               { c.closed = true; return nil }

// A measurement reads and writes no more than it may, leaves nothing behind,
// and says what the clock says.
func TestMeasure(t *testing.T) {
	dir, source, asked := t.TempDir(), &counting{}, 0
	clock := &ticking{at: testTime, step: 100 * time.Millisecond}
	m := transfer.Probe{
		Open:   []func(context.Context) (io.ReadCloser, error){func(context.Context) (io.ReadCloser, error) { return source, nil }},
		Ask:    func(context.Context) error { asked++; return nil },
		Folder: dir,
		Now:    clock.now,
	}.Measure(t.Context())
	if source.bytes > 8<<20+32<<10 || !source.closed || asked != 1 {
		t.Errorf("%d bytes were read (closed: %t), %d requests sent", source.bytes, source.closed, asked)
	}
	// 8 MiB in one step; a request in one; a block in each until five have
	// passed.
	want := transfer.Measured{ReadRate: 80 << 20, Latency: 100 * time.Millisecond, WriteRate: 10 << 20}
	if m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
	local := transfer.Probe{Local: true, Now: clock.now,
		Open: []func(context.Context) (io.ReadCloser, error){func(context.Context) (io.ReadCloser, error) { return &counting{}, nil }}}
	if m := local.Measure(t.Context()); m != (transfer.Measured{ReadRate: 80 << 20}) {
		t.Errorf("of a folder: %+v", m)
	}
	if list, err := os.ReadDir(dir); len(list) != 0 || err != nil {
		t.Errorf("%v, %v are left", list, err)
	}
}

// late is a source that asks for its content when it is read first.
type late struct {
	counting
	clock *ticking
}

func (l *late) Read(p []byte) (int, error) {
	if l.bytes == 0 {
		l.clock.now()
	}
	return l.counting.Read(p)
}

// The latency is that of the first byte, and does not count as reading.
func TestMeasureLate(t *testing.T) {
	clock := &ticking{at: testTime, step: 100 * time.Millisecond}
	m := transfer.Probe{Now: clock.now, Open: []func(context.Context) (io.ReadCloser, error){
		func(context.Context) (io.ReadCloser, error) { return &late{clock: clock}, nil }}}.Measure(t.Context())
	if want := (transfer.Measured{ReadRate: 80 << 20, Latency: 200 * time.Millisecond}); m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
}

// What can not be measured is not told, and nothing waits for it.
func TestMeasureNothing(t *testing.T) {
	broken := errors.New("broken")
	few := func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, 1000))), nil
	}
	stuck := func(ctx context.Context) (io.ReadCloser, error) { <-ctx.Done(); return nil, ctx.Err() }
	fails := func(context.Context) (io.ReadCloser, error) { return nil, broken }
	for name, p := range map[string]transfer.Probe{
		"nothing": {Now: time.Now},
		"a stopped clock": {Now: func() time.Time { return testTime }, Folder: t.TempDir(),
			Ask:  func(context.Context) error { return nil },
			Open: []func(context.Context) (io.ReadCloser, error){func(context.Context) (io.ReadCloser, error) { return &counting{}, nil }}},
		"errors": {Now: time.Now, Folder: filepath.Join(t.TempDir(), "none"), Ask: func(context.Context) error { return broken },
			Open: []func(context.Context) (io.ReadCloser, error){fails, stuck}},
	} {
		if m := p.Measure(t.Context()); m != (transfer.Measured{}) {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m := (transfer.Probe{Now: time.Now, Open: []func(context.Context) (io.ReadCloser, error){few}}).Measure(t.Context()); m.ReadRate != 0 {
		t.Errorf("of 1000 bytes: %+v", m)
	}
}

func TestEstimate(t *testing.T) {
	const mib = 1 << 20
	whole := transfer.Measured{ReadRate: 100 * mib, WriteRate: 20 * mib, Latency: 10 * time.Millisecond}
	for _, test := range []struct {
		name           string
		m              transfer.Measured
		read, written  int64
		requests, jobs int
		whole          bool
		want           transfer.Estimate
		ok             bool
	}{
		{"the disk is slower", whole, 1000 * mib, 1000 * mib, 40, 4, true, transfer.Estimate{Least: 50 * time.Second, Most: 60*time.Second + 100*time.Millisecond}, true},
		{"the source is slower", whole, 1000 * mib, 20 * mib, 0, 4, true, transfer.Estimate{Least: 10 * time.Second, Most: 11 * time.Second}, true},
		{"to a registry", whole, 1000 * mib, 0, 40, 4, false, transfer.Estimate{Least: 10 * time.Second}, true},
		{"requests", whole, 0, 0, 4000, 1, false, transfer.Estimate{Least: 40 * time.Second}, true},
		{"the source was not measured", transfer.Measured{WriteRate: mib}, 1, 1, 0, 4, true, transfer.Estimate{}, false},
		{"the disk was not measured", transfer.Measured{ReadRate: mib}, 1, 1, 0, 4, true, transfer.Estimate{}, false},
		{"nothing to do", whole, 0, 0, 0, 4, true, transfer.Estimate{}, false},
	} {
		if got, ok := test.m.Estimate(test.read, test.written, test.requests, test.jobs, test.whole); got != test.want || ok != test.ok {
			t.Errorf("%s: %+v, %t, want %+v, %t", test.name, got, ok, test.want, test.ok)
		}
	}
}
