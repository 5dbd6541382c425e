package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/harbor"
	"ferry/internal/layout"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

type importOptions struct {
	keys, maps             []string
	createProjects, dryRun bool
	receipt, receiptKey    string
}

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import SOURCE DEST",
		Short: "Verify a bundle and push what is missing to a registry",
		Long: `Verify the bundle at SOURCE, a folder, a .tar or s3://bucket/prefix, and push
what is missing to DEST: a registry, host or host/project, or a folder, which
becomes an OCI image layout. Nothing is pushed before the signature is checked,
and tags are written last, all together. The receipt goes to stdout.

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
	f.StringSliceVar(&o.keys, "key", nil, "public key of the exporter, such as cosign.pub (repeatable)")
	f.StringSliceVar(&o.maps, "map", nil, "`PATH=PATH`: replace the beginning of image paths (repeatable)")
	f.BoolVar(&o.createProjects, "create-projects", false, "create Harbor projects that are missing")
	f.StringVar(&o.receipt, "receipt", "", "write the receipt to a `FILE` too")
	f.StringVar(&o.receiptKey, "receipt-key", "", "private key to sign the receipt with: FILE.sigstore.json")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be pushed and push nothing")
	return cmd
}

func (a *app) importTo(ctx context.Context, source, dest string, o importOptions) error {
	if o.receiptKey != "" && o.receipt == "" {
		return usagef("--receipt-key wants --receipt FILE")
	}
	if !isRegistry(dest) {
		return a.importToLayout(ctx, source, strings.TrimPrefix(dest, "oci:"), o)
	}
	to, err := destination(dest, o.maps)
	if err != nil {
		return err
	}
	var signer *verify.Signer
	if o.receiptKey != "" {
		if signer, err = a.signer(ctx, o.receiptKey); err != nil {
			return err
		}
	}
	started := a.now()
	r, err := a.openBundle(ctx, source, o.keys)
	if err != nil {
		return err
	}
	deliveries, assumed, err := transfer.Deliveries(r, to)
	if err != nil {
		return err
	}
	options := transfer.PushOptions{Jobs: a.flags.jobs, Assumed: assumed}
	result, err := a.deliver(ctx, transfer.BundleSource(r), deliveries, options, o.createProjects, o.dryRun)
	if err != nil || o.dryRun {
		return err
	}
	receipt := transfer.NewReceipt(r, dest, started, a.now(), result)
	// The images are there: stdout says so, whatever becomes of the file.
	err = a.Result(receipt, func(w io.Writer) error { return writeImages(w, result) })
	return errors.Join(err, saveReceipt(receipt, o.receipt, signer))
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

// deliver plans a push, tells the plan, and unless dryRun is set performs it.
func (a *app) deliver(ctx context.Context, src transfer.Source, deliveries []transfer.Delivery, o transfer.PushOptions, createProjects, dryRun bool) (*transfer.PushResult, error) {
	client := a.registry()
	if createProjects {
		missing, err := a.missingProjects(ctx, client, deliveries)
		if err != nil {
			return nil, err
		}
		o.Absent = func(r registry.Repository) bool { return missing[project(r)] != nil }
		o.Prepare = func(ctx context.Context) error { return a.createProjects(ctx, missing) }
	}
	plan, err := transfer.PlanPush(ctx, client, src, deliveries, o)
	if err != nil {
		return nil, err
	}
	a.tellPush(plan)
	if dryRun {
		return nil, a.Result(newPushPlanResult(plan), func(w io.Writer) error { return writePushPlan(w, plan) })
	}
	var result *transfer.PushResult
	err = a.follow("pushing", func(p transfer.Progress) (err error) {
		o.Progress = p
		result, err = transfer.Push(ctx, client, src, plan, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	present := 0
	for _, image := range result.Images {
		if image.Present {
			present++
		}
		for tag, was := range image.Moved {
			a.Warn("%s:%s has moved: it was %s", image.Repository, tag, was)
		}
	}
	if present == len(result.Images) && result.BlobsPushed+result.BlobsMounted+result.Manifests+result.TagsWritten == 0 {
		a.Say("nothing to do: all %d images are there", present)
		return result, nil
	}
	a.Say("pushed %s (%s), mounted %d, wrote %s and %s; %d of %s there before", count(result.BlobsPushed, "blob"),
		ui.Bytes(result.BytesPushed), result.BlobsMounted, count(result.Manifests, "manifest"), count(result.TagsWritten, "tag"),
		present, count(len(result.Images), "image"))
	return result, nil
}

func (a *app) tellPush(p *transfer.PushPlan) {
	present := 0
	for _, there := range p.Present {
		if there {
			present++
		}
	}
	var bytes int64
	for _, b := range p.Blobs {
		if !b.Assumed {
			bytes += b.Size
		}
	}
	a.Say("plan: %s, %d there already; %s (%s) and %s to push", count(len(p.Present), "image"), present,
		count(len(p.Blobs), "blob"), ui.Bytes(bytes), count(p.Manifests, "manifest"))
}

// pushPlanResult is what a dry run prints as JSON.
type pushPlanResult struct {
	DryRun    bool          `json:"dryRun"`
	Images    []plannedPush `json:"images"`
	Blobs     []plannedBlob `json:"blobs"`
	Manifests int           `json:"manifests"`
}

type plannedPush struct {
	Repository string   `json:"repository"`
	Digest     string   `json:"digest"`
	Tags       []string `json:"tags"`
	Present    bool     `json:"present"`
}

type plannedBlob struct {
	Digest  string   `json:"digest"`
	Size    int64    `json:"size"`
	Missing []string `json:"missing"`
}

func newPushPlanResult(p *transfer.PushPlan) pushPlanResult {
	r := pushPlanResult{DryRun: true, Manifests: p.Manifests, Images: []plannedPush{}, Blobs: []plannedBlob{}}
	for i, d := range p.Deliveries {
		r.Images = append(r.Images, plannedPush{d.Repository.String(), d.Root.Digest.String(), d.Tags, p.Present[i]})
	}
	for _, b := range p.Blobs {
		planned := plannedBlob{Digest: b.Digest.String(), Size: b.Size}
		for _, repo := range b.Missing {
			planned.Missing = append(planned.Missing, repo.String())
		}
		r.Blobs = append(r.Blobs, planned)
	}
	return r
}

func writePushPlan(w io.Writer, p *transfer.PushPlan) error {
	rows := [][]string{{"IMAGE", "DIGEST", "STATE"}}
	for i, d := range p.Deliveries {
		state := "to push"
		if p.Present[i] {
			state = "there"
		}
		rows = append(rows, []string{d.Repository.String() + ":" + strings.Join(d.Tags, ","), d.Root.Digest.String(), state})
	}
	return ui.Table(w, rows)
}

func writeImages(w io.Writer, result *transfer.PushResult) error {
	for _, image := range result.Images {
		if len(image.Tags) == 0 {
			fmt.Fprintf(w, "%s@%s\n", image.Repository, image.Digest)
		}
		for _, tag := range image.Tags {
			fmt.Fprintf(w, "%s:%s@%s\n", image.Repository, tag, image.Digest)
		}
	}
	return nil
}

// project returns the first element of a repository's path.
func project(r registry.Repository) string {
	name, _, _ := strings.Cut(r.Path, "/")
	return name
}

// missingProjects returns the projects that are still to be created, each with
// its Harbor.
func (a *app) missingProjects(ctx context.Context, client *registry.Client, deliveries []transfer.Delivery) (map[string]*harbor.Client, error) {
	missing, seen := map[string]*harbor.Client{}, map[string]bool{}
	for _, d := range deliveries {
		name := project(d.Repository)
		if seen[name] {
			continue
		}
		seen[name] = true
		h, err := a.harbor(ctx, client, d.Repository)
		if err != nil {
			return nil, err
		}
		there, err := h.ProjectExists(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("project %s: %w", name, err)
		}
		if !there {
			missing[name] = h
		}
	}
	return missing, nil
}

// createProjects creates the projects. One that somebody else has created
// meanwhile is as good.
func (a *app) createProjects(ctx context.Context, missing map[string]*harbor.Client) error {
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		err := missing[name].CreateProject(ctx, name, harbor.CreateOptions{})
		if err != nil && !errors.Is(err, harbor.ErrExists) {
			return fmt.Errorf("creating project %s: %w", name, err)
		}
		a.Say("created project %s", name)
	}
	return nil
}

// harbor returns a client for the Harbor that holds repo.
func (a *app) harbor(ctx context.Context, client *registry.Client, repo registry.Repository) (*harbor.Client, error) {
	base, err := client.BaseURL(ctx, repo.Host)
	if err != nil {
		return nil, err
	}
	at, err := name.NewRepository(repo.String(), name.Insecure)
	if err != nil {
		return nil, err
	}
	login, err := a.keychain().Resolve(at)
	if err != nil {
		return nil, err
	}
	config, err := authn.Authorization(ctx, login)
	if err != nil {
		return nil, err
	}
	return harbor.New(base, harbor.Options{HTTP: a.client, Username: config.Username, Password: config.Password})
}

// saveReceipt writes the receipt to its file, and its signature beside it.
func saveReceipt(receipt *transfer.Receipt, file string, signer *verify.Signer) error {
	if file == "" {
		return nil
	}
	content, err := json.MarshalIndent(receipt, "", "  ")
	if err != nil {
		return err
	}
	content = append(content, '\n')
	if signer != nil {
		sig, err := signer.Sign(content)
		if err != nil {
			return err
		}
		if err := writeFile(file+".sigstore.json", sig); err != nil {
			return err
		}
	}
	return writeFile(file, content)
}

// writeFile replaces a file whole.
func writeFile(name string, content []byte) error {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(name, content, 0o644) // such as /dev/stdout
	}
	return bundle.NewDir(dir).Put(context.Background(), base, content)
}

func (a *app) importToLayout(ctx context.Context, source, dir string, o importOptions) error {
	if o.createProjects || o.receipt != "" || len(o.maps) > 0 {
		return usagef("--create-projects, --receipt and --map are for a registry, and %q is a folder (host or host/project is a registry)", dir)
	}
	r, err := a.openBundle(ctx, source, o.keys)
	if err != nil {
		return err
	}
	if base := r.Manifest().Base; base != nil {
		return fmt.Errorf("%w: a folder has nothing of %s %s: import both into a registry", transfer.ErrBaseMissing, base.Name, base.Version)
	}
	if o.dryRun {
		a.Say("plan: %s, %s in volumes, to the image layout %s", count(len(r.Manifest().Images), "image"), ui.Bytes(r.Bytes()), dir)
		return a.saved(savedResult{Location: dir, DryRun: true}, transfer.BundleItems(r))
	}
	sink, err := layout.NewFolder(dir)
	if err != nil {
		return err
	}
	defer sink.Close()
	return a.save(ctx, "importing", transfer.BundleSource(r), transfer.BundleItems(r), sink, dir)
}

// savedResult is what a command prints as JSON that has written a layout.
type savedResult struct {
	Location     string       `json:"location"`
	Images       []savedImage `json:"images"`
	Blobs        int          `json:"blobs"`
	Bytes        int64        `json:"bytes"`
	SkippedBlobs int          `json:"skippedBlobs"`
	DryRun       bool         `json:"dryRun,omitempty"`
}

type savedImage struct {
	Name   string   `json:"name"`
	Digest string   `json:"digest"`
	Tags   []string `json:"tags"`
}

// save copies items into a layout and tells about it.
func (a *app) save(ctx context.Context, verb string, src transfer.Source, items []transfer.Item, sink transfer.Sink, at string) error {
	var done transfer.Totals
	err := a.follow(verb, func(p transfer.Progress) (err error) {
		done, err = transfer.Save(ctx, src, items, sink, a.flags.jobs, p)
		return err
	})
	if err != nil {
		return err
	}
	if done.Items == 0 {
		a.Say("nothing to move: all %d blobs are in %s", done.SkippedItems, at)
	}
	return a.saved(savedResult{Location: at, Blobs: done.Items, Bytes: done.Bytes, SkippedBlobs: done.SkippedItems}, items)
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
		return ui.Table(w, rows)
	})
}

// age returns how long ago t was, for people.
func (a *app) age(t time.Time) string { return ui.Duration(a.now().Sub(t)) + " ago" }
