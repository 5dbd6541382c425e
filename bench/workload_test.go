package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// someFiles makes a folder with files of letters and of noise.
func someFiles(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	noise := newMaterial(nil, nil)
	for i := range 100 {
		content := noise.make(2000).data
		if i%2 == 0 {
			content = bytes.Repeat([]byte(fmt.Sprintln("file", i)), 300)
		}
		name := filepath.Join(folder, fmt.Sprint("d", i%7), fmt.Sprint("f", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func sampleWorkload(t *testing.T, folder string, size int64) *workload {
	t.Helper()
	m := newMaterial([]string{"a"}, []string{folder})
	defer m.close()
	w, err := makeWorkload(t.Context(), t.TempDir(), m, size)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWorkload(t *testing.T) {
	const size = 3 << 20
	folder := someFiles(t)
	w := sampleWorkload(t, folder, size)
	if again := sampleWorkload(t, folder, size); !reflect.DeepEqual(w.plan, again.plan) {
		t.Error("the same files made another workload")
	}
	if w.material.filled == 0 {
		t.Error("100 small files were enough for 3 MiB")
	}
	var layers, offset int64
	configs := make(map[string]bool)
	for _, m := range w.plan.Manifests {
		var parsed struct{ Config struct{ Digest string } }
		if err := json.Unmarshal(m.Data, &parsed); err != nil {
			t.Fatal(err)
		}
		configs[parsed.Config.Digest] = true
	}
	digests := make(map[string]bool)
	for _, b := range w.plan.Blobs {
		if !configs[b.Digest] {
			layers += b.Size
		}
		if b.Offset != offset || digests[b.Digest] {
			t.Errorf("%s is at %d, want %d; there before: %v", b.Digest, b.Offset, offset, digests[b.Digest])
		}
		offset += b.Size
		digests[b.Digest] = true
		content, err := os.ReadFile(filepath.Join(w.folder, strings.TrimPrefix(b.Digest, "sha256:")))
		if err != nil || int64(len(content)) != b.Size || digestOfBytes(content) != b.Digest {
			t.Errorf("%s of %d bytes is %s of %d, %v", b.Digest, b.Size, digestOfBytes(content), len(content), err)
		}
	}
	if layers < size {
		t.Errorf("%d bytes of layers, want at least %d", layers, size)
	}
}

func TestWorkloadShape(t *testing.T) {
	w := sampleWorkload(t, someFiles(t), 1<<20)
	images := make(map[string]planManifest)
	for _, m := range w.plan.images() {
		images[m.Repository+":"+m.Tag] = m
	}
	if len(images) != 24 {
		t.Errorf("%d tags, want 24", len(images))
	}
	changed := 0 // an image of less than 33 files may have none that changes
	for name, v1 := range images {
		if repository, ok := strings.CutSuffix(name, ":v1"); ok && v1.Digest != images[repository+":v2"].Digest {
			changed++
		}
	}
	if changed < 6 {
		t.Errorf("%d of 12 images have a second version", changed)
	}
	var many struct{ Layers []descriptor }
	if err := json.Unmarshal(images["bench/many:v1"].Data, &many); err != nil || len(many.Layers) != 30 {
		t.Errorf("bench/many has %d layers, %v", len(many.Layers), err)
	}
	var multi struct{ Manifests []descriptor }
	if err := json.Unmarshal(images["bench/multi:v2"].Data, &multi); err != nil || len(multi.Manifests) != 2 {
		t.Errorf("bench/multi has %d manifests, %v", len(multi.Manifests), err)
	}
	if !slices.ContainsFunc(w.plan.Blobs, func(b planBlob) bool { return len(b.Repositories) == 6 }) {
		t.Error("no blob is shared by five images and the index")
	}
}

// TestVersions checks that 3% of the files of a second version are others.
func TestVersions(t *testing.T) {
	m := newMaterial(nil, nil) // all made, 4 KiB each
	v1, v2, files, err := makeLayers(m, t.TempDir(), 8<<10, 0)
	if err != nil || files < 2 {
		t.Fatal(files, err)
	}
	old, changed := untar(t, v1), untar(t, v2)
	differ := 0
	for name, content := range old {
		if content != changed[name] {
			differ++
		}
	}
	if differ != 1 || len(old) != files || len(changed) != files {
		t.Errorf("%d of %d and %d files differ, want 1 of %d", differ, len(old), len(changed), files)
	}
	same, other, _, err := makeLayers(m, t.TempDir(), 8<<10, 1)
	if err != nil || same.digest != other.digest {
		t.Errorf("files 2 to 32 differ between the versions, %v", err)
	}
}

func untar(t *testing.T, l layer) map[string]string {
	t.Helper()
	f, err := os.Open(l.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(gz)
	if err != nil || digestOfBytes(plain) != l.diffID {
		t.Fatalf("uncompressed it is %s, want %s, %v", digestOfBytes(plain), l.diffID, err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(bytes.NewReader(plain)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		content, errRead := io.ReadAll(r)
		if err != nil || errRead != nil {
			t.Fatal(err, errRead)
		}
		files[header.Name] = string(content)
	}
}

func TestMaterial(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		one + "/b": "bb", one + "/a": "0123456789", one + "/empty": "", one + "/z/list": "no", one + "/vcs/x": "no", two + "/c": "c",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := newMaterial([]string{"one", "two"}, []string{one, two})
	defer m.close()
	var got []string
	for range 5 {
		s, err := m.take(4)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.name)
		if len(s.data) > 4 {
			t.Errorf("%s has %d bytes, want at most 4", s.name, len(s.data))
		}
	}
	if want := []string{"one/a", "two/c", "one/b", "made/000001", "made/000002"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
