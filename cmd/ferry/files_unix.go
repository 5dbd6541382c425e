//go:build unix

package main

import "syscall"

// noCoreDumps has a crash leave no copy of the memory on the disk. Where that
// can not be had nothing changes.
func noCoreDumps() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// openFiles returns how many file descriptors the process may have.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return manyFiles
	}
	return uint64(limit.Cur)
}
