package transfer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/verify"
)

// ExportOptions says how a selection becomes a bundle.
type ExportOptions struct {
	Name       string         // of the bundle; required
	Version    string         // "" means the time, unless a bundle of the same content is there
	Sequence   int64          // 0 means the time in Unix seconds
	Expires    time.Time      // zero means never, or after Lifetime
	Lifetime   time.Duration  // from the creation until it expires; zero means see Expires
	VolumeSize int64          // bytes; 0 means one volume
	Base       *bundle.Reader // for an incremental bundle, or nil
	Now        time.Time      // time of creation; required
	Jobs       int            // blobs at once; 0 means 4
	Progress   Progress       // required
	// Say is told, in words, what an earlier export has left; required.
	Say func(format string, args ...any)
}

// ExportPlan is a bundle that is signed and not yet written.
type ExportPlan struct {
	Name      string
	Folder    string // in the store
	Set       *bundle.Set
	Unchanged bool  // a complete bundle of the same content is there
	Resumed   bool  // an earlier export of it was interrupted
	Blobs     int   // in the volumes, manifests included
	Bytes     int64 // of them
	Shared    int64 // bytes that images share with images before them
	BaseBytes int64 // bytes that the base has

	selection *Selection
	documents []bundle.Document
	store     bundle.Store
	stale     *bundle.Set // what an earlier export of other content left
	wrong     []string    // volumes in place that are not right
	untidy    bool        // see [bundle.Found]
}

// PlanExport signs the bundle that s makes, or finds the one that an earlier
// call has begun or finished in store. It writes nothing. Errors:
// [ErrConflict] when the version is there with other content.
func PlanExport(ctx context.Context, s *Selection, store bundle.Store, signer *verify.Signer, o ExportOptions) (*ExportPlan, error) {
	p := &ExportPlan{Name: o.Name, selection: s}
	var err error
	if p.documents, err = bundle.LayoutDocuments(s.Images, s.manifest); err != nil {
		return nil, err
	}
	base, groups := p.subtract(o.Base)
	p.Shared = shared(groups)
	folders, err := candidates(ctx, store, o)
	if err != nil {
		return nil, err
	}
	if o.Version == "" {
		folders = newestOnly(ctx, store, signer, folders, o.Now)
	}
	for _, f := range folders {
		set, err := p.match(ctx, bundle.Sub(store, f.Folder), f, signer, base, groups, o)
		if err != nil {
			return nil, err
		}
		if set != nil {
			p.Set, p.Folder, p.store = set, f.Folder, bundle.Sub(store, f.Folder)
			p.count()
			p.untidy = f.Untidy
			return p, p.inspect(ctx, f.Pending, o)
		}
	}
	m := &bundle.Manifest{Base: base, Format: bundle.Format, Images: s.Images, Name: o.Name, Version: o.Version, Sequence: o.Sequence,
		Created: o.Now.UTC().Format(time.RFC3339)}
	if m.Version == "" {
		m.Version = o.Now.UTC().Format("20060102T150405Z")
	}
	if m.Sequence == 0 {
		m.Sequence = o.Now.Unix()
	}
	m.Expires = o.expiry(o.Now)
	p.Folder = o.Name + "/" + m.Version
	p.store = bundle.Sub(store, p.Folder)
	if err := m.Pack(p.documents, groups, o.VolumeSize); err != nil {
		return nil, err
	}
	raw, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if p.Set, err = sign(ctx, raw, signer); err != nil {
		return nil, err
	}
	p.count()
	return p, nil
}

// expiry returns the time of expiry of a bundle that was created at a time, as
// it stands in the manifest.
func (o ExportOptions) expiry(created time.Time) string {
	switch {
	case o.Lifetime > 0:
		return created.Add(o.Lifetime).UTC().Format(time.RFC3339)
	case !o.Expires.IsZero():
		return o.Expires.UTC().Format(time.RFC3339)
	}
	return ""
}

// sign signs raw and opens it again: a set comes through one door only.
func sign(ctx context.Context, raw []byte, signer *verify.Signer) (*bundle.Set, error) {
	sig, err := signer.Sign(raw)
	if err != nil {
		return nil, err
	}
	return openOwn(ctx, raw, sig, signer)
}

func openOwn(ctx context.Context, raw, sig []byte, signer *verify.Signer) (*bundle.Set, error) {
	padded, err := bundle.PadSignature(bytes.TrimRight(sig, " "))
	if err != nil {
		return nil, err
	}
	return bundle.Open(ctx, bundle.Envelope{Raw: raw, Signature: padded}, bundle.ReadOptions{Policy: verify.KeyPolicy(signer.Key())})
}

// subtract returns what the base has, and the groups without it. Manifests
// and configs always travel, and so do signatures: an import verifies them
// before it asks a registry.
func (p *ExportPlan) subtract(base *bundle.Reader) (*bundle.Base, []bundle.Group) {
	if base == nil {
		return nil, p.selection.groups
	}
	targets := blobTargets(base)
	b := &bundle.Base{Blobs: []bundle.BaseBlob{}, Digest: base.Digest(), Name: base.Manifest().Name, Version: base.Manifest().Version}
	var groups []bundle.Group
	listed, small := map[verify.Digest]bool{}, map[verify.Digest]bool{}
	for _, g := range p.selection.groups {
		for _, blob := range g.Small {
			small[blob.Digest] = true
		}
	}
	for _, g := range p.selection.groups {
		var layers []bundle.Blob
		for _, layer := range g.Layers {
			target, ok := targets[layer.Digest]
			if !ok || small[layer.Digest] || p.selection.signed[layer.Digest] {
				layers = append(layers, layer)
				continue
			}
			if !listed[layer.Digest] {
				listed[layer.Digest] = true
				b.Blobs = append(b.Blobs, bundle.BaseBlob{Digest: layer.Digest, Size: layer.Size, Target: target})
				p.BaseBytes += layer.Size
			}
		}
		groups = append(groups, bundle.Group{Small: g.Small, Layers: layers})
	}
	return b, groups
}

// blobTargets returns, for each blob that the import of a bundle leaves in the
// registry, the path of an image that has it.
func blobTargets(r *bundle.Reader) map[verify.Digest]string {
	targets := map[verify.Digest]string{}
	var visit func(d verify.Digest, target string)
	visit = func(d verify.Digest, target string) {
		m, _ := r.ManifestOf(d)
		if m == nil {
			return
		}
		for _, blob := range m.Blobs() {
			if _, ok := targets[blob.Digest]; !ok {
				targets[blob.Digest] = target
			}
		}
		for _, child := range m.Manifests {
			visit(child.Digest, target)
		}
	}
	for _, image := range r.Manifest().Images {
		visit(image.Digest, image.Target)
		for _, ref := range image.Referrers {
			visit(ref.Digest, image.Target)
		}
	}
	return targets
}

// inspect finds out whether the bundle in place is whole.
func (p *ExportPlan) inspect(ctx context.Context, pending bool, o ExportOptions) error {
	there, bad, err := p.Set.Inspect(ctx, p.store)
	if err != nil {
		return err
	}
	defer there.Close()
	p.Unchanged = !pending && len(bad) == 0
	p.Resumed = !p.Unchanged
	if p.Resumed {
		p.wrong, err = findDamaged(ctx, there, bad, CopyOptions{Jobs: o.Jobs, Say: o.Say})
	}
	return err
}

// shared returns the bytes that groups have in common with groups before them.
func shared(groups []bundle.Group) int64 {
	var n int64
	seen := map[verify.Digest]bool{}
	for _, g := range groups {
		for _, b := range slices.Concat(g.Small, g.Layers) {
			if seen[b.Digest] {
				n += b.Size
			}
			seen[b.Digest] = true
		}
	}
	return n
}

// count sets what is in the volumes of the set.
func (p *ExportPlan) count() {
	for _, part := range p.Set.Parts() {
		if !part.Document {
			p.Blobs++
			p.Bytes += part.Size
		}
	}
}

// candidates returns the bundles in store that may be the one to be written:
// that of the version asked for, or without one all of the name, newest
// version first.
func candidates(ctx context.Context, store bundle.Store, o ExportOptions) ([]bundle.Found, error) {
	found, err := bundle.List(ctx, bundle.Sub(store, o.Name))
	if err != nil {
		return nil, err
	}
	var list []bundle.Found
	for i := len(found) - 1; i >= 0; i-- {
		f := found[i]
		if f.Folder != "" && !strings.Contains(f.Folder, "/") && (o.Version == "" || o.Version == f.Folder) {
			f.Folder = o.Name + "/" + f.Folder
			list = append(list, f)
		}
	}
	return list, nil
}

// newestOnly leaves out complete bundles but the one of the highest sequence,
// and that one when it has expired: an older one would not be the newest at
// the site.
func newestOnly(ctx context.Context, store bundle.Store, signer *verify.Signer, folders []bundle.Found, now time.Time) []bundle.Found {
	newest, sequence := "", int64(-1)
	for _, f := range folders {
		if f.Pending {
			continue
		}
		raw, sig, err := bundle.Signed(ctx, bundle.Sub(store, f.Folder), false)
		if err != nil {
			continue
		}
		set, err := openOwn(ctx, raw, sig, signer)
		if err == nil && set.Manifest().Sequence > sequence && set.Expired(now) == nil {
			newest, sequence = f.Folder, set.Manifest().Sequence
		}
	}
	return slices.DeleteFunc(folders, func(f bundle.Found) bool { return !f.Pending && f.Folder != newest })
}

// match returns the set that stands in store when it is what would be written
// now but for version, sequence and times, and nil when it is not.
func (p *ExportPlan) match(ctx context.Context, store bundle.Store, f bundle.Found, signer *verify.Signer, base *bundle.Base, groups []bundle.Group, o ExportOptions) (*bundle.Set, error) {
	raw, sig, err := bundle.Signed(ctx, store, f.Pending)
	if err != nil && !errors.Is(err, bundle.ErrNotFound) {
		return nil, err
	}
	var set *bundle.Set
	if err == nil {
		set, err = openOwn(ctx, raw, sig, signer)
	}
	if err == nil {
		var same bool
		if same, err = p.same(set.Manifest(), raw, base, groups, o); err != nil {
			return nil, err
		}
		if same {
			return set, nil
		}
	}
	switch {
	case o.Version == "":
		return nil, nil // another version, of other content
	case !f.Pending:
		return nil, fmt.Errorf("%w: %s is there already with other content: choose another version", ErrConflict, store)
	}
	o.Say("what an interrupted export left in %s is of another set of images: starting anew", store)
	p.stale = set
	return nil, nil
}

// same reports whether what would be written now has the manifest m.
func (p *ExportPlan) same(m *bundle.Manifest, raw []byte, base *bundle.Base, groups []bundle.Group, o ExportOptions) (bool, error) {
	created, err := time.Parse(time.RFC3339, m.Created)
	if err != nil || o.Sequence != 0 && o.Sequence != m.Sequence || o.expiry(created) != m.Expires {
		return false, err
	}
	now := &bundle.Manifest{Base: base, Created: m.Created, Expires: m.Expires, Format: bundle.Format, Images: p.selection.Images,
		Name: o.Name, Sequence: m.Sequence, Version: m.Version}
	if err := now.Pack(p.documents, groups, o.VolumeSize); err != nil {
		return false, err
	}
	again, err := now.Encode()
	return bytes.Equal(again, raw), err
}

// Export fetches what the plan needs and writes the bundle. What is there
// already is not fetched again.
func Export(ctx context.Context, p *ExportPlan, client *registry.Client, o ExportOptions) (Totals, error) {
	if p.Unchanged {
		if p.untidy {
			if err := bundle.Tidy(ctx, p.store); err != nil {
				return Totals{}, err
			}
		}
		return Totals{SkippedItems: p.Blobs, SkippedBytes: p.Bytes}, nil
	}
	if p.stale != nil {
		if err := bundle.Discard(ctx, p.store, p.stale); err != nil {
			return Totals{}, err
		}
	}
	return writeSet(ctx, p.store, p.Set, p.documents, p.wrong, o.Jobs, o.Progress, func(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error) {
		return p.selection.open(ctx, client, d, off)
	}, p.selection.hostsOf)
}

// openAt returns the content of a blob from an offset on, which the caller
// closes. Its digest is not checked.
type openAt func(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error)

// writeSet writes a set into store, its content from open, and the volumes in
// wrong even when they seem to be there. Of what an interrupted call has left,
// down to the middle of a blob, nothing is read from open again. It talks to
// hosts for a blob.
func writeSet(ctx context.Context, store bundle.Store, set *bundle.Set, docs []bundle.Document, wrong []string, jobs int, progress Progress,
	open openAt, hosts func(verify.Digest) []string) (Totals, error) {
	w, err := bundle.NewWriter(ctx, store, set, docs, wrong...)
	if err != nil {
		return Totals{}, err
	}
	defer w.Close()
	var done Totals
	done.SkippedItems, done.Items, done.SkippedBytes, done.Bytes = w.Count()
	progress.Total(done)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, gctx := newLane(ctx, jobs)
	for part, err := range w.Parts(gctx) {
		if gctx.Err() != nil {
			break
		}
		if err != nil {
			cancel(err) // or those that wait for what is missing now never end
			break
		}
		if part.Kept {
			kept := Totals{Items: -1, SkippedItems: 1, Bytes: -part.Size, SkippedBytes: part.Size}
			done = done.plus(kept)
			progress.Total(kept)
			continue
		}
		if part.Offset > 0 {
			kept := Totals{Bytes: -part.Offset, SkippedBytes: part.Offset}
			done = done.plus(kept)
			progress.Total(kept)
		}
		write := func(ctx context.Context) error {
			task := progress.Start(part.Digest.String(), part.Size-part.Offset)
			err := copyPart(ctx, w, part, task, open)
			task.Done(err)
			return err
		}
		if !part.Now {
			g.begin(append(storeHosts(store), hosts(part.Digest)...), write)
		} else if err := write(gctx); err != nil && gctx.Err() == nil {
			cancel(err)
			break
		}
	}
	err = g.Wait()
	if err = cmp.Or(context.Cause(ctx), err); err != nil {
		return done, err
	}
	return done, w.Finish(ctx)
}

// copyPart writes one part. What was kept of it may be wrong, after a loss of
// power: then it is written from the beginning.
func copyPart(ctx context.Context, w *bundle.Writer, part bundle.Part, task Task, open openAt) error {
	err := copyFrom(ctx, w, part, task, open)
	if part.Offset > 0 && errors.Is(err, verify.ErrMismatch) {
		task.Add(part.Offset - part.Size)
		part.Offset = 0
		err = copyFrom(ctx, w, part, task, open)
	}
	return err
}

func copyFrom(ctx context.Context, w *bundle.Writer, part bundle.Part, task Task, open openAt) error {
	body, err := open(ctx, part.Digest, part.Offset)
	if err != nil {
		return err
	}
	defer body.Close()
	return w.Write(ctx, part, counted(body, task))
}
