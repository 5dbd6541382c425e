package ui

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/transfer"
)

func TestFrame(t *testing.T) {
	busy := view{
		started: true, total: transfer.Totals{Items: 40, Bytes: 1400 * mib}, items: 5, bytes: 512 * mib,
		rate: 48*mib + mib/4, rated: true, left: 18400 * time.Millisecond,
		running: []running{
			{name: "sha256:" + strings.Repeat("0123456789abcdef", 4), size: 100 * mib, moved: 12*mib + mib/3, rate: 10 * mib, rated: true, age: time.Minute},
			{name: "library/漢字 \x1b[2J", size: 3000, moved: 4000, age: time.Second},
			{name: "young", size: 1, age: time.Millisecond},
			{name: "empty", age: time.Second},
		},
	}
	crowd := view{total: transfer.Totals{Items: 40}, items: 12, bytes: 5}
	for i := range 12 {
		crowd.running = append(crowd.running, running{name: fmt.Sprint("item", i), size: 10, moved: int64(i), age: time.Minute})
	}
	for _, c := range []struct {
		name          string
		v             view
		width, height int
		want          string
	}{
		{"wide", busy, 120, 24, `
pushing  36% [===========>                    ]   512 MiB/1.4 GiB   48.2 MiB/s     18s left   5/40
  sha256:0123456789ab                                             12%  12.3 MiB/100 MiB   10.0 MiB/s
  library/漢字 \x1b[2J                                           100%   3.9 KiB/2.9 KiB
  empty                                                                     0 B/0 B`},
		{"usual", busy, 80, 24, `
pushing  36% [====>      ]   512 MiB/1.4 GiB   48.2 MiB/s     18s left   5/40
  sha256:0123456789ab                        12%  12.3 MiB/100 MiB   10.0 MiB/s
  library/漢字 \x1b[2J                      100%   3.9 KiB/2.9 KiB
  empty                                                0 B/0 B`},
		{"narrow", busy, 40, 24, `
pushing  36%  48.2 MiB/s     18s left
  sha256:0123456789ab               12%
  library/漢字 \x1b[2J             100%
  empty`},
		{"tiny", busy, 20, 24, `
pushing  36%`},
		{"one column", busy, 1, 24, `
.`},
		{"low", busy, 80, 4, `
pushing  36% [====>      ]   512 MiB/1.4 GiB   48.2 MiB/s     18s left   5/40
  sha256:0123456789ab                        12%  12.3 MiB/100 MiB   10.0 MiB/s
  and 3 more`},
		{"two lines", busy, 80, 2, `
pushing  36% [====>      ]   512 MiB/1.4 GiB   48.2 MiB/s     18s left   5/40`},
		{"bytes unknown", crowd, 60, 10, `
pushing       5 B                            12/40
  item0                                      0%
  item1                                     10%
  item2                                     20%
  item3                                     30%
  item4                                     40%
  item5                                     50%
  and 6 more`},
		{"nothing known", view{}, 60, 10, `
pushing       0 B`},
	} {
		got := "\n" + strings.Join(frame("pushing", c.v, c.width, c.height), "\n")
		if got != c.want {
			t.Errorf("%s:%s\nwant:%s", c.name, got, c.want)
		}
	}
}

// TestFrameFits shows that no frame wraps or scrolls, whatever the numbers.
func TestFrameFits(t *testing.T) { // T40
	number := rapid.Int64Range(0, 1<<60)
	rapid.Check(t, func(t *rapid.T) {
		v := view{
			total: transfer.Totals{Items: rapid.IntRange(0, 100_000).Draw(t, "items"), Bytes: number.Draw(t, "bytes")},
			items: rapid.IntRange(0, 200_000).Draw(t, "done"), bytes: number.Draw(t, "at"),
			rate: number.Draw(t, "rate"), rated: rapid.Bool().Draw(t, "rated"), left: time.Duration(rapid.Int64Range(0, int64(maxLeft)).Draw(t, "left")),
		}
		for range rapid.IntRange(0, 9).Draw(t, "running") {
			v.running = append(v.running, running{name: foreign.Draw(t, "name"), size: number.Draw(t, "size"), moved: number.Draw(t, "moved"),
				rate: number.Draw(t, "r"), rated: rapid.Bool().Draw(t, "rr"), age: time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "age"))})
		}
		width, height := rapid.IntRange(1, 200).Draw(t, "width"), rapid.IntRange(2, 30).Draw(t, "height")
		rows := frame("importing", v, width, height)
		if len(rows) >= height || len(rows) < 1 || len(rows) > 2+maxDrawn {
			t.Fatalf("%d rows on %d lines", len(rows), height)
		}
		for _, row := range rows {
			if bad := forbidden(row); bad != "" || textColumns(row) >= max(width, 2) || strings.Contains(row, "\n") {
				t.Fatalf("row %q on %d columns: %s", row, width, bad)
			}
		}
	})
}

// TestFrameIsCalm shows that what a number is does not move its neighbours.
func TestFrameIsCalm(t *testing.T) {
	for width := 30; width < 150; width++ {
		shape := func(v view) string {
			v.total, v.rated = transfer.Totals{Items: 1234, Bytes: 1 << 40}, true
			row := []rune(frame("importing", v, width, 24)[0])
			for i, r := range row {
				if !strings.ContainsRune("%[]/", r) {
					row[i] = ' '
				}
			}
			return strings.TrimRight(string(row), " ")
		}
		want := shape(view{})
		for n := int64(1); n < 1<<40; n = n*3 + 7 {
			got := shape(view{bytes: n, rate: n, items: int(n % 1234), left: time.Duration(n%1e15 + 1e9)})
			// "MiB/s" has no fixed place within its ten columns.
			if strings.Count(got, "%") != 1 || strings.IndexRune(got, ']') != strings.IndexRune(want, ']') || strings.Count(got, "/") != strings.Count(want, "/") {
				t.Fatalf("width %d, %d: %q, want %q", width, n, got, want)
			}
		}
	}
}

// TestDraw draws on a screen as large as many are.
func TestDraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(80, 24)
		u, err := New(Options{Stderr: s, width: 80})
		if err != nil {
			t.Fatal(err)
		}
		u.Say("before")
		p, stop := u.StartProgress("pushing")
		p.Total(transfer.Totals{Items: 3, Bytes: 30 * mib, SkippedItems: 2})
		a, b := p.Start("a", 10*mib), p.Start("b", 20*mib)
		for range 5 {
			time.Sleep(time.Second)
			a.Add(2 * mib)
			u.Warn("tag\nmoved")
		}
		time.Sleep(time.Second)
		want := `ferry: before
` + strings.Repeat(`ferry: warning: tag\nmoved
`, 5) + `pushing  33% [===>       ]  10.0 MiB/30.0 MiB   1.7 MiB/s     12s left  0/3
  a                                         100%  10.0 MiB/10.0 MiB   1.7 MiB/s
  b                                           0%       0 B/20.0 MiB       0 B/s`
		if s.String() != want {
			t.Errorf("screen is\n%s\nwant\n%s", s, want)
		}
		a.Done(nil)
		time.Sleep(time.Second)
		if strings.Contains(s.String(), "\n  a ") || !strings.Contains(s.String(), "\n  b ") {
			t.Errorf("a did not vanish:\n%s", s)
		}
		u.Say("last words")
		b.Done(errors.New("reset"))
		stop()
		u.Error("pushing b: reset")
		want = `ferry: before
` + strings.Repeat(`ferry: warning: tag\nmoved
`, 5) + `ferry: last words
ferry: pushing: ended after 10.0 MiB of 30.0 MiB (33%), 1 of 3 blobs in 7.0s (1.4 MiB/s), 2 already there
ferry: error: pushing b: reset`
		// The summary is longer than the screen is wide.
		if got := strings.ReplaceAll(s.String(), "(1.\n4 MiB/s)", "(1.4 MiB/s)"); got != want || s.strange != "" {
			t.Errorf("screen is\n%s\nwant\n%s\nstrange: %s", s, want, s.strange)
		}
	})
}

// TestDrawScrolls talks more than fits on a low screen, all the while.
func TestDrawScrolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(60, 24)
		u, err := New(Options{Stderr: s, width: 60})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		p, stop := u.StartProgress("pushing")
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 70 * time.Millisecond)
				task := p.Start(fmt.Sprint("item", i), 10)
				time.Sleep(time.Second)
				task.Done(nil)
			})
			want = append(want, fmt.Sprintf("ferry: %d", i))
		}
		for i := range 100 {
			u.Say("%d", i)
			time.Sleep(81 * time.Millisecond)
		}
		all.Wait()
		stop()
		want = append(want, "ferry: pushing: done, 100 blobs, 0 B in 8.1s")
		got := strings.Split(s.String(), "\n")
		want[100] = got[len(got)-1] // timing is not the matter here
		if strings.Join(got, "\n") != strings.Join(want, "\n") || !strings.HasPrefix(want[100], "ferry: pushing: done, 100 blobs, 0 B in ") {
			t.Errorf("screen is\n%s", s)
		}
	})
}

// TestDrawOnBroken shows that a terminal that goes away ends nothing else.
func TestDrawOnBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, err := New(Options{Stderr: &failing{room: 300, err: io.ErrClosedPipe}, width: 80})
		if err != nil {
			t.Fatal(err)
		}
		p, stop := u.StartProgress("pushing")
		for range 50 {
			task := p.Start("a", 10)
			time.Sleep(100 * time.Millisecond)
			task.Done(nil)
			u.Say("hello")
		}
		stop()
		u.Say("after")
	})
}

// TestAnswerAboveDrawing shows that an answer on the same terminal does not
// mix with what is drawn.
func TestAnswerAboveDrawing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(80, 24)
		u, err := New(Options{Stdout: s, Stderr: s, width: 80})
		if err != nil {
			t.Fatal(err)
		}
		u.out.terminal = true
		p, stop := u.StartProgress("pushing")
		task := p.Start("a", 10)
		for i := range 3 {
			time.Sleep(time.Second)
			err := u.Line(nil, func(w io.Writer) error { _, err := fmt.Fprintf(w, "answer %d\nand more", i); return err })
			if err != nil {
				t.Fatal(err)
			}
		}
		task.Done(nil)
		stop()
		if err := u.Line(nil, func(w io.Writer) error { _, err := fmt.Fprintln(w, "end"); return err }); err != nil {
			t.Fatal(err)
		}
		want := "answer 0\nand more\nanswer 1\nand more\nanswer 2\nand more\nferry: pushing\nend"
		got := strings.Split(s.String(), "\n")
		for i, line := range got {
			if strings.HasPrefix(line, "ferry: pushing: done, 1 blob") {
				got[i] = "ferry: pushing"
			}
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("screen is\n%s", s)
		}
	})
}

func TestEraser(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"first\n", "first\n"},
		{"\x1b[2A\x1b[Jtalk\nrow\n", "\x1b[2A\x1b[2K\n\x1b[2K\n\x1b[2K\x1b[2Atalk\nrow\n"},
		{"\x1b[12A\x1b[J", "\x1b[12A" + "\x1b[2K" + strings.Repeat("\n\x1b[2K", 12) + "\x1b[12A"},
	} {
		var b strings.Builder
		if n, err := (eraser{&b}).Write([]byte(c.in)); n != len(c.in) || err != nil || b.String() != c.want {
			t.Errorf("Write(%q) = %d, %v, wrote %q, want %q", c.in, n, err, b.String(), c.want)
		}
	}
}
