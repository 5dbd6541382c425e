package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// forbiddenWords mark what was left for later. They are put together here so
// that this file does not have them.
var forbiddenWords = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME)\b`)

// emptyNames are names of packages that say nothing.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib"}

// process is what only commands touch, by import path: names of a package,
// or nothing when all of it is meant. The AWS SDK and go-containerregistry's
// keychain read the environment themselves, which their callers document.
var process = map[string][]string{
	"os": {"Exit", "Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv",
		"Stdin", "Stdout", "Stderr", "Args"},
	"syscall":   {"Exit", "Getenv", "Environ", "Setenv", "Unsetenv", "Clearenv", "Stdin", "Stdout", "Stderr"},
	"fmt":       {"Print", "Printf", "Println"},
	"log":       nil,
	"flag":      nil,
	"os/signal": nil,
}

// noNetwork are the packages that never open a connection, and signing those
// that may import sigstore's code, cosign's with it.
var (
	noNetwork = []string{"verify", "bundle"}
	signing   = []string{"verify", "internal/sigstoretest"}
)

type reporter func(where, format string, args ...any)

// source is one Go file.
type source struct {
	dir, name string // the name has the folder in it
	test      bool
	text      string
	fset      *token.FileSet
	file      *ast.File
	imports   []imported
}

// imported is one import of a file.
type imported struct {
	path, as string // as is the name it has in the file
	pos      token.Pos
}

func parse(name string, content []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	s := source{dir: path.Dir(name), name: name, test: strings.HasSuffix(name, "_test.go"), text: string(content), fset: fset, file: file}
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, err
		}
		i := imported{path: p, as: path.Base(p), pos: spec.Pos()}
		if spec.Name != nil {
			i.as = spec.Name.Name
		}
		s.imports = append(s.imports, i)
	}
	return s, nil
}

// at returns the place of pos as file:line.
func (s source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.name, s.fset.Position(pos).Line)
}

// checkPackage checks the name and the comment of a package.
func (t *tree) checkPackage(dir string, files []source, report reporter) {
	described, onlyTests := false, !slices.ContainsFunc(files, func(s source) bool { return !s.test })
	for _, s := range files {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		for _, empty := range emptyNames {
			if name == empty || path.Base(dir) == empty {
				report(s.name, "a package named %s hides nothing", empty)
			}
		}
		if s.test && !onlyTests || s.file.Doc == nil {
			continue
		}
		begin := "Package " + name + " "
		if name == "main" {
			begin = "Command " + path.Base(dir) + " "
		}
		if strings.HasPrefix(s.file.Doc.Text(), begin) {
			described = true
		} else {
			report(s.at(s.file.Doc.Pos()), "the package comment does not begin with %q", begin)
		}
	}
	if !described {
		report(dir, "has no package comment")
	}
}

func (s source) checkWords(report reporter) {
	for number, line := range strings.Split(s.text, "\n") {
		if word := forbiddenWords.FindString(line); word != "" {
			report(fmt.Sprintf("%s:%d", s.name, number+1), "says %s", word)
		}
	}
}

// checkImport checks one import of a file that is no test.
func (s source) checkImport(i imported, module string, order map[string]int, isHelper map[string]bool, report reporter) {
	within := func(tree string) bool { return i.path == tree || strings.HasPrefix(i.path, tree+"/") }
	where := s.at(i.pos)
	if slices.Contains(noNetwork, s.dir) && within("net") && i.path != "net/url" && i.path != "net/netip" {
		report(where, "%s imports %s, and is to know no network", s.dir, i.path)
	}
	if within("github.com/sigstore") && !slices.Contains(signing, s.dir) {
		report(where, "%s imports %s, which only %s may", s.dir, i.path, strings.Join(signing, " and "))
	}
	if !within(module) {
		return
	}
	dir := strings.TrimPrefix(strings.TrimPrefix(i.path, module), "/")
	if isHelper[dir] {
		if !isHelper[s.dir] {
			report(where, "%s imports %s, which is for tests only", s.dir, dir)
		}
		return
	}
	theirs, known := order[dir]
	if !known {
		report(where, "%s imports %s, which is in no table", s.dir, i.path)
		return
	}
	if own, ok := order[s.dir]; ok && theirs >= own {
		report(where, "%s imports %s, which does not stand above it", s.dir, dir)
	}
}

// checkProcess checks that a file does not touch the process it runs in.
func (s source) checkProcess(report reporter) {
	names := make(map[string]string) // import path by name in the file
	for _, i := range s.imports {
		what, ok := process[i.path]
		switch {
		case !ok:
		case what == nil:
			report(s.at(i.pos), "imports %s, which only commands do", i.path)
		case i.as == ".":
			report(s.at(i.pos), "imports %s without its name, which hides what is used of it", i.path)
		default:
			names[i.as] = i.path
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(process[names[x.Name]], n.Sel.Name) {
				report(s.at(n.Pos()), "uses %s.%s, which only commands do", names[x.Name], n.Sel.Name)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
				report(s.at(n.Pos()), "calls %s, which writes to stderr", f.Name)
			}
		}
		return true
	})
}
