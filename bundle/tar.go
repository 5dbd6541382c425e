package bundle

import (
	"fmt"
	"strconv"
)

// The one dialect of tar that volumes are written in: POSIX ustar headers of
// regular files, mode 0444, owner 0, time 0, no names of owners. A file of
// 8 GiB or more has a PAX header with its size before it.
const (
	blockSize   = 512
	trailerSize = 2 * blockSize
	// maxOctal is the first size that the 11 octal digits of ustar can not say.
	maxOctal = 1 << 33
)

// TarHeader returns the bytes that stand before the content of a file: one
// block, or three when size needs a PAX header. The path has at most 99 bytes.
// size is in bytes. Source: POSIX.1-2017, pax, "ustar Interchange Format".
func TarHeader(path string, size int64) []byte {
	if size < maxOctal {
		return ustarBlock(path, size, '0')
	}
	record := paxRecord("size", strconv.FormatInt(size, 10))
	h := ustarBlock("PaxHeaders/"+path, int64(len(record)), 'x')
	h = append(h, record...)
	h = append(h, make([]byte, padding(int64(len(record))))...)
	// The PAX record takes the place of this size.
	return append(h, ustarBlock(path, 0, '0')...)
}

func ustarBlock(path string, size int64, kind byte) []byte {
	b := make([]byte, blockSize)
	if copy(b[0:100], path) != len(path) || len(path) == 100 {
		panic(fmt.Sprintf("path %q is too long for a tar header", path))
	}
	copy(b[100:], "0000444\x00")
	copy(b[108:], "0000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00", size))
	copy(b[136:], "00000000000\x00")
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	copy(b[329:], "0000000\x000000000\x00")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// paxRecord returns "length key=value\n", where length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for n != len(rest)+len(strconv.Itoa(n)) {
		n++
	}
	return strconv.Itoa(n) + rest
}

// headerSize returns len(TarHeader(path, size)).
func headerSize(size int64) int64 {
	if size < maxOctal {
		return blockSize
	}
	return 3 * blockSize
}

// padding returns how many zero bytes follow size bytes of content.
func padding(size int64) int64 { return -size & (blockSize - 1) }

// fileSize returns what a file takes in a volume: header, content, padding.
func fileSize(size int64) int64 { return headerSize(size) + size + padding(size) }
