package registry

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ferry/internal/registrytest"
	"ferry/verify"
)

// What Harbor 2.16 was seen to answer, and some others.
func TestErrorKinds(t *testing.T) {
	all := []error{ErrNotFound, ErrUnauthorized, ErrConflict, ErrBlocked, ErrQuota, ErrReadOnly, ErrTooLarge, ErrUnavailable, verify.ErrMismatch}
	tests := []struct {
		status        int
		code, message string
		want          error
	}{
		{404, "MANIFEST_UNKNOWN", "manifest unknown", ErrNotFound},
		{404, "", "", ErrNotFound},
		{400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", ErrNotFound},
		{400, "MANIFEST_INVALID", "manifest invalid", nil},
		{400, "DIGEST_INVALID", "provided digest did not match uploaded content", verify.ErrMismatch},
		{401, "UNAUTHORIZED", "project nosuch not found: project nosuch not found", ErrUnauthorized},
		{403, "DENIED", "requested access to the resource is denied", ErrUnauthorized},
		{403, "DENIED", "denied: can not push artifact to a proxy project: proxyp", ErrUnauthorized},
		{403, "DENIED", "adding 195.6 KiB of storage resource, which when updated to current usage of 30.2 KiB will exceed the configured upper limit of 97.7 KiB.", ErrQuota}, // T59
		{403, "DENIED", "The system is in read only mode. Any modification is prohibited.", ErrReadOnly},                                                                       // T59
		{412, "PRECONDITION", "Failed to process request due to 'app:1.0' configured as immutable.", ErrConflict},                                                              // T60
		{412, "PROJECTPOLICYVIOLATION", "current image without vulnerability scanning cannot be pulled", ErrBlocked},                                                           // T61
		{409, "CONFLICT", "", ErrConflict},
		{413, "", "", ErrTooLarge},
		{405, "UNSUPPORTED", "The operation is unsupported.", nil},
		{429, "TOOMANYREQUESTS", "", ErrUnavailable},
		{500, "UNKNOWN", "unknown: unknown error", ErrUnavailable},
		{503, "", "", ErrUnavailable},
		{418, "", "", nil},
	}
	for _, tt := range tests {
		e := &Error{Status: tt.status, Code: tt.code, Message: tt.message}
		for _, target := range all {
			if got := errors.Is(e, target); got != (target == tt.want) {
				t.Errorf("%d %s %q is %v: %v", tt.status, tt.code, tt.message, target, got)
			}
		}
	}
	if e := (&Error{Err: io.ErrUnexpectedEOF, network: true}); !errors.Is(e, ErrUnavailable) || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("a network error is %v", e.kind())
	}
	if e := (&Error{Err: http.ErrSchemeMismatch, network: true}); errors.Is(e, ErrUnavailable) {
		t.Error("a server without TLS is only unavailable")
	}
}

func TestErrorText(t *testing.T) {
	e := &Error{Op: "push manifest", Host: "h:1", Repository: "a/b", Name: "1.0", User: "robot$x", Status: 403, Code: "DENIED", Message: "no"}
	if got, want := e.Error(), `push manifest h:1/a/b:1.0 as "robot$x": 403 Forbidden: DENIED: "no"`; got != want {
		t.Errorf("error %s, want %s", got, want)
	}
	e = &Error{Op: "get blob", Host: "h", Repository: "a", Name: "sha256:" + hexA, Err: io.ErrUnexpectedEOF}
	if got, want := e.Error(), "get blob h/a@sha256:"+hexA+": unexpected EOF"; got != want {
		t.Errorf("error %s, want %s", got, want)
	}
}

// T40, T67: what a registry says in errors stays short and harmless.
func TestErrorBodies(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	tests := []struct {
		contentType, body, want string
	}{
		{"application/json", registrytest.Errors("DENIED", "no\x1b[31m\r\n::error::\u202egnp"), "no"},
		{"application/json", registrytest.Errors("DENIED", long), "xxx"},
		{"application/json", registrytest.Errors(long, "m"), "m"},
		{"application/json", registrytest.Errors("A\x1b[0m", "m"), "m"},
		{"application/json", `{"errors":[{"code":"X","message":"m","detail":{"Tag":"1"}}]}`, `{\"Tag\":\"1\"}`},
		{"application/json", registrytest.Errors("DENIED", long+long), "403"},
		{"application/json", `{"errors":[]}`, "403"},
		{"application/json", `{"errors":`, "403"},
		{"application/json", `[]`, "403"},
		{"text/plain; charset=utf-8", "plain\x07 words\n", "words"},
		{"text/html", "<html>secret page</html>", "403"},
		{"text/plain", long, "xxx"},
		{"text/plain", "\xff\xfe\x80", "403"},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", tt.contentType)
		w.WriteHeader(403)
		io.WriteString(w, tt.body)
		got := (&Error{Op: "op", Host: "h"}).readError(w.Result()).Error()
		if !strings.Contains(got, tt.want) || strings.Contains(got, "<html>") || len(got) > 1500 {
			t.Errorf("error of %.60q: %d bytes, %.100q, want one with %q", tt.body, len(got), got, tt.want)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e {
				t.Errorf("error of %.60q holds %U", tt.body, r)
			}
		}
	}
}

func TestLimit(t *testing.T) {
	for n := range 8 {
		s := limit(strings.Repeat("a", maxMessage-n) + strings.Repeat("é", 10))
		if len(s) > maxMessage || !strings.HasSuffix(s, "…") || strings.Contains(s, "\uFFFD") {
			t.Errorf("limit: %d bytes ending %q", len(s), s[len(s)-6:])
		}
	}
	if s := limit("short"); s != "short" {
		t.Errorf("limit(short) = %q", s)
	}
}
