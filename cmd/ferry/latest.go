package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/harbor"
	"ferry/internal/registry"
	"ferry/internal/ui"
)

// byBundle is the rule that asks no registry but a bundle.
const byBundle = "bundle"

// latestRule is what a user says of which tag is the latest.
type latestRule struct {
	by             string
	match, exclude []string
	pre            bool
}

// addFlags adds the flags of the rule; when begins the help of each.
func (r *latestRule) addFlags(f *pflag.FlagSet, rules, when string) {
	f.StringVar(&r.by, "by", string(harbor.ByPushTime), when+"`RULE` that says what is latest: "+rules)
	f.StringArrayVar(&r.match, "match", nil, when+"take only tags that fit a `GLOB` like 'v1.*' (repeatable: one of them)")
	f.StringArrayVar(&r.exclude, "exclude", nil, when+"leave out tags that fit a `GLOB` (repeatable)")
	f.BoolVar(&r.pre, "pre", false, when+"let pre-releases count, by semver")
}

// given returns one of the flags of the rule that was given, or "".
func (*latestRule) given(f *pflag.FlagSet) string {
	for _, name := range []string{"by", "match", "exclude", "pre"} {
		if f.Changed(name) {
			return "--" + name
		}
	}
	return ""
}

// rule returns the rule to choose with among the tags of a registry.
func (r *latestRule) rule() (harbor.LatestRule, error) {
	rule := harbor.LatestRule{By: harbor.By(r.by), Match: r.match, Exclude: r.exclude, Prereleases: r.pre}
	switch {
	case r.by == byBundle:
		rule.By = harbor.ByPushTime // of what the registry has, to compare
	case !slices.Contains([]harbor.By{harbor.ByPushTime, harbor.BySemver, harbor.ByCreated}, rule.By):
		return rule, usagef("--by %q is not push-time, semver, created or bundle", r.by)
	}
	if err := rule.Check(); err != nil {
		return rule, usageError{err}
	}
	return rule, nil
}

type latestOptions struct {
	latestRule
	bundle string
	trust  trustFlags
	long   bool
}

func newLatestCommand(a *app) *cobra.Command {
	var o latestOptions
	cmd := &cobra.Command{
		Use:   "latest REPO",
		Short: "Print the newest tag of a Harbor repository, and why",
		Long: `Print the newest tag of REPO, host/project/repo; digest, time and reason go to
stderr. --by says what newest means:

  push-time  the tag that was pushed or moved last. Harbor's own sorting goes
             by when a digest first came, which is wrong after a tag was moved
             back; ferry reads all pages and compares the times of the tags
  semver     the greatest version. What is no version never wins, and neither
             do pre-releases (1.0-rc.1, but also 1.0-alpine) without --pre
  created    the image that was built last, as its builder says; an index has
             the time of its newest child; builds that say 1970 or so have none
  bundle     what the newest of the bundles at --bundle has for REPO, which
             needs no host then; with one, ferry says what the registry has

When another rule would choose another digest, ferry says so. Signature,
attestation and SBOM tags are left out.`,
		Example: `  ferry latest harbor.site.local/project/repo
  ferry latest harbor.site.local/project/repo --by semver --match 'v1.*' --exclude '*-debug'
  ferry latest team/app --by bundle --bundle /media/usb --key cosign.pub
  ferry pull harbor.site.local/project/repo:$(ferry latest harbor.site.local/project/repo) ./repo`,
		Args: wantArgs(1, 1, "a repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.bundle != "" && !cmd.Flags().Changed("by") {
				o.by = byBundle
			}
			return a.latest(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	o.addFlags(f, "push-time, semver, created or bundle", "")
	f.StringVar(&o.bundle, "bundle", "", "`LOCATION` of a bundle, or of several, for --by bundle")
	o.trust.add(f, "public key of the exporter, to verify the bundle")
	f.BoolVar(&o.long, "long", false, "print digest and push time, too")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"push-time", "semver", "created", "bundle"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// latestResult is what latest prints as JSON.
type latestResult struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Digest     string        `json:"digest"`
	PushTime   *time.Time    `json:"pushTime,omitempty"` // known when the registry has the tag with that digest
	Created    *time.Time    `json:"created,omitempty"`
	By         string        `json:"by"`
	Reason     string        `json:"reason"`
	Bundle     *latestBundle `json:"bundle,omitempty"`
	Disagree   []otherLatest `json:"disagree"`
}

// otherLatest is what another rule chooses.
type otherLatest struct {
	By       string     `json:"by"`
	Tag      string     `json:"tag"`
	Digest   string     `json:"digest"`
	PushTime time.Time  `json:"pushTime"`
	Created  *time.Time `json:"created,omitempty"`
	Reason   string     `json:"reason"`
}

func (a *app) latest(ctx context.Context, location string, o latestOptions) error {
	rule, err := o.rule()
	if err != nil {
		return err
	}
	switch {
	case o.by == byBundle && o.bundle == "":
		return usagef("--by bundle wants --bundle LOCATION")
	case o.by != byBundle && o.bundle != "":
		return usagef("--bundle is for --by bundle, not for --by %s", o.by)
	case o.by != byBundle && o.trust.given():
		return usagef("--key and --policy are for --by bundle, not for --by %s", o.by)
	}
	var result latestResult
	if o.by == byBundle {
		result, err = a.latestByBundle(ctx, location, rule, o)
	} else {
		var repo registry.Repository
		if repo, err = parseHosted(location); err != nil {
			return err
		}
		result, err = a.latestByRule(ctx, repo, rule)
	}
	if err != nil {
		return err
	}
	a.tellLatest(result)
	return a.Result(result, func(w io.Writer) error {
		row := []string{result.Tag}
		if o.long {
			row = append(row, result.Digest, "-")
			if result.PushTime != nil {
				row[2] = result.PushTime.UTC().Format(time.RFC3339)
			}
		}
		return ui.Table(w, [][]string{row})
	})
}

// tellLatest says what was chosen and why, and what others would choose.
func (a *app) tellLatest(r latestResult) {
	pushed := ""
	if r.PushTime != nil {
		pushed = fmt.Sprintf(", pushed %s (%s)", r.PushTime.UTC().Format(time.RFC3339), a.ago(*r.PushTime))
	}
	a.Say("%s: %s%s: %s", r.Tag, r.Digest, pushed, r.Reason)
	for _, other := range r.Disagree {
		a.Say("by %s it would be %s (%s)", other.By, other.Tag, other.Digest[:len("sha256:")+12])
	}
}

// latestByRule asks Harbor for the latest tag of a repository.
func (a *app) latestByRule(ctx context.Context, repo registry.Repository, rule harbor.LatestRule) (latestResult, error) {
	var none latestResult
	h, err := a.openHarbor(ctx, a.registry(), repo)
	if errors.Is(err, harbor.ErrNotHarbor) {
		return none, fmt.Errorf("%s has no times of pushes, so no tag is known to be the latest: %w", repo.Host, err)
	}
	if err != nil {
		return none, err
	}
	artifacts, err := h.artifacts(ctx)
	if err == nil && rule.By == harbor.ByCreated {
		err = h.AddCreated(ctx, h.project, h.repository, artifacts)
	}
	if err != nil {
		return none, err
	}
	choice, err := harbor.Latest(artifacts, rule)
	switch {
	case errors.Is(err, harbor.ErrOnlyPrereleases):
		return none, fmt.Errorf("%s: %w: --pre lets them count", repo, err)
	case errors.Is(err, harbor.ErrAmbiguous):
		return none, fmt.Errorf("%s: %w: --match, --exclude or another --by can decide", repo, err)
	case err != nil:
		return none, fmt.Errorf("%s: %w", repo, err)
	}
	return newLatestResult(repo.String(), choice, harbor.Disagreements(artifacts, rule, choice)), nil
}

func newLatestResult(repository string, c harbor.Choice, others []harbor.Choice) latestResult {
	r := latestResult{Repository: repository, Tag: c.Tag, Digest: c.Digest.String(), PushTime: known(c.PushTime), Created: known(c.Created),
		By: string(c.By), Reason: c.Reason, Disagree: []otherLatest{}}
	for _, o := range others {
		r.Disagree = append(r.Disagree, otherLatest{string(o.By), o.Tag, o.Digest.String(), o.PushTime, known(o.Created), o.Reason})
	}
	return r
}

// known returns t, or nil when it is the zero time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// parseHosted returns the repository that location names with its host: no
// Harbor is Docker's, which a name without a host would mean.
func parseHosted(location string) (registry.Repository, error) {
	if !isRegistry(location) {
		return registry.Repository{}, usagef("%q names no host: write host/project/repo, or ask a bundle with ferry latest --by bundle", location)
	}
	return parseRepository(location)
}

func parseRepository(location string) (registry.Repository, error) {
	repo, err := registry.ParseRepository(trimScheme(location))
	if err != nil {
		return repo, usagef("%q is not a repository, like host/project/repo: %w", location, err)
	}
	return repo, nil
}

// hosted is a repository of a Harbor.
type hosted struct {
	*harbor.Client
	project, repository string
}

// openHarbor returns the Harbor that holds a repository. Errors:
// [harbor.ErrNotHarbor] and those of [harbor.Client.Ping].
func (a *app) openHarbor(ctx context.Context, client *registry.Client, repo registry.Repository) (hosted, error) {
	var h hosted
	var err error
	if h.project, h.repository, err = harbor.SplitRepository(repo.Path); err != nil {
		return h, usageError{err}
	}
	if h.Client, err = a.harbor(ctx, client, repo); err != nil {
		return h, err
	}
	return h, h.Ping(ctx)
}

func (h hosted) artifacts(ctx context.Context) ([]harbor.Artifact, error) {
	if h.Username() != "" {
		// Where anybody may read, nothing else tells a wrong password.
		if err := h.CheckLogin(ctx); err != nil {
			return nil, err
		}
	}
	return h.Artifacts(ctx, h.project, h.repository)
}

// artifacts asks Harbor for all artifacts of a repository.
func (a *app) artifacts(ctx context.Context, client *registry.Client, repo registry.Repository) ([]harbor.Artifact, error) {
	h, err := a.openHarbor(ctx, client, repo)
	if err != nil {
		return nil, err
	}
	all, err := h.artifacts(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", repo.Host, err)
	}
	return all, nil
}

// latestBundle is the bundle in which latest found a tag.
type latestBundle struct {
	Location string `json:"location"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Sequence int64  `json:"sequence"`
	Verified bool   `json:"verified"`
	// Registry says what the registry has under the tag: "same", "other"
	// content, "missing", "unknown" when it did not say, or "" when it was
	// not asked.
	Registry string `json:"registry,omitempty"`
}

// latestByBundle finds the latest tag of a repository in the newest bundle
// that has it, and asks the repository's registry, if it has one, whether the
// tag is the same there.
func (a *app) latestByBundle(ctx context.Context, location string, rule harbor.LatestRule, o latestOptions) (latestResult, error) {
	var none latestResult
	repo, err := parseMaybeHosted(location)
	if err != nil {
		return none, err
	}
	at, err := a.newestBundle(ctx, o.bundle, repo.Path)
	if err != nil {
		return none, err
	}
	m, err := a.peek(ctx, at, o.trust)
	if err != nil {
		return none, err
	}
	choice, err := chooseInBundle(m, repo.Path, rule)
	if err != nil {
		return none, fmt.Errorf("%s: %w", at, err)
	}
	in := &latestBundle{Location: at, Name: m.Name, Version: m.Version, Sequence: m.Sequence, Verified: o.trust.given()}
	var others []harbor.Choice
	if repo.Host != "" {
		if others, err = a.compareChoice(ctx, repo, rule, &choice, in); err != nil {
			return none, err
		}
	}
	name := repo.String()
	if repo.Host == "" {
		name = repo.Path
	}
	r := newLatestResult(name, choice, others)
	r.Bundle = in
	return r, nil
}

// parseMaybeHosted returns the repository that location names, with its host
// if it has one.
func parseMaybeHosted(location string) (registry.Repository, error) {
	if isRegistry(location) {
		return parseRepository(location)
	}
	if !bundle.ValidTarget(location) {
		return registry.Repository{}, usagef("%q is not a repository, like project/repo or host/project/repo", location)
	}
	return registry.Repository{Path: location}, nil
}

// newestBundle returns where the bundle is that has images for path and the
// greatest sequence of those at location.
func (a *app) newestBundle(ctx context.Context, location, path string) (string, error) {
	places, err := a.bundlesAt(ctx, location)
	if err != nil {
		return "", err
	}
	best, sequence := "", int64(-1)
	for _, p := range places {
		at, err := a.find(ctx, p)
		if err != nil {
			return "", err
		}
		m, err := bundle.Unverified(ctx, at.store, at.volume)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p, err)
		}
		if targetFor(m, path) == "" {
			continue
		}
		if m.Sequence == sequence {
			return "", fmt.Errorf("%w: %s and %s have the same sequence %d: name one with --bundle", harbor.ErrAmbiguous, best, p, sequence)
		}
		if m.Sequence > sequence {
			best, sequence = p, m.Sequence
		}
	}
	if best == "" {
		return "", fmt.Errorf("%w: no bundle in %s has %s", bundle.ErrNotFound, location, path)
	}
	if len(places) > 1 {
		a.Say("taking %s, the newest of %d bundles that has %s", best, len(places), path)
	}
	return best, nil
}

// bundlesAt returns the locations of all bundles at a location, at least one.
func (a *app) bundlesAt(ctx context.Context, location string) ([]string, error) {
	_, err := a.find(ctx, location)
	var several usageError
	if err == nil || !errors.As(err, &several) {
		return []string{location}, err
	}
	store, err := a.store(ctx, location)
	if err != nil {
		return nil, err
	}
	found, err := bundle.List(ctx, store)
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, f := range found {
		if !f.Pending {
			folders = append(folders, f.Folder)
		}
	}
	return quoted(store, folders), nil
}

// targetFor returns the path of the images in a bundle that are for a
// repository: its own, or what is left of it without the prefix that an import
// put before it; the longest. It is "" when there is none.
func targetFor(m *bundle.Manifest, path string) string {
	target := ""
	for _, i := range m.Images {
		if (path == i.Target || strings.HasSuffix(path, "/"+i.Target)) && len(i.Target) > len(target) {
			target = i.Target
		}
	}
	return target
}

// chooseInBundle returns the last image of a bundle that is for a repository
// and has an eligible tag: bundles keep the order of the list that they were
// exported from. Of its tags the greatest version comes first.
func chooseInBundle(m *bundle.Manifest, path string, rule harbor.LatestRule) (harbor.Choice, error) {
	target := targetFor(m, path)
	n := 0
	var found *harbor.Choice
	for _, i := range slices.Backward(m.Images) {
		if i.Target != target {
			continue
		}
		one := harbor.Artifact{Digest: i.Digest}
		for _, tag := range i.Tags {
			one.Tags = append(one.Tags, harbor.Tag{Name: tag})
		}
		c, err := harbor.Latest([]harbor.Artifact{one}, harbor.LatestRule{Match: rule.Match, Exclude: rule.Exclude})
		if errors.Is(err, harbor.ErrNoTag) {
			continue
		}
		if err != nil {
			return c, err
		}
		if n++; found == nil {
			found = &c
		}
	}
	if found == nil {
		return harbor.Choice{}, fmt.Errorf("%w: no image %s of the bundle has an eligible tag", harbor.ErrNoTag, target)
	}
	found.By = byBundle
	found.Reason = fmt.Sprintf("last of %s %s in bundle %s %s", count(n, "image"), target, m.Name, m.Version)
	if n == 1 {
		found.Reason = fmt.Sprintf("the only image %s in bundle %s %s", target, m.Name, m.Version)
	}
	return *found, nil
}

// compareChoice says what the registry has under the tag that was chosen, and
// returns what it would choose by other rules. That it can not be asked is
// said, too.
func (a *app) compareChoice(ctx context.Context, repo registry.Repository, rule harbor.LatestRule, choice *harbor.Choice, in *latestBundle) ([]harbor.Choice, error) {
	at := repo.Tag(choice.Tag).String()
	client := a.registry()
	artifacts, err := a.artifacts(ctx, client, repo)
	there := choice.Digest
	var others []harbor.Choice
	switch {
	case errors.Is(err, harbor.ErrNotHarbor):
		d, headErr := client.Head(ctx, repo.Tag(choice.Tag))
		there, err = d.Digest, headErr
	case err == nil:
		others = harbor.Disagreements(artifacts, rule, *choice)
		tags := harbor.Tags(artifacts)
		i := slices.IndexFunc(tags, func(t harbor.TaggedArtifact) bool { return t.Tag.Name == choice.Tag })
		if i < 0 {
			err = harbor.ErrNotFound
			break
		}
		if there = tags[i].Artifact.Digest; there == choice.Digest {
			choice.PushTime, choice.Created = tags[i].Tag.PushTime, tags[i].Artifact.Created
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, harbor.ErrNotFound), errors.Is(err, registry.ErrNotFound):
		in.Registry = "missing"
		a.Warn("%s is not there, only in the bundle", at)
	case err != nil:
		in.Registry = "unknown"
		a.Warn("whether %s has the same could not be seen: %v", repo, err)
	case there != choice.Digest:
		in.Registry = "other"
		a.Warn("%s is %s there, and %s in the bundle", at, there, choice.Digest)
	default:
		in.Registry = "same"
		a.Say("%s has the same content", at)
	}
	return others, nil
}

func newTagsCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "tags REPO",
		Short: "List the tags of a repository, the newest first",
		Long: `List the tags of REPO, host/project/repo. From a Harbor they come with digests
and push times, the newest first; from another registry by name only. Signature,
attestation and SBOM tags are left out unless --all is given.`,
		Example: `  ferry tags harbor.site.local/project/repo
  ferry tags harbor.site.local/project/repo --all --format json`,
		Args: wantArgs(1, 1, "a repository"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.tags(cmd.Context(), args[0], all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "list signature, attestation and SBOM tags too")
	return cmd
}

type listedTag struct {
	Tag      string     `json:"tag"`
	Digest   string     `json:"digest,omitempty"`
	PushTime *time.Time `json:"pushTime,omitempty"`
}

func (a *app) tags(ctx context.Context, location string, all bool) error {
	repo, err := parseRepository(location)
	if err != nil {
		return err
	}
	client := a.registry()
	var list []listedTag
	artifacts, err := a.artifacts(ctx, client, repo)
	switch {
	case errors.Is(err, harbor.ErrNotHarbor):
		a.Say("%s is not a Harbor: listing the tags by name, without times", repo.Host)
		names, err := client.Tags(ctx, repo)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			list = append(list, listedTag{Tag: n})
		}
	case err != nil:
		return err
	default:
		for _, t := range harbor.Tags(artifacts) {
			list = append(list, listedTag{t.Tag.Name, t.Artifact.Digest.String(), &t.Tag.PushTime})
		}
	}
	if !all {
		list = slices.DeleteFunc(list, func(t listedTag) bool { return harbor.IsSignatureTag(t.Tag) })
	}
	return a.Result(struct {
		Repository string      `json:"repository"`
		Tags       []listedTag `json:"tags"`
	}{repo.String(), append([]listedTag{}, list...)}, func(w io.Writer) error {
		var rows [][]string
		for _, t := range list {
			row := []string{t.Tag}
			if t.PushTime != nil {
				row = append(row, t.Digest, t.PushTime.UTC().Format(time.RFC3339), a.ago(*t.PushTime))
			}
			rows = append(rows, row)
		}
		return ui.Table(w, rows)
	})
}

// ago returns how long ago t was, coarsely: what a person wants to know. A
// server's clock may be ahead.
func (a *app) ago(t time.Time) string {
	d := a.now().Sub(t)
	coarse := func(d time.Duration) string {
		switch {
		case d < time.Hour:
			return fmt.Sprintf("%dm", d/time.Minute)
		case d < 24*time.Hour:
			return fmt.Sprintf("%dh", d/time.Hour)
		}
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	switch {
	case d < -5*time.Minute:
		return "in " + coarse(-d)
	case d < time.Minute:
		return "just now"
	}
	return coarse(d) + " ago"
}
