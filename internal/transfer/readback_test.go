package transfer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/bundle"
	"ferry/internal/harbortest"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/registrytest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// samplesAt returns the samples in these repositories.
func samplesAt(t *testing.T, repositories ...string) []*registrytest.Sample {
	t.Helper()
	all := slices.DeleteFunc(registrytest.Samples(), func(s *registrytest.Sample) bool { return !slices.Contains(repositories, s.Repository) })
	if len(all) != len(repositories) {
		t.Fatalf("not all of %q are samples", repositories)
	}
	return all
}

// bundleOf returns a bundle of samples.
func bundleOf(t *testing.T, samples []*registrytest.Sample) *bundle.Reader {
	t.Helper()
	return bundleFrom(t, registrytest.Memory(t, registrytest.Options{}), samples)
}

// readBack reads what was imported of a bundle to a host.
func readBack(t *testing.T, client *registry.Client, r *bundle.Reader, to transfer.Destination, unpack bool) (*transfer.ReadBackResult, error) {
	t.Helper()
	deliveries, _, err := transfer.Deliveries(r, to)
	if err != nil {
		t.Fatal(err)
	}
	return transfer.ReadBack(t.Context(), client, transfer.BundleSource(r), deliveries,
		transfer.ReadBackOptions{Progress: transfer.Silent{}, Unpack: unpack})
}

// standing reads the image under a reference.
func standing(t *testing.T, client *registry.Client, ref registry.Reference) (*transfer.ReadBackResult, error) {
	t.Helper()
	d, src, err := transfer.Standing(t.Context(), client, ref)
	if err != nil {
		return nil, err
	}
	return transfer.ReadBack(t.Context(), client, src, []transfer.Delivery{d}, transfer.ReadBackOptions{Progress: transfer.Silent{}, Unpack: true})
}

// All of an honest registry is read, once, and nothing is written.
func TestReadBack(t *testing.T) {
	samples := registrytest.Samples()
	r := bundleOf(t, samples)
	harbor := harbortest.New(registrytest.MemoryHandler(true), harbortest.Options{})
	harbor.AddProject("team", true, -1)
	harbor.AddRobot("robot$x", "secret", "*", "repository:push", "repository:pull")
	for name, server := range map[string]*registrytest.Server{
		"distribution":          registrytest.Start(t, registrytest.Options{}),
		"with referrers API":    registrytest.Memory(t, registrytest.Options{}),
		"without referrers API": registrytest.Memory(t, registrytest.Options{NoReferrers: true}),
		"Harbor":                registrytest.Serve(t, harbor, registrytest.Options{}),
	} {
		t.Run(name, func(t *testing.T) {
			h := &http.Client{Transport: &http.Transport{}}
			t.Cleanup(h.CloseIdleConnections)
			client := registry.New(registry.Options{HTTP: h, Keychain: registry.Static{Host: server.Host, Username: "robot$x", Password: "secret"}})
			to := transfer.Destination{Host: server.Host}
			if _, err := readBack(t, client, r, to, false); name != "Harbor" && !errors.Is(err, transfer.ErrLost) {
				t.Errorf("before the import: %v", err)
			}
			if _, err := importTo(t, client, r, to); err != nil {
				t.Fatal(err)
			}
			server.Reset()
			got, err := readBack(t, client, r, to, true)
			if err != nil {
				t.Fatal(err)
			}
			manifests, blobs, size, layers := 0, 0, int64(0), map[verify.Digest]bool{}
			for _, s := range samples {
				manifests += len(s.Manifests)
				blobs += len(s.Blobs)
				for _, b := range s.Blobs {
					size += b.Size
					if n := server.Count(http.MethodGet, "/"+s.Repository+"/blobs/"+b.Digest.String()); n != 1 && b.MediaType != oci.MediaTypeConfig && b.MediaType != oci.MediaTypeDockerConfig {
						t.Errorf("%s %s was read %d times", s.Repository, b.Digest, n)
					}
					if strings.Contains(b.MediaType, ".layer.") || strings.Contains(b.MediaType, ".rootfs.") {
						layers[b.Digest] = true
					}
				}
			}
			if got.Manifests != manifests || got.Blobs != blobs || got.Bytes != size || len(got.Images) != len(samples) {
				t.Errorf("%d images, %d manifests, %d blobs, %d bytes; want %d, %d, %d, %d",
					len(got.Images), got.Manifests, got.Blobs, got.Bytes, len(samples), manifests, blobs, size)
			}
			if want := (transfer.Unpacked{Layers: len(layers)}); got.Unpacked != want {
				t.Errorf("unpacked %+v, want %+v", got.Unpacked, want)
			}
			for _, q := range server.Requests() {
				if q.Method != http.MethodGet && q.Method != http.MethodHead {
					t.Errorf("it asks %s", q)
				}
			}
			for _, s := range samples {
				for tag, d := range s.Tags {
					if d != s.Root.Digest {
						continue
					}
					one, err := standing(t, client, registry.Repository{Host: server.Host, Path: s.Repository}.Tag(tag))
					if err != nil {
						t.Errorf("%s:%s: %v", s.Repository, tag, err)
						continue
					}
					if one.Manifests < len(s.Manifests) || one.Blobs < len(s.Blobs) || one.Images[0].Digest != d {
						t.Errorf("%s:%s has %d manifests and %d blobs, want %d and %d", s.Repository, tag, one.Manifests, one.Blobs, len(s.Manifests), len(s.Blobs))
					}
				}
			}
		})
	}
}

// lies is a registry that lies, and where that comes to light.
type lies struct {
	name   string
	memory bool // stands before a registry in memory, not before distribution
	faults []registrytest.Fault
	after  func(t *testing.T, s *registrytest.Server) // what happens after the import
	seen   string                                     // "import", or "verify" where import can not see it
	want   string                                     // what verify says
}

// pathEnds chooses requests of that method whose path ends so.
func pathEnds(method, end string) registrytest.Match {
	return func(r *http.Request) bool { return r.Method == method && strings.HasSuffix(r.URL.Path, end) }
}

// inPlaceOf answers requests that match as if they were for another path.
func inPlaceOf(match registrytest.Match, path string) registrytest.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				r = r.Clone(r.Context())
				r.URL.Path = path
			}
			next.ServeHTTP(w, r)
		})
	}
}

// switched is a fault that begins when on is set.
func switched(on *atomic.Bool, fault registrytest.Fault) registrytest.Fault {
	return func(next http.Handler) http.Handler {
		faulty := fault(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if on.Load() {
				faulty.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// send makes a request of the test's own.
func send(t *testing.T, method, url, contentType string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %s", method, url, resp.StatusCode, answer)
	}
}

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// lyingRegistries returns the ways in which registries lie about team/signed
// and team/single.
func lyingRegistries(t *testing.T) []lies {
	signed := samplesAt(t, "team/signed")[0]
	base := "/v2/team/signed/"
	var layer, config registrytest.Content
	for _, b := range signed.Blobs {
		switch {
		case strings.Contains(b.MediaType, ".layer.") && layer.Bytes == nil:
			layer = b
		case b.MediaType == oci.MediaTypeConfig && config.Bytes == nil:
			config = b
		}
	}
	root := signed.Root.Digest
	child := signed.Manifests[0].Digest
	referrer := signed.Referrers[root][0]
	getLayer := pathEnds(http.MethodGet, layer.Digest.String())
	get := registrytest.Manifests(http.MethodGet)
	other := verify.DigestOf([]byte("other")).String()
	index := http.Header{"Content-Type": {oci.MediaTypeIndex}}
	answer := func(match registrytest.Match, status int, h http.Header, body string) []registrytest.Fault {
		return []registrytest.Fault{registrytest.Answer(-1, match, status, h, body)}
	}
	var later atomic.Bool
	flipSwitch := func(*testing.T, *registrytest.Server) { later.Store(true) }
	return []lies{
		{name: "uploads that are taken and dropped", faults: []registrytest.Fault{registrytest.LieUpload()}, seen: "import", want: "404"},
		{name: "manifests that are taken and dropped", faults: []registrytest.Fault{registrytest.LieManifest()}, seen: "import", want: "tag 3.0: .*404"},
		{name: "another digest told of manifests", faults: []registrytest.Fault{registrytest.TellDigest(get, other)}, seen: "import", want: "told another digest"},
		{name: "another digest told of blobs", faults: []registrytest.Fault{registrytest.TellDigest(registrytest.Blobs(http.MethodHead), other)}, seen: "import", want: "404"},
		{name: "another size told of blobs", faults: []registrytest.Fault{registrytest.LieHead(1)}, seen: "import", want: "404"},
		{name: "other bytes of a manifest", faults: []registrytest.Fault{registrytest.Flip(pathEnds(http.MethodGet, child.String()), 100)}, seen: "import", want: "manifest " + child.String() + ".*content has digest"},
		{name: "a manifest cut off", faults: []registrytest.Fault{registrytest.Truncate(pathEnds(http.MethodGet, child.String()), 100)}, seen: "import", want: "manifest " + child.String()},
		{name: "another digest told of a tag", faults: []registrytest.Fault{registrytest.TellDigest(pathEnds(http.MethodHead, "/manifests/3.0"), other)}, seen: "import", want: "tag 3.0: .*asked for its digest"},
		{name: "referrers that are not listed", memory: true, faults: answer(registrytest.Path("/referrers/"), 200, index, emptyIndex), seen: "import", want: "does not list " + referrer.String()},
		{name: "200 to HEAD for a blob that is absent", memory: true, seen: "verify", want: "blob " + layer.Digest.String() + " of " + child.String() + ".*404",
			faults: answer(pathEnds(http.MethodHead, layer.Digest.String()), 200, http.Header{"Content-Length": {strconv.FormatInt(layer.Size, 10)}}, "")},
		{name: "404 to GET for a blob that is there", faults: answer(getLayer, 404, nil, ""), seen: "verify", want: "blob " + layer.Digest.String() + ".*404"},
		{name: "other bytes of a layer", faults: []registrytest.Fault{registrytest.Flip(getLayer, 20)}, seen: "verify", want: "blob " + layer.Digest.String() + ".*content has digest"},
		{name: "other bytes of a config", faults: []registrytest.Fault{registrytest.Flip(pathEnds(http.MethodGet, config.Digest.String()), 20)}, seen: "verify", want: "blob " + config.Digest.String() + ".*content has digest"},
		{name: "a blob cut off", faults: []registrytest.Fault{registrytest.Truncate(getLayer, 20), registrytest.IgnoreRange()}, seen: "verify", want: "blob " + layer.Digest.String() + ".*ends after 20 of"},
		{name: "a blob with more behind it", faults: []registrytest.Fault{registrytest.Append(getLayer, "more")}, seen: "verify", want: "blob " + layer.Digest.String()},
		{name: "another manifest under a tag", faults: []registrytest.Fault{inPlaceOf(pathEnds(http.MethodGet, "/manifests/3.0"), base+"manifests/"+child.String())}, seen: "verify", want: "tag 3.0: .*gives " + child.String()},
		{name: "a tag that HEAD has and GET has not", faults: answer(pathEnds(http.MethodGet, "/manifests/3.0"), 404, nil, ""), seen: "verify", want: "tag 3.0: .*404"},
		{name: "another type of a manifest", seen: "verify", want: "manifest " + child.String() + ".*came back as",
			faults: []registrytest.Fault{registrytest.Header(pathEnds(http.MethodGet, child.String()), func(_ *http.Request, _ int, h http.Header) {
				h.Set("Content-Type", oci.MediaTypeDockerManifest)
			})}},
		{name: "referrers that are not listed any more", memory: true, seen: "verify", want: "does not list " + referrer.String(), after: flipSwitch,
			faults: []registrytest.Fault{switched(&later, registrytest.Answer(-1, registrytest.Path("/referrers/"), 200, index, emptyIndex))}},
		{name: "a list of referrers that has become empty", seen: "verify", want: "does not list " + referrer.String(), after: func(t *testing.T, s *registrytest.Server) {
			send(t, http.MethodPut, s.URL+base+"manifests/sha256-"+root.Hex(), oci.MediaTypeIndex, []byte(emptyIndex))
		}},
		{name: "a referrer that is lost", seen: "verify", want: "manifest " + referrer.String() + ".*404", after: func(t *testing.T, s *registrytest.Server) {
			send(t, http.MethodDelete, s.URL+base+"manifests/"+referrer.String(), "", nil)
		}},
		{name: "a signature's tag with something else", seen: "verify", want: `tag sha256-[0-9a-f]{64}\.sig: .*lacks`, after: func(t *testing.T, s *registrytest.Server) {
			content, _ := signed.Manifest(referrer)
			send(t, http.MethodPut, s.URL+base+"manifests/sha256-"+root.Hex()+".sig", oci.MediaTypeManifest, content)
		}},
		{name: "a tag that was moved", seen: "verify", want: "tag stable: .*names " + child.String() + ", not " + root.String(), after: func(t *testing.T, s *registrytest.Server) {
			content, _ := signed.Manifest(child)
			send(t, http.MethodPut, s.URL+base+"manifests/stable", oci.MediaTypeManifest, content)
		}},
		{name: "a blob that is lost", seen: "verify", want: "blob " + layer.Digest.String() + ".*404", after: func(t *testing.T, s *registrytest.Server) {
			send(t, http.MethodDelete, s.URL+base+"blobs/"+layer.Digest.String(), "", nil)
		}},
	}
}

// T62: however a registry lies, it comes to light: at the import, or, where
// that can not see it, when the images are verified. The other images are read
// all the same.
func TestLyingRegistry(t *testing.T) {
	r := bundleOf(t, samplesAt(t, "team/signed", "team/single"))
	for _, tt := range lyingRegistries(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := registrytest.Start
			if tt.memory {
				start = func(t testing.TB, o registrytest.Options) *registrytest.Server { return registrytest.Memory(t, o) }
			}
			server := start(t, registrytest.Options{Faults: tt.faults})
			client, to := newClient(t), transfer.Destination{Host: server.Host}
			_, err := importTo(t, client, r, to)
			if (err != nil) != (tt.seen == "import") {
				t.Fatalf("import: %v; want it to be seen by %s", err, tt.seen)
			}
			if tt.after != nil {
				tt.after(t, server)
			}
			_, err = readBack(t, client, r, to, false)
			if !errors.Is(err, transfer.ErrLost) || !regexp.MustCompile(tt.want).MatchString(err.Error()) {
				t.Errorf("verify: %v; want %s", err, tt.want)
			}
		})
	}
}

// Who has signed since has taken nothing away.
func TestReadBackGrown(t *testing.T) {
	samples := samplesAt(t, "team/signed")
	r, s := bundleOf(t, samples), samples[0]
	server, client := registrytest.Start(t, registrytest.Options{}), newClient(t)
	to := transfer.Destination{Host: server.Host}
	if _, err := importTo(t, client, r, to); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"sha256-" + s.Root.Digest.Hex() + ".sig", "sha256-" + s.Root.Digest.Hex()} {
		repo := registry.Repository{Host: server.Host, Path: s.Repository}
		d, content, err := client.Get(t.Context(), repo.Tag(tag))
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(content, &doc); err != nil {
			t.Fatal(err)
		}
		key, more := "layers", s.Blobs[0].Descriptor
		if d.MediaType == oci.MediaTypeIndex {
			key, more = "manifests", s.Manifests[0].Descriptor
		}
		doc[key] = append([]any{more}, doc[key].([]any)...)
		if content, err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
		if err := client.PushManifest(t.Context(), repo.Tag(tag), d.MediaType, content); err != nil {
			t.Fatal(err)
		}
		send(t, http.MethodDelete, server.URL+"/v2/"+s.Repository+"/manifests/"+d.Digest.String(), "", nil)
	}
	if _, err := readBack(t, client, r, to, false); err != nil {
		t.Error(err)
	}
}

// What is wrong in a registry is told in full, to a bound; a login that is
// missing ends it.
func TestReadBackErrors(t *testing.T) {
	r := bundleOf(t, registrytest.Samples())
	server, client := registrytest.Memory(t, registrytest.Options{}), newClient(t)
	to := transfer.Destination{Host: server.Host}
	_, err := readBack(t, client, r, to, false)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 101 || !strings.HasSuffix(err.Error(), "more faults") {
		t.Errorf("of an empty registry: %v", err)
	}
	closed := registrytest.Memory(t, registrytest.Options{Faults: []registrytest.Fault{registrytest.Basic(map[string]string{"a": "b"})}})
	_, err = readBack(t, client, r, transfer.Destination{Host: closed.Host}, false)
	if !errors.Is(err, registry.ErrUnauthorized) || errors.Is(err, transfer.ErrLost) {
		t.Errorf("without a login: %v", err)
	}
	absent := registry.Repository{Host: server.Host, Path: "a/b"}.Tag("1")
	if _, _, err := transfer.Standing(t.Context(), client, absent); !errors.Is(err, registry.ErrNotFound) || errors.Is(err, transfer.ErrLost) {
		t.Errorf("an image that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	deliveries, _, err := transfer.Deliveries(r, to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = transfer.ReadBack(ctx, client, transfer.BundleSource(r), deliveries, transfer.ReadBackOptions{Progress: transfer.Silent{}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after it was cancelled: %v", err)
	}
}
