package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ferry/internal/faultproxy"
	"ferry/internal/registrytest"
)

// disk is a small file system on which something was before.
type disk struct {
	*killSite
	place string // below k.dir
	used  int64  // bytes that were taken before
}

// newDisk makes a disk with room for so many bytes more, or for all when it is
// negative.
func (k *killSite) newDisk(t testing.TB, trial *killTrial, place string, room int64) *disk {
	t.Helper()
	d := &disk{killSite: k, place: place}
	if err := os.Mkdir(d.path(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mount(d.path(), 64<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(d.path(), syscall.MNT_DETACH) }) // of a test that has failed
	trial.prepare(t, place)
	d.used = d.taken(t)
	if room >= 0 {
		d.resize(t, d.used+room)
	}
	return d
}

func (d *disk) path() string { return filepath.Join(d.dir, d.place) }

// taken returns how many bytes of the disk are in use.
func (d *disk) taken(t testing.TB) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.path(), &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks-s.Bfree) * s.Bsize
}

func (d *disk) resize(t testing.TB, size int64) {
	t.Helper()
	if err := syscall.Mount("", d.path(), "", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) remove(t testing.TB) {
	t.Helper()
	if err := errors.Join(unmount(d.path()), os.Remove(d.path())); err != nil {
		t.Fatal(err)
	}
}

// fill takes all room that the disk has left.
func (d *disk) fill(t testing.TB) {
	f, err := os.Create(filepath.Join(d.path(), "ballast"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := io.Copy(f, zeroReader{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("filling the disk: %v", err)
	}
}

func (d *disk) empty(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(d.path(), "ballast")); err != nil {
		t.Fatal(err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// diskTrials are the transfers that write to a disk.
func (k *killSite) diskTrials() []killTrial {
	layout := k.folderTrial("import to a layout", func(place string) []string {
		return []string{"import", "s3://" + k.s3.Bucket + "/usb/n/1", "./" + place + "/layout", "--key", k.public}
	})
	layout.arrived = func(t testing.TB, place string) {
		k.checkBundles(t, filepath.Join(k.dir, place), false)
		for _, s := range k.samples {
			for _, want := range slices.Concat(s.Blobs, s.Manifests) {
				name := filepath.Join(k.dir, place, "layout/blobs/sha256", want.Digest.Hex())
				if content, err := os.ReadFile(name); !bytes.Equal(content, want.Bytes) {
					t.Errorf("%s is not in the layout: %d bytes, %v", want.Digest, len(content), err)
				}
			}
		}
		if missing(filepath.Join(k.dir, place, "layout/index.json")) {
			t.Error("the layout has no index.json")
		}
	}
	archive := k.folderTrial("pull to an archive", func(place string) []string {
		return []string{"pull", k.refs[0], place + "/pulled.tar", "--plain-http", k.out.Host}
	})
	archive.arrived = func(t testing.TB, place string) {
		k.checkBundles(t, filepath.Join(k.dir, place), false)
		content, err := os.ReadFile(filepath.Join(k.dir, place, "pulled.tar"))
		if err != nil {
			t.Error(err)
		}
		for _, b := range k.samples[0].Blobs {
			if !strings.Contains(string(content), string(b.Bytes)) {
				t.Errorf("%s is not in the archive", b.Digest)
			}
		}
	}
	return []killTrial{k.exportTrial(), k.copyTrial(), layout, archive}
}

// visible are what a folder has when a transfer is complete. A volume may have
// been finished before: its room is taken when it is begun.
var visible = []string{"n/1/bundle.json", "layout/index.json", "pulled.tar"}

// mustBeFull runs a command that must find the disk full, and checks that
// nothing of what it makes can be seen, and that what was there is as it was.
func (d *disk) mustBeFull(t testing.TB, trial *killTrial, what string) {
	t.Helper()
	code, talk := d.try(t, trial)
	if code != exitNoSpace || !strings.Contains(talk, "ferry: hint: ") {
		t.Errorf("%s: ferry ended with %d, want %d\n%s", what, code, exitNoSpace, talk)
	}
	trial.killed(t, d.place)
	for _, name := range visible {
		if !missing(filepath.Join(d.path(), name)) {
			t.Errorf("%s: %s is there", what, name)
		}
	}
}

// try runs the command and returns its exit code and what it says.
func (d *disk) try(t testing.TB, trial *killTrial) (int, string) {
	t.Helper()
	out, err := ferryCommand(t, d.dir, trial.args(d.place)...).CombinedOutput()
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0, string(out)
	case errors.As(err, &exit):
		return exit.ExitCode(), string(out)
	}
	t.Fatal(err)
	return 0, ""
}

const diskLayer = 1 << 20 // bytes of the largest layers

// TestDisk gives transfers disks that are too small.
func TestDisk(t *testing.T) {
	if !canMount() && os.Getenv("CI") != "" {
		t.Fatal("mounting a tmpfs needs root")
	} else if !canMount() {
		t.Skip("mounting a tmpfs needs root")
	}
	k := newKillSite(t, diskLayer, 200<<10, diskLayer)
	for i, trial := range k.diskTrials() {
		t.Run(trial.name, func(t *testing.T) {
			k.TB = t
			t.Run("sizes", func(t *testing.T) { k.testDiskSizes(t, trial, fmt.Sprintf("sizes%d", i)) })
			t.Run("filled", func(t *testing.T) { k.testDiskFillsUp(t, trial, fmt.Sprintf("filled%d", i)) })
		})
	}
}

// testDiskSizes gives a transfer a disk with room from 0 to a tenth more than
// it needs, in 20 steps with FERRY_SOAK and in 3 without: too small a disk is
// exit code 7 and harms nothing, and with room added the same command ends
// well.
func (k *killSite) testDiskSizes(t *testing.T, trial killTrial, place string) {
	whole := k.newDisk(t, &trial, place, -1)
	mustFerry(t, k.dir, trial.args(place)...)
	need := whole.taken(t) - whole.used
	whole.remove(t)
	full, steps := 0, int64(choose(20, 3))
	for step := range steps + 1 {
		room := need * 11 / 10 * step / steps
		d := k.newDisk(t, &trial, fmt.Sprintf("%s-%d", place, step), room)
		if room < need {
			full++
			d.mustBeFull(t, &trial, fmt.Sprintf("room for %d bytes of %d", room, need))
			d.resize(t, 64<<20)
			mustFerry(t, k.dir, trial.args(d.place)...)
		} else if code, talk := d.try(t, &trial); code != 0 {
			t.Errorf("room for %d bytes where %d are needed: ferry ended with %d\n%s", room, need, code, talk)
		}
		trial.arrived(t, d.place)
		d.remove(t)
	}
	t.Logf("%d bytes are needed; the disk was full at %d of %d steps", need, full, steps+1)
}

// testDiskFillsUp: somebody else takes the room while a transfer is under way,
// after ferry has seen that there is enough.
func (k *killSite) testDiskFillsUp(t *testing.T, trial killTrial, place string) {
	s3 := faultproxy.Start(t, k.s3.Endpoint, faultproxy.Options{})
	t.Setenv("AWS_ENDPOINT_URL", s3.URL)
	d := k.newDisk(t, &trial, place, -1)
	var once sync.Once
	filled := false
	hook := faultproxy.Fault{Match: func(r *http.Request) bool {
		if asksForLayer(r, k.samples[0]) {
			once.Do(func() { d.fill(t); filled = true })
		}
		return false
	}}
	k.out.Add(hook)
	s3.Add(hook)
	d.mustBeFull(t, &trial, "amid the transfer")
	k.out.Clear()
	if !filled {
		t.Error("nobody has asked for the layer")
	}
	d.empty(t)
	mustFerry(t, k.dir, trial.args(d.place)...)
	trial.arrived(t, d.place)
	d.remove(t)
}

// asksForLayer reports whether a request is for the largest layer of a sample:
// of a registry by its digest, of S3 by the length of its range, with which a
// tar header comes.
func asksForLayer(r *http.Request, s *registrytest.Sample) bool {
	if strings.HasSuffix(r.URL.Path, "/blobs/"+s.Blobs[0].Digest.String()) {
		return r.Method == http.MethodGet
	}
	var from, to int64
	_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
	return err == nil && to-from+1 == s.Blobs[0].Size+512
}
