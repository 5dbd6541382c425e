package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buildFerry returns the path of a ferry made of this checkout.
func buildFerry(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ferry")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../ferry").CombinedOutput(); err != nil {
		t.Fatalf("building ferry: %v\n%s", err, out)
	}
	return path
}

// play runs the demo with a temporary folder of its own, which must be empty
// afterwards.
func play(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out, talk bytes.Buffer
	code = run(t.Context(), append([]string{"-rate", "0"}, args...), &out, &talk)
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s was left behind", e.Name())
	}
	return code, out.String(), talk.String()
}

// What every run says, in this order: each step did what it must.
var mainLines = []string{
	`^\$ export COSIGN_PASSWORD=`,
	`^\$ export '?XDG_STATE_HOME=.*state'?$`,
	`^1\. Outside: make a key pair`,
	`^\$ ferry keygen$`,
	`^cosign\.pub$`,
	`^\$ ferry export -f images\.txt usb `,
	`^ferry: exported 5 images to usb/demo/1$`,
	`^\$ ferry tree usb \| grep platform/app \| cut -d ":" -f2 \| grep -v '\.sig'$`,
	`^1\.0$`,
	`^1\.1$`,
	`^verified: demo 1, 5 images, 3 volumes, `,
	`^\$ printf X \| dd of=damaged/demo/1/volume-001\.tar `,
	`^\$ ferry verify damaged --key cosign\.pub$`, // T01
	`^\$ echo \$\?$`,
	`^4$`,
	`^\$ ferry import damaged \$INSIDE --key cosign\.pub --create-projects$`,
	`^ferry: created project platform$`,
	`^4$`,
	`^The registry inside has no tag\.$`,
	`^\$ ferry import forged \$INSIDE `, // T02
	`^3$`,
	`^The registry inside has no tag\.$`,
	`^\$ ferry import usb \$INSIDE `,
	`^127\.0\.0\.1:\d+/tools/runtime:1\.0@sha256:`,
	`^\$ ferry import usb \$INSIDE `,
	`^ferry: nothing to do: all 5 images are there$`,
	`^\$ ferry copy usb archive `,
	`^archive/demo/1 +complete `,
	`^\$ ferry import usb/demo/2 \$INSIDE `,
	`^1\.2 +sha256:`,
	`^1\.[01] +sha256:`, // pushed at once, in either order
	`^1\.[01] +sha256:`,
	`^\$ ferry latest \$INSIDE/platform/app$`,
	`^1\.2$`,
	`^\$ ferry pull \$INSIDE/platform/app:1\.1 app-layout$`,
	`^\$ ferry pull \$INSIDE/platform/app:1\.1 app\.tar$`,
	`^\$ cat app/etc/app/version$`,
	`^1\.2$`,
	`^\$ cmp app/usr/local/go/bin/gofmt `,
	`^\$ ferry extract app-layout sources --path usr/local/go/src/net/http$`,
	`^Version 1\.1 of platform/app brings `,
	`^  same  sha256:[0-9a-f]{12}  platform/app:sha256-[0-9a-f]{12}\.\.\.sig$`,
	`^7 tags and 10 manifests are the same, byte for byte`,
	`^The whole trip took \d+ s\.$`,
}

func TestDemo(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "demo's folder")
	code, stdout, stderr := play(t, "-ferry", buildFerry(t), "-keep", keep)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	want := mainLines
	for line := range strings.Lines(stdout) {
		line = strings.TrimSuffix(line, "\n")
		if len(want) > 0 && regexp.MustCompile(want[0]).MatchString(line) {
			want = want[1:]
		}
		if strings.HasPrefix(line, "$ ferry") && len(line) >= 80 {
			t.Errorf("a command does not fit on a terminal: %s", line)
		}
	}
	if len(want) > 0 {
		t.Errorf("no line, at its place, is like %s in:\n%s", want[0], stdout)
	}
	for _, name := range []string{"cosign.key", "app-layout/index.json", "app.tar", "sources/usr/local/go/src/net/http/server.go"} {
		if _, err := os.Stat(filepath.Join(keep, name)); err != nil {
			t.Error(err)
		}
	}
	// Enough to see it move.
	volumes, err := filepath.Glob(filepath.Join(keep, "usb/demo/1/volume-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, name := range volumes {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size < 30<<20 || size > 80<<20 {
		t.Errorf("the bundle has %d bytes, want 30 to 80 MiB", size)
	}
}

// The demo is no show: where ferry takes what it must refuse, it fails.
func TestDemoFails(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a shell script stands before ferry")
	}
	real := buildFerry(t)
	lax := filepath.Join(t.TempDir(), "ferry")
	script := "#!/bin/sh\n" + quote(real) + ` "$@" || { [ "$2" = damaged ]; exit $?; }` + "\n"
	if err := os.WriteFile(lax, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := play(t, "-ferry", lax)
	const want = "ferry-demo: step 5: exit code 0, want 4, of: ferry verify damaged --key cosign.pub\n"
	if code != 1 || stderr != want {
		t.Errorf("exit code %d, stderr %q, want 1 and %q, stdout:\n%s", code, stderr, want, stdout)
	}
}

func TestUsage(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "ferry"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-nonsense"}, 2, "flag provided but not defined: -nonsense"},
		{[]string{"more"}, 2, `unexpected argument "more"`},
		{[]string{"-ferry", filepath.Join(full, "none", "ferry")}, 1, "build it with make build"},
		{[]string{"-ferry", filepath.Join(full, "boat")}, 1, "its name must be ferry"},
		{[]string{"-ferry", filepath.Join(full, "ferry"), "-keep", full}, 1, "the folder is not empty"},
	} {
		code, stdout, stderr := play(t, c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%q: exit code %d, stderr %q, stdout %q, want %d and %q", c.args, code, stderr, stdout, c.code, c.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"/tmp/a-1": "/tmp/a-1", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) = %s, want %s", word, got, want)
		}
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("a shell reads %s as %q, %v", quote(word), out, err)
		}
	}
}
