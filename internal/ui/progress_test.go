package ui

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/transfer"
)

const mib = 1 << 20

// The tests run in bubbles of synctest: time passes when all goroutines
// sleep, and a goroutine that is left over fails the test.

func TestPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, out, err := newUI(t, Options{})
		p, stop := u.StartProgress("moving")
		time.Sleep(25050 * time.Millisecond) // looking around: nothing to tell yet
		p.Total(transfer.Totals{Items: 12, Bytes: 1400 * mib, SkippedItems: 3, SkippedBytes: 10 * mib})
		task := p.Start("a", 1300*mib)
		for range 150 { // 10 MiB/s for 15 s
			time.Sleep(100 * time.Millisecond)
			task.Add(mib)
		}
		u.Warn("a tag moved")
		time.Sleep(20 * time.Second) // it hangs
		task.Add(1150 * mib)
		task.Done(nil)
		for range 10 {
			p.Start("b", 10*mib).Done(nil)
		}
		p.Start("c", 0).Done(nil)
		stop()
		stop()
		want := `ferry: moving 12 blobs, 1.4 GiB (3 already there)
ferry: moving: 49.0 MiB of 1.4 GiB (3%), 0 of 12 blobs, 9.9 MiB/s, 2m16s left
ferry: moving: 149 MiB of 1.4 GiB (10%), 0 of 12 blobs, 10.1 MiB/s, 2m04s left
ferry: warning: a tag moved
ferry: moving: 150 MiB of 1.4 GiB (10%), 0 of 12 blobs, 103 KiB/s, 3h27m left
ferry: moving: 150 MiB of 1.4 GiB (10%), 0 of 12 blobs, 0 B/s
ferry: moving: done, 12 blobs, 1.3 GiB in 35s (37.1 MiB/s), 3 already there
`
		if err.String() != want || out.String() != "" {
			t.Errorf("stderr is\n%s, want\n%s; stdout %q", err, want, out)
		}
	})
}

func TestPlainEnds(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(p transfer.Progress)
		want string
	}{
		"nothing": {func(transfer.Progress) {}, ""},
		"all there": {func(p transfer.Progress) { p.Total(transfer.Totals{SkippedItems: 12, SkippedBytes: 3 * mib}) },
			"ferry: moving: nothing to do, 12 blobs (3.0 MiB) already there\n"},
		"one there": {func(p transfer.Progress) { p.Total(transfer.Totals{SkippedItems: 1}) },
			"ferry: moving: nothing to do, 1 blob (0 B) already there\n"},
		"never began": {func(p transfer.Progress) { p.Total(transfer.Totals{Items: 2, Bytes: 10}) },
			"ferry: moving: ended after 0 B of 10 B (0%), 0 of 2 blobs in 0.0s\n"},
		"found in place after all": {func(p transfer.Progress) {
			p.Total(transfer.Totals{Items: 2, Bytes: 4 * mib})
			p.Total(transfer.Totals{Items: -1, Bytes: -mib, SkippedItems: 1, SkippedBytes: mib})
			task := p.Start("a", 3*mib)
			time.Sleep(2 * time.Second)
			task.Add(3 * mib)
			task.Done(nil)
		}, "ferry: moving 1 blob, 3.0 MiB (1 already there)\nferry: moving: done, 1 blob, 3.0 MiB in 2.0s (1.5 MiB/s), 1 already there\n"},
		"mounted": {func(p transfer.Progress) {
			p.Total(transfer.Totals{Items: 2, Bytes: 10 * mib})
			task := p.Start("a", 2*mib)
			time.Sleep(time.Second)
			task.Add(2 * mib)
			task.Done(nil)
			p.Start("b", 8*mib).Done(nil)
		}, "ferry: moving 2 blobs, 10.0 MiB\nferry: moving: done, 2 blobs, 2.0 MiB in 1.0s (2.0 MiB/s)\n"},
		"failed": {func(p transfer.Progress) {
			p.Total(transfer.Totals{Items: 2, Bytes: 10 * mib})
			task := p.Start("a", 8*mib)
			task.Add(3 * mib)
			time.Sleep(time.Second)
			task.Done(errors.New("reset"))
		}, "ferry: moving 2 blobs, 10.0 MiB\nferry: moving: ended after 3.0 MiB of 10.0 MiB (30%), 0 of 2 blobs in 1.0s (3.0 MiB/s)\n"},
		"again": {func(p transfer.Progress) {
			p.Total(transfer.Totals{Items: 1, Bytes: 10 * mib})
			task := p.Start("a", 10*mib)
			task.Add(4 * mib)
			time.Sleep(time.Second)
			task.Add(-4 * mib)
			task.Add(10 * mib)
			task.Done(nil)
			task.Done(errors.New("late"))
			task.Add(mib)
		}, "ferry: moving 1 blob, 10.0 MiB\nferry: moving: done, 1 blob, 10.0 MiB in 1.0s (10.0 MiB/s)\n"},
		"still running": {func(p transfer.Progress) { p.Start("a", 5).Add(5) },
			"ferry: moving\nferry: moving: ended after 5 B, 0 blobs in 0.0s\n"},
		"unannounced": {func(p transfer.Progress) { p.Start("a", 5).Done(nil) },
			"ferry: moving\nferry: moving: done, 1 blob, 0 B in 0.0s\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			u, _, err := newUI(t, Options{Progress: ProgressPlain})
			p, stop := u.StartProgress("moving")
			c.run(p)
			stop()
			if err.String() != c.want {
				t.Errorf("%s: stderr is\n%s, want\n%s", name, err, c.want)
			}
		})
	}
}

func TestInterval(t *testing.T) {
	for o, want := range map[Options]int{
		{Progress: ProgressPlain}:                            6,
		{Progress: ProgressJSON}:                             60,
		{Progress: ProgressPlain, Interval: time.Second}:     60,
		{Progress: ProgressJSON, Interval: 20 * time.Second}: 3,
		{Progress: ProgressNone, Interval: time.Second}:      0,
	} {
		synctest.Test(t, func(t *testing.T) {
			u, _, err := newUI(t, o)
			p, stop := u.StartProgress("moving")
			p.Total(transfer.Totals{Items: 1, Bytes: 100})
			p.Start("a", 100)
			before := strings.Count(err.String(), "\n")
			time.Sleep(60*time.Second + time.Millisecond)
			if got := strings.Count(err.String(), "\n") - before; got != want {
				t.Errorf("%+v: %d lines in a minute, want %d", o, got, want)
			}
			stop()
		})
	}
}

func TestJSONProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, out, err := newUI(t, Options{Progress: ProgressJSON, Interval: 5 * time.Second})
		p, stop := u.StartProgress("moving")
		p.Total(transfer.Totals{Items: 2, Bytes: 3000, SkippedItems: 3, SkippedBytes: 77})
		time.Sleep(500 * time.Millisecond)
		a := p.Start("a", 2000)
		for range 10 {
			time.Sleep(time.Second)
			a.Add(100)
		}
		a.Done(errors.New("<reset> by https://u:CANARY@host/")) // T54
		p.Start("b", 1000).Done(nil)
		stop()
		p.Start("late", 1).Done(nil)
		const day = `"time":"2000-01-01T00:00:`
		want := `{"type":"start",` + day + `00.500Z","name":"a","bytes":2000}
{"type":"progress",` + day + `05.000Z","verb":"moving","items":0,"itemsTotal":2,"itemsSkipped":3,"bytes":400,"bytesTotal":3000,"bytesSkipped":77,"bytesMoved":400,"bytesPerSecond":88,"secondsLeft":30}
{"type":"progress",` + day + `10.000Z","verb":"moving","items":0,"itemsTotal":2,"itemsSkipped":3,"bytes":900,"bytesTotal":3000,"bytesSkipped":77,"bytesMoved":900,"bytesPerSecond":94,"secondsLeft":22}
{"type":"done",` + day + `10.500Z","name":"a","bytes":1000,"error":"<reset> by https://host/"}
{"type":"start",` + day + `10.500Z","name":"b","bytes":1000}
{"type":"done",` + day + `10.500Z","name":"b","bytes":0}
{"type":"end",` + day + `10.500Z","verb":"moving","items":1,"itemsTotal":2,"itemsSkipped":3,"bytes":2000,"bytesTotal":3000,"bytesSkipped":77,"bytesMoved":1000,"bytesPerSecond":100,"seconds":10}
`
		if got := err.String(); got != want || out.String() != "" {
			t.Errorf("stderr is\n%s, want\n%s; stdout %q", got, want, out)
		}
	})
}

// TestRateWindow shows that a rate is that of the last ten seconds, and that
// the time left is told when there is enough to tell it from.
func TestRateWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{}
		m.Total(transfer.Totals{Items: 1, Bytes: 100_000})
		task := m.Start("a", 100_000)
		step := func(seconds int, perSecond int64) view {
			for range seconds * 10 {
				time.Sleep(100 * time.Millisecond)
				task.Add(perSecond / 10)
			}
			return m.look()
		}
		near := func(what string, v view, rate int64, left time.Duration) {
			t.Helper()
			if v.rate < rate*9/10 || v.rate > rate*11/10 || v.left < left*9/10 || v.left > left*11/10 || !v.rated {
				t.Errorf("%s: rate %d (known: %v), %v left; want about %d, %v", what, v.rate, v.rated, v.left, rate, left)
			}
			if r := v.running[0]; r.rate != v.rate || !r.rated || r.moved != v.bytes {
				t.Errorf("%s: the only transfer says %+v, all say %+v", what, r, v)
			}
		}
		if v := m.look(); v.rated || v.left != 0 {
			t.Errorf("at the start: %+v", v)
		}
		if time.Sleep(900 * time.Millisecond); m.look().rated {
			t.Errorf("after 0.9 s: %+v", m.look())
		}
		near("after 2 s", step(1, 2000), 1052, 0)
		near("after 12 s", step(10, 1000), 1000, 88*time.Second)
		near("faster for 5 s", step(5, 3000), 2000, 36500*time.Millisecond)
		near("faster for 10 s", step(5, 3000), 3000, 19300*time.Millisecond)
		task.Add(-40_000)
		if v := m.look(); v.rate != 0 || v.left != 0 || v.bytes != 2000 || v.percent() != 2 {
			t.Errorf("taken back: %+v", v)
		}
		time.Sleep(time.Hour)
		if v := m.look(); v.rate != 0 || !v.rated || v.left != 0 {
			t.Errorf("standing still: %+v", v)
		}
		near("after an hour", step(10, 1000), 1000, 88*time.Second)
		task.Add(-50_000)
		if v := m.look(); v.bytes != 0 || v.percent() != 0 {
			t.Errorf("more taken back than there was: %+v", v)
		}
		task.Add(38_000 + 99_999)
		if v := m.look(); v.bytes != 99_999 || v.percent() != 99 {
			t.Errorf("all but one byte: %+v", v)
		}
		task.Add(2)
		if v := m.look(); v.percent() != 100 || v.left != 0 {
			t.Errorf("a byte too much: %+v", v)
		}
		task.Done(nil)
		if v := m.look(); v.bytes != 100_000 || !v.complete() {
			t.Errorf("done: %+v", v)
		}
	})
}

// TestMany moves in many goroutines at once while all kinds of progress and
// talk run, one after the other on the same UI.
func TestMany(t *testing.T) {
	for _, o := range []Options{{Progress: ProgressPlain}, {Progress: ProgressJSON}, {width: 80}, {Progress: ProgressNone}} {
		synctest.Test(t, func(t *testing.T) {
			u, _, err := newUI(t, o)
			for range 3 {
				p, stop := u.StartProgress("moving")
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() {
						for range 5 {
							p.Total(transfer.Totals{Items: 1, Bytes: 50})
							task := p.Start("x", 50)
							for range 5 {
								time.Sleep(330 * time.Millisecond)
								task.Add(10)
							}
							task.Done(nil)
							u.Warn("once more")
						}
					})
				}
				all.Wait()
				stop()
			}
			if got := strings.Count(err.String(), "ferry: warning: once more\n"); got != 300 {
				t.Errorf("%+v: %d of 300 messages", o, got)
			}
			ends := map[string]int{ProgressPlain: 3, "": 3}[o.Progress]
			if got := strings.Count(err.String(), "ferry: moving: done, 100 blobs, 4.9 KiB in 8.3s (606 B/s)\n"); got != ends {
				t.Errorf("%+v: %d summaries, want %d, in ...%s", o, got, ends, err.String()[len(err.String())-200:])
			}
		})
	}
}

// TestSecondStops shows that two progresses never run at once.
func TestSecondStops(t *testing.T) {
	for _, width := range []int{0, 80} {
		synctest.Test(t, func(t *testing.T) {
			u, _, err := newUI(t, Options{width: width})
			p, stop := u.StartProgress("exporting")
			p.Start("a", 5).Done(nil)
			_, stopSecond := u.StartProgress("copying")
			if !strings.Contains(err.String(), "ferry: exporting: done, 1 blob") {
				t.Errorf("width %d: the first did not end: %q", width, err)
			}
			stop()
			u.mu.Lock()
			if u.stop == nil || (u.above != nil) != (width > 0) {
				t.Errorf("width %d: the first stopped the second", width)
			}
			u.mu.Unlock()
			stopSecond()
		})
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		bytes, total int64
		want         int
	}{
		{0, 0, 0}, {5, 0, 0}, {0, 3, 0}, {1, 3, 33}, {2, 3, 66}, {3, 3, 100}, {4, 3, 100}, {999, 1000, 99},
		{1<<60 - 1, 1 << 60, 99}, // which are equal as float64
		{1<<62 - 1<<52, 1 << 62, 99}, {5, -1, 0},
	} {
		if got := (view{bytes: c.bytes, total: transfer.Totals{Bytes: c.total}}).percent(); got != c.want {
			t.Errorf("%d of %d are %d%%, want %d%%", c.bytes, c.total, got, c.want)
		}
	}
}
