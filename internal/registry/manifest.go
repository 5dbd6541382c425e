package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ferry/internal/oci"
	"ferry/verify"
)

// Limits of lists (T67).
const (
	maxPages    = 1000
	maxTags     = 100_000
	maxTagsPage = 8 << 20 // bytes
)

// tries is how often something is done anew after a break that brought
// nothing forward.
const tries = 5

// accept lists the types of all manifests. Harbor answers 404 to content of a
// type that is not listed, even to "*/*".
var accept = strings.Join(oci.ManifestTypes, ", ")

// Get returns the manifest that ref names, and its descriptor with media
// type, digest and size. The digest is that of the bytes; it is the one in
// ref, if there is one there, and the one that the registry told, if it told
// one. Whether the bytes are a sound manifest is for [oci.Parse] to say.
// Errors: [ErrNotFound], [ErrUnauthorized], [ErrBlocked], [ErrUnavailable],
// [verify.ErrMismatch], [oci.ErrInvalid], [ErrName].
func (c *Client) Get(ctx context.Context, ref Reference) (oci.Descriptor, []byte, error) {
	if err := ref.check(); err != nil {
		return oci.Descriptor{}, nil, err
	}
	k := at("get manifest", ref.Repo(), ref.name())
	k.path = "/v2/" + ref.Repository + "/manifests/" + ref.name()
	k.header = http.Header{"Accept": {accept}}
	d, content, err := c.get(ctx, k, ref.Digest)
	if errors.Is(err, verify.ErrMismatch) && ctx.Err() == nil {
		// A length that was too small looks like this. Once more, and not on
		// the connection on which the rest of the content may still come.
		c.http.CloseIdleConnections()
		d, content, err = c.get(ctx, k, ref.Digest)
	}
	return d, content, err
}

// get makes one attempt of [Client.Get]; want is zero when any will do.
func (c *Client) get(ctx context.Context, k call, want verify.Digest) (oci.Descriptor, []byte, error) {
	resp, content, err := c.fetch(ctx, k, oci.MaxManifest)
	if errors.Is(err, errTooLong) {
		return oci.Descriptor{}, nil, k.fail(fmt.Errorf("%w: more than %d bytes", oci.ErrInvalid, oci.MaxManifest))
	}
	if err != nil {
		return oci.Descriptor{}, nil, err
	}
	d := oci.Descriptor{Digest: verify.DigestOf(content), Size: int64(len(content))}
	if !want.IsZero() && d.Digest != want {
		return d, nil, k.fail(&verify.MismatchError{Want: want, Got: d.Digest, Size: d.Size, Read: d.Size})
	}
	told, err := toldDigest(resp.Header)
	switch {
	case err != nil:
		return d, nil, k.fail(err)
	case !told.IsZero() && told != d.Digest:
		return d, nil, k.fail(fmt.Errorf("the registry told another digest: %w",
			&verify.MismatchError{Want: told, Got: d.Digest, Size: d.Size, Read: d.Size}))
	}
	if d.MediaType, err = manifestType(resp.Header, content); err != nil {
		return d, nil, k.fail(err)
	}
	return d, content, nil
}

// fetch makes the request k and reads the body of the response, of at most
// most bytes; when it breaks off, again.
func (c *Client) fetch(ctx context.Context, k call, most int64) (*http.Response, []byte, error) {
	for try := 0; ; try++ {
		resp, err := c.do(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		content, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
		resp.Body.Close()
		switch {
		case err == nil && int64(len(content)) > most:
			return nil, nil, k.fail(fmt.Errorf("%w: more than %d bytes", errTooLong, most))
		case err == nil:
			return resp, content, nil
		case try >= tries || ctx.Err() != nil:
			e := k.fail(err)
			e.network = true
			return nil, nil, e
		}
		if err := c.backoff(ctx, try); err != nil {
			return nil, nil, k.fail(err)
		}
	}
}

// errTooLong says that an answer has more bytes than it may.
var errTooLong = errors.New("answer is too long")

// toldDigest returns the digest in the headers of a response. None, or one of
// another algorithm, is the zero digest.
func toldDigest(h http.Header) (verify.Digest, error) {
	s := h.Get("Docker-Content-Digest")
	if s == "" || strings.HasPrefix(s, "sha512:") {
		return verify.Digest{}, nil
	}
	d, err := verify.ParseDigest(s)
	if err != nil {
		return d, fmt.Errorf("the registry told a malformed digest %s", clean(s))
	}
	return d, nil
}

// manifestType returns the media type of a manifest: what the headers say, or
// else, as some registries say nothing of use, what content says.
func manifestType(h http.Header, content []byte) (string, error) {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if slices.Contains(oci.ManifestTypes, t) {
		return t, nil
	}
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(content, &doc) == nil && slices.Contains(oci.ManifestTypes, doc.MediaType) {
		return doc.MediaType, nil
	}
	if doc.MediaType != "" {
		t = doc.MediaType
	}
	return "", fmt.Errorf("%w: media type %s is not supported", oci.ErrInvalid, clean(t))
}

// Head returns the descriptor of the manifest that ref names, without the
// manifest, as the registry tells it: nothing is verified but that a digest
// in ref is the one told. A registry that does not tell enough is asked for
// the manifest. Errors: as those of [Client.Get].
func (c *Client) Head(ctx context.Context, ref Reference) (oci.Descriptor, error) {
	if err := ref.check(); err != nil {
		return oci.Descriptor{}, err
	}
	k := at("head manifest", ref.Repo(), ref.name())
	k.method = http.MethodHead
	k.path = "/v2/" + ref.Repository + "/manifests/" + ref.name()
	k.header = http.Header{"Accept": {accept}}
	k.want = []int{http.StatusOK, http.StatusMethodNotAllowed, http.StatusNotImplemented}
	resp, err := c.do(ctx, k)
	if err != nil {
		return oci.Descriptor{}, err
	}
	resp.Body.Close()
	told, err := toldDigest(resp.Header)
	if err != nil {
		return oci.Descriptor{}, k.fail(err)
	}
	t, err := manifestType(resp.Header, nil)
	size := resp.ContentLength
	if resp.StatusCode != http.StatusOK || told.IsZero() || err != nil || size <= 0 || size > oci.MaxManifest {
		d, _, err := c.Get(ctx, ref)
		return d, err
	}
	if want := ref.Digest; !want.IsZero() && told != want {
		return oci.Descriptor{}, k.fail(&verify.MismatchError{Want: want, Got: told, Size: size, Read: size})
	}
	return oci.Descriptor{MediaType: t, Digest: told, Size: size}, nil
}

// PushManifest stores content, a manifest of type mediaType, under the tag in
// ref, or under its digest when ref has no tag; a digest in ref must be that
// of content. What the manifest refers to must be there. To push again what is
// there is no error, even where the tag is immutable. Errors: [ErrConflict]
// when the tag can not be moved, [ErrNotFound] when content or, elsewhere than
// in Harbor, the repository is missing, [ErrUnauthorized] ([ErrNoProject],
// [ErrProxyCache]), [ErrQuota], [ErrReadOnly], [ErrTooLarge],
// [ErrUnavailable], [verify.ErrMismatch], [ErrName].
func (c *Client) PushManifest(ctx context.Context, ref Reference, mediaType string, content []byte) error {
	digest, size := verify.DigestOf(content), int64(len(content))
	if ref.Digest.IsZero() {
		ref.Digest = digest
	}
	name := ref.Tag
	if name == "" {
		name = ref.Digest.String()
	}
	if err := ref.check(); err != nil {
		return err
	}
	k := at("push manifest", ref.Repo(), name)
	if ref.Digest != digest {
		return k.fail(&verify.MismatchError{Want: ref.Digest, Got: digest, Size: size, Read: size})
	}
	k.method, k.push, k.begins = http.MethodPut, true, true
	k.path = "/v2/" + ref.Repository + "/manifests/" + name
	k.header = http.Header{"Content-Type": {mediaType}}
	k.body = content
	k.want = []int{http.StatusCreated}
	var resp *http.Response
	for try := 0; ; try++ {
		var err error
		if resp, err = c.do(ctx, k); err == nil {
			break
		}
		var e *Error
		errors.As(err, &e)
		switch {
		case e.Status == http.StatusPreconditionFailed && ref.Tag != "":
			// Harbor refuses what is there already, too.
			was, headErr := c.Head(ctx, ref.Repo().Tag(ref.Tag))
			if headErr == nil && was.Digest == digest {
				return nil
			}
			return err
		case e.Status != http.StatusInternalServerError || try >= 2:
			return err
		}
		// Harbor answers 500 now and then where several push at once.
		if err := c.backoff(ctx, try); err != nil {
			return k.fail(err)
		}
	}
	resp.Body.Close()
	told, err := toldDigest(resp.Header)
	switch {
	case err != nil:
		return k.fail(err)
	case !told.IsZero() && told != digest:
		return k.fail(fmt.Errorf("the registry stored something else: %w",
			&verify.MismatchError{Want: digest, Got: told, Size: size, Read: size}))
	}
	return nil
}

// Tags returns all tags in r, sorted. Errors: [ErrNotFound] when there is no
// such repository, [ErrUnauthorized], [ErrUnavailable], [ErrName].
func (c *Client) Tags(ctx context.Context, r Repository) ([]string, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	k := at("list tags of", r, "")
	k.path = "/v2/" + r.Path + "/tags/list"
	var all []string
	err := c.pages(ctx, k, maxTagsPage, func(_ *http.Response, page []byte) error {
		var doc struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(page, &doc); err != nil {
			return errors.New("the answer is not a list of tags")
		}
		for _, t := range doc.Tags {
			if !validTag(t) {
				return fmt.Errorf("%w: tag %s in the list", ErrName, clean(t))
			}
		}
		if all = append(all, doc.Tags...); len(all) > maxTags {
			return fmt.Errorf("more than %d tags", maxTags)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Referrers returns the descriptors of the manifests in r whose subject is
// digest, each once: what the referrers API lists or, where there is none,
// what the index under [FallbackTag] does. The second result reports whether
// there is that API; where there is none, who pushes a referrer must also add
// it to that index. Nothing under digest is no error. Errors:
// [ErrUnauthorized], [ErrUnavailable], [oci.ErrInvalid], [ErrName].
func (c *Client) Referrers(ctx context.Context, r Repository, digest verify.Digest) ([]oci.Descriptor, bool, error) {
	all, api, err := c.ListReferrers(ctx, r, digest)
	if api || err != nil {
		return all, api, err
	}
	d, content, err := c.Get(ctx, r.Tag(FallbackTag(digest)))
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	all, err = FallbackReferrers(d, content)
	return all, false, err
}

// ListReferrers is [Client.Referrers] without the index: where there is no
// referrers API it returns none, and false.
func (c *Client) ListReferrers(ctx context.Context, r Repository, digest verify.Digest) ([]oci.Descriptor, bool, error) {
	if err := r.Digest(digest).check(); err != nil {
		return nil, false, err
	}
	k := at("list referrers of", r, digest.String())
	k.path = "/v2/" + r.Path + "/referrers/" + digest.String()
	k.header = http.Header{"Accept": {oci.MediaTypeIndex}}
	var all []oci.Descriptor
	pages := 0
	err := c.pages(ctx, k, oci.MaxManifest, func(resp *http.Response, page []byte) error {
		t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if t != oci.MediaTypeIndex {
			return errNoReferrers
		}
		pages++
		m, err := oci.Parse(page, oci.MediaTypeIndex)
		if err != nil {
			return err
		}
		if all = append(all, m.Manifests...); len(all) > oci.MaxDescriptors {
			return fmt.Errorf("%w: more than %d referrers", oci.ErrInvalid, oci.MaxDescriptors)
		}
		return nil
	})
	var e *Error
	errors.As(err, &e)
	switch {
	case err == nil:
		return uniq(all), true, nil
	case pages > 0:
		return nil, true, err
	case e.Status == http.StatusNotFound && e.Code == "NAME_UNKNOWN":
		return nil, true, nil // the API knows that there is no repository
	case errors.Is(err, errNoReferrers):
	case slices.Contains([]int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusNotImplemented}, e.Status):
	default:
		return nil, false, err
	}
	return nil, false, nil
}

// errNoReferrers says that a registry answers something else than referrers.
var errNoReferrers = errors.New("no referrers API")

// FallbackTag returns the tag of the index that lists the referrers of digest
// in a registry without the referrers API.
func FallbackTag(digest verify.Digest) string { return "sha256-" + digest.Hex() }

// FallbackReferrers returns the referrers, each once, that are listed in the
// manifest d under a [FallbackTag], or none when that is no index: some image
// happens to have the tag then. Errors: [oci.ErrInvalid].
func FallbackReferrers(d oci.Descriptor, content []byte) ([]oci.Descriptor, error) {
	if d.MediaType != oci.MediaTypeIndex {
		return nil, nil
	}
	m, err := oci.Parse(content, d.MediaType)
	if err != nil {
		return nil, err
	}
	return uniq(m.Manifests), nil
}

// uniq returns all with each digest once.
func uniq(all []oci.Descriptor) []oci.Descriptor {
	seen := make(map[verify.Digest]bool, len(all))
	return slices.DeleteFunc(all, func(d oci.Descriptor) bool {
		was := seen[d.Digest]
		seen[d.Digest] = true
		return was
	})
}

// pages calls page with the response to k and those to the requests for the
// further pages that it links to, each of at most most bytes.
func (c *Client) pages(ctx context.Context, k call, most int64, page func(*http.Response, []byte) error) error {
	seen := make(map[string]bool)
	for range maxPages {
		resp, content, err := c.fetch(ctx, k, most)
		if err != nil {
			return err
		}
		if err := page(resp, content); err != nil {
			return k.fail(err)
		}
		next, err := c.next(ctx, k, resp)
		if err != nil {
			return k.fail(err)
		}
		if next == nil {
			return nil
		}
		if seen[next.String()] {
			return k.fail(errors.New("the pages of the list form a loop"))
		}
		seen[next.String()] = true
		k.url, k.query = next, nil
	}
	return k.fail(fmt.Errorf("more than %d pages", maxPages))
}

// next returns the address of the page after the one in resp, or nil.
func (c *Client) next(ctx context.Context, k call, resp *http.Response) (*url.URL, error) {
	rest := strings.Join(resp.Header.Values("Link"), ",")
	for {
		_, after, _ := strings.Cut(rest, "<")
		address, params, ok := strings.Cut(after, ">")
		if !ok {
			return nil, nil
		}
		rest = params
		params, _, _ = strings.Cut(params, "<")
		params = strings.ToLower(strings.NewReplacer(" ", "", `"`, "", ",", "").Replace(params))
		if !slices.Contains(strings.Split(params, ";"), "rel=next") {
			continue
		}
		h, err := c.host(ctx, k.host)
		if err != nil {
			return nil, err
		}
		return h.own(resp.Request.URL, address)
	}
}
