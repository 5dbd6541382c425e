// Package faultproxy stands between a client and a real server, and does to
// chosen requests what networks, proxies and tired servers do. It is for tests
// only.
//
// # What it is
//
// A [Proxy] listens on a port of the loopback interface, reads HTTP/1.1
// requests from its connections, in TLS or not, and passes each on to the
// server with its Host header, which may be signed. It writes the answers to
// the connection itself, byte by byte: so it can do what no HTTP server's
// handler can, like to lie about a length, to talk garbage, or to reset.
//
// # Faults
//
// A [Fault] chooses requests by a [Match], and of these the n-th and some after
// it. Of several faults that fit a request the first added is done, but all
// of them count it. Nothing is random: what happens depends on the order in
// which the requests come, and on nothing else.
//
// A reset is one that the client's system sees (RST), a close is orderly (FIN).
//
// # Log
//
// Every request that was read is in the log, with what came and went, from
// the moment on at which it was read.
package faultproxy

import (
	"net/http"
	"regexp"
	"time"
)

// Kind is what goes wrong with a request.
type Kind int

// The kinds of faults. Of those that are about a body, "header" says what
// happens to an answer that has none.
const (
	// None is no fault.
	None Kind = iota
	// Latency passes the request on after Delay.
	Latency
	// Stall reads the whole request and never answers. The server does not
	// get it.
	Stall
	// ResetBefore resets the connection when the server has done its work,
	// before the first byte of the answer.
	ResetBefore
	// ResetBody resets it in the middle of the answer's body; header: in
	// the middle of that.
	ResetBody
	// ResetRequest resets it in the middle of the request's body, of which
	// the server gets as much; a request without one does not get there.
	ResetRequest
	// ShortBody closes it in the middle of the answer's body; header: in
	// the middle of that.
	ShortBody
	// LongLength promises 1,000 bytes more than there are, and leaves the
	// connection open; header: it lies.
	LongLength
	// ShortLength promises half of the bytes that there are, and sends all;
	// header: it lies.
	ShortLength
	// Trickle sends one byte of the answer's body each Delay, which is a
	// second when it is zero; header: of that.
	Trickle
	// Status answers with Status, Header and Body. The server does not get
	// the request.
	Status
	// Garbage answers with what is no HTTP, and closes.
	Garbage
	// Refuse resets all connections and takes no new ones for Delay; zero
	// means until [Proxy.Clear].
	Refuse
	// Close closes the connection instead of an answer, as servers do with
	// one that was idle for long. The server does not get the request.
	Close
	// Handshake closes a connection when it is made, before its first byte
	// is read. It counts connections, and Match is not asked.
	Handshake
)

var kindNames = [...]string{"none", "latency", "stall", "reset before the answer", "reset in the answer", "reset in the request",
	"short body", "length too large", "length too small", "trickle", "status", "garbage", "refuse", "close", "close before the handshake"}

// String returns what a person would call the fault.
func (k Kind) String() string { return kindNames[k] }

// Match chooses requests.
type Match func(*http.Request) bool

// Target chooses requests whose method, and whose path with its query, match
// regular expressions; an empty one matches everything. It panics when one of
// them is malformed.
func Target(method, target string) Match {
	m, r := regexp.MustCompile("^(?:"+method+")$"), regexp.MustCompile(target)
	return func(q *http.Request) bool {
		return (method == "" || m.MatchString(q.Method)) && r.MatchString(q.URL.RequestURI())
	}
}

// Fault says what goes wrong with which requests.
type Fault struct {
	Kind  Kind
	Match Match // nil means all requests
	// From is the how-manyth of the requests that match is the first to be
	// hit. Zero means 1.
	From int
	// Times is how many are hit, one after another. Zero means 1, a
	// negative number all from then on.
	Times int
	// Delay is for Latency, Trickle and Refuse.
	Delay time.Duration
	// Code, Header and Body are what Status answers.
	Code   int
	Header http.Header
	Body   string
}

// Request is one that a [Proxy] has read.
type Request struct {
	Method, Target string // of the request line
	Range          string // the header
	Start          time.Time
	// Answered is when the answer was sent or the connection was broken;
	// zero when that is still to come.
	Answered time.Time
	In, Out  int64 // bytes of the bodies that came from the client and went to it
	Code     int   // of the answer; 0 when there was none
	Fault    Kind  // what was done to it
}
