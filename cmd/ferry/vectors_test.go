package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
	"ferry/internal/vectors"
	"ferry/verify"
)

// sign is how a verdict looks from outside: the exit code, and what one of the
// messages says.
type sign struct {
	code int
	says []string
}

// signOf returns how a verdict looks.
func signOf(t *testing.T, verdict string) sign {
	t.Helper()
	switch verdict {
	case "ok":
		return sign{0, []string{""}}
	case "invalid":
		return sign{exitCorrupt, []string{bundle.ErrInvalid.Error(), oci.ErrInvalid.Error()}}
	case "incomplete":
		return sign{exitCorrupt, []string{bundle.ErrIncomplete.Error()}}
	case "corrupt":
		return sign{exitCorrupt, []string{bundle.ErrCorrupt.Error(), "content has digest"}}
	case "absent":
		return sign{exitError, []string{fs.ErrNotExist.Error(), "no such file", "NotFound"}}
	}
	why, ok := strings.CutPrefix(verdict, "untrusted/")
	err := vectors.Untrusted[why]
	if !ok || err == nil {
		t.Fatalf("verdict %q is unknown", verdict)
	}
	return sign{exitUntrusted, []string{err.Error()}}
}

// Each vector has its exit code and its message on the command line, in a
// folder, in a bucket and as a volume alone. Of those that are not good nothing
// is released: no registry is written to, no layout is begun, nothing is
// extracted. Only content that is found to be corrupt on its way may have been
// preceded by blobs that are whole and signed, without a manifest (I1, I2).
func TestVectors(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	list := vectors.Load(t, filepath.Join(registrytest.Root(t), "testdata", "vectors"))
	if len(list) < 250 {
		t.Fatalf("%d vectors, want at least 250", len(list))
	}
	s3 := storetest.StartS3(t)
	for _, v := range list {
		t.Run(v.Name, func(t *testing.T) { runVector(t, v, s3) })
	}
}

// vectorRun is one vector on the disk.
type vectorRun struct {
	*testing.T
	vectors.Vector
	dir    string   // it has the folders bundle and policy
	trust  []string // flags
	want   sign
	server *registrytest.Server
	state  []string // flags
}

func runVector(t *testing.T, v vectors.Vector, s3 *storetest.S3) {
	r := &vectorRun{T: t, Vector: v, dir: t.TempDir(), want: signOf(t, v.Expect), server: registrytest.Memory(t, registrytest.Options{})}
	v.Unpack(t, r.dir)
	r.state = []string{"--state", filepath.Join(r.dir, "state")}
	for _, name := range v.TrustedKeys() {
		r.trust = append(r.trust, "--key", testKey(t, name+".pub"))
	}
	if len(v.Policies) > 0 {
		r.trust = []string{"--policy", r.policy(len(v.Policies) - 1)}
	}
	if !r.checkPolicies() {
		return // no bundle is opened with a policy that does not follow
	}
	r.trust = append(r.trust, r.state...)
	source := filepath.Join(r.dir, "bundle", filepath.FromSlash(v.Start))
	looks := r.want
	if v.Expect == "untrusted/rollback" || v.Expect == "untrusted/equivocation" || v.Expect == "untrusted/fast-forward" {
		looks.code = 0 // it accepts nothing, and warns of what an import would refuse
	}
	r.check(looks, append([]string{"verify", source}, r.trust...)...)
	if v.Bundle == "" { // else it has been read from there for another vector
		vectors.Write(t, s3.File("v/"+v.Name), v.Objects)
		r.check(looks, append([]string{"verify", "s3://" + s3.Bucket + "/" + strings.TrimSuffix("v/"+v.Name+"/"+v.Start, "/")}, r.trust...)...)
	}
	if v.Alone != "" {
		alone := filepath.Join(r.dir, "alone")
		vectors.Write(t, alone, map[string][]byte{v.Alone: v.Objects[v.Alone]})
		r.check(looks, append([]string{"verify", filepath.Join(alone, v.Alone)}, r.trust...)...)
	}
	r.release(source)
}

func (r *vectorRun) policy(i int) string { return filepath.Join(r.dir, "policy", r.Policies[i]) }

// checkPolicies runs ferry trust check over each step of a chain, and reports
// whether all are taken. The one that is not has the verdict of the vector.
func (r *vectorRun) checkPolicies() bool {
	r.Helper()
	for i := range max(0, len(r.Policies)-1) {
		args := []string{"trust", "check", r.policy(i), r.policy(i + 1)}
		code, stdout, stderr := try(r.Context(), r.Time(), args...)
		if code == 0 {
			continue
		}
		r.compare(r.want, code, stdout, stderr, args)
		return false
	}
	return true
}

// release runs all that makes something visible.
func (r *vectorRun) release(source string) {
	layout, files := filepath.Join(r.dir, "layout"), filepath.Join(r.dir, "files")
	want, inLayout := r.want, r.want
	if r.Expect == "ok" && r.hasBase() {
		inLayout = sign{exitBaseMissing, []string{""}} // a folder has nothing of a base
		if r.Name == "good-incremental" {
			want = inLayout // its base was imported nowhere
		}
	}
	r.check(want, append([]string{"import", source, r.server.Host}, r.trust...)...)
	r.check(inLayout, append([]string{"import", source, layout}, r.trust...)...)
	extract := append([]string{"extract", source, files, "--platform", "linux/amd64"}, r.trust...)
	if want.code != 0 {
		if r.Expect == "corrupt" {
			r.extractCorrupt(extract, files)
		} else if r.Expect != "ok" {
			r.check(want, extract...)
		}
		r.checkNothing(layout, files)
		return
	}
	if r.server.Count("PUT", "/manifests/") == 0 {
		r.Error("no manifest was pushed")
	}
	if unused := verify.DigestOf([]byte("nothing refers to this")).Hex(); slices.ContainsFunc(r.server.Requests(), func(q registrytest.Request) bool {
		return strings.Contains(q.Path+q.Query, unused)
	}) {
		r.Error("a blob was asked for or pushed that nothing refers to") // T28
	}
	r.check(want, append([]string{"import", source, r.server.Host}, r.trust...)...)
	if r.Name == "good-tiny" || r.Bundle == "good-tiny" {
		r.check(want, extract...)
		if content, err := os.ReadFile(filepath.Join(files, "hello")); err != nil || string(content) != "hello from a vector\n" {
			r.Errorf("extracted is %q, %v", content, err)
		}
	}
}

// extractCorrupt extracts from a bundle that is damaged. Damage where the image
// does not need it may be overlooked, but what is there then is right.
func (r *vectorRun) extractCorrupt(args []string, dir string) {
	r.Helper()
	code, stdout, stderr := try(r.Context(), r.Time(), args...)
	if code != 0 {
		r.compare(r.want, code, stdout, stderr, args)
		return
	}
	for name, want := range map[string]string{"hello": "hello from a vector\n", "first": strings.Repeat("first ", 1000), "second": strings.Repeat("second", 5000)} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(content) != want {
			r.Errorf("%s was extracted from a corrupt bundle as %.40q", name, content)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		r.Fatal(err)
	}
}

// hasBase reports whether a bundle builds on another one.
func (r *vectorRun) hasBase() bool {
	return strings.HasPrefix(string(r.Objects[bundle.ManifestName]), `{"base":`)
}

// checkNothing checks that nothing was released.
func (r *vectorRun) checkNothing(layout, files string) {
	r.Helper()
	corrupt := r.Expect == "corrupt"
	remembered, err := os.ReadFile(filepath.Join(r.dir, "state", "trust.json"))
	if !corrupt && r.Expect != "ok" && (!bytes.Equal(remembered, r.Memory) || (err == nil) != (r.Memory != nil)) {
		r.Errorf("the trust state has changed: %s, %v", remembered, err)
	}
	var signed strings.Builder // bundle.json, also that in the volumes
	for _, content := range r.Objects {
		signed.Write(content)
	}
	for _, q := range r.server.Requests() {
		switch _, digest, _ := strings.Cut(q.Query, "digest=sha256%3A"); {
		case !corrupt && r.Expect != "ok":
			r.Errorf("the registry was asked: %s", q)
		case q.Method == "GET", q.Method == "HEAD":
		case !corrupt, strings.Contains(q.Path, "/manifests/"), digest != "" && q.Status < 300 && !strings.Contains(signed.String(), digest):
			r.Errorf("the registry was written to: %s", q)
		}
	}
	if _, err := os.Lstat(files); err == nil {
		r.Error("something was extracted")
	}
	if _, err := os.Lstat(layout); err == nil && !corrupt {
		r.Error("a layout was begun")
	}
	if _, err := os.Lstat(filepath.Join(layout, "index.json")); err == nil {
		r.Error("a layout is complete")
	}
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs", "sha256", "*"))
	if err != nil {
		r.Fatal(err)
	}
	for _, name := range blobs {
		content, err := os.ReadFile(name)
		if digest := verify.DigestOf(content); err != nil || filepath.Ext(name) == "" && digest.Hex() != filepath.Base(name) {
			r.Errorf("%s has the digest %s, %v", name, digest, err)
		}
	}
}

// check runs ferry and compares what comes out.
func (r *vectorRun) check(want sign, args ...string) {
	r.Helper()
	code, stdout, stderr := try(r.Context(), r.Time(), args...)
	r.compare(want, code, stdout, stderr, args)
}

func (r *vectorRun) compare(want sign, code int, stdout, stderr string, args []string) {
	r.Helper()
	said := slices.ContainsFunc(want.says, func(text string) bool { return strings.Contains(stderr, text) })
	if code != want.code || !said {
		r.Errorf("ferry %q: exit code %d, want %d and one of %q\n%s", args, code, want.code, want.says, stderr)
	}
	if err := (&scripted{site: &site{}}).checkTalk(code, stdout, stderr); err != nil {
		r.Errorf("ferry %q: %v", args, err)
	}
	if code != 0 && stdout != "" {
		r.Errorf("ferry %q fails and answers %s", args, fmt.Sprintf("%.200q", stdout))
	}
}
