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
	os.Exit(run(context.Background(), os.Args[1:], thisProcess()))
}

// thisProcess returns the process that runs, after keeping its secrets to it:
// no core dump has them (T54), and no child its environment.
func thisProcess() process {
	noCoreDumps()
	return process{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookupEnv: environment(), now: time.Now}
}

// own are the variables that only ferry itself reads. Helpers of docker or AWS
// have no use for its passwords; and docker's library would take
// DOCKER_AUTH_CONFIG too, and print about it.
var own = []string{"DOCKER_AUTH_CONFIG", "FERRY_PASSWORD", "COSIGN_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN"}

// environment returns os.LookupEnv, and takes what is our own from there.
func environment() func(string) (string, bool) {
	kept := map[string]string{}
	for _, name := range own {
		if value, set := os.LookupEnv(name); set {
			kept[name] = value
			_ = os.Unsetenv(name) // fails on a malformed name only
		}
	}
	return func(name string) (string, bool) {
		if value, set := kept[name]; set {
			return value, true
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
