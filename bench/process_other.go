//go:build !linux

package main

import (
	"os"
	"os/exec"
	"time"
)

func own(*exec.Cmd) {}

func child(*exec.Cmd) {}

func killGroup(cmd *exec.Cmd) error { return cmd.Process.Kill() }

// peakMemory is not known here.
func peakMemory(*os.ProcessState) int64 { return 0 }

// cpuOf is not known here.
func cpuOf(int) time.Duration { return 0 }

func settle() {}
