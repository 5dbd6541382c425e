package ui

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	// maxDrawn is how many running transfers are drawn.
	maxDrawn = 6

	// minAge keeps a transfer that is over at once from flashing by.
	minAge = 400 * time.Millisecond

	// maxWidth, in columns, keeps names and their numbers within one glance.
	maxWidth = 100

	// minNamed, in columns, is the least width with which a name can be told
	// from another.
	minNamed = 24

	refreshTime = 200 * time.Millisecond
)

// drawnProgress draws on the terminal. A single mpb bar, which moves the
// cursor and keeps lines above itself, draws all lines of a frame: the meter
// is read once a frame, and what moves bytes never waits for a terminal.
func (u *UI) drawnProgress(verb string) (*meter, style) {
	m := &meter{}
	var rows []string
	var screen io.Writer = eraser{u.err}
	if runtime.GOOS == "windows" {
		screen = u.err // mpb asks the console to erase, not the terminal
	}
	container := mpb.New(mpb.WithOutput(screen), mpb.WithAutoRefresh(), mpb.WithRefreshRate(refreshTime))
	first := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
		width, height := u.size()
		rows = frame(verb, m.look(), width, height)
		_, err := io.WriteString(w, rows[0])
		return err
	})
	others := mpb.BarFillerFunc(func(w io.Writer, _ decor.Statistics) error {
		for _, row := range rows[1:] {
			if _, err := io.WriteString(w, row+"\n"); err != nil {
				return err
			}
		}
		return nil
	})
	bar := container.MustAdd(0, first, mpb.BarFillerTrim(), mpb.BarExtender(others, false))
	u.mu.Lock()
	u.above = container
	u.mu.Unlock()
	return m, style{
		last: func() {
			bar.Abort(true)
			container.Wait()
			u.mu.Lock()
			u.above = nil
			u.mu.Unlock()
		},
		end: func(v view) { u.sayEnd(verb, v) },
	}
}

var cursorUp = regexp.MustCompile(`^\x1b\[([0-9]+)A\x1b\[J`)

// eraser passes the frames of mpb on to a terminal. Mpb goes up over the last
// frame and erases all below, which has two faults: tmux takes an erasing
// from the top of its screen for a screen to be kept, and puts each frame
// into its history; and what the user has typed meanwhile shifts the frame
// to the right. So it erases line by line, which also ends in the first
// column.
type eraser struct{ w io.Writer }

func (e eraser) Write(p []byte) (int, error) {
	m := cursorUp.FindSubmatchIndex(p)
	if m == nil {
		return e.w.Write(p)
	}
	up := p[:m[3]+1]
	lines, err := strconv.Atoi(string(p[m[2]:m[3]]))
	if err != nil {
		return 0, err
	}
	var b bytes.Buffer
	b.Write(up)
	b.WriteString("\x1b[2K" + strings.Repeat("\n\x1b[2K", lines))
	b.Write(up)
	b.Write(p[m[1]:])
	if _, err := e.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame returns the lines that show v on a terminal of width columns and
// height lines: one for all, then one for each of the oldest transfers. No
// line fills the width, and the lines leave one free, so that nothing wraps
// or scrolls.
func frame(verb string, v view, width, height int) []string {
	width = max(min(width-1, maxWidth), 1)
	rows := []string{shorten(overall(verb, v, width), width)}
	room := min(maxDrawn, height-3)
	if width < minNamed {
		room = 0
	}
	drawn := 0
	for _, r := range v.running {
		if r.age < minAge {
			continue
		}
		if drawn >= room {
			break
		}
		drawn++
		rows = append(rows, shorten(r.line(width), width))
	}
	if more := len(v.running) - drawn; more > 0 && drawn == room && drawn > 0 {
		rows = append(rows, shorten(fmt.Sprintf("  and %d more", more), width))
	}
	return rows
}

// overall returns the first line of a frame. What it shows depends on width
// alone, so that nothing jumps while numbers change: the most needed first,
// and a bar in what room is left.
func overall(verb string, v view, width int) string {
	var bytes, items, rate, left string
	percent := "    "
	if v.total.Bytes > 0 {
		percent = fmt.Sprintf("%3d%%", v.percent())
		bytes = fmt.Sprintf("%8s/%s", Bytes(v.bytes), Bytes(v.total.Bytes))
	} else {
		bytes = Bytes(v.bytes)
	}
	if v.rated {
		rate = fmt.Sprintf("%8s/s", Bytes(v.rate))
	}
	if v.left > 0 {
		left = fmt.Sprintf("%6s left", roughly(v.left))
	}
	if v.total.Items > 0 {
		items = fmt.Sprintf("%*d/%d", len(fmt.Sprint(v.total.Items)), v.items, v.total.Items)
	}
	used := textColumns(verb) + 1 + len(percent)
	fits := func(text string, columns int) string {
		if used+2+columns > width {
			return ""
		}
		used += 2 + columns
		return "  " + pad(text, columns)
	}
	rate = fits(rate, 10)
	if v.total.Bytes > 0 {
		left = fits(left, 11)
	}
	bytes = fits(bytes, 17)
	items = fits(items, max(len(items), 7))
	bar := ""
	if inside := min(width-used-3, 40); inside >= 6 && v.total.Bytes > 0 {
		bar = " [" + barOf(v, inside) + "]"
	}
	return strings.TrimRight(verb+" "+percent+bar+bytes+rate+left+items, " ")
}

// barOf returns a bar of n columns for what is in place of v.
func barOf(v view, n int) string {
	full := int(float64(v.bytes) / float64(v.total.Bytes) * float64(n))
	full = max(min(full, n), 0)
	if full == n {
		return strings.Repeat("=", n)
	}
	return strings.Repeat("=", full) + ">" + strings.Repeat(" ", n-full-1)
}

// pad returns text with spaces up to n columns.
func pad(text string, n int) string {
	return text + strings.Repeat(" ", max(n-textColumns(text), 0))
}

// line returns the line of a frame for one transfer.
func (r running) line(width int) string {
	numbers := "    "
	if r.size > 0 {
		numbers = fmt.Sprintf("%3d%%", min(int(float64(r.moved)/float64(r.size)*100), 100))
	}
	if width >= 64 {
		numbers += fmt.Sprintf("  %8s/%-8s", Bytes(r.moved), Bytes(r.size))
	}
	if width >= 48 {
		rate := ""
		if r.rated {
			rate = Bytes(r.rate) + "/s"
		}
		numbers += fmt.Sprintf("  %10s", rate)
	}
	room := width - 4 - len(numbers)
	return strings.TrimRight("  "+pad(shorten(shortName(r.name), room), room)+"  "+numbers, " ")
}

var digestText = regexp.MustCompile(`sha256[:/][0-9a-f]{64}`)

// shortName returns name, safe and with digests cut to what people compare.
func shortName(name string) string {
	return digestText.ReplaceAllStringFunc(Escape(name), func(d string) string { return d[:len("sha256:")+12] })
}
