package transfer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"ferry/bundle"
	"ferry/internal/oci"
	"ferry/internal/registrytest"
	"ferry/internal/sigstoretest"
	"ferry/internal/transfer"
	"ferry/verify"
)

// Types of the layers that signatures come in.
const (
	typeBundle        = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// builder makes images and what belongs to them.
type builder struct {
	t *testing.T
	*registrytest.Sample
}

// newImage returns an image of one layer under the tag 1.
func newImage(t *testing.T, repository string) *builder {
	b := &builder{t, &registrytest.Sample{Name: repository, Repository: repository, Tags: map[string]verify.Digest{}, Referrers: map[verify.Digest][]verify.Digest{}}}
	b.Root = b.manifest(map[string]any{"config": b.blob(oci.MediaTypeConfig, []byte(`{"os":"linux","architecture":"amd64"}`), nil),
		"layers": []oci.Descriptor{b.blob("application/vnd.oci.image.layer.v1.tar", []byte("the layer of "+repository), nil)}})
	b.Tags["1"] = b.Root.Digest
	return b
}

func (b *builder) blob(mediaType string, content []byte, annotations map[string]string) oci.Descriptor {
	d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content)), Annotations: annotations}
	b.Blobs = append(b.Blobs, registrytest.Content{Descriptor: d, Bytes: content})
	return d
}

func (b *builder) manifest(fields map[string]any) oci.Descriptor {
	b.t.Helper()
	fields["schemaVersion"] = 2
	mediaType := oci.MediaTypeManifest
	if fields["manifests"] != nil {
		mediaType = oci.MediaTypeIndex
	}
	fields["mediaType"] = mediaType
	content, err := json.Marshal(fields)
	if err != nil {
		b.t.Fatal(err)
	}
	d := oci.Descriptor{MediaType: mediaType, Digest: verify.DigestOf(content), Size: int64(len(content))}
	b.Manifests = append(b.Manifests, registrytest.Content{Descriptor: d, Bytes: content})
	return d
}

// index puts the image into an index, which takes its tag.
func (b *builder) index() *builder {
	b.Root = b.manifest(map[string]any{"manifests": []oci.Descriptor{b.Root}})
	b.Tags["1"] = b.Root.Digest
	return b
}

// refer adds an OCI 1.1 referrer of the image.
func (b *builder) refer(layers ...oci.Descriptor) *builder {
	b.t.Helper()
	d := b.manifest(map[string]any{"artifactType": typeBundle, "config": b.blob(oci.MediaTypeEmpty, []byte("{}"), nil), "layers": layers, "subject": b.Root})
	b.Referrers[b.Root.Digest] = append(b.Referrers[b.Root.Digest], d.Digest)
	return b
}

// sign adds a Sigstore bundle over the manifest as a referrer.
func (b *builder) sign() *builder {
	b.t.Helper()
	content, _ := b.Manifest(b.Root.Digest)
	sig, err := testSigner(b.t).Sign(content)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.refer(b.blob(typeBundle, sig, nil))
}

// tag adds layers under one of cosign's tags.
func (b *builder) tag(suffix string, layers ...oci.Descriptor) *builder {
	b.t.Helper()
	d := b.manifest(map[string]any{"config": b.blob(oci.MediaTypeConfig, []byte("{}"), nil), "layers": layers})
	b.Tags["sha256-"+b.Root.Digest.Hex()+suffix] = d.Digest
	return b
}

// keyless adds a classic signature by somebody@example.com.
func (b *builder) keyless(s *sigstoretest.Sigstore) *builder {
	b.t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"}}`, b.Root.Digest)
	return b.tag(".sig", b.blob(typeSimpleSigning, payload, s.SignPayload(payload, sigstoretest.Options{Issuer: "https://token.example", Subject: "somebody@example.com"})))
}

// imagePolicy returns a policy of the committed key with rules for images.
func imagePolicy(t *testing.T, trusted []byte, expires string, rules ...verify.DraftImage) *verify.Policy {
	t.Helper()
	pem, err := os.ReadFile("../../testdata/keys/one.pub")
	if err != nil {
		t.Fatal(err)
	}
	all := verify.DraftQuorum{Keys: []string{"one"}, Threshold: 1}
	d := &verify.Draft{Version: 1, Expires: expires, Keys: []verify.DraftKey{{Name: "one", PEM: string(pem)}}, Root: all,
		Roles: []verify.DraftRole{{Name: "all", DraftQuorum: all, Bundles: []string{"*"}, Targets: []string{"*"}}}, Images: rules}
	files := fstest.MapFS{"root.json": {Data: trusted}}
	raw, err := d.Encode(files)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := testSigner(t).Sign(raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := verify.OpenPolicy(t.Context(), raw, [][]byte{sig}, files, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func byOne(patterns ...string) verify.DraftImage {
	return verify.DraftImage{Repositories: patterns, Keys: []string{"one"}, Threshold: 1}
}

func samplesOf(builders ...*builder) (list []*registrytest.Sample) {
	for _, b := range builders {
		list = append(list, b.Sample)
	}
	return list
}

// Signatures by tag and by referrer, by keys and by identities, are found and
// verified at the registry and in the bundle; nothing else is read for it.
func TestVerifyImages(t *testing.T) {
	sigstore := sigstoretest.New(t)
	trusted := sigstore.TrustedRoot(false)
	images := samplesOf(newImage(t, "team/bundle").sign(), newImage(t, "team/index").index().sign(), newImage(t, "keyless/app").keyless(sigstore), newImage(t, "other/app"))
	policy := imagePolicy(t, trusted, "", byOne("team/*"), verify.DraftImage{Repositories: []string{"keyless/**"}, Threshold: 1,
		Identities:  []verify.DraftIdentity{{Issuer: "https://token.example", Subject: "somebody@example.com"}},
		TrustedRoot: &verify.DraftFile{File: "root.json", SHA256: verify.DigestOf(trusted).Hex()}})
	for _, api := range []bool{true, false} {
		host := registrytest.Memory(t, registrytest.Options{NoReferrers: !api})
		if err := registrytest.PushAll(t.Context(), host.Host, images); err != nil {
			t.Fatal(err)
		}
		client := newClient(t)
		selection, err := transfer.Resolve(t.Context(), client, requestsFor(t, host.Host, images), nil, 8)
		if err != nil {
			t.Fatal(err)
		}
		check := func(where string, src transfer.Source, list []bundle.Image) {
			t.Helper()
			verified, err := transfer.VerifyImages(t.Context(), src, list, policy, testTime, 2)
			var got []string
			for _, v := range verified {
				got = append(got, v.Target+" "+v.Signers[0].String())
			}
			slices.Sort(got)
			if want := "[keyless/app somebody@example.com team/bundle one team/index one]"; err != nil || fmt.Sprint(got) != want {
				t.Errorf("%s, referrers API %v: %v, %v, want %s", where, api, got, err, want)
			}
		}
		host.Reset()
		check("at the registry", selection.Source(client), selection.Images)
		if n := host.Count("GET", "/blobs/"); n != 3 || len(host.Requests()) != 3 {
			t.Errorf("%d blobs and %d requests for 3 signatures", n, len(host.Requests()))
		}
		dir := bundle.NewDir(t.TempDir())
		if _, err := export(t, client, requestsFor(t, host.Host, images), dir, options(t, "n")); err != nil {
			t.Fatal(err)
		}
		r := openReader(t, bundle.Sub(dir, "n/1"), "")
		host.Reset()
		check("in the bundle", transfer.BundleSource(r), r.Manifest().Images)
		if got := host.Requests(); len(got) > 0 {
			t.Errorf("the registry is asked: %v", got)
		}
	}
}

// memorySource has the content of samples.
type memorySource struct {
	samples []*registrytest.Sample
	open    func(d oci.Descriptor, content []byte) (io.ReadCloser, error)
}

func (m memorySource) Manifest(_ context.Context, d oci.Descriptor) ([]byte, error) {
	for _, s := range m.samples {
		if content, ok := s.Manifest(d.Digest); ok {
			return content, nil
		}
	}
	return nil, bundle.ErrNotFound
}

func (m memorySource) OpenBlob(_ context.Context, d oci.Descriptor, _ int64) (io.ReadCloser, error) {
	for _, s := range m.samples {
		for _, b := range s.Blobs {
			if b.Digest == d.Digest && m.open != nil {
				return m.open(d, b.Bytes)
			}
			if b.Digest == d.Digest {
				return io.NopCloser(strings.NewReader(string(b.Bytes))), nil
			}
		}
	}
	return nil, bundle.ErrNotFound
}

// imageOf returns how a bundle describes a sample.
func imageOf(s *registrytest.Sample) bundle.Image {
	image := bundle.Image{Digest: s.Root.Digest, MediaType: s.Root.MediaType, Size: s.Root.Size, Target: s.Repository, Tags: []string{"1"}}
	add := func(subject, d verify.Digest, tag string) {
		for _, m := range s.Manifests {
			if m.Digest == d {
				image.Referrers = append(image.Referrers, bundle.Referrer{Digest: d, MediaType: m.MediaType, Size: m.Size, Subject: subject, Tag: tag})
			}
		}
	}
	for subject, list := range s.Referrers {
		for _, d := range list {
			add(subject, d, "")
		}
	}
	for tag, d := range s.Tags {
		if strings.HasPrefix(tag, "sha256-") {
			subject, _ := verify.ParseDigest("sha256:" + tag[len("sha256-"):][:64])
			add(subject, d, tag)
		}
	}
	return image
}

// What is refused, and what fails in another way.
func TestVerifyImagesRefused(t *testing.T) {
	signed := newImage(t, "team/signed").sign()
	sig := signed.Blobs[len(signed.Blobs)-2]
	child := newImage(t, "team/child").sign().index()
	other := newImage(t, "team/other")
	stolen := other.refer(other.blob(typeBundle, sig.Bytes, nil))
	odd := newImage(t, "team/odd")
	odd.refer(odd.blob("application/octet-stream", sig.Bytes, nil))
	listed := newImage(t, "team/listed").sign()
	// In a registry that got the referrers API only later, a list is all there is.
	list := listed.manifest(map[string]any{"manifests": []oci.Descriptor{{MediaType: oci.MediaTypeManifest, Digest: listed.Referrers[listed.Root.Digest][0],
		Size: listed.Manifests[len(listed.Manifests)-1].Size}}})
	listed.Referrers, listed.Tags["sha256-"+listed.Root.Digest.Hex()] = nil, list.Digest
	many := func(n int) (list []*builder) {
		for i := range n {
			list = append(list, newImage(t, fmt.Sprintf("team/many-%d", i)))
		}
		return list
	}
	wrong := func(_ oci.Descriptor, content []byte) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.ToUpper(string(content)))), nil
	}
	failing := func(err error) func(oci.Descriptor, []byte) (io.ReadCloser, error) {
		return func(oci.Descriptor, []byte) (io.ReadCloser, error) { return nil, err }
	}
	for _, tt := range []struct {
		name   string
		images []*builder
		open   func(oci.Descriptor, []byte) (io.ReadCloser, error)
		want   error
		says   string
		times  int // that it says so
	}{
		{"signed", []*builder{signed}, nil, nil, "", 0},
		{"listed under the referrers tag", []*builder{listed}, nil, nil, "", 0},
		{"not signed", []*builder{signed, newImage(t, "team/bare")}, nil, verify.ErrImageUnsigned, "team/bare@sha256:", 1},
		{"only the child of an index is signed", []*builder{child}, nil, verify.ErrImageUnsigned, "team/child@" + child.Root.Digest.String(), 1},
		{"a signature under another image", []*builder{signed, stolen}, nil, verify.ErrImageSignature, "of another image, " + signed.Root.Digest.String(), 1},
		{"a signature of another type", []*builder{odd}, nil, verify.ErrImageUnsigned, "is not signed", 1},
		{"all are named", append(many(2), signed, stolen), nil, verify.ErrImageUnsigned, "team/", 3},
		{"all but too many are named", many(14), nil, verify.ErrImageUnsigned, "team/", 10},
		{"the rest is counted", many(14), nil, verify.ErrImageUnsigned, "4 more images", 1},
		{"other bytes than the digest says", []*builder{signed}, wrong, verify.ErrMismatch, "layer 1 of sha256:", 1},
		{"a base has it", []*builder{signed}, failing(fmt.Errorf("%w: only base 1 has it", transfer.ErrBaseMissing)), verify.ErrImageUnsigned, "left to the base of the bundle", 1},
		{"the source fails", []*builder{signed}, failing(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF, "team/signed@", 1},
	} {
		var images []bundle.Image
		for _, b := range tt.images {
			images = append(images, imageOf(b.Sample))
		}
		src := memorySource{append(samplesOf(tt.images...), signed.Sample), tt.open}
		verified, err := transfer.VerifyImages(t.Context(), src, images, imagePolicy(t, nil, "", byOne("**")), testTime, 2)
		if !errors.Is(err, tt.want) || tt.want != nil && strings.Count(err.Error(), tt.says) != tt.times {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
		if tt.want == nil && len(verified) != len(images) {
			t.Errorf("%s: %v", tt.name, verified)
		}
		if refused := errors.Is(tt.want, verify.ErrUntrusted); tt.want != nil && errors.Is(err, verify.ErrUntrusted) != refused {
			t.Errorf("%s: %v; is it a refusal?", tt.name, err)
		}
	}
	images := []bundle.Image{imageOf(signed.Sample)}
	original := verify.DigestOf([]byte("the index"))
	images = append(images, imageOf(newImage(t, "team/bare").Sample))
	images[1].Original = &original
	src := memorySource{samples: samplesOf(signed, newImage(t, "team/bare"))}
	if _, err := transfer.VerifyImages(t.Context(), src, images, imagePolicy(t, nil, "", byOne("**")), testTime, 0); !errors.Is(err, verify.ErrImageUnsigned) ||
		!strings.Contains(err.Error(), "--platform has made it from "+original.String()+", whose signatures do not cover it") {
		t.Errorf("chosen platforms: %v", err)
	}
	expired := imagePolicy(t, nil, testTime.Format(time.RFC3339), byOne("**"))
	if _, err := transfer.VerifyImages(t.Context(), src, images[:1], expired, testTime, 0); !errors.Is(err, verify.ErrPolicyExpired) {
		t.Errorf("an expired policy: %v", err)
	}
	if verified, err := transfer.VerifyImages(t.Context(), src, images, imagePolicy(t, nil, "", byOne("none/*")), testTime, 0); err != nil || len(verified) > 0 {
		t.Errorf("without a rule that fits: %v, %v", verified, err)
	}
}

// An incremental bundle has the signatures of its images, whatever its base has.
func TestVerifyImagesOfIncrement(t *testing.T) {
	host, client := registrytest.Memory(t, registrytest.Options{}), newClient(t)
	signed := newImage(t, "team/signed").sign()
	if err := signed.Push(t.Context(), host.Host); err != nil {
		t.Fatal(err)
	}
	dir := bundle.NewDir(t.TempDir())
	requests := requestsFor(t, host.Host, samplesOf(signed))
	if _, err := export(t, client, requests, dir, options(t, "base")); err != nil {
		t.Fatal(err)
	}
	o := options(t, "increment")
	o.Base = openReader(t, bundle.Sub(dir, "base/1"), "")
	if _, err := export(t, client, requests, dir, o); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, bundle.Sub(dir, "increment/1"), "")
	if base := r.Manifest().Base; base == nil || len(base.Blobs) != 1 || base.Blobs[0].Digest != verify.DigestOf([]byte("the layer of team/signed")) {
		t.Errorf("the base has %+v, want the image's layer", base)
	}
	verified, err := transfer.VerifyImages(t.Context(), transfer.BundleSource(r), r.Manifest().Images, imagePolicy(t, nil, "", byOne("**")), testTime, 0)
	if err != nil || len(verified) != 1 {
		t.Errorf("%v, %v", verified, err)
	}
}

// Large evidence is in memory one at a time.
func TestLargeEvidence(t *testing.T) {
	var images []*builder
	for i := range 4 {
		b := newImage(t, fmt.Sprintf("team/large-%d", i)).sign()
		images = append(images, b.refer(b.blob(typeBundle, []byte(strings.Repeat(" ", 2<<20)+fmt.Sprint(i)), nil)))
	}
	now, most := make(chan struct{}, 100), make(chan int, 100)
	src := memorySource{samples: samplesOf(images...), open: func(d oci.Descriptor, content []byte) (io.ReadCloser, error) {
		if d.Size < 1<<20 {
			return io.NopCloser(strings.NewReader(string(content))), nil
		}
		now <- struct{}{}
		most <- len(now)
		return readCloser{strings.NewReader(string(content)), func() { <-now }}, nil
	}}
	var list []bundle.Image
	for _, b := range images {
		list = append(list, imageOf(b.Sample))
	}
	if _, err := transfer.VerifyImages(t.Context(), src, list, imagePolicy(t, nil, "", byOne("**")), testTime, 4); err != nil {
		t.Error(err)
	}
	close(most)
	seen := 0
	for n := range most {
		if seen++; n != 1 {
			t.Errorf("%d are open at once", n)
		}
	}
	if seen != 4 {
		t.Errorf("%d were read", seen)
	}
}

type readCloser struct {
	io.Reader
	close func()
}

func (r readCloser) Close() error {
	r.close()
	return nil
}
