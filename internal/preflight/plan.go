package preflight

import (
	"context"
	"errors"
	"slices"
	"strings"

	"ferry/harbor"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

// CheckPlan looks at whether the destination takes what the plan has found
// missing. It asks only when the checks before found no error.
func (d *Destination) CheckPlan(ctx context.Context, plan *transfer.PushPlan) {
	if d.harbor == nil || d.Err() != nil {
		return
	}
	writes := plan.Writes()
	d.checkManifests(writes)
	all, need := d.sorted(), newContent(plan, writes)
	for _, check := range []func(*project){
		func(p *project) { d.checkQuota(ctx, p, need[p.name]) },
		func(p *project) { d.checkTags(ctx, p, writes) },
		func(p *project) { d.checkRetention(ctx, p, writes) },
	} {
		for _, p := range all {
			p.findings = Report{ignore: d.ignore}
		}
		d.atOnce(len(all), func(i int) { check(all[i]) })
		for _, p := range all {
			d.Checks = append(d.Checks, p.findings.Checks...)
		}
	}
}

// checkManifests looks at whether Harbor takes the manifests: to a larger one
// it answers 413.
func (d *Destination) checkManifests(writes []transfer.Write) {
	largest := int64(0)
	for _, w := range writes {
		for _, m := range w.Manifests {
			largest = max(largest, m.Size)
			if m.Size > oci.MaxManifest {
				d.fail(ManifestSize, w.Repository.String(), "leave the image out: no Harbor takes it",
					registry.ErrTooLarge, "manifest %s has %d bytes, and Harbor takes %d", m.Digest, m.Size, oci.MaxManifest)
			}
		}
	}
	if largest <= oci.MaxManifest {
		d.ok(ManifestSize, d.opts.Host, "the largest has %s", ui.Bytes(largest))
	}
}

func projectOf(r registry.Repository) string {
	name, _, _ := strings.Cut(r.Path, "/")
	return name
}

// addition is what a plan adds to a project.
type addition struct {
	bytes int64
	blobs []oci.Descriptor // of them, those that are no manifests
	asked []registry.Repository
}

// newContent returns what the plan adds to the quota of each project: blobs
// and manifests that it does not have, each once.
func newContent(plan *transfer.PushPlan, writes []transfer.Write) map[string]*addition {
	type key struct {
		project string
		digest  verify.Digest
	}
	has, need := map[key]bool{}, map[string]*addition{}
	for _, w := range writes {
		name := projectOf(w.Repository)
		if need[name] == nil {
			need[name] = &addition{}
		}
		need[name].asked = append(need[name].asked, w.Repository)
		for _, m := range w.Present {
			has[key{name, m.Digest}] = true
		}
	}
	add := func(repo registry.Repository, d oci.Descriptor) *addition {
		k := key{projectOf(repo), d.Digest}
		if has[k] {
			return nil
		}
		has[k] = true
		need[k.project].bytes += d.Size
		return need[k.project]
	}
	for _, b := range plan.Blobs {
		for _, repo := range b.From {
			has[key{projectOf(repo), b.Digest}] = true
		}
		for _, repo := range b.Missing {
			if to := add(repo, b.Descriptor); to != nil {
				to.blobs = append(to.blobs, b.Descriptor)
			}
		}
	}
	for _, w := range writes {
		for _, m := range w.Manifests {
			add(w.Repository, m)
		}
	}
	return need
}

func (d *Destination) checkQuota(ctx context.Context, p *project, add *addition) {
	if add == nil || !p.missing && !p.known {
		return // which the check of the project has told
	}
	quota, err := d.quota(ctx, p)
	if err != nil {
		p.findings.broken(Quota, p.name, err)
		return
	}
	need := add.bytes
	if quota.Known && quota.Limit >= 0 && need > quota.Room() && !p.missing {
		need -= d.elsewhere(ctx, p, add, need-quota.Room())
	}
	switch room := quota.Room(); {
	case !quota.Known && p.missing:
		p.findings.warn(Quota, p.name, "give one with --project-quota, or ask an administrator", "Harbor's default for new projects is not known; %s will be added", ui.Bytes(need))
	case !quota.Known:
		p.findings.warn(Quota, p.name, "give the login the right quota:read to have it checked", "not told; %s will be added", ui.Bytes(need))
	case quota.Limit < 0:
		p.findings.ok(Quota, p.name, "no limit; %s will be added", ui.Bytes(need))
	case need > room:
		p.findings.fail(Quota, p.name, "have the quota raised, or delete what is not needed and have the garbage collected", harbor.ErrQuota,
			"%d bytes will be added, %d are left of %d: %d too few (%s)", need, room, quota.Limit, need-room, ui.Bytes(need-room))
	default:
		p.findings.ok(Quota, p.name, "%s of %s are left; %s will be added", ui.Bytes(room), ui.Bytes(quota.Limit), ui.Bytes(need))
	}
}

// quota returns the quota that a project has, or will have.
func (d *Destination) quota(ctx context.Context, p *project) (harbor.Quota, error) {
	if !p.missing {
		return d.harbor.Quota(ctx, p.name)
	}
	if d.opts.Project.StorageLimit > 0 && (d.account.Admin || d.account.Robot) {
		return harbor.Quota{Limit: d.opts.Project.StorageLimit, Known: true}, nil
	}
	quota, err := d.harbor.DefaultQuota(ctx)
	if errors.Is(err, harbor.ErrForbidden) || errors.Is(err, harbor.ErrUnauthorized) {
		return harbor.Quota{Limit: -1}, nil // which Harbor tells administrators only
	}
	return quota, err
}

// maxElsewhere bounds the requests that look for blobs in other repositories.
const maxElsewhere = 2000

// elsewhere returns how many bytes of the blobs other repositories of the
// project have, which the plan did not ask. It stops looking when that is
// enough, or when it can not be found out.
func (d *Destination) elsewhere(ctx context.Context, p *project, add *addition, enough int64) (found int64) {
	repositories, err := d.harbor.Repositories(ctx, p.name)
	if err != nil {
		return 0
	}
	requests := 0
	for _, blob := range add.blobs {
		for _, r := range repositories {
			repo := registry.Repository{Host: d.opts.Host, Path: p.name + "/" + r.Name}
			if slices.Contains(add.asked, repo) {
				continue
			}
			if requests++; requests > maxElsewhere || found >= enough {
				return found
			}
			_, there, err := d.opts.Registry.HasBlob(ctx, repo, blob.Digest)
			if err != nil {
				return found
			}
			if there {
				found += blob.Size
				break
			}
		}
	}
	return found
}

// checkTags looks at the tags that would move: new ones are never refused.
func (d *Destination) checkTags(ctx context.Context, p *project, writes []transfer.Write) {
	written, moving := 0, []move{}
	for _, w := range writes {
		if projectOf(w.Repository) != p.name {
			continue
		}
		written += len(w.Tags)
		for _, t := range w.Tags {
			if !t.Was.IsZero() {
				moving = append(moving, move{strings.TrimPrefix(w.Repository.Path, p.name+"/"), t})
			}
		}
	}
	bad := 0
	if len(moving) > 0 {
		bad = d.checkMoves(ctx, p, moving)
	}
	if written > 0 && bad == 0 {
		p.findings.ok(Immutable, p.name, "%d tags will be written, those of signatures included; %d of them move", written, len(moving))
	}
}

// move is a tag that moves in a repository, which is named without its
// project.
type move struct {
	repository string
	transfer.TagWrite
}

// checkMoves returns how many of the tags may not be moved, or may not be
// known.
func (d *Destination) checkMoves(ctx context.Context, p *project, moving []move) (bad int) {
	rules, err := d.harbor.ImmutableRules(ctx, p.name)
	asks := errors.Is(err, harbor.ErrForbidden)
	if err != nil && !asks {
		p.findings.broken(Immutable, p.name, err)
		return len(moving)
	}
	kept, errs := make([]bool, len(moving)), make([]error, len(moving))
	d.atOnce(len(moving), func(i int) {
		if m := moving[i]; asks {
			kept[i], errs[i] = d.harbor.TagImmutable(ctx, p.name, m.repository, m.Tag)
		} else {
			kept[i] = slices.ContainsFunc(rules, func(r harbor.Rule) bool { return r.Covers(m.repository, m.Tag) })
		}
	})
	for i, m := range moving {
		about := p.name + "/" + m.repository + ":" + m.Tag
		switch err := errs[i]; {
		case errors.Is(err, harbor.ErrForbidden):
			p.findings.warn(Immutable, about, "give the login the right artifact:read or immutable-tag:list to have it checked",
				"the tag will move from %s; whether it may is not known", m.Was)
		case err != nil && !errors.Is(err, harbor.ErrNotFound):
			p.findings.broken(Immutable, about, err)
		case kept[i]:
			p.findings.fail(Immutable, about, "give the image another tag (in a new export, or with --map another repository), or have the rule changed: Harbor keeps the tag as it is",
				harbor.ErrImmutable, "it is immutable and %s, and would become %s", m.Was, m.Digest)
		default:
			continue
		}
		bad++
	}
	return bad
}

func (d *Destination) checkRetention(ctx context.Context, p *project, writes []transfer.Write) {
	if !p.known || p.details.RetentionID == 0 {
		return // the check of the project has told when it is not known
	}
	policy, err := d.harbor.Retention(ctx, p.details.RetentionID)
	if errors.Is(err, harbor.ErrForbidden) {
		p.findings.warn(Retention, p.name, "give the login the right tag-retention:read to have it checked", "there is a policy, which the login may not read")
		return
	}
	if err != nil {
		p.findings.broken(Retention, p.name, err)
		return
	}
	losses := 0
	for _, repo := range repositoriesOf(p.name, writes) {
		for _, loss := range policy.Losses(strings.TrimPrefix(repo, p.name+"/"), artifactsOf(repo, writes)) {
			losses++
			p.findings.warn(Retention, repo+":"+strings.Join(loss.Tags, ","), "have a rule added that retains it, or it will be deleted when the policy runs next", "%s", loss.Reason)
		}
	}
	if losses == 0 {
		p.findings.ok(Retention, p.name, "the policy retains what is pushed")
	}
}

func repositoriesOf(project string, writes []transfer.Write) []string {
	var all []string
	for _, w := range writes {
		if projectOf(w.Repository) == project && len(w.Tags) > 0 {
			all = append(all, w.Repository.Path)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// artifactsOf returns the tags of each artifact that will be tagged in a
// repository, signatures left out: Harbor deletes these with their subject.
func artifactsOf(path string, writes []transfer.Write) [][]string {
	var order []verify.Digest
	tags := map[verify.Digest][]string{}
	for _, w := range writes {
		if w.Repository.Path != path {
			continue
		}
		for _, t := range w.Tags {
			if harbor.IsSignatureTag(t.Tag) {
				continue
			}
			if tags[t.Digest] == nil {
				order = append(order, t.Digest)
			}
			tags[t.Digest] = append(tags[t.Digest], t.Tag)
		}
	}
	var all [][]string
	for _, d := range order {
		all = append(all, tags[d])
	}
	return all
}
