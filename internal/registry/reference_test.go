package registry

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/verify"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParseReference(t *testing.T) {
	tests := []struct{ in, want string }{
		{"alpine", "docker.io/library/alpine:latest"},
		{"alpine:3.20", "docker.io/library/alpine:3.20"},
		{"bitnami/redis", "docker.io/bitnami/redis:latest"},
		{"docker.io/alpine", "docker.io/library/alpine:latest"},
		{"index.docker.io/alpine", "docker.io/library/alpine:latest"},
		{"index.docker.io/library/alpine", "docker.io/library/alpine:latest"},
		{"registry-1.docker.io/a/b:1", "docker.io/a/b:1"},
		{"quay.io/a/b", "quay.io/a/b:latest"},
		{"localhost/x", "localhost/x:latest"},
		{"localhost:5000/x", "localhost:5000/x:latest"},
		{"harbor:5000/x/y", "harbor:5000/x/y:latest"},
		{"HARBOR.Site/x/y:V1", "harbor.site/x/y:V1"},
		{"LocalHost/x", "localhost/x:latest"},
		{"[::1]:5000/x", "[::1]:5000/x:latest"},
		{"10.0.0.7/p/i:1", "10.0.0.7/p/i:1"},
		{"h.io/a__b/c--d/e.f_g:_x", "h.io/a__b/c--d/e.f_g:_x"},
		{"a.b/c@sha256:" + hexA, "a.b/c@sha256:" + hexA},
		{"a.b/c:1@sha256:" + hexA, "a.b/c:1@sha256:" + hexA},
		{"alpine@sha256:" + hexA, "docker.io/library/alpine@sha256:" + hexA},
		{"a.b/" + strings.Repeat("x", 255), "a.b/" + strings.Repeat("x", 255) + ":latest"},
		{"a.b/c:" + strings.Repeat("x", 128), "a.b/c:" + strings.Repeat("x", 128)},
		{"a.b/" + hexA, "a.b/" + hexA + ":latest"},
	}
	for _, tt := range tests {
		got, err := ParseReference(tt.in)
		if err != nil || got.String() != tt.want {
			t.Errorf("ParseReference(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
		if again, err := ParseReference(got.String()); err != nil || again != got {
			t.Errorf("ParseReference(%q) = %v, %v, want the same again", got, again, err)
		}
	}
}

// T12
func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{
		"", "/", "a/", "/a", "a//b", "a.b/", "a.b//c", "a.b/c/", "a.b/../c", "a.b/./c", "a.b/c d", " a.b/c", "a.b/c ",
		"a.b/C", "a.b/-c", "a.b/c-", "a.b/c..d", "a.b/c___d", "a.b/_c", "a.b/c%2fd", "a.b/c\x00", "a.b/é", "a.b/c?d=e", "a.b/c#d",
		"a.b/c:", "a.b/c:-x", "a.b/c:.x", "a.b/c:a/b", "a.b/c:a b", "a.b/c:1:2", "a.b/c:" + strings.Repeat("x", 129),
		"a.b/" + strings.Repeat("x", 256), strings.Repeat("a", 254) + ".b/c", "Harbor/x/y", "https://a.b/c", "user@a.b/c", "user:pw@a.b/c",
		"a.b:/c", "a.b:0/c", "a.b:65536/c", "a.b:http/c", ".a/c", "a./c", "-a.b/c", "a..b/c", "a_b.c/d", "[::1/c", "[zz]:5000/c", "[:::]/c",
		hexA, "docker.io/" + hexA,
		"a.b/c@", "a.b/c@sha256:", "a.b/c@sha256:" + strings.ToUpper(hexA), "a.b/c@sha256:" + hexA[1:], "a.b/c@sha256:" + hexA + "a",
		"a.b/c@md5:d41d8cd98f00b204e9800998ecf8427e", "a.b/c@sha512:" + hexA + hexA, "a.b/c@SHA256:" + hexA, "a.b/c@" + hexA,
		"a.b/c@sha256:../../" + hexA[6:], "a.b/c@sha256:" + hexA + "@sha256:" + hexA, "a.b/c:1@sha256:" + hexA + ":2",
	} {
		if got, err := ParseReference(in); err == nil {
			t.Errorf("ParseReference(%q) = %v, want an error", in, got)
		} else if !errors.Is(err, ErrName) {
			t.Errorf("ParseReference(%q): %v is not ErrName", in, err)
		} else if len(err.Error()) > 1200 {
			t.Errorf("ParseReference(%.20q…): an error of %d bytes", in, len(err.Error()))
		}
	}
}

// What parses is used in URLs: it holds nothing that would change one.
func TestParseReferenceIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.StringMatching(`[a-zA-Z0-9.:/@_-]{0,40}`),
			rapid.StringMatching(`[a-z0-9.-]{1,10}(:[0-9]{1,6})?/[a-z0-9./_-]{1,20}(:[a-zA-Z0-9._-]{1,10})?(@sha256:[0-9a-f]{63,65})?`),
			rapid.String(),
		).Draw(t, "s")
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		if err := r.check(); err != nil {
			t.Fatalf("ParseReference(%q) = %v, which is refused: %v", s, r, err)
		}
		if again, err := ParseReference(r.String()); err != nil || again != r {
			t.Fatalf("ParseReference(%q) = %v, and of that %v, %v", s, r, again, err)
		}
		for _, part := range strings.Split(r.Repository, "/") {
			if part == "" || part == "." || part == ".." {
				t.Fatalf("ParseReference(%q) has the part %q", s, part)
			}
		}
		if strings.ContainsAny(r.String(), "?#%\\ \n\x00") {
			t.Fatalf("ParseReference(%q) = %q", s, r.String())
		}
	})
}

func TestReference(t *testing.T) {
	d := verify.DigestOf([]byte("x"))
	repo := Repository{"a.b", "c/d"}
	if r := repo.Tag("1"); r.String() != "a.b/c/d:1" || r.Repo() != repo || r.name() != "1" {
		t.Errorf("Tag: %v", r)
	}
	if r := repo.Digest(d); r.String() != "a.b/c/d@"+d.String() || r.name() != d.String() {
		t.Errorf("Digest: %v", r)
	}
	for _, r := range []Reference{{}, repo.Tag(""), repo.Tag("a/b"), {Host: "a.b/c", Repository: "d", Tag: "1"}, {Host: "a.b", Repository: "../d", Tag: "1"}} {
		if err := r.check(); !errors.Is(err, ErrName) {
			t.Errorf("check of %#v = %v, want ErrName", r, err)
		}
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{"Docker.IO": "docker.io", "registry-1.docker.io": "docker.io", "h:5000": "h:5000", "[::1]": "[::1]"} {
		if got, err := ParseHost(in); err != nil || got != want {
			t.Errorf("ParseHost(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "a/b", "http://a", "a b", "a:b"} {
		if got, err := ParseHost(in); !errors.Is(err, ErrName) {
			t.Errorf("ParseHost(%q) = %q, %v, want ErrName", in, got, err)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:5000": true, "[::1]": true,
		"10.0.0.1": false, "localhost.evil.io": false, "127.0.0.1.evil.io:80": false, "harbor": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %v", host, got)
		}
	}
}
