package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"unicode"

	"ferry/bundle"
	"ferry/verify"
)

const (
	// MaxEntries bounds the entries of an archive, and so the memory for
	// their names, to about 100 MB; a volume of ferry has at most about
	// 250,000 blobs.
	MaxEntries = 300_000
	// maxPath, in bytes, bounds a name in an archive, and where a link
	// leads; a blob's has 77.
	maxPath = 255
	// maxPadding, in bytes, bounds what follows the end of an archive: GNU
	// tar fills up to 10 KiB, and to more where it is told so for a tape.
	maxPadding = 1 << 20
	// maxLinks bounds the links from a name in an archive to its file, as
	// Linux does.
	maxLinks = 40

	tarBlock = 512 // bytes
)

// compressions are the first bytes of compressed files.
var compressions = []struct{ magic, name string }{
	{"\x1f\x8b", "gzip"},
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"BZh", "bzip2"},
	{"\xfd7zXZ\x00", "xz"},
}

// maxMagic, in bytes, is the length of the longest of them.
const maxMagic = 6

// compression returns how the content that begins with head is compressed, or
// "".
func compression(head []byte) string {
	for _, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// place is where the content of a file stands in an archive, in bytes.
type place struct{ off, size int64 }

// member is an entry of an archive: a file at its place, a link, or a folder.
type member struct {
	place
	kind byte           // tar.TypeReg, tar.TypeSymlink or tar.TypeDir
	link string         // where a link leads, as written
	head [maxMagic]byte // the first bytes of a file
}

// compression returns how a file is compressed, or "".
func (m member) compression() string { return compression(m.head[:min(maxMagic, m.size)]) }

// archive is an archive that is read.
type archive struct {
	object  bundle.Object
	window  *window           // on the object, while it is opened
	members map[string]member // while it is opened
	blobs   map[verify.Digest]place
}

// openArchive opens the archive in an object. It leaves that open on errors.
func openArchive(ctx context.Context, object bundle.Object) (*Source, error) {
	w := newWindow(ctx, object)
	head := make([]byte, maxMagic)
	if _, err := w.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, plainCause(err)
	}
	if name := compression(head); name != "" {
		return nil, fmt.Errorf("%w (%s)", ErrCompressed, name)
	}
	members, err := indexTar(ctx, io.NewSectionReader(w, 0, object.Size()))
	if err != nil {
		return nil, err
	}
	a := &archive{object: object, window: w, members: members, blobs: map[verify.Digest]place{}}
	defer func() { a.members, a.window = nil, nil }()
	s := &Source{blobs: a}
	switch {
	case a.has(markerName):
		s.images, err = a.readLayout()
	case a.has(dockerName):
		s.images, s.manifests, err = a.readDocker(ctx)
	default:
		err = unknownf("there is no %s and no %s at its top", markerName, dockerName)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// indexTar returns what is in a tar archive, by name. It reads the headers and
// the first bytes of files.
func indexTar(ctx context.Context, r *io.SectionReader) (map[string]member, error) {
	members := map[string]member{}
	end := int64(0) // of the last entry
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, tarError(err, len(members))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at, err := r.Seek(0, io.SeekCurrent) // archive/tar reads no further
		if err != nil {
			return nil, err
		}
		m, err := checkHeader(h)
		if err != nil {
			return nil, invalid("entry %d, %.300q: %v", len(members)+1, h.Name, err)
		}
		if m.size > r.Size()-at {
			return nil, invalid("%q ends after %d of %d bytes", h.Name, r.Size()-at, m.size)
		}
		m.off = at
		if head := m.head[:min(maxMagic, m.size)]; len(head) > 0 {
			if _, err := r.ReadAt(head, at); err != nil {
				return nil, plainCause(err)
			}
		}
		name, err := cleanName(h.Name, m.kind)
		if err != nil {
			return nil, invalid("entry %d: %v", len(members)+1, err)
		}
		if _, again := members[name]; again {
			return nil, invalid("%q is there twice", name) // T08
		}
		if len(members) == MaxEntries {
			return nil, invalid("more than %d entries", MaxEntries)
		}
		members[name] = m
		end = at + m.size + -m.size&(tarBlock-1)
	}
	if len(members) == 0 {
		return nil, unknownf("it is an empty file or archive")
	}
	return members, checkTrailer(r, end)
}

// tarError returns what an error of archive/tar, after n entries, means.
func tarError(err error, n int) error {
	var read readError
	switch {
	case errors.As(err, &read):
		return plainCause(err)
	case n == 0:
		return unknownf("it is not a tar archive")
	}
	return invalid("after %d entries: %v", n, err)
}

// checkHeader returns the kind, size and link of an entry, or an error for one
// that readers of tar may understand differently (T10).
func checkHeader(h *tar.Header) (member, error) {
	m := member{kind: h.Typeflag, link: h.Linkname}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return m, errors.New("it is a sparse file")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		m.size = h.Size
	case tar.TypeDir, tar.TypeSymlink:
		if h.Size != 0 {
			return m, fmt.Errorf("a folder or link with %d bytes", h.Size)
		}
	default:
		return m, fmt.Errorf("it is of type %q, neither a file nor a folder", h.Typeflag)
	}
	if (m.kind == tar.TypeSymlink) != (m.link != "") || len(m.link) > maxPath {
		return m, fmt.Errorf("it leads to %.300q", m.link)
	}
	return m, nil
}

var hexPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// cleanName returns the name of an entry without "./" before and "/" after it,
// which GNU tar writes. A name that leads elsewhere, or that two systems could
// read differently, is an error (T33), as is one of a blob that is no digest.
func cleanName(written string, kind byte) (string, error) {
	name := strings.TrimPrefix(written, "./")
	if kind == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
		if name == "" && written == "./" {
			name = "."
		}
	}
	if !fs.ValidPath(name) || name == "." && kind != tar.TypeDir || len(name) > maxPath ||
		strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("name %.300q is not supported", written)
	}
	if strings.HasPrefix(name, "blobs/") && kind != tar.TypeDir {
		hex, ok := strings.CutPrefix(name, blobFolder)
		if !ok || !hexPattern.MatchString(hex) {
			return "", fmt.Errorf("%.300q is not named after a sha256 digest", written)
		}
		if kind != tar.TypeReg {
			return "", fmt.Errorf("blob %q is a link", written)
		}
	}
	return name, nil
}

// checkTrailer returns an error when what follows the last entry, which ends at
// end, is not what ends a tar archive: two blocks of zeros, then few zeros (T07).
func checkTrailer(r *io.SectionReader, end int64) error {
	left := r.Size() - end
	if left < 2*tarBlock {
		return invalid("the archive is cut off: it ends without two blocks of zeros")
	}
	if left > maxPadding+2*tarBlock {
		return invalid("%d bytes follow the end of the archive", left)
	}
	rest := make([]byte, left)
	if _, err := r.ReadAt(rest, end); err != nil {
		return plainCause(err)
	}
	if more := bytes.TrimLeft(rest, "\x00"); len(more) > 0 {
		return invalid("something follows the end of the archive, at byte %d", r.Size()-int64(len(more)))
	}
	return nil
}

// has reports whether the archive has a regular file of that name.
func (a *archive) has(name string) bool { return a.members[name].kind == tar.TypeReg }

// find returns the file name, at the end of links in the archive.
func (a *archive) find(name string) (member, error) {
	written := name
	for range maxLinks {
		m, ok := a.members[name]
		switch {
		case !ok || m.kind == tar.TypeDir:
			return member{}, invalid("there is no file %q, which %q should be", name, written)
		case m.kind == tar.TypeReg:
			return m, nil
		}
		// Only what the lexical path says: a folder that is a link has no
		// entries below it.
		target := path.Join(path.Dir(name), m.link)
		if path.IsAbs(m.link) || !fs.ValidPath(target) {
			return member{}, invalid("%q leads out of the archive, to %q", name, m.link)
		}
		name = target
	}
	return member{}, invalid("%q leads to more than %d links", written, maxLinks)
}

// read returns the content of a small file.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	m, err := a.find(name)
	if err != nil {
		return nil, err
	}
	if m.size > limit {
		return nil, invalid("%q has %d bytes, more than %d", name, m.size, limit)
	}
	content := make([]byte, m.size)
	if _, err := a.window.ReadAt(content, m.off); err != nil {
		return nil, plainCause(err)
	}
	return content, nil
}

// readLayout returns the images of an archive that is an image layout.
func (a *archive) readLayout() ([]Image, error) {
	content, err := a.read(markerName, maxMarker)
	if err == nil {
		err = checkMarker(content)
	}
	if err != nil {
		return nil, err
	}
	if !a.has(indexName) {
		return nil, invalid("there is no %s", indexName)
	}
	content, err = a.read(indexName, maxIndex)
	if err != nil {
		return nil, err
	}
	for name, m := range a.members {
		if hex, ok := strings.CutPrefix(name, blobFolder); ok && m.kind == tar.TypeReg {
			d, err := verify.ParseDigest("sha256:" + hex)
			if err != nil {
				return nil, err
			}
			a.blobs[d] = m.place
		}
	}
	return parseIndex(content)
}

func (a *archive) open(ctx context.Context, d verify.Digest, off int64) (io.ReadCloser, error) {
	p, ok := a.blobs[d]
	if !ok {
		return nil, bundle.ErrNotFound
	}
	if err := bundle.CheckRange(off, 0, p.size); err != nil {
		return nil, err
	}
	return a.object.Range(ctx, p.off+off, p.size-off)
}

func (a *archive) size(_ context.Context, d verify.Digest) (int64, error) {
	p, ok := a.blobs[d]
	if !ok {
		return 0, bundle.ErrNotFound
	}
	return p.size, nil
}

func (a *archive) close() error { return a.object.Close() }
