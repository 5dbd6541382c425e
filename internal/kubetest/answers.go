//lint:file-ignore ST1005 These texts are those of Kubernetes.

package kubetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const anonymous = "system:anonymous"

// attributes are what a request is authorized by.
type attributes struct {
	verb, path                              string
	group, version, plural, namespace, name string
}

// isResource reports whether the request is for an object, not for a path.
func (a attributes) isResource() bool { return a.plural != "" }

// attributesOf takes a request apart, as the server's RequestInfo does.
func attributesOf(r *http.Request) attributes {
	a := attributes{verb: strings.ToLower(r.Method), path: r.URL.Path}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		a.version, parts = parts[1], parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		a.group, a.version, parts = parts[1], parts[2], parts[3:]
	default:
		return a
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		a.namespace, parts = parts[1], parts[2:]
	}
	a.plural = parts[0]
	if len(parts) > 1 {
		a.name = parts[1]
	}
	switch {
	case r.Method == http.MethodGet && a.name == "":
		a.verb = "list"
	case r.Method == http.MethodPost:
		a.verb = "create"
	case r.Method == http.MethodPut:
		a.verb = "update"
	}
	return a
}

// answer is the server without its faults.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	a := attributesOf(r)
	entry := Entry{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery}
	user, err := s.authenticate(r)
	entry.User = user
	var doc any
	contentType := "application/json"
	switch {
	case err != nil:
	case !s.allows(user, a):
		err = forbidden(user, a)
	case a.isResource():
		doc, err = s.lookUp(a)
	default:
		doc, contentType, err = s.discover(r, a.path)
	}
	w.Header().Set("Audit-Id", "5b0f2f2e-3c0c-4f9a-9d0e-0c1f6b7a8d90")
	w.Header().Set("Cache-Control", "no-cache, private")
	if errors.Is(err, errNoPath) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		entry.Status = http.StatusNotFound
		s.note(entry)
		w.WriteHeader(entry.Status)
		io.WriteString(w, "404 page not found\n")
		return
	}
	entry.Status = http.StatusOK
	if err != nil {
		doc, entry.Status = StatusOf(err)
	}
	s.note(entry)
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(entry.Status)
	json.NewEncoder(w).Encode(doc)
}

// errNoPath is answered with text, not with a Status.
var errNoPath = errors.New("no such path")

// StatusOf returns the document that the server answers err with, an error of
// k8s.io/apimachinery/pkg/api/errors, and its HTTP status. Faults use it.
func StatusOf(err error) (*metav1.Status, int) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &status, int(status.Code)
}

// authenticate returns whose the login of r is.
func (s *Server) authenticate(r *http.Request) (string, error) {
	if len(r.TLS.PeerCertificates) > 0 {
		if name, ok := s.ids.verify(r.TLS.PeerCertificates[0]); ok {
			return name, nil
		}
		return "", apierrors.NewUnauthorized("Unauthorized")
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return anonymous, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, isBearer := strings.CutPrefix(header, "Bearer ")
	user, ok := s.tokens[token]
	if !isBearer || !ok {
		return "", apierrors.NewUnauthorized("Unauthorized")
	}
	return user, nil
}

// allows reports whether user may do what a says.
func (s *Server) allows(user string, a attributes) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.isResource() {
		isDiscovery := a.path == "/api" || a.path == "/apis" || strings.HasPrefix(a.path, "/api/") || strings.HasPrefix(a.path, "/apis/")
		return a.verb == "get" && isDiscovery && user != anonymous && !s.denied
	}
	matches := func(rule, have string) bool { return rule == "" || rule == have }
	return slices.ContainsFunc(s.rules, func(r Rule) bool {
		return r.User == user && r.Verb == a.verb && matches(r.Namespace, a.namespace) && matches(r.Name, a.name) &&
			(r.Resource == "" || r.Resource == a.plural && r.Group == a.group)
	})
}

// forbidden is the error of the server's RBAC.
func forbidden(user string, a attributes) error {
	if !a.isResource() {
		return apierrors.NewForbidden(schema.GroupResource{}, "", fmt.Errorf("User %q cannot %s path %q", user, a.verb, a.path))
	}
	reason := fmt.Errorf("User %q cannot %s resource %q in API group %q in the namespace %q", user, a.verb, a.plural, a.group, a.namespace)
	if a.namespace == "" {
		reason = fmt.Errorf("User %q cannot %s resource %q in API group %q at the cluster scope", user, a.verb, a.plural, a.group)
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.group, Resource: a.plural}, a.name, reason)
}

// lookUp returns the object that a names.
func (s *Server) lookUp(a attributes) (map[string]any, error) {
	resource, ok := s.resource(a.group, a.version, a.plural)
	switch {
	case !ok:
		return nil, errNoPath
	case a.verb != "get":
		return nil, apierrors.NewMethodNotSupported(schema.GroupResource{Group: a.group, Resource: a.plural}, a.verb)
	}
	object, ok := s.object(resource, a.version, key{a.group, a.plural, a.namespace, a.name})
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: a.group, Resource: a.plural}, a.name)
	}
	return object, nil
}

// resource returns what the server knows under these names.
func (s *Server) resource(group, version, plural string) (Resource, bool) {
	for _, r := range s.known() {
		if r.Group == group && r.Plural == plural && slices.Contains(r.Versions, version) {
			return r, true
		}
	}
	return Resource{}, false
}

func (s *Server) known() []Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.resources)
}

// discover returns the document of discovery at path, and its type.
func (s *Server) discover(r *http.Request, path string) (doc any, contentType string, err error) {
	const plain = "application/json"
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "/apis":
		if version := s.aggregatedVersion(r); version != "" {
			return s.aggregated(version), plain + ";g=apidiscovery.k8s.io;v=" + version + ";as=APIGroupDiscoveryList", nil
		}
		list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, g := range s.groups() {
			list.Groups = append(list.Groups, apiGroup(g))
		}
		return list, plain, nil
	case path == "/api":
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}, plain, nil
	case path == "/api/v1":
		return s.resourceList("", "v1"), plain, nil
	case len(parts) == 2 && parts[0] == "apis":
		for _, g := range s.groups() {
			if g.Group == parts[1] {
				group := apiGroup(g)
				group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
				return group, plain, nil
			}
		}
	case len(parts) == 3 && parts[0] == "apis":
		if list := s.resourceList(parts[1], parts[2]); len(list.APIResources) > 0 {
			return list, plain, nil
		}
	}
	return nil, "", errNoPath
}

// groups returns the groups outside of the core, each with all its versions.
func (s *Server) groups() []Resource {
	var groups []Resource
	for _, r := range s.known() {
		if r.Group == "" {
			continue
		}
		i := slices.IndexFunc(groups, func(g Resource) bool { return g.Group == r.Group })
		if i < 0 {
			groups = append(groups, Resource{Group: r.Group, Versions: slices.Clone(r.Versions)})
			continue
		}
		for _, v := range r.Versions {
			if !slices.Contains(groups[i].Versions, v) {
				groups[i].Versions = append(groups[i].Versions, v)
			}
		}
	}
	return groups
}

func apiGroup(g Resource) metav1.APIGroup {
	group := metav1.APIGroup{Name: g.Group}
	for _, v := range g.Versions {
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.Group + "/" + v, Version: v})
	}
	group.PreferredVersion = group.Versions[0]
	return group
}

func (s *Server) resourceList(group, version string) metav1.APIResourceList {
	list := metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: strings.TrimPrefix(group+"/"+version, "/"),
	}
	for _, r := range s.known() {
		if r.Group != group || !slices.Contains(r.Versions, version) {
			continue
		}
		list.APIResources = append(list.APIResources,
			metav1.APIResource{Name: r.Plural, SingularName: strings.ToLower(r.Kind), Namespaced: true, Kind: r.Kind, Verbs: metav1.Verbs{"get", "list", "watch"}},
			metav1.APIResource{Name: r.Plural + "/status", Namespaced: true, Kind: r.Kind, Verbs: metav1.Verbs{"get", "patch", "update"}})
	}
	return list
}

// aggregatedVersion returns which version of aggregated discovery the client
// takes, or nothing.
func (s *Server) aggregatedVersion(r *http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldDiscovery {
		return ""
	}
	for _, accepted := range strings.Split(r.Header.Get("Accept"), ",") {
		if !strings.Contains(accepted, "g=apidiscovery.k8s.io") || !strings.Contains(accepted, "as=APIGroupDiscoveryList") {
			continue
		}
		for _, v := range []string{"v2beta1", "v2"} {
			if strings.Contains(accepted, "v="+v+";") {
				return v
			}
		}
	}
	return ""
}

// aggregated returns all of discovery in one document.
func (s *Server) aggregated(version string) map[string]any {
	var items []any
	for _, g := range s.groups() {
		var versions []any
		for _, v := range g.Versions {
			var resources []any
			for _, r := range s.known() {
				if r.Group != g.Group || !slices.Contains(r.Versions, v) {
					continue
				}
				kind := func(k string) map[string]any { return map[string]any{"group": r.Group, "version": v, "kind": k} }
				resources = append(resources, map[string]any{
					"resource": r.Plural, "responseKind": kind(r.Kind), "scope": "Namespaced",
					"singularResource": strings.ToLower(r.Kind), "verbs": []string{"get", "list", "watch"},
					"subresources": []any{map[string]any{"subresource": "status", "responseKind": kind(r.Kind), "verbs": []string{"get", "patch", "update"}}},
				})
			}
			versions = append(versions, map[string]any{"version": v, "resources": resources, "freshness": "Current"})
		}
		items = append(items, map[string]any{"metadata": map[string]any{"name": g.Group, "creationTimestamp": nil}, "versions": versions})
	}
	// An aggregated server that is away leaves a version without resources.
	items = append(items, map[string]any{
		"metadata": map[string]any{"name": "metrics.k8s.io", "creationTimestamp": nil},
		"versions": []any{map[string]any{"version": "v1beta1", "freshness": "Stale"}},
	})
	return map[string]any{
		"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/" + cmp.Or(version, "v2"),
		"metadata": map[string]any{}, "items": items,
	}
}
