package transfer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"sync"
	"time"
)

// What a measurement may take at most: together less than 1.5 s, but for one
// request or one block on its way, and 16 MiB.
const (
	readTime   = 700 * time.Millisecond
	askTime    = 200 * time.Millisecond
	writeTime  = 500 * time.Millisecond
	readBytes  = 8 << 20
	writeBytes = MaxProbe
	writeBlock = 1 << 20
	// leastRead, in bytes, is what must have been read for a rate to mean
	// something.
	leastRead = 64 << 10
)

// MaxProbe, in bytes, is what a [Probe] writes at most.
const MaxProbe = 8 << 20

// Probe says what can be measured before a run. Every field but Now may be
// empty: then that is not measured.
type Probe struct {
	// Open opens blobs that are to be moved, each from its beginning. They are
	// read at once, as the run does it, and hashed unless Unhashed says that
	// the run may leave that to the registry.
	Open     []func(ctx context.Context) (io.ReadCloser, error)
	Unhashed bool
	// Local says that to open one is no request.
	Local bool
	// Ask sends one small request to the destination.
	Ask func(ctx context.Context) error
	// Folder is where a file is written that has no name any more, or loses it
	// at the end.
	Folder string
	Now    func() time.Time // required
}

// Measured is what a [Probe] has found; 0 is what it has not.
type Measured struct {
	ReadRate  float64       // bytes in a second, from the source
	WriteRate float64       // bytes in a second, to the destination's disk
	Latency   time.Duration // of a request, to the destination if it was asked
}

// Measure measures for a moment. What fails is not measured.
func (p Probe) Measure(ctx context.Context) Measured {
	var m Measured
	m.ReadRate, m.Latency = p.read(ctx)
	if p.Local {
		m.Latency = 0
	}
	if p.Ask != nil {
		m.Latency = p.ask(ctx)
	}
	if p.Folder != "" {
		m.WriteRate = p.write(ctx)
	}
	return m
}

func (p Probe) ask(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	start := p.Now()
	if p.Ask(ctx) != nil {
		return 0
	}
	return max(0, p.Now().Sub(start))
}

// glimpse is what was read of one blob, and when.
type glimpse struct {
	asked, begun, ended time.Time
	bytes               int64
}

// read reads all blobs at once. The rate is that of all together, from when the
// first began to come; the latency that of the one which came first.
func (p Probe) read(ctx context.Context) (rate float64, latency time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	seen := make([]glimpse, len(p.Open))
	var all sync.WaitGroup
	for i, open := range p.Open {
		all.Go(func() { seen[i] = p.glimpse(ctx, open, readBytes/int64(len(p.Open))) })
	}
	all.Wait()
	var begun, ended time.Time
	var bytes int64
	for _, g := range seen {
		if g.bytes == 0 {
			continue
		}
		if wait := g.begun.Sub(g.asked); bytes == 0 || wait < latency {
			latency = wait
		}
		if bytes == 0 || g.begun.Before(begun) {
			begun = g.begun
		}
		if g.ended.After(ended) {
			ended = g.ended
		}
		bytes += g.bytes
	}
	if took := ended.Sub(begun).Seconds(); bytes >= leastRead && took > 0 {
		rate = float64(bytes) / took
	}
	return rate, max(0, latency)
}

func (p Probe) glimpse(ctx context.Context, open func(context.Context) (io.ReadCloser, error), most int64) glimpse {
	g := glimpse{asked: p.Now()}
	body, err := open(ctx)
	if err != nil {
		return g
	}
	defer body.Close()
	var use io.Writer = sha256.New()
	if p.Unhashed {
		use = io.Discard
	}
	if _, err := io.CopyN(use, body, 1); err != nil { // some ask for it only now
		return g
	}
	g.begun = p.Now()
	n, _ := io.Copy(use, io.LimitReader(body, most-1))
	g.bytes = 1 + n
	g.ended = p.Now()
	return g
}

// write writes to the disk, block by block, until the time is up.
func (p Probe) write(ctx context.Context) (rate float64) {
	f, err := os.CreateTemp(p.Folder, ".ferry-*.partial")
	if err != nil {
		return 0
	}
	gone := os.Remove(f.Name()) == nil // where open files can be removed, nothing can be left behind
	defer func() {
		f.Close()
		if !gone {
			os.Remove(f.Name())
		}
	}()
	block := make([]byte, writeBlock)
	rand.Read(block) // some disks compress
	start := p.Now()
	for n := int64(0); n < writeBytes && ctx.Err() == nil; {
		if _, err := f.Write(block); err != nil {
			return rate
		}
		if err := f.Sync(); err != nil {
			return rate
		}
		n += writeBlock
		took := p.Now().Sub(start)
		if took > 0 {
			rate = float64(n) / took.Seconds()
		}
		if took >= writeTime {
			break
		}
	}
	return rate
}

// Estimate is how long a run will take. Least is what it can not go below, by
// what was measured; Most, unless it is 0, is what it takes when nothing of it
// is done at the same time.
type Estimate struct{ Least, Most time.Duration }

// Estimate returns how long it takes to read so many bytes, to write so many to
// a disk, and to send so many requests, jobs at a time, and false when nothing
// can be said. Where bytes go to a server, which is not measured, whole is
// false: there is no Most.
func (m Measured) Estimate(read, written int64, requests, jobs int, whole bool) (Estimate, bool) {
	if read > 0 && m.ReadRate == 0 || written > 0 && m.WriteRate == 0 {
		return Estimate{}, false
	}
	reading, writing := seconds(float64(read), m.ReadRate), seconds(float64(written), m.WriteRate)
	asking := m.Latency * time.Duration(requests) / time.Duration(max(jobs, 1))
	e := Estimate{Least: max(reading, writing, asking)}
	if whole {
		e.Most = reading + writing + asking
	}
	return e, e.Least > 0
}

// seconds returns how long n bytes take.
func seconds(n, rate float64) time.Duration {
	if n == 0 {
		return 0
	}
	return time.Duration(n / rate * float64(time.Second))
}
