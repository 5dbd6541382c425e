package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Gap finds what an interrupted writer left in a folder, reads it when it is
// asked to, and leaves it as it is.
func TestGapKept(t *testing.T) {
	s := several()
	s.pack(t, 90<<10)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	path := t.TempDir()
	store := NewDir(path)
	var all int64
	for _, b := range s.blobs {
		all += int64(len(b))
	}
	gap, err := set.Gap(t.Context(), store, GapOptions{Read: true})
	if err != nil || gap.Bytes() < all || len(gap.Volumes) != len(set.Volumes()) {
		t.Fatalf("with nothing there: %d of %d bytes, %q, %v", gap.Bytes(), all, gap.Volumes, err)
	}
	nothing := gap.Bytes()
	s.begin(t, store, set, 3)
	before := files(t, path)
	for name, tt := range map[string]struct {
		options GapOptions
		less    bool
	}{
		"read":           {GapOptions{Read: true}, true},
		"not read":       {GapOptions{}, false},
		"to be left out": {GapOptions{Read: true, Stale: set}, false},
	} {
		gap, err := set.Gap(t.Context(), store, tt.options)
		if err != nil {
			t.Fatal(err)
		}
		if less := gap.Bytes() < nothing; less != tt.less {
			t.Errorf("%s: %d bytes to be written, %d with nothing there", name, gap.Bytes(), nothing)
		}
		for _, p := range gap.Parts {
			if p.Document || !tt.less && (p.Kept || p.Offset != 0) {
				t.Errorf("%s: part %+v", name, p)
			}
		}
	}
	// What the writer then finds is what Gap has told.
	gap, err = set.Gap(t.Context(), store, GapOptions{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	if after := files(t, path); after != before {
		t.Errorf("Gap has changed\n%s\nto\n%s", before, after)
	}
	w, err := NewWriter(t.Context(), store, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	i := 0
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if p := gap.Parts[i]; p.Digest != part.Digest || p.Kept != part.Kept || p.Offset != part.Offset {
			t.Errorf("part %d is %+v, and was %+v", i, part, p)
		}
		i++
	}
	if i != len(gap.Parts) {
		t.Errorf("%d parts, want %d", i, len(gap.Parts))
	}
}

// countdown is a context that ends after it has been asked so many times.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// Gap that is interrupted says so, wherever that is: it never tells less than
// there is.
func TestGapInterrupted(t *testing.T) {
	s := several()
	s.pack(t, 90<<10)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	store := NewDir(t.TempDir())
	s.begin(t, store, set, 3)
	whole, err := set.Gap(t.Context(), store, GapOptions{Read: true})
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	for n := int64(0); !ended; n++ {
		ctx := &countdown{Context: t.Context()}
		ctx.left.Store(n)
		gap, err := set.Gap(ctx, store, GapOptions{Read: true})
		switch {
		case err == nil && ctx.left.Load() >= 0:
			ended = true
		case err == nil:
			t.Errorf("interrupted after %d looks, it says %d of %d bytes", n, gap.Bytes(), whole.Bytes())
		case !errors.Is(err, context.Canceled):
			t.Errorf("interrupted after %d looks: %v", n, err)
		}
		if n > 10_000 {
			t.Fatal("Gap never ends")
		}
	}
	if _, err := set.Gap(t.Context(), store, GapOptions{Puts: map[string][]byte{"../x": nil}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("with an object above the folder: %v", err)
	}
	if gap, err := set.Gap(t.Context(), newMemory(), GapOptions{Read: true}); err != nil || gap.Room != nil || len(gap.Volumes) != len(set.Volumes()) {
		t.Errorf("in memory: %+v, %v", gap, err)
	}
}

// files returns what is below a folder, with sizes and times.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b.WriteString(strings.Join([]string{name, info.Mode().String(), info.ModTime().Format(time.RFC3339Nano), "\n"}, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What stands under a name and beside it is told as what it is, in blocks.
func TestLeft(t *testing.T) {
	path := t.TempDir()
	dir := NewDir(path)
	if left, err := NewDir(filepath.Join(path, "none")).Left(t.Context(), "x", 1); err != nil || left != (Left{}) {
		t.Errorf("in a folder that is not there: %+v, %v", left, err)
	}
	if _, err := dir.Left(t.Context(), "../x", 1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a name above: %v", err)
	}
	for _, name := range []string{"x", "x.10000.partial", "x.777.partial", "x.tmp" + strings.Repeat("A", 26) + ".partial", "xy.10000.partial"} {
		writeSized(t, filepath.Join(path, name), 10_000)
	}
	info, err := os.Stat(filepath.Join(path, "x"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := allocated(info)
	if blocks < 10_000 {
		t.Fatalf("a file of 10000 bytes takes %d", blocks)
	}
	for name, tt := range map[string]struct {
		name string
		size int64
		want Left
	}{
		"kept":          {"x", 10_000, Left{blocks, blocks, blocks}},
		"another size":  {"x", 9_999, Left{Object: blocks, Stale: 2 * blocks}},
		"another name":  {"y", 10_000, Left{}},
		"no such place": {"d/x", 10_000, Left{}},
		"below a file":  {"x/y", 10_000, Left{}},
	} {
		if got, err := dir.Left(t.Context(), tt.name, tt.size); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
	if err := os.Mkdir(filepath.Join(path, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := dir.Left(t.Context(), "folder", 1); err != nil || got != (Left{}) {
		t.Errorf("a folder: %+v, %v", got, err)
	}
}

// What is kept is a regular file of at least one byte and at most its size.
func TestDirKept(t *testing.T) {
	path := t.TempDir()
	dir := NewDir(path)
	for name, size := range map[string]int{"whole.10.partial": 10, "part.10.partial": 9, "long.10.partial": 11, "empty.10.partial": 0} {
		writeSized(t, filepath.Join(path, name), size)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(path, "folder.10.partial"), 0o755), syscall.Mkfifo(filepath.Join(path, "fifo.10.partial"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"whole": 10, "part": 9, "long": -1, "empty": -1, "missing": -1, "folder": -1, "fifo": -1, "no/such": -1} {
		r, done, err := dir.kept(t.Context(), name, 10)
		if err != nil || (r != nil) != (want >= 0) {
			t.Errorf("%s: %v, %v", name, r, err)
			continue
		}
		if r == nil {
			continue
		}
		p := make([]byte, 20)
		if n, err := r.ReadAt(p, 0); n != want || err != io.EOF || !bytes.Equal(p[:n], bytes.Repeat([]byte("x"), n)) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		done()
	}
	if _, _, err := dir.kept(t.Context(), "../x", 10); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a name above: %v", err)
	}
	if r, _, err := NewDir(filepath.Join(path, "none")).kept(t.Context(), "x", 1); r != nil || err != nil {
		t.Errorf("in a folder that is not there: %v, %v", r, err)
	}
	if _, _, err := NewDir(filepath.Join(path, "whole.10.partial")).kept(t.Context(), "x", 1); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
	if err := os.Symlink("loop", filepath.Join(path, "loop")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"loop/x"} {
		if _, _, err := dir.kept(t.Context(), name, 1); err == nil {
			t.Errorf("%s is read", name)
		}
		if _, err := dir.Left(t.Context(), name, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Usage adds up what is written, and takes off what that replaces.
func TestUsage(t *testing.T) {
	path := t.TempDir()
	writeSized(t, filepath.Join(path, "old"), 10_000)
	info, err := os.Stat(filepath.Join(path, "old"))
	if err != nil {
		t.Fatal(err)
	}
	dir := NewDir(path)
	space, err := dir.Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	block := space.Block
	for name, tt := range map[string]struct {
		do   func(u *Usage)
		want int64 // at the peak
	}{
		"nothing":               {func(*Usage) {}, 0},
		"put":                   {func(u *Usage) { u.Put("new", 1) }, block},
		"put twice":             {func(u *Usage) { u.Put("new", 1); u.Put("new", 1) }, 2 * block},
		"put three times":       {func(u *Usage) { u.Put("new", 1); u.Put("new", 1); u.Put("new", 1) }, 2 * block},
		"put over an old one":   {func(u *Usage) { u.Put("old", 1); u.Put("new", 1) }, block},
		"create":                {func(u *Usage) { u.Create("new", 3*block+1)() }, 4 * block},
		"create and replace":    {func(u *Usage) { u.Create("old", block)(); u.Put("new", block) }, block},
		"create, not replaced":  {func(u *Usage) { u.Create("old", block); u.Put("new", block) }, 2 * block},
		"replace":               {func(u *Usage) { u.Replace(info, 1); u.Put("new", block) }, max(0, 2*block-allocated(info))},
		"replace nothing":       {func(u *Usage) { u.Replace(nil, 1); u.Put("new", block) }, 2 * block},
		"discard, then put":     {func(u *Usage) { u.discard("old", 1); u.Put("new", block) }, max(0, block-allocated(info))},
		"discard what was put":  {func(u *Usage) { u.Put("new", 1); u.discard("new", 1); u.Put("other", 1) }, block},
		"discard, then as much": {func(u *Usage) { u.discard("old", 1); u.Put("old", 10_000) }, 0},
	} {
		u := NewUsage(t.Context(), dir)
		tt.do(u)
		room, err := u.Room()
		if err != nil || room.Needed != tt.want || room.Space.Folder != path {
			t.Errorf("%s: %+v, %v, want %d", name, room, err, tt.want)
		}
	}
	u := NewUsage(t.Context(), dir)
	u.Put("../x", 1)
	if _, err := u.Room(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a name above: %v", err)
	}
	for _, tt := range []struct{ free, needed, want int64 }{{10, 10, 0}, {10, 11, 1}, {11, 10, 0}, {0, 7, 7}, {-1, 7, 0}} {
		if got := (Room{Space: Space{Free: tt.free}, Needed: tt.needed}).Missing(); got != tt.want {
			t.Errorf("%d of %d bytes: %d are missing, want %d", tt.free, tt.needed, got, tt.want)
		}
	}
	unknown, err := NewUsage(t.Context(), NewDir("/proc/self")).Room()
	if err != nil || unknown.Free != -1 || unknown.Missing() != 0 {
		t.Errorf("where it is not told: %+v, %v", unknown, err)
	}
}

// Room that an int64 can not say is the most that it can.
func TestBlocksToBytes(t *testing.T) {
	for _, tt := range []struct {
		n     uint64
		block int64
		want  int64
	}{{0, 4096, 0}, {3, 4096, 12288}, {1 << 62, 1, 1 << 62}, {math.MaxInt64, 1, math.MaxInt64}, {1 << 63, 1, math.MaxInt64}, {1 << 52, 4096, math.MaxInt64},
		{math.MaxUint64, 4096, math.MaxInt64}} {
		if got := blocksToBytes(tt.n, tt.block); got != tt.want {
			t.Errorf("%d blocks of %d bytes: %d, want %d", tt.n, tt.block, got, tt.want)
		}
	}
	if got := allocated(sizedInfo{}); got != 77 {
		t.Errorf("a file of which no blocks are told takes %d, want 77", got)
	}
	for size, want := range map[int64]int64{0: 0, 1: 512, 512: 512, 513: 1024} {
		if got := (Space{Block: 512}).Round(size); got != want {
			t.Errorf("Round(%d) = %d, want %d", size, got, want)
		}
		if got := (Space{}).Round(size); got != size {
			t.Errorf("Round(%d) = %d where no block is told", size, got)
		}
	}
}

type sizedInfo struct{ fs.FileInfo }

func (sizedInfo) Sys() any    { return nil }
func (sizedInfo) Size() int64 { return 77 }
