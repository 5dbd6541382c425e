package extract

import (
	"fmt"
	"strings"
)

// kind is what a name of the merged tree is.
type kind uint8

const (
	kindNone    kind = iota // not decided yet
	kindDir                 // directory
	kindFile                // regular file, written
	kindLink                // symbolic link, made at the end
	kindHard                // hard link, made when its layer has been read
	kindSkipped             // something that is not written
)

// tree knows which names are decided, and by which layer. Layers are numbered
// from the lowest, 0, and come from the highest number down.
type tree struct {
	ids   map[treeKey]int32
	nodes []node // nodes[0] is the root
	max   int    // nodes allowed
	bytes int    // of names
}

type treeKey struct {
	parent int32
	name   string
}

type node struct {
	name   string
	parent int32
	layer  int32 // the layer that decided kind
	hides  int32 // layers below this one do not have this name
	closed int32 // layers below this one have nothing below this name
	kind   kind
	plain  bool // has an entry of its own, is not only implied
}

// maxNameBytes bounds the bytes of all names and link targets in memory. Real
// images need less than 16 MiB.
const maxNameBytes = 128 << 20

func newTree(limit int) *tree {
	return &tree{ids: make(map[treeKey]int32), nodes: []node{{kind: kindDir}}, max: limit}
}

// get returns the node of name below parent, which it makes if need be.
func (t *tree) get(parent int32, name string) (int32, error) {
	if id, ok := t.ids[treeKey{parent, name}]; ok {
		return id, nil
	}
	if len(t.nodes) > t.max {
		return 0, fmt.Errorf("%w: more than %d names", ErrLimit, t.max)
	}
	if err := t.hold(len(name)); err != nil {
		return 0, err
	}
	name = strings.Clone(name) // not the whole path
	id := int32(len(t.nodes))
	t.nodes = append(t.nodes, node{name: name, parent: parent})
	t.ids[treeKey{parent, name}] = id
	return id, nil
}

// hold counts n bytes of names as kept in memory.
func (t *tree) hold(n int) error {
	if t.bytes += n; t.bytes > maxNameBytes {
		return fmt.Errorf("%w: names take more than %d bytes", ErrLimit, maxNameBytes)
	}
	return nil
}

// find returns the node of name, or 0 when there is none or it is undecided.
func (t *tree) find(name string) int32 {
	id := int32(0)
	for e := range strings.SplitSeq(name, "/") {
		var ok bool
		if id, ok = t.ids[treeKey{id, e}]; !ok {
			return 0
		}
	}
	if t.nodes[id].kind == kindNone {
		return 0
	}
	return id
}

// path returns the name of a node from the root.
func (t *tree) path(id int32) string {
	name := t.nodes[id].name
	for id = t.nodes[id].parent; id != 0; id = t.nodes[id].parent {
		name = t.nodes[id].name + "/" + name
	}
	return name
}

// verdict is what becomes of an entry.
type verdict int

const (
	hidden verdict = iota // an upper layer hides it
	shown                 // it decides its name
	again                 // an earlier entry of its layer has decided the same
)

// claim decides what becomes of the entry name of layer k, and so what lower
// layers can still add. It calls imply for each directory above name that is
// decided by this entry. The node it returns with hidden is what an upper layer
// has under the name, or 0 when that is not all that hides the entry.
func (t *tree) claim(name string, k int32, is kind, imply func(dir string) error) (int32, verdict, error) {
	id, start := int32(0), 0
	for i := range parents(name) {
		if k < t.nodes[id].closed {
			return 0, hidden, nil
		}
		var err error
		if id, err = t.get(id, i[start:]); err != nil {
			return 0, hidden, err
		}
		start = len(i) + 1
		n := &t.nodes[id]
		switch {
		case k < n.hides:
			return 0, hidden, nil
		case n.kind == kindNone:
			n.kind, n.layer = kindDir, k
			if err := imply(i); err != nil {
				return 0, hidden, err
			}
		case n.kind != kindDir && n.layer == k:
			return 0, hidden, fmt.Errorf("%w: %q is below %q, which the same layer says is no directory", ErrInvalid, name, i)
		case n.kind != kindDir:
			return 0, hidden, nil
		}
	}
	if k < t.nodes[id].closed {
		return 0, hidden, nil
	}
	id, err := t.get(id, name[start:])
	if err != nil {
		return 0, hidden, err
	}
	n := &t.nodes[id]
	if k < n.hides {
		return 0, hidden, nil
	}
	was, cut := n.kind, k < n.closed
	if is != kindDir {
		n.closed = max(n.closed, k)
	}
	switch {
	case was == kindNone:
		n.kind, n.layer, n.plain = is, k, true
		return id, shown, nil
	case n.layer != k && cut:
		return 0, hidden, nil
	case n.layer != k:
		n.plain = n.plain || is == was // an entry for a directory that was only implied
		return id, hidden, nil
	case was != is:
		return 0, hidden, fmt.Errorf("%w: two entries of different kinds are named %q", ErrInvalid, name)
	}
	n.plain = true
	return id, again, nil
}

// whiteout hides from layers below k the name, or only what is below it.
func (t *tree) whiteout(name string, k int32, opaque bool) error {
	id, start := int32(0), 0
	if name != "" {
		for i := range parents(name + "/") {
			if n := &t.nodes[id]; k < n.closed || k < n.hides {
				return nil
			}
			var err error
			if id, err = t.get(id, i[start:]); err != nil {
				return err
			}
			start = len(i) + 1
		}
	}
	n := &t.nodes[id]
	n.closed = max(n.closed, k)
	if !opaque {
		n.hides = max(n.hides, k)
	}
	return nil
}

// settled reports whether layer k and those below it can add nothing at or
// below name.
func (t *tree) settled(name string, k int32) bool {
	id := int32(0)
	for e := range strings.SplitSeq(name, "/") {
		if k < t.nodes[id].closed {
			return true
		}
		if name == "" {
			return false
		}
		var ok bool
		if id, ok = t.ids[treeKey{id, e}]; !ok {
			return false
		}
		if k < t.nodes[id].hides {
			return true
		}
	}
	n := &t.nodes[id]
	return n.kind != kindNone && k < n.closed // a lower layer may still say that it is a file
}
