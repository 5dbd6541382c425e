package extract

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// casefolding is a tmpfs that ignores case, which only newer kernels have.
const casefolding = "casefold"

// mountTmpfs mounts a file system in memory, which takes the rights of root. In
// CI, which has them, only what the kernel does not know is left out.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		if options != casefolding && os.Getenv("CI") != "" {
			t.Fatalf("mounting a tmpfs with %s: %v", options, err)
		}
		t.Skipf("can not mount a tmpfs with %s here: %v", options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestNoSpace fills a small file system: by bytes and by inodes.
func TestNoSpace(t *testing.T) { // T49, T38
	var many []ent
	for i := range 500 {
		many = append(many, dir(strings.Repeat("d", i%200+1)+strings.Repeat("e", i/200)))
	}
	for name, c := range map[string]struct {
		options string
		ents    []ent
	}{
		"bytes":  {"size=1m", []ent{file644("a", "1"), file644("b", strings.Repeat("x", 2<<20))}},
		"inodes": {"nr_inodes=100", many},
	} {
		t.Run(name, func(t *testing.T) {
			f := newField(t, mountTmpfs(t, c.options))
			_, err := Image(t.Context(), []Layer{blob(archive(t, c.ents...))}, f.dest, Options{})
			if !errors.Is(err, ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Image = %v, want %v", err, ErrNoSpace)
			}
			f.check(t)
			if _, err := os.Lstat(f.dest); err == nil {
				t.Error("there is a destination")
			}
			// There is room again.
			if _, err := Image(t.Context(), layersOf(t, newContent), f.dest, Options{}); err != nil {
				t.Errorf("after that: %v", err)
			}
		})
	}
}

// TestMountPoint has a destination on another file system than its parent.
func TestMountPoint(t *testing.T) { // T39
	dir := mountTmpfs(t, "size=1m")
	for _, replace := range []bool{false, true} {
		if _, err := Image(t.Context(), layersOf(t, newContent), dir, Options{Replace: replace}); !errors.Is(err, ErrDestination) {
			t.Errorf("Image = %v, want %v", err, ErrDestination)
		}
	}
	if left := list(t, filepath.Dir(dir), false); len(left) != 1 {
		t.Errorf("parent has %q", left)
	}
}

// TestBindMount has a destination that is a mount point on one file system.
func TestBindMount(t *testing.T) { // T39
	parent := t.TempDir()
	dest := filepath.Join(parent, "dest")
	mustDo(t, os.Mkdir(dest, 0o755))
	if err := unix.Mount(dest, dest, "", unix.MS_BIND, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("can not mount here: %v", err)
	}
	defer unix.Unmount(dest, unix.MNT_DETACH)
	for _, replace := range []bool{false, true} {
		if _, err := Image(t.Context(), layersOf(t, newContent), dest, Options{Replace: replace}); !errors.Is(err, ErrDestination) {
			t.Errorf("replace %v: Image = %v, want %v", replace, err, ErrDestination)
		}
	}
	if left := list(t, parent, false); !slices.Equal(left, []string{"dest/"}) {
		t.Errorf("parent has %q", left)
	}
}

// TestCollision extracts to a file system that ignores case and normalisation.
func TestCollision(t *testing.T) { // T09
	parent := mountTmpfs(t, casefolding)
	folded := filepath.Join(parent, "folded")
	mustDo(t, os.Mkdir(folded, 0o755))
	if err := setFlags(folded, casefold); err != nil {
		t.Skipf("can not make a directory that ignores case: %v", err)
	}
	for name, layers := range map[string]string{
		"files":              "A=1 a=2",
		"normalisation":      "\u00e9=1 e\u0301=2",
		"directories":        "A/x=1 a/y=2",
		"layers":             "a=1 | A=2",
		"link":               "A->x x/y=1 a=2",
		"link and directory": "A->x x/y=1 a/z=2",
		"hard link":          "A=1 b=2 a=>b",
	} {
		var stack [][]ent
		for l := range strings.SplitSeq(layers, "|") {
			stack = append(stack, parse(l))
		}
		if _, err := Image(t.Context(), layersOf(t, stack), filepath.Join(folded, "dest"), Options{}); !errors.Is(err, ErrCollision) {
			t.Errorf("%s: Image = %v, want %v", name, err, ErrCollision)
		}
	}
	if left := list(t, folded, false); len(left) != 0 {
		t.Errorf("left is %q", left)
	}
}

// Flags of files, from linux/fs.h.
const (
	immutable = 0x00000010
	casefold  = 0x40000000
)

func setFlags(path string, flags int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// TestLinkCopies has a file of which there can be no hard link: it is copied.
func TestLinkCopies(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	mustDo(t, err)
	defer root.Close()
	w := newWriter(root, Options{}.withDefaults())
	mustDo(t, w.create("a", file{size: 3, exec: true}, strings.NewReader("abc")))
	if err := setFlags(filepath.Join(dir, "a"), immutable); err != nil {
		t.Skipf("can not make a file immutable here: %v", err)
	}
	defer setFlags(filepath.Join(dir, "a"), 0)
	mustDo(t, w.link("a", "b"))
	a, err1 := os.Stat(filepath.Join(dir, "a"))
	b, err2 := os.Stat(filepath.Join(dir, "b"))
	text, err3 := os.ReadFile(filepath.Join(dir, "b"))
	mustDo(t, err1, err2, err3)
	if os.SameFile(a, b) || string(text) != "abc" || b.Mode() != 0o755 || w.rep.Bytes != 6 || w.rep.Files != 2 {
		t.Errorf("copy is %q, mode %v, same file %v, report %+v", text, b.Mode(), os.SameFile(a, b), w.rep)
	}
}

// TestNoAttributes reads the extended attributes of what was extracted.
func TestNoAttributes(t *testing.T) { // T37
	dest := filepath.Join(t.TempDir(), "dest")
	attrs := map[string]string{"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00"}
	es := []ent{{name: "f", typ: '0', mode: 0o755, pax: attrs}, {name: "d", typ: '5', pax: attrs}}
	if _, err := Image(t.Context(), []Layer{blob(archive(t, es...))}, dest, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d", "."} {
		buf := make([]byte, 1000)
		n, err := unix.Llistxattr(filepath.Join(dest, name), buf)
		if names := string(buf[:max(n, 0)]); err != nil || strings.Contains(names, "overlay") || strings.Contains(names, "capability") {
			t.Errorf("%q has attributes %q (%v)", name, names, err)
		}
	}
}

// TestUmask extracts with no umask and with a strict one.
func TestUmask(t *testing.T) { // T53
	for mask, want := range map[int][2]os.FileMode{0: {0o644, 0o755}, 0o077: {0o600, 0o700}} {
		dest := filepath.Join(t.TempDir(), "dest")
		old := unix.Umask(mask)
		_, err := Image(t.Context(), layersOf(t, newContent), dest, Options{})
		unix.Umask(old)
		mustDo(t, err)
		f, err1 := os.Stat(filepath.Join(dest, "new"))
		d, err2 := os.Stat(dest)
		mustDo(t, err1, err2)
		if f.Mode().Perm() != want[0] || d.Mode().Perm() != want[1] {
			t.Errorf("umask %03o: modes are %v and %v, want %v", mask, f.Mode(), d.Mode(), want)
		}
	}
}

// TestSwappingAttacker has somebody with the rights of this process exchange
// directories in the staging folder for links that lead out of it, and back.
func TestSwappingAttacker(t *testing.T) { // T34
	f := newField(t, memoryDir(t))
	var es []ent
	for i := range 300 {
		es = append(es, file644("d/e/canary", "dead"), file644("d/e/file", "dead"), file644(strings.Repeat("f", i%250+1)+"/d", "x"))
	}
	l := blob(archive(t, es...))
	var stop atomic.Bool
	swaps := 0
	done := make(chan bool)
	go func() {
		defer close(done)
		for !stop.Load() {
			all, _ := filepath.Glob(filepath.Join(f.parent, ".ferry-extract-*", "tree"))
			for _, tree := range all {
				d, aside, evil := filepath.Join(tree, "d"), filepath.Join(tree, "..", "aside"), filepath.Join(tree, "..", "evil")
				os.Symlink(f.parent, evil)
				for range 50 {
					if os.Rename(d, aside) == nil {
						swaps++
						os.Rename(evil, d)
						os.Rename(d, evil)
						os.Rename(aside, d)
					}
				}
			}
		}
	}()
	for range 50 {
		Image(t.Context(), []Layer{l}, f.dest, Options{}) // may fail
		os.RemoveAll(f.dest)
	}
	stop.Store(true)
	<-done
	after := slices.DeleteFunc(list(t, f.parent, true), func(line string) bool { return strings.HasPrefix(line, ".ferry-extract-") })
	if !slices.Equal(after, f.before) {
		t.Errorf("neighbours are now %q, were %q", after, f.before)
	}
	if swaps < 100 {
		t.Errorf("only %d swaps", swaps)
	}
}

// TestOverlay compares the merge cases with what the kernel's overlay file
// system makes of the same layers, each unpacked into a directory of its own.
func TestOverlay(t *testing.T) {
	compared := 0
	for _, c := range mergeCases {
		if c.path != "" || slices.Contains(overlayDiffers, c.name) {
			continue
		}
		top := t.TempDir()
		lower := filepath.Join(top, "empty")
		mustDo(t, os.Mkdir(lower, 0o755))
		for i, words := range strings.Split(c.layers, "|") {
			dir := filepath.Join(top, string(rune('a'+i)))
			unpackForOverlay(t, dir, parse(words))
			lower = dir + ":" + lower
		}
		merged := filepath.Join(top, "merged")
		mustDo(t, os.Mkdir(merged, 0o755))
		if err := unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+lower); err != nil {
			t.Skipf("can not mount an overlay here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
		got := list(t, merged, false)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the kernel makes %q of %q, want %q", c.name, got, c.layers, want)
		}
		compared++
	}
	if compared < 40 {
		t.Errorf("compared only %d cases", compared)
	}
}

// overlayDiffers are cases that can not be put to the kernel as they are: for
// it a whiteout or an opaque mark is in a directory, which therefore exists; the
// root of a layer is never opaque; a hard link does not leave its layer.
var overlayDiffers = []string{
	"whiteout of nothing", "opaque of a file", "opaque of nothing",
	"opaque root", "opaque root below",
	"hard link to lower layer", "hard link two layers down", "hard link to lower layer, replaced above",
	"hard link to lower layer, removed above", "hard link to lower layer, removed with it",
	"hard link to lower layer, replaced between", "hard link to lower hard link", "hard link to lower link",
	"hard link over directory",
}

// unpackForOverlay writes a layer as a directory of an overlay file system:
// a whiteout is a character device 0:0, opaque is an attribute.
func unpackForOverlay(t *testing.T, dir string, layer []ent) {
	t.Helper()
	mustDo(t, os.Mkdir(dir, 0o755))
	last := func(e ent) int { // whiteouts and hard links go last
		switch {
		case strings.Contains(e.name, ".wh."):
			return 2
		case e.typ == tar.TypeLink:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(layer, func(a, b ent) int { return last(a) - last(b) })
	var waiting []ent
	for _, e := range layer {
		p := filepath.Join(dir, e.name)
		mustDo(t, os.MkdirAll(filepath.Dir(p), 0o755))
		base, isWhiteout := strings.CutPrefix(filepath.Base(p), ".wh.")
		hides := filepath.Join(filepath.Dir(p), base)
		switch {
		case base == ".wh..opq":
			mustDo(t, unix.Setxattr(filepath.Dir(p), "trusted.overlay.opaque", []byte("y"), 0))
		case isWhiteout:
			if fi, err := os.Lstat(hides); err != nil {
				mustDo(t, unix.Mknod(hides, unix.S_IFCHR, 0))
			} else if fi.IsDir() {
				mustDo(t, unix.Setxattr(hides, "trusted.overlay.opaque", []byte("y"), 0))
			}
		case e.typ == tar.TypeDir:
			mustDo(t, os.MkdirAll(p, 0o755))
		case e.typ == tar.TypeSymlink:
			mustDo(t, os.Symlink(e.link, p))
		case e.typ == tar.TypeLink:
			waiting = append(waiting, e)
		default:
			mustDo(t, os.WriteFile(p, []byte(e.body), 0o644))
		}
	}
	for range layer { // chains come in any order
		for _, e := range waiting {
			os.Link(filepath.Join(dir, e.link), filepath.Join(dir, e.name))
		}
	}
}
