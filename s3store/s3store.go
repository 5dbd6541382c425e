// Package s3store keeps objects under a prefix of an S3 bucket, as a
// [bundle.Store]: ranged reads, conditional writes, multipart uploads that an
// interrupted run goes on with. It hides which requests that takes, and what
// the servers of different makers answer.
//
// # Settings
//
// Credentials, region, endpoint and CA come from where the AWS tools take
// them: the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_REGION,
// AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE, AWS_MAX_ATTEMPTS), the
// shared config files, and the roles of machines and pods. Without a region it
// is us-east-1. Without credentials [New] fails; there is no anonymous access.
//
// # Reading
//
// An object is read with If-Match and the ETag that Open has seen, so that a
// replaced one is a [bundle.ErrChanged]. A body that breaks off is continued
// by a request for the rest. The ETag is never taken for a digest, and no
// checksum of the server's is trusted: who reads checks the content. Versions
// are not read by their id, because that takes a right of its own
// (s3:GetObjectVersion).
//
// # Writing
//
// An upload is sent in parts as they fill up, while others are written; one
// that is closed before its end stays in the bucket, and the next Create of
// that name sends only the parts whose checksum, as listed by the server,
// differs. A server that lists none gets all parts again.
//
// Each UploadPart carries the CRC-32C of its body, signed, which the server
// checks. The body itself is signed too, by its SHA-256, where somebody may be
// in between (no TLS, another machine), and for servers that ask for it or do
// not say that they have checked the checksum. Servers that take no checksum
// get signed bodies only. PutObject carries the SHA-256 of its body, which
// signs the request too. Against people who change what is in a bucket none of
// that helps: who reads checks the content.
//
// # Limits
//
// Object: 5 TiB. Parts: 10,000 of 8 MiB each; of objects over 80,000 MiB, the
// next whole MiB that suffices (at most 525 MiB). S3 takes parts of 5 MiB to
// 5 GiB. Memory for the parts of all uploads of a store together: 128 MiB, or
// Options.Memory; an object of larger parts is an [ErrMemory]. Two parts for
// each writer and one more, and those that are being sent, are all that is
// wanted; with less memory writers wait. Key with prefix: 1,024 bytes.
//
// # Errors
//
// Requests that fail for a passing cause (503 SlowDown, 429, other 5xx, a
// broken connection) are repeated, six attempts in all, after pauses that
// grow, are random, and are not shorter than Retry-After asks for. What
// remains is an [*Error]. A wrong certificate is an error at once. Credentials
// that have expired are asked for again, once for each request.
//
// # Sources
//
// Amazon S3 API Reference, 2006-03-01: GetObject, HeadObject, ListObjectsV2,
// PutObject, CreateMultipartUpload, UploadPart, ListParts,
// CompleteMultipartUpload; Amazon S3 User Guide, "Multipart upload limits",
// "Conditional requests", "Checking object integrity". Checked with versitygw 1.8.0.
package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"ferry/bundle"
)

// Options says which place in which bucket.
type Options struct {
	Bucket string // required
	// Prefix comes before the names of the objects, with a slash between.
	// Empty means the whole bucket.
	Prefix string
	// Endpoint is the URL of the server, when it is neither Amazon's nor
	// the one that the environment or the AWS profile says.
	Endpoint string
	// VirtualHost asks for the bucket's name in the host name even at a
	// server that is not Amazon's; those get it in the path otherwise.
	VirtualHost bool
	// Memory, in bytes, bounds the parts of objects that are in memory at
	// once, of all uploads together. Zero means 128 MiB.
	Memory int64
	// Parallel is how many parts are sent at once. Zero means 4.
	Parallel int
	// Credentials are used instead of those in the environment, in the AWS
	// profile or from the machine, if not nil.
	Credentials aws.CredentialsProvider
	// HTTP makes the requests, except those for credentials. It should bound
	// how long it waits. Its redirects are not followed: a request is signed
	// for one host. Nil means a client of the SDK, with AWS_CA_BUNDLE.
	HTTP *http.Client
	// Client, if not nil, is used as it is, whatever else is set here.
	Client *s3.Client
}

// bucketPattern is what servers have allowed over time; Amazon is stricter.
var bucketPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// ParseURL returns Options with the bucket and the prefix that a location
// s3://bucket/prefix names. Nothing in it is escaped.
func ParseURL(location string) (Options, error) {
	rest, ok := strings.CutPrefix(location, "s3://")
	host, prefix, _ := strings.Cut(rest, "/")
	switch {
	case !ok:
		return Options{}, fmt.Errorf("location %q is not s3://bucket/prefix", location)
	case strings.Contains(host, "@"): // it may hold a secret: do not repeat it
		return Options{}, errors.New("location s3://…@… holds a login: credentials come from the environment or the AWS profile")
	case strings.ContainsAny(rest, "?#"):
		return Options{}, errors.New("location s3://… holds a query or a fragment: want s3://bucket/prefix")
	}
	o := Options{Bucket: host, Prefix: strings.Trim(prefix, "/")}
	if err := o.check(); err != nil {
		return Options{}, err
	}
	return o, nil
}

func (o Options) check() error {
	if !bucketPattern.MatchString(o.Bucket) {
		return fmt.Errorf("%.300q is not the name of a bucket", o.Bucket)
	}
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		if err := bundle.CheckName(prefix); err != nil {
			return fmt.Errorf("prefix in bucket %s: %w", o.Bucket, err)
		}
	}
	return nil
}

const (
	// attempts bounds how often a request is made; with the SDK's pauses,
	// which double up to maxPause, they span about half a minute.
	attempts = 6
	maxPause = 20 * time.Second
	// credentialsWait bounds the search for credentials: where there is no
	// such thing, the one for a machine's role waits for an address that
	// does not answer.
	credentialsWait = 20 * time.Second
	// headerWait bounds the wait for an answer to a request that was sent
	// whole. Servers may take minutes to join the parts of an upload.
	headerWait = 10 * time.Minute
)

// store implements [bundle.Store].
type store struct {
	client *s3.Client
	bucket string
	prefix string // empty, or with a slash at its end
	// renew forgets credentials; nil when there is no way.
	renew func()
	// pause is how long the first pause is that the store itself makes.
	pause time.Duration
	// found says that the bucket is known to exist.
	found  atomic.Bool
	memory *memory
	sends  chan struct{} // holds one for each part that is being sent
	// signs says that the content of parts is signed.
	signs atomic.Bool
}

// New returns the store. It makes no request to the server, but may make some
// to get credentials. Errors: [ErrDenied] when there are none.
func New(ctx context.Context, o Options) (bundle.Store, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &store{client: o.Client, bucket: o.Bucket, pause: 200 * time.Millisecond,
		memory: newMemory(cmp.Or(o.Memory, defaultMemory)), sends: make(chan struct{}, cmp.Or(o.Parallel, defaultSends))}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		s.prefix = p + "/"
	}
	if s.client != nil {
		s.signs.Store(exposed(s.client.Options().BaseEndpoint))
		return s, nil
	}
	if err := checkEndpoint(o.Endpoint); err != nil {
		return nil, err
	}
	settings := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if o.Credentials != nil {
		settings = append(settings, config.WithCredentialsProvider(o.Credentials))
	}
	cfg, err := config.LoadDefaultConfig(ctx, settings...)
	if err != nil {
		return nil, fmt.Errorf("AWS settings: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, credentialsWait)
	defer cancel()
	if _, err := cfg.Credentials.Retrieve(wait); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &Error{Op: "finding credentials for", Key: s.String(), kind: ErrDenied,
			Message: "none in the environment, in the AWS profile or from the machine", cause: hideURL(err)}
	}
	if cache, ok := cfg.Credentials.(*aws.CredentialsCache); ok {
		s.renew = cache.Invalidate
	}
	s.client = s3.NewFromConfig(cfg, o.apply)
	s.signs.Store(exposed(s.client.Options().BaseEndpoint))
	return s, nil
}

// apply sets what differs from the SDK's own ways.
func (o Options) apply(so *s3.Options) {
	if so.Region == "" {
		so.Region = "us-east-1"
	}
	if o.Endpoint != "" {
		so.BaseEndpoint = aws.String(o.Endpoint)
	}
	so.UsePathStyle = so.BaseEndpoint != nil && !o.VirtualHost
	// The checksums that the SDK adds by itself (CRC32, in trailers) are
	// refused by other makers' servers; requests have theirs in headers.
	so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	so.Retryer = newRetryer()
	if o.HTTP != nil {
		c := *o.HTTP
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		so.HTTPClient = &c
	} else if c, ok := so.HTTPClient.(*awshttp.BuildableClient); ok {
		so.HTTPClient = c.WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = headerWait })
	}
}

// checkEndpoint refuses what is not the plain URL of a server; a login in it
// is not repeated.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the S3 endpoint is not a URL like https://host:port, without login and query")
	}
	if port := u.Port(); port != "" {
		if _, err := net.LookupPort("tcp", port); err != nil {
			return fmt.Errorf("the S3 endpoint has the port %q", port)
		}
	}
	return nil
}

// String implements [bundle.Store].
func (s *store) String() string {
	return strings.TrimSuffix("s3://"+s.bucket+"/"+s.prefix, "/")
}

// url returns the place of an object as a user would write it.
func (s *store) url(name string) string { return "s3://" + s.bucket + "/" + s.prefix + name }

func (s *store) key(name string) *string { return aws.String(s.prefix + name) }

// call makes a request, once more with new credentials when those it had have
// expired (T47), and says what failed.
func (s *store) call(ctx context.Context, op, name string, request func() error) error {
	err := request()
	if err != nil && s.renew != nil && expired(err) {
		s.renew()
		err = request()
	}
	if err != nil {
		return s.fail(ctx, op, name, err)
	}
	s.found.Store(true)
	return nil
}

// sleep waits for the pause before attempt i, from 1 on, or for the end of ctx.
func (s *store) sleep(ctx context.Context, i int) error {
	timer := time.NewTimer(jitter(min(s.pause<<min(i-1, 10), maxPause)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
