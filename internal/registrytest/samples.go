package registrytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"ferry/internal/oci"
	"ferry/verify"
)

// Content is a blob or a manifest.
type Content struct {
	oci.Descriptor
	Bytes []byte
}

// Sample is one image or artifact with all that belongs to it. It is the same
// each time it is made.
type Sample struct {
	// Name says what is special about it.
	Name string
	// Repository is its path, in two parts or more as Harbor wants it.
	Repository string
	// Tags maps each tag in the repository to what it names, those of
	// signatures included.
	Tags map[string]verify.Digest
	// Root is what the tags of the image name.
	Root oci.Descriptor
	// Blobs and Manifests are all content, once each; manifests stand
	// after what they refer to.
	Blobs, Manifests []Content
	// Referrers maps a subject to the digests of its OCI 1.1 referrers.
	Referrers map[verify.Digest][]verify.Digest
	// Files are the paths and contents of the merged layers of an image
	// of one platform; nil for others.
	Files map[string]string
}

// Manifest returns the content of the manifest d of s.
func (s *Sample) Manifest(d verify.Digest) ([]byte, bool) {
	for _, m := range s.Manifests {
		if m.Digest == d {
			return m.Bytes, true
		}
	}
	return nil, false
}

// ImageTags returns the tags of s that name its root, sorted.
func (s *Sample) ImageTags() []string {
	var all []string
	for tag, d := range s.Tags {
		if d == s.Root.Digest {
			all = append(all, tag)
		}
	}
	slices.Sort(all)
	return all
}

func newSample(name, repository string) *Sample {
	return &Sample{
		Name: name, Repository: repository,
		Tags: make(map[string]verify.Digest), Referrers: make(map[verify.Digest][]verify.Digest),
	}
}

// Media types of layers.
const (
	typeGzip       = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeZstd       = "application/vnd.oci.image.layer.v1.tar+zstd"
	typeTar        = "application/vnd.oci.image.layer.v1.tar"
	typeDockerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// blob adds content to s and returns its descriptor.
func (s *Sample) blob(mediaType string, content []byte) oci.Descriptor {
	d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
	if !slices.ContainsFunc(s.Blobs, func(c Content) bool { return c.Digest == d.Digest }) {
		s.Blobs = append(s.Blobs, Content{d, content})
	}
	return d
}

// document is a manifest or an index as it is written.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *oci.Descriptor   `json:"config,omitempty"`
	Layers        []oci.Descriptor  `json:"layers,omitempty"`
	Manifests     []oci.Descriptor  `json:"manifests,omitempty"`
	Subject       *oci.Descriptor   `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// manifest adds a manifest to s and returns its descriptor.
func (s *Sample) manifest(doc document) oci.Descriptor {
	doc.SchemaVersion = 2
	content := mustJSON(doc)
	d := oci.Descriptor{MediaType: doc.MediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
	s.Manifests = append(s.Manifests, Content{d, content})
	if doc.Subject != nil {
		s.Referrers[doc.Subject.Digest] = append(s.Referrers[doc.Subject.Digest], d.Digest)
	}
	return d
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// root makes d what s is about, under tags.
func (s *Sample) root(d oci.Descriptor, tags ...string) {
	s.Root = d
	for _, t := range tags {
		s.Tags[t] = d.Digest
	}
}

// tarOf returns a layer with files, in the order of their names. A name that
// ends with a slash is a folder.
func tarOf(files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		w.Write([]byte(files[name]))
	}
	w.Close()
	return b.Bytes()
}

func gzipOf(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(content)
	w.Close()
	return b.Bytes()
}

func zstdOf(content []byte) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return w.EncodeAll(content, nil)
}

// Random returns n bytes that do not compress, the same for the same seed.
func Random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	copy(key[:], fmt.Sprintf("%032d", seed))
	rand.NewChaCha8(key).Read(b)
	return b
}

// image adds an image of one platform with layers of files, and returns the
// descriptor of its manifest. A layerType that is docker's makes it docker's.
func (s *Sample) image(platform, layerType string, layers ...map[string]string) oci.Descriptor {
	os, arch, _ := strings.Cut(platform, "/")
	doc := document{MediaType: oci.MediaTypeManifest}
	configType := oci.MediaTypeConfig
	if layerType == typeDockerGzip {
		doc.MediaType, configType = oci.MediaTypeDockerManifest, oci.MediaTypeDockerConfig
	}
	var diffs []string
	for _, files := range layers {
		plain := tarOf(files)
		content := plain
		switch layerType {
		case typeGzip, typeDockerGzip:
			content = gzipOf(plain)
		case typeZstd:
			content = zstdOf(plain)
		}
		diffs = append(diffs, verify.DigestOf(plain).String())
		doc.Layers = append(doc.Layers, s.blob(layerType, content))
	}
	config := s.blob(configType, mustJSON(map[string]any{
		"architecture": arch, "os": os, "created": "2024-01-02T03:04:05Z",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Labels": map[string]string{"sample": s.Name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	}))
	doc.Config = &config
	d := s.manifest(doc)
	d.Platform = &oci.Platform{OS: os, Architecture: arch}
	return d
}

// Heavy returns an image with layers of those sizes in bytes, which do not
// compress and are no archives: something to carry. It is not among [Samples].
func Heavy(repository string, sizes ...int) *Sample {
	s := newSample("heavy layers", repository)
	doc := document{MediaType: oci.MediaTypeManifest}
	var diffs []string
	for i, n := range sizes {
		layer := s.blob(typeTar, Random(uint64(1000+i), n))
		doc.Layers, diffs = append(doc.Layers, layer), append(diffs, layer.Digest.String())
	}
	config := s.blob(oci.MediaTypeConfig, mustJSON(map[string]any{"architecture": "amd64", "os": "linux",
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs}}))
	doc.Config = &config
	s.root(s.manifest(doc), "heavy")
	return s
}

// index adds an index of children and returns its descriptor.
func (s *Sample) index(mediaType string, children ...oci.Descriptor) oci.Descriptor {
	return s.manifest(document{MediaType: mediaType, Manifests: children})
}

// artifact adds an artifact and returns its descriptor.
func (s *Sample) artifact(doc document, configType string, config []byte, layers ...oci.Descriptor) oci.Descriptor {
	c := s.blob(configType, config)
	doc.MediaType, doc.Config, doc.Layers = oci.MediaTypeManifest, &c, layers
	return s.manifest(doc)
}

// plain returns d without what is said in a parent only.
func plain(d oci.Descriptor) *oci.Descriptor {
	return &oci.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// cosignTag adds a manifest of cosign's under the tag of the image d.
func (s *Sample) cosignTag(d oci.Descriptor, suffix, layerType string, annotations map[string]string, payload []byte) {
	layer := s.blob(layerType, payload)
	layer.Annotations = annotations
	m := s.artifact(document{}, oci.MediaTypeConfig,
		mustJSON(map[string]any{"architecture": "", "os": "", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest.String()}}}), layer)
	s.Tags["sha256-"+d.Digest.Hex()+"."+suffix] = m.Digest
}

// referrer adds an artifact whose subject is d.
func (s *Sample) referrer(d oci.Descriptor, artifactType string, content []byte) oci.Descriptor {
	layer := s.blob(artifactType, content)
	return s.artifact(document{ArtifactType: artifactType, Subject: plain(d), Annotations: map[string]string{"org.opencontainers.image.created": "2024-01-02T03:04:05Z"}},
		oci.MediaTypeEmpty, []byte("{}"), layer)
}
