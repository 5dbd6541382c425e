package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/layout"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

type importOptions struct {
	deliveryFlags
	hash    hashFlag
	trust   trustFlags
	maps    []string
	dryRun  bool
	receipt receiptFlags
}

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import SOURCE DEST",
		Short: "Verify a bundle and push what is missing to a registry",
		Long: `Verify the bundle at SOURCE, a folder, a .tar or s3://bucket/prefix, and push
what is missing to DEST: a registry, host or host/project, or a folder, which
becomes an OCI image layout. Nothing is pushed before the signature is checked
and it is clear that the registry will take it all (see ferry doctor), and tags
are written last, all together. The receipt goes to stdout.

A folder is written ./name, /name or oci:name; anything that begins like a host
is a registry.`,
		Example: `  ferry import /media/usb harbor.site.local --key cosign.pub --create-projects
  ferry import volume-001.tar harbor.site.local/apps --key cosign.pub --map library/nginx=proxy/nginx
  ferry import s3://in/platform/2026.11 harbor.site.local --key cosign.pub --receipt receipt.json
  ferry import /media/usb ./layout --key cosign.pub`,
		Args: wantArgs(2, 2, "a source and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importTo(cmd.Context(), args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	o.trust.addAccepting(f, "public key of the exporter, such as cosign.pub")
	listVar(f, &o.maps, "map", "`PATH=PATH`: replace the beginning of image paths (repeatable)")
	o.add(f)
	o.hash.add(f)
	o.receipt.add(f)
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be pushed and push nothing")
	return cmd
}

func (a *app) importTo(ctx context.Context, source, dest string, o importOptions) error {
	if _, err := a.wantStateDir(o.trust.state); err != nil {
		return err
	}
	if !isRegistry(dest) {
		if !strings.ContainsAny(dest[:1], "./") && !strings.HasPrefix(dest, "oci:") && missing(dest) {
			a.Warn("%s is taken for a folder, ./%s: the name of a registry's host has a dot or a port", dest, dest)
		}
		return a.importToLayout(ctx, source, strings.TrimPrefix(dest, "oci:"), o)
	}
	to, err := destination(dest, o.maps)
	if err != nil {
		return err
	}
	looks, err := o.options(a, to.Host)
	if err != nil {
		return err
	}
	kept, err := a.receipts(ctx, o.receipt)
	if err != nil {
		return err
	}
	started := a.now()
	r, err := a.openBundle(ctx, source, o.trust)
	if err != nil {
		return err
	}
	verified, err := a.verifyBundleImages(ctx, r)
	if err != nil {
		return err
	}
	witnesses, err := kept.witnesses(ctx, a, r.Manifest().Name)
	if err != nil {
		return err
	}
	deliveries, assumed, err := transfer.Deliveries(r, to)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		if kept.isAt(d.Repository) {
			return usagef("--receipt %s: an image of the bundle goes there", o.receipt.where)
		}
	}
	var known verify.KnownBundles
	result, err := a.deliver(ctx, delivery{transfer.BundleSource(r), deliveries,
		transfer.PushOptions{Jobs: a.flags.jobs, Hash: o.hash.always, Assumed: assumed}, looks, o.dryRun,
		func(ctx context.Context) (err error) {
			known, err = a.accept(ctx, r, acceptance{o.trust.state, witnesses, kept.believed(), o.dryRun})
			return err
		}})
	if err != nil || o.dryRun {
		return err
	}
	receipt := transfer.NewReceipt(r, dest, started, a.now(), result, known)
	receipt.Verified = verified.Verified
	// The images are there: stdout says so, whatever becomes of the receipt.
	err = a.Result(receipt, func(w io.Writer) error { return writeImages(w, result) })
	return errors.Join(err, kept.save(ctx, receipt))
}

func destination(dest string, maps []string) (transfer.Destination, error) {
	var to transfer.Destination
	var err error
	if to.Host, to.Prefix, err = splitDestination(dest); err != nil {
		return to, err
	}
	for _, s := range maps {
		m, err := transfer.ParseMap(s)
		if err != nil {
			return to, usageError{err}
		}
		to.Maps = append(to.Maps, m)
	}
	return to, nil
}

func (a *app) importToLayout(ctx context.Context, source, dir string, o importOptions) error {
	if o.createProjects || o.public || o.quota > 0 || o.hash.always || o.receipt.where != "" || len(o.maps)+len(o.ignore) > 0 {
		return usagef("--create-projects, --project-public, --project-quota, --hash, --receipt, --ignore and --map are for a registry, and %q is a folder (host or host/project is a registry)", dir)
	}
	r, err := a.openBundle(ctx, source, o.trust)
	if err != nil {
		return err
	}
	verified, err := a.verifyBundleImages(ctx, r)
	if err != nil {
		return err
	}
	if base := r.Manifest().Base; base != nil {
		return fmt.Errorf("%w: a folder has nothing of %s %s: import both into a registry", transfer.ErrBaseMissing, base.Name, base.Version)
	}
	items := transfer.BundleItems(r)
	plan, room, err := planSave(ctx, transfer.BundleSource(r), items, dir, false)
	if err != nil {
		return err
	}
	tooSmall := checkRoom(dir, room)
	if tooSmall == nil {
		if _, err := a.accept(ctx, r, acceptance{state: o.trust.state, dryRun: o.dryRun}); err != nil {
			return err
		}
	}
	if o.dryRun {
		a.Say("plan: %s, %s in volumes, to the image layout %s", count(len(items), "image"), ui.Bytes(r.Bytes()), dir)
		result := savedResult{Location: dir, DryRun: true, Plan: a.planLayout(ctx, r, plan, room), verifiedImages: verified}
		return cmp.Or(a.saved(result, items), tooSmall)
	}
	if tooSmall != nil {
		return tooSmall
	}
	sink, err := layout.NewFolder(dir)
	if err != nil {
		return err
	}
	defer sink.Close()
	done, err := a.save(ctx, "importing", plan, sink, dir)
	if err != nil {
		return err
	}
	return a.saved(savedResult{Location: dir, Blobs: done.Items, Bytes: done.Bytes, SkippedBlobs: done.SkippedItems, verifiedImages: verified}, items)
}

// planSave finds out what is missing in a layout, and what room that takes.
func planSave(ctx context.Context, src transfer.Source, items []transfer.Item, dest string, archive bool) (*transfer.SavePlan, *bundle.Room, error) {
	preview, err := layout.NewPreview(ctx, dest, archive)
	if err != nil {
		return nil, nil, err
	}
	plan, err := transfer.PlanSave(ctx, src, items, preview.Has)
	if err != nil {
		return nil, nil, err
	}
	room, err := preview.Room(ctx, plan.Blobs, plan.Manifests, plan.Names)
	return plan, room, err
}

// planLayout tells what an import into a layout would do.
func (a *app) planLayout(ctx context.Context, r *bundle.Reader, plan *transfer.SavePlan, room *bundle.Room) *runPlan {
	p := newRunPlan(itemNames(transfer.BundleItems(r)), plan.Shares)
	p.Move = plan.Bytes
	_, local := bundle.OnDisk(r.Store())
	if !local {
		p.Requests = plan.Totals.Items
	}
	p.Memory = a.layoutMemory()
	p.addRoom(room)
	probe := transfer.Probe{Local: local}
	for _, blob := range plan.Largest(a.flags.jobs) {
		probe.Open = append(probe.Open, func(ctx context.Context) (io.ReadCloser, error) { return r.OpenBlob(ctx, blob.Digest, 0) })
	}
	a.measure(ctx, p, probe, room)
	return p
}

// savedResult is what a command prints as JSON that has written a layout.
type savedResult struct {
	Location     string       `json:"location"`
	Images       []savedImage `json:"images"`
	Blobs        int          `json:"blobs"`
	Bytes        int64        `json:"bytes"`
	SkippedBlobs int          `json:"skippedBlobs"`
	DryRun       bool         `json:"dryRun,omitempty"`
	Plan         *runPlan     `json:"plan,omitempty"`
	verifiedImages
}

type savedImage struct {
	Name   string   `json:"name"`
	Digest string   `json:"digest"`
	Tags   []string `json:"tags"`
}

// save copies what a plan found missing into a layout and tells about it.
func (a *app) save(ctx context.Context, verb string, plan *transfer.SavePlan, sink transfer.Sink, at string) (transfer.Totals, error) {
	var done transfer.Totals
	err := a.follow(verb, func(p transfer.Progress) (err error) {
		done, err = plan.Save(ctx, sink, a.flags.jobs, p)
		return err
	})
	if err == nil && done.Items == 0 {
		a.Say("nothing to move: all %d blobs are in %s", done.SkippedItems, at)
	}
	return done, err
}

// saved answers with result, about items.
func (a *app) saved(result savedResult, items []transfer.Item) error {
	for _, item := range items {
		result.Images = append(result.Images, savedImage{item.Name, item.Root.Digest.String(), item.Tags})
	}
	return a.Result(result, func(w io.Writer) error {
		rows := [][]string{}
		for _, image := range result.Images {
			rows = append(rows, []string{image.Digest, strings.Trim(image.Name+":"+strings.Join(image.Tags, ","), ":")})
		}
		if result.Plan != nil {
			return cmp.Or(result.Plan.writeShares(w), result.Plan.write(w))
		}
		return ui.Table(w, rows)
	})
}
