package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/verify"
)

// stock are the tools of others that the tests of this file run.
type stock struct {
	t             *testing.T
	crane, regctl string
	outside       *registrytest.Server
	samples       []*registrytest.Sample
	dir           string // where commands run
}

func newStock(t *testing.T) *stock {
	t.Helper()
	for _, name := range []string{"skopeo", "bsdtar", "tar"} {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: run make tools", name)
		} else if err != nil {
			t.Skipf("%s is missing: run make tools", name)
		}
	}
	s := &stock{t: t, crane: registrytest.Tool(t, "crane"), regctl: registrytest.Tool(t, "regctl"),
		outside: registrytest.Start(t, registrytest.Options{}), samples: registrytest.Samples(), dir: t.TempDir()}
	if err := registrytest.PushAll(t.Context(), s.outside.Host, s.samples); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a program in the folder of the test, and returns its stdout.
func (s *stock) run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Errorf("%s %q: %v", filepath.Base(name), args, err)
	}
	return out
}

func (s *stock) try(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=one", "DOCKER_CONFIG="+s.dir, "HOME="+s.dir, "XDG_STATE_HOME="+filepath.Join(s.dir, ".state"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Logf("%s %q: %s", filepath.Base(name), args, &stderr)
	}
	return string(out), err
}

// export exports samples, by all of their tags, as the bundle NAME 1 below
// the folder of the test, and returns its volumes.
func (s *stock) export(name string, samples []*registrytest.Sample, flags ...string) (volumes []string) {
	s.t.Helper()
	args := []string{"export"}
	for _, sample := range samples {
		for _, tag := range sample.ImageTags() {
			args = append(args, s.outside.Host+"/"+sample.Repository+":"+tag)
		}
	}
	s.run("ferry", append(append(args, ".", "--name", name, "--version", "1", "--key", testKey(s.t, "one.key")), flags...)...)
	found, err := filepath.Glob(filepath.Join(s.dir, name, "1", "volume-*.tar"))
	if err != nil || len(found) == 0 {
		s.t.Fatalf("no volumes: %v", err)
	}
	return found
}

// inOCI reports whether skopeo's oci transports know the type of a sample: they
// look for OCI's only.
func inOCI(sample *registrytest.Sample) bool {
	return sample.Root.MediaType == oci.MediaTypeManifest || sample.Root.MediaType == oci.MediaTypeIndex
}

// entriesOf returns the names and digests of the files in a volume, as package
// archive/tar reads them.
func entriesOf(t *testing.T, volume string) (names []string, digests map[verify.Digest]bool) {
	t.Helper()
	f, err := os.Open(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digests = map[verify.Digest]bool{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names, digests
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		digests[verify.DigestOf(content)] = true
	}
}

// holds reports whether all content of a sample's image is among digests.
func holds(digests map[verify.Digest]bool, sample *registrytest.Sample) bool {
	missing := func(c registrytest.Content) bool { return !digests[c.Digest] }
	return !slices.ContainsFunc(sample.Blobs, missing) && !slices.ContainsFunc(sample.Manifests, missing)
}

// Stock tools read each volume of an uncut set, and all together as one image
// layout.
func TestStockToolsRead(t *testing.T) {
	s := newStock(t)
	volumes := s.export("uncut", s.samples, "--volume-size", "3250kB")
	if len(volumes) < 2 {
		t.Fatalf("only %d volumes", len(volumes))
	}
	seen := map[string]bool{}
	for _, volume := range volumes {
		names, digests := entriesOf(t, volume)
		listed := strings.Join(names, "\n") + "\n"
		if strings.Contains(listed, "pieces/") || !strings.HasPrefix(listed, "bundle.json\nbundle.sigstore.json\noci-layout\nindex.json\n") {
			t.Errorf("%s has %q", volume, names)
		}
		for _, tool := range []string{"tar", "bsdtar"} {
			if got := s.run(tool, "tf", volume); got != listed {
				t.Errorf("%s tf %s = %q, want %q", tool, volume, got, listed)
			}
		}
		images := 0
		for _, sample := range s.samples {
			if !holds(digests, sample) {
				continue
			}
			images++
			seen[sample.Repository] = true
			if inOCI(sample) && sample.Repository != "team/deep/nested" { // skopeo copies no index of an index
				s.copyFromVolume(volume, sample)
			}
			if sample.Files != nil {
				s.copyFromArchive(volume, sample)
			}
		}
		if images == 0 {
			t.Errorf("%s has no whole image", volume)
		}
	}
	for _, sample := range s.samples {
		if !seen[sample.Repository] {
			t.Errorf("no volume has all of %s", sample.Repository)
		}
	}
	s.run("sh", "-c", "mkdir all && for v in uncut/1/*.tar; do tar xf $v -C all; done")
	s.readLayout("all")
}

// copyFromVolume copies an image out of a volume with skopeo, which checks
// each blob; every tag gives the manifest of the source.
func (s *stock) copyFromVolume(volume string, sample *registrytest.Sample) {
	s.t.Helper()
	for _, tag := range sample.ImageTags() {
		out := s.t.TempDir()
		s.run("skopeo", "copy", "-q", "--all", "oci-archive:"+volume+":"+sample.Repository+":"+tag, "dir:"+out)
		content, err := os.ReadFile(filepath.Join(out, "manifest.json"))
		if got := verify.DigestOf(content); err != nil || got != sample.Root.Digest {
			s.t.Errorf("%s:%s is %s by skopeo, %v; want %s", sample.Repository, tag, got, err, sample.Root.Digest)
		}
	}
}

// copyFromArchive copies an image of one platform out of a volume as a docker
// archive: with skopeo, and with crane. The config, and so the image ID, and
// the number of layers are those of the source; docker's form has no more.
func (s *stock) copyFromArchive(volume string, sample *registrytest.Sample) {
	s.t.Helper()
	content, _ := sample.Manifest(sample.Root.Digest)
	want, err := oci.Parse(content, sample.Root.MediaType)
	if err != nil {
		s.t.Fatal(err)
	}
	name := s.outside.Host + "/" + sample.Repository + ":" + sample.ImageTags()[0]
	out := s.t.TempDir()
	s.run("skopeo", "copy", "-q", "docker-archive:"+volume+":"+name, "dir:"+out)
	copied, err := os.ReadFile(filepath.Join(out, "manifest.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var got struct {
		Config oci.Descriptor
		Layers []oci.Descriptor
	}
	if err := json.Unmarshal(copied, &got); err != nil || got.Config.Digest != want.Config.Digest || len(got.Layers) != len(want.Layers) {
		s.t.Errorf("%s is %s by skopeo, %v; want the config %s", name, copied, err, want.Config.Digest)
	}
	if digest := strings.TrimSpace(s.run(s.crane, "digest", "--tarball", volume, name)); !strings.HasPrefix(digest, "sha256:") {
		s.t.Errorf("crane digest of %s is %q", name, digest)
	}
}

// readLayout reads the image layout of all samples in a folder with skopeo,
// regctl and crane.
func (s *stock) readLayout(folder string) {
	s.t.Helper()
	inside := registrytest.Memory(s.t, registrytest.Options{})
	s.run(s.crane, "push", "--index", "--insecure", folder, inside.Host+"/all:1")
	for _, sample := range s.samples {
		want, _ := sample.Manifest(sample.Root.Digest)
		for _, tag := range sample.ImageTags() {
			if !inOCI(sample) {
				continue
			}
			if got := s.run("skopeo", "inspect", "--raw", "oci:"+folder+":"+sample.Repository+":"+tag); got != string(want) {
				s.t.Errorf("skopeo reads %s:%s as %s", sample.Repository, tag, got)
			}
		}
		at := "ocidir://" + folder + "@" + sample.Root.Digest.String()
		if got := s.run(s.regctl, "manifest", "get", "--format", "raw-body", at); got != string(want) {
			s.t.Errorf("regctl reads %s as %s", sample.Repository, got)
		}
		if got := s.run(s.crane, "manifest", "--insecure", inside.Host+"/all@"+sample.Root.Digest.String()); got != string(want) {
			s.t.Errorf("crane has pushed %s as %s", sample.Repository, got)
		}
		listed := s.run(s.regctl, "artifact", "list", "--digest-tags", at)
		for _, referrer := range sample.Referrers[sample.Root.Digest] {
			if !strings.Contains(listed, referrer.String()) {
				s.t.Errorf("regctl does not list the referrer %s of %s: %s", referrer, sample.Repository, listed)
			}
		}
		for tag, d := range sample.Tags {
			if of, ok := strings.CutPrefix(tag, "sha256-"+sample.Root.Digest.Hex()+"."); ok && !strings.Contains(listed, d.String()) {
				s.t.Errorf("regctl does not list the %s of %s: %s", of, sample.Repository, listed)
			}
		}
	}
}

// A volume of one image is an archive for docker load and crane, a layout that
// crane pushes.
func TestStockToolsReadOne(t *testing.T) {
	s := newStock(t)
	volumes := s.export("one", []*registrytest.Sample{sampleOf(t, "team/thirty")})
	s.run(s.crane, "validate", "--tarball", volumes[0])
	inside := registrytest.Memory(t, registrytest.Options{})
	s.run("sh", "-c", "mkdir layout && tar xf one/1/volume-001.tar -C layout")
	s.run(s.crane, "push", "--insecure", "layout", inside.Host+"/thirty:v30")
	if got, want := strings.TrimSpace(s.run(s.crane, "digest", "--insecure", inside.Host+"/thirty:v30")), sampleOf(t, "team/thirty").Root.Digest.String(); got != want {
		t.Errorf("crane has pushed %s, want %s", got, want)
	}
	s.run(s.crane, "validate", "--insecure", "--remote", inside.Host+"/thirty:v30")
}

// formatCode returns the lines of code in docs/format.md that contain each of
// the words, so that what is documented is what is tested.
func formatCode(t *testing.T, words ...string) string {
	t.Helper()
	for _, block := range regexp.MustCompile(`(?m)(^    .*\n)+`).FindAllString(readDoc(t, "docs/format.md"), -1) {
		has := func(word string) bool { return strings.Contains(block, word) }
		if !slices.ContainsFunc(words, func(w string) bool { return !has(w) }) {
			return regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, "")
		}
	}
	t.Fatalf("docs/format.md has no code with %q", words)
	return ""
}

// A layout with cut blobs is put together as docs/format.md says.
func TestStockToolsJoin(t *testing.T) {
	s := newStock(t)
	samples := []*registrytest.Sample{sampleOf(t, "team/large"), sampleOf(t, "team/single")}
	if volumes := s.export("cut", samples, "--volume-size", "1MiB"); len(volumes) < 3 {
		t.Fatalf("only %d volumes", len(volumes))
	}
	var extract, join string
	for line := range strings.Lines(formatCode(t, "tar xf $v -C layout", "cat layout/pieces")) {
		line, _, _ = strings.Cut(line, "#")
		switch {
		case strings.Contains(line, "tar xf"):
			extract = line
		case strings.Contains(line, "cat layout/pieces"):
			join = line
		}
	}
	s.dir = filepath.Join(s.dir, "cut", "1")
	s.run("sh", "-c", "mkdir layout\n"+extract)
	pieces, err := os.ReadDir(filepath.Join(s.dir, "layout", "pieces"))
	if err != nil || len(pieces) == 0 {
		t.Fatalf("nothing was cut: %v", err)
	}
	for _, piece := range pieces {
		s.run("sh", "-c", strings.ReplaceAll(join, "<hex>", piece.Name()))
	}
	for _, sample := range samples {
		s.run("skopeo", "copy", "-q", "oci:layout:"+sample.Repository+":"+sample.ImageTags()[0], "dir:"+t.TempDir())
	}
}

// noNetwork are the words before a command that has no network, or none where
// that can not be had.
func noNetwork(t *testing.T) []string {
	t.Helper()
	for _, words := range [][]string{{"unshare", "-n"}, {"unshare", "-rn"}} {
		if exec.Command(words[0], append(words[1:], "true")...).Run() == nil {
			return words
		}
	}
	if os.Getuid() == 0 && os.Getenv("CI") != "" {
		t.Error("root can not unshare -n")
	}
	t.Log("the commands of this test have the network: unshare -n is not possible here")
	return nil
}

// Stock cosign, two and three, verifies a bundle as docs/format.md says, with
// no network, and refuses a changed one; its own key pairs sign exports; and a
// further signature of it counts. Ferry verifies with no network, too.
func TestStockCosign(t *testing.T) {
	s := newStock(t)
	verifyBlob, signBlob := formatCode(t, "cosign verify-blob"), formatCode(t, "cosign sign-blob")
	root, none := s.dir, noNetwork(t)
	offline := func(name string, args ...string) error {
		words := append(slices.Clone(none), append([]string{name}, args...)...)
		_, err := s.try(words[0], words[1:]...)
		return err
	}
	for _, version := range []string{"cosign2", "cosign3"} {
		t.Run(version, func(t *testing.T) {
			s.t, s.dir = t, filepath.Join(root, version)
			bin := filepath.Join(s.dir, "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(registrytest.Tool(t, version), filepath.Join(bin, "cosign")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			s.run("cosign", "generate-key-pair") // cosign.key, cosign.pub
			s.run("ferry", "export", s.outside.Host+"/team/single:latest", "usb", "--name", "n", "--version", "1", "--key", "cosign.key")
			s.run("ferry", "keygen", "--output-key-prefix", "site")
			s.run("ferry", "import", "usb", registrytest.Memory(t, registrytest.Options{}).Host, "--key", "cosign.pub",
				"--receipt", "receipt.json", "--receipt-key", "site.key")
			if err := offline("ferry", "verify", "usb", "--key", "cosign.pub"); err != nil {
				t.Errorf("ferry with a key of cosign's: %v", err)
			}
			s.run("sh", "-c", "cp usb/n/1/bundle.json usb/n/1/bundle.sigstore.json .")
			if err := offline("sh", "-c", verifyBlob); err != nil {
				t.Errorf("%s: %v", verifyBlob, err)
			}
			receipt := strings.NewReplacer("bundle.sigstore.json", "receipt.json.sigstore.json", "bundle.json", "receipt.json", "cosign.pub", "site.pub").Replace(verifyBlob)
			if err := offline("sh", "-c", receipt); err != nil {
				t.Errorf("%s: %v", receipt, err)
			}
			for _, name := range []string{"bundle.json", "bundle.sigstore.json"} {
				if err := flip(filepath.Join(s.dir, name), "300"); err != nil {
					t.Fatal(err)
				}
				if offline("sh", "-c", verifyBlob) == nil {
					t.Errorf("%s: a changed %s is accepted", version, name)
				}
				if err := flip(filepath.Join(s.dir, name), "300"); err != nil {
					t.Fatal(err)
				}
			}
			if err := offline("sh", "-c", verifyBlob); err != nil {
				t.Errorf("after all was changed back: %v", err)
			}

			// A key of the site's own, made by ferry, signs with stock cosign.
			sign := strings.Replace(signBlob, "cosign.key", "site.key", 1)
			if err := offline("sh", "-c", sign); err != nil {
				t.Fatalf("%s: %v", sign, err)
			}
			if err := offline("ferry", "verify", "usb", "--key", "site.pub"); err == nil {
				t.Error("the site's key is accepted without a signature of it")
			}
			s.run("cp", "bundle.site.sigstore.json", "usb/n/1/")
			for _, key := range []string{"site.pub", "cosign.pub"} {
				if err := offline("ferry", "verify", "usb", "--key", key); err != nil {
					t.Errorf("with %s: %v", key, err)
				}
			}
		})
	}
}

// No file of a bundle that ferry has written may be changed by reading it.
func TestReadingChangesNothing(t *testing.T) {
	s := newStock(t)
	s.export("kept", []*registrytest.Sample{sampleOf(t, "team/single")})
	digests := func() string { return s.run("sh", "-c", "sha256sum kept/1/*; stat -c '%n %y %a' kept/1 kept/1/*") }
	before := digests()
	public := testKey(t, "one.pub")
	inside := registrytest.Memory(t, registrytest.Options{})
	s.run("ferry", "verify", "kept", "--key", public)
	s.run("ferry", "import", "kept", inside.Host, "--key", public)
	s.run("ferry", "copy", "kept", "copied", "--key", public)
	s.run("ferry", "extract", "kept", "out", "--key", public)
	s.run("ferry", "tree", "kept")
	if after := digests(); after != before || !strings.Contains(before, bundle.ManifestName) {
		t.Errorf("the source was changed: %s, before: %s", after, before)
	}
}
