package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
)

// password opens the private key of the demo. It is printed, like all that is
// typed.
const password = "only-for-the-demo"

// shell runs commands in the folder of the demo and shows them. What they
// write goes to out, both streams, in the order in which they write it.
type shell struct {
	out  io.Writer
	dir  string
	env  []string // NAME=VALUE
	bin  string   // the folder of ferry
	bold bool
	step int
}

func newShell(out io.Writer, dir string, env []string, bin string) *shell {
	f, ok := out.(*os.File)
	bold := ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""
	env = append(slices.Clone(env), "XDG_STATE_HOME="+filepath.Join(dir, ".state")) // not that of who runs the demo
	return &shell{out: out, dir: dir, env: env, bin: bin, bold: bold}
}

// say prints a line of the demo's own.
func (s *shell) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// headline begins a step.
func (s *shell) headline(text string) {
	s.step++
	s.say("\n%s\n", s.strong(fmt.Sprintf("%d. %s", s.step, text)))
}

// strong returns text as it stands out on a terminal.
func (s *shell) strong(text string) string {
	if !s.bold {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// enter shows what makes the environment that [shell.run] gives.
func (s *shell) enter() {
	s.prompt("cd " + quote(s.dir))
	s.prompt("export PATH=" + quote(s.bin) + ":$PATH")
	for _, e := range s.env {
		s.prompt("export " + quote(e))
	}
}

func (s *shell) prompt(line string) { s.say("%s", s.strong("$ "+line)) }

// run shows and runs a line, which must end with exit code 0.
func (s *shell) run(ctx context.Context, line string) error {
	return s.exec(ctx, line, 0, s.out)
}

// refused shows and runs a line, which must end with that exit code.
func (s *shell) refused(ctx context.Context, line string, code int) error {
	if err := s.exec(ctx, line, code, s.out); err != nil {
		return err
	}
	s.prompt("echo $?")
	s.say("%d", code)
	return nil
}

// answer is run, and returns what the line wrote to stdout.
func (s *shell) answer(ctx context.Context, line string) (string, error) {
	var stdout bytes.Buffer
	err := s.exec(ctx, line, 0, &stdout)
	s.out.Write(stdout.Bytes())
	return stdout.String(), err
}

func (s *shell) exec(ctx context.Context, line string, want int, stdout io.Writer) error {
	s.prompt(line)
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = stdout, s.out
	cmd.Env = slices.Concat(os.Environ(), s.env, []string{"PATH=" + s.bin + string(os.PathListSeparator) + os.Getenv("PATH")})
	// A terminal interrupts ferry, too; it ends in order.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("step %d: exit code %d, want %d, of: %s", s.step, got, want, line)
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_/.,:@%+=-]+$`)

// quote returns word as a shell reads it.
func quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
