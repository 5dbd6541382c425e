package ui

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"ferry/internal/transfer"
)

// openTerminal returns the two ends of a pseudo terminal of that size.
func openTerminal(t *testing.T, width, height uint16) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("this machine has no pseudo terminals:", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var number uint32
	var unlocked int32
	size := [4]uint16{height, width}
	control := func(request uintptr, argument unsafe.Pointer) {
		t.Helper()
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(argument)); errno != 0 {
			t.Fatalf("ioctl %#x: %v", request, errno)
		}
	}
	control(syscall.TIOCGPTN, unsafe.Pointer(&number))
	control(syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	control(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// TestTerminal draws on a real terminal device, which New has to recognise
// and to ask for its size, in real time: it waits for what has to appear.
func TestTerminal(t *testing.T) {
	for _, width := range []uint16{80, 40} {
		keyboard, terminal := openTerminal(t, width, 24)
		s := newScreen(int(width), 24)
		var reading sync.WaitGroup
		reading.Go(func() {
			p := make([]byte, 1<<16)
			for {
				n, err := keyboard.Read(p)
				s.Write(p[:n])
				if err != nil {
					return // EIO, when the other end is closed
				}
			}
		})
		waitFor := func(text string) {
			t.Helper()
			for end := time.Now().Add(20 * time.Second); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no %q on the screen:\n%s", text, s.String())
				}
			}
		}
		u, err := New(Options{Stderr: terminal, Stdout: terminal})
		if err != nil {
			t.Fatal(err)
		}
		u.Say("before")
		p, stop := u.StartProgress("pushing")
		p.Total(transfer.Totals{Items: 2, Bytes: 100})
		task := p.Start("some-blob", 100)
		task.Add(42)
		waitFor("pushing  42%")
		waitFor("\n  some-blob")
		u.Warn("a tag\x1b[2Jmoved")
		waitFor("\\x1b[2Jmoved\npushing  42%")
		task.Done(nil)
		p.Start("b", 0).Done(nil)
		stop()
		terminal.Close()
		reading.Wait()
		lines := strings.Split(s.String(), "\n")
		if len(lines) < 3 || lines[0] != "ferry: before" || lines[1] != `ferry: warning: a tag\x1b[2Jmoved` || !strings.HasPrefix(lines[2], "ferry: pushing: done, 2 blobs, 42 B") ||
			strings.Contains(s.String(), "%") || s.strange != "" {
			t.Errorf("%d columns: screen is\n%s\nstrange: %s", width, s.String(), s.strange)
		}
	}
}

// TestTerminalWithoutSize shows that nothing is drawn where nothing fits.
func TestTerminalWithoutSize(t *testing.T) {
	_, terminal := openTerminal(t, 0, 0)
	u, err := New(Options{Stderr: terminal})
	if err != nil || u.progress != ProgressPlain {
		t.Errorf("progress is %q, %v, want %q", u.progress, err, ProgressPlain)
	}
}
