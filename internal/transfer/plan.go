package transfer

import (
	"cmp"
	"context"
	"io"
	"slices"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// Share is how the bytes of one image come to their place: those of its
// manifests, configs and layers and of its referrers', each once. The three
// numbers add up to all of them.
type Share struct {
	New    int64 // bytes that are moved
	Shared int64 // bytes that are moved with an image before it
	There  int64 // bytes that are in place, are mounted from another repository, or that a base has
}

// Shares is what [Share] is to all images of a run.
type Shares struct {
	Images []Share
	Sum    Share
	// Manifests is how many bytes of Sum.New manifests have.
	Manifests int64
}

// content is a blob or manifest of an image in the place that it goes to.
type content struct {
	bundle.Blob
	place    string // where it is moved to once; "" where that is all the same
	manifest bool
}

// divide returns the shares of images, each a list of content. Of a blob
// missing returns how many bytes are to be moved.
func divide(images [][]content, missing func(content) int64) Shares {
	type key struct {
		digest verify.Digest
		place  string
	}
	var all Shares
	before := map[key]bool{}
	for _, image := range images {
		var s Share
		inImage := map[verify.Digest]bool{}
		for _, c := range image {
			if inImage[c.Digest] {
				continue
			}
			inImage[c.Digest] = true
			n, k := missing(c), key{c.Digest, c.place}
			switch {
			case n > 0 && before[k]:
				s.Shared += c.Size
				continue
			case n > 0 && c.manifest:
				all.Manifests += n
			}
			before[k] = true
			s.New += n
			s.There += c.Size - n
		}
		all.Images = append(all.Images, s)
		all.Sum = Share{all.Sum.New + s.New, all.Sum.Shared + s.Shared, all.Sum.There + s.There}
	}
	return all
}

// missingIn returns how many bytes of a blob a gap has moved.
func missingIn(gap *bundle.Gap) func(content) int64 {
	missing := map[verify.Digest]int64{}
	for _, p := range gap.Parts {
		if !p.Kept {
			missing[p.Digest] = max(missing[p.Digest], p.Size-p.Offset)
		}
	}
	return func(c content) int64 { return missing[c.Digest] }
}

// Gap finds out what [Export] of the plan would write. It writes nothing. With
// read it reads what an interrupted export has left.
func (p *ExportPlan) Gap(ctx context.Context, read bool) (*bundle.Gap, error) {
	if p.Unchanged {
		return &bundle.Gap{Room: p.nothing(ctx)}, nil
	}
	return p.Set.Gap(ctx, p.store, bundle.GapOptions{Wrong: p.wrong, Stale: p.stale, Read: read})
}

// nothing returns what room there is to write nothing.
func (p *ExportPlan) nothing(ctx context.Context) *bundle.Room {
	dir, ok := bundle.OnDisk(p.store)
	if !ok {
		return nil
	}
	room, _ := bundle.NewUsage(ctx, dir).Room() // nothing was looked up
	return room
}

// Shares returns what is moved of each image of the bundle.
func (p *ExportPlan) Shares(gap *bundle.Gap) Shares {
	var images [][]content
	for _, g := range p.selection.groups {
		var image []content
		for _, b := range slices.Concat(g.Small, g.Layers) {
			_, isManifest := p.selection.nodes[b.Digest]
			image = append(image, content{Blob: b, manifest: isManifest})
		}
		images = append(images, image)
	}
	return divide(images, missingIn(gap))
}

// OpenBlob returns the content of a blob of the plan from the registry that
// has it, which the caller closes.
func (p *ExportPlan) OpenBlob(ctx context.Context, client *registry.Client, d verify.Digest) (io.ReadCloser, error) {
	return p.selection.open(ctx, client, d, 0)
}

// Requests returns how many requests the blobs of a gap are: manifests have
// been fetched.
func (p *ExportPlan) Requests(gap *bundle.Gap) int {
	n := 0
	for _, part := range gap.Parts {
		if _, isManifest := p.selection.nodes[part.Digest]; !isManifest && !part.Kept {
			n++
		}
	}
	return n
}

// Items returns the images of the bundle.
func (p *ExportPlan) Items() []Item { return itemsOf(p.Set.Manifest().Images) }

// Largest returns up to n of the parts of a gap that the plan has fetched, the
// largest first.
func (p *ExportPlan) Largest(gap *bundle.Gap, n int) []bundle.Part {
	return largestParts(gap, n, func(d verify.Digest) bool { return p.selection.origins[d].Digest == d })
}

// LargestParts returns up to n of the parts that a gap has moved, the largest
// first.
func LargestParts(gap *bundle.Gap, n int) []bundle.Part {
	return largestParts(gap, n, func(verify.Digest) bool { return true })
}

func largestParts(gap *bundle.Gap, n int, fits func(verify.Digest) bool) []bundle.Part {
	var list []bundle.Part
	for _, p := range gap.Parts {
		if !p.Kept && fits(p.Digest) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b bundle.Part) int { return cmp.Compare(b.Size, a.Size) })
	return list[:min(n, len(list))]
}

// CopyShares returns what a copy of a bundle moves of each of its images.
func CopyShares(ctx context.Context, r *bundle.Reader, gap *bundle.Gap) (Shares, error) {
	var images [][]content
	for _, item := range BundleItems(r) {
		nodes, err := nodesOf(ctx, BundleSource(r), item)
		if err != nil {
			return Shares{}, err
		}
		images = append(images, contentOf(nodes, ""))
	}
	return divide(images, missingIn(gap)), nil
}

// nodesOf returns the manifests that an item and its referrers lead to.
func nodesOf(ctx context.Context, src Source, item Item) ([]node, error) {
	nodes, err := walk(ctx, src.Manifest, item.Root)
	for _, ref := range item.Referrers {
		if err != nil {
			return nil, err
		}
		var more []node
		more, err = walk(ctx, src.Manifest, ref.Descriptor())
		nodes = append(nodes, more...)
	}
	return nodes, err
}

// contentOf returns the manifests and their blobs, in a place.
func contentOf(nodes []node, place string) []content {
	var list []content
	for _, n := range nodes {
		list = append(list, content{bundle.Blob{Digest: n.Digest, Size: n.Size}, place, true})
		for _, b := range n.parsed.Blobs() {
			list = append(list, content{bundle.Blob{Digest: b.Digest, Size: b.Size}, place, false})
		}
	}
	return list
}

// Shares returns what [Push] moves of each delivery of the plan. Manifests go
// to each repository, blobs to the first that misses them.
func (p *PushPlan) Shares() Shares {
	type at struct {
		place  string
		digest verify.Digest
	}
	missing := map[at]bool{}
	for _, b := range p.Blobs {
		if b.Assumed || len(b.From) > 0 {
			continue
		}
		for _, repo := range b.Missing {
			missing[at{repo.String(), b.Digest}] = true
		}
	}
	var images [][]content
	for _, w := range p.work {
		place := w.Repository.String()
		image := contentOf(w.nodes, place)
		for i, c := range image {
			if !c.manifest && missing[at{place, c.Digest}] {
				missing[at{"", c.Digest}] = true
				image[i].place = ""
			}
		}
		for digest := range w.missingDigests() {
			missing[at{place, digest}] = true
		}
		images = append(images, image)
	}
	return divide(images, func(c content) int64 {
		if missing[at{c.place, c.Digest}] {
			return c.Size
		}
		return 0
	})
}

// Requests returns about how many requests [Push] sends to the registry:
// logins, retries and what is asked of referrers are not counted.
func (p *PushPlan) Requests() int {
	n := 2 * p.Manifests // put, read back
	for _, w := range p.work {
		n += 2 * len(w.tags)
	}
	for _, b := range p.Blobs {
		send, mount := 4, 2 // begin or mount, send, finish, ask
		switch {
		case b.Size > worthAsking: // ask first
			send, mount = 5, 3
		case b.Size <= registry.SmallBlob: // sent with what finishes it
			send = 3
		}
		mounts := len(b.Missing)
		if len(b.From) == 0 {
			n += send
			mounts--
		}
		n += mounts * mount
	}
	return n
}

// Largest returns up to n of the blobs that the source of the plan supplies,
// the largest first.
func (p *PushPlan) Largest(n int) []oci.Descriptor {
	var list []oci.Descriptor
	for _, b := range p.Blobs {
		if !b.Assumed && len(b.From) == 0 {
			list = append(list, b.Descriptor)
		}
	}
	return largest(list, n)
}

func largest(list []oci.Descriptor, n int) []oci.Descriptor {
	list = slices.SortedStableFunc(slices.Values(list), func(a, b oci.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	return list[:min(n, len(list))]
}

// SavePlan is what a save has found out before it writes.
type SavePlan struct {
	Totals
	Blobs     []oci.Descriptor // that are missing
	Manifests []oci.Descriptor // all, children first: they are written again
	Names     []layout.Named
	Shares    Shares

	nodes []node
	src   Source
}

// PlanSave finds out what of items is missing in a layout that has what has
// reports. It writes nothing.
func PlanSave(ctx context.Context, src Source, items []Item, has func(context.Context, oci.Descriptor) (bool, error)) (*SavePlan, error) {
	p := &SavePlan{src: src}
	known, missing := map[verify.Digest]bool{}, map[verify.Digest]bool{}
	var images [][]content
	for _, item := range items {
		p.Names = append(p.Names, item.names()...)
		nodes, err := nodesOf(ctx, src, item)
		if err != nil {
			return nil, err
		}
		images = append(images, contentOf(nodes, ""))
		for _, n := range nodes {
			if known[n.Digest] {
				continue
			}
			known[n.Digest] = true
			there, err := has(ctx, n.Descriptor)
			if err != nil {
				return nil, err
			}
			missing[n.Digest] = !there
			p.nodes = append(p.nodes, n)
			p.Manifests = append(p.Manifests, n.Descriptor)
			for _, blob := range n.parsed.Blobs() {
				if known[blob.Digest] {
					continue
				}
				known[blob.Digest] = true
				there, err := has(ctx, blob)
				switch {
				case err != nil:
					return nil, err
				case there:
					p.SkippedItems++
					p.SkippedBytes += blob.Size
				default:
					missing[blob.Digest] = true
					p.Items++
					p.Bytes += blob.Size
					p.Blobs = append(p.Blobs, blob)
				}
			}
		}
	}
	p.Shares = divide(images, func(c content) int64 {
		if missing[c.Digest] {
			return c.Size
		}
		return 0
	})
	return p, nil
}

// names returns how index.json lists the item and its referrers.
func (i Item) names() []layout.Named {
	var names []layout.Named
	for _, tag := range i.Tags {
		names = append(names, layout.Named{Name: i.tagged(tag), Descriptor: i.Root})
	}
	if len(i.Tags) == 0 {
		names = append(names, layout.Named{Name: i.Name, Descriptor: i.Root})
	}
	for _, r := range i.Referrers {
		name := ""
		if r.Tag != "" {
			name = i.tagged(r.Tag)
		}
		names = append(names, layout.Named{Name: name, Descriptor: r.Descriptor()})
	}
	return names
}

// Largest returns up to n of the blobs that are missing, the largest first.
func (p *SavePlan) Largest(n int) []oci.Descriptor { return largest(p.Blobs, n) }
