package ui

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEscape(t *testing.T) { // T40
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"library/alpine:3.20", "library/alpine:3.20"},
		{"漢字 ñ é 🚢 ❤️", "漢字 ñ é 🚢 ❤️"},
		{`back\slash "quoted" 100%`, `back\slash "quoted" 100%`},
		{"a\nb\tc\rd\x00e", `a\nb\tc\rd\x00e`},
		{"\x1b[2J\x1b]0;title\x07", `\x1b[2J\x1b]0;title\x07`},
		{"\x7f", `\x7f`},
		{"\u009b31m", `\u009b31m`},
		{"\x9b31m", `\x9b31m`},
		{"user\u202egpj.exe", `user\u202egpj.exe`},
		{"\u2066\u2069\u200e\u200f\u061c", `\u2066\u2069\u200e\u200f\u061c`},
		{"a\u200bb\u200dc\ufeff\u00ad\u2060", `a\u200bb\u200dc\ufeff\u00ad\u2060`},
		{"a\u2028b\u2029c", `a\u2028b\u2029c`},
		{"\U000e0041\U000e0100", `\U000e0041\U000e0100`},
		{"ㅤ\u115f", `\u3164\u115f`},
		{"\xff\xc0\x80\xed\xa0\x80", `\xff\xc0\x80\xed\xa0\x80`},
		{"\ufffd", "\ufffd"},
		{"cut \xe6\xbc", `cut \xe6\xbc`},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// foreign draws strings of what is hard: bytes, controls and words.
var foreign = rapid.Custom(func(t *rapid.T) string {
	parts := rapid.SliceOf(rapid.OneOf(
		rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"\x1b[", "\u202e", "\u2028", "\u0085", "\x9b", "\r\n", "\\n", "::", "abc", "漢", "\U000e0041", "\xf0\x9f"}),
	)).Draw(t, "parts")
	return strings.Join(parts, "")
})

func TestEscapeProperties(t *testing.T) { // T40
	rapid.Check(t, func(t *rapid.T) {
		s := foreign.Draw(t, "s")
		got := Escape(s)
		if bad := forbidden(got); bad != "" || strings.Contains(got, "\n") {
			t.Fatalf("Escape(%q) leaves %s", s, bad)
		}
		if again := Escape(got); again != got {
			t.Fatalf("Escape(%q) = %q, want no change", got, again)
		}
		if width := rapid.IntRange(0, 30).Draw(t, "width"); textColumns(shorten(got, width)) > width {
			t.Fatalf("shorten(%q, %d) = %q, too wide", got, width, shorten(got, width))
		}
	})
}

func TestEscapeJSONProperties(t *testing.T) { // T40
	rapid.Check(t, func(t *rapid.T) {
		s := foreign.Draw(t, "s")
		doc, err := encodeJSON(map[string]string{s: s}, "  ")
		if err != nil {
			t.Fatal(err)
		}
		if bad := forbidden(string(doc)); bad != "" {
			t.Fatalf("document has %s", bad)
		}
		var back map[string]string
		if err := json.Unmarshal(doc, &back); err != nil {
			t.Fatalf("%v in %q", err, doc)
		}
		want := strings.ToValidUTF8(s, "\ufffd")
		if !utf8.ValidString(s) {
			want = "" // how many U+FFFD stand for what is no matter
		}
		for key, value := range back {
			if key != value || want != "" && value != want {
				t.Fatalf("%q became %q: %q", s, key, value)
			}
		}
	})
}

func TestEscapeJSONRaw(t *testing.T) {
	doc, err := encodeJSON(map[string]any{"raw": json.RawMessage("\"\xff\u202e<&>\"")}, "")
	if want := `{"raw":"\ufffd\u202e<&>"}` + "\n"; err != nil || string(doc) != want {
		t.Errorf("encodeJSON = %q, %v, want %q", doc, err, want)
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"library/alpine", 14, "library/alpine"},
		{"library/alpine", 13, "librar..lpine"},
		{"library/alpine", 6, "li..ne"},
		{"library/alpine", 2, ".."},
		{"library/alpine", 1, "."},
		{"library/alpine", 0, ""},
		{"library/alpine", -3, ""},
		{"漢字漢字漢字", 12, "漢字漢字漢字"},
		{"漢字漢字漢字", 11, "漢字..漢字"},
		{"漢字漢字漢字", 3, ".."},
	} {
		if got := shorten(c.in, c.width); got != c.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", c.in, c.width, got, c.want)
		}
	}
}
