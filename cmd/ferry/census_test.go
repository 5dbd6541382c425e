package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/registrytest"
)

// census is an image at a registry with signatures and the like that stock
// tools have made.
type census struct {
	*stock
	sample                           *registrytest.Sample
	cosign2, cosign3, oras, notation string
	index, amd, arm, unsigned        string // digests
	sbom                             string // digest of an SBOM that is a referrer
}

const censusRepository = "team/multi"

// newCensus makes keys, and signs the image at outside with all tools.
func newCensus(t *testing.T, outside *registrytest.Server) *census {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", "")
	c := &census{stock: &stock{t: t, crane: registrytest.Tool(t, "crane"), outside: outside, dir: t.TempDir()}, sample: sampleOf(t, censusRepository),
		cosign2: registrytest.Tool(t, "cosign2"), cosign3: registrytest.Tool(t, "cosign3"),
		oras: registrytest.Tool(t, "oras"), notation: registrytest.Tool(t, "notation")}
	if err := c.sample.Push(t.Context(), outside.Host); err != nil {
		t.Fatal(err)
	}
	c.index = c.sample.Root.Digest.String()
	for i, at := range []*string{&c.amd, &c.arm, &c.unsigned} {
		*at = c.sample.Manifests[i].Digest.String()
	}
	for name, content := range map[string]string{
		"predicate.json": `{"about":"the build"}`, "sbom.json": `{"spdxVersion":"SPDX-2.3"}`, "0.json": `{"of":"the index"}`, "1.json": `{"of":"amd64"}`, "2.json": `{"of":"arm64"}`,
		"policy.json": `{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],"signatureVerification":{"level":"strict"},` +
			`"trustStores":["ca:site"],"trustedIdentities":["*"]}]}`,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What cosign would else ask the network for.
	c.run(c.cosign3, "signing-config", "create", "--out", "signing.json")
	c.run(c.cosign3, "trusted-root", "create", "--out", "root.json")
	c.run(c.cosign2, "generate-key-pair")
	c.run(c.notation, "certificate", "generate-test", "--default", "site")
	c.run(c.notation, "policy", "import", "policy.json")

	at := func(digest string) string { return outside.Host + "/" + censusRepository + "@" + digest }
	classic := []string{"-y", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry"}
	modern := []string{"-y", "--key", "cosign.key", "--signing-config", "signing.json", "--trusted-root", "root.json", "--allow-http-registry"}
	call := func(tool string, args ...[]string) { c.run(tool, slices.Concat(args...)...) }
	attestation := []string{"--predicate", "predicate.json", "--type", "custom"}
	for i, digest := range []string{c.index, c.amd, c.arm} {
		call(c.cosign2, []string{"sign"}, classic, []string{at(digest)})
		call(c.cosign2, []string{"attest"}, classic, attestation, []string{at(digest)})
		c.run(c.cosign2, "attach", "sbom", "--sbom", fmt.Sprintf("%d.json", i), "--allow-http-registry", at(digest))
	}
	for _, digest := range []string{c.index, c.amd} { // where there is a bundle, cosign does not look for .sig
		call(c.cosign3, []string{"sign"}, modern, []string{at(digest)})
		call(c.cosign3, []string{"attest"}, modern, attestation, []string{at(digest)})
	}
	for _, digest := range []string{c.index, c.amd, c.arm} {
		c.run(c.oras, "attach", "--plain-http", "--artifact-type", "application/spdx+json", at(digest), "sbom.json:application/spdx+json")
		c.run(c.notation, "sign", "--insecure-registry", "--force-referrers-tag=false", at(digest))
	}
	for digest, artifactType := range c.referrers(outside.Host, c.amd) {
		if artifactType == "application/spdx+json" {
			c.sbom = digest
		}
	}
	call(c.cosign3, []string{"sign"}, modern, []string{at(c.sbom)})
	return c
}

// referrers returns what oras discovers: the type of each referrer by digest.
func (c *census) referrers(host, subject string) map[string]string {
	c.t.Helper()
	out := c.run(c.oras, "discover", "--plain-http", "--format", "json", host+"/"+censusRepository+"@"+subject)
	var doc struct {
		Manifests []struct{ Digest, ArtifactType string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		c.t.Fatalf("oras discover: %v: %s", err, out)
	}
	found := map[string]string{}
	for _, m := range doc.Manifests {
		found[m.Digest] = m.ArtifactType
	}
	return found
}

// graph is all that belongs to the image at a registry, as crane and oras find
// it: what each tag names but those of lists, and the referrers of each manifest.
type graph struct {
	tags      map[string]string
	referrers map[string]map[string]string
}

var listTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

func (c *census) graph(host string) graph {
	c.t.Helper()
	g := graph{map[string]string{}, map[string]map[string]string{}}
	repository := host + "/" + censusRepository
	subjects := []string{c.index, c.amd, c.arm, c.unsigned}
	for _, tag := range strings.Fields(c.run(c.crane, "ls", "--insecure", repository)) {
		if listTag.MatchString(tag) {
			continue // there are such where the registry does not list by itself
		}
		g.tags[tag] = strings.TrimSpace(c.run(c.crane, "digest", "--insecure", repository+":"+tag))
		subjects = append(subjects, g.tags[tag])
	}
	for len(subjects) > 0 {
		subject := subjects[0]
		subjects = subjects[1:]
		if g.referrers[subject] == nil {
			g.referrers[subject] = c.referrers(host, subject)
			subjects = append(subjects, slices.Collect(maps.Keys(g.referrers[subject]))...)
		}
	}
	c.run(c.crane, "validate", "--insecure", "--remote", repository+"@"+c.amd)
	for digest := range g.referrers {
		if got := c.run(c.crane, "manifest", "--insecure", repository+"@"+digest); got == "" {
			c.t.Errorf("%s@%s has no content", repository, digest)
		}
	}
	return g
}

// belongings returns the digests of all signatures and the like.
func (g graph) belongings(sample *registrytest.Sample) []string {
	all := map[string]bool{}
	for digest := range g.referrers {
		all[digest] = true
	}
	for _, m := range sample.Manifests {
		delete(all, m.Digest.String())
	}
	return slices.Sorted(maps.Keys(all))
}

// sorted returns the lines of out, and of a line that is a JSON array its
// elements: the order of several signatures is not given.
func sorted(out string) string {
	var all []string
	for line := range strings.Lines(out) {
		var list []json.RawMessage
		if json.Unmarshal([]byte(line), &list) != nil {
			all = append(all, strings.TrimSpace(line))
		}
		for _, payload := range list {
			all = append(all, string(payload))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// answer is what a tool says.
type answer struct {
	stdout string
	failed bool
}

// answers returns what stock tools say of the signatures at a registry, with
// REGISTRY in the place of its name.
func (c *census) answers(host string) map[string]answer {
	c.t.Helper()
	all := map[string]answer{}
	ask := func(name, tool string, args ...string) {
		out, err := c.try(tool, args...)
		out = strings.NewReplacer(host, "REGISTRY", c.outside.Host, "REGISTRY").Replace(out) // what was signed names the source
		all[name] = answer{sorted(out), err != nil}
	}
	flags := []string{"--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry"}
	classic := append(slices.Clone(flags), "--new-bundle-format=false")
	modern := append(slices.Clone(flags), "--trusted-root", "root.json")
	for name, digest := range map[string]string{"index": c.index, "amd64": c.amd, "arm64": c.arm, "unsigned": c.unsigned} {
		at := host + "/" + censusRepository + "@" + digest
		for _, verb := range []string{"verify", "verify-attestation"} {
			call := []string{verb}
			if verb == "verify-attestation" {
				call = append(call, "--type", "custom")
			}
			ask("cosign 3, classic, "+verb+" "+name, c.cosign3, append(append(slices.Clone(call), classic...), at)...)
			ask("cosign 3, "+verb+" "+name, c.cosign3, append(append(slices.Clone(call), modern...), at)...)
			ask("cosign 2, "+verb+" "+name, c.cosign2, append(append(slices.Clone(call), modern...), at)...)
		}
		ask("notation verify "+name, c.notation, "verify", "--insecure-registry", at)
	}
	ask("cosign 3, verify SBOM", c.cosign3, append(append([]string{"verify"}, modern...), host+"/"+censusRepository+"@"+c.sbom)...)
	ask("cosign 2, download SBOM", c.cosign2, "download", "sbom", "--allow-http-registry", host+"/"+censusRepository+"@"+c.index)
	return all
}

// Everything that belongs to an image, of the index and of each child, is
// found, carried, listed in the manifest and pushed; stock tools give the same
// answer at both ends, whether a registry has the referrers API or not.
func TestCensus(t *testing.T) {
	servers := map[string]func() *registrytest.Server{
		"with referrers API":    func() *registrytest.Server { return registrytest.Olareg(t, registrytest.Options{}) },
		"without referrers API": func() *registrytest.Server { return registrytest.Start(t, registrytest.Options{}) },
	}
	for from, outside := range servers {
		t.Run("from one "+from, func(t *testing.T) {
			c := newCensus(t, outside())
			want, said := c.graph(c.outside.Host), c.answers(c.outside.Host)
			c.checkMade(want, said)
			if t.Failed() {
				t.FailNow()
			}
			c.run("ferry", "export", c.outside.Host+"/"+censusRepository+":2.1", "usb", "--name", "n", "--version", "1", "--key", "cosign.key")
			c.checkListed(want)
			for to, inside := range servers {
				t.Run("to one "+to, func(t *testing.T) {
					c.t = t
					host := inside().Host
					c.run("ferry", "import", "usb", host, "--key", "cosign.pub")
					c.run("ferry", "verify", "usb", host, "--key", "cosign.pub")
					if got := c.graph(host); !maps.Equal(got.tags, want.tags) || !maps.EqualFunc(got.referrers, want.referrers, maps.Equal) {
						t.Errorf("there is %v, want %v", got, want)
					}
					for name, got := range c.answers(host) {
						if got != said[name] {
							t.Errorf("%s says %v, and said %v", name, got, said[name])
						}
					}
				})
			}
		})
	}
}

// checkMade checks that the source has what the test is about, and that the
// tools can say no.
func (c *census) checkMade(g graph, said map[string]answer) {
	c.t.Helper()
	types := map[string]int{}
	for _, referrers := range g.referrers {
		for _, artifactType := range referrers {
			types[artifactType]++
		}
	}
	want := map[string]int{"application/vnd.dev.sigstore.bundle.v0.3+json": 5, "application/vnd.cncf.notary.signature": 3, "application/spdx+json": 3}
	if !maps.Equal(types, want) {
		c.t.Errorf("referrers %v, want %v", types, want)
	}
	for _, digest := range []string{c.index, c.amd, c.arm} {
		for _, suffix := range []string{".sig", ".att", ".sbom"} {
			if g.tags[strings.Replace(digest, ":", "-", 1)+suffix] == "" {
				c.t.Errorf("%s has no %s", digest, suffix)
			}
		}
	}
	if len(g.referrers[c.sbom]) != 1 {
		c.t.Errorf("the SBOM has the referrers %v", g.referrers[c.sbom])
	}
	for name, a := range said {
		no := strings.HasSuffix(name, "unsigned")
		if a.failed != no || !no && strings.TrimSpace(a.stdout) == "" {
			c.t.Errorf("%s: %v", name, a)
		}
	}
}

// checkListed checks that the bundle lists everything in g, and nothing else.
func (c *census) checkListed(g graph) {
	c.t.Helper()
	var m bundle.Manifest
	if err := json.Unmarshal([]byte(c.run("ferry", "inspect", "usb", "--format", "json")), &m); err != nil {
		c.t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, r := range m.Images[0].Referrers {
		if !listTag.MatchString(r.Tag) {
			listed[r.Digest.String()] = true
		}
	}
	got, want := slices.Sorted(maps.Keys(listed)), g.belongings(c.sample)
	if !slices.Equal(got, want) || len(want) != 20 {
		c.t.Errorf("the bundle lists %d referrers %v, want %d: %v", len(got), got, len(want), want)
	}
}
