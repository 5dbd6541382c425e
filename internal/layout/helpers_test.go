package layout

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file is an entry of a tar archive; its name says whether it is a folder.
type file struct{ name, content, link string }

// tarOf returns an archive of files, as GNU tar would write it.
func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Typeflag: tar.TypeReg, Linkname: f.link}
		switch {
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// write writes content to a new file and returns its path.
func write(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string) *Source {
	t.Helper()
	s, err := tryOpen(t, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func gzipOf(t testing.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstdOf(t testing.TB, content string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(content), nil))
}

func digestOf(content string) verify.Digest { return verify.DigestOf([]byte(content)) }

// descriptorOf returns the descriptor of a manifest.
func descriptorOf(content string) oci.Descriptor {
	return oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: digestOf(content), Size: int64(len(content))}
}

// readBlob returns the content of a blob, which has its digest.
func readBlob(s *Source, d oci.Descriptor) ([]byte, error) {
	r, err := s.OpenBlob(context.Background(), d.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(verify.NewReader(r, d.Digest, d.Size))
}

// checkImage reads all that d leads to and returns how many manifests and
// blobs that is, each time it is led to.
func checkImage(t testing.TB, s *Source, d oci.Descriptor) (manifests, blobs int) {
	t.Helper()
	content, err := s.Manifest(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oci.Parse(content, d.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range m.Manifests {
		c, b := checkImage(t, s, child)
		manifests, blobs = manifests+c, blobs+b
	}
	for _, blob := range m.Blobs() {
		if _, err := readBlob(s, blob); err != nil {
			t.Errorf("reading %s of %s: %v", blob.Digest, d.Digest, err)
		}
		if size, ok := s.Size(t.Context(), blob.Digest); !ok || size != blob.Size {
			t.Errorf("Size(%s) = %d, %t, want %d", blob.Digest, size, ok, blob.Size)
		}
		blobs++
	}
	return manifests + 1, blobs
}

// systemTool returns the path of a program that Debian has.
func systemTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: run make tools", name)
		}
		t.Skipf("%s is missing: run make tools", name)
	}
	return path
}

// run returns what a program prints.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, talk.String())
	}
	return out.String()
}

// sink is what [Folder] and [Archive] have in common.
type sink interface {
	Has(ctx context.Context, d oci.Descriptor) (bool, error)
	WriteBlob(ctx context.Context, d oci.Descriptor, r io.Reader) error
	Finish(ctx context.Context, images []Named) error
	Close() error
}

var (
	_ sink = (*Folder)(nil)
	_ sink = (*Archive)(nil)
)

// sinkKind makes one kind of sink at a path.
type sinkKind struct {
	name string
	make func(path string) (sink, error)
}

var sinks = []sinkKind{
	{"folder", func(path string) (sink, error) { return NewFolder(path) }},
	{"archive", func(path string) (sink, error) { return NewArchive(path) }},
}

// eachSink runs a test for both.
func eachSink(t *testing.T, test func(t *testing.T, path string, make func(path string) (sink, error))) {
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			test(t, filepath.Join(t.TempDir(), "out"), s.make)
		})
	}
}

// mustMake makes a sink that is closed when the test ends.
func mustMake(t testing.TB, path string, make func(path string) (sink, error)) sink {
	t.Helper()
	s, err := make(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// put writes samples to a sink, each under the tags of its image with its
// number before them, and finishes it.
func put(t testing.TB, s sink, samples ...*registrytest.Sample) {
	t.Helper()
	var names []Named
	for _, sample := range samples {
		for _, c := range slices.Concat(sample.Blobs, sample.Manifests) {
			if err := s.WriteBlob(t.Context(), c.Descriptor, bytes.NewReader(c.Bytes)); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, Named{sampleName(sample), sample.Root})
	}
	if err := s.Finish(t.Context(), names); err != nil {
		t.Fatal(err)
	}
}

// sampleName is what put calls a sample; regctl wants nothing but a tag.
func sampleName(s *registrytest.Sample) string {
	return strings.ReplaceAll(s.Repository, "/", "-") + "-" + s.ImageTags()[0]
}

// list returns the paths of all files below dir that are no folders.
func list(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}
