package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"ferry/harbor"
	"ferry/internal/kube"
	"ferry/internal/preflight"
	"ferry/internal/registry"
)

// refusal is what a registry or Harbor's API has refused.
type refusal struct {
	err     error
	answer  bool   // whether the server has answered at all
	status  int    // of HTTP
	code    string // such as "DENIED"
	message string // the server's own words, in lower case
	user    string // whose login was sent; empty when nobody's
	op      string // what was asked of Harbor's API
}

func refusalOf(err error) refusal {
	r := refusal{err: err}
	var ofRegistry *registry.Error
	var ofHarbor *harbor.Error
	switch {
	case errors.As(err, &ofRegistry):
		r.status, r.code, r.message, r.user = ofRegistry.Status, ofRegistry.Code, ofRegistry.Message, ofRegistry.User
	case errors.As(err, &ofHarbor):
		r.status, r.code, r.message, r.user, r.op = ofHarbor.Status, ofHarbor.Code, ofHarbor.Message, ofHarbor.User, ofHarbor.Op
	}
	r.answer, r.message = r.status != 0, strings.ToLower(r.message)
	return r
}

func (r refusal) is(kinds ...error) bool {
	for _, kind := range kinds {
		if errors.Is(r.err, kind) {
			return true
		}
	}
	return false
}

func (r refusal) said(part string) bool { return strings.Contains(r.message, part) }

// meaning is what a refusal means and what to do about it; docs/harbor.md has
// the same.
type meaning struct {
	name   string // row of the table in docs/harbor.md
	fits   func(refusal) bool
	means  string
	advice string
}

// meanings are in the order in which they are tried.
var meanings = []meaning{
	{"no project", func(r refusal) bool { return r.is(registry.ErrNoProject, preflight.ErrNoProject) },
		"Harbor has no project of that name", "see the spelling, or have it created with --create-projects"},
	{"proxy cache", func(r refusal) bool { return r.is(registry.ErrProxyCache, harbor.ErrProxyCache) },
		"the project only mirrors another registry", "push to another project: name it in the destination, or with --map"},
	{"read-only", func(r refusal) bool { return r.is(registry.ErrReadOnly, harbor.ErrReadOnly) },
		"an administrator has switched the registry to read-only, as for a backup", "wait until that is over and run the same command again"},
	{"quota", func(r refusal) bool { return r.is(registry.ErrQuota, harbor.ErrQuota) },
		"the project has no room for it", "have the quota raised, or delete artifacts and have the garbage collected; then run the same command again, which goes on where it stopped"},
	{"immutable tag", func(r refusal) bool {
		return r.is(harbor.ErrImmutable) || r.is(registry.ErrConflict) && r.said("immutable")
	}, "a rule of the project keeps the tag as it is, even for the same content", "give the image another tag, or have the rule changed"},
	{"policy", func(r refusal) bool { return r.is(registry.ErrBlocked) },
		"a policy of the project forbids to pull this image, for its vulnerabilities or for want of a signature", "ask the project's administrator; the scan of the artifact in Harbor tells more"},
	{"cookie", func(r refusal) bool { return r.said("csrf token") },
		"Harbor was sent a cookie, which ferry never does: something on the way adds it", "go around that proxy, such as with NO_PROXY"},
	{"who may create projects", func(r refusal) bool {
		return r.is(harbor.ErrForbidden) && (r.said("can create project") || strings.HasPrefix(r.op, "creating project"))
	},
		"this login must not create projects", "have the project created, or use an administrator or a system robot with the right project:create"},
	{"right of the API", func(r refusal) bool { return r.is(harbor.ErrForbidden) },
		"the login is right, but it lacks a right", "make it a member of the project; a robot needs artifact:list and artifact:read for tags and latest, project:read and quota:read for quotas"},
	{"nobody", func(r refusal) bool {
		return r.is(registry.ErrUnauthorized, harbor.ErrUnauthorized) && r.answer && r.user == ""
	}, "nobody is logged in: no login for this host was found", loginSources},
	{"login or right", func(r refusal) bool { return r.is(registry.ErrUnauthorized, harbor.ErrUnauthorized) && r.answer },
		"the password is wrong, the robot is disabled or has expired, or it lacks the right: registries do not tell which", doctorAdvice},
	{"token service elsewhere", func(r refusal) bool { return r.is(registry.ErrRealm) },
		"the registry wants the login sent to another host", "allow that host with --auth-host HOST if it is the site's own"},
	{"blob lost", func(r refusal) bool { return r.code == "MANIFEST_BLOB_UNKNOWN" || r.code == "BLOB_UNKNOWN" },
		"a blob that was there is gone: the garbage was collected meanwhile, or somebody deletes", "run the same command again"},
	{"name", func(r refusal) bool {
		return r.is(harbor.ErrInvalidName) || r.status == http.StatusBadRequest && r.said("invalid repository name")
	}, "no registry, or no Harbor, can have that name", "names are HOST/PROJECT/REPO in lower case; --map gives others"},
	{"size", func(r refusal) bool { return r.is(registry.ErrTooLarge) },
		"Harbor, or a proxy before it, takes no request of that size", "have the limit of the proxy raised (client_max_body_size of nginx)"},
	{"not found", func(r refusal) bool {
		return r.answer && r.is(registry.ErrNotFound, harbor.ErrNotFound)
	}, "there is no such repository, tag or artifact", "see the spelling; ferry tags HOST/PROJECT/REPO lists the tags that there are"},
	{"plain HTTP", func(r refusal) bool { return r.is(http.ErrSchemeMismatch) },
		"the server speaks no TLS", "see the port; or, where nobody can be in between, allow plain HTTP with --plain-http HOST"},
	{"TLS", func(r refusal) bool { return r.said("plain http request was sent to https port") },
		"the server wants TLS on this port", "leave --plain-http out"},
	{"not a Harbor", func(r refusal) bool { return r.is(harbor.ErrNotHarbor) },
		"the server is no Harbor, or not at that address", "see host and port: what only Harbor knows can not be asked of another registry"},
	{"unavailable", func(r refusal) bool { return r.answer && r.is(registry.ErrUnavailable, harbor.ErrUnavailable) },
		"Harbor, or a proxy before it, is overloaded or starting", "run the same command again, which goes on where it stopped"},
}

const doctorAdvice = "ferry doctor HOST/PROJECT finds out"

const loginSources = "give one in docker's config.json (docker, podman or skopeo login), in the file that REGISTRY_AUTH_FILE names, in DOCKER_AUTH_CONFIG, in FERRY_HOST with FERRY_USERNAME and FERRY_PASSWORD, or with --kubeconfig"

// explain returns what a refusal means and what to do, or "".
func explain(err error) string {
	r := refusalOf(err)
	for _, m := range meanings {
		if m.fits(r) {
			return m.means + ": " + m.advice
		}
	}
	return ""
}

// explainCluster returns what to do about an error of a cluster, or "".
func explainCluster(err error) string {
	var e *kube.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch {
	case e.Is(kube.ErrUntrusted):
		return "the kubeconfig's certificate-authority-data is not that of this API server: get a new kubeconfig"
	case e.Is(kube.ErrDenied) && e.Status == http.StatusForbidden:
		return fmt.Sprintf("have a Role made that allows the verb get on %s in namespace %s, for the name %s", e.Resource, e.Object.Namespace, e.Object.Name)
	case e.Is(kube.ErrDenied):
		return "log in to the cluster again: the token or certificate of the kubeconfig is not accepted"
	case e.Is(kube.ErrNotFound):
		return "give the object's name with --site KEY=VALUE; ferry site --help lists the keys"
	}
	return ""
}
