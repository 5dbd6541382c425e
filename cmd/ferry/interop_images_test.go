package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/sigstoretest"
	"ferry/verify"
)

// writePolicy writes and signs a policy of the keys one and two, with rules for
// images, and returns its name.
func (s *stock) writePolicy(name, images string) string {
	s.t.Helper()
	file := name + ".yaml"
	s.run("ferry", "trust", "init", file, "--key", testKey(s.t, "one.pub"), "--key", testKey(s.t, "two.pub"))
	path := filepath.Join(s.dir, file)
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, images...), 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.run("ferry", "trust", "sign", file, "--key", testKey(s.t, "one.key"))
	return file
}

// signingForm is a way in which stock cosign signs.
type signingForm struct {
	name, tool   string
	sign, attest []string // flags
}

// signingForms are the forms of signatures by key pair: under cosign's tags, as
// both versions write them, and as bundles. Cosign 2 signs images only the old
// way, and attests in both.
func signingForms() []signingForm {
	plain := []string{"--tlog-upload=false"}
	three := append(slices.Clone(plain), "--use-signing-config=false")
	return []signingForm{
		{"two", "cosign2", plain, plain},
		{"two-bundle", "cosign2", plain, append(slices.Clone(plain), "--new-bundle-format")},
		{"three", "cosign3", append(slices.Clone(three), "--new-bundle-format=false"), append(slices.Clone(three), "--new-bundle-format=false")},
		{"three-bundle", "cosign3", three, three},
	}
}

// cosign signs or attests with a key of the repository's.
func (s *stock) cosign(tool, verb, key string, flags []string, args ...string) {
	s.t.Helper()
	name := strings.TrimSuffix(key, ".key")
	all := append([]string{"COSIGN_PASSWORD=" + name, registrytest.Tool(s.t, tool), verb, "--yes", "--key", testKey(s.t, key), "--allow-http-registry"}, flags...)
	s.run("env", append(all, args...)...)
}

// What stock cosign, two and three, has signed is verified at the registry, one
// with the referrers API and one without, and after the trip with no network.
func TestStockCosignImages(t *testing.T) {
	s := newStock(t)
	none := noNetwork(t)
	api := registrytest.Memory(t, registrytest.Options{})
	if err := sampleOf(t, "team/single").Push(t.Context(), api.Host); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "sbom.json"), []byte(`{"bomFormat":"CycloneDX"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	rule := "images:\n  - repositories: ['signed/*']\n    keys: [one]\n    threshold: 1\n"
	full := rule + "    attestations: ['https://example.com/checked']\n    sbom: true\n"
	policies := map[string]string{
		"signed": s.writePolicy("signed", rule), "full": s.writePolicy("full", full),
		"two":     s.writePolicy("two", strings.NewReplacer("[one]", "[one, two]", "threshold: 1", "threshold: 2").Replace(rule)),
		"another": s.writePolicy("another", strings.Replace(rule, "[one]", "[two]", 1)),
		"missing": s.writePolicy("missing", rule+"    attestations: ['https://slsa.dev/provenance/v1']\n"),
	}
	// Policies of one version exclude each other at a site: each has a state.
	for i, host := range []string{s.outside.Host, api.Host} {
		for _, form := range signingForms() {
			name := fmt.Sprintf("%s-%d", form.name, i)
			t.Run(name, func(t *testing.T) {
				s.t = t
				at := host + "/signed/" + form.name
				s.run(s.crane, "copy", "--insecure", host+"/team/single:latest", at+":1")
				s.cosign(form.tool, "sign", "one.key", form.sign, at+":1")
				s.cosign(form.tool, "sign", "one.key", form.sign, at+":1")
				s.cosign(form.tool, "attest", "two.key", form.attest, "--predicate", "sbom.json", "--type", "https://slsa.dev/provenance/v1", at+":1")
				for _, predicate := range []string{"cyclonedx", "https://example.com/checked"} {
					s.cosign(form.tool, "attest", "one.key", form.attest, "--predicate", "sbom.json", "--type", predicate, at+":1")
				}
				s.run("ferry", "export", at+":1", "usb", "--name", name, "--version", "1", "--key", testKey(t, "one.key"),
					"--verify-images", "--policy", policies["full"])
				// try has the policy verify the images of the bundle without a network.
				try := func(policy string) (string, error) {
					words := append(slices.Clone(none), "ferry", "import", "usb/"+name, "./"+name+"-"+policy, "--policy", policies[policy], "--format", "json",
						"--state", name+"-"+policy+"-state")
					return s.try(words[0], words[1:]...)
				}
				for policy, good := range map[string]bool{"signed": true, "full": true, "two": false, "another": false, "missing": false} {
					out, err := try(policy)
					var exit *exec.ExitError
					if !good && (!errors.As(err, &exit) || exit.ExitCode() != exitUntrusted) {
						t.Errorf("with the policy %q: %v, want exit code %d", policy, err, exitUntrusted)
					}
					if (err == nil) != good || good != strings.Contains(out, `"key": "one"`) {
						t.Errorf("with the policy %q: %v, %s", policy, err, out)
					}
					if _, err := os.Stat(filepath.Join(s.dir, name+"-"+policy)); good == os.IsNotExist(err) {
						t.Errorf("with the policy %q: is there a layout? %v", policy, err)
					}
				}
			})
		}
	}
}

// Keyless signatures are verified with the trusted root beside the policy, and
// with no network.
func TestKeylessImages(t *testing.T) {
	const issuer, subject = "https://token.example", "builder@example.com"
	none, authority := noNetwork(t), sigstoretest.New(t)
	s := &stock{t: t, dir: t.TempDir()}
	outside := registrytest.Memory(t, registrytest.Options{})
	sample := sampleOf(t, "team/single")
	payload := fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"}}`, sample.Root.Digest)
	var layers []oci.Descriptor
	for _, content := range [][]byte{[]byte("{}"), payload} {
		d := oci.Descriptor{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: verify.DigestOf(content), Size: int64(len(content))}
		sample.Blobs = append(sample.Blobs, registrytest.Content{Descriptor: d, Bytes: content})
		layers = append(layers, d)
	}
	layers[0].MediaType, layers[1].Annotations = oci.MediaTypeConfig, authority.SignPayload(payload, sigstoretest.Options{Issuer: issuer, Subject: subject})
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest, "config": layers[0], "layers": layers[1:]})
	if err != nil {
		t.Fatal(err)
	}
	d := oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: verify.DigestOf(manifest), Size: int64(len(manifest))}
	sample.Manifests = append(sample.Manifests, registrytest.Content{Descriptor: d, Bytes: manifest})
	sample.Tags["sha256-"+sample.Root.Digest.Hex()+".sig"] = d.Digest
	if err := sample.Push(t.Context(), outside.Host); err != nil {
		t.Fatal(err)
	}
	root := authority.TrustedRoot(false)
	if err := os.WriteFile(filepath.Join(s.dir, "trusted_root.json"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	policyFor := func(name, subject string) string {
		return s.writePolicy(name, fmt.Sprintf("images:\n  - repositories: ['**']\n    threshold: 1\n    identities:\n      - issuer: %s\n        subject: %s\n"+
			"    trustedRoot:\n      file: trusted_root.json\n      sha256: %s\n", issuer, subject, verify.DigestOf(root).Hex()))
	}
	good, wrong := policyFor("good", subject), policyFor("wrong", "somebody@example.com")
	s.run("ferry", "export", outside.Host+"/team/single:latest", "usb", "--name", "n", "--version", "1", "--key", testKey(t, "one.key"), "--verify-images", "--policy", good)
	try := func(policy string) (string, error) {
		words := append(slices.Clone(none), "ferry", "import", "usb", "./layout-"+policy, "--policy", policy, "--format", "json", "--state", policy+"-state")
		return s.try(words[0], words[1:]...)
	}
	if out, err := try(good); err != nil || !strings.Contains(out, `"subject": "`+subject+`"`) {
		t.Errorf("%v, %s", err, out)
	}
	var exit *exec.ExitError
	if out, err := try(wrong); !errors.As(err, &exit) || exit.ExitCode() != exitUntrusted {
		t.Errorf("with another subject: %v, %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "trusted_root.json"), sigstoretest.New(t).TrustedRoot(false), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := try(good); !errors.As(err, &exit) || exit.ExitCode() != exitUntrusted {
		t.Errorf("with another trusted root: %v, %s", err, out)
	}
}
