package bundle

import (
	"context"
)

// BufferSize, in bytes, is what each part holds in memory while it is written.
const BufferSize = copyBuffer

// Gap is what a [Writer] of a set would have to write into a store.
type Gap struct {
	Volumes []string // names of those that are to be written
	Parts   []Part   // in them, in order, without documents; each blob that is cut once
	Room    *Room    // nil where the store is on no file system
}

// Bytes returns how many bytes of content are to be written.
func (g *Gap) Bytes() int64 {
	var n int64
	for _, p := range g.Parts {
		if !p.Kept {
			n += p.Size - p.Offset
		}
	}
	return n
}

// GapOptions says how a set is going to be written.
type GapOptions struct {
	Wrong []string          // volumes that are written again even when they look right
	Stale *Set              // what is discarded before; or nil
	Puts  map[string][]byte // objects that are stored besides, by name
	// Read has what an interrupted writer left read and hashed, to tell what is
	// kept of the parts. Without it nothing is.
	Read bool
}

// Gap finds out what a [Writer] of the set would have to write into store, and
// what room that takes. It writes nothing. What file systems take for folders
// and their own lists is not counted. Errors: as [NewWriter].
func (s *Set) Gap(ctx context.Context, store Store, o GapOptions) (*Gap, error) {
	w, err := lookWriter(ctx, store, s, nil, o.Wrong)
	if err != nil {
		return nil, err
	}
	g := &Gap{}
	for v := range w.volumes {
		if w.volumes[v].there {
			continue
		}
		g.Volumes = append(g.Volumes, VolumeName(v))
		parts, err := w.missingParts(ctx, v, o.Read && o.Stale == nil)
		if err != nil {
			return nil, err
		}
		g.Parts = append(g.Parts, parts...)
	}
	if dir, ok := OnDisk(store); ok {
		g.Room, err = w.room(ctx, dir, o)
	}
	return g, err
}

// missingParts returns the parts of volume v, as [Writer.Parts] does, without
// opening it for writing.
func (w *Writer) missingParts(ctx context.Context, v int, read bool) ([]Part, error) {
	l := w.set.layouts[v]
	dir, ok := OnDisk(w.store)
	var parts []Part
	for i, f := range l.Files {
		if f.isBlob() || f.isPiece() && !w.pieceFollows(v, i) {
			parts = append(parts, w.set.part(v, i))
		}
	}
	if !ok || !read {
		return parts, ctx.Err()
	}
	old, done, err := dir.kept(ctx, VolumeName(v), l.Size)
	if err != nil || old == nil {
		return parts, err
	}
	defer done()
	for i, p := range parts {
		if f := w.set.file(p.places[0]); !f.isPiece() {
			parts[i].Offset, parts[i].Kept = findKept(ctx, old, f)
		}
	}
	return parts, ctx.Err()
}

// room follows what a writer does to the file system, step by step. A volume
// that is replaced counts until all are written: they may be written at once.
func (w *Writer) room(ctx context.Context, dir *Dir, o GapOptions) (*Room, error) {
	u := NewUsage(ctx, dir)
	if o.Stale != nil {
		for v, l := range o.Stale.layouts {
			u.discard(VolumeName(v), l.Size)
		}
		u.discard(ManifestName+PendingSuffix, 0)
		u.discard(SignatureName+PendingSuffix, 0)
	}
	for name, content := range o.Puts {
		u.Put(name, int64(len(content)))
	}
	manifest := int64(len(w.set.raw))
	u.Put(SignatureName+PendingSuffix, SignatureSize)
	u.Put(ManifestName+PendingSuffix, manifest)
	var replaced []func()
	for v, l := range w.set.layouts {
		if !w.volumes[v].there {
			replaced = append(replaced, u.Create(VolumeName(v), l.Size))
		}
	}
	for _, done := range replaced {
		done()
	}
	u.Put(SignatureName, SignatureSize)
	u.Put(ManifestName, manifest)
	return u.Room()
}
