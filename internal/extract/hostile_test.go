package extract

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// hostile is a case of TestHostile. It either fails with err, and there is no
// destination; or it works, and the destination has tree and the report skips.
type hostile struct {
	name   string
	threat string
	layers func(t *testing.T, parent string) []Layer
	o      Options
	err    error
	tree   []string
	skips  map[Reason]int
}

// one makes layers of entries, lowest first.
func one(stack ...[]ent) func(*testing.T, string) []Layer {
	return func(t *testing.T, parent string) []Layer {
		var layers []Layer
		for _, ents := range stack {
			for i := range ents {
				ents[i].name = strings.ReplaceAll(ents[i].name, "$PARENT", parent)
				ents[i].link = strings.ReplaceAll(ents[i].link, "$PARENT", parent)
			}
			layers = append(layers, blob(archive(t, ents...)))
		}
		return layers
	}
}

// content makes one layer of these bytes.
func content(b []byte) func(*testing.T, string) []Layer {
	return func(*testing.T, string) []Layer { return []Layer{blob(b)} }
}

type ents = []ent

func TestHostile(t *testing.T) {
	var cases []hostile
	cases = append(cases, nameCases()...)
	cases = append(cases, linkCases()...)
	cases = append(cases, whiteoutCases()...)
	cases = append(cases, typeCases()...)
	cases = append(cases, headerCases(t)...)
	cases = append(cases, streamCases(t)...)
	cases = append(cases, limitCases()...)
	if len(cases) < 150 {
		t.Fatalf("only %d cases", len(cases))
	}
	seen := make(map[string]bool)
	for _, c := range cases {
		if seen[c.name] {
			t.Fatalf("two cases are named %q", c.name)
		}
		seen[c.name] = true
		t.Run(c.threat+" "+c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c hostile) run(t *testing.T) {
	f := newField(t, t.TempDir())
	rep, err := Image(t.Context(), c.layers(t, f.parent), f.dest, c.o)
	f.check(t)
	if c.err != nil {
		if !errors.Is(err, c.err) {
			t.Fatalf("Image = %v, want %v", err, c.err)
		}
		if rep != nil {
			t.Errorf("Image gives a report with its error")
		}
		if strings.ContainsFunc(err.Error(), unicode.IsControl) { // T40
			t.Errorf("error %q has control characters", err)
		}
		if _, err := os.Lstat(f.dest); err == nil {
			t.Errorf("there is a destination: %q", list(t, f.dest, false))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(c.tree)
	if got := list(t, f.dest, false); !slices.Equal(got, c.tree) {
		t.Errorf("destination has %q, want %q", got, c.tree)
	}
	if !maps.Equal(rep.Skipped, c.skips) {
		t.Errorf("skipped %v, want %v", rep.Skipped, c.skips)
	}
}

func nameCases() []hostile {
	var cases []hostile
	names := []string{"../canary", "/abs", "//abs", "$PARENT/canary", "a/../../canary", "a/../b", "./../canary", ".//x", "././x",
		"a//b", "a/./b", "./..//", "..", ".", "", "a/..", "../", `..\canary`, `a\..\..\canary`, `\x`, `C:\x`, "/../canary"}
	for _, name := range names {
		for kind, e := range map[string]ent{"file": file644(name, "x"), "dir": dir(name), "link": link(name, "x"),
			"hard link": hardlink(name, "x"), "hard link target": hardlink("h", name), "whiteout": file644(name+"/.wh.x", "")} {
			if kind == "file" && strings.HasSuffix(name, "/") || kind == "whiteout" && name == "." {
				continue // archive/tar does not write the one, and "./.wh.x" is fine
			}
			cases = append(cases, hostile{name: fmt.Sprintf("%s %q", kind, name), threat: "T33", err: ErrUnsafe,
				layers: one(ents{file644("x", "x")}, ents{e})})
		}
	}
	for _, name := range []string{"/", "./", "a/"} {
		for kind, typ := range map[string]byte{"file": '0', "hard link": '1', "link": '2', "fifo": '6'} {
			cases = append(cases, hostile{name: fmt.Sprintf("%s %q, a slash behind", kind, name), threat: "T33", err: ErrUnsafe,
				layers: content(raw(rawHeader(name, "x", typ, octal(0))))})
		}
	}
	return append(cases, []hostile{
		{name: "root entries", threat: "T33", layers: one(ents{dir("./"), dir("/"), dir("./d/"), file644("./d/f", "1")}),
			tree: []string{"d/", "d/f=1"}},
		{name: "absolute names by request", threat: "T33", o: Options{AbsoluteNames: true},
			layers: one(ents{dir("ko-app"), file644("/ko-app/app", "1"), hardlink("/h", "/ko-app/app"), file644("/.wh.x", "")}),
			tree:   []string{"ko-app/", "ko-app/app=1", "h=1"}},
		{name: "absolute name with dots by request", threat: "T33", o: Options{AbsoluteNames: true},
			layers: one(ents{file644("/../canary", "1")}), err: ErrUnsafe},
		{name: "two slashes by request", threat: "T33", o: Options{AbsoluteNames: true}, layers: one(ents{file644("//canary", "1")}), err: ErrUnsafe},
		{name: "harmless backslash", threat: "T33", layers: one(ents{file644(`system-a\x2db.slice`, "1"), file644("f", "2"), hardlink("h", `a\b`)}),
			tree: []string{"f=2"}, skips: map[Reason]int{SkipName: 2}},
		{name: "dots in names", threat: "T33", layers: one(ents{file644("..a", "1"), file644("a..", "2"), file644("...", "3"), dir("....")}),
			tree: []string{"..a=1", "a..=2", "...=3", "..../"}},
		{name: "control characters", threat: "T40", layers: one(ents{file644("a\x1b[31m\n::error::\u202e/../b", "1")}), err: ErrUnsafe},
		{name: "control characters below a file", threat: "T40", layers: one(ents{file644("a\x1b\n", "1"), file644("a\x1b\n/b\x9b", "1")}), err: ErrInvalid},
		{name: "names that differ in case", threat: "T09", layers: one(ents{file644("Makefile", "1"), file644("makefile", "2"), file644("d/K", "3"), file644("d/\u212a", "4")}),
			tree: []string{"Makefile=1", "makefile=2", "d/", "d/K=3", "d/\u212a=4"}, skips: map[Reason]int{SameButCase: 2}},
		{name: "link and directory that differ in case", threat: "T09", layers: one(ents{link("A", "../sibling"), file644("a/file", "1")}),
			tree: []string{"a/", "a/file=1"}, skips: map[Reason]int{SameButCase: 1, SkipUnsafeLink: 1}},
	}...)
}

func linkCases() []hostile {
	unsafe := func(n int) map[Reason]int { return map[Reason]int{SkipUnsafeLink: n} }
	absolute := func(n int) map[Reason]int { return map[Reason]int{SkipAbsoluteLink: n} }
	return []hostile{
		{name: "link up, write through", threat: "T34", layers: one(ents{link("l", ".."), file644("l/canary", "dead")}), err: ErrInvalid},
		{name: "absolute link, write through", threat: "T34", layers: one(ents{link("l", "$PARENT"), file644("l/canary", "dead")}), err: ErrInvalid},
		{name: "write through, link after", threat: "T34", layers: one(ents{file644("l/canary", "dead"), link("l", "..")}), err: ErrInvalid},
		{name: "link to file, write through", threat: "T34", layers: one(ents{link("l", "../canary"), file644("l", "dead")}), err: ErrInvalid},
		{name: "inner link, write through", threat: "T34", layers: one(ents{dir("d"), link("l", "d"), file644("l/f", "1")}), err: ErrInvalid},
		{name: "lower link, write through", threat: "T34", layers: one(ents{link("l", "..")}, ents{file644("l/canary", "new")}),
			tree: []string{"l/", "l/canary=new"}, skips: map[Reason]int{SkipHiddenLink: 1}},
		{name: "lower absolute link, directory made through", threat: "T34", layers: one(ents{link("l", "$PARENT/sibling")}, ents{dir("l/deep"), file644("l/deep/file", "new")}),
			tree: []string{"l/", "l/deep/", "l/deep/file=new"}, skips: map[Reason]int{SkipHiddenLink: 1}},
		{name: "lower link to file, written over", threat: "T34", layers: one(ents{link("l", "../canary")}, ents{file644("l", "new")}), tree: []string{"l=new"}},
		{name: "upper link hides lower files", threat: "T34", layers: one(ents{file644("l/canary", "dead")}, ents{link("l", "..")}), skips: unsafe(1)},
		{name: "directory, link, file", threat: "T34", layers: one(ents{dir("d"), file644("d/f", "old")}, ents{link("d", "..")}, ents{file644("d/canary", "new")}),
			tree: []string{"d/", "d/canary=new"}, skips: map[Reason]int{SkipHiddenLink: 1}},
		{name: "link, whiteout, file", threat: "T34", layers: one(ents{link("d", "..")}, ents{file644(".wh.d", "")}, ents{file644("d/canary", "new")}),
			tree: []string{"d/", "d/canary=new"}},
		{name: "link, file, file below", threat: "T34", layers: one(ents{link("d", "..")}, ents{file644("d", "old")}, ents{file644("d/canary", "new")}),
			tree: []string{"d/", "d/canary=new"}},
		{name: "link, directory, file", threat: "T34", layers: one(ents{link("d", "..")}, ents{dir("d")}, ents{file644("d/canary", "new")}),
			tree: []string{"d/", "d/canary=new"}},
		{name: "chain of links", threat: "T34", layers: one(ents{link("a", "b"), link("b", "c"), link("c", "..")}),
			tree: []string{"a->b", "b->c"}, skips: unsafe(1)},
		{name: "up behind a link to the root", threat: "T34", layers: one(ents{dir("a/b/c"), link("a/b/c/top", "../../.."), link("x", "a/b/c/top/../canary"), link("a/b/y", "c/top/../canary")}),
			tree: []string{"a/", "a/b/", "a/b/c/", "a/b/c/top->../../.."}, skips: unsafe(2)},
		{name: "up behind a link, two steps", threat: "T34", layers: one(ents{link("d/l", "../e"), dir("e"), link("x", "d/l/../../canary"), link("y", "x/..")}),
			tree: []string{"d/", "d/l->../e", "e/"}, skips: unsafe(2)},
		{name: "links that leave", threat: "T34", layers: one(ents{link("a", "../canary"), link("d/b", "../../canary"), link("d/c", "./../..//canary"),
			link("d/e", "x/../../../canary"), link("f", ".."), link("g", "../dest/f")}), tree: []string{"d/"}, skips: unsafe(6)},
		{name: "links that stay", threat: "T34", layers: one(ents{link("d/a", "../f"), link("d/b", ".."), link("c", "."), link("e", ".//d/./a"), file644("f", "1")}),
			tree: []string{"d/", "d/a->../f", "d/b->..", "c->.", "e->.//d/./a", "f=1"}},
		{name: "absolute links", threat: "T34", layers: one(ents{link("a", "/etc/passwd"), link("b", "$PARENT/canary"), link("c", "/"), link("d", "//x")}), skips: absolute(4)},
		{name: "absolute links made relative", threat: "T34", o: Options{Links: RelativeLinks},
			layers: one(ents{link("a", "/etc/passwd"), link("d/e/b", "/f"), link("d/c", "/"), link("g", "/"), link("h", "/../canary"), link("i", "/a/../../canary"), link("j", "../canary"), link("d/e/k", "/../x")}),
			tree:   []string{"a->etc/passwd", "d/", "d/e/", "d/e/b->../../f", "d/c->..", "g->."}, skips: unsafe(4)},
		{name: "no links", threat: "T34", o: Options{Links: NoLinks}, layers: one(ents{link("a", "f"), file644("f", "1"), hardlink("h", "f")}),
			tree: []string{"f=1", "h=1"}, skips: map[Reason]int{SkipLink: 1}},
		{name: "backslash and empty targets", threat: "T34", layers: one(ents{link("a", `..\..\canary`), link("b", ""), link("c", strings.Repeat("x", 5000))}), skips: unsafe(3)},
		{name: "loops of links", threat: "T34", layers: one(ents{link("a", "a"), link("b", "c"), link("c", "b"), link("d/e", "../d/e/f")}),
			tree: []string{"a->a", "b->c", "c->b", "d/", "d/e->../d/e/f"}},
		{name: "links to nothing", threat: "T34", layers: one(ents{link("a", "nowhere"), link("b", "no/where")}), tree: []string{"a->nowhere", "b->no/where"}},
		{name: "link twice", threat: "T34", layers: one(ents{link("a", ".."), link("a", "f")}), tree: []string{"a->f"}},
		{name: "link, then file", threat: "T34", layers: one(ents{link("a", "../canary"), file644("a", "dead")}), err: ErrInvalid},
		{name: "file, then link", threat: "T08", layers: one(ents{file644("a", "1"), link("a", "../canary")}), err: ErrInvalid},
		{name: "file, then directory", threat: "T08", layers: one(ents{file644("a", "1"), dir("a")}), err: ErrInvalid},
		{name: "directory, then link", threat: "T34", layers: one(ents{dir("a"), link("a", ".."), file644("a/canary", "dead")}), err: ErrInvalid},
		{name: "file, then hard link", threat: "T08", layers: one(ents{file644("f", "1"), file644("a", "1"), hardlink("a", "f")}), err: ErrInvalid},
		{name: "file twice", threat: "T08", layers: one(ents{file644("a", "first"), hardlink("h", "a"), file644("a", "last")}), tree: []string{"a=last", "h=last"}},
		{name: "entry below a file", threat: "T34", layers: one(ents{file644("a", "1"), file644("a/b", "2")}), err: ErrInvalid},
		{name: "entry below a hard link", threat: "T34", layers: one(ents{file644("f", "1"), hardlink("a", "f"), file644("a/b", "2")}), err: ErrInvalid},
		{name: "hard link to neighbour", threat: "T34", layers: one(ents{hardlink("h", "../canary"), file644("h", "dead")}), err: ErrUnsafe},
		{name: "hard link to neighbour, absolute", threat: "T34", layers: one(ents{hardlink("h", "$PARENT/canary"), file644("h", "dead")}), err: ErrUnsafe},
		{name: "hard link to neighbour by request", threat: "T34", o: Options{AbsoluteNames: true}, layers: one(ents{hardlink("h", "$PARENT/canary")}), err: ErrInvalid},
		{name: "hard link to link that leaves", threat: "T34", layers: one(ents{link("l", "../canary"), hardlink("h", "l")}), skips: unsafe(2)},
		{name: "hard link to link, then write", threat: "T34", layers: one(ents{link("l", "../canary"), hardlink("h", "l"), file644("h", "dead")}), err: ErrInvalid},
		{name: "hard link through link", threat: "T34", layers: one(ents{link("l", ".."), hardlink("h", "l/canary")}), err: ErrInvalid},
		{name: "hard link through lower link", threat: "T34", layers: one(ents{link("l", "..")}, ents{hardlink("h", "l/canary")}), err: ErrInvalid},
		{name: "hard link to link keeps its own place", threat: "T34", layers: one(ents{link("d/l", "../f"), hardlink("h", "d/l"), file644("f", "1")}),
			tree: []string{"d/", "d/l->../f", "f=1"}, skips: unsafe(1)},
		{name: "hard link to nothing", threat: "T34", layers: one(ents{hardlink("h", "f")}), err: ErrInvalid},
		{name: "hard link to itself", threat: "T34", layers: one(ents{hardlink("h", "h")}), err: ErrInvalid},
		{name: "hard links in a ring", threat: "T34", layers: one(ents{hardlink("a", "b"), hardlink("b", "c"), hardlink("c", "a")}), err: ErrInvalid},
		{name: "hard link to directory", threat: "T34", layers: one(ents{dir("d"), hardlink("h", "d")}), err: ErrInvalid},
		{name: "hard link to root", threat: "T34", layers: one(ents{hardlink("h", "./")}), err: ErrUnsafe},
		{name: "hard link to lower directory", threat: "T34", layers: one(ents{dir("d")}, ents{hardlink("h", "d")}), err: ErrInvalid},
		{name: "hard link to fifo", threat: "T34", layers: one(ents{{name: "p", typ: tar.TypeFifo}, hardlink("h", "p")}), skips: map[Reason]int{SkipDevice: 1, SkipTarget: 1}},
		{name: "hard link to whiteout", threat: "T34", layers: one(ents{file644(".wh.x", ""), hardlink("h", ".wh.x")}), err: ErrInvalid},
		{name: "hard link to content that was removed", threat: "T34", layers: one(ents{file644("f", "1")}, ents{file644(".wh.f", "")}, ents{hardlink("h", "f")}), err: ErrInvalid},
		{name: "hard link to content that a file replaced", threat: "T34", layers: one(ents{file644("d/f", "1")}, ents{file644("d", "2")}, ents{hardlink("h", "d/f")}, ents{dir("d")}), err: ErrInvalid},
		{name: "hard link to content below an opaque root", threat: "T34", layers: one(ents{file644("f", "1")}, ents{file644(".wh..wh..opq", "")}, ents{hardlink("h", "f")}), err: ErrInvalid},
		{name: "hard link to content in an opaque directory", threat: "T34", layers: one(ents{file644("d/f", "1")}, ents{file644("d/.wh..wh..opq", "")}, ents{hardlink("h", "d/f")}), err: ErrInvalid},
		{name: "hard link to content that a directory replaced", threat: "T34", layers: one(ents{file644("d", "1")}, ents{file644("d/f", "2")}, ents{hardlink("h", "d")}), err: ErrInvalid},
		{name: "hard link to two kinds out of sight", threat: "T34", o: Options{Path: "d"}, layers: one(ents{file644("a", "1"), link("a", "../canary"), hardlink("d/h", "a")}), err: ErrInvalid},
		{name: "hard link over directory, then file below", threat: "T34", layers: one(ents{file644("d/canary", "old"), file644("f", "1")}, ents{hardlink("d", "f")}, ents{file644("d/canary", "new")}),
			tree: []string{"d/", "d/canary=new", "f=1"}},
	}
}

func whiteoutCases() []hostile {
	wh := func(name string) ent { return file644(name, "") }
	base := ents{file644("a", "1"), file644("d/b", "2")}
	return []hostile{
		{name: "whiteout of nothing", threat: "T35", layers: one(base, ents{wh(".wh.")}), err: ErrUnsafe},
		{name: "whiteout of dot", threat: "T35", layers: one(base, ents{wh(".wh..")}), err: ErrUnsafe},
		{name: "whiteout of parent", threat: "T35", layers: one(base, ents{wh(".wh...")}), err: ErrUnsafe},
		{name: "whiteout of nothing below", threat: "T35", layers: one(base, ents{wh("d/.wh.")}), err: ErrUnsafe},
		{name: "whiteout of dot below", threat: "T35", layers: one(base, ents{wh("d/.wh..")}), err: ErrUnsafe},
		{name: "whiteout of parent below", threat: "T35", layers: one(base, ents{wh("d/.wh...")}), err: ErrUnsafe},
		{name: "whiteout outside", threat: "T35", layers: one(base, ents{wh("../.wh.canary")}), err: ErrUnsafe},
		{name: "whiteout outside, deep", threat: "T35", layers: one(base, ents{wh("d/../../.wh.canary")}), err: ErrUnsafe},
		{name: "whiteout outside, absolute", threat: "T35", layers: one(base, ents{wh("$PARENT/.wh.canary")}), err: ErrUnsafe},
		{name: "opaque outside", threat: "T35", layers: one(base, ents{wh("../.wh..wh..opq")}), err: ErrUnsafe},
		{name: "entry below a whiteout", threat: "T35", layers: one(base, ents{wh(".wh.a/b")}), err: ErrUnsafe},
		{name: "directory as whiteout, with entry", threat: "T35", layers: one(base, ents{dir(".wh.a/"), wh(".wh.a/b")}), err: ErrUnsafe},
		{name: "whiteout with dots behind", threat: "T35", layers: one(base, ents{wh(".wh.a/..")}), err: ErrUnsafe},
		{name: "whiteout with backslash", threat: "T35", layers: one(base, ents{wh(`.wh.d\..\..\canary`)}), err: ErrUnsafe},
		{name: "directory as whiteout", threat: "T35", layers: one(base, ents{dir(".wh.a/")}), tree: []string{"d/", "d/b=2"}},
		{name: "link as whiteout", threat: "T35", layers: one(base, ents{link(".wh.a", "..")}), tree: []string{"d/", "d/b=2"}},
		{name: "hard link as whiteout", threat: "T35", layers: one(base, ents{hardlink(".wh.a", ".wh.b")}), tree: []string{"d/", "d/b=2"}},
		{name: "opaque root", threat: "T35", layers: one(base, ents{wh(".wh..wh..opq"), file644("c", "3")}), tree: []string{"c=3"}},
		{name: "opaque root, alone", threat: "T35", layers: one(base, ents{wh(".wh..wh..opq")})},
		{name: "whiteout through lower link", threat: "T35", layers: one(ents{link("l", "..")}, ents{wh("l/.wh.canary")}), skips: map[Reason]int{SkipUnsafeLink: 1}},
		{name: "opaque through lower link", threat: "T35", layers: one(ents{link("l", "../sibling")}, ents{wh("l/.wh..wh..opq")}), skips: map[Reason]int{SkipUnsafeLink: 1}},
		{name: "whiteout through link", threat: "T35", layers: one(ents{link("l", ".."), wh("l/.wh.canary")}), skips: map[Reason]int{SkipUnsafeLink: 1}},
		{name: "opaque through link", threat: "T35", layers: one(ents{link("l", ".."), wh("l/.wh..wh..opq")}), skips: map[Reason]int{SkipUnsafeLink: 1}},
		{name: "whiteout below a file", threat: "T35", layers: one(ents{file644("f", "1"), wh("f/.wh.x"), wh("f/.wh..wh..opq")}), tree: []string{"f=1"}},
		{name: "aufs metadata", threat: "T35", layers: one(base, ents{wh(".wh..wh.aufs"), dir(".wh..wh.plnk/"), file644(".wh..wh.plnk/1.2", "3"), hardlink("h", ".wh..wh.plnk/1.2")}),
			tree: []string{"a=1", "d/", "d/b=2", "h=3"}, skips: map[Reason]int{SkipMeta: 3}},
		{name: "metadata that goes up", threat: "T35", layers: one(base, ents{file644(".wh..wh.x/../../canary", "3")}), err: ErrUnsafe},
		{name: "whiteout of the own layer's file", threat: "T35", layers: one(base, ents{file644("a", "new"), wh(".wh.a"), wh("d/.wh..wh..opq"), file644("d/c", "3")}),
			tree: []string{"a=new", "d/", "d/c=3"}},
		{name: "whiteout named like a neighbour", threat: "T35", layers: one(base, ents{wh(".wh.canary"), wh(".wh.sibling"), wh("sibling/deep/.wh.file")}),
			tree: []string{"a=1", "d/", "d/b=2"}},
		{name: "bare whiteouts", threat: "T35", layers: one(ents{wh(".wh.a"), wh("d/.wh.b"), wh("e/.wh..wh..opq")})},
	}
}

func typeCases() []hostile {
	device := func(n int) map[Reason]int { return map[Reason]int{SkipDevice: n} }
	exec := file644("x", "1")
	exec.mode = 0o100
	return []hostile{
		{name: "devices", threat: "T36", layers: one(ents{{name: "c", typ: tar.TypeChar, major: 1, minor: 3}, {name: "b", typ: tar.TypeBlock, major: 8},
			{name: "o", typ: tar.TypeChar}, {name: "p", typ: tar.TypeFifo}, file644("f", "1")}), tree: []string{"f=1"}, skips: device(4)},
		{name: "fifo, then file", threat: "T36", layers: one(ents{{name: "p", typ: tar.TypeFifo}, file644("p", "1")}), err: ErrInvalid},
		{name: "file below a fifo", threat: "T36", layers: one(ents{{name: "p", typ: tar.TypeFifo}, file644("p/f", "1")}), err: ErrInvalid},
		{name: "file over lower fifo", threat: "T36", layers: one(ents{{name: "p", typ: tar.TypeFifo}}, ents{file644("p", "1")}), tree: []string{"p=1"}},
		{name: "fifo over lower file", threat: "T36", layers: one(ents{file644("p", "1")}, ents{{name: "p", typ: tar.TypeFifo}}), skips: device(1)},
		{name: "device over lower directory", threat: "T36", layers: one(ents{file644("d/f", "1")}, ents{{name: "d", typ: tar.TypeChar}}), skips: device(1)},
		{name: "unknown types", threat: "T36", layers: content(raw(rawHeader("z", "", 'Z', octal(3)), []byte("abc"), rawHeader("c", "", '7', octal(0)), rawHeader("v", "", 'V', octal(0)))),
			skips: map[Reason]int{SkipType: 3}},
		{name: "unknown type outside", threat: "T36", layers: content(raw(rawHeader("../canary", "", 'Z', octal(0)))), err: ErrUnsafe},
		{name: "device outside", threat: "T36", layers: one(ents{{name: "../canary", typ: tar.TypeChar, major: 1, minor: 3}}), err: ErrUnsafe},
		{name: "setuid, setgid, sticky", threat: "T37", layers: one(ents{{name: "s", typ: tar.TypeReg, mode: 0o6755}, {name: "d", typ: tar.TypeDir, mode: 0o7777}, {name: "d/w", typ: tar.TypeReg, mode: 0o7777}, exec}),
			tree: []string{"s=", "d/", "d/w=", "x=1"}},
		{name: "mode out of range", threat: "T37", layers: one(ents{{name: "m", typ: tar.TypeReg, mode: -1}, {name: "n", typ: tar.TypeReg, mode: 1 << 40}}), tree: []string{"m=", "n="}},
		{name: "setuid over lower file", threat: "T37", layers: one(ents{{name: "s", typ: tar.TypeReg, mode: 0o4755}}, ents{{name: "s", typ: tar.TypeReg, mode: 0o4711}}, ents{hardlink("h", "s")}), tree: []string{"s=", "h="}},
		{name: "extended attributes", threat: "T37", layers: one(ents{{name: "x", typ: tar.TypeReg, pax: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02",
			"SCHILY.xattr.user.overlay.whiteout": "y", "SCHILY.acl.access": "user::rwx"}}}), tree: []string{"x="}},
	}
}

func headerCases(t *testing.T) []hostile {
	pax := func(records ...string) []byte {
		body := ""
		for _, r := range records {
			n := len(r) + 3
			for len(fmt.Sprint(n))+len(r)+2 != n {
				n = len(fmt.Sprint(n)) + len(r) + 2
			}
			body += fmt.Sprintf("%d %s\n", n, r)
		}
		b := append(rawHeader("pax", "", 'x', octal(len(body))), body...)
		return append(b, make([]byte, -len(b)&511)...)
	}
	long := func(typ byte, name string) []byte {
		b := append(rawHeader("././@LongLink", "", typ, octal(len(name))), name...)
		return append(b, make([]byte, -len(b)&511)...)
	}
	plain := func(name string) []byte { return rawHeader(name, "", '0', octal(1)) }
	x := []byte("x")
	sparse := rawHeader("s", "", 'S', octal(0))
	copy(sparse[257:], "ustar  \x00")
	copy(sparse[386:], octal(1<<33)+octal(0))
	copy(sparse[483:], octal(1<<33))
	copy(sparse[148:], "        ")
	sum := 0
	for _, c := range sparse {
		sum += int(c)
	}
	copy(sparse[148:], fmt.Sprintf("%06o\x00 ", sum))
	big := "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"
	negative := "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"
	broken := raw(plain("f"), x)
	broken[148] ^= 1
	cases := []hostile{
		{name: "PAX size over content", threat: "T10", layers: content(raw(pax("size=99999"), plain("f"), x)), err: ErrInvalid},
		{name: "PAX size negative", threat: "T10", layers: content(raw(pax("size=-1"), plain("f"), x)), err: ErrInvalid},
		{name: "PAX size no number", threat: "T10", layers: content(raw(pax("size=abc"), plain("f"), x)), err: ErrInvalid},
		{name: "PAX size hides a header", threat: "T10", layers: content(raw(pax("size=1025"), rawHeader("f", "", '0', octal(0)), plain("../canary"), x, x)),
			tree: []string{"f=" + fmt.Sprintf("%x", sha(raw(plain("../canary"), x, x)[:1025]))}},
		{name: "PAX path goes up", threat: "T10", layers: content(raw(pax("path=../canary"), plain("f"), x)), err: ErrUnsafe},
		{name: "PAX path absolute", threat: "T10", layers: content(raw(pax("path=/canary"), plain("f"), x)), err: ErrUnsafe},
		{name: "PAX path with NUL", threat: "T10", layers: content(raw(pax("path=a\x00b"), plain("f"), x)), err: ErrInvalid},
		{name: "PAX path empty", threat: "T10", layers: content(raw(pax("path="), plain("f"), x)), tree: []string{"f=x"}},
		{name: "PAX path twice", threat: "T10", layers: content(raw(pax("path=a", "path=../canary"), plain("f"), x)), err: ErrUnsafe},
		{name: "PAX link path goes up", threat: "T10", layers: content(raw(pax("linkpath=../canary"), rawHeader("h", "f", '1', octal(0)))), err: ErrUnsafe},
		{name: "PAX record broken", threat: "T10", layers: content(raw(append(rawHeader("pax", "", 'x', octal(9)), "99 path=x\n"...), plain("f"), x)), err: ErrInvalid},
		{name: "PAX records too large", threat: "T20", layers: content(raw(pax("comment="+strings.Repeat("x", 2<<20)), plain("f"), x)), err: ErrInvalid},
		{name: "global PAX header", threat: "T10", layers: content(raw(append(rawHeader("g", "", 'g', octal(18)), "18 path=../canary\n"...), plain("f"), x)),
			tree: []string{"f=x"}, skips: map[Reason]int{SkipType: 1}},
		{name: "GNU long name with NUL", threat: "T10", layers: content(raw(long('L', "a\x00/../../canary"), plain("f"), x)), tree: []string{"a=x"}},
		{name: "GNU long name goes up", threat: "T10", layers: content(raw(long('L', "../canary\x00"), plain("f"), x)), err: ErrUnsafe},
		{name: "GNU long link goes up", threat: "T10", layers: content(raw(long('K', "../canary\x00"), rawHeader("h", "f", '1', octal(0)))), err: ErrUnsafe},
		{name: "GNU long name too large", threat: "T20", layers: content(raw(long('L', strings.Repeat("a", 2<<20)), plain("f"), x)), err: ErrInvalid},
		{name: "name with NUL", threat: "T33", layers: content(raw(plain("f\x00/../canary"), x)), tree: []string{"f=x"}},
		{name: "size of 8 EiB", threat: "T20", layers: content(raw(rawHeader("f", "", '0', big), x)), err: ErrLimit},
		{name: "size of 8 EiB, hidden", threat: "T20", err: ErrInvalid,
			layers: func(t *testing.T, _ string) []Layer {
				return []Layer{blob(raw(rawHeader("f", "", '0', big), x)), blob(archive(t, file644("f", "1")))}
			}},
		{name: "size negative", threat: "T20", layers: content(raw(rawHeader("f", "", '0', negative), x)), err: ErrInvalid},
		{name: "size of 65 GiB", threat: "T20", layers: content(raw(rawHeader("f", "", '0', "\x80\x00\x00\x00\x00\x00\x00\x10\x40\x00\x00\x00"), x)), err: ErrLimit},
		{name: "directory with size", threat: "T10", layers: content(raw(rawHeader("d/", "", '5', octal(512)), plain("f"), x)), tree: []string{"d/", "f=x"}},
		{name: "old file with slash behind", threat: "T10", layers: content(raw(rawHeader("d/", "", 0, octal(0)), plain("d/f"), x)), tree: []string{"d/", "d/f=x"}},
		{name: "sparse, GNU", threat: "T20", layers: content(raw(sparse)), err: ErrInvalid},
		{name: "sparse, PAX 0.1", threat: "T20", layers: content(raw(pax("GNU.sparse.map=0,1", "GNU.sparse.numblocks=1", "GNU.sparse.size=1099511627776"), plain("f"), x)), err: ErrInvalid},
		{name: "sparse, PAX 1.0", threat: "T20", layers: content(raw(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=g", "GNU.sparse.realsize=1099511627776"),
			rawHeader("f", "", '0', octal(512)), []byte("1\n1099511627776\n0\n"))), err: ErrInvalid},
		{name: "checksum wrong", threat: "T10", layers: content(broken), err: ErrInvalid},
		{name: "no archive", threat: "T14", layers: content(bytes.Repeat([]byte(`{"a":1}`), 200)), err: ErrInvalid},
		{name: "less than a header", threat: "T14", layers: content([]byte("{}")), err: ErrInvalid},
		{name: "empty layer", threat: "T03", layers: content(nil)},
		{name: "end mark only", threat: "T03", layers: content(make([]byte, 1024))},
		{name: "end mark missing", threat: "T03", layers: content(raw(plain("f"), x)[:1024]), tree: []string{"f=x"}},
		{name: "cut in content", threat: "T03", layers: content(raw(plain("f"), x)[:512]), err: ErrInvalid},
		{name: "cut in header", threat: "T03", layers: content(raw(plain("f"), x)[:100]), err: ErrInvalid},
		{name: "data behind the archive", threat: "T07", layers: content(append(raw(plain("f"), x), "more"...)), err: ErrInvalid},
		{name: "archive behind the archive", threat: "T07", layers: content(append(raw(plain("f"), x), raw(plain("g"), x)...)), err: ErrInvalid},
		{name: "zeros behind the archive", threat: "T07", layers: content(append(raw(plain("f"), x), make([]byte, 100_000)...)), tree: []string{"f=x"}},
	}
	return cases
}
