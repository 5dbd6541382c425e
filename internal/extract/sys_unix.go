//go:build unix

package extract

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// noSpace reports whether err says that a disk or a quota is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isBusy reports whether a rename failed because a name is a mount point.
func isBusy(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV)
}

// isMount reports whether dir is on another file system than its parent.
func isMount(dir, parent fs.FileInfo) bool {
	d, ok1 := dir.Sys().(*syscall.Stat_t)
	p, ok2 := parent.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && d.Dev != p.Dev
}

// renameDir renames a directory to a name that is free or an empty directory,
// which os.Rename does not allow.
func renameDir(from, to string) error {
	if err := syscall.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// syncDir brings the names in a directory to stable storage.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
