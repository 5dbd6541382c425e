package bundle

import (
	"cmp"
	"errors"
	"strconv"
	"syscall"
)

// spaceOf asks the file system of a folder that is there. Source: statfs(2) and
// statvfs(3), by which blocks are counted in f_frsize.
func spaceOf(folder string) (Space, error) {
	var at syscall.Statfs_t
	var info syscall.Stat_t
	if err := cmp.Or(syscall.Statfs(folder, &at), syscall.Stat(folder, &info)); err != nil {
		return Space{}, err
	}
	block := int64(cmp.Or(at.Frsize, at.Bsize))
	if at.Blocks == 0 || block <= 0 {
		return Space{}, errors.ErrUnsupported // such as /proc, and file systems in a network
	}
	return Space{folder, strconv.FormatUint(uint64(info.Dev), 10), blocksToBytes(at.Bavail, block), fileBlock(block)}, nil
}
