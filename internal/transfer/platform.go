package transfer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// annotationOriginal names, in an index that was made for chosen platforms,
// the digest of the index that it was made from.
const annotationOriginal = "dev.ferry.original.digest"

// ParsePlatform parses "os/architecture" or "os/architecture/variant".
func ParsePlatform(s string) (oci.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return oci.Platform{}, fmt.Errorf("platform %q is not os/architecture or os/architecture/variant, like linux/amd64", s)
	}
	p := oci.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// matches reports whether have is the platform that was asked for; a variant
// matters only when one was asked for.
func matches(asked, have oci.Platform) bool {
	return asked.OS == have.OS && asked.Architecture == have.Architecture &&
		(asked.Variant == "" || asked.Variant == have.Variant)
}

// isImage reports whether m is an image that runs, not another artifact.
func isImage(m *oci.Manifest) bool {
	return m.Config != nil && m.ArtifactType == "" &&
		(m.Config.MediaType == oci.MediaTypeConfig || m.Config.MediaType == oci.MediaTypeDockerConfig)
}

// chosen is an image for some platforms only.
type chosen struct {
	root    node
	dropped []string // what was left out, for people
}

// choose returns the image in root for the platforms: the manifest of the one,
// or an index of several that names the original. An artifact that is for no
// platform is returned as it is. What an index says of a child must be what
// the child's config says (T17).
func choose(ctx context.Context, src Source, root node, platforms []oci.Platform) (*chosen, error) {
	if !root.parsed.IsIndex() {
		if !isImage(root.parsed) {
			return &chosen{root: root}, nil
		}
		have, err := configPlatform(ctx, src, root.parsed)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(platforms, func(p oci.Platform) bool { return matches(p, have) }) {
			return nil, fmt.Errorf("it is for %s only, not for any of %v", have, platforms)
		}
		return &chosen{root: root}, nil
	}
	var c chosen
	var kept []int
	for _, p := range platforms {
		found := false
		for i, child := range root.parsed.Manifests {
			if child.Platform != nil && matches(p, *child.Platform) {
				found = true
				kept = append(kept, i)
			}
		}
		if !found {
			return nil, fmt.Errorf("it is not for %s, only for %s", p, strings.Join(platformsOf(root.parsed), ", "))
		}
	}
	slices.Sort(kept)
	kept = slices.Compact(kept)
	for i, child := range root.parsed.Manifests {
		if !slices.Contains(kept, i) {
			c.dropped = append(c.dropped, describe(child))
		}
	}
	for _, i := range kept {
		if err := checkPlatform(ctx, src, root.parsed.Manifests[i]); err != nil {
			return nil, err
		}
	}
	if len(kept) == len(root.parsed.Manifests) {
		return &chosen{root: root}, nil
	}
	if len(kept) == 1 {
		d := root.parsed.Manifests[kept[0]]
		content, err := src.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		parsed, err := oci.Parse(content, d.MediaType)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		c.root = node{oci.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, content, parsed}
		return &c, nil
	}
	smaller, err := smallerIndex(root, kept)
	c.root = smaller
	return &c, err
}

func platformsOf(m *oci.Manifest) []string {
	var list []string
	for _, child := range m.Manifests {
		list = append(list, describe(child))
	}
	return list
}

func describe(child oci.Descriptor) string {
	if child.Platform == nil {
		return child.Digest.String()
	}
	if child.Platform.OS == "unknown" {
		return "attestation " + child.Digest.String()
	}
	return child.Platform.String()
}

// checkPlatform compares what an index says of a child with the child's own
// config.
func checkPlatform(ctx context.Context, src Source, child oci.Descriptor) error {
	content, err := src.Manifest(ctx, child)
	if err != nil {
		return err
	}
	m, err := oci.Parse(content, child.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", child.Digest, err)
	}
	if !isImage(m) {
		return nil
	}
	have, err := configPlatform(ctx, src, m)
	if err != nil {
		return err
	}
	if have.OS != child.Platform.OS || have.Architecture != child.Platform.Architecture {
		return fmt.Errorf("the index says that %s is for %s, its config says %s: %w", child.Digest, child.Platform, have, oci.ErrInvalid)
	}
	return nil
}

func configPlatform(ctx context.Context, src Source, m *oci.Manifest) (oci.Platform, error) {
	content, err := readBlob(ctx, src, *m.Config)
	if err != nil {
		return oci.Platform{}, err
	}
	var p oci.Platform
	if err := json.Unmarshal(content, &p); err != nil {
		return p, fmt.Errorf("config %s: %w", m.Config.Digest, err)
	}
	return p, nil
}

// smallerIndex returns a new index with the children at the places kept of
// root, each exactly as it stands there.
func smallerIndex(root node, kept []int) (node, error) {
	var original struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(root.content, &original); err != nil {
		return node{}, err
	}
	index := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Annotations   map[string]string `json:"annotations"`
	}{2, oci.MediaTypeIndex, nil, map[string]string{annotationOriginal: root.Digest.String()}}
	for _, i := range kept {
		index.Manifests = append(index.Manifests, original.Manifests[i])
	}
	content, err := json.Marshal(index)
	if err != nil {
		return node{}, err
	}
	parsed, err := oci.Parse(content, oci.MediaTypeIndex)
	d := oci.Descriptor{MediaType: oci.MediaTypeIndex, Digest: verify.DigestOf(content), Size: int64(len(content))}
	return node{d, content, parsed}, err
}
