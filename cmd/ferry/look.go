package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/ui"
	"ferry/verify"
)

func newListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list LOCATION",
		Short: "List the bundles in a folder or bucket",
		Long: `List the bundles in LOCATION, a folder or s3://bucket/prefix, however deep.
What is complete has volumes of the sizes that its bundle.json says. Nothing is
verified: ferry verify does that.`,
		Example: `  ferry list /media/usb
  ferry list s3://in/bundles --format json`,
		Args: wantArgs(1, 1, "a location"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.list(cmd.Context(), args[0]) },
	}
}

type listed struct {
	Location string `json:"location"`
	State    string `json:"state"` // "complete", "unfinished", "incomplete", "damaged" or "unreadable"
	Complete bool   `json:"complete"`
	Bytes    int64  `json:"bytes"`
}

func (a *app) list(ctx context.Context, location string) error {
	store, err := a.store(ctx, location)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(location, "s3://") && !isFolder(location) {
		return fmt.Errorf("%s is not a folder: %w", location, bundle.ErrNotFound)
	}
	found, err := bundle.List(ctx, store)
	if err != nil {
		return err
	}
	sizes, err := volumeSizes(ctx, store)
	if err != nil {
		return err
	}
	result := struct {
		Bundles []listed `json:"bundles"`
	}{[]listed{}}
	for _, f := range found {
		state := "unfinished"
		if !f.Pending {
			if state, err = a.stateOf(ctx, bundle.Sub(store, f.Folder), sizes[f.Folder]); err != nil {
				return err
			}
		}
		result.Bundles = append(result.Bundles, listed{bundle.Sub(store, f.Folder).String(), state, state == "complete", f.Bytes})
	}
	if len(found) == 0 {
		a.Say("no bundles in %s", store)
	}
	return a.Result(result, func(w io.Writer) error {
		rows := [][]string{}
		for _, b := range result.Bundles {
			rows = append(rows, []string{b.Location, b.State, ui.Bytes(b.Bytes)})
		}
		return ui.Table(w, rows)
	})
}

// volumeSizes returns the sizes of all objects in store that may be volumes,
// by folder.
func volumeSizes(ctx context.Context, store bundle.Store) (map[string][]int64, error) {
	objects, err := store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	sizes := map[string][]int64{}
	for _, o := range objects {
		if strings.HasSuffix(o.Name, ".tar") {
			folder := strings.TrimSuffix(path.Dir(o.Name), ".")
			sizes[folder] = append(sizes[folder], o.Size)
		}
	}
	return sizes, nil
}

// stateOf returns whether there is, beside the bundle.json in store, a volume
// of each size that it says, whatever their names.
func (a *app) stateOf(ctx context.Context, store bundle.Store, sizes []int64) (string, error) {
	m, err := bundle.Unverified(ctx, store, "")
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, bundle.ErrInvalid), errors.Is(err, bundle.ErrCorrupt):
		a.Warn("%s: %v", store, err)
		return "damaged", nil
	case err != nil:
		a.Warn("%s: %v", store, err)
		return "unreadable", nil
	}
	raw, err := m.Encode()
	if err != nil {
		return "", err
	}
	sizes = slices.Clone(sizes)
	for _, l := range m.Layout(int64(len(raw))) {
		i := slices.Index(sizes, l.Size)
		if i < 0 {
			return "incomplete", nil
		}
		sizes = slices.Delete(sizes, i, i+1)
	}
	return "complete", nil
}

// peek returns the manifest of a bundle to look at. With keys or a policy it is verified;
// without it is not, and that is said.
func (a *app) peek(ctx context.Context, source string, trust trustFlags) (*bundle.Manifest, error) {
	if trust.given() {
		r, err := a.openBundle(ctx, source, trust)
		if err != nil {
			return nil, err
		}
		return r.Manifest(), nil
	}
	at, err := a.find(ctx, source)
	if err != nil {
		return nil, err
	}
	m, err := bundle.Unverified(ctx, at.store, at.volume)
	if err == nil {
		a.Warn("the signature was not checked: give --key or --policy to have that done")
	}
	return m, err
}

func newTreeCommand(a *app) *cobra.Command {
	var trust trustFlags
	var long bool
	cmd := &cobra.Command{
		Use:   "tree SOURCE",
		Short: "List the images of a bundle, one path:tag a line",
		Long: `List the images of the bundle at SOURCE, one "path:tag" a line, to look at or
to search with grep. --long adds digests, sources, platforms and signatures.`,
		Example: `  ferry tree /media/usb
  ferry tree /media/usb | grep project/repo | cut -d ":" -f2 | grep -v '.sig'
  ferry tree /media/usb --long --key cosign.pub`,
		Args: wantArgs(1, 1, "a source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.peek(cmd.Context(), args[0], trust)
			if err != nil {
				return err
			}
			return a.Result(struct {
				Images []bundle.Image `json:"images"`
			}{m.Images}, func(w io.Writer) error { return writeTree(w, m, long) })
		},
	}
	trust.add(cmd.Flags(), "public key of the exporter, to verify what is shown")
	cmd.Flags().BoolVar(&long, "long", false, "show digests, sources, platforms, signatures and other referrers")
	return cmd
}

func writeTree(w io.Writer, m *bundle.Manifest, long bool) error {
	images := slices.Clone(m.Images)
	slices.SortStableFunc(images, func(a, b bundle.Image) int { return strings.Compare(a.Target, b.Target) })
	for _, i := range images {
		for _, tag := range i.Tags {
			fmt.Fprintf(w, "%s:%s\n", i.Target, tag)
		}
		if !long {
			continue
		}
		if len(i.Tags) == 0 {
			fmt.Fprintf(w, "%s\n", i.Target)
		}
		fmt.Fprintf(w, "    digest    %s  %s\n    source    %s\n", i.Digest, ui.Escape(i.MediaType), ui.Escape(i.Source))
		if i.Original != nil {
			fmt.Fprintf(w, "    platforms %s of %s\n", ui.Escape(strings.Join(i.Platforms, ", ")), i.Original)
		}
		for _, r := range i.Referrers {
			fmt.Fprintf(w, "    referrer  %s  %s %s of %s\n", r.Digest, ui.Escape(r.ArtifactType), r.Tag, r.Subject)
		}
	}
	return nil
}

func newInspectCommand(a *app) *cobra.Command {
	var trust trustFlags
	cmd := &cobra.Command{
		Use:   "inspect SOURCE",
		Short: "Show what a bundle says about itself",
		Long: `Show name, version, times, signatures, images and volumes of the bundle at
SOURCE. With --format json it is bundle.json itself, indented.`,
		Example: `  ferry inspect /media/usb --key cosign.pub
  ferry inspect /media/usb --format json | jq '.images[].source'`,
		Args: wantArgs(1, 1, "a source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.peek(cmd.Context(), args[0], trust)
			if err != nil {
				return err
			}
			return a.Result(m, func(w io.Writer) error { return writeInspect(w, m) })
		},
	}
	trust.add(cmd.Flags(), "public key of the exporter, to verify what is shown")
	return cmd
}

func writeInspect(w io.Writer, m *bundle.Manifest) error {
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	rows := [][]string{{"name", m.Name}, {"version", m.Version}, {"sequence", fmt.Sprint(m.Sequence)}, {"created", m.Created}}
	if m.Expires != "" {
		rows = append(rows, []string{"expires", m.Expires})
	}
	rows = append(rows, []string{"digest", verify.DigestOf(raw).String()})
	if m.Base != nil {
		rows = append(rows, []string{"base", fmt.Sprintf("%s %s, %d blobs left out", m.Base.Name, m.Base.Version, len(m.Base.Blobs))})
	}
	referrers := 0
	for _, i := range m.Images {
		referrers += len(i.Referrers)
	}
	rows = append(rows, []string{"images", fmt.Sprintf("%d, with %s (signatures and the like)", len(m.Images), count(referrers, "referrer"))})
	for v, l := range m.Layout(int64(len(raw))) {
		rows = append(rows, []string{bundle.VolumeName(v), fmt.Sprintf("%s, %d files", ui.Bytes(l.Size), len(l.Files))})
	}
	return ui.Table(w, rows)
}
