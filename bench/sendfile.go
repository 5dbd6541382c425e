package main

import (
	"context"
	"io"
	"net"
	"os"
)

// filePart is the next bytes of a file, as the body of a request. Through a
// connection of [dialForFiles] the kernel sends it from the file.
type filePart struct {
	file *os.File
	left int64 // bytes
}

// openPart returns size bytes from offset on. The caller, which may be the
// transport, closes it.
func openPart(name string, offset, size int64) (*filePart, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return &filePart{f, size}, nil
}

func (p *filePart) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.file.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

func (p *filePart) Close() error { return p.file.Close() }

// dialForFiles returns connections that know a filePart inside what net/http
// has wrapped it into. Of itself net/http uses the kernel only for a body that
// is a file up to its end.
func dialForFiles(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		return fileConn{tcp}, nil
	}
	return conn, err
}

type fileConn struct{ *net.TCPConn }

// ReadFrom implements [io.ReaderFrom], which net/http uses for bodies.
func (c fileConn) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	part, ok := limited.R.(*filePart)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	n, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: part.file, N: min(limited.N, part.left)})
	limited.N -= n
	part.left -= n
	return n, err
}
