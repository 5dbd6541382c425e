// Package kubetest hides an API server that answers as a cluster's
// kube-apiserver does: TLS with an authority of its own, bearer tokens and
// client certificates, RBAC, discovery, and reads of secrets, config maps and
// custom resources. It is for tests only.
//
// # Use
//
//	s := kubetest.New(t)
//	s.AddUser("operator", "token")
//	s.Allow(kubetest.Rule{User: "operator", Resource: "secrets", Namespace: "harbor-system"})
//	s.SetSecret("harbor-system", "harbor-admin", map[string]string{"secret": "password"})
//	file := s.TokenConfig(t, "token")
//
// A request is authenticated, then authorized, then looked up, in that order:
// who may not read a secret does not learn whether there is one. Nobody in
// particular is "system:anonymous". Every user with a name may read the
// discovery documents, until [Server.DenyDiscovery].
//
// # Limits
//
// Objects are read one at a time: there are no lists, watches or writes, and
// no answers but JSON.
//
// # Compatibility
//
// Kubernetes 1.34; after [Server.OldDiscovery], one before 1.26.
//
// # Sources
//
// The texts and bodies of errors are made by k8s.io/apimachinery, as the
// server's own are; the documents of discovery follow metav1.APIGroupList and
// apidiscovery.k8s.io/v2. The custom resource is that of
// https://github.com/goharbor/harbor-operator, manifests/samples.
package kubetest

import (
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Resource is a kind of objects that the server has.
type Resource struct {
	Group    string   // empty for the core
	Versions []string // the preferred one first
	Plural   string   // as in a path: "harborclusters"
	Kind     string
}

// Rule allows a user to do something.
type Rule struct {
	User      string
	Verb      string // empty means "get"
	Group     string // of the Resource; empty for the core
	Resource  string // plural; empty for all of all groups
	Namespace string // empty for all
	Name      string // empty for all
}

// Entry is one request that was answered. It holds no secrets.
type Entry struct {
	Method string
	Path   string // escaped, as it came in
	Query  string // as it came in
	User   string // whom the server took the caller for; empty after a 401
	Status int
}

// Fault is put in front of the server: it answers r itself, or has next do it.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Server is an API server. It is safe for concurrent use.
type Server struct {
	web *httptest.Server
	ca  *authority // of the server's own certificate
	ids *authority // of client certificates

	mu           sync.Mutex // guards what follows
	tokens       map[string]string
	rules        []Rule
	resources    []Resource
	objects      map[key]map[string]any
	faults       []Fault
	log          []Entry
	oldDiscovery bool
	denied       bool
}

// key names an object.
type key struct{ group, plural, namespace, name string }

// Harbor operator's cluster resource.
const (
	harborGroup  = "goharbor.io"
	harborPlural = "harborclusters"
)

// New starts a server without users and objects, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		ca: newAuthority(t, "kube-ca"), ids: newAuthority(t, "kube-client-ca"),
		tokens:  map[string]string{},
		objects: map[key]map[string]any{},
		resources: []Resource{
			{"", []string{"v1"}, "secrets", "Secret"},
			{"", []string{"v1"}, "configmaps", "ConfigMap"},
			{"apps", []string{"v1"}, "deployments", "Deployment"},
			{"autoscaling", []string{"v2", "v1"}, "horizontalpodautoscalers", "HorizontalPodAutoscaler"},
		},
	}
	s.web = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.web.TLS = &tls.Config{
		Certificates: []tls.Certificate{s.ca.serverCertificate(t)},
		// As the real one: a certificate is asked for, and judged later.
		ClientAuth: tls.RequestClientCert,
	}
	s.web.EnableHTTP2 = true
	s.web.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse its certificate
	s.web.StartTLS()
	t.Cleanup(s.web.Close)
	return s
}

// URL returns the address of the server.
func (s *Server) URL() string { return s.web.URL }

// CA returns the authority that signed the server's certificate, as PEM.
func (s *Server) CA() []byte { return s.ca.pem() }

// AddUser makes token the login of user.
func (s *Server) AddUser(user, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = user
}

// Allow adds a rule.
func (s *Server) Allow(r Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Verb = cmp.Or(r.Verb, "get")
	s.rules = append(s.rules, r)
}

// AddResource makes the server know a custom resource. It replaces one of the
// same group and plural.
func (s *Server) AddResource(r Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resources = slices.DeleteFunc(s.resources, func(x Resource) bool { return x.Group == r.Group && x.Plural == r.Plural })
	s.resources = append(s.resources, r)
}

// SetObject stores content, without its kind and metadata, as an object of
// the resource with that group and plural.
func (s *Server) SetObject(group, plural, namespace, name string, content map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key{group, plural, namespace, name}] = content
}

// SetSecret stores a secret with values that are not encoded yet.
func (s *Server) SetSecret(namespace, name string, values map[string]string) {
	data := map[string]any{}
	for k, v := range values {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v))
	}
	s.SetObject("", "secrets", namespace, name, map[string]any{"type": "Opaque", "data": data})
}

// SetConfigMap stores a config map.
func (s *Server) SetConfigMap(namespace, name string, values map[string]string) {
	data := map[string]any{}
	for k, v := range values {
		data[k] = v
	}
	s.SetObject("", "configmaps", namespace, name, map[string]any{"data": data})
}

// SetHarborCluster stores an object of Harbor's operator, whose resource the
// server knows from then on.
func (s *Server) SetHarborCluster(namespace, name, externalURL string) {
	s.AddResource(Resource{harborGroup, []string{"v1beta1", "v1alpha3"}, harborPlural, "HarborCluster"})
	s.SetObject(harborGroup, harborPlural, namespace, name, map[string]any{"spec": map[string]any{
		"version": "2.5.0", "harborAdminPasswordRef": "harbor-admin", "externalURL": externalURL,
	}})
}

// OldDiscovery makes the server know nothing of aggregated discovery.
func (s *Server) OldDiscovery() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldDiscovery = true
}

// DenyDiscovery takes from all users the right to discovery documents.
func (s *Server) DenyDiscovery() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = true
}

// Misbehave puts f in front of everything that is there already. A fault sees
// requests before they are authenticated; its answers are not in the log.
func (s *Server) Misbehave(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Log returns the requests so far, in the order of their answers.
func (s *Server) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Requests returns the method and path of each request so far, as
// "GET /api/v1/namespaces/a/secrets/b".
func (s *Server) Requests() []string {
	var all []string
	for _, e := range s.Log() {
		all = append(all, e.Method+" "+e.Path)
	}
	return all
}

// ResetLog forgets the requests so far.
func (s *Server) ResetLog() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// serve has the faults, the last one first, then the server answer.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	var next http.Handler = http.HandlerFunc(s.answer)
	s.mu.Lock()
	faults := slices.Clone(s.faults)
	s.mu.Unlock()
	for _, f := range faults {
		inner := next
		next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, inner) })
	}
	next.ServeHTTP(w, r)
}

// note adds e to the log, before its answer is sent.
func (s *Server) note(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, e)
}

// object returns the object k of resource r as version has it.
func (s *Server) object(r Resource, version string, k key) (map[string]any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.objects[k]
	if !ok {
		return nil, false
	}
	object := maps.Clone(content)
	object["kind"] = r.Kind
	object["apiVersion"] = strings.TrimPrefix(r.Group+"/"+version, "/")
	object["metadata"] = map[string]any{
		"name": k.name, "namespace": k.namespace,
		"uid":               "6c0ef2c5-6f6b-4ad3-8d47-1f0b6a2f7c11",
		"resourceVersion":   "4711",
		"creationTimestamp": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Format(time.RFC3339),
	}
	return object, true
}
