package arch

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// limitName is how a constant is called that bounds something.
var limitName = regexp.MustCompile(`^([mM]ax|[lL]imit)[A-Z]|[a-z]Limit$`)

// declared are the constants of the packages: their expressions, by folder and
// name.
type declared map[string]map[string]ast.Expr

func (t *tree) constants() declared {
	all := declared{}
	for dir, files := range t.packages {
		all[dir] = map[string]ast.Expr{}
		for _, s := range files {
			if s.test {
				continue
			}
			for _, d := range s.file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.CONST {
					continue
				}
				for _, spec := range g.Specs {
					v := spec.(*ast.ValueSpec)
					for i, name := range v.Names {
						if i < len(v.Values) {
							all[dir][name.Name] = v.Values[i]
						}
					}
				}
			}
		}
	}
	return all
}

// value returns the number that a constant expression in a package has, or nil
// when it is none.
func (all declared) value(dir string, e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return all.value(dir, e.X)
	case *ast.BasicLit:
		if v := constant.MakeFromLiteral(e.Value, e.Kind, 0); v.Kind() == constant.Int || v.Kind() == constant.Float {
			return v
		}
	case *ast.Ident:
		if next := all[dir][e.Name]; next != nil {
			return all.value(dir, next)
		}
	case *ast.SelectorExpr:
		pkg, _ := e.X.(*ast.Ident)
		units := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}
		if unit := units[e.Sel.Name]; pkg != nil && pkg.Name == "time" && unit != 0 {
			return constant.MakeInt64(int64(unit))
		}
		for other := range all {
			if pkg != nil && filepath.Base(other) == pkg.Name && all[other][e.Sel.Name] != nil {
				return all.value(other, all[other][e.Sel.Name])
			}
		}
	case *ast.BinaryExpr:
		x, y := all.value(dir, e.X), all.value(dir, e.Y)
		if x == nil || y == nil {
			return nil
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, token.SHL, uint(n))
		}
		return constant.BinaryOp(x, e.Op, y)
	}
	return nil
}

var (
	// limitRow is a row of docs/limits.md.
	limitRow   = regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)\\.([A-Za-z]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|$")
	limitValue = regexp.MustCompile(`^([0-9][0-9,]*|2\^[0-9]+)(?: (KiB|MiB|GiB|TiB|PiB|s|min|h|d))?$`)
	limitUnits = map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
		"s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "d": 24 * int64(time.Hour)}
)

// parseLimit returns the number that a value of the table means.
func parseLimit(text string) (int64, error) {
	m := limitValue.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no value", text)
	}
	if power, ok := strings.CutPrefix(m[1], "2^"); ok {
		n, err := strconv.Atoi(power)
		return 1 << n, err
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
	return n * limitUnits[m[2]], err
}

// checkLimits compares the tables of a page with the code, and returns in what
// they differ. How many rows there are is told too.
func (t *tree) checkLimits(page string, helpers []floor) (rows int, problems []string) {
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	all := t.constants()
	listed := map[string]bool{}
	for _, row := range limitRow.FindAllStringSubmatch(page, -1) {
		dir, name, text, tests := row[1], row[2], row[3], row[7]
		rows++
		if listed[dir+"."+name] {
			report("%s.%s stands there twice", dir, name)
		}
		listed[dir+"."+name] = true
		expr := all[dir][name]
		if expr == nil {
			report("%s.%s is not in the code", dir, name)
			continue
		}
		want, err := parseLimit(text)
		if err != nil {
			report("%s.%s: %v", dir, name, err)
		} else if got := all.value(dir, expr); got == nil || got.ExactString() != fmt.Sprint(want) {
			report("%s.%s is %v in the code, and %s (%d) on the page", dir, name, got, text, want)
		}
		for _, test := range strings.Split(tests, ", ") {
			if test != "–" && !t.hasTest(dir, test) {
				report("%s.%s: there is no %s in %s", dir, name, test, dir)
			}
		}
	}
	for dir, constants := range all {
		if slices.ContainsFunc(helpers, func(f floor) bool { return f.dir == dir }) {
			continue
		}
		for name, expr := range constants {
			if limitName.MatchString(name) && all.value(dir, expr) != nil && !listed[dir+"."+name] {
				report("%s.%s is a limit that is not on the page", dir, name)
			}
		}
	}
	if lines := strings.Count(page, "\n| `"); lines != rows {
		report("%d of %d rows are not of the form of the others", lines-rows, lines)
	}
	slices.Sort(problems)
	return rows, problems
}

// hasTest reports whether the tests of a package have a function of that name.
func (t *tree) hasTest(dir, name string) bool {
	for _, s := range t.packages[dir] {
		for _, d := range s.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && s.test && fn.Recv == nil && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// TestLimits: docs/limits.md has every limit of the code, and says the truth.
func TestLimits(t *testing.T) {
	root := filepath.Join("..", "..")
	tree, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, problems := tree.checkLimits(string(page), helpers)
	for _, problem := range problems {
		t.Errorf("docs/limits.md: %s", problem)
	}
	if rows < 50 {
		t.Errorf("docs/limits.md has %d rows that can be read", rows)
	}
}

// TestLimitsAreCompared breaks the page and the code, each in its way.
func TestLimitsAreCompared(t *testing.T) {
	code := "package bundle\nimport \"time\"\nconst MaxA = 4 << 10\nconst (\n\tmaxB = 2 * time.Minute\n\tmaxC = MaxA - 1 // and a string that is none\n\tmaxD = \"x\"\n\tother = 7\n)\n"
	row := func(name, value, test string) string {
		return fmt.Sprintf("| `bundle.%s` | %s | x | y | z | %s |\n", name, value, test)
	}
	good := "\n" + row("MaxA", "4 KiB", "TestA") + row("maxB", "2 min", "–") + row("maxC", "4,095", "TestA, TestA") + row("other", "7", "–")
	for _, c := range []struct{ name, page, want string }{
		{"good", good, ""},
		{"another value", strings.Replace(good, "4 KiB", "5 KiB", 1), "bundle.MaxA is 4096 in the code, and 5 KiB (5120) on the page"},
		{"another unit", strings.Replace(good, "2 min", "2 h", 1), "bundle.maxB is"},
		{"no value", strings.Replace(good, "4,095", "many", 1), `"many" is no value`},
		{"missing", strings.Replace(good, row("MaxA", "4 KiB", "TestA"), "", 1), "bundle.MaxA is a limit that is not on the page"},
		{"gone", good + row("maxE", "1", "–"), "bundle.maxE is not in the code"},
		{"twice", good + row("MaxA", "4 KiB", "TestA"), "bundle.MaxA stands there twice"},
		{"no such test", strings.Replace(good, "TestA", "TestB", 1), "there is no TestB in bundle"},
		{"broken row", strings.Replace(good, "| x | y", "| x y", 1), "1 of 4 rows are not of the form"},
	} {
		files := fstest.MapFS{}
		for name, content := range sample {
			files[name] = &fstest.MapFile{Data: []byte(content)}
		}
		files["bundle/limits.go"] = &fstest.MapFile{Data: []byte(code)}
		files["bundle/a_test.go"] = &fstest.MapFile{Data: []byte("package bundle\nfunc TestA() {}\n")}
		tree, err := load(files)
		if err != nil {
			t.Fatal(err)
		}
		_, problems := tree.checkLimits(c.page, sampleHelpers)
		all := strings.Join(problems, "\n")
		if c.want == "" && all != "" || !strings.Contains(all, c.want) {
			t.Errorf("%s: %q, want %q", c.name, all, c.want)
		}
	}
}
