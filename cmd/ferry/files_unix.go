//go:build unix

package main

import "syscall"

// openFiles returns how many file descriptors the process may have.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return manyFiles
	}
	return uint64(limit.Cur)
}
