package bundle

import (
	"cmp"
	"io/fs"
	"math"

	"golang.org/x/sys/windows"
)

// defaultCluster, in bytes, is what NTFS gives out at once unless it was
// formatted otherwise.
const defaultCluster = 4 << 10

// spaceOf asks the volume of a folder that is there. Quotas of the user count.
func spaceOf(folder string) (Space, error) {
	path, err := windows.UTF16PtrFromString(folder)
	if err != nil {
		return Space{}, err
	}
	var free uint64
	volume := make([]uint16, windows.MAX_LONG_PATH)
	err = cmp.Or(windows.GetDiskFreeSpaceEx(path, &free, nil, nil),
		windows.GetVolumePathName(path, &volume[0], uint32(len(volume))))
	return Space{folder, windows.UTF16ToString(volume), int64(min(free, math.MaxInt64)), defaultCluster}, err
}

// allocated returns the length of a file: what it takes is not in its info.
func allocated(info fs.FileInfo) int64 { return info.Size() }
