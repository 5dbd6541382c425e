package main

import (
	"slices"
	"strings"
	"testing"
)

// What docs/trust.md shows is what the scripts trust.txtar and images.txtar run.
func TestTrustExample(t *testing.T) {
	script := readDoc(t, "cmd/ferry/testdata/script/trust.txtar") + readDoc(t, "cmd/ferry/testdata/script/images.txtar")
	lines := strings.Split(strings.NewReplacer(" \\\n      ", " ", "\n    ", "\n").Replace(readDoc(t, "docs/trust.md")), "\n")
	calls := 0
	for _, line := range lines {
		line = strings.NewReplacer("import usb harbor.site.local", "import out/tools $INSIDE/$P", "harbor.site.local", "$INSIDE/$P", "cosign sign-blob", "cosign3 sign-blob",
			"cosign sign ", "cosign3 sign ", "cosign attest ", "cosign3 attest ", "export registry.example/team/app:1", "export $OUTSIDE/images/app:1=team/app:1",
			"registry.example/team/app:1", "--allow-http-registry $OUTSIDE/images/app:1").Replace(line)
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
	for file, first := range map[string]string{"roles": "roles:", "images": "root:"} {
		_, text, _ := strings.Cut(script, "-- "+file+" --\n")
		text, _, _ = strings.Cut(text, "-- ")
		if i := slices.Index(lines, first); text == "" || i < 0 || !strings.HasPrefix(strings.Join(lines[i:], "\n"), text) {
			t.Errorf("the file %s of the scripts is not in docs/trust.md:\n%s", file, text)
		}
	}
}
