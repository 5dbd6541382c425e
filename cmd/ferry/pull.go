package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/layout"
	"ferry/internal/lists"
	"ferry/internal/oci"
	"ferry/internal/transfer"
)

func newPullCommand(a *app) *cobra.Command {
	var platforms []string
	var single bool
	cmd := &cobra.Command{
		Use:   "pull REF DEST",
		Short: "Pull an image with its signatures into an OCI image layout",
		Long: `Pull an image or artifact, with signatures and other referrers, into DEST: a
folder, which becomes an OCI image layout, or a .tar, which becomes an OCI
archive. Into a folder that is a layout already, what is missing is added.`,
		Example: `  ferry pull harbor.site.local/project/repo:v1 ./repo-v1
  ferry pull harbor.site.local/project/repo:v1 repo-v1.tar --platform linux/amd64`,
		Args: wantArgs(2, 2, "a reference and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if single {
				a.Say("--single-manifest-repo is not needed: an image is pulled with all that belongs to it")
			}
			return a.pull(cmd.Context(), args[0], args[1], platforms)
		},
	}
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "take only this `OS/ARCH` (repeatable; default all)")
	cmd.Flags().BoolVar(&single, "single-manifest-repo", false, "accepted for those who are used to it; changes nothing")
	return cmd
}

func (a *app) pull(ctx context.Context, ref, dest string, platforms []string) error {
	request, err := newRequest(lists.Entry{Source: ref})
	if err != nil {
		return usageError{err}
	}
	var chosen []oci.Platform
	for _, s := range platforms {
		p, err := transfer.ParsePlatform(s)
		if err != nil {
			return usageError{err}
		}
		chosen = append(chosen, p)
	}
	src, item, err := transfer.Fetch(ctx, a.registry(), request, chosen)
	if err != nil {
		return err
	}
	dest = strings.TrimPrefix(dest, "oci:")
	if strings.HasSuffix(dest, ".tar") {
		sink, err := layout.NewArchive(dest)
		if err != nil {
			return err
		}
		defer sink.Close()
		return a.save(ctx, "pulling", src, []transfer.Item{item}, sink, dest)
	}
	sink, err := layout.NewFolder(dest)
	if err != nil {
		return err
	}
	defer sink.Close()
	return a.save(ctx, "pulling", src, []transfer.Item{item}, sink, dest)
}
