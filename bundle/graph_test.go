package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/verify"
)

// addIndex adds an image that is an index of the manifests, whose content is
// packed as the layers of a group.
func (s *sample) addIndex(target string, children []oci.Descriptor, rest ...Blob) Blob {
	b := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": children})
	s.groups = append(s.groups, Group{Small: []Blob{b}, Layers: rest})
	s.manifest.Images = append(s.manifest.Images, Image{Digest: b.Digest, MediaType: oci.MediaTypeIndex, Size: b.Size,
		Source: "registry.example/" + target, Target: target, Tags: []string{"1"}})
	return b
}

// addManifest returns the manifest of a config and layers, which no image names.
func (s *sample) addManifest(config Blob, layers ...Blob) Blob {
	list := []oci.Descriptor{}
	for _, b := range layers {
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar", b))
	}
	return s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest, "config": descriptor(oci.MediaTypeConfig, config), "layers": list})
}

// A reader finds all that the manifests of a bundle refer to, wherever it
// stands, or says what is missing or is another thing.
func TestGraph(t *testing.T) {
	layer := func(s *sample) Blob { return s.addBlob([]byte("the layer")) }
	config := func(s *sample) Blob { return s.addBlob([]byte(`{"os":"linux","architecture":"amd64"}`)) }
	manifest := func(b Blob) oci.Descriptor { return descriptor(oci.MediaTypeManifest, b) }
	based := func(s *sample, blobs ...BaseBlob) {
		s.manifest.Base = &Base{Blobs: blobs, Digest: verify.DigestOf(nil), Name: "demo", Version: "0"}
	}
	for _, tt := range []struct {
		name string
		make func(s *sample)
		says string // empty when it is whole
	}{
		{"child behind its layer", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, layer(s), child, config(s))
		}, ""},
		{"index of an index behind a layer", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			inner := s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": []oci.Descriptor{manifest(child)}})
			s.addIndex("a", []oci.Descriptor{descriptor(oci.MediaTypeIndex, inner)}, layer(s), config(s), child, inner)
		}, ""},
		{"child is not there", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, layer(s), config(s))
		}, "there is no manifest"},
		{"child is too large", func(s *sample) {
			child := s.addBlob(bytes.Repeat([]byte(" "), oci.MaxManifest+1))
			d := manifest(child)
			d.Size--
			s.addIndex("a", []oci.Descriptor{d}, layer(s), child)
		}, "of at most 4194304 bytes"},
		{"child as large as may be is no manifest", func(s *sample) {
			child := s.addBlob(bytes.Repeat([]byte(" "), oci.MaxManifest))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, layer(s), child)
		}, "EOF"},
		{"child is of two types", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child), descriptor(oci.MediaTypeIndex, child)}, layer(s), child, config(s))
		}, "is both"},
		{"child is an image of another type", func(s *sample) {
			s.addImage("b", "1", "the layer")
			image := s.manifest.Images[0]
			s.addIndex("a", []oci.Descriptor{{MediaType: oci.MediaTypeIndex, Digest: image.Digest, Size: image.Size}})
		}, "is both"},
		{"child that is an image too", func(s *sample) {
			s.addImage("b", "1", "the layer")
			image := s.manifest.Images[0]
			s.addIndex("a", []oci.Descriptor{{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}})
		}, ""},
		{"child of another size", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			d := manifest(child)
			d.Size++
			s.addIndex("a", []oci.Descriptor{d}, layer(s), child, config(s))
		}, "bytes in the volumes and"},
		{"layer of another size", func(s *sample) {
			b := layer(s)
			child := s.addManifest(config(s), Blob{b.Digest, b.Size + 1})
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, b, config(s))
		}, "has 9 bytes in the volumes and 10 in"},
		{"layer in the base", func(s *sample) {
			b := layer(s)
			child := s.addManifest(config(s), b)
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, config(s))
			based(s, BaseBlob{b.Digest, b.Size, "a"})
		}, ""},
		{"layer in the base, of another size", func(s *sample) {
			b := layer(s)
			child := s.addManifest(config(s), b)
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, config(s))
			based(s, BaseBlob{b.Digest, b.Size - 1, "a"})
		}, "has 8 bytes in the volumes and 9 in"},
		{"another layer in the base", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, config(s))
			based(s, BaseBlob{verify.DigestOf(nil), 9, "a"})
		}, "it does not have " + verify.DigestOf([]byte("the layer")).String()},
		{"no config", func(s *sample) {
			child := s.addManifest(config(s), layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, layer(s))
		}, "it does not have"},
		{"config that is no small document", func(s *sample) {
			large := s.addBlob(bytes.Repeat([]byte("c"), oci.MaxManifest+1))
			child := s.addManifest(large, layer(s))
			s.addIndex("a", []oci.Descriptor{manifest(child)}, child, large, layer(s))
		}, ""},
		{"referrer of another size", func(s *sample) {
			s.addImage("b", "1", "the layer")
			s.manifest.Images[0].Referrers[0].Size++
		}, "bytes and type"},
		{"referrer of another type", func(s *sample) {
			s.addImage("b", "1", "the layer")
			s.manifest.Images[0].Referrers[0].MediaType = oci.MediaTypeDockerManifest
		}, "mediaType"},
		{"one digest as an image of two types", func(s *sample) {
			s.addImage("b", "1", "the layer")
			again := s.manifest.Images[0]
			again.Target, again.MediaType, again.Referrers = "c", oci.MediaTypeIndex, nil
			s.manifest.Images = append([]Image{again}, s.manifest.Images...)
		}, "bytes and type"},
	} {
		s := newSample()
		tt.make(s)
		store := newMemory()
		s.write(t, store, 0)
		err := readAll(store, "", readOptions("one"))
		if tt.says == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if class(err) != "invalid" || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}

// A manifest that stands behind layers is read with as much care as one at the
// head: each byte of it and of what is around it counts (T01, T03).
func TestManifestBehindLayers(t *testing.T) {
	s := newSample()
	layer, config := s.addBlob([]byte("the layer")), s.addBlob([]byte("{}"))
	child := s.addManifest(config, layer)
	s.addIndex("a", []oci.Descriptor{descriptor(oci.MediaTypeManifest, child)}, layer, child, config)
	store := newMemory()
	set := s.write(t, store, 0)
	open := func() error {
		r, err := OpenReader(t.Context(), store, "", readOptions("one"))
		if err == nil {
			r.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	at := set.file(set.places[child.Digest][0])
	volume := store.objects[VolumeName(0)]
	for i := at.Start; i < at.End(); i++ {
		volume[i] ^= 1
		if err := open(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d of %d: %v", i-at.Start, at.End()-at.Start, err)
		}
		volume[i] ^= 1
	}
}

// What a reader keeps in memory has a bound (T15).
func TestDocumentsBound(t *testing.T) {
	s := small()
	s.pack(t, 0)
	raw, sig := signManifest(t, s.manifest, "one")
	set := openSet(t, raw, sig)
	image := s.manifest.Images[0]
	content := s.blobs[image.Digest]
	for more, want := range map[int64]error{0: nil, 1: ErrInvalid} {
		d := newDocuments(set.manifest)
		d.size = maxDocuments - int64(len(content)) + more
		if err := d.add(image.Digest, content); !errors.Is(err, want) {
			t.Errorf("%d bytes in all: %v, want %v", d.size, err, want)
		}
		if err := d.add(image.Digest, content); want == nil && (err != nil || d.size != maxDocuments) {
			t.Errorf("the same again: %d bytes, %v", d.size, err)
		}
	}
	store := newMemory()
	if err := s.writeSet(store, set); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(t.Context(), store, "", readOptions("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := r.docs.size
	for more, want := range map[int64]error{0: nil, 1: ErrInvalid} {
		r.docs = newDocuments(r.manifest)
		r.docs.size = maxDocuments - all + more
		if err := r.checkEnds(t.Context(), 0); !errors.Is(err, want) {
			t.Errorf("%d bytes more than may be: %v, want %v", more, err, want)
		}
	}
	r.docs = newDocuments(r.manifest)
	first := r.layouts[0].Files[0]
	r.docs.size = maxDocuments - first.Size + 1
	if err := r.checkEnds(t.Context(), 0); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "manifests, configs and documents") {
		t.Errorf("documents of the layout: %v", err)
	}
}

// The same document in several volumes is kept once; two that differ are kept
// both.
func TestAddLayout(t *testing.T) {
	d := newDocuments(small().manifest)
	for _, doc := range []Document{{"a", []byte("1")}, {"a", []byte("1")}, {"a", []byte("2")}, {"b", []byte("1")}, {"b", []byte("1")}} {
		d.addLayout(doc)
	}
	if got := fmt.Sprintf("%s", d.layout); got != "[{a 1} {a 2} {b 1}]" || d.size != 3 {
		t.Errorf("%s, %d bytes", got, d.size)
	}
}
