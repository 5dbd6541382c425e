package registrytest

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"ferry/internal/oci"
	"ferry/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every sample is what it says: complete, in order, with digests that hold,
// and the same each time.
func TestSamples(t *testing.T) {
	samples, again := Samples(), Samples()
	if len(samples) < 12 {
		t.Errorf("%d samples, want 12 at least", len(samples))
	}
	for i, s := range samples {
		t.Run(s.Name, func(t *testing.T) {
			if again[i].Root.Digest != s.Root.Digest {
				t.Error("it is another one the second time")
			}
			known := make(map[verify.Digest]int64)
			for _, b := range s.Blobs {
				if verify.DigestOf(b.Bytes) != b.Digest || int64(len(b.Bytes)) != b.Size {
					t.Errorf("blob %s is not what its descriptor says", b.Digest)
				}
				known[b.Digest] = b.Size
			}
			for _, m := range s.Manifests {
				if verify.DigestOf(m.Bytes) != m.Digest || int64(len(m.Bytes)) != m.Size {
					t.Errorf("manifest %s is not what its descriptor says", m.Digest)
				}
				doc, err := oci.Parse(m.Bytes, m.MediaType)
				if err != nil {
					t.Fatal(err)
				}
				refs := append(doc.Blobs(), doc.Manifests...)
				if doc.Subject != nil {
					refs = append(refs, *doc.Subject)
				}
				for _, d := range refs {
					if size, ok := known[d.Digest]; !ok || size != d.Size {
						t.Errorf("%s refers to %s, which is not there before it", m.Digest, d.Digest)
					}
				}
				known[m.Digest] = m.Size
			}
			for tag, d := range s.Tags {
				if _, ok := s.Manifest(d); !ok {
					t.Errorf("tag %s names nothing", tag)
				}
			}
			if len(s.ImageTags()) == 0 {
				t.Error("it has no tag")
			}
		})
	}
}

func TestServers(t *testing.T) {
	users := map[string]string{"user": "pass$word:1"}
	tests := []struct {
		name string
		s    *Server
		host func(*Server) string
	}{
		{"memory", Memory(t, Options{}), func(s *Server) string { return s.Host }},
		{"memory without referrers", Memory(t, Options{NoReferrers: true}), func(s *Server) string { return s.Host }},
		{"memory with a login", Memory(t, Options{Faults: []Fault{Basic(users)}}), func(s *Server) string { return "user:pass$word%3A1@" + s.Host }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := PushAll(t.Context(), tt.host(tt.s), Samples()); err != nil {
				t.Fatal(err)
			}
			if n := tt.s.Count(http.MethodPut, "/manifests/"); n < 30 {
				t.Errorf("%d manifests were put", n)
			}
			for _, r := range tt.s.Writes() {
				if r.Method == http.MethodPut && r.BytesIn == 0 && !strings.Contains(r.Query, "e3b0c442") {
					t.Errorf("%s had no body", r)
				}
			}
			tt.s.Reset()
			if n := len(tt.s.Requests()); n != 0 {
				t.Errorf("%d requests after Reset", n)
			}
		})
	}
}

func TestDistribution(t *testing.T) {
	users := map[string]string{"user": "secret"}
	open, closed := Start(t, Options{}), Start(t, Options{Users: users})
	if err := PushAll(t.Context(), open.Host, Samples()); err != nil {
		t.Fatal(err)
	}
	if err := PushAll(t.Context(), Olareg(t, Options{}).Host, Samples()); err != nil {
		t.Error(err)
	}
	s := Samples()[0]
	if err := s.Push(t.Context(), closed.Host); err == nil {
		t.Error("a push without login was taken")
	}
	if err := s.Push(t.Context(), "user:secret@"+closed.Host); err != nil {
		t.Error(err)
	}
	if err := s.Push(t.Context(), Start(t, Options{ReadOnly: true}).Host); err == nil {
		t.Error("a read-only registry took a push")
	}
}
