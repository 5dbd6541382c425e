package bundle

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var (
	// fullErrors are ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL and
	// ERROR_DISK_QUOTA_EXCEEDED.
	fullErrors = []error{syscall.Errno(39), syscall.Errno(112), syscall.Errno(1295)}
	// readOnlyError is ERROR_WRITE_PROTECT.
	readOnlyError error = syscall.Errno(19)
)

// umask is that of Unix; there is none here.
const umask fs.FileMode = 0

// lock gives the lock to everybody: Windows has no advisory locks, and its
// mandatory ones would keep readers out.
func lock(*os.File) bool { return true }

// syncDir does nothing: Windows has no way to sync a directory.
func syncDir(*os.Root, string) error { return nil }

// renameNew renames a file to a name that must be free. MoveFile, unlike
// os.Rename, does not replace. The file systems without hard links that it is
// called for (FAT) have no symbolic links either that could lead out of root.
func renameNew(_ context.Context, root *os.Root, oldName, newName string) error {
	from, err := syscall.UTF16PtrFromString(filepath.Join(root.Name(), filepath.FromSlash(oldName)))
	if err != nil {
		return err
	}
	to, err := syscall.UTF16PtrFromString(filepath.Join(root.Name(), filepath.FromSlash(newName)))
	if err != nil {
		return err
	}
	return syscall.MoveFile(from, to)
}
