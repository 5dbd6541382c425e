package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"ferry/internal/oci"
	"ferry/verify"
)

// Named is an image as index.json lists it.
type Named struct {
	// Name becomes the annotation org.opencontainers.image.ref.name;
	// without one the image can be found by its digest only.
	Name string
	// Descriptor says where the manifest is. Only its media type, digest,
	// size and artifact type are written.
	Descriptor oci.Descriptor
}

// entry is an element of index.json. The digest is text, because what others
// wrote may have one that is not supported here, and stays as it is.
type entry struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"` // bytes
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func (e entry) name() string { return e.Annotations[annotationRef] }

// newEntries returns the entries of images, each once. One without a name is
// left out where the same manifest has a name.
func newEntries(images []Named) ([]entry, error) {
	names := make(map[string]verify.Digest, len(images))
	named := make(map[verify.Digest]bool, len(images))
	for _, i := range images {
		d := i.Descriptor.Digest
		if err := checkRoot(i.Descriptor); err != nil {
			return nil, err
		}
		if i.Name == "" {
			continue
		}
		if !utf8.ValidString(i.Name) {
			return nil, fmt.Errorf("name %q is not UTF-8: JSON would have another", i.Name)
		}
		if was, ok := names[i.Name]; ok && was != d {
			return nil, fmt.Errorf("name %q is for both %s and %s", i.Name, was, d)
		}
		names[i.Name] = d
		named[d] = true
	}
	var list []entry
	listed := make(map[string]bool, len(images)) // names, and digests of what has none
	for _, i := range images {
		d := i.Descriptor
		e := entry{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, ArtifactType: d.ArtifactType}
		key := "@" + e.Digest
		if i.Name != "" {
			key = i.Name
			e.Annotations = map[string]string{annotationRef: i.Name}
		}
		if listed[key] || i.Name == "" && named[d.Digest] {
			continue
		}
		listed[key] = true
		list = append(list, e)
	}
	return list, nil
}

// mergeIndex returns the index.json old, nil for none, with images added. An
// entry of the same name is replaced, and one without a name gives way to any
// of the same manifest. All else in old stays as it is.
func mergeIndex(old []byte, images []Named) ([]byte, error) {
	add, err := newEntries(images)
	if err != nil {
		return nil, err
	}
	names, digests := map[string]bool{}, map[string]bool{}
	for _, e := range add {
		names[e.name()] = true
		digests[e.Digest] = true
	}
	doc := map[string]json.RawMessage{}
	list := []any{}
	named := map[string]bool{} // digests that have a name in old
	if old != nil {
		var was struct {
			Manifests []json.RawMessage `json:"manifests"`
		}
		if err := json.Unmarshal(old, &was); err != nil {
			return nil, invalid("%s: %v", indexName, err)
		}
		if err := json.Unmarshal(old, &doc); err != nil {
			return nil, invalid("%s: %v", indexName, err)
		}
		if doc == nil {
			return nil, invalid("%s: it is null", indexName)
		}
		for _, raw := range was.Manifests {
			var e entry
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, invalid("%s: %v", indexName, err)
			}
			if name := e.name(); name != "" && names[name] || name == "" && digests[e.Digest] {
				continue
			}
			list = append(list, raw)
			named[e.Digest] = named[e.Digest] || e.name() != ""
		}
	}
	for _, e := range add {
		if e.name() != "" || !named[e.Digest] {
			list = append(list, e)
		}
	}
	return encodeIndex(doc, list)
}

// encodeIndex returns the fields of doc as an index.json with the entries list.
func encodeIndex(doc map[string]json.RawMessage, list []any) ([]byte, error) {
	entries, err := encodeJSON(list)
	if err != nil {
		return nil, err
	}
	doc["schemaVersion"] = json.RawMessage("2")
	doc["mediaType"] = json.RawMessage(`"` + oci.MediaTypeIndex + `"`)
	doc["manifests"] = entries
	content, err := encodeJSON(doc)
	if err != nil {
		return nil, err
	}
	// What Open would refuse is not written.
	if len(content) > maxIndex || len(list) > maxImages {
		return nil, fmt.Errorf("%s with %d entries and %d bytes is larger than %d entries or %d bytes",
			indexName, len(list), len(content), maxImages, maxIndex)
	}
	return content, nil
}

// encodeJSON returns v in one line, the keys of maps sorted.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", indexName, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
