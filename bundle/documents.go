package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// Document is a small file of the image layout that is not a blob.
type Document struct {
	Path    string
	Content []byte
}

// Entry returns the entry of the document in a volume.
func (d Document) Entry() Entry {
	return Entry{Digest: verify.DigestOf(d.Content), Path: d.Path, Size: int64(len(d.Content))}
}

// LayoutDocuments returns the documents that make a volume an OCI image layout
// and, where an image has one platform only, a docker archive. parsed returns
// the manifest of a digest that the images name, or nil.
//
// Sources: OCI Image Layout 1.1.1; the annotation io.containerd.image.name of
// containerd's import; Docker Image Specification v1.2, "Combined Image JSON +
// Filesystem Changeset Format".
func LayoutDocuments(images []Image, parsed func(verify.Digest) *oci.Manifest) ([]Document, error) {
	docs := []Document{{pathLayout, []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	index, err := compactJSON(struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []oci.Descriptor `json:"manifests"`
	}{2, oci.MediaTypeIndex, indexEntries(images)})
	if err != nil {
		return nil, fmt.Errorf("encoding index.json: %w", err)
	}
	docs = append(docs, Document{pathIndex, index})
	if archive := dockerEntries(images, parsed); len(archive) > 0 {
		content, err := compactJSON(archive)
		if err != nil {
			return nil, fmt.Errorf("encoding manifest.json: %w", err)
		}
		docs = append(docs, Document{pathDocker, content})
	}
	return docs, nil
}

func compactJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func indexEntries(images []Image) []oci.Descriptor {
	var list []oci.Descriptor
	listed := map[verify.Digest]bool{}
	add := func(d oci.Descriptor, i Image, tag string) {
		d.Annotations = map[string]string{"io.containerd.image.name": i.fullName() + "@" + d.Digest.String()}
		if tag != "" {
			d.Annotations = map[string]string{
				"io.containerd.image.name":          i.fullName() + ":" + tag,
				"org.opencontainers.image.ref.name": i.Target + ":" + tag,
			}
		}
		list = append(list, d)
		listed[d.Digest] = true
	}
	for _, i := range images {
		for _, tag := range i.Tags {
			add(i.Descriptor(), i, tag)
		}
		if len(i.Tags) == 0 {
			add(i.Descriptor(), i, "")
		}
	}
	for _, i := range images {
		for _, r := range i.Referrers {
			if r.Tag != "" || !listed[r.Digest] {
				add(r.Descriptor(), i, r.Tag)
			}
		}
	}
	return list
}

// fullName returns the target with the host that the image came from, as
// container runtimes name images.
func (i Image) fullName() string {
	host, _, found := strings.Cut(i.Source, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host = "docker.io"
	}
	return host + "/" + i.Target
}

type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func dockerEntries(images []Image, parsed func(verify.Digest) *oci.Manifest) []dockerEntry {
	var list []dockerEntry
	for _, i := range images {
		m := parsed(i.Digest)
		if m != nil && m.IsIndex() && len(m.Manifests) == 1 {
			m = parsed(m.Manifests[0].Digest)
		}
		if m == nil || m.IsIndex() || m.Config.MediaType != oci.MediaTypeConfig && m.Config.MediaType != oci.MediaTypeDockerConfig {
			continue
		}
		e := dockerEntry{Config: BlobPath(m.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		for _, tag := range i.Tags {
			e.RepoTags = append(e.RepoTags, i.fullName()+":"+tag)
		}
		for _, layer := range m.Layers {
			e.Layers = append(e.Layers, BlobPath(layer.Digest))
		}
		list = append(list, e)
	}
	return list
}
