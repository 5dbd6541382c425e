package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

// CopyOptions says how a bundle is copied.
type CopyOptions struct {
	Jobs     int      // blobs at once; 0 means 4
	Progress Progress // required
	// Say is told, in words, what is wrong at the destination; required.
	Say func(format string, args ...any)
	// Check is told what is to be written, before anything is; its error ends
	// the copy. Nil means that there is nothing to check.
	Check func(gap *bundle.Gap) error
}

// Copy copies a bundle into store, the folder of the bundle there. Every byte
// is checked on its way. A copy that is there is read again, and only the
// volumes that are missing or wrong are written. Errors: [ErrConflict] when
// another bundle is in that place.
func Copy(ctx context.Context, r *bundle.Reader, store bundle.Store, o CopyOptions) (Totals, error) {
	wrong, err := lookCopy(ctx, r, store, o)
	if err != nil {
		return Totals{}, err
	}
	if o.Check != nil {
		gap, err := r.Set.Gap(ctx, store, copyGap(r, wrong))
		if err == nil {
			err = o.Check(gap)
		}
		if err != nil {
			return Totals{}, err
		}
	}
	for name, sig := range r.OtherSignatures() {
		if err := store.Put(ctx, name, sig); err != nil {
			return Totals{}, err
		}
	}
	return writeSet(ctx, store, r.Set, r.LayoutDocuments(), wrong, o.Jobs, o.Progress, r.OpenBlob,
		func(verify.Digest) []string { return storeHosts(r.Store()) })
}

// CopyGap finds out what [Copy] would write. It writes nothing, and reads what
// is there.
func CopyGap(ctx context.Context, r *bundle.Reader, store bundle.Store, o CopyOptions) (*bundle.Gap, error) {
	wrong, err := lookCopy(ctx, r, store, o)
	if err != nil {
		return nil, err
	}
	options := copyGap(r, wrong)
	options.Read = true
	return r.Set.Gap(ctx, store, options)
}

func copyGap(r *bundle.Reader, wrong []string) bundle.GapOptions {
	return bundle.GapOptions{Wrong: wrong, Puts: r.OtherSignatures()}
}

// lookCopy returns the names of the volumes in place that have to be replaced.
func lookCopy(ctx context.Context, r *bundle.Reader, store bundle.Store, o CopyOptions) ([]string, error) {
	raw, _, err := bundle.Signed(ctx, store, false)
	complete := err == nil
	switch {
	case err != nil && !errors.Is(err, bundle.ErrNotFound):
		return nil, err
	case complete && verify.DigestOf(raw) != r.Digest():
		return nil, fmt.Errorf("%w: another bundle is in %s", ErrConflict, store)
	}
	there, bad, err := r.Set.Inspect(ctx, store)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if complete {
		return findWrong(ctx, there, bad, o)
	}
	return findDamaged(ctx, there, bad, o)
}

// findWrong reads the complete copy that Inspect has opened, and returns the
// names of the volumes that are missing or wrong; bad has those that it found.
func findWrong(ctx context.Context, there *bundle.Reader, bad []string, o CopyOptions) ([]string, error) {
	wrong := setOf(bad)
	spread(there.Parts(), wrong)
	if err := checkParts(ctx, there, wrong, o.Jobs); err != nil {
		return nil, err
	}
	spread(there.Parts(), wrong)
	names := slices.Sorted(maps.Keys(wrong))
	for _, name := range names {
		o.Say("%s is missing or wrong in %s: copying it again", name, there.Store())
	}
	return names, nil
}

// findDamaged is findWrong for where an interrupted run goes on. Of a blob that
// is cut over volumes all pieces must be there to tell. In a bucket nothing is
// read: the content was compared with its checksum when the volume was finished.
func findDamaged(ctx context.Context, there *bundle.Reader, bad []string, o CopyOptions) ([]string, error) {
	wrong := setOf(bad)
	if _, ok := bundle.OnDisk(there.Store()); ok {
		if err := checkParts(ctx, there, wrong, o.Jobs); err != nil {
			return nil, err
		}
	}
	names := slices.Sorted(maps.Keys(wrong))
	for _, name := range names {
		if !slices.Contains(bad, name) {
			o.Say("%s is wrong in %s: writing it again", name, there.Store())
		}
	}
	return names, nil
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// checkParts reads what is only in volumes that are not in wrong, and adds to it
// those that turn out to be.
func checkParts(ctx context.Context, there *bundle.Reader, wrong map[string]bool, jobs int) error {
	isWrong := func(name string) bool { return wrong[name] }
	parts := slices.DeleteFunc(there.Parts(), func(p bundle.Part) bool { return slices.ContainsFunc(p.Volumes(), isWrong) })
	talksTo := func(bundle.Part) []string { return storeHosts(there.Store()) }
	var mu sync.Mutex
	return eachAt(ctx, jobs, parts, talksTo, func(ctx context.Context, p bundle.Part) error {
		err := there.Check(ctx, p, nil)
		if errors.Is(err, bundle.ErrCorrupt) {
			mu.Lock()
			defer mu.Unlock()
			for _, name := range p.Volumes() {
				wrong[name] = true
			}
			return nil
		}
		return err
	})
}

// spread makes all volumes wrong that hold pieces of one blob with a wrong one:
// only all pieces together have a digest.
func spread(parts []bundle.Part, wrong map[string]bool) {
	for before := -1; before != len(wrong); {
		before = len(wrong)
		for _, p := range parts {
			names := p.Volumes()
			if slices.ContainsFunc(names, func(name string) bool { return wrong[name] }) {
				for _, name := range names {
					wrong[name] = true
				}
			}
		}
	}
}

// Verify reads every byte of a bundle and checks it. Opening the reader has
// checked signature, heads, manifests and trailers before. What is wrong does
// not end it: the error names all volumes that are. Errors:
// [bundle.ErrCorrupt].
func Verify(ctx context.Context, r *bundle.Reader, jobs int, progress Progress) (Totals, error) {
	return verifyParts(ctx, r, jobs, progress, r.Check)
}

// verifyParts calls check for all parts of a bundle. What it finds damaged does
// not end it.
func verifyParts(ctx context.Context, r *bundle.Reader, jobs int, progress Progress,
	check func(ctx context.Context, p bundle.Part, seen func(n int64)) error) (Totals, error) {
	parts := r.Parts()
	var total Totals
	for _, p := range parts {
		if !p.Document {
			total.Items++
			total.Bytes += p.Size
		}
	}
	progress.Total(total)
	talksTo := func(bundle.Part) []string { return storeHosts(r.Store()) }
	var mu sync.Mutex
	var first error
	damaged := map[string]bool{}
	err := eachAt(ctx, jobs, parts, talksTo, func(ctx context.Context, p bundle.Part) error {
		var task Task = silentTask{}
		if !p.Document {
			task = progress.Start(p.Digest.String(), p.Size)
		}
		err := check(ctx, p, task.Add)
		task.Done(err)
		if !errors.Is(err, bundle.ErrCorrupt) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		first = cmp.Or(first, err)
		for _, name := range p.Volumes() {
			damaged[name] = true
		}
		return nil
	})
	if err == nil && len(damaged) > 1 {
		first = fmt.Errorf("%s are wrong: %w", strings.Join(slices.Sorted(maps.Keys(damaged)), ", "), first)
	}
	return total, cmp.Or(err, first)
}

// Platforms returns the platforms of an image of the bundle, in the order of
// its index.
func Platforms(ctx context.Context, src Source, root oci.Descriptor) ([]oci.Platform, error) {
	nodes, err := walk(ctx, src.Manifest, root)
	if err != nil {
		return nil, err
	}
	var list []oci.Platform
	for _, n := range nodes {
		for _, child := range n.parsed.Manifests {
			if child.Platform != nil && child.Platform.OS != "unknown" {
				list = append(list, *child.Platform)
			}
		}
	}
	return list, nil
}
