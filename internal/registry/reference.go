package registry

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"ferry/verify"
)

// Limits of names, in bytes. Registries refuse more: distribution counts 255
// for the path, and Harbor answers 500 beyond that.
const (
	maxPath = 255
	maxTag  = 128
)

var (
	hostPattern = regexp.MustCompile(`^(?:(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])(?:\.(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))*|\[[0-9a-f:]+\])(?::([1-9][0-9]{0,4}))?$`)
	pathPattern = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	hexPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// dockerHub is the one name of Docker's registry. On the wire it answers at
// another, and its login is kept under a third.
const (
	dockerHub     = "docker.io"
	dockerHubWire = "registry-1.docker.io"
	dockerHubAuth = "auth.docker.io"
	dockerHubKey  = "index.docker.io"
)

// ErrName is what every error about the form of a name is.
var ErrName = errors.New("malformed name")

// Repository is where images of one name are kept. Two repositories are the
// same when they are equal, provided both came from [ParseReference] or
// [ParseRepository].
type Repository struct {
	Host string // lower case, with a port if it is not the usual one
	Path string // such as "library/alpine"
}

// String returns the repository as "host/path".
func (r Repository) String() string { return r.Host + "/" + r.Path }

// Tag returns the reference to tag in r.
func (r Repository) Tag(tag string) Reference {
	return Reference{Host: r.Host, Repository: r.Path, Tag: tag}
}

// Digest returns the reference to the content with digest d in r.
func (r Repository) Digest(d verify.Digest) Reference {
	return Reference{Host: r.Host, Repository: r.Path, Digest: d}
}

// Reference names an image in a registry by tag, by digest, or by both; then
// the digest says what is meant, and the tag what it was called.
type Reference struct {
	Host       string
	Repository string // the path of the repository in the host
	Tag        string // may be empty when there is a digest
	Digest     verify.Digest
}

// Repo returns the repository of r.
func (r Reference) Repo() Repository { return Repository{Host: r.Host, Path: r.Repository} }

// String returns the reference in full, with "docker.io" and "library" where
// they were left out; [ParseReference] of it gives r again.
func (r Reference) String() string {
	s := r.Repo().String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if !r.Digest.IsZero() {
		s += "@" + r.Digest.String()
	}
	return s
}

// name returns what names r's content in a URL.
func (r Reference) name() string {
	if !r.Digest.IsZero() {
		return r.Digest.String()
	}
	return r.Tag
}

// check says what is wrong with a reference that was not parsed but put
// together; a Reference is never used in a URL without it.
func (r Reference) check() error {
	if err := r.Repo().check(); err != nil {
		return err
	}
	if r.Tag == "" && r.Digest.IsZero() {
		return fmt.Errorf("%w: %q has neither tag nor digest", ErrName, r.String())
	}
	if r.Tag != "" && !validTag(r.Tag) {
		return fmt.Errorf("%w: tag %q", ErrName, r.Tag)
	}
	return nil
}

func (r Repository) check() error {
	if err := checkHost(r.Host); err != nil {
		return err
	}
	if len(r.Path) > maxPath || !pathPattern.MatchString(r.Path) {
		return fmt.Errorf("%w: repository %q", ErrName, r.Path)
	}
	return nil
}

// ParseReference parses s as users write references: "alpine", "alpine:3",
// "host/path", "host:5000/path:tag@sha256:…". The first element is a host
// when it holds a dot or a colon, or is "localhost"; without a host the image
// is Docker's, and there in "library" when its name has one element. The tag
// is "latest" when neither tag nor digest is given.
// Errors: [ErrName].
func ParseReference(s string) (Reference, error) {
	bad := func(what, value string) (Reference, error) {
		return Reference{}, fmt.Errorf("%w: %s %q in reference %q", ErrName, what, value, short(s))
	}
	var r Reference
	rest := s
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		d, err := verify.ParseDigest(digest)
		if err != nil {
			return bad("digest", short(digest))
		}
		r.Digest, rest = d, name
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag, rest = rest[i+1:], rest[:i]
		if !validTag(r.Tag) {
			return bad("tag", short(r.Tag))
		}
	}
	repo, err := ParseRepository(rest)
	if err != nil {
		return Reference{}, err
	}
	r.Host, r.Repository = repo.Host, repo.Path
	if r.Tag == "" && r.Digest.IsZero() {
		r.Tag = "latest"
	}
	return r, nil
}

// ParseRepository parses s like [ParseReference], but takes neither tag nor
// digest. Errors: [ErrName].
func ParseRepository(s string) (Repository, error) {
	bad := func(what string) (Repository, error) {
		return Repository{}, fmt.Errorf("%w: %s in %q", ErrName, what, short(s))
	}
	host, path, ok := strings.Cut(s, "/")
	if !ok || !isHost(host) {
		host, path = dockerHub, s
	}
	host = normalHost(host)
	if host == dockerHub && !strings.Contains(path, "/") {
		if hexPattern.MatchString(path) {
			return bad("an image ID, which no registry knows,")
		}
		path = "library/" + path
	}
	if err := checkHost(host); err != nil {
		return Repository{}, err
	}
	if len(path) > maxPath {
		return bad(fmt.Sprintf("repository of more than %d bytes", maxPath))
	}
	if path != strings.ToLower(path) {
		return bad("upper-case letter in the repository")
	}
	if !pathPattern.MatchString(path) {
		return bad("repository")
	}
	return Repository{Host: host, Path: path}, nil
}

// ParseHost returns the one spelling of the registry host s, "host" or
// "host:port". Errors: [ErrName].
func ParseHost(s string) (string, error) {
	h := normalHost(s)
	return h, checkHost(h)
}

// isHost reports whether the first element of a name is a host.
func isHost(s string) bool {
	return strings.ContainsAny(s, ".:") || strings.EqualFold(s, "localhost")
}

// normalHost returns the one spelling of host that is used inside.
func normalHost(host string) string {
	switch h := strings.ToLower(host); h {
	case dockerHubKey, dockerHubWire:
		return dockerHub
	default:
		return h
	}
}

func checkHost(host string) error {
	bad := fmt.Errorf("%w: registry host %q", ErrName, short(host))
	m := hostPattern.FindStringSubmatch(host)
	if m == nil || len(host) > maxPath {
		return bad
	}
	if port := m[1]; port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return bad
		}
	}
	if strings.HasPrefix(host, "[") && net.ParseIP(hostname(host)) == nil {
		return bad
	}
	return nil
}

// hostname returns host without its port and without brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// IsLoopback reports whether host names this very machine, whatever a
// resolver may say.
func IsLoopback(host string) bool {
	h := hostname(host)
	ip := net.ParseIP(h)
	return h == "localhost" || ip != nil && ip.IsLoopback()
}

func validTag(s string) bool { return len(s) <= maxTag && tagPattern.MatchString(s) }

// short returns foreign text cut to a length that fits an error.
func short(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
