package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// Rights are what a login may do with a repository, as far as that is known.
type Rights struct {
	Pull, Push bool
	// Known reports whether the registry said so. When it did not, Pull and
	// Push mean nothing.
	Known bool
}

// Rights asks which rights the login for r gives, or which anybody has where
// there is none, and uploads nothing. It reads them from the registry's own
// token, whose signature is not checked: they are a hint, and the registry has
// the last word. A project that is missing looks like a missing right, and one
// that is a proxy cache like any other. The token may be one that is in use
// already, and so as old as half its life.
//
// Known is false where the registry uses no bearer tokens or none with a list
// of rights; that the login is accepted has been found out all the same.
// Errors: [ErrUnauthorized] when the login is refused, [ErrRealm],
// [ErrUnavailable], [ErrName].
func (c *Client) Rights(ctx context.Context, r Repository) (Rights, error) {
	if err := r.check(); err != nil {
		return Rights{}, err
	}
	k := at("ask for rights to", r, "")
	k.path, k.push = "/v2/", true
	creds, err := c.credentials(ctx, r)
	if err != nil {
		return Rights{}, k.fail(err)
	}
	if creds != (credentials{}) { // Harbor gives nobody's token for a wrong password
		resp, err := c.do(ctx, k)
		if err != nil {
			return Rights{}, err
		}
		resp.Body.Close()
	}
	h, err := c.host(ctx, r.Host)
	if err != nil {
		return Rights{}, k.fail(err)
	}
	if h.challenge.Load().scheme != "bearer" {
		return Rights{}, nil
	}
	l, err := c.login(ctx, h, k) // what the request above was made with
	if err != nil {
		return Rights{}, k.fail(err)
	}
	claims, known := readClaims(l.header)
	if !known {
		return Rights{}, nil
	}
	return Rights{Pull: claims.allow(r.Path, "pull"), Push: claims.allow(r.Path, "push"), Known: true}, nil
}

// claims are what a token says of itself.
type claims struct {
	Access []struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	} `json:"access"`
}

// readClaims returns the claims in an Authorization header, and whether it
// holds a JSON Web Token with a list of rights.
func readClaims(header string) (claims, bool) {
	token, _ := strings.CutPrefix(header, "Bearer ")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	var c claims
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	return c, c.Access != nil
}

// allow reports whether c has that right to a repository.
func (c claims) allow(repository, action string) bool {
	for _, a := range c.Access {
		if a.Type == "repository" && a.Name == repository && (slices.Contains(a.Actions, action) || slices.Contains(a.Actions, "*")) {
			return true
		}
	}
	return false
}
