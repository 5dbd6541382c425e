package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errScheme says that a URL is neither http nor https.
var errScheme = errors.New("URL is neither http nor https")

// watchdog ends a request that waits too long.
type watchdog struct {
	cancel context.CancelCauseFunc
	err    *IdleError

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

func newWatchdog(cancel context.CancelCauseFunc, err *IdleError) *watchdog {
	return &watchdog{cancel: cancel, err: err}
}

// watch begins a wait, or begins it anew.
func (w *watchdog) watch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
	case w.timer == nil:
		w.timer = time.AfterFunc(w.err.After, func() { w.cancel(w.err) })
	default:
		w.timer.Reset(w.err.After)
	}
}

// rest ends a wait.
func (w *watchdog) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// end ends the wait and any later one.
func (w *watchdog) end() {
	w.rest()
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
}

// least, in bytes, is what a body must bring in the time that one wait may
// take, or else it counts as stuck: a byte now and then is no progress.
const least = 1 << 10

// watchedBody is the body of a response, of which each read ends in time.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context // of the one request the body belongs to
	cancel context.CancelCauseFunc
	dog    *watchdog
	stuck  func() // is told when a read did not end in time

	waited time.Duration // in reads since the body last brought least bytes
	got    int64         // bytes since then
}

func (b *watchedBody) Read(p []byte) (int, error) {
	begin := time.Now()
	b.dog.watch()
	n, err := b.body.Read(p)
	b.dog.rest()
	b.waited += time.Since(begin)
	b.got += int64(n)
	switch {
	case err != nil && err != io.EOF:
		err = cause(b.ctx, err)
	case b.got >= least:
		b.waited, b.got = 0, 0
	case err == nil && b.waited >= b.dog.err.After:
		err = &IdleError{After: b.dog.err.After, In: b.dog.err.In, Received: b.got}
		b.cancel(err)
	}
	var idle *IdleError
	if errors.As(err, &idle) {
		b.stuck()
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.dog.end()
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// cause returns the reason why a request under ctx ended with err: what a
// watchdog said, or else err itself.
func cause(ctx context.Context, err error) error {
	var idle *IdleError
	if errors.As(context.Cause(ctx), &idle) {
		return idle
	}
	return err
}
