package storetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"ferry/bundle"
)

// Mem is a [bundle.Store] in memory that counts what it is asked to do, and
// misbehaves on request. The zero Mem is empty and behaves. It is safe for
// concurrent use.
type Mem struct {
	mu      sync.Mutex
	objects map[string][]byte     // never changed in place
	left    map[string]*memUpload // unfinished, by name
	calls   []Call
	read    int64
	written int64

	before   func(Call) error
	cutTimes int
	cutAfter int64
}

var _ bundle.Store = (*Mem)(nil)

// Call is one call of a method of a [Mem] or of what it returned. Calls of
// Size, Kept, Close, String and of the Read of a stream are none.
type Call struct {
	N    int    // the how-manyth call it is, from 1 on
	Op   string // the method: "Open", "Range", "WriteAt"
	Name string // the object's, or List's prefix
	Off  int64  // of Range and WriteAt, in bytes
	Size int64  // of what is stored or asked for, in bytes
}

// Before sets what is called before each call; an error from it is the result
// of that call. It may use the Mem, to change an object between two calls.
// Nil ends that.
func (m *Mem) Before(f func(Call) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = f
}

// FailCall makes call n, counted from 1 since the Mem was made, fail with err.
// It replaces what Before has set.
func (m *Mem) FailCall(n int, err error) {
	m.Before(func(c Call) error {
		if c.N == n {
			return err
		}
		return nil
	})
}

// CutStreams makes the next so many streams of Range end with
// io.ErrUnexpectedEOF after the given number of bytes.
func (m *Mem) CutStreams(times int, after int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cutTimes, m.cutAfter = times, after
}

// Set stores an object without counting it as a call.
func (m *Mem) Set(name string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(name, content)
}

func (m *Mem) set(name string, content []byte) {
	if m.objects == nil {
		m.objects = make(map[string][]byte)
	}
	m.objects[name] = bytes.Clone(content)
}

// Get returns a copy of an object without counting it as a call.
func (m *Mem) Get(name string) (content []byte, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok = m.objects[name]
	return bytes.Clone(content), ok
}

// Calls returns the calls there were.
func (m *Mem) Calls() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// Count returns how many calls of the method op there were.
func (m *Mem) Count(op string) int {
	n := 0
	for _, c := range m.Calls() {
		if c.Op == op {
			n++
		}
	}
	return n
}

// Bytes returns how many bytes streams have given and how many Put, PutNew and
// WriteAt have taken.
func (m *Mem) Bytes() (read, written int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read, m.written
}

// call records a call; the caller does not hold the lock.
func (m *Mem) call(ctx context.Context, c Call) error {
	m.mu.Lock()
	c.N = len(m.calls) + 1
	m.calls = append(m.calls, c)
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(c); err != nil {
			return fmt.Errorf("%s %q: %w", c.Op, c.Name, err)
		}
	}
	return ctx.Err()
}

// String implements [bundle.Store].
func (m *Mem) String() string { return "memory" }

// Open implements [bundle.Store].
func (m *Mem) Open(ctx context.Context, name string) (bundle.Object, error) {
	if err := cmp.Or(bundle.CheckName(name), m.call(ctx, Call{Op: "Open", Name: name})); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("opening %q in memory: %w", name, bundle.ErrNotFound)
	}
	return &memObject{m, name, content}, nil
}

type memObject struct {
	mem     *Mem
	name    string
	content []byte
}

func (o *memObject) Size() int64  { return int64(len(o.content)) }
func (o *memObject) Close() error { return nil }

// Range is strict: another object of that name is an error, as in a bucket.
func (o *memObject) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	m := o.mem
	if err := m.call(ctx, Call{Op: "Range", Name: o.name, Off: off, Size: n}); err != nil {
		return nil, err
	}
	if err := bundle.CheckRange(off, n, o.Size()); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now, ok := m.objects[o.name]; !ok || !bytes.Equal(now, o.content) {
		return nil, fmt.Errorf("reading %q in memory: %w", o.name, bundle.ErrChanged)
	}
	s := &memStream{ctx: ctx, mem: m, rest: o.content[off : off+n]}
	if m.cutTimes > 0 {
		m.cutTimes--
		if m.cutAfter < n {
			s.rest, s.cut = s.rest[:m.cutAfter], true
		}
	}
	return s, nil
}

type memStream struct {
	ctx  context.Context // of the Range
	mem  *Mem
	rest []byte
	cut  bool
}

func (s *memStream) Close() error { return nil }

func (s *memStream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if len(s.rest) == 0 {
		if s.cut {
			return 0, io.ErrUnexpectedEOF
		}
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.mem.mu.Lock()
	defer s.mem.mu.Unlock()
	s.mem.read += int64(n)
	return n, nil
}

// List implements [bundle.Store].
func (m *Mem) List(ctx context.Context, prefix string) ([]bundle.Info, error) {
	if err := m.call(ctx, Call{Op: "List", Name: prefix}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []bundle.Info
	for name, content := range m.objects {
		if strings.HasPrefix(name, prefix) {
			list = append(list, bundle.Info{Name: name, Size: int64(len(content))})
		}
	}
	slices.SortFunc(list, func(a, b bundle.Info) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Put implements [bundle.Store].
func (m *Mem) Put(ctx context.Context, name string, content []byte) error {
	return m.put(ctx, Call{Op: "Put", Name: name, Size: int64(len(content))}, content)
}

// PutNew implements [bundle.Store].
func (m *Mem) PutNew(ctx context.Context, name string, content []byte) error {
	return m.put(ctx, Call{Op: "PutNew", Name: name, Size: int64(len(content))}, content)
}

func (m *Mem) put(ctx context.Context, c Call, content []byte) error {
	if err := cmp.Or(bundle.CheckName(c.Name), m.call(ctx, c)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[c.Name]; ok && c.Op == "PutNew" {
		return fmt.Errorf("writing %q in memory: %w", c.Name, bundle.ErrExists)
	}
	m.set(c.Name, content)
	m.written += int64(len(content))
	return nil
}

// Remove implements [bundle.Store].
func (m *Mem) Remove(ctx context.Context, name string) error {
	if err := cmp.Or(bundle.CheckName(name), m.call(ctx, Call{Op: "Remove", Name: name})); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.left[name]; u != nil && u.open {
		return fmt.Errorf("removing %q in memory: %w", name, bundle.ErrBusy)
	}
	delete(m.objects, name)
	delete(m.left, name)
	return nil
}

// Create implements [bundle.Store]. The object is held whole in memory.
func (m *Mem) Create(ctx context.Context, name string, size int64) (bundle.Upload, error) {
	if size < 0 {
		return nil, fmt.Errorf("size %d: %w", size, fs.ErrInvalid)
	}
	if err := cmp.Or(bundle.CheckName(name), m.call(ctx, Call{Op: "Create", Name: name, Size: size})); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.left[name]
	if u != nil && u.open {
		return nil, fmt.Errorf("creating %q in memory: %w", name, bundle.ErrBusy)
	}
	next := &memUpload{mem: m, name: name, open: true, content: make([]byte, size)}
	if u != nil && len(u.content) == len(next.content) {
		next.content, next.kept = u.content, u.end
	}
	if m.left == nil {
		m.left = make(map[string]*memUpload)
	}
	m.left[name] = next
	return next, nil
}

// memUpload is guarded by the lock of its Mem.
type memUpload struct {
	mem     *Mem
	name    string
	open    bool
	content []byte
	kept    int64 // how many bytes an earlier one left
	end     int64 // where the last byte that was written ends
	written bundle.Spans
}

func (u *memUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	n := int64(len(p))
	if err := u.mem.call(ctx, Call{Op: "WriteAt", Name: u.name, Off: off, Size: n}); err != nil {
		return err
	}
	if err := bundle.CheckRange(off, n, int64(len(u.content))); err != nil {
		return err
	}
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	if !u.open {
		return fs.ErrClosed
	}
	copy(u.content[off:], p)
	u.written.Add(off, n)
	u.end = max(u.end, off+n)
	u.mem.written += n
	return nil
}

func (u *memUpload) Kept() io.ReaderAt {
	if u.kept == 0 {
		return nil
	}
	return memKept{u}
}

type memKept struct{ upload *memUpload }

func (k memKept) ReadAt(p []byte, off int64) (int, error) {
	u := k.upload
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	n, err := bytes.NewReader(u.content[:u.kept]).ReadAt(p, off)
	u.written.Add(off, int64(n))
	return n, err
}

func (u *memUpload) Commit(ctx context.Context) error {
	if err := u.mem.call(ctx, Call{Op: "Commit", Name: u.name, Size: int64(len(u.content))}); err != nil {
		return err
	}
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	if !u.open {
		return fs.ErrClosed
	}
	if missing := int64(len(u.content)) - u.written.Bytes(); missing > 0 {
		return fmt.Errorf("finishing %q in memory: %d of %d bytes were not written", u.name, missing, len(u.content))
	}
	u.open = false
	delete(u.mem.left, u.name)
	u.mem.set(u.name, u.content)
	return nil
}

func (u *memUpload) Close() error {
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	u.open = false
	u.end = max(u.end, u.kept)
	return nil
}
