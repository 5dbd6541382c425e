package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// madeAt is when all that the samples are made of was made, so that they are
// the same each time.
var madeAt = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	typeEmpty     = "application/vnd.oci.empty.v1+json"
	typeSPDX      = "application/spdx+json"
	typeSimpleSig = "application/vnd.dev.cosign.simplesigning.v1+json"
	sigAnnotation = "dev.cosignproject.cosign/signature"
	// title names the file that a layer of an artifact is.
	title = "org.opencontainers.image.title"
)

// samples are the images that the demo carries, by PATH:TAG.
type samples struct {
	goroot string
	first  map[string]remote.Taggable // carried first
	update map[string]remote.Taggable // carried as an update of it
	signed v1.Image                   // is in first as signedName, too
	vendor *ecdsa.PrivateKey          // signs it
}

const signedName = "platform/app:1.1"

// makeSamples makes images of files of the Go installation.
func makeSamples(ctx context.Context) (*samples, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	s := &samples{goroot: strings.TrimSpace(string(root))}
	exe := ""
	if runtime.GOOS == "windows" {
		exe = ".exe"
	}
	specs := []layerSpec{
		{paths: []string{"src/unicode", "src/time", "src/strings"}},
		{paths: []string{"src/crypto"}},
		{paths: []string{"bin/gofmt" + exe}},
		{paths: []string{"bin/go" + exe}, plain: true},
		{paths: []string{"src/net", "src/internal", "src/cmd/compile"}},
		{text: map[string]string{"etc/app/version": "1.0\n"}},
		{text: map[string]string{"etc/app/version": "1.1\n"}, paths: []string{"src/go"}},
		{text: map[string]string{"etc/app/version": "1.2\n"}, paths: []string{"src/image"}},
		{paths: []string{"src/encoding", "src/cmd/vendor"}},
		{paths: []string{"src/runtime", "src/math"}, arch: "amd64"},
		{paths: []string{"src/runtime", "src/math"}, arch: "arm64"},
	}
	layers := make([]mutate.Addendum, len(specs))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, spec := range specs {
		g.Go(func() (err error) {
			layers[i], err = spec.make(s.goroot)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return s, s.assemble(layers)
}

// assemble makes the images of their layers.
func (s *samples) assemble(l []mutate.Addendum) error {
	base, err := mutate.Append(platformImage(runtime.GOARCH), l[0], l[1])
	if err != nil {
		return err
	}
	images := map[string]v1.Image{}
	for tag, own := range map[string]mutate.Addendum{"1.0": l[5], "1.1": l[6], "1.2": l[7]} {
		if images[tag], err = mutate.Append(base, l[2], l[3], l[4], own); err != nil {
			return err
		}
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for arch, own := range map[string]mutate.Addendum{"amd64": l[9], "arm64": l[10]} {
		child, err := mutate.Append(platformImage(arch), l[8], own)
		if err != nil {
			return err
		}
		images[arch] = child
	}
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: images[arch],
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	notes, err := newRaw(v1.Manifest{ArtifactType: "application/vnd.ferry.demo.notes"}, map[string]string{title: "NOTES.txt"},
		static.NewLayer([]byte("Version 1.1 of platform/app brings the sources of package go.\n"), "text/plain"))
	if err != nil {
		return err
	}
	s.signed = images["1.1"]
	s.first = map[string]remote.Taggable{"platform/base:1.0": base, "platform/app:1.0": images["1.0"], signedName: s.signed,
		"tools/runtime:1.0": index, "platform/notes:1.0": notes}
	s.update = map[string]remote.Taggable{"platform/app:1.2": images["1.2"]}
	return nil
}

// platformImage returns an image for Linux without layers.
func platformImage(arch string) v1.Image {
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, Created: v1.Time{Time: madeAt},
		RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Env: []string{"PATH=/usr/local/go/bin"}}})
	if err != nil {
		panic(err) // an empty image takes any config
	}
	return ociImage(image)
}

func ociImage(image v1.Image) v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// raw is a manifest of an artifact: its blobs are pushed before it.
type raw struct {
	content []byte
	blobs   []v1.Layer
}

func (r raw) RawManifest() ([]byte, error)        { return r.content, nil }
func (r raw) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// newRaw completes a manifest that has an empty config and one layer.
func newRaw(m v1.Manifest, annotations map[string]string, layer v1.Layer) (raw, error) {
	config := static.NewLayer([]byte("{}"), typeEmpty)
	for i, l := range []v1.Layer{config, layer} {
		digest, err := l.Digest()
		if err != nil {
			return raw{}, err
		}
		size, err := l.Size()
		if err != nil {
			return raw{}, err
		}
		mediaType, err := l.MediaType()
		if err != nil {
			return raw{}, err
		}
		d := v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
		if i == 0 {
			m.Config = d
		} else {
			d.Annotations = annotations
			m.Layers = []v1.Descriptor{d}
		}
	}
	m.SchemaVersion, m.MediaType = 2, types.OCIManifestSchema1
	content, err := json.Marshal(m)
	return raw{content, []v1.Layer{config, layer}}, err
}

// push pushes content to host/at, where at is PATH:TAG or PATH@DIGEST.
func push(ctx context.Context, host, at string, content remote.Taggable) error {
	ref, err := name.ParseReference(host + "/" + at)
	if err != nil {
		return err
	}
	if r, ok := content.(raw); ok {
		for _, blob := range r.blobs {
			if err := remote.WriteLayer(ref.Context(), blob, remote.WithContext(ctx)); err != nil {
				return err
			}
		}
	}
	return remote.Push(ref, content, remote.WithContext(ctx))
}

func pushAll(ctx context.Context, host string, images map[string]remote.Taggable) error {
	for at, content := range images {
		if err := push(ctx, host, at, content); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// pushFirst pushes all images but the update, with the signature and the SBOM
// of the signed one.
func (s *samples) pushFirst(ctx context.Context, host string) error {
	if err := pushAll(ctx, host, s.first); err != nil {
		return err
	}
	digest, err := s.signed.Digest()
	if err != nil {
		return err
	}
	size, err := s.signed.Size()
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(signedName, ":")
	signature, err := s.sign(path, digest)
	if err != nil {
		return err
	}
	if err := push(ctx, host, path+":"+signatureTagOf(digest), signature); err != nil {
		return err
	}
	subject := &v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: digest, Size: size}
	sbom, err := newRaw(v1.Manifest{ArtifactType: typeSPDX, Subject: subject}, map[string]string{title: "app.spdx.json"},
		static.NewLayer(spdx(digest), typeSPDX))
	if err != nil {
		return err
	}
	return push(ctx, host, fmt.Sprintf("%s@sha256:%x", path, sha256.Sum256(sbom.content)), sbom)
}

// signatureTagOf returns the tag under which cosign looks for signatures.
func signatureTagOf(d v1.Hash) string { return d.Algorithm + "-" + d.Hex + ".sig" }

// sign returns a signature as cosign attaches it: the payload is a layer, and
// an annotation of it the signature, ECDSA over its SHA-256.
//
// Source: https://github.com/sigstore/cosign/blob/v2.6.5/specs/SIGNATURE_SPEC.md
func (s *samples) sign(path string, d v1.Hash) (v1.Image, error) {
	payload, err := json.Marshal(map[string]any{"optional": nil, "critical": map[string]any{
		"identity": map[string]string{"docker-reference": "registry.example/" + path},
		"image":    map[string]string{"docker-manifest-digest": d.String()},
		"type":     "cosign container image signature"}})
	if err != nil {
		return nil, err
	}
	if s.vendor == nil {
		if s.vendor, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, s.vendor, sum[:])
	if err != nil {
		return nil, err
	}
	return mutate.Append(ociImage(empty.Image), mutate.Addendum{Layer: static.NewLayer(payload, typeSimpleSig),
		Annotations: map[string]string{sigAnnotation: base64.StdEncoding.EncodeToString(signature)}})
}

// spdx returns a bill of materials: Go, which is all that the image holds.
func spdx(d v1.Hash) []byte {
	content, err := json.MarshalIndent(map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
		"name": signedName, "documentNamespace": "https://registry.example/spdx/" + d.Hex,
		"creationInfo": map[string]any{"created": madeAt.Format(time.RFC3339), "creators": []string{"Tool: ferry-demo"}},
		"packages": []map[string]any{{"SPDXID": "SPDXRef-go", "name": "go", "versionInfo": runtime.Version(),
			"downloadLocation": "https://go.dev/dl/", "filesAnalyzed": false, "licenseDeclared": "BSD-3-Clause"}},
	}, "", "  ")
	if err != nil {
		panic(err) // strings and lists only
	}
	return content
}
