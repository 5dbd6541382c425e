package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// comparison looks for all that is outside in the registry inside.
type comparison struct {
	ctx             context.Context
	outside, inside string
	known           map[string]bool // manifests that are the same, by PATH@DIGEST
	tags            int
}

// repository compares all tags of a repository, and what they lead to, and
// says a line for each.
func (c *comparison) repository(path string, say func(string, ...any)) error {
	repo, err := name.NewRepository(c.outside + "/" + path)
	if err != nil {
		return err
	}
	tags, err := remote.List(repo, remote.WithContext(c.ctx))
	if err != nil {
		return err
	}
	slices.Sort(tags)
	for _, tag := range tags {
		d, err := c.get(c.outside, path+":"+tag)
		if err != nil {
			return err
		}
		there, err := c.get(c.inside, path+":"+tag)
		if err != nil {
			return err
		}
		if there.Digest != d.Digest {
			return fmt.Errorf("%s:%s is %s outside and %s inside", path, tag, d.Digest, there.Digest)
		}
		if err := c.manifest(path, d.Digest); err != nil {
			return err
		}
		c.tags++
		say("  same  sha256:%s  %s:%s", d.Digest.Hex[:12], path, shortTag(tag))
	}
	return nil
}

// manifest compares a manifest, its children and its referrers.
func (c *comparison) manifest(path string, digest v1.Hash) error {
	at := path + "@" + digest.String()
	if c.known[at] {
		return nil
	}
	d, err := c.get(c.outside, at)
	if err != nil {
		return err
	}
	there, err := c.get(c.inside, at)
	if err != nil {
		return err
	}
	if !bytes.Equal(d.Manifest, there.Manifest) || d.MediaType != there.MediaType {
		return fmt.Errorf("%s is not the same inside", at)
	}
	c.known[at] = true
	var index v1.IndexManifest
	if d.MediaType.IsIndex() {
		if err := json.Unmarshal(d.Manifest, &index); err != nil {
			return err
		}
	}
	referrers, err := c.referrers(c.outside, path, digest)
	if err != nil {
		return err
	}
	same, err := c.referrers(c.inside, path, digest)
	if err != nil {
		return err
	}
	for _, r := range referrers {
		if !slices.ContainsFunc(same, func(s v1.Descriptor) bool { return s.Digest == r.Digest }) {
			return fmt.Errorf("inside %s is no referrer of %s", r.Digest, at)
		}
	}
	for _, next := range append(index.Manifests, referrers...) {
		if err := c.manifest(path, next.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) get(host, at string) (*remote.Descriptor, error) {
	ref, err := name.ParseReference(host + "/" + at)
	if err != nil {
		return nil, err
	}
	return remote.Get(ref, remote.WithContext(c.ctx))
}

func (c *comparison) referrers(host, path string, digest v1.Hash) ([]v1.Descriptor, error) {
	repo, err := name.NewRepository(host + "/" + path)
	if err != nil {
		return nil, err
	}
	index, err := remote.Referrers(repo.Digest(digest.String()), remote.WithContext(c.ctx))
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return m.Manifests, nil
}

// shortTag cuts the digest in the tag of a signature.
func shortTag(tag string) string {
	digest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(digest) < 64 {
		return tag
	}
	return "sha256-" + digest[:12] + ".." + digest[64:]
}

// checkSignature verifies the vendor's signature of an image with what is in
// the registry at host.
func checkSignature(ctx context.Context, host, path string, digest v1.Hash, key *ecdsa.PublicKey) error {
	ref, err := name.ParseReference(host + "/" + path + ":" + signatureTagOf(digest))
	if err != nil {
		return err
	}
	image, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return err
	}
	m, err := image.Manifest()
	if err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		return fmt.Errorf("%s has %d signatures: %w", ref, len(layers), err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		return err
	}
	defer body.Close()
	payload, err := io.ReadAll(io.LimitReader(body, 1<<16))
	if err != nil {
		return err
	}
	signature, err := base64.StdEncoding.DecodeString(m.Layers[0].Annotations[sigAnnotation])
	if err != nil {
		return err
	}
	sum := sha256.Sum256(payload)
	if !ecdsa.VerifyASN1(key, sum[:], signature) || !bytes.Contains(payload, []byte(`"`+digest.String()+`"`)) {
		return errors.New("the signature of " + path + " does not hold")
	}
	return nil
}
