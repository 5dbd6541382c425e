package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode"
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
	// ErrBusy says that somebody else is writing that object now.
	ErrBusy = errors.New("object is being written by somebody else")
)

const (
	// MaxName, in bytes, bounds the name of an object: S3 takes keys of
	// 1,024 bytes, of which the rest is for the prefix of the store.
	MaxName = 512
	// maxElement, in bytes, bounds an element of a name: file systems take
	// 255, of which the rest is for the ending of an unfinished file.
	maxElement = 200
	// MaxList bounds how many objects a [Store] lists, and so the memory
	// that a foreign directory or bucket can take: about 200 MB.
	MaxList = 1_000_000
	// partialSuffix is the end of the names that no object has, because a
	// directory keeps unfinished objects under such names.
	partialSuffix = ".partial"
)

// CheckName returns an error, an [fs.ErrInvalid], when name can not be the name
// of an object in a [Store]. Every store refuses such a name, and lists none.
func CheckName(name string) error {
	valid := fs.ValidPath(name) && name != "." && len(name) <= MaxName &&
		!strings.Contains(name, "\\") && !strings.ContainsFunc(name, unprintable) &&
		!strings.HasSuffix(name, partialSuffix)
	for e := range strings.SplitSeq(name, "/") {
		valid = valid && len(e) <= maxElement
	}
	if !valid {
		return fmt.Errorf("object name %.600q: %w", name, fs.ErrInvalid)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// CheckRange returns an error when an object of size bytes does not have the n
// bytes from off on: an io.ErrUnexpectedEOF when it is too short, an
// [fs.ErrInvalid] when one of the numbers is negative.
func CheckRange(off, n, size int64) error {
	switch {
	case off < 0 || n < 0:
		return fmt.Errorf("range of %d bytes at %d: %w", n, off, fs.ErrInvalid)
	case off > size || n > size-off:
		return fmt.Errorf("range of %d bytes at %d of an object of %d: %w", n, off, size, io.ErrUnexpectedEOF)
	}
	return nil
}

// Store is a place for named objects: a directory, a prefix in a bucket. Names
// are relative slash-separated paths without empty, "." or ".." elements, and
// pass [CheckName]. All methods are safe for concurrent use, and a cancelled
// context ends them.
type Store interface {
	// Open returns the object name, which the caller closes.
	// Errors: [ErrNotFound].
	Open(ctx context.Context, name string) (Object, error)

	// List returns the objects whose names begin with prefix, by name,
	// however deep. An empty or missing place has none, without an error;
	// one with more than [MaxList] is an error.
	List(ctx context.Context, prefix string) ([]Info, error)

	// Put stores a small object whole, replacing what has that name.
	// Nobody ever sees a part of it.
	Put(ctx context.Context, name string, content []byte) error

	// PutNew is Put for an object that must not be there yet. Of several
	// callers at once only one succeeds. Errors: [ErrExists].
	PutNew(ctx context.Context, name string, content []byte) error

	// Create begins an object of size bytes that is written in pieces. It
	// goes on with what an earlier, interrupted Create of the same name and
	// size has left; what was left for another size is discarded. The end
	// of ctx may end the upload. Errors: [ErrBusy] at once, in a store that
	// can tell.
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
	// ends early ends with io.ErrUnexpectedEOF, never with io.EOF; so does
	// a range that goes past the end, or Range returns that error itself.
	// Range is safe for concurrent use.
	// Errors, from Range or from the stream: [ErrChanged] when the object
	// was replaced since Open.
	Range(ctx context.Context, off, n int64) (io.ReadCloser, error)

	// Close ends the object, after its streams have been closed.
	Close() error
}

// Upload is an object in the making. It becomes visible in its store, whole,
// when Commit returns nil, and not before.
type Upload interface {
	// WriteAt stores p at offset off and does not keep p. Concurrent calls
	// are safe for ranges that do not overlap. Every byte of the object is
	// to be written once, except what is read back from Kept; a store may
	// refuse to go on when bytes come twice, and after any error, and may
	// tell of an error by a later call. A store may hold back bytes until
	// their neighbours have come, and may let a caller wait for those: so
	// each writer writes its range in ascending order, ranges are begun in
	// ascending order, and uploads of one store in the order of their Create.
	WriteAt(ctx context.Context, p []byte, off int64) error

	// Kept returns what an interrupted upload of the same object left, for
	// reading back, or nil when there is nothing that can be read. Its
	// bytes are whatever they are: the caller checks them. It ends, with
	// io.EOF, where nothing more was left. What was read and is not written
	// afterwards counts as written.
	Kept() io.ReaderAt

	// Commit makes the object durable and visible, replacing what has that
	// name. An upload of which bytes are missing is an error.
	Commit(ctx context.Context) error

	// Close gives up the upload when it was not committed, keeping what was
	// written for the next Create. After Commit it does nothing.
	Close() error
}
