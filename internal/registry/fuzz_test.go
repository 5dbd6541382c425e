package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/oci"
	"ferry/internal/transport"
	"ferry/verify"
)

// FuzzParseReference shows that a reference that is taken has one text, which
// leads to the same place as a URL, and that one that is not gives nothing.
func FuzzParseReference(f *testing.F) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, s := range []string{"alpine", "alpine:3", "h.io/a/b:t@sha256:" + hex, "localhost/a", "localhost:5000/a", "[::1]:5000/a/b", "DOCKER.io/x",
		"index.docker.io/library/x", "a//b", "h.io/a?b", "h.io/a#b", "h.io/a%2fb", "h.io/../a", "user@h.io/a", hex, "h.io:99999/a", "h.io:080/a",
		"\u212a.io/a", "h.io/a:" + strings.Repeat("t", 129), "-.io/a", "h..io/a", "[fe80::1%25eth0]/a", "h.io/a@sha256:" + hex[1:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if r != (Reference{}) || !errors.Is(err, ErrName) {
				t.Errorf("ParseReference(%q) = %v, %v", s, r, err)
			}
			return
		}
		if err := r.check(); err != nil {
			t.Errorf("ParseReference(%q) = %q, which is refused: %v", s, r, err)
		}
		if again, err := ParseReference(r.String()); err != nil || again != r {
			t.Errorf("ParseReference(%q) = %v, again %v, %v", s, r, again, err)
		}
		if repo, err := ParseRepository(r.Repo().String()); err != nil || repo != r.Repo() {
			t.Errorf("repository %q is %v, %v", r.Repo(), repo, err)
		}
		if host, err := ParseHost(r.Host); err != nil || host != r.Host {
			t.Errorf("host %q is %q, %v", r.Host, host, err)
		}
		if _, port, ok := strings.Cut(strings.TrimLeft(r.Host, "[:0123456789abcdef"), ":"); ok {
			if n, err := strconv.Atoi(port); err != nil || strconv.Itoa(n) != port {
				t.Errorf("host %q has another spelling: port %d", r.Host, n)
			}
		}
		path := "/v2/" + r.Repository + "/manifests/" + r.name()
		u, err := url.Parse("https://" + r.Host + path)
		if err != nil || u.Host != r.Host || u.EscapedPath() != path || u.User != nil || u.RawQuery+u.Fragment != "" {
			t.Errorf("ParseReference(%q) = %q leads to %v, %v", s, r, u, err)
		}
	})
}

// FuzzParseChallenges shows that what is understood of WWW-Authenticate is
// understood again when it is written as RFC 9110 has it.
func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://h/t",service="s"`, `Basic realm=a, Bearer x="`, `Bearer realm="https://h/service/token",service="harbor-registry",scope="repository:a/b:pull"`,
		`Basic realm="harbor"`, `Negotiate dG9rZW4=, Basic realm="a\"b"`, `bearer REALM = x`, `,, ,Bearer`} {
		f.Add(s, "")
		f.Add("Basic", s)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		all := parseChallenges([]string{first, second})
		var written []string
		for _, c := range all {
			if c.scheme == "" || c.params == nil || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("parseChallenges(%q, %q) has %v", first, second, c)
			}
			var params []string
			for name, value := range c.params {
				params = append(params, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
			}
			written = append(written, c.scheme+" "+strings.Join(params, ", "))
		}
		if again := parseChallenges([]string{strings.Join(written, ", ")}); !reflect.DeepEqual(again, all) {
			t.Errorf("parseChallenges(%q, %q) = %v, again %v", first, second, all, again)
		}
		c := pickChallenge(http.Header{"Www-Authenticate": {first, second}})
		if !slices.Contains([]string{"", "basic", "bearer"}, c.scheme) || c.scheme == "bearer" && c.params["realm"] == "" {
			t.Errorf("pickChallenge(%q, %q) = %v", first, second, c)
		}
	})
}

// known returns a client that has met the registry at base, and reaches no
// other.
func known(base *url.URL) (*Client, *hostState) {
	c := New(Options{HTTP: &http.Client{Transport: answers(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("no network")
	})}, AuthHosts: []string{"auth.site:8443"}})
	h := &hostState{name: base.Host, base: base}
	h.challenge.Store(&challenge{})
	slot := &hostSlot{turn: make(chan struct{}, 1)}
	slot.state.Store(h)
	c.hosts[base.Host] = slot
	return c, h
}

// answers is an http.RoundTripper.
type answers func(*http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAddress shows that the location of an upload and the link to a further
// page lead to the registry itself, or nowhere, and that a token service is
// none but those that are allowed (T65, T66).
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"/v2/a/blobs/uploads/1?_state=x", "https://registry.site:5000/v2/", "http://registry.site:5000/v2/", "http://registry.site/v2/",
		"//evil.site/v2/", "https://registry.site:5000@evil.site/", "https:///v2/", "https:v2", "https://REGISTRY.SITE:5000/", "https://registry.site:5000:443/",
		`https:\\evil.site`, "https://regi\u017ftry.site:5000/", "https://registry.site%00.evil:5000/", "https://auth.site:8443/token", "http://auth.site:8443/token",
		"https://registry.site/service/token", "?n=1", "", "javascript:x", "https://u:p@registry.site:5000/"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, address string, plain bool) {
		base := &url.URL{Scheme: "https", Host: "registry.site:5000"}
		if plain {
			base.Scheme = "http"
		}
		c, h := known(base)
		from := base.JoinPath("/v2/a/tags/list")
		k := at("list tags of", Repository{Host: h.name, Path: "a"}, "")
		u, err := h.own(from, address)
		checkOwn(t, base, u, err)
		resp := &http.Response{Header: http.Header{"Link": {"<" + address + `>; rel="next"`}}, Request: &http.Request{URL: from}}
		next, err := c.next(t.Context(), k, resp)
		checkOwn(t, base, next, err)
		realm, err := c.realm(h, address)
		if err != nil {
			return
		}
		host := strings.ToLower(realm.Host)
		own := strings.EqualFold(realm.Hostname(), "registry.site")
		if realm.User != nil || !own && host != "auth.site:8443" || realm.Scheme != "https" && !(plain && own) {
			t.Errorf("%q may be sent a login of %s", realm, base)
		}
	})
}

// checkOwn checks an address that was let pass.
func checkOwn(t *testing.T, base, u *url.URL, err error) {
	t.Helper()
	if err != nil || u == nil {
		if u != nil {
			t.Errorf("%v and %v", u, err)
		}
		return
	}
	req, err := http.NewRequest(http.MethodGet, u.String(), nil)
	if err != nil {
		return
	}
	if req.URL.Scheme != base.Scheme || !strings.EqualFold(req.URL.Hostname(), base.Hostname()) || req.URL.Port() != base.Port() || req.URL.User != nil {
		t.Errorf("%q of %s asks %q", u, base, req.URL)
	}
}

// FuzzLink shows that a Link header of any form ends.
func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/a/tags/list?last=b&n=2>; rel="next"`, `<>;rel=next`, `<a>, <b>; rel=prev, <c>; REL = "next"`, `<<a>>;rel=next`, `<a;rel=next`, `; rel="next"`, `<>rel=neX t`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		base := &url.URL{Scheme: "https", Host: "registry.site"}
		c, h := known(base)
		resp := &http.Response{Header: http.Header{"Link": {link}}, Request: &http.Request{URL: base}}
		u, err := c.next(t.Context(), at("", Repository{Host: h.name}, ""), resp)
		checkOwn(t, base, u, err)
		plain := strings.ToLower(strings.NewReplacer(" ", "", `"`, "", ",", "").Replace(link))
		if u != nil && !strings.Contains(plain, "rel=next") {
			t.Errorf("%q leads to %q", link, u)
		}
	})
}

// FuzzRanges shows that no Range or Content-Range makes a number that is none.
func FuzzRanges(f *testing.F) {
	for _, s := range []string{"0-0", "0-5", "bytes=0-5", "1-5", "5-0", "0-9223372036854775807", "0--5", "+0-+5", "0-5/10", "bytes 0-5/10", "bytes 5-9/10", "bytes -5-9/10",
		"bytes -9223372036854775808-9/10", "bytes */10", "bytes 5-", "bytes 9223372036854775807-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n := received(http.Header{"Range": {s}}); n != -1 && (n < 2 || !strings.Contains(s, strconv.FormatInt(n-1, 10))) {
			t.Errorf("a Range of %q says %d bytes", s, n)
		}
		if first, ok := firstByte(s); ok && (first < 0 || !strings.Contains(s, strconv.FormatInt(first, 10))) || !ok && first != 0 {
			t.Errorf("a Content-Range of %q begins at %d, %t", s, first, ok)
		}
	})
}

// lyingRegistry is a registry with one blob that answers as a program says: how
// the next answer goes wrong, by how much, and how much of the body comes.
type lyingRegistry struct {
	mu       sync.Mutex
	program  []byte
	content  []byte
	stored   []byte // of an upload
	there    bool
	requests int
}

// step returns the next three bytes of the program; then all goes well.
func (l *lyingRegistry) step() (what, much, part int) {
	if len(l.program) < 3 {
		return 0, 0, 255
	}
	what, much, part = int(l.program[0]), int(l.program[1]), int(l.program[2])
	l.program = l.program[3:]
	return what, much, part
}

// RoundTrip implements [http.RoundTripper].
func (l *lyingRegistry) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if r.Body != nil {
		defer r.Body.Close()
	}
	if r.URL.Path == "/v2/" {
		return answer(r, 200, nil, nil), nil
	}
	switch r.Method {
	case http.MethodGet:
		if strings.Contains(r.URL.Path, "/uploads/") {
			return l.status(r), nil
		}
		return l.get(r)
	case http.MethodHead:
		if !l.there {
			return answer(r, 404, nil, nil), nil
		}
		resp := answer(r, 200, nil, nil)
		resp.ContentLength = int64(len(l.stored))
		return resp, nil
	case http.MethodPost:
		l.stored = nil
		return answer(r, 202, http.Header{"Location": {"/v2/a/blobs/uploads/1"}}, nil), nil
	case http.MethodPatch:
		return l.patch(r)
	case http.MethodPut:
		more, err := io.ReadAll(orEmpty(r.Body))
		if err != nil {
			return nil, err
		}
		l.stored = append(l.stored, more...)
		if verify.DigestOf(l.stored).String() != r.URL.Query().Get("digest") {
			return answer(r, 400, http.Header{"Content-Type": {"application/json"}}, []byte(`{"errors":[{"code":"DIGEST_INVALID"}]}`)), nil
		}
		l.there = true
		return answer(r, 201, nil, nil), nil
	}
	return answer(r, 204, nil, nil), nil
}

func orEmpty(r io.Reader) io.Reader {
	if r == nil {
		return strings.NewReader("")
	}
	return r
}

// get answers for a blob.
func (l *lyingRegistry) get(r *http.Request) (*http.Response, error) {
	what, much, part := l.step()
	first, status, header := 0, 200, http.Header{}
	if asked := r.Header.Get("Range"); asked != "" && what%8 != 1 {
		fmt.Sscanf(asked, "bytes=%d-", &first)
		status = 206
	}
	told := first
	switch what % 8 {
	case 2:
		return nil, io.ErrUnexpectedEOF
	case 3:
		return answer(r, 416, nil, nil), nil
	case 4: // an earlier range
		first = max(first-much, 0)
		told = first
	case 5: // what it tells is not what it sends
		told = first - much
	case 6:
		told = first + much
	case 7:
		return answer(r, 206, http.Header{"Content-Range": {fmt.Sprintf("bytes %d", much)}}, l.content), nil
	}
	if status == 206 {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", told, len(l.content)-1, len(l.content)))
	}
	body := l.content[min(first, len(l.content)):]
	return answer(r, status, header, body[:len(body)*part/255]), nil
}

// status answers how much of an upload is there.
func (l *lyingRegistry) status(r *http.Request) *http.Response {
	what, much, _ := l.step()
	has := len(l.stored)
	switch what % 4 {
	case 1:
		has -= much
	case 2:
		has += much
	case 3:
		return answer(r, 404, nil, nil)
	}
	return answer(r, 204, http.Header{"Range": {fmt.Sprintf("0-%d", has-1)}}, nil)
}

// patch takes a part of an upload, or as much of it as comes.
func (l *lyingRegistry) patch(r *http.Request) (*http.Response, error) {
	what, much, part := l.step()
	at := len(l.stored)
	if said := r.Header.Get("Content-Range"); said != "" {
		fmt.Sscanf(said, "%d-", &at)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if at > len(l.stored) {
		return answer(r, 416, nil, nil), nil
	}
	l.stored = append(l.stored[:at], body[:len(body)*part/255]...)
	has := len(l.stored)
	switch what % 6 {
	case 1:
		return nil, io.ErrUnexpectedEOF
	case 2:
		has -= much
	case 3:
		has += much
	case 4:
		return answer(r, 413, nil, nil), nil
	case 5:
		return answer(r, 500, nil, nil), nil
	}
	return answer(r, 202, http.Header{"Range": {fmt.Sprintf("0-%d", has-1)}}, nil), nil
}

func answer(r *http.Request, status int, header http.Header, body []byte) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

// FuzzResume shows that a blob that comes or goes through breaks, and past a
// registry that tells wrong ranges, arrives whole or with an error, after a
// limited number of requests (T41, T50).
func FuzzResume(f *testing.F) {
	blob, d := content(SmallBlob + 70_000)
	f.Add([]byte(nil))
	for what := range byte(8) {
		f.Add([]byte{0, 0, 100, what, 7, 200, what, 100, 255})
		f.Add([]byte{1, 0, 100, what, 0, 255, 1, 0, 30, what, 200, 255})
		f.Add(bytes.Repeat([]byte{what, 1, 0}, 12))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 3*40 {
			return
		}
		try := func() (*lyingRegistry, *Client) {
			l := &lyingRegistry{program: program, content: blob}
			c := New(Options{HTTP: &http.Client{Transport: l}})
			c.pause = time.Nanosecond
			return l, c
		}
		repo := Repository{Host: "registry.site", Path: "a"}
		l, c := try()
		got, err := pullBlob(t.Context(), c, repo, d)
		if err == nil && !bytes.Equal(got, blob) || len(got) > len(blob) {
			t.Errorf("pulled %d bytes, %v", len(got), err)
		}
		most := 10 + (len(program)/3+1)*(tries+1)
		if l.requests > most {
			t.Errorf("%d requests to pull, want at most %d", l.requests, most)
		}
		l, c = try()
		_, err = c.PushBlob(t.Context(), repo, d, (&memSource{b: blob}).Open, nil)
		if err == nil && (!l.there || !bytes.Equal(l.stored, blob)) {
			t.Errorf("pushed, and the registry has %d bytes of %d", len(l.stored), len(blob))
		}
		if most *= maxUploads * 3; l.requests > most {
			t.Errorf("%d requests to push, want at most %d", l.requests, most)
		}
	})
}

func pullBlob(ctx context.Context, c *Client, r Repository, d oci.Descriptor) ([]byte, error) {
	body, err := c.Blob(ctx, r, d)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// FuzzAnswers shows that the answers of token services, the rights in tokens,
// and errors of registries are taken within their limits (T40, T67).
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{`{"token":"abc","expires_in":300}`, `{"access_token":"abc","expires_in":1e300}`, `{"token":"a\nb"}`, `{"expires_in":-1,"token":"x"}`, `{"token":""}`, `null`,
		`{"errors":[{"code":"DENIED","message":"requested access","detail":[{"Type":"repository"}]}]}`, `{"errors":[{"code":"\u001b[31m","message":"\u202e"}]}`,
		`{"errors":[{"code":"DENIED","message":"adding 3 GiB of storage resource, which when updated to current usage of 1 GiB will exceed the configured upper limit of 2 GiB"}]}`,
		`{"errors":null}`, `Service Unavailable`, `{"access":[{"type":"repository","name":"a/b","actions":["pull","*"]}]}`} {
		f.Add([]byte(s), uint16(403), "application/json", "")
		f.Add([]byte(s), uint16(401), "text/plain", "Bearer x")
	}
	f.Fuzz(func(t *testing.T, body []byte, status uint16, mediaType, challenge string) {
		token, life, err := parseToken(body)
		if err != nil && (token != "" || life != 0) || err == nil && (token == "" || life < 0 || life > maxLife) {
			t.Errorf("parseToken = %q, %v, %v", token, life, err)
		}
		if err == nil {
			req := &http.Request{Header: http.Header{}}
			req.Header.Set("Authorization", "Bearer "+token)
			if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("token %q", token)
			}
		}
		if c, ok := readClaims("Bearer " + string(body)); ok && c.Access == nil || c.allow("", "pull") && !ok {
			t.Errorf("readClaims = %v, %t", c, ok)
		}
		k := at("get manifest", Repository{Host: "registry.site", Path: "a"}, "1")
		e := k.fail(nil).readError(&http.Response{StatusCode: int(status), Body: io.NopCloser(bytes.NewReader(body)),
			Header: http.Header{"Content-Type": {mediaType}, "Www-Authenticate": {challenge}}})
		if len(e.Message) > maxMessage || !utf8.ValidString(e.Message) || len(e.Code) > 64 {
			t.Errorf("an error with %d bytes of message and code %q", len(e.Message), e.Code)
		}
		if text := e.Error(); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("an error %q", text)
		}
	})
}

// FuzzRedirect shows that nothing but what is wanted goes along to another
// origin, wherever registries redirect to (T64).
func FuzzRedirect(f *testing.F) {
	for _, s := range []string{"https://registry.site/x", "https://cdn.site/x", "http://registry.site/x", "https://registry.site:443/x", "//cdn.site", "https://u:p@registry.site/", "/x", ""} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		targets := []string{first, second}
		var leaked []string
		client, err := transport.New(transport.Options{Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		client.Transport = answers(func(r *http.Request) (*http.Response, error) {
			if r.URL.Hostname() != "registry.site" || r.URL.Scheme != "https" {
				for name := range r.Header {
					if name == "Authorization" || name == "Cookie" || name == "Referer" {
						leaked = append(leaked, name+" to "+r.URL.String())
					}
				}
			}
			if len(targets) == 0 {
				return answer(r, 200, nil, nil), nil
			}
			header := http.Header{"Location": {targets[0]}}
			targets = targets[1:]
			return answer(r, 307, header, nil), nil
		})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://registry.site/v2/?secret=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Basic canary")
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
		}
		if len(leaked) > 0 {
			t.Errorf("%q, %q: %q", first, second, leaked)
		}
	})
}
