package layout

import (
	"context"
	"fmt"
	"io"
	"os"

	"ferry/bundle"
)

const (
	// minAhead and maxAhead, in bytes, bound what is read ahead. To read the
	// larger costs about as much as a request over a network; so entries
	// closer together than that are read over, those further apart cost a
	// request of the smaller each.
	minAhead = 64 << 10
	maxAhead = 1 << 20
	// aheadGrowth is how much more is read ahead each time that it was of use.
	aheadGrowth = 4
)

// window reads an object ahead, because what stands next to a header in an
// archive is mostly read next. It is for one goroutine.
type window struct {
	ctx    context.Context // of the opening, which the window does not outlive
	object bundle.Object
	start  int64 // where held begins, in bytes
	held   []byte
	ahead  int64 // how much was read ahead the last time
}

func newWindow(ctx context.Context, object bundle.Object) *window {
	return &window{ctx: ctx, object: object}
}

// readError is an error of the place that an archive is in, and not one of the
// archive.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// ReadAt implements [io.ReaderAt]. Its errors are [io.EOF], after the end of the
// object, and [readError].
func (w *window) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if i := at - w.start; i >= 0 && i < int64(len(w.held)) {
			n += copy(p[n:], w.held[i:])
			continue
		}
		left := w.object.Size() - at
		switch {
		case left <= 0:
			return n, io.EOF
		case len(p)-n >= maxAhead:
			part := p[n:min(int64(len(p)), int64(n)+left)]
			err = w.fetch(part, at)
			n += len(part)
		default:
			err = w.move(at, left)
		}
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// move makes the window begin at off, from where on the object has left bytes.
func (w *window) move(off, left int64) error {
	jump := off - (w.start + int64(len(w.held)))
	if jump >= 0 && jump < maxAhead && w.ahead > 0 {
		w.ahead = min(w.ahead*aheadGrowth, maxAhead)
	} else {
		w.ahead = minAhead
	}
	size := min(w.ahead, left)
	if int64(cap(w.held)) < size {
		w.held = make([]byte, size)
	}
	w.start, w.held = off, w.held[:size]
	if err := w.fetch(w.held, off); err != nil {
		w.held = w.held[:0]
		return err
	}
	return nil
}

// fetch reads what stands at off, in one request.
func (w *window) fetch(p []byte, off int64) error {
	r, err := w.object.Range(w.ctx, off, int64(len(p)))
	if err != nil {
		return readError{err}
	}
	defer r.Close()
	if _, err := io.ReadFull(r, p); err != nil {
		return readError{err}
	}
	return nil
}

// fileObject is a file as a [bundle.Object].
type fileObject struct {
	file *os.File
	size int64 // bytes
}

func (o fileObject) Size() int64  { return o.size }
func (o fileObject) Close() error { return o.file.Close() }

func (o fileObject) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := bundle.CheckRange(off, n, o.size); err != nil {
		return nil, err
	}
	section, left := io.NewSectionReader(o.file, off, n), n
	return io.NopCloser(withContext(ctx, readerFunc(func(p []byte) (int, error) {
		k, err := section.Read(p)
		left -= int64(k)
		if err == io.EOF && left > 0 {
			err = fmt.Errorf("%w: it has become shorter", bundle.ErrChanged)
		}
		return k, err
	}))), nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// withContext returns r, which ends with the error of ctx when that ends.
func withContext(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
