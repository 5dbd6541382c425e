package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/transfer"
	"ferry/internal/ui"
)

func newCopyCommand(a *app) *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "copy SOURCE DEST",
		Short: "Copy a bundle from store to store, verified",
		Long: `Copy the bundle at SOURCE to DEST/NAME/VERSION, between folders and buckets in
either direction. The signature is checked first and every byte on its way. Run
it again to go on after an interruption; when all is there, it reads the copy
back and replaces only volumes that are wrong.`,
		Example: `  ferry copy /media/usb s3://in/bundles --key cosign.pub
  ferry copy s3://out/bundles/platform/2026.11 /media/usb --key cosign.pub`,
		Args: wantArgs(2, 2, "a source and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.copy(cmd.Context(), args[0], args[1], keys)
		},
	}
	listVar(cmd.Flags(), &keys, "key", "public key of the exporter, such as cosign.pub (repeatable)")
	return cmd
}

func (a *app) copy(ctx context.Context, source, dest string, keys []string) error {
	r, err := a.openBundle(ctx, source, keys)
	if err != nil {
		return err
	}
	store, err := a.store(ctx, dest)
	if err != nil {
		return err
	}
	m := r.Manifest()
	store = bundle.Sub(store, m.Name+"/"+m.Version)
	var done transfer.Totals
	err = a.follow("copying", func(p transfer.Progress) (err error) {
		done, err = transfer.Copy(ctx, r, store, transfer.CopyOptions{Jobs: a.flags.jobs, Progress: p, Say: a.Say})
		return err
	})
	if err != nil {
		return err
	}
	if done.Items == 0 {
		a.Say("nothing to move: %s has every byte already", store)
	} else {
		a.Say("copied %s, %s, to %s; %s was there", count(done.Items, "blob"), ui.Bytes(done.Bytes), store, ui.Bytes(done.SkippedBytes))
	}
	return a.Result(struct {
		Location     string `json:"location"`
		Digest       string `json:"digest"`
		Blobs        int    `json:"blobs"`
		Bytes        int64  `json:"bytes"`
		SkippedBytes int64  `json:"skippedBytes"`
	}{store.String(), r.Digest().String(), done.Items, done.Bytes, done.SkippedBytes}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n", ui.Escape(store.String()))
		return err
	})
}
