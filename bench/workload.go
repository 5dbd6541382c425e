package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Shares of the size of the workload, in thousandths. Both versions of what
// an image has of its own count, which is why these sum up to half.
const (
	shareBase  = 70  // of each of the two bases, in two layers
	shareApps  = 360 // of all ten images' own layers in one version
	shareArch  = 30  // of each platform of the index
	shareSmall = 1   // of two of the thirty small layers
)

const (
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// workload makes images. Its blobs are files of a folder, named by digest.
type workload struct {
	folder   string
	material *material
	files    int // in own layers so far
	plan     plan
}

// versions are the layers of both versions of an image.
type versions [2][]layer

// makeWorkload makes images of at least size bytes of unique layers from the
// files of m, with their blobs in folder:
//
//   - bench/app-0 to app-9: a base, and three layers of their own; the larger
//     the number, the larger they are
//   - bench/multi: an index of two platforms
//   - bench/many: thirty small layers
//
// each with the tags v1 and v2.
func makeWorkload(ctx context.Context, folder string, m *material, size int64) (*workload, error) {
	w := &workload{folder: folder, material: m}
	part := func(thousandths int64) int64 { return max(size*thousandths/1000, 1<<10) }
	var bases [2][]layer
	for i := range bases {
		both, err := w.layers(part(shareBase*3/4), part(shareBase/4))
		if err != nil {
			return nil, err
		}
		bases[i] = both[0] // the second version of a base is not used
	}
	if err := w.many(part(shareSmall) / 2); err != nil {
		return nil, err
	}
	if err := w.multi(bases[0], part(shareArch)); err != nil {
		return nil, err
	}
	for i := range int64(10) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		own := part(shareApps) * (i + 1) / 55
		large := own * 7 / 10
		if i == 9 { // the last makes up for what is missing
			large = max(large, size-w.plan.bytes()-own*3/10)
		}
		if err := w.app(fmt.Sprintf("bench/app-%d", i), bases[i%2], large, own/4, own/20); err != nil {
			return nil, err
		}
	}
	w.plan.arrange()
	return w, nil
}

// layers makes layers of these sizes, in two versions.
func (w *workload) layers(sizes ...int64) (versions, error) {
	var both versions
	for _, size := range sizes {
		v1, v2, files, err := makeLayers(w.material, w.folder, size, w.files)
		if err != nil {
			return both, err
		}
		w.files += files
		both[0], both[1] = append(both[0], v1), append(both[1], v2)
	}
	return both, nil
}

func (w *workload) app(repository string, base []layer, sizes ...int64) error {
	own, err := w.layers(sizes...)
	if err != nil {
		return err
	}
	for v, layers := range own {
		m, err := w.image(repository, "amd64", append(base[:len(base):len(base)], layers...))
		if err != nil {
			return err
		}
		m.Tag = tagOf(v)
		w.plan.Manifests = append(w.plan.Manifests, m)
	}
	return nil
}

func (w *workload) many(size int64) error {
	sizes := make([]int64, 30)
	for i := range sizes {
		sizes[i] = size
	}
	return w.app("bench/many", nil, sizes...)
}

func (w *workload) multi(base []layer, size int64) error {
	var children [2][]planManifest
	for _, arch := range []string{"amd64", "arm64"} {
		own, err := w.layers(size*9/10, size/10)
		if err != nil {
			return err
		}
		if arch == "amd64" {
			own[0], own[1] = append(base[:len(base):len(base)], own[0]...), append(base[:len(base):len(base)], own[1]...)
		}
		for v, layers := range own {
			m, err := w.image("bench/multi", arch, layers)
			if err != nil {
				return err
			}
			children[v] = append(children[v], m)
		}
	}
	for v, list := range children {
		index, err := indexOf("bench/multi", tagOf(v), list)
		if err != nil {
			return err
		}
		w.plan.Manifests = append(append(w.plan.Manifests, list...), index)
	}
	return nil
}

func tagOf(version int) string { return fmt.Sprintf("v%d", version+1) }

type descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *platform `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// image adds the blobs of an image to the plan, and returns its manifest.
func (w *workload) image(repository, arch string, layers []layer) (planManifest, error) {
	var diffIDs []string
	var list []descriptor
	for _, l := range layers {
		diffIDs = append(diffIDs, l.diffID)
		list = append(list, descriptor{MediaType: mediaLayer, Digest: l.digest, Size: l.size})
		w.plan.addBlob(repository, l.digest, l.size)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": "2023-11-14T22:13:20Z", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return planManifest{}, err
	}
	digest := digestOfBytes(config)
	if err := os.WriteFile(filepath.Join(w.folder, digest[len("sha256:"):]), config, 0o600); err != nil {
		return planManifest{}, err
	}
	w.plan.addBlob(repository, digest, int64(len(config)))
	return manifestOf(repository, mediaManifest, map[string]any{
		"config": descriptor{MediaType: mediaConfig, Digest: digest, Size: int64(len(config))},
		"layers": list,
	})
}

func indexOf(repository, tag string, children []planManifest) (planManifest, error) {
	var list []descriptor
	for i, m := range children {
		list = append(list, descriptor{m.MediaType, m.Digest, int64(len(m.Data)), &platform{[]string{"amd64", "arm64"}[i], "linux"}})
	}
	index, err := manifestOf(repository, mediaIndex, map[string]any{"manifests": list})
	index.Tag = tag
	return index, err
}

func manifestOf(repository, mediaType string, fields map[string]any) (planManifest, error) {
	fields["schemaVersion"], fields["mediaType"] = 2, mediaType
	data, err := json.Marshal(fields)
	return planManifest{Repository: repository, Digest: digestOfBytes(data), MediaType: mediaType, Data: data}, err
}

// push puts the workload into a registry, and removes its files.
func (w *workload) push(ctx context.Context, host string, jobs int) error {
	open := func(b planBlob) (*filePart, error) {
		return openPart(filepath.Join(w.folder, b.Digest[len("sha256:"):]), 0, b.Size)
	}
	if err := pushAll(ctx, newRegistryClient(host, jobs), &w.plan, jobs, sendPart(open)); err != nil {
		return err
	}
	return os.RemoveAll(w.folder)
}

// goFolders returns GOROOT and the module cache, as the go command tells.
func goFolders(ctx context.Context) (names, folders []string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go env: %w", err)
	}
	return []string{"goroot", "mod"}, strings.Fields(string(out)), nil
}
