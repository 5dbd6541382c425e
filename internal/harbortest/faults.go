package harbortest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
)

// Fault stands between the client and the server: it passes r on to next, or
// answers itself.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Misbehave makes the server do what the faults say, and nothing that was
// asked for before; without faults it behaves. Equal or jumping push times
// are a matter of [Server.SetClock].
func (s *Server) Misbehave(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

// matches reports whether the request has that method, or any for "", and its
// path contains part.
func matches(r *http.Request, method, part string) bool {
	return (method == "" || r.Method == method) && strings.Contains(r.URL.EscapedPath(), part)
}

// FailOnce answers the first request of that method, whose path contains part,
// with Harbor's generic error 500. Harbor was seen to do so when it copied.
func FailOnce(method, part string) Fault { return FailTimes(method, part, 1, 500) }

// FailTimes answers the first n such requests with an error of that status.
func FailTimes(method, part string, n int64, status int) Fault {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if matches(r, method, part) && count.Add(1) <= n {
			w.Header().Add("Set-Cookie", "sid="+randomHex(16)+"; Path=/; HttpOnly")
			writeError(w, errf(status, "UNKNOWN", "internal server error"))
			return
		}
		next.ServeHTTP(w, r)
	}
}

// CutBody announces the whole body of such answers and sends half of it.
func CutBody(part string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !matches(r, http.MethodGet, part) {
			next.ServeHTTP(w, r)
			return
		}
		rec := record(r, next)
		copyHeader(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	}
}

// CutJSON sends half of the body of such answers as if it were all.
func CutJSON(part string) Fault {
	return Rewrite(part, func(body []byte) []byte { return body[:len(body)/2] })
}

// Rewrite sends what edit makes of the body of such answers to GET.
func Rewrite(part string, edit func(body []byte) []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !matches(r, http.MethodGet, part) {
			next.ServeHTTP(w, r)
			return
		}
		rec := record(r, next)
		copyHeader(w.Header(), rec.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		w.Write(edit(rec.Body.Bytes()))
	}
}

// HTMLPage answers such requests with a page for browsers and that status, as
// proxies and Harbor's portal do.
func HTMLPage(part string, status int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !matches(r, "", part) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprint(w, "<!DOCTYPE html><html><body>Sign in</body></html>")
	}
}

// RepeatPage answers every page of such a list with the first one.
func RepeatPage(part string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if matches(r, http.MethodGet, part) {
			q := r.URL.Query()
			q.Set("page", "1")
			r.URL.RawQuery = q.Encode()
		}
		next.ServeHTTP(w, r)
	}
}

// HideTotal leaves out the X-Total-Count of such a list.
func HideTotal(part string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !matches(r, http.MethodGet, part) {
			next.ServeHTTP(w, r)
			return
		}
		rec := record(r, next)
		copyHeader(w.Header(), rec.Header())
		w.Header().Del("X-Total-Count")
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	}
}

// EndlessPages answers each page of such a list of artifacts with as many
// artifacts as were asked for, all different, without end or total.
func EndlessPages(part string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !matches(r, http.MethodGet, part) {
			next.ServeHTTP(w, r)
			return
		}
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		size, _ := strconv.Atoi(r.URL.Query().Get("page_size"))
		var b bytes.Buffer
		for i := range size {
			sep := ","
			if i == 0 {
				sep = "["
			}
			fmt.Fprintf(&b, `%s{"id":%d,"digest":"sha256:%064x","push_time":"2026-11-21T00:00:00.000Z","tags":null}`, sep, page*size+i, page*size+i)
		}
		b.WriteString("]")
		w.Header().Set("Content-Type", "application/json")
		w.Write(b.Bytes())
	}
}

// Before runs do before each such request.
func Before(method, part string, do func(*url.URL)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if matches(r, method, part) {
			do(r.URL)
		}
		next.ServeHTTP(w, r)
	}
}

func record(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	return rec
}

func copyHeader(to, from http.Header) {
	for k, v := range from {
		to[k] = v
	}
}
