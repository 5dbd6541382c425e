package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ferry/internal/registrytest"
)

// gate is a fault that holds requests back once they are read, from the nth
// that matches on, until it is opened or the client is gone.
type gate struct {
	match   registrytest.Match
	after   int64 // requests that pass
	n       atomic.Int64
	open    atomic.Bool
	once    sync.Once
	reached chan struct{}
}

func newGate(match registrytest.Match, after int64) *gate {
	return &gate{match: match, after: after, reached: make(chan struct{})}
}

func (g *gate) fault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.open.Load() || !g.match(r) || g.n.Add(1) <= g.after {
			next.ServeHTTP(w, r)
			return
		}
		io.Copy(io.Discard, r.Body) // the server notices that a client is gone when nothing is left to read
		g.once.Do(func() { close(g.reached) })
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
}

// interrupt starts ferry, sends it a signal when the gate is reached, and
// checks that it ends soon, in order.
func interrupt(t *testing.T, g *gate, signal os.Signal, dir string, args ...string) {
	t.Helper()
	cmd := ferryCommand(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-g.reached:
	case err := <-ended:
		t.Fatalf("ferry %q ended before it was interrupted: %v\n%s", args, err, &stderr)
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		t.Fatalf("ferry %q comes to nothing: %v\n%s", args, <-ended, &stderr)
	}
	sent := time.Now()
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second): // T50
		cmd.Process.Kill()
		<-ended
		t.Fatalf("ferry %q has not ended 10 s after %v\n%s", args, signal, &stderr)
	}
	t.Logf("ferry %s ended %v after %v", args[0], time.Since(sent), signal)
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("ferry %q: exit code %d\n%s", args, code, &stderr)
	}
	if err := (&scripted{site: &site{}}).checkTalk(exitInterrupted, stdout.String(), stderr.String()); err != nil {
		t.Errorf("ferry %q: %v", args, err)
	}
	if !strings.Contains(stderr.String(), "run the same command again") {
		t.Errorf("ferry %q says %q", args, &stderr)
	}
}

func ferryCommand(t testing.TB, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ferry", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+dir)
	return cmd
}

func mustFerry(t testing.TB, dir string, args ...string) {
	t.Helper()
	if out, err := ferryCommand(t, dir, args...).CombinedOutput(); err != nil {
		t.Fatalf("ferry %q: %v\n%s", args, err, out)
	}
}

// An import and an export that are interrupted end within seconds, leave
// nothing that looks finished, and the same command goes on (T50).
func TestInterrupt(t *testing.T) {
	fetch := newGate(registrytest.Blobs("GET"), 2)
	outside := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{fetch.fault}})
	samples := []*registrytest.Sample{sampleOf(t, "team/single"), sampleOf(t, "team/large")}
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, public := testKey(t, "one.key"), testKey(t, "one.pub")
	export := []string{"export", outside.Host + "/team/single:1.0.0", outside.Host + "/team/single:latest",
		outside.Host + "/team/large:big", "usb", "--key", key, "--name", "n", "--version", "1", "--jobs", "1"}
	interrupt(t, fetch, os.Interrupt, dir, export...)
	if _, err := os.Stat(filepath.Join(dir, "usb/n/1/bundle.json")); err == nil {
		t.Error("the interrupted export looks complete")
	}
	pending, err := os.ReadFile(filepath.Join(dir, "usb/n/1/bundle.json.pending"))
	if err != nil {
		t.Error(err)
	}
	fetch.open.Store(true)
	outside.Reset()
	mustFerry(t, dir, export...)
	if again := outside.Count("GET", "/blobs/"); again != 3 {
		t.Errorf("%d blobs were fetched after the interruption, want 3: 2 of 5 were there", again)
	}
	if final, err := os.ReadFile(filepath.Join(dir, "usb/n/1/bundle.json")); err != nil || !bytes.Equal(final, pending) {
		t.Errorf("the export was not continued but made anew: %v", err)
	}

	for name, signal := range map[string]os.Signal{"SIGINT": os.Interrupt, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			push := newGate(registrytest.Uploads("PUT"), 2)
			inside := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{push.fault}})
			args := []string{"import", "usb", inside.Host + "/p", "--key", public, "--jobs", "1", "--receipt", name + ".json"}
			interrupt(t, push, signal, dir, args...)
			if n := inside.Count("PUT", "/manifests/"); n != 0 {
				t.Errorf("%d manifests were pushed", n)
			}
			if _, err := os.Stat(filepath.Join(dir, name+".json")); err == nil {
				t.Error("there is a receipt")
			}
			push.open.Store(true)
			inside.Reset()
			mustFerry(t, dir, args...)
			if n := inside.Count("PUT", "/blobs/uploads/"); n != 3 {
				t.Errorf("%d blobs were pushed after the interruption, want 3: 2 of 5 were there", n)
			}
			s := &scripted{site: &site{}, TB: t}
			if err := s.arrived(nil, []string{inside.Host + "/p", "team/single", "team/large"}); err != nil {
				t.Error(err)
			}
		})
	}
}
