//go:build unix

package extract

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// runAsNobody runs tests of this binary as user 65534, who owns the folder tmp
// in top.
func runAsNobody(t *testing.T, top, run string) {
	t.Helper()
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	bin, tmp := filepath.Join(top, "extract.test"), filepath.Join(top, "tmp")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(tmp, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-test.run", run, "-test.skip", "/T19_|/T38_1,000", "-test.v")
	cmd.Dir = top
	cmd.Env = []string{"TMPDIR=" + tmp, "HOME=" + tmp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS: "); n < 80 {
		t.Errorf("as nobody %d tests passed, want 80 or more", n)
	}
}

// TestAsNobody runs the hostile cases without the rights of root.
func TestAsNobody(t *testing.T) { // T36
	if os.Getuid() != 0 {
		t.Skip("not root: TestHostile ran without its rights already")
	}
	top := filepath.Join(os.TempDir(), fmt.Sprintf("ferry-nobody-%d", os.Getpid()))
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	runAsNobody(t, top, "^TestHostile$")
}
