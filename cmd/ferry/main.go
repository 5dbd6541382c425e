// Command ferry moves container images and other OCI content across an air
// gap. See docs/cli.md for its verbs, exit codes and output.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetOutput(io.Discard) // net/http tells there of servers that speak out of turn
	env := environment()
	os.Exit(run(context.Background(), os.Args[1:], process{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookupEnv: env, now: time.Now,
	}))
}

// environment returns os.LookupEnv, but for what only ferry itself must read:
// docker's library would take DOCKER_AUTH_CONFIG too, and print about it.
func environment() func(string) (string, bool) {
	const own = "DOCKER_AUTH_CONFIG"
	value, set := os.LookupEnv(own)
	_ = os.Unsetenv(own) // fails on a malformed name only
	return func(name string) (string, bool) {
		if name == own {
			return value, set
		}
		return os.LookupEnv(name)
	}
}

// process is what a command sees of the world around it.
type process struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookupEnv      func(string) (string, bool)
	now            func() time.Time
}

func (p process) env(name string) string {
	value, _ := p.lookupEnv(name)
	return value
}

// run performs one command and returns its exit code. The first interrupt or
// SIGTERM ends the command in order; a second one kills the process.
func run(ctx context.Context, args []string, p process) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	a := newApp(p)
	defer a.close()
	cmd := newRootCommand(a)
	cmd.SetArgs(args)
	called, err := cmd.ExecuteContextC(ctx)
	a.command = called.CommandPath()
	return a.finish(ctx, err)
}
