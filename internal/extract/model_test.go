package extract

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// parse returns the entries of a layer written as words:
//
//	d/       a directory          f=text   a file
//	l->to    a symbolic link      h=>to    a hard link
//	-name    a whiteout           !dir     an opaque whiteout ("!" for the root)
func parse(layer string) []ent {
	var all []ent
	for word := range strings.FieldsSeq(layer) {
		name, target, isLink := strings.Cut(word, "->")
		hname, htarget, isHard := strings.Cut(word, "=>")
		fname, body, isFile := strings.Cut(word, "=")
		switch {
		case word[0] == '-':
			all = append(all, file644(path.Join(path.Dir(word[1:]), ".wh."+path.Base(word[1:])), ""))
		case word[0] == '!':
			all = append(all, file644(path.Join(word[1:], ".wh..wh..opq"), ""))
		case isHard:
			all = append(all, hardlink(hname, htarget))
		case isLink:
			all = append(all, link(name, target))
		case isFile:
			all = append(all, file644(fname, body))
		default:
			all = append(all, dir(word))
		}
	}
	return all
}

// model is a tree as a map, to which layers are applied from the bottom up, by
// deleting: the plainest thing that could be right.
type model map[string]mnode

type mnode struct {
	kind byte   // tar's type; 0 for a hard link to nothing
	text string // content or target
}

func (m model) remove(name string, self bool) {
	for n := range m {
		if n == name && self || strings.HasPrefix(n, name+"/") || name == "" {
			delete(m, n)
		}
	}
}

func (m model) mkdirs(name string) {
	if name == "." {
		return
	}
	for dir := range parents(name + "/") {
		if n, ok := m[dir]; ok && n.kind != tar.TypeDir {
			m.remove(dir, true)
		}
		m[dir] = mnode{kind: tar.TypeDir}
	}
}

// apply applies a layer, of which whiteouts go first.
func (m model) apply(layer []ent) {
	below := maps.Clone(m)
	own := make(map[string]ent)
	for _, e := range layer {
		dirName, base := path.Split(strings.TrimSuffix(e.name, "/"))
		dirName = strings.TrimSuffix(dirName, "/")
		if base == ".wh..wh..opq" {
			m.remove(dirName, false)
		} else if target, ok := strings.CutPrefix(base, ".wh."); ok {
			m.remove(path.Join(dirName, target), true)
		} else {
			own[path.Join(dirName, base)] = e
		}
	}
	for name, e := range own {
		m.mkdirs(path.Dir(name))
		if e.typ == tar.TypeDir {
			m.mkdirs(name)
			continue
		}
		m.remove(name, true)
		switch e.typ {
		case tar.TypeReg:
			m[name] = mnode{tar.TypeReg, e.body}
		case tar.TypeSymlink:
			m[name] = mnode{tar.TypeSymlink, e.link}
		case tar.TypeLink:
			m[name] = resolveHard(e.link, own, below, 0)
		}
	}
}

func resolveHard(target string, own map[string]ent, below model, depth int) mnode {
	e, ok := own[target]
	switch {
	case depth > 100:
		return mnode{}
	case ok && e.typ == tar.TypeReg:
		return mnode{tar.TypeReg, e.body}
	case ok && e.typ == tar.TypeSymlink:
		return mnode{tar.TypeSymlink, e.link}
	case ok && e.typ == tar.TypeLink:
		return resolveHard(e.link, own, below, depth+1)
	case ok:
		return mnode{}
	}
	for name := range own {
		if strings.HasPrefix(name, target+"/") {
			return mnode{} // a directory
		}
	}
	if n, ok := below[target]; ok && n.kind != tar.TypeDir {
		return n
	}
	return mnode{}
}

// lines returns what is at or below p, and its parents, as list does. It
// reports whether all is well: no hard link to nothing, and something at p.
func (m model) lines(p string) (all []string, ok bool) {
	ok = p == ""
	for name, n := range m {
		if !inside(name, p) && !inside(p, name) {
			continue
		}
		if p != "" && name != p && inside(p, name) && m[p] == (mnode{}) {
			continue
		}
		ok = ok || name == p
		switch n.kind {
		case tar.TypeDir:
			all = append(all, name+"/")
		case tar.TypeReg:
			all = append(all, name+"="+n.text)
		case tar.TypeSymlink:
			all = append(all, name+"->"+n.text)
		default:
			return nil, false
		}
	}
	slices.Sort(all)
	return all, ok
}

func modelOf(stack [][]ent) model {
	m := make(model)
	for _, layer := range stack {
		m.apply(layer)
	}
	return m
}

func layersOf(t testing.TB, stack [][]ent) []Layer {
	var layers []Layer
	for i, ents := range stack {
		b := archive(t, ents...)
		switch i % 3 {
		case 1:
			b = gz(b)
		case 2:
			b = zst(b)
		}
		layers = append(layers, blob(b))
	}
	return layers
}

// TestModel checks the model itself by hand.
func TestModel(t *testing.T) {
	for _, c := range []struct{ layers, want string }{
		{"a=1 | -a", "[]"},
		{"a=1 | -a a=2", "[a=2]"},
		{"d/a=1 | !d d/b=2", "[d/ d/b=2]"},
		{"d/a=1 | d=2 | d/", "[d/]"},
		{"a=1 | h=>a -a", "[h=1]"},
		{"a=1 | a/b/c=1", "[a/ a/b/ a/b/c=1]"},
	} {
		var stack [][]ent
		for _, l := range strings.Split(c.layers, "|") {
			stack = append(stack, parse(l))
		}
		if got, _ := modelOf(stack).lines(""); fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %v", c.layers, got, c.want)
		}
	}
}
