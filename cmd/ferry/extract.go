package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/harbor"
	"ferry/internal/extract"
	"ferry/internal/layout"
	"ferry/internal/oci"
	"ferry/internal/transfer"
	"ferry/internal/ui"
)

type extractOptions struct {
	trust                    trustFlags
	image, platform, path    string
	maxSize                  string
	maxFiles                 int
	maxRatio                 int64
	replace, unpack, noLinks bool
	absolute                 bool
	newest                   latestRule
	given                    string // a flag of newest, if there was one
}

func newExtractCommand(a *app) *cobra.Command {
	var o extractOptions
	cmd := &cobra.Command{
		Use:   "extract SOURCE [DIR]",
		Short: "Extract the files of an image or artifact, safely",
		Long: `Extract the merged file tree of an image, or the files of an artifact, to DIR,
which must be missing or empty; without DIR it is SOURCE-extracted, or
REPO-TAG-extracted for a reference. SOURCE is a bundle (--key needed), an OCI
image layout or archive, or a reference in a registry; with the tag @latest, as
in harbor.site.local/project/repo:@latest, the tag that ferry latest chooses.

Only regular files, directories and links that stay below DIR are made, without
setuid bits, owners, devices or extended attributes. What is left out is counted
and named. Images of ko have names that begin with a slash, which are refused
unless --absolute-names is given.`,
		Example: `  ferry extract harbor.site.local/project/app:v2 ./app
  ferry extract harbor.site.local/project/app:@latest --by semver
  ferry extract ./app-layout ./app --path usr/share/app
  ferry extract /media/usb ./app --image org/app:v2 --key cosign.pub`,
		Args: wantArgs(1, 2, "a source and a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.given = o.newest.given(cmd.Flags())
			return a.extract(cmd.Context(), args[0], argument(args, 1), o)
		},
	}
	f := cmd.Flags()
	// gdcloud artifacts extract has --image-name for the same.
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "image-name" {
			name = "image"
		}
		return pflag.NormalizedName(name)
	})
	o.trust.addAccepting(f, "public key of the exporter, for a bundle")
	f.StringVar(&o.image, "image", "", "which image of a bundle or archive, `PATH:TAG` (default: the only one)")
	f.StringVar(&o.platform, "platform", "", "which `OS/ARCH` of the image (default linux on this machine's architecture)")
	f.StringVar(&o.path, "path", "", "take only this file or directory of the image")
	f.BoolVar(&o.replace, "replace", false, "replace DIR when it is not empty")
	f.BoolVar(&o.unpack, "unpack", false, "unpack the archives of an artifact that say that they are folders")
	f.BoolVar(&o.noLinks, "no-links", false, "make no symbolic links")
	f.BoolVar(&o.absolute, "absolute-names", false, "take names that begin with a slash from the root of the image, as ko means them")
	f.StringVar(&o.maxSize, "max-size", "256GiB", "most bytes of all files together")
	f.IntVar(&o.maxFiles, "max-files", 1_000_000, "most entries")
	f.Int64Var(&o.maxRatio, "max-ratio", 200, "most bytes that one compressed byte may become")
	o.newest.addFlags(f, "push-time, semver or created", "with :@latest, ")
	return cmd
}

func (a *app) extract(ctx context.Context, source, dir string, o extractOptions) error {
	settings := extract.Options{Path: o.path, Replace: o.replace, Unpack: o.unpack, MaxFiles: o.maxFiles, MaxRatio: o.maxRatio, Links: extract.RelativeLinks,
		AbsoluteNames: o.absolute}
	if o.noLinks {
		settings.Links = extract.NoLinks
	}
	var err error
	if settings.MaxBytes, err = ui.ParseBytes(o.maxSize); err != nil {
		return usagef("--max-size: %w", err)
	}
	platform := oci.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if o.platform != "" {
		if platform, err = transfer.ParsePlatform(o.platform); err != nil {
			return usageError{err}
		}
	}
	opened, err := a.openImage(ctx, source, o)
	if err != nil {
		return err
	}
	if dir == "" {
		dir = opened.name + "-extracted"
	}
	var report *extract.Report
	err = a.follow("extracting", func(p transfer.Progress) (err error) {
		report, err = transfer.Extract(ctx, opened.src, opened.root, platform, dir, settings, p)
		return err
	})
	if errors.Is(err, extract.ErrUnsafe) && !o.absolute && strings.Contains(err.Error(), `name "/`) {
		return fmt.Errorf("%w: it begins with a slash, as names of ko do: --absolute-names takes such", err)
	}
	if err != nil {
		return err
	}
	a.tellSkipped(report)
	return a.Result(struct {
		Directory string                 `json:"directory"`
		Digest    string                 `json:"digest"`
		Files     int                    `json:"files"`
		Dirs      int                    `json:"directories"`
		Links     int                    `json:"links"`
		Bytes     int64                  `json:"bytes"`
		Skipped   map[extract.Reason]int `json:"skipped,omitempty"`
	}{dir, opened.root.Digest.String(), report.Files, report.Dirs, report.Links, report.Bytes, report.Skipped}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s, %d directories, %s, %s\n", ui.Escape(dir), count(report.Files, "file"), report.Dirs, count(report.Links, "link"), ui.Bytes(report.Bytes))
		return err
	})
}

func (a *app) tellSkipped(r *extract.Report) {
	var reasons []string
	for reason := range r.Skipped {
		reasons = append(reasons, string(reason))
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		var names []string
		for _, s := range r.Examples {
			if string(s.Reason) == reason && len(names) < 3 {
				names = append(names, s.Name)
			}
		}
		a.Warn("%s: %d, such as %s", reason, r.Skipped[extract.Reason(reason)], strings.Join(names, ", "))
	}
}

// opened is an image that extract is about.
type opened struct {
	src  transfer.Source
	root oci.Descriptor
	name string // what its folder is named after
}

// openImage returns the image that extract is about.
func (a *app) openImage(ctx context.Context, source string, o extractOptions) (opened, error) {
	isLocal := strings.HasPrefix(source, "s3://") || !missing(source)
	if isLocal && o.given != "" {
		return opened{}, usagef("%s is for references that end in %s, and %q is none", o.given, atLatest, source)
	}
	switch {
	case strings.HasPrefix(source, "s3://") || isLocal && (o.trust.given() || isBundle(ctx, source)):
		// What is to be verified is never taken for a layout, whatever it
		// begins with.
		r, err := a.openBundle(ctx, source, o.trust)
		if err != nil {
			return opened{}, err
		}
		if _, err := a.verifyBundleImages(ctx, r); err != nil {
			return opened{}, err
		}
		root, err := bundleImage(r, o.image)
		if err == nil {
			_, err = a.accept(ctx, r, acceptance{state: o.trust.state})
		}
		return opened{transfer.BundleSource(r), root, localName(source)}, err
	case isLocal:
		src, err := layout.OpenContext(ctx, source)
		if err != nil {
			return opened{}, err
		}
		a.onClose(func() { src.Close() })
		image, err := chooseImage(imagesOnly(src.Images()), o.image, source)
		return opened{layoutSource{src}, image.Descriptor, localName(source)}, err
	case !isRegistry(source):
		return opened{}, fmt.Errorf("%s: %w, and it is not a reference either: those begin with a host", source, bundle.ErrNotFound)
	}
	if o.trust.given() {
		return opened{}, usagef("--key and --policy are for bundles, and %q is none", source)
	}
	request, err := a.pullRequest(ctx, source, o.newest, o.given)
	if err != nil {
		return opened{}, err
	}
	client := a.registry()
	d, _, err := client.Get(ctx, request.Reference)
	if err != nil {
		return opened{}, err
	}
	return opened{transfer.RepositorySource(client, request.Reference.Repo()), d, folderFor(request.Reference)}, nil
}

// localName returns what a folder is named after that stands beside source:
// of a bucket only the last element, and of "." or ".." the name it has.
func localName(source string) string {
	if strings.HasPrefix(source, "s3://") {
		return path.Base(source)
	}
	name := filepath.Clean(source)
	if base := filepath.Base(name); base == "." || base == ".." {
		if whole, err := filepath.Abs(name); err == nil {
			return whole
		}
	}
	return name
}

// imagesOnly leaves out signatures and other referrers, which a pulled layout
// has beside its image.
func imagesOnly(images []layout.Image) []layout.Image {
	kept := slices.DeleteFunc(slices.Clone(images), func(i layout.Image) bool {
		return !slices.ContainsFunc(i.Names, func(n string) bool { return n != "" && !harbor.IsSignatureTag(tagOrName(n)) })
	})
	if len(kept) == 0 {
		return images
	}
	return kept
}

func tagOrName(name string) string {
	if tag := tagOf([]string{name}); tag != "" {
		return tag
	}
	return name
}

func bundleImage(r *bundle.Reader, name string) (oci.Descriptor, error) {
	var names []string
	for _, i := range r.Manifest().Images {
		if name == i.Target {
			return i.Descriptor(), nil
		}
		for _, tag := range i.Tags {
			if name == i.Target+":"+tag {
				return i.Descriptor(), nil
			}
			names = append(names, i.Target+":"+tag)
		}
	}
	images := r.Manifest().Images
	if name == "" && len(images) == 1 {
		return images[0].Descriptor(), nil
	}
	if name == "" {
		return oci.Descriptor{}, usagef("the bundle has %d images: choose one of %s with --image", len(images), strings.Join(names, ", "))
	}
	return oci.Descriptor{}, usagef("the bundle has no image %q, only %s", name, strings.Join(names, ", "))
}
