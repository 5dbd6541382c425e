package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mountSized returns an empty folder on a file system of its own.
func mountSized(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mounting a tmpfs: %v", err)
		}
		t.Skipf("mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// leave makes the file system have just so many bytes that are free.
func leave(t *testing.T, dir string, free int64) {
	t.Helper()
	var at syscall.Statfs_t
	if err := syscall.Statfs(dir, &at); err != nil {
		t.Fatal(err)
	}
	taken := int64(at.Blocks-at.Bfree) * at.Bsize
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", taken+free)); err != nil {
		t.Fatalf("leaving %d of %d bytes: %v", free, taken, err)
	}
}

// Space is what the file system has for a folder, made or not, and looking at
// it makes nothing.
func TestSpace(t *testing.T) {
	dir := mountSized(t, 1<<20)
	at := filepath.Join(dir, "not", "there", "yet")
	sub, ok := OnDisk(Sub(NewDir(dir), "not/there/yet"))
	if !ok || sub.String() != at {
		t.Fatalf("OnDisk = %v, %t", sub, ok)
	}
	for _, d := range []*Dir{NewDir(dir), sub} {
		s, err := d.Space(t.Context())
		if err != nil || s.Free != 1<<20 || s.Folder != dir || s.Block != int64(os.Getpagesize()) {
			t.Errorf("%v: %+v, %v", d, s, err)
		}
	}
	writeSized(t, filepath.Join(dir, "taken"), 100_001)
	inside, _ := sub.Space(t.Context())
	if want := 1<<20 - inside.Round(100_001); inside.Free != want {
		t.Errorf("%d bytes are free, want %d", inside.Free, want)
	}
	outside, err := NewDir(filepath.Join(t.TempDir(), "new")).Space(t.Context())
	if err != nil || outside.FileSystem == inside.FileSystem {
		t.Errorf("%+v and %+v, %v", outside, inside, err)
	}
	if list, err := os.ReadDir(dir); len(list) != 1 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := NewDir("/proc/self").Space(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Space of /proc = %v", err)
	}
	if _, ok := OnDisk(newMemory()); ok {
		t.Error("memory is on a disk")
	}
}

// Blocks that are larger than a page are not what a small file takes.
func TestFileBlock(t *testing.T) {
	page := int64(os.Getpagesize())
	for block, want := range map[int64]int64{512: 512, page: page, 128 << 10: page, 4 << 20: page} {
		if got := fileBlock(block); got != want {
			t.Errorf("of a file system with blocks of %d bytes a file takes %d at a time, want %d", block, got, want)
		}
	}
}

func writeSized(t *testing.T, name string, size int) {
	t.Helper()
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What Gap says that is needed is what is needed: a block less, and the disk is
// full; and it has touched nothing.
func TestGapNeeded(t *testing.T) {
	s := small()
	for i := range 9 {
		s.addImage(fmt.Sprintf("team/large%d", i), "v1", strings.Repeat(fmt.Sprint("layer ", i), 40_000))
	}
	s.pack(t, 1<<20)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	other := small()
	other.addImage("team/other", "v1", strings.Repeat("another", 150_000))
	other.pack(t, 1<<20)
	otherRaw, otherSig := signManifest(t, other.manifest, "one")
	stale := openSet(t, otherRaw, otherSig)
	if len(set.layouts) < 3 {
		t.Fatalf("%d volumes", len(set.layouts))
	}
	last := VolumeName(len(set.layouts) - 1)
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, store *Dir)
		options GapOptions
	}{
		{"nothing", func(*testing.T, *Dir) {}, GapOptions{}},
		{"interrupted", func(t *testing.T, store *Dir) { s.begin(t, store, set, 17) }, GapOptions{}},
		{"barely begun", func(t *testing.T, store *Dir) { s.begin(t, store, set, 0) }, GapOptions{}},
		{"left with another size", func(t *testing.T, store *Dir) {
			writeSized(t, filepath.Join(store.path, last+".77777.partial"), 77_777)
		}, GapOptions{}},
		{"another set", func(t *testing.T, store *Dir) { other.begin(t, store, stale, 7) }, GapOptions{Stale: stale}},
		{"wrong", func(t *testing.T, store *Dir) {
			if err := s.writeSet(store, set); err != nil {
				t.Fatal(err)
			}
		}, GapOptions{Wrong: []string{last}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, less := range []int64{0, 1} {
				store := NewDir(mountSized(t, 64<<20))
				test.prepare(t, store)
				before, err := store.Space(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				gap, err := set.Gap(t.Context(), store, test.options)
				if err != nil {
					t.Fatal(err)
				}
				if after, err := store.Space(t.Context()); err != nil || after != before || gap.Room.Space != before {
					t.Fatalf("it was %+v and is %+v, %v", before, after, err)
				}
				leave(t, store.path, gap.Room.Needed-less*before.Block)
				if again, err := set.Gap(t.Context(), store, test.options); err != nil || again.Room.Missing() != less*before.Block {
					t.Errorf("%+v, %v, want %d missing", again, err, less*before.Block)
				}
				err = s.rewrite(t, store, set, test.options)
				if less == 0 && err != nil || less == 1 && !errors.Is(err, ErrNoSpace) {
					t.Errorf("writing with %d blocks less than %d bytes = %v", less, gap.Room.Needed, err)
				}
			}
		})
	}
}

// begin writes n parts of a set and gives up.
func (s *sample) begin(t *testing.T, store Store, set *Set, n int) {
	t.Helper()
	w, err := NewWriter(t.Context(), store, set, s.docs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		n--
		if err := w.Write(t.Context(), part, bytes.NewReader(s.blobs[part.Digest])); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the set has too few parts")
}

func (s *sample) rewrite(t *testing.T, store Store, set *Set, o GapOptions) error {
	t.Helper()
	if o.Stale != nil {
		if err := Discard(t.Context(), store, o.Stale); err != nil {
			t.Fatal(err)
		}
	}
	w, err := NewWriter(t.Context(), store, set, s.docs, o.Wrong...)
	if err != nil {
		return err
	}
	defer w.Close()
	for part, err := range w.Parts(t.Context()) {
		if err != nil {
			return err
		}
		if part.Kept {
			continue
		}
		if err := w.Write(t.Context(), part, bytes.NewReader(s.blobs[part.Digest][part.Offset:])); err != nil {
			return err
		}
	}
	return w.Finish(t.Context())
}
