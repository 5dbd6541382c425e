package transport

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Errors of redirects that are not followed; test for them with errors.Is.
var (
	// ErrRedirects says that a request was redirected too often.
	ErrRedirects = errors.New("too many redirects")
	// ErrDowngrade says that a redirect led from https to http.
	ErrDowngrade = errors.New("redirect from https to http")
)

// wants are the headers that a request keeps on its way to another origin:
// they say what is wanted and nothing about who wants it.
var wants = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Range",
	"If-Match", "If-None-Match", "If-Range", "User-Agent",
}

// checkRedirect prepares req, which goes where the response to the last of
// via led.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet && first.Method != http.MethodHead {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return ErrRedirects
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return ErrDowngrade
	}
	req.Header.Del("Referer") // net/http sets it with the query of the last URL
	req.URL.User = nil        // who we are is not for the server to say
	elsewhere := func(r *http.Request) bool { return !SameOrigin(first.URL, r.URL) }
	if elsewhere(req) || slices.ContainsFunc(via, elsewhere) {
		for name := range req.Header {
			if !slices.Contains(wants, name) {
				req.Header.Del(name)
			}
		}
	}
	return nil
}

// SameOrigin reports whether a and b have the same scheme, host and port,
// where 80 and 443 are the ports of http and https.
func SameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	}
	return ""
}
