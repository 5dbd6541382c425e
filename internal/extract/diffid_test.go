package extract

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"ferry/verify"
)

// The digest is that of the archive, however it is compressed.
func TestDiffID(t *testing.T) {
	tarball := archive(t, dir("d/"), file644("d/f", strings.Repeat("content ", 1000)), link("l", "/etc/passwd"))
	padded := append([]byte(nil), tarball...)
	padded = append(padded, make([]byte, 10240)...)
	for name, tt := range map[string]struct{ blob, plain []byte }{
		"plain":          {tarball, tarball},
		"gzip":           {gz(tarball), tarball},
		"zstd":           {zst(tarball), tarball},
		"gzip in parts":  {append(gz(tarball[:700]), gz(tarball[700:])...), tarball},
		"padded":         {gz(padded), padded},
		"no entries":     {gz(archive(t)), archive(t)},
		"nothing at all": {nil, nil},
	} {
		got, err := DiffID(t.Context(), blob(tt.blob), Options{})
		if want := verify.DigestOf(tt.plain); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

// What is refused when a layer is extracted, but for names and what depends on
// a disk, is refused here too, with the same kind of error (T19).
func TestDiffIDRefuses(t *testing.T) {
	for _, tt := range streamCases(t) {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			var first error
			for _, l := range tt.layers(t, parent) {
				_, err := DiffID(t.Context(), l, Options{})
				first = cmp.Or(first, err)
			}
			if !errors.Is(first, tt.err) {
				t.Errorf("%v, want %v", first, tt.err)
			}
			if left, err := fs.ReadDir(os.DirFS(parent), "."); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
	three := archive(t, file644("a", "12345"), file644("b", "12345"), file644("c", "12345"))
	for name, o := range map[string]Options{"entries": {MaxFiles: 2}, "bytes": {MaxBytes: 14}, "bytes of a file": {MaxFileBytes: 4}} {
		if _, err := DiffID(t.Context(), blob(three), o); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DiffID(t.Context(), blob(three), Options{MaxFiles: 3, MaxBytes: 15, MaxFileBytes: 5}); err != nil {
		t.Errorf("at the limits: %v", err)
	}
}
