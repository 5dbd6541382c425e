package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/registrytest"
)

// --hash says who hashes what is sent. The receipt tells, and wrong content has
// its exit code whoever does (T01).
func TestHashFlag(t *testing.T) {
	outside := registrytest.Memory(t, registrytest.Options{})
	heavy := registrytest.Heavy("team/heavy", 17<<20)
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{heavy}); err != nil {
		t.Fatal(err)
	}
	dir, key, public := t.TempDir(), testKey(t, "one.key"), testKey(t, "one.pub")
	mustFerry(t, dir, "export", outside.Host+"/team/heavy:heavy", "usb", "--name", "n", "--version", "1", "--key", key)

	// The first upload that is finished is the one that is to prove something.
	noProof := registrytest.Answer(1, registrytest.Uploads("PUT"), 400, nil, "")
	const talk = "the registry did not show that it refuses wrong content"
	for _, tt := range []struct {
		name   string
		faults []registrytest.Fault
		flags  []string
		hashed string
		told   bool
	}{
		{"auto", nil, nil, "registry", false},
		{"auto, by name", nil, []string{"--hash", "auto"}, "registry", false},
		{"always", nil, []string{"--hash", "always"}, "here", false},
		{"no proof", []registrytest.Fault{noProof}, nil, "here", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inside := registrytest.Start(t, registrytest.Options{Faults: tt.faults})
			cmd := ferryCommand(t, dir, append([]string{"import", "usb", inside.Host, "--key", public, "--format", "json"}, tt.flags...)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			var receipt struct{ Hashed string }
			if err := json.Unmarshal(out, &receipt); err != nil || receipt.Hashed != tt.hashed {
				t.Errorf("hashed by %q, %v, want %q", receipt.Hashed, err, tt.hashed)
			}
			if told := strings.Contains(stderr.String(), talk); told != tt.told {
				t.Errorf("that there was no proof was told: %t, want %t:\n%s", told, tt.told, stderr.String())
			}
		})
	}

	volume := filepath.Join(dir, "usb/n/1/volume-001.tar")
	content, err := os.ReadFile(volume)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(volume, content, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"auto", "always"} {
		inside := registrytest.Start(t, registrytest.Options{})
		out, err := ferryCommand(t, dir, "import", "usb", inside.Host, "--key", public, "--hash", when).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitCorrupt {
			t.Errorf("--hash %s: wrong content ends with %v, want exit code %d:\n%s", when, err, exitCorrupt, out)
		}
		if n := inside.Count("PUT", "/manifests/"); n != 0 {
			t.Errorf("--hash %s: %d manifests were pushed", when, n)
		}
	}
}
