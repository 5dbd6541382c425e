package extract

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncEachFile is false where syncTree brings all files to stable storage: a
// single call, where a hundred thousand would take minutes.
const syncEachFile = false

// syncTree brings all of the file system that d is on to stable storage.
func syncTree(d *os.File) error { return unix.Syncfs(int(d.Fd())) }

var errNoSwap = errors.New("the system can not swap two names")

// swap exchanges two names in one step.
func swap(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	switch err {
	case nil:
		return nil
	case unix.ENOSYS, unix.EINVAL, unix.ENOTSUP:
		return errNoSwap
	}
	return &os.LinkError{Op: "swap", Old: a, New: b, Err: err}
}
