package harbor

import (
	"context"
	"net/http"
	"time"
)

// Ping returns nil if the server is a Harbor. The login is not sent: it is not
// known yet who would get it. Errors:
//   - [ErrNotHarbor] when something else answers;
//   - [ErrUnavailable].
func (c *Client) Ping(ctx context.Context) error {
	const op = "asking whether the server is a Harbor"
	a, err := c.send(ctx, request{op: op, method: http.MethodGet, path: apiRoot + "/ping", nobody: true})
	switch {
	case err != nil:
		return err
	case a.status == http.StatusOK && string(a.body) == "Pong":
		return nil
	case a.status == http.StatusTooManyRequests, a.status >= 500:
		return c.errorOf(op, a)
	}
	return &Error{Op: op, Status: a.status, Message: "it is something else", kind: ErrNotHarbor}
}

// SystemInfo is what a Harbor says about itself.
type SystemInfo struct {
	Version     string // such as "v2.16.0-c50c7dd"; empty for anonymous callers
	AuthMode    string // such as "db_auth", "ldap_auth", "oidc_auth"
	ExternalURL string // the address it was configured with; may be empty
	RegistryURL string // host and port of that address; may be empty
	ReadOnly    bool   // whether every push is refused; known to a login only
	// ProjectCreation is who may create projects: "everyone" or "adminonly".
	ProjectCreation string
	Time            time.Time // the server's clock; zero for anonymous callers
}

// SystemInfo returns what the server says about itself. Errors:
//   - [ErrUnauthorized] when there is a login and the server ignores it;
//   - [ErrNotFound], [ErrUnexpected] when it is no Harbor; [ErrUnavailable].
func (c *Client) SystemInfo(ctx context.Context) (SystemInfo, error) {
	const op = "reading the system information"
	var doc struct {
		Version  string     `json:"harbor_version"`
		AuthMode string     `json:"auth_mode"`
		External string     `json:"external_url"`
		Registry string     `json:"registry_url"`
		ReadOnly bool       `json:"read_only"`
		Creation string     `json:"project_creation_restriction"`
		Time     *time.Time `json:"current_time"`
	}
	for attempt := 1; ; attempt++ {
		if _, err := c.getJSON(ctx, request{op: op, path: apiRoot + "/systeminfo"}, &doc); err != nil {
			return SystemInfo{}, err
		}
		// Nobody is told the version: the login was refused in silence,
		// perhaps because of the lock after somebody's wrong password.
		if doc.Version != "" || c.opts.Username == "" {
			break
		}
		if attempt > 1 {
			return SystemInfo{}, &Error{Op: op, Status: http.StatusOK, User: c.opts.Username, kind: ErrUnauthorized,
				Message: "the server does not accept the login"}
		}
		if err := c.sleep(ctx, loginRetry); err != nil {
			return SystemInfo{}, &Error{Op: op, err: err}
		}
	}
	info := SystemInfo{
		Version: clean(doc.Version), AuthMode: clean(doc.AuthMode),
		ExternalURL: clean(doc.External), RegistryURL: clean(doc.Registry),
		ReadOnly: doc.ReadOnly, ProjectCreation: clean(doc.Creation),
	}
	if doc.Time != nil {
		info.Time = *doc.Time
	}
	return info, nil
}

// CheckLogin returns nil if the server accepts the login, of a user or of a
// robot. A refusal is tried once more after two seconds. Errors:
//   - [ErrUnauthorized] when it is wrong, disabled or expired, or when there
//     is none;
//   - [ErrUnavailable].
func (c *Client) CheckLogin(ctx context.Context) error {
	const op = "checking the login"
	if c.opts.Username == "" {
		return &Error{Op: op, kind: ErrUnauthorized, Message: "there is none"}
	}
	_, err := c.do(ctx, request{op: op, method: http.MethodGet, path: "/v2/"})
	return err
}
