package bundle

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve makes room on the disk for size bytes of f, whose size it leaves as
// it is: a disk that is too full is known before the first byte, and a file
// that grows in many places at once lies in one piece. It fails only where
// there is no room; file systems that can not reserve any do not.
func reserve(f *os.File, size int64) (err error) {
	if size == 0 {
		return nil
	}
	control(f, func(fd int) {
		err = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size)
	})
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

// beginWriteback has the kernel begin to bring to the disk what was written to
// f, without waiting for it. That it can not is no failure: a later Sync tells.
func beginWriteback(f *os.File) {
	control(f, func(fd int) { unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
}

// control calls do with the descriptor of f, unless f is closed.
func control(f *os.File, do func(fd int)) {
	conn, err := f.SyscallConn()
	if err == nil {
		conn.Control(func(fd uintptr) { do(int(fd)) })
	}
}
