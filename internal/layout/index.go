package layout

import (
	"encoding/json"
	"fmt"

	"ferry/internal/oci"
)

// The files of an image layout, and of a docker archive.
const (
	markerName = "oci-layout"
	indexName  = "index.json"
	blobFolder = "blobs/sha256/"
	dockerName = "manifest.json"
)

// marker is the content of oci-layout.
const marker = `{"imageLayoutVersion":"1.0.0"}`

const (
	// maxMarker, in bytes, bounds oci-layout, which has 30.
	maxMarker = 4 << 10
	// maxIndex, in bytes, bounds index.json, which is held in memory; an
	// entry has about 300.
	maxIndex = 32 << 20
	// maxImages bounds the entries of index.json.
	maxImages = 100_000
)

// Annotations of index.json that name an image.
const (
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

// unknownf returns an [ErrUnknown] with the reason.
func unknownf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnknown, fmt.Sprintf(format, args...))
}

// checkMarker returns an error when content is not that of an oci-layout of a
// version that this package knows.
func checkMarker(content []byte) error {
	var doc struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return invalid("%s: %v", markerName, err)
	}
	if doc.Version != "1.0.0" {
		return invalid("%s: version %q is not supported (want 1.0.0)", markerName, doc.Version)
	}
	return nil
}

// parseIndex returns the images that an index.json lists. It is not
// [oci.Parse], because a layout may list more than a manifest can.
func parseIndex(content []byte) ([]Image, error) {
	var doc struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []oci.Descriptor `json:"manifests"`
		Layers        json.RawMessage  `json:"layers"`
		Config        json.RawMessage  `json:"config"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, invalid("%s: %v", indexName, err)
	}
	switch {
	case doc.SchemaVersion != 2:
		return nil, invalid("%s: schemaVersion %d is not supported (want 2)", indexName, doc.SchemaVersion)
	case doc.MediaType != "" && doc.MediaType != oci.MediaTypeIndex:
		return nil, invalid("%s: media type %q is not that of an index", indexName, doc.MediaType)
	case doc.Layers != nil || doc.Config != nil:
		return nil, invalid("%s: an index must not have layers or config", indexName)
	case len(doc.Manifests) > maxImages:
		return nil, invalid("%s: more than %d entries", indexName, maxImages)
	}
	list := newImageList()
	for i, d := range doc.Manifests {
		if err := checkRoot(d); err != nil {
			return nil, invalid("%s: entry %d: %v", indexName, i+1, err)
		}
		d.Data, d.URLs = nil, nil // never followed
		if err := list.add(d, d.Annotations[annotationName], d.Annotations[annotationRef]); err != nil {
			return nil, err
		}
	}
	return list.images, nil
}

// checkRoot returns an error when d can not stand in an index.json.
func checkRoot(d oci.Descriptor) error {
	if d.Digest.IsZero() || !d.IsManifest() || d.Size <= 0 || d.Size > oci.MaxManifest {
		return fmt.Errorf("manifest %s with media type %q and %d bytes is not supported", d.Digest, d.MediaType, d.Size)
	}
	return nil
}
