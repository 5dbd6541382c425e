package storetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets a server end when the test is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
