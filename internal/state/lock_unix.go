//go:build unix

package state

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// pause is how long it takes until a lock is asked for again, which others hold
// for milliseconds.
const pause = 20 * time.Millisecond

// waitForLock takes the lock of a file (flock), which ends with the process, too.
func waitForLock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: name, Err: err}
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
