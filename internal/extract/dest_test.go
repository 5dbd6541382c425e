package extract

import (
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Most of rapid's stacks are simple ones: 100, its default, are too few.
	if err := flag.Set("rapid.checks", "1000"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m) // the command line comes after this
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

var newContent = [][]ent{{file644("new", "1"), dir("d")}}

func TestDestination(t *testing.T) { // T39
	at := func(f field, names ...string) string { return filepath.Join(append([]string{f.dest}, names...)...) }
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, f field)
		dest    string // below the parent; "dest" if empty
		replace bool
		err     error
		tree    []string
	}{
		{name: "missing", tree: []string{"d/", "new=1"}},
		{name: "missing, replace", replace: true, tree: []string{"d/", "new=1"}},
		{name: "empty", prepare: func(t *testing.T, f field) { mustDo(t, os.Mkdir(f.dest, 0o755)) }, tree: []string{"d/", "new=1"}},
		{name: "empty, replace", replace: true, prepare: func(t *testing.T, f field) { mustDo(t, os.Mkdir(f.dest, 0o755)) }, tree: []string{"d/", "new=1"}},
		{name: "slash behind", dest: "dest/", tree: []string{"d/", "new=1"}},
		{name: "not empty", prepare: func(t *testing.T, f field) {
			mustDo(t, os.Mkdir(f.dest, 0o755), os.WriteFile(at(f, "old"), nil, 0o644))
		},
			err: ErrNotEmpty, tree: []string{"old="}},
		{name: "dangling link in it", prepare: func(t *testing.T, f field) { mustDo(t, os.Mkdir(f.dest, 0o755), os.Symlink("nowhere", at(f, ".old"))) },
			err: ErrNotEmpty, tree: []string{".old->nowhere"}},
		{name: "not empty, replace", replace: true, prepare: func(t *testing.T, f field) {
			mustDo(t, os.MkdirAll(at(f, "old", "deep"), 0o755), os.WriteFile(at(f, "new"), []byte("old"), 0o644), os.Symlink("../canary", at(f, "l")), os.Symlink("../sibling", at(f, "m")))
		}, tree: []string{"d/", "new=1"}},
		{name: "link to directory", prepare: func(t *testing.T, f field) { mustDo(t, os.Symlink("sibling", f.dest)) }, err: ErrDestination},
		{name: "link to directory, replace", replace: true, prepare: func(t *testing.T, f field) { mustDo(t, os.Symlink("sibling", f.dest)) }, err: ErrDestination},
		{name: "link to directory, slash behind", dest: "dest/", replace: true, prepare: func(t *testing.T, f field) { mustDo(t, os.Symlink("sibling", f.dest)) }, err: ErrDestination},
		{name: "link to nothing", prepare: func(t *testing.T, f field) { mustDo(t, os.Symlink("nowhere", f.dest)) }, err: ErrDestination},
		{name: "file", prepare: func(t *testing.T, f field) { mustDo(t, os.WriteFile(f.dest, []byte("x"), 0o644)) }, err: ErrDestination},
		{name: "file, replace", replace: true, prepare: func(t *testing.T, f field) { mustDo(t, os.WriteFile(f.dest, []byte("x"), 0o644)) }, err: ErrDestination},
		{name: "parent missing", dest: "no/dest", err: fs.ErrNotExist},
		{name: "parent a file", dest: "canary/dest", err: errAny},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newField(t, t.TempDir())
			if c.prepare != nil {
				c.prepare(t, f)
			}
			before := list(t, f.parent, true)
			dest := f.dest
			if c.dest != "" {
				dest = f.parent + "/" + c.dest
			}
			rep, err := Image(t.Context(), layersOf(t, newContent), dest, Options{Replace: c.replace})
			if c.err != nil {
				if err == nil || c.err != errAny && !errors.Is(err, c.err) {
					t.Errorf("Image = %v, want %v", err, c.err)
				}
				if after := list(t, f.parent, true); !slices.Equal(after, before) {
					t.Errorf("parent is now %q, was %q", after, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.check(t)
			got := list(t, f.dest, false)
			if !slices.Equal(got, c.tree) {
				t.Errorf("destination has %q, want %q", got, c.tree)
			}
			checkReport(t, rep, f.dest)
		})
	}
	if _, err := Image(t.Context(), nil, "/", Options{Replace: true}); !errors.Is(err, ErrDestination) {
		t.Errorf("Image to / = %v, want %v", err, ErrDestination)
	}
}

var errAny = errors.New("any error")

func TestDestinationRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Image(t.Context(), layersOf(t, newContent), "here", Options{}); err != nil {
		t.Error(err)
	}
	if got := list(t, "here", false); !slices.Equal(got, []string{"d/", "new=1"}) {
		t.Errorf("destination has %q", got)
	}
}

// TestDestinationKeepsMode shows that a private directory stays private.
func TestDestinationKeepsMode(t *testing.T) {
	for _, replace := range []bool{false, true} {
		dest := filepath.Join(t.TempDir(), "dest")
		mustDo(t, os.Mkdir(dest, 0o700))
		if _, err := Image(t.Context(), layersOf(t, newContent), dest, Options{Replace: replace}); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(dest); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("replace %v: mode is %v (%v), want 0700", replace, fi.Mode(), err)
		}
	}
}

// during calls do while a layer is read.
func during(t *testing.T, do func()) []Layer {
	layers := layersOf(t, newContent)
	open := layers[0].Open
	layers[0].Open = func(ctx context.Context) (io.ReadCloser, error) {
		do()
		return open(ctx)
	}
	return layers
}

// TestDestinationFilled has somebody else put something at the destination
// while a layer is read.
func TestDestinationFilled(t *testing.T) { // T39
	for _, c := range []struct {
		name string
		make func(dest string) error
		want error
		tree []string
	}{
		{"directory", func(dest string) error { return os.MkdirAll(filepath.Join(dest, "theirs"), 0o755) }, ErrNotEmpty, []string{"theirs/"}},
		{"file", func(dest string) error { return os.WriteFile(dest, nil, 0o644) }, errAny, []string{}},
		{"link", func(dest string) error { return os.Symlink("sibling", dest) }, errAny, nil},
		{"empty directory", func(dest string) error { return os.Mkdir(dest, 0o755) }, nil, []string{"d/", "new=1"}},
	} {
		f := newField(t, t.TempDir())
		_, err := Image(t.Context(), during(t, func() { mustDo(t, c.make(f.dest)) }), f.dest, Options{})
		if (err != nil) != (c.want != nil) || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if c.name != "link" {
			f.check(t)
		} else if to, err := os.Readlink(f.dest); err != nil || to != "sibling" {
			t.Errorf("the link is %q, %v", to, err)
		}
		if fi, err := os.Lstat(f.dest); err == nil && fi.IsDir() {
			if got := list(t, f.dest, false); !slices.Equal(got, c.tree) {
				t.Errorf("%s: destination has %q, want %q", c.name, got, c.tree)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(f.parent, ".ferry-extract-*")); left != nil {
			t.Errorf("%s: left %q", c.name, left)
		}
	}
}

// TestStagingIsPrivate looks at the staging directory, and shows that one that
// an earlier process has left is not touched.
func TestStagingIsPrivate(t *testing.T) { // T53
	parent := t.TempDir()
	stale := filepath.Join(parent, ".ferry-extract-1")
	mustDo(t, os.MkdirAll(filepath.Join(stale, "tree", "old"), 0o700))
	looked := false
	layers := during(t, func() {
		all, err := filepath.Glob(filepath.Join(parent, ".ferry-extract-*"))
		mustDo(t, err)
		if len(all) != 2 {
			t.Errorf("staging directories are %q, want one more than %q", all, stale)
		}
		for _, s := range all {
			looked = true
			if fi, err := os.Stat(s); err != nil || fi.Mode().Perm() != 0o700 {
				t.Errorf("%q has mode %v (%v), want 0700", s, fi.Mode(), err)
			}
		}
	})
	if _, err := Image(t.Context(), layers, filepath.Join(parent, "dest"), Options{}); err != nil || !looked {
		t.Errorf("Image = %v, looked %v", err, looked)
	}
	want := []string{".ferry-extract-1/", ".ferry-extract-1/tree/", ".ferry-extract-1/tree/old/", "dest/", "dest/d/", "dest/new=1"}
	if got := list(t, parent, false); !slices.Equal(got, want) {
		t.Errorf("parent has %q, want %q", got, want)
	}
}

// TestCancel cancels at each read of a layer.
func TestCancel(t *testing.T) { // T50
	b := archive(t, file644("a", strings.Repeat("x", 300_000)), hardlink("h", "a"), file644("b", "1"))
	for stop := range int64(100) {
		f := newField(t, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		l := blob(b)
		open := l.Open
		reads := &countdown{left: stop, at: cancel}
		l.Open = func(ctx context.Context) (rc io.ReadCloser, err error) {
			reads.ReadCloser, err = open(ctx)
			return reads, err
		}
		_, err := Image(ctx, []Layer{l}, f.dest, Options{})
		cancelled := ctx.Err() != nil
		cancel()
		f.check(t)
		if !cancelled {
			if err != nil || stop < 3 {
				t.Errorf("after %d reads: %v", stop, err)
			}
			return
		}
		if !errors.Is(err, context.Canceled) || reads.left < -1 {
			t.Errorf("cancelled at read %d: %v after %d more", stop, err, -1-reads.left)
		}
		if _, err := os.Lstat(f.dest); err == nil {
			t.Errorf("cancelled at read %d: there is a destination", stop)
		}
	}
	t.Error("100 reads were not enough")
}

type countdown struct {
	io.ReadCloser
	left int64
	at   func()
}

func (c *countdown) Read(p []byte) (int, error) {
	if c.left--; c.left < 0 {
		c.at()
	}
	return c.ReadCloser.Read(p[:min(len(p), 64<<10)])
}

// TestRenameTwice is what replaces a directory where two names can not be
// swapped.
func TestRenameTwice(t *testing.T) {
	parent := t.TempDir()
	p := func(names ...string) string { return filepath.Join(append([]string{parent}, names...)...) }
	mustDo(t, os.MkdirAll(p("tree", "new"), 0o755), os.MkdirAll(p("dest", "old"), 0o755))
	mustDo(t, renameTwice(p("tree"), p("dest"), p("aside")))
	if got, want := list(t, parent, false), []string{"aside/", "aside/old/", "dest/", "dest/new/"}; !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
	// Without a new tree the old one is put back.
	if err := renameTwice(p("tree"), p("dest"), p("aside2")); err == nil {
		t.Error("renameTwice of nothing works")
	}
	if got, want := list(t, parent, false), []string{"aside/", "aside/old/", "dest/", "dest/new/"}; !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
}

// TestReplaceNeverMissing watches the destination while it is replaced.
func TestReplaceNeverMissing(t *testing.T) { // T39
	parent := t.TempDir()
	dest := filepath.Join(parent, "dest")
	mustDo(t, os.MkdirAll(filepath.Join(dest, "d"), 0o755))
	if err := swap(dest, dest); errors.Is(err, errNoSwap) {
		t.Skip("this system can not swap two names")
	}
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		missing := 0
		for !stop.Load() {
			if _, err := os.Stat(filepath.Join(dest, "d")); err != nil {
				missing++
			}
		}
		done <- missing
	}()
	for range 50 {
		if _, err := Image(t.Context(), layersOf(t, newContent), dest, Options{Replace: true}); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	if missing := <-done; missing > 0 {
		t.Errorf("the destination was missing or incomplete %d times", missing)
	}
}

// TestNameTaken has a name in the tree that its layers do not have, as a file
// system seems to that takes one name for another.
func TestNameTaken(t *testing.T) { // T09, T34
	for what, take := range map[string]func(name, canary string) error{
		"file":      func(name, _ string) error { return os.WriteFile(name, []byte("taken"), 0o644) },
		"directory": func(name, _ string) error { return os.Mkdir(name, 0o755) },
		"link":      func(name, canary string) error { return os.Symlink(canary, name) },
		"link up":   func(name, _ string) error { return os.Symlink("..", name) },
	} {
		for _, entries := range []string{"x=1", "x/", "x/y=1", "x->y", "y=1 x=>y"} {
			f := newField(t, t.TempDir())
			layers := layersOf(t, [][]ent{parse(entries)})
			open := layers[0].Open
			layers[0].Open = func(ctx context.Context) (io.ReadCloser, error) {
				all, err := filepath.Glob(filepath.Join(f.parent, ".ferry-extract-*", "tree"))
				mustDo(t, err, take(filepath.Join(all[0], "x"), filepath.Join(f.parent, "canary")))
				return open(ctx)
			}
			if _, err := Image(t.Context(), layers, f.dest, Options{}); !errors.Is(err, ErrCollision) {
				t.Errorf("%q over a %s: Image = %v, want %v", entries, what, err, ErrCollision)
			}
			f.check(t)
		}
	}
}

func TestModificationTimes(t *testing.T) { // T37
	start := time.Now()
	var es []ent
	for name, at := range map[string]time.Time{
		"before": time.Unix(-1<<33, 0), "epoch": time.Unix(0, 0), "then": time.Unix(1_600_000_000, 123_000_000), "after": time.Unix(1<<40, 0),
	} {
		e := file644(name, "1")
		e.mtime, e.pax = at, map[string]string{"comment": "times in PAX"}
		es = append(es, e)
	}
	dest := filepath.Join(t.TempDir(), "dest")
	if _, err := Image(t.Context(), []Layer{blob(archive(t, es...))}, dest, Options{}); err != nil {
		t.Fatal(err)
	}
	mtime := func(name string) time.Time {
		fi, err := os.Stat(filepath.Join(dest, name))
		mustDo(t, err)
		return fi.ModTime()
	}
	if got := mtime("before"); !got.Equal(time.Unix(0, 0)) {
		t.Errorf("a file from before 1970 has time %v", got)
	}
	if got := mtime("epoch"); !got.Equal(time.Unix(0, 0)) {
		t.Errorf("a file of 1970 has time %v", got)
	}
	if got := mtime("then"); got.Unix() != 1_600_000_000 {
		t.Errorf("a file has time %v", got)
	}
	if got := mtime("after"); got.Before(start.Add(-time.Minute)) || got.After(time.Now().Add(time.Minute)) {
		t.Errorf("a file of the future has time %v", got)
	}
}

func TestModes(t *testing.T) { // T37
	var es []ent
	want := map[string]fs.FileMode{"d": 0o755 | fs.ModeDir, "d/e": 0o755 | fs.ModeDir}
	for mode, perm := range map[int64]fs.FileMode{0o600: 0o644, 0o777: 0o755, 0o6111: 0o755, 0o4644: 0o644, 0o010: 0o755, 0o1666: 0o644} {
		name := fs.FileMode(mode).String()
		es = append(es, ent{name: "d/e/" + name, typ: '0', mode: mode})
		want["d/e/"+name] = perm
	}
	es = append(es, ent{name: "d", typ: '5', mode: 0o7777})
	dest := filepath.Join(t.TempDir(), "dest")
	if _, err := Image(t.Context(), []Layer{blob(archive(t, es...))}, dest, Options{}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range want {
		fi, err := os.Stat(filepath.Join(dest, name))
		mustDo(t, err)
		if fi.Mode() != mode {
			t.Errorf("%q has mode %v, want %v", name, fi.Mode(), mode)
		}
	}
}

// TestExamplesAreBounded has more links to leave out than a report names.
func TestExamplesAreBounded(t *testing.T) {
	var es []ent
	for i := range 250 {
		es = append(es, link(strings.Repeat("l", i+1), "/abs"))
	}
	rep, err := Image(t.Context(), []Layer{blob(archive(t, es...))}, filepath.Join(t.TempDir(), "d"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Skipped[SkipAbsoluteLink] != 250 || len(rep.Examples) != maxExamples {
		t.Errorf("report counts %d and names %d, want 250 and %d", rep.Skipped[SkipAbsoluteLink], len(rep.Examples), maxExamples)
	}
	if e := rep.Examples[0]; e.Target != "/abs" || e.Name == "" || e.Layer == "" || e.Reason != SkipAbsoluteLink {
		t.Errorf("first example is %+v", e)
	}
}
