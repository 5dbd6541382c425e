package ui

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{{Format: "yaml"}, {Progress: "fancy"}, {Format: "JSON"}, {Progress: "auto "}} {
		if u, err := New(o); u != nil || err == nil || !strings.Contains(err.Error(), "is not known (want ") {
			t.Errorf("New(%+v) = %v, %v", o, u, err)
		}
	}
}

func TestZeroOptions(t *testing.T) {
	u, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	u.Say("to nobody")
	if err := u.Result(1, func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); err != nil {
		t.Error(err)
	}
	_, stop := u.StartProgress("moving")
	stop()
}

func TestTalk(t *testing.T) {
	u, out, err := newUI(t, Options{Progress: ProgressPlain})
	u.Say("pushing %s", "alpine")
	u.Warn("tag %q moved", "3.20")
	u.Error("two\nlines")
	u.Hint("100%% sure, see docs/keys.md")
	want := `ferry: pushing alpine
ferry: warning: tag "3.20" moved
ferry: error: two\nlines
ferry: hint: 100% sure, see docs/keys.md
`
	if err.String() != want || out.String() != "" {
		t.Errorf("stderr %q, stdout %q, want %q and nothing", err, out, want)
	}
}

func TestTalkIsLimited(t *testing.T) { // T40, T54
	const secret = "https://user:CANARY@host/"
	words := strings.Repeat("word ", maxMessage)
	for name, text := range map[string]string{
		"one word":             strings.Repeat("漢", 1<<20),
		"escapes":              strings.Repeat("\x1b", 1<<20),
		"just too long":        strings.Repeat("x", maxMessage+1),
		"a secret at the cut":  words[:maxMessage-13] + secret + words,
		"a secret further on":  words[:4*maxMessage-13] + " " + secret + words,
		"secrets that shrink":  strings.Repeat("https://"+strings.Repeat("u", 1000)+":CANARY@h ", 33),
		"header at a far cut":  strings.Repeat("https://"+strings.Repeat("u", 1000)+"@h ", 31) + strings.Repeat("y", 1200) + " Authorization: Basic " + strings.Repeat("CANARY", 1000),
		"many lines, a secret": strings.Repeat("x\n", 3*maxMessage) + secret,
	} {
		u, _, err := newUI(t, Options{Progress: ProgressPlain})
		u.Error("%s", text)
		got := err.String()
		if len(got) > 6*maxMessage+100 || strings.Count(got, "\n") != 1 || forbidden(got) != "" || !strings.Contains(got, fmt.Sprintf("... (%d bytes in all)\n", len(text))) {
			t.Errorf("%s: %d bytes, ending in %q", name, len(got), got[max(0, len(got)-80):])
		}
		if strings.Contains(got, "CAN") {
			t.Errorf("%s: leaks the secret", name)
		}
	}
	u, _, err := newUI(t, Options{Progress: ProgressPlain})
	u.Error("%s", strings.Repeat("x", maxMessage))
	if want := "ferry: error: " + strings.Repeat("x", maxMessage) + "\n"; err.String() != want {
		t.Errorf("a message of just the limit is changed")
	}
}

func TestFail(t *testing.T) {
	a, b, c := errors.New("pushing a: 503"), errors.New("pushing b:\n404"), errors.New("c")
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{a, "pushing a: 503|"},
		{fmt.Errorf("importing: %w", a), "importing: pushing a: 503|"},
		{errors.Join(a, b), `pushing a: 503|pushing b:\n404|`},
		{fmt.Errorf("importing: %w", errors.Join(a, b)), `importing: pushing a: 503|importing: pushing b:\n404|`},
		{fmt.Errorf("x: %w", errors.Join(a, fmt.Errorf("y: %w", errors.Join(b, c)))), `x: pushing a: 503|x: y: pushing b:\n404|x: y: c|`},
		{fmt.Errorf("%w (%w)", a, c), "pushing a: 503 (c)|"},
		{fmt.Errorf("(%w) after", errors.Join(a, c)), `(pushing a: 503\nc) after|`},
		{&os.PathError{Op: "open", Path: "x\x1b", Err: syscall.ENOENT}, `open x\x1b: no such file or directory|`},
	} {
		u, _, err := newUI(t, Options{Progress: ProgressPlain})
		u.Fail(test.err)
		got := strings.ReplaceAll(strings.ReplaceAll(err.String(), "ferry: error: ", ""), "\n", "|")
		if got != test.want {
			t.Errorf("Fail(%q) told %q, want %q", test.err, got, test.want)
		}
	}
}

func TestResult(t *testing.T) {
	text := func(w io.Writer) error {
		if err := Table(w, [][]string{{"IMAGE", "TAG", "SIZE"}, {"漢字", "3.20", "3.1 MiB"}, {"a\tb\n", ""}, {"x"}}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "own\ttab, \x1b[1mbold\u202e, no\xff end")
		return err
	}
	v := map[string]any{"digest": "sha256:01", "html": "<&>", "evil": "\u202e\x7f\u009b\x1b"}
	u, out, err := newUI(t, Options{})
	if problem := u.Result(v, text); problem != nil {
		t.Fatal(problem)
	}
	want := "IMAGE   TAG   SIZE\n漢字    3.20  3.1 MiB\n" + `a\tb\n` + "\nx\nown\ttab, " + `\x1b[1mbold\u202e, no\xff end` + "\n"
	if out.String() != want || err.String() != "" {
		t.Errorf("text is\n%q, want\n%q; stderr %q", out, want, err)
	}
	u, out, err = newUI(t, Options{Format: FormatJSON})
	if problem := u.Result(v, text); problem != nil {
		t.Fatal(problem)
	}
	want = `{
  "digest": "sha256:01",
  "evil": "\u202e\u007f\u009b\u001b",
  "html": "<&>"
}
`
	if out.String() != want || err.String() != "" {
		t.Errorf("JSON is\n%s, want\n%s; stderr %q", out, want, err)
	}
}

func TestLine(t *testing.T) {
	for format, want := range map[string]string{
		FormatText: "tag 1\ntag 2\n",
		FormatJSON: "{\"tag\":1}\n{\"tag\":2}\n",
	} {
		u, out, _ := newUI(t, Options{Format: format})
		for i := 1; i < 3; i++ {
			err := u.Line(map[string]int{"tag": i}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "tag %d\n", i)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("%s: %q, want %q", format, out, want)
		}
	}
}

// TestTextInPieces writes a text in pieces of every length, so that every
// character and line is cut.
func TestTextInPieces(t *testing.T) {
	const text = "漢字\t🚢\n  ::error::x\n::group::\na::b\n\x1b[2J\n\n\u2028end"
	const want = "漢字\t🚢\n  \\x3a:error::x\n\\x3a:group::\na::b\n\\x1b[2J\n\n\\u2028end\n"
	for size := 1; size <= len(text); size++ {
		u, out, _ := newUI(t, Options{})
		err := u.Result(nil, func(w io.Writer) error {
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				if k, err := io.WriteString(w, rest[:n]); k != n || err != nil {
					return fmt.Errorf("%d of %d, %w", k, n, err)
				}
				rest = rest[n:]
			}
			return nil
		})
		if err != nil || out.String() != want {
			t.Errorf("in pieces of %d: %q, %v, want %q", size, out, err, want)
		}
	}
}

// failing accepts some bytes and then fails, or takes less than it is given.
type failing struct {
	room  int
	err   error
	calls int
}

func (f *failing) Write(p []byte) (int, error) {
	f.calls++
	n := min(f.room, len(p))
	f.room -= n
	if n < len(p) {
		return n, f.err
	}
	return n, nil
}

func TestStdoutFails(t *testing.T) {
	lines := func(w io.Writer) error {
		for range 100_000 {
			if _, err := io.WriteString(w, "a line of text\n"); err != nil {
				return err
			}
		}
		return nil
	}
	for _, format := range []string{FormatText, FormatJSON} {
		for _, want := range []error{syscall.EPIPE, syscall.ENOSPC, io.ErrShortWrite} {
			w := &failing{room: 10, err: want}
			if want == io.ErrShortWrite {
				w.err = nil
			}
			u, err := New(Options{Stdout: w, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			first := u.Result(strings.Repeat("x", 1000), lines)
			second := u.Line("x", lines)
			if !errors.Is(first, want) || !errors.Is(second, want) || !errors.Is(u.Err(), want) || w.calls != 1 {
				t.Errorf("%s: %v, %v, %v after %d writes, want %v after one", format, first, second, u.Err(), w.calls, want)
			}
			if !strings.HasPrefix(first.Error(), "writing to stdout: ") {
				t.Errorf("error %q does not say where", first)
			}
		}
	}
}

func TestStdoutFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full:", err)
	}
	defer full.Close()
	u, err := New(Options{Stdout: full})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Result(nil, func(w io.Writer) error { return Table(w, [][]string{{"x"}}) }); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Result = %v, want %v", err, syscall.ENOSPC)
	}
}

func TestResultErrors(t *testing.T) {
	mine := errors.New("mine")
	u, out, _ := newUI(t, Options{})
	err := u.Result(nil, func(w io.Writer) error { fmt.Fprintln(w, "so far"); return mine })
	if err != mine || out.String() != "so far\n" || u.Err() != nil {
		t.Errorf("Result = %v with %q, Err = %v", err, out, u.Err())
	}
	u, out, _ = newUI(t, Options{Format: FormatJSON})
	var unsupported *json.UnsupportedTypeError
	if err := u.Result(func() {}, nil); !errors.As(err, &unsupported) || out.String() != "" || u.Err() != nil {
		t.Errorf("Result = %v with %q, Err = %v", err, out, u.Err())
	}
}

// TestAnswerOfFile shows that files are not taken for terminals.
func TestAnswerOfFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u, err := New(Options{Stdout: f, Stderr: f})
	if err != nil {
		t.Fatal(err)
	}
	if u.progress != ProgressPlain || u.out.terminal {
		t.Errorf("a file is a terminal: %q, %v", u.progress, u.out.terminal)
	}
}
