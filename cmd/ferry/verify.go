package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

type verifyOptions struct {
	trust trustFlags
	deep  bool
	maps  []string
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify SOURCE [DEST] | IMAGE",
		Short: "Check every byte of a bundle, or of images in a registry",
		Long: `Check the bundle at SOURCE, without any network: its signature, that every
volume is there, and every byte of every volume.

With DEST, the registry that it was imported to, host or host/project, also
read back from there what is in the bundle: every tag, manifest and list of
referrers, and every byte of every blob. With an IMAGE in a registry,
host/path:tag, and no key, read that, with all signatures and referrers that
it has. Nothing is written.

--deep unpacks the layers too, to nowhere, and compares them with what the
configs of the images say.`,
		Example: `  ferry verify /media/usb --key cosign.pub
  ferry verify /media/usb --key cosign.pub --deep
  ferry verify /media/usb harbor.site.local/apps --key cosign.pub
  ferry verify harbor.site.local/apps/web:1.4 --format json`,
		Args: wantArgs(1, 2, "a source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !o.trust.given() && isImage(args[0]) {
				return a.verifyImage(cmd.Context(), args[0], o)
			}
			return a.verify(cmd.Context(), args[0], argument(args, 1), o)
		},
	}
	f := cmd.Flags()
	o.trust.add(f, "public key of the exporter, such as cosign.pub")
	f.BoolVar(&o.deep, "deep", false, "unpack the layers too, and compare them with the configs")
	listVar(f, &o.maps, "map", "`PATH=PATH`: as it was given to import (repeatable)")
	return cmd
}

// isImage reports whether source can only be the name of an image in a registry.
func isImage(source string) bool {
	return isRegistry(source) && strings.Contains(trimScheme(source), "/") && !strings.HasPrefix(source, "s3://") && missing(source)
}

// verifyResult is what verify prints of a bundle as JSON.
type verifyResult struct {
	Verified bool          `json:"verified"`
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Sequence int64         `json:"sequence"`
	Digest   verify.Digest `json:"digest"`
	Signers  []string      `json:"signers"`
	Images   int           `json:"images"`
	Volumes  int           `json:"volumes"`
	Bytes    int64         `json:"bytes"`
	Unpacked *unpackedJSON `json:"unpacked,omitempty"`
	Registry *readBackJSON `json:"registry,omitempty"`
	Strays   []string      `json:"strays,omitempty"`
	verifiedImages
}

// unpackedJSON counts layers.
type unpackedJSON struct {
	Layers int `json:"layers"`
	Closed int `json:"closed"` // that could not be unpacked
}

// readBackJSON is what was read in a registry.
type readBackJSON struct {
	Destination string               `json:"destination"`
	Images      []transfer.ReadImage `json:"images"`
	Manifests   int                  `json:"manifests"`
	Blobs       int                  `json:"blobs"`
	Bytes       int64                `json:"bytes"`
}

func (a *app) verify(ctx context.Context, source, dest string, o verifyOptions) error {
	var to transfer.Destination
	var err error
	switch {
	case dest != "" && !isRegistry(dest):
		return usagef("%q is not in a registry: what a bundle was imported to is host or host/project", dest)
	case dest != "":
		to, err = destination(dest, o.maps)
	case len(o.maps) > 0:
		err = usagef("--map is for a destination in a registry, and none is given")
	}
	if err != nil {
		return err
	}
	r, err := a.openBundle(ctx, source, o.trust)
	if err != nil {
		return err
	}
	m := r.Manifest()
	result := verifyResult{Verified: true, Name: m.Name, Version: m.Version, Sequence: m.Sequence, Digest: r.Digest(),
		Images: len(m.Images), Volumes: len(m.Volumes), Bytes: r.Bytes()}
	for _, k := range r.Signers() {
		result.Signers = append(result.Signers, k.Fingerprint())
	}
	if result.verifiedImages, err = a.verifyBundleImages(ctx, r); err != nil {
		return err
	}
	if result.Unpacked, err = a.readBundle(ctx, r, o.deep); err != nil {
		return err
	}
	if result.Strays, err = a.tellStrays(ctx, r); err != nil {
		return err
	}
	if dest != "" {
		if result.Registry, err = a.readBack(ctx, r, dest, to); err != nil {
			return err
		}
	}
	return a.Result(result, func(w io.Writer) error { return writeVerified(w, result) })
}

// tellStrays tells what stands beside a bundle and is no part of it.
func (a *app) tellStrays(ctx context.Context, r *bundle.Reader) ([]string, error) {
	strays, err := r.Strays(ctx)
	if n := len(strays); n > 0 {
		a.Warn("what stands beside the bundle counts for nothing: %s, such as %s", count(n, "object"), strings.Join(strays[:min(n, 5)], ", "))
	}
	return strays, err
}

// readBundle reads every byte of a bundle.
func (a *app) readBundle(ctx context.Context, r *bundle.Reader, deep bool) (*unpackedJSON, error) {
	if n := len(r.OtherSignatures()); deep && n > 0 {
		a.Say("%s beside that of the volumes; trusted here: %s", count(n, "signature"), count(len(r.Signers()), "key"))
	}
	var unpacked *unpackedJSON
	err := a.follow("verifying", func(p transfer.Progress) error {
		if !deep {
			_, err := transfer.Verify(ctx, r, a.flags.jobs, p)
			return err
		}
		_, done, err := transfer.VerifyDeep(ctx, r, a.flags.jobs, p)
		unpacked = &unpackedJSON{done.Layers, done.Closed}
		return err
	})
	return unpacked, err
}

// readBack reads what of a bundle was imported to a registry.
func (a *app) readBack(ctx context.Context, r *bundle.Reader, dest string, to transfer.Destination) (*readBackJSON, error) {
	deliveries, _, err := transfer.Deliveries(r, to)
	if err != nil {
		return nil, err
	}
	var done *transfer.ReadBackResult
	err = a.follow("reading back", func(p transfer.Progress) (err error) {
		done, err = transfer.ReadBack(ctx, a.registry(), transfer.BundleSource(r), deliveries, transfer.ReadBackOptions{Jobs: a.flags.jobs, Progress: p})
		return err
	})
	if err != nil {
		return nil, notThere(err, "import the bundle there first, or see the spelling: Harbor has no project of that name")
	}
	return &readBackJSON{dest, done.Images, done.Manifests, done.Blobs, done.Bytes}, nil
}

// notThereError says that what is to be read is in a project that is missing.
type notThereError struct {
	error
	hint string
}

func (e *notThereError) Unwrap() error { return e.error }

// notThere adds a hint to err when it is about a missing project, which
// nothing that only reads creates.
func notThere(err error, hint string) error {
	if errors.Is(err, registry.ErrNoProject) {
		return &notThereError{err, hint}
	}
	return err
}

func writeVerified(w io.Writer, r verifyResult) error {
	lines := []string{fmt.Sprintf("verified: %s %s, %s, %s, %s, %s", ui.Escape(r.Name), ui.Escape(r.Version),
		count(r.Images, "image"), count(r.Volumes, "volume"), ui.Bytes(r.Bytes), r.Digest)}
	if r.Unpacked != nil {
		lines = append(lines, r.Unpacked.text())
	}
	if b := r.Registry; b != nil {
		lines = append(lines, fmt.Sprintf("read back: %s, %s, %s, %s, %s", ui.Escape(b.Destination),
			count(len(b.Images), "image"), count(b.Manifests, "manifest"), count(b.Blobs, "blob"), ui.Bytes(b.Bytes)))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func (u *unpackedJSON) text() string {
	s := "unpacked: " + count(u.Layers, "layer")
	if u.Closed > 0 {
		s += fmt.Sprintf(", %d not: encrypted, or with the base of the bundle", u.Closed)
	}
	return s
}

// verifiedImage is what verify prints of an image in a registry as JSON.
type verifiedImage struct {
	Verified bool `json:"verified"`
	transfer.ReadImage
	Manifests int           `json:"manifests"`
	Blobs     int           `json:"blobs"`
	Bytes     int64         `json:"bytes"`
	Unpacked  *unpackedJSON `json:"unpacked,omitempty"`
}

// verifyImage reads an image in a registry.
func (a *app) verifyImage(ctx context.Context, source string, o verifyOptions) error {
	if len(o.maps) > 0 {
		return usagef("--map is for a bundle and its destination, and %q is an image", source)
	}
	ref, err := registry.ParseReference(trimScheme(source))
	if err != nil {
		return usageError{err}
	}
	client := a.registry()
	delivery, src, err := transfer.Standing(ctx, client, ref)
	if err != nil {
		return notThere(err, "see the spelling: Harbor has no project of that name")
	}
	var done *transfer.ReadBackResult
	err = a.follow("verifying", func(p transfer.Progress) (err error) {
		done, err = transfer.ReadBack(ctx, client, src, []transfer.Delivery{delivery},
			transfer.ReadBackOptions{Jobs: a.flags.jobs, Progress: p, Unpack: o.deep})
		return err
	})
	if err != nil {
		return err
	}
	result := verifiedImage{true, done.Images[0], done.Manifests, done.Blobs, done.Bytes, nil}
	if o.deep {
		result.Unpacked = &unpackedJSON{done.Unpacked.Layers, done.Unpacked.Closed}
	}
	return a.Result(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "verified: %s, %s, %s, %s, %s, %s\n", ref, result.Digest, count(len(result.Referrers), "referrer"),
			count(result.Manifests, "manifest"), count(result.Blobs, "blob"), ui.Bytes(result.Bytes))
		if err == nil && result.Unpacked != nil {
			_, err = fmt.Fprintln(w, result.Unpacked.text())
		}
		return err
	})
}
