package mutants

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/mutants.txt anew, with the kinds and reasons that it has")

const listFile = "testdata/mutants.txt"

const listHead = `# Every way in which a check of verify and bundle is broken, one a line:
#
#	kind, function, how, text of the check, which of those that are the same
#
# separated by tabs. Where the next line begins with "equivalent:", the package
# does the same without that check, or no test can tell, and the line says why.
#
# kind	signature, digest, path (of a file, a target, a name), limit, format, file (what a file
#	system may answer), other
# off	the condition, which refuses, is never true	on	the condition, which accepts, always is
# without	one operand of && or || does not count	border	< is <=, and the like
# swallow	an error that is returned is nil	accept	what reports whether says yes
#
# Written by go test ./internal/mutants -update, which keeps kinds and reasons, and guesses a kind
# for what is new: look at it.
`

// entry is what the list says of a mutant.
type entry struct {
	kind       string
	equivalent string // why, when it is
}

var kinds = []string{"signature", "digest", "path", "limit", "format", "file", "other"}

// mustCatch are the kinds of which every mutant has to be caught.
var mustCatch = []string{"signature", "digest", "path"}

// readList returns the entries of the list by the keys of their mutants.
func readList() (map[string]entry, error) {
	file, err := os.Open(listFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	list := map[string]entry{}
	last := ""
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		kind, key, ok := strings.Cut(line, "\t")
		why, isReason := strings.CutPrefix(strings.TrimSpace(line), "equivalent: ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case isReason && last != "" && why != "":
			list[last] = entry{list[last].kind, why}
		case !ok || strings.Count(key, "\t") != 3 || !slices.Contains(kinds, kind):
			return nil, fmt.Errorf("%s:%d: %q is no line of the list", listFile, n, line)
		default:
			if _, ok := list[key]; ok {
				return nil, fmt.Errorf("%s:%d: %q is there twice", listFile, n, key)
			}
			list[key], last = entry{kind: kind}, key
		}
	}
	return list, lines.Err()
}

func writeList(all []mutant, list map[string]entry) error {
	var b strings.Builder
	b.WriteString(listHead)
	where := ""
	for _, m := range all {
		if m.where != where {
			b.WriteString("\n")
			where = m.where
		}
		e, ok := list[m.key()]
		if !ok {
			e.kind = guess(m)
		}
		fmt.Fprintf(&b, "%s\t%s\n", e.kind, m.key())
		if e.equivalent != "" {
			fmt.Fprintf(&b, "\tequivalent: %s\n", e.equivalent)
		}
	}
	return os.WriteFile(listFile, []byte(b.String()), 0o644)
}

// guesses are what a check is about by its text, and else by its function: the
// first that fits.
var guesses = []struct {
	kind    string
	pattern *regexp.Regexp
}{
	{"signature", regexp.MustCompile(`(?i)verify\.check\b|sign|\bkeys?\b|quorum|meet\b|policy|threshold|fingerprint|hint|notbefore|notafter|stranger|expire|r\.raw|s\.raw`)},
	{"digest", regexp.MustCompile(`(?i)digest|hash|reader\.Read\b|bytes\.Equal|\bsum\b|mismatch|\bholds|findKept|expect\b`)},
	{"path", regexp.MustCompile(`(?i)\bpaths?\b|target|checkname|validname|validtag|pattern|isPiece|isBlob|e\.Path|name\b`)},
	{"limit", regexp.MustCompile(`\b[mM]ax[A-Z]|> limit|minObject`)},
	{"format", regexp.MustCompile(`(?i)manifest|entry|entries|volume|layout|valid|parse|image|referrer|base|narrow|identify|graph|complete|\bcut\b`)},
}

func guess(m mutant) string {
	system := systemFiles.MatchString(filepath.Base(m.file))
	text := m.text
	if m.op == opWithout {
		text, _, _ = strings.Cut(text, " in ") // the operand alone
	}
	for _, subject := range []string{text, m.where} {
		for _, g := range guesses {
			if g.pattern.MatchString(subject) && !(system && (g.kind != "path" || !strings.Contains(subject, "CheckName"))) {
				if m.op == opBorder {
					return "limit"
				}
				return g.kind
			}
		}
	}
	switch {
	case system:
		return "file"
	case m.op == opBorder:
		return "limit"
	}
	return "other"
}

// TestList: the list has exactly the checks that the code has.
func TestList(t *testing.T) {
	all, list := mutantsAndList(t)
	if *update {
		if err := writeList(all, list); err != nil {
			t.Fatal(err)
		}
		return
	}
	gone := maps.Clone(list)
	for _, m := range all {
		if _, ok := list[m.key()]; !ok {
			t.Errorf("a check that is not in %s: %s: %s (run go test ./internal/mutants -update, look at its kind, and see that a test fails without it)",
				listFile, m.op, m.where+": "+m.text)
		}
		delete(gone, m.key())
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		t.Errorf("%s has a check that is gone: %s (run go test ./internal/mutants -update if it was removed on purpose)", listFile, strings.ReplaceAll(key, "\t", " "))
	}
	if len(all) < 60 {
		t.Errorf("%d mutants were found, want 60 at least", len(all))
	}
}
