package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transfer"
)

type pushOptions struct {
	deliveryFlags
	allowUnsigned, dryRun bool
	image                 string
	hash                  hashFlag
}

func newPushCommand(a *app) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push ARCHIVE REF",
		Short: "Push an archive made by another tool to a registry",
		Long: `Push the image in a docker archive, an OCI archive or an OCI image layout to
REF, host/project/repo or host/project/repo:tag. ARCHIVE is a file, a folder,
or s3://bucket/key, which is sent on without a copy on this machine. Such
archives carry no signature of their content that could be checked, so that it
takes --allow-unsigned. A bundle is not pushed but imported: ferry import.`,
		Example: `  ferry push oracle_db.tar harbor.site.local/project/oracle_db --allow-unsigned
  ferry push s3://bucket/g/oracle_db.tar harbor.site.local/project/oracle_db --allow-unsigned
  ferry push ./layout harbor.site.local/project/app:v2 --image app:v2 --allow-unsigned`,
		Args: wantArgs(2, 2, "an archive and a reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.push(cmd.Context(), args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.allowUnsigned, "allow-unsigned", false, "push content that nobody has signed")
	o.add(f)
	o.hash.add(f)
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be pushed and push nothing")
	f.StringVar(&o.image, "image", "", "which image of the archive, by its `NAME` there (default: the only one)")
	return cmd
}

func (a *app) push(ctx context.Context, file, dest string, o pushOptions) error {
	ref, err := registry.ParseReference(trimScheme(dest))
	if err != nil {
		return usageError{err}
	}
	if !ref.Digest.IsZero() {
		return usagef("%q: push to a tag, not to a digest", dest)
	}
	looks, err := o.options(a, ref.Host)
	if err != nil {
		return err
	}
	from, err := a.archiveAt(ctx, file)
	if err != nil {
		return err
	}
	if is, err := from.isBundle(ctx); err != nil {
		return err
	} else if is {
		return usagef("%s is a bundle: use ferry import, which verifies it", file)
	}
	if !o.allowUnsigned {
		return usagef("%s carries no signature that could be checked: --allow-unsigned pushes it all the same", file)
	}
	src, err := from.open(ctx)
	if err != nil {
		return err
	}
	a.onClose(func() { src.Close() })
	image, err := chooseImage(src.Images(), o.image, file)
	if err != nil {
		return err
	}
	tag := ref.Tag
	if !strings.HasSuffix(trimScheme(dest), ":"+tag) {
		if tag = tagOf(image.Names); tag == "" {
			return usagef("%s does not say which tag the image has: give one, like %s:v1", file, dest)
		}
	}
	a.Warn("nobody has signed what is in %s: it is pushed as it is, because of --allow-unsigned", file)
	d := transfer.Delivery{Item: transfer.Item{Name: ref.Repository, Root: image.Descriptor, Tags: []string{tag}}, Repository: ref.Repo()}
	result, err := a.deliver(ctx, delivery{layoutSource{src}, []transfer.Delivery{d}, transfer.PushOptions{Jobs: a.flags.jobs, Hash: o.hash.always}, looks, o.dryRun, nil})
	if err != nil || o.dryRun {
		return err
	}
	return a.Result(result, func(w io.Writer) error { return writeImages(w, result) })
}

// chooseImage returns the image of an archive that has the name, or the only
// one.
func chooseImage(images []layout.Image, name, file string) (layout.Image, error) {
	var names []string
	var fits []layout.Image
	for _, image := range images {
		names = append(names, image.Names...)
		if slices.ContainsFunc(image.Names, func(n string) bool { return n == name || strings.HasSuffix(n, "/"+name) }) {
			fits = append(fits, image)
		}
	}
	switch {
	case name != "" && len(fits) == 1:
		return fits[0], nil
	case name != "" && len(fits) > 1:
		return layout.Image{}, usagef("%s has %d images %q among %q: give the whole name with --image", file, len(fits), name, names)
	case name != "":
		return layout.Image{}, usagef("%s has no image %q, only %q", file, name, names)
	case len(images) == 0:
		return layout.Image{}, fmt.Errorf("%w: %s has no image", layout.ErrInvalid, file)
	case len(images) > 1:
		return layout.Image{}, usagef("%s has %d images: choose one of %q with --image", file, len(images), names)
	}
	return images[0], nil
}

// tagOf returns the tag that the names of an image end in, or "".
func tagOf(names []string) string {
	for _, name := range names {
		if i := strings.LastIndex(name, ":"); i >= 0 && !strings.Contains(name[i:], "/") && !strings.Contains(name, "@") {
			return name[i+1:]
		}
	}
	for _, name := range names { // a layout may have the tag alone
		if name != "" && !strings.ContainsAny(name, "/:@") {
			return name
		}
	}
	return ""
}

// layoutSource reads from an image layout or archive.
type layoutSource struct{ s *layout.Source }

func (l layoutSource) Manifest(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	content, err := l.s.Manifest(ctx, d)
	return content, incomplete(err)
}

func (l layoutSource) OpenBlob(ctx context.Context, d oci.Descriptor, off int64) (io.ReadCloser, error) {
	body, err := l.s.OpenBlob(ctx, d.Digest, off)
	return body, incomplete(err)
}

// incomplete returns err as a [layout.ErrInvalid] when it says that something
// is missing in a layout that the layout itself names.
func incomplete(err error) error {
	if errors.Is(err, bundle.ErrNotFound) {
		return fmt.Errorf("%w: %w", layout.ErrInvalid, err)
	}
	return err
}
