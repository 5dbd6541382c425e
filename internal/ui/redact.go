package ui

import (
	"regexp"
	"slices"
	"strings"
)

const redacted = "REDACTED"

var (
	urlPattern    = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>` + "`" + `]+`)
	headerPattern = regexp.MustCompile(`(?i)((?:proxy-)?authorization["']?\s*[:=]\s*).+`)
	signedPattern = regexp.MustCompile(`(?i)(x-amz-(?:signature|credential|security-token)["']?\s*[:=]\s*\[?["']?)[^\s"'&,;\]]+`)
)

// plainParameters are the query parameters whose values are no secrets:
// those of OCI Distribution, Harbor's API and S3 that help to understand an
// error. What is not here is not shown.
var plainParameters = []string{
	"artifactType", "continuation-token", "delete", "digest", "from", "last", "list-type", "max-keys", "mount", "n",
	"name", "page", "page_size", "partNumber", "prefix", "project_name", "q", "scope", "service", "sort",
	"start-after", "uploadId", "uploads", "with_label", "with_tag", "x-id",
}

// Redact returns s without the secrets that are known by their looks: user
// information and signed queries of the URLs in it (see [RedactURL]), and the
// values of Authorization headers and of X-Amz-Signature, X-Amz-Credential
// and X-Amz-Security-Token. It is a last net under those who build errors,
// not a licence to put secrets into them.
func Redact(s string) string {
	s = urlPattern.ReplaceAllStringFunc(s, RedactURL)
	s = headerPattern.ReplaceAllString(s, "${1}"+redacted)
	return signedPattern.ReplaceAllString(s, "${1}"+redacted)
}

// RedactURL returns the URL s without user information and fragment, and
// with REDACTED in place of each value in the query that is not known to be
// harmless. A text that is no URL is treated as far as it looks like one.
func RedactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		rest = rest[i+1:]
	} else if !portOrNone(authority) {
		// A password with an unescaped slash: the host comes later.
		_, after, ok := strings.Cut(rest, "@")
		if ok {
			rest = after
		}
	}
	rest, _, _ = strings.Cut(rest, "#")
	path, query, ok := strings.Cut(rest, "?")
	if !ok {
		return scheme + "://" + rest
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, _, hasValue := strings.Cut(pair, "=")
		switch {
		case slices.Contains(plainParameters, name):
		case hasValue:
			pairs[i] = name + "=" + redacted
		case pair != "":
			pairs[i] = redacted
		}
	}
	return scheme + "://" + path + "?" + strings.Join(pairs, "&")
}

// portOrNone reports whether what stands after the last colon of authority
// can be a port, so that what stands before it is a host and not a user.
func portOrNone(authority string) bool {
	i := strings.LastIndexByte(authority, ':')
	return i < 0 || strings.HasSuffix(authority, "]") || strings.Trim(authority[i+1:], "0123456789") == ""
}
