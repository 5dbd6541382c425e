// Package arch hides how the rules of the architecture are checked: who may
// import whom, who may touch the process, and how packages are named and
// described. It is a test only; whoever adds a package adds a line here.
package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors are the packages, ground floor first. A package imports only from
// lines above its own. The text says what a package hides; a package about
// which there is nothing to say is not a package.
var floors = []floor{
	{"verify", "keys, signatures, trust policy: the one door to trusted data"},
	{"internal/oci", "the JSON of manifests, and which of it is ambiguous"},
	{"bundle", "the format: manifest, volume layout, reader, writer; no network"},
	{"s3store", "a location in a bucket: ranges, multipart, lists; knows nothing of bundles but their store"},
	{"harbor", "Harbor's own API"},
	{"internal/transport", "TLS roots, retries, time-outs and redirects of an HTTP client"},
	{"internal/registry", "OCI distribution: pull and push by digest, ranges, chunks, referrers, login"},
	{"internal/extract", "how a stack of hostile layers becomes one harmless folder"},
	{"internal/delta", "layers as deltas, rebuilt bit for bit"},
	{"internal/lists", "every way to say which images"},
	{"internal/layout", "how image layouts and docker archives lie on a disk"},
	{"internal/state", "where the trust state lies, and how runs that go on at once share it"},
	{"internal/kube", "how a Kubernetes cluster is asked for the objects that name a site's services"},
	{"internal/transfer", "export, import and copy: joins the floors"},
	{"internal/ui", "how ferry talks, and what a terminal must never receive"},
	{"internal/preflight", "what could go wrong at a destination, found out before the first byte"},
	{"cmd/ferry", "flags, output, exit codes"},
	{"cmd/ferry-demo", "the whole trip on one machine, as a user would type it"},
}

// helpers are the packages that only tests import.
var helpers = []floor{
	{"internal/storetest", "the suite of all stores, and stores that misbehave"},
	{"internal/registrytest", "registries for tests, and content to put into them"},
	{"internal/vectors", "how the files of testdata/vectors are written"},
	{"internal/harbortest", "a Harbor that answers as the recordings do"},
	{"internal/kubetest", "an API server that answers as a cluster's does"},
	{"internal/sigstoretest", "how tests get keyless signatures without the public Sigstore"},
	{"internal/faultproxy", "how to break, at the level of bytes, what goes between a client and a real server"},
	{"bench", "how ferry is measured against the machine's limit and other tools"},
	{"internal/mutants", "how a check is taken out, and whether its tests notice"},
	{"internal/arch", "how these rules are checked"},
}

// TestArchitecture checks this module.
func TestArchitecture(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range tree.check(floors, helpers) {
		t.Error(problem)
	}
	// Had the walk missed the code, there would be nothing to complain of.
	for _, dir := range []string{"verify", "bundle", "internal/transfer", "internal/arch", "cmd/ferry"} {
		if len(tree.packages[dir]) == 0 {
			t.Errorf("no Go files were found in %s", dir)
		}
	}
	if tree.module != "ferry" {
		t.Errorf("module is %q, want %q", tree.module, "ferry")
	}
}

// TestLeaksAreLookedFor: every package with tests fails when one of them leaves
// a goroutine behind.
func TestLeaksAreLookedFor(t *testing.T) {
	tree, err := load(os.DirFS(filepath.Join("..", "..")))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range tree.unwatched() {
		t.Errorf("the tests of %s do not use goleak", dir)
	}
}

// unwatched returns the packages with tests of which none imports goleak.
func (t *tree) unwatched() (dirs []string) {
	for dir, files := range t.packages {
		tested, watched := false, false
		for _, s := range files {
			tested = tested || s.test
			watched = watched || s.test && slices.ContainsFunc(s.imports, func(i imported) bool { return i.path == "go.uber.org/goleak" })
		}
		if tested && !watched {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// floor is one line of the tables above.
type floor struct{ dir, hides string }

// tree is the code of a module.
type tree struct {
	module   string
	packages map[string][]source // by folder
	texts    map[string]string   // what is no code but written by hand, by name
}

// load reads all files of the module in fsys that the rules are about. It
// skips what begins with a dot or an underscore, testdata, and other modules.
func load(fsys fs.FS) (*tree, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	t := &tree{packages: map[string][]source{}, texts: map[string]string{}}
	for line := range strings.Lines(string(mod)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "module "); ok {
			t.module = strings.TrimSpace(name)
		}
	}
	err = fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if entry.IsDir() {
			_, foreign := fs.Stat(fsys, path.Join(name, "go.mod"))
			if name != "." && (foreign == nil || base == "testdata" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		isGo, isText := strings.HasSuffix(name, ".go"), strings.HasSuffix(name, ".md") || base == "Makefile"
		if !isGo && !isText || !entry.Type().IsRegular() {
			return nil
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if isText {
			t.texts[name] = string(content)
			return nil
		}
		s, err := parse(name, content)
		if err != nil {
			return err
		}
		t.packages[s.dir] = append(t.packages[s.dir], s)
		return nil
	})
	return t, err
}

// check returns how the tree breaks the rules, each line with its place.
func (t *tree) check(floors, helpers []floor) []string {
	var problems []string
	report := func(where, format string, args ...any) {
		problems = append(problems, where+": "+fmt.Sprintf(format, args...))
	}
	order := make(map[string]int) // of the floors
	for i, f := range floors {
		order[f.dir] = i
	}
	isHelper := make(map[string]bool)
	for _, f := range helpers {
		isHelper[f.dir] = true
	}
	for _, f := range slices.Concat(floors, helpers) {
		if strings.TrimSpace(f.hides) == "" {
			report(f.dir, "the table does not say what it hides")
		}
	}
	for dir, files := range t.packages {
		if _, ok := order[dir]; !ok && !isHelper[dir] {
			report(dir, "is in no table of internal/arch: add it to the floors, and say what it hides")
		}
		t.checkPackage(dir, files, report)
		for _, s := range files {
			s.checkWords(report)
			if s.test {
				continue // tests import and do what they need
			}
			for _, i := range s.imports {
				s.checkImport(i, t.module, order, isHelper, report)
			}
			if !strings.HasPrefix(dir, "cmd/") && !isHelper[dir] {
				s.checkProcess(report)
			}
		}
	}
	for name, text := range t.texts {
		if word := forbiddenWords.FindString(text); word != "" {
			report(name, "says %s", word)
		}
	}
	slices.Sort(problems)
	return problems
}
