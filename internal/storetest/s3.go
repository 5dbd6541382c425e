package storetest

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// S3 is a real S3 server (versitygw) on this machine, with one bucket, behind
// a [Proxy]. It stops with the test.
type S3 struct {
	Endpoint  string // URL of the proxy
	Bucket    string
	AccessKey string
	SecretKey string
	Proxy     *Proxy

	folder string // of the bucket
}

// File returns the name of the file in which the server keeps an object: to
// look at it, to change it behind the server's back, or to make one.
func (s *S3) File(key string) string { return filepath.Join(s.folder, filepath.FromSlash(key)) }

// StartS3 starts a server and points the environment variables of the AWS
// tools to its credentials, and away from those of the machine.
func StartS3(t *testing.T) *S3 {
	t.Helper()
	program := tool(t, "versitygw")
	s := &S3{Bucket: "ferry-test", AccessKey: "ferry-test-key", SecretKey: "ferry-test-secret"}
	place := t.TempDir()
	s.folder = filepath.Join(place, "buckets", s.Bucket)
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	var log safeBuffer
	cmd := exec.Command(program, "--port", address, "--quiet", "posix", filepath.Dir(s.folder))
	cmd.Dir = place
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	cmd.Stdout, cmd.Stderr = &log, &log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	waitFor(t, address, ended, &log)

	s.Proxy = newProxy(&url.URL{Scheme: "http", Host: address}, s.folder)
	server := httptest.NewServer(s.Proxy)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		s.Proxy.transport.CloseIdleConnections()
	})
	s.Endpoint = server.URL
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": s.SecretKey, "AWS_SESSION_TOKEN": "",
		"AWS_ENDPOINT_URL": s.Endpoint, "AWS_ENDPOINT_URL_S3": "", "AWS_REGION": "us-east-1", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitFor waits until a server answers at address.
func waitFor(t *testing.T, address string, ended chan error, log *safeBuffer) {
	t.Helper()
	for range 600 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err // for the clean-up
			t.Fatalf("the server has ended: %v\n%s", err, log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("the server does not answer at %s\n%s", address, log)
}

// safeBuffer is a buffer that a process writes while a test reads.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Client returns an HTTP client for one test; its connections end with it.
func Client(t *testing.T) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
