package harbortest

import (
	"io"
	"net/http"
	"slices"
	"sync/atomic"
)

// Entry is one request that a [Server] answered.
type Entry struct {
	Method   string
	Path     string // escaped, as it came in
	Query    string // as it came in
	Status   int
	User     string // of HTTP Basic
	Received int64  // bytes of the request's body that were read
	Sent     int64  // bytes of the answer's body
}

// Log returns the requests so far, in the order in which they were finished.
func (s *Server) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// ResetLog forgets the requests so far.
func (s *Server) ResetLog() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// logWriter notes what is answered.
type logWriter struct {
	http.ResponseWriter
	server *Server
	entry  Entry
}

func (w *logWriter) WriteHeader(status int) {
	if w.entry.Status == 0 {
		w.entry.Status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *logWriter) Write(p []byte) (int, error) {
	if w.entry.Status == 0 {
		w.entry.Status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.entry.Sent += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *logWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *logWriter) done() {
	if w.entry.Status == 0 {
		w.entry.Status = http.StatusOK
	}
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.server.log = append(w.server.log, w.entry)
}

// countingReader counts what is read of a request's body.
type countingReader struct {
	src io.ReadCloser
	n   atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.src == nil {
		return 0, io.EOF
	}
	n, err := c.src.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *countingReader) Close() error {
	if c.src == nil {
		return nil
	}
	return c.src.Close()
}
