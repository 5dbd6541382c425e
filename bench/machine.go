package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// machine are the facts that numbers depend on.
type machine struct {
	System   string            `json:"system"` // GOOS/GOARCH
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	SHA      bool              `json:"sha"`    // the CPU has instructions for SHA-256
	Memory   string            `json:"memory"` // as the kernel says
	Go       string            `json:"go"`
	Programs map[string]string `json:"programs"` // versions by name
}

// look returns the facts about this machine, as far as they can be found.
func (l *lab) look(ctx context.Context) machine {
	cpu, sha := cpuFacts(readText("/proc/cpuinfo"))
	m := machine{
		System: runtime.GOOS + "/" + runtime.GOARCH, Kernel: strings.TrimSpace(readText("/proc/sys/kernel/osrelease")),
		CPU: cpu, SHA: sha, Cores: runtime.NumCPU(), Memory: lineValue(readText("/proc/meminfo"), "MemTotal"),
		Go: runtime.Version(), Programs: map[string]string{"ferry": firstLine(ctx, l.ferry, "version")},
	}
	for _, name := range []string{"registry", "versitygw", "crane", "regctl"} {
		if info, err := buildinfo.ReadFile(l.tool(name)); err == nil {
			m.Programs[name] = info.Main.Version
		}
	}
	for _, name := range []string{"skopeo", "curl"} {
		if line := firstLine(ctx, name, "--version"); line != "" {
			words := strings.Fields(strings.Replace(line, "version ", "", 1))
			m.Programs[name] = words[min(1, len(words)-1)]
		}
	}
	return m
}

// cpuFacts returns the name of the CPU in a /proc/cpuinfo, and whether it has
// instructions for SHA-256.
func cpuFacts(text string) (name string, sha bool) {
	for _, flags := range []string{"flags", "Features"} { // x86, ARM
		for _, word := range strings.Fields(lineValue(text, flags)) {
			sha = sha || word == "sha_ni" || word == "sha2"
		}
	}
	return lineValue(text, "model name"), sha
}

// lineValue returns what is behind the colon in the first line of that name.
func lineValue(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func readText(name string) string {
	data, _ := os.ReadFile(name)
	return string(data)
}

func firstLine(ctx context.Context, program string, args ...string) string {
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// facts returns what stands above the tables: names and values.
func (r results) facts() [][2]string {
	sha := "without SHA instructions"
	if r.Machine.SHA {
		sha = "with SHA instructions"
	}
	var programs []string
	for name, version := range r.Machine.Programs {
		programs = append(programs, name+" "+strings.TrimPrefix(version, name+" "))
	}
	slices.Sort(programs)
	list := [][2]string{
		{"date", r.Date},
		{"machine", fmt.Sprintf("%d cores, %s, %s, %s, memory %s", r.Machine.Cores, r.Machine.CPU, sha, r.Machine.System, r.Machine.Memory)},
		{"system", fmt.Sprintf("kernel %s, %s", r.Machine.Kernel, r.Machine.Go)},
		{"programs", strings.Join(programs, "; ")},
		{"workload", fmt.Sprintf("%d tags, %d blobs, %d MiB", r.Workload.Images, r.Workload.Blobs, r.Workload.Bytes>>20)},
		{"measured", fmt.Sprintf("%d rounds, contenders in turn, medians; %d jobs", r.Rounds, r.Jobs)},
	}
	if len(r.Missing) > 0 {
		list = append(list, [2]string{"left out", "this machine does not have " + strings.Join(r.Missing, ", ")})
	}
	return list
}
