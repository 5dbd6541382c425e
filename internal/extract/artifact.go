package extract

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Media types that say what file a blob without a title is.
var extensions = map[string]string{
	"application/vnd.cncf.helm.chart.content.v1.tar+gzip": ".tgz",
	"application/vnd.cncf.helm.chart.provenance.v1.prov":  ".prov",
}

const mediaTypeEmpty = "application/vnd.oci.empty.v1+json"

var layerTypes = []string{
	"application/vnd.oci.image.layer.v1.tar",
	"application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.docker.image.rootfs.diff.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar",
}

// IsImageLayer reports whether mediaType is that of a layer of an image's file
// system, which is for [Image]; other blobs are for [Artifact].
func IsImageLayer(mediaType string) bool {
	for _, suffix := range []string{"+gzip", ".gzip", "+zstd", ".zstd"} {
		if cut, ok := strings.CutSuffix(mediaType, suffix); ok {
			mediaType = cut
			break
		}
	}
	return slices.Contains(layerTypes, mediaType)
}

// Artifact writes the blobs of an artifact, which is not an image, as files to
// the directory dir, of which is true what [Image] says. A blob's file is named
// by its title, a plain relative path. A blob without one gets the hexadecimal
// digits of its digest, with ".tgz" when it is a Helm chart. Empty descriptors
// are left out and reported.
//
// The archive of a directory (see [Layer.Unpack]) becomes that directory with
// [Options.Unpack], and must have nothing outside it; without, it becomes a
// file with a further extension, such as "site.tar.gz". Two blobs of one name
// are refused, and so is a blob named as a directory of another.
func Artifact(ctx context.Context, layers []Layer, dir string, o Options) (*Report, error) {
	return stage(dir, o.Replace, func(root *os.Root) (*Report, error) {
		m, err := newMerger(root, o)
		if err != nil {
			return nil, err
		}
		taken := make(map[string]bool)
		for _, l := range layers {
			if err := m.blob(ctx, l, taken); err != nil {
				return nil, err
			}
		}
		return m.finish(ctx)
	})
}

// blob writes one blob of an artifact. Names in taken are those of the blobs
// before it.
func (m *merger) blob(ctx context.Context, l Layer, taken map[string]bool) error {
	m.name = l.Name
	if l.Title == "" && l.MediaType == mediaTypeEmpty {
		m.skip("", "", SkipEmpty)
		return nil
	}
	name, err := fileName(l, l.Unpack && m.o.Unpack)
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	for other := range taken {
		if inside(name, other) || inside(other, name) {
			return fmt.Errorf("%w: two layers want the name %q", ErrInvalid, name)
		}
	}
	taken[name] = true
	if l.Unpack && m.o.Unpack {
		if !inside(name, m.o.Path) && !inside(m.o.Path, name) {
			return nil
		}
		m.archive = name
		if err := m.layer(ctx, 0, l); err != nil {
			return err
		}
		return m.far.unmet()
	}
	if !inside(name, m.o.Path) {
		return nil
	}
	id, v, err := m.tree.claim(name, 0, kindFile, m.imply)
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	rc, err := l.Open(ctx)
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	src := &source{ctx: ctx, r: rc}
	err = m.place(id, v, entry{kind: kindFile, name: name, file: file{l.Size, false, time.Time{}}}, src)
	cerr := rc.Close()
	switch {
	case src.err != nil:
		err = src.err
	case err == nil:
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	return nil
}

// fileName returns the name of a blob's file, or of the directory it becomes.
func fileName(l Layer, unpack bool) (string, error) {
	raw := l.Title
	if raw == "" {
		_, raw, _ = strings.Cut(l.Name, ":")
		raw += extensions[l.MediaType]
	}
	name, reason, err := cleanName(raw, false, false)
	switch {
	case err != nil:
		return "", err
	case reason != "" || strings.HasPrefix(raw, "./"):
		return "", fmt.Errorf("%w: title %q is no plain relative path", ErrUnsafe, raw)
	case !l.Unpack || unpack:
		return name, nil
	}
	for _, t := range []struct{ mediaType, ext string }{{"gzip", ".tar.gz"}, {"zstd", ".tar.zst"}, {"tar", ".tar"}} {
		if strings.HasSuffix(l.MediaType, t.mediaType) && !strings.HasSuffix(name, t.ext) {
			return name + t.ext, nil
		}
	}
	return name, nil
}
