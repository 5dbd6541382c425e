package main

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
)

// changeEvery is how often a file of the second version is another: 3% are.
const changeEvery = 33

// maxSample, in bytes, keeps single files from being most of a layer.
const maxSample = 8 << 20

// layer is a compressed tar in a file of its own.
type layer struct {
	file           string
	digest, diffID string
	size           int64 // bytes, compressed
}

// layerWriter makes a layer.
type layerWriter struct {
	file       *os.File
	compressed counter
	plain      hash.Hash
	gz         *gzip.Writer
	tar        *tar.Writer
}

// counter counts and hashes what is written.
type counter struct {
	hash hash.Hash
	n    int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.hash.Write(p)
}

func newLayerWriter(folder string) (*layerWriter, error) {
	f, err := os.CreateTemp(folder, "layer")
	if err != nil {
		return nil, err
	}
	w := &layerWriter{file: f, compressed: counter{hash: sha256.New()}, plain: sha256.New()}
	w.gz, err = gzip.NewWriterLevel(io.MultiWriter(f, &w.compressed), gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	w.tar = tar.NewWriter(io.MultiWriter(w.gz, w.plain))
	return w, nil
}

func (w *layerWriter) add(s sample) error {
	header := &tar.Header{Name: s.name, Mode: 0o644, Size: int64(len(s.data)), ModTime: time.Unix(1700000000, 0), Format: tar.FormatPAX}
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.tar.Write(s.data)
	return err
}

func (w *layerWriter) close() (layer, error) {
	for _, c := range []io.Closer{w.tar, w.gz, w.file} {
		if err := c.Close(); err != nil {
			return layer{}, err
		}
	}
	l := layer{digest: digestOf(w.compressed.hash), diffID: digestOf(w.plain), size: w.compressed.n}
	l.file = filepath.Join(filepath.Dir(w.file.Name()), l.digest[len("sha256:"):])
	return l, os.Rename(w.file.Name(), l.file)
}

func digestOf(h hash.Hash) string { return fmt.Sprintf("sha256:%x", h.Sum(nil)) }

// makeLayers makes a layer of at least size compressed bytes, and its second
// version. first is how many files the layers before it have.
func makeLayers(m *material, folder string, size int64, first int) (v1, v2 layer, files int, err error) {
	old, err := newLayerWriter(folder)
	if err != nil {
		return v1, v2, 0, err
	}
	changed, err := newLayerWriter(folder)
	if err != nil {
		return v1, v2, 0, err
	}
	limit := min(maxSample, max(size/2, 4<<10))
	for old.compressed.n < size {
		s, err := m.take(limit)
		if err != nil {
			return v1, v2, 0, err
		}
		if err := old.add(s); err != nil {
			return v1, v2, 0, err
		}
		if (first+files)%changeEvery == 0 {
			s.data = change(s.data)
		}
		if err := changed.add(s); err != nil {
			return v1, v2, 0, err
		}
		files++
	}
	if v1, err = old.close(); err != nil {
		return v1, v2, 0, err
	}
	v2, err = changed.close()
	return v1, v2, files, err
}

// change returns data with a line put into its middle.
func change(data []byte) []byte {
	middle := len(data) / 2
	return slices.Concat(data[:middle], []byte("changed in the second version\n"), data[middle:])
}
