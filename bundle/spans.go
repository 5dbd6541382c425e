package bundle

import (
	"slices"
	"sync"
)

// Spans is a set of byte ranges of one object. A [Store] keeps one for each
// [Upload], to know what has been written. The zero Spans is empty; its
// methods are safe for concurrent use. It stays small when ranges grow in
// ascending order, for neighbours become one range.
type Spans struct {
	mu     sync.Mutex
	ranges []span // ascending, never touching each other
}

type span struct{ from, to int64 }

// Add puts the n bytes from off on into the set. It reports whether none of
// them was in it before.
func (s *Spans) Add(off, n int64) bool {
	if n <= 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	added, fresh := span{off, off + n}, true
	// The ranges i to j-1 touch or overlap the new one and are merged into it.
	i, _ := slices.BinarySearchFunc(s.ranges, off, func(r span, off int64) int {
		if r.to < off {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(s.ranges) && s.ranges[j].from <= added.to; j++ {
		r := s.ranges[j]
		if r.from < off+n && off < r.to {
			fresh = false
		}
		added.from, added.to = min(added.from, r.from), max(added.to, r.to)
	}
	s.ranges = slices.Replace(s.ranges, i, j, added)
	return fresh
}

// Bytes returns how many bytes are in the set.
func (s *Spans) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, r := range s.ranges {
		n += r.to - r.from
	}
	return n
}
