// Package kube hides how a Kubernetes cluster is asked for the objects that
// name a site's services: where its S3 store and its Harbor are, the keys and
// the password for them, and the site's authority.
//
// # Objects
//
// Objects are read one at a time, by name, with the verb "get", and only those
// that the answer needs:
//
//   - secret NAME in object-storage-access-keys: keys access-key-id and
//     secret-access-key ([Cluster.S3])
//   - config map dnssuffix in gpc-system: key dnsSuffix ([Cluster.S3], and
//     [Cluster.Address] when the next one does not tell)
//   - harborcluster harbor in harbor-system: .spec.externalURL
//     ([Cluster.Address])
//   - secret harbor-admin in harbor-system: keys secret and, if it is there,
//     ca.crt ([Cluster.Login])
//
// Every name is a field of [Names]. The API group of harborclusters is not
// known beforehand; it is found through the server's discovery, and two groups
// that have such a resource are an error.
//
// # Values
//
// Passwords, keys and user names are used verbatim: a secret that was made
// with "echo" has a newline at its end, and the newline is part of the
// password. Around URLs and DNS suffixes white space is dropped.
//
// Secrets are of type [Secret], which no formatting prints. Errors hold no
// value of an object and no login: what a server says is quoted only when it
// is a Kubernetes Status, without the login that was sent.
//
// # Kubeconfig
//
// As kubectl reads it: contexts, several files, relative paths, tokens, token
// files, client certificates, exec plugins and proxies. The package itself
// reads no environment; client-go takes proxies from HTTPS_PROXY and NO_PROXY,
// unless the kubeconfig names one, and the feature gates KUBE_FEATURE_*. An
// exec plugin is run with the environment and the standard error of the
// process, and with its standard input if the kubeconfig asks for it; neither
// the time-out nor the context ends it.
//
// # Limits
//
// All attempts at one object have [Options].Timeout together, 30 s unless set,
// and an answer has at most 4 MiB. A server that answers 429 or 5xx with a
// Retry-After of up to 5 s, or that breaks a connection, is asked again, ten
// times at most. Redirects are not followed.
//
// # Process
//
// The package silences klog, the log of client-go, for the whole process.
//
// # Compatibility
//
// Any Kubernetes with API v1; aggregated discovery is used where it exists.
//
// # Sources
//
// Kubernetes API conventions, section "Response Status Kind",
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md;
// k8s.io/client-go v0.34, packages dynamic, rest and tools/clientcmd.
package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// klog writes to standard error what client-go has to say, requests with
// their headers at a high level, and may be set only before it is used.
func init() { klog.SetLogger(logr.Discard()) }

// Options say which cluster is meant. The zero Options have no kubeconfig.
type Options struct {
	// Kubeconfig names the file to use. Empty means those of KubeconfigList.
	Kubeconfig string
	// KubeconfigList is the content of the environment variable KUBECONFIG:
	// files that are merged, of which some may be missing. Empty means
	// .kube/config in Home.
	KubeconfigList string
	// Home is the user's home directory; it may be empty.
	Home string
	// Context names the context to use. Empty means the current one.
	Context string

	// UserAgent names the program to the server; empty means "ferry".
	UserAgent string
	// Timeout bounds the reading of one object. Zero means 30 s.
	Timeout time.Duration
}

// Cluster reads objects of one cluster. It is safe for concurrent use. The
// methods that ask the server return an [*Error] when that fails, with one of
// the kinds listed with it.
type Cluster struct {
	// Context is the name of the context in use.
	Context string
	// Server is the address of the API server, without a login.
	Server string
	// Warnings say, in sentences without secrets, what is unsafe about the
	// kubeconfig.
	Warnings []string

	rest    *rest.RESTClient
	dynamic dynamic.Interface
	http    *http.Client
	guard   *guard
}

// Open reads the kubeconfig. It does not contact the server. The caller calls
// Close. It returns an [*Error] of kind [ErrInvalid] when there is no such
// file (then it is [fs.ErrNotExist] too) or context, or when it is malformed.
func Open(o Options) (*Cluster, error) {
	site, err := loadConfig(o)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Context: site.context, Server: site.server, Warnings: site.warnings}
	c.guard = &guard{timeout: cmp.Or(o.Timeout, 30*time.Second)}
	config := dynamic.ConfigFor(site.config)
	config.UserAgent = cmp.Or(o.UserAgent, "ferry")
	config.WarningHandler = rest.NoWarnings{}
	config.QPS = -1 // a few requests need no pacing
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		c.guard.next = next
		return c.guard
	})
	if config.Proxy == nil {
		// With a proxy function client-go makes a transport for this Cluster
		// alone, whose connections can be closed.
		config.Proxy = http.ProxyFromEnvironment
	}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, site.invalid(err)
	}
	// A redirect would carry the login elsewhere (T64).
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.rest, err = rest.UnversionedRESTClientForConfigAndClient(config, c.http); err != nil {
		return nil, site.invalid(err)
	}
	c.dynamic = dynamic.New(c.rest)
	return c, nil
}

// Close closes the connections that are not in use. The Cluster can still be
// used.
func (c *Cluster) Close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

// resource is a kind of objects.
type resource struct {
	schema.GroupVersionResource
	kind string
}

var (
	secrets    = resource{schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "Secret"}
	configMaps = resource{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "ConfigMap"}
)

// read returns the object of kind r that o names.
func (c *Cluster) read(ctx context.Context, r resource, o Object) (*unstructured.Unstructured, error) {
	ask := request{
		op: fmt.Sprintf("reading %s", r.label(o)), kind: r.word(), object: o,
		verb: "get", group: r.Group, resource: r.Resource,
	}
	got, err := c.dynamic.Resource(r.GroupVersionResource).Namespace(o.Namespace).Get(c.guard.begin(ctx), o.Name, metav1.GetOptions{})
	switch {
	case err != nil:
		return nil, c.errorOf(ctx, ask, err)
	case r.kind != "" && got.GetKind() != r.kind, got.GetNamespace() != o.Namespace, got.GetName() != o.Name:
		return nil, ask.fail(ErrUnexpected, "the answer is another object")
	}
	return got, nil
}

// label names an object for people: secret "namespace/name".
func (r resource) label(o Object) string {
	return fmt.Sprintf("%s %q", r.word(), o.Namespace+"/"+o.Name)
}

// word is what people call the resource: its plural without the s.
func (r resource) word() string { return r.Resource[:len(r.Resource)-1] }

// document returns the JSON document at path, in the first of the formats that
// the server has.
func (c *Cluster) document(ctx context.Context, path, accept string) ([]byte, error) {
	ask := request{op: fmt.Sprintf("reading %q", path), verb: "get", path: path}
	result := c.rest.Get().AbsPath(path).SetHeader("Accept", accept).Do(c.guard.begin(ctx))
	if err := result.Error(); err != nil {
		return nil, c.errorOf(ctx, ask, err)
	}
	body, err := result.Raw()
	if err != nil {
		return nil, c.errorOf(ctx, ask, err)
	}
	return body, nil
}
