package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/registrytest"
)

// naughty is what no terminal may get as it is (T40).
const naughty = "\x1b[2J\x1b]0;owned\a\u202egnp.exe\r\n::error::fake\x00\u0085"

// serve NAME KIND: start a registry of the script's own and set $NAME to its
// host. TLS registries leave their certificate in ca.pem.
func (s *scripted) serve(ts *testscript.TestScript, args []string) error {
	name, kind := args[0], args[1]
	memory := func(faults ...registrytest.Fault) *registrytest.Server {
		return registrytest.Memory(s, registrytest.Options{Faults: faults})
	}
	answer := func(match registrytest.Match, status int, code, message string) *registrytest.Server {
		return memory(registrytest.Answer(-1, match, status, http.Header{"Content-Type": {"application/json"}}, registrytest.Errors(code, message)))
	}
	var server *registrytest.Server
	switch kind {
	case "memory":
		server = memory()
	case "tls":
		server = registrytest.Memory(s, registrytest.Options{TLS: true})
		content, err := os.ReadFile(server.CAFile(s))
		if err != nil {
			return err
		}
		if err := os.WriteFile(ts.MkAbs("ca.pem"), content, 0o644); err != nil {
			return err
		}
	case "down":
		server = memory(registrytest.Answer(-1, registrytest.All, http.StatusServiceUnavailable, nil, ""))
	case "naughty": // its errors are
		server = answer(registrytest.All, http.StatusTeapot, "UNKNOWN", naughty)
	case "naughty-tags":
		server = memory(registrytest.Answer(-1, registrytest.Path("/tags/list"), http.StatusOK,
			http.Header{"Content-Type": {"application/json"}}, fmt.Sprintf(`{"name":"a/b","tags":["v1",%q]}`, "v2\u202e\u0085\u009b2J")))
	case "readonly":
		server = registrytest.Start(s, registrytest.Options{ReadOnly: true})
	case "lying": // it forgets manifests
		server = memory(registrytest.LieManifest())
	case "forgetful": // it forgets blobs
		server = memory(registrytest.LieUpload())
	case "hollow": // it says that it has the layers of team/single, and has not
		server = memory(hollow(sampleOf(s, "team/single"))...)
	case "bitrot": // it gives back blobs with a bit changed
		server = memory(registrytest.Flip(registrytest.Blobs(http.MethodGet), 10))
	case "small": // a proxy before it takes little at once
		server = memory(registrytest.TooLarge(1 << 20))
	default:
		return fmt.Errorf("unknown kind of server %q", kind)
	}
	s.servers[name] = server
	ts.Setenv(name, server.Host)
	return nil
}

// hollow says of all blobs of a sample that they are there.
func hollow(sample *registrytest.Sample) []registrytest.Fault {
	var faults []registrytest.Fault
	for _, b := range sample.Blobs {
		match := func(r *http.Request) bool {
			return r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, b.Digest.String())
		}
		faults = append(faults, registrytest.Answer(-1, match, http.StatusOK, http.Header{"Content-Length": {strconv.FormatInt(b.Size, 10)}}, ""))
	}
	return faults
}

// setHarbor changes the script's Harbor:
//
//	harbor project NAME [QUOTA]
//	harbor immutable PROJECT TAGPATTERN
//	harbor push PROJECT/REPO CONTENT TAG…
//	harbor robot NAME SECRET PROJECT RIGHT…
//	harbor readonly
//	harbor stopclock
func (s *scripted) setHarbor(_ *testscript.TestScript, args []string) error {
	switch args[0] {
	case "project":
		quota := int64(-1)
		if len(args) > 2 {
			var err error
			if quota, err = strconv.ParseInt(args[2], 10, 64); err != nil {
				return err
			}
		}
		s.harbor.AddProject(args[1], false, quota)
	case "immutable":
		s.harbor.AddImmutableRule(s, args[1], args[2])
	case "push":
		s.pushed.Add(1)
		s.harbor.PushImage(s, args[1], args[2], args[3:]...)
	case "robot":
		s.harbor.AddRobot(args[1], args[2], args[3], args[4:]...)
	case "stopclock":
		s.stopped.Store(s.harborTime().Unix())
	case "readonly":
		s.harbor.Admin(s, http.MethodPut, "/api/v2.0/configurations", map[string]bool{"read_only": true}).Body.Close()
	default:
		return fmt.Errorf("unknown setting %q", args[0])
	}
	return nil
}

// canMount reports whether a file system of a given size can be mounted.
var canMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "mount")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	if mount(dir, 1<<20) != nil {
		return false
	}
	return unmount(dir) == nil
})

// mountSmall is "tmpfs DIR BYTES": the folder is a file system of that size.
func mountSmall(s *scripted, ts *testscript.TestScript, args []string) error {
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	dir := ts.MkAbs(args[0])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := mount(dir, size); err != nil {
		return err
	}
	ts.Defer(func() { ts.Check(unmount(dir)) })
	return nil
}

// filepathWalk calls do with each file below root and its content.
func filepathWalk(root string, do func(path string, content []byte) error) error {
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(path, ".docker") {
			return err
		}
		n++
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return do(path, content)
	})
	if err == nil && n == 0 {
		err = errors.New("no files")
	}
	return err
}
