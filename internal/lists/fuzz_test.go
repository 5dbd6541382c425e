package lists

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzRead shows that a list means the same when it is written with one
// reference a line, and that one that can not be read gives nothing.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"ubuntu:18.04 debian:buster\r\n\r\n# comment\na=b # and this\n", "\ufeffa", "a\ufeff", "=", "a=b=c", "#", "a\u2028b", "a\x00b", "a\xff", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		entries, err := Read(strings.NewReader(list), "x")
		if err != nil {
			if entries != nil {
				t.Errorf("Read(%q) = %q, %v", list, entries, err)
			}
			return
		}
		var words []string
		for _, e := range entries {
			word := e.Source
			if strings.Contains(list, e.Source+"=") && e.Target != "" {
				word += "=" + e.Target
			}
			if !utf8.ValidString(word) || strings.ContainsFunc(word, unicode.IsSpace) || strings.Contains(word, "#") || strings.Contains(e.Source, "=") {
				t.Errorf("Read(%q) has %q", list, e)
			}
			if got := Parse(word); got.Source != e.Source || got.Target != e.Target {
				t.Errorf("Parse(%q) = %q, want %q", word, got, e)
			}
			words = append(words, word)
		}
		again, err := Read(strings.NewReader("\ufeff"+strings.Join(words, "\n")), "x")
		same := func(a, b Entry) bool { return a.Source == b.Source && a.Target == b.Target }
		if slices.Contains(words, "") { // "=" alone: no word to write
			return
		}
		if err != nil || !slices.EqualFunc(again, entries, same) {
			t.Errorf("Read(%q) = %q, again %q, %v", list, entries, again, err)
		}
	})
}
