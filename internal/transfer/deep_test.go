package transfer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/bundle"
	"ferry/internal/extract"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// image is one that a test makes, right or wrong.
type image struct {
	layers  [][]byte
	types   []string // of the layers
	diffIDs []string
	config  string // in place of one that is right
	arch    string // in the config
	says    string // architecture in the index; "" for no index
}

const typeLayer = "application/vnd.oci.image.layer.v1.tar+gzip"

// packed returns an archive of one file, and that compressed.
func packed(t *testing.T, content string) (plain, compressed []byte) {
	t.Helper()
	var archive, z bytes.Buffer
	w := tar.NewWriter(&archive)
	w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Size: int64(len(content))})
	w.Write([]byte(content))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	g := gzip.NewWriter(&z)
	g.Write(archive.Bytes())
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes(), z.Bytes()
}

// push pushes the image as host/a/b:1.
func (i image) push(t *testing.T, client *registry.Client, host string) {
	t.Helper()
	repo := registry.Repository{Host: host, Path: "a/b"}
	doc := func(v any) []byte {
		content, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	blob := func(mediaType string, content []byte) oci.Descriptor {
		d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
		base := "http://" + host + "/v2/a/b/blobs/uploads/"
		send(t, "POST", base+"?digest="+d.Digest.String(), "application/octet-stream", content)
		return d
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest}
	layers := []oci.Descriptor{}
	for n, l := range i.layers {
		mediaType := typeLayer
		if i.types != nil {
			mediaType = i.types[n]
		}
		layers = append(layers, blob(mediaType, l))
	}
	config := []byte(i.config)
	if i.config == "" {
		arch := i.arch
		if arch == "" {
			arch = "amd64"
		}
		config = doc(map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"type": "layers", "diff_ids": i.diffIDs}})
	}
	m["layers"], m["config"] = layers, blob(oci.MediaTypeConfig, config)
	content, mediaType := doc(m), oci.MediaTypeManifest
	if i.says != "" {
		if err := client.PushManifest(t.Context(), repo.Digest(verify.DigestOf(content)), mediaType, content); err != nil {
			t.Fatal(err)
		}
		child := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content)), Platform: &oci.Platform{OS: "linux", Architecture: i.says}}
		content, mediaType = doc(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeIndex, "manifests": []oci.Descriptor{child}}), oci.MediaTypeIndex
	}
	if err := client.PushManifest(t.Context(), repo.Tag("1"), mediaType, content); err != nil {
		t.Fatal(err)
	}
}

// Content that is as it was signed, and of no use, is found by deep only: in a
// bundle and in a registry alike.
func TestVerifyDeep(t *testing.T) {
	plain, layer := packed(t, "content")
	other, _ := packed(t, "other")
	_, bomb := packed(t, strings.Repeat("\x00", 100<<20))
	id := func(b []byte) string { return verify.DigestOf(b).String() }
	one := func(l []byte, diffIDs ...string) image { return image{layers: [][]byte{l}, diffIDs: diffIDs} }
	for _, tt := range []struct {
		name string
		image
		want error
		text string
		done transfer.Unpacked
	}{
		{name: "right", image: one(layer, id(plain)), done: transfer.Unpacked{Layers: 1}},
		{name: "twice the same layer", image: image{layers: [][]byte{layer, layer}, diffIDs: []string{id(plain), id(plain)}}, done: transfer.Unpacked{Layers: 1}},
		{name: "an index that is right", image: image{layers: [][]byte{layer}, diffIDs: []string{id(plain)}, arch: "arm64", says: "arm64"}, done: transfer.Unpacked{Layers: 1}},
		{name: "encrypted", image: image{layers: [][]byte{layer, []byte("secret")}, types: []string{typeLayer, typeLayer + "+encrypted"}, diffIDs: []string{id(plain), id(other)}}, done: transfer.Unpacked{Layers: 1, Closed: 1}},
		{name: "layers that are no archives of files", image: image{layers: [][]byte{[]byte("{}")}, types: []string{"application/vnd.in-toto+json"}, diffIDs: []string{id(other)}}},
		{name: "other content", image: one(layer, id(other)), want: extract.ErrInvalid, text: "layer sha256:.* unpacks to " + id(plain) + ", and the config says " + id(other)},
		{name: "one of two layers", image: image{layers: [][]byte{layer, layer}, diffIDs: []string{id(plain), id(other)}}, want: extract.ErrInvalid, text: "unpacks to"},
		{name: "the digest of what is compressed", image: one(layer, id(layer)), want: extract.ErrInvalid, text: "unpacks to"},
		{name: "a layer too few", image: one(layer), want: oci.ErrInvalid, text: "is for 0 layers, and the manifest has 1"},
		{name: "a layer too many", image: one(layer, id(plain), id(plain)), want: oci.ErrInvalid, text: "is for 2 layers, and the manifest has 1"},
		{name: "another digest algorithm", image: one(layer, "md5:"+strings.Repeat("0", 32)), want: oci.ErrInvalid, text: "config sha256:.*md5"},
		{name: "a config that is none", image: image{config: "hello"}, want: oci.ErrInvalid, text: "config sha256:"},
		{name: "a layer that is no archive", image: one([]byte("hello"), id([]byte("hello"))), want: extract.ErrInvalid, text: "a/b: image sha256:.*layer"},
		{name: "a layer cut before it was pushed", image: one(layer[:len(layer)-9], id(plain)), want: extract.ErrInvalid, text: "a/b: image sha256:.*layer"},
		{name: "a bomb (T19)", image: one(bomb, id(plain)), want: extract.ErrLimit, text: "over 200 to one"},
		{name: "another platform (T17)", image: image{layers: [][]byte{layer}, diffIDs: []string{id(plain)}, says: "arm64"}, want: oci.ErrInvalid, text: "is for linux/arm64, its config says linux/amd64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, client := registrytest.Memory(t, registrytest.Options{}), newClient(t)
			tt.push(t, client, server.Host)
			store := &storetest.Mem{}
			o := options(t, "demo")
			o.VolumeSize = 1 << 20
			if _, err := export(t, client, []transfer.Request{request(t, server.Host+"/a/b:1")}, store, o); err != nil {
				t.Fatal(err)
			}
			r := openReader(t, bundle.Sub(store, "demo/1"), "")
			plainTotal, err := transfer.Verify(t.Context(), r, 2, transfer.Silent{})
			if err != nil {
				t.Errorf("verify: %v", err)
			}
			check := func(how string, done transfer.Unpacked, err error) {
				t.Helper()
				switch {
				case !errors.Is(err, tt.want):
					t.Errorf("%s: %v, want %v", how, err, tt.want)
				case tt.want != nil && !regexp.MustCompile(tt.text).MatchString(err.Error()):
					t.Errorf("%s: %v, want %s", how, err, tt.text)
				case tt.want == nil && done != tt.done:
					t.Errorf("%s: unpacked %+v, want %+v", how, done, tt.done)
				}
			}
			total, done, err := transfer.VerifyDeep(t.Context(), r, 2, transfer.Silent{})
			check("verify --deep", done, err)
			if total != plainTotal {
				t.Errorf("%+v in all, want %+v", total, plainTotal)
			}
			result, err := standing(t, client, registry.Repository{Host: server.Host, Path: "a/b"}.Tag("1"))
			if result == nil {
				result = &transfer.ReadBackResult{}
			}
			check("in the registry", result.Unpacked, err)
		})
	}
}

// readBytes counts what is read.
type readBytes struct {
	transfer.Silent
	n atomic.Int64
}

func (r *readBytes) Start(string, int64) transfer.Task { return r }
func (r *readBytes) Add(n int64)                       { r.n.Add(n) }
func (r *readBytes) Done(error)                        {}

// A damaged layer is told as verify tells it, whatever it unpacks to; each byte
// is read once.
func TestVerifyDeepDamaged(t *testing.T) {
	server, client := registrytest.Memory(t, registrytest.Options{}), newClient(t)
	samples := registrytest.Samples()
	if err := registrytest.PushAll(t.Context(), server.Host, samples); err != nil {
		t.Fatal(err)
	}
	store := &storetest.Mem{}
	o := options(t, "demo")
	o.VolumeSize = 1 << 20 // cuts a layer
	e, err := export(t, client, requestsFor(t, server.Host, samples), store, o)
	if err != nil {
		t.Fatal(err)
	}
	read := &readBytes{}
	total, done, err := transfer.VerifyDeep(t.Context(), openReader(t, bundle.Sub(store, "demo/1"), ""), 2, read)
	if err != nil || done.Layers < 40 || done.Closed != 0 {
		t.Fatalf("unpacked %+v, %v", done, err)
	}
	if n := read.n.Load(); n != total.Bytes {
		t.Errorf("%d bytes were read of %d", n, total.Bytes)
	}
	damaged := 0
	for v, l := range e.plan.Set.Volumes() {
		name := "demo/1/" + bundle.VolumeName(v)
		whole, _ := store.Get(name)
		for _, f := range l.Files {
			if f.Size < 100 || !strings.Contains(f.Path, "blobs/") && !strings.Contains(f.Path, "pieces/") {
				continue
			}
			content := bytes.Clone(whole)
			content[f.Content()+f.Size/2] ^= 1
			store.Set(name, content)
			r, err := tryReader(t, bundle.Sub(store, "demo/1"), "")
			if err != nil {
				continue // a manifest or a config, which opening reads
			}
			_, want := transfer.Verify(t.Context(), r, 2, transfer.Silent{})
			_, _, got := transfer.VerifyDeep(t.Context(), r, 2, transfer.Silent{})
			if !errors.Is(got, bundle.ErrCorrupt) || want == nil || got.Error() != want.Error() {
				t.Errorf("%s: %v, want %v", f.Path, got, want)
			}
			damaged++
		}
		store.Set(name, whole)
	}
	if damaged < 40 {
		t.Errorf("only %d were damaged", damaged)
	}
}
