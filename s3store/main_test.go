package s3store_test

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStore returns a store under a prefix in the server's bucket.
func newStore(t *testing.T, server *storetest.S3, prefix string) bundle.Store {
	t.Helper()
	s, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, Prefix: prefix, HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	s3store.Hurry(s)
	return s
}

func put(t *testing.T, s bundle.Store, name string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, content); err != nil {
		t.Fatal(err)
	}
}

// checkError tells whether err is an Error of that kind (nil: of none) that
// shows each of the texts, and no secret (T54).
func checkError(t *testing.T, what string, err, kind error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	var e *s3store.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: %v is no *Error", what, err)
	}
	for _, k := range []error{s3store.ErrDenied, s3store.ErrUnavailable, bundle.ErrNotFound, bundle.ErrChanged, bundle.ErrExists, bundle.ErrNoSpace} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("%s: errors.Is(%q, %q) = %v", what, err, k, k != kind)
		}
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not show %q", what, err, text)
		}
	}
	for _, secret := range []string{"ferry-test-secret", "uploadId", "partNumber", "X-Amz", "Authorization", "?", "\n"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %q shows %q", what, err, secret)
		}
	}
}

// TestS3 runs the suite of all stores against a real server.
func TestS3(t *testing.T) {
	server := storetest.StartS3(t)
	storetest.Run(t, func(t *testing.T) bundle.Store { return newStore(t, server, t.Name()+"/deep") })
}

// Without a prefix the store is the whole bucket.
func TestWholeBucket(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "")
	put(t, s, "a/b", []byte("content"))
	if got := storetest.Read(t, s, "a/b"); string(got) != "content" {
		t.Errorf("read %q", got)
	}
	below := newStore(t, server, "a/")
	if got := storetest.Read(t, below, "b"); string(got) != "content" {
		t.Errorf("read %q below the prefix", got)
	}
	put(t, s, "ab", nil) // not below the prefix a
	if list, err := below.List(t.Context(), ""); err != nil || len(list) != 1 || list[0].Name != "b" {
		t.Errorf("List = %v, %v", list, err)
	}
	if got, want := below.String(), "s3://ferry-test/a"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

func TestParseURL(t *testing.T) {
	for location, want := range map[string]s3store.Options{
		"s3://bucket":             {Bucket: "bucket"},
		"s3://bucket/":            {Bucket: "bucket"},
		"s3://bucket/a":           {Bucket: "bucket", Prefix: "a"},
		"s3://my.bucket-1/a/b c/": {Bucket: "my.bucket-1", Prefix: "a/b c"},
		"s3://bucket/a%20b":       {Bucket: "bucket", Prefix: "a%20b"},
	} {
		if got, err := s3store.ParseURL(location); got != want || err != nil {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", location, got, err, want)
		}
	}
	for _, location := range []string{
		"", "bucket", "s3:/bucket", "S3://bucket", "http://bucket", "s3://", "s3:///a", "s3://b", "s3://-bucket/a", "s3://bu cket",
		"s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a\nb", `s3://bucket/a\b`,
		"s3://key:geheim@bucket/a", "s3://bucket/a?X-Amz-Signature=geheim", "s3://bucket/a#geheim",
	} {
		_, err := s3store.ParseURL(location)
		if err == nil {
			t.Errorf("ParseURL(%q) succeeds", location)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("ParseURL(%q) repeats a secret: %v", location, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	storetest.StartS3(t) // for its environment
	for _, o := range []s3store.Options{
		{}, {Bucket: "b"}, {Bucket: "a/b"}, {Bucket: "bucket", Prefix: "a/../b"},
		{Bucket: "bucket", Endpoint: "localhost:9000"}, {Bucket: "bucket", Endpoint: "ftp://host"}, {Bucket: "bucket", Endpoint: "https://"},
		{Bucket: "bucket", Endpoint: "https://user:geheim@host"}, {Bucket: "bucket", Endpoint: "https://host?x=geheim"},
		{Bucket: "bucket", Endpoint: "https://host:no-such-port"},
	} {
		_, err := s3store.New(t.Context(), o)
		if err == nil {
			t.Errorf("New(%+v) succeeds", o)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("New repeats a secret: %v", err)
		}
	}
}

// Paths and host names follow the endpoint.
func TestAddressing(t *testing.T) {
	server := storetest.StartS3(t)
	endpoint := server.Endpoint
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1") // not this one
	s, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, Endpoint: endpoint, HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a b+c", nil)
	requests := server.Proxy.Requests("PutObject")
	if len(requests) != 1 || requests[0].Path != "/ferry-test/a b+c" {
		t.Errorf("requests = %+v, want one for the path of the bucket", requests)
	}
	if region := requests[0].Header.Get("Authorization"); !strings.Contains(region, "/us-east-1/s3/") {
		t.Errorf("signed for %q", region)
	}
	for _, virtual := range []bool{false, true} {
		o := s3store.Options{Bucket: "my-bucket", Endpoint: "http://s3.example.test", VirtualHost: virtual, HTTP: storetest.Client(t)}
		want := map[bool]string{false: "s3.example.test/my-bucket/x", true: "my-bucket.s3.example.test/x"}[virtual]
		if got := s3store.Address(t, o, "x"); got != want {
			t.Errorf("VirtualHost %v: request to %q, want %q", virtual, got, want)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "")
	t.Setenv("AWS_REGION", "")
	o := s3store.Options{Bucket: "my-bucket", HTTP: storetest.Client(t)}
	if got, want := s3store.Address(t, o, "x"), "my-bucket.s3.us-east-1.amazonaws.com/x"; got != want {
		t.Errorf("at Amazon: request to %q, want %q", got, want)
	}
}

// Without a client of the caller's, AWS_CA_BUNDLE says whom to trust; with one
// it does not matter.
func TestCABundle(t *testing.T) {
	storetest.StartS3(t) // for its environment
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("<ListBucketResult><Contents><Key>a</Key><Size>5</Size></Contents></ListBucketResult>"))
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", file)
	for _, client := range []*http.Client{nil, server.Client()} {
		s, err := s3store.New(t.Context(), s3store.Options{Bucket: "bucket", Endpoint: server.URL, HTTP: client})
		if err != nil {
			t.Fatal(err)
		}
		if list, err := s.List(t.Context(), ""); err != nil || len(list) != 1 {
			t.Errorf("List = %v, %v", list, err)
		}
	}
}
