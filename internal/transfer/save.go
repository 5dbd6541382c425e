package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"ferry/internal/layout"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// Sink is an image layout in the making.
type Sink interface {
	// Has reports whether the content of d is there already.
	Has(ctx context.Context, d oci.Descriptor) (bool, error)
	// WriteBlob stores content, which must have the digest of d.
	// It is safe for concurrent use.
	WriteBlob(ctx context.Context, d oci.Descriptor, content io.Reader) error
	// Finish makes the images visible under their names.
	Finish(ctx context.Context, images []layout.Named) error
}

// Save copies items with everything that they lead to into sink. What is there
// is not copied again.
func Save(ctx context.Context, src Source, items []Item, sink Sink, jobs int, progress Progress) (Totals, error) {
	var totals Totals
	var blobs []oci.Descriptor
	var nodes []node
	var names []layout.Named
	known := map[verify.Digest]bool{}
	for _, item := range items {
		roots := []layout.Named{}
		for _, tag := range item.Tags {
			roots = append(roots, layout.Named{Name: item.tagged(tag), Descriptor: item.Root})
		}
		if len(item.Tags) == 0 {
			roots = append(roots, layout.Named{Name: item.Name, Descriptor: item.Root})
		}
		for _, r := range item.Referrers {
			name := ""
			if r.Tag != "" {
				name = item.tagged(r.Tag)
			}
			roots = append(roots, layout.Named{Name: name, Descriptor: r.Descriptor()})
		}
		names = append(names, roots...)
		for _, root := range roots {
			found, err := walk(ctx, src.Manifest, root.Descriptor)
			if err != nil {
				return totals, err
			}
			for _, n := range found {
				if known[n.Digest] {
					continue
				}
				known[n.Digest] = true
				nodes = append(nodes, n)
				for _, blob := range n.parsed.Blobs() {
					if known[blob.Digest] {
						continue
					}
					known[blob.Digest] = true
					has, err := sink.Has(ctx, blob)
					if err != nil {
						return totals, err
					}
					if has {
						totals.SkippedItems++
						totals.SkippedBytes += blob.Size
						continue
					}
					totals.Items++
					totals.Bytes += blob.Size
					blobs = append(blobs, blob)
				}
			}
		}
	}
	progress.Total(totals)
	talksTo := func(d oci.Descriptor) []string { return sourceHosts(src, d) }
	err := eachAt(ctx, jobs, blobs, talksTo, func(ctx context.Context, d oci.Descriptor) error {
		task := progress.Start(d.Digest.String(), d.Size)
		err := saveBlob(ctx, src, d, sink, task)
		task.Done(err)
		return err
	})
	if err != nil {
		return totals, err
	}
	for _, n := range nodes { // children first
		if err := sink.WriteBlob(ctx, n.Descriptor, bytes.NewReader(n.content)); err != nil {
			return totals, err
		}
	}
	return totals, sink.Finish(ctx, names)
}

// tagged returns the name of the item with a tag, as layouts have it.
func (i Item) tagged(tag string) string {
	if i.Name == "" {
		return tag
	}
	return i.Name + ":" + tag
}

func saveBlob(ctx context.Context, src Source, d oci.Descriptor, sink Sink, task Task) error {
	body, err := src.OpenBlob(ctx, d, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	return sink.WriteBlob(ctx, d, counted(body, task))
}

// Fetch finds one image in a registry, with its referrers, for [Save].
func Fetch(ctx context.Context, client *registry.Client, request Request, platforms []oci.Platform) (Source, Item, error) {
	r, err := resolve(ctx, client, request, platforms)
	if err != nil {
		return nil, Item{}, fmt.Errorf("%s: %w", request.Source, err)
	}
	item := Item{Root: r.root.Descriptor}
	if tag := request.Reference.Tag; tag != "" {
		item.Tags = []string{tag}
	}
	for _, ref := range r.referrers {
		item.Referrers = append(item.Referrers, ref.Referrer)
	}
	src := &memory{Source: RepositorySource(client, request.Reference.Repo()), known: map[verify.Digest][]byte{}}
	for _, n := range r.nodes {
		src.add(n.Digest, n.content)
	}
	return src, item, nil
}
