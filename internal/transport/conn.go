package transport

import (
	"io"
	"net"
	"time"
)

// Direct is a request body that can hand its bytes to a connection without a
// buffer between, such as those of a file, which the kernel sends by itself
// (sendfile). It is asked to where there is no TLS.
type Direct interface {
	// WriteNTo writes the next n bytes to w, or fewer. It writes none, and
	// returns no error, when the next bytes are to be read.
	WriteNTo(w io.Writer, n int64) (int64, error)
}

// directStep, in bytes, is how much of a [Direct] the other side must take
// before a write counts as stuck.
const directStep = 128 << 10

// impatientConn ends a write that the other side does not take in time.
type impatientConn struct {
	net.Conn
	idle time.Duration
}

func (c *impatientConn) Write(p []byte) (int, error) {
	if err := c.hurry(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *impatientConn) hurry() error { return c.SetWriteDeadline(time.Now().Add(c.idle)) }

// ReadFrom implements [io.ReaderFrom], by which net/http sends the body of a
// request.
func (c *impatientConn) ReadFrom(r io.Reader) (written int64, err error) {
	var buffer []byte
	for {
		n, err := c.writeDirect(r)
		written += n
		if err != nil {
			return written, err
		}
		if n > 0 {
			continue
		}
		if buffer == nil {
			buffer = make([]byte, bufferSize)
		}
		got, readErr := r.Read(buffer)
		sent, err := c.Write(buffer[:got])
		written += int64(sent)
		switch {
		case err != nil:
			return written, err
		case readErr == io.EOF:
			return written, nil
		case readErr != nil:
			return written, readErr
		}
	}
}

// writeDirect lets r, as net/http gives it, write its next bytes itself, if it
// can.
func (c *impatientConn) writeDirect(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok || limited.N <= 0 {
		return 0, nil
	}
	direct, ok := limited.R.(Direct)
	if !ok {
		return 0, nil
	}
	if err := c.hurry(); err != nil {
		return 0, err
	}
	n, err := direct.WriteNTo(c.Conn, min(limited.N, directStep))
	limited.N -= n
	return n, err
}
