package bundle

import (
	"cmp"
	"errors"
	"strconv"
	"syscall"
)

// spaceOf asks the file system of a folder that is there. Source: statfs(2).
func spaceOf(folder string) (Space, error) {
	var at syscall.Statfs_t
	var info syscall.Stat_t
	if err := cmp.Or(syscall.Statfs(folder, &at), syscall.Stat(folder, &info)); err != nil {
		return Space{}, err
	}
	if at.Blocks == 0 || at.Bsize == 0 {
		return Space{}, errors.ErrUnsupported
	}
	return Space{folder, strconv.FormatInt(int64(info.Dev), 10), blocksToBytes(at.Bavail, int64(at.Bsize)), fileBlock(int64(at.Bsize))}, nil
}
