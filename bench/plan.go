package main

import (
	"cmp"
	"encoding/json"
	"os"
	"slices"
)

// plan is what the workload is, for the floors and for verification: every
// blob once, every manifest, children before what names them.
type plan struct {
	Blobs     []planBlob     `json:"blobs"` // largest first
	Manifests []planManifest `json:"manifests"`
}

// planBlob is a layer or a configuration.
type planBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`   // bytes
	Offset int64  `json:"offset"` // in the file of the floor
	// Repositories are those that have it, without the host.
	Repositories []string `json:"repositories"`
}

// planManifest is a manifest; one with a tag is an image of the workload.
type planManifest struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest"`
	MediaType  string `json:"mediaType"`
	Data       []byte `json:"data"`
}

// reference returns what the manifest is put under: its tag, or its digest.
func (m planManifest) reference() string { return cmp.Or(m.Tag, m.Digest) }

// addBlob notes that repository has a blob.
func (p *plan) addBlob(repository, digest string, size int64) {
	for i := range p.Blobs {
		if b := &p.Blobs[i]; b.Digest == digest {
			if !slices.Contains(b.Repositories, repository) {
				b.Repositories = append(b.Repositories, repository)
			}
			return
		}
	}
	p.Blobs = append(p.Blobs, planBlob{Digest: digest, Size: size, Repositories: []string{repository}})
}

// arrange orders the blobs and gives them their places in a file.
func (p *plan) arrange() {
	slices.SortStableFunc(p.Blobs, func(a, b planBlob) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Digest, b.Digest))
	})
	var offset int64
	for i := range p.Blobs {
		p.Blobs[i].Offset = offset
		offset += p.Blobs[i].Size
	}
}

// bytes returns the size of all blobs, each once.
func (p *plan) bytes() int64 {
	var n int64
	for _, b := range p.Blobs {
		n += b.Size
	}
	return n
}

// images returns the manifests that have a tag.
func (p *plan) images() []planManifest {
	return slices.DeleteFunc(slices.Clone(p.Manifests), func(m planManifest) bool { return m.Tag == "" })
}

func readPlan(name string) (*plan, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p := new(plan)
	return p, json.Unmarshal(data, p)
}

func (p *plan) write(name string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}
