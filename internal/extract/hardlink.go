package extract

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
)

// maxFar bounds the hard links that wait for the content of a lower layer.
// Builders make none; each costs memory for every directory above its target.
const maxFar = 10_000

// far is the set of hard links that wait for content which an upper layer
// hides, or which lies outside Path. While a layer is read it notes what the
// layer has, or removes, under the names that are waited for.
type far struct {
	wants map[string]*want // by the name of the target
	above map[string]bool  // the directories above those names; "" is the root
	cuts  map[string]bool  // names whiteouted; with a slash behind: opaque
}

// want is content that links wait for, and what was found of it.
type want struct {
	links  []waiting
	kind   kind   // kindNone while nothing is found
	at     string // of a file: where its content is
	target string // of a symbolic link
}

// waiting is a hard link of the result.
type waiting struct {
	id   int32
	name string
}

func newFar(wants map[string]*want) far {
	f := far{wants: wants, above: make(map[string]bool), cuts: make(map[string]bool)}
	for name := range wants {
		f.above[""] = true
		for dir := range parents(name) {
			f.above[dir] = true
		}
	}
	return f
}

// pass notes what an entry of the layer says about names that are waited for,
// without its content.
func (f *far) pass(e entry) {
	if len(f.wants) == 0 {
		return
	}
	for dir := range parents(e.name) {
		if w := f.wants[dir]; w != nil {
			w.kind = kindDir
		}
	}
	if w := f.wants[e.name]; w != nil && e.kind == kindDir {
		w.kind = kindDir
	}
	if e.kind != kindDir && f.above[e.name] {
		f.cuts[e.name] = true
	}
}

// cut notes a whiteout of name, or of what is below it.
func (f *far) cut(name string, opaque bool) {
	switch {
	case opaque && f.above[name]:
		f.cuts[name+"/"] = true
	case !opaque && (f.above[name] || f.wants[name] != nil):
		f.cuts[name] = true
	}
}

// isCut reports whether the layer removes name, as lower layers have it.
func (f *far) isCut(name string) bool {
	for dir := range parents(name) {
		if f.cuts[dir] || f.cuts[dir+"/"] {
			return true
		}
	}
	return f.cuts[name] || f.cuts["/"]
}

// offer takes an entry that does not show under its own name, if a link waits
// for it: the content of a file is written where the first such link is.
func (f *far) offer(w *writer, e entry, r io.Reader) error {
	want := f.wants[e.name]
	if want == nil || e.kind == kindHard {
		return nil
	}
	was := want.kind
	if was != kindNone && was != e.kind {
		return fmt.Errorf("%w: two entries of different kinds are named %q", ErrInvalid, e.name)
	}
	want.kind, want.target = e.kind, e.target
	if e.kind != kindFile {
		return nil
	}
	want.at = want.links[0].name
	if was == kindFile {
		if err := w.remove(want.at); err != nil {
			return err
		}
	}
	return w.create(want.at, e.file, r)
}

// unmet returns an error when links still wait and no layer is left.
func (f *far) unmet() error {
	for _, target := range slices.Sorted(maps.Keys(f.wants)) {
		return dangling(f.wants[target].links[0].name, target)
	}
	return nil
}

func dangling(name, target string) error {
	return fmt.Errorf("%w: hard link %q to %q, which is not there", ErrInvalid, name, target)
}

// settle makes the hard links of layer k, which has been read, and those of
// upper layers whose content it has. What needs content of this layer that
// went by makes it read the layer again; what needs that of lower layers goes
// on waiting.
func (m *merger) settle(ctx context.Context, k int32, l Layer) error {
	missed, next := make(map[string]*want), make(map[string]*want)
	for _, target := range slices.Sorted(maps.Keys(m.far.wants)) {
		w := m.far.wants[target]
		_, chained := m.hard[target]
		switch {
		case chained || w.kind != kindNone || m.shows(target, k):
			if err := m.resolve(k, target, w.links, missed); err != nil {
				return err
			}
		case m.far.isCut(target):
			return dangling(w.links[0].name, target)
		default:
			next[target] = w
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.own)) {
		h := m.own[id]
		if err := m.resolve(k, h.target, []waiting{{id, h.name}}, missed); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		if err := m.rescan(ctx, l, missed); err != nil {
			return err
		}
	}
	for _, target := range slices.Sorted(maps.Keys(missed)) {
		w := missed[target]
		if w.kind != kindNone {
			if err := m.fulfil(target, w); err != nil {
				return err
			}
			continue
		}
		addWant(next, target, w.links)
	}
	if len(next) > maxFar {
		return fmt.Errorf("%w: more than %d hard links to content of lower layers", ErrLimit, maxFar)
	}
	m.far = newFar(next)
	return nil
}

// resolve makes links to the name target of layer k, if its content is at
// hand, and else adds them to missed.
func (m *merger) resolve(k int32, target string, links []waiting, missed map[string]*want) error {
	target, err := m.chase(target)
	if err != nil {
		return err
	}
	if m.shows(target, k) {
		id := m.tree.find(target)
		return m.fulfil(target, &want{links, m.tree.nodes[id].kind, target, m.links[id].target})
	}
	if w := m.far.wants[target]; w != nil && w.kind != kindNone {
		return m.fulfil(target, &want{links, w.kind, w.at, w.target})
	}
	addWant(missed, target, links)
	return nil
}

func addWant(wants map[string]*want, target string, links []waiting) {
	if wants[target] == nil {
		wants[target] = &want{}
	}
	wants[target].links = append(wants[target].links, links...)
}

// shows reports whether layer k has decided what name is.
func (m *merger) shows(name string, k int32) bool {
	id := m.tree.find(name)
	return id != 0 && m.tree.nodes[id].layer == k && inside(name, m.o.Path)
}

// chase follows hard links to hard links of one layer to the last target, and
// shortens the way for the next one.
func (m *merger) chase(name string) (string, error) {
	var way []string
	for {
		next, ok := m.hard[name]
		if !ok {
			break
		}
		if way = append(way, name); len(way) > len(m.hard) {
			return "", fmt.Errorf("%w: hard link %q leads to itself", ErrInvalid, name)
		}
		name = next
	}
	for _, step := range way {
		m.hard[step] = name
	}
	return name, nil
}

// fulfil makes links to what was found.
func (m *merger) fulfil(target string, w *want) error {
	for _, l := range w.links {
		switch w.kind {
		case kindFile:
			if l.name == w.at {
				continue
			}
			if err := m.link(w.at, l.name); err != nil {
				return err
			}
		case kindLink:
			m.links[l.id] = symlink{m.name, l.name, w.target}
		case kindDir:
			return fmt.Errorf("%w: hard link %q to %q, which is a directory", ErrInvalid, l.name, target)
		default:
			m.skip(l.name, target, SkipTarget)
		}
	}
	return nil
}

// rescan reads a layer for the second time, for content that went by.
func (m *merger) rescan(ctx context.Context, l Layer, missed map[string]*want) error {
	carried := m.far
	m.far = far{wants: missed}
	defer func() { m.far = carried }()
	return scan(ctx, l, m.o.MaxRatio, func(h *tar.Header, r io.Reader) error {
		e, _, err := m.judge(h)
		if err != nil || e.kind == kindNone || e.whiteout != "" {
			return err
		}
		m.far.pass(e)
		return m.far.offer(m.writer, e, r)
	})
}
