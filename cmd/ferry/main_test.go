package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"ferry/verify"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // test servers log broken connections
	testscript.Main(leakTest{m}, map[string]func(){"ferry": ferryMain})
}

// sharedState names the folder of the trust states of tests that give none.
const sharedState = "FERRY_TEST_STATE"

// leakTest fails when a test has left a goroutine behind.
type leakTest struct{ m *testing.M }

func (l leakTest) Run() int {
	state, err := os.MkdirTemp("", "ferry-state-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(state)
	os.Setenv("XDG_STATE_HOME", state) // not that of whoever runs the tests
	os.Setenv(sharedState, state)
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// ferryMain is the command ferry in scripts: [main] with the clock that
// FERRY_TEST_NOW sets. At its end it copies what Linux tells of the process,
// its peak of memory too, to the file FERRY_TEST_STATUS. Its trust state is that
// of the folder in which it runs, unless a test gives one.
func ferryMain() {
	p := thisProcess()
	if shared := os.Getenv(sharedState); shared != "" && shared == os.Getenv("XDG_STATE_HOME") {
		dir, err := os.Getwd()
		if err != nil {
			panic(err)
		}
		os.Setenv("XDG_STATE_HOME", filepath.Join(shared, verify.DigestOf([]byte(dir)).Hex()))
	}
	if s := os.Getenv("FERRY_TEST_NOW"); s != "" {
		now, err := time.Parse(time.RFC3339, s)
		if err != nil {
			panic(err)
		}
		p.now = func() time.Time { return now }
	}
	code := run(context.Background(), os.Args[1:], p)
	if name := os.Getenv("FERRY_TEST_STATUS"); name != "" {
		status, err := os.ReadFile("/proc/self/status")
		if err == nil {
			err = os.WriteFile(name, status, 0o644)
		}
		if err != nil {
			panic(err)
		}
	}
	os.Exit(code)
}
