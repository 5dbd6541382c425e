package bundle

import (
	"os"
	"syscall"
)

// NewDirWithoutLinks is NewDir where hard links fail as they do on FAT.
func NewDirWithoutLinks(path string) *Dir {
	d := NewDir(path)
	d.link = func(_ *os.Root, oldName, newName string) error {
		return &os.LinkError{Op: "linkat", Old: oldName, New: newName, Err: syscall.EPERM}
	}
	return d
}
