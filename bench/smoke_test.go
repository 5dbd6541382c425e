package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/internal/registrytest"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the processes that the program starts of
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if _, ok := parts[os.Args[1]]; ok {
			main()
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(builtIn)
		os.Exit(code)
	}))
}

// builtIn is the folder of the ferry that [builtFerry] builds once.
var builtIn string

var builtFerry = sync.OnceValues(func() (string, error) {
	var err error
	if builtIn, err = os.MkdirTemp("", "ferry-bench-test"); err != nil {
		return "", err
	}
	program := filepath.Join(builtIn, "ferry")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "ferry/cmd/ferry").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
})

// laboratory returns the flags of a small run in an empty folder.
func laboratory(t *testing.T) (folder string, flags []string) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	tools := filepath.Dir(registrytest.Tool(t, "registry"))
	registrytest.Tool(t, "versitygw")
	ferry, err := builtFerry()
	if err != nil {
		t.Fatal(err)
	}
	folder = quickFolder(t)
	return folder, []string{"-sync=false", "-size", "2MiB", "-rounds", "1", "-contenders", "ferry,floor", "-tools", tools, "-temp", folder, "-ferry", ferry}
}

// quickFolder returns an empty folder, in memory where that can be had:
// registries wait for the disk after each blob.
func quickFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "ferry-bench-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

func TestSmoke(t *testing.T) {
	folder, flags := laboratory(t)
	written := t.TempDir()
	name := func(n string) string { return filepath.Join(written, n) }
	var stdout, stderr strings.Builder
	code := run(t.Context(), append(flags, "-json", name("r.json"), "-svg", name("r.svg"), "-md", name("r.md")), &stdout, &stderr)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, &stderr)
	}
	data, err := os.ReadFile(name("r.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range r.Measurements {
		got = append(got, m.Operation+" "+m.Contender)
		if m.Seconds <= 0 || m.PeakMemory < 1<<20 {
			t.Errorf("%s by %s: %v s, %d bytes of memory", m.Operation, m.Contender, m.Seconds, m.PeakMemory)
		}
	}
	for _, want := range []string{"export ferry", "export floor", "import ferry-hash", "import floor", "import floor-nohash",
		"again ferry-hash", "again floor", "copy floor", "copy-again floor", "s3-export ferry", "s3-export floor", "s3-import ferry"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s was not measured, only %q", want, got)
		}
	}
	if n := find(r.Summary, "again", "floor").Requests; n != 24 {
		t.Errorf("the floor asked %d times for 24 tags", n)
	}
	if r.Workload.Bytes < 2<<20 || r.Machine.Cores == 0 {
		t.Errorf("%d bytes, %d cores", r.Workload.Bytes, r.Machine.Cores)
	}
	for _, n := range []string{"r.svg", "r.md"} {
		if info, err := os.Stat(name(n)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", n, err)
		}
	}
	if !strings.Contains(stdout.String(), "what must hold") {
		t.Errorf("stdout is\n%s", &stdout)
	}
	wantEmpty(t, folder)
}

// TestInterrupt ends a run in the middle of an operation.
func TestInterrupt(t *testing.T) {
	folder, flags := laboratory(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	talk := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "round 1") {
			cancel()
		}
		return len(p), nil
	})
	if code := run(ctx, flags, io.Discard, talk); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	wantEmpty(t, folder)
}

// TestFailure measures a ferry that always fails: the others go on.
func TestFailure(t *testing.T) {
	folder, flags := laboratory(t)
	program := filepath.Join(t.TempDir(), "ferry")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = export ] && echo broken on purpose >&2 && exit 9\nexec %q \"$@\"\n", flags[len(flags)-1])
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	code := run(t.Context(), append(flags, "-ferry", program, "-only", "export"), &stdout, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "broken on purpose") || !strings.Contains(stdout.String(), "floor") {
		t.Errorf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
	wantEmpty(t, folder)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// wantEmpty checks that nothing was left behind.
func wantEmpty(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries are left in the folder: %v, %v", len(entries), entries, err)
	}
}
