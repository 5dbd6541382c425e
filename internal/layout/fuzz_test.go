package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"unicode/utf8"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/verify"
)

// bytesObject is a [bundle.Object] in memory.
type bytesObject []byte

func (o bytesObject) Size() int64  { return int64(len(o)) }
func (o bytesObject) Close() error { return nil }

func (o bytesObject) Range(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if err := bundle.CheckRange(off, n, o.Size()); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(o[off : off+n])), nil
}

// FuzzOpen shows that of an archive of any bytes either nothing is taken, or
// images of which each manifest that ferry made is sound and names blobs that
// lie in the archive (T07 to T14).
func FuzzOpen(f *testing.F) {
	s := newSmall(f)
	layer, config := "a layer", `{"rootfs":{"diff_ids":["`+digestOf("a layer").String()+`"]}}`
	zipped := gzipOf(f, layer)
	for _, files := range [][]file{s.layout(f), {
		{name: "c.json", content: config}, {name: "l/layer.tar", content: layer},
		{name: dockerName, content: `[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["l/layer.tar"]}]`},
	}, {
		{name: "c.json", content: config}, {name: "l.tar.gz", content: zipped}, {name: "x", link: "l.tar.gz"},
		{name: dockerName, content: `[{"Config":"c.json","RepoTags":null,"Layers":["x"]},{"Config":"c.json","Layers":["l.tar.gz"]}]`},
	}, {
		{name: "c.json", content: "{}"}, {name: dockerName, content: `[{"Config":"c.json","RepoTags":[],"Layers":[]}]`},
	}, {{name: dockerName, content: `[null]`}}, {{name: dockerName, content: `null`}}} {
		whole := tarOf(f, files...)
		f.Add(whole, uint32(0), uint32(0), []byte(nil))
		for at := 0; at < len(whole)-2*tarBlock; at += tarBlock {
			f.Add(whole, uint32(at), uint32(1), []byte("["))
		}
	}
	f.Fuzz(func(t *testing.T, content []byte, at, cut uint32, text []byte) {
		from := min(int(at), len(content))
		content = slices.Concat(content[:from], text, content[min(from+int(cut), len(content)):])
		src, err := openArchive(t.Context(), bytesObject(content))
		if err != nil {
			if src != nil || !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrCompressed) {
				t.Errorf("openArchive = %v, %v", src, err)
			}
			return
		}
		names := map[imageName]bool{}
		for _, image := range src.Images() {
			if err := checkRoot(image.Descriptor); err != nil {
				t.Errorf("image %+v: %v", image, err)
			}
			for _, name := range image.Names {
				if key := (imageName{image.Descriptor.Digest, name}); name == "" || names[key] {
					t.Errorf("image %s has the name %q twice", image.Descriptor.Digest, name)
				} else {
					names[key] = true
				}
			}
		}
		for d, manifest := range src.manifests {
			m, err := oci.Parse(manifest, oci.MediaTypeManifest)
			if err != nil || verify.DigestOf(manifest) != d {
				t.Fatalf("manifest %s that was made: %q, %v", d, manifest, err)
			}
			for _, blob := range m.Blobs() {
				if size, ok := src.Size(t.Context(), blob.Digest); !ok || size != blob.Size {
					t.Errorf("%q has %d bytes in the archive, %t", manifest, size, ok)
				}
				if r, err := src.OpenBlob(t.Context(), blob.Digest, blob.Size); err != nil {
					t.Errorf("the end of %s: %v", blob.Digest, err)
				} else {
					r.Close()
				}
			}
		}
		again, err := openArchive(t.Context(), bytesObject(content))
		if err != nil || !slices.EqualFunc(again.Images(), src.Images(), func(a, b Image) bool {
			return a.Descriptor.Digest == b.Descriptor.Digest && slices.Equal(a.Names, b.Names)
		}) {
			t.Errorf("a second time it has other images, %v", err)
		}
	})
}

// FuzzIndex shows that an index.json that is added to lists what it did and
// what was added, and that nothing is written that would not be read again.
func FuzzIndex(f *testing.F) {
	s := newSmall(f)
	for _, file := range s.layout(f) {
		if file.name == indexName {
			f.Add([]byte(file.content), "v1")
		}
	}
	for _, text := range []string{`null`, `{}`, `[]`, `{"manifests":null}`, `{"manifests":[null]}`, `{"schemaVersion":2,"manifests":[],"Manifests":[{}]}`,
		`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[{"mediaType":"` + oci.MediaTypeManifest + `","digest":"` + digestOf("x").String() + `","size":1,"annotations":{"` + annotationRef + `":"v1"}}]}`} {
		f.Add([]byte(text), "v1")
		f.Add([]byte(text), "")
		f.Add([]byte(text), "\xff")
	}
	f.Fuzz(func(t *testing.T, old []byte, name string) {
		before, oldErr := parseIndex(old)
		if oldErr != nil && (before != nil || !errors.Is(oldErr, ErrInvalid)) {
			t.Errorf("parseIndex = %v, %v", before, oldErr)
		}
		d := descriptorOf("new")
		merged, err := mergeIndex(old, []Named{{name, d}})
		if err != nil {
			if merged != nil || oldErr == nil && utf8.ValidString(name) {
				t.Errorf("mergeIndex(%q) = %q, %v, and it can be read", old, merged, err)
			}
			return
		}
		if oldErr != nil {
			return // what others have in it stays as it is
		}
		after, err := parseIndex(merged)
		if err != nil {
			t.Fatalf("mergeIndex(%q) = %q: %v", old, merged, err)
		}
		digests := map[verify.Digest]bool{}
		for _, image := range after {
			digests[image.Descriptor.Digest] = true
			if image.Descriptor.Digest != d.Digest && slices.Contains(image.Names, name) && name != "" &&
				image.Descriptor.Annotations[annotationRef] == name {
				t.Errorf("mergeIndex(%q) = %q has %q twice", old, merged, name)
			}
		}
		for _, image := range before {
			digest := image.Descriptor.Digest
			if !digests[digest] && image.Descriptor.Annotations[annotationRef] != name {
				t.Errorf("mergeIndex(%q) = %q lost %s", old, merged, digest)
			}
		}
		if !digests[d.Digest] {
			t.Errorf("mergeIndex(%q) = %q lacks what was added", old, merged)
		}
		if twice, err := mergeIndex(merged, []Named{{name, d}}); err != nil || !bytes.Equal(twice, merged) {
			t.Errorf("mergeIndex a second time: %q, then %q, %v", merged, twice, err)
		}
	})
}
