package transport

import (
	"errors"
	"net"
	"net/http"
)

// Outcome is what came of an attempt, as far as it tells how busy a host is.
type Outcome int

// The outcomes that [Options].Observe is told. A connection that breaks, and
// any other answer from 500 on, tells nothing of how busy a host is.
const (
	// Accepted: the host answered, whatever it said below 500 but 429.
	Accepted Outcome = iota + 1
	// Overloaded: the host answered 429 or 503.
	Overloaded
	// TimedOut: the host did not answer in time, or its answer's body came
	// to a standstill after it had been Accepted.
	TimedOut
)

// outcome returns zero for what tells nothing.
func outcome(resp *http.Response, err error) Outcome {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut
	case err != nil:
		return 0
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		return Overloaded
	case resp.StatusCode < http.StatusInternalServerError:
		return Accepted
	}
	return 0
}

// tell tells the observer, unless the caller has given up himself.
func (t *retrier) tell(req *http.Request, o Outcome) {
	if t.observe != nil && o != 0 && req.Context().Err() == nil {
		t.observe(req.Context(), askedHost(req), o)
	}
}

// askedHost returns the host that was asked before any redirect: it is the one
// that the caller knows, and who asks it less often spares the others too.
func askedHost(req *http.Request) string {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req.URL.Host
}
