package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	s3Bucket = "bench"
	s3Key    = "ferry-bench-key"
	s3Secret = "ferry-bench-secret"
)

// server is a process that listens on the loopback interface.
type server struct {
	host   string // "127.0.0.1:port"
	facts  string // URL of its metrics; empty when it has none
	folder string // of its content
	cmd    *exec.Cmd
	ended  chan struct{}
}

// startRegistry starts CNCF distribution with an empty folder at a new port.
func startRegistry(ctx context.Context, program, folder string) (*server, error) {
	host, err := freeHost()
	if err != nil {
		return nil, err
	}
	debug, err := freeHost()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(folder, "config.yml")
	text := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance:
    uploadpurging: {enabled: false}
http: {addr: %q, secret: x, debug: {addr: %q, prometheus: {enabled: true}}}
`, filepath.Join(folder, "data"), host, debug)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s, err := startServer(ctx, host, folder, cmd)
	if err != nil {
		return nil, err
	}
	s.facts = "http://" + debug + "/metrics"
	return s, nil
}

// startS3 starts versitygw with one empty bucket.
func startS3(ctx context.Context, program, folder string) (*server, error) {
	host, err := freeHost()
	if err != nil {
		return nil, err
	}
	buckets := filepath.Join(folder, "buckets")
	if err := os.MkdirAll(filepath.Join(buckets, s3Bucket), 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--port", host, "--quiet", "posix", buckets)
	cmd.Dir = folder
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ROOT_ACCESS_KEY=" + s3Key, "ROOT_SECRET_KEY=" + s3Secret}
	return startServer(ctx, host, filepath.Join(buckets, s3Bucket), cmd)
}

// startServer starts cmd and waits until it listens.
func startServer(ctx context.Context, host, folder string, cmd *exec.Cmd) (*server, error) {
	log, err := os.Create(folder + ".log") // every 404 is a line
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = log, log
	own(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{host: host, folder: folder, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		cmd.Wait()
	}()
	for range 600 {
		if conn, err := net.Dial("tcp", host); err == nil {
			conn.Close()
			return s, nil
		}
		select {
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-s.ended:
			return nil, fmt.Errorf("%s ended at once: %s", cmd.Path, tail(readText(log.Name())))
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen at %s", cmd.Path, host)
}

// stop ends the server and waits until it has ended. It may be called twice,
// and for none.
func (s *server) stop() {
	if s == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.ended
}

// remove ends the server and removes its content.
func (s *server) remove() error {
	if s == nil {
		return nil
	}
	s.stop()
	return errors.Join(os.RemoveAll(s.folder), os.Remove(s.folder+".log"))
}

// cpu returns the CPU time of the server so far.
func (s *server) cpu() time.Duration {
	if s == nil {
		return 0
	}
	return cpuOf(s.cmd.Process.Pid)
}

// requests returns how many the server has answered so far, as its own metrics
// tell; 0 for a server without.
func (s *server) requests(ctx context.Context) (int, error) {
	if s == nil || s.facts == "" {
		return 0, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.facts, nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return requestsIn(string(text)), err
}

// requestsIn adds up the answered requests in the metrics of distribution.
func requestsIn(metrics string) int {
	sum := 0
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "registry_http_requests_total{") {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, '}')+1:]), 64)
			if err == nil {
				sum += int(n)
			}
		}
	}
	return sum
}

func freeHost() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
