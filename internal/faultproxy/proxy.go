package faultproxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Options say what proxy is wanted. The zero Options are ready to use.
type Options struct {
	// TLS makes the proxy speak https; it holds the certificate. The server
	// is asked as its own address says.
	TLS *tls.Config
}

// Proxy is a server that passes requests on and breaks some. It is safe for
// concurrent use.
type Proxy struct {
	// Host is "127.0.0.1:port".
	Host string
	// URL is the scheme and the host.
	URL string

	target *url.URL
	tls    *tls.Config
	pool   *http.Transport
	ctx    context.Context // ends with the proxy
	end    context.CancelFunc
	work   sync.WaitGroup // one for each goroutine

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	epoch    int          // counts refusals
	conns    map[net.Conn]bool
	faults   []*armed
	log      []*entry
}

// armed is a fault with the count of what it has seen.
type armed struct {
	Fault
	seen int
}

// entry is a request that may still be under way.
type entry struct {
	request  Request // but for what follows
	in, out  atomic.Int64
	code     atomic.Int64
	answered atomic.Int64 // time in Unix nanoseconds
}

// Start returns a proxy before the server at target, such as
// "http://127.0.0.1:5000", that runs until it is closed or the test ends.
func Start(t testing.TB, target string, o Options) *Proxy {
	t.Helper()
	p, err := New(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// New is [Start] without a test: the caller closes the proxy.
func New(target string, o Options) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: u, tls: o.TLS, listener: l, conns: make(map[net.Conn]bool), Host: l.Addr().String(),
		pool: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second}}
	p.URL = "http://" + p.Host
	if o.TLS != nil {
		p.URL = "https://" + p.Host
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.work.Go(func() { p.accept(l) })
	return p, nil
}

// Close breaks all connections and waits until nothing runs any more. To close
// a proxy again does nothing.
func (p *Proxy) Close() {
	p.end()
	p.Clear()
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
	}
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
	p.pool.CloseIdleConnections()
}

// Add makes a fault happen, to requests from now on.
func (p *Proxy) Add(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &armed{Fault: f})
}

// Clear takes all faults back, and a refusal ends. What stalls goes on to
// stall.
func (p *Proxy) Clear() {
	p.mu.Lock()
	p.faults = nil
	p.mu.Unlock()
	p.listen(-1)
}

// Reset forgets the requests so far.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = nil
}

// Requests returns what was read so far, in that order.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Request
	for _, e := range p.log {
		r := e.request
		r.In, r.Out, r.Code = e.in.Load(), e.out.Load(), int(e.code.Load())
		if at := e.answered.Load(); at != 0 {
			r.Answered = time.Unix(0, at)
		}
		list = append(list, r)
	}
	return list
}

// Sent returns how many bytes of bodies have come from the client.
func (p *Proxy) Sent() int64 {
	var n int64
	for _, r := range p.Requests() {
		n += r.In
	}
	return n
}

func (p *Proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.ctx.Err() != nil || p.listener != l {
			c.Close()
		} else {
			p.conns[c] = true
			p.work.Go(func() { p.serve(c) })
		}
		p.mu.Unlock()
	}
}

// refuse stops listening and resets all connections.
func (p *Proxy) refuse(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return
	}
	p.epoch++
	p.listener.Close()
	p.listener = nil
	for c := range p.conns {
		reset(c)
	}
	if epoch := p.epoch; d > 0 {
		p.work.Go(func() {
			p.sleep(d)
			p.listen(epoch)
		})
	}
}

// listen ends the refusal that began the epoch, or any when it is negative.
// Nobody else is likely to have taken the port, but it may take a moment until
// it is free.
func (p *Proxy) listen(epoch int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; p.listener == nil && p.ctx.Err() == nil && (epoch < 0 || epoch == p.epoch); i++ {
		l, err := net.Listen("tcp", p.Host)
		if err == nil {
			p.listener = l
			p.work.Go(func() { p.accept(l) })
			return
		}
		if i == 200 {
			panic(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// sleep waits for d or the end of the proxy.
func (p *Proxy) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// next returns the fault for r, or for a connection when r is nil.
func (p *Proxy) next(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	hit := Fault{}
	for _, f := range p.faults {
		if (f.Kind == Handshake) != (r == nil) || r != nil && f.Match != nil && !f.Match(r) {
			continue
		}
		f.seen++
		nth := f.seen - cmp.Or(f.From, 1) // from 0 on
		if times := cmp.Or(f.Times, 1); hit.Kind == None && nth >= 0 && (times < 0 || nth < times) {
			hit = f.Fault
		}
	}
	return hit
}

// exchange is one request on a connection, and its answer.
type exchange struct {
	p     *Proxy
	raw   net.Conn // without TLS
	conn  net.Conn
	in    *bufio.Reader
	r     *http.Request
	body  *body
	entry *entry
	fault Fault
}

// serve reads requests from a connection until it ends.
func (p *Proxy) serve(raw net.Conn) {
	defer func() {
		raw.Close()
		p.mu.Lock()
		delete(p.conns, raw)
		p.mu.Unlock()
	}()
	if p.next(nil).Kind == Handshake {
		return
	}
	conn := raw
	if p.tls != nil {
		conn = tls.Server(raw, p.tls)
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		x := &exchange{p: p, raw: raw, conn: conn, in: in, r: r}
		x.entry = &entry{request: Request{Method: r.Method, Target: r.RequestURI, Range: r.Header.Get("Range"), Start: time.Now()}}
		x.body = &body{src: r.Body, n: &x.entry.in}
		if r.Header.Get("Expect") == "100-continue" {
			x.body.before = func() { io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n") }
		}
		x.fault = p.next(r)
		x.entry.request.Fault = x.fault.Kind
		p.mu.Lock()
		p.log = append(p.log, x.entry)
		p.mu.Unlock()
		more := x.do()
		x.done()
		if !more || r.Close || !x.body.ended() {
			return
		}
	}
}

// done takes note that the answer is on its way, if that is not noted.
func (x *exchange) done() { x.entry.answered.CompareAndSwap(0, time.Now().UnixNano()) }

// do answers, and reports whether the connection can go on.
func (x *exchange) do() bool {
	switch x.fault.Kind {
	case Latency:
		x.p.sleep(x.fault.Delay)
	case Stall:
		x.hold()
		return false
	case ResetRequest:
		x.passHalf()
		x.reset()
		return false
	case Status:
		return x.status()
	case Garbage:
		io.Copy(io.Discard, x.body)
		x.conn.Write(bytes.Repeat([]byte("\x00\xff\x16ferry\n"), 100))
		return false
	case Refuse:
		x.done()
		x.p.refuse(x.fault.Delay)
		return false
	case Close:
		io.Copy(io.Discard, x.body)
		return false
	}
	resp, err := x.ask(x.body, x.r.ContentLength)
	if err != nil {
		x.reset()
		return false
	}
	defer resp.Body.Close()
	if x.fault.Kind == ResetBefore {
		io.Copy(io.Discard, resp.Body) // until the server is done
		x.reset()
		return false
	}
	return x.answer(resp)
}

func (x *exchange) reset() {
	x.done()
	reset(x.raw)
}

// hold reads what comes until the client ends the connection, or the proxy.
func (x *exchange) hold() {
	io.Copy(io.Discard, x.body)
	io.Copy(io.Discard, x.in)
}

// passHalf lets the server have half of the request's body.
func (x *exchange) passHalf() {
	if n := x.r.ContentLength; n > 0 {
		half := io.MultiReader(io.LimitReader(x.body, n/2), brokenReader{})
		if resp, err := x.ask(io.NopCloser(half), n); err == nil {
			resp.Body.Close()
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// ask passes the request on with a body of n bytes.
func (x *exchange) ask(body io.ReadCloser, n int64) (*http.Response, error) {
	r := x.r.Clone(x.p.ctx)
	r.RequestURI = ""
	r.URL.Scheme, r.URL.Host = x.p.target.Scheme, x.p.target.Host
	r.Host = x.r.Host
	r.Header.Del("Connection")
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = nil // or Go's own is sent
	}
	r.Body, r.ContentLength = body, n
	if n == 0 {
		r.Body = http.NoBody
		x.body.end()
	}
	return x.p.pool.RoundTrip(r)
}

// status answers without the server.
func (x *exchange) status() bool {
	more := x.body.before == nil
	if more {
		io.Copy(io.Discard, x.body)
	}
	header := x.fault.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if !more { // the client keeps its body
		header.Set("Connection", "close")
	}
	x.done()
	return x.answer(&http.Response{StatusCode: x.fault.Code, Header: header, Body: io.NopCloser(bytes.NewReader([]byte(x.fault.Body))),
		ContentLength: int64(len(x.fault.Body))}) && more
}

// answer writes resp, or what the fault makes of it, and reports whether the
// connection can go on.
func (x *exchange) answer(resp *http.Response) bool {
	n := resp.ContentLength // -1 when unknown
	bodyless := x.r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	content := io.Reader(resp.Body)
	if x.fault.Kind != None && n < 0 && !bodyless { // to know its half
		all, err := io.ReadAll(resp.Body)
		if err != nil {
			x.reset()
			return false
		}
		n, content = int64(len(all)), bytes.NewReader(all)
	}
	promised := n
	switch {
	case x.fault.Kind == LongLength && n >= 0:
		promised += 1000
	case x.fault.Kind == ShortLength && n >= 0:
		promised /= 2
	}
	header := headerOf(resp, promised, bodyless)
	x.entry.code.Store(int64(resp.StatusCode))
	if bodyless || n == 0 {
		return x.answerHeader(header, !bodyless)
	}
	if _, err := x.conn.Write(header); err != nil {
		return false
	}
	out := &counter{x.conn, &x.entry.out}
	var err error
	switch x.fault.Kind {
	case ResetBody, ShortBody:
		io.CopyN(out, content, n/2)
		if x.fault.Kind == ResetBody {
			x.reset()
		}
		return false
	case Trickle:
		x.trickle(out, content)
		return false
	}
	if n < 0 {
		chunks := httputil.NewChunkedWriter(out)
		if _, err = io.Copy(chunks, content); err == nil {
			chunks.Close()
			_, err = io.WriteString(x.conn, "\r\n")
		}
	} else {
		_, err = io.Copy(out, content)
	}
	if x.fault.Kind == LongLength {
		x.hold()
		return false
	}
	return err == nil
}

// answerHeader writes an answer without a body; one that could have had one
// may lie about it.
func (x *exchange) answerHeader(header []byte, couldHave bool) bool {
	switch x.fault.Kind {
	case ResetBody, ShortBody:
		x.conn.Write(header[:len(header)/2])
		if x.fault.Kind == ResetBody {
			x.reset()
		}
		return false
	case Trickle:
		x.trickle(x.conn, bytes.NewReader(header))
		return false
	}
	_, err := x.conn.Write(header)
	if x.fault.Kind == LongLength && couldHave {
		x.hold()
		return false
	}
	return err == nil
}

// headerOf returns the header of resp as bytes, with a length of n.
func headerOf(resp *http.Response, n int64, bodyless bool) []byte {
	h := resp.Header.Clone()
	h.Del("Connection")
	h.Del("Content-Length")
	h.Del("Transfer-Encoding")
	switch {
	case n >= 0 && resp.StatusCode != http.StatusNoContent:
		h.Set("Content-Length", strconv.FormatInt(n, 10))
	case !bodyless:
		h.Set("Transfer-Encoding", "chunked")
	}
	if resp.Header.Get("Connection") == "close" {
		h.Set("Connection", "close")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	h.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// trickle writes byte by byte until the client has enough of it.
func (x *exchange) trickle(out io.Writer, content io.Reader) {
	one := make([]byte, 1)
	for x.p.ctx.Err() == nil {
		if _, err := io.ReadFull(content, one); err != nil {
			return
		}
		if _, err := out.Write(one); err != nil {
			return
		}
		x.p.sleep(cmp.Or(x.fault.Delay, time.Second))
	}
}

// body is a request's body, which counts what is read of it. The transport may
// read on when it has an answer.
type body struct {
	before func() // called before the first byte is read; may be nil
	n      *atomic.Int64

	mu   sync.Mutex
	src  io.Reader
	over bool // read to its end
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.before != nil {
		b.before()
		b.before = nil
	}
	n, err := b.src.Read(p)
	b.n.Add(int64(n))
	b.over = b.over || err == io.EOF
	return n, err
}

// Close implements [io.Closer]; the connection is for serve to close.
func (b *body) Close() error { return nil }

func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// ended reports whether nothing of the body is left in the connection.
func (b *body) ended() bool {
	if !b.mu.TryLock() { // somebody reads
		return false
	}
	defer b.mu.Unlock()
	if !b.over && b.before == nil { // its end may be there and not seen yet
		n, err := b.src.Read(make([]byte, 1))
		b.n.Add(int64(n))
		b.over = n == 0 && err == io.EOF
	}
	return b.over
}

type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}
