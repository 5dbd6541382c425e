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

// watchedBody is the body of a response, of which each read ends in time.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context // of the one request the body belongs to
	cancel context.CancelCauseFunc
	dog    *watchdog
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.watch()
	n, err := b.body.Read(p)
	b.dog.rest()
	if err != nil && err != io.EOF {
		err = cause(b.ctx, err)
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
