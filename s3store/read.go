package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ferry/bundle"
)

// Open implements [bundle.Store].
func (s *store) Open(ctx context.Context, name string) (bundle.Object, error) {
	if err := cmp.Or(ctx.Err(), bundle.CheckName(name)); err != nil {
		return nil, err
	}
	head, err := s.head(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(name)}, name)
	if err != nil {
		if err = s.explainHead(ctx, name, err); err == nil {
			head, err = s.head(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(name)}, name)
		}
		if err != nil {
			return nil, err
		}
	}
	if head.ContentLength == nil || *head.ContentLength < 0 {
		return nil, &Error{Op: "opening", Key: s.url(name), Message: "the server does not say how large it is"}
	}
	return &object{store: s, name: name, size: *head.ContentLength, etag: aws.ToString(head.ETag)}, nil
}

func (s *store) head(ctx context.Context, in *s3.HeadObjectInput, name string) (out *s3.HeadObjectOutput, err error) {
	err = s.call(ctx, "opening", name, func() error {
		out, err = s.client.HeadObject(ctx, in)
		return err
	})
	return out, err
}

// explainHead asks again in a way that is answered with a body, because the
// answer to HEAD has none: 404 may mean the bucket, 403 and 400 anything, such
// as that credentials have expired. It returns nil when the object is there
// and can be read now.
func (s *store) explainHead(ctx context.Context, name string, err error) error {
	var e, better *Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status > 404 || e.Status == http.StatusNotFound && s.found.Load() {
		return err
	}
	get := s.call(ctx, "opening", name, func() error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name), Range: aws.String("bytes=0-0")})
		if err == nil {
			out.Body.Close()
		}
		return err
	})
	switch {
	case get == nil && e.Status != http.StatusNotFound:
		return nil
	case hasCode(get, "NoSuchKey"):
		s.found.Store(true)
	case errors.As(get, &better) && better.Code != "" && !errors.Is(get, bundle.ErrChanged): // that is: an empty object
		return better
	}
	return err
}

type object struct {
	store *store
	name  string
	size  int64  // bytes
	etag  string // with its quotes; compared, and nothing else
}

func (o *object) Size() int64  { return o.size }
func (o *object) Close() error { return nil }

// Range implements [bundle.Object]. The first request is made by the first
// Read.
func (o *object) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := bundle.CheckRange(off, n, o.size); err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.store.url(o.name), err)
	}
	return &stream{ctx: ctx, object: o, off: off, left: n}, nil
}

const (
	// maxStalls bounds how many bodies in a row may break off before they
	// bring minProgress. Those that do, do not count (T41).
	maxStalls = 6
	// minProgress, in bytes, keeps a server that trickles from doing so for
	// ever: a client that waits for so long ends each body after less.
	minProgress = 1000
)

// stream reads the left bytes from off on, in as many requests as it takes.
type stream struct {
	ctx    context.Context // of the Range, which lives as long as the stream
	object *object
	off    int64
	left   int64
	body   io.ReadCloser // nil between two requests
	stalls int           // bodies in a row that brought next to nothing
	got    int64         // bytes that this body has brought
	err    error         // what ended the stream
}

func (r *stream) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 && r.err == nil {
		n, r.err = r.read(p)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

func (r *stream) read(p []byte) (int, error) {
	s, name := r.object.store, r.object.name
	if r.ctx.Err() != nil {
		return 0, s.fail(r.ctx, "reading", name, r.ctx.Err())
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.body == nil {
		err := s.call(r.ctx, "reading", name, r.request)
		if err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.off += int64(n)
	r.left -= int64(n)
	r.got += int64(n)
	if err == nil || r.left == 0 {
		return n, nil
	}
	r.body.Close()
	r.body = nil
	if r.got >= minProgress {
		r.stalls = 0
		return n, nil
	}
	r.stalls++
	if r.stalls >= maxStalls {
		return n, &Error{Op: "reading", Key: s.url(name), kind: ErrUnavailable, cause: errShort}
	}
	if s.sleep(r.ctx, r.stalls) != nil {
		return n, s.fail(r.ctx, "reading", name, r.ctx.Err())
	}
	return n, nil
}

// request asks for the bytes that are left.
func (r *stream) request() error {
	o := r.object
	in := &s3.GetObjectInput{Bucket: &o.store.bucket, Key: o.store.key(o.name),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", r.off, r.off+r.left-1))}
	if o.etag != "" {
		in.IfMatch = &o.etag
	}
	out, err := o.store.client.GetObject(r.ctx, in)
	if err != nil {
		return err
	}
	if err := r.check(out); err != nil {
		out.Body.Close()
		return err
	}
	r.body, r.got = out.Body, 0
	return nil
}

// check refuses an answer that is not the range of the object that was opened,
// of a server that does not heed If-Match or Range.
func (r *stream) check(out *s3.GetObjectOutput) error {
	o := r.object
	e := &Error{Op: "reading", Key: o.store.url(o.name)}
	if got := aws.ToString(out.ETag); o.etag != "" && got != "" && got != o.etag {
		e.kind, e.Message = bundle.ErrChanged, "the object was replaced while it was read"
		return e
	}
	whole := r.off == 0 && out.ContentRange == nil && aws.ToInt64(out.ContentLength) == o.size
	want := fmt.Sprintf("bytes %d-%d/%d", r.off, r.off+r.left-1, o.size)
	got := aws.ToString(out.ContentRange)
	if _, total, ok := strings.Cut(got, "/"); ok && total != strconv.FormatInt(o.size, 10) {
		e.kind, e.Message = bundle.ErrChanged, "the object was replaced by one of another size while it was read"
		return e
	}
	if !whole && got != want {
		e.Message = fmt.Sprintf("asked for %s, the server gives %q", want, printable(got))
		return e
	}
	return nil
}

func (r *stream) Close() error {
	if r.err == nil {
		r.err = errors.New("read after Close")
	}
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}

// List implements [bundle.Store].
func (s *store) List(ctx context.Context, prefix string) ([]bundle.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var list []bundle.Info
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key(prefix)}
	for pages := 0; ; pages++ {
		var out *s3.ListObjectsV2Output
		err := s.call(ctx, "listing", prefix, func() (err error) {
			out, err = s.client.ListObjectsV2(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, o := range out.Contents {
			name, ok := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
			if ok && strings.HasPrefix(name, prefix) && bundle.CheckName(name) == nil {
				list = append(list, bundle.Info{Name: name, Size: aws.ToInt64(o.Size)})
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			break
		}
		next := aws.ToString(out.NextContinuationToken)
		if next == "" || next == aws.ToString(in.ContinuationToken) || pages > bundle.MaxList || len(list) > bundle.MaxList {
			return nil, &Error{Op: "listing", Key: s.url(prefix),
				Message: fmt.Sprintf("the list does not end, or has more than %d objects", bundle.MaxList)}
		}
		in.ContinuationToken = &next
	}
	slices.SortFunc(list, func(a, b bundle.Info) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}
