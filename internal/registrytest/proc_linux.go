package registrytest

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes cmd end when the test's process is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
