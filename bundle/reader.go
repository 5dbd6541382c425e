package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/verify"
)

// Errors of reading a bundle; test for them with errors.Is.
var (
	// ErrCorrupt says that a volume is not what the manifest says.
	ErrCorrupt = errors.New("bundle is corrupt")
	// ErrIncomplete says that a part of the bundle is missing.
	ErrIncomplete = errors.New("bundle is incomplete")
)

// Reader reads the content of a set from a store. It is safe for concurrent
// use.
type Reader struct {
	*Set
	store   Store
	volumes []Object
	names   []string // of the volumes' objects
	alone   bool     // opened by a volume's name, in a folder of any kind
	docs    *documents
	others  map[string][]byte // signatures beside the one that volumes carry, by name
}

// Store returns where the bundle is.
func (r *Reader) Store() Store { return r.store }

// LayoutDocuments returns the documents of the image layout in the volumes.
func (r *Reader) LayoutDocuments() []Document { return r.docs.layout }

// OtherSignatures returns the signatures that stand beside the one that the
// volumes carry, by the names of their objects.
func (r *Reader) OtherSignatures() map[string][]byte { return r.others }

// Strays returns the names of what stands in the bundle's own folder and is no
// part of it: it counts for nothing (T06). There are none for a bundle that was
// opened by the name of a volume.
func (r *Reader) Strays(ctx context.Context) ([]string, error) {
	if r.alone {
		return nil, nil
	}
	list, err := r.store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var strays []string
	for _, info := range list {
		_, signature := r.others[info.Name]
		if !signature && info.Name != ManifestName && info.Name != SignatureName && !slices.Contains(r.names, info.Name) {
			strays = append(strays, info.Name)
		}
	}
	return strays, nil
}

// ReadOptions says whom to trust.
type ReadOptions struct {
	Policy *verify.Policy // required
	Now    time.Time      // to check all that expires with; required
}

// OpenReader opens the bundle in store, which is the bundle's own folder.
// With the name of a volume it takes manifest and signature from that volume's
// head, and without from bundle.json beside the volumes. It verifies the
// signature before anything is parsed, then that every volume is there with the
// right size, head, manifests, configs and trailer. The caller closes the
// reader.
//
// Errors: [verify.ErrUntrusted], [ErrNotFound] when there is no bundle,
// [ErrInvalid], [ErrCorrupt], [ErrIncomplete].
func OpenReader(ctx context.Context, store Store, volume string, o ReadOptions) (*Reader, error) {
	raw, signature, others, err := readSigned(ctx, store, volume)
	if err != nil {
		return nil, err
	}
	envelope := Envelope{Raw: raw, Signature: signature}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		envelope.Others = append(envelope.Others, others[name])
	}
	set, err := Open(ctx, envelope, o)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", ManifestName, store, err)
	}
	if err := set.Expired(o.Now); err != nil {
		return nil, err
	}
	r := &Reader{Set: set, store: store, others: others, alone: volume != ""}
	if err := r.open(ctx, volume); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open finds the volumes and reads what is at their heads and ends.
func (r *Reader) open(ctx context.Context, first string) error {
	if err := r.findVolumes(ctx, first); err != nil {
		return err
	}
	r.docs = newDocuments(r.manifest)
	for v := range r.volumes {
		if err := r.checkEnds(ctx, v); err != nil {
			return fmt.Errorf("%s: %w", VolumeName(v), err)
		}
	}
	return r.docs.complete(ctx, r)
}

// Close closes the volumes.
func (r *Reader) Close() error {
	var errs []error
	for _, object := range r.volumes {
		if object != nil {
			errs = append(errs, object.Close())
		}
	}
	return errors.Join(errs...)
}

// readSigned returns bundle.json, the signature that the volumes carry, and
// the others by name. Nothing of it is trusted yet.
func readSigned(ctx context.Context, store Store, volume string) (raw, signature []byte, others map[string][]byte, err error) {
	if volume != "" {
		object, err := store.Open(ctx, volume)
		if err != nil {
			return nil, nil, nil, err
		}
		defer object.Close()
		if raw, signature, err = readHead(ctx, object); err != nil {
			err = fmt.Errorf("%s in %s: %w", volume, store, err)
		}
		return raw, signature, nil, err
	}
	if raw, err = readSmall(ctx, store, ManifestName, MaxManifest); err != nil {
		return nil, nil, nil, err
	}
	signature, err = readSmall(ctx, store, SignatureName, SignatureSize)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %s is missing beside %s in %s", verify.ErrUnsigned, SignatureName, ManifestName, store)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	list, err := store.List(ctx, "bundle.")
	if err != nil {
		return nil, nil, nil, err
	}
	others = map[string][]byte{}
	for _, info := range list {
		if name := info.Name; name != SignatureName && strings.HasSuffix(name, ".sigstore.json") && path.Dir(name) == "." {
			if others[name], err = readSmall(ctx, store, name, verify.MaxSignature); err != nil {
				return nil, nil, nil, err
			}
			if len(others) >= verify.MaxSignatures {
				break // verify refuses so many
			}
		}
	}
	return raw, signature, others, nil
}

// readSmall returns the whole object name, of at most limit bytes.
func readSmall(ctx context.Context, store Store, name string, limit int64) ([]byte, error) {
	object, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer object.Close()
	if object.Size() > limit {
		return nil, fmt.Errorf("%w: %s in %s has %d bytes, more than %d", ErrInvalid, name, store, object.Size(), limit)
	}
	return readRange(ctx, object, 0, object.Size())
}

func readRange(ctx context.Context, object Object, off, n int64) ([]byte, error) {
	body, err := object.Range(ctx, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content := make([]byte, n)
	_, err = io.ReadFull(body, content)
	return content, err
}

// readHead returns the manifest and the signature at the head of a volume. It
// takes from the headers only what their one encoding allows (T10).
func readHead(ctx context.Context, object Object) (raw, signature []byte, err error) {
	notVolume := fmt.Errorf("%w: it does not begin like a volume of a bundle", ErrCorrupt)
	if object.Size() < blockSize {
		return nil, nil, notVolume
	}
	first, err := readRange(ctx, object, 0, blockSize)
	if err != nil {
		return nil, nil, err
	}
	size, err := strconv.ParseInt(string(first[124:135]), 8, 64)
	if err != nil || size < 0 || size > MaxManifest || !bytes.Equal(first, TarHeader(ManifestName, size)) || headSize(size) > object.Size() {
		return nil, nil, notVolume
	}
	content, err := readRange(ctx, object, blockSize, headSize(size)-blockSize)
	if err != nil {
		return nil, nil, err
	}
	raw = content[:size]
	signature = content[int64(len(content))-SignatureSize-padding(SignatureSize):]
	if !bytes.Equal(append(first, content...), head(raw, signature)) {
		return nil, nil, notVolume
	}
	return raw, signature, nil
}

// findVolumes opens the volumes. A name is only a hint: a volume is what its
// content says (T04).
func (r *Reader) findVolumes(ctx context.Context, first string) error {
	r.volumes, r.names = make([]Object, len(r.layouts)), make([]string, len(r.layouts))
	hints := make([]string, 0, len(r.layouts)+1)
	if first != "" {
		hints = append(hints, first)
	}
	for v := range r.layouts {
		hints = append(hints, VolumeName(v))
	}
	faults := map[string]error{}
	for _, name := range hints {
		if err := r.tryVolume(ctx, name); err != nil {
			faults[name] = err
		}
	}
	if r.missing() != nil {
		others, err := r.store.List(ctx, "")
		if err != nil {
			return err
		}
		for _, info := range others {
			if r.missing() != nil && path.Dir(info.Name) == "." && strings.HasSuffix(info.Name, ".tar") {
				if err := r.tryVolume(ctx, info.Name); err != nil && !errors.Is(err, ErrCorrupt) {
					return err
				}
			}
		}
	}
	missing := r.missing()
	for _, name := range slices.Concat(hints[:len(hints)-len(r.layouts)], missing) {
		if err := faults[name]; err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: %s of %d volumes missing in %s", ErrIncomplete, strings.Join(missing, ", "), len(r.layouts), r.store)
	}
	return nil
}

func (r *Reader) missing() []string {
	var names []string
	for v, object := range r.volumes {
		if object == nil {
			names = append(names, VolumeName(v))
		}
	}
	return names
}

// tryVolume takes the object name as the volume that its content says it is.
func (r *Reader) tryVolume(ctx context.Context, name string) error {
	object, err := r.store.Open(ctx, name)
	if err != nil {
		return err
	}
	v, err := r.identify(ctx, object)
	if err == nil && r.volumes[v] == nil {
		r.volumes[v], r.names[v] = object, name
		return nil
	}
	return errors.Join(err, object.Close())
}

// identify returns which volume of the set object is, by its size and the
// first header in which the volumes differ.
func (r *Reader) identify(ctx context.Context, object Object) (int, error) {
	got, err := r.readSetHead(ctx, object)
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(got, head(r.raw, r.signature)) {
		return 0, fmt.Errorf("%w: its head is not %s and %s of this bundle", ErrCorrupt, ManifestName, SignatureName)
	}
	var candidates []int
	for v, l := range r.layouts {
		if l.Size == object.Size() {
			candidates = append(candidates, v)
		}
	}
	for i := 0; len(candidates) > 1; i++ {
		if candidates, err = r.narrow(ctx, object, candidates, i); err != nil {
			return 0, err
		}
	}
	if len(candidates) == 0 {
		return 0, fmt.Errorf("%w: it has %d bytes, which no volume of the bundle has, or other content", ErrCorrupt, object.Size())
	}
	return candidates[0], nil
}

func (r *Reader) readSetHead(ctx context.Context, object Object) ([]byte, error) {
	return readRange(ctx, object, 0, min(object.Size(), r.layouts[0].HeadSize))
}

// narrow drops the candidates whose file i does not begin as object has it.
func (r *Reader) narrow(ctx context.Context, object Object, candidates []int, i int) ([]int, error) {
	var left []int
	for _, v := range candidates {
		files := r.layouts[v].Files
		if i >= len(files) {
			continue
		}
		same := true
		for _, other := range candidates {
			same = same && i < len(r.layouts[other].Files) && r.layouts[other].Files[i] == files[i]
		}
		if same { // with all of them: it tells nothing
			left = append(left, v)
			continue
		}
		want := files[i].Header()
		got, err := readRange(ctx, object, files[i].Start, int64(len(want)))
		if err != nil {
			return nil, err
		}
		if bytes.Equal(got, want) {
			left = append(left, v)
		}
	}
	return left, nil
}

// checkEnds reads the documents at the head of volume v, and its trailer.
func (r *Reader) checkEnds(ctx context.Context, v int) error {
	l, object := r.layouts[v], r.volumes[v]
	if err := checkTrailer(ctx, object, l); err != nil { // identify has seen the head
		return err
	}
	body := &stepReader{ctx: ctx, object: object, at: l.HeadSize, end: l.Trailer()}
	defer body.Close()
	for _, f := range l.Files {
		if f.isPiece() || f.isBlob() && !r.docs.wants(f.Digest) {
			break
		}
		if f.Size > maxDocuments-r.docs.size {
			return fmt.Errorf("%s: %w: more than %d bytes of manifests, configs and documents", f.Path, ErrInvalid, maxDocuments)
		}
		content, err := io.ReadAll(verify.NewReader(newFileReader(body, f), f.Digest, f.Size))
		if err != nil {
			return corrupt(f.Path, err)
		}
		if !f.isBlob() {
			r.docs.addLayout(Document{f.Path, content})
		} else if err := r.docs.add(f.Digest, content); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return nil
}

// firstStep, in bytes, is how much of a volume is asked for when its documents
// are read: where they end is known only when they are parsed, and a server
// sends what it is asked for, wanted or not.
const firstStep = 1 << 20

// stepReader reads an object up to end in ranges, each as long as all before
// it together.
type stepReader struct {
	ctx      context.Context // of the caller, who also closes the reader
	object   Object
	at, end  int64 // offsets in the object, in bytes
	consumed int64 // bytes
	body     io.ReadCloser
	left     int64 // bytes of body
}

func (s *stepReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.left)])
	s.at, s.left, s.consumed = s.at+int64(n), s.left-int64(n), s.consumed+int64(n)
	if err == io.EOF && s.left == 0 {
		err = nil // of this range
	}
	return n, err
}

func (s *stepReader) next() error {
	if s.at == s.end {
		return io.EOF
	}
	if err := s.Close(); err != nil {
		return err
	}
	n := min(max(firstStep, s.consumed), s.end-s.at)
	body, err := s.object.Range(s.ctx, s.at, n)
	if err != nil {
		return err
	}
	s.body, s.left = body, n
	return nil
}

func (s *stepReader) Close() error {
	if s.body == nil {
		return nil
	}
	body := s.body
	s.body = nil
	return body.Close()
}

// corrupt says that err came up at a file of a volume; content that is wrong
// is an [ErrCorrupt].
func corrupt(path string, err error) error {
	if errors.Is(err, verify.ErrMismatch) && !errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// newFileReader returns the content of file f from body, which stands at its
// header. Where the content ends it checks the padding; a header or padding
// that is not as it must be is an [ErrCorrupt] (T03).
func newFileReader(body io.Reader, f File) io.Reader {
	return io.MultiReader(
		expect(body, f.Header(), "header of "+f.Path),
		io.LimitReader(body, f.Size),
		expect(body, make([]byte, f.Padding()), "padding after "+f.Path))
}

// expect returns a reader that has nothing to read, and ends only when the
// next bytes of body are want.
func expect(body io.Reader, want []byte, what string) io.Reader {
	done := false
	return readerFunc(func([]byte) (int, error) {
		if done {
			return 0, io.EOF
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(body, got); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, fmt.Errorf("%s: %w", what, err)
		}
		if !bytes.Equal(got, want) {
			return 0, fmt.Errorf("%w: the tar %s is not as it must be", ErrCorrupt, what)
		}
		done = true
		return 0, io.EOF
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// OpenBlob returns the content of a blob or manifest from offset off to its
// end. Tar headers and padding on the way are checked, the digest is not:
// that is for who sees all the bytes (see [verify.NewReader]). The caller
// closes it. Errors: [ErrNotFound] when the bundle does not have it; from the
// stream [ErrCorrupt] and what [Object.Range] says.
func (r *Reader) OpenBlob(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error) {
	places := r.places[d]
	if places == nil {
		return nil, fmt.Errorf("%s: %w in the bundle", d, ErrNotFound)
	}
	b := &blobReader{ctx: ctx, r: r, skip: off}
	for _, p := range places {
		if size := r.file(p).Size; b.skip > 0 && b.skip >= size && len(b.places) == 0 {
			b.skip -= size
			continue
		}
		b.places = append(b.places, p)
	}
	return b, nil
}

// blobReader reads the pieces of a blob one after the other.
type blobReader struct {
	ctx    context.Context
	r      *Reader
	places []place // still to be read
	skip   int64   // bytes of the first of them
	body   io.ReadCloser
	left   *io.LimitedReader // of body: the content
	piece  io.Reader         // the content and the padding after it
}

func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.piece == nil {
			if len(b.places) == 0 {
				return 0, io.EOF
			}
			if err := b.next(); err != nil {
				return 0, err
			}
		}
		n, err := b.piece.Read(p)
		if err == io.EOF {
			b.piece, err = nil, b.Close()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (b *blobReader) next() error {
	at, f := b.places[0], b.r.file(b.places[0])
	b.places = b.places[1:]
	start := f.Start
	if b.skip > 0 {
		start = f.Content() + b.skip
	}
	body, err := b.r.volumes[at.volume].Range(b.ctx, start, f.End()-start)
	if err != nil {
		return fmt.Errorf("%s: %w", VolumeName(at.volume), err)
	}
	b.body, b.left = body, &io.LimitedReader{R: body, N: f.Size - b.skip}
	b.piece = io.MultiReader(b.left, expect(body, make([]byte, f.Padding()), "padding after "+f.Path))
	if b.skip > 0 {
		b.skip = 0
		return nil
	}
	if _, err := expect(body, f.Header(), "header of "+f.Path).Read(nil); err != io.EOF {
		return err
	}
	return nil
}

// WriteNTo writes the next n bytes to w, or fewer, without a buffer between
// where the store can do that. It writes none, without an error, when the next
// bytes are to be read.
func (b *blobReader) WriteNTo(w io.Writer, n int64) (int64, error) {
	body, ok := b.body.(interface {
		WriteNTo(io.Writer, int64) (int64, error)
	})
	if !ok || b.piece == nil {
		return 0, nil
	}
	n, err := body.WriteNTo(w, min(n, b.left.N))
	b.left.N -= n
	return n, err
}

func (b *blobReader) Close() error {
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

// Unverified returns the manifest of a bundle for people to look at. Nothing
// was checked but its form, and nothing can be read or pushed by it: that
// takes a [Set]. Errors: [ErrNotFound], [ErrInvalid], [ErrCorrupt].
func Unverified(ctx context.Context, store Store, volume string) (*Manifest, error) {
	var raw []byte
	var err error
	if volume == "" {
		raw, err = readSmall(ctx, store, ManifestName, MaxManifest)
	} else {
		raw, _, _, err = readSigned(ctx, store, volume)
	}
	if err != nil {
		return nil, err
	}
	return parse(raw)
}

// IsVolume reports whether the object name begins like a volume of some
// bundle.
func IsVolume(ctx context.Context, store Store, name string) bool {
	object, err := store.Open(ctx, name)
	if err != nil {
		return false
	}
	defer object.Close()
	_, _, err = readHead(ctx, object)
	return err == nil
}
