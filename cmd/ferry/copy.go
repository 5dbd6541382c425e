package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/transfer"
	"ferry/internal/ui"
)

func newCopyCommand(a *app) *cobra.Command {
	var trust trustFlags
	var dryRun bool
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
			return a.copy(cmd.Context(), args[0], args[1], trust, dryRun)
		},
	}
	trust.add(cmd.Flags(), "public key of the exporter, such as cosign.pub")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be copied and write nothing")
	return cmd
}

// copyResult is what copy prints as JSON.
type copyResult struct {
	Location     string   `json:"location"`
	Digest       string   `json:"digest"`
	Blobs        int      `json:"blobs"`
	Bytes        int64    `json:"bytes"`
	SkippedBytes int64    `json:"skippedBytes"`
	DryRun       bool     `json:"dryRun,omitempty"`
	Plan         *runPlan `json:"plan,omitempty"`
}

func (a *app) copy(ctx context.Context, source, dest string, trust trustFlags, dryRun bool) error {
	r, err := a.openBundle(ctx, source, trust)
	if err != nil {
		return err
	}
	base, err := a.store(ctx, dest)
	if err != nil {
		return err
	}
	m := r.Manifest()
	store := bundle.Sub(base, m.Name+"/"+m.Version)
	result := copyResult{Location: store.String(), Digest: r.Digest().String(), DryRun: dryRun}
	o := transfer.CopyOptions{Jobs: a.flags.jobs, Say: a.Say,
		Check: func(gap *bundle.Gap) error { return checkRoom(result.Location, gap.Room) }}
	if dryRun {
		return a.planCopy(ctx, r, store, base, o, result)
	}
	var done transfer.Totals
	err = a.follow("copying", func(p transfer.Progress) (err error) {
		o.Progress = p
		done, err = transfer.Copy(ctx, r, store, o)
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
	result.Blobs, result.Bytes, result.SkippedBytes = done.Items, done.Bytes, done.SkippedBytes
	return a.Result(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n", ui.Escape(result.Location))
		return err
	})
}

// planCopy tells what a copy into store, a folder of base, would do.
func (a *app) planCopy(ctx context.Context, r *bundle.Reader, store, base bundle.Store, o transfer.CopyOptions, result copyResult) error {
	gap, err := transfer.CopyGap(ctx, r, store, o)
	if err != nil {
		return err
	}
	shares, err := transfer.CopyShares(ctx, r, gap)
	if err != nil {
		return err
	}
	p := newRunPlan(itemNames(transfer.BundleItems(r)), shares)
	p.addSet(r.Set, gap)
	p.Requests = uploadRequests(base, r.Set, gap)
	_, local := bundle.OnDisk(r.Store())
	if !local {
		p.Requests += len(gap.Parts)
	}
	p.Memory = a.writeMemory(base)
	probe := transfer.Probe{Local: local}
	for _, part := range transfer.LargestParts(gap, a.flags.jobs) {
		probe.Open = append(probe.Open, func(ctx context.Context) (io.ReadCloser, error) { return r.OpenBlob(ctx, part.Digest, 0) })
	}
	a.measure(ctx, p, probe, gap.Room)
	result.Plan = p
	err = a.Result(result, func(w io.Writer) error {
		fmt.Fprintf(w, "%s\n", ui.Escape(result.Location))
		return cmp.Or(p.writeShares(w), p.write(w))
	})
	return cmp.Or(err, o.Check(gap))
}
