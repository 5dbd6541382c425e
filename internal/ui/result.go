package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Result writes the answer of a command to stdout: v as one indented JSON
// document with [FormatJSON], else what text writes. Text that was built from
// foreign names goes through [Escape] or [Table] first; w lets line ends and
// tabs pass and escapes all else, and ends the last line when text does not.
// An error is that of text, or of encoding v, or the first there was in
// writing to stdout: then the answer is not whole, and the command has failed.
func (u *UI) Result(v any, text func(w io.Writer) error) error { return u.answer(v, "  ", text) }

// Line is [UI.Result] for one item of an answer that is a stream: with
// [FormatJSON] it writes v in a single line.
func (u *UI) Line(v any, text func(w io.Writer) error) error { return u.answer(v, "", text) }

// Err returns the first error there was in writing to stdout.
func (u *UI) Err() error {
	u.answering.Lock()
	defer u.answering.Unlock()
	return u.out.err
}

func (u *UI) answer(v any, indent string, text func(w io.Writer) error) error {
	u.answering.Lock()
	defer u.answering.Unlock()
	to := u.out.to(u)
	if u.json {
		doc, err := encodeJSON(v, indent)
		if err != nil {
			return fmt.Errorf("encoding the result: %w", err)
		}
		_, err = to.Write(doc)
		return err
	}
	w := &textWriter{to: to}
	err := text(w)
	if ending := w.end(); err == nil {
		err = ending
	}
	return err
}

// encodeJSON returns v as a JSON document and a line end.
func encodeJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return escapeJSON(b.Bytes()), nil
}

// answerWriter is stdout, which fails for good when it fails once.
type answerWriter struct {
	w        io.Writer
	terminal bool
	err      error
}

func (a *answerWriter) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		a.err = fmt.Errorf("writing to stdout: %w", err)
	}
	return n, a.err
}

// to returns where whole lines of the answer go: above a progress that is
// drawn when both are on a terminal, which is then taken to be the same.
func (a *answerWriter) to(u *UI) io.Writer {
	if !a.terminal {
		return a
	}
	return writerFunc(func(p []byte) (int, error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.above != nil && a.err == nil {
			if n, err := u.above.Write(p); err == nil {
				return n, nil
			}
		}
		return a.Write(p)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// textWriter passes whole lines on, escaped.
type textWriter struct {
	to   io.Writer
	part []byte // of a line that has not ended
	out  []byte // lines to pass on
}

func (t *textWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		t.part = append(t.part, line...)
		if !ended {
			return n, nil
		}
		t.endLine()
		if p = rest; len(t.out) >= 64<<10 {
			if err := t.flush(); err != nil {
				return 0, err
			}
		}
	}
}

func (t *textWriter) endLine() {
	cells := strings.Split(string(t.part), "\t")
	for i := range cells {
		cells[i] = Escape(cells[i])
	}
	line := strings.Join(cells, "\t")
	// "::error::" and its like are commands to GitHub's runner at the start
	// of a line, also after white space.
	if words := strings.TrimSpace(line); strings.HasPrefix(words, "::") {
		line = strings.Replace(line, "::", `\x3a:`, 1)
	}
	t.out = append(append(t.out, line...), '\n')
	t.part = t.part[:0]
}

func (t *textWriter) flush() error {
	if len(t.out) == 0 {
		return nil
	}
	_, err := t.to.Write(t.out)
	t.out = t.out[:0]
	return err
}

// end passes on all that is left.
func (t *textWriter) end() error {
	if len(t.part) > 0 {
		t.endLine()
	}
	return t.flush()
}

// Table writes rows of cells in columns that are as wide as their widest
// cell, with two spaces between them. Cells may be foreign text: they are
// escaped. A heading is a row like any other.
func Table(w io.Writer, rows [][]string) error {
	var widths []int
	safe := make([][]string, len(rows))
	for i, row := range rows {
		safe[i] = make([]string, len(row))
		for j, cell := range row {
			safe[i][j] = Escape(cell)
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], textColumns(safe[i][j]))
		}
	}
	var b strings.Builder
	for _, row := range safe {
		var line strings.Builder
		for j, cell := range row {
			line.WriteString(cell)
			if j < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[j]-textColumns(cell)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
