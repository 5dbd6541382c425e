package harbor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"ferry/verify"
)

// Repository is one repository of a project.
type Repository struct {
	Name      string // without the project; may have slashes
	Artifacts int64
	Updated   time.Time
}

// Repositories returns the repositories of a project, by name. Errors:
//   - [ErrForbidden] when the login may not list them, as a robot may not
//     unless it has the right "repository:list";
//   - [ErrNotFound], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable],
//     [ErrUnexpected].
func (c *Client) Repositories(ctx context.Context, project string) ([]Repository, error) {
	if err := CheckProjectName(project); err != nil {
		return nil, err
	}
	type doc struct {
		Name      string    `json:"name"`
		Artifacts int64     `json:"artifact_count"`
		Updated   time.Time `json:"update_time"`
	}
	r := request{
		op:    fmt.Sprintf("listing the repositories of project %q", project),
		path:  projectPath(project) + "/repositories",
		query: url.Values{"sort": {"name"}},
	}
	docs, err := list(ctx, c, r, func(d doc) string { return d.Name })
	if err != nil {
		return nil, err
	}
	repositories := make([]Repository, len(docs))
	for i, d := range docs {
		name, ok := strings.CutPrefix(d.Name, project+"/")
		if !ok || CheckRepositoryName(project, name) != nil {
			return nil, unexpected(r.op, http.StatusOK, "it has a repository %q", clean(d.Name))
		}
		repositories[i] = Repository{Name: name, Artifacts: d.Artifacts, Updated: d.Updated}
	}
	return repositories, nil
}

// Artifact is one manifest in a repository that Harbor shows by itself.
// Signatures and other referrers hang on what they refer to, and the children
// of an index hide behind it.
type Artifact struct {
	// ID grows with each artifact that arrives.
	ID                int64
	Digest            verify.Digest
	Type              string // Harbor's own word: "IMAGE", "CHART", ...
	ManifestMediaType string
	MediaType         string // of the config; for an index that of the manifest
	Size              int64  // bytes, of the manifest and all its blobs
	// PushTime is when the digest first came into the repository; pushing
	// or tagging it again does not change it.
	PushTime time.Time
	// Created is when the image was built, as its builder says in the config
	// or in the annotation org.opencontainers.image.created. Times before
	// 2000 count as none, and none is the zero time: builds that are to be
	// reproducible say 0001, 1970 or 1980.
	Created  time.Time
	Children []verify.Digest // of an index
	Tags     []Tag           // may be empty
}

// Tag is a name of an artifact.
type Tag struct {
	Name string
	// PushTime is when the tag was made, or moved to another digest; pushing
	// the same again does not change it.
	PushTime  time.Time
	Immutable bool // whether a rule keeps it as it is
}

// maxTags bounds the tags of one repository, and so memory to about 50 MiB.
const maxTags = 200_000

var tagName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// Artifacts returns the artifacts of a repository with their tags, the
// oldest first. Errors:
//   - [ErrNotFound] when there is no such project or repository;
//   - [ErrForbidden], [ErrUnauthorized], [ErrInvalidName], [ErrUnavailable];
//   - [ErrUnexpected] also when a digest or a tag is none.
func (c *Client) Artifacts(ctx context.Context, project, repository string) ([]Artifact, error) {
	return c.artifacts(ctx, project, repository, nil)
}

// AddCreated gives the indexes among artifacts, which are those of the
// repository, that do not say when they were made the time of their newest
// child. It asks Harbor only when there are such indexes. A child that does
// not say it either changes nothing. Errors: those of [Client.Artifacts].
func (c *Client) AddCreated(ctx context.Context, project, repository string, artifacts []Artifact) error {
	if !slices.ContainsFunc(artifacts, func(a Artifact) bool { return a.Created.IsZero() && len(a.Children) > 0 }) {
		return nil
	}
	all, err := c.artifacts(ctx, project, repository, url.Values{"q": {"base=*"}}) // with children
	if err != nil {
		return err
	}
	byDigest := map[verify.Digest]Artifact{}
	for _, a := range all {
		byDigest[a.Digest] = a
	}
	found := map[verify.Digest]time.Time{}
	for i := range artifacts {
		artifacts[i].Created = newestCreated(artifacts[i], byDigest, found)
	}
	return nil
}

// newestCreated returns when a was made, or the newest of its children, which
// may be indexes too. Each artifact is looked at once and then stands in found:
// a server could name many as the children of many.
func newestCreated(a Artifact, all map[verify.Digest]Artifact, found map[verify.Digest]time.Time) time.Time {
	if at, ok := found[a.Digest]; ok {
		return at
	}
	newest := a.Created
	found[a.Digest] = newest // for one that claims to be its own child
	if newest.IsZero() {
		for _, d := range a.Children {
			if at := newestCreated(all[d], all, found); at.After(newest) {
				newest = at
			}
		}
	}
	found[a.Digest] = newest
	return newest
}

func (c *Client) artifacts(ctx context.Context, project, repository string, more url.Values) ([]Artifact, error) {
	if err := CheckRepositoryName(project, repository); err != nil {
		return nil, err
	}
	r := request{
		op:   fmt.Sprintf("listing the artifacts of %q", project+"/"+repository),
		path: repositoryPath(project, repository) + "/artifacts",
		query: url.Values{
			"sort":                  {"id"}, // a push while we read does not shift the pages
			"with_tag":              {"true"},
			"with_immutable_status": {"true"},
		},
	}
	maps.Copy(r.query, more)
	docs, err := list(ctx, c, r, func(d artifactDoc) string { return d.Digest })
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		// Harbor answers [] for what is not there, too.
		if err := c.checkRepository(ctx, r.op, project, repository); err != nil {
			return nil, err
		}
	}
	artifacts, seen := make([]Artifact, len(docs)), map[string]bool{}
	for i, d := range docs {
		if artifacts[i], err = d.artifact(); err != nil {
			return nil, unexpected(r.op, http.StatusOK, "%s", clean(err.Error()))
		}
		for _, t := range d.Tags {
			if seen[t.Name] {
				return nil, unexpected(r.op, http.StatusOK, "two artifacts have the tag %s", t.Name)
			}
			seen[t.Name] = true
		}
		if len(seen) > maxTags {
			return nil, unexpected(r.op, http.StatusOK, "it has more than %d tags", maxTags)
		}
	}
	return artifacts, nil
}

// checkRepository returns an error if there is certainly no such repository.
func (c *Client) checkRepository(ctx context.Context, op, project, repository string) error {
	_, err := c.do(ctx, request{op: op, method: http.MethodGet, path: repositoryPath(project, repository)})
	if errors.Is(err, ErrForbidden) {
		return nil // who may list artifacts may not always do this
	}
	return err
}

type artifactDoc struct {
	ID                int64     `json:"id"`
	Digest            string    `json:"digest"`
	Type              string    `json:"type"`
	ManifestMediaType string    `json:"manifest_media_type"`
	MediaType         string    `json:"media_type"`
	Size              int64     `json:"size"`
	PushTime          time.Time `json:"push_time"`
	// Of what can be large only this much is kept.
	Config      createdConfig      `json:"extra_attrs"`
	Annotations createdAnnotations `json:"annotations"`
	References  []struct {
		Child string `json:"child_digest"`
	} `json:"references"`
	Tags []struct {
		Name      string    `json:"name"`
		PushTime  time.Time `json:"push_time"`
		Immutable bool      `json:"immutable"`
	} `json:"tags"`
}

// createdConfig is what the key "created" of a config says, which in an
// artifact of an unknown kind can be anything.
type createdConfig string

func (c *createdConfig) UnmarshalJSON(b []byte) error {
	*c = createdConfig(textAt(b, "created"))
	return nil
}

// createdAnnotations is what the annotation for the time of creation says.
type createdAnnotations string

func (c *createdAnnotations) UnmarshalJSON(b []byte) error {
	*c = createdAnnotations(textAt(b, "org.opencontainers.image.created"))
	return nil
}

// textAt returns the text that an object has at key, or "".
func textAt(object []byte, key string) string {
	var doc map[string]json.RawMessage
	var text string
	if json.Unmarshal(object, &doc) != nil || json.Unmarshal(doc[key], &text) != nil || len(text) > len(time.RFC3339Nano) {
		return ""
	}
	return text
}

// firstCreated is the earliest time that is taken for one of creation.
var firstCreated = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// created returns the first of the texts that is a time of creation, or the
// zero time.
func created(texts ...string) time.Time {
	for _, s := range texts {
		if t, err := time.Parse(time.RFC3339, s); err == nil && !t.Before(firstCreated) {
			return t.UTC()
		}
	}
	return time.Time{}
}

func (d artifactDoc) artifact() (Artifact, error) {
	digest, err := verify.ParseDigest(d.Digest)
	if err != nil {
		return Artifact{}, err
	}
	a := Artifact{
		ID: d.ID, Digest: digest, Type: clean(d.Type), Size: d.Size, PushTime: d.PushTime,
		ManifestMediaType: clean(d.ManifestMediaType), MediaType: clean(d.MediaType),
		Created: created(string(d.Config), string(d.Annotations)),
	}
	for _, r := range d.References {
		child, err := verify.ParseDigest(r.Child)
		if err != nil {
			return Artifact{}, err
		}
		a.Children = append(a.Children, child)
	}
	for _, t := range d.Tags {
		if !tagName.MatchString(t.Name) {
			return Artifact{}, fmt.Errorf("%s has a tag %q", digest, shorten(t.Name))
		}
		a.Tags = append(a.Tags, Tag{t.Name, t.PushTime, t.Immutable})
	}
	return a, nil
}
