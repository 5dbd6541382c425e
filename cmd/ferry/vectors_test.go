package main

import (
	"compress/gzip"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"ferry/bundle"
	"ferry/internal/registrytest"
)

// vectorTime is when the verdicts of the vectors hold.
var vectorTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// verdictCodes are the exit codes for the verdicts of testdata/vectors. The one
// that is absent has no bundle.json, and ferry finds the manifest in a volume.
var verdictCodes = map[string]int{"ok": 0, "absent": 0, "untrusted": exitUntrusted,
	"invalid": exitCorrupt, "incomplete": exitCorrupt, "corrupt": exitCorrupt}

// Every vector of the format has its exit code on the command line, and of
// those that are not good nothing becomes visible, in a registry or a folder.
// Nothing is uploaded at all, but for blobs that are signed and whole, before a
// corrupt one is met (I2).
func TestVectors(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	files, err := filepath.Glob(filepath.Join(registrytest.Root(t), "testdata", "vectors", "*.txtar"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	seen := map[string]int{}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			seen[testVector(t, file)]++
		})
	}
	for verdict := range verdictCodes {
		if seen[verdict] == 0 {
			t.Errorf("no vector is %s", verdict)
		}
	}
}

func testVector(t *testing.T, file string) (verdict string) {
	v := unpackVector(t, file)
	want, ok := verdictCodes[v.expect]
	if !ok {
		t.Fatalf("unknown verdict %q", v.expect)
	}
	check := func(want int, args ...string) {
		t.Helper()
		code, stdout, stderr := try(t.Context(), vectorTime, append(args, "--key", testKey(t, "one.pub"))...)
		if code != want {
			t.Errorf("ferry %s: exit code %d, want %d\n%s", args[0], code, want, stderr)
		}
		if err := (&scripted{site: &site{}}).checkTalk(code, stdout, stderr); err != nil {
			t.Errorf("ferry %s: %v", args[0], err)
		}
	}
	check(want, "verify", v.source)
	server := registrytest.Memory(t, registrytest.Options{})
	layout := filepath.Join(t.TempDir(), "layout")
	if v.incremental { // its base was imported nowhere
		want = exitBaseMissing
	}
	check(want, "import", v.source, server.Host)
	check(want, "import", v.source, layout)
	if want != 0 {
		for _, r := range server.Requests() {
			_, digest, _ := strings.Cut(r.Query, "digest=sha256%3A")
			switch {
			case r.Method == "GET", r.Method == "HEAD":
			case v.expect != "corrupt", strings.Contains(r.Path, "/manifests/"),
				digest != "" && r.Status < 300 && !strings.Contains(v.manifest, digest):
				t.Errorf("the registry was asked: %s", r)
			}
		}
		if _, err := os.Stat(filepath.Join(layout, "index.json")); err == nil {
			t.Error("the layout is complete")
		}
		return v.expect
	}
	if server.Count("PUT", "/manifests/") == 0 {
		t.Error("no manifest was pushed")
	}
	check(0, "import", v.source, server.Host)
	return v.expect
}

type vector struct {
	expect      string
	source      string // path to give to ferry
	incremental bool
	manifest    string // bundle.json
}

// unpackVector puts a vector into a folder; testdata/vectors/README.md says how
// they are written.
func unpackVector(t *testing.T, file string) vector {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	v := vector{source: dir}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "expect":
			v.expect = value
		case "start":
			v.source = filepath.Join(dir, value)
		}
	}
	for _, f := range archive.Files {
		zr, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(strings.Join(strings.Fields(string(f.Data)), ""))))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(zr)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		if f.Name == bundle.ManifestName {
			v.manifest = string(content)
			v.incremental = v.expect == "ok" && strings.HasPrefix(v.manifest, `{"base":`)
		}
	}
	return v
}
