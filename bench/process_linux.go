package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is what Linux counts CPU time in for every program,
// sysconf(_SC_CLK_TCK), on all architectures that Go has.
const ticksPerSecond = 100

// own makes cmd a group of its own, so that Ctrl-C reaches only this program,
// which then ends cmd, and makes cmd end when this program is killed.
func own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// child makes cmd end when this program is killed.
func child(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// killGroup ends what was started with [own], and what that has started.
func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// peakMemory returns the largest resident size of a process that has ended,
// in bytes.
func peakMemory(state *os.ProcessState) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return usage.Maxrss << 10
}

// cpuOf returns the CPU time of a running process so far.
func cpuOf(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return cpuOfStat(string(data))
}

// cpuOfStat returns user and system time of a line of /proc/PID/stat. The name
// of the program, in parentheses, may have blanks and parentheses in it.
func cpuOfStat(line string) time.Duration {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// settle waits until what was written before is on the disk, so that it does
// not disturb what is measured next.
func settle() { syscall.Sync() }
