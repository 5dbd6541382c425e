package mutants

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What is a check, and how it is broken.
func TestFind(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, "p"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "p", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("p.go", `package p

import "errors"

func (s *T) check(a, b int) error {
	if a < b || s == nil {
		return errors.New("refused")
	}
	err := g()
	if err != nil {
		return err
	}
	if a == b {
		return nil
	}
	if a > 7 {
		a++ // refuses nothing
	}
	switch {
	case a == 1:
		err = errors.New("one")
	}
	return g()
}

func ok(a int) bool { return a >= 1 && a != 3 }
`)
	write("dir_x.go", "package p\n\nfunc f(a int) error {\n\tif err := g(); err != nil {\n\t\treturn err\n\t}\n\tif a == 1 {\n\t\treturn g()\n\t}\n\treturn g()\n}\n")
	write("p_test.go", "package p\n\nfunc h() error { return nil }\n")
	write("other_plan9.go", "package p\n\nfunc plan9() bool { return true && false }\n")
	all, err := find(root, "p", 1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, strings.ReplaceAll(m.key(), "\t", " "))
	}
	want := []string{
		"p.f off a == 1 1",
		"p.T.check off a < b || s == nil 1",
		"p.T.check without a < b in a < b || s == nil 1",
		"p.T.check border a < b 1",
		"p.T.check without s == nil in a < b || s == nil 1",
		"p.T.check off err := g(); err != nil 1",
		"p.T.check on a == b 1",
		"p.T.check off a == 1 1",
		"p.T.check swallow return g() 1",
		"p.ok accept return a >= 1 && a != 3 1",
		"p.ok without a >= 1 in return a >= 1 && a != 3 1",
		"p.ok border return a >= 1 1",
		"p.ok without a != 3 in return a >= 1 && a != 3 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	files, err := instrumented(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"if (!mutantOn(2) && ((!mutantOn(3) && (((a < b) != (mutantOn(4) && (a) == (b))))) || (!mutantOn(5) && (s == nil)))) {",
		"if (!mutantOn(6) && (err != nil)) {", "if (mutantOn(7) || (a == b)) {", "return mutantNil1(g())(9)",
		"return (mutantOn(10) || ((mutantOn(11) || (((a >= 1) != (mutantOn(12) && (a) == (1))))) && (mutantOn(13) || (a != 3))))",
	} {
		if !strings.Contains(string(files[filepath.Join(root, "p", "p.go")]), text) {
			t.Errorf("there is no %q in\n%s", text, files[filepath.Join(root, "p", "p.go")])
		}
	}
}

// A list with a line that is none, or one twice, is refused.
func TestReadList(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	good := "# head\n\npath\tp.f\toff\ta == 1\t1\n\tequivalent: it can not be 1\ndigest\tp.g\ton\tb\t1\n"
	for content, says := range map[string]string{
		good:                               "",
		good + "path\tp.f\toff\ta == 1\t1": "is there twice",
		"color\tp.f\toff\ta == 1\t1\n":     "is no line of the list",
		"path\tp.f\toff\ta == 1\n":         "is no line of the list",
		"\tequivalent: of nothing\n":       "is no line of the list",
	} {
		if err := os.WriteFile(listFile, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		list, err := readList()
		if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v, want %q", content, err, says)
		}
		if says == "" && (err != nil || len(list) != 2 || list["p.f\toff\ta == 1\t1"] != entry{"path", "it can not be 1"}) {
			t.Errorf("%v, %v", list, err)
		}
	}
}
