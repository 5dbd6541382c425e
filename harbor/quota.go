package harbor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
)

// Quota is how much a project may store, and stores.
type Quota struct {
	Limit int64 // bytes; negative when there is none
	Used  int64 // bytes
	// Known reports whether Harbor has told. It does not tell a login without
	// the right "quota:read", nor where quotas are switched off.
	Known bool
}

// Room returns how many bytes can be added, never less than zero. Without a
// limit it is [math.MaxInt64].
func (q Quota) Room() int64 {
	if q.Limit < 0 {
		return math.MaxInt64
	}
	return max(q.Limit-q.Used, 0)
}

// Quota returns the quota of a project. Harbor counts each blob and each
// manifest of a project once, in however many of its repositories it is.
// Errors:
//   - [ErrForbidden] when the login may not read the project, as a robot may
//     not unless it has the right "project:read", or when there is no such
//     project;
//   - [ErrNotFound], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable].
func (c *Client) Quota(ctx context.Context, project string) (Quota, error) {
	if err := CheckProjectName(project); err != nil {
		return Quota{}, err
	}
	type storage struct {
		Storage *int64 `json:"storage"`
	}
	var doc struct {
		Quota struct {
			Hard storage `json:"hard"`
			Used storage `json:"used"`
		} `json:"quota"`
	}
	r := request{op: fmt.Sprintf("reading the quota of project %q", project), path: projectPath(project) + "/summary", byName: true}
	if _, err := c.getJSON(ctx, r, &doc); err != nil {
		return Quota{}, err
	}
	hard, used := doc.Quota.Hard.Storage, doc.Quota.Used.Storage
	if hard == nil || used == nil {
		return Quota{Limit: -1}, nil
	}
	q := Quota{Limit: *hard, Used: *used, Known: true}
	if q.Used < 0 {
		return Quota{}, unexpected(r.op, http.StatusOK, "%d bytes are used", q.Used)
	}
	return q, nil
}

// DefaultQuota returns the quota of projects that are created without one.
// Errors: [ErrForbidden] for all but administrators, [ErrUnauthorized],
// [ErrUnavailable], [ErrUnexpected].
func (c *Client) DefaultQuota(ctx context.Context) (Quota, error) {
	var doc struct {
		Enabled *struct{ Value bool }  `json:"quota_per_project_enable"`
		Storage *struct{ Value int64 } `json:"storage_per_project"`
	}
	r := request{op: "reading the quota of new projects", path: apiRoot + "/configurations"}
	if _, err := c.getJSON(ctx, r, &doc); err != nil {
		return Quota{}, err
	}
	switch {
	case doc.Storage == nil:
		return Quota{Limit: -1}, nil
	case doc.Enabled != nil && !doc.Enabled.Value:
		return Quota{Limit: -1, Known: true}, nil
	}
	return Quota{Limit: doc.Storage.Value, Known: true}, nil
}

// Account is whose login a [Client] has.
type Account struct {
	Robot bool // Harbor tells nothing more of robots
	Admin bool // of the whole Harbor
}

// Account returns whose login it is. Errors: [ErrUnauthorized],
// [ErrUnavailable].
func (c *Client) Account(ctx context.Context) (Account, error) {
	var doc struct {
		Admin       bool `json:"sysadmin_flag"`
		AdminByAuth bool `json:"admin_role_in_auth"`
	}
	_, err := c.getJSON(ctx, request{op: "asking whose login it is", path: apiRoot + "/users/current"}, &doc)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusPreconditionFailed {
		return Account{Robot: true}, nil
	}
	if err != nil {
		return Account{}, err
	}
	return Account{Admin: doc.Admin || doc.AdminByAuth}, nil
}
