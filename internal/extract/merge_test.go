package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// mergeCases are layers, lowest first, in the words of parse, and what they
// make of an empty directory.
var mergeCases = []struct{ name, path, layers, want string }{
	{"nothing", "", "", ""},
	{"one layer", "", "a=1 d/ d/b=2 l->a", "a=1 d/ d/b=2 l->a"},
	{"implied directories", "", "a/b/c=1", "a/ a/b/ a/b/c=1"},
	{"files of two layers", "", "a=1 | b=2", "a=1 b=2"},
	{"upper file wins", "", "a=1 | a=2", "a=2"},
	{"uppermost file wins", "", "a=1 | a=2 | b=1 | a=3 | b=2", "a=3 b=2"},
	{"directories merge", "", "d/a=1 | d/ d/b=2", "d/ d/a=1 d/b=2"},
	{"file over directory", "", "d/a=1 d/e/f=2 | d=3", "d=3"},
	{"directory over file", "", "d=1 | d/", "d/"},
	{"implied directory over file", "", "d=1 | d/a=2", "d/ d/a=2"},
	{"file, directory, file", "", "d=1 | d/a=2 | d=3", "d=3"},
	{"directory, file, directory", "", "d/a=1 | d=2 | d/", "d/"},
	{"directory, file, implied directory", "", "d/a=1 d/b=1 | d=2 | d/b=3", "d/ d/b=3"},
	{"link over directory", "", "d/a=1 | d->e", "d->e"},
	{"directory over link", "", "d->e e/a=1 | d/", "d/ e/ e/a=1"},
	{"file over link", "", "l->a a=1 | l=2", "a=1 l=2"},
	{"link over file", "", "a=1 l=2 | l->a", "a=1 l->a"},
	{"link over link", "", "l->a | l->b", "l->b"},
	{"whiteout of file", "", "a=1 b=2 | -a", "b=2"},
	{"whiteout of directory", "", "d/a=1 d/e/b=2 c=3 | -d", "c=3"},
	{"whiteout of link", "", "a=1 l->a | -l", "a=1"},
	{"whiteout of nothing", "", "a=1 | -b -d/e", "a=1"},
	{"whiteout in a directory", "", "d/a=1 d/b=2 | -d/a", "d/ d/b=2"},
	{"whiteout leaves the directory", "", "d/a=1 | -d/a", "d/"},
	{"whiteout, then again", "", "a=1 | -a | a=2", "a=2"},
	{"whiteout and new directory", "", "d/a=1 | -d d/b=2", "d/ d/b=2"},
	{"whiteout after new directory", "", "d/a=1 | d/ d/b=2 -d", "d/ d/b=2"},
	{"whiteout spares its own layer", "", "a=1 | a=2 -a", "a=2"},
	{"whiteout spares upper layers", "", "a=1 | -a | b=1 | a=2", "a=2 b=1"},
	{"whiteout hides two layers", "", "a=1 | a=2 | -a", ""},
	{"whiteout below whiteout", "", "d/e/a=1 | -d/e | -d", ""},
	{"whiteout of directory, lower file below", "", "d/a=1 | -d | d/b=2", "d/ d/b=2"},
	{"opaque", "", "d/a=1 d/e/b=2 | !d d/c=3", "d/ d/c=3"},
	{"opaque comes last", "", "d/a=1 | d/c=3 !d", "d/ d/c=3"},
	{"opaque alone", "", "d/a=1 | !d", "d/"},
	{"opaque spares upper layers", "", "d/a=1 | !d d/b=2 | d/c=3", "d/ d/b=2 d/c=3"},
	{"opaque keeps explicit directories below", "", "d/e/a=1 | d/ !d d/e/ d/e/b=2", "d/ d/e/ d/e/b=2"},
	{"opaque of a file", "", "d=1 | !d", "d=1"},
	{"opaque of nothing", "", "a=1 | !d", "a=1"},
	{"opaque root", "", "a=1 d/b=2 | ! c=3", "c=3"},
	{"opaque root below", "", "a=1 | ! b=2 | c=3", "b=2 c=3"},
	{"opaque in opaque", "", "d/e/a=1 | !d/e d/e/b=2 | !d d/e/c=3", "d/ d/e/ d/e/c=3"},
	{"upper directory, middle whiteout", "", "d/a=1 | -d | d/", "d/"},
	{"upper directory, middle file", "", "d/e/a=1 | d/e=2 | d/e/", "d/ d/e/"},
	{"hard link", "", "a=1 h=>a", "a=1 h=1"},
	{"hard link before its target", "", "h=>a a=1", "a=1 h=1"},
	{"hard links in a chain", "", "x=>y y=>z z=1", "x=1 y=1 z=1"},
	{"hard link, target replaced", "", "a=1 h=>a | a=2", "a=2 h=1"},
	{"hard link, target removed", "", "a=1 h=>a | -a", "h=1"},
	{"hard links, target removed", "", "a=1 h=>a d/i=>a | -a", "d/ d/i=1 h=1"},
	{"hard link, target replaced by directory", "", "a=1 h=>a | a/b=2", "a/ a/b=2 h=1"},
	{"hard link, directory of target removed", "", "d/a=1 h=>d/a | -d", "h=1"},
	{"hard link removed", "", "a=1 h=>a | -h", "a=1"},
	{"hard link replaced", "", "a=1 h=>a | h=2", "a=1 h=2"},
	{"chain, middle removed", "", "x=>y y=>z z=1 | -y", "x=1 z=1"},
	{"chain, middle and end removed", "", "x=>y y=>z z=1 | -y -z", "x=1"},
	{"hard link to lower layer", "", "a=1 | h=>a", "a=1 h=1"},
	{"hard link two layers down", "", "a=1 | b=2 | h=>a", "a=1 b=2 h=1"},
	{"hard link to lower layer, replaced above", "", "a=1 | h=>a | a=2", "a=2 h=1"},
	{"hard link to lower layer, removed above", "", "a=1 | h=>a | -a", "h=1"},
	{"hard link to lower layer, removed with it", "", "a=1 | h=>a -a", "h=1"},
	{"hard link to lower layer, replaced between", "", "a=1 | a=2 | h=>a | a=3", "a=3 h=2"},
	{"hard link to lower hard link", "", "a=1 b=>a | h=>b | -a -b", "h=1"},
	{"hard link to link", "", "l->a h=>l", "h->a l->a"},
	{"hard link to lower link", "", "l->a | h=>l | -l", "h->a"},
	{"hard link over directory", "", "d/x=1 a=2 | d=>a", "a=2 d=2"},
	{"path of a directory", "d", "a=1 d/b=2 e/c=3", "d/ d/b=2"},
	{"path of a file", "d/b", "a=1 d/b=2 d/c=3", "d/ d/b=2"},
	{"path of a link", "d/l", "d/l->b d/b=2", "d/ d/l->b"},
	{"path of layers", "d/e", "d/e/a=1 x=1 | d/e/b=2 d/f=2 | -d/e/a", "d/ d/e/ d/e/b=2"},
	{"path replaced above", "d/e", "d/e/a=1 | -d | d/e/b=2", "d/ d/e/ d/e/b=2"},
	{"path, opaque above", "d/e", "d/e/a=1 | !d d/e/", "d/ d/e/"},
	{"path of a file that is called opaque", "d", "d=1 | !d", "d=1"},
	{"path of a directory that is called opaque", "d", "d/ d/a=1 | !d", "d/"},
	{"path, opaque root", "d", "d/a=1 | ! d/b=1", "d/ d/b=1"},
	{"path, hard link out of it", "d", "a=1 d/h=>a", "d/ d/h=1"},
	{"path, hard link in front out of it", "d", "d/h=>z z=1 d/i=>z", "d/ d/h=1 d/i=1"},
	{"path, hard link to lower layer out of it", "d", "a=1 | d/h=>a", "d/ d/h=1"},
	{"path that is a hard link", "d/h", "a=1 d/h=>a", "d/ d/h=1"},
	{"path, hard link to link out of it", "d", "l->x d/h=>l", "d/ d/h->x"},
	{"path of an empty directory", "d", "d/ e/a=1", "d/"},
}

func TestMerge(t *testing.T) {
	for _, c := range mergeCases {
		t.Run(c.name, func(t *testing.T) {
			var stack [][]ent
			for l := range strings.SplitSeq(c.layers, "|") {
				stack = append(stack, parse(l))
			}
			want := strings.Fields(c.want)
			slices.Sort(want)
			if got, ok := modelOf(stack).lines(c.path); !slices.Equal(got, want) || !ok {
				t.Errorf("the model makes %q, %v, want %q", got, ok, want)
			}
			f := newField(t, t.TempDir())
			rep, err := Image(t.Context(), layersOf(t, stack), f.dest, Options{Path: c.path})
			if err != nil {
				t.Fatal(err)
			}
			f.check(t)
			got := list(t, f.dest, false)
			if !slices.Equal(got, want) {
				t.Errorf("Image makes %q, want %q", got, want)
			}
			checkReport(t, rep, f.dest)
		})
	}
}

func TestPathNotFound(t *testing.T) {
	for _, c := range []struct{ path, layers, says string }{
		{"x", "a=1", ""},
		{"a/b", "a=1", `"a" is no directory`},
		{"l/b", "l->d d/b=1", `"l" is a link to "d"`},
		{"d", "d/a=1 | -d", ""},
		{"d/a", "d/a=1 | -d/a", ""},
		{"d/a", "d/a=1 | !d", ""},
		{"d/.wh.a", "d/a=1 | -d/a", ""},
	} {
		var stack [][]ent
		for l := range strings.SplitSeq(c.layers, "|") {
			stack = append(stack, parse(l))
		}
		f := newField(t, t.TempDir())
		_, err := Image(t.Context(), layersOf(t, stack), f.dest, Options{Path: c.path})
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("path %q of %q: %v, want %v with %s", c.path, c.layers, err, ErrNotFound, c.says)
		}
		f.check(t)
		if _, err := os.Lstat(f.dest); err == nil {
			t.Errorf("path %q of %q: there is a destination", c.path, c.layers)
		}
	}
	for _, p := range []string{"..", "a/../b", "a//b", `a\b`, "a/..", "//a"} {
		if _, err := Image(t.Context(), nil, filepath.Join(t.TempDir(), "d"), Options{Path: p}); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("path %q: %v, want that it is no path", p, err)
		}
	}
	for _, p := range []string{"d", "/d", "./d", "d/", "/d/"} {
		if _, err := Image(t.Context(), layersOf(t, [][]ent{parse("d/a=1")}), filepath.Join(t.TempDir(), "d"), Options{Path: p}); err != nil {
			t.Errorf("path %q: %v", p, err)
		}
	}
}

// TestReadOnce counts how often each layer is opened, and the bytes written.
func TestReadOnce(t *testing.T) {
	for _, c := range []struct {
		name, path, layers string
		opens              []int
		bytes              int64
	}{
		{"ordinary", "", "a=11 d/b=22 | a=333 -d | d/c=4444", []int{1, 1, 1}, 7},
		{"file twice", "", "a=11 a=333", []int{1}, 3},
		{"hard links", "", "a=11 h=>a i=>a | b=1", []int{1, 1}, 3},
		{"target hidden", "", "x=1 | a=11 h=>a i=>a | a=333", []int{1, 2, 1}, 6},
		{"target in lower layer", "", "a=11 | h=>a | a=333", []int{1, 2, 1}, 5},
		{"target in lower layer, shown", "", "a=11 | h=>a", []int{1, 2}, 2},
		{"target outside path", "d", "a=11 d/h=>a | d/b=1", []int{2, 1}, 3},
		{"file found above", "d/a", "d/a=1 | d/a=22 | x=1", []int{0, 1, 1}, 2},
		{"path opaque", "d/e", "d/e/a=1 | !d d/e/b=22 | x=1", []int{0, 1, 1}, 2},
		{"path whiteouted", "d", "d/a=1 | -d d/b=22 | x=1", []int{0, 1, 1}, 2},
		{"root opaque", "", "d/a=1 | ! d/b=22 | x=1", []int{0, 1, 1}, 3},
		{"root opaque, hard link waits", "", "a=1 | ! h=>a | x=1", []int{1, 2, 1}, 2},
	} {
		var stack [][]ent
		for l := range strings.SplitSeq(c.layers, "|") {
			stack = append(stack, parse(l))
		}
		layers := layersOf(t, stack)
		opens := make([]int, len(layers))
		for i := range layers {
			open := layers[i].Open
			layers[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
				opens[i]++
				return open(ctx)
			}
		}
		rep, err := Image(t.Context(), layers, filepath.Join(t.TempDir(), "d"), Options{Path: c.path})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !slices.Equal(opens, c.opens) || rep.Bytes != c.bytes {
			t.Errorf("%s: layers were opened %v times and %d bytes written, want %v and %d", c.name, opens, rep.Bytes, c.opens, c.bytes)
		}
	}
}

func TestHardLinksShareContent(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "d")
	stack := [][]ent{parse("a=1 h=>a i=>h"), parse("a=2")}
	if _, err := Image(t.Context(), layersOf(t, stack), dest, Options{}); err != nil {
		t.Fatal(err)
	}
	h, err1 := os.Stat(filepath.Join(dest, "h"))
	i, err2 := os.Stat(filepath.Join(dest, "i"))
	a, err3 := os.Stat(filepath.Join(dest, "a"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(h, i) || os.SameFile(h, a) {
		t.Errorf("h and i are one file: %v, want true; h and a: %v, want false", os.SameFile(h, i), os.SameFile(h, a))
	}
}

// drawStack makes random layers of few names, so that they meet often. Within
// a layer they are consistent, and in no order.
func drawStack(t *rapid.T) [][]ent {
	element := rapid.SampledFrom([]string{"a", "b", "c"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(element, 1, 3).Draw(t, "elements"), "/")
	})
	kinds := rapid.SampledFrom([]string{"file", "file", "file", "dir", "link", "hard", "hard", "whiteout", "whiteout", "opaque"})
	n := rapid.IntRange(1, 5).Draw(t, "layers")
	stack := make([][]ent, n)
	for k := range stack {
		leaves, dirs := map[string]string{}, map[string]bool{"": true}
		var words []string
		for i := range rapid.IntRange(0, 7).Draw(t, "entries") {
			name, kind := name.Draw(t, "name"), kinds.Draw(t, "kind")
			below := false // something that the layer says is no directory
			for p := range parents(name) {
				below = below || leaves[p] != ""
			}
			switch {
			case kind == "whiteout":
				words = append(words, "-"+name)
				continue
			case kind == "opaque":
				words = append(words, "!"+rapid.SampledFrom([]string{name, name, name, ""}).Draw(t, "opaque"))
				continue
			case below, dirs[name] && kind != "dir", leaves[name] != "" && leaves[name] != kind:
				continue
			}
			for p := range parents(name) {
				dirs[p] = true
			}
			switch kind {
			case "dir":
				dirs[name] = true
				words = append(words, name+"/")
				continue
			case "file":
				words = append(words, fmt.Sprintf("%s=%d.%d", name, k, i))
			case "link":
				words = append(words, name+"->"+rapid.SampledFrom([]string{"x", "y"}).Draw(t, "target"))
			case "hard":
				words = append(words, name+"=>"+rapid.Custom(func(t *rapid.T) string {
					return strings.Join(rapid.SliceOfN(element, 1, 3).Draw(t, "elements"), "/")
				}).Draw(t, "target"))
			}
			leaves[name] = kind
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1))
		r.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
		stack[k] = parse(strings.Join(words, " "))
	}
	return stack
}

// TestMergeRandom compares random stacks with the model, whole and by path.
func TestMergeRandom(t *testing.T) {
	f := newField(t, memoryDir(t))
	worked, failed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		stack := drawStack(rt)
		p := rapid.SampledFrom([]string{"", "", "", "a", "b/a", "a/b/c"}).Draw(rt, "path")
		want, ok := modelOf(stack).lines(p)
		rep, err := Image(t.Context(), layersOf(t, stack), f.dest, Options{Path: p})
		defer os.RemoveAll(f.dest)
		if !ok {
			failed++
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotFound) {
				rt.Fatalf("Image = %v, want an error", err)
			}
			if _, err := os.Lstat(f.dest); err == nil {
				rt.Fatalf("there is a destination")
			}
			return
		}
		worked++
		if err != nil {
			rt.Fatalf("Image = %v, want %q", err, want)
		}
		got := list(t, f.dest, false)
		if !slices.Equal(got, want) {
			rt.Fatalf("Image makes %q, want %q", got, want)
		}
		checkReport(rt, rep, f.dest)
	})
	f.check(t)
	if worked == 0 || failed == 0 {
		t.Errorf("%d stacks worked and %d failed; want some of both", worked, failed)
	}
}
