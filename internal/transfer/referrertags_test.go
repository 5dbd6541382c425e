package transfer_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// repacked returns the volume of a bundle of one volume with another
// bundle.json, that nobody has checked and the key of the bundle signs: what a
// patched export writes.
func repacked(t *testing.T, volume []byte, was bundle.VolumeLayout, m *bundle.Manifest) []byte {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := testSigner(t).Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = bundle.PadSignature(sig); err != nil {
		t.Fatal(err)
	}
	const block = 512
	return slices.Concat(bundle.TarHeader(bundle.ManifestName, int64(len(raw))), raw, make([]byte, -len(raw)&(block-1)),
		bundle.TarHeader(bundle.SignatureName, int64(len(sig))), sig, make([]byte, -len(sig)&(block-1)), volume[was.HeadSize:])
}

// tagsAt returns what each tag of a repository names.
func tagsAt(t *testing.T, client *registry.Client, repo registry.Repository) map[string]verify.Digest {
	t.Helper()
	names, err := client.Tags(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]verify.Digest{}
	for _, name := range names {
		d, err := client.Head(t.Context(), repo.Tag(name))
		if err != nil {
			t.Fatal(err)
		}
		tags[name] = d.Digest
	}
	return tags
}

// T28, T29: an image that travels as a referrer of a signed one, which nobody
// has signed, gets no name at the site by which it would be taken for an image:
// a bundle that gives it one can not be opened.
func TestReferrerIsNoImage(t *testing.T) {
	b := newImage(t, "team/app").sign()
	content, _ := b.Manifest(b.Root.Digest)
	image, err := oci.Parse(content, b.Root.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	// It repeats the layers of the image, so that under its tag nothing would be lost.
	layers := append(slices.Clone(image.Layers), b.blob("application/vnd.oci.image.layer.v1.tar", []byte("an evil layer"), nil))
	evil := b.manifest(map[string]any{"config": image.Config, "layers": layers, "subject": b.Root})
	b.Referrers[b.Root.Digest] = append(b.Referrers[b.Root.Digest], evil.Digest)
	outside, client, store := registrytest.Memory(t, registrytest.Options{}), newClient(t), &storetest.Mem{}
	if err := b.Push(t.Context(), outside.Host); err != nil {
		t.Fatal(err)
	}
	if _, err := export(t, client, requestsFor(t, outside.Host, samplesOf(b)), store, options(t, "demo")); err != nil {
		t.Fatal(err)
	}
	good := openReader(t, bundle.Sub(store, "demo/1"), "")
	volume, _ := store.Get("demo/1/" + bundle.VolumeName(0))
	at := slices.IndexFunc(good.Manifest().Images[0].Referrers, func(r bundle.Referrer) bool { return r.Digest == evil.Digest })
	if at < 0 {
		t.Fatal("the bundle does not have the evil image")
	}
	policy := imagePolicy(t, nil, "", byOne("**"))
	own := "sha256-" + b.Root.Digest.Hex()
	for name, tt := range map[string]struct {
		tag   string
		opens bool
	}{
		"none": {"", true}, "of a signature": {own + ".sig", true}, "of an attestation": {own + ".att", true}, "of an SBOM": {own + ".sbom", true}, "of the list": {own, true},
		"new": {"v9", false}, "in use": {"latest", false}, "of another subject": {"sha256-" + evil.Digest.Hex() + ".sig", false},
		"in capitals": {"sha256-" + strings.ToUpper(b.Root.Digest.Hex()) + ".sig", false}, "of another kind": {own + ".cosign", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := *good.Manifest()
			m.Images = slices.Clone(m.Images)
			m.Images[0].Referrers = slices.Clone(m.Images[0].Referrers)
			m.Images[0].Referrers[at].Tag = tt.tag
			store := &storetest.Mem{}
			store.Set(bundle.VolumeName(0), repacked(t, volume, good.Volumes()[0], &m))
			inside := registrytest.Memory(t, registrytest.Options{})
			to := transfer.Destination{Host: inside.Host}
			if _, err := importTo(t, client, good, to); err != nil {
				t.Fatal(err)
			}
			repo := registry.Repository{Host: inside.Host, Path: "team/app"}
			if err := client.PushManifest(t.Context(), repo.Tag("latest"), b.Root.MediaType, content); err != nil {
				t.Fatal(err)
			}
			want := tagsAt(t, client, repo)
			r, err := tryReader(t, store, bundle.VolumeName(0))
			if !tt.opens && (!errors.Is(err, bundle.ErrInvalid) || !strings.Contains(err.Error(), "is not of its subject")) {
				t.Errorf("tag %q: %v", tt.tag, err)
			}
			if tt.opens && err != nil {
				t.Fatal(err)
			}
			if r != nil {
				if verified, err := transfer.VerifyImages(t.Context(), transfer.BundleSource(r), r.Manifest().Images, policy, testTime, 2); err != nil || len(verified) != 1 {
					t.Errorf("%v, %v", verified, err)
				}
				if _, err := importTo(t, client, r, to); err != nil {
					t.Error(err)
				}
			}
			got := tagsAt(t, client, repo)
			if tt.opens && tt.tag != "" && tt.tag != own && got[tt.tag] != evil.Digest { // what is no list is left out under own
				t.Errorf("tag %q is %s, want %s", tt.tag, got[tt.tag], evil.Digest)
			}
			if tt.opens {
				delete(got, tt.tag)
			}
			if !maps.Equal(got, want) {
				t.Errorf("tag %q: the site has the tags %v, had %v", tt.tag, got, want)
			}
		})
	}
}

// The tag of an image moves to what the bundle has, which is told. That of
// signatures does not when some would be lost, and then nothing is written.
func TestOwnTagMoves(t *testing.T) {
	b := newImage(t, "team/app")
	b.tag(".sig", b.blob(typeSimpleSigning, []byte("a signature"), nil))
	was := newImage(t, "team/app")
	old := was.manifest(map[string]any{"config": was.blob(oci.MediaTypeConfig, []byte("{}"), nil),
		"layers": []oci.Descriptor{was.blob("application/vnd.oci.image.layer.v1.tar", []byte("another layer"), nil)}})
	r := bundleOf(t, samplesOf(b))
	for _, tag := range []string{"1", bundle.ReferrerTags(b.Root.Digest)[0]} {
		inside, client := registrytest.Memory(t, registrytest.Options{}), newClient(t)
		was.Tags = map[string]verify.Digest{tag: old.Digest}
		if err := was.Push(t.Context(), inside.Host); err != nil {
			t.Fatal(err)
		}
		inside.Reset()
		result, err := importTo(t, client, r, transfer.Destination{Host: inside.Host})
		if tag == "1" {
			if err != nil {
				t.Fatal(err)
			}
			if got := result.Images[0].Moved; len(got) != 1 || got[tag] != old.Digest.String() {
				t.Errorf("moved are %v, want tag %s from %s", got, tag, old.Digest)
			}
			if got := tagsAt(t, client, registry.Repository{Host: inside.Host, Path: "team/app"}); got[tag] != b.Root.Digest {
				t.Errorf("tag %s is %s, want %s", tag, got[tag], b.Root.Digest)
			}
			continue
		}
		if !errors.Is(err, transfer.ErrConflict) || !strings.Contains(err.Error(), tag+" has signatures") || len(inside.Writes()) > 0 {
			t.Errorf("tag %s: %v; written %v", tag, err, inside.Writes())
		}
	}
}

// Two signatures of one image are over the same bytes: what tells them apart is
// in the annotations, and neither takes the other's place.
func TestSignaturesOverTheSame(t *testing.T) {
	signed := func(signatures ...string) *builder {
		b := newImage(t, "team/app")
		var layers []oci.Descriptor
		for _, s := range signatures {
			layers = append(layers, b.blob(typeSimpleSigning, []byte("what is signed"), map[string]string{"dev.cosignproject.cosign/signature": s}))
		}
		return b.tag(".sig", layers...)
	}
	for name, tt := range map[string]struct {
		there, comes []string
		want         error
	}{
		"the same": {[]string{"a"}, []string{"a"}, nil}, "one more": {[]string{"a"}, []string{"a", "b"}, nil},
		"another": {[]string{"a"}, []string{"b"}, transfer.ErrConflict}, "one less": {[]string{"a", "b"}, []string{"b"}, transfer.ErrConflict},
	} {
		inside := registrytest.Memory(t, registrytest.Options{})
		if err := signed(tt.there...).Push(t.Context(), inside.Host); err != nil {
			t.Fatal(err)
		}
		inside.Reset()
		_, err := importTo(t, newClient(t), bundleOf(t, samplesOf(signed(tt.comes...))), transfer.Destination{Host: inside.Host})
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil || tt.want != nil && len(inside.Writes()) > 0 {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
