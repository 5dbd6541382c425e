package s3store

import (
	"slices"
	"sync"
)

const (
	// defaultMemory, in bytes, is what the parts take that are in memory at
	// once: twice what four writers need that never wait for each other.
	defaultMemory = 128 << 20
	// defaultSends is how many parts are sent at once.
	defaultSends = 4
)

// memory shares out the buffers for parts among the uploads of a store. The
// last one is kept for the lowest part that lacks bytes, of the upload that
// was created first: whoever writes its lowest byte never waits, as that byte
// is the next of a range that was begun. So the others, who wait until a part
// was sent, do not wait for ever.
type memory struct {
	limit int64 // bytes

	mu      sync.Mutex
	used    int64 // bytes in buffers of parts
	peak    int64 // the most bytes that there were in all buffers
	free    [][]byte
	open    []*upload     // in the order in which they were created
	changed chan struct{} // closed when somebody who waits may go on
}

func newMemory(limit int64) *memory {
	return &memory{limit: limit, changed: make(chan struct{})}
}

// admit adds an upload that wants memory.
func (m *memory) admit(u *upload) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = append(m.open, u)
}

// dismiss takes back all that an upload has. The caller holds the lock.
func (m *memory) dismiss(u *upload) {
	m.open = slices.DeleteFunc(m.open, func(o *upload) bool { return o == u })
	for _, p := range u.gathering {
		m.release(p)
	}
	u.gathering = nil
	m.wake()
}

// first returns the upload that was created first of those that lack bytes and
// have not failed, or nil. The caller holds the lock.
func (m *memory) first() *upload {
	for _, u := range m.open {
		if u.err == nil && int64(u.lowest) <= u.parts() {
			return u
		}
	}
	return nil
}

// take returns a buffer of size bytes, or nil when there is no room now. The
// last room is for the lowest part. The caller holds the lock.
func (m *memory) take(size int64, lowest bool) []byte {
	room := m.limit - m.used
	if !lowest {
		room -= m.largest()
	}
	if room < size {
		return nil
	}
	m.used += size
	if i := slices.IndexFunc(m.free, func(b []byte) bool { return int64(len(b)) == size }); i >= 0 {
		buffer := m.free[i]
		m.free = slices.Delete(m.free, i, i+1)
		return buffer
	}
	for len(m.free) > 0 && m.used+m.idle() > m.limit {
		m.free = slices.Delete(m.free, 0, 1)
	}
	m.peak = max(m.peak, m.used+m.idle())
	return make([]byte, size)
}

// release takes back the buffer of a part. The caller holds the lock.
func (m *memory) release(p *part) {
	buffer := p.content[:cap(p.content)]
	m.used -= int64(len(buffer))
	m.free = append(m.free, buffer)
	m.wake()
}

// largest returns the size in bytes of the largest buffer that an upload may
// want.
func (m *memory) largest() (n int64) {
	for _, u := range m.open {
		n = max(n, u.bufferSize())
	}
	return n
}

// idle returns how many bytes are in buffers that nobody uses.
func (m *memory) idle() (n int64) {
	for _, b := range m.free {
		n += int64(len(b))
	}
	return n
}

// wake lets all look again who wait for memory. The caller holds the lock.
func (m *memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}
