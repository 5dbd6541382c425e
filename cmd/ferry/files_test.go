package main

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestAffordableJobs(t *testing.T) {
	for _, tt := range []struct {
		jobs  int
		files uint64
		want  int
	}{{16, 64, 8}, {4, 64, 4}, {64, 1024, 64}, {64, 256, 56}, {4, 20, 1}, {64, 1<<64 - 1, 64}} {
		if got := affordableJobs(tt.jobs, tt.files); got != tt.want {
			t.Errorf("affordableJobs(%d, %d) = %d, want %d", tt.jobs, tt.files, got, tt.want)
		}
	}
}

// Who has too few files is told how to have more.
func TestFilesHint(t *testing.T) {
	err := &fs.PathError{Op: "open", Path: "volume-018.tar", Err: syscall.EMFILE}
	if got := hintFor(err, exitError); !strings.Contains(got, "ulimit -n") {
		t.Errorf("hint %q", got)
	}
}
