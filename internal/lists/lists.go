// Package lists hides the ways in which users say which images they mean.
//
// # Format
//
// images.txt, as the gcrane copy script and hauler read it: references
// separated by white space, "#" to the end of the line is a comment; a byte
// order mark and CRLF are tolerated. In "SOURCE=TARGET" the image gets the name
// TARGET, "path" or "path:tag", in the bundle (the form of oc-mirror's
// mapping.txt).
//
// # Limits
//
// A list has at most [MaxList] bytes.
package lists

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxList, in bytes, bounds a list; 16 MiB is about 200,000 references.
const MaxList = 16 << 20

// Entry is one reference of a list as it is written there.
type Entry struct {
	Source string
	Target string // after "=", or ""
	Where  string // "file:line", or "" for an argument
}

// Read returns the entries of the list in r, which is called name in
// messages.
func Read(r io.Reader, name string) ([]Entry, error) {
	content, err := io.ReadAll(io.LimitReader(r, MaxList+1))
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", name, err)
	}
	if len(content) > MaxList {
		return nil, fmt.Errorf("list %q has more than %d bytes", name, MaxList)
	}
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("list %q is not UTF-8 text", name)
	}
	var entries []Entry
	text := strings.TrimPrefix(string(content), "\ufeff")
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, token := range strings.Fields(line) {
			entry := Parse(token)
			entry.Where = fmt.Sprintf("%s:%d", name, n+1)
			entries = append(entries, entry)
		}
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("list %q has no images", name)
	}
	return entries, nil
}

// Parse returns the entry written as one word, "SOURCE" or "SOURCE=TARGET".
func Parse(word string) Entry {
	source, target, _ := strings.Cut(word, "=")
	return Entry{Source: source, Target: target}
}
