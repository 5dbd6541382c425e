package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"ferry/internal/registrytest"
	"ferry/verify"
)

// T62: the hash is left only to a registry that has refused a wrong blob for
// its digest.
func TestLeaveHashTo(t *testing.T) {
	patch, put, post := registrytest.Uploads("PATCH"), registrytest.Uploads("PUT"), registrytest.Uploads("POST")
	tests := []struct {
		name  string
		fault registrytest.Fault
		want  bool
	}{
		{"sound", func(h http.Handler) http.Handler { return h }, true},
		{"takes everything", registrytest.LieUpload(), false},
		{"refuses for another reason", registrytest.Answer(-1, put, 400, nil, registrytest.Errors("SIZE_INVALID", "")), false},
		{"refuses without a reason", registrytest.Answer(-1, put, 400, nil, ""), false},
		{"wants another login", registrytest.Answer(-1, put, 403, nil, registrytest.Errors("DENIED", "")), false},
		{"knows no PATCH", registrytest.Answer(-1, patch, 405, nil, ""), false},
		{"breaks", registrytest.Answer(-1, patch, 500, nil, ""), false},
		{"resets", registrytest.Reset(-1, put, false), false},
		{"takes no upload", registrytest.Answer(-1, post, 403, nil, registrytest.Errors("DENIED", "")), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := registrytest.Start(t, registrytest.Options{Faults: []registrytest.Fault{tt.fault}})
			c := newClient(t, Options{})
			r := Repository{s.Host, "a/b"}
			if got, err := c.LeaveHashTo(t.Context(), r); got != tt.want || err != nil {
				t.Errorf("LeaveHashTo = %v, %v, want %v", got, err, tt.want)
			}
			if got := c.leavesHashTo(s.Host); got != tt.want {
				t.Errorf("the hash is left to the registry: %v, want %v", got, tt.want)
			}
			if c.leavesHashTo("other.example") {
				t.Error("the hash is left to another registry, too")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if got, err := c.LeaveHashTo(ctx, r); got || !errors.Is(err, context.Canceled) {
				t.Errorf("with a cancelled context: %v, %v", got, err)
			}
		})
	}
}

// To a repository that can not be, nothing is sent.
func TestLeaveHashToName(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	r := Repository{s.Host, "a/../b"}
	if got, err := newClient(t, Options{}).LeaveHashTo(t.Context(), r); got || err != nil || len(s.Requests()) > 0 {
		t.Errorf("LeaveHashTo = %v, %v after %v", got, err, s.Requests())
	}
}

// fileSource is a blob in a file, which can be handed to a connection.
type fileSource struct {
	*os.File
	to     *atomic.Int64 // bytes that went straight to a connection
	broken func(n int64) error
}

func (f fileSource) WriteNTo(w io.Writer, n int64) (int64, error) {
	if _, ok := w.(*net.TCPConn); !ok {
		return 0, errors.New("that is no connection")
	}
	if err := f.broken(f.to.Load()); err != nil {
		return 0, err
	}
	n, err := io.CopyN(w, f.File, n)
	f.to.Add(n)
	return n, err
}

// T01, T41: what the kernel sends from a file is what arrives, also after
// breaks; it is not used where the bytes are hashed here.
func TestPushBlobFromFile(t *testing.T) {
	b, d := content(9 << 20)
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	patch := registrytest.Uploads("PATCH")
	never := func(int64) error { return nil }
	tests := []struct {
		name   string
		left   bool
		fault  registrytest.Fault
		chunk  int64
		broken func(int64) error
		least  int64 // bytes that go straight to the connection
	}{
		{"hashed", false, nil, 0, never, 0},
		{"left", true, nil, 0, never, 8 << 20},
		{"left, chunks", true, nil, 1 << 20, never, 8 << 20},
		{"left, cut", true, registrytest.CutUpload(2, patch, 3<<20), 0, never, 8 << 20},
		{"left, 413", true, registrytest.TooLarge(2 << 20), 0, never, 8 << 20},
		{"left, and the file can not be handed over", true, nil, 0, func(n int64) error {
			if n >= 4<<20 {
				return errors.New("sendfile: input/output error")
			}
			return nil
		}, 4 << 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var faults []registrytest.Fault
			if tt.fault != nil {
				faults = append(faults, tt.fault)
			}
			s := registrytest.Start(t, registrytest.Options{Faults: faults})
			c := newClient(t, Options{ChunkSize: tt.chunk})
			c.hashLeftTo[s.Host] = tt.left
			var straight atomic.Int64
			open := func(_ context.Context, off int64) (io.ReadCloser, error) {
				f, err := os.Open(name)
				if err == nil {
					_, err = f.Seek(off, io.SeekStart)
				}
				return fileSource{f, &straight, tt.broken}, err
			}
			r := Repository{s.Host, "a"}
			if _, err := c.PushBlob(t.Context(), r, d, open, nil); err != nil {
				t.Fatal(err)
			}
			if n := straight.Load(); n < tt.least || tt.least == 0 && n > 0 {
				t.Errorf("%d bytes went straight to the connection, want %d at least, or none for none", n, tt.least)
			}
			got, err := readBlob(t, c, r, d)
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("the blob came back with %d bytes, %v", len(got), err)
			}
		})
	}
}

// breaking is a blob that breaks where it is handed to a connection.
type breaking struct {
	io.ReadCloser
	err error
}

func (b breaking) WriteNTo(io.Writer, int64) (int64, error) { return 0, b.err }

// A blob is read only where its file may be to blame for a break.
func TestReadAfterBreak(t *testing.T) {
	tests := []struct {
		err    error
		direct bool
	}{
		{syscall.EPIPE, true},
		{&net.OpError{Op: "write", Err: syscall.ECONNRESET}, true},
		{os.ErrDeadlineExceeded, true},
		{context.Canceled, true}, // the request was answered before it was sent
		{syscall.EIO, false},
		{io.ErrUnexpectedEOF, false},
	}
	for _, tt := range tests {
		s := &source{src: breaking{err: tt.err}, size: 1, left: 1, direct: true, trail: newTrail(false)}
		if n, err := s.WriteNTo(io.Discard, 1); n != 0 || !errors.Is(err, tt.err) {
			t.Errorf("%v: wrote %d bytes, %v", tt.err, n, err)
		}
		if s.direct != tt.direct {
			t.Errorf("%v: may be handed to a connection again: %t", tt.err, s.direct)
		}
	}
}

// T01, T31: of a blob that the registry refuses for its digest the source is
// hashed, and the error is about it.
func TestPushBlobWrongContentLeft(t *testing.T) {
	good, d := content(3 << 20)
	wrong := bytes.Clone(good)
	wrong[1<<20] ^= 1
	for name, b := range map[string][]byte{"bit": wrong, "short": good[:3<<20-1], "long": append(bytes.Clone(good), 'x'), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.Start(t, registrytest.Options{})
			c := newClient(t, Options{})
			c.hashLeftTo[s.Host] = true
			r := Repository{s.Host, "a"}
			_, err := c.PushBlob(t.Context(), r, d, (&memSource{b: b}).Open, nil)
			var refused *Error
			if !errors.Is(err, verify.ErrMismatch) || errors.As(err, &refused) {
				t.Errorf("PushBlob: %v, want %v of the source", err, verify.ErrMismatch)
			}
			if _, ok, err := c.HasBlob(t.Context(), r, d.Digest); ok || err != nil {
				t.Errorf("the blob is there: %t, %v", ok, err)
			}
		})
	}
}
