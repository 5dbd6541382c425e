//go:build unix

package bundle

import (
	"io/fs"
	"math"
	"math/bits"
	"os"
	"syscall"
)

// fileBlock returns of how many bytes a file takes a whole number, where the
// file system says that it has such blocks. Some say what they transfer at once
// (NFS, 1 MiB), or their largest record or object (ZFS, 128 KiB; CephFS,
// 4 MiB), and give less to a small file. No more than a page is believed: what
// fits must not be refused.
func fileBlock(block int64) int64 { return min(block, int64(os.Getpagesize())) }

// statBlock, in bytes, is the unit of st_blocks.
const statBlock = 512

// allocated returns the bytes that the file system has given out for a file.
func allocated(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(stat.Blocks) * statBlock
	}
	return info.Size()
}

// blocksToBytes returns the bytes of n blocks, at most what an int64 can say.
func blocksToBytes(n uint64, block int64) int64 {
	high, low := bits.Mul64(n, uint64(block))
	if high > 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}
