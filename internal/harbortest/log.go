package harbortest

import (
	"io"
	"net/http"
	"sync"
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

// requestLog has a lock of its own, because answers are written while that of
// the Server is held.
type requestLog struct {
	mu      sync.Mutex
	entries []*Entry
}

// Log returns the requests so far, in the order in which their answers began:
// one whose answer the client has seen is there.
func (s *Server) Log() []Entry {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	entries := make([]Entry, len(s.log.entries))
	for i, e := range s.log.entries {
		entries[i] = *e
	}
	return entries
}

// ResetLog forgets the requests so far.
func (s *Server) ResetLog() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.entries = nil
}

// logWriter notes what is answered.
type logWriter struct {
	http.ResponseWriter
	log   *requestLog
	body  *countingReader
	entry Entry
	noted *Entry
}

func (w *logWriter) WriteHeader(status int) {
	w.note(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.note(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.entry.Sent += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *logWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// note adds the entry before anything is sent.
func (w *logWriter) note(status int) {
	if w.noted != nil {
		return
	}
	w.entry.Status, w.entry.Received = status, w.body.n.Load()
	e := w.entry
	w.noted = &e
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.entries = append(w.log.entries, w.noted)
}

// done completes the counts.
func (w *logWriter) done() {
	w.note(http.StatusOK)
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.noted.Received, w.noted.Sent = w.body.n.Load(), w.entry.Sent
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
