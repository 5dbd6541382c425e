package layout

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ferry/bundle"
)

// A full disk is ErrNoSpace, and nothing that is not whole stays on it (T49).
func TestDiskFull(t *testing.T) {
	d, content := contentOf(1, 2<<20)
	small, few := contentOf(2, 1000)
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
				t.Skipf("mounting a tmpfs needs root: %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
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
