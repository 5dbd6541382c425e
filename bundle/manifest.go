package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/oci"
	"ferry/verify"
)

// Format is the version of the format that this package reads and writes.
const Format = 1

const (
	// MaxManifest, in bytes, bounds what a bundle.json may make us hold in
	// memory; 64 MiB is about 250,000 blobs.
	MaxManifest = 64 << 20
	// MaxVolumes bounds the volumes of a set: their numbers have three digits.
	MaxVolumes = 999
	// MaxSize, in bytes, bounds a blob and a volume, so that no sum of
	// offsets overflows; it is what an 11-digit octal PAX-less tar header
	// could never say and no registry holds (1 PiB).
	MaxSize = 1 << 50
)

// ErrInvalid is what every error about the content of a manifest is.
var ErrInvalid = errors.New("invalid bundle.json")

// Manifest is what bundle.json says: which images are in the bundle and where
// every byte of its volumes comes from. Its fields stand in the order of their
// JSON names, because bundle.json is canonical JSON (RFC 8785).
type Manifest struct {
	Base     *Base    `json:"base,omitempty"`    // of an incremental bundle
	Created  string   `json:"created"`           // RFC 3339, UTC, whole seconds
	Expires  string   `json:"expires,omitempty"` // likewise
	Format   int      `json:"format"`
	Images   []Image  `json:"images"`
	Name     string   `json:"name"`
	Sequence int64    `json:"sequence"` // grows with every bundle of that name
	Version  string   `json:"version"`
	Volumes  []Volume `json:"volumes"`
}

// Base names the bundle that an incremental bundle builds on.
type Base struct {
	Blobs   []BaseBlob    `json:"blobs"`
	Digest  verify.Digest `json:"digest"` // of the base's bundle.json
	Name    string        `json:"name"`
	Version string        `json:"version"`
}

// BaseBlob is a blob that is not in the volumes: the import of the base has
// left it in the registry.
type BaseBlob struct {
	Digest verify.Digest `json:"digest"`
	Size   int64         `json:"size"`   // bytes
	Target string        `json:"target"` // an image path of the base that has it
}

// Image is one image or artifact with everything that belongs to it.
type Image struct {
	Digest    verify.Digest  `json:"digest"`
	Feature   string         `json:"feature,omitempty"` // group of optional content
	MediaType string         `json:"mediaType"`
	Original  *verify.Digest `json:"original,omitempty"`  // at the source, when platforms were chosen
	Platforms []string       `json:"platforms,omitempty"` // those chosen; none means all
	Referrers []Referrer     `json:"referrers,omitempty"`
	Size      int64          `json:"size"`   // bytes of the manifest
	Source    string         `json:"source"` // the reference as asked for
	Tags      []string       `json:"tags"`
	Target    string         `json:"target"` // repository path without a host
}

// Descriptor returns the descriptor of the image's manifest.
func (i Image) Descriptor() oci.Descriptor {
	return oci.Descriptor{MediaType: i.MediaType, Digest: i.Digest, Size: i.Size}
}

// Referrer is a manifest that belongs to an image: a signature, an
// attestation, an SBOM. Subject is the image, a child of it, or another
// referrer.
type Referrer struct {
	ArtifactType string        `json:"artifactType,omitempty"`
	Digest       verify.Digest `json:"digest"`
	MediaType    string        `json:"mediaType"`
	Size         int64         `json:"size"`    // bytes
	Subject      verify.Digest `json:"subject"` // what it is about
	Tag          string        `json:"tag,omitempty"`
}

// ReferrerTags returns the tags by which clients find what belongs to a
// manifest: cosign's, and last that of the referrers tag schema of OCI
// Distribution 1.1.
func ReferrerTags(subject verify.Digest) []string {
	plain := "sha256-" + subject.Hex()
	return []string{plain + ".sig", plain + ".att", plain + ".sbom", plain}
}

// Descriptor returns the descriptor of the referrer's manifest.
func (r Referrer) Descriptor() oci.Descriptor {
	return oci.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType}
}

// Volume is one tar file: what follows bundle.json and its signature in it.
type Volume struct {
	Entries []Entry `json:"entries"`
}

// Entry is a file in a volume: a small document of the image layout, a blob,
// or a piece of a blob that was cut.
type Entry struct {
	Digest verify.Digest `json:"digest"`           // of the whole blob
	Offset int64         `json:"offset,omitempty"` // of a piece, in its blob
	Path   string        `json:"path"`
	Size   int64         `json:"size"` // bytes of this entry
}

// Paths of the documents that make a volume an OCI image layout and a
// docker archive.
const (
	pathLayout = "oci-layout"
	pathIndex  = "index.json"
	pathDocker = "manifest.json"
)

// BlobPath returns the path of a whole blob in a volume.
func BlobPath(d verify.Digest) string { return "blobs/sha256/" + d.Hex() }

// PiecePath returns the path of the piece of a blob that begins at offset.
// The pieces of a blob sort in their order.
func PiecePath(d verify.Digest, offset int64) string {
	return fmt.Sprintf("pieces/%s/%016d", d.Hex(), offset)
}

// isPiece reports whether e is a piece of a blob that was cut.
func (e Entry) isPiece() bool { return e.Path == PiecePath(e.Digest, e.Offset) }

// isBlob reports whether e is a whole blob.
func (e Entry) isBlob() bool { return e.Path == BlobPath(e.Digest) }

// Encode returns the one encoding of m, after checking it. Errors:
// [ErrInvalid].
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encoding bundle.json: %w", err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrInvalid, len(raw), MaxManifest)
	}
	return raw, nil
}

// parse returns the manifest in raw, which must be its one encoding: an
// unknown field, a duplicate or misspelt key, another number form, white
// space, or anything after the end is an error (T11).
func parse(raw []byte) (*Manifest, error) {
	invalid := func(format string, args ...any) (*Manifest, error) {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if len(raw) > MaxManifest {
		return invalid("%d bytes, more than %d", len(raw), MaxManifest)
	}
	// No object of a manifest is that short on average: more would only be to
	// make us hold much in memory for little text.
	if bytes.Count(raw, []byte("{"))*minObject > len(raw)+4096 {
		return invalid("more objects than its %d bytes can mean", len(raw))
	}
	var version struct {
		Format *int `json:"format"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return invalid("%v", err)
	}
	if version.Format == nil || *version.Format != Format {
		return invalid("format %s is not supported (want %d)", formatOf(version.Format), Format)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return invalid("%v", err)
	}
	again, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, raw) {
		return invalid("not in canonical form at byte %d", firstDifference(again, raw))
	}
	return &m, nil
}

func formatOf(format *int) string {
	if format == nil {
		return "(none)"
	}
	return fmt.Sprint(*format)
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// minObject, in bytes, is less than any object of a manifest takes: the
// shortest, an entry, has a digest of 71 bytes twice.
const minObject = 64

var (
	// The grammar of distribution v3's reference package, without the host.
	targetPattern  = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)
	featurePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
)

// maxTarget, in bytes, is the longest repository path: Harbor answers 500 to
// a longer one.
const maxTarget = 255

// ValidName reports whether s can name a bundle or a version: it becomes a
// folder name on every file system, and a part of a URL.
func ValidName(s string) bool {
	return namePattern.MatchString(s) && !strings.HasSuffix(s, ".")
}

// ValidTarget reports whether s can be the repository path of an image.
func ValidTarget(s string) bool { return len(s) <= maxTarget && targetPattern.MatchString(s) }

// ValidTag reports whether s can be a tag.
func ValidTag(s string) bool { return tagPattern.MatchString(s) }

func (m *Manifest) validate() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if m.Format != Format {
		return invalid("format %d is not supported (want %d)", m.Format, Format)
	}
	if !ValidName(m.Name) || !ValidName(m.Version) {
		return invalid("name %q or version %q is not of letters, digits and . _ + -", m.Name, m.Version)
	}
	if m.Sequence < 0 || m.Sequence > 1<<53 {
		return invalid("sequence %d is not between 0 and 2^53", m.Sequence)
	}
	for _, t := range []string{m.Created, cmp.Or(m.Expires, m.Created)} {
		if when, err := time.Parse(time.RFC3339, t); err != nil || when.UTC().Format(time.RFC3339) != t {
			return invalid("time %q is not RFC 3339 in UTC with whole seconds", t)
		}
	}
	if len(m.Images) == 0 {
		return invalid("no images")
	}
	tags := map[string]verify.Digest{}
	seen := map[string]bool{}
	for i, image := range m.Images {
		if at := image.Target + "@" + image.Digest.String(); seen[at] {
			return invalid("image %d: %s is there twice", i+1, at)
		} else {
			seen[at] = true
		}
		if err := image.validate(); err != nil {
			return invalid("image %d: %v", i+1, err)
		}
		for _, tag := range image.allTags() {
			at := image.Target + ":" + tag.name
			if was, ok := tags[at]; ok && was != tag.digest {
				return invalid("image %d: %s is both %s and %s", i+1, at, was, tag.digest)
			}
			tags[at] = tag.digest
		}
	}
	if m.Base != nil {
		if err := m.Base.validate(); err != nil {
			return invalid("base: %v", err)
		}
	}
	return m.validateVolumes()
}

func (i Image) validate() error {
	if err := validDescriptor(i.Descriptor()); err != nil {
		return err
	}
	if !plainText(i.Source) || i.Source == "" {
		return fmt.Errorf("source %q is not plain text of at most %d bytes", i.Source, maxText)
	}
	if !ValidTarget(i.Target) {
		return fmt.Errorf("target %q is not a repository path", i.Target)
	}
	if i.Feature != "" && !featurePattern.MatchString(i.Feature) {
		return fmt.Errorf("feature %q is not of letters, digits and . _ + -", i.Feature)
	}
	if i.Tags == nil {
		return errors.New("tags are missing")
	}
	for _, list := range [][]string{i.Tags, i.Platforms} {
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			return fmt.Errorf("%q is not sorted, or has an element twice", list)
		}
	}
	for _, tag := range i.Tags {
		if !ValidTag(tag) {
			return fmt.Errorf("%q is not a tag", tag)
		}
	}
	for _, p := range i.Platforms {
		if !plainText(p) || p == "" {
			return fmt.Errorf("platform %q is not plain text", p)
		}
	}
	if (i.Original != nil) != (i.Platforms != nil) {
		return errors.New("original and platforms stand together")
	}
	for _, r := range i.Referrers {
		if err := r.validate(); err != nil {
			return fmt.Errorf("referrer: %w", err)
		}
	}
	return nil
}

func (r Referrer) validate() error {
	if err := validDescriptor(r.Descriptor()); err != nil {
		return err
	}
	if r.Subject.IsZero() || !plainText(r.ArtifactType) {
		return fmt.Errorf("%s: subject or artifactType %q is wrong", r.Digest, r.ArtifactType)
	}
	// Under another tag it would be taken for an image of its own, and nobody
	// asks who has signed it (T28).
	if r.Tag != "" && !slices.Contains(ReferrerTags(r.Subject), r.Tag) {
		return fmt.Errorf("%s: tag %q is not of its subject: want sha256-%s, alone or with .sig, .att or .sbom behind it", r.Digest, r.Tag, r.Subject.Hex())
	}
	return nil
}

type imageTag struct {
	name   string
	digest verify.Digest
}

// allTags returns the tags that an import of i writes.
func (i Image) allTags() []imageTag {
	var all []imageTag
	for _, tag := range i.Tags {
		all = append(all, imageTag{tag, i.Digest})
	}
	for _, r := range i.Referrers {
		if r.Tag != "" {
			all = append(all, imageTag{r.Tag, r.Digest})
		}
	}
	return all
}

func validDescriptor(d oci.Descriptor) error {
	if d.Digest.IsZero() || !d.IsManifest() || d.Size <= 0 || d.Size > oci.MaxManifest {
		return fmt.Errorf("manifest %s with media type %q and %d bytes is not supported", d.Digest, d.MediaType, d.Size)
	}
	return nil
}

// maxText, in bytes, bounds free text such as a source reference.
const maxText = 1024

// plainText reports whether s is short, valid UTF-8 and free of what a
// terminal or a JSON reader could take for something else (T40).
func plainText(s string) bool {
	return len(s) <= maxText && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r)
	}) < 0
}

func (b *Base) validate() error {
	if b.Digest.IsZero() || !ValidName(b.Name) || !ValidName(b.Version) {
		return fmt.Errorf("digest, name %q or version %q is wrong", b.Name, b.Version)
	}
	if b.Blobs == nil {
		return errors.New("blobs are missing")
	}
	for _, blob := range b.Blobs {
		if blob.Digest.IsZero() || blob.Size < 0 || blob.Size > MaxSize || !ValidTarget(blob.Target) {
			return fmt.Errorf("blob %s with %d bytes at %q is wrong", blob.Digest, blob.Size, blob.Target)
		}
	}
	return nil
}

// validateVolumes checks that the entries' paths are what their content says,
// that no path is twice in a volume, and that the pieces of a blob are
// consecutive and whole.
func (m *Manifest) validateVolumes() error {
	invalid := func(v int, e Entry, format string, args ...any) error {
		return fmt.Errorf("%w: volume %d: %q: %s", ErrInvalid, v+1, e.Path, fmt.Sprintf(format, args...))
	}
	if len(m.Volumes) == 0 || len(m.Volumes) > MaxVolumes {
		return fmt.Errorf("%w: %d volumes, want 1 to %d", ErrInvalid, len(m.Volumes), MaxVolumes)
	}
	blobs := map[verify.Digest]int64{} // size of each whole blob
	cuts := map[verify.Digest]*cut{}
	for v, volume := range m.Volumes {
		if volume.Entries == nil {
			return fmt.Errorf("%w: volume %d has no entries", ErrInvalid, v+1)
		}
		paths := make(map[string]bool, len(volume.Entries))
		var total int64
		for _, e := range volume.Entries {
			if e.Size < 0 || e.Size > MaxSize || e.Offset < 0 || e.Offset > MaxSize || e.Digest.IsZero() {
				return invalid(v, e, "size, offset or digest is out of bounds")
			}
			if total += e.Size; total > MaxSize {
				return invalid(v, e, "the volume has more than %d bytes", int64(MaxSize))
			}
			if paths[e.Path] {
				return invalid(v, e, "it is there twice") // T08
			}
			paths[e.Path] = true
			switch {
			case e.isPiece():
				if cuts[e.Digest] == nil {
					cuts[e.Digest] = &cut{volume: v - 1}
				}
				if err := cuts[e.Digest].add(v, e); err != nil {
					return invalid(v, e, "%v", err)
				}
			case e.Offset != 0:
				return invalid(v, e, "only a piece has an offset")
			case e.isBlob():
				if size, ok := blobs[e.Digest]; ok && size != e.Size {
					return invalid(v, e, "it has two sizes, %d and %d", size, e.Size)
				}
				blobs[e.Digest] = e.Size
			case e.Path != pathLayout && e.Path != pathIndex && e.Path != pathDocker:
				return invalid(v, e, "it is neither a blob nor a document of the layout")
			}
		}
	}
	if m.Base != nil {
		for _, b := range m.Base.Blobs {
			if _, whole := blobs[b.Digest]; whole || cuts[b.Digest] != nil {
				return fmt.Errorf("%w: %s is in the volumes and left to the base", ErrInvalid, b.Digest)
			}
		}
	}
	for d, c := range cuts {
		if c.size > MaxSize {
			return fmt.Errorf("%w: %s has more than %d bytes", ErrInvalid, d, int64(MaxSize))
		}
		if _, whole := blobs[d]; whole || c.pieces < 2 {
			return fmt.Errorf("%w: %s is in %d pieces, and whole: %t", ErrInvalid, d, c.pieces, whole)
		}
	}
	return nil
}

// cut follows the pieces of one blob through the volumes.
type cut struct {
	volume, pieces int
	size           int64
}

func (c *cut) add(volume int, e Entry) error {
	if volume != c.volume+1 || e.Offset != c.size || e.Size == 0 {
		return fmt.Errorf("the pieces of a blob must follow each other, one in each volume; want offset %d", c.size)
	}
	*c = cut{volume: volume, pieces: c.pieces + 1, size: c.size + e.Size}
	return nil
}
