package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kinds of [*Error]; test for them with errors.Is.
var (
	// ErrNotFound says that there is no such object, or no such key in it;
	// then the Error has a Key.
	ErrNotFound = errors.New("not found")
	// ErrDenied says that the login is missing, wrong or expired (status 401,
	// or zero when an exec plugin gave none), or that it lacks a right (403;
	// then the Error has the Verb and Resource or Path that RBAC refuses).
	ErrDenied = errors.New("access denied")
	// ErrUnavailable says that the server could not be reached, did not
	// finish its answer, or answered 429 or 5xx: the same may work later.
	ErrUnavailable = errors.New("server unavailable")
	// ErrUntrusted says that the server's certificate is not one that the
	// kubeconfig trusts. The error is also that of the TLS package.
	ErrUntrusted = errors.New("certificate not trusted")
	// ErrUnexpected says that an answer makes no sense: no Kubernetes object,
	// a redirect, too long.
	ErrUnexpected = errors.New("unexpected answer")
	// ErrInvalid says that something written by people is malformed: the
	// kubeconfig, a name in [Names], a value in an object.
	ErrInvalid = errors.New("invalid")
)

// maxMessage, in bytes, bounds what foreign text adds to an error.
const maxMessage = 1 << 10

// Error is what went wrong, in facts. It holds no secrets.
type Error struct {
	Op string // what was done, such as `reading secret "namespace/name"`

	Kind   string // of the object, such as "secret"; empty when it is about none
	Object Object // whose Key is set when the fault is there

	Verb     string // what was asked for: "get"
	Group    string // API group of Resource; empty for the core
	Resource string // plural, such as "secrets"
	Path     string // of what is no object: "/apis"

	Status  int    // HTTP status; zero when there was no answer
	Message string // printable, at most about 1 KiB

	kind  error // one of the kinds above, or nil when ctx ended
	cause error // may be nil
}

func (e *Error) Error() string {
	s := e.Op
	if e.Object.Key != "" {
		s += fmt.Sprintf(": key %q", e.Object.Key)
	}
	if e.Status != 0 {
		s += ": " + strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status))
	}
	if e.Message != "" && e.Message != http.StatusText(e.Status) {
		s += ": " + e.Message
	}
	return s
}

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool { return e.kind != nil && e.kind == target }

// Unwrap returns the cause: a context's, a certificate's or a file's error, or
// nil.
func (e *Error) Unwrap() error { return e.cause }

// request is what was asked of the server, for errors.
type request struct {
	op, kind              string
	object                Object // without its key
	verb, group, resource string
	path                  string
}

// fail returns an error about r.
func (r request) fail(kind error, format string, args ...any) *Error {
	object := r.object
	object.Key = ""
	return &Error{
		Op: r.op, Kind: r.kind, Object: object, Verb: r.verb, Group: r.group, Resource: r.resource, Path: r.path,
		Message: printable(fmt.Sprintf(format, args...)), kind: kind,
	}
}

// errorOf turns an error of client-go into an [*Error]. Only what is known to
// hold no secrets gets into its text: client-go's decoders quote whole
// answers.
func (c *Cluster) errorOf(ctx context.Context, r request, err error) error {
	var (
		status    *apierrors.StatusError
		broken    readError
		transport *url.Error
		cert      *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil:
		e := r.fail(nil, "%v", context.Cause(ctx))
		e.cause = ctx.Err()
		return e
	case errors.As(err, &status):
		return c.statusError(r, status.ErrStatus)
	case errors.Is(err, errTooLarge):
		return r.fail(ErrUnexpected, "%v", errTooLarge)
	case errors.Is(err, errTimeout):
		return r.fail(ErrUnavailable, "no answer within %v", c.guard.timeout)
	case errors.As(err, &cert):
		e := r.fail(ErrUntrusted, "%v", cert)
		e.cause = cert
		return e
	case errors.As(err, &broken):
		return r.fail(ErrUnavailable, "reading the answer: %s", c.guard.redact(broken.Error()))
	case errors.As(err, &transport):
		// The URL that the HTTP client adds says nothing that r does not.
		text := transport.Err.Error()
		if plugin, ok := strings.CutPrefix(text, "getting credentials: "); ok {
			return r.fail(ErrDenied, "%s", pluginMessage(plugin))
		}
		return r.fail(ErrUnavailable, "%s", c.guard.redact(text))
	}
	return r.fail(ErrUnexpected, "the answer is no object of Kubernetes")
}

// pluginMessage returns what may be said about a plugin that gave no login.
// What client-go says about a plugin's output may quote it.
func pluginMessage(s string) string {
	if strings.HasPrefix(s, "exec: ") || strings.HasPrefix(s, "exec plugin ") {
		return s
	}
	return "the exec plugin of the kubeconfig gave no login that makes sense"
}

// statusError is for an answer that is no success.
func (c *Cluster) statusError(r request, s metav1.Status) error {
	// Client-go makes a Status of its own for an answer without one.
	made := s.Details != nil && len(s.Details.Causes) > 0 && s.Details.Causes[0].Type == metav1.CauseTypeUnexpectedServerResponse
	kind := ErrUnexpected
	switch code := s.Code; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		kind = ErrDenied
	case code == http.StatusNotFound && !made:
		kind = ErrNotFound
	case code == http.StatusTooManyRequests, code >= 500:
		kind = ErrUnavailable
	}
	e := r.fail(kind, "%s", c.guard.redact(s.Message))
	e.Status = int(s.Code)
	return e
}

// printable makes foreign text fit for a terminal and a log (T40): one line of
// printable characters, not much longer than maxMessage. Backslashes are
// doubled, quotation marks are not touched.
func printable(s string) string {
	short := s
	if len(s) > maxMessage {
		short = s[:maxMessage]
	}
	quoted := strconv.Quote(strings.TrimSpace(short))
	out := strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
	if len(out) > maxMessage {
		out = strings.ToValidUTF8(out[:maxMessage], "")
	}
	if len(s) > maxMessage || len(quoted)-2 > maxMessage {
		out += "…"
	}
	return out
}
