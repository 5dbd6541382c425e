package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"ferry/internal/transport"
	"ferry/verify"
)

// What an [*Error] can be; test for it with errors.Is.
var (
	// ErrNotFound says that the registry has no such content, or misses
	// content that a manifest refers to.
	ErrNotFound = errors.New("not found in the registry")
	// ErrUnauthorized says that a login is missing or wrong, or that it
	// does not give the right, which registries do not tell apart.
	ErrUnauthorized = errors.New("login or right missing")
	// ErrNoProject says that Harbor has no such project. It is an
	// ErrUnauthorized as well.
	ErrNoProject = errors.New("no such project")
	// ErrProxyCache says that a project of Harbor is a proxy cache, to
	// which nobody can push. It is an ErrUnauthorized as well.
	ErrProxyCache = errors.New("project is a proxy cache")
	// ErrConflict says that a tag exists and can not be moved.
	ErrConflict = errors.New("conflict with what is in the registry")
	// ErrBlocked says that a policy of the registry forbids to pull.
	ErrBlocked = errors.New("blocked by a policy of the registry")
	// ErrQuota says that a project has no room left.
	ErrQuota = errors.New("quota exceeded")
	// ErrReadOnly says that the registry takes nothing at this time.
	ErrReadOnly = errors.New("registry is read-only")
	// ErrTooLarge says that the registry, or a proxy before it, refuses a
	// request of that size.
	ErrTooLarge = errors.New("request too large")
	// ErrUnavailable says that the registry did not answer, or not
	// sensibly, however often it was asked; later it may.
	ErrUnavailable = errors.New("registry unavailable")
)

const (
	// maxErrorBody, in bytes, is how much of an error's body is read (T67).
	maxErrorBody = 64 << 10
	// maxMessage, in bytes, is how much foreign text an error holds (T40).
	maxMessage = 1 << 10
)

// Error says what was asked of a registry and what it answered.
type Error struct {
	Op         string // what was asked, such as "push blob"
	Host       string
	Repository string // the path of the repository; empty when none is concerned
	Name       string // the tag, or the digest of a manifest or blob; may be empty
	User       string // whose login was used; empty when none was
	Status     int    // of HTTP; zero when there was no response
	Code       string // such as "DENIED", from the response; may be empty
	Message    string // foreign text, at most 1 KiB
	Err        error  // the cause when the response is not; may be nil

	network   bool // Err came from the network
	begins    bool // it was to begin an upload or to store a manifest
	noProject bool // Harbor said that it has no such project
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op + " " + e.Host)
	if e.Repository != "" {
		b.WriteString("/" + e.Repository)
	}
	switch {
	case strings.Contains(e.Name, ":"):
		b.WriteString("@" + e.Name)
	case e.Name != "":
		b.WriteString(":" + e.Name)
	}
	if e.User != "" {
		fmt.Fprintf(&b, " as %q", e.User)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Code != "" {
		b.WriteString(": " + e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %q", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether e is the kind of error that target, one of this
// package's, stands for.
func (e *Error) Is(target error) bool {
	switch target {
	case nil:
		return false
	case ErrNoProject:
		return e.noProject
	case ErrProxyCache:
		return e.Status == http.StatusForbidden && strings.Contains(strings.ToLower(e.Message), "push artifact to a proxy project")
	}
	return e.kind() == target
}

// kind returns which of the package's errors e is, or nil.
func (e *Error) kind() error {
	message := strings.ToLower(e.Message)
	switch e.Status {
	case 0:
		if e.network && !permanent(e.Err) {
			return ErrUnavailable
		}
	case http.StatusUnauthorized:
		return ErrUnauthorized
	case http.StatusForbidden:
		// Harbor says DENIED to all of these; only the words differ.
		switch {
		case strings.Contains(message, "exceed the configured upper limit"), strings.Contains(message, "quota"):
			return ErrQuota
		case strings.Contains(message, "read only mode"), strings.Contains(message, "read-only"):
			return ErrReadOnly
		}
		return ErrUnauthorized
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusBadRequest:
		switch e.Code {
		case "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN":
			return ErrNotFound
		case "DIGEST_INVALID":
			return verify.ErrMismatch
		}
	case http.StatusPreconditionFailed:
		if e.Code == "PROJECTPOLICYVIOLATION" {
			return ErrBlocked
		}
		return ErrConflict
	case http.StatusConflict:
		return ErrConflict
	case http.StatusRequestEntityTooLarge:
		return ErrTooLarge
	case http.StatusMethodNotAllowed:
		if e.begins { // so says distribution in maintenance
			return ErrReadOnly
		}
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ErrUnavailable
	}
	return nil
}

// permanent reports whether asking later would be of no use.
func permanent(err error) bool {
	var cert *tls.CertificateVerificationError
	var file *transport.CertFileError
	return errors.As(err, &cert) || errors.As(err, &file) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, transport.ErrDowngrade) || errors.Is(err, transport.ErrRedirects) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

var codePattern = regexp.MustCompile(`^[A-Za-z0-9_ -]{1,64}$`)

// readError completes e from the response it is about, and closes that.
func (e *Error) readError(resp *http.Response) *Error {
	defer resp.Body.Close()
	e.Status = resp.StatusCode
	defer func() { e.noProject = e.saysNoProject(resp) }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came is enough
	var doc struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			e.Message = limit(strings.TrimSpace(string(body)))
		}
		return e
	}
	first := doc.Errors[0]
	if codePattern.MatchString(first.Code) {
		e.Code = first.Code
	}
	message := first.Message
	if d := string(first.Detail); d != "" && d != "{}" && d != "null" && d != "[]" && len(d) <= maxMessage/2 {
		message += " " + d
	}
	e.Message = limit(message)
	return e
}

// saysNoProject reports whether resp, which e was read from, is Harbor's answer
// for a project that it does not have: 401 with a challenge that is empty. The
// answer to HEAD has no more; any other says it in words too.
func (e *Error) saysNoProject(resp *http.Response) bool {
	challenges := resp.Header.Values("Www-Authenticate")
	if e.Status != http.StatusUnauthorized || strings.TrimSpace(strings.Join(challenges, "")) != "" {
		return false
	}
	if resp.Request != nil && resp.Request.Method == http.MethodHead {
		return len(challenges) > 0
	}
	return strings.HasPrefix(e.Message, "project ") && strings.Contains(e.Message, " not found")
}

// limit returns s cut to maxMessage at the border of a character. What is not
// printable is escaped where the message is printed.
func limit(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxMessage {
		return s
	}
	s = s[:maxMessage-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// clean returns foreign text, such as a header's value, for use in a message.
func clean(s string) string { return strconv.Quote(short(s)) }
