package arch

import (
	"strings"
	"testing"
	"testing/fstest"
)

var (
	sampleFloors  = []floor{{"verify", "trust"}, {"bundle", "the format"}, {"internal/a", "a"}, {"internal/b", "b"}, {"cmd/tool", "flags"}}
	sampleHelpers = []floor{{"internal/atest", "tests of a"}, {"internal/btest", "tests of b"}}

	// sample breaks no rule, but comes near.
	sample = map[string]string{
		"go.mod":                  "module example.org/m\n\ngo 1.26\n",
		"README.md":               "# todo lists are fine, and so is the todo variable\n",
		"verify/verify.go":        "// Package verify is a door.\npackage verify\nimport _ \"github.com/sigstore/cosign/v2/pkg/cosign\"\n",
		"bundle/bundle.go":        "// Package bundle is a format.\npackage bundle\nimport (\n_ \"example.org/m/verify\"\n_ \"net/url\"\n)\n",
		"bundle/more.go":          "package bundle\n",
		"bundle/bundle_test.go":   "package bundle_test\nimport (\n_ \"net/http\"\n_ \"os\"\n_ \"example.org/m/internal/atest\"\n_ \"example.org/m/internal/b\"\n_ \"github.com/sigstore/sigstore-go/pkg/verify\"\n)\nvar todo = os.Getenv(\"X\")\n",
		"internal/a/a.go":         "// Package a hides a.\npackage a\nimport (\n\"fmt\"\n\"os\"\n_ \"net/http\"\n_ \"example.org/m/bundle\"\n)\nvar F *os.File; var E = fmt.Sprint(os.ErrExist)\ntype file struct{ Stdout int }; var x file; var y = x.Stdout\n",
		"internal/b/b.go":         "// Package b hides b.\npackage b\nimport _ \"example.org/m/internal/a\"\nimport _ \"github.com/sigstorex/y\"\nimport _ \"example.org/mx/y\"\n",
		"internal/atest/a.go":     "// Package atest tests a.\npackage atest\nimport (\n\"os\"\n_ \"example.org/m/internal/b\"\n)\nvar C = os.Getenv(\"CI\")\n",
		"internal/btest/b.go":     "// Package btest tests b.\npackage btest\nimport _ \"example.org/m/internal/atest\"\n",
		"cmd/tool/main.go":        "// Command tool does it.\npackage main\nimport (\n\"log\"\n\"os\"\n_ \"example.org/m/internal/b\"\n_ \"example.org/m/verify\"\n)\nfunc main() { log.Fatal(os.Args); os.Exit(1); println() }\n",
		"testdata/util/broken.go": "package util; not Go at all",
		".tools/x/x.go":           "package util; not Go at all",
		"tools/go.mod":            "module tools\n",
		"tools/common/c.go":       "package common; not Go at all",
	}
)

// mark is a forbidden word, which must not stand in a file of this module.
const mark = "TO" + "DO"

// TestRules breaks each rule once in a sample that is clean without it.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                string // empty when nothing is wrong
	}{
		{"clean", "", "", ""},
		{"upwards", "verify/x.go", "package verify\nimport _ \"example.org/m/bundle\"\n", "verify/x.go:2: verify imports bundle, which does not stand above it"},
		{"downwards from inside", "internal/a/x.go", "package a\n\nimport b \"example.org/m/internal/b\"\n", "internal/a/x.go:3: internal/a imports internal/b, which does not stand above it"},
		{"a command", "internal/b/x.go", "package b\nimport _ \"example.org/m/cmd/tool\"\n", "imports cmd/tool, which does not stand above it"},
		{"under a build tag", "verify/x_plan9.go", "//go:build plan9\n\npackage verify\nimport _ \"example.org/m/internal/b\"\n", "verify/x_plan9.go:4: verify imports internal/b"},
		{"unknown package", "internal/b/x.go", "package b\nimport _ \"example.org/m/internal/c\"\n", "imports example.org/m/internal/c, which is in no table"},
		{"the root package", "internal/b/x.go", "package b\nimport _ \"example.org/m\"\n", "imports example.org/m, which is in no table"},
		{"not in the table", "internal/c/c.go", "// Package c hides c.\npackage c\n", "internal/c: is in no table"},
		{"not in the table, below a floor", "internal/a/in/c.go", "// Package in hides c.\npackage in\n", "internal/a/in: is in no table"},
		{"not in the table, at the top", "extra/c.go", "// Package extra hides c.\npackage extra\n", "extra: is in no table"},
		{"not in the table, tests only", "internal/c/c_test.go", "// Package c tests c.\npackage c\n", "internal/c: is in no table"},
		{"helper in a package", "internal/b/x.go", "package b\nimport _ \"example.org/m/internal/atest\"\n", "internal/b imports internal/atest, which is for tests only"},
		{"helper in a command", "cmd/tool/x.go", "package main\nimport _ \"example.org/m/internal/btest\"\n", "cmd/tool imports internal/btest, which is for tests only"},
		{"helper in a test", "cmd/tool/x_test.go", "package main\nimport _ \"example.org/m/internal/btest\"\n", ""},
		{"network in verify", "verify/x.go", "package verify\nimport _ \"net\"\n", "verify imports net, and is to know no network"},
		{"network in bundle", "bundle/x.go", "package bundle\nimport _ \"net/http\"\n", "bundle imports net/http, and is to know no network"},
		{"network below http", "bundle/x.go", "package bundle\nimport _ \"net/http/httptrace\"\n", "bundle imports net/http/httptrace"},
		{"cosign elsewhere", "bundle/x.go", "package bundle\nimport _ \"github.com/sigstore/cosign/v2/pkg/cosign\"\n", "bundle imports github.com/sigstore/cosign/v2/pkg/cosign, which only verify and internal/sigstoretest may"},
		{"sigstore in a command", "cmd/tool/x.go", "package main\nimport _ \"github.com/sigstore/sigstore/pkg/signature\"\n", "which only verify and internal/sigstoretest may"},
		{"sigstore in a helper", "internal/atest/x.go", "package atest\nimport _ \"github.com/sigstore/sigstore/pkg/signature\"\n", "which only verify and internal/sigstoretest may"},
		{"exit", "internal/a/x.go", "package a\nimport \"os\"\nfunc f() {\nos.Exit(1)\n}\n", "internal/a/x.go:4: uses os.Exit, which only commands do"},
		{"environment", "verify/x.go", "package verify\nimport \"os\"\nvar v = os.Getenv(\"X\")\n", "uses os.Getenv"},
		{"environment, asked for", "verify/x.go", "package verify\nimport \"os\"\nvar v, ok = os.LookupEnv(\"X\")\n", "uses os.LookupEnv"},
		{"as a value", "internal/a/x.go", "package a\nimport \"os\"\nvar out = os.Stdout\n", "uses os.Stdout"},
		{"stderr", "internal/a/x.go", "package a\nimport \"os\"\nfunc f() { os.Stderr.Sync() }\n", "uses os.Stderr"},
		{"another name", "internal/a/x.go", "package a\nimport sys \"os\"\nvar v = sys.Environ()\n", "uses os.Environ"},
		{"no name", "internal/a/x.go", "package a\nimport . \"os\"\nvar v = Environ()\n", "imports os without its name"},
		{"below os", "internal/a/x.go", "package a\nimport \"syscall\"\nfunc f() { syscall.Exit(1) }\n", "uses syscall.Exit"},
		{"log", "internal/a/x.go", "package a\nimport \"log\"\nfunc f() { log.Fatal(1) }\n", "imports log, which only commands do"},
		{"structured log", "internal/a/x.go", "package a\nimport _ \"log/slog\"\n", ""},
		{"flags", "internal/a/x.go", "package a\nimport _ \"flag\"\n", "imports flag, which only commands do"},
		{"signals", "internal/a/x.go", "package a\nimport _ \"os/signal\"\n", "imports os/signal, which only commands do"},
		{"print", "internal/a/x.go", "package a\nimport \"fmt\"\nfunc f() { fmt.Println(1) }\n", "uses fmt.Println"},
		{"print, built in", "internal/a/x.go", "package a\nfunc f() { println(1) }\n", "calls println"},
		{"no comment", "internal/a/a.go", "package a\n", "internal/a: has no package comment"},
		{"no comment, in tests only", "internal/a/a.go", "", "internal/a: has no package comment"},
		{"comment of a test does not count", "bundle/bundle.go", "package bundle\n", "bundle: has no package comment"},
		{"comment on another thing", "internal/a/a.go", "// Copyright nobody.\npackage a\n", "internal/a/a.go:1: the package comment does not begin with \"Package a \""},
		{"comment of a command", "cmd/tool/main.go", "// Package main does it.\npackage main\n", "does not begin with \"Command tool \""},
		{"util", "internal/a/util/u.go", "// Package util hides nothing.\npackage util\n", "a package named util hides nothing"},
		{"helpers in a folder", "internal/helpers/u.go", "// Package u hides nothing.\npackage u\n", "a package named helpers hides nothing"},
		{"common by name", "internal/b/b.go", "// Package common hides nothing.\npackage common\n", "a package named common hides nothing"},
		{"a mark", "internal/a/x.go", "package a\n\n// " + mark + ": later\n", "internal/a/x.go:3: says " + mark},
		{"a mark in a test", "internal/a/x_test.go", "package a\n\nvar x = 1 // FIX" + "ME\n", "internal/a/x_test.go:3: says FIX" + "ME"},
		{"a mark in a document", "docs/x.md", "A " + mark + "\n", "docs/x.md: says " + mark},
		{"a mark in a Makefile", "Makefile", "# " + mark + "\n", "Makefile: says " + mark},
		{"a mark in a word", "docs/x.md", mark + "S, x" + mark + ", todo\n", ""},
	} {
		files := fstest.MapFS{}
		for name, content := range sample {
			files[name] = &fstest.MapFile{Data: []byte(content)}
		}
		if c.file != "" {
			files[c.file] = &fstest.MapFile{Data: []byte(c.content)}
		}
		if c.name == "no comment, in tests only" {
			delete(files, c.file)
			files["internal/a/a_test.go"] = &fstest.MapFile{Data: []byte("package a\n")}
		}
		if c.name == "comment of a test does not count" {
			files["bundle/bundle_test.go"] = &fstest.MapFile{Data: []byte("// Package bundle is a test.\npackage bundle\n")}
		}
		tree, err := load(files)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		problems := tree.check(sampleFloors, sampleHelpers)
		text := strings.Join(problems, "\n")
		switch {
		case c.want == "" && len(problems) > 0:
			t.Errorf("%s: found\n%s", c.name, text)
		case !strings.Contains(text, c.want):
			t.Errorf("%s: found %q, want %q", c.name, text, c.want)
		}
		// The tests of names and tables break one rule, or two at once.
		if len(problems) > 2 {
			t.Errorf("%s: found too much:\n%s", c.name, text)
		}
	}
}

func TestUnwatched(t *testing.T) {
	tree, err := load(fstest.MapFS{"go.mod": {Data: []byte("module m\n")},
		"a/a_test.go": {Data: []byte("package a\n")}, "b/b.go": {Data: []byte("package b\nimport _ \"go.uber.org/goleak\"\n")},
		"b/b_test.go": {Data: []byte("package b\n")}, "c/c.go": {Data: []byte("package c\n")},
		"d/d_test.go": {Data: []byte("package d\n")}, "d/main_test.go": {Data: []byte("package d\nimport _ \"go.uber.org/goleak\"\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tree.unwatched(), " "); got != "a b" {
		t.Errorf("unwatched are %q, want a and b", got)
	}
}

func TestTableSaysWhy(t *testing.T) {
	files := fstest.MapFS{"go.mod": {Data: []byte("module m\n")}}
	tree, err := load(files)
	if err != nil {
		t.Fatal(err)
	}
	problems := tree.check([]floor{{"a", "a"}, {"b", " "}}, []floor{{"btest", ""}})
	if want := "b: the table does not say what it hides\nbtest: the table does not say what it hides"; strings.Join(problems, "\n") != want {
		t.Errorf("found %q, want %q", problems, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"no module":  {"a.go": {Data: []byte("package a\n")}},
		"broken Go":  {"go.mod": {Data: []byte("module m\n")}, "a/a.go": {Data: []byte("package\n")}},
		"no package": {"go.mod": {Data: []byte("module m\n")}, "a/a.go": {}},
	} {
		if tree, err := load(files); err == nil {
			t.Errorf("%s: loaded %v", name, tree)
		}
	}
}
