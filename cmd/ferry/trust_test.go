package main

import (
	"slices"
	"strings"
	"testing"
)

// What docs/trust.md shows is what the script trust.txtar runs.
func TestTrustExample(t *testing.T) {
	script := readDoc(t, "cmd/ferry/testdata/script/trust.txtar")
	lines := strings.Split(strings.NewReplacer(" \\\n      ", " ", "\n    ", "\n").Replace(readDoc(t, "docs/trust.md")), "\n")
	calls := 0
	for _, line := range lines {
		line = strings.NewReplacer("import usb harbor.site.local", "import out/tools $INSIDE/$P", "cosign sign-blob", "cosign3 sign-blob").Replace(line)
		if strings.HasPrefix(line, "ferry ") || strings.HasPrefix(line, "cosign3 ") {
			calls++
			if !strings.Contains(script, "\ncode 0 "+line+"\n") && !strings.Contains(script, "\nexec "+line+"\n") {
				t.Errorf("the script does not run %q", line)
			}
		}
	}
	if calls < 10 {
		t.Errorf("only %d calls in docs/trust.md", calls)
	}
	_, roles, _ := strings.Cut(script, "-- roles --\n")
	roles, _, _ = strings.Cut(roles, "-- ")
	if i := slices.Index(lines, "roles:"); i < 0 || !strings.HasPrefix(strings.Join(lines[i:], "\n"), roles) {
		t.Errorf("the roles of the script are not those of docs/trust.md:\n%s", roles)
	}
}
