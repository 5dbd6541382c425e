package bundle

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// Errors of a [Store]; test for them with errors.Is.
var (
	// ErrNotFound says that there is no object of that name.
	ErrNotFound = fs.ErrNotExist
	// ErrExists says that there is an object of that name already.
	ErrExists = fs.ErrExist
	// ErrChanged says that an object is not the one that was opened any more.
	ErrChanged = errors.New("object changed while it was read")
	// ErrReadOnly says that the store can not be written.
	ErrReadOnly = errors.New("store is read-only")
	// ErrNoSpace says that the store has no room left.
	ErrNoSpace = errors.New("no space left")
)

// Store is a place for named objects: a directory, a prefix in a bucket. Names
// are relative slash-separated paths without empty, "." or ".." elements.
// All methods are safe for concurrent use, and a cancelled context ends them.
type Store interface {
	// Open returns the object name, which the caller closes.
	// Errors: [ErrNotFound].
	Open(ctx context.Context, name string) (Object, error)

	// List returns the objects whose names begin with prefix, by name,
	// however deep. An empty or missing place has none, without an error.
	List(ctx context.Context, prefix string) ([]Info, error)

	// Put stores a small object whole, replacing what has that name.
	// Nobody ever sees a part of it.
	Put(ctx context.Context, name string, content []byte) error

	// PutNew is Put for an object that must not be there yet. Of several
	// callers at once only one succeeds. Errors: [ErrExists].
	PutNew(ctx context.Context, name string, content []byte) error

	// Create begins an object of size bytes that is written in pieces. It
	// goes on with what an earlier, interrupted Create of the same name and
	// size has left; what was left for another size is discarded.
	Create(ctx context.Context, name string, size int64) (Upload, error)

	// Remove deletes an object, and what an interrupted Create of that name
	// has left. Removing what is not there is no error.
	Remove(ctx context.Context, name string) error

	// String returns the place as a user would write it, without secrets.
	String() string
}

// Info describes an object in a [Store].
type Info struct {
	Name string
	Size int64 // bytes
}

// Object is one immutable object in a [Store].
type Object interface {
	// Size returns the object's size in bytes.
	Size() int64

	// Range returns the n bytes from off on as a stream, which the caller
	// closes; the context must live as long as the stream. A stream that
	// ends early ends with io.ErrUnexpectedEOF, never with io.EOF.
	// Range is safe for concurrent use.
	// Errors, from Range or from the stream: [ErrChanged] when the object
	// was replaced since Open.
	Range(ctx context.Context, off, n int64) (io.ReadCloser, error)

	Close() error
}

// Upload is an object in the making. It becomes visible in its store, whole,
// when Commit returns nil, and not before.
type Upload interface {
	// WriteAt stores p at offset off and does not keep p. Concurrent calls
	// are safe for ranges that do not overlap. Every byte of the object is
	// to be written once, except what is read back from Kept. A store may
	// hold back bytes until their neighbours have come: memory is bounded
	// when each writer writes its range in ascending order, and ranges are
	// begun in ascending order.
	WriteAt(ctx context.Context, p []byte, off int64) error

	// Kept returns what an interrupted upload of the same object left, for
	// reading back, or nil when there is nothing that can be read. Its
	// bytes are whatever they are: the caller checks them.
	Kept() io.ReaderAt

	// Commit makes the object durable and visible, replacing what has that
	// name. An upload of which bytes are missing is an error.
	Commit(ctx context.Context) error

	// Close gives up the upload when it was not committed, keeping what was
	// written for the next Create. After Commit it does nothing.
	Close() error
}
