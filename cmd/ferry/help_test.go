package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ownState is the environment of a command with a trust state that nobody else
// has, and nothing else.
func ownState(name string) (string, bool) {
	if name == "XDG_STATE_HOME" {
		return filepath.Join(os.Getenv(name), rand.Text()), true
	}
	return "", false
}

// try runs ferry in this process.
func try(ctx context.Context, now time.Time, args ...string) (code int, stdout, stderr string) {
	var out, talk bytes.Buffer
	code = run(ctx, args, process{stdin: strings.NewReader(""), stdout: &out, stderr: &talk,
		lookupEnv: ownState, now: func() time.Time { return now }})
	return code, out.String(), talk.String()
}

func commands(t *testing.T) []*cobra.Command {
	t.Helper()
	root := newRootCommand(newApp(process{stdout: io.Discard, stderr: io.Discard}))
	var list []*cobra.Command
	for _, c := range root.Commands() {
		if c.Name() != "help" && c.Name() != "completion" && !c.Hidden {
			list = append(list, c)
		}
	}
	if len(list) < 17 {
		t.Fatalf("only %d commands", len(list))
	}
	return list
}

var flagPattern = regexp.MustCompile(`(?:^|[\s"(])(--?[a-z][a-z0-9-]*)`)

// The help of each command has all of its flags and examples that are calls
// of it with flags that it has.
func TestHelp(t *testing.T) {
	list := commands(t)
	for _, c := range list {
		list = append(list, c.Commands()...) // of ferry trust
	}
	for _, c := range list {
		name := strings.TrimPrefix(c.CommandPath(), "ferry ")
		_, help, _ := try(t.Context(), time.Now(), append(strings.Fields(name), "--help")...)
		has := map[string]bool{"--help": true, "-h": true}
		addFlag := func(f *pflag.Flag) {
			has["--"+f.Name] = true
			if f.Shorthand != "" {
				has["-"+f.Shorthand] = true
			}
			if !f.Hidden && !strings.Contains(help, "--"+f.Name+" ") {
				t.Errorf("ferry %s: its help lacks --%s", name, f.Name)
			}
			if f.Usage == "" {
				t.Errorf("ferry %s: --%s is not explained", name, f.Name)
			}
		}
		c.LocalFlags().VisitAll(addFlag)
		for _, sub := range c.Commands() {
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) { has["--"+f.Name] = true })
		}
		c.InheritedFlags().VisitAll(addFlag)
		if name != "version" && !strings.Contains(help, "Examples:\n  ") {
			t.Errorf("ferry %s has no example", name)
		}
		if c.Long != "" && (c.Short == "" || strings.HasSuffix(c.Short, ".")) {
			t.Errorf("ferry %s: short help %q", name, c.Short)
		}
		calls := 0
		for line := range strings.Lines(c.Example) {
			for part := range strings.SplitSeq(line, "|") {
				if _, call, ok := strings.Cut(part, "ferry "+name); ok {
					calls++
					for _, m := range flagPattern.FindAllStringSubmatch(call, -1) {
						if !has[m[1]] {
							t.Errorf("ferry %s: the example %q uses %s, which it does not have", name, line, m[1])
						}
					}
				}
			}
		}
		if calls == 0 && name != "version" {
			t.Errorf("ferry %s: no example calls it", name)
		}
		for _, m := range flagPattern.FindAllStringSubmatch(c.Long, -1) {
			if !has[m[1]] && strings.HasPrefix(m[1], "--") {
				t.Errorf("ferry %s: its help speaks of %s, which it does not have", name, m[1])
			}
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 81 {
				t.Errorf("ferry %s: a line of %d bytes: %q", name, len(line), line)
			}
		}
	}
}
