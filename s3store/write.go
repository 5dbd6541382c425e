package s3store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"ferry/bundle"
)

// body is what a request sends whose digest signs the request too.
type body struct {
	content []byte
	sum     [sha256.Size]byte
}

func newBody(content []byte) body { return body{content, sha256.Sum256(content)} }

func (b body) reader() io.Reader { return bytes.NewReader(b.content) }

// checksum is the digest as S3 writes it.
func (b body) checksum() string { return base64.StdEncoding.EncodeToString(b.sum[:]) }

// signWith lets digest sign a request, or stand for it; the SDK would compute
// it anew.
func signWith(digest string) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("BodyDigest",
				func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					return next.HandleInitialize(v4.SetPayloadHash(ctx, digest), in)
				}), middleware.After)
		})
	}
}

func (s *store) putObject(ctx context.Context, name string, b body, condition *string, options ...func(*s3.Options)) error {
	return s.call(ctx, "writing", name, func() error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.bucket, Key: s.key(name), IfNoneMatch: condition,
			Body: b.reader(), ContentLength: aws.Int64(int64(len(b.content))), ChecksumSHA256: aws.String(b.checksum()),
		}, append(options, signWith(hex.EncodeToString(b.sum[:])))...)
		return err
	})
}

// Put implements [bundle.Store].
func (s *store) Put(ctx context.Context, name string, content []byte) error {
	if err := cmp.Or(ctx.Err(), bundle.CheckName(name)); err != nil {
		return err
	}
	return s.putObject(ctx, name, newBody(content), nil)
}

// PutNew implements [bundle.Store]. A server that does not know If-None-Match
// may replace an object that appears at the same moment.
func (s *store) PutNew(ctx context.Context, name string, content []byte) error {
	if err := cmp.Or(ctx.Err(), bundle.CheckName(name)); err != nil {
		return err
	}
	// A server that ignores the condition answers this question at least.
	switch _, err := s.head(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(name)}, name); {
	case err == nil:
		return s.exists(name)
	case !errors.Is(err, bundle.ErrNotFound):
		if err := s.explainHead(ctx, name, err); err != nil {
			return err
		}
		return s.exists(name)
	}
	return s.putNew(ctx, name, newBody(content))
}

// putNew makes the attempts itself: when the answer to one was lost, the next
// is told that the object exists, and only a look says who has made it.
func (s *store) putNew(ctx context.Context, name string, b body) error {
	once := func(o *s3.Options) { o.RetryMaxAttempts = 1 }
	lost := false
	for i := 1; ; i++ {
		err := s.putObject(ctx, name, b, aws.String("*"), once)
		switch {
		case err == nil:
			return nil
		case hasStatus(err, http.StatusPreconditionFailed):
			if lost && s.holds(ctx, name, b.content) {
				return nil
			}
			return s.exists(name)
		case hasStatus(err, http.StatusConflict) && i < attempts: // another one is being written
		case errors.Is(err, ErrUnavailable) && i < attempts:
			lost = true
		default:
			return err
		}
		if s.sleep(ctx, i) != nil {
			return s.fail(ctx, "writing", name, ctx.Err())
		}
	}
}

func (s *store) exists(name string) error {
	return &Error{Op: "writing", Key: s.url(name), Message: "there is an object of that name", kind: bundle.ErrExists}
}

// holds reports whether the object has that content.
func (s *store) holds(ctx context.Context, name string, content []byte) bool {
	o, err := s.Open(ctx, name)
	if err != nil || o.Size() != int64(len(content)) {
		return false
	}
	r, err := o.Range(ctx, 0, o.Size())
	if err != nil {
		return false
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	return err == nil && bytes.Equal(got, content)
}

// Remove implements [bundle.Store]. It aborts every multipart upload of that
// name (T48), one that is being written too. Where versions are kept, the
// older ones stay.
func (s *store) Remove(ctx context.Context, name string) error {
	if err := cmp.Or(ctx.Err(), bundle.CheckName(name)); err != nil {
		return err
	}
	left, err := s.leftovers(ctx, name)
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := s.abort(ctx, name, l.id); err != nil {
			return err
		}
	}
	return s.call(ctx, "removing", name, func() error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.key(name)})
		return err
	})
}
