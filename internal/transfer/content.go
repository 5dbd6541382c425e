package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// ErrConflict says that two things would have the same name, or that
// something else has the name already.
var ErrConflict = errors.New("conflict")

// Source is where the content of images comes from: a repository of a
// registry, a bundle, an archive.
type Source interface {
	// Manifest returns the bytes of a manifest, which have its digest.
	Manifest(ctx context.Context, d oci.Descriptor) ([]byte, error)

	// OpenBlob returns the content of a blob from offset off on, which the
	// caller closes. Its digest is not checked: who uses all of it does
	// that, once.
	OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error)
}

// Item is an image or artifact that is to be moved.
type Item struct {
	Name      string // for people
	Root      oci.Descriptor
	Tags      []string
	Referrers []bundle.Referrer
}

// allTags returns what each tag names that comes with the item.
func (i Item) allTags() map[string]verify.Digest {
	tags := map[string]verify.Digest{}
	for _, tag := range i.Tags {
		tags[tag] = i.Root.Digest
	}
	for _, r := range i.Referrers {
		if r.Tag != "" {
			tags[r.Tag] = r.Digest
		}
	}
	return tags
}

// RepositorySource returns a [Source] that reads from a repository.
func RepositorySource(client *registry.Client, repo registry.Repository) Source {
	return repositorySource{client, repo}
}

type repositorySource struct {
	client *registry.Client
	repo   registry.Repository
}

func (s repositorySource) Manifest(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	_, content, err := s.client.Get(ctx, s.repo.Digest(d.Digest))
	return content, err
}

func (s repositorySource) OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	return s.client.OpenBlob(ctx, s.repo, d, off)
}

// BundleSource returns a [Source] that reads from a bundle.
func BundleSource(r *bundle.Reader) Source { return bundleSource{r} }

type bundleSource struct{ r *bundle.Reader }

func (s bundleSource) Manifest(_ context.Context, d oci.Descriptor) ([]byte, error) {
	m, content := s.r.ManifestOf(d.Digest)
	if m == nil {
		return nil, fmt.Errorf("manifest %s: %w in the bundle", d.Digest, bundle.ErrNotFound)
	}
	return content, nil
}

func (s bundleSource) OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	body, err := s.r.OpenBlob(ctx, d.Digest, off)
	if base := s.r.Manifest().Base; errors.Is(err, bundle.ErrNotFound) && base != nil &&
		slices.ContainsFunc(base.Blobs, func(b bundle.BaseBlob) bool { return b.Digest == d.Digest }) {
		return nil, fmt.Errorf("%w: only %s %s has the blob %s", ErrBaseMissing, base.Name, base.Version, d.Digest)
	}
	return body, err
}

// BundleItems returns the images of a bundle.
func BundleItems(r *bundle.Reader) []Item { return itemsOf(r.Manifest().Images) }

func itemsOf(images []bundle.Image) []Item {
	var items []Item
	for _, i := range images {
		items = append(items, Item{Name: i.Target, Root: i.Descriptor(), Tags: i.Tags, Referrers: i.Referrers})
	}
	return items
}

// node is a manifest of an image with its bytes.
type node struct {
	oci.Descriptor
	content []byte
	parsed  *oci.Manifest
}

// maxNodes bounds the manifests of one image; the largest real indexes have
// some hundred.
const maxNodes = 65536

// walk returns the manifests that root leads to, children before parents,
// each once (T16).
func walk(ctx context.Context, manifest func(context.Context, oci.Descriptor) ([]byte, error), root oci.Descriptor) ([]node, error) {
	w := walker{manifest: manifest, seen: map[verify.Digest]bool{}}
	if err := w.visit(ctx, root, 1); err != nil {
		return nil, err
	}
	return w.nodes, nil
}

type walker struct {
	manifest func(context.Context, oci.Descriptor) ([]byte, error)
	seen     map[verify.Digest]bool
	nodes    []node
}

func (w *walker) visit(ctx context.Context, d oci.Descriptor, depth int) error {
	if w.seen[d.Digest] {
		return nil
	}
	w.seen[d.Digest] = true
	if depth > oci.MaxDepth || len(w.seen) > maxNodes {
		return fmt.Errorf("manifest %s: %w: nested deeper than %d, or more than %d manifests", d.Digest, oci.ErrInvalid, oci.MaxDepth, maxNodes)
	}
	content, err := w.manifest(ctx, d)
	if err != nil {
		return err
	}
	if int64(len(content)) != d.Size {
		return fmt.Errorf("manifest %s: %w", d.Digest, &verify.MismatchError{Want: d.Digest, Size: d.Size, Read: int64(len(content))})
	}
	parsed, err := oci.Parse(content, d.MediaType)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	for _, child := range parsed.Manifests {
		if err := w.visit(ctx, child, depth+1); err != nil {
			return err
		}
	}
	w.nodes = append(w.nodes, node{d, content, parsed})
	return nil
}

// defaultJobs is how many blobs or requests are under way at once: enough to
// hide the latency of a registry, few enough for a small one.
const defaultJobs = 4

// each calls do for every element of list, jobs at a time, and returns the
// first error.
func each[T any](ctx context.Context, jobs int, list []T, do func(context.Context, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(jobs, defaultJobs))
	for _, item := range list {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(gctx, item) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// counted returns a reader of r that tells task what was read.
func counted(r io.Reader, task Task) io.Reader { return &countedReader{r, task} }

type countedReader struct {
	r    io.Reader
	task Task
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.task.Add(int64(n))
	}
	return n, err
}
