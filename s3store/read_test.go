package s3store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"
)

func readRange(t *testing.T, s bundle.Store, name string, off, n int64) ([]byte, error) {
	t.Helper()
	o, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	r, err := o.Range(t.Context(), off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return io.ReadAll(r)
}

// A body that breaks off is continued where it broke (T41).
func TestBrokenBodies(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	const size = 1 << 20
	content := storetest.Content(size, 1)
	put(t, s, "object", content)
	for cut := int64(0); cut < size; cut += 64 << 10 {
		server.Proxy.Reset()
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, CutAfter: cut, BeforeBody: cut == 0})
		got, err := readRange(t, s, "object", 0, size)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("cut after %d: %d bytes, %v", cut, len(got), err)
		}
		requests := server.Proxy.Requests("GetObject")
		if len(requests) != 2 || requests[1].Header.Get("Range") != fmt.Sprintf("bytes=%d-%d", cut, size-1) {
			t.Errorf("cut after %d: second of %d requests asks for %q", cut, len(requests), requests[len(requests)-1].Header.Get("Range"))
		}
		for _, r := range requests {
			if r.Header.Get("If-Match") == "" {
				t.Error("a request has no If-Match") // T45
			}
		}
	}
	// As long as each body brings something, the stream goes on.
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: -1, CutAfter: 1000})
	if got, err := readRange(t, s, "object", 100, 30_000); err != nil || !bytes.Equal(got, content[100:30_100]) {
		t.Errorf("cut after each 1,000 bytes: %d bytes, %v", len(got), err)
	}
	if n := len(server.Proxy.Requests("GetObject")); n != 30 {
		t.Errorf("%d requests for 30 pieces", n)
	}
	// Bodies without anything are counted anew after one that has something.
	server.Proxy.Reset()
	for range 3 {
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 5, BeforeBody: true})
		server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, CutAfter: 1000})
	}
	if got, err := readRange(t, s, "object", 0, size); err != nil || !bytes.Equal(got, content) {
		t.Errorf("nothing now and then: %d bytes, %v", len(got), err)
	}
	// When nothing comes any more, it ends.
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, CutAfter: 1000})
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: -1, BeforeBody: true})
	got, err := readRange(t, s, "object", 0, size)
	checkError(t, "nothing but headers", err, s3store.ErrUnavailable, "reading s3://ferry-test/p/object")
	if !bytes.Equal(got, content[:1000]) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("nothing but headers: %d bytes, %v", len(got), err)
	}
	if n := len(server.Proxy.Requests("GetObject")); n != 7 {
		t.Errorf("%d requests, want 1 and 6 in vain", n)
	}
}

// An object that is replaced between two requests of one stream does not
// continue with the bytes of the new one (T45).
func TestChangedWithinStream(t *testing.T) {
	server := storetest.StartS3(t)
	s, other := newStore(t, server, "p"), newStore(t, server, "p")
	content := storetest.Content(100_000, 1)
	put(t, s, "object", content)
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, CutAfter: 60_000})
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Before: func() {
		if err := other.Put(t.Context(), "object", storetest.Content(100_000, 2)); err != nil {
			t.Error(err)
		}
	}})
	got, err := readRange(t, s, "object", 0, 100_000)
	checkError(t, "replaced", err, bundle.ErrChanged, "s3://ferry-test/p/object", "HTTP 412")
	if !bytes.Equal(got, content[:60_000]) {
		t.Errorf("%d bytes before the error, want the first 60,000 of the old object", len(got))
	}
	// The same at a server that does not know If-Match.
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Rewrite: func(h http.Header) { h.Set("ETag", `"another"`) }})
	got, err = readRange(t, s, "object", 0, 100_000)
	checkError(t, "another ETag", err, bundle.ErrChanged)
	if len(got) != 0 {
		t.Errorf("%d bytes of another object", len(got))
	}
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Rewrite: func(h http.Header) { h.Set("Content-Range", "bytes 0-99999/100001") }})
	_, err = readRange(t, s, "object", 0, 100_000)
	checkError(t, "another size", err, bundle.ErrChanged)
}

// A server that ignores Range is an error, and never gives wrong bytes.
func TestIgnoredRange(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "")
	content := storetest.Content(100_000, 1)
	put(t, s, "object", content)
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: -1, IgnoreRange: true})
	for _, n := range []int64{100_000, 99_999, 1} { // from the start on, there is no difference
		if got, err := readRange(t, s, "object", 0, n); err != nil || !bytes.Equal(got, content[:n]) {
			t.Errorf("the first %d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	got, err := readRange(t, s, "object", 10, 100)
	checkError(t, "ignored range", err, nil, "asked for bytes 10-109/100000")
	if len(got) != 0 {
		t.Errorf("got %d bytes", len(got))
	}
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: 1, Rewrite: func(h http.Header) { h.Set("Content-Range", "bytes 11-110/100000") }})
	_, err = readRange(t, s, "object", 10, 100)
	checkError(t, "another range", err, nil, "bytes 11-110/100000")
}

// ETags and checksums of the server mean nothing for the content (T43).
func TestMeaninglessETags(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "")
	server.Proxy.Add(storetest.Fault{Op: "PutObject", Times: -1, Rewrite: func(h http.Header) {
		h.Set("ETag", `"d41d8cd98f00b204e9800998ecf8427e"`)
		h.Set("X-Amz-Checksum-Sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	}})
	server.Proxy.Add(storetest.Fault{Op: "GetObject", Times: -1, Rewrite: func(h http.Header) {
		h.Set("X-Amz-Checksum-Sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
		h.Set("X-Amz-Checksum-Crc32", "AAAAAA==")
	}})
	server.Proxy.Add(storetest.Fault{Op: "UploadPart", Times: -1, Rewrite: func(h http.Header) { h.Del("X-Amz-Checksum-Sha256") }})
	for _, size := range []int64{1000, storetest.PartSize + 1} {
		content := storetest.Content(size, 1)
		u := storetest.Create(t, s, "object", size)
		if err := errors.Join(storetest.Write(t, u, content, 0, 1), u.Commit(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got := storetest.Read(t, s, "object"); !bytes.Equal(got, content) {
			t.Errorf("%d other bytes", len(got))
		}
	}
}

// More than 1,000 keys come in pages.
func TestListPages(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "many")
	const keys = 1100
	for i := range keys {
		name := fmt.Sprintf("dir%d/%04d", i/500, i)
		file := server.File("many/" + name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	server.Proxy.Reset()
	list, err := s.List(t.Context(), "")
	if err != nil || len(list) != keys {
		t.Fatalf("List = %d objects, %v", len(list), err)
	}
	for i, info := range list {
		if want := fmt.Sprintf("dir%d/%04d", i/500, i); info.Name != want || info.Size != int64(len(want)) {
			t.Fatalf("List[%d] = %v, want %s", i, info, want)
		}
	}
	if n := len(server.Proxy.Requests("ListObjectsV2")); n != 2 {
		t.Errorf("%d requests for 1,100 keys, want 2", n)
	}
	// A list that never ends is an error (T67).
	server.Proxy.Add(storetest.Fault{Op: "ListObjectsV2", Times: -1, Body: func([]byte) []byte {
		return []byte(`<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>`)
	}})
	_, err = s.List(t.Context(), "")
	checkError(t, "endless list", err, nil, "listing s3://ferry-test/many/")
	// Keys that are no names of objects are left out (T40).
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "ListObjectsV2", Times: -1, Body: func([]byte) []byte {
		var b strings.Builder
		b.WriteString(`<ListBucketResult><IsTruncated>false</IsTruncated>`)
		for _, key := range []string{"many/", "many/../x", "many//x", "many/a/", "many/good", "other/x", "good", "many/a\u202eb", "many/x.partial", "/many/x"} {
			b.WriteString("<Contents><Key>" + key + "</Key><Size>1</Size></Contents>")
		}
		return []byte(b.String() + `</ListBucketResult>`)
	}})
	if list, err := s.List(t.Context(), ""); err != nil || fmt.Sprint(list) != "[{good 1}]" {
		t.Errorf("List = %v, %v", list, err)
	}
}
