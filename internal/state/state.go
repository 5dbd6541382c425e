// Package state hides where the trust state of a site lies on a disk, and how
// runs that go on at once share it.
//
// # Format
//
// The folder of a state holds trust.json, the text of a [verify.Memory], and
// trust.lock, an empty file that is locked while trust.json is read and
// replaced. It is replaced whole: written beside, synced, renamed.
//
// # Limits
//
// Who can write to the folder can make a site forget; it is private (mode
// 0700). A folder that is lost, or put back from an old backup, is noticed
// only by what else remembers: see [verify.Memory.Witness].
package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"ferry/bundle"
	"ferry/verify"
)

const (
	memoryName = "trust.json"
	lockName   = "trust.lock"
)

// Dir is the folder of a trust state. It need not exist.
type Dir string

// String returns the name of the state's file.
func (d Dir) String() string { return filepath.Join(string(d), memoryName) }

// Load returns what is remembered: nothing where there is no such folder. It
// writes nothing. Errors: [verify.ErrMemory], those of the file system.
func (d Dir) Load(ctx context.Context) (*verify.Memory, error) {
	object, err := bundle.NewDir(string(d)).Open(ctx, memoryName)
	if errors.Is(err, bundle.ErrNotFound) {
		if _, err := os.Lstat(d.String()); err == nil {
			return nil, fmt.Errorf("%s: %w: it is not a regular file", d, verify.ErrMemory)
		}
		return &verify.Memory{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer object.Close()
	if object.Size() > verify.MaxMemory {
		return nil, fmt.Errorf("%s: %w: %d bytes, more than %d", d, verify.ErrMemory, object.Size(), verify.MaxMemory)
	}
	body, err := object.Range(ctx, 0, object.Size())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	m, err := verify.ParseMemory(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d, err)
	}
	return m, nil
}

// Try does what [Dir.Update] does, and keeps nothing.
func (d Dir) Try(ctx context.Context, change func(*verify.Memory) error) error {
	m, err := d.Load(ctx)
	if err != nil {
		return err
	}
	return change(m)
}

// ErrUnwritable is what every error is of making or locking the folder.
var ErrUnwritable = errors.New("the trust state can not be written")

// lock makes the folder, if it is not there, and waits until nobody else has
// its lock, or ctx ends.
func (d Dir) lock(ctx context.Context) (unlock func(), err error) {
	_, missing := os.Stat(string(d))
	// PutNew makes the folders and has them on the disk. The file of the lock is
	// never replaced.
	err = bundle.NewDir(string(d)).PutNew(ctx, lockName, nil)
	if errors.Is(err, bundle.ErrExists) {
		err = nil
	}
	if err == nil && missing != nil {
		err = os.Chmod(string(d), 0o700)
	}
	if err == nil {
		unlock, err = waitForLock(ctx, filepath.Join(string(d), lockName))
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnwritable, err)
	}
	return unlock, err
}

// Update changes what is remembered, while nobody else does. When change
// returns an error nothing is written. When Update returns nil the change is
// on the disk. Errors: those of change and of [Dir.Load].
func (d Dir) Update(ctx context.Context, change func(*verify.Memory) error) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var m *verify.Memory
	err = d.Try(ctx, func(loaded *verify.Memory) error {
		m = loaded
		return change(m)
	})
	if err != nil {
		return err
	}
	text, err := m.Encode()
	if err != nil {
		return err
	}
	return bundle.NewDir(string(d)).Put(ctx, memoryName, text)
}
