//go:build !linux

package registrytest

import "os/exec"

// dieWithParent makes cmd end when the test's process is killed, where that
// can be done; elsewhere a test that is killed leaves it running.
func dieWithParent(*exec.Cmd) {}
