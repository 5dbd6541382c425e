// Package extract puts the content of images and artifacts on disk. It hides
// how a stack of hostile tar archives becomes one harmless directory.
//
// # How layers are merged
//
// Layers are read from the top down, each as a stream. A name that an upper
// layer has decided (by a file, a link, a whiteout, an opaque directory) hides
// what lower layers have under it, so each file that shows in the result is
// written once, and nothing is written that a lower layer's turn would have to
// delete. Whiteouts act on names in memory and never on the disk.
//
// Inside one layer the order of entries does not matter, because a layer is a
// set of changes: its whiteouts hide only what lower layers have. Two entries
// of one name must be of one kind, and then the last one counts; a file and a
// directory of one name, or an entry below a file or a link, are refused.
// A name that is only implied, by an entry below it, is a directory; no entry
// is ever written through a link. Where a lower layer has a link under a name
// that an upper layer so implies, the link is left out and reported.
//
// A hard link shares the content its target has in the link's own layer, or,
// when that layer does not have the target, in the merge of the layers below.
// The content may be hidden in the result or lie outside [Options.Path]; then
// the link is where it is written. This is the one case in which a layer is
// read a second time: when the content went by, unneeded, before the link was
// known. A hard link without a target is an error.
//
// # What is written
//
// Regular files with mode 0644, or 0755 when any execute bit is set;
// directories with 0755; both less the process's umask. Symbolic links as
// [LinkPolicy] says, after everything else. Modification times of files are
// kept, moved into the range from 1970 to now. Owners, setuid, setgid and
// sticky bits, extended attributes and ACLs are dropped. Devices, fifos and
// unknown entries are left out and reported.
//
// All of this happens through an os.Root in a private staging directory beside
// the destination, which takes the destination's name when it is complete,
// verified and on stable storage. On any failure the staging directory is
// removed and the destination is as it was.
//
// # What is refused
//
// A name that is empty, absolute, or has an empty, "." or ".." element fails
// the whole extraction with [ErrUnsafe], and so does a whiteout of "", "." or
// "..". One leading "./" and a directory's trailing slash are fine; "./" and
// "/" alone name the root. A name with a backslash that would be hostile where
// backslash is a separator is refused also; another one (systemd has such
// units) is left out and reported. Names that the destination's file system
// does not hold apart (case, Unicode normalisation) are [ErrCollision]; names
// that differ only in case are reported in any case.
//
// # Limits
//
// See [Options] for the limits on content. An element of a name has at most
// 255 bytes, a name 2048 bytes and 256 elements, a link target 2048 bytes; names and
// link targets kept in memory have at most 128 MiB together; zstd windows
// have at most 128 MiB, as in the zstd tool. Sparse entries are refused,
// because their size is not a size of anything that was transferred.
//
// # Sources
//
// OCI Image Layer Filesystem Changeset 1.1.1,
// https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md;
// pax interchange format, POSIX.1-2024 pax; RFC 1952 (gzip); RFC 8878 (zstd);
// ORAS file annotations, https://oras.land/docs/how_to_guides/pushing_and_pulling.
package extract

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// Errors of [Image] and [Artifact]; test for them with errors.Is. An error of
// a layer's stream, such as a wrong digest, is wrapped as it is.
var (
	// ErrUnsafe says that a layer tries to write outside its destination.
	ErrUnsafe = errors.New("unsafe content")
	// ErrInvalid says that a layer is not a well-formed archive of a kind
	// that can be extracted.
	ErrInvalid = errors.New("invalid layer")
	// ErrLimit says that a limit of [Options] or of this package is exceeded.
	ErrLimit = errors.New("limit exceeded")
	// ErrCollision says that the destination's file system takes two names
	// of the tree for one.
	ErrCollision = errors.New("names collide")
	// ErrNotFound says that there is nothing at [Options.Path].
	ErrNotFound = errors.New("no such path in the content")
	// ErrNotEmpty says that the destination is a directory with something
	// in it, and [Options.Replace] was not set.
	ErrNotEmpty = errors.New("destination is not empty")
	// ErrDestination says that the destination is something that can not
	// be replaced: a link, a file, a mount point, the root.
	ErrDestination = errors.New("unsuitable destination")
	// ErrNoSpace says that the destination's file system is full.
	ErrNoSpace = errors.New("no space left")
)

// Options says what to extract, and how much at most. The zero Options is
// ready to use.
type Options struct {
	// Path takes only this file or directory, named from the root of the
	// content ("usr/bin"), with everything below it. It keeps its place: of
	// an image's usr/bin the files come to usr/bin below the destination.
	// Links in Path are not followed. Layers that can not matter any more
	// are not opened. Empty means everything.
	Path string

	// Replace allows the destination to be a directory that is not empty.
	// Its content is exchanged for the new one when that is complete, and
	// then removed.
	Replace bool

	// Links says which symbolic links are made.
	Links LinkPolicy

	// AbsoluteNames accepts entries whose name begins with one slash, as ko
	// writes them, and takes them from the root of the content.
	AbsoluteNames bool

	// Unpack unpacks the layers of an artifact that have [Layer.Unpack].
	Unpack bool

	// MaxBytes bounds the bytes of all files together. Zero means 256 GiB,
	// more than any image known to us and less than a disk array.
	MaxBytes int64

	// MaxFileBytes bounds the bytes of one file. Zero means 64 GiB, above
	// the largest shards of models.
	MaxFileBytes int64

	// MaxFiles bounds the entries of all layers together, hidden ones and
	// directories that are only implied included. Zero means 1,000,000: each
	// takes about 150 bytes of memory, and an inode if it shows.
	MaxFiles int

	// MaxRatio bounds what one compressed byte of a layer may become, in
	// bytes, once the layer has unpacked to 64 MiB. Zero means 200: real
	// layers stay below 20, and gzip's most is 1032.
	MaxRatio int64
}

func (o Options) withDefaults() Options {
	o.MaxBytes = cmp.Or(o.MaxBytes, 256<<30)
	o.MaxFileBytes = cmp.Or(o.MaxFileBytes, 64<<30)
	o.MaxFiles = cmp.Or(o.MaxFiles, 1_000_000)
	o.MaxRatio = cmp.Or(o.MaxRatio, 200)
	return o
}

// LinkPolicy says what becomes of symbolic links. A link is safe when it can
// not lead out of the destination, whatever other links do: its target is
// relative, goes up no further than the root, and goes up only at its
// beginning. Others are left out and reported.
type LinkPolicy int

const (
	// SafeLinks makes safe links, with the target unchanged.
	SafeLinks LinkPolicy = iota
	// RelativeLinks makes safe links, and turns an absolute target, which
	// means the image's root, into the relative one of the same meaning.
	RelativeLinks
	// NoLinks makes no symbolic links.
	NoLinks
)

// Layer is one layer of an image or one blob of an artifact.
type Layer struct {
	// Name is the layer's digest as it is written in a manifest.
	Name string
	// MediaType is the layer's media type. How a layer is compressed is
	// seen from its first bytes.
	MediaType string
	// Size is the size of the layer in bytes.
	Size int64
	// Title is the annotation org.opencontainers.image.title. It is the
	// file name of an artifact's blob; in an image it means nothing.
	Title string
	// Unpack says that the annotation io.deis.oras.content.unpack is "true":
	// the blob is an archive of the directory Title.
	Unpack bool
	// Open returns the verified content of the layer: where its digest or
	// size is wrong, its stream has an error in the place of io.EOF. Open is
	// called once, rarely twice (see the package comment), never for two
	// layers at once; the stream is read to its end and closed.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Report says what an extraction did.
type Report struct {
	Files int   // regular files, each name of a hard link counted
	Dirs  int   // directories, the destination itself not counted
	Links int   // symbolic links
	Bytes int64 // bytes in files, those of hard links counted once

	// Skipped counts what was left out, or needs a look, by reason.
	Skipped map[Reason]int
	// Examples has the first 100 of them.
	Examples []Skip
}

// Skip is one entry that was left out of the result, or needs a look.
type Skip struct {
	Layer  string // the layer's name
	Name   string // the entry's name, as foreign as it comes
	Target string // target of a link; the other name of a [SameButCase]
	Reason Reason
}

// Reason says why an entry was left out, in words for a user.
type Reason string

// The reasons in a [Report].
const (
	SkipDevice       Reason = "device or fifo"
	SkipType         Reason = "entry of unknown type"
	SkipName         Reason = "name that is not portable"
	SkipMeta         Reason = "aufs metadata"
	SkipEmpty        Reason = "empty descriptor"
	SkipAbsoluteLink Reason = "link with an absolute target"
	SkipUnsafeLink   Reason = "link that may leave the destination"
	SkipLink         Reason = "link, by request"
	SkipTarget       Reason = "hard link to something that is left out"
	SkipHiddenLink   Reason = "link below which an upper layer has entries"
	SameButCase      Reason = "name that differs from another only in case" // not left out
)

const maxExamples = 100

func (r *Report) skip(s Skip) {
	if r.Skipped == nil {
		r.Skipped = make(map[Reason]int)
	}
	r.Skipped[s.Reason]++
	if len(r.Examples) < maxExamples {
		s.Name, s.Target = short(s.Name), short(s.Target)
		r.Examples = append(r.Examples, s)
	}
}

// short bounds a foreign string that is kept in a report.
func short(s string) string { return strings.Clone(s[:min(len(s), maxName)]) }

// Image extracts the merged tree of an image's layers, lowest layer first, to
// the directory dir, which is missing or empty (but see [Options.Replace]) and
// whose parent exists. A tar archive can be plain or compressed with gzip or
// zstd. When Image fails, or ctx is cancelled, dir is as it was before; when it
// succeeds, dir is complete and on stable storage. Errors: all of this package,
// and those of the layers' streams.
//
// A symbolic link is safe to follow in the result. Image calls from several
// goroutines with different directories are safe.
func Image(ctx context.Context, layers []Layer, dir string, o Options) (*Report, error) {
	return stage(dir, o.Replace, func(root *os.Root) (*Report, error) {
		m, err := newMerger(root, o)
		if err != nil {
			return nil, err
		}
		for k := len(layers) - 1; k >= 0 && !m.decided(k); k-- {
			if err := m.layer(ctx, k, layers[k]); err != nil {
				return nil, err
			}
		}
		return m.finish(ctx)
	})
}
