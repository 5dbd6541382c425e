package layout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
)

// leave mounts a file system, has prepare write to it, and makes it have just
// so many bytes that are free; a negative number leaves it large.
func leave(t *testing.T, free int64, prepare func(dir string)) string {
	t.Helper()
	dir := storetest.Tmpfs(t, 64<<20)
	prepare(dir)
	if free >= 0 {
		storetest.Leave(t, dir, free)
	}
	return dir
}

// What a preview says that is needed is what is needed: with a block less the
// disk is full. To look writes nothing.
func TestPreviewRoom(t *testing.T) {
	sample := registrytest.Heavy("team/heavy", 300_000, 70_001)
	images := []Named{{Name: sampleName(sample), Descriptor: sample.Root}}
	content := map[string][]byte{}
	var blobs, manifests []oci.Descriptor
	for _, b := range sample.Blobs {
		content[b.Digest.String()] = b.Bytes
		blobs = append(blobs, b.Descriptor)
	}
	for _, m := range sample.Manifests {
		content[m.Digest.String()] = m.Bytes
		manifests = append(manifests, m.Descriptor)
	}
	writeAll := func(t *testing.T, s sink, list []oci.Descriptor) error {
		for _, d := range list {
			if err := s.WriteBlob(t.Context(), d, bytes.NewReader(content[d.Digest.String()])); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range sinks {
		for name, prepare := range map[string]func(dir string){
			"nothing": func(string) {},
			"left by a run that was killed": func(dir string) {
				name := filepath.Join(dir, "out.partial")
				if s.name == "folder" {
					name = filepath.Join(dir, "out", blobName(blobs[0].Digest)+fmt.Sprintf(".%d.partial", blobs[0].Size))
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, make([]byte, 50_000), 0o600)); err != nil {
					t.Fatal(err)
				}
				if s.name == "folder" {
					if err := os.WriteFile(filepath.Join(dir, "out", markerName), []byte(marker), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			},
			"a part is there": func(dir string) {
				if s.name == "archive" {
					return
				}
				out := mustMake(t, filepath.Join(dir, "out"), s.make)
				if err := errors.Join(writeAll(t, out, blobs[:1]), writeAll(t, out, manifests), out.Finish(t.Context(), images), out.Close()); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(s.name+", "+name, func(t *testing.T) {
				look := func(dir string) (*bundle.Room, []oci.Descriptor) {
					before := strings.Join(list(t, dir), "\n")
					p, err := NewPreview(t.Context(), filepath.Join(dir, "out"), s.name == "archive")
					if err != nil {
						t.Fatal(err)
					}
					var missing []oci.Descriptor
					for _, d := range blobs {
						if has, err := p.Has(t.Context(), d); err != nil {
							t.Fatal(err)
						} else if !has {
							missing = append(missing, d)
						}
					}
					room, err := p.Room(t.Context(), missing, manifests, images)
					if err != nil {
						t.Fatal(err)
					}
					if after := strings.Join(list(t, dir), "\n"); after != before {
						t.Errorf("there was %q, and is %q", before, after)
					}
					return room, missing
				}
				large, _ := look(leave(t, -1, prepare))
				for _, less := range []int64{0, 1} {
					dir := leave(t, large.Needed-less*large.Block, prepare)
					room, missing := look(dir)
					if room.Needed != large.Needed || room.Missing() != less*large.Block {
						t.Errorf("%+v, and %+v on a large disk", room, large)
					}
					out, err := s.make(filepath.Join(dir, "out"))
					if err == nil {
						err = writeAll(t, out, missing)
						if err == nil {
							err = writeAll(t, out, manifests)
						}
						if err == nil {
							err = out.Finish(t.Context(), images)
						}
						out.Close()
					}
					if less == 0 && err != nil || less == 1 && !errors.Is(err, bundle.ErrNoSpace) {
						t.Errorf("writing with %d blocks less than %d bytes = %v", less, large.Needed, err)
					}
				}
			})
		}
	}
}

// A place that can not become a layout is refused by a preview as by the run.
func TestPreviewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file.tar")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(filepath.Join(dir, "full"), 0o755), os.WriteFile(filepath.Join(dir, "full", "other"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path    string
		archive bool
	}{{file, true}, {file, false}, {filepath.Join(dir, "full"), false}} {
		if _, err := NewPreview(t.Context(), test.path, test.archive); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("%s as an archive %t: %v", test.path, test.archive, err)
		}
	}
	if _, err := NewPreview(t.Context(), filepath.Join(dir, "new"), true); err != nil {
		t.Error(err)
	}
}
