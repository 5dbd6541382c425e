package layout

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// maxLayers bounds the layers of all images of a docker archive, and so the
// manifests that are made for them, to about 10 MB.
const maxLayers = 1 << 16

// Media types of layers in the manifests that are made for docker archives.
const (
	typeTar  = "application/vnd.oci.image.layer.v1.tar"
	typeGzip = typeTar + "+gzip"
	typeZstd = typeTar + "+zstd"
)

// dockerImage is an element of the manifest.json of a docker archive.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// imageManifest is an OCI image manifest as it is made for a docker archive.
type imageManifest struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Config        oci.Descriptor   `json:"config"`
	Layers        []oci.Descriptor `json:"layers"`
}

// dockerReader makes manifests for the images of a docker archive.
type dockerReader struct {
	*archive
	hashes map[place]verify.Digest // of compressed layers
	layers int                     // so far
}

// readDocker returns the images of a docker archive, and the manifests that it
// makes for them.
func (a *archive) readDocker(ctx context.Context) ([]Image, map[verify.Digest][]byte, error) {
	content, err := a.read(dockerName, oci.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	var list []dockerImage
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, nil, invalid("%s: %v", dockerName, err)
	}
	if len(list) > oci.MaxDescriptors {
		return nil, nil, invalid("%s: more than %d images", dockerName, oci.MaxDescriptors)
	}
	r := &dockerReader{archive: a, hashes: map[place]verify.Digest{}}
	images := newImageList()
	manifests := map[verify.Digest][]byte{}
	for i, image := range list {
		d, manifest, err := r.manifest(ctx, image)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: image %d: %w", dockerName, i+1, err)
		}
		manifests[d.Digest] = manifest
		if err := images.add(d, image.RepoTags...); err != nil {
			return nil, nil, err
		}
	}
	return images.images, manifests, nil
}

// manifest returns the manifest of an image and its descriptor.
func (r *dockerReader) manifest(ctx context.Context, image dockerImage) (oci.Descriptor, []byte, error) {
	none := oci.Descriptor{}
	config, diffs, err := r.config(image.Config)
	if err != nil {
		return none, nil, err
	}
	if len(diffs) != len(image.Layers) {
		return none, nil, invalid("config %q has %d diff_ids for %d layers", image.Config, len(diffs), len(image.Layers))
	}
	r.layers += len(image.Layers)
	if len(image.Layers) >= oci.MaxDescriptors || r.layers > maxLayers {
		return none, nil, invalid("more than %d layers, or %d of all images", oci.MaxDescriptors-1, maxLayers)
	}
	m := imageManifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: config, Layers: []oci.Descriptor{}}
	for i, name := range image.Layers {
		layer, err := r.layer(ctx, name, diffs[i])
		if err != nil {
			return none, nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		m.Layers = append(m.Layers, layer)
	}
	content, err := json.Marshal(m)
	if err != nil {
		return none, nil, fmt.Errorf("encoding a manifest: %w", err)
	}
	d := oci.Descriptor{MediaType: m.MediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
	return d, content, nil
}

// config returns the descriptor of the config in the file name, and its
// diff_ids.
func (r *dockerReader) config(name string) (oci.Descriptor, []verify.Digest, error) {
	content, err := r.read(name, oci.MaxManifest)
	if err != nil {
		return oci.Descriptor{}, nil, err
	}
	d := oci.Descriptor{MediaType: oci.MediaTypeConfig, Digest: verify.DigestOf(content), Size: int64(len(content))}
	// Everybody names it after its digest, and nothing else in the archive
	// tells whether it is whole.
	hex := strings.TrimSuffix(strings.TrimPrefix(path.Base(name), "sha256:"), ".json")
	if hexPattern.MatchString(hex) && hex != d.Digest.Hex() {
		return d, nil, invalid("config %q has digest %s", name, d.Digest)
	}
	var doc struct {
		RootFS struct {
			DiffIDs []verify.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return d, nil, invalid("config %q: %v", name, err)
	}
	m, err := r.find(name)
	if err != nil {
		return d, nil, err
	}
	return d, doc.RootFS.DiffIDs, r.add(d.Digest, m.place)
}

// layer returns the descriptor of the layer in the file name, of which the tar
// archive has the digest diff.
func (r *dockerReader) layer(ctx context.Context, name string, diff verify.Digest) (oci.Descriptor, error) {
	m, err := r.find(name)
	if err != nil {
		return oci.Descriptor{}, err
	}
	d := oci.Descriptor{MediaType: typeTar, Digest: diff, Size: m.size}
	switch c := m.compression(); c {
	case "":
		if diff.IsZero() {
			return d, invalid("%q has no diff_id", name)
		}
		return d, r.add(d.Digest, m.place)
	case "gzip":
		d.MediaType = typeGzip
	case "zstd":
		d.MediaType = typeZstd
	default:
		return d, invalid("%q is compressed with %s, which OCI layers are not", name, c)
	}
	if d.Digest, err = r.hash(ctx, m.place); err != nil {
		return d, fmt.Errorf("reading %q: %w", name, err)
	}
	return d, r.add(d.Digest, m.place)
}

// hash returns the digest of the content at p, which it reads once.
func (r *dockerReader) hash(ctx context.Context, p place) (verify.Digest, error) {
	if d, ok := r.hashes[p]; ok {
		return d, nil
	}
	content, err := r.object.Range(ctx, p.off, p.size)
	if err != nil {
		return verify.Digest{}, err
	}
	defer content.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, content, make([]byte, copyBuffer)); err != nil {
		return verify.Digest{}, err
	}
	d := verify.Digest(h.Sum(nil))
	r.hashes[p] = d
	return d, nil
}

// add takes down where the content of d stands. It may stand there several
// times.
func (r *dockerReader) add(d verify.Digest, p place) error {
	if was, ok := r.blobs[d]; ok && was.size != p.size {
		return invalid("%s has two sizes, %d and %d", d, was.size, p.size)
	}
	r.blobs[d] = p
	return nil
}
