package s3store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"
)

// newSmallStore returns a store with so much memory for parts, in parts.
func newSmallStore(t *testing.T, server *storetest.S3, parts, parallel int) bundle.Store {
	t.Helper()
	s, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, HTTP: storetest.Client(t),
		Memory: int64(parts) * part, Parallel: parallel})
	if err != nil {
		t.Fatal(err)
	}
	s3store.Hurry(s)
	return s
}

// writeRanges writes all objects, one after the other, cut into ranges that
// are begun in ascending order by as many writers, each of which stops at
// random to let the others overtake. Ranges may go over the border of objects,
// as the pieces of a blob do.
func writeRanges(ctx context.Context, uploads []bundle.Upload, sizes []int64, writers int, random *rand.Rand) error {
	type place struct {
		upload bundle.Upload
		off, n int64
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ranges := make(chan []place)
	var wg sync.WaitGroup
	for range writers {
		seed := random.Uint64()
		wg.Go(func() {
			pause := rand.New(rand.NewPCG(seed, 0))
			for r := range ranges {
				for _, p := range r {
					for at := int64(0); at < p.n; {
						n := min(p.n-at, 1+pause.Int64N(2<<20))
						if err := p.upload.WriteAt(ctx, make([]byte, n), p.off+at); err != nil {
							cancel(err)
						}
						at += n
						if pause.IntN(20) == 0 {
							time.Sleep(time.Duration(pause.IntN(3)) * time.Millisecond)
						}
					}
				}
			}
		})
	}
	longest := 1 + random.Int64N(4*part)
	var r []place
	left := 1 + random.Int64N(longest)
	for i, u := range uploads {
		for off := int64(0); off < sizes[i]; {
			n := min(left, sizes[i]-off)
			r = append(r, place{u, off, n})
			off, left = off+n, left-n
			if left == 0 {
				ranges <- r
				r, left = nil, 1+random.Int64N(longest)
			}
		}
	}
	if r != nil {
		ranges <- r
	}
	close(ranges)
	wg.Wait()
	return context.Cause(ctx)
}

// However many write, and in whatever order that is allowed, memory is bounded
// and nobody waits for ever (I7).
func TestMemory(t *testing.T) {
	server := storetest.StartS3(t)
	random := rand.New(rand.NewPCG(1, 0))
	for writers, memories := range map[int][]int{1: {1, 16}, 4: {1, 2}, 16: {2, 16}, 64: {1, 16}} {
		for _, parts := range memories {
			s := newSmallStore(t, server, parts, writers)
			var uploads []bundle.Upload
			sizes := []int64{part + random.Int64N(part), 1 + random.Int64N(part), part, 3*part + 1}
			for i, size := range sizes {
				uploads = append(uploads, storetest.Create(t, s, fmt.Sprint("object", i), size))
			}
			if err := writeRanges(t.Context(), uploads, sizes, writers, random); err != nil {
				t.Fatalf("%d writers, memory for %d parts: %v", writers, parts, err)
			}
			for _, u := range uploads {
				if err := u.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got, most := s3store.Peak(s), int64(parts)*part; got > most || got == 0 {
				t.Errorf("%d writers: %d bytes in buffers, want at most %d", writers, got, most)
			}
			if n := s3store.InUse(s); n != 0 {
				t.Errorf("%d writers: %d bytes are in use when all is done", writers, n)
			}
		}
	}
}

// One writer that writes in order has one part in the making, and as many on
// their way as are sent at once.
func TestMemoryOfOneWriter(t *testing.T) {
	server := storetest.StartS3(t)
	s := newSmallStore(t, server, 16, 1)
	content := storetest.Content(8*part+77, 1)
	u := storetest.Create(t, s, "object", int64(len(content)))
	for off := 0; off < len(content); off += 100_000 {
		if err := u.WriteAt(t.Context(), content[off:min(off+100_000, len(content))], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s3store.Peak(s); got > 3*part {
		t.Errorf("%d bytes in buffers, want those of three parts", got)
	}
	check(t, s, content)
	// A small object does not take the memory of a part.
	s = newSmallStore(t, server, 16, 1)
	u = storetest.Create(t, s, "object", 10)
	if err := errors.Join(u.WriteAt(t.Context(), content[:10], 0), u.Commit(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := s3store.Peak(s); got != 10 {
		t.Errorf("an object of 10 bytes takes %d", got)
	}
}

// watched is a context that tells when somebody begins to wait for its end.
type watched struct {
	context.Context
	asked chan struct{}
	once  sync.Once
}

func (w *watched) Done() <-chan struct{} {
	w.once.Do(func() { close(w.asked) })
	return w.Context.Done()
}

// Whoever waits for memory goes on when an upload fails or is closed, or its
// own context ends.
func TestMemoryIsGivenBack(t *testing.T) {
	server := storetest.StartS3(t)
	for name, end := range map[string]func(first, second bundle.Upload, cancel func()) (want error){
		"the other is closed": func(first, _ bundle.Upload, _ func()) error { first.Close(); return nil },
		"the other fails":     func(first, _ bundle.Upload, _ func()) error { first.WriteAt(t.Context(), []byte{1}, 0); return nil },
		"it is cancelled":     func(_, _ bundle.Upload, cancel func()) error { cancel(); return context.Canceled },
		"it is closed":        func(_, second bundle.Upload, _ func()) error { second.Close(); return context.Canceled },
	} {
		s := newSmallStore(t, server, 2, 1)
		first, second := storetest.Create(t, s, "first", 2*part), storetest.Create(t, s, "second", 2*part)
		if err := first.WriteAt(t.Context(), make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		wrote := make(chan error)
		waits := make(chan struct{})
		go func() { wrote <- second.WriteAt(&watched{Context: ctx, asked: waits}, make([]byte, 10), 0) }()
		<-waits
		want := end(first, second, cancel)
		if err := <-wrote; (err == nil) != (want == nil) {
			t.Errorf("%s: WriteAt that waited = %v, want %v", name, err, want)
		}
		cancel()
		first.Close()
		second.Close()
		if n := s3store.InUse(s); n != 0 {
			t.Errorf("%s: %d bytes are in use when all is closed", name, n)
		}
	}
}

// What can not fit is refused before a byte was written, and says so.
func TestMemoryTooSmall(t *testing.T) {
	server := storetest.StartS3(t)
	s := newSmallStore(t, server, 4, 1)
	_, err := s.Create(t.Context(), "object", 1<<40)
	if !errors.Is(err, s3store.ErrMemory) || !strings.Contains(err.Error(), "parts of 105 MiB, the memory is 32 MiB") {
		t.Errorf("Create of 1 TiB with 32 MiB of memory = %v, want ErrMemory", err)
	}
	if n := len(server.Proxy.Requests("")); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}
