package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/verify"
)

// maxPeak, in bytes, is what a command may take at its peak, whatever it
// moves.
const maxPeak = 256 << 20

// TestLargeBlob moves a blob that is larger than what memory may be used, with
// nowhere to put temporary files: by push, export, import and copy, through
// folders and S3. With FERRY_SOAK the blob has 4 GiB, else 320 MiB.
func TestLargeBlob(t *testing.T) {
	size := int64(320 << 20)
	if os.Getenv("FERRY_SOAK") != "" {
		size = 4 << 30
	}
	outside, inside := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	s3 := storetest.StartS3(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "ferry")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	writeLargeLayout(t, filepath.Join(dir, "layout"), size)
	env := append(os.Environ(), "COSIGN_PASSWORD=one", "TMPDIR="+filepath.Join(dir, "nowhere"),
		"AWS_ACCESS_KEY_ID="+s3.AccessKey, "AWS_SECRET_ACCESS_KEY="+s3.SecretKey, "AWS_ENDPOINT_URL="+s3.Endpoint)
	bucket := "s3://" + s3.Bucket
	key, public := keyFile(t, "one.key"), keyFile(t, "one.pub")
	ref := outside.Host + "/team/large:1"
	for _, args := range [][]string{
		{"push", "layout", ref, "--allow-unsigned"},
		{"export", ref, "usb", "--key", key, "--version", "1"},
		{"export", ref, bucket + "/out", "--key", key, "--version", "1"},
		{"verify", "usb", "--key", public},
		{"copy", bucket + "/out", "copied", "--key", public},
		{"import", "usb", inside.Host + "/folder", "--key", public},
		{"import", bucket + "/out", inside.Host + "/s3", "--key", public},
	} {
		cmd := exec.Command(binary, append(args, "--progress", "none")...)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ferry %q: %v\n%s", args, err, out)
		}
		peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		t.Logf("ferry %s: %d MiB at the peak for a blob of %d MiB", args[0], peak>>20, size>>20)
		if peak > maxPeak {
			t.Errorf("ferry %q took %d bytes of memory, more than %d", args, peak, maxPeak)
		}
	}
}

func keyFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../testdata/keys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// writeLargeLayout writes an OCI image layout of one image with one layer of
// size bytes.
func writeLargeLayout(t *testing.T, dir string, size int64) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(blobs, "layer"))
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(rand.NewChaCha8([32]byte{}), size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	layer := oci.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: verify.Digest(h.Sum(nil)), Size: size}
	if err := os.Rename(f.Name(), filepath.Join(blobs, layer.Digest.Hex())); err != nil {
		t.Fatal(err)
	}
	put := func(mediaType string, v any) oci.Descriptor {
		content, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := verify.DigestOf(content)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), content, 0o644); err != nil {
			t.Fatal(err)
		}
		return oci.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
	}
	config := put(oci.MediaTypeConfig, map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest.String()}}})
	manifest := put(oci.MediaTypeManifest, map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": config, "layers": []oci.Descriptor{layer}})
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, manifest.MediaType, manifest.Digest, manifest.Size)
	for name, content := range map[string]string{"index.json": index, "oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
