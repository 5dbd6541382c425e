package harbor

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kinds of [*Error]; test for them with errors.Is.
var (
	// ErrNotHarbor says that the server is something else: a plain registry,
	// a proxy's login page.
	ErrNotHarbor = errors.New("not a Harbor")
	// ErrUnauthorized says that the login is wrong, disabled or expired, or
	// that one is needed.
	ErrUnauthorized = errors.New("login refused")
	// ErrForbidden says that the login is right but not enough.
	ErrForbidden = errors.New("right missing")
	// ErrNotFound says that there is no such project, repository or artifact.
	ErrNotFound = errors.New("not found")
	// ErrExists says that what was to be created is there already.
	ErrExists = errors.New("exists already")
	// ErrReadOnly says that the whole Harbor is in read-only mode.
	ErrReadOnly = errors.New("system is read-only")
	// ErrQuota says that the project has no room for what was to be added.
	ErrQuota = errors.New("quota exceeded")
	// ErrProxyCache says that the project is a proxy cache, which takes no
	// pushes.
	ErrProxyCache = errors.New("proxy-cache project")
	// ErrImmutable says that a rule keeps the tag as it is.
	ErrImmutable = errors.New("tag is immutable")
	// ErrUnavailable says that the server could not be reached, did not
	// finish its answer, or answered 429 or 5xx: the same may work later.
	ErrUnavailable = errors.New("server unavailable")
	// ErrUnexpected says that an answer makes no sense: no JSON, an impossible
	// digest, a list without end.
	ErrUnexpected = errors.New("unexpected answer")
	// ErrInvalidName says that Harbor can not have a project or repository
	// of that name. Nothing was sent.
	ErrInvalidName = errors.New("invalid name")
)

// maxMessage, in bytes, bounds what a server's error adds to ours.
const maxMessage = 1 << 10

// Error is a request that failed, with what Harbor said about it.
type Error struct {
	Op      string // what was asked for, such as `creating project "a"`
	Status  int    // HTTP status; zero when there was no answer
	User    string // whose login was sent; empty when nobody's
	Code    string // Harbor's error code, such as "DENIED"; may be empty
	Message string // Harbor's message, printable, at most 1 KiB; may be empty

	kind error // one of the kinds above, or nil
	err  error // the cause, when there was no answer
}

func (e *Error) Error() string {
	s := e.Op
	if e.err != nil {
		return s + ": " + clean(e.err.Error()) // it may quote a header of the answer
	}
	if e.Status != 0 && (e.Status < 200 || e.Status > 299) {
		s += ": " + strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status))
	}
	if e.Message != "" {
		s += ": " + e.Message
	} else if e.Code != "" {
		s += ": " + e.Code
	}
	return s
}

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool { return e.kind != nil && e.kind == target }

// Unwrap returns why there was no answer, or nil.
func (e *Error) Unwrap() error { return e.err }

// transportError is for a request without a whole answer.
func transportError(op string, err error) error {
	// The URL that the HTTP client adds says nothing that op does not.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	e := &Error{Op: op, err: err}
	var cert *tls.CertificateVerificationError
	if !errors.As(err, &cert) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		e.kind = ErrUnavailable // running again does not help against the others
	}
	return e
}

// unexpected is for an answer that makes no sense.
func unexpected(op string, status int, format string, args ...any) error {
	return &Error{Op: op, Status: status, Message: fmt.Sprintf(format, args...), kind: ErrUnexpected}
}

// errorOf turns an answer that is no success into an error.
func (c *Client) errorOf(op string, a *answer) error {
	e := &Error{Op: op, Status: a.status, User: c.opts.Username}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	switch {
	case json.Unmarshal(a.body, &doc) == nil && len(doc.Errors) > 0:
		e.Code, e.Message = clean(doc.Errors[0].Code), doc.Errors[0].Message
	case a.status >= 300 && a.status < 400:
		e.Message = "the server redirects to " + strconv.Quote(a.header.Get("Location")) + "; is that its address?"
	case strings.HasPrefix(a.header.Get("Content-Type"), "text/plain"):
		e.Message = string(a.body) // cut by clean: what is cut before could not be redacted
	}
	e.Message = clean(c.redact(e.Message))
	e.kind = kindOf(e.Status, e.Code, e.Message)
	return e
}

// kindOf tells apart what Harbor says with one status and code: only the
// message distinguishes read-only mode, quota and proxy cache.
func kindOf(status int, code, message string) error {
	said := func(part string) bool { return strings.Contains(message, part) }
	switch {
	case status == http.StatusUnauthorized:
		return ErrUnauthorized
	case status == http.StatusForbidden && said("read only mode"):
		return ErrReadOnly
	case status == http.StatusForbidden && said("exceed the configured upper limit"):
		return ErrQuota
	case status == http.StatusForbidden && said("proxy project"):
		return ErrProxyCache
	case status == http.StatusForbidden:
		return ErrForbidden
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusConflict:
		return ErrExists
	case status == http.StatusPreconditionFailed && code == "PRECONDITION" && said("immutable"):
		return ErrImmutable
	case status == http.StatusTooManyRequests, status >= 500:
		return ErrUnavailable
	case status < 400:
		return ErrUnexpected
	}
	return nil
}

// leastSecret, in bytes, is from where on a password is looked for in messages:
// a shorter one stands in any text by chance, and Harbor takes none of users.
const leastSecret = 4

// redact takes out the password, for servers that repeat what they were sent.
func (c *Client) redact(s string) string {
	if c.opts.Password == "" {
		return s
	}
	login := base64.StdEncoding.EncodeToString([]byte(c.opts.Username + ":" + c.opts.Password))
	s = strings.ReplaceAll(s, login, "[secret]")
	if len(c.opts.Password) < leastSecret {
		return s
	}
	return strings.ReplaceAll(s, c.opts.Password, "[secret]")
}

// clean makes foreign text fit for a terminal and a log: one line, no control
// or formatting characters, at most maxMessage bytes.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n', r == '\r', r == '\t':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		if b.Len() > maxMessage {
			break
		}
	}
	out := strings.TrimSpace(b.String())
	if len(out) > maxMessage {
		cut := maxMessage - len("…")
		for !utf8.RuneStart(out[cut]) {
			cut--
		}
		out = out[:cut] + "…"
	}
	return out
}
