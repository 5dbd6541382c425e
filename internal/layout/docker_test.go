package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/verify"
)

// configOf returns the config of an image with layers.
func configOf(t testing.TB, layers ...string) string {
	var diffs []verify.Digest
	for _, layer := range layers {
		diffs = append(diffs, digestOf(layer))
	}
	return toJSON(t, map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
}

// layersOf parses the manifest d.
func layersOf(t testing.TB, s *Source, d oci.Descriptor) *oci.Manifest {
	t.Helper()
	content, err := s.Manifest(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oci.Parse(content, d.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// oldSave is what docker save before 25.0 wrote for two images with the same
// first layer: a folder for each layer of each image, and a link where the
// layer stands in another folder.
func oldSave(t testing.TB) (files []file, layers, configs []string) {
	base := string(tarOf(t, file{name: "etc/motd", content: "base"}))
	a := string(tarOf(t, file{name: "a", content: "of a"}))
	b := string(tarOf(t, file{name: "b", content: "of b"}))
	configs = []string{configOf(t, base, a), configOf(t, base, b, base)}
	id := func(i int) string { return digestOf(fmt.Sprint("layer", i)).Hex() }
	add := func(i int, layer file) {
		layer.name = id(i) + "/layer.tar"
		files = append(files, file{name: id(i) + "/"}, file{name: id(i) + "/VERSION", content: "1.0"},
			file{name: id(i) + "/json", content: "{}"}, layer)
	}
	add(0, file{content: base})
	add(1, file{content: a})
	add(2, file{link: "../" + id(3) + "/layer.tar"})
	add(3, file{link: "../" + id(0) + "/layer.tar"})
	add(4, file{content: b})
	var list []dockerImage
	for i, of := range [][]int{{0, 1}, {3, 4, 2}} {
		image := dockerImage{Config: digestOf(configs[i]).Hex() + ".json", RepoTags: []string{fmt.Sprintf("demo/%d:latest", i)}}
		for _, l := range of {
			image.Layers = append(image.Layers, id(l)+"/layer.tar")
		}
		list = append(list, image)
		files = append(files, file{name: image.Config, content: configs[i]})
	}
	list[1].RepoTags = append(list[1].RepoTags, "demo/1:2", "demo/1:2")
	files = append(files, file{name: dockerName, content: toJSON(t, list)}, file{name: "repositories", content: "{}"})
	return files, []string{base, a, b}, configs
}

func TestOldDockerSave(t *testing.T) {
	files, layers, configs := oldSave(t)
	src := mustOpen(t, write(t, tarOf(t, files...)))
	images := src.Images()
	want := [][]string{{"demo/0:latest"}, {"demo/1:latest", "demo/1:2"}}
	order := [][]int{{0, 1}, {0, 2, 0}}
	if len(images) != 2 {
		t.Fatalf("%d images, want 2", len(images))
	}
	for i, image := range images {
		if !slices.Equal(image.Names, want[i]) || image.Descriptor.MediaType != oci.MediaTypeManifest {
			t.Errorf("image %d: %+v, want names %q", i, image, want[i])
		}
		checkImage(t, src, image.Descriptor)
		m := layersOf(t, src, image.Descriptor)
		if m.Config.Digest != digestOf(configs[i]) || m.Config.MediaType != oci.MediaTypeConfig {
			t.Errorf("image %d: config %+v, want the image ID %s", i, m.Config, digestOf(configs[i]))
		}
		for l, d := range m.Layers {
			if want := layers[order[i][l]]; d.Digest != digestOf(want) || d.Size != int64(len(want)) || d.MediaType != typeTar {
				t.Errorf("image %d: layer %d is %+v", i, l, d)
			}
		}
	}
	again := mustOpen(t, write(t, tarOf(t, files...))).Images()
	if !reflect.DeepEqual(again, images) {
		t.Error("the manifests are other ones the second time")
	}
}

// The manifest that is made is a promise: another byte in it is another digest
// in every registry that it was pushed to.
func TestDockerManifestBytes(t *testing.T) {
	config, layer := `{"rootfs":{"diff_ids":["`+digestOf("layer").String()+`"]}}`, "layer"
	src := mustOpen(t, write(t, tarOf(t, file{name: "c", content: config}, file{name: "l", content: layer},
		file{name: dockerName, content: `[{"Config":"c","RepoTags":null,"Layers":["l"],"Parent":"ignored"}]`})))
	got, err := src.Manifest(t.Context(), src.Images()[0].Descriptor)
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digestOf(config).String() + `","size":99},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + digestOf(layer).String() + `","size":5}]}`
	if err != nil || string(got) != want {
		t.Errorf("Manifest = %s, %v\nwant %s", got, err, want)
	}
}

// Compressed layers stay as they are, and get the digest that they have.
func TestCompressedLayers(t *testing.T) {
	plain := string(tarOf(t, file{name: "a", content: strings.Repeat("content", 1000)}))
	gz, zst := gzipOf(t, plain), zstdOf(t, plain)
	config := configOf(t, plain, plain, plain, plain)
	files := []file{
		{name: "config.json", content: config}, {name: "1.tar.gz", content: gz}, {name: "2.tar", content: zst},
		{name: "3.tar", content: plain}, {name: "4.tar", link: "1.tar.gz"},
		{name: dockerName, content: toJSON(t, []dockerImage{
			{Config: "config.json", RepoTags: []string{"x"}, Layers: []string{"1.tar.gz", "2.tar", "3.tar", "4.tar"}},
			{Config: "config.json", RepoTags: []string{"y"}, Layers: []string{"1.tar.gz", "2.tar", "3.tar", "4.tar"}},
		})},
	}
	path := write(t, tarOf(t, files...))
	src := mustOpen(t, path)
	images := src.Images()
	if len(images) != 1 || !slices.Equal(images[0].Names, []string{"x", "y"}) {
		t.Fatalf("Images() = %+v, want one with both names", images)
	}
	checkImage(t, src, images[0].Descriptor)
	want := []struct{ content, mediaType string }{{gz, typeGzip}, {zst, typeZstd}, {plain, typeTar}, {gz, typeGzip}}
	for i, d := range layersOf(t, src, images[0].Descriptor).Layers {
		if d.Digest != digestOf(want[i].content) || d.MediaType != want[i].mediaType || d.Size != int64(len(want[i].content)) {
			t.Errorf("layer %d is %+v", i, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenContext(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenContext after cancel = %v", err)
	}
}

// A plain layer is known by its diff_id: other bytes are found where they are
// used, not before (T01).
func TestTamperedDockerLayer(t *testing.T) {
	files, layers, _ := oldSave(t)
	for i, f := range files {
		if f.content == layers[0] {
			files[i].content = strings.Replace(f.content, "base", "BASE", 1)
		}
	}
	src := mustOpen(t, write(t, tarOf(t, files...)))
	d := oci.Descriptor{Digest: digestOf(layers[0]), Size: int64(len(layers[0]))}
	if _, err := readBlob(src, d); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("reading the tampered layer = %v, want ErrMismatch", err)
	}
}

func TestHostileDockerArchives(t *testing.T) {
	layer := string(tarOf(t, file{name: "a", content: "b"}))
	config := configOf(t, layer)
	manifest := func(images ...dockerImage) file { return file{name: dockerName, content: toJSON(t, images)} }
	one := manifest(dockerImage{Config: "c", Layers: []string{"l"}})
	c, l := file{name: "c", content: config}, file{name: "l", content: layer}
	link := func(to string) file { return file{name: "l", link: to} }
	src := mustOpen(t, write(t, tarOf(t, c, l, one)))
	checkImage(t, src, src.Images()[0].Descriptor)

	zeros := make([]verify.Digest, oci.MaxDescriptors)
	for i := range zeros {
		zeros[i] = digestOf(layer)
	}
	long := file{name: "c", content: toJSON(t, map[string]any{"rootfs": map[string]any{"diff_ids": zeros}})}
	half := file{name: "c", content: toJSON(t, map[string]any{"rootfs": map[string]any{"diff_ids": zeros[:4000]}})}
	for _, c := range []struct {
		name  string
		files []file
		want  string // in the error
	}{
		{"a manifest.json that is no JSON", []file{c, l, {name: dockerName, content: "["}}, dockerName},
		{"a manifest.json that is no list", []file{c, l, {name: dockerName, content: "{}"}}, dockerName},
		{"two manifest.json in one", []file{c, l, {name: dockerName, content: "[][]"}}, dockerName},
		{"a manifest.json that is too long", []file{c, l, {name: dockerName, content: "[]" + strings.Repeat(" ", oci.MaxManifest)}}, "4194304"},
		{"too many images", []file{c, l, manifest(make([]dockerImage, oci.MaxDescriptors+1)...)}, "4096 images"},
		{"no config", []file{l, one}, `no file "c"`},
		{"no name of a config", []file{l, manifest(dockerImage{Layers: []string{"l"}})}, `no file ""`},
		{"a config that is no JSON", []file{{name: "c", content: "x"}, l, one}, "config"},
		{"a config that is too long", []file{{name: "c", content: strings.Repeat(" ", oci.MaxManifest+1)}, l, one}, "4194304"},
		{"a config with another name than digest", []file{{name: digestOf("x").Hex() + ".json", content: config}, l,
			manifest(dockerImage{Config: digestOf("x").Hex() + ".json", Layers: []string{"l"}})}, digestOf(config).String()},
		{"a diff_id too few", []file{{name: "c", content: configOf(t)}, l, one}, "0 diff_ids for 1 layers"},
		{"a diff_id too many", []file{{name: "c", content: configOf(t, layer, layer)}, l, one}, "2 diff_ids for 1 layers"},
		{"a diff_id of another kind", []file{{name: "c", content: strings.Replace(config, "sha256:", "md5:", 1)}, l, one}, "md5"}, // T12
		{"a diff_id that is null", []file{{name: "c", content: `{"rootfs":{"diff_ids":[null]}}`}, l, one}, "no diff_id"},
		{"no layer", []file{c, one}, `no file "l"`},
		{"a layer that is a folder", []file{c, {name: "l/"}, one}, `no file "l"`},
		{"a layer that climbs", []file{c, l, manifest(dockerImage{Config: "c", Layers: []string{"../l"}})}, `no file "../l"`},
		{"an absolute layer", []file{c, l, manifest(dockerImage{Config: "c", Layers: []string{"/etc/passwd"}})}, `no file "/etc/passwd"`},
		{"a link to itself", []file{c, link("l"), one}, "more than 40 links"},
		{"links in a circle", []file{c, link("m"), {name: "m", link: "l"}, one}, "more than 40 links"},
		{"a link out of the archive", []file{c, link("../l"), one}, "leads out"},
		{"a link out and in again", []file{c, link("x/../../x"), {name: "x", content: layer}, one}, "leads out"},
		{"an absolute link", []file{c, link("/etc/passwd"), one}, "leads out"},
		{"a link to nothing", []file{c, link("x"), one}, `no file "x"`},
		{"a link to a folder", []file{c, link("x"), {name: "x/"}, one}, `no file "x"`},
		{"a layer below a link", []file{c, {name: "x", link: "y"}, {name: "y/l", content: layer}, manifest(dockerImage{Config: "c", Layers: []string{"x/l"}})}, `no file "x/l"`},
		{"a layer in xz", []file{c, {name: "l", content: "\xfd7zXZ\x00"}, one}, "xz"},
		{"a layer in bzip2", []file{c, {name: "l", content: "BZh9"}, one}, "bzip2"},
		{"two sizes for one diff_id", []file{{name: "c", content: configOf(t, layer, layer)}, l, {name: "m", content: layer + "x"},
			manifest(dockerImage{Config: "c", Layers: []string{"l", "m"}})}, "two sizes"},
		{"too many layers", []file{long, l, manifest(dockerImage{Config: "c", Layers: slices.Repeat([]string{"l"}, oci.MaxDescriptors)})}, "4095 layers"},
		{"too many layers of all images", []file{half, l,
			manifest(slices.Repeat([]dockerImage{{Config: "c", Layers: slices.Repeat([]string{"l"}, 4000)}}, 17)...)}, "65536"},
	} {
		src, err := Open(write(t, tarOf(t, c.files...)))
		if err == nil {
			src.Close()
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: Open = %v, want ErrInvalid with %q", c.name, err, c.want)
		}
	}
}

// No image at all is for the caller to refuse.
func TestEmptyDockerArchive(t *testing.T) {
	src := mustOpen(t, write(t, tarOf(t, file{name: dockerName, content: "[]"})))
	if got := src.Images(); len(got) != 0 {
		t.Errorf("Images() = %v", got)
	}
	if _, err := json.Marshal(src.Images()); err != nil {
		t.Error(err)
	}
}
