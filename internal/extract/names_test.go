package extract

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzNames shows that a name that is written stays in the destination and has
// one form, and that a link that is made, on its own, does not lead out (T33,
// T34).
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "./a", "/a", "../a", "a/../b", "a//b", "a/.", "a/", "/", "./", "", `a\..\b`, `C:\x`, "..", "../../x", "/etc/passwd", "a/../..", "./../x", strings.Repeat("a/", 300), "\x00"} {
		f.Add(s, "../x", byte(0))
		f.Add("d/e/l", s, byte(7))
	}
	f.Fuzz(func(t *testing.T, raw, target string, how byte) {
		name, skip, err := cleanName(raw, how&1 != 0, how&2 != 0)
		if err != nil || skip != "" {
			if name != "" {
				t.Errorf("cleanName(%q) = %q, %q, %v", raw, name, skip, err)
			}
			return
		}
		if name == "" {
			if how&1 == 0 || raw != "/" && raw != "./" {
				t.Errorf("cleanName(%q) is the root", raw)
			}
			return
		}
		if !filepath.IsLocal(name) || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00") || len(name) > maxName || !strings.HasSuffix(strings.TrimSuffix(raw, "/"), name) {
			t.Errorf("cleanName(%q) = %q", raw, name)
		}
		if again, skip, err := cleanName(name, false, false); err != nil || skip != "" || again != name {
			t.Errorf("cleanName(%q) = %q, again %q, %q, %v", raw, name, again, skip, err)
		}
		link, reason := linkTarget(name, target, LinkPolicy(how>>2%3))
		if reason != "" {
			if link != "" {
				t.Errorf("linkTarget(%q, %q) = %q, %q", name, target, link, reason)
			}
			return
		}
		to := path.Join(path.Dir(name), link)
		if path.IsAbs(link) || !fs.ValidPath(to) && strings.ToValidUTF8(to, "") == to || to == ".." || strings.HasPrefix(to, "../") {
			t.Errorf("linkTarget(%q, %q) = %q, which leads to %q", name, target, link, to)
		}
	})
}
