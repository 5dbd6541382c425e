package s3store

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"ferry/bundle"
)

// Kinds of an [Error], besides those of [bundle.Store]; test for them with
// errors.Is.
var (
	// ErrDenied says that credentials are missing, wrong or expired, or
	// that they do not give the right.
	ErrDenied = errors.New("access to S3 denied")
	// ErrUnavailable says that the server can not be reached, or has no
	// time now: the same request may succeed later.
	ErrUnavailable = errors.New("S3 server unavailable")
)

// Error says which request failed, and how the server answered. It is
// [ErrDenied], [ErrUnavailable], [bundle.ErrNotFound], [bundle.ErrChanged],
// [bundle.ErrExists], [bundle.ErrNoSpace], or none of these.
type Error struct {
	Op      string // what was done: "reading"
	Key     string // to which object or place, as s3://bucket/key
	Code    string // S3's name of the error, or "" when the server named none
	Status  int    // of HTTP; 0 when there was no answer
	Message string // in the words of the server; at most 1 KiB, printable

	kind  error // what errors.Is finds besides cause, or nil
	cause error // what happened when there was no answer, or nil
}

func (e *Error) Error() string {
	parts := []string{e.Op + " " + e.Key}
	if e.Code != "" {
		parts = append(parts, e.Code)
	}
	if e.Message != "" && e.Message != e.Code {
		parts = append(parts, e.Message)
	}
	if e.cause != nil {
		parts = append(parts, printable(e.cause.Error()))
	}
	text := strings.Join(parts, ": ")
	if e.Status != 0 {
		text += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	return text
}

// Unwrap returns the kind of the error and its cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// maxMessage, in bytes, bounds what an error repeats of an answer.
const maxMessage = 1 << 10

// printable makes text of a server safe to show (T40).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), maxMessage)], ""))
}

// hideURL removes from err the URL of a request, whose query names an upload
// or may hold a signature (T54).
func hideURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// kinds maps S3's error codes, and those of other makers' servers.
var kinds = map[string]error{
	"AccessDenied": ErrDenied, "AllAccessDisabled": ErrDenied, "AccountProblem": ErrDenied,
	"InvalidAccessKeyId": ErrDenied, "SignatureDoesNotMatch": ErrDenied, "InvalidSecurity": ErrDenied,
	"ExpiredToken": ErrDenied, "InvalidToken": ErrDenied, "TokenRefreshRequired": ErrDenied,
	"RequestTimeTooSkewed": ErrDenied, "NotSignedUp": ErrDenied, "UnauthorizedAccess": ErrDenied,
	"XAdminUserNotFound": ErrDenied, // versitygw, with status 404

	"NoSuchKey": bundle.ErrNotFound, "NotFound": bundle.ErrNotFound,
	"NoSuchBucket": nil, "NoSuchUpload": nil, // no object that is missing

	"PreconditionFailed": bundle.ErrChanged, "InvalidRange": bundle.ErrChanged,

	"QuotaExceeded": bundle.ErrNoSpace, "InsufficientStorage": bundle.ErrNoSpace, "StorageFull": bundle.ErrNoSpace,
	"XMinioStorageFull": bundle.ErrNoSpace, "XMinioAdminBucketQuotaExceeded": bundle.ErrNoSpace,

	"SlowDown": ErrUnavailable, "ServiceUnavailable": ErrUnavailable, "InternalError": ErrUnavailable,
	"RequestTimeout": ErrUnavailable, "OperationAborted": ErrUnavailable, "Busy": ErrUnavailable,
}

func kindOf(code string, status int) error {
	if kind, ok := kinds[code]; ok {
		return kind
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusNotFound:
		return bundle.ErrNotFound
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return bundle.ErrChanged
	case http.StatusInsufficientStorage:
		return bundle.ErrNoSpace
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return ErrUnavailable
	case http.StatusNotImplemented:
		return nil
	}
	if status >= 500 {
		return ErrUnavailable
	}
	return nil
}

// fail makes what a request returned an [*Error], or the error of a ctx that
// has ended.
func (s *store) fail(ctx context.Context, op, name string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", op, s.url(name), ctx.Err())
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	e := &Error{Op: op, Key: s.url(name)}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		e.Status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code, e.Message = printable(api.ErrorCode()), printable(api.ErrorMessage())
		// For an answer without a code the SDK makes one.
		if e.Code == "UnknownError" || e.Message != "" && e.Message == http.StatusText(e.Status) {
			e.Code = ""
		}
	}
	switch {
	case e.Status == 0:
		e.kind, e.cause = ErrUnavailable, hideURL(err)
		if wrongCertificate(err) {
			e.kind = nil
		}
	case e.Status < 300 && api == nil:
		e.Message, e.cause = "the answer is not one of S3", hideURL(response.Err)
		if cutOff(err) {
			e.kind, e.Message = ErrUnavailable, "the answer breaks off"
		}
	default:
		e.kind = kindOf(e.Code, e.Status)
		s.explain(e, response.Response)
	}
	return e
}

// explain adds to e what a user needs and the server's words do not say.
func (s *store) explain(e *Error, r *smithyhttp.Response) {
	switch {
	case e.Code == "NoSuchBucket":
		e.Message = fmt.Sprintf("there is no bucket %q", s.bucket)
	case e.Code == "RequestTimeTooSkewed":
		e.Message = fmt.Sprintf("the clocks differ: here it is %s, at the server %s",
			time.Now().UTC().Format(http.TimeFormat), printable(r.Header.Get("Date")))
	case e.Status >= 300 && e.Status < 400 || e.Code == "AuthorizationHeaderMalformed":
		if region := r.Header.Get("X-Amz-Bucket-Region"); region != "" {
			e.Message = printable("the bucket is in the region " + region)
		}
	}
}

// hasCode reports whether err is an answer of the server with that code.
func hasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// hasStatus reports whether err is an answer of the server with that status.
func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

func expired(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "ExpiredToken" || api.ErrorCode() == "TokenRefreshRequired")
}

// cutOff reports whether an answer that was to be read has lost its end: the
// connection broke or brings nothing, or the length in the header was too
// small.
func cutOff(err error) bool {
	var wrong *xml.SyntaxError
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) || errors.As(err, &wrong) && wrong.Msg == "unexpected EOF"
}

func wrongCertificate(err error) bool {
	var wrong *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	return errors.As(err, &wrong) || errors.As(err, &plain)
}

// retryer is the SDK's, that heeds Retry-After too.
type retryer struct{ aws.RetryerV2 }

func newRetryer() aws.Retryer {
	return retryer{retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = attempts, maxPause
		o.Retryables = append([]retry.IsErrorRetryable{
			retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
				switch {
				case wrongCertificate(err):
					return aws.FalseTernary
				case cutOff(err) && !errors.Is(err, context.Canceled):
					return aws.TrueTernary
				}
				return aws.UnknownTernary
			}),
			retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{http.StatusTooManyRequests: {}}},
		}, o.Retryables...)
	})}
}

// maxRetryAfter bounds what Retry-After can ask for.
const maxRetryAfter = time.Minute

// RetryDelay implements [aws.Retryer].
func (r retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	pause, failed := r.RetryerV2.RetryDelay(attempt, err)
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		if s, err := strconv.Atoi(response.Response.Header.Get("Retry-After")); err == nil && s > 0 {
			pause = max(pause, min(time.Duration(min(s, 3600))*time.Second, maxRetryAfter))
		}
	}
	return pause, failed
}

// jitter returns a random time from half of d to d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// errShort says that a body ended before its end, again and again.
var errShort = fmt.Errorf("the server breaks off again and again: %w", io.ErrUnexpectedEOF)
