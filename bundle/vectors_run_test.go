package bundle_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/storetest"
	"ferry/internal/vectors"
	"ferry/s3store"
	"ferry/verify"
)

// minVectors is how many vectors there are at least.
const minVectors = 250

// verdictErrors are the errors of the verdicts but "ok".
func verdictErrors() map[string][]error {
	all := map[string][]error{
		"invalid":    {bundle.ErrInvalid, oci.ErrInvalid},
		"incomplete": {bundle.ErrIncomplete},
		"corrupt":    {bundle.ErrCorrupt},
		"absent":     {bundle.ErrNotFound},
	}
	for name, err := range vectors.Untrusted {
		all["untrusted/"+name] = []error{err}
	}
	return all
}

// verdictOf returns the verdict that err means: there must be one only.
func verdictOf(err error) string {
	if err == nil {
		return "ok"
	}
	var found []string
	for name, list := range verdictErrors() {
		if name == "absent" && errors.Is(err, verify.ErrPolicy) {
			continue // what is absent is a file that the policy names
		}
		if slices.ContainsFunc(list, func(target error) bool { return errors.Is(err, target) }) {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	slices.Sort(found)
	return fmt.Sprintf("%q (%v)", found, err)
}

// judge reads every byte of a vector's bundle in a store.
func judge(t *testing.T, v vectors.Vector, store bundle.Store, volume string) error {
	ctx := t.Context()
	policy, err := v.Policy(ctx, filepath.Join("..", "testdata", "keys"))
	if err != nil {
		return err
	}
	r, err := bundle.OpenReader(ctx, store, volume, bundle.ReadOptions{Policy: policy, Now: v.Time()})
	if err != nil {
		return err
	}
	defer r.Close()
	for _, p := range r.Parts() {
		if err := r.Check(ctx, p, nil); err != nil {
			return err
		}
	}
	return nil
}

// Each vector has its exact verdict, and no other, in memory, in a folder, in
// a bucket of a real S3 server, and as a volume by itself.
func TestVectors(t *testing.T) {
	list := vectors.Load(t, filepath.Join("..", "testdata", "vectors"))
	if len(list) < minVectors {
		t.Fatalf("%d vectors, want at least %d", len(list), minVectors)
	}
	checkClasses(t, list)
	server, client := storetest.StartS3(t), storetest.Client(t)
	for _, v := range list {
		t.Run(v.Name, func(t *testing.T) {
			mem, dir, prefix := &storetest.Mem{}, t.TempDir(), "v/"+v.Name
			for name, content := range v.Objects {
				mem.Set(name, content)
			}
			vectors.Write(t, dir, v.Objects)
			vectors.Write(t, server.File(prefix), v.Objects)
			bucket, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, Prefix: prefix, HTTP: client})
			if err != nil {
				t.Fatal(err)
			}
			for name, store := range map[string]bundle.Store{"memory": mem, "folder": bundle.NewDir(dir), "bucket": bucket} {
				if got := verdictOf(judge(t, v, store, v.Start)); got != v.Expect {
					t.Errorf("in a %s: %s, want %s", name, got, v.Expect)
				}
			}
			if v.Alone == "" {
				return
			}
			alone := t.TempDir()
			vectors.Write(t, alone, map[string][]byte{v.Alone: v.Objects[v.Alone]})
			if got := verdictOf(judge(t, v, bundle.NewDir(alone), v.Alone)); got != v.Expect {
				t.Errorf("%s alone: %s, want %s", v.Alone, got, v.Expect)
			}
		})
	}
}

// checkClasses checks that each verdict is one that is known, and is that of
// some vector, and that each kind of vector is both taken and refused.
func checkClasses(t *testing.T, list []vectors.Vector) {
	t.Helper()
	count := map[string]int{"ok": 0}
	for name := range verdictErrors() {
		count[name] = 0
	}
	for _, v := range list {
		if _, ok := count[v.Expect]; !ok {
			t.Errorf("%s: verdict %q is unknown", v.Name, v.Expect)
		}
		count[v.Expect]++
		if good := strings.HasPrefix(v.Name, "good-") || strings.HasPrefix(v.Name, "policy-good-") || strings.HasPrefix(v.Name, "policy-chain-good-"); good != (v.Expect == "ok") {
			t.Errorf("%s: the name does not say that the verdict is %s", v.Name, v.Expect)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if count[name] == 0 {
			t.Errorf("no vector is %s", name)
		}
		t.Logf("%4d %s", count[name], name)
	}
}
