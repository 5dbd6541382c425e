// Package ui hides how ferry talks: what goes to stdout, what to stderr, how
// progress is drawn, and what a terminal must never receive.
//
// # Streams
//
// Stdout carries the answer of a command and nothing else: text for people,
// or, with [FormatJSON], one JSON document ([UI.Result]) or JSON Lines
// ([UI.Line]). Stderr carries the talk, one line a message, each beginning
// "ferry: ", "ferry: warning: ", "ferry: error: " or "ferry: hint: ", and the
// progress. A line on stderr that begins with "{" is a progress event; no
// message can look like one.
//
// # Safety
//
// Names, tags, labels and the bodies of errors come from others. Whatever
// they contain, no control character, no bidi control, no invisible character
// and no invalid UTF-8 reaches either stream, except ferry's own line ends and
// tabs, and the cursor movements of a drawn progress. See [Escape] for text;
// in JSON the same characters are written as \u escapes, so no information is
// lost. Messages and the errors in events also lose what [Redact] removes. No
// line of stdout text begins with "::", which some build servers obey.
//
// # Progress events
//
// With [ProgressJSON] stderr has one JSON object a line. Fields may be added
// later. Times are RFC 3339 in UTC with milliseconds; sizes are bytes.
//
//	{"type":"start","time":T,"name":N,"bytes":SIZE}
//	{"type":"done","time":T,"name":N,"bytes":MOVED,"error":TEXT}
//	{"type":"progress","time":T,"verb":V,"items":I,"itemsTotal":I,"itemsSkipped":I,
//	 "bytes":B,"bytesTotal":B,"bytesSkipped":B,"bytesMoved":B,"bytesPerSecond":R,"secondsLeft":S}
//	{"type":"end", and the fields of "progress" without secondsLeft, "seconds":S}
//
// "error" is there when the item failed. In "progress", bytesPerSecond is the
// rate of the last ten seconds, and secondsLeft is there once it means
// something; in "end", bytesPerSecond is the mean. "bytes" counts what is in
// place of bytesTotal; "bytesMoved" counts what went over the wire, which is
// less when content was found in place after all, and more when some had to
// be moved again.
//
// # Limits
//
// A message is cut after 8 KiB, before it is escaped. At most six running transfers are drawn.
package ui

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Values of [Options].Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Values of [Options].Progress.
const (
	ProgressAuto  = "auto"  // drawn when stderr is a terminal, else plain
	ProgressPlain = "plain" // a line at the start, now and then, and at the end
	ProgressJSON  = "json"  // JSON Lines
	ProgressNone  = "none"
)

// maxMessage, in bytes, bounds one line of talk: an error that quotes a
// foreign document must not flood a log.
const maxMessage = 8 << 10

// Options says where and how to talk. The zero Options talks to nobody.
type Options struct {
	// Stdout gets the answer, Stderr the talk and the progress. A nil
	// writer discards.
	Stdout, Stderr io.Writer

	// Format is one of the Format constants. Empty means FormatText.
	Format string

	// Progress is one of the Progress constants. Empty means ProgressAuto.
	// For a terminal that can not move its cursor (TERM=dumb) it should be
	// ProgressPlain.
	Progress string

	// Interval is the time between two lines of progress that is not drawn.
	// Zero means 10 s for ProgressPlain and 1 s for ProgressJSON.
	Interval time.Duration

	// width, in columns, makes tests draw on what is no terminal.
	width int
}

// UI talks to the user of one command. All methods are safe for concurrent
// use.
type UI struct {
	json     bool
	progress string
	interval time.Duration
	size     func() (width, height int) // of the terminal at stderr; nil when it is none

	answering sync.Mutex // one answer at a time
	out       answerWriter

	mu    sync.Mutex // guards what follows
	err   io.Writer
	above io.Writer // writes lines above the progress that is drawn; nil when none is
	stop  func()    // ends the progress that runs; nil when none does
}

// New returns a UI that talks as o says. An unknown format or kind of
// progress is an error.
func New(o Options) (*UI, error) {
	u := &UI{progress: o.Progress, interval: o.Interval}
	switch o.Format {
	case FormatText, "":
	case FormatJSON:
		u.json = true
	default:
		return nil, fmt.Errorf("format %q is not known (want %s or %s)", o.Format, FormatText, FormatJSON)
	}
	u.out.w, u.err = o.Stdout, o.Stderr
	if u.out.w == nil {
		u.out.w = io.Discard
	}
	if u.err == nil {
		u.err = io.Discard
	}
	u.out.terminal = terminalSize(u.out.w) != nil
	u.size = terminalSize(u.err)
	if o.width > 0 {
		u.size = func() (int, int) { return o.width, 24 }
	}
	switch o.Progress {
	case ProgressPlain, ProgressJSON, ProgressNone:
	case ProgressAuto, "":
		// A terminal without a size is one nothing can be drawn on: a
		// pseudo terminal that some job runner has not set up.
		u.progress = ProgressPlain
		if u.size != nil {
			if width, height := u.size(); width > 0 && height > 1 {
				u.progress = ProgressAuto
			}
		}
	default:
		return nil, fmt.Errorf("progress %q is not known (want %s, %s, %s or %s)", o.Progress,
			ProgressAuto, ProgressPlain, ProgressJSON, ProgressNone)
	}
	if u.interval <= 0 {
		u.interval = 10 * time.Second
		if u.progress == ProgressJSON {
			u.interval = time.Second
		}
	}
	return u, nil
}

// terminalSize returns a function that returns the size of the terminal
// behind w, or nil when w is no terminal.
func terminalSize(w io.Writer) func() (width, height int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return width, height
	}
}

// Say tells what happens.
func (u *UI) Say(format string, args ...any) { u.talk("ferry: ", fmt.Sprintf(format, args...)) }

// Warn tells what the user should look at although it is no error.
func (u *UI) Warn(format string, args ...any) {
	u.talk("ferry: warning: ", fmt.Sprintf(format, args...))
}

// Error tells what went wrong. See [UI.Fail] for an error value.
func (u *UI) Error(format string, args ...any) {
	u.talk("ferry: error: ", fmt.Sprintf(format, args...))
}

// Hint advises what to do about the error or warning before it.
func (u *UI) Hint(format string, args ...any) { u.talk("ferry: hint: ", fmt.Sprintf(format, args...)) }

// Fail tells what err says, in one line for each of the errors that were
// joined into it. It says nothing of a nil error.
func (u *UI) Fail(err error) {
	if err == nil {
		return
	}
	for _, text := range messages(err) {
		u.talk("ferry: error: ", text)
	}
}

// messages returns the text of err, one for each error that [errors.Join]
// joined, each with all that was said around it.
func messages(err error) []string {
	whole := err.Error()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts, all []string
		for _, part := range joined.Unwrap() {
			texts = append(texts, part.Error())
			all = append(all, messages(part)...)
		}
		if strings.Join(texts, "\n") == whole {
			return all
		}
	} else if inner := errors.Unwrap(err); inner != nil {
		around, ok := strings.CutSuffix(whole, inner.Error())
		if parts := messages(inner); ok && len(parts) > 1 {
			for i := range parts {
				parts[i] = around + parts[i]
			}
			return parts
		}
	}
	return []string{whole}
}

// talk writes text as one safe line after prefix.
func (u *UI) talk(prefix, text string) { u.write([]byte(prefix + Escape(presentable(text)) + "\n")) }

// presentable returns text without secrets, and not much of it.
func presentable(text string) string {
	whole := len(text)
	if whole > 4*maxMessage {
		// Looking for secrets is slow. A cut between words leaves none of
		// them in halves that are not known any more.
		text = text[:4*maxMessage]
		if space := strings.LastIndexAny(text, " \t\n"); space > 0 {
			text = text[:space]
		}
	}
	text = Redact(text)
	if len(text) > maxMessage || whole > 4*maxMessage {
		cut := min(len(text), maxMessage)
		for cut < len(text) && cut > maxMessage-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
			cut--
		}
		return fmt.Sprintf("%s... (%d bytes in all)", text[:cut], whole)
	}
	return text
}

// write writes whole lines to stderr, above a progress that is drawn. When
// that fails there is nobody left to tell.
func (u *UI) write(lines []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.above != nil {
		if _, err := u.above.Write(lines); err == nil {
			return
		}
	}
	_, _ = u.err.Write(lines)
}
