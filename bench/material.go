package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sample is one file to put into a layer.
type sample struct {
	name string
	data []byte
}

// material gives files, one after the other and each once: from the folders in
// turn, and when they are used up, files of bytes from a generator with a
// fixed seed. The order is that of the names.
type material struct {
	next    []func() (string, bool)
	stop    []func()
	turn    int
	names   []string // what the names in images begin with, by folder
	folders []string
	made    int   // files of the generator
	filled  int64 // and their bytes
	random  *rand.ChaCha8
}

// newMaterial returns the files below folders. The caller closes it.
func newMaterial(names, folders []string) *material {
	m := &material{names: names, folders: folders, random: rand.NewChaCha8([32]byte([]byte("ferry bench: material, seed no 1")))}
	for _, folder := range folders {
		next, stop := iter.Pull(filesBelow(folder))
		m.next, m.stop = append(m.next, next), append(m.stop, stop)
	}
	return m
}

func (m *material) close() {
	for _, stop := range m.stop {
		stop()
	}
}

// filesBelow yields the names of all regular files in a folder, sorted within
// each folder. What can not be read is left out, and so is what the go command
// keeps about versions, which changes without any module changing.
func filesBelow(folder string) iter.Seq[string] {
	return func(yield func(string) bool) {
		filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if entry.IsDir() && slices.Contains([]string{"vcs", "sumdb", "lock"}, entry.Name()) {
				return fs.SkipDir
			}
			if entry.Type().IsRegular() && filepath.Base(name) != "list" && !yield(name) {
				return fs.SkipAll
			}
			return nil
		})
	}
}

// take returns the next file, at most limit bytes of its beginning.
func (m *material) take(limit int64) (sample, error) {
	for tried := 0; tried < len(m.next); {
		i := m.turn % len(m.next)
		m.turn++
		name, ok := m.next[i]()
		if !ok {
			tried++
			continue
		}
		data, err := readSome(name, limit)
		if err != nil || len(data) == 0 {
			continue
		}
		relative, err := filepath.Rel(m.folders[i], name)
		if err != nil {
			return sample{}, err
		}
		return sample{m.names[i] + "/" + filepath.ToSlash(relative), data}, nil
	}
	return m.make(limit), nil
}

// make returns a file of the generator.
func (m *material) make(limit int64) sample {
	data := make([]byte, min(limit, 256<<10))
	for i := 0; i < len(data); i += 8 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], m.random.Uint64())
		copy(data[i:], word[:])
	}
	m.made++
	m.filled += int64(len(data))
	return sample{fmt.Sprintf("made/%06d", m.made), data}
}

func readSome(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
