package state_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"ferry/internal/state"
	"ferry/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// know has a memory know of a bundle.
func know(m *verify.Memory, name string, sequence int64) {
	if m.Bundles == nil {
		m.Bundles = map[string]verify.KnownBundles{}
	}
	m.Bundles[name] = verify.KnownBundles{"key": {Sequence: sequence}}
}

// remember adds a bundle to a state.
func remember(t *testing.T, d state.Dir, name string, sequence int64) {
	t.Helper()
	err := d.Update(t.Context(), func(m *verify.Memory) error {
		know(m, name, sequence)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sequenceOf(t *testing.T, d state.Dir, name string) int64 {
	t.Helper()
	m, err := d.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m.Bundles[name]["key"].Sequence
}

func TestDir(t *testing.T) {
	d := state.Dir(filepath.Join(t.TempDir(), "a", "ferry"))
	if m, err := d.Load(t.Context()); err != nil || m.Bundles != nil {
		t.Errorf("without a folder: %v, %v", m, err)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made the folder: %v", err)
	}
	remember(t, d, "n", 1)
	remember(t, d, "m", 2)
	if n, m := sequenceOf(t, d, "n"), sequenceOf(t, d, "m"); n != 1 || m != 2 {
		t.Errorf("n is %d, m is %d", n, m)
	}
	info, err := os.Stat(string(d))
	if err != nil || info.Mode().Perm() != 0o700 { // T53
		t.Errorf("%v, %v", info.Mode(), err)
	}
	failed := errors.New("failed")
	change := func(m *verify.Memory) error {
		know(m, "n", 9)
		return failed
	}
	if err := d.Update(t.Context(), change); err != failed || sequenceOf(t, d, "n") != 1 {
		t.Errorf("a change that fails: %v, n is %d", err, sequenceOf(t, d, "n"))
	}
	err = d.Try(t.Context(), func(m *verify.Memory) error {
		know(m, "n", 9)
		return nil
	})
	if err != nil || sequenceOf(t, d, "n") != 1 {
		t.Errorf("a try: %v, n is %d", err, sequenceOf(t, d, "n"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Update(ctx, func(*verify.Memory) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// T52: nothing that one of many has remembered is lost.
func TestManyAtOnce(t *testing.T) {
	d := state.Dir(t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := d.Update(t.Context(), func(m *verify.Memory) error {
				know(m, fmt.Sprint("n", i), int64(i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 16 {
		if got := sequenceOf(t, d, fmt.Sprint("n", i)); got != int64(i) {
			t.Errorf("n%d is %d", i, got)
		}
	}
}

// I8: a state that can not be read is never taken for an empty one.
func TestDamaged(t *testing.T) {
	d := state.Dir(t.TempDir())
	remember(t, d, "n", 1)
	whole, err := os.ReadFile(d.String())
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)/2], "other": []byte("{}\n"), "too long": make([]byte, verify.MaxMemory+1),
	} {
		if err := os.WriteFile(d.String(), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := d.Load(t.Context())
		if !errors.Is(err, verify.ErrMemory) || !errors.Is(err, verify.ErrUntrusted) {
			t.Errorf("%s: %v", what, err)
		}
		called := false
		err = d.Update(t.Context(), func(*verify.Memory) error { called = true; return nil })
		if !errors.Is(err, verify.ErrMemory) || called {
			t.Errorf("%s: updating: %v", what, err)
		}
		if kept, err := os.ReadFile(d.String()); err != nil || string(kept) != string(content) {
			t.Errorf("%s: it was written over: %v", what, err)
		}
	}
}

// A run that was killed leaves the state as it was: what it had begun to write
// does not count, and its lock is gone.
func TestAfterKill(t *testing.T) {
	d := state.Dir(t.TempDir())
	remember(t, d, "n", 1)
	if err := os.WriteFile(d.String()+".tmpX.partial", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	remember(t, d, "n", 2)
	if got := sequenceOf(t, d, "n"); got != 2 {
		t.Errorf("n is %d", got)
	}
}

func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []state.Dir{state.Dir(file), state.Dir(filepath.Join(file, "below"))} {
		if err := d.Update(t.Context(), func(*verify.Memory) error { return nil }); !errors.Is(err, state.ErrUnwritable) {
			t.Errorf("%s was written: %v", d, err)
		}
	}
	d := state.Dir(t.TempDir())
	if err := os.Mkdir(d.String(), 0o700); err != nil { // what is there is no file
		t.Fatal(err)
	}
	if _, err := d.Load(t.Context()); !errors.Is(err, verify.ErrMemory) {
		t.Errorf("a folder is taken for nothing: %v", err)
	}
	if err := d.Update(t.Context(), func(*verify.Memory) error { return nil }); !errors.Is(err, verify.ErrMemory) {
		t.Errorf("%s was written over a folder: %v", d, err)
	}
}

// T50: who waits for another run that does not end can be stopped.
func TestWaiting(t *testing.T) {
	d := state.Dir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Update(t.Context(), func(*verify.Memory) error {
		waiting := make(chan error)
		go func() { waiting <- d.Update(ctx, func(*verify.Memory) error { t.Error("two at once"); return nil }) }()
		cancel()
		return <-waiting
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
