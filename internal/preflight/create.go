package preflight

import (
	"context"
	"errors"

	"ferry/harbor"
	"ferry/internal/registry"
)

// MissingProjects returns the names of the projects that are to be created,
// sorted.
func (d *Destination) MissingProjects() []string {
	if !d.opts.CreateProjects {
		return nil
	}
	var names []string
	for _, p := range d.sorted() {
		if p.missing {
			names = append(names, p.name)
		}
	}
	return names
}

// Absent reports whether a repository is in a project that is still to be
// created, so that nothing can be asked about it.
func (d *Destination) Absent(r registry.Repository) bool {
	p := d.projects[projectOf(r)]
	return d.opts.CreateProjects && p != nil && p.missing
}

// Created is what became of the creation of a project.
type Created struct {
	Existed      bool // somebody else has created it since
	QuotaRefused bool // Harbor created it without the quota
}

// CreateProject creates a project as [Options] say. Errors: those of
// [harbor.Client.CreateProject] but for [harbor.ErrExists].
func (d *Destination) CreateProject(ctx context.Context, name string) (Created, error) {
	err := d.harbor.CreateProject(ctx, name, d.opts.Project)
	if errors.Is(err, harbor.ErrExists) {
		return Created{Existed: true}, nil
	}
	if err != nil || d.opts.Project.StorageLimit == 0 {
		return Created{}, err
	}
	quota, err := d.harbor.Quota(ctx, name)
	if errors.Is(err, harbor.ErrForbidden) {
		return Created{}, nil
	}
	return Created{QuotaRefused: quota.Known && quota.Limit != d.opts.Project.StorageLimit}, err
}
