package layout

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
)

// A full disk is ErrNoSpace, and nothing that is not whole stays on it (T49).
func TestDiskFull(t *testing.T) {
	d, content := contentOf(1, 2<<20)
	small, few := contentOf(2, 1000)
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			dir := storetest.Tmpfs(t, 1<<20)
			path := filepath.Join(dir, "out")
			out := mustMake(t, path, s.make)
			if err := out.WriteBlob(t.Context(), small, bytes.NewReader(few)); err != nil {
				t.Fatal(err)
			}
			if err := out.WriteBlob(t.Context(), d, bytes.NewReader(content)); !errors.Is(err, bundle.ErrNoSpace) || !strings.Contains(err.Error(), "no space left") {
				t.Errorf("WriteBlob = %v, want ErrNoSpace", err)
			}
			if err := out.Close(); err != nil {
				t.Error(err)
			}
			left := list(t, dir)
			if s.name == "archive" && len(left) > 0 ||
				slices.ContainsFunc(left, func(name string) bool {
					return strings.Contains(name, d.Digest.Hex()) || strings.Contains(name, ".partial")
				}) {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// writeUntilKilled is how a process of TestKilled is told where to write.
const writeUntilKilled = "LAYOUT_TEST_WRITE_UNTIL_KILLED"

// Killed in the middle of a blob, a run leaves nothing that looks finished, and
// the next one goes on from there (T50).
func TestKilled(t *testing.T) {
	whole, content := contentOf(1, 1000)
	half, more := contentOf(2, 4*copyBuffer)
	write := func(t *testing.T, s sink, r io.Reader) {
		t.Helper()
		if err := s.WriteBlob(t.Context(), whole, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteBlob(t.Context(), half, r); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Finish(t.Context(), []Named{{"x", half}}), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if path := os.Getenv(writeUntilKilled); path != "" {
		i := slices.IndexFunc(sinks, func(s sinkKind) bool { return s.name == filepath.Base(filepath.Dir(path)) })
		write(t, mustMake(t, path, sinks[i].make), io.MultiReader(bytes.NewReader(more[:3*copyBuffer]), readerFunc(func([]byte) (int, error) {
			return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})))
		return
	}
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), s.name, "out")
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), writeUntilKilled+"="+path)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process ended with %v\n%s", err, out)
			}
			left := list(t, filepath.Dir(path))
			if !slices.ContainsFunc(left, func(name string) bool { return strings.HasSuffix(name, ".partial") }) {
				t.Errorf("no unfinished file is left, only %q: it was killed too early or too late", left)
			}
			for _, name := range left {
				if strings.HasSuffix(name, half.Digest.Hex()) || strings.HasSuffix(name, indexName) || name == "out" {
					t.Errorf("%s looks finished", name)
				}
			}
			next := mustMake(t, path, s.make)
			if ok, err := next.Has(t.Context(), whole); err != nil || ok != (s.name == "folder") {
				t.Errorf("Has of the blob that was whole = %t, %v", ok, err)
			}
			write(t, next, bytes.NewReader(more))
			if got, err := mustOpen(t, path).Manifest(t.Context(), half); err != nil || !bytes.Equal(got, more) {
				t.Errorf("after the second run: %v", err)
			}
			for _, name := range list(t, filepath.Dir(path)) {
				if strings.HasSuffix(name, ".partial") {
					t.Errorf("%s is left after the second run", name)
				}
			}
		})
	}
}
