package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// Samples returns one of each kind of content that is found in registries, in
// different repositories but for two that share one. Some share blobs.
func Samples() []*Sample {
	return []*Sample{
		single(), multiArch(), nested(), thirtyLayers(), helmChart(), signed(), dockerImage(), dockerList(),
		zstdImage(), emptyConfig(), wasm(), sharing(), sbomChain(), noLayers(), large(), uncompressed(),
	}
}

func single() *Sample {
	s := newSample("one platform, two layers, two tags", "team/single")
	s.root(s.image("linux/amd64", typeGzip,
		map[string]string{"etc/": "", "etc/motd": "hello\n", "etc/gone": "x"},
		map[string]string{"bin/": "", "bin/tool": "#!/bin/sh\necho tool\n", "etc/.wh.gone": ""},
	), "1.0.0", "latest")
	s.Files = map[string]string{"etc/motd": "hello\n", "bin/tool": "#!/bin/sh\necho tool\n"}
	return s
}

// platforms adds an image for two platforms and a build attestation, and
// returns their descriptors.
func (s *Sample) platforms(content string) []oci.Descriptor {
	base := map[string]string{"share/": "", "share/common": "for both: " + content}
	amd := s.image("linux/amd64", typeGzip, base, map[string]string{"bin/": "", "bin/app": "amd64 " + content})
	arm := s.image("linux/arm64", typeGzip, base, map[string]string{"bin/": "", "bin/app": "arm64 " + content})
	arm.Platform.Variant = "v8"
	layer := s.blob("application/vnd.in-toto+json", mustJSON(map[string]string{"_type": "https://in-toto.io/Statement/v0.1", "of": content}))
	att := s.artifact(document{}, oci.MediaTypeConfig, mustJSON(map[string]any{
		"architecture": "unknown", "os": "unknown", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest.String()}},
	}), layer)
	att.Platform = &oci.Platform{OS: "unknown", Architecture: "unknown"}
	att.Annotations = map[string]string{
		"vnd.docker.reference.digest": amd.Digest.String(), "vnd.docker.reference.type": "attestation-manifest",
	}
	return []oci.Descriptor{amd, arm, att}
}

func multiArch() *Sample {
	s := newSample("index of two platforms and an attestation", "team/multi")
	s.root(s.index(oci.MediaTypeIndex, s.platforms("multi")...), "2.1")
	return s
}

func nested() *Sample {
	s := newSample("index of an index", "team/deep/nested")
	inner := s.index(oci.MediaTypeIndex, s.platforms("nested")...)
	other := s.image("linux/s390x", typeGzip, map[string]string{"app": "s390x"})
	s.root(s.index(oci.MediaTypeIndex, *plain(inner), other), "1")
	return s
}

func thirtyLayers() *Sample {
	s := newSample("thirty layers", "team/thirty")
	s.Files = make(map[string]string)
	var layers []map[string]string
	for i := range 30 {
		name, content := fmt.Sprintf("file%02d", i), fmt.Sprintf("content of layer %d\n", i)
		layers = append(layers, map[string]string{name: content, "last": content})
		s.Files[name], s.Files["last"] = content, content
	}
	s.root(s.image("linux/amd64", typeGzip, layers...), "v30")
	return s
}

func helmChart() *Sample {
	s := newSample("Helm chart", "team/charts/demo")
	meta := map[string]string{"apiVersion": "v2", "name": "demo", "version": "0.1.0"}
	chart := gzipOf(tarOf(map[string]string{
		"demo/Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\n", "demo/values.yaml": "replicas: 1\n",
		"demo/templates/pod.yaml": "kind: Pod\n",
	}))
	s.root(s.artifact(document{Annotations: map[string]string{"org.opencontainers.image.title": "demo"}},
		"application/vnd.cncf.helm.config.v1+json", mustJSON(meta),
		s.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart)), "0.1.0")
	return s
}

// signed is an index with signatures and attestations, of all kinds, on
// itself and on a child.
func signed() *Sample {
	s := newSample("signatures by tag and by referrer", "team/signed")
	children := s.platforms("signed")
	root := s.index(oci.MediaTypeIndex, children...)
	s.root(root, "3.0", "stable")
	for i, d := range []oci.Descriptor{root, children[0]} {
		payload := mustJSON(map[string]any{"critical": map[string]any{
			"identity": map[string]string{"docker-reference": "team/signed"},
			"image":    map[string]string{"docker-manifest-digest": d.Digest.String()},
			"type":     "cosign container image signature",
		}})
		s.cosignTag(d, "sig", "application/vnd.dev.cosign.simplesigning.v1+json",
			map[string]string{"dev.cosignproject.cosign/signature": fmt.Sprintf("c2lnbmF0dXJl%d", i)}, payload)
	}
	s.cosignTag(root, "att", "application/vnd.dsse.envelope.v1+json",
		map[string]string{"predicateType": "https://slsa.dev/provenance/v1"}, []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30="}`))
	s.referrer(root, "application/vnd.dev.sigstore.bundle.v0.3+json", []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	s.referrer(root, "application/vnd.cncf.notary.signature", []byte("a JWS envelope"))
	s.referrer(children[0], "application/spdx+json", []byte(`{"spdxVersion":"SPDX-2.3"}`))
	return s
}

func dockerImage() *Sample {
	s := newSample("docker schema 2", "team/docker")
	s.root(s.image("linux/amd64", typeDockerGzip, map[string]string{"a": "docker"}), "old")
	s.Files = map[string]string{"a": "docker"}
	return s
}

func dockerList() *Sample {
	s := newSample("docker manifest list", "team/dockerlist")
	amd := s.image("linux/amd64", typeDockerGzip, map[string]string{"a": "docker amd64"})
	arm := s.image("linux/arm64", typeDockerGzip, map[string]string{"a": "docker arm64"})
	s.root(s.index(oci.MediaTypeDockerList, amd, arm), "list")
	return s
}

func zstdImage() *Sample {
	s := newSample("zstd layers", "team/zstd")
	text := strings.Repeat("zstd compresses this. ", 1000)
	s.root(s.image("linux/amd64", typeZstd, map[string]string{"text": text}, map[string]string{"more": "of it"}), "z")
	s.Files = map[string]string{"text": text, "more": "of it"}
	return s
}

func emptyConfig() *Sample {
	s := newSample("artifact with the empty config as its layer too", "team/artifact")
	empty := s.blob(oci.MediaTypeEmpty, []byte("{}"))
	s.root(s.artifact(document{ArtifactType: "application/vnd.example.thing", Annotations: map[string]string{"note": "all is in here"}},
		oci.MediaTypeEmpty, []byte("{}"), empty), "thing")
	return s
}

func wasm() *Sample {
	s := newSample("WASM module", "team/wasm")
	s.root(s.artifact(document{}, "application/vnd.wasm.config.v0+json", []byte(`{"os":"wasip1","architecture":"wasm"}`),
		s.blob("application/wasm", []byte("\x00asm\x01\x00\x00\x00"))), "m")
	return s
}

// sharing has a layer of single's in another repository.
func sharing() *Sample {
	s := newSample("a layer of another repository's image", "team/sharing")
	s.root(s.image("linux/amd64", typeGzip,
		map[string]string{"etc/": "", "etc/motd": "hello\n", "etc/gone": "x"},
		map[string]string{"own": "layer"},
	), "1.0.0")
	s.Files = map[string]string{"etc/motd": "hello\n", "etc/gone": "x", "own": "layer"}
	return s
}

// sbomChain has a referrer of a referrer.
func sbomChain() *Sample {
	s := newSample("SBOM that is signed itself", "team/chain")
	d := s.image("linux/amd64", typeGzip, map[string]string{"a": "with an SBOM"})
	s.root(d, "1")
	sbom := s.referrer(d, "application/vnd.cyclonedx+json", []byte(`{"bomFormat":"CycloneDX"}`))
	s.referrer(sbom, "application/vnd.dev.sigstore.bundle.v0.3+json", []byte(`{"about":"the SBOM"}`))
	s.Files = map[string]string{"a": "with an SBOM"}
	return s
}

func noLayers() *Sample {
	s := newSample("no layers but an empty blob", "team/empty")
	s.root(s.artifact(document{ArtifactType: "application/vnd.example.nothing"}, oci.MediaTypeEmpty, []byte("{}"),
		s.blob("application/octet-stream", nil)), "0")
	return s
}

// large has a layer that does not fit into one small request.
func large() *Sample {
	s := newSample("a layer of 3 MiB", "team/large")
	data := string(Random(1, 3<<20))
	s.root(s.image("linux/amd64", typeGzip, map[string]string{"data": data}), "big")
	s.Files = map[string]string{"data": data}
	return s
}

func uncompressed() *Sample {
	s := newSample("layer that is not compressed", "team/plain")
	s.root(s.image("linux/amd64", typeTar, map[string]string{"a": "plain"}), "tar")
	s.Files = map[string]string{"a": "plain"}
	return s
}

// PushAll pushes samples to host, like [Sample.Push].
func PushAll(ctx context.Context, host string, samples []*Sample) error {
	for _, s := range samples {
		if err := s.Push(ctx, host); err != nil {
			return err
		}
	}
	return nil
}

// Push pushes s to host, "host:port" or "user:password@host:port", by plain
// HTTP and with plain means: not with what is to be tested. A registry without
// the referrers API gets an index under the fallback tag of each subject.
func (s *Sample) Push(ctx context.Context, host string) error {
	p := &pusher{base: "http://" + host + "/v2/" + s.Repository}
	for _, b := range s.Blobs {
		if err := p.blob(ctx, b); err != nil {
			return err
		}
	}
	for _, m := range s.Manifests {
		if err := p.manifest(ctx, m.Digest.String(), m.MediaType, m.Bytes); err != nil {
			return err
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(s.Tags)) {
		content, _ := s.Manifest(s.Tags[tag])
		if err := p.manifest(ctx, tag, mediaTypeOf(content), content); err != nil {
			return err
		}
	}
	for subject := range s.Referrers {
		status, _, err := p.do(ctx, http.MethodGet, p.base+"/referrers/"+subject.String(), "", nil)
		if err != nil {
			return err
		}
		if status == http.StatusNotFound {
			if err := p.manifest(ctx, "sha256-"+subject.Hex(), oci.MediaTypeIndex, s.FallbackIndex(subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

// FallbackIndex returns the index of the referrers of subject as it stands
// under the fallback tag in a registry without the referrers API.
func (s *Sample) FallbackIndex(subject verify.Digest) []byte {
	doc := document{SchemaVersion: 2, MediaType: oci.MediaTypeIndex}
	for _, d := range s.Referrers[subject] {
		content, _ := s.Manifest(d)
		m, err := oci.Parse(content, "")
		if err != nil {
			panic(err)
		}
		doc.Manifests = append(doc.Manifests, oci.Descriptor{
			MediaType: m.MediaType, Digest: d, Size: int64(len(content)), ArtifactType: m.Type(), Annotations: m.Annotations,
		})
	}
	return mustJSON(doc)
}

func mediaTypeOf(manifest []byte) string {
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(manifest, &doc); err != nil {
		panic(err)
	}
	return doc.MediaType
}

// pusher pushes to one repository.
type pusher struct{ base string }

func (p *pusher) do(ctx context.Context, method, address, contentType string, body []byte) (int, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Close = true // leaves no connection behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode >= 400 && method != http.MethodGet {
		err = fmt.Errorf("%s %s: %d %s", method, req.URL.Redacted(), resp.StatusCode, answer)
	}
	return resp.StatusCode, resp.Header, err
}

func (p *pusher) blob(ctx context.Context, c Content) error {
	_, h, err := p.do(ctx, http.MethodPost, p.base+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	base, err := url.Parse(p.base)
	if err != nil {
		return err
	}
	at, err := base.Parse(h.Get("Location"))
	if err != nil {
		return err
	}
	at.User = base.User
	q := at.Query()
	q.Set("digest", c.Digest.String())
	at.RawQuery = q.Encode()
	_, _, err = p.do(ctx, http.MethodPut, at.String(), "application/octet-stream", c.Bytes)
	return err
}

func (p *pusher) manifest(ctx context.Context, name, mediaType string, content []byte) error {
	_, _, err := p.do(ctx, http.MethodPut, p.base+"/manifests/"+name, mediaType, content)
	return err
}
