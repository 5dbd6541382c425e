package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// maxResident, in bytes, is what a command may take of memory at its peak.
const maxResident = 160 << 20

// vast is a registry with one image, whose only layer is zeros and takes
// neither disk nor memory. The layer can be pushed too.
type vast struct {
	*registrytest.Server
	image *registrytest.Sample // without the layer
	layer oci.Descriptor
	has   atomic.Bool // the layer was pushed
}

type zeroFile struct{}

func (zeroFile) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// zeroLayer returns the descriptor of a layer of size zeros.
func zeroLayer(t *testing.T, size int64) oci.Descriptor {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(zeroFile{}, 0, size)); err != nil {
		t.Fatal(err)
	}
	return oci.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: verify.Digest(h.Sum(nil)), Size: size}
}

// newVast returns a registry for an image with that layer; full says that it
// has the image from the beginning.
func newVast(t *testing.T, layer oci.Descriptor, full bool) *vast {
	t.Helper()
	v := &vast{layer: layer}
	memory := registrytest.MemoryHandler(true)
	v.Server = registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v.serve(memory, w, r) }), registrytest.Options{})
	content := func(mediaType string, value any) registrytest.Content {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return registrytest.Content{Descriptor: oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(raw), Size: int64(len(raw))}, Bytes: raw}
	}
	config := content(oci.MediaTypeConfig, map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest.String()}}})
	manifest := content(oci.MediaTypeManifest, map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": config.Descriptor, "layers": []oci.Descriptor{layer}})
	v.image = &registrytest.Sample{Repository: "team/vast", Tags: map[string]verify.Digest{"1": manifest.Digest}, Root: manifest.Descriptor,
		Blobs: []registrytest.Content{config}, Manifests: []registrytest.Content{manifest}}
	if full {
		v.has.Store(true)
		if err := v.image.Push(t.Context(), v.Host); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v *vast) serve(memory http.Handler, w http.ResponseWriter, r *http.Request) {
	upload := strings.Contains(r.URL.Path, "/blobs/uploads/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/blobs/"+v.layer.Digest.String()):
		if !v.has.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeroFile{}, 0, v.layer.Size))
	case upload && r.Method == http.MethodPatch && r.ContentLength == v.layer.Size:
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", r.URL.Path)
		w.Header().Set("Range", fmt.Sprintf("0-%d", n-1))
		w.WriteHeader(http.StatusAccepted)
	case upload && r.Method == http.MethodPut && r.URL.Query().Get("digest") == v.layer.Digest.String():
		v.has.Store(true)
		w.WriteHeader(http.StatusCreated)
	default:
		memory.ServeHTTP(w, r)
	}
}

// sparse is a folder in which bundles are written without the zeros in them.
type sparse struct {
	bundle.Store
	path string
}

type sparseUpload struct{ file *os.File }

func (s sparse) Create(_ context.Context, name string, size int64) (bundle.Upload, error) {
	f, err := os.Create(filepath.Join(s.path, name))
	if err != nil {
		return nil, err
	}
	return sparseUpload{f}, f.Truncate(size)
}

func (u sparseUpload) WriteAt(_ context.Context, p []byte, off int64) error {
	if len(bytes.Trim(p, "\x00")) == 0 {
		return nil
	}
	_, err := u.file.WriteAt(p, off)
	return err
}

func (u sparseUpload) Kept() io.ReaderAt            { return nil }
func (u sparseUpload) Commit(context.Context) error { return nil }
func (u sparseUpload) Close() error                 { return u.file.Close() }

// exportSparse writes a bundle of the image of v into the folder dir, where it
// takes no more of the disk than a small one.
func exportSparse(t *testing.T, v *vast, dir string) {
	t.Helper()
	pem, err := os.ReadFile(testKey(t, "one.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := verify.LoadSigner(pem, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(v.Host + "/team/vast:1")
	if err != nil {
		t.Fatal(err)
	}
	client := registry.New(registry.Options{HTTP: storetest.Client(t), PlainHTTP: []string{v.Host}})
	selection, err := transfer.Resolve(t.Context(), client, []transfer.Request{{Reference: ref, Source: ref.String()}}, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	o := transfer.ExportOptions{Name: "n", Version: "1", Now: time.Now(), Progress: transfer.Silent{}, Say: t.Logf}
	plan, err := transfer.PlanExport(t.Context(), selection, sparse{bundle.NewDir(dir), dir}, signer, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Export(t.Context(), plan, client, o); err != nil {
		t.Fatal(err)
	}
}

var peakPattern = regexp.MustCompile(`(?m)^VmHWM:\s+([0-9]+) kB$`)

// peakOf runs ferry and returns how many bytes of memory it took at its peak.
// The usage that wait4 returns would be that of the test where it is more.
func peakOf(t *testing.T, dir string, args ...string) int64 {
	t.Helper()
	cmd := ferryCommand(t, dir, args...)
	status := filepath.Join(dir, "status")
	cmd.Env = append(cmd.Env, "FERRY_TEST_STATUS="+status)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ferry %q: %v\n%s", args, err, out)
	}
	content, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	found := peakPattern.FindSubmatch(content)
	if found == nil {
		t.Fatalf("Linux tells no peak:\n%s", content)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestMemory measures the peak of memory for a small and for a large bundle of
// one layer of zeros. With FERRY_SOAK they have 1 GiB and, for the commands
// that write them nowhere, 20 GiB, else 4 GiB; without 32 and 192 MiB.
func TestMemory(t *testing.T) {
	small := measureMemory(t, choose[int64](1<<30, 32<<20), true)
	large := measureMemory(t, choose[int64](20<<30, 192<<20), !soak())
	if soak() {
		for verb, peak := range measureMemory(t, 4<<30, true) {
			if large[verb] == 0 {
				large[verb] = peak
			}
		}
	}
	for verb, peak := range large {
		t.Logf("%s: %d MiB at the peak, %d MiB for the small bundle", verb, peak>>20, small[verb]>>20)
		if most := max(peak, small[verb]); most > maxResident {
			t.Errorf("%s took %d bytes of memory, more than %d", verb, most, maxResident)
		}
		// The small ones of CI do not fill all buffers. Of buffers of 8 MiB it
		// is chance how many wait for the collector: 14% once, see docs/soak.md.
		if ratio := float64(peak) / float64(small[verb]); soak() && (ratio > 1.25 || ratio < 0.8) {
			t.Errorf("%s took %.2f times as much for the large bundle", verb, ratio)
		}
	}
}

// measureMemory returns the peak in bytes of each verb for a bundle of that
// size. Verbs that write it to a disk are among them when written is set;
// otherwise the bundle is a sparse file.
func measureMemory(t *testing.T, size int64, written bool) map[string]int64 {
	t.Helper()
	layer, dir := zeroLayer(t, size), t.TempDir()
	outside, inside := newVast(t, layer, true), newVast(t, layer, false)
	key, public := testKey(t, "one.key"), testKey(t, "one.pub")
	peaks := map[string]int64{}
	measure := func(name string, args ...string) { peaks[name] = peakOf(t, dir, args...) }
	usb := filepath.Join(dir, "usb")
	if written {
		s3 := storetest.StartS3(t)
		bucket := "s3://" + s3.Bucket + "/b"
		measure("export to a folder", "export", outside.Host+"/team/vast:1", usb, "--key", key, "--name", "n", "--version", "1")
		measure("copy to S3", "copy", "usb/n/1", bucket, "--key", public)
		measure("copy from S3", "copy", bucket+"/n/1", "copied", "--key", public)
		if err := os.RemoveAll(filepath.Join(dir, "copied")); err != nil {
			t.Fatal(err)
		}
		measure("import from S3", "import", bucket+"/n/1", newVast(t, layer, false).Host+"/p", "--key", public)
		if err := os.RemoveAll(s3.File("b")); err != nil {
			t.Fatal(err)
		}
	} else {
		exportSparse(t, outside, usb)
	}
	measure("verify", "verify", "usb/n/1", "--key", public)
	measure("import", "import", "usb/n/1", inside.Host+"/p", "--key", public)
	if !inside.has.Load() {
		t.Error("the layer has not arrived")
	}
	if err := os.RemoveAll(usb); err != nil {
		t.Fatal(err)
	}
	return peaks
}

// TestFewFiles runs the commands with 64 file descriptors and 16 jobs, on a
// bundle of many volumes and an image of many layers.
func TestFewFiles(t *testing.T) {
	outside, inside := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	s3 := storetest.StartS3(t)
	dir := t.TempDir()
	var sizes []int
	for range 50 {
		sizes = append(sizes, 700<<10)
	}
	samples := []*registrytest.Sample{sampleOf(t, "team/thirty"), sampleOf(t, "team/signed"), registrytest.Heavy("team/heavy", sizes...)}
	if err := registrytest.PushAll(t.Context(), outside.Host, samples); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, s := range samples {
		for _, tag := range s.ImageTags() {
			refs = append(refs, outside.Host+"/"+s.Repository+":"+tag)
		}
	}
	few := func(args ...string) {
		t.Helper()
		args = append(args, "--jobs", "16")
		cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", `ulimit -n 64; exec ferry "$@"`, "sh"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("ferry %q: %v\n%s", args, err, out)
		}
	}
	key, public := testKey(t, "one.key"), testKey(t, "one.pub")
	bucket := "s3://" + s3.Bucket + "/few"
	export := append(append([]string{"export"}, refs...), "--key", key, "--name", "n", "--version", "1", "--volume-size", "1MiB")
	few(append(export, "usb")...)
	few(append(export, bucket)...)
	few("copy", "usb/n/1", "copied", "--key", public)
	few("copy", bucket+"/n/1", "copied-from-s3", "--key", public)
	few("verify", "usb/n/1", "--key", public)
	few("import", "usb/n/1", inside.Host+"/folder", "--key", public)
	few("import", bucket+"/n/1", inside.Host+"/s3", "--key", public)
	few("import", "usb/n/1", "./layout", "--key", public, "--state", "another-site")
	few("pull", refs[0], "pulled.tar")
	few("extract", refs[0], "extracted")
	s := &scripted{site: &site{}, TB: t}
	for _, sample := range samples {
		for _, project := range []string{"folder", "s3"} {
			if err := s.sampleArrived(sample, "http://"+inside.Host+"/v2/"+project+"/"+sample.Repository); err != nil {
				t.Error(err)
			}
		}
	}
}
