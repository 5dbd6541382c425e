package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/internal/registrytest"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(registrytest.Root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var (
	section  = regexp.MustCompile(`(?m)^## (.*)\n`)
	tableRow = regexp.MustCompile("(?m)^\\| (`-.*?`) \\|")
	longFlag = regexp.MustCompile(`--[a-z][a-z0-9-]*`)
)

// docs/cli.md has, of each command, all flags and no others.
func TestDocumentedFlags(t *testing.T) {
	doc := readDoc(t, "docs/cli.md")
	documented := map[string][]string{} // by section
	heads := section.FindAllStringSubmatchIndex(doc, -1)
	for i, h := range heads {
		end := len(doc)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		name, text := doc[h[2]:h[3]], doc[h[1]:end]
		documented[name] = []string{}
		for _, row := range tableRow.FindAllStringSubmatch(text, -1) {
			documented[name] = append(documented[name], longFlag.FindString(row[1]))
		}
		for line := range strings.Lines(text) { // the short sections have no table
			if strings.HasPrefix(line, "    ferry "+name+" ") {
				documented[name] = append(documented[name], longFlag.FindAllString(line, -1)...)
			}
		}
		if strings.Contains(text, "Flag `--key FILE`") {
			documented[name] = append(documented[name], "--key")
		}
	}
	list := commands(t)
	check := func(where string, flags *pflag.FlagSet, more ...string) {
		t.Helper()
		want := more
		flags.VisitAll(func(f *pflag.Flag) { want = append(want, "--"+f.Name) })
		got, ok := documented[where]
		if where == "version" && !ok {
			return // has no flags, and no section
		}
		slices.Sort(want)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, slices.Compact(want)) {
			t.Errorf("docs/cli.md, %s: flags %q, want %q", where, got, want)
		}
	}
	for _, c := range list {
		all := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
		for _, called := range append(c.Commands(), c) {
			all.AddFlagSet(called.LocalNonPersistentFlags())
		}
		check(c.Name(), all)
	}
	check("Flags of every verb", list[0].InheritedFlags(), "--help")
}

var (
	codeLine = regexp.MustCompile("(?m)^    .*$|^[a-z$].*ferry .*$")
	call     = regexp.MustCompile(`\bferry ([a-z]+)([^|;#)&]*)`)
)

// Every call of ferry in the docs names a command, with flags that it has.
func TestDocumentedCalls(t *testing.T) {
	byName := map[string]*cobra.Command{}
	for _, c := range commands(t) {
		byName[c.Name()] = c
	}
	files, err := filepath.Glob(filepath.Join(registrytest.Root(t), "docs", "*.md"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	readme, err := filepath.Glob(filepath.Join(registrytest.Root(t), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range append(files, readme...) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range codeLine.FindAllString(strings.ReplaceAll(string(content), "\\\n", " "), -1) {
			for _, m := range call.FindAllStringSubmatch(line, -1) {
				c := byName[m[1]]
				if c == nil {
					continue // prose, or help and completion
				}
				seen[m[1]] = true
				if sub, _, err := c.Find(strings.Fields(m[2])); err == nil {
					c = sub
				}
				for _, flag := range longFlag.FindAllString(m[2], -1) {
					name := flag[2:]
					if c.LocalFlags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) == nil && name != "help" {
						t.Errorf("%s: ferry %s has no flag %s: %q", filepath.Base(file), m[1], flag, strings.TrimSpace(line))
					}
				}
			}
		}
	}
	for name := range byName {
		if !seen[name] && name != "version" {
			t.Errorf("no document calls ferry %s, only %q", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}

// The exit codes of docs/cli.md, of the help and of the program are the same.
func TestDocumentedExitCodes(t *testing.T) {
	want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130"}
	for name, found := range map[string][][]string{
		"docs/cli.md": regexp.MustCompile(`(?m)^- \*\*(\d+)\*\*`).FindAllStringSubmatch(readDoc(t, "docs/cli.md"), -1),
		"--help":      regexp.MustCompile(`(?m)^  (\d+) +\S`).FindAllStringSubmatch(exitCodesHelp, -1),
	} {
		var got []string
		for _, m := range found {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the exit codes %q, want %q", name, got, want)
		}
	}
}

// docs/harbor.md has what each refusal means, and where it was seen.
func TestDocumentedRefusals(t *testing.T) {
	doc := readDoc(t, "docs/harbor.md")
	row := regexp.MustCompile(`(?m)^\| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \|$`)
	recordings, err := filepath.Glob(filepath.Join(registrytest.Root(t), "internal/harbortest/testdata/recordings/*.json"))
	if err != nil || len(recordings) < 18 {
		t.Fatalf("%q, %v", recordings, err)
	}
	means := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(doc, -1) {
		means[m[2]] = m[5]
	}
	seen := 0
	for _, m := range meanings {
		where, ok := means[m.means]
		if !ok {
			t.Errorf("docs/harbor.md: no row says %q", m.means)
		}
		for _, number := range strings.Split(where, ", ") {
			if number == "–" {
				continue
			}
			seen++
			if !slices.ContainsFunc(recordings, func(r string) bool { return strings.HasPrefix(filepath.Base(r), number+"-") }) {
				t.Errorf("docs/harbor.md: %q was seen in %q, of which there is no recording", m.means, number)
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d recordings", seen)
	}
}
