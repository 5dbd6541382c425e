package ui

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"ferry/internal/transfer"
)

// style is one way to show what a meter counts. Any of the functions may be
// nil.
type style struct {
	tick func(v view) // every so often
	last func()       // before end, when nothing will be drawn any more
	end  func(v view)
}

// StartProgress begins to show a transfer, which verb names ("pushing"), and
// returns what is to be told of it. Stop ends the showing with a summary and
// returns when the last of it is written; it may be called again. Whoever
// starts a progress stops it, before the process ends, or messages may be
// lost. A progress that is still shown when the next one starts is stopped.
// What is told after stop is not shown.
func (u *UI) StartProgress(verb string) (_ transfer.Progress, stop func()) {
	u.mu.Lock()
	before := u.stop
	u.mu.Unlock()
	if before != nil {
		before()
	}
	var m *meter
	var s style
	switch u.progress {
	case ProgressNone:
		return transfer.Silent{}, func() {}
	case ProgressJSON:
		m, s = u.jsonProgress(verb)
	case ProgressAuto:
		m, s = u.drawnProgress(verb)
	default:
		m, s = u.plainProgress(verb)
	}
	quit, idle := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(idle)
		if s.tick == nil {
			return
		}
		ticker := time.NewTicker(u.interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.tick(m.look())
			case <-quit:
				return
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(quit)
		<-idle
		if s.last != nil {
			s.last()
		}
		m.silence()
		s.end(m.look())
		u.mu.Lock()
		u.stop = nil
		u.mu.Unlock()
	})
	u.mu.Lock()
	u.stop = stop
	u.mu.Unlock()
	return m, stop
}

// plainProgress tells in lines of talk.
func (u *UI) plainProgress(verb string) (*meter, style) {
	m := &meter{}
	m.onStart = func(_ string, _ int64, first bool) {
		if first {
			u.Say("%s", startLine(verb, m.look().total))
		}
	}
	return m, style{
		tick: func(v view) {
			if v.started {
				u.Say("%s", tickLine(verb, v))
			}
		},
		end: func(v view) { u.sayEnd(verb, v) },
	}
}

// sayEnd tells the summary, if there is anything to sum up.
func (u *UI) sayEnd(verb string, v view) {
	if v.started || v.total != (transfer.Totals{}) {
		u.Say("%s", endLine(verb, v))
	}
}

// startLine is like "moving 12 blobs, 1.4 GiB (3 already there)".
func startLine(verb string, t transfer.Totals) string {
	line := verb
	if t.Items > 0 {
		line += fmt.Sprintf(" %s, %s", blobs(t.Items), Bytes(t.Bytes))
	}
	if t.SkippedItems > 0 {
		line += fmt.Sprintf(" (%d already there)", t.SkippedItems)
	}
	return line
}

// tickLine is like "moving: 512 MiB of 1.4 GiB (36%), 5 of 12 blobs,
// 48.2 MiB/s, 19s left".
func tickLine(verb string, v view) string {
	parts := []string{progressed(v)}
	if v.rated {
		parts = append(parts, Bytes(v.rate)+"/s")
	}
	if v.left > 0 {
		parts = append(parts, roughly(v.left)+" left")
	}
	return verb + ": " + strings.Join(parts, ", ")
}

// endLine is like "moving: done, 12 blobs, 1.4 GiB in 31s (46.2 MiB/s), 3
// already there". It counts what went over the wire.
func endLine(verb string, v view) string {
	there := ""
	if n := v.total.SkippedItems; n > 0 {
		there = fmt.Sprintf(", %d already there", n)
	}
	if !v.started && v.total.Items == 0 {
		return fmt.Sprintf("%s: nothing to do, %s (%s) already there", verb, blobs(v.total.SkippedItems), Bytes(v.total.SkippedBytes))
	}
	state := "done, " + blobs(v.items) + ", " + Bytes(v.moved)
	if !v.complete() {
		state = "ended after " + progressed(v)
	}
	mean := ""
	if rate := perSec(v.moved, v.elapsed); rate > 0 {
		mean = fmt.Sprintf(" (%s/s)", Bytes(rate))
	}
	return fmt.Sprintf("%s: %s in %s%s%s", verb, state, Duration(v.elapsed), mean, there)
}

// progressed is like "512 MiB of 1.4 GiB (36%), 5 of 12 blobs".
func progressed(v view) string {
	if v.total.Items == 0 {
		return Bytes(v.bytes) + ", " + blobs(v.items)
	}
	return fmt.Sprintf("%s of %s (%d%%), %d of %s", Bytes(v.bytes), Bytes(v.total.Bytes), v.percent(), v.items, blobs(v.total.Items))
}

// roughly is [Duration] for a guess: no tenths of a second.
func roughly(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return Duration(d)
}

func blobs(n int) string {
	if n == 1 {
		return "1 blob"
	}
	return fmt.Sprintf("%d blobs", n)
}

// itemEvent is a "start" or "done" of the package comment.
type itemEvent struct {
	Type  string `json:"type"`
	Time  string `json:"time"`
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"`
}

// progressEvent is a "progress" or "end" of the package comment.
type progressEvent struct {
	Type           string   `json:"type"`
	Time           string   `json:"time"`
	Verb           string   `json:"verb"`
	Items          int      `json:"items"`
	ItemsTotal     int      `json:"itemsTotal"`
	ItemsSkipped   int      `json:"itemsSkipped"`
	Bytes          int64    `json:"bytes"`
	BytesTotal     int64    `json:"bytesTotal"`
	BytesSkipped   int64    `json:"bytesSkipped"`
	BytesMoved     int64    `json:"bytesMoved"`
	BytesPerSecond int64    `json:"bytesPerSecond"`
	SecondsLeft    *int64   `json:"secondsLeft,omitempty"`
	Seconds        *float64 `json:"seconds,omitempty"`
}

// jsonProgress tells in JSON Lines.
func (u *UI) jsonProgress(verb string) (*meter, style) {
	event := func(v view, kind string) progressEvent {
		return progressEvent{Type: kind, Time: stamp(v.now), Verb: verb,
			Items: v.items, ItemsTotal: v.total.Items, ItemsSkipped: v.total.SkippedItems,
			Bytes: v.bytes, BytesTotal: v.total.Bytes, BytesSkipped: v.total.SkippedBytes,
			BytesMoved: v.moved, BytesPerSecond: v.rate}
	}
	m := &meter{
		onStart: func(name string, size int64, _ bool) {
			u.event(itemEvent{Type: "start", Time: stamp(time.Now()), Name: name, Bytes: size})
		},
		onDone: func(name string, moved int64, err error) {
			e := itemEvent{Type: "done", Time: stamp(time.Now()), Name: name, Bytes: moved}
			if err != nil {
				e.Error = presentable(err.Error())
			}
			u.event(e)
		},
	}
	return m, style{
		tick: func(v view) {
			e := event(v, "progress")
			if v.left > 0 {
				left := int64(v.left.Round(time.Second) / time.Second)
				e.SecondsLeft = &left
			}
			u.event(e)
		},
		end: func(v view) {
			e, seconds := event(v, "end"), v.elapsed.Round(time.Millisecond).Seconds()
			e.BytesPerSecond, e.Seconds = perSec(v.moved, v.elapsed), &seconds
			u.event(e)
		},
	}
}

// event writes one line of JSON to stderr.
func (u *UI) event(e any) {
	line, err := encodeJSON(e, "")
	if err != nil {
		panic(err) // events have strings and numbers only
	}
	u.write(line)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
