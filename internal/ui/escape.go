package ui

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape returns foreign text as a terminal may receive it, in one line:
// control characters (C0, DEL, C1), bidi controls, line and paragraph
// separators and all other characters that have no look of their own (zero
// width, joiners, fillers, tags) are written as \n, \t, \r, \xNN, \uNNNN or
// \UNNNNNNNN, and bytes that are no UTF-8 as \xNN. All else is unchanged,
// backslashes too, so that escaping twice does nothing more. Two texts that
// differ in what can not be seen look different; two that differ in a
// backslash may look alike.
func Escape(s string) string {
	clean := 0 // bytes that need nothing
	for clean < len(s) {
		r, n := utf8.DecodeRuneInString(s[clean:])
		if harmful(r, n) {
			break
		}
		clean += n
	}
	if clean == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:clean])
	for i := clean; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case !harmful(r, n):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// harmful reports whether a terminal could obey r, or hide something by it,
// where r was decoded from n bytes.
func harmful(r rune, n int) bool {
	switch {
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	case r == utf8.RuneError:
		return n == 1 // not UTF-8
	case r >= 0xe0000 && r < 0xf0000:
		return true // tags and selectors, which can hide text of any length
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}

// escapeJSON returns a document of encoding/json in which strings have \u
// escapes for all that [Escape] would escape: the encoder leaves DEL, C1 and
// bidi controls as they are, and raw messages unchecked. Outside of strings
// there are none of these.
func escapeJSON(doc []byte) []byte {
	out := make([]byte, 0, len(doc))
	for len(doc) > 0 {
		r, n := utf8.DecodeRune(doc)
		switch {
		case r == '\n' || !harmful(r, n): // a newline of the encoder's own
			out = append(out, doc[:n]...)
		case r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r) // \ufffd for what is no UTF-8
		}
		doc = doc[n:]
	}
	return out
}

// columns returns how many columns of a terminal r takes at most. It errs on
// the large side, so that nothing that was cut to fit wraps.
func columns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r < 0x1100,
		r >= 0x2000 && r < 0x2300, // punctuation, currency, letter-like, arrows, mathematics
		r >= 0x2500 && r < 0x25a0: // box drawing, blocks
		return 1
	}
	return 2
}

// textColumns returns how many columns of a terminal s takes at most.
func textColumns(s string) (sum int) {
	for _, r := range s {
		sum += columns(r)
	}
	return sum
}

// shorten returns s with dots in place of its middle, where it would take
// more than width columns.
func shorten(s string, width int) string {
	const dots = ".."
	if textColumns(s) <= width {
		return s
	}
	if width <= len(dots) {
		return dots[:max(width, 0)]
	}
	// The head gets the larger half.
	room := width - len(dots)
	head, tail := 0, len(s)
	for used := 0; ; {
		r, n := utf8.DecodeRuneInString(s[head:])
		if used += columns(r); used > room-room/2 {
			break
		}
		head += n
	}
	for used := textColumns(s[:head]); ; {
		r, n := utf8.DecodeLastRuneInString(s[:tail])
		if used += columns(r); used > room {
			break
		}
		tail -= n
	}
	return s[:head] + dots + s[tail:]
}
