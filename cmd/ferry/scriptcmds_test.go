package main

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/registrytest"
	"ferry/verify"
)

// scriptCommands are the commands of scripts besides those of testscript.
// SERVER is outside, inside, private, s3, harbor, or what "serve" has started.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// code N COMMAND ARG…: the command ends with the exit code N, and what
	// it says keeps the rules that checkTalk has.
	"code": command(func(s *scripted, ts *testscript.TestScript, args []string) error {
		want, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		got := 0
		var exit *exec.ExitError
		if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			return err
		}
		stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
		return errors.Join(s.checkTalk(want, stdout, stderr), checkCode(got, want))
	}),
	// measures PATTERN COMMAND: run a dry run until its answer matches, ten
	// times at most: on a busy machine there may be no time to measure.
	"measures": command(func(_ *scripted, ts *testscript.TestScript, args []string) error {
		pattern := regexp.MustCompile("(?m)" + args[0])
		for range 10 {
			if err := ts.Exec(args[1], args[2:]...); err != nil {
				return err
			}
			if pattern.MatchString(ts.ReadFile("stdout")) {
				return nil
			}
		}
		return fmt.Errorf("no answer matches %s", args[0])
	}),
	// talk N STDOUT STDERR: the rules for a command that ran in the
	// background, and left what it said in files.
	"talk": command(func(s *scripted, ts *testscript.TestScript, args []string) error {
		want, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return s.checkTalk(want, ts.ReadFile(args[1]), ts.ReadFile(args[2]))
	}),
	"requests":  requestsCommand,
	"untouched": command((*scripted).untouched),
	// mark SERVER: forget what the server was asked so far.
	"mark": command(func(s *scripted, _ *testscript.TestScript, args []string) error {
		s.marks[args[0]] = 0
		lines, err := s.requests(args[0])
		s.marks[args[0]] = len(lines)
		return err
	}),
	"seed":    command((*scripted).seed),
	"arrived": command((*scripted).arrived),
	"serve":   command((*scripted).serve),
	"harbor":  command((*scripted).setHarbor),
	// login HOST USER SECRET: change docker's config.json.
	"login": command(func(_ *scripted, ts *testscript.TestScript, args []string) error {
		auth := base64.StdEncoding.EncodeToString([]byte(args[1] + ":" + args[2]))
		return os.WriteFile(ts.Getenv("DOCKER_CONFIG")+"/config.json", fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, args[0], auth), 0o600)
	}),
	"flip": command(func(_ *scripted, ts *testscript.TestScript, args []string) error {
		return flip(ts.MkAbs(args[0]), args[1])
	}),
	// cut FILE N: leave out the last N bytes.
	"cut": command(func(_ *scripted, ts *testscript.TestScript, args []string) error {
		n, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		info, err := os.Stat(ts.MkAbs(args[0]))
		if err != nil {
			return err
		}
		return os.Truncate(ts.MkAbs(args[0]), info.Size()-n)
	}),
	"image":    command(makeImage),
	"put":      command(putCommand),
	"json":     command(checkJSON),
	"progress": command(checkProgress),
	"tmpfs":    command(mountSmall),
	// secretless PATH: no file below it holds a secret (T54).
	"secretless": command(func(s *scripted, ts *testscript.TestScript, args []string) error {
		return s.checkFiles(ts.MkAbs(args[0]))
	}),
}

// command makes a script command of f, which is not to be negated.
func command(f func(s *scripted, ts *testscript.TestScript, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("this command can not be negated")
		}
		defer func() {
			if r := recover(); r != nil {
				if err, ok := r.(error); ok && strings.Contains(err.Error(), "index out of range") {
					ts.Fatalf("too few arguments: %q", args)
				}
				panic(r)
			}
		}()
		ts.Check(f(ts.Value(scriptedKey{}).(*scripted), ts, args))
	}
}

func checkCode(got, want int) error {
	if got != want {
		return fmt.Errorf("exit code %d, want %d", got, want)
	}
	return nil
}

var talkLine = regexp.MustCompile(`^ferry: +\S|^\{"`)

// checkTalk checks what holds for every call of ferry that ends with code: the
// talk is in lines that say whose they are; a failure says "error", has an
// advice where there can be one, and answers nothing on stdout; nothing that
// a terminal must not get is there, and no secret.
func (s *scripted) checkTalk(code int, stdout, stderr string) error {
	for line := range strings.Lines(stderr) {
		if !talkLine.MatchString(line) {
			return fmt.Errorf("stderr has the line %q", line)
		}
	}
	failed := strings.Contains(stderr, "ferry: error: ") && !strings.Contains(stderr, "ferry: error: %!")
	switch {
	case code == 0 && failed:
		return errors.New("it ends with 0 and tells an error")
	case code != 0 && !failed:
		return errors.New("stderr has no line \"ferry: error: …\"")
	case code != 0 && stdout != "":
		return fmt.Errorf("it failed, and stdout has %q", stdout)
	case code >= exitUsage && code <= exitBaseMissing && code != exitConflict && !strings.Contains(stderr, "\nferry: hint: ") && !strings.Contains(stderr, errNoPassword.Error()):
		return errors.New("stderr has no line \"ferry: hint: …\"")
	}
	for name, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
		if i := strings.IndexFunc(text, unfit); i >= 0 || !utf8.ValidString(text) {
			return fmt.Errorf("%s has what a terminal must not get at byte %d: %q", name, i, text) // T40
		}
		if strings.HasPrefix(text, "::") || strings.Contains(text, "\n::") {
			return fmt.Errorf("%s has a line that build servers obey: %q", name, text)
		}
		for _, secret := range s.secrets {
			if strings.Contains(text, secret) {
				return fmt.Errorf("%s has the secret %q", name, secret) // T54, I6
			}
		}
	}
	return nil
}

// unfit reports whether a terminal must not get r.
func unfit(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

func (s *scripted) checkFiles(root string) error {
	return filepathWalk(root, func(path string, content []byte) error {
		for _, secret := range s.secrets {
			if bytes.Contains(content, []byte(secret)) {
				return fmt.Errorf("%s has the secret %q", path, secret)
			}
		}
		return nil
	})
}

// requests returns the lines of a server's log that are about the script.
func (s *scripted) requests(server string) ([]string, error) {
	var lines []string
	add := func(method, path, query string, status int, sent int64) {
		if q, err := url.QueryUnescape(query); err == nil && q != "" {
			path += "?" + q
		}
		lines = append(lines, fmt.Sprintf("%s %s %d (%d bytes in)", method, path, status, sent))
	}
	shared := map[string]*registrytest.Server{"outside": s.outside, "inside": s.inside, "private": s.private}
	switch own := s.servers[server]; {
	case server == "harbor":
		for _, r := range s.harbor.Log() {
			add(r.Method, r.Path, r.Query, r.Status, r.Received)
		}
	case server == "s3":
		for _, r := range s.s3.Proxy.Requests("") {
			add(r.Method, r.Path, r.Query.Encode(), r.Status, r.Sent)
		}
	case own != nil:
		for _, r := range own.Requests() {
			add(r.Method, r.Path, r.Query, r.Status, r.BytesIn)
		}
	case shared[server] != nil:
		for _, r := range shared[server].Requests() {
			add(r.Method, r.Path, r.Query, r.Status, r.BytesIn)
		}
	default:
		return nil, fmt.Errorf("there is no server %q", server)
	}
	if s.servers[server] == nil && server != "harbor" {
		lines = slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, s.project+"/") })
	}
	return lines[min(s.marks[server], len(lines)):], nil
}

// requestsCommand is
//
//	[!] requests SERVER [-count=N] PATTERN
//
// A request about the script's project, since the last mark, matches the
// pattern: "METHOD PATH?QUERY STATUS (N bytes in)".
func requestsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: requests SERVER [-count=N] PATTERN")
	}
	lines, err := ts.Value(scriptedKey{}).(*scripted).requests(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile(args[len(args)-1])
	ts.Check(err)
	all := len(lines)
	lines = slices.DeleteFunc(lines, func(line string) bool { return !pattern.MatchString(line) })
	n := len(lines)
	want, counted := strings.CutPrefix(args[1], "-count=")
	if counted && strconv.Itoa(n) != want || !counted && (n > 0) == neg {
		ts.Fatalf("%d of %d requests match %q:\n%s", n, all, pattern, strings.Join(lines, "\n"))
	}
}

// untouched SERVER: nothing there has changed since the last mark, nor begun
// to.
func (s *scripted) untouched(_ *testscript.TestScript, args []string) error {
	lines, err := s.requests(args[0])
	for _, line := range lines {
		if method, _, _ := strings.Cut(line, " "); method != "GET" && method != "HEAD" {
			return fmt.Errorf("%s was asked: %s", args[0], line)
		}
	}
	return err
}

// seed SERVER SAMPLE…: push samples to the script's project.
func (s *scripted) seed(_ *testscript.TestScript, args []string) error {
	host := map[string]string{"outside": s.outside.Host, "inside": s.inside.Host}[args[0]]
	if host == "" {
		host = s.servers[args[0]].Host
	}
	for _, repository := range args[1:] {
		sample := *sampleOf(s, repository)
		sample.Repository = s.project + "/" + repository
		if err := sample.Push(s.Context(), host); err != nil {
			return err
		}
	}
	return nil
}

// arrived HOST/PREFIX SAMPLE…: all that belongs to the samples is at
// HOST/PREFIX/SAMPLE, byte for byte.
func (s *scripted) arrived(_ *testscript.TestScript, args []string) error {
	host, prefix, _ := strings.Cut(args[0], "/")
	for _, repository := range args[1:] {
		at := host + "/v2/" + strings.TrimPrefix(prefix+"/"+repository, "/")
		if err := s.sampleArrived(sampleOf(s, repository), "http://"+at); err != nil {
			return err
		}
	}
	return nil
}

// sampleArrived returns an error when not all of sample is in the repository
// with the URL base, byte for byte.
func (s *scripted) sampleArrived(sample *registrytest.Sample, base string) error {
	for tag, want := range sample.Tags {
		if content, err := s.get(base + "/manifests/" + tag); err != nil || verify.DigestOf(content) != want {
			return fmt.Errorf("%s:%s is %s, %v; want %s", base, tag, verify.DigestOf(content), err, want)
		}
	}
	for kind, list := range map[string][]registrytest.Content{"manifests": sample.Manifests, "blobs": sample.Blobs} {
		for _, want := range list {
			content, err := s.get(base + "/" + kind + "/" + want.Digest.String())
			if err != nil || !bytes.Equal(content, want.Bytes) {
				return fmt.Errorf("%s: %s: %d bytes, %v", base, want.Digest, len(content), err)
			}
		}
	}
	return nil
}

func (s *scripted) get(address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	if req.URL.Host == s.harborHost {
		req.SetBasicAuth(robotName, robotSecret)
	}
	for _, kind := range []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"} {
		req.Header.Add("Accept", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// flip changes one bit of a file: at an offset, or in the middle of the
// content of the tar entry NAME with "entry:NAME"; "entry:" is the last.
func flip(name, where string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	at, err := strconv.ParseInt(where, 10, 64)
	if entry, ok := strings.CutPrefix(where, "entry:"); ok {
		at, err = middleOf(f, entry)
	}
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}

func middleOf(f *os.File, entry string) (int64, error) {
	r := tar.NewReader(f)
	at := int64(-1)
	for {
		h, err := r.Next()
		if err == io.EOF && at >= 0 {
			return at, nil
		}
		if err != nil {
			return 0, fmt.Errorf("entry %q: %w", entry, err)
		}
		if entry == "" || h.Name == entry {
			start, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return 0, err
			}
			at = start + h.Size/2
		}
	}
}

// checkJSON is
//
//	json FILE [PATH VALUE]…
//
// The file, or stdout, is one JSON document, and at each path, like
// images.0.tags, it has the value: a text as it is, all else as JSON; "len" at
// the end of a path is the number of elements.
func checkJSON(_ *scripted, ts *testscript.TestScript, args []string) error {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("there is more after the document: %v", err)
	}
	for i := 1; i < len(args); i += 2 {
		got, err := at(doc, args[i])
		if err != nil {
			return err
		}
		if got != args[i+1] {
			return fmt.Errorf("%s is %s, want %s", args[i], got, args[i+1])
		}
	}
	return nil
}

func at(v any, path string) (string, error) {
	for key := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[key]; !ok {
				return "", fmt.Errorf("%s: there is no key %q", path, key)
			}
		case []any:
			if key == "len" {
				return strconv.Itoa(len(at)), nil
			}
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(at) {
				return "", fmt.Errorf("%s: no element %q of %d", path, key, len(at))
			}
			v = at[i]
		default:
			return "", fmt.Errorf("%s: %q of a %T", path, key, v)
		}
	}
	if text, ok := v.(string); ok {
		return text, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// checkProgress is "progress": stderr has events of progress, each in a line
// of JSON, from the first to "end".
func checkProgress(_ *scripted, ts *testscript.TestScript, _ []string) error {
	last := ""
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if strings.HasPrefix(line, "ferry: ") {
			continue
		}
		var event struct {
			Type  string
			Time  time.Time
			Bytes int64
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Type == "" || event.Time.IsZero() {
			return fmt.Errorf("%q is no event: %v", line, err)
		}
		last = event.Type
	}
	if last != "end" {
		return fmt.Errorf("the last event is %q", last)
	}
	return nil
}
