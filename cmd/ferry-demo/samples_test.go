package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// tool returns a program that `make tools` installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", ".tools", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: run make tools", name)
		}
		t.Skipf("%s is missing: run make tools", name)
	}
	return path
}

// tinySamples are the samples with layers of a few bytes.
func tinySamples(t *testing.T) *samples {
	t.Helper()
	layers := make([]mutate.Addendum, 11)
	for i := range layers {
		var err error
		if layers[i], err = (layerSpec{text: map[string]string{"file": string(rune('a' + i))}}).make(""); err != nil {
			t.Fatal(err)
		}
	}
	s := &samples{}
	if err := s.assemble(layers); err != nil {
		t.Fatal(err)
	}
	return s
}

// The same files make the same layer.
func TestLayers(t *testing.T) {
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i, spec := range []layerSpec{
		{paths: []string{"src/sort"}},
		{paths: []string{"src/sort"}, plain: true},
		{paths: []string{"src/sort"}, text: map[string]string{"a": "b"}},
		{paths: []string{"src/math"}, arch: "amd64"},
		{paths: []string{"src/math"}, arch: "arm64"},
	} {
		for range 2 {
			made, err := spec.make(strings.TrimSpace(string(goroot)))
			if err != nil {
				t.Fatal(err)
			}
			digest, err := made.Layer.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[digest.String()]; ok && other != i {
				t.Errorf("layers %d and %d are the same", other, i)
			}
			seen[digest.String()] = i
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d layers of 5 specifications", len(seen))
	}
	if _, err := (layerSpec{paths: []string{"src/none"}}).make(t.TempDir()); err == nil {
		t.Error("files that are not there made a layer")
	}
}

// Stock cosign accepts the signature, and nothing else passes for it.
func TestSignature(t *testing.T) {
	s, dir := tinySamples(t), t.TempDir()
	site, err := startOutside(filepath.Join(dir, "outside"), &pace{})
	if err != nil {
		t.Fatal(err)
	}
	defer site.stop()
	if err := s.pushFirst(t.Context(), site.host); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(signedName, ":")
	digest, err := s.signed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSignature(t.Context(), site.host, path, digest, &s.vendor.PublicKey); err != nil {
		t.Error(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkSignature(t.Context(), site.host, path, digest, &other.PublicKey); err == nil {
		t.Error("the signature holds with another key")
	}
	public, err := x509.MarshalPKIXPublicKey(&s.vendor.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "vendor.pub")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cosign := range []string{"cosign2", "cosign3"} {
		t.Run(cosign, func(t *testing.T) {
			verify := func(at string) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), tool(t, cosign), "verify", "--key", key, "--insecure-ignore-tlog=true",
					"--allow-http-registry", "--new-bundle-format=false", site.host+"/"+at)
				cmd.Env = append(os.Environ(), "HOME="+dir)
				return cmd.CombinedOutput()
			}
			if out, err := verify(signedName); err != nil || !strings.Contains(string(out), digest.String()) {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := verify("platform/app:1.0"); err == nil {
				t.Errorf("an image without signature is accepted: %s", out)
			}
		})
	}
}

// The front answers as a Harbor does where ferry asks it.
func TestHarborFront(t *testing.T) {
	site, front, err := startInside(filepath.Join(t.TempDir(), "inside"), &pace{})
	if err != nil {
		t.Fatal(err)
	}
	defer site.stop()
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	ask := func(method, path, body string, want int) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+site.host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(demoUser, demoPassword)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s %s: %d, %v, want %d: %s", method, path, resp.StatusCode, err, want, answer)
		}
		return string(answer)
	}
	if got := ask("GET", "/api/v2.0/ping", "", 200); got != "Pong" {
		t.Errorf("ping says %q", got)
	}
	s := tinySamples(t)
	if err := s.pushFirst(t.Context(), site.host); err == nil {
		t.Error("a push to a missing project was taken")
	}
	ask("HEAD", "/api/v2.0/projects?project_name=platform", "", 404)
	ask("POST", "/api/v2.0/projects", `{"project_name":""}`, 400)
	for _, name := range []string{"platform", "tools"} {
		ask("POST", "/api/v2.0/projects", `{"project_name":"`+name+`"}`, 201)
		ask("POST", "/api/v2.0/projects", `{"project_name":"`+name+`"}`, 409)
		ask("HEAD", "/api/v2.0/projects?project_name="+name, "", 200)
	}
	if err := s.pushFirst(t.Context(), site.host); err != nil {
		t.Fatal(err)
	}
	if err := push(t.Context(), site.host, "platform/deep/er:1", s.first["platform/notes:1.0"]); err != nil {
		t.Fatal(err)
	}
	ask("GET", "/api/v2.0/projects/platform/repositories/none", "", 404)
	ask("GET", "/api/v2.0/projects/platform/repositories/app", "", 200)
	ask("PUT", "/v2/platform/app/manifests/bad", "{}", 400)

	list := func(repository, query string) (all []artifact) {
		t.Helper()
		text := ask("GET", "/api/v2.0/projects/"+repository+"/artifacts"+query, "", 200)
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	names := func(a artifact) (all []string) {
		for _, t := range a.Tags {
			all = append(all, t.Name)
		}
		slices.Sort(all)
		return all
	}
	// No signature, no SBOM, no child of the index.
	for repository, want := range map[string]int{"platform/repositories/app": 2, "tools/repositories/runtime": 1,
		"platform/repositories/deep%252Fer": 1, "platform/repositories/none": 0} {
		if got := list(repository, ""); len(got) != want {
			t.Errorf("%s has %d artifacts, want %d: %v", repository, len(got), want, got)
		}
	}
	if a, b := list("platform/repositories/app", "?page=1&page_size=1"), list("platform/repositories/app", "?page=2&page_size=1"); len(a) != 1 || len(b) != 1 || a[0].ID >= b[0].ID {
		t.Errorf("the pages are %v and %v", a, b)
	}
	if got := list("platform/repositories/app", "?page=3&page_size=1"); len(got) != 0 {
		t.Errorf("the page after the last is %v", got)
	}

	// A tag that is moved back gets a new time; its artifact keeps its own.
	app := func(tag string) artifact {
		t.Helper()
		for _, a := range list("platform/repositories/app", "") {
			if slices.Contains(names(a), tag) {
				return a
			}
		}
		t.Fatalf("no artifact has the tag %s", tag)
		return artifact{}
	}
	was, tags := app("1.0"), front.tags()
	pushAs := func(tag string, image remote.Taggable) {
		t.Helper()
		time.Sleep(2 * time.Millisecond)
		if err := push(t.Context(), site.host, "platform/app:"+tag, image); err != nil {
			t.Fatal(err)
		}
	}
	pushAs("stable", s.signed)
	pushAs("stable", s.first["platform/app:1.0"])
	is := app("stable")
	if is.Digest != was.Digest || !is.PushTime.Equal(was.PushTime) || front.tags() != tags+1 {
		t.Errorf("it is %v after the tag was moved, was %v; %d tags", is, was, front.tags())
	}
	moved := is.Tags[slices.IndexFunc(is.Tags, func(t tag) bool { return t.Name == "stable" })]
	if !moved.PushTime.After(was.PushTime) {
		t.Errorf("the tag moved at %v, its artifact came at %v", moved.PushTime, was.PushTime)
	}
	pushAs("stable", s.first["platform/app:1.0"]) // again: nothing changes
	if got := app("stable"); !slices.Equal(got.Tags, is.Tags) {
		t.Errorf("tags are %v, want %v", got.Tags, is.Tags)
	}
}

// A difference between the sites does not pass.
func TestComparison(t *testing.T) {
	s := tinySamples(t)
	outside, err := startOutside(filepath.Join(t.TempDir(), "outside"), &pace{})
	if err != nil {
		t.Fatal(err)
	}
	defer outside.stop()
	inside, err := startOutside(filepath.Join(t.TempDir(), "inside"), &pace{})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.stop()
	if err := s.pushFirst(t.Context(), outside.host); err != nil {
		t.Fatal(err)
	}
	if err := pushAll(t.Context(), inside.host, s.first); err != nil {
		t.Fatal(err)
	}
	lines := 0
	compare := func(path string) error {
		c := comparison{ctx: t.Context(), outside: outside.host, inside: inside.host, known: map[string]bool{}}
		return c.repository(path, func(string, ...any) { lines++ })
	}
	if err := compare("tools/runtime"); err != nil || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
	if err := compare("platform/app"); err == nil {
		t.Error("an image without its signature and SBOM passes")
	}
	if err := push(t.Context(), inside.host, "tools/runtime:1.0", s.signed); err != nil {
		t.Fatal(err)
	}
	if err := compare("tools/runtime"); err == nil {
		t.Error("a tag on another image passes")
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, p := time.Now(), &pace{rate: 1000}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { p.pass(500) })
		}
		all.Wait()
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("2,000 bytes at 1,000 a second took %v", got)
		}
		(&pace{}).pass(1 << 40)
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("no limit took %v more", got-2*time.Second)
		}
	})
}
