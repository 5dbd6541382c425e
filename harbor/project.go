package harbor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Project is one project of a Harbor.
type Project struct {
	ID           int64
	Name         string
	Public       bool // whether anybody may pull
	ProxyCache   bool // whether it mirrors another registry and takes no pushes
	RetentionID  int64
	Repositories int64
	Created      time.Time
}

// ProjectExists reports whether there is a project of that name, whether or
// not the login has rights in it. Errors: [ErrUnauthorized] for anonymous
// callers too, [ErrInvalidName], [ErrUnavailable].
func (c *Client) ProjectExists(ctx context.Context, name string) (bool, error) {
	if err := CheckProjectName(name); err != nil {
		return false, err
	}
	_, err := c.do(ctx, request{
		op:     fmt.Sprintf("looking for project %q", name),
		method: http.MethodHead,
		path:   apiRoot + "/projects",
		query:  url.Values{"project_name": {name}},
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Project returns the project of that name. Errors:
//   - [ErrForbidden] when the login has no rights in it, or when there is no
//     such project: Harbor does not tell who is no administrator which;
//   - [ErrNotFound], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable].
func (c *Client) Project(ctx context.Context, name string) (Project, error) {
	if err := CheckProjectName(name); err != nil {
		return Project{}, err
	}
	var doc struct {
		ID       int64             `json:"project_id"`
		Name     string            `json:"name"`
		Metadata map[string]string `json:"metadata"`
		Registry int64             `json:"registry_id"`
		Repos    int64             `json:"repo_count"`
		Created  time.Time         `json:"creation_time"`
	}
	r := request{op: fmt.Sprintf("reading project %q", name), path: projectPath(name), byName: true}
	if _, err := c.getJSON(ctx, r, &doc); err != nil {
		return Project{}, err
	}
	if doc.Name != name {
		return Project{}, unexpected(r.op, http.StatusOK, "the answer is about project %q", clean(doc.Name))
	}
	p := Project{ID: doc.ID, Name: name, Public: doc.Metadata["public"] == "true",
		ProxyCache: doc.Registry > 0, Repositories: doc.Repos, Created: doc.Created}
	if s := doc.Metadata["retention_id"]; s != "" {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return Project{}, unexpected(r.op, http.StatusOK, "retention_id %q is no number", clean(s))
		}
		p.RetentionID = id
	}
	return p, nil
}

// CreateOptions are the settings of a new project.
type CreateOptions struct {
	// Public lets anybody pull from it.
	Public bool
	// StorageLimit, in bytes, is its quota. Zero means none of its own.
	StorageLimit int64
}

// CreateProject creates a project. Of several callers at once one succeeds;
// the others get [ErrExists], which is success for who only wants it to be
// there. Errors:
//   - [ErrExists];
//   - [ErrForbidden] when the login must not create projects: a robot of one
//     project never may;
//   - [ErrReadOnly], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable].
func (c *Client) CreateProject(ctx context.Context, name string, o CreateOptions) error {
	if err := CheckProjectName(name); err != nil {
		return err
	}
	if o.StorageLimit < 0 {
		return fmt.Errorf("creating project %q: a quota of %d bytes", name, o.StorageLimit)
	}
	body := map[string]any{
		"project_name": name,
		"metadata":     map[string]string{"public": strconv.FormatBool(o.Public)},
	}
	if o.StorageLimit > 0 {
		body["storage_limit"] = o.StorageLimit
	}
	_, err := c.do(ctx, request{
		op:     fmt.Sprintf("creating project %q", name),
		method: http.MethodPost,
		path:   apiRoot + "/projects",
		body:   body,
	})
	return err
}
