package main

import (
	"net"
	"sync"
	"time"
)

// pace lets bytes pass at a rate, all connections of a site together, so that
// a copy takes time on one machine, too, and its progress can be seen.
type pace struct {
	rate float64 // bytes a second; 0 means no limit

	mu   sync.Mutex
	free time.Time // when what has passed so far is through
}

// pass waits until n more bytes are through.
func (p *pace) pass(n int) {
	if p.rate <= 0 {
		return
	}
	p.mu.Lock()
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	wait := time.Until(p.free)
	p.mu.Unlock()
	time.Sleep(wait)
}

// pacedListener accepts connections that keep a pace.
type pacedListener struct {
	net.Listener
	pace *pace
}

func (l pacedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return pacedConn{conn, l.pace}, err
}

type pacedConn struct {
	net.Conn
	pace *pace
}

func (c pacedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pace.pass(n)
	return n, err
}

func (c pacedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.pace.pass(n)
	return n, err
}
