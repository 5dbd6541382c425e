// Package oci hides the JSON of OCI and Docker manifests: which kinds there
// are, what each refers to, and which documents are refused because two
// readers could understand them differently.
//
// # Limits
//
// A manifest has at most [MaxManifest] bytes and [MaxDescriptors]
// descriptors. Digests are sha256 only. A document that has both "manifests"
// and "layers" or "config", or whose mediaType is not the one it was fetched
// as, is refused (CVE-2021-41190), and so is one that JSON readers could take
// for different things: with a key twice or in other letter case, with more
// than one value, deeper than 32 levels, or not in UTF-8.
//
// # Sources
//
// OCI Image Manifest and Image Index 1.1.1,
// https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md;
// Docker Image Manifest V2 Schema 2.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"ferry/verify"
)

// Media types of manifests.
const (
	MediaTypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeEmpty          = "application/vnd.oci.empty.v1+json"
	MediaTypeConfig         = "application/vnd.oci.image.config.v1+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// ManifestTypes are the media types of all manifests that can be carried, in
// the order in which an Accept header lists them.
var ManifestTypes = []string{MediaTypeManifest, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList}

const (
	// MaxManifest, in bytes, is the largest manifest: Harbor and
	// distribution refuse more, so it could never be imported.
	MaxManifest = 4 << 20
	// MaxDescriptors bounds the layers or children of one manifest, and so
	// the work one document can cause.
	MaxDescriptors = 4096
	// MaxDepth bounds how deep indexes may be nested: an index of indexes of
	// images has depth 3.
	MaxDepth = 8
)

// ErrInvalid is what every error of [Parse] is.
var ErrInvalid = errors.New("invalid manifest")

// Platform is what an image runs on.
type Platform struct {
	OS           string   `json:"os"`
	Architecture string   `json:"architecture"`
	Variant      string   `json:"variant,omitempty"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
}

// String returns the platform as "os/architecture" or
// "os/architecture/variant".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Descriptor names some content by type, digest and size.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       verify.Digest     `json:"digest"`
	Size         int64             `json:"size"` // bytes
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
	Data         []byte            `json:"data,omitempty"`
}

// IsManifest reports whether d names a manifest or an index, not a blob.
func (d Descriptor) IsManifest() bool { return slices.Contains(ManifestTypes, d.MediaType) }

// Manifest is a parsed image manifest or index of either family. It never
// takes the place of the bytes it was parsed from.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// IsIndex reports whether m is an OCI index or a Docker manifest list.
func (m *Manifest) IsIndex() bool {
	return m.MediaType == MediaTypeIndex || m.MediaType == MediaTypeDockerList
}

// Type returns what kind of artifact m is: its artifactType, or else the
// media type of its config.
func (m *Manifest) Type() string {
	if m.ArtifactType == "" && m.Config != nil {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

// Blobs returns the blobs that m itself refers to, each digest once: the
// config, then the layers in order.
func (m *Manifest) Blobs() []Descriptor {
	var all []Descriptor
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	all = append(all, m.Layers...)
	seen := make(map[verify.Digest]bool, len(all))
	return slices.DeleteFunc(all, func(d Descriptor) bool {
		was := seen[d.Digest]
		seen[d.Digest] = true
		return was
	})
}

// Parse parses the manifest in content, which was described as mediaType;
// with an empty mediaType the document itself must say what it is. Errors:
// [ErrInvalid].
func Parse(content []byte, mediaType string) (*Manifest, error) {
	invalid := func(format string, args ...any) (*Manifest, error) {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if len(content) > MaxManifest {
		return invalid("more than %d bytes", MaxManifest)
	}
	if err := unambiguous(content); err != nil {
		return invalid("%v", err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(content, &keys); err != nil {
		return invalid("%v", err)
	}
	var m Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return invalid("%v", err)
	}
	switch {
	case m.MediaType == "":
		m.MediaType = mediaType
	case mediaType != "" && m.MediaType != mediaType:
		return invalid("it says mediaType %q, its descriptor says %q", m.MediaType, mediaType)
	}
	if m.SchemaVersion != 2 {
		return invalid("schemaVersion %d is not supported (want 2)", m.SchemaVersion)
	}
	has := func(key string) bool { _, ok := keys[key]; return ok }
	switch m.MediaType {
	case MediaTypeManifest, MediaTypeDockerManifest:
		if has("manifests") || has("fsLayers") || m.Config == nil {
			return invalid("%s needs a config, and no manifests or fsLayers", m.MediaType)
		}
	case MediaTypeIndex, MediaTypeDockerList:
		if has("layers") || has("config") || has("fsLayers") {
			return invalid("%s must not have layers, config or fsLayers", m.MediaType)
		}
	default:
		return invalid("media type %q is not supported", m.MediaType)
	}
	all := slices.Concat(m.Layers, m.Manifests)
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	if len(all) > MaxDescriptors {
		return invalid("more than %d descriptors", MaxDescriptors)
	}
	sizes := make(map[verify.Digest]int64, len(all))
	for _, d := range all {
		if size, seen := sizes[d.Digest]; seen && size != d.Size {
			return invalid("%s has two sizes, %d and %d", d.Digest, size, d.Size)
		}
		sizes[d.Digest] = d.Size
		switch {
		case d.Digest.IsZero():
			return invalid("a descriptor without a digest")
		case d.Size < 0:
			return invalid("%s has size %d", d.Digest, d.Size)
		}
	}
	for _, d := range m.Manifests {
		if !d.IsManifest() {
			return invalid("child %s has media type %q, which is no manifest", d.Digest, d.MediaType)
		}
		if d.Size > MaxManifest {
			return invalid("child %s has %d bytes, more than %d", d.Digest, d.Size, MaxManifest)
		}
	}
	return &m, nil
}
