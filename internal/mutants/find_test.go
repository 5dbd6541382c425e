// Package mutants hides how a check is taken out of a package, and whether its
// tests notice. It is a test only.
//
// Every check of a package can be broken in one build: its files are compiled
// from copies (go build -overlay) in which a number in the environment says
// which check does not work. The tree is never written.
package mutants

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The ways to break a check.
const (
	opOff     = "off"     // a condition that refuses is never true
	opOn      = "on"      // a condition that accepts is always true
	opWithout = "without" // an operand of && or || does not count
	opBorder  = "border"  // < is <=, and the like
	opSwallow = "swallow" // an error that is returned is nil
	opAccept  = "accept"  // a function that reports whether says yes
)

// mutant is one way to break one check. It is told from others by what it is
// and not by where, so that lines may move.
type mutant struct {
	where string // package and function
	op    string
	text  string // of the condition
	nth   int    // of those that are the same in all of that, from 1
	edits []edit
	file  string
}

func (m mutant) key() string {
	return fmt.Sprintf("%s\t%s\t%s\t%d", m.where, m.op, m.text, m.nth)
}

// edit is text that is put into a file at an offset, in bytes. depth orders
// those at one offset: the text around an outer expression is outside.
type edit struct {
	at    int
	text  string
	close bool
	depth int
}

// finder collects the mutants of one package.
type finder struct {
	fset    *token.FileSet
	pkg     string // path in the module
	src     []byte
	file    string
	system  bool // the file asks the operating system
	mutants []mutant
	number  int // of the last mutant
}

// systemFiles are files in which most of what looks like a check passes on what
// the operating system answers: no disk fails at a given call. Only what they
// refuse themselves is broken there. TestKillAtEveryWrite and TestDisk are about
// the rest.
var systemFiles = regexp.MustCompile(`^(dir|space)(_.*)?\.go$`)

// find returns the mutants in the Go files of dir that this system compiles,
// in order, numbered from first on.
func find(root, dir string, first int) ([]mutant, error) {
	f := &finder{fset: token.NewFileSet(), pkg: dir, number: first - 1}
	names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		match, err := build.Default.MatchFile(filepath.Dir(name), filepath.Base(name))
		if err != nil {
			return nil, err
		}
		if !match || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if f.src, err = os.ReadFile(name); err != nil {
			return nil, err
		}
		f.file, f.system = name, systemFiles.MatchString(filepath.Base(name))
		parsed, err := parser.ParseFile(f.fset, name, f.src, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, decl := range parsed.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				f.function(path.Base(dir)+"."+nameOf(fn), fn.Type, fn.Body)
			}
		}
	}
	seen := map[string]int{}
	for i := range f.mutants {
		m := &f.mutants[i]
		seen[m.where+m.op+m.text]++
		m.nth = seen[m.where+m.op+m.text]
	}
	return f.mutants, nil
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	switch t := fn.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return t.X.(*ast.Ident).Name + "." + fn.Name.Name
	case *ast.Ident:
		return t.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// function finds the mutants of one function or function literal.
func (f *finder) function(where string, typ *ast.FuncType, body *ast.BlockStmt) {
	last := ""
	if typ.Results != nil {
		if id, ok := typ.Results.List[len(typ.Results.List)-1].Type.(*ast.Ident); ok {
			last = id.Name
		}
	}
	inGuard := map[ast.Stmt]bool{}
	previous := map[ast.Stmt]ast.Stmt{}
	note := func(list []ast.Stmt) {
		for i := 1; i < len(list); i++ {
			previous[list[i]] = list[i-1]
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			f.function(where, n.Type, n.Body)
			return false
		case *ast.BlockStmt:
			note(n.List)
		case *ast.CaseClause:
			note(n.Body)
		case *ast.IfStmt:
			before := n.Init
			if before == nil && mentionsErr(n.Cond) {
				before = previous[n]
			}
			f.guard(where, before, n.Cond, verdict(n.Body.List, last), inGuard, n.Body.List)
			if block, ok := n.Else.(*ast.BlockStmt); ok && verdict(block.List, last) == opOff {
				f.guard(where, before, n.Cond, opOn, inGuard, block.List)
			}
		case *ast.SwitchStmt:
			if n.Tag != nil {
				return true
			}
			for _, clause := range n.Body.List {
				c := clause.(*ast.CaseClause)
				for _, cond := range c.List {
					op := verdict(c.Body, last)
					f.guard(where, n.Init, cond, cmp.Or(op, opOff), inGuard, c.Body)
				}
			}
		case *ast.AssignStmt:
			for _, value := range n.Rhs {
				f.operands(where, "", value)
			}
		case *ast.KeyValueExpr:
			f.operands(where, "", n.Value)
		case *ast.ReturnStmt:
			if len(n.Results) == 0 || inGuard[n] {
				return true
			}
			value := n.Results[len(n.Results)-1]
			switch {
			case last == "bool" && len(n.Results) == resultCount(typ):
				if !isIdent(value, "true", "false") {
					f.wrap(where, opAccept, "return "+f.textOf(value), value, "(mutantOn(%d) || (", "))")
				}
				f.operands(where, "return ", value)
			case last == "error" && !isIdent(value, "nil") && !f.system:
				f.swallow(where, n, typ)
			}
		}
		return true
	})
}

func resultCount(typ *ast.FuncType) int { return typ.Results.NumFields() }

// verdict tells whether statements end with a refusal (the condition before them is
// to be turned off), with consent (on), or with neither.
func verdict(list []ast.Stmt, last string) string {
	if len(list) == 0 {
		return ""
	}
	switch s := list[len(list)-1].(type) {
	case *ast.ReturnStmt:
		if len(s.Results) == 0 {
			return ""
		}
		value := s.Results[len(s.Results)-1]
		switch {
		case last == "error" && isIdent(value, "nil"), last == "bool" && isIdent(value, "true"):
			return opOn
		case last == "error", last == "bool" && isIdent(value, "false"):
			return opOff
		}
	case *ast.AssignStmt:
		if slices.ContainsFunc(s.Lhs, func(e ast.Expr) bool { return isIdent(e, "err") }) {
			return opOff
		}
	}
	return ""
}

func isIdent(e ast.Expr, names ...string) bool {
	id, ok := e.(*ast.Ident)
	return ok && slices.Contains(names, id.Name)
}

func mentionsErr(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok && isIdent(e, "err") {
			found = true
		}
		return !found
	})
	return found
}

// guard adds the mutants of a condition, and remembers that what it guards is
// covered by them.
func (f *finder) guard(where string, before ast.Stmt, cond ast.Expr, op string, inGuard map[ast.Stmt]bool, body []ast.Stmt) {
	if f.system && f.source(cond) == "err != nil" {
		return
	}
	prefix := ""
	if before != nil {
		prefix = f.textOf(before) + "; "
	}
	switch op {
	case opOff:
		f.wrap(where, opOff, prefix+f.textOf(cond), cond, "(!mutantOn(%d) && (", "))")
	case opOn:
		f.wrap(where, opOn, prefix+f.textOf(cond), cond, "(mutantOn(%d) || (", "))")
	default:
		return
	}
	if len(body) > 0 {
		inGuard[body[len(body)-1]] = true
	}
	f.operands(where, prefix, cond)
}

// operands adds the mutants of the operands of && and ||, and of comparisons.
func (f *finder) operands(where, prefix string, e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		f.operands(where, prefix, e.X)
	case *ast.UnaryExpr:
		f.operands(where, prefix, e.X)
	case *ast.BinaryExpr:
		switch e.Op {
		case token.LAND, token.LOR:
			open := "(mutantOn(%d) || ("
			if e.Op == token.LOR {
				open = "(!mutantOn(%d) && ("
			}
			for _, x := range []ast.Expr{e.X, e.Y} {
				if b, ok := x.(*ast.BinaryExpr); !ok || b.Op != e.Op { // of three operands each counts once
					f.wrap(where, opWithout, f.textOf(x)+" in "+prefix+f.textOf(e), x, open, "))")
				}
				f.operands(where, prefix, x)
			}
		case token.LSS, token.LEQ, token.GTR, token.GEQ:
			equal := fmt.Sprintf(") != (mutantOn(%%d) && (%s) == (%s)))", f.source(e.X), f.source(e.Y))
			f.wrap(where, opBorder, prefix+f.textOf(e), e, "((", equal)
		}
	}
}

// swallow adds the mutant of a return statement that returns nil for an error.
func (f *finder) swallow(where string, n *ast.ReturnStmt, typ *ast.FuncType) {
	value := n.Results[len(n.Results)-1]
	text := f.textOf(n)
	if count := resultCount(typ); len(n.Results) < count {
		f.wrap(where, opSwallow, text, value, fmt.Sprintf("mutantNil%d(", count), ")(%d)")
		return
	}
	f.wrap(where, opSwallow, text, value, "mutantNil1(", ")(%d)")
}

// wrap adds a mutant that puts text before and after an expression, with the
// number of the mutant where that has %d.
func (f *finder) wrap(where, op, text string, e ast.Expr, before, after string) {
	f.number++
	numbered := func(s string) string { return strings.ReplaceAll(s, "%d", fmt.Sprint(f.number)) }
	f.mutants = append(f.mutants, mutant{where: where, op: op, text: text, file: f.file, edits: []edit{
		{at: f.offset(e.Pos()), text: numbered(before), depth: f.number},
		{at: f.offset(e.End()), text: numbered(after), close: true, depth: f.number},
	}})
}

func (f *finder) offset(p token.Pos) int { return f.fset.Position(p).Offset }

func (f *finder) source(n ast.Node) string { return string(f.src[f.offset(n.Pos()):f.offset(n.End())]) }

// maxShown, in bytes, is how much of a text a list shows.
const maxShown = 160

// textOf returns the source of n in one line.
func (f *finder) textOf(n ast.Node) string {
	text := strings.Join(strings.Fields(f.source(n)), " ")
	if len(text) > maxShown {
		text = text[:maxShown] + "…"
	}
	return text
}

// instrumented returns the files with all the mutants in them, by name.
func instrumented(all []mutant) (map[string][]byte, error) {
	edits := map[string][]edit{}
	for _, m := range all {
		edits[m.file] = append(edits[m.file], m.edits...)
	}
	files := map[string][]byte{}
	for name, list := range edits {
		// What closes comes before what opens; an outer expression was numbered
		// first, so it opens first and closes last.
		slices.SortStableFunc(list, func(a, b edit) int {
			switch {
			case a.at != b.at:
				return cmp.Compare(a.at, b.at)
			case a.close != b.close:
				if a.close {
					return -1
				}
				return 1
			case a.close:
				return cmp.Compare(b.depth, a.depth)
			}
			return cmp.Compare(a.depth, b.depth)
		})
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		at := 0
		for _, e := range list {
			out.Write(src[at:e.at])
			out.WriteString(e.text)
			at = e.at
		}
		out.Write(src[at:])
		files[name] = out.Bytes()
	}
	return files, nil
}

// switches is the Go file that is added to a package: FERRY_MUTANT turns one of
// the mutants on, FERRY_REACHED names a file for the numbers of those that are
// come by.
func switches(pkg string) []byte {
	return fmt.Appendf(nil, `package %s

import "fmt"
import "os"
import "strconv"
import "sync"

var mutantNumber = func() int { n, _ := strconv.Atoi(os.Getenv("FERRY_MUTANT")); return n }()

var mutantSeen sync.Map

var mutantFile = func() *os.File {
	f, _ := os.OpenFile(os.Getenv("FERRY_REACHED"), os.O_APPEND|os.O_WRONLY, 0)
	return f
}()

func mutantOn(n int) bool {
	if mutantFile != nil {
		if _, seen := mutantSeen.LoadOrStore(n, true); !seen {
			fmt.Fprintln(mutantFile, n)
		}
	}
	return n == mutantNumber
}

func mutantNil1(err error) func(int) error {
	return func(n int) error { if mutantOn(n) { return nil }; return err }
}

func mutantNil2[A any](a A, err error) func(int) (A, error) {
	return func(n int) (A, error) { return a, mutantNil1(err)(n) }
}

func mutantNil3[A, B any](a A, b B, err error) func(int) (A, B, error) {
	return func(n int) (A, B, error) { return a, b, mutantNil1(err)(n) }
}

func mutantNil4[A, B, C any](a A, b B, c C, err error) func(int) (A, B, C, error) {
	return func(n int) (A, B, C, error) { return a, b, c, mutantNil1(err)(n) }
}
`, pkg)
}
