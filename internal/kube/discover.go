package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// acceptPlain is what every server has.
	acceptPlain = "application/json"
	// acceptAggregated is one document with all resources of all groups,
	// which servers have since Kubernetes 1.26.
	acceptAggregated = acceptPlain + ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," +
		acceptPlain + ";g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList," + acceptPlain
	// maxVersions bounds how many versions of groups are asked for one by one
	// on servers without the aggregated document; clusters have up to 200.
	maxVersions = 1000
)

// errNoResource says that no group has the resource.
var errNoResource = errors.New("no such resource")

// discover returns where the resource of that plural is: in group, or in the
// only group that has it when group is empty. The error is errNoResource when
// there is none.
func (c *Cluster) discover(ctx context.Context, group, plural string) (resource, error) {
	var found []resource
	var err error
	if group == "" {
		found, err = c.findEverywhere(ctx, plural)
	} else {
		found, err = c.findInGroup(ctx, group, plural)
	}
	switch {
	case err != nil:
		return resource{}, err
	case len(found) == 0:
		return resource{}, errNoResource
	case len(found) > 1:
		var groups []string
		for _, r := range found {
			groups = append(groups, fmt.Sprintf("%q", r.Group))
		}
		return resource{}, discovery(plural).fail(ErrInvalid, "several API groups have it: %s", strings.Join(groups, ", "))
	}
	return found[0], nil
}

func discovery(plural string) request {
	return request{op: fmt.Sprintf("finding the API group of %q", plural), verb: "get", path: "/apis"}
}

// findEverywhere returns the resource of each group that has it.
func (c *Cluster) findEverywhere(ctx context.Context, plural string) ([]resource, error) {
	body, err := c.document(ctx, "/apis", acceptAggregated)
	if err != nil {
		return nil, err
	}
	var kind metav1.TypeMeta
	if json.Unmarshal(body, &kind) != nil {
		return nil, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
	}
	switch kind.Kind {
	case "APIGroupDiscoveryList":
		return findAggregated(body, plural)
	case "APIGroupList":
		return c.findOneByOne(ctx, body, plural)
	}
	return nil, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
}

// findAggregated looks at the document that has everything.
func findAggregated(body []byte, plural string) ([]resource, error) {
	type served struct{ Resource string }
	var doc struct {
		Items []struct {
			Metadata struct{ Name string }
			Versions []struct {
				Version   string
				Resources []served
			}
		}
	}
	if json.Unmarshal(body, &doc) != nil {
		return nil, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
	}
	var found []resource
	for _, group := range doc.Items {
		for _, v := range group.Versions { // the preferred one first
			has := slices.ContainsFunc(v.Resources, func(r served) bool { return r.Resource == plural })
			if has && isGroup(group.Metadata.Name) && isVersion(v.Version) {
				found = append(found, custom(group.Metadata.Name, v.Version, plural))
				break
			}
		}
	}
	return found, nil
}

// findOneByOne asks each group in the list for its resources.
func (c *Cluster) findOneByOne(ctx context.Context, list []byte, plural string) ([]resource, error) {
	var doc metav1.APIGroupList
	if json.Unmarshal(list, &doc) != nil {
		return nil, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
	}
	var found []resource
	asked := 0
	for _, group := range doc.Groups {
		if asked += len(group.Versions); asked > maxVersions {
			return nil, discovery(plural).fail(ErrUnexpected, "more than %d API versions", maxVersions)
		}
		r, err := c.findInVersions(ctx, group, plural)
		switch {
		case errors.Is(err, errNoResource), statusOf(err) == http.StatusServiceUnavailable, statusOf(err) == http.StatusNotFound:
			// A group may be that of another server, which is away. Custom
			// resources are those of the API server itself.
		case err != nil:
			return nil, err
		default:
			found = append(found, r)
		}
	}
	return found, nil
}

// findInGroup asks one group.
func (c *Cluster) findInGroup(ctx context.Context, name, plural string) ([]resource, error) {
	body, err := c.document(ctx, "/apis/"+name, acceptPlain)
	if err != nil {
		if statusOf(err) == http.StatusNotFound {
			return nil, nil // the server answers so for a group that it has not
		}
		return nil, err
	}
	var group metav1.APIGroup
	if json.Unmarshal(body, &group) != nil || group.Kind != "APIGroup" || group.Name != name {
		return nil, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
	}
	r, err := c.findInVersions(ctx, group, plural)
	if errors.Is(err, errNoResource) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []resource{r}, nil
}

// findInVersions asks the versions of a group, the preferred one first, until
// one has the resource. The error is errNoResource when none has.
func (c *Cluster) findInVersions(ctx context.Context, group metav1.APIGroup, plural string) (resource, error) {
	versions := []string{group.PreferredVersion.Version}
	for _, v := range group.Versions {
		versions = append(versions, v.Version)
	}
	var asked []string
	for _, v := range versions {
		if slices.Contains(asked, v) || !isGroup(group.Name) || !isVersion(v) {
			continue
		}
		asked = append(asked, v)
		body, err := c.document(ctx, "/apis/"+group.Name+"/"+v, acceptPlain)
		if err != nil {
			return resource{}, err
		}
		var list metav1.APIResourceList
		if json.Unmarshal(body, &list) != nil {
			return resource{}, discovery(plural).fail(ErrUnexpected, "the answer is no discovery document")
		}
		if slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
			return custom(group.Name, v, plural), nil
		}
	}
	return resource{}, errNoResource
}

// statusOf returns the HTTP status in err, or zero.
func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// custom returns a resource whose kind does not matter.
func custom(group, version, plural string) resource {
	return resource{schema.GroupVersionResource{Group: group, Version: version, Resource: plural}, ""}
}
