package main

import (
	"testing"
	"time"
)

func TestCPUOfStat(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"12 (registry) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0": 3 * time.Second,
		"12 (a ) S (b) S 1 2 3 4 5 6 7 8 9 10 1 2 7 7 20 0":    30 * time.Millisecond,
		"12 (cut) S 1 2":                      0,
		"12 (x) S 1 2 3 4 5 6 7 8 9 10 y 2 0": 0,
		"":                                    0,
	} {
		if got := cpuOfStat(line); got != want {
			t.Errorf("cpuOfStat(%q) = %v, want %v", line, got, want)
		}
	}
}
