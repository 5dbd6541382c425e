package harbortest

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeCosignLayer    = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// state is what Harbor has in its database.
type state struct {
	readOnly  bool
	adminOnly bool // only administrators create projects
	// storagePerProject is the quota of projects that are created without one,
	// in bytes; -1 is none.
	storagePerProject int64
	users             map[string]*user
	robots            map[string]*robot // by full name
	projects          map[string]*project
	blobs             map[string]map[string]int64 // sizes by repository and digest; they outlive artifacts
	uploads           map[string]*upload
	tokens            map[string]*token
	csrf              map[string]map[string]bool // tokens by cookie
	accessory         []*accessory

	// Numbers given out. A refused create uses one up, as a sequence of the
	// database does.
	users_, robots_, projects_, members_, quotas_, repos_, artifacts_, tags_, accessories_, rules_, retentions_ counter
}

type counter int64

func (c *counter) next() int64 { *c++; return int64(*c) }

type user struct {
	id          int64
	name        string
	password    string
	admin       bool
	created     time.Time
	lockedUntil time.Time
}

type robot struct {
	id          int64
	name        string // in full, with "robot$"
	secret      string
	level       string
	duration    int64 // days, or -1
	expires     int64 // Unix seconds, or -1
	disabled    bool
	permissions []permission
	created     time.Time
	project     *project // of a project robot
}

type permission struct {
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Access    []access `json:"access"`
}

type access struct {
	Resource string `json:"resource"`
	Action   string `json:"action"`
}

type project struct {
	id, quotaID  int64
	name         string
	public       bool
	owner        *user
	ownerName    string
	registryID   int64 // of a proxy cache
	hard         int64 // bytes, or -1
	created      time.Time
	quotaUpdated time.Time
	members      map[string]int // roles by user name
	blobs        map[string]int64
	repos        map[string]*repository // by name without project
	rules        []*immutableRule
	retention    *retention
}

type repository struct {
	id          int64
	name        string // without project
	project     *project
	description string
	created     time.Time
	updated     time.Time
	pulls       int64
	artifacts   map[string]*artifact // by digest
	tags        map[string]*tag
}

func (r *repository) fullName() string { return r.project.name + "/" + r.name }

type artifact struct {
	id        int64
	repo      *repository
	digest    string
	mediaType string // of the manifest
	doc       manifest
	body      []byte
	config    json.RawMessage // of an image, when it is small
	size      int64
	pushed    time.Time
	pulled    time.Time
}

type tag struct {
	id       int64
	name     string
	artifact *artifact
	pushed   time.Time
	pulled   time.Time
}

type accessory struct {
	id      int64
	repo    *repository
	of      *artifact // the accessory itself
	subject string
	kind    string
	created time.Time
}

type retention struct {
	id  int64
	doc map[string]any
}

// manifest is what Harbor reads in manifests and indexes.
type manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *descriptor       `json:"config"`
	Layers       []descriptor      `json:"layers"`
	Manifests    []descriptor      `json:"manifests"`
	Subject      *descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

type descriptor struct {
	MediaType string          `json:"mediaType"`
	Digest    string          `json:"digest"`
	Size      int64           `json:"size"`
	Platform  json.RawMessage `json:"platform"`
}

func (m *manifest) blobs() []descriptor {
	if m.Config == nil {
		return m.Layers
	}
	return append([]descriptor{*m.Config}, m.Layers...)
}

func (st *state) init(now time.Time) {
	*st = state{
		users: map[string]*user{}, robots: map[string]*robot{}, projects: map[string]*project{},
		blobs: map[string]map[string]int64{}, uploads: map[string]*upload{}, tokens: map[string]*token{}, csrf: map[string]map[string]bool{},
		storagePerProject: -1,
	}
	admin := &user{id: st.users_.next(), name: AdminName, password: AdminPassword, admin: true, created: now}
	st.users_.next() // Harbor's anonymous user
	st.users[AdminName] = admin
	st.addProject("library", admin, AdminName, true, -1, now)
}

func (st *state) addProject(name string, owner *user, ownerName string, public bool, hard int64, now time.Time) *project {
	p := &project{
		id: st.projects_.next(), quotaID: st.quotas_.next(), name: name, public: public, owner: owner, ownerName: ownerName,
		hard: hard, created: now, quotaUpdated: now, members: map[string]int{}, blobs: map[string]int64{}, repos: map[string]*repository{},
	}
	st.members_.next()
	if owner != nil {
		p.members[owner.name] = roleAdmin
	}
	st.projects[name] = p
	return p
}

// repo returns a repository by its full name, or nil.
func (st *state) repo(fullName string) *repository {
	project, name, _ := strings.Cut(fullName, "/")
	if p := st.projects[project]; p != nil {
		return p.repos[name]
	}
	return nil
}

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// find returns the artifact that a tag or digest names, or nil.
func (r *repository) find(reference string) *artifact {
	if r == nil {
		return nil
	}
	if digestPattern.MatchString(reference) {
		return r.artifacts[reference]
	}
	if t := r.tags[reference]; t != nil {
		return t.artifact
	}
	return nil
}

// tagsOf returns the tags of a, the newest first.
func (r *repository) tagsOf(a *artifact) []*tag {
	var tags []*tag
	for _, t := range r.tags {
		if t.artifact == a {
			tags = append(tags, t)
		}
	}
	slices.SortFunc(tags, func(x, y *tag) int {
		return cmp.Or(y.pushed.Compare(x.pushed), cmp.Compare(y.id, x.id))
	})
	return tags
}

// setTag makes or moves a tag; its push time changes only then.
func (st *state) setTag(r *repository, name string, a *artifact, now time.Time) {
	t := r.tags[name]
	if t != nil && t.artifact == a {
		return
	}
	if t == nil {
		t = &tag{id: st.tags_.next(), name: name}
		r.tags[name] = t
	}
	t.artifact, t.pushed = a, now
	r.updated = now
}

// parents returns the indexes that a is a child of.
func (r *repository) parents(a *artifact) []*artifact {
	var parents []*artifact
	for _, p := range r.artifacts {
		if slices.ContainsFunc(p.doc.Manifests, func(d descriptor) bool { return d.Digest == a.digest }) {
			parents = append(parents, p)
		}
	}
	return parents
}

// accessories returns what hangs on the digest, the oldest first.
func (st *state) accessories(r *repository, subject string) []*accessory {
	var found []*accessory
	for _, x := range st.accessory {
		if x.repo == r && x.subject == subject {
			found = append(found, x)
		}
	}
	return found
}

func (st *state) isAccessory(a *artifact) bool {
	return slices.ContainsFunc(st.accessory, func(x *accessory) bool { return x.of == a })
}

var cosignTag = regexp.MustCompile(`^sha256-([0-9a-f]{64})\.sig$`)

// link makes a an accessory of what it signs or refers to, once.
func (st *state) link(a *artifact, reference string, now time.Time) {
	subject, kind := "", ""
	switch m := cosignTag.FindStringSubmatch(reference); {
	case a.doc.Subject != nil:
		subject, kind = a.doc.Subject.Digest, accessoryKind(&a.doc)
	case m != nil && slices.ContainsFunc(a.doc.Layers, func(d descriptor) bool { return d.MediaType == typeCosignLayer }):
		subject, kind = "sha256:"+m[1], "signature.cosign"
	default:
		return
	}
	if slices.ContainsFunc(st.accessories(a.repo, subject), func(x *accessory) bool { return x.of == a }) {
		return
	}
	st.accessory = append(st.accessory, &accessory{id: st.accessories_.next(), repo: a.repo, of: a, subject: subject, kind: kind, created: now})
}

func accessoryKind(m *manifest) string {
	kind := m.ArtifactType
	if kind == "" && m.Config != nil {
		kind = m.Config.MediaType
	}
	switch kind {
	case "application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json":
		return "signature.cosign"
	case "application/vnd.cncf.notary.signature":
		return "signature.notation"
	case "application/vnd.goharbor.harbor.sbom.v1":
		return "sbom.harbor"
	}
	return "subject.accessory"
}

// used returns how many bytes count towards the project's quota.
func (p *project) used() int64 {
	var n int64
	for _, size := range p.blobs {
		n += size
	}
	return n
}

// checkQuota refuses bytes that do not fit.
func (p *project) checkQuota(more int64) error {
	if used := p.used(); p.hard >= 0 && more > 0 && used+more > p.hard {
		return errf(403, "DENIED", "adding %s of storage resource, which when updated to current usage of %s will exceed the configured upper limit of %s.",
			bytesText(more), bytesText(used), bytesText(p.hard))
	}
	return nil
}

// remove takes an artifact away, with its tags and accessories; the children
// of an index go too unless they are needed otherwise.
func (st *state) remove(a *artifact) {
	r := a.repo
	delete(r.artifacts, a.digest)
	for name, t := range r.tags {
		if t.artifact == a {
			delete(r.tags, name)
		}
	}
	for _, x := range st.accessories(r, a.digest) {
		if x.of != a && r.artifacts[x.of.digest] != nil {
			st.remove(x.of)
		}
	}
	st.accessory = slices.DeleteFunc(st.accessory, func(x *accessory) bool { return x.of == a })
	for _, d := range a.doc.Manifests {
		if child := r.artifacts[d.Digest]; child != nil && len(r.parents(child)) == 0 && len(r.tagsOf(child)) == 0 {
			st.remove(child)
		}
	}
	r.project.forget(a)
}

// forget takes what only a needed off the quota.
func (p *project) forget(a *artifact) {
	needed := map[string]bool{}
	for _, r := range p.repos {
		for _, other := range r.artifacts {
			needed[other.digest] = true
			for _, d := range other.doc.blobs() {
				needed[d.Digest] = true
			}
		}
	}
	for _, d := range append(a.doc.blobs(), descriptor{Digest: a.digest}) {
		if !needed[d.Digest] {
			delete(p.blobs, d.Digest)
		}
	}
}
