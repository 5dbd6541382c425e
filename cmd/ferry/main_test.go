package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // test servers log broken connections
	testscript.Main(leakTest{m}, map[string]func(){"ferry": ferryMain})
}

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
// its peak of memory too, to the file FERRY_TEST_STATUS.
func ferryMain() {
	p := thisProcess()
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
