package extract

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

const (
	errorNotSameDevice  = syscall.Errno(17)
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

// noSpace reports whether err says that a disk is full.
func noSpace(err error) bool {
	return errors.Is(err, errorDiskFull) || errors.Is(err, errorHandleDiskFull)
}

// isBusy reports whether a rename failed because a name is a mount point.
func isBusy(err error) bool { return errors.Is(err, errorNotSameDevice) }

// isMount is not known before the rename.
func isMount(_, _ fs.FileInfo) bool { return false }

// renameDir renames a directory to a name that is free or an empty directory.
func renameDir(from, to string) error {
	p, err := syscall.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := syscall.RemoveDirectory(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &os.PathError{Op: "rmdir", Path: to, Err: err}
	}
	return os.Rename(from, to)
}

// syncDir has nothing to do: NTFS keeps a journal of names.
func syncDir(string) error { return nil }
