package storetest

import (
	"errors"
	"io"
	"testing"

	"ferry/bundle"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMem(t *testing.T) {
	Run(t, func(*testing.T) bundle.Store { return new(Mem) })
}

func TestMemMisbehaves(t *testing.T) {
	m := new(Mem)
	put(t, m, "object", []byte("content"))
	broken := errors.New("broken")
	m.FailCall(3, broken)
	o := open(t, m, "object")
	if _, err := o.Range(t.Context(), 0, 7); !errors.Is(err, broken) {
		t.Errorf("call 3 = %v, want the error that was asked for", err)
	}
	m.CutStreams(1, 3)
	if got, err := readRange(t.Context(), o, 0, 7); string(got) != "con" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut stream gave %q, %v", got, err)
	}
	if got, err := readRange(t.Context(), o, 0, 7); string(got) != "content" || err != nil {
		t.Errorf("the next stream gave %q, %v", got, err)
	}
	m.Before(func(c Call) error {
		if c.Op == "Range" {
			m.Set("object", []byte("CONTENT"))
		}
		return nil
	})
	if _, err := o.Range(t.Context(), 0, 7); !errors.Is(err, bundle.ErrChanged) {
		t.Errorf("Range of an object changed just before = %v, want ErrChanged", err)
	}
	if read, written := m.Bytes(); read != 10 || written != 7 {
		t.Errorf("Bytes() = %d, %d, want 10, 7", read, written)
	}
	if n := m.Count("Range"); n != 4 || len(m.Calls()) != 6 {
		t.Errorf("%d calls of Range, %d in all, want 4 of 6", n, len(m.Calls()))
	}
}
