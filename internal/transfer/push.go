package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transport"
	"ferry/verify"
)

// ErrBaseMissing says that a blob which an incremental bundle leaves out is
// not in the registry: the base was not imported there.
var ErrBaseMissing = errors.New("base of the incremental bundle is missing")

// ErrLost says that something that was pushed is not there, or is not what was
// pushed.
var ErrLost = errors.New("the registry does not give back what was pushed")

// Delivery is an [Item] with the repository that it goes to.
type Delivery struct {
	Item
	Repository registry.Repository
}

// PushOptions says how images are pushed.
type PushOptions struct {
	Jobs     int      // blobs or requests at once; 0 means 4
	Progress Progress // required
	// Hash says that what is sent is hashed here even where the registry has
	// shown that it refuses content that does not have its digest.
	Hash bool
	// Absent reports whether the place of a repository is still to be made, so
	// that it has nothing and can not even be asked. Nil means that all are
	// there.
	Absent func(registry.Repository) bool
	// Prepare is called before anything is written, to make the places that
	// are absent. Nil means that there is nothing to prepare.
	Prepare func(ctx context.Context) error
	// Assumed says in which repositories a blob can be that the source does
	// not have.
	Assumed map[verify.Digest]registry.Repository
}

// PushPlan is what a push has found out before it writes.
type PushPlan struct {
	Deliveries []Delivery
	// Present says of each delivery whether it is there with all its tags.
	Present []bool
	// Blobs has every blob that is missing in a repository.
	Blobs     []PlannedBlob
	Manifests int   // manifests that are missing in their repositories
	Bytes     int64 // of the blobs that the source must supply

	work     []delivery
	presence map[verify.Digest][]registry.Repository // where a blob is already
}

// PlannedBlob is a blob with the repositories that miss it: the source
// supplies it to the first, the others mount it from there.
type PlannedBlob struct {
	oci.Descriptor
	Missing []registry.Repository
	From    []registry.Repository // repositories of the host that have it
	Assumed bool                  // only From can supply it
}

// delivery is a Delivery with what it leads to and what is missing of it.
type delivery struct {
	Delivery
	nodes     []node           // of the image and its referrers, children first
	missing   []node           // of nodes
	tags      []taggedManifest // to be written
	moved     map[string]verify.Digest
	referrers int  // manifests at the end of nodes that belong to referrers
	absent    bool // the repository can not be asked yet
}

// missingDigests returns the digests of d.missing.
func (d *delivery) missingDigests() map[verify.Digest]bool {
	digests := map[verify.Digest]bool{}
	for _, n := range d.missing {
		digests[n.Digest] = true
	}
	return digests
}

type taggedManifest struct {
	tag  string
	node node
}

// PlanPush finds out what of the deliveries is missing. It writes nothing.
// An image of which all tags are in place costs one request for each of them
// and is taken for complete: tags are written last. Errors: [ErrBaseMissing],
// [ErrConflict], and those of source and registry.
func PlanPush(ctx context.Context, client *registry.Client, src Source, deliveries []Delivery, o PushOptions) (*PushPlan, error) {
	p := &PushPlan{Deliveries: deliveries, Present: make([]bool, len(deliveries)), work: make([]delivery, len(deliveries)),
		presence: map[verify.Digest][]registry.Repository{}}
	talksTo := func(i int) []string {
		return append(sourceHosts(src, deliveries[i].Root), deliveries[i].Repository.Host)
	}
	err := eachAt(ctx, o.Jobs, indexes(deliveries), talksTo, func(ctx context.Context, i int) error {
		w, err := planDelivery(ctx, client, src, deliveries[i], o)
		if err != nil {
			return fmt.Errorf("%s: %w", deliveries[i].Repository, err)
		}
		p.work[i] = *w
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, w := range p.work {
		p.Present[i] = len(w.missing) == 0 && len(w.tags) == 0
	}
	return p, p.planBlobs(ctx, client, o)
}

// Write is what a push will write to one repository besides blobs.
type Write struct {
	Repository registry.Repository
	Manifests  []oci.Descriptor
	Tags       []TagWrite
	Present    []oci.Descriptor // manifests that are there already
}

// TagWrite is a tag that will be written.
type TagWrite struct {
	Tag    string
	Digest verify.Digest
	Was    verify.Digest // what it names now; zero when there is no such tag
}

// Writes returns what of each delivery will be written, in their order; two
// of them can be of one repository, and have manifests in common.
func (p *PushPlan) Writes() []Write {
	var all []Write
	for _, d := range p.work {
		w, isMissing := Write{Repository: d.Repository}, d.missingDigests()
		for _, n := range d.nodes {
			if isMissing[n.Digest] {
				w.Manifests = append(w.Manifests, n.Descriptor)
			} else {
				w.Present = append(w.Present, n.Descriptor)
			}
		}
		for _, t := range d.tags {
			w.Tags = append(w.Tags, TagWrite{t.tag, t.node.Digest, d.moved[t.tag]})
		}
		all = append(all, w)
	}
	return all
}

// Complete reports whether nothing is left to write.
func (p *PushPlan) Complete() bool { return len(p.Blobs) == 0 && !slices.Contains(p.Present, false) }

func planDelivery(ctx context.Context, client *registry.Client, src Source, d Delivery, o PushOptions) (*delivery, error) {
	w := &delivery{Delivery: d, moved: map[string]verify.Digest{}, absent: o.Absent != nil && o.Absent(d.Repository)}
	roots := []struct {
		d    oci.Descriptor
		tags []string
	}{{d.Root, d.Tags}}
	for _, r := range d.Referrers {
		root := roots[0]
		root.d, root.tags = r.Descriptor(), nil
		if r.Tag != "" {
			root.tags = []string{r.Tag}
		}
		roots = append(roots, root)
	}
	known := map[verify.Digest]bool{}
	for i, root := range roots {
		nodes, err := walk(ctx, src.Manifest, root.d)
		if err != nil {
			return nil, err
		}
		var fresh []node
		for _, n := range nodes {
			if !known[n.Digest] {
				known[n.Digest] = true
				fresh = append(fresh, n)
			}
		}
		w.nodes = append(w.nodes, fresh...)
		if i > 0 {
			w.referrers += len(fresh)
		}
		if err := w.planRoot(ctx, client, nodes[len(nodes)-1], root.tags, fresh, i > 0); err != nil {
			return nil, err
		}
	}
	w.dropStaleLists()
	return w, nil
}

// dropStaleLists leaves out the referrers tags whose list lacks a referrer that
// is delivered: the tag is brought up to date where a registry needs it.
func (w *delivery) dropStaleLists() {
	of := map[string][]node{}
	for _, n := range w.nodes[len(w.nodes)-w.referrers:] {
		if s := n.parsed.Subject; s != nil {
			tag := registry.FallbackTag(s.Digest)
			of[tag] = append(of[tag], n)
		}
	}
	w.tags = slices.DeleteFunc(w.tags, func(t taggedManifest) bool {
		return len(of[t.tag]) > 0 && !covers(t.node.parsed, of[t.tag])
	})
}

// planRoot finds out which of the tags of a root and which of its manifests
// are missing.
func (w *delivery) planRoot(ctx context.Context, client *registry.Client, root node, tags []string, nodes []node, isReferrer bool) error {
	if w.absent {
		for _, tag := range tags {
			w.tags = append(w.tags, taggedManifest{tag, root})
		}
		w.missing = append(w.missing, nodes...)
		return nil
	}
	var missing []string
	for _, tag := range tags {
		have, err := client.Head(ctx, w.Repository.Tag(tag))
		switch {
		case errors.Is(err, registry.ErrNotFound):
		case err != nil:
			return err
		case have.Digest == root.Digest:
			continue
		case isReferrer:
			if err := losesNothing(ctx, client, w.Repository.Tag(tag), root); err != nil {
				return err
			}
			w.moved[tag] = have.Digest
		default:
			w.moved[tag] = have.Digest
		}
		missing = append(missing, tag)
	}
	if isReferrer && len(missing) > 0 && len(nodes) == 1 {
		made, err := w.isMade(ctx, client, taggedManifest{missing[0], root})
		if err != nil {
			return err
		}
		if made {
			delete(w.moved, missing[0])
			w.drop(root)
			return nil
		}
	}
	for _, tag := range missing {
		w.tags = append(w.tags, taggedManifest{tag, root})
	}
	if len(tags) > 0 && len(missing) < len(tags) {
		return nil // a tag on it: it is there with all that it needs
	}
	for _, n := range slices.Backward(nodes) { // a parent vouches for its children
		_, err := client.Head(ctx, w.Repository.Digest(n.Digest))
		if errors.Is(err, registry.ErrNotFound) {
			w.missing = append(w.missing, n)
			continue
		}
		if err != nil {
			return err
		}
		if n.Digest == root.Digest {
			break
		}
	}
	slices.SortStableFunc(w.missing, func(a, b node) int { return indexOf(w.nodes, a) - indexOf(w.nodes, b) })
	return nil
}

func indexOf(nodes []node, n node) int {
	return slices.IndexFunc(nodes, func(o node) bool { return o.Digest == n.Digest })
}

// losesNothing returns an [ErrConflict] when the signatures or the like under
// a tag at the destination are not all in the manifest that is to replace them.
func losesNothing(ctx context.Context, client *registry.Client, at registry.Reference, root node) error {
	d, content, err := client.Get(ctx, at)
	if err != nil {
		return err
	}
	have, err := oci.Parse(content, d.MediaType)
	if err != nil {
		return err
	}
	// What cosign signs is often the same: the signatures are in the annotations.
	sameLayer := func(l oci.Descriptor) func(oci.Descriptor) bool {
		return func(n oci.Descriptor) bool { return n.Digest == l.Digest && maps.Equal(n.Annotations, l.Annotations) }
	}
	sameManifest := func(l oci.Descriptor) func(oci.Descriptor) bool {
		return func(n oci.Descriptor) bool { return n.Digest == l.Digest }
	}
	lost := slices.ContainsFunc(have.Layers, func(l oci.Descriptor) bool { return !slices.ContainsFunc(root.parsed.Layers, sameLayer(l)) }) ||
		slices.ContainsFunc(have.Manifests, func(l oci.Descriptor) bool { return !slices.ContainsFunc(root.parsed.Manifests, sameManifest(l)) })
	if lost {
		return fmt.Errorf("%w: %s has signatures or referrers that are not in the bundle and would be lost: move them away or delete the tag first", ErrConflict, at)
	}
	return nil
}

// planBlobs finds out which blobs are missing in which repository.
func (p *PushPlan) planBlobs(ctx context.Context, client *registry.Client, o PushOptions) error {
	type place struct {
		repo   registry.Repository
		d      oci.Descriptor
		absent bool
	}
	var asked []place
	known := map[string]bool{}
	for _, w := range p.work {
		isMissing := w.missingDigests()
		for _, n := range w.nodes {
			for _, blob := range n.parsed.Blobs() {
				if !isMissing[n.Digest] {
					p.has(blob.Digest, w.Repository)
				} else if key := w.Repository.String() + "@" + blob.Digest.String(); !known[key] {
					known[key] = true
					asked = append(asked, place{w.Repository, blob, w.absent})
				}
			}
		}
	}
	there := make([]bool, len(asked))
	talksTo := func(i int) []string { return []string{asked[i].repo.Host} }
	err := eachAt(ctx, o.Jobs, indexes(asked), talksTo, func(ctx context.Context, i int) error {
		if asked[i].absent {
			return nil
		}
		size, ok, err := client.HasBlob(ctx, asked[i].repo, asked[i].d.Digest)
		if err != nil {
			return fmt.Errorf("%s: %w", asked[i].repo, err)
		}
		there[i] = ok && (size == asked[i].d.Size || size < 0) // a registry need not tell the size
		return nil
	})
	if err != nil {
		return err
	}
	places := map[verify.Digest]int{}
	for i, at := range asked {
		if there[i] {
			p.has(at.d.Digest, at.repo)
			continue
		}
		n, ok := places[at.d.Digest]
		if !ok {
			n = len(p.Blobs)
			places[at.d.Digest] = n
			p.Blobs = append(p.Blobs, PlannedBlob{Descriptor: at.d})
		}
		p.Blobs[n].Missing = append(p.Blobs[n].Missing, at.repo)
	}
	for _, w := range p.work {
		p.Manifests += len(w.missing)
	}
	return p.planBase(ctx, client, o)
}

func (p *PushPlan) has(d verify.Digest, repo registry.Repository) {
	if !slices.Contains(p.presence[d], repo) {
		p.presence[d] = append(p.presence[d], repo)
	}
}

// planBase finds the blobs that the source does not have.
func (p *PushPlan) planBase(ctx context.Context, client *registry.Client, o PushOptions) error {
	talksTo := func(i int) []string { return []string{p.Blobs[i].Missing[0].Host} }
	return eachAt(ctx, o.Jobs, indexes(p.Blobs), talksTo, func(ctx context.Context, i int) error {
		b := &p.Blobs[i]
		b.From = p.presence[b.Digest]
		repo, assumed := o.Assumed[b.Digest]
		if !assumed {
			return nil
		}
		b.Assumed = true
		ok := false
		if o.Absent == nil || !o.Absent(repo) {
			var err error
			_, ok, err = client.HasBlob(ctx, repo, b.Digest)
			if err != nil && !errors.Is(err, registry.ErrUnauthorized) {
				return err
			}
		}
		if ok && !slices.Contains(b.From, repo) {
			b.From = append(slices.Clone(b.From), repo)
		}
		if len(b.From) == 0 {
			return fmt.Errorf("%w: blob %s is not in %s", ErrBaseMissing, b.Digest, repo)
		}
		return nil
	})
}

// PushResult is what a push has done.
type PushResult struct {
	Images       []PushedImage `json:"images"`
	BlobsPushed  int           `json:"blobsPushed"`
	BlobsMounted int           `json:"blobsMounted"`
	BytesPushed  int64         `json:"bytesPushed"`
	Manifests    int           `json:"manifestsPushed"`
	TagsWritten  int           `json:"tagsWritten"`
	// Hashed says who has hashed the large blobs on their way: HashedHere,
	// HashedThere, where the registry has refused a wrong one before, or nobody,
	// when there were none to send.
	Hashed string `json:"hashed,omitempty"`
	// Unproven says that the registry was asked for such a proof, and gave none.
	Unproven bool `json:"-"`
}

// Who hashes what is sent to a registry.
const (
	HashedHere  = "here"
	HashedThere = "registry"
)

// PushedImage is an image as it stands in the registry now, read back.
type PushedImage struct {
	Repository string            `json:"repository"`
	Digest     verify.Digest     `json:"digest"`
	Tags       []string          `json:"tags"`
	Referrers  []verify.Digest   `json:"referrers,omitempty"`
	Moved      map[string]string `json:"moved,omitempty"` // tags that were on other content, and on which
	Present    bool              `json:"present"`         // all of it was there before
}

// Push pushes what the plan found missing. Errors: [ErrLost], and those of
// source and registry. Tags are written when everything else is read back: an
// error before has written none.
func Push(ctx context.Context, client *registry.Client, src Source, p *PushPlan, o PushOptions) (*PushResult, error) {
	for i := range p.Blobs {
		if !p.Blobs[i].Assumed {
			p.Bytes += p.Blobs[i].Size
		}
	}
	if o.Prepare != nil {
		if err := o.Prepare(ctx); err != nil {
			return nil, err
		}
	}
	for i := range p.work {
		if w := &p.work[i]; w.absent { // and could not be asked before
			if err := w.dropLists(ctx, client); err != nil {
				return nil, fmt.Errorf("%s: %w", w.Repository, err)
			}
		}
	}
	o.Progress.Total(Totals{Items: len(p.Blobs), Bytes: p.Bytes})
	pusher := &pusher{client: client, src: src, o: o, seen: map[blobAt]bool{}}
	if err := pusher.chooseHash(ctx, p.Blobs); err != nil {
		return nil, err
	}
	if err := eachAt(ctx, o.Jobs, p.Blobs, pusher.hostsOf, pusher.pushBlob); err != nil {
		return nil, err
	}
	steps := []func(context.Context, delivery) error{pusher.pushManifests, pusher.readBack, pusher.checkReferrers,
		pusher.writeReferrerTags, pusher.writeImageTags}
	for _, step := range steps {
		if err := pusher.eachRepository(ctx, p.work, step); err != nil {
			return nil, err
		}
	}
	for i, w := range p.work {
		pusher.result.Images = append(pusher.result.Images, pushed(w, p.Present[i]))
	}
	return &pusher.result, nil
}

func pushed(w delivery, present bool) PushedImage {
	image := PushedImage{Repository: w.Repository.String(), Digest: w.Root.Digest, Tags: w.Tags, Present: present}
	for _, r := range w.Referrers {
		if indexOf(w.nodes, node{Descriptor: r.Descriptor()}) >= 0 { // not a list that the registry makes
			image.Referrers = append(image.Referrers, r.Digest)
		}
	}
	for tag, was := range w.moved {
		if image.Moved == nil {
			image.Moved = map[string]string{}
		}
		image.Moved[tag] = was.String()
	}
	return image
}

type pusher struct {
	client *registry.Client
	src    Source
	o      PushOptions
	mu     sync.Mutex
	result PushResult
	seen   map[blobAt]bool // blobs that the registry had when it was asked in this push
}

type blobAt struct {
	digest verify.Digest
	repo   registry.Repository
}

func (p *pusher) saw(d verify.Digest, repo registry.Repository) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[blobAt{d, repo}] = true
}

func (p *pusher) hasSeen(d verify.Digest, repo registry.Repository) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[blobAt{d, repo}]
}

func (p *pusher) count(add func(r *PushResult)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.result)
}

// eachRepository does step for all deliveries: those of one repository one
// after the other, since they may share manifests and a referrers tag.
func (p *pusher) eachRepository(ctx context.Context, work []delivery, step func(context.Context, delivery) error) error {
	byRepo := map[registry.Repository][]delivery{}
	var order []registry.Repository
	for _, w := range work {
		if byRepo[w.Repository] == nil {
			order = append(order, w.Repository)
		}
		byRepo[w.Repository] = append(byRepo[w.Repository], w)
	}
	talksTo := func(repo registry.Repository) []string { return []string{repo.Host} }
	return eachAt(ctx, p.o.Jobs, order, talksTo, func(ctx context.Context, repo registry.Repository) error {
		for _, w := range byRepo[repo] {
			if err := step(ctx, w); err != nil {
				return fmt.Errorf("%s: %w", repo, err)
			}
		}
		return nil
	})
}

// hostsOf returns whom pushBlob talks to.
func (p *pusher) hostsOf(b PlannedBlob) []string {
	var hosts []string
	if !b.Assumed {
		hosts = sourceHosts(p.src, b.Descriptor)
	}
	for _, repo := range slices.Concat(b.Missing, b.From) {
		hosts = append(hosts, repo.Host)
	}
	return hosts
}

// chooseHash leaves the hash of what is sent to the registry, if that is worth
// it and the registry shows that it can be left to it.
func (p *pusher) chooseHash(ctx context.Context, blobs []PlannedBlob) error {
	if len(blobs) > 0 {
		p.result.Hashed = HashedHere
	}
	var bytes int64
	var at registry.Repository
	for _, b := range blobs {
		if b.Size > registry.SmallBlob && !b.Assumed && len(b.From) == 0 {
			bytes += b.Size
			at = b.Missing[0]
		}
	}
	if p.o.Hash || bytes < worthProbe {
		return nil
	}
	left, err := p.client.LeaveHashTo(ctx, at)
	if left {
		p.result.Hashed = HashedThere
	}
	p.result.Unproven = !left
	return err
}

// worthProbe, in bytes, is what is hashed in less time than it takes to ask a
// distant registry for a proof. Small blobs are hashed here in any case.
const worthProbe = 16 << 20

// pushBlob brings a blob into all repositories that miss it: into the first
// from the source, unless it can be mounted, into the others from the first.
func (p *pusher) pushBlob(ctx context.Context, b PlannedBlob) error {
	from := b.From[:min(len(b.From), maxMounts)]
	for i, repo := range b.Missing {
		var task Task = silentTask{}
		if i == 0 && !b.Assumed {
			task = p.o.Progress.Start(b.Digest.String(), b.Size)
		}
		err := p.pushTo(ctx, repo, b, from, task)
		task.Done(err)
		if err != nil {
			return fmt.Errorf("%s: blob %s: %w", repo, b.Digest, err)
		}
		if len(from) < maxMounts {
			from = append(slices.Clone(from), repo)
		}
	}
	return nil
}

// maxMounts is from how many repositories a mount is tried: one that a registry
// refuses is refused from all of them.
const maxMounts = 2

func (p *pusher) pushTo(ctx context.Context, repo registry.Repository, b PlannedBlob, from []registry.Repository, task Task) error {
	var sent int64
	open := func(ctx context.Context, off int64) (io.ReadCloser, error) {
		if b.Assumed {
			return p.openAssumed(ctx, b, from, off)
		}
		body, err := p.src.OpenBlob(ctx, b.Descriptor, off)
		if err != nil {
			return nil, err
		}
		task.Add(off - sent) // what is sent again is counted again
		sent = off
		return &countedBody{body, func(n int64) { sent += n; task.Add(n) }}, nil
	}
	push := p.client.PushAbsentBlob
	if b.Size > worthAsking {
		push = p.client.PushBlob // which asks again: somebody else may have pushed it
	}
	r, err := push(ctx, repo, b.Descriptor, open, from)
	if errors.Is(err, registry.ErrLost) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err != nil {
		return err
	}
	p.saw(b.Digest, repo)
	p.count(func(result *PushResult) {
		switch {
		case r.Mounted:
			result.BlobsMounted++
		case !r.Existed:
			result.BlobsPushed++
			result.BytesPushed += b.Size
		}
	})
	if sent < b.Size {
		task.Add(b.Size - sent)
	}
	return nil
}

// worthAsking, in bytes, is up to where a blob that was missing when the push
// was planned is sent without asking again.
const worthAsking = 8 << 20

// openAssumed reads a blob that the bundle leaves out from a repository that
// has it, where the registry did not mount it.
func (p *pusher) openAssumed(ctx context.Context, b PlannedBlob, from []registry.Repository, off int64) (io.ReadCloser, error) {
	return p.client.OpenBlob(ctx, from[0], b.Descriptor, off)
}

// countedBody tells count what was read of a body.
type countedBody struct {
	io.ReadCloser
	count func(n int64)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(int64(n))
	return n, err
}

// WriteNTo implements [transport.Direct].
func (b *countedBody) WriteNTo(w io.Writer, n int64) (int64, error) {
	direct, ok := b.ReadCloser.(transport.Direct)
	if !ok {
		return 0, nil
	}
	n, err := direct.WriteNTo(w, n)
	b.count(n)
	return n, err
}

func (p *pusher) pushManifests(ctx context.Context, w delivery) error {
	for _, n := range w.missing {
		if err := p.client.PushManifest(ctx, w.Repository.Digest(n.Digest), n.MediaType, n.content); err != nil {
			return fmt.Errorf("manifest %s: %w", n.Digest, err)
		}
		p.count(func(r *PushResult) { r.Manifests++ })
	}
	return nil
}

// readBack fetches every manifest that was pushed, and asks for its blobs but
// those that were asked for when they had been pushed (T62).
func (p *pusher) readBack(ctx context.Context, w delivery) error {
	for _, n := range w.missing {
		d, content, err := p.client.Get(ctx, w.Repository.Digest(n.Digest))
		if err != nil {
			return fmt.Errorf("%w: manifest %s: %w", ErrLost, n.Digest, err)
		}
		if d.Digest != n.Digest || string(content) != string(n.content) {
			return fmt.Errorf("%w: manifest %s came back as %s", ErrLost, n.Digest, d.Digest)
		}
		for _, blob := range n.parsed.Blobs() {
			if p.hasSeen(blob.Digest, w.Repository) {
				continue
			}
			size, ok, err := p.client.HasBlob(ctx, w.Repository, blob.Digest)
			if err != nil {
				return fmt.Errorf("blob %s: %w", blob.Digest, err)
			}
			if !ok || size >= 0 && size != blob.Size {
				return fmt.Errorf("%w: blob %s of %d bytes (there: %t, %d bytes)", ErrLost, blob.Digest, blob.Size, ok, size)
			}
			p.saw(blob.Digest, w.Repository)
		}
	}
	return nil
}

// writeReferrerTags writes the tags of signatures and the like: an image gets
// its tags when these are there.
func (p *pusher) writeReferrerTags(ctx context.Context, w delivery) error {
	return p.writeTags(ctx, w, func(t taggedManifest) bool { return t.node.Digest != w.Root.Digest })
}

func (p *pusher) writeImageTags(ctx context.Context, w delivery) error {
	return p.writeTags(ctx, w, func(t taggedManifest) bool { return t.node.Digest == w.Root.Digest })
}

// writeTags writes the tags that are missing, and reads each back (T30).
func (p *pusher) writeTags(ctx context.Context, w delivery, which func(taggedManifest) bool) error {
	for _, t := range w.tags {
		if !which(t) {
			continue
		}
		at := w.Repository.Tag(t.tag)
		if err := p.client.PushManifest(ctx, at, t.node.MediaType, t.node.content); err != nil {
			return fmt.Errorf("tag %s: %w", t.tag, err)
		}
		have, err := p.client.Head(ctx, at)
		if err != nil {
			return fmt.Errorf("%w: tag %s: %w", ErrLost, t.tag, err)
		}
		if have.Digest != t.node.Digest {
			return fmt.Errorf("%w: tag %s is %s, and was written as %s", ErrLost, t.tag, have.Digest, t.node.Digest)
		}
		p.count(func(r *PushResult) { r.TagsWritten++ })
	}
	return nil
}
