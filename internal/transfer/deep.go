package transfer

import (
	"cmp"
	"context"
	"encoding/json"
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

// Unpacked says what of images was unpacked to look into it.
type Unpacked struct {
	Layers int // that were unpacked, each once
	// Closed counts the others: they are encrypted, or with the base of an
	// incremental bundle.
	Closed int
}

// VerifyDeep is [Verify] that also unpacks the layers of images, to nowhere,
// and compares them with what the configs say they unpack to; and the platforms
// in indexes with those in configs (T17). So content is found that no runtime
// could use, however well it was signed. Each byte is read once. Errors: also
// [extract.ErrInvalid], [extract.ErrLimit] and [oci.ErrInvalid]; all that is
// wrong is joined.
func VerifyDeep(ctx context.Context, r *bundle.Reader, jobs int, progress Progress) (Totals, Unpacked, error) {
	src := BundleSource(r)
	u := newUnpacker()
	talksTo := func(Item) []string { return storeHosts(r.Store()) }
	err := eachAt(ctx, jobs, BundleItems(r), talksTo, func(ctx context.Context, item Item) error {
		for _, root := range item.roots() {
			nodes, err := walk(ctx, src.Manifest, root)
			if err == nil {
				err = u.expect(ctx, src, item.Name, nodes)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Totals{}, Unpacked{}, err
	}
	total, err := verifyParts(ctx, r, jobs, progress, func(ctx context.Context, p bundle.Part, seen func(int64)) error {
		l := u.take(p.Digest)
		if l == nil {
			return r.Check(ctx, p, seen)
		}
		err := u.unpack(ctx, src, l, seen)
		if isWrongContent(err) {
			return cmp.Or(r.Check(ctx, p, nil), err) // it says where
		}
		return u.fault(err)
	})
	slices.SortFunc(u.faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return total, u.done(), errors.Join(append(u.faults, err)...)
}

// roots returns the descriptors of an item and its referrers.
func (i Item) roots() []oci.Descriptor {
	roots := []oci.Descriptor{i.Root}
	for _, r := range i.Referrers {
		roots = append(roots, r.Descriptor())
	}
	return roots
}

// isWrongContent reports whether err says that bytes are not those of their
// digest.
func isWrongContent(err error) bool {
	return errors.Is(err, bundle.ErrCorrupt) || errors.Is(err, verify.ErrMismatch)
}

// unpacker compares layers with what configs say of them.
type unpacker struct {
	// turn is held by who unpacks: one layer of zstd can take 128 MiB.
	turn chan struct{}

	mu       sync.Mutex
	known    map[verify.Digest]bool           // manifests that were looked at
	layers   map[verify.Digest]*promisedLayer // still to be unpacked
	closed   map[verify.Digest]bool           // layers of which nothing can be found out
	unpacked int
	faults   []error
}

// promisedLayer is a layer with what configs say that it unpacks to.
type promisedLayer struct {
	oci.Descriptor
	promises []promise
}

// promise is what the config of one image says of a layer.
type promise struct {
	image  string // for people
	diffID verify.Digest
}

func newUnpacker() *unpacker {
	return &unpacker{turn: make(chan struct{}, 1), known: map[verify.Digest]bool{},
		layers: map[verify.Digest]*promisedLayer{}, closed: map[verify.Digest]bool{}}
}

// done returns what was unpacked, when all that is there was.
func (u *unpacker) done() Unpacked {
	return Unpacked{u.unpacked, len(u.closed) + len(u.layers)}
}

// fault takes note of err when it says that content is unusable, and returns
// any other.
func (u *unpacker) fault(err error) error {
	if !errors.Is(err, oci.ErrInvalid) && !errors.Is(err, extract.ErrInvalid) && !errors.Is(err, extract.ErrLimit) {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.faults = append(u.faults, err)
	return nil
}

// expect takes note of what the configs of the images in nodes, which belong to
// what people call name, say of their layers.
func (u *unpacker) expect(ctx context.Context, src Source, name string, nodes []node) error {
	for _, n := range nodes {
		u.mu.Lock()
		was := u.known[n.Digest]
		u.known[n.Digest] = true
		u.mu.Unlock()
		if was {
			continue
		}
		err := u.expectNode(ctx, src, fmt.Sprintf("%s: image %s", name, n.Digest), n.parsed)
		if isWrongContent(err) || errors.Is(err, registry.ErrNotFound) || errors.Is(err, ErrBaseMissing) {
			// Who reads the config as a blob tells what is wrong with it;
			// those of a base were looked at when that was verified.
			u.add("", n.parsed.Layers, nil)
			continue
		}
		if err := u.fault(err); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) expectNode(ctx context.Context, src Source, name string, m *oci.Manifest) error {
	for _, child := range m.Manifests {
		if child.Platform == nil || child.Platform.OS == "unknown" {
			continue
		}
		if err := checkPlatform(ctx, src, child); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if !hasFileSystem(m) {
		return nil
	}
	content, err := readBlob(ctx, src, *m.Config)
	if err != nil {
		return fmt.Errorf("%s: config %s: %w", name, m.Config.Digest, err)
	}
	var config struct {
		RootFS struct {
			DiffIDs []verify.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return fmt.Errorf("%s: config %s: %w: %v", name, m.Config.Digest, oci.ErrInvalid, err)
	}
	if got, want := len(config.RootFS.DiffIDs), len(m.Layers); got != want {
		return fmt.Errorf("%s: %w: config %s is for %d layers, and the manifest has %d", name, oci.ErrInvalid, m.Config.Digest, got, want)
	}
	u.add(name, m.Layers, config.RootFS.DiffIDs)
	return nil
}

// hasFileSystem reports whether m is an image of which all layers are archives
// of files.
func hasFileSystem(m *oci.Manifest) bool {
	return isImage(m) && !slices.ContainsFunc(m.Layers, func(d oci.Descriptor) bool {
		return !extract.IsImageLayer(strings.TrimSuffix(d.MediaType, encrypted))
	})
}

// encrypted is what the media types of encrypted layers end with.
const encrypted = "+encrypted"

// add takes note of the layers of an image. Of those without diffIDs, and of
// encrypted ones, nothing can be found out.
func (u *unpacker) add(name string, layers []oci.Descriptor, diffIDs []verify.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, d := range layers {
		if diffIDs == nil || strings.HasSuffix(d.MediaType, encrypted) {
			u.closed[d.Digest] = true
			continue
		}
		l := u.layers[d.Digest]
		if l == nil {
			l = &promisedLayer{Descriptor: d}
			u.layers[d.Digest] = l
		}
		l.promises = append(l.promises, promise{name, diffIDs[i]})
	}
}

// take returns the layer d if it is one that is still to be unpacked, or nil.
func (u *unpacker) take(d verify.Digest) *promisedLayer {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.layers[d]
	delete(u.layers, d)
	return l
}

// unpack reads a layer and compares what it unpacks to with each promise; seen
// is told how many bytes were read.
func (u *unpacker) unpack(ctx context.Context, src Source, l *promisedLayer, seen func(int64)) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-u.turn }()
	got, err := extract.DiffID(ctx, extract.Layer{Name: l.Digest.String(), MediaType: l.MediaType, Size: l.Size,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			body, err := src.OpenBlob(ctx, l.Descriptor, 0)
			if err != nil {
				return nil, err
			}
			body = &countedBody{body, seen}
			return readCloser{verify.NewReader(body, l.Digest, l.Size), body}, nil
		}}, extract.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", l.promises[0].image, err)
	}
	u.mu.Lock()
	u.unpacked++
	u.mu.Unlock()
	var wrong []error
	for _, p := range l.promises {
		if p.diffID != got {
			wrong = append(wrong, fmt.Errorf("%s: %w: layer %s unpacks to %s, and the config says %s", p.image, extract.ErrInvalid, l.Digest, got, p.diffID))
		}
	}
	return errors.Join(wrong...)
}

// readCloser reads from one and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}
