package s3store_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// each makes one request of every sort and gives f the errors.
func each(t *testing.T, s bundle.Store, f func(what string, err error)) {
	t.Helper()
	_, err := s.Open(t.Context(), "object")
	f("Open", err)
	_, err = s.List(t.Context(), "")
	f("List", err)
	f("Put", s.Put(t.Context(), "object", []byte("x")))
	f("PutNew", s.PutNew(t.Context(), "object", []byte("x")))
	f("Remove", s.Remove(t.Context(), "object"))
	u, err := s.Create(t.Context(), "object", storetest.PartSize+1)
	if err == nil { // the right to list uploads is not needed
		defer u.Close()
		err = u.WriteAt(t.Context(), make([]byte, storetest.PartSize), 0)
		s3store.Settle(u)
		err = errors.Join(err, u.WriteAt(t.Context(), make([]byte, 1), storetest.PartSize))
	}
	f("WriteAt", err)
}

// What real servers answer to wrong credentials.
func TestWrongCredentials(t *testing.T) {
	server := storetest.StartS3(t)
	t.Run("secret", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
		each(t, newStore(t, server, "p"), func(what string, err error) {
			checkError(t, what, err, s3store.ErrDenied, "SignatureDoesNotMatch", "s3://ferry-test/p/")
		})
	})
	t.Run("key", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "another-key")
		each(t, newStore(t, server, "p"), func(what string, err error) {
			checkError(t, what, err, s3store.ErrDenied, "s3://ferry-test/p/")
		})
	})
	t.Run("none", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		_, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket})
		checkError(t, "New", err, s3store.ErrDenied, "credentials", "s3://ferry-test")
	})
}

func TestNoBucket(t *testing.T) {
	server := storetest.StartS3(t)
	server.Bucket = "no-such-bucket"
	each(t, newStore(t, server, "p"), func(what string, err error) {
		checkError(t, what, err, nil, `there is no bucket "no-such-bucket"`)
	})
}

// How each answer is told to the caller, and how often it is asked for.
func TestAnswers(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	for _, test := range []struct {
		status   int
		code     string
		kind     error
		requests int // of one Put
	}{
		{403, "AccessDenied", s3store.ErrDenied, 1},
		{401, "", s3store.ErrDenied, 1},
		{403, "InvalidAccessKeyId", s3store.ErrDenied, 1},
		{400, "ExpiredToken", s3store.ErrDenied, 2}, // once more with new credentials (T47)
		{403, "ExpiredToken", s3store.ErrDenied, 2},
		{400, "InvalidToken", s3store.ErrDenied, 1},
		{503, "SlowDown", s3store.ErrUnavailable, 6},
		{503, "", s3store.ErrUnavailable, 6},
		{500, "InternalError", s3store.ErrUnavailable, 6},
		{502, "", s3store.ErrUnavailable, 6},
		{429, "", s3store.ErrUnavailable, 6},
		{400, "RequestTimeout", s3store.ErrUnavailable, 6},
		{507, "", bundle.ErrNoSpace, 1},
		{507, "XMinioStorageFull", bundle.ErrNoSpace, 1},
		{403, "QuotaExceeded", bundle.ErrNoSpace, 1},
		{400, "EntityTooLarge", nil, 1},
		{501, "NotImplemented", nil, 1},
		{307, "TemporaryRedirect", nil, 1},
		{418, "", nil, 1},
	} {
		what := fmt.Sprint(test.status, " ", test.code)
		server.Proxy.Reset()
		server.Proxy.Add(storetest.Fault{Times: -1, Status: test.status, Code: test.code, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}})
		err := s.Put(t.Context(), "object", []byte("x"))
		checkError(t, what, err, test.kind, "writing s3://ferry-test/p/object: ", test.code, fmt.Sprintf("(HTTP %d)", test.status))
		if n := len(server.Proxy.Requests("")); n != test.requests {
			t.Errorf("%s: %d requests, want %d", what, n, test.requests)
		}
		var e *s3store.Error
		if errors.As(err, &e) && (e.Status != test.status || e.Code != test.code || e.Key != "s3://ferry-test/p/object") {
			t.Errorf("%s: error has %+v", what, e)
		}
	}
	// What is busy for a while is asked again, and more slowly (T42).
	for _, times := range []int{1, 5} {
		server.Proxy.Reset()
		server.Proxy.Add(storetest.Fault{Times: times, Status: 503, Code: "SlowDown"})
		if err := s.Put(t.Context(), "object", []byte("x")); err != nil {
			t.Errorf("after %d answers of SlowDown: %v", times, err)
		}
	}
	// Credentials that have expired once are fetched again (T47).
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Times: 1, Status: 400, Code: "ExpiredToken"})
	if err := s.Put(t.Context(), "object", []byte("x")); err != nil {
		t.Errorf("after ExpiredToken: %v", err)
	}
}

// A redirect is not followed: whoever stands there gets no credentials (T64).
func TestRedirect(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	var calls atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer other.Close()
	server.Proxy.Add(storetest.Fault{Times: -1, Status: 307, Code: "TemporaryRedirect",
		Header: http.Header{"Location": {other.URL}, "X-Amz-Bucket-Region": {"mars-1"}}})
	each(t, s, func(what string, err error) {
		checkError(t, what, err, nil, "the bucket is in the region mars-1", "(HTTP 307)")
	})
	if n := calls.Load(); n != 0 {
		t.Errorf("the other server got %d requests", n)
	}
}

// Retry-After is heeded, up to a minute (T42).
func TestRetryAfter(t *testing.T) {
	for header, want := range map[string][2]time.Duration{
		"": {0, 2 * time.Second}, "7": {7 * time.Second, 7 * time.Second}, "100000": {time.Minute, time.Minute},
		"99999999999999999999": {0, 2 * time.Second}, "-5": {0, 2 * time.Second}, "soon": {0, 2 * time.Second},
	} {
		answer := &smithyhttp.Response{Response: &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {header}}}}
		err := &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{Response: answer, Err: errors.New("busy")}}
		pause, failed := s3store.NewRetryer().RetryDelay(1, err)
		if pause < want[0] || pause > want[1] || failed != nil {
			t.Errorf("Retry-After %q: pause of %v, %v, want %v", header, pause, failed, want)
		}
	}
}

// The clocks of both sides are shown (T46).
func TestClockSkew(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	const there = "Mon, 02 Jan 2006 15:04:05 GMT"
	server.Proxy.Add(storetest.Fault{Times: -1, Status: 403, Code: "RequestTimeTooSkewed", Header: http.Header{"Date": {there}}})
	each(t, s, func(what string, err error) {
		checkError(t, what, err, s3store.ErrDenied, "the clocks differ", there, time.Now().UTC().Format("02 Jan 2006"))
	})
}

// Nobody is there, a stranger is there, or somebody who speaks no S3.
func TestStrangers(t *testing.T) {
	storetest.StartS3(t) // for its environment
	dial := func(endpoint string) bundle.Store {
		s, err := s3store.New(t.Context(), s3store.Options{Bucket: "bucket", Endpoint: endpoint, HTTP: storetest.Client(t)})
		if err != nil {
			t.Fatal(err)
		}
		s3store.Hurry(s)
		return s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	each(t, dial("http://"+l.Addr().String()), func(what string, err error) {
		checkError(t, what, err, s3store.ErrUnavailable, "connection refused", "s3://bucket/")
	})

	var calls atomic.Int32
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			calls.Add(1)
		}
	}
	stranger.StartTLS()
	defer stranger.Close()
	err = dial(stranger.URL).Put(t.Context(), "object", nil)
	checkError(t, "wrong certificate", err, nil)
	var wrong *tls.CertificateVerificationError
	if !errors.As(err, &wrong) {
		t.Errorf("wrong certificate: %v hides the cause", err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("wrong certificate: %d connections, want 1", n)
	}

	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("<html>\x1b[2J<title>Welcome to nginx!</title></html>"))
	}))
	defer page.Close()
	_, err = dial(page.URL).List(t.Context(), "")
	checkError(t, "a web page", err, nil, "listing s3://bucket/")
	naughty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		fmt.Fprintf(w, "<Error><Code>Access\u202eDenied</Code><Message>%s&#13;&#10;::error::</Message></Error>", strings.Repeat("m", 5000))
	}))
	defer naughty.Close()
	_, err = dial(naughty.URL).List(t.Context(), "")
	checkError(t, "naughty words", err, s3store.ErrDenied) // T40
	if text := err.Error(); len(text) > 1500 || strings.ContainsAny(text, "\r\n\u202e") {
		t.Errorf("naughty words: error of %d bytes: %q", len(text), text)
	}
}

// A cancelled context ends the attempts and is the error.
func TestCancelledWhileBusy(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	ctx, cancel := context.WithCancel(t.Context())
	server.Proxy.Add(storetest.Fault{Times: 2, Status: 503, Code: "SlowDown"})
	server.Proxy.Add(storetest.Fault{Times: -1, Before: cancel})
	err := s.Put(ctx, "object", []byte("x"))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "s3://ferry-test/p/object") {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
}

// Bodies that change on their way are refused by the server (T01).
func TestDamagedOnTheWay(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	server.Proxy.Add(storetest.Fault{Op: "PutObject", Times: -1, FlipBody: true})
	server.Proxy.Add(storetest.Fault{Op: "UploadPart", Times: -1, FlipBody: true})
	content := storetest.Content(storetest.PartSize+1, 1)
	checkError(t, "Put", s.Put(t.Context(), "object", content[:1000]), nil, "HTTP 400")
	u := storetest.Create(t, s, "object", int64(len(content)))
	checkError(t, "Commit", errors.Join(storetest.Write(t, u, content, 0, 1), u.Commit(t.Context())), nil, "HTTP 400")
	if _, err := s.Open(t.Context(), "object"); !errors.Is(err, bundle.ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
	// A checksum that the server checks is in each request, and signed.
	for _, r := range append(server.Proxy.Requests("PutObject"), server.Proxy.Requests("UploadPart")...) {
		sums := len(r.Header.Get("X-Amz-Checksum-Sha256")) == 44 && len(r.Header.Get("X-Amz-Content-Sha256")) == 64
		if r.Op() == "UploadPart" {
			sums = len(r.Header.Get("X-Amz-Checksum-Crc32c")) == 8 && strings.Contains(r.Header.Get("Authorization"), "x-amz-checksum-crc32c")
		}
		if !sums {
			t.Errorf("request without checksums: %v", r.Header)
		}
		if r.Header.Get("X-Amz-Checksum-Crc32") != "" || r.Header.Get("X-Amz-Trailer") != "" {
			t.Errorf("request with what other servers refuse: %v", r.Header)
		}
	}
}

// An answer that breaks off is asked for again, wherever it broke (T41), and
// when it always does the server is no other than one of S3.
func TestAnswerBreaksOff(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "cut")
	put(t, s, "a", []byte("content"))
	half := func(p []byte) []byte { return p[:len(p)/2] }
	for name, f := range map[string]storetest.Fault{"connection": {CutAfter: 30}, "text": {Body: half}} {
		t.Run(name, func(t *testing.T) {
			f.Op, f.Times = "ListObjectsV2", 3
			server.Proxy.Add(f)
			if list, err := s.List(t.Context(), ""); err != nil || len(list) == 0 {
				t.Errorf("List = %v, %v", list, err)
			}
			f.Times = -1
			server.Proxy.Add(f)
			_, err := s.List(t.Context(), "")
			checkError(t, "List", err, s3store.ErrUnavailable, "breaks off")
			server.Proxy.Reset()
			f.Op, f.Times = "CreateMultipartUpload", 2
			server.Proxy.Add(f)
			content := storetest.Content(storetest.PartSize+1, 1)
			u := storetest.Create(t, s, "b", int64(len(content)))
			if err := storetest.Write(t, u, content, 0, 1); err != nil {
				t.Fatal(err)
			}
			if err := u.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			server.Proxy.Reset()
		})
	}
}

// An answer to HEAD can not say that credentials have expired; one that is
// refused so is made again with new ones (T47).
func TestHeadExpired(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "expired")
	put(t, s, "a", []byte("content"))
	for _, status := range []int{400, 401, 403} {
		server.Proxy.Reset()
		server.Proxy.Add(storetest.Fault{Op: "HeadObject", Times: 1, Status: status})
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Status: 400, Code: "ExpiredToken"})
		if o, err := s.Open(t.Context(), "a"); err != nil || o.Size() != 7 {
			t.Errorf("Open after %d: %v", status, err)
		}
		server.Proxy.Add(storetest.Fault{Op: "HeadObject", Times: 1, Status: status})
		checkError(t, "PutNew", s.PutNew(t.Context(), "a", nil), bundle.ErrExists)
	}
}

// A server of which each body brings a few bytes is given up.
func TestTrickle(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "trickle")
	put(t, s, "a", storetest.Content(1<<20, 1))
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: -1, CutAfter: 10})
	r, err := o.Range(t.Context(), 0, o.Size())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	checkError(t, "Read", err, s3store.ErrUnavailable)
	if n == 0 || n > 1000 {
		t.Errorf("%d bytes were read", n)
	}
}
