package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// memory is a store to look into and to damage. Its content can be read and
// changed between calls; uploads are not safe for concurrent use.
type memory struct {
	mu      sync.Mutex // for removals at once
	objects map[string][]byte
	partial map[string][]byte
	// failAfter, unless negative, is how many writes succeed.
	failAfter int
}

func newMemory() *memory {
	return &memory{objects: map[string][]byte{}, partial: map[string][]byte{}, failAfter: -1}
}

func (m *memory) clone() *memory {
	c := newMemory()
	for name, content := range m.objects {
		c.objects[name] = bytes.Clone(content)
	}
	return c
}

func (m *memory) String() string { return "memory" }

func (m *memory) Open(_ context.Context, name string) (Object, error) {
	content, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return memoryObject(content), nil
}

func (m *memory) List(_ context.Context, prefix string) ([]Info, error) {
	var list []Info
	for _, name := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(name, prefix) {
			list = append(list, Info{name, int64(len(m.objects[name]))})
		}
	}
	return list, nil
}

func (m *memory) Put(_ context.Context, name string, content []byte) error {
	if err := m.write(); err != nil {
		return err
	}
	m.objects[name] = bytes.Clone(content)
	return nil
}

func (m *memory) PutNew(ctx context.Context, name string, content []byte) error {
	if _, ok := m.objects[name]; ok {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	return m.Put(ctx, name, content)
}

func (m *memory) Create(_ context.Context, name string, size int64) (Upload, error) {
	u := &memoryUpload{m: m, name: name}
	if old := m.partial[name]; int64(len(old)) == size {
		u.kept = bytes.Clone(old)
	}
	m.partial[name] = make([]byte, size)
	copy(m.partial[name], u.kept)
	return u, nil
}

func (m *memory) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	delete(m.partial, name)
	return nil
}

var errFull = fmt.Errorf("memory: %w", ErrNoSpace)

func (m *memory) write() error {
	if m.failAfter == 0 {
		return errFull
	}
	if m.failAfter > 0 {
		m.failAfter--
	}
	return nil
}

type memoryUpload struct {
	m    *memory
	name string
	kept []byte
}

func (u *memoryUpload) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := u.m.write(); err != nil {
		return err
	}
	copy(u.m.partial[u.name][off:], p)
	return nil
}

func (u *memoryUpload) Kept() io.ReaderAt {
	if u.kept == nil {
		return nil
	}
	return bytes.NewReader(u.kept)
}

func (u *memoryUpload) Commit(context.Context) error {
	if err := u.m.write(); err != nil {
		return err
	}
	u.m.objects[u.name] = u.m.partial[u.name]
	delete(u.m.partial, u.name)
	return nil
}

func (u *memoryUpload) Close() error { return nil }

type memoryObject []byte

func (o memoryObject) Size() int64  { return int64(len(o)) }
func (o memoryObject) Close() error { return nil }

func (o memoryObject) Range(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if off < 0 || n < 0 || off+n > int64(len(o)) {
		return nil, io.ErrUnexpectedEOF
	}
	return io.NopCloser(bytes.NewReader(o[off : off+n])), nil
}
