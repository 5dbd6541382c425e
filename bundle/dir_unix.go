//go:build !windows

package bundle

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"
)

var (
	fullErrors          = []error{syscall.ENOSPC, syscall.EDQUOT}
	readOnlyError error = syscall.EROFS
)

// umask is the mask of this process. A package variable, because it can be
// read only by setting it, which is safe while nobody else is running yet.
var umask = func() fs.FileMode {
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	return fs.FileMode(mask)
}()

// lock takes the lock of the open file f, which lasts until f is closed, and
// reports whether nobody else has it. A file system without locks gives it to
// everybody.
func lock(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return true
	}
	busy := false
	conn.Control(func(fd uintptr) {
		busy = errors.Is(syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
	})
	return !busy
}

// syncDir makes what was done in the directory name survive a loss of power.
// Where directories can not be synced, or not be opened, nothing is done.
func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// lockPause is how long renameNew waits before it asks for a lock again.
const lockPause = 10 * time.Millisecond

// renameNew renames a file to a name that must be free, where there are no
// hard links. The lock of the directory keeps others that do the same away.
func renameNew(ctx context.Context, root *os.Root, oldName, newName string) error {
	dir, err := root.Open(filepath.FromSlash(path.Dir(newName)))
	if err != nil {
		return err
	}
	defer dir.Close()
	for !lock(dir) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
	if _, err := root.Lstat(filepath.FromSlash(newName)); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.Rename(filepath.FromSlash(oldName), filepath.FromSlash(newName))
}
