//go:build !unix

package state

import (
	"context"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// waitForLock takes the lock of a file. It does not look at ctx while it waits.
func waitForLock(_ context.Context, name string) (unlock func(), err error) {
	return lockedfile.MutexAt(name).Lock()
}
