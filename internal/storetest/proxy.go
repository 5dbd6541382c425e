package storetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Proxy stands before an S3 server, records the requests, and misbehaves on
// request. It passes the Host header on, which is signed.
type Proxy struct {
	forward   *httputil.ReverseProxy
	transport *http.Transport
	folder    string // of the bucket, for IgnoreRange

	mu       sync.Mutex
	requests []*entry
	faults   []*Fault
}

// entry is a request that may still be under way.
type entry struct {
	request                Request
	sent, received, status atomic.Int64
}

// Request is a request that has come to a [Proxy].
type Request struct {
	Method string
	Path   string // with the bucket
	Query  url.Values
	Header http.Header
	// Sent and Received are the bytes of the bodies that the client has sent
	// and that it was sent.
	Sent, Received int64
	Status         int // of the answer; 0 when there was none
}

// Op names what S3 calls the request, for those that the tests tell apart; of
// others it is the method.
func (r Request) Op() string {
	switch {
	case r.Method == "PUT" && r.Query.Has("partNumber"):
		return "UploadPart"
	case r.Method == "PUT":
		return "PutObject"
	case r.Method == "POST" && r.Query.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == "POST" && r.Query.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == "DELETE" && r.Query.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == "GET" && r.Query.Has("uploads"):
		return "ListMultipartUploads"
	case r.Method == "GET" && r.Query.Has("uploadId"):
		return "ListParts"
	case r.Method == "GET" && r.Query.Has("list-type"):
		return "ListObjectsV2"
	case r.Method == "GET":
		return "GetObject"
	case r.Method == "HEAD" && strings.Count(strings.Trim(r.Path, "/"), "/") == 0:
		return "HeadBucket"
	case r.Method == "HEAD":
		return "HeadObject"
	}
	return r.Method
}

// Fault says what goes wrong with some requests. Exactly one of the fields
// after Times is set, or several that go together as said there.
type Fault struct {
	Op    string // which requests; empty means all
	Times int    // how many of them, from now on; negative means all

	// Status is answered, with Code in a body as S3 has it, and Header, and
	// the request goes no further.
	Status int
	Code   string
	Header http.Header

	// CutAfter breaks the connection after so many bytes of the answer's
	// body, if the body is longer; BeforeBody does after the headers.
	CutAfter   int64
	BeforeBody bool
	// LoseReply breaks the connection when the server has done its work.
	LoseReply bool
	// FlipBody changes the first byte of what the client sends.
	FlipBody bool
	// IgnoreRange answers with the whole object and status 200.
	IgnoreRange bool
	// Rewrite changes the headers of the answer.
	Rewrite func(http.Header)
	// Body changes the body of the answer.
	Body func([]byte) []byte
	// Before is called before the request goes further.
	Before func()
}

func newProxy(target *url.URL, folder string) *Proxy {
	p := &Proxy{folder: folder, transport: http.DefaultTransport.(*http.Transport).Clone()}
	p.transport.Proxy = nil
	p.transport.DisableCompression = true
	p.transport.MaxIdleConnsPerHost = 50
	p.forward = &httputil.ReverseProxy{
		Transport: p.transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return p
}

// Add makes a fault happen. Of several that fit a request the first added
// that has some times left does.
func (p *Proxy) Add(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &f)
}

// Reset forgets the requests and the faults.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.faults = nil, nil
}

// Requests returns those whose Op is op, or all when it is empty, in the order
// in which they came.
func (p *Proxy) Requests(op string) (requests []Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.requests {
		r := e.request
		if op == "" || r.Op() == op {
			r.Sent, r.Received, r.Status = e.sent.Load(), e.received.Load(), int(e.status.Load())
			requests = append(requests, r)
		}
	}
	return requests
}

// Sent returns how many bytes of bodies the client has sent in requests whose
// Op is op, or in all when it is empty.
func (p *Proxy) Sent(op string) (n int64) {
	for _, r := range p.Requests(op) {
		n += r.Sent
	}
	return n
}

// record keeps e and returns what goes wrong with it, or an empty Fault.
func (p *Proxy) record(e *entry) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, e)
	r := e.request
	for _, f := range p.faults {
		if (f.Op == "" || f.Op == r.Op()) && f.Times != 0 {
			f.Times--
			return *f
		}
	}
	return Fault{}
}

// ServeHTTP implements [http.Handler].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &entry{request: Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}}
	f := p.record(e)
	r.Body = &countingBody{ReadCloser: r.Body, n: &e.sent, flip: f.FlipBody}
	reply := &replyWriter{ResponseWriter: w, entry: e, fault: f}
	if f.Before != nil {
		f.Before()
	}
	switch {
	case f.Status != 0:
		io.Copy(io.Discard, r.Body) // or the client sees a reset instead
		for name, values := range f.Header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", "application/xml")
		reply.WriteHeader(f.Status)
		if f.Code != "" && r.Method != "HEAD" {
			fmt.Fprintf(reply, `<?xml version="1.0"?><Error><Code>%s</Code><Message>said the proxy</Message></Error>`, f.Code)
		}
	case f.IgnoreRange:
		_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		content, err := os.ReadFile(filepath.Join(p.folder, filepath.FromSlash(key)))
		if err != nil {
			panic(err)
		}
		reply.Header().Set("Content-Length", fmt.Sprint(len(content)))
		reply.WriteHeader(http.StatusOK)
		reply.Write(content)
	default:
		p.forward.ServeHTTP(reply, r)
		reply.finish()
	}
}

type countingBody struct {
	io.ReadCloser
	n    *atomic.Int64
	flip bool
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.flip {
		b.flip = false
		p[0] ^= 1
	}
	b.n.Add(int64(n))
	return n, err
}

// replyWriter passes an answer on, or not.
type replyWriter struct {
	http.ResponseWriter
	entry *entry
	fault Fault
	n     int64
	held  []byte // for fault.Body
}

func (w *replyWriter) WriteHeader(status int) {
	if status < 200 { // 100 Continue, before the answer
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.fault.LoseReply {
		panic(http.ErrAbortHandler)
	}
	if w.fault.Rewrite != nil {
		w.fault.Rewrite(w.Header())
	}
	if w.fault.Body != nil {
		w.Header().Del("Content-Length")
	}
	w.entry.status.Store(int64(status))
	w.ResponseWriter.WriteHeader(status)
	if w.fault.BeforeBody {
		w.abort()
	}
}

// abort breaks the connection when what was written so far is on its way.
func (w *replyWriter) abort() {
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func (w *replyWriter) Write(p []byte) (int, error) {
	if w.fault.Body != nil {
		w.held = append(w.held, p...)
		return len(p), nil
	}
	cut := w.fault.CutAfter > 0 && w.n+int64(len(p)) > w.fault.CutAfter
	if cut {
		p = p[:w.fault.CutAfter-w.n]
	}
	w.entry.received.Add(int64(len(p)))
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	if cut {
		w.abort()
	}
	return n, err
}

// finish passes on what was held back to be changed.
func (w *replyWriter) finish() {
	if w.fault.Body != nil {
		p := w.fault.Body(w.held)
		w.entry.received.Add(int64(len(p)))
		w.ResponseWriter.Write(p)
	}
}

// Unwrap is for http.ResponseController.
func (w *replyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
