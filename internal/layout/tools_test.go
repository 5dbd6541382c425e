package layout

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
)

// inSkopeo reports whether skopeo finds a sample in a layout by its name: it
// looks for media types of OCI only.
func inSkopeo(s *registrytest.Sample) bool {
	return s.Root.MediaType == oci.MediaTypeManifest || s.Root.MediaType == oci.MediaTypeIndex
}

// ociImage reports whether a sample is an image of one platform in OCI's form.
func ociImage(s *registrytest.Sample) bool {
	return s.Files != nil && s.Root.MediaType == oci.MediaTypeManifest
}

// What ferry writes is read by skopeo, regctl, crane, GNU tar and bsdtar.
func TestToolsRead(t *testing.T) {
	skopeo, bsdtar, gnutar := systemTool(t, "skopeo"), systemTool(t, "bsdtar"), systemTool(t, "tar")
	regctl, crane := registrytest.Tool(t, "regctl"), registrytest.Tool(t, "crane")
	samples := registrytest.Samples()
	dir := t.TempDir()
	folder, archive := filepath.Join(dir, "folder"), filepath.Join(dir, "archive.tar")
	for path, make := range map[string]func(string) (sink, error){folder: sinks[0].make, archive: sinks[1].make} {
		s := mustMake(t, path, make)
		put(t, s, samples...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	for _, s := range samples {
		want, _ := s.Manifest(s.Root.Digest)
		for _, ref := range []string{"oci:" + folder + ":" + sampleName(s), "oci-archive:" + archive + ":" + sampleName(s)} {
			if !inSkopeo(s) {
				continue
			}
			if got := run(t, skopeo, "inspect", "--raw", ref); got != string(want) {
				t.Errorf("skopeo inspect %s = %s, want %s", ref, got, want)
			}
		}
		if got := run(t, regctl, "manifest", "get", "--format", "raw-body", "ocidir://"+folder+":"+sampleName(s)); got != string(want) {
			t.Errorf("regctl manifest get = %s, want %s", got, want)
		}
		if !ociImage(s) && !strings.HasPrefix(s.Repository, "team/multi") {
			continue
		}
		// skopeo checks every blob that it copies.
		out := filepath.Join(dir, "copied-"+sampleName(s))
		run(t, skopeo, "copy", "-q", "--all", "oci-archive:"+archive+":"+sampleName(s), "dir:"+out)
		if got, err := os.ReadFile(filepath.Join(out, "manifest.json")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("skopeo copy of %s: %s, %v", s.Name, got, err)
		}
	}

	listed := run(t, gnutar, "tf", archive)
	if got := run(t, bsdtar, "tf", archive); got != listed {
		t.Errorf("bsdtar lists %q, tar %q", got, listed)
	}
	lines := strings.Split(strings.TrimSuffix(listed, "\n"), "\n")
	if len(lines) < 30 || lines[0] != markerName || lines[len(lines)-1] != indexName {
		t.Errorf("tar lists %q", lines)
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := os.Mkdir(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, gnutar, "xf", archive, "-C", unpacked)
	checkImage(t, mustOpen(t, unpacked), samples[0].Root)
	if unpackedIndex, err := os.ReadFile(filepath.Join(unpacked, indexName)); err != nil {
		t.Error(err)
	} else if folderIndex, err := os.ReadFile(filepath.Join(folder, indexName)); err != nil || !bytes.Equal(unpackedIndex, folderIndex) {
		t.Errorf("index.json of the archive and of the folder differ: %v", err)
	}

	// crane pushes a layout with one image.
	single := filepath.Join(dir, "single")
	s := mustMake(t, single, sinks[0].make)
	put(t, s, samples[0])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	registry := registrytest.Memory(t, registrytest.Options{})
	ref := registry.Host + "/team/pushed:1"
	run(t, crane, "push", "--insecure", single, ref)
	if got := strings.TrimSpace(run(t, crane, "digest", "--insecure", ref)); got != samples[0].Root.Digest.String() {
		t.Errorf("crane has pushed %s, want %s", got, samples[0].Root.Digest)
	}
}

// What skopeo writes is read, layouts unchanged and docker archives with their
// configs, and what is made of these is read by skopeo again.
func TestReadSkopeo(t *testing.T) {
	skopeo := systemTool(t, "skopeo")
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	samples := registrytest.Samples()
	s := mustMake(t, from, sinks[0].make)
	put(t, s, samples...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	images := 0
	for i, sample := range samples {
		if !ociImage(sample) {
			continue
		}
		images++
		ref := "oci:" + from + ":" + sampleName(sample)
		for _, transport := range []string{"oci:", "oci-archive:"} {
			path := filepath.Join(dir, transport[:len(transport)-1]+sampleName(sample))
			run(t, skopeo, "copy", "-q", "--preserve-digests", ref, transport+path+":demo:v1")
			src := mustOpen(t, path)
			if got := src.Images(); len(got) != 1 || !slices.Equal(got[0].Names, []string{"demo:v1"}) || got[0].Descriptor.Digest != sample.Root.Digest {
				t.Errorf("%s %s: Images() = %+v", transport, sample.Name, got)
				continue
			}
			checkImage(t, src, sample.Root)
		}

		was := sampleManifest(t, sample)
		if slices.ContainsFunc(was.Layers, func(d oci.Descriptor) bool { return d.MediaType == typeZstd }) {
			continue // skopeo makes no docker archive of it
		}
		path := filepath.Join(dir, "docker-"+sampleName(sample))
		run(t, skopeo, "copy", "-q", ref, "docker-archive:"+path+":localhost/demo:v1")
		src := mustOpen(t, path)
		got := src.Images()
		if len(got) != 1 || !slices.Equal(got[0].Names, []string{"localhost/demo:v1"}) {
			t.Errorf("docker-archive: %s: Images() = %+v", sample.Name, got)
			continue
		}
		checkImage(t, src, got[0].Descriptor)
		m := layersOf(t, src, got[0].Descriptor)
		if m.Config.Digest != was.Config.Digest || len(m.Layers) != len(was.Layers) {
			t.Errorf("docker-archive: %s: config %s and %d layers, want %s and %d", sample.Name,
				m.Config.Digest, len(m.Layers), was.Config.Digest, len(was.Layers))
		}
		if i > 2 {
			continue
		}
		out := filepath.Join(dir, "again-"+sampleName(sample))
		copyImage(t, src, got[0], out)
		run(t, skopeo, "copy", "-q", "oci:"+out+":v1", "docker-archive:"+out+".tar:localhost/demo:v1")
		if got := mustOpen(t, out+".tar").Images(); len(got) != 1 || got[0].Descriptor.Digest != src.Images()[0].Descriptor.Digest {
			t.Errorf("%s comes back from skopeo as %+v", sample.Name, got)
		}
	}
	if images < 3 {
		t.Errorf("%d images were copied, want 3 at least", images)
	}
}

// sampleManifest returns the manifest of a sample, parsed.
func sampleManifest(t testing.TB, s *registrytest.Sample) *oci.Manifest {
	t.Helper()
	content, _ := s.Manifest(s.Root.Digest)
	m, err := oci.Parse(content, s.Root.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// copyImage copies an image into a folder, under the name v1.
func copyImage(t testing.TB, src *Source, image Image, path string) {
	t.Helper()
	out := mustMake(t, path, sinks[0].make)
	all := append(layersOf(t, src, image.Descriptor).Blobs(), image.Descriptor)
	for _, d := range all {
		r, err := src.OpenBlob(t.Context(), d.Digest, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = out.WriteBlob(t.Context(), d, r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Finish(t.Context(), []Named{{"v1", image.Descriptor}}); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// What crane writes is read: its layout, its own kind of docker archive with
// compressed layers, and that of old docker.
func TestReadCrane(t *testing.T) {
	crane := registrytest.Tool(t, "crane")
	registry := registrytest.Memory(t, registrytest.Options{})
	sample := registrytest.Samples()[0]
	if err := sample.Push(t.Context(), registry.Host); err != nil {
		t.Fatal(err)
	}
	ref := registry.Host + "/" + sample.Repository + ":" + sample.ImageTags()[0]
	was := sampleManifest(t, sample)
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	for _, b := range sample.Blobs {
		if b.Digest == was.Config.Digest {
			if err := json.Unmarshal(b.Bytes, &config); err != nil {
				t.Fatal(err)
			}
		}
	}
	for format, names := range map[string][]string{"oci": nil, "tarball": {ref}, "legacy": {ref}} {
		path := filepath.Join(t.TempDir(), format)
		run(t, crane, "pull", "--insecure", "--format="+format, ref, path)
		src := mustOpen(t, path)
		images := src.Images()
		if len(images) != 1 || !slices.Equal(images[0].Names, names) {
			t.Errorf("%s: Images() = %+v, want one with names %q", format, images, names)
			continue
		}
		checkImage(t, src, images[0].Descriptor)
		m := layersOf(t, src, images[0].Descriptor)
		if m.Config.Digest != was.Config.Digest || len(m.Layers) != len(was.Layers) {
			t.Errorf("%s: config %s and %d layers", format, m.Config.Digest, len(m.Layers))
			continue
		}
		for i, layer := range m.Layers {
			want := was.Layers[i].Digest.String()
			if format == "legacy" { // crane decompresses
				want = config.RootFS.DiffIDs[i]
			}
			if layer.Digest.String() != want {
				t.Errorf("%s: layer %d is %+v, want %s", format, i, layer, want)
			}
		}
		if format == "oci" && images[0].Descriptor.Digest != sample.Root.Digest {
			t.Errorf("the manifest is %s, want %s", images[0].Descriptor.Digest, sample.Root.Digest)
		}
	}
}
