package extract

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// tool returns the path of a binary that "make tools" puts into .tools/bin.
func tool(t *testing.T, name string) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above this test")
		}
		root = filepath.Dir(root)
	}
	bin := filepath.Join(root, ".tools", "bin", name)
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%s is missing: run make tools", name)
	}
	return bin
}

// TestCrane compares the merge cases with "crane export", which merges layers
// too, into an archive. Crane does not know opaque whiteouts, and leaves out
// the content of a hard link whose target an upper layer hides.
func TestCrane(t *testing.T) {
	crane := tool(t, "crane")
	compared := 0
	for _, c := range mergeCases {
		if c.path != "" || c.layers == "" || strings.Contains(c.layers, "!") || strings.Contains(c.layers, "=>") {
			continue
		}
		if slices.Contains(craneDiffers, c.name) {
			continue
		}
		img := empty.Image
		for words := range strings.SplitSeq(c.layers, "|") {
			content := archive(t, parse(words)...)
			layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
			if err == nil {
				img, err = mutate.AppendLayers(img, layer)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var saved bytes.Buffer
		ref, err := name.NewTag("test/image:1")
		if err == nil {
			err = tarball.Write(ref, img, &saved)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), crane, "export", "-", "-")
		cmd.Stdin = &saved
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: crane: %v", c.name, err)
		}
		want := strings.Fields(c.want)
		slices.Sort(want)
		if got := flattened(t, out); !slices.Equal(got, want) {
			t.Errorf("%s: crane makes %q of %q, want %q", c.name, got, c.layers, want)
		}
		compared++
	}
	if compared < 20 {
		t.Errorf("compared only %d cases", compared)
	}
}

// craneDiffers are cases that crane sees otherwise than the specification, and
// than the kernel (see TestOverlay): it does not imply directories, does not
// see that a file between two directories cuts them apart, and lets a whiteout
// of a directory hide what its own layer has there.
var craneDiffers = []string{
	"implied directory over file",
	"directory, file, directory",
	"directory, file, implied directory",
	"upper directory, middle file",
	"whiteout leaves the directory",
	"whiteout and new directory",
}

// flattened returns what an archive has, as list does.
func flattened(t *testing.T, content []byte) []string {
	t.Helper()
	lines := make(map[string]bool)
	r := tar.NewReader(bytes.NewReader(content))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		for dir := range parents(name) {
			lines[dir+"/"] = true
		}
		switch h.Typeflag {
		case tar.TypeDir:
			lines[name+"/"] = true
		case tar.TypeSymlink:
			lines[name+"->"+h.Linkname] = true
		default:
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			lines[name+"="+string(b)] = true
		}
	}
	var all []string
	for line := range lines {
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}
