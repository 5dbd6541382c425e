package main

import (
	"bytes"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"ferry/internal/faultproxy"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/storetest"
)

// faultTrial is a command that meets a fault. Of its arguments $OUT is the
// registry outside, $IN the one inside and $S3 a place in the bucket, each
// through the proxy if it is the one that is to fail, and $DIR a folder.
type faultTrial struct {
	name   string
	args   string
	where  string // which server fails: OUT, IN or S3
	fault  faultproxy.Fault
	exit   int      // 0 means that the fault passes
	arrive []string // repositories that are in $IN then
}

const (
	doExport   = "export $OUT/team/single:1.0.0 $OUT/team/single:latest $DIR --name n --version 1 --key $KEY"
	doExportS3 = "export $OUT/team/single:1.0.0 $OUT/team/single:latest $S3 --name n --version 1 --key $KEY"
	doImport   = "import usb/n/1 $IN/$NAME --key $PUB"
)

func toManifests(method string) faultproxy.Match { return faultproxy.Target(method, "/manifests/") }
func toBlobs(method string) faultproxy.Match     { return faultproxy.Target(method, "/blobs/") }

// faultTrials are some of the cells that internal/transfer tries all of; here
// the whole command meets them, with the patience that users see.
func faultTrials() []faultTrial {
	wait := http.Header{"Retry-After": {"1"}}
	status := func(code, times int, match faultproxy.Match) faultproxy.Fault {
		return faultproxy.Fault{Kind: faultproxy.Status, Code: code, Times: times, Match: match, Header: wait}
	}
	of := func(kind faultproxy.Kind, times int, match faultproxy.Match) faultproxy.Fault {
		return faultproxy.Fault{Kind: kind, Times: times, Match: match, Delay: 100 * time.Millisecond}
	}
	single := []string{"team/single"}
	return []faultTrial{
		{"blob breaks", doExport, "OUT", of(faultproxy.ResetBody, 2, toBlobs("GET")), 0, nil},
		{"manifest is short", doExport, "OUT", of(faultproxy.ShortBody, 2, toManifests("GET")), 0, nil},
		{"manifest with too small a length", doExport, "OUT", of(faultproxy.ShortLength, 1, toManifests("GET")), 0, nil},
		{"source is gone for a moment", doExport, "OUT", of(faultproxy.Refuse, 2, toBlobs("GET")), 0, nil},
		{"source is busy", doExport, "OUT", status(503, 2, nil), 0, nil},
		{"source talks garbage", doExport, "OUT", of(faultproxy.Garbage, 2, toBlobs("GET")), 0, nil},
		{"upload breaks", doImport, "IN", of(faultproxy.ResetRequest, 2, toBlobs("PATCH|PUT")), 0, single},
		{"answer is lost", doImport, "IN", of(faultproxy.ResetBefore, 2, toBlobs("PUT")), 0, single},
		{"tags are refused for a moment", doImport, "IN", status(429, 2, faultproxy.Target("PUT", "/manifests/[^s]")), 0, single},
		{"gateway fails", doImport, "IN", status(502, 2, toManifests("PUT")), 0, single},
		{"connection was closed", doImport, "IN", of(faultproxy.Close, 2, toBlobs("POST")), 0, single},
		{"bucket's list breaks", doExportS3, "S3", of(faultproxy.ResetBody, 2, faultproxy.Target("GET", "list-type")), 0, nil},
		{"last object fails", doExportS3, "S3", status(500, 2, faultproxy.Target("PUT", `/bundle\.json(\?|$)`)), 0, nil},
		{"source wants a login", doExport, "OUT", status(401, -1, toManifests("GET")), exitDenied, nil},
		{"source is gone", doExport, "OUT", faultproxy.Fault{Kind: faultproxy.Refuse, Times: -1, Match: toBlobs("GET")}, exitUnavailable, nil},
		{"tags are refused", doImport, "IN", status(502, -1, faultproxy.Target("PUT", "/manifests/[^s]")), exitUnavailable, single},
		{"manifests are refused", doImport, "IN", status(401, -1, toManifests("PUT")), exitDenied, single},
		{"bucket wants a login", doExportS3, "S3", status(401, -1, faultproxy.Target("PUT", "volume")), exitDenied, nil},
	}
}

// TestFaults: a command rides out faults that pass, with nothing but its own
// lines on stderr (T41); one that lasts ends with the exit code for it, makes
// nothing visible, and the same command goes on when it is over.
func TestFaults(t *testing.T) {
	outside, inside := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	if err := registrytest.PushAll(t.Context(), outside.Host, []*registrytest.Sample{sampleOf(t, "team/single")}); err != nil {
		t.Fatal(err)
	}
	s3 := storetest.StartS3(t)
	dir, key, public := t.TempDir(), testKey(t, "one.key"), testKey(t, "one.pub")
	mustFerry(t, dir, "export", outside.Host+"/team/single:1.0.0", outside.Host+"/team/single:latest", "usb", "--name", "n", "--version", "1", "--key", key)
	var g errgroup.Group
	g.SetLimit(8)
	for i, f := range faultTrials() {
		g.Go(func() error {
			t.Run(f.name, func(t *testing.T) {
				server := map[string]string{"OUT": outside.URL, "IN": inside.URL, "S3": s3.Endpoint}[f.where]
				p := faultproxy.Start(t, server, faultproxy.Options{})
				name := "trial" + string(rune('a'+i))
				hosts := map[string]string{"OUT": outside.Host, "IN": inside.Host, "S3": s3.Endpoint}
				hosts[f.where] = p.Host
				endpoint := s3.Endpoint
				if f.where == "S3" {
					endpoint = p.URL
				}
				args := strings.Fields(strings.NewReplacer("$OUT", hosts["OUT"], "$IN", hosts["IN"], "$S3", "s3://"+s3.Bucket+"/"+name,
					"$DIR", name, "$KEY", key, "$PUB", public, "$NAME", name).Replace(f.args))
				args = append(args, "--plain-http", hosts["OUT"], "--plain-http", hosts["IN"], "--s3-endpoint", endpoint)
				p.Add(f.fault)
				tryFault(t, dir, f.exit, args)
				if !hit(p) {
					t.Error("the fault did not come about")
				}
				if f.exit != 0 {
					checkInvisible(t, filepath.Join(dir, name), s3.File(name), inside.Host, name)
					p.Clear()
					tryFault(t, dir, 0, args)
				}
				switch f.args {
				case doExport:
					mustFerry(t, dir, "verify", filepath.Join(name, "n/1"), "--key", public)
				case doExportS3:
					mustFerry(t, dir, "verify", "s3://"+s3.Bucket+"/"+name+"/n/1", "--key", public, "--s3-endpoint", s3.Endpoint)
				}
				if len(f.arrive) > 0 {
					s := &scripted{site: &site{}, TB: t}
					if err := s.arrived(nil, append([]string{inside.Host + "/" + name}, f.arrive...)); err != nil {
						t.Error(err)
					}
				}
			})
			return nil
		})
	}
	g.Wait()
}

// hit reports whether a proxy has done any harm.
func hit(p *faultproxy.Proxy) bool {
	for _, r := range p.Requests() {
		if r.Fault != faultproxy.None {
			return true
		}
	}
	return false
}

// tryFault runs ferry, which must end with that exit code and talk in order.
func tryFault(t *testing.T, dir string, exit int, args []string) {
	t.Helper()
	cmd := ferryCommand(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exit {
		t.Fatalf("ferry %q ended with %d after %s, want %d\n%s", args, code, time.Since(begin), exit, &stderr)
	}
	if err := (&scripted{site: &site{}}).checkTalk(exit, stdout.String(), stderr.String()); err != nil {
		t.Errorf("ferry %q: %v", args, err)
	}
}

// checkInvisible checks that neither a folder nor a place in a bucket has a
// bundle, and that a repository has no tag.
func checkInvisible(t *testing.T, folder, bucket, host, name string) {
	t.Helper()
	for _, place := range []string{folder, bucket} {
		if !missing(filepath.Join(place, "n/1/bundle.json")) {
			t.Errorf("a bundle is visible in %s", place)
		}
	}
	h := &http.Client{Transport: &http.Transport{}}
	defer h.CloseIdleConnections()
	tags, err := registry.New(registry.Options{HTTP: h, PlainHTTP: []string{host}}).Tags(t.Context(), registry.Repository{Host: host, Path: name + "/team/single"})
	if len(tags) > 0 || err != nil && !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the tags %q are visible, %v", tags, err)
	}
}
