package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeCalls are the system calls that change something outside the process:
// of ferry's own, on this system.
var writeCalls = []uint64{
	unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDFILE,
	unix.SYS_SPLICE, unix.SYS_COPY_FILE_RANGE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FCHMOD,
	unix.SYS_OPENAT, unix.SYS_MKDIRAT, unix.SYS_LINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2,
}

// errNoTrace says that this machine does not let a process be traced.
var errNoTrace = errors.New("tracing a process is not possible here")

// killAtWrite runs ferry, and kills it before its n-th system call that writes;
// 0 lets it run. It returns how many it has made, and whether it was killed. It
// is what strace's inject does, but counts the calls of all threads together.
func killAtWrite(n int, dir string, args []string) (writes int, killed bool, err error) {
	path, err := exec.LookPath("ferry")
	if err != nil {
		return 0, false, err
	}
	runtime.LockOSThread() // whoever begins to trace has to go on
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, false, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, append([]string{"ferry"}, args...), &syscall.ProcAttr{
		Dir: dir, Env: append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+dir), Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", errNoTrace, err)
	}
	tracer := tracer{pid: pid, killAt: n}
	return tracer.run()
}

// tracer follows a process and its threads.
type tracer struct {
	pid    int
	killAt int
	writes int
	killed bool
	begun  bool
}

func (c *tracer) run() (int, bool, error) {
	for {
		var status syscall.WaitStatus
		// Only this process' group: the test has other children.
		tid, err := syscall.Wait4(-c.pid, &status, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return c.writes, c.killed, fmt.Errorf("waiting: %w", err)
		case status.Stopped():
			c.stopped(tid, status)
		case tid != c.pid: // a thread has ended
		case status.Signaled() && c.killed, status.ExitStatus() == 0:
			return c.writes, c.killed, nil
		default:
			return c.writes, c.killed, fmt.Errorf("ferry has ended with %#x", status)
		}
	}
}

// stopped lets a thread go on, unless this is the end. Errors are of threads
// that have died meanwhile.
func (c *tracer) stopped(tid int, status syscall.WaitStatus) {
	deliver := 0
	switch sig := status.StopSignal(); {
	case !c.begun:
		c.begun = true
		syscall.PtraceSetOptions(tid, syscall.PTRACE_O_TRACESYSGOOD|syscall.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL)
	case sig == syscall.SIGTRAP|0x80:
		if c.entersWrite(tid) {
			c.writes++
			if c.writes == c.killAt {
				c.killed = true
				syscall.Kill(c.pid, syscall.SIGKILL)
				return
			}
		}
	case sig == syscall.SIGTRAP, sig == syscall.SIGSTOP: // a thread begins
	default:
		deliver = int(sig)
	}
	syscall.PtraceSyscall(tid, deliver)
}

// entersWrite reports whether the thread is at the beginning of a call that
// writes. Source: ptrace(2), PTRACE_GET_SYSCALL_INFO.
func (c *tracer) entersWrite(tid int) bool {
	var info struct {
		op       uint8
		_        [3]uint8
		arch     uint32
		_, _     uint64 // instruction and stack pointer
		number   uint64
		argument [6]uint64
		_        [2]uint64
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != unix.PTRACE_SYSCALL_INFO_ENTRY || !slices.Contains(writeCalls, info.number) {
		return false
	}
	return info.number != unix.SYS_OPENAT || info.argument[2]&unix.O_CREAT != 0
}

// TestKillAtEveryWrite kills transfers of a small bundle at their n-th write:
// with FERRY_SOAK for every n, else for the first, one amid and one at the end.
func TestKillAtEveryWrite(t *testing.T) {
	k := newKillSite(t, 300<<10, 70<<10)
	for _, trial := range []killTrial{k.exportTrial(), k.exportS3Trial(), k.copyTrial(), k.importTrial()} {
		t.Run(trial.name, func(t *testing.T) {
			k.TB = t
			trial.prepare(t, "counted")
			writes, _, err := killAtWrite(0, k.dir, trial.args("counted"))
			if errors.Is(err, errNoTrace) && os.Getenv("CI") == "" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			trial.arrived(t, "counted")
			trial.remove(t, "counted")
			step := choose(1, max(1, writes/2))
			killed := true
			n := 1
			for ; killed && !t.Failed(); n += step {
				place := fmt.Sprintf("write%d", n)
				trial.prepare(t, place)
				if _, killed, err = killAtWrite(n, k.dir, trial.args(place)); err != nil {
					t.Fatalf("write %d: %v", n, err)
				}
				trial.killed(t, place)
				if killed {
					mustFerry(t, k.dir, trial.args(place)...)
				}
				trial.arrived(t, place)
				trial.remove(t, place)
				if t.Failed() {
					t.Logf("it was killed at write %d", n)
				}
			}
			t.Logf("%d writes undisturbed; killed at each %d., up to %d", writes, step, n-2*step)
		})
	}
}
