package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// command is a program with its arguments.
type command []string

// usage is what commands took.
type usage struct {
	Seconds     float64 `json:"seconds"`     // wall, from the first's start to the last's end
	UserSeconds float64 `json:"userSeconds"` // of all, added up
	SysSeconds  float64 `json:"sysSeconds"`
	PeakMemory  int64   `json:"peakMemory"` // bytes, of the largest
	// Failed says which command ended with another code than 0.
	Failed string `json:"failed,omitempty"`
}

// measurePart runs the commands in the file args[0], one after the other up to
// the first that fails, and writes what they took to the file args[1]. It is a
// process of its own because Linux counts the memory of the process that
// starts a program as that program's, and this one is small.
func measurePart(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("measure wants two files")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var commands []command
	if err := json.Unmarshal(data, &commands); err != nil {
		return err
	}
	out, err := json.Marshal(runCommands(ctx, commands))
	if err != nil {
		return err
	}
	return os.WriteFile(args[1], out, 0o600)
}

func runCommands(ctx context.Context, commands []command) usage {
	var u usage
	start := time.Now()
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Stderr = os.Stderr
		cmd.Stdout = os.Stdout
		child(cmd)
		err := cmd.Run()
		if state := cmd.ProcessState; state != nil {
			u.UserSeconds += state.UserTime().Seconds()
			u.SysSeconds += state.SystemTime().Seconds()
			u.PeakMemory = max(u.PeakMemory, peakMemory(state))
		}
		if err != nil {
			u.Failed = fmt.Sprintf("%s: %v", strings.Join(c, " "), err)
			break
		}
	}
	u.Seconds = time.Since(start).Seconds()
	return u
}

// measure runs commands in the laboratory, in a process of its own, and
// returns what they took. A command that fails is an error with the end of
// what the commands have said.
func (l *lab) measure(ctx context.Context, commands []command) (usage, error) {
	var u usage
	data, err := json.Marshal(commands)
	if err != nil {
		return u, err
	}
	in, result := filepath.Join(l.dir, "commands.json"), filepath.Join(l.dir, "usage.json")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		return u, err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, l.program, "measure", in, result)
	cmd.Env, cmd.Dir = l.environment(), l.dir
	cmd.Stdout, cmd.Stderr = &said, &said
	own(cmd)
	cmd.Cancel = func() error { return killGroup(cmd) }
	if err := cmd.Run(); err != nil {
		return u, fmt.Errorf("measuring: %w\n%s", err, tail(said.String()))
	}
	if data, err = os.ReadFile(result); err != nil {
		return u, err
	}
	if err := json.Unmarshal(data, &u); err != nil {
		return u, err
	}
	if u.Failed != "" {
		return u, fmt.Errorf("%s\n%s", u.Failed, tail(said.String()))
	}
	return u, nil
}

// tail returns the end of a text.
func tail(s string) string {
	const most = 2000
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return strings.TrimSpace(s)
}
