package storetest

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Tmpfs returns an empty folder on a file system of its own, of size bytes. It
// needs the rights of root: without them the test is skipped, but not in CI.
func Tmpfs(t testing.TB, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		t.Skipf("mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Leave makes the file system of [Tmpfs] have just so many bytes that are free.
func Leave(t testing.TB, dir string, free int64) {
	t.Helper()
	var at syscall.Statfs_t
	if err := syscall.Statfs(dir, &at); err != nil {
		t.Fatal(err)
	}
	taken := int64(at.Blocks-at.Bfree) * at.Bsize
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", taken+free)); err != nil {
		t.Fatalf("leaving %d of %d bytes: %v", free, taken, err)
	}
}
