package ui

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRedactURL(t *testing.T) { // T54
	for _, c := range []struct{ in, want string }{
		{"https://harbor.local/api/v2.0/projects?page=2&page_size=100", "https://harbor.local/api/v2.0/projects?page=2&page_size=100"},
		{"https://robot$x:CANARY@harbor.local:8443/v2/", "https://harbor.local:8443/v2/"},
		{"https://CANARY@harbor.local", "https://harbor.local"},
		{"https://u:CAN/ARY@harbor.local/v2/", "https://harbor.local/v2/"},
		{"https://u:CAN?ARY@harbor.local/v2/", "https://harbor.local/v2/"},
		{"https://u:CAN@ARY@harbor.local/v2/", "https://harbor.local/v2/"},
		{"https://harbor.local:5000/a@sha256:0123", "https://harbor.local:5000/a@sha256:0123"},
		{"http://[::1]:5000/a@sha256:0123", "http://[::1]:5000/a@sha256:0123"},
		{"http://[::1]/a@sha256:0123", "http://[::1]/a@sha256:0123"},
		{"https://s3.local/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=CANARY&X-Amz-Signature=CANARY&partNumber=3&uploadId=u",
			"https://s3.local/b/k?X-Amz-Algorithm=REDACTED&X-Amz-Credential=REDACTED&X-Amz-Signature=REDACTED&partNumber=3&uploadId=u"},
		{"https://r.local/v2/a/blobs/uploads/1?_state=CANARY&digest=sha256:01", "https://r.local/v2/a/blobs/uploads/1?_state=REDACTED&digest=sha256:01"},
		{"https://r.local/t?service=x&scope=repository:a:pull&token=CANARY", "https://r.local/t?service=x&scope=repository:a:pull&token=REDACTED"},
		{"https://r.local/cb#access_token=CANARY", "https://r.local/cb"},
		{"https://r.local/a?CANARY", "https://r.local/a?REDACTED"},
		{"https://r.local/a?uploads", "https://r.local/a?uploads"},
		{"https://r.local/a?", "https://r.local/a?"},
		{"s3://bucket/prefix/x@y", "s3://bucket/prefix/x@y"},
		{"no URL at all: user@host?x=y", "no URL at all: user@host?x=y"},
	} {
		if got := RedactURL(c.in); got != c.want {
			t.Errorf("RedactURL(%q) = %q, want %q", c.in, got, c.want)
		}
		if got := Redact("x " + c.in + " y"); !strings.Contains(c.in, " ") && got != "x "+c.want+" y" {
			t.Errorf("Redact(%q) = %q", c.in, got)
		}
	}
}

func TestRedact(t *testing.T) { // T54
	for _, s := range []string{
		`Get "https://b.s3.local/k?X-Amz-Signature=CANARY": dial tcp: refused`,
		`Get "https://user:CANARY@harbor.local/v2/": EOF`,
		"request: Authorization: Bearer CANARY",
		"request: map[Authorization:[Basic CANARY] Accept:[x]]",
		`{"authorization":"AWS4-HMAC-SHA256 Credential=CANARY/20260101/us-east-1/s3/aws4_request, Signature=CANARY"}`,
		"Proxy-Authorization: Basic CANARY",
		"headers X-Amz-Security-Token: CANARY, X-Amz-Date: now",
		"map[X-Amz-Security-Token:[CANARY] X-Amz-Date:[now]]",
		"body X-Amz-Credential=CANARY&X-Amz-Signature=CANARY",
	} {
		u, _, err := newUI(t, Options{Progress: ProgressPlain})
		u.Error("%s", s)
		u.Hint("%s", s)
		if strings.Contains(err.String(), "CANARY") || !strings.Contains(err.String(), "ferry: error: ") {
			t.Errorf("%q was told as %q", s, err)
		}
	}
	for _, s := range []string{
		`importing "demo": pushing blob sha256:9f86: 503 Service Unavailable`,
		"basic authentication is needed: authorization is missing",
		"s3://bucket/prefix, docker://host/a@sha256:01",
	} {
		if got := Redact(s); got != s {
			t.Errorf("Redact(%q) = %q, want no change", s, got)
		}
	}
}

func TestRedactProperties(t *testing.T) { // T54
	user := rapid.StringMatching(`[a-z$+:@]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		url := "https://" + user.Draw(t, "user") + ":CANARY" + user.Draw(t, "rest") + "@host.local:8443/v2/a?x=CANARY&page=1"
		if got := Redact("pushing: " + url + ": EOF"); strings.Contains(got, "CANARY") || !strings.Contains(got, "host.local:8443/v2/a?") {
			t.Fatalf("Redact(%q) = %q", url, got)
		}
	})
}
