package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/pflag"

	"ferry/harbor"
	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/transport"
	"ferry/internal/ui"
)

// deliveryFlags are those of commands that push, and of ferry doctor.
type deliveryFlags struct {
	createProjects, public bool
	quota                  int64 // bytes; 0 when it is not given
	ignore                 []string
}

func (d *deliveryFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&d.createProjects, "create-projects", false, "create Harbor projects that are missing")
	f.BoolVar(&d.public, "project-public", false, "let anybody pull from projects that are created")
	f.Func("project-quota", "quota of projects that are created, a `SIZE` like 200GB (default Harbor's)", func(s string) (err error) {
		if d.quota, err = ui.ParseBytes(s); err == nil && d.quota == 0 {
			err = errors.New("for Harbor 0 is no limit: leave the flag out")
		}
		return err
	})
	listVar(f, &d.ignore, "ignore", "`CHECK` of the preflight that may fail: "+strings.Join(preflight.Ignorable(), ", ")+" (repeatable)")
}

// hashFlag says who hashes what is sent to a registry.
type hashFlag struct{ always bool }

func (h *hashFlag) add(f *pflag.FlagSet) {
	f.Var(h, "hash", "`WHEN` what is sent is hashed here: auto, unless the registry refuses a wrong blob first, or always")
}

// Set implements [pflag.Value].
func (h *hashFlag) Set(s string) error {
	if s != "auto" && s != "always" {
		return errors.New("want auto or always")
	}
	h.always = s == "always"
	return nil
}

// String implements [pflag.Value].
func (h *hashFlag) String() string {
	if h.always {
		return "always"
	}
	return "auto"
}

// Type implements [pflag.Value].
func (h *hashFlag) Type() string { return "string" }

// options returns what is to be looked at, and made, at the host.
func (d *deliveryFlags) options(a *app, host string) (preflight.Options, error) {
	client := a.registry()
	o := preflight.Options{Registry: client, Host: host, CreateProjects: d.createProjects, Ignore: d.ignore, Jobs: a.flags.jobs,
		Project:   harbor.CreateOptions{Public: d.public, StorageLimit: d.quota},
		Unchecked: transport.Covers(a.flags.insecure, host), Harbor: a.harborAt, LoginAdvice: loginSources}
	if !d.createProjects && (d.public || d.quota > 0) {
		return o, usagef("--project-public and --project-quota are for projects that --create-projects creates")
	}
	for _, check := range d.ignore {
		if !slices.Contains(preflight.Ignorable(), check) {
			return o, usagef("--ignore %s: only %s can be ignored", check, strings.Join(preflight.Ignorable(), ", "))
		}
	}
	return o, nil
}

// delivery is a push of a command.
type delivery struct {
	source     transfer.Source
	deliveries []transfer.Delivery // at least one, all to one host
	push       transfer.PushOptions
	preflight  preflight.Options
	dryRun     bool
	accept     func(ctx context.Context) error // called when nothing else is in the way, before the first write; may be nil
}

// deliver plans a push, looks at whether the destination will take it, tells
// both, and unless it is a dry run performs it.
func (a *app) deliver(ctx context.Context, d delivery) (*transfer.PushResult, error) {
	if len(d.deliveries) == 0 {
		return &transfer.PushResult{}, nil
	}
	plan, looked, err := a.plan(ctx, &d)
	if err != nil {
		return nil, err
	}
	if plan != nil {
		a.tellPush(plan)
	}
	var refused error
	if looked != nil && looked.Err() != nil {
		refused = notBegunError{looked.Err()}
	}
	if d.accept != nil && refused == nil {
		if err := d.accept(ctx); err != nil {
			return nil, err
		}
	}
	if d.dryRun {
		result := newPushPlanResult(plan, &looked.Report)
		result.Plan = a.planPush(ctx, &d, plan)
		err := a.Result(result, func(w io.Writer) error { return writePushPlan(w, plan, result.Plan) })
		return nil, cmp.Or(err, refused)
	}
	if refused != nil {
		return nil, refused
	}
	var result *transfer.PushResult
	err = a.follow("pushing", func(p transfer.Progress) (err error) {
		d.push.Progress = p
		result, err = transfer.Push(ctx, d.preflight.Registry, d.source, plan, d.push)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.tellPushed(result)
	return result, nil
}

// notBegunError says that a preflight has failed.
type notBegunError struct{ error }

func (e notBegunError) Unwrap() error { return e.error }

// plan finds out what is missing at the destination, and unless that is
// nothing whether the destination will take it. Where the registry refuses to
// say what it has, the preflight tells why, or that a project is still to be
// created; there is no plan when it fails, else it is asked once more.
func (a *app) plan(ctx context.Context, d *delivery) (*transfer.PushPlan, *preflight.Destination, error) {
	plan, err := transfer.PlanPush(ctx, d.preflight.Registry, d.source, d.deliveries, d.push)
	if err != nil && !isRefusal(err) {
		return nil, nil, err
	}
	if err == nil && plan.Complete() && !d.dryRun {
		return plan, nil, nil
	}
	looked := preflight.Look(ctx, repositories(d.deliveries), d.preflight)
	if looked.Err() != nil {
		a.tellFindings(ctx, &looked.Report)
		return nil, looked, nil
	}
	missing := looked.MissingProjects()
	d.push.Absent = looked.Absent
	d.push.Prepare = func(ctx context.Context) error { return a.createProjects(ctx, looked, missing) }
	if err != nil { // a project is missing, or somebody else has made it meanwhile
		plan, err = transfer.PlanPush(ctx, d.preflight.Registry, d.source, d.deliveries, d.push)
	}
	if err != nil {
		return nil, nil, err
	}
	looked.CheckPlan(ctx, plan)
	a.tellFindings(ctx, &looked.Report)
	return plan, looked, nil
}

// isRefusal reports whether err is an answer of a registry.
func isRefusal(err error) bool {
	var refused *registry.Error
	return errors.As(err, &refused) && refused.Status != 0 && !errors.Is(err, registry.ErrUnavailable)
}

func repositories(deliveries []transfer.Delivery) []registry.Repository {
	var all []registry.Repository
	for _, d := range deliveries {
		if !slices.Contains(all, d.Repository) {
			all = append(all, d.Repository)
		}
	}
	return all
}

// advise adds what to do to errors that a check knows no advice for.
func advise(ctx context.Context, r *preflight.Report) {
	for i, c := range r.Checks {
		if c.Advice == "" && c.Err() != nil {
			// The preflight is what others send people to.
			hint := hintFor(c.Err(), exitCode(ctx, c.Err()))
			r.Checks[i].Advice = strings.TrimSuffix(hint, ": "+doctorAdvice)
		}
	}
}

// tellFindings tells what a preflight found that is not good. What it found of
// TLS has been told when ferry started.
func (a *app) tellFindings(ctx context.Context, r *preflight.Report) {
	advise(ctx, r)
	for _, c := range r.Checks {
		tell := a.Warn
		switch {
		case c.Level == preflight.OK || c.Level == preflight.Warning && c.Name == preflight.TLS:
			continue
		case c.Level == preflight.Error:
			tell = a.Error
		}
		tell("%s of %s: %s", c.Name, c.About, c.Found)
		if c.Advice != "" {
			a.Hint("%s", c.Advice)
		}
	}
	switch warnings, errs := r.Count(preflight.Warning), r.Count(preflight.Error); {
	case errs > 0:
		a.Say("preflight: %s failed of %d", count(errs, "check"), len(r.Checks))
	case warnings > 0:
		a.Say("preflight: %s, %s", count(len(r.Checks), "check"), count(warnings, "warning"))
	default:
		a.Say("preflight: all %d checks passed", len(r.Checks))
	}
}

func (a *app) tellPushed(result *transfer.PushResult) {
	present := 0
	for _, image := range result.Images {
		if image.Present {
			present++
		}
		for _, tag := range slices.Sorted(maps.Keys(image.Moved)) {
			a.Warn("%s:%s has moved: it was %s", image.Repository, tag, image.Moved[tag])
		}
	}
	if present == len(result.Images) && result.BlobsPushed+result.BlobsMounted+result.Manifests+result.TagsWritten == 0 {
		a.Say("nothing to do: all %d images are there", present)
		return
	}
	if result.Unproven {
		a.Say("the registry did not show that it refuses wrong content: hashed here what was sent")
	}
	a.Say("pushed %s (%s), mounted %d, wrote %s and %s; %d of %s there before", count(result.BlobsPushed, "blob"),
		ui.Bytes(result.BytesPushed), result.BlobsMounted, count(result.Manifests, "manifest"), count(result.TagsWritten, "tag"),
		present, count(len(result.Images), "image"))
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
	DryRun    bool              `json:"dryRun"`
	Images    []plannedPush     `json:"images"`
	Blobs     []plannedBlob     `json:"blobs"`
	Manifests int               `json:"manifests"`
	Preflight []preflight.Check `json:"preflight"`
	Plan      *runPlan          `json:"plan,omitempty"`
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

// newPushPlanResult returns what is planned; p is nil when the preflight failed
// before there was a plan.
func newPushPlanResult(p *transfer.PushPlan, findings *preflight.Report) pushPlanResult {
	r := pushPlanResult{DryRun: true, Images: []plannedPush{}, Blobs: []plannedBlob{}, Preflight: findings.Checks}
	if p == nil {
		return r
	}
	r.Manifests = p.Manifests
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

// planPush tells what a push would do, or nil without a plan.
func (a *app) planPush(ctx context.Context, d *delivery, plan *transfer.PushPlan) *runPlan {
	if plan == nil {
		return nil
	}
	var names []string
	for _, to := range plan.Deliveries {
		names = append(names, imageName(to.Repository.String(), to.Tags, to.Root.Digest))
	}
	shares := plan.Shares()
	p := newRunPlan(names, shares)
	p.Move = shares.Sum.New - shares.Manifests
	p.Requests = plan.Requests()
	p.Memory = a.pushMemory()
	probe := transfer.Probe{Unhashed: !d.push.Hash}
	for _, blob := range plan.Largest(a.flags.jobs) {
		probe.Open = append(probe.Open, func(ctx context.Context) (io.ReadCloser, error) { return d.source.OpenBlob(ctx, blob, 0) })
	}
	if len(plan.Deliveries) > 0 {
		to := plan.Deliveries[0]
		probe.Ask = func(ctx context.Context) error {
			_, _, err := d.preflight.Registry.HasBlob(ctx, to.Repository, to.Root.Digest)
			return err
		}
	}
	a.measure(ctx, p, probe, nil)
	return p
}

func writePushPlan(w io.Writer, p *transfer.PushPlan, run *runPlan) error {
	if p == nil {
		return nil
	}
	rows := [][]string{append([]string{"IMAGE", "DIGEST", "STATE"}, shareHeads...)}
	for i, d := range p.Deliveries {
		state := "to push"
		if p.Present[i] {
			state = "there"
		}
		rows = append(rows, append([]string{d.Repository.String() + ":" + strings.Join(d.Tags, ","), d.Root.Digest.String(), state}, run.shareCells(i)...))
	}
	return cmp.Or(ui.Table(w, append(rows, run.sumRow(3))), run.write(w))
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

// createProjects creates the projects. One that somebody else has created
// meanwhile is as good.
func (a *app) createProjects(ctx context.Context, at *preflight.Destination, missing []string) error {
	for _, name := range missing {
		made, err := at.CreateProject(ctx, name)
		if err != nil {
			return err
		}
		if made.Existed {
			a.Say("project %s has been created by somebody else meanwhile", name)
			continue
		}
		a.Say("created project %s", name)
		if made.QuotaRefused {
			a.Warn("Harbor did not take the quota of project %s: only administrators and robots may set it", name)
		}
	}
	return nil
}

// harbor returns a client for the Harbor that holds repo.
func (a *app) harbor(ctx context.Context, client *registry.Client, repo registry.Repository) (*harbor.Client, error) {
	base, err := client.BaseURL(ctx, repo.Host)
	if err != nil {
		return nil, err
	}
	h, err := a.harborAt(ctx, base, repo)
	if errors.Is(err, preflight.ErrToken) {
		err = fmt.Errorf("%w, which Harbor's API does not take: give user and password for %s", err, repo.Host)
	}
	return h, err
}

// harborAt returns a client for the Harbor at a base URL with the login for
// repo, or for the host when repo has no path. The error is [preflight.ErrToken],
// beside a client without a login, when that is a token.
func (a *app) harborAt(ctx context.Context, base string, repo registry.Repository) (*harbor.Client, error) {
	var at authn.Resource
	var err error
	if repo.Path == "" {
		at, err = name.NewRegistry(repo.Host, name.Insecure)
	} else {
		at, err = name.NewRepository(repo.String(), name.Insecure)
	}
	if err != nil {
		return nil, err
	}
	login, err := authn.Resolve(ctx, a.keychain, at)
	if err != nil {
		return nil, err
	}
	config, err := authn.Authorization(ctx, login)
	if err != nil {
		return nil, err
	}
	h, err := harbor.New(base, harbor.Options{HTTP: a.client, Username: config.Username, Password: config.Password})
	if err == nil && config.Username == "" && config.IdentityToken+config.RegistryToken != "" {
		err = preflight.ErrToken
	}
	return h, err
}
