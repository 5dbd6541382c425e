package bundle

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"ferry/internal/oci"
	"ferry/verify"
)

// testKeys are committed keys, so that vectors can be made again. The
// password of each is its name.
var testKeys = sync.OnceValue(func() map[string]*verify.Signer {
	keys := map[string]*verify.Signer{}
	for _, name := range []string{"one", "two"} {
		pem, err := os.ReadFile("../testdata/keys/" + name + ".key")
		if err != nil {
			panic(err)
		}
		if keys[name], err = verify.LoadSigner(pem, []byte(name)); err != nil {
			panic(err)
		}
	}
	return keys
})

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func readOptions(names ...string) ReadOptions {
	var keys []verify.Key
	for _, name := range names {
		keys = append(keys, testKeys()[name].Key())
	}
	return ReadOptions{Policy: verify.KeyPolicy(keys...), Now: testTime}
}

// sample is content to make bundles of.
type sample struct {
	manifest *Manifest
	groups   []Group
	blobs    map[verify.Digest][]byte
	docs     []Document
}

// addBlob returns the blob of some content.
func (s *sample) addBlob(content []byte) Blob {
	d := verify.DigestOf(content)
	s.blobs[d] = content
	return Blob{d, int64(len(content))}
}

// addImage adds an image whose layers have the contents, with a signature.
func (s *sample) addImage(target, tag string, layers ...string) {
	config := s.addBlob(fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","target":%q}`, target))
	m := map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest, "config": descriptor(oci.MediaTypeConfig, config)}
	g := Group{}
	var list []oci.Descriptor
	for _, layer := range layers {
		b := s.addBlob([]byte(layer))
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar", b))
		g.Layers = append(g.Layers, b)
	}
	m["layers"] = list
	manifest := s.addJSON(m)
	sigLayer := s.addBlob([]byte("signature of " + target))
	sig := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest,
		"config": descriptor(oci.MediaTypeConfig, config), "layers": []oci.Descriptor{descriptor("application/vnd.dev.cosign.simplesigning.v1+json", sigLayer)}})
	g.Small = []Blob{manifest, sig, config}
	g.Layers = append(g.Layers, sigLayer)
	s.groups = append(s.groups, g)
	s.manifest.Images = append(s.manifest.Images, Image{Digest: manifest.Digest, MediaType: oci.MediaTypeManifest, Size: manifest.Size,
		Source: "registry.example/" + target + ":" + tag, Target: target, Tags: []string{tag},
		Referrers: []Referrer{{ArtifactType: "application/vnd.dev.cosign", Digest: sig.Digest, MediaType: oci.MediaTypeManifest, Size: sig.Size,
			Subject: manifest.Digest, Tag: "sha256-" + manifest.Digest.Hex() + ".sig"}}})
}

func (s *sample) addJSON(v any) Blob {
	content, err := compactJSON(v)
	if err != nil {
		panic(err)
	}
	return s.addBlob(content)
}

func descriptor(mediaType string, b Blob) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: b.Digest, Size: b.Size}
}

func newSample() *sample {
	return &sample{manifest: &Manifest{Format: Format, Name: "demo", Version: "1", Sequence: 7, Created: "2026-11-21T00:00:00Z"},
		blobs: map[verify.Digest][]byte{}}
}

// small is the sample that most tests use: two images that share a layer.
func small() *sample {
	s := newSample()
	s.addImage("library/base", "1.0", "the base layer")
	s.addImage("team/app", "v2", "the base layer", "the layer of the app")
	return s
}

func (s *sample) parsed(d verify.Digest) *oci.Manifest {
	m, err := oci.Parse(s.blobs[d], "")
	if err != nil {
		return nil
	}
	return m
}

// pack fills in the volumes.
func (s *sample) pack(t testing.TB, volumeSize int64) {
	t.Helper()
	var err error
	if s.docs, err = LayoutDocuments(s.manifest.Images, s.parsed); err != nil {
		t.Fatal(err)
	}
	if err := s.manifest.Pack(s.docs, s.groups, volumeSize); err != nil {
		t.Fatal(err)
	}
}

// sign returns the manifest's bytes and a padded signature.
func signManifest(t testing.TB, m *Manifest, key string) (raw, sig []byte) {
	t.Helper()
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw, signRaw(t, raw, key)
}

func signRaw(t testing.TB, raw []byte, key string) []byte {
	t.Helper()
	sig, err := testKeys()[key].Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = PadSignature(sig); err != nil {
		t.Fatal(err)
	}
	return sig
}

func openSet(t testing.TB, raw, sig []byte) *Set {
	t.Helper()
	set, err := Open(context.Background(), Envelope{Raw: raw, Signature: sig}, readOptions("one", "two"))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// write writes the sample as a bundle into store.
func (s *sample) write(t testing.TB, store Store, volumeSize int64) *Set {
	t.Helper()
	s.pack(t, volumeSize)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	if err := s.writeSet(store, set); err != nil {
		t.Fatal(err)
	}
	return set
}

func (s *sample) writeSet(store Store, set *Set) error {
	ctx := context.Background()
	w, err := NewWriter(ctx, store, set, s.docs)
	if err != nil {
		return err
	}
	defer w.Close()
	for part, err := range w.Parts(ctx) {
		if err != nil {
			return err
		}
		if part.Kept {
			continue
		}
		if err := w.Write(ctx, part, bytes.NewReader(s.blobs[part.Digest][part.Offset:])); err != nil {
			return err
		}
	}
	return w.Finish(ctx)
}
