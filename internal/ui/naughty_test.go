package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/transfer"
)

// naughty returns 1,000 strings that names, tags, labels and the bodies of
// errors could be made of, always the same ones. // T40
func naughty() []string {
	all := []string{
		"", " ", ".", "..", "-", "--", "%s%n%d", "%!s(MISSING)", "$(reboot)", "`reboot`", "'; --", `"`, `\`, `\n`, `\x1b`,
		"\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;cm0gLXJm\x07", "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
		"\x1bP+q544e\x1b\\", "\x1b[6n", "\x1b[?1049h", "\x1b(0", "\x1bc", "\x9b31m", "\u009b31m", "\u0090q\u009c", "\x1b[1A\x1b[2Kforged",
		"ok\rferry: done", "ok\nferry: error: forged", "ok\r\n::error::forged", "::error::forged", "::set-output name=a::b", " ::stop-commands::x",
		"##vso[task.complete]", "a\bb", "a\x00b", "a\vb\fc", "\a\a\a", "tab\tbed",
		"\u202egnp.exe", "\u202a\u202b\u202c\u202d", "\u2066a\u2067b\u2068c\u2069", "\u200e\u200f\u061c", "\u200b\u200c\u200d\u2060\ufeff\u00ad",
		"line\u2028sep\u2029par", "next\u0085line", "\U000e0001\U000e0041\U000e007f", "\u3164\u115f\u1160\uffa0", "\ufffd", "\ufffe", "\uffff", "\U0010ffff",
		"\xff\xfe", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80\xed\xb0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "cut\xe6\xbc", "\x80", "\xc2", "\xc2\x9b"[:1],
		`{"type":"end"}`, `"},{"x":"`, "{", "null", `","error":"`, "<script>alert(1)</script>", "&amp;", "漢字", "🚢", "👨\u200d👩\u200d👧", "e\u0301", "Z\u0351\u036b\u0343\u036a",
		"library/alpine:3.20", "sha256:" + strings.Repeat("a", 64), strings.Repeat("x", 20_000), strings.Repeat("\x1b", 20_000), strings.Repeat("漢", 200),
	}
	for c := range 0xa0 {
		if c < 0x20 || c >= 0x7f {
			all = append(all, fmt.Sprintf("a%cb", c), fmt.Sprintf("%c", c), "a"+string([]byte{byte(c)})+"b")
		}
	}
	for r := rune(0x2000); r < 0x2070; r++ {
		all = append(all, "a"+string(r)+"b")
	}
	rnd := rand.New(rand.NewPCG(40, 0))
	fixed := len(all)
	for len(all) < 1000 {
		var b strings.Builder
		for range 1 + rnd.IntN(6) {
			switch rnd.IntN(3) {
			case 0:
				part := all[rnd.IntN(fixed)]
				b.WriteString(part[:min(len(part), 40)])
			case 1:
				b.WriteByte(byte(rnd.IntN(256)))
			case 2:
				b.WriteRune(rune(rnd.IntN(0x30000)))
			}
		}
		all = append(all, b.String())
	}
	return all
}

func TestNaughtyList(t *testing.T) {
	var bad int
	all := naughty()
	for _, s := range all {
		if forbidden(s) != "" {
			bad++
		}
	}
	if len(all) != 1000 || bad < 500 {
		t.Errorf("%d strings, %d of them harmful; want 1000, at least 500", len(all), bad)
	}
}

// clean reports through t what a terminal must not receive of got, and when
// it is not made of so many lines.
func clean(t *testing.T, sink, s, got string, lines int) {
	t.Helper()
	if bad := forbidden(got); bad != "" {
		t.Errorf("%s of %q has %s", sink, s, bad)
	}
	if n := strings.Count(got, "\n"); n != lines {
		t.Errorf("%s of %q has %d lines, want %d: %q", sink, s, n, lines, got)
	}
	for line := range strings.Lines(got) {
		if strings.HasPrefix(strings.TrimSpace(line), "::") {
			t.Errorf("%s of %q has the command %q", sink, s, line)
		}
	}
}

func TestNaughtyTalk(t *testing.T) { // T40
	for _, s := range naughty() {
		u, out, err := newUI(t, Options{Progress: ProgressPlain})
		u.Say("%s", s)
		u.Warn("%s moved", s)
		u.Error("%v", errors.New(s))
		u.Hint("see %s", s)
		u.Fail(fmt.Errorf("importing %q: %w", s, errors.Join(errors.New(s), errors.New("b"))))
		clean(t, "talk", s, err.String(), 6)
		for line := range strings.Lines(err.String()) {
			if !strings.HasPrefix(line, "ferry: ") {
				t.Errorf("talk of %q has line %q", s, line)
			}
		}
		clean(t, "stdout", s, out.String(), 0)
	}
}

func TestNaughtyTable(t *testing.T) { // T40
	for _, s := range naughty() {
		u, out, _ := newUI(t, Options{})
		if err := u.Result(nil, func(w io.Writer) error { return Table(w, [][]string{{"A", "B"}, {s, s}, {"x", s}}) }); err != nil {
			t.Fatal(err)
		}
		clean(t, "table", s, out.String(), 3)
	}
}

func TestNaughtyText(t *testing.T) { // T40
	for _, s := range naughty() {
		u, out, _ := newUI(t, Options{})
		// A verb that forgot Escape: its lines may break, but no more.
		if err := u.Line(nil, func(w io.Writer) error { _, err := fmt.Fprintf(w, "%s\n", s); return err }); err != nil {
			t.Fatal(err)
		}
		clean(t, "text", s, strings.ReplaceAll(out.String(), "\t", " "), 1+strings.Count(s, "\n"))
	}
}

func TestNaughtyJSON(t *testing.T) { // T40
	for _, s := range naughty() {
		for _, indent := range []bool{true, false} {
			u, out, _ := newUI(t, Options{Format: FormatJSON})
			v := map[string]string{"name": s}
			lines, write := 1, u.Line
			if indent {
				lines, write = 3, u.Result
			}
			if err := write(v, nil); err != nil {
				t.Fatal(err)
			}
			clean(t, "JSON", s, out.String(), lines)
			var back map[string]string
			if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back["name"] != string([]rune(s)) {
				t.Errorf("JSON of %q is %q: %v", s, out, err)
			}
		}
	}
}

func TestNaughtyEvents(t *testing.T) { // T40
	for _, s := range naughty() {
		synctest.Test(t, func(t *testing.T) {
			u, _, err := newUI(t, Options{Progress: ProgressJSON})
			p, stop := u.StartProgress("moving")
			p.Start(s, 5).Done(errors.New(s))
			time.Sleep(1500 * time.Millisecond)
			stop()
			clean(t, "events", s, err.String(), 4)
			for line := range strings.Lines(err.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("event of %q is %q", s, line)
				}
			}
		})
	}
}

func TestNaughtyDrawing(t *testing.T) { // T40
	all := naughty()
	synctest.Test(t, func(t *testing.T) {
		for len(all) > 0 {
			screen := newScreen(80, 24)
			u, err := New(Options{Stderr: screen, width: 80})
			if err != nil {
				t.Fatal(err)
			}
			p, stop := u.StartProgress("moving")
			for _, s := range all[:5] {
				p.Start(s, 100).Add(10)
			}
			p.Total(transfer.Totals{Items: 5, Bytes: 500})
			time.Sleep(time.Second)
			frame := screen.String()
			stop()
			if screen.strange != "" || screen.wraps > 0 || !strings.Contains(frame, "10%  ") || strings.Count(frame, "\n") != 5 {
				t.Errorf("drawing %q: strange %s, %d wraps, screen\n%s", all[:5], screen.strange, screen.wraps, frame)
			}
			all = all[5:]
		}
	})
}
