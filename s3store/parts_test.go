package s3store_test

import (
	"net/http"
	"testing"

	"ferry/internal/storetest"
	"ferry/s3store"
)

// Only where somebody may be between is the content of parts signed.
func TestExposed(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"": false, "https://s3.site.local": false, "https://192.0.2.1:9000": false, "http://127.0.0.1:9000": false,
		"http://localhost:9000": false, "http://[::1]:9000": false, "http://s3.site.local": true, "http://192.0.2.1:9000": true,
		"http://localhost.site.local": true,
	} {
		if got := s3store.Exposed(endpoint); got != want {
			t.Errorf("Exposed(%q) = %v, want %v", endpoint, got, want)
		}
	}
}

// A server that refuses content that is not signed, or does not say that it
// has checked the checksum, gets signed content from then on.
func TestUnsignedRefused(t *testing.T) {
	server := storetest.StartS3(t)
	content := storetest.Content(4*part, 1)
	for name, fault := range map[string]storetest.Fault{
		"policy":      {Op: "UploadPart", Times: 1, Status: 403, Code: "AccessDenied"},
		"old server":  {Op: "UploadPart", Times: 1, Status: 400, Code: "XAmzContentSHA256Mismatch"},
		"not checked": {Op: "UploadPart", Times: 1, Rewrite: func(h http.Header) { h.Del("X-Amz-Checksum-Crc32c") }},
	} {
		server.Proxy.Reset()
		server.Proxy.Add(fault)
		s := newSmallStore(t, server, 4, 1)
		commit(t, storetest.Create(t, s, "object", 4*part), content)
		check(t, s, content)
		unsigned := 0
		for _, r := range server.Proxy.Requests("UploadPart") {
			if r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
				unsigned++
			}
		}
		if n := len(server.Proxy.Requests("UploadPart")); unsigned != 1 || n != 5 {
			t.Errorf("%s: %d parts sent, %d unsigned; want 5, 1", name, n, unsigned)
		}
	}
}

// A server that does not take checksums of parts gets none, but signed
// content; the object is known by its ETag.
func TestNoChecksums(t *testing.T) {
	server := storetest.StartS3(t)
	content := storetest.Content(2*part+1, 1)
	for _, fault := range []storetest.Fault{
		{Op: "CreateMultipartUpload", Times: 1, Status: 501, Code: "NotImplemented"},
		{Op: "CreateMultipartUpload", Times: 1, Status: 400, Code: "InvalidRequest"},
	} {
		server.Proxy.Reset()
		server.Proxy.Add(fault)
		s := newStore(t, server, "p")
		commit(t, storetest.Create(t, s, "object", int64(len(content))), content)
		check(t, s, content)
		for _, r := range server.Proxy.Requests("UploadPart") {
			if len(r.Header.Get("X-Amz-Content-Sha256")) != 64 || r.Header.Get("X-Amz-Checksum-Crc32c") != "" {
				t.Errorf("part with a checksum, or not signed: %v", r.Header)
			}
		}
		if err := s.Remove(t.Context(), "object"); err != nil {
			t.Fatal(err)
		}
	}
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "CreateMultipartUpload", Times: -1, Status: 400, Code: "InvalidRequest"})
	u := storetest.Create(t, newStore(t, server, "p"), "object", part)
	if err := u.WriteAt(t.Context(), content[:part], 0); err != nil {
		t.Fatal(err)
	}
	checkError(t, "Commit", u.Commit(t.Context()), nil, "InvalidRequest")
}
