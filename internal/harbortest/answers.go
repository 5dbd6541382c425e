package harbortest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// apiError is an answer in Harbor's one shape for errors.
type apiError struct {
	status        int
	code, message string
	detail        any
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

func errf(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return errf(http.StatusBadRequest, "BAD_REQUEST", format, args...)
}

func notFound(format string, args ...any) error {
	return errf(http.StatusNotFound, "NOT_FOUND", format, args...)
}

func conflict(format string, args ...any) error {
	return errf(http.StatusConflict, "CONFLICT", format, args...)
}

func precondition(format string, args ...any) error {
	return errf(http.StatusPreconditionFailed, "PRECONDITION", format, args...)
}

// unprocessable is the answer of Harbor's check against its API description.
func unprocessable(format string, args ...any) error {
	return errf(http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY", "validation failure list:\n"+format, args...)
}

// writeError writes err, which is an *apiError unless something is wrong here.
func writeError(w http.ResponseWriter, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = errf(http.StatusInternalServerError, "UNKNOWN", "internal server error")
	}
	item := map[string]any{"code": e.code, "message": e.message}
	if e.detail != nil {
		item["detail"] = e.detail
	}
	body, _ := json.Marshal(map[string]any{"errors": []any{item}})
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(e.status)
	w.Write(append(body, '\n'))
}

func writeJSON(w http.ResponseWriter, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.Write(append(body, '\n'))
}

// stamp is a time as Harbor writes it.
type stamp time.Time

func (t stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format("2006-01-02T15:04:05.000Z")), nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}
