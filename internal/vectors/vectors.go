// Package vectors hides how the files of testdata/vectors are written; their
// README.md is the specification. It is for tests only.
package vectors

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"ferry/verify"
)

// Now is when the verdict of a vector holds that does not say it.
var Now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// Untrusted are the verdicts that begin with "untrusted/", by what follows.
// The error of policy-invalid is the only one that is not
// [verify.ErrUntrusted].
var Untrusted = map[string]error{
	"no-key":            verify.ErrNoKey,
	"unsigned":          verify.ErrUnsigned,
	"signature":         verify.ErrSignature,
	"wrong-key":         verify.ErrWrongKey,
	"same-key":          verify.ErrSameKey,
	"threshold":         verify.ErrThreshold,
	"key-not-yet-valid": verify.ErrKeyNotYetValid,
	"key-expired":       verify.ErrKeyExpired,
	"name":              verify.ErrName,
	"target":            verify.ErrTarget,
	"too-old":           verify.ErrTooOld,
	"future":            verify.ErrFuture,
	"expired":           verify.ErrExpired,
	"policy-expired":    verify.ErrPolicyExpired,
	"policy-version":    verify.ErrPolicyVersion,
	"policy-invalid":    verify.ErrPolicy,
	"policy-fork":       verify.ErrPolicyFork,
	"rollback":          verify.ErrRollback,
	"equivocation":      verify.ErrEquivocation,
	"fast-forward":      verify.ErrFastForward,
	"memory":            verify.ErrMemory,
}

// Vector is one case: a bundle, who is trusted, and the verdict.
type Vector struct {
	Name   string // of the file, without its ending
	Expect string // the verdict

	Bundle string // name of the vector whose bundle this is, or "": its own
	Start  string // volume to take manifest and signature from, or ""
	Alone  string // volume that gets the same verdict when it is all there is, or ""

	Now      time.Time // zero means [Now]
	Keys     []string  // names of the trusted keys; none means "one"
	Policies []string  // names of policies, each following the one before; the last is the one that counts

	Objects map[string][]byte // files of the bundle
	Trust   map[string][]byte // files beside the policies
	Memory  []byte            // text of what the site remembers, or nil: nothing
}

// NoKeys is what Keys is when nothing is trusted.
var NoKeys = []string{"none"}

// Time returns when the verdict holds.
func (v Vector) Time() time.Time {
	if v.Now.IsZero() {
		return Now
	}
	return v.Now
}

// TrustedKeys returns the names of the trusted keys, unless there is a policy.
func (v Vector) TrustedKeys() []string {
	switch {
	case slices.Equal(v.Keys, NoKeys) || len(v.Policies) > 0:
		return nil
	case len(v.Keys) == 0:
		return []string{"one"}
	}
	return v.Keys
}

// Policy returns the policy that the vector is judged by, with what the site
// remembers. The public keys are in the folder keys.
func (v Vector) Policy(ctx context.Context, keys string) (*verify.Policy, error) {
	memory := &verify.Memory{}
	if v.Memory != nil {
		var err error
		if memory, err = verify.ParseMemory(v.Memory); err != nil {
			return nil, err
		}
	}
	policy, err := v.policy(ctx, keys, memory)
	return policy.Recalling(memory, ""), err
}

func (v Vector) policy(ctx context.Context, keys string, memory *verify.Memory) (*verify.Policy, error) {
	if len(v.Policies) == 0 {
		var list []verify.Key
		for _, name := range v.TrustedKeys() {
			pem, err := os.ReadFile(filepath.Join(keys, name+".pub"))
			if err != nil {
				return nil, err
			}
			key, err := verify.ParseKey(pem)
			if err != nil {
				return nil, err
			}
			list = append(list, key)
		}
		return verify.KeyPolicy(list...), nil
	}
	files := fstest.MapFS{}
	for name, content := range v.Trust {
		files[name] = &fstest.MapFile{Data: content}
	}
	var policy *verify.Policy
	for i, name := range v.Policies {
		var signatures [][]byte
		for _, file := range slices.Sorted(maps.Keys(v.Trust)) {
			if strings.HasPrefix(file, name+".") && strings.HasSuffix(file, ".sigstore.json") {
				signatures = append(signatures, v.Trust[file])
			}
		}
		var err error
		if i == 0 {
			policy, err = memory.OpenPolicy(ctx, v.Trust[name], signatures, files, v.Time())
		} else {
			policy, err = policy.Next(ctx, v.Trust[name], signatures, files, v.Time())
		}
		if err != nil {
			return nil, err
		}
	}
	return policy, nil
}

// Load returns the vectors in a folder, by name.
func Load(t testing.TB, dir string) []Vector {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	bundles := map[string]map[string][]byte{}
	var list []Vector
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Parse(strings.TrimSuffix(filepath.Base(file), ".txtar"), text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		list, bundles[v.Name] = append(list, v), v.Objects
	}
	for i, v := range list {
		if v.Bundle != "" {
			list[i].Objects = maps.Clone(bundles[v.Bundle])
		}
		if len(v.Objects) > 0 == (v.Bundle != "") || v.Bundle != "" && len(bundles[v.Bundle]) == 0 {
			t.Fatalf("vector %s must have a bundle, its own or that of another", v.Name)
		}
	}
	return list
}

const (
	trustFolder = "policy/"
	memoryFile  = "state/trust.json"
	encoded     = ".gz.b64" // ends the names of files that are base64 of gzip
)

// Parse returns the vector in the text of a file. The files of a bundle that
// the text only names are not in it.
func Parse(name string, text []byte) (Vector, error) {
	archive := txtar.Parse(text)
	v := Vector{Name: name, Objects: map[string][]byte{}, Trust: map[string][]byte{}}
	seen := map[string]bool{}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !found || value == "" || seen[key] {
			return v, fmt.Errorf("line %q is not KEY: VALUE, or is there twice", line)
		}
		seen[key] = true
		if err := v.set(key, value); err != nil {
			return v, err
		}
	}
	if v.Expect == "" {
		return v, errors.New("there is no verdict")
	}
	for _, f := range archive.Files {
		file, content, err := decode(f)
		if err != nil {
			return v, fmt.Errorf("%s: %w", f.Name, err)
		}
		if file == memoryFile {
			v.Memory = content
		} else if inTrust, ok := strings.CutPrefix(file, trustFolder); ok {
			v.Trust[inTrust] = content
		} else {
			v.Objects[file] = content
		}
	}
	return v, nil
}

func (v *Vector) set(key, value string) (err error) {
	switch key {
	case "expect":
		v.Expect = value
	case "bundle":
		v.Bundle = value
	case "start":
		v.Start = value
	case "alone":
		v.Alone = value
	case "now":
		v.Now, err = time.Parse(time.RFC3339, value)
	case "keys":
		v.Keys = strings.Fields(value)
	case "policy":
		v.Policies = strings.Fields(value)
	default:
		err = fmt.Errorf("key %q is unknown", key)
	}
	return err
}

func decode(f txtar.File) (name string, content []byte, err error) {
	name, found := strings.CutSuffix(f.Name, encoded)
	if !found {
		return f.Name, f.Data, nil
	}
	zipped, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(f.Data)), ""))
	if err != nil {
		return "", nil, err
	}
	zr, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return "", nil, err
	}
	content, err = io.ReadAll(zr)
	return name, content, err
}

// Text returns the text of the vector's file.
func (v Vector) Text() []byte {
	archive := &txtar.Archive{}
	add := func(key, value string) {
		if value != "" {
			archive.Comment = fmt.Appendf(archive.Comment, "%s: %s\n", key, value)
		}
	}
	add("expect", v.Expect)
	add("bundle", v.Bundle)
	add("start", v.Start)
	add("alone", v.Alone)
	if !v.Now.IsZero() {
		add("now", v.Now.Format(time.RFC3339))
	}
	add("keys", strings.Join(v.Keys, " "))
	add("policy", strings.Join(v.Policies, " "))
	if v.Memory != nil {
		archive.Files = append(archive.Files, encode(memoryFile, v.Memory))
	}
	for _, name := range slices.Sorted(maps.Keys(v.Trust)) {
		archive.Files = append(archive.Files, encode(trustFolder+name, v.Trust[name]))
	}
	if v.Bundle == "" {
		for _, name := range slices.Sorted(maps.Keys(v.Objects)) {
			archive.Files = append(archive.Files, encode(name, v.Objects[name]))
		}
	}
	return txtar.Format(archive)
}

// encode leaves a text that is not of the bundle as it is when it comes back
// the same, for people to read.
func encode(name string, content []byte) txtar.File {
	plain := txtar.File{Name: name, Data: content}
	again := txtar.Parse(txtar.Format(&txtar.Archive{Files: []txtar.File{plain}}))
	if (strings.HasPrefix(name, trustFolder) || name == memoryFile) && len(content) < 8<<10 && len(again.Files) == 1 && bytes.Equal(again.Files[0].Data, content) {
		return plain
	}
	var b bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	zw.Write(content)
	zw.Close()
	var lines []byte
	for chunk := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(b.Bytes())), 100) {
		lines = append(append(lines, chunk...), '\n')
	}
	return txtar.File{Name: name + encoded, Data: lines}
}

// Equal reports whether v and w say the same. How their files are compressed
// does not count: that can change with the library that does it.
func (v Vector) Equal(w Vector) bool {
	return v.Name == w.Name && v.header() == w.header() && (v.Memory == nil) == (w.Memory == nil) && bytes.Equal(v.Memory, w.Memory) &&
		maps.EqualFunc(v.Objects, w.Objects, bytes.Equal) && maps.EqualFunc(v.Trust, w.Trust, bytes.Equal)
}

func (v Vector) header() string {
	v.Objects, v.Trust, v.Memory = nil, nil, nil
	return string(v.Text())
}

// Unpack writes the files of the vector below dir, the bundle's to "bundle",
// those of the policies to "policy", and what the site remembers to "state".
func (v Vector) Unpack(t testing.TB, dir string) {
	t.Helper()
	for folder, files := range map[string]map[string][]byte{"bundle": v.Objects, "policy": v.Trust} {
		Write(t, filepath.Join(dir, folder), files)
	}
	if v.Memory != nil {
		Write(t, dir, map[string][]byte{memoryFile: v.Memory})
	}
}

// Write writes files, named with slashes, below dir, which it makes.
func Write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	err := os.MkdirAll(dir, 0o755)
	for name, content := range files {
		name = filepath.FromSlash(name)
		err = cmp.Or(err, os.MkdirAll(filepath.Join(dir, path.Dir(name)), 0o755), os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}
