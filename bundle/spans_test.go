package bundle_test

import (
	"testing"

	"ferry/bundle"

	"pgregory.net/rapid"
)

// Spans is compared with one flag for each byte.
func TestSpansAgainstFlags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 40
		var spans bundle.Spans
		var flags [size]bool
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			off := rapid.IntRange(0, size).Draw(t, "off")
			n := rapid.IntRange(0, size-off).Draw(t, "n")
			wantFresh, want := true, int64(0)
			for i := off; i < off+n; i++ {
				wantFresh = wantFresh && !flags[i]
				flags[i] = true
			}
			for _, f := range flags {
				if f {
					want++
				}
			}
			if fresh := spans.Add(int64(off), int64(n)); fresh != wantFresh {
				t.Fatalf("Add(%d, %d) = %v, want %v", off, n, fresh, wantFresh)
			}
			if got := spans.Bytes(); got != want {
				t.Fatalf("after Add(%d, %d): Bytes() = %d, want %d", off, n, got, want)
			}
		}
	})
}
