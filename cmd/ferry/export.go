package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"ferry/bundle"
	"ferry/internal/lists"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

type exportOptions struct {
	lists, platforms, baseKeys []string
	name, version, key, base   string
	volumeSize, expires        string
	sequence                   int64
	dryRun                     bool
	images                     imageFlags
}

func newExportCommand(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export IMAGE… DEST",
		Short: "Resolve images, pack and sign them as a bundle",
		Long: `Resolve images to digests, pack them with their signatures, attestations and
other referrers into tar volumes, and sign the whole as one bundle in the folder
DEST/NAME/VERSION. DEST is a folder or s3://bucket/prefix.

An IMAGE is a reference as docker knows it, or REFERENCE=PATH:TAG to give it
another name in the bundle. Run the same command again after an interruption:
it goes on where it stopped.`,
		Example: `  ferry export nginx:1.27 /media/usb --key cosign.key
  ferry export -f images.txt s3://out/bundles --name platform --version 2026.11 --key cosign.key
  ferry export -f images.txt /media/usb --key cosign.key --platform linux/amd64 --volume-size 4.7GB
  ferry export ghcr.io/org/app:v2=apps/app:v2 /media/usb --key cosign.key --dry-run`,
		Args: wantArgs(1, -1, "images and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.export(cmd.Context(), args[:len(args)-1], args[len(args)-1], o)
		},
	}
	f := cmd.Flags()
	listVarP(f, &o.lists, "file", "f", "`LIST` of images, - for stdin (repeatable)")
	f.StringVar(&o.name, "name", "bundle", "name of the bundle")
	f.StringVar(&o.version, "version", "", "version of the bundle (default the time, UTC)")
	f.StringVar(&o.key, "key", "", "private key to sign with, such as cosign.key (required)")
	listVar(f, &o.platforms, "platform", "take only this `OS/ARCH` of each image (repeatable; default all)")
	f.StringVar(&o.volumeSize, "volume-size", "", "most bytes of one volume, like 4.7GB or 4GiB (default no limit)")
	f.StringVar(&o.expires, "expires", "", "when the bundle stops being imported: a `TIME` (RFC 3339) or an age like 720h")
	f.Int64Var(&o.sequence, "sequence", 0, "number that grows with each bundle of the name (default the time in Unix seconds)")
	f.StringVar(&o.base, "base", "", "bundle that the site has: its layers are left out")
	listVar(f, &o.baseKeys, "base-key", "public key of the base (default: that of --key)")
	o.images.add(f)
	f.BoolVar(&o.dryRun, "dry-run", false, "show the plan and write nothing")
	return cmd
}

// exportResult is what export prints as JSON.
type exportResult struct {
	Location  string         `json:"location"`
	Name      string         `json:"name"`
	Version   string         `json:"version"`
	Sequence  int64          `json:"sequence"`
	Digest    verify.Digest  `json:"digest"`
	Images    []bundle.Image `json:"images"`
	Volumes   []volumeResult `json:"volumes"`
	Blobs     int            `json:"blobs"`
	Bytes     int64          `json:"bytes"`
	Shared    int64          `json:"sharedBytes"`
	BaseBytes int64          `json:"baseBytes,omitempty"`
	Moved     int64          `json:"movedBytes"`
	Unchanged bool           `json:"unchanged"`
	DryRun    bool           `json:"dryRun,omitempty"`
	Plan      *runPlan       `json:"plan,omitempty"`
	verifiedImages
}

type volumeResult struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func (a *app) export(ctx context.Context, images []string, dest string, o exportOptions) error {
	options, platforms, err := a.exportSettings(o)
	if err != nil {
		return err
	}
	requests, err := a.requests(images, o.lists)
	if err != nil {
		return err
	}
	policy, err := a.imagePolicy(ctx, o.images)
	if err != nil {
		return err
	}
	unlock, err := a.lockedSigner(ctx, o.key)
	if err != nil {
		return err
	}
	store, err := a.store(ctx, dest)
	if err != nil {
		return err
	}
	client := a.registry()
	a.Say("resolving %s", count(len(requests), "reference"))
	var signer *verify.Signer
	var selection *transfer.Selection
	both, bothCtx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		signer, err = unlock() // takes its time on purpose
		return err
	})
	both.Go(func() (err error) {
		selection, err = transfer.Resolve(bothCtx, client, requests, platforms, 2*a.flags.jobs)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	a.tellDropped(selection)
	verified, err := a.verifyImages(ctx, selection.Source(client), selection.Images, policy)
	if err != nil {
		return err
	}
	if o.base != "" {
		if options.Base, err = a.openBase(ctx, o, signer); err != nil {
			return err
		}
	}
	plan, err := transfer.PlanExport(ctx, selection, store, signer, options)
	if err != nil {
		return err
	}
	a.tellPlan(plan)
	result := newExportResult(plan, bundle.Sub(store, plan.Folder), o.dryRun)
	result.verifiedImages = verified
	gap, err := plan.Gap(ctx, o.dryRun)
	if err != nil {
		return err
	}
	tooSmall := checkRoom(result.Location, gap.Room)
	if o.dryRun {
		result.Plan = a.planExport(ctx, client, plan, gap, store)
	} else if tooSmall != nil {
		return tooSmall
	} else {
		var done transfer.Totals
		err := a.follow("packing", func(p transfer.Progress) (err error) {
			options.Progress = p
			done, err = transfer.Export(ctx, plan, client, options)
			return err
		})
		if err != nil {
			return err
		}
		result.Moved = done.Bytes
	}
	switch {
	case plan.Unchanged:
		a.Say("nothing to do: %s has the same content already", result.Location)
	case !o.dryRun:
		a.Say("exported %s to %s", count(len(result.Images), "image"), result.Location)
	}
	err = a.Result(result, func(w io.Writer) error {
		fmt.Fprintf(w, "%s\n", ui.Escape(result.Location))
		if result.Plan == nil {
			return nil
		}
		return cmp.Or(result.Plan.writeShares(w), result.Plan.write(w))
	})
	return cmp.Or(err, tooSmall)
}

// planExport tells what an export would do.
func (a *app) planExport(ctx context.Context, client *registry.Client, plan *transfer.ExportPlan, gap *bundle.Gap, store bundle.Store) *runPlan {
	p := newRunPlan(itemNames(plan.Items()), plan.Shares(gap))
	p.addSet(plan.Set, gap)
	p.Requests = plan.Requests(gap) + uploadRequests(store, plan.Set, gap)
	p.Memory = a.writeMemory(store)
	var probe transfer.Probe
	for _, part := range plan.Largest(gap, a.flags.jobs) {
		probe.Open = append(probe.Open, func(ctx context.Context) (io.ReadCloser, error) { return plan.OpenBlob(ctx, client, part.Digest) })
	}
	a.measure(ctx, p, probe, gap.Room)
	return p
}

func (a *app) exportSettings(o exportOptions) (transfer.ExportOptions, []oci.Platform, error) {
	options := transfer.ExportOptions{Name: o.name, Version: o.version, Sequence: o.sequence, Now: a.now(), Jobs: a.flags.jobs,
		Progress: transfer.Silent{}, Say: a.Say}
	if o.key == "" {
		return options, nil, usagef("export wants --key, the private key to sign with: make one with ferry keygen")
	}
	if !bundle.ValidName(o.name) || o.version != "" && !bundle.ValidName(o.version) {
		return options, nil, usagef("--name %q and --version %q must be of letters, digits and . _ + -", o.name, o.version)
	}
	if o.sequence < 0 || o.sequence > 1<<53 {
		return options, nil, usagef("--sequence %d is not between 0 and 2^53", o.sequence)
	}
	var err error
	if o.volumeSize != "" {
		if options.VolumeSize, err = ui.ParseBytes(o.volumeSize); err != nil {
			return options, nil, usagef("--volume-size: %w", err)
		}
		if options.VolumeSize < 1<<20 {
			return options, nil, usagef("--volume-size %s is less than 1 MiB", o.volumeSize)
		}
	}
	if o.expires != "" {
		if options.Lifetime, options.Expires, err = parseExpiry(o.expires, a.now()); err != nil {
			return options, nil, err
		}
	}
	var platforms []oci.Platform
	for _, s := range o.platforms {
		p, err := transfer.ParsePlatform(s)
		if err != nil {
			return options, nil, usageError{err}
		}
		platforms = append(platforms, p)
	}
	return options, platforms, nil
}

// parseExpiry returns an age or a time to come.
func parseExpiry(s string, now time.Time) (time.Duration, time.Time, error) {
	if age, err := time.ParseDuration(s); err == nil && age > 0 {
		return age, time.Time{}, nil
	}
	when, err := time.Parse(time.RFC3339, s)
	if err != nil || !when.After(now) {
		return 0, when, usagef("--expires %q is neither an age like 720h nor a time to come like 2027-01-31T00:00:00Z", s)
	}
	return 0, when, nil
}

// requests returns what the arguments and the lists ask for.
func (a *app) requests(images, files []string) ([]transfer.Request, error) {
	var entries []lists.Entry
	for _, image := range images {
		entries = append(entries, lists.Parse(image))
	}
	for _, name := range files {
		more, err := a.readList(name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	if len(entries) == 0 {
		return nil, usagef("export wants at least one image, or a list of them with -f")
	}
	requests := make([]transfer.Request, len(entries))
	for i, e := range entries {
		r, err := newRequest(e)
		if err != nil {
			if e.Where != "" {
				err = fmt.Errorf("%s: %w", e.Where, err)
			}
			return nil, usageError{err}
		}
		if r.Reference.Tag == "latest" && !strings.HasSuffix(trimScheme(e.Source), ":latest") {
			a.Warn("%s has no tag: taking latest", e.Source)
		}
		requests[i] = r
	}
	return requests, nil
}

func newRequest(e lists.Entry) (transfer.Request, error) {
	ref, err := registry.ParseReference(trimScheme(e.Source))
	if err != nil {
		return transfer.Request{}, err
	}
	r := transfer.Request{Reference: ref, Source: trimScheme(e.Source)}
	if e.Target == "" {
		return r, nil
	}
	r.Target = e.Target
	if i := strings.LastIndex(e.Target, ":"); i >= 0 {
		r.Target, r.Tag = e.Target[:i], e.Target[i+1:]
	}
	if !bundle.ValidTarget(r.Target) || r.Tag != "" && !bundle.ValidTag(r.Tag) {
		return r, fmt.Errorf("%q is not PATH or PATH:TAG, without a host", e.Target)
	}
	return r, nil
}

func (a *app) readList(name string) ([]lists.Entry, error) {
	if name == "-" {
		return lists.Read(a.stdin, "stdin")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return lists.Read(f, name)
}

func (a *app) openBase(ctx context.Context, o exportOptions, signer *verify.Signer) (*bundle.Reader, error) {
	if len(o.baseKeys) > 0 {
		return a.openBundle(ctx, o.base, trustFlags{keys: o.baseKeys})
	}
	at, err := a.find(ctx, o.base)
	if err != nil {
		return nil, err
	}
	r, err := bundle.OpenReader(ctx, at.store, at.volume, bundle.ReadOptions{Policy: verify.KeyPolicy(signer.Key()), Now: a.now()})
	if err != nil {
		return nil, fmt.Errorf("base %s: %w", o.base, err)
	}
	a.onClose(func() { r.Close() })
	return r, nil
}

func (a *app) tellDropped(s *transfer.Selection) {
	for _, d := range s.Dropped {
		a.Say("left out, as --platform says: %s", d)
	}
	if len(s.Dropped) > 0 {
		a.Warn("signatures of an index do not travel when platforms are chosen; those of each child do")
	}
}

func (a *app) tellPlan(p *transfer.ExportPlan) {
	m := p.Set.Manifest()
	referrers := 0
	for _, image := range m.Images {
		a.Say("  %s:%s %s from %s", image.Target, strings.Join(image.Tags, ","), shortDigest(image.Digest), image.Source)
		referrers += len(image.Referrers)
	}
	a.Say("plan: %s with %s (signatures and the like), %s, %s, and %s shared; %s, %s", count(len(m.Images), "image"),
		count(referrers, "referrer"), count(p.Blobs, "blob"), ui.Bytes(p.Bytes), ui.Bytes(p.Shared), count(len(m.Volumes), "volume"), ui.Bytes(p.Set.Bytes()))
	if m.Base != nil {
		a.Say("left out, as the base %s %s has it: %s", m.Base.Name, m.Base.Version, ui.Bytes(p.BaseBytes))
	}
	if p.Resumed {
		a.Say("going on with what an interrupted export left")
	}
}

// shortDigest returns as much of a digest as people compare.
func shortDigest(d verify.Digest) string { return d.String()[:len("sha256:")+12] }

func newExportResult(p *transfer.ExportPlan, at bundle.Store, dryRun bool) exportResult {
	m := p.Set.Manifest()
	r := exportResult{Location: at.String(), Name: m.Name, Version: m.Version, Sequence: m.Sequence, Digest: p.Set.Digest(), Images: m.Images,
		Blobs: p.Blobs, Bytes: p.Bytes, Shared: p.Shared, BaseBytes: p.BaseBytes, Unchanged: p.Unchanged, DryRun: dryRun}
	for v, l := range p.Set.Volumes() {
		r.Volumes = append(r.Volumes, volumeResult{bundle.VolumeName(v), l.Size})
	}
	return r
}
