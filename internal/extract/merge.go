package extract

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// merger takes layers from the top down and writes what shows.
type merger struct {
	*writer
	tree    *tree
	entries int               // headers seen
	top     bool              // the directories above Path are made
	blocked string            // what is in the way to Path, for its error
	links   map[int32]symlink // symbolic links to be made, by node

	// archive is set for the archive of a directory in an artifact: it has
	// no whiteouts, and nothing outside this directory.
	archive string

	far far // hard links that wait for the content of a lower layer

	// Of the layer that is being read:
	name string             // the layer's
	hard map[string]string  // its hard links, shown or not: target by name
	own  map[int32]hardLink // those of them that show, by node
	held int                // bytes of names in hard, which tree counts too
}

type symlink struct{ layer, name, target string }

type hardLink struct{ name, target string } // target is plain

func newMerger(root *os.Root, o Options) (*merger, error) {
	o = o.withDefaults()
	if o.Path != "" {
		name, reason, err := cleanName(o.Path, true, true)
		if err != nil || reason != "" {
			return nil, fmt.Errorf("path %q is no plain relative path", o.Path)
		}
		o.Path = name
	}
	return &merger{
		writer: newWriter(root, o),
		tree:   newTree(o.MaxFiles),
		links:  make(map[int32]symlink),
	}, nil
}

// decided reports whether layer k and those below it need not be read.
func (m *merger) decided(k int) bool {
	return len(m.far.wants) == 0 && m.tree.settled(m.o.Path, int32(k))
}

// layer merges the next layer, k, into the tree.
func (m *merger) layer(ctx context.Context, k int, l Layer) error {
	m.name, m.hard, m.own, m.held = l.Name, make(map[string]string), make(map[int32]hardLink), 0
	err := scan(ctx, l, m.o.MaxRatio, func(h *tar.Header, r io.Reader) error {
		return m.entry(int32(k), h, r)
	})
	if err != nil {
		return err
	}
	err = m.settle(ctx, int32(k), l)
	m.tree.bytes -= m.held
	return err
}

// entry merges one entry of layer k.
func (m *merger) entry(k int32, h *tar.Header, r io.Reader) error {
	if m.entries++; m.entries > m.o.MaxFiles {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, m.o.MaxFiles)
	}
	e, reason, err := m.judge(h)
	if err != nil {
		return err
	}
	if reason != "" {
		m.skip(h.Name, h.Linkname, reason)
	}
	if e.kind == kindNone {
		return nil
	}
	if e.unplaced {
		return m.far.offer(m.writer, e, r)
	}
	if e.whiteout != "" {
		return m.whiteout(k, e)
	}
	if e.kind == kindHard {
		m.held += len(e.name) + len(e.target)
		if err := m.tree.hold(len(e.name) + len(e.target)); err != nil {
			return err
		}
		m.hard[e.name] = e.target
	}
	m.far.pass(e)
	if !inside(e.name, m.o.Path) {
		if inside(m.o.Path, e.name) {
			if err := m.above(k, e); err != nil {
				return err
			}
		}
		return m.far.offer(m.writer, e, r)
	}
	id, v, err := m.tree.claim(e.name, k, e.kind, m.imply)
	if err != nil {
		return err
	}
	if v == hidden {
		if n := &m.tree.nodes[id]; id != 0 && e.kind == kindLink && n.kind == kindDir && !n.plain {
			m.skip(e.name, e.target, SkipHiddenLink)
		}
		return m.far.offer(m.writer, e, r)
	}
	return m.place(id, v, e, r)
}

// entry is a header that was found harmless.
type entry struct {
	kind     kind
	name     string // plain
	target   string // plain for a hard link, as it is for a symbolic link
	whiteout string // whiteout of this name, or opaque; name is its directory
	why      Reason // of kindSkipped
	unplaced bool   // has no place in the tree, but a hard link may want it
	file     file
}

// judge checks a header. An entry of kindNone is nothing to merge; a reason is
// to be reported.
func (m *merger) judge(h *tar.Header) (e entry, why Reason, err error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return entry{}, SkipType, nil
	}
	name, why, err := cleanName(h.Name, h.Typeflag == tar.TypeDir, m.o.AbsoluteNames)
	if err != nil || why != "" || name == "" {
		return entry{}, why, err // the root has no name; it is there
	}
	e.name = name
	switch h.Typeflag {
	case tar.TypeReg:
		e.kind = kindFile
		e.file = file{h.Size, h.Mode&0o111 != 0, h.ModTime}
	case tar.TypeDir:
		e.kind = kindDir
	case tar.TypeSymlink:
		e.kind = kindLink
		e.target = h.Linkname[:min(len(h.Linkname), maxName+1)] // linkTarget refuses a longer one
	case tar.TypeLink:
		e.kind = kindHard
		e.target, why, err = cleanName(h.Linkname, false, m.o.AbsoluteNames)
		if err != nil {
			return entry{}, "", fmt.Errorf("target of hard link %q: %w", name, err)
		}
		if why != "" {
			return entry{}, why, nil
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		e.kind, e.why = kindSkipped, SkipDevice
	default:
		e.kind, e.why = kindSkipped, SkipType
	}
	if h.Typeflag == tar.TypeGNUSparse || hasSparseRecord(h) {
		return entry{}, "", fmt.Errorf("%w: %q is a sparse file", ErrInvalid, name)
	}
	if m.archive != "" {
		if !inside(name, m.archive) || e.kind == kindHard && !inside(e.target, m.archive) {
			return entry{}, "", fmt.Errorf("%w: name %q or its target is outside %q", ErrUnsafe, name, m.archive)
		}
		return e, "", nil
	}
	for dir := range parents(name) {
		switch base := path.Base(dir); {
		case strings.HasPrefix(base, metaPrefix):
			e.unplaced = true
		case strings.HasPrefix(base, whiteoutPrefix):
			return entry{}, "", fmt.Errorf("%w: name %q is below a whiteout", ErrUnsafe, h.Name)
		}
	}
	if e.unplaced {
		return e, SkipMeta, nil
	}
	dir, base := path.Split(name)
	if target, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		switch {
		case base == opaqueName:
		case target == "" || target == "." || target == "..":
			return entry{}, "", fmt.Errorf("%w: whiteout %q", ErrUnsafe, h.Name)
		case strings.HasPrefix(base, metaPrefix):
			return entry{}, SkipMeta, nil
		}
		e.name, e.whiteout = strings.TrimSuffix(dir, "/"), target
	}
	return e, "", nil
}

func hasSparseRecord(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (m *merger) skip(name, target string, why Reason) {
	m.rep.skip(Skip{Layer: m.name, Name: name, Target: target, Reason: why})
}

// whiteout hides what lower layers have under a name, or in a directory.
func (m *merger) whiteout(k int32, e entry) error {
	name := path.Join(e.name, e.whiteout)
	opaque := whiteoutPrefix+e.whiteout == opaqueName
	if opaque {
		name = e.name
	}
	m.far.cut(name, opaque)
	if !inside(name, m.o.Path) && !inside(m.o.Path, name) {
		return nil
	}
	return m.tree.whiteout(name, k, opaque)
}

// above merges an entry above Path, which is not written itself.
func (m *merger) above(k int32, e entry) error {
	_, v, err := m.tree.claim(e.name, k, e.kind, func(string) error { return nil })
	if v == shown && e.kind != kindDir {
		m.blocked = fmt.Sprintf(": %q is no directory", e.name)
		if e.kind == kindLink {
			m.blocked = fmt.Sprintf(": %q is a link to %q", e.name, e.target)
		}
	}
	return err
}

// imply makes a directory that an entry below it implies.
func (m *merger) imply(dir string) error {
	if !inside(dir, m.o.Path) {
		return nil
	}
	if err := m.makeTop(); err != nil {
		return err
	}
	return m.mkdir(dir)
}

// makeTop makes the directories above Path, which are made only when there is
// something to put into them.
func (m *merger) makeTop() error {
	if m.top {
		return nil
	}
	m.top = true
	for dir := range parents(m.o.Path) {
		if err := m.mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// place puts an entry that shows where it belongs.
func (m *merger) place(id int32, v verdict, e entry, r io.Reader) error {
	if err := m.makeTop(); err != nil {
		return err
	}
	switch e.kind {
	case kindDir:
		if v == shown {
			return m.mkdir(e.name)
		}
	case kindFile:
		if v == again {
			if err := m.remove(e.name); err != nil {
				return err
			}
		}
		return m.create(e.name, e.file, r)
	case kindLink:
		m.links[id] = symlink{m.name, e.name, e.target}
		return m.tree.hold(len(e.name) + len(e.target))
	case kindHard:
		m.own[id] = hardLink{e.name, e.target}
	case kindSkipped:
		m.skip(e.name, "", e.why)
	}
	return nil
}

// finish makes the symbolic links and returns the report.
func (m *merger) finish(ctx context.Context) (*Report, error) {
	if err := m.far.unmet(); err != nil {
		return nil, err
	}
	if m.o.Path != "" {
		if m.tree.find(m.o.Path) == 0 {
			return nil, fmt.Errorf("%w: %q%s", ErrNotFound, m.o.Path, m.blocked)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.links)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.makeLink(m.links[id]); err != nil {
			return nil, err
		}
	}
	m.sameButCase()
	return m.rep, ctx.Err()
}

func (m *merger) makeLink(l symlink) error {
	target, why := linkTarget(l.name, l.target, m.o.Links)
	if why != "" {
		m.rep.skip(Skip{l.layer, l.name, l.target, why})
		return nil
	}
	return m.symlink(target, l.name)
}

// sameButCase reports names that a file system which ignores case would take
// for one.
func (m *merger) sameButCase() {
	seen := make(map[treeKey]int32)
	for id, n := range m.tree.nodes {
		if id == 0 || n.kind == kindNone || n.kind == kindSkipped {
			continue
		}
		key := treeKey{n.parent, fold(n.name)}
		if other, ok := seen[key]; ok {
			m.rep.skip(Skip{Name: m.tree.path(int32(id)), Target: m.tree.path(other), Reason: SameButCase})
			continue
		}
		seen[key] = int32(id)
	}
}
