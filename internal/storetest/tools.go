package storetest

import (
	"os"
	"path/filepath"
	"testing"
)

// tool returns the path of a program that "make tools" installs. Without it
// the test is skipped, or fails where the environment variable CI is set.
func tool(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the repository has no go.mod")
		}
		dir = parent
	}
	path := filepath.Join(dir, ".tools", "bin", name)
	if _, err := os.Stat(path); err != nil {
		message := "%s is not installed: run make tools (%v)"
		if os.Getenv("CI") != "" {
			t.Fatalf(message, name, err)
		}
		t.Skipf(message, name, err)
	}
	return path
}
