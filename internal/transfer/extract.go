package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferry/internal/extract"
	"ferry/internal/oci"
	"ferry/verify"
)

// Extract puts the content of an image or artifact into dir: the merged tree
// of an image's layers, or the files of an artifact. Of an index it takes the
// child for platform. Errors: those of [extract.Image], and of the source.
func Extract(ctx context.Context, src Source, root oci.Descriptor, platform oci.Platform, dir string, o extract.Options, progress Progress) (*extract.Report, error) {
	m, err := pick(ctx, src, root, platform, 1)
	if err != nil {
		return nil, err
	}
	layers := make([]extract.Layer, len(m.Layers))
	var total Totals
	for i, d := range m.Layers {
		total.Items++
		total.Bytes += d.Size
		layers[i] = extract.Layer{Name: d.Digest.String(), MediaType: d.MediaType, Size: d.Size,
			Title:  d.Annotations["org.opencontainers.image.title"],
			Unpack: d.Annotations["io.deis.oras.content.unpack"] == "true",
			Open: func(ctx context.Context) (io.ReadCloser, error) {
				body, err := src.OpenBlob(ctx, d, 0)
				if err != nil {
					return nil, err
				}
				task := progress.Start(d.Digest.String(), d.Size)
				return &layerReader{verify.NewReader(counted(body, task), d.Digest, d.Size), body, task}, nil
			}}
	}
	progress.Total(total)
	if isImage(m) && !slices.ContainsFunc(m.Layers, func(d oci.Descriptor) bool { return !extract.IsImageLayer(d.MediaType) }) {
		return extract.Image(ctx, layers, dir, o)
	}
	return extract.Artifact(ctx, layers, dir, o)
}

// layerReader ends its task when it is closed.
type layerReader struct {
	io.Reader
	body io.Closer
	task Task
}

func (l *layerReader) Close() error {
	err := l.body.Close()
	l.task.Done(err)
	return err
}

// pick returns the manifest of root, or of the child that is for platform. An
// index with one image only needs no platform.
func pick(ctx context.Context, src Source, root oci.Descriptor, platform oci.Platform, depth int) (*oci.Manifest, error) {
	content, err := src.Manifest(ctx, root)
	if err != nil {
		return nil, err
	}
	m, err := oci.Parse(content, root.MediaType)
	if err != nil || !m.IsIndex() {
		return m, err
	}
	if depth > oci.MaxDepth {
		return nil, fmt.Errorf("%w: indexes nested deeper than %d", oci.ErrInvalid, oci.MaxDepth)
	}
	images := slices.DeleteFunc(slices.Clone(m.Manifests), func(d oci.Descriptor) bool {
		return d.Platform != nil && d.Platform.OS == "unknown"
	})
	fits := slices.DeleteFunc(slices.Clone(images), func(d oci.Descriptor) bool {
		return d.Platform == nil || !matches(platform, *d.Platform)
	})
	switch {
	case len(fits) > 0:
		if err := checkPlatform(ctx, src, fits[0]); err != nil {
			return nil, err
		}
		return pick(ctx, src, fits[0], platform, depth+1)
	case len(images) == 1:
		return pick(ctx, src, images[0], platform, depth+1)
	}
	return nil, fmt.Errorf("it is not for %s, only for %s: choose one with --platform", platform, strings.Join(platformsOf(m), ", "))
}
