package extract

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxElement  = 255  // bytes; NAME_MAX of Linux, macOS and NTFS
	maxName     = 2048 // bytes; half of Linux's PATH_MAX, so that the place of the destination does not matter
	maxElements = 256  // three times the deepest node_modules seen
)

// cleanName returns the plain name that an archive writes as raw: relative,
// with slashes, without "./" in front; "" for the root, which only a directory
// can be. It never repairs a name. A reason is returned for a name that is
// harmless and can not be written.
func cleanName(raw string, dir, absolute bool) (string, Reason, error) {
	name := raw
	switch {
	case len(raw) > maxName:
		return "", "", fmt.Errorf("%w: name %q… has %d bytes (at most %d)", ErrLimit, raw[:64], len(raw), maxName)
	case dir && (raw == "/" || raw == "./"):
		return "", "", nil
	case strings.HasPrefix(raw, "/") && absolute:
		name = raw[1:]
	case strings.HasPrefix(raw, "./"):
		name = raw[2:]
	}
	if dir {
		name = strings.TrimSuffix(name, "/")
	}
	elements := 0
	for e := range strings.SplitSeq(name, "/") {
		switch {
		case e == "" || e == "." || e == ".." || strings.ContainsRune(e, 0):
			return "", "", fmt.Errorf("%w: name %q", ErrUnsafe, raw)
		case len(e) > maxElement:
			return "", "", fmt.Errorf("%w: an element of name %q has %d bytes (at most %d)", ErrLimit, raw, len(e), maxElement)
		}
		elements++
	}
	if elements > maxElements {
		return "", "", fmt.Errorf("%w: name %q… has %d elements (at most %d)", ErrLimit, raw[:64], elements, maxElements)
	}
	if strings.Contains(name, `\`) {
		if hostileOnWindows(name) {
			return "", "", fmt.Errorf("%w: name %q", ErrUnsafe, raw)
		}
		return "", SkipName, nil
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", SkipName, nil // "NUL" or "a:b" on Windows
	}
	return name, "", nil
}

// hostileOnWindows reports whether name is absolute or goes up where a
// backslash is a separator.
func hostileOnWindows(name string) bool {
	both := func(r rune) bool { return r == '/' || r == '\\' }
	return name[0] == '\\' || len(name) > 2 && name[1] == ':' && name[2] == '\\' ||
		slices.Contains(strings.FieldsFunc(name, both), "..")
}

// inside reports whether name is dir or below it; "" is the root.
func inside(name, dir string) bool {
	return dir == "" || strings.HasPrefix(name, dir) && (len(name) == len(dir) || name[len(dir)] == '/')
}

// parents yields the names of the directories above name, outermost first.
func parents(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
	}
}

// linkTarget returns the target with which the symbolic link name is to be
// made, or why it is not to be made.
//
// A target is safe when all its ".." come first, and are not more than there
// are directories above the link: those are real directories (no entry is
// written through a link), so the climb ends inside the tree, and what follows
// only goes down, through links of which the same is true. A ".." further on
// would not do: "a/.." is the parent of whatever a is a link to.
func linkTarget(name, target string, p LinkPolicy) (string, Reason) {
	depth := strings.Count(name, "/")
	absolute := strings.HasPrefix(target, "/")
	switch {
	case p == NoLinks:
		return "", SkipLink
	case target == "" || len(target) > maxName || strings.ContainsAny(target, "\\\x00"):
		return "", SkipUnsafeLink
	case absolute && p != RelativeLinks:
		return "", SkipAbsoluteLink
	}
	ups, down := 0, []string(nil)
	for e := range strings.SplitSeq(target, "/") {
		switch {
		case e == "" || e == ".":
		case e != "..":
			down = append(down, e)
		case len(down) > 0 || absolute || ups == depth:
			return "", SkipUnsafeLink
		default:
			ups++
		}
	}
	if len(down) > 0 && !filepath.IsLocal(filepath.Join(down...)) {
		return "", SkipUnsafeLink // "C:x" on Windows
	}
	if absolute {
		target = strings.Repeat("../", depth) + strings.Join(down, "/")
		if target = strings.TrimSuffix(target, "/"); target == "" {
			target = "."
		}
	}
	return target, ""
}

// fold returns a key that is the same for names that differ only in case.
func fold(name string) string {
	if !utf8.ValidString(name) {
		return name
	}
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, name)
}
