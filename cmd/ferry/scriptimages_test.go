package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/oci"
	"ferry/verify"
)

// odd are entries of layers that ferry does not make, or not as they are.
var odd = map[string][]tar.Header{
	"climbing": {{Name: "../climbed", Typeflag: tar.TypeReg}},
	"unusable": {{Name: "plain", Typeflag: tar.TypeReg}},
	"special": {
		{Name: "plain", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "setuid", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 1234, Gid: 1234},
		{Name: "null" + naughtyName, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		{Name: "fifo", Typeflag: tar.TypeFifo},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "plain"},
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
	},
}

// naughtyName is naughty without what a tar archive can not hold in a name.
const naughtyName = "\x1b[2J\u202egnp.exe\n::error::fake\u0085"

// makeImage is "image DIR KIND": an OCI image layout of one image with one
// layer of odd entries.
func makeImage(_ *scripted, ts *testscript.TestScript, args []string) error {
	entries, ok := odd[args[1]]
	if !ok {
		return fmt.Errorf("unknown kind of image %q", args[1])
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len("content"))
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if h.Size > 0 {
			w.Write([]byte("content"))
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	dir := ts.MkAbs(args[0])
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(mediaType string, content []byte) oci.Descriptor {
		d := verify.DigestOf(content)
		ts.Check(os.WriteFile(filepath.Join(blobs, d.Hex()), content, 0o644))
		return oci.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
	}
	doc := func(v any) []byte {
		content, err := json.Marshal(v)
		ts.Check(err)
		return content
	}
	l := put("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	diffID := l.Digest
	if args[1] == "unusable" { // its config is that of another layer
		diffID = verify.DigestOf(nil)
	}
	config := put(oci.MediaTypeConfig, doc(map[string]any{"os": "linux", "architecture": "amd64",
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID.String()}}}))
	manifest := put(oci.MediaTypeManifest, doc(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": config, "layers": []oci.Descriptor{l}}))
	ts.Check(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	return os.WriteFile(filepath.Join(dir, "index.json"), doc(map[string]any{"schemaVersion": 2, "manifests": []oci.Descriptor{manifest}}), 0o644)
}
