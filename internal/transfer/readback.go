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
	"ferry/internal/extract"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/verify"
)

// ReadBackOptions says how images in a registry are read again.
type ReadBackOptions struct {
	Jobs     int      // blobs or requests at once; 0 means 4
	Progress Progress // required
	// Unpack says that layers are compared with what configs say they unpack
	// to, as [VerifyDeep] does.
	Unpack bool
}

// ReadBackResult says what was read and found right.
type ReadBackResult struct {
	Images    []ReadImage
	Manifests int   // in each repository, each once
	Blobs     int   // likewise
	Bytes     int64 // of the blobs
	Unpacked  Unpacked
}

// ReadImage is an image in a registry that was read.
type ReadImage struct {
	Repository string            `json:"repository"`
	Digest     verify.Digest     `json:"digest"`
	Tags       []string          `json:"tags"`
	Referrers  []bundle.Referrer `json:"referrers"`
}

// maxFaults bounds how many faults of a registry an error tells.
const maxFaults = 100

// Standing returns the image that a reference names now, with all that belongs
// to it, and the source that has its manifests: what [ReadBack] reads. Errors:
// those of the registry; [registry.ErrNotFound] when there is no such image;
// [ErrLost] when the registry lists or refers to manifests that it does not have.
func Standing(ctx context.Context, client *registry.Client, ref registry.Reference) (Delivery, Source, error) {
	repo := ref.Repo()
	d, content, err := client.Get(ctx, ref)
	if err != nil {
		return Delivery{}, nil, err
	}
	src := &memory{Source: RepositorySource(client, repo), known: map[verify.Digest][]byte{d.Digest: content}}
	item := Item{Name: repo.Path, Root: d}
	if ref.Tag != "" {
		item.Tags = []string{ref.Tag}
	}
	nodes, err := walk(ctx, src.Manifest, d)
	if err != nil {
		return Delivery{}, nil, lost(err)
	}
	referrers, err := findReferrers(ctx, client, repo, src, nodes)
	if err != nil {
		return Delivery{}, nil, lost(err)
	}
	for _, r := range referrers {
		item.Referrers = append(item.Referrers, r.Referrer)
	}
	return Delivery{item, repo}, src, nil
}

// lost returns err as an [ErrLost] if it says that content is not there or is
// not right, which makes it a fault of who has it; any other as it is.
func lost(err error) error {
	if isWrongContent(err) || errors.Is(err, registry.ErrNotFound) || errors.Is(err, oci.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

// ReadBack reads again what stands in a registry: each tag, each manifest, each
// list of referrers and every byte of every blob, in each repository, and
// compares it with what src has of the deliveries (T62). Nothing the registry
// says is taken for granted, and nothing is written. A tag of signatures, or a
// list of referrers, may have more than was delivered: somebody may have signed
// since. What is wrong does not end it; the error joins all of it, 100 faults at
// most. Errors: [ErrLost], those of [VerifyDeep] with Unpack, and those of the
// registry.
func ReadBack(ctx context.Context, client *registry.Client, src Source, deliveries []Delivery, o ReadBackOptions) (*ReadBackResult, error) {
	b := &readBack{client: client, src: src, o: o, unpacker: newUnpacker(), known: map[blobAt]bool{},
		result: ReadBackResult{Images: make([]ReadImage, len(deliveries))}}
	talksTo := func(i int) []string { return []string{deliveries[i].Repository.Host} }
	err := eachAt(ctx, o.Jobs, indexes(deliveries), talksTo, func(ctx context.Context, i int) error {
		d := deliveries[i]
		b.result.Images[i] = ReadImage{d.Repository.String(), d.Root.Digest, append([]string{}, d.Tags...), append([]bundle.Referrer{}, d.Referrers...)}
		return b.readImage(ctx, d)
	})
	if err == nil {
		err = b.readBlobs(ctx)
	}
	b.result.Unpacked = b.unpacker.done()
	faults := append(b.faults, b.unpacker.faults...)
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if more := len(faults) - maxFaults; more > 0 {
		faults = append(faults[:maxFaults], fmt.Errorf("%w: %d more faults", ErrLost, more))
	}
	return &b.result, errors.Join(append(faults, err)...)
}

type readBack struct {
	client   *registry.Client
	src      Source
	o        ReadBackOptions
	unpacker *unpacker

	mu     sync.Mutex
	known  map[blobAt]bool // manifests and blobs that were or will be read
	blobs  []placedBlob
	result ReadBackResult
	faults []error
}

// placedBlob is a blob with where it is to be read.
type placedBlob struct {
	oci.Descriptor
	repo   registry.Repository
	parent verify.Digest // a manifest that refers to it
}

// fault takes note that a registry does not have what it should; any other
// error is returned.
func (b *readBack) fault(repo registry.Repository, what string, err error) error {
	if err = lost(err); !errors.Is(err, ErrLost) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Errorf("%s: %s: %w", repo, what, err))
	return nil
}

// isNew reports whether the manifest or blob was not met before in the
// repository.
func (b *readBack) isNew(d verify.Digest, repo registry.Repository) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := blobAt{d, repo}
	was := b.known[at]
	b.known[at] = true
	return !was
}

// readImage reads everything of an image but its blobs.
func (b *readBack) readImage(ctx context.Context, d Delivery) error {
	nowhere := func(registry.Repository) bool { return true } // plans without a question
	w, err := planDelivery(ctx, b.client, b.src, d, PushOptions{Absent: nowhere})
	if err == nil {
		err = w.dropLists(ctx, b.client)
	}
	if err != nil {
		return err
	}
	grown := map[verify.Digest]bool{}
	for _, t := range w.tags {
		more, err := b.readTag(ctx, d, t)
		if err := b.fault(d.Repository, "tag "+t.tag, err); err != nil {
			return err
		}
		grown[t.node.Digest] = more
	}
	for _, n := range w.nodes {
		if !b.isNew(n.Digest, d.Repository) {
			continue
		}
		if !grown[n.Digest] {
			if err := b.fault(d.Repository, "manifest "+n.Digest.String(), b.readManifest(ctx, d.Repository, n)); err != nil {
				return err
			}
		}
		b.addBlobs(d.Repository, n)
	}
	if b.o.Unpack {
		if err := b.unpacker.expect(ctx, RepositorySource(b.client, d.Repository), d.Repository.String(), w.nodes); err != nil {
			return err
		}
	}
	return b.readLists(ctx, d)
}

// readTag checks what a tag names. It reports whether that has more than what
// was delivered, as those of signatures may.
func (b *readBack) readTag(ctx context.Context, d Delivery, t taggedManifest) (more bool, err error) {
	at := d.Repository.Tag(t.tag)
	have, content, err := b.client.Get(ctx, at)
	if err != nil {
		return false, err
	}
	// What others ask before they pull must be the same.
	told, err := b.client.Head(ctx, at)
	switch {
	case err != nil:
		return false, err
	case told.Digest != have.Digest:
		return false, fmt.Errorf("%w: asked for its digest the registry says %s, and it gives %s", ErrLost, told.Digest, have.Digest)
	case have.Digest == t.node.Digest:
		return false, nil
	case t.node.Digest == d.Root.Digest:
		return false, fmt.Errorf("%w: it names %s, not %s", ErrLost, have.Digest, t.node.Digest)
	}
	parsed, err := oci.Parse(content, have.MediaType)
	if err != nil {
		return false, err
	}
	all := slices.Concat(parsed.Layers, parsed.Manifests)
	for _, want := range slices.Concat(t.node.parsed.Layers, t.node.parsed.Manifests) {
		if !slices.ContainsFunc(all, func(d oci.Descriptor) bool { return d.Digest == want.Digest }) {
			return false, fmt.Errorf("%w: it names %s, not %s, and lacks %s, which that has", ErrLost, have.Digest, t.node.Digest, want.Digest)
		}
	}
	return true, nil
}

func (b *readBack) readManifest(ctx context.Context, repo registry.Repository, n node) error {
	have, _, err := b.client.Get(ctx, repo.Digest(n.Digest)) // which has hashed it
	if err != nil {
		return err
	}
	if have.MediaType != n.MediaType {
		return fmt.Errorf("%w: it came back as %q, not %q", ErrLost, have.MediaType, n.MediaType)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.result.Manifests++
	return nil
}

func (b *readBack) addBlobs(repo registry.Repository, n node) {
	for _, blob := range n.parsed.Blobs() {
		if b.isNew(blob.Digest, repo) {
			b.mu.Lock()
			b.blobs = append(b.blobs, placedBlob{blob, repo, n.Digest})
			b.mu.Unlock()
		}
	}
}

// readLists checks that the registry lists the referrers that are found by
// lists only.
func (b *readBack) readLists(ctx context.Context, d Delivery) error {
	listed := map[verify.Digest][]oci.Descriptor{}
	for _, r := range d.Referrers {
		if r.Tag != "" {
			continue
		}
		list, asked := listed[r.Subject]
		if !asked {
			var err error
			list, _, err = b.client.Referrers(ctx, d.Repository, r.Subject)
			if err := b.fault(d.Repository, fmt.Sprintf("referrers of %s", r.Subject), err); err != nil {
				return err
			}
			listed[r.Subject] = list
		}
		if !slices.ContainsFunc(list, func(l oci.Descriptor) bool { return l.Digest == r.Digest }) {
			if err := b.fault(d.Repository, fmt.Sprintf("referrers of %s", r.Subject),
				fmt.Errorf("%w: it does not list %s (%s)", ErrLost, r.Digest, r.ArtifactType)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *readBack) readBlobs(ctx context.Context) error {
	total := Totals{Items: len(b.blobs)}
	for _, blob := range b.blobs {
		total.Bytes += blob.Size
	}
	b.o.Progress.Total(total)
	talksTo := func(blob placedBlob) []string { return []string{blob.repo.Host} }
	return eachAt(ctx, b.o.Jobs, b.blobs, talksTo, func(ctx context.Context, blob placedBlob) error {
		task := b.o.Progress.Start(blob.Digest.String(), blob.Size)
		err := b.readBlob(ctx, blob, task)
		task.Done(err)
		if err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.result.Blobs++
			b.result.Bytes += blob.Size
			return nil
		}
		return b.fault(blob.repo, fmt.Sprintf("blob %s of %s", blob.Digest, blob.parent), err)
	})
}

// readBlob reads a blob to its end. A layer that is to be unpacked is, the first
// time it is met.
func (b *readBack) readBlob(ctx context.Context, blob placedBlob, task Task) error {
	src := RepositorySource(b.client, blob.repo)
	if l := b.unpacker.take(blob.Digest); l != nil {
		l.Size = blob.Size
		err := b.unpacker.unpack(ctx, src, l, task.Add)
		if errors.Is(err, extract.ErrInvalid) || errors.Is(err, extract.ErrLimit) {
			return b.unpacker.fault(err)
		}
		return err
	}
	body, err := src.OpenBlob(ctx, blob.Descriptor, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, verify.NewReader(counted(body, task), blob.Digest, blob.Size))
	return err
}
