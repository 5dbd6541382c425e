package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layerSpec says what is in a layer.
type layerSpec struct {
	paths []string          // files and folders of the Go installation
	arch  string            // take only what is for this architecture
	text  map[string]string // small files by path
	plain bool              // not compressed
}

// goDir is where the files of the Go installation are in an image.
const goDir = "usr/local/go/"

// make returns the layer, the same bytes for the same files.
func (s layerSpec) make(goroot string) (mutate.Addendum, error) {
	var layer v1.Layer
	var b bytes.Buffer
	if s.plain {
		if err := s.writeTar(&b, goroot); err != nil {
			return mutate.Addendum{}, err
		}
		layer = static.NewLayer(b.Bytes(), types.OCIUncompressedLayer)
	} else {
		w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err == nil {
			err = s.writeTar(w, goroot)
		}
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
			layer, err = tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
		}
		if err != nil {
			return mutate.Addendum{}, err
		}
	}
	from := strings.Join(append(slices.Sorted(maps.Keys(s.text)), s.paths...), " ")
	return mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: madeAt}, CreatedBy: "COPY " + from}}, nil
}

func (s layerSpec) writeTar(out io.Writer, goroot string) error {
	w := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(s.text)) {
		if err := writeFile(w, name, 0o644, []byte(s.text[name])); err != nil {
			return err
		}
	}
	root := os.DirFS(goroot)
	for _, path := range s.paths {
		err := fs.WalkDir(root, path, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("the Go installation %s: %w", goroot, err)
			}
			if !e.Type().IsRegular() || s.arch != "" && !isFor(e.Name(), s.arch) {
				return nil
			}
			content, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			mode := int64(0o644)
			if strings.HasPrefix(path, "bin/") {
				mode = 0o755
			}
			return writeFile(w, goDir+path, mode, content)
		})
		if err != nil {
			return err
		}
	}
	return w.Close()
}

// isFor reports whether a source file is for one architecture only.
func isFor(name, arch string) bool {
	return strings.HasSuffix(name, "_"+arch+".s") || strings.HasSuffix(name, "_"+arch+".go")
}

func writeFile(w *tar.Writer, name string, mode int64, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: madeAt}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
