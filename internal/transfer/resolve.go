package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// Request asks for one image to be exported.
type Request struct {
	Reference registry.Reference
	Source    string // the reference as it was written
	Target    string // repository path in the bundle; "" means the reference's own
	Tag       string // in the bundle; "" means the reference's own
}

// Selection is what a list of requests leads to: every image by digest, and
// every manifest in memory.
type Selection struct {
	Images  []bundle.Image
	Dropped []string // children that were left out, for people
	groups  []bundle.Group
	nodes   map[verify.Digest]node
	origins map[verify.Digest]origin // of each blob that is not a manifest
	signed  map[verify.Digest]bool   // layers of referrers that are signatures or attestations
}

// origin is where a blob can be fetched.
type origin struct {
	oci.Descriptor
	repo registry.Repository
}

// manifest returns a parsed manifest of the selection, or nil.
func (s *Selection) manifest(d verify.Digest) *oci.Manifest { return s.nodes[d].parsed }

// resolved is one request with all that it leads to.
type resolved struct {
	Request
	root      node
	original  *verify.Digest
	nodes     []node // children first
	referrers []referrer
	dropped   []string
}

type referrer struct {
	bundle.Referrer
	nodes []node // children first, itself last
}

// Resolve asks the registries what the requests stand for now. After it
// everything goes by digest, so a tag that moves meanwhile does no harm (T30).
// With platforms, only these are taken of each image. Errors: [ErrConflict]
// when two images would have the same name, and those of the registry.
func Resolve(ctx context.Context, client *registry.Client, requests []Request, platforms []oci.Platform, jobs int) (*Selection, error) {
	found := make([]*resolved, len(requests))
	talksTo := func(i int) []string { return []string{requests[i].Reference.Host} }
	err := eachAt(ctx, jobs, indexes(requests), talksTo, func(ctx context.Context, i int) error {
		r, err := resolve(ctx, client, requests[i], platforms)
		if err != nil {
			return fmt.Errorf("%s: %w", requests[i].Source, err)
		}
		found[i] = r
		return nil
	})
	if err != nil {
		return nil, err
	}
	return selectAll(found, platforms)
}

func indexes[T any](list []T) []int {
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	return all
}

func resolve(ctx context.Context, client *registry.Client, request Request, platforms []oci.Platform) (*resolved, error) {
	d, content, err := client.Get(ctx, request.Reference)
	if err != nil {
		return nil, err
	}
	parsed, err := oci.Parse(content, d.MediaType)
	if err != nil {
		return nil, err
	}
	r := &resolved{Request: request, root: node{d, content, parsed}}
	src := &memory{Source: RepositorySource(client, request.Reference.Repo()), known: map[verify.Digest][]byte{d.Digest: content}}
	if len(platforms) > 0 {
		c, err := choose(ctx, src, r.root, platforms)
		if err != nil {
			return nil, err
		}
		if c.root.Digest != d.Digest {
			r.original, r.root, r.dropped = &d.Digest, c.root, c.dropped
			src.add(c.root.Digest, c.root.content)
		}
	}
	if r.nodes, err = walk(ctx, src.Manifest, r.root.Descriptor); err != nil {
		return nil, err
	}
	r.referrers, err = findReferrers(ctx, client, request.Reference.Repo(), src, r.nodes)
	return r, err
}

// memory is a [Source] that asks for each manifest once.
type memory struct {
	Source
	mu    sync.Mutex
	known map[verify.Digest][]byte
}

func (m *memory) Manifest(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	m.mu.Lock()
	content := m.known[d.Digest]
	m.mu.Unlock()
	if content != nil {
		return content, nil
	}
	content, err := m.Source.Manifest(ctx, d)
	if err == nil {
		m.add(d.Digest, content)
	}
	return content, err
}

func (m *memory) add(d verify.Digest, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[d] = content
}

// readBlob returns a small blob, such as a config, with its digest checked.
func readBlob(ctx context.Context, src Source, d oci.Descriptor) ([]byte, error) {
	if d.Size > oci.MaxManifest {
		return nil, fmt.Errorf("blob %s has %d bytes, more than %d", d.Digest, d.Size, oci.MaxManifest)
	}
	body, err := src.OpenBlob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(verify.NewReader(body, d.Digest, d.Size))
}

// selectAll joins what the requests led to: the same image under two tags is
// one image, the same blob is taken once.
func selectAll(found []*resolved, platforms []oci.Platform) (*Selection, error) {
	s := &Selection{nodes: map[verify.Digest]node{}, origins: map[verify.Digest]origin{}, signed: map[verify.Digest]bool{}}
	place := map[string]int{} // of each image by target and digest
	tagged := map[string]*resolved{}
	for _, r := range found {
		target, tag := r.Target, r.Tag
		if target == "" {
			target = r.Reference.Repository
		}
		if tag == "" {
			tag = r.Reference.Tag
		}
		if tag != "" {
			at := target + ":" + tag
			if other := tagged[at]; other != nil && other.root.Digest != r.root.Digest {
				return nil, fmt.Errorf("%w: %s and %s would both be %s: give one of them another name, like %s=other/name:%s",
					ErrConflict, other.Source, r.Source, at, r.Source, tag)
			}
			tagged[at] = r
		}
		key := target + "@" + r.root.Digest.String()
		i, known := place[key]
		if !known {
			i = len(s.Images)
			place[key] = i
			s.add(r, target, platforms)
		}
		if err := s.addReferrers(i, r); err != nil {
			return nil, err
		}
		image := &s.Images[i]
		if tag != "" && !slices.Contains(image.Tags, tag) {
			image.Tags = append(image.Tags, tag)
			slices.Sort(image.Tags)
		}
	}
	return s, nil
}

// add adds an image that is not in s yet.
func (s *Selection) add(r *resolved, target string, platforms []oci.Platform) {
	image := bundle.Image{Digest: r.root.Digest, MediaType: r.root.MediaType, Size: r.root.Size,
		Source: r.Source, Target: target, Tags: []string{}, Original: r.original}
	if r.original != nil {
		for _, p := range platforms {
			image.Platforms = append(image.Platforms, p.String())
		}
		slices.Sort(image.Platforms)
		image.Platforms = slices.Compact(image.Platforms)
		for _, d := range r.dropped {
			s.Dropped = append(s.Dropped, r.Source+" "+d)
		}
	}
	s.Images = append(s.Images, image)
	s.groups = append(s.groups, bundle.Group{})
	s.addNodes(len(s.groups)-1, r.nodes, r.Reference.Repo())
}

// addReferrers adds the referrers of r that image i does not have yet: the same
// image can have other signatures in another registry. Errors: [ErrConflict].
func (s *Selection) addReferrers(i int, r *resolved) error {
	image := &s.Images[i]
	for _, ref := range r.referrers {
		if slices.Contains(image.Referrers, ref.Referrer) {
			continue
		}
		for _, known := range image.Referrers {
			if known.Tag != "" && known.Tag == ref.Tag {
				return fmt.Errorf("%w: %s and %s are one image with different signatures or referrers under %s: export one of them under another name, like %s=other/name",
					ErrConflict, image.Source, r.Source, ref.Tag, r.Source)
			}
		}
		image.Referrers = append(image.Referrers, ref.Referrer)
		s.addNodes(i, ref.nodes, r.Reference.Repo())
		for _, n := range ref.nodes {
			for _, layer := range n.parsed.Layers {
				if verify.IsEvidence(layer.MediaType) {
					s.signed[layer.Digest] = true
				}
			}
		}
	}
	return nil
}

// addNodes adds manifests, parents first, with their blobs to group i.
func (s *Selection) addNodes(i int, nodes []node, repo registry.Repository) {
	g := &s.groups[i]
	var configs []bundle.Blob
	for _, n := range slices.Backward(nodes) {
		s.nodes[n.Digest] = n
		g.Small = append(g.Small, bundle.Blob{Digest: n.Digest, Size: n.Size})
		for _, blob := range n.parsed.Blobs() {
			s.origins[blob.Digest] = origin{blob, repo}
			b := bundle.Blob{Digest: blob.Digest, Size: blob.Size}
			if c := n.parsed.Config; c.Digest == blob.Digest && blob.Size <= oci.MaxManifest {
				configs = append(configs, b)
			} else {
				g.Layers = append(g.Layers, b)
			}
		}
	}
	g.Small = append(g.Small, configs...)
}

// Deliveries returns the images of the selection with the repositories that
// they go to. Errors: [ErrConflict] when maps bring two different images to
// one name.
func (s *Selection) Deliveries(d Destination) ([]Delivery, error) { return deliveriesOf(s.Images, d) }

// Source returns the content of the selection, blobs straight from the
// registries that have them.
func (s *Selection) Source(client *registry.Client) Source { return selectionSource{s, client} }

type selectionSource struct {
	s      *Selection
	client *registry.Client
}

func (s selectionSource) Manifest(_ context.Context, d oci.Descriptor) ([]byte, error) {
	n, ok := s.s.nodes[d.Digest]
	if !ok {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, bundle.ErrNotFound)
	}
	return n.content, nil
}

func (s selectionSource) OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	return s.s.openBlob(ctx, s.client, d.Digest, off)
}

// open returns the content of a blob or manifest of the selection.
func (s *Selection) open(ctx context.Context, client *registry.Client, d verify.Digest, off int64) (io.ReadCloser, error) {
	if n, ok := s.nodes[d]; ok {
		return io.NopCloser(strings.NewReader(string(n.content[off:]))), nil
	}
	return s.openBlob(ctx, client, d, off)
}

func (s *Selection) openBlob(ctx context.Context, client *registry.Client, d verify.Digest, off int64) (io.ReadCloser, error) {
	at, ok := s.origins[d]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d, bundle.ErrNotFound)
	}
	body, err := client.OpenBlob(ctx, at.repo, at.Descriptor, off)
	if errors.Is(err, registry.ErrNotFound) && len(at.URLs) > 0 {
		// T18: what a manifest gives as an address is never asked.
		return nil, fmt.Errorf("blob %s of %s is a foreign layer that the registry does not have: push it there first, or leave the image out: %w", d, at.repo, err)
	}
	return body, err
}
