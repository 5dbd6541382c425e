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

// Save copies what the plan found missing into sink.
func (p *SavePlan) Save(ctx context.Context, sink Sink, jobs int, progress Progress) (Totals, error) {
	progress.Total(p.Totals)
	talksTo := func(d oci.Descriptor) []string { return sourceHosts(p.src, d) }
	err := eachAt(ctx, jobs, p.Blobs, talksTo, func(ctx context.Context, d oci.Descriptor) error {
		task := progress.Start(d.Digest.String(), d.Size)
		err := saveBlob(ctx, p.src, d, sink, task)
		task.Done(err)
		return err
	})
	if err != nil {
		return p.Totals, err
	}
	for _, n := range p.nodes { // children first
		if err := sink.WriteBlob(ctx, n.Descriptor, bytes.NewReader(n.content)); err != nil {
			return p.Totals, err
		}
	}
	return p.Totals, sink.Finish(ctx, p.Names)
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
