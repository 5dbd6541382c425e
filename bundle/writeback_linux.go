package bundle

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback has the kernel begin to bring to the disk what was written to
// f, without waiting for it. That it can not is no failure: a later Sync tells.
func beginWriteback(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) {
		unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	})
}
