package preflight

import (
	"context"
	"errors"
	"slices"
	"strings"

	"ferry/harbor"
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
	need := newBytes(plan, writes)
	for _, p := range d.sorted() {
		d.checkQuota(ctx, p, need[p.name])
	}
	d.checkTags(ctx, writes)
	for _, p := range d.sorted() {
		d.checkRetention(ctx, p, writes)
	}
}

// maxManifest, in bytes, is the largest manifest that Harbor takes; to a
// larger one it answers 413.
const maxManifest = 4 << 20

func (d *Destination) checkManifests(writes []transfer.Write) {
	largest := int64(0)
	for _, w := range writes {
		for _, m := range w.Manifests {
			largest = max(largest, m.Size)
			if m.Size > maxManifest {
				d.fail(ManifestSize, w.Repository.String(), "leave the image out: no Harbor takes it",
					registry.ErrTooLarge, "manifest %s has %d bytes, and Harbor takes %d", m.Digest, m.Size, maxManifest)
			}
		}
	}
	if largest <= maxManifest {
		d.ok(ManifestSize, d.opts.Host, "the largest has %s", ui.Bytes(largest))
	}
}

func projectOf(r registry.Repository) string {
	name, _, _ := strings.Cut(r.Path, "/")
	return name
}

// newBytes returns how much the plan adds to the quota of each project: blobs
// and manifests that it does not have, each once.
func newBytes(plan *transfer.PushPlan, writes []transfer.Write) map[string]int64 {
	need := map[string]int64{}
	for _, b := range plan.Blobs {
		counted := map[string]bool{}
		for _, has := range b.From {
			counted[projectOf(has)] = true
		}
		for _, repo := range b.Missing {
			if name := projectOf(repo); !counted[name] {
				counted[name] = true
				need[name] += b.Size
			}
		}
	}
	type key struct {
		project string
		digest  verify.Digest
	}
	counted := map[key]bool{}
	for _, w := range writes {
		for _, m := range w.Manifests {
			if k := (key{projectOf(w.Repository), m.Digest}); !counted[k] {
				counted[k] = true
				need[k.project] += m.Size
			}
		}
	}
	return need
}

func (d *Destination) checkQuota(ctx context.Context, p *project, need int64) {
	quota := harbor.Quota{Limit: -1}
	if !p.missing && !p.known {
		return // which the check of the project has told
	}
	if p.missing {
		if d.opts.Project.StorageLimit > 0 {
			quota.Limit = d.opts.Project.StorageLimit
		}
	} else {
		var err error
		if quota, err = d.harbor.Quota(ctx, p.name); err != nil {
			d.broken(Quota, p.name, err)
			return
		}
	}
	switch room := quota.Room(); {
	case quota.Limit < 0:
		d.ok(Quota, p.name, "no limit; %s will be added", ui.Bytes(need))
	case need > room:
		d.fail(Quota, p.name, "have the quota raised, or delete what is not needed and let Harbor collect the garbage; where other repositories of the project have some of the blobs already, --ignore quota goes on",
			harbor.ErrQuota, "%d bytes will be added, %d are left of %d: %d too few", need, room, quota.Limit, need-room)
	default:
		d.ok(Quota, p.name, "%s of %s are left; %s will be added", ui.Bytes(room), ui.Bytes(quota.Limit), ui.Bytes(need))
	}
}

// checkTags looks at the tags that would move: new ones are never refused.
func (d *Destination) checkTags(ctx context.Context, writes []transfer.Write) {
	written, moved, kept := 0, 0, 0
	for _, w := range writes {
		for _, t := range w.Tags {
			written++
			if t.Was.IsZero() {
				continue
			}
			moved++
			about := w.Repository.Path + ":" + t.Tag
			name, repository, _ := strings.Cut(w.Repository.Path, "/")
			immutable, err := d.harbor.TagImmutable(ctx, name, repository, t.Tag)
			switch {
			case errors.Is(err, harbor.ErrForbidden):
				d.warn(Immutable, about, "give the login the right artifact:read to have it checked",
					"the tag will move from %s; whether it may is not known", t.Was)
			case err != nil && !errors.Is(err, harbor.ErrNotFound):
				d.broken(Immutable, about, err)
			case immutable:
				kept++
				d.fail(Immutable, about, "give the image another tag (in a new export, or with --map another repository), or have the rule changed: Harbor keeps the tag as it is",
					harbor.ErrImmutable, "it is immutable and %s, and would become %s", t.Was, t.Digest)
			}
		}
	}
	if kept == 0 {
		d.ok(Immutable, d.opts.Host, "%d tags will be written, those of signatures included; %d of them move", written, moved)
	}
}

func (d *Destination) checkRetention(ctx context.Context, p *project, writes []transfer.Write) {
	if !p.known || p.details.RetentionID == 0 {
		return // the check of the project has told when it is not known
	}
	policy, err := d.harbor.Retention(ctx, p.details.RetentionID)
	if errors.Is(err, harbor.ErrForbidden) {
		d.warn(Retention, p.name, "give the login the right tag-retention:read to have it checked", "there is a policy, which the login may not read")
		return
	}
	if err != nil {
		d.broken(Retention, p.name, err)
		return
	}
	losses := 0
	for _, repo := range repositoriesOf(p.name, writes) {
		for _, loss := range policy.Losses(strings.TrimPrefix(repo, p.name+"/"), artifactsOf(repo, writes)) {
			losses++
			d.warn(Retention, repo+":"+strings.Join(loss.Tags, ","), "have a rule added that retains it, or it will be deleted when the policy runs next", "%s", loss.Reason)
		}
	}
	if losses == 0 {
		d.ok(Retention, p.name, "the policy retains what is pushed")
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
