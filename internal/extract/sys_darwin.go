package extract

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncEachFile says that files are synced one by one.
const syncEachFile = true

// syncTree has nothing to do where each file was synced.
func syncTree(*os.File) error { return nil }

var errNoSwap = errors.New("the system can not swap two names")

// swap exchanges two names in one step.
func swap(a, b string) error {
	err := unix.RenamexNp(a, b, unix.RENAME_SWAP)
	switch err {
	case nil:
		return nil
	case unix.ENOSYS, unix.EINVAL, unix.ENOTSUP:
		return errNoSwap
	}
	return &os.LinkError{Op: "swap", Old: a, New: b, Err: err}
}
