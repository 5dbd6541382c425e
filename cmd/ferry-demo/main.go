// Command ferry-demo takes container images on the whole trip across an air
// gap, on one machine: two registries in this process play the two sites, a
// folder plays the medium that is carried, and the real ferry does the work.
// Each command is printed as a user can type it, with what it says beneath.
//
// It needs ferry, a Go installation, whose files the sample images are made
// of, a POSIX shell, and no network but loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetOutput(io.Discard) // of the registries in this process
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 only if every step did what it must.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ferry-demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	ferry := flags.String("ferry", "bin/ferry", "the ferry to show")
	keep := flags.String("keep", "", "work in this new or empty `DIR` and keep it")
	rate := flags.Float64("rate", 20, "`MIB` a second that a registry gives and takes, 0 for no limit")
	wait := flags.Bool("wait", false, "at the end, keep the registries until interrupted, for commands of your own")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "ferry-demo: unexpected argument %q\n", flags.Arg(0))
		return 2
	}
	err := show(ctx, settings{*ferry, *keep, *rate, *wait}, stdout)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "ferry-demo: interrupted")
		return 130
	case err != nil:
		fmt.Fprintf(stderr, "ferry-demo: %v\n", err)
		return 1
	}
	return 0
}

type settings struct {
	ferry, keep string
	rate        float64 // MiB a second
	wait        bool
}

// show sets the stage, plays the trip and clears the stage.
func show(ctx context.Context, o settings, out io.Writer) (err error) {
	started := time.Now()
	ferry, err := findFerry(o.ferry)
	if err != nil {
		return err
	}
	dir, remove, err := workDir(o.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	registries, err := os.MkdirTemp("", "ferry-demo-registries-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(registries)) }()

	d := &demo{}
	if d.outside, err = startOutside(filepath.Join(registries, "outside"), &pace{rate: o.rate * (1 << 20)}); err != nil {
		return err
	}
	defer d.outside.stop()
	if d.inside, d.harbor, err = startInside(filepath.Join(registries, "inside"), &pace{rate: o.rate * (1 << 20)}); err != nil {
		return err
	}
	defer d.inside.stop()
	d.shell = newShell(out, dir, []string{"OUTSIDE=" + d.outside.host, "INSIDE=" + d.inside.host,
		"COSIGN_PASSWORD=" + password, "FERRY_HOST=" + d.inside.host, "FERRY_USERNAME=" + demoUser, "FERRY_PASSWORD=" + demoPassword}, filepath.Dir(ferry))
	if err := d.play(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe whole trip took %.0f s.\n", time.Since(started).Seconds())
	if o.keep == "" {
		fmt.Fprintln(out, "To keep what it made: go run ./cmd/ferry-demo -keep DIR")
	} else {
		fmt.Fprintf(out, "All it made is in %s.\n", dir)
	}
	if o.wait {
		fmt.Fprintf(out, "The registries run until you press Ctrl-C; type the commands elsewhere.\n")
		<-ctx.Done()
	}
	return nil
}

// findFerry returns the absolute path of the program to show. The commands
// that are printed call it by its name.
func findFerry(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if strings.TrimSuffix(filepath.Base(path), ".exe") != "ferry" {
		return "", fmt.Errorf("-ferry %s: its name must be ferry", path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: build it with make build", err)
	}
	return path, nil
}

// workDir returns the folder to work in, and what clears it away.
func workDir(keep string) (dir string, remove func() error, err error) {
	if keep == "" {
		dir, err = os.MkdirTemp("", "ferry-demo-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(keep); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	inside, err := os.ReadDir(dir)
	if err == nil && len(inside) > 0 {
		err = fmt.Errorf("-keep %s: the folder is not empty", dir)
	}
	return dir, func() error { return nil }, err
}
