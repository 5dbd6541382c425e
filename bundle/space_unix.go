//go:build unix

package bundle

import (
	"io/fs"
	"math"
	"math/bits"
	"syscall"
)

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
