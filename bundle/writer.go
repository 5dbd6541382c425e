package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"ferry/verify"
)

// Writer writes a set into a store, part by part in any order. What is there
// already, whole volumes and what an interrupted writer of the same set left,
// is not written again.
type Writer struct {
	set       *Set
	store     Store
	documents map[verify.Digest][]byte

	opening []sync.Mutex // of each volume
	mu      sync.Mutex
	volumes []volumeWriter
}

type volumeWriter struct {
	upload Upload
	left   int  // files still to be written
	there  bool // the volume is complete and visible
}

// Part is what is written in one go: a file of a volume, or the pieces of a
// blob that was cut.
type Part struct {
	Digest verify.Digest
	Size   int64 // bytes of content
	Kept   bool  // an interrupted writer has left it: nothing is to be written
	// Offset is where the content that is to be written begins, in bytes: an
	// interrupted writer seems to have left what is before it.
	Offset int64
	// Now says that a blob that was begun before goes on behind it: it is to
	// be written before another part is asked for, or that blob may wait for
	// ever in a store that bounds what it holds back.
	Now bool
	// Document says that it is a document of the layout, which the writer
	// writes itself.
	Document bool
	places   []place
}

// NewWriter begins to write set into store, the bundle's own folder. The set's
// manifest and signature are put there as pending; [Writer.Finish] gives them
// their final names. The volumes whose names are in wrong are written again
// even when they look right. Errors: [ErrExists] when another bundle is there.
func NewWriter(ctx context.Context, store Store, set *Set, docs []Document, wrong ...string) (*Writer, error) {
	w, err := lookWriter(ctx, store, set, docs, wrong)
	if err != nil {
		return nil, err
	}
	if err := store.Put(ctx, SignatureName+PendingSuffix, set.signature); err != nil {
		return nil, err
	}
	return w, store.Put(ctx, ManifestName+PendingSuffix, set.raw)
}

// lookWriter returns a writer that has looked at what is there, and has
// written nothing yet.
func lookWriter(ctx context.Context, store Store, set *Set, docs []Document, wrong []string) (*Writer, error) {
	w := &Writer{set: set, store: store, documents: map[verify.Digest][]byte{}, volumes: make([]volumeWriter, len(set.layouts)),
		opening: make([]sync.Mutex, len(set.layouts))}
	for _, d := range docs {
		w.documents[verify.DigestOf(d.Content)] = d.Content
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looks)
	g.Go(func() error { return w.checkVacant(gctx) })
	for v, l := range set.layouts {
		g.Go(func() error {
			there, err := w.isThere(gctx, v)
			w.volumes[v] = volumeWriter{left: len(l.Files), there: there && !slices.Contains(wrong, VolumeName(v))}
			return err
		})
	}
	return w, g.Wait()
}

// looks is how many objects are looked at, at once, before writing.
const looks = 8

// checkVacant returns an [ErrExists] when a bundle of another manifest is in
// the store.
func (w *Writer) checkVacant(ctx context.Context) error {
	raw, err := readSmall(ctx, w.store, ManifestName, MaxManifest)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(raw, w.set.raw):
		return fmt.Errorf("%s: %w: it is of another bundle", w.store, ErrExists)
	}
	return nil
}

// isThere reports whether volume v is in the store: a volume gets its name only
// when every byte of it was written, and its head says which set it is of.
func (w *Writer) isThere(ctx context.Context, v int) (bool, error) {
	object, err := w.store.Open(ctx, VolumeName(v))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer object.Close()
	if object.Size() != w.set.layouts[v].Size {
		return false, nil
	}
	got, err := readRange(ctx, object, 0, w.set.layouts[v].HeadSize)
	return bytes.Equal(got, head(w.set.raw, w.set.signature)), err
}

// Count returns how many parts there are in volumes that are in place, and in
// those that are not, and their bytes of content.
func (w *Writer) Count() (placed, missing int, placedBytes, missingBytes int64) {
	for v, l := range w.set.layouts {
		for i, f := range l.Files {
			switch {
			case !f.isBlob() && !f.isPiece() || f.isPiece() && w.pieceFollows(v, i):
			case w.volumes[v].there:
				placed++
				placedBytes += f.Size
			default:
				part := w.set.part(v, i)
				missing++
				missingBytes += part.Size
			}
		}
	}
	return placed, missing, placedBytes, missingBytes
}

// Parts returns the parts of the volumes that are not in place, in their
// order. It opens each volume as it comes to it, and writes the documents of
// the layout itself. A part that it finds kept needs no Write.
func (w *Writer) Parts(ctx context.Context) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for v := range w.volumes {
			if w.volumes[v].there {
				continue
			}
			through := w.goesThrough(v)
			for i, f := range w.set.layouts[v].Files {
				if f.isPiece() && w.pieceFollows(v, i) {
					continue // with the blob's first piece that is missing
				}
				part := w.set.part(v, i)
				part.Now = i < through
				err := w.prepare(ctx, v, i, &part)
				if err == nil && !f.isBlob() && !f.isPiece() {
					continue
				}
				if !yield(part, err) || err != nil {
					return
				}
			}
		}
	}
}

// goesThrough returns the number of the last file of volume v that is written
// together with a piece in an earlier volume, or -1.
func (w *Writer) goesThrough(v int) int {
	for i, f := range slices.Backward(w.set.layouts[v].Files) {
		if f.isPiece() && w.pieceFollows(v, i) {
			return i
		}
	}
	return -1
}

// pieceFollows reports whether the piece is written together with one in an
// earlier volume.
func (w *Writer) pieceFollows(v, i int) bool {
	for _, p := range w.set.places[w.set.layouts[v].Files[i].Digest] {
		if p.volume < v && !w.volumes[p.volume].there {
			return true
		}
	}
	return false
}

// prepare opens the upload of volume v and finds out what of its file i, which
// is part, was kept from an interrupted upload. A document it writes.
func (w *Writer) prepare(ctx context.Context, v, i int, part *Part) error {
	upload, err := w.open(ctx, v)
	if err != nil {
		return err
	}
	f := w.set.layouts[v].Files[i]
	if content, ok := w.documents[f.Digest]; ok && !f.isBlob() {
		part.Kept = true
		return w.write(ctx, place{v, i}, bytes.NewReader(content))
	}
	if old := upload.Kept(); old != nil && !f.isPiece() {
		if part.Offset, part.Kept = findKept(ctx, old, f); part.Kept {
			if err := w.end(ctx, place{v, i}); err != nil {
				return err
			}
			return w.done(ctx, place{v, i})
		}
	}
	return ctx.Err()
}

// open returns the upload of volume v, begun if it was not. It holds only the
// lock of that volume, because the store may let it wait for those that write
// lower ones.
func (w *Writer) open(ctx context.Context, v int) (Upload, error) {
	w.opening[v].Lock()
	defer w.opening[v].Unlock()
	w.mu.Lock()
	upload := w.volumes[v].upload
	w.mu.Unlock()
	if upload != nil {
		return upload, nil
	}
	upload, err := w.store.Create(ctx, VolumeName(v), w.set.layouts[v].Size)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.volumes[v].upload = upload
	w.mu.Unlock()
	return upload, upload.WriteAt(ctx, head(w.set.raw, w.set.signature), 0)
}

// Write writes a part, whose content from [Part.Offset] on is read from content
// and must be exactly that: it counts as written only when the digest is
// right. A volume of which all parts are written becomes visible. Write is safe
// for concurrent use. Errors: [verify.ErrMismatch], which with an Offset may
// be the fault of what was kept: the part can be written again without one;
// those of the store.
func (w *Writer) Write(ctx context.Context, part Part, content io.Reader) error {
	if part.Offset > 0 { // of a file, never of pieces
		p := part.places[0]
		kept := io.NewSectionReader(w.volumes[p.volume].upload.Kept(), w.set.file(p).Content(), part.Offset)
		content = io.MultiReader(kept, content)
	}
	checked := verify.NewReader(content, part.Digest, part.Size)
	for _, p := range part.places {
		f := w.set.file(p)
		if w.volumes[p.volume].there {
			if _, err := io.CopyN(io.Discard, checked, f.Size); err != nil {
				return unexpected(err)
			}
			continue
		}
		if _, err := w.open(ctx, p.volume); err != nil {
			return err
		}
		if err := w.copy(ctx, p, io.LimitReader(checked, f.Size), part.Offset); err != nil {
			return err
		}
	}
	// The end of the content, where the digest is checked.
	if n, err := io.ReadFull(checked, make([]byte, 1)); n != 0 || err != io.EOF {
		return unexpected(err)
	}
	for _, p := range part.places {
		if !w.volumes[p.volume].there {
			if err := w.done(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// write writes a whole file of a volume from content that is trusted.
func (w *Writer) write(ctx context.Context, p place, content io.Reader) error {
	if err := w.copy(ctx, p, content, 0); err != nil {
		return err
	}
	return w.done(ctx, p)
}

// copyBuffer is what is written to a store at once, in bytes: large enough
// that a system call costs nothing beside it.
const copyBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// copy writes header, content and padding of a file, in order. The first kept
// bytes of the content, with the header, are in the upload already: they are
// only read.
func (w *Writer) copy(ctx context.Context, p place, content io.Reader, kept int64) error {
	f, upload := w.set.file(p), w.volumes[p.volume].upload
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	at, head := f.Start, f.Header()
	if kept > 0 {
		if _, err := io.CopyN(io.Discard, content, kept); err != nil {
			return unexpected(err)
		}
		at, head = f.Content()+kept, nil
	}
	whole := io.MultiReader(bytes.NewReader(head), content, bytes.NewReader(make([]byte, f.Padding())))
	for at < f.End() {
		n, err := io.ReadFull(whole, (*buffer)[:min(copyBuffer, f.End()-at)])
		if err != nil {
			return unexpected(err)
		}
		if err := upload.WriteAt(ctx, (*buffer)[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return w.end(ctx, p)
}

// end writes what ends a volume, behind its last file: in ascending order, as
// the store asks for.
func (w *Writer) end(ctx context.Context, p place) error {
	l := w.set.layouts[p.volume]
	if p.file < len(l.Files)-1 {
		return nil
	}
	return w.volumes[p.volume].upload.WriteAt(ctx, make([]byte, trailerSize), l.Trailer())
}

// done counts a file as written, and makes the volume visible with its last.
func (w *Writer) done(ctx context.Context, p place) error {
	w.mu.Lock()
	w.volumes[p.volume].left--
	last := w.volumes[p.volume].left == 0
	upload := w.volumes[p.volume].upload
	w.mu.Unlock()
	if !last {
		return nil
	}
	return upload.Commit(ctx)
}

// Finish makes the bundle visible, when all its volumes are. Errors:
// [ErrIncomplete] when parts were not written, [ErrExists] when another
// bundle was finished there meanwhile.
func (w *Writer) Finish(ctx context.Context) error {
	for v, volume := range w.volumes {
		if !volume.there && volume.left > 0 {
			return fmt.Errorf("%w: %s lacks %d files", ErrIncomplete, VolumeName(v), volume.left)
		}
	}
	if err := w.checkVacant(ctx); err != nil {
		return err
	}
	if err := w.store.Put(ctx, SignatureName, w.set.signature); err != nil {
		return err
	}
	err := w.store.PutNew(ctx, ManifestName, w.set.raw)
	if errors.Is(err, ErrExists) {
		err = w.checkVacant(ctx)
	}
	if err != nil {
		return err
	}
	return Tidy(ctx, w.store)
}

// Tidy removes from store, the folder of a bundle that is finished, the
// documents of when it was pending, which a writer that was killed at its very
// end has left.
func Tidy(ctx context.Context, store Store) error {
	var g errgroup.Group
	g.Go(func() error { return store.Remove(ctx, ManifestName+PendingSuffix) })
	g.Go(func() error { return store.Remove(ctx, SignatureName+PendingSuffix) })
	return g.Wait()
}

// Close gives up what is not finished; what was written so far stays for the
// next writer of the same set.
func (w *Writer) Close() error {
	var errs []error
	for _, volume := range w.volumes {
		if volume.upload != nil {
			errs = append(errs, volume.upload.Close())
		}
	}
	return errors.Join(errs...)
}

// Signed returns the manifest and the signature of the bundle in store, or of
// one that was begun there and not finished. Nothing of it is trusted yet.
// Errors: [ErrNotFound].
func Signed(ctx context.Context, store Store, pending bool) (raw, signature []byte, err error) {
	suffix := ""
	if pending {
		suffix = PendingSuffix
	}
	if raw, err = readSmall(ctx, store, ManifestName+suffix, MaxManifest); err != nil {
		return nil, nil, err
	}
	signature, err = readSmall(ctx, store, SignatureName+suffix, SignatureSize)
	return raw, signature, err
}

// Discard removes what a writer of set left in store without finishing.
func Discard(ctx context.Context, store Store, set *Set) error {
	var errs []error
	for v := range set.layouts {
		errs = append(errs, store.Remove(ctx, VolumeName(v)))
	}
	return errors.Join(append(errs, Tidy(ctx, store))...)
}
