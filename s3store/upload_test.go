package s3store_test

import (
	"bytes"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const part = storetest.PartSize

// unfinished returns how many multipart uploads are in the bucket.
func unfinished(t *testing.T, server *storetest.S3, s bundle.Store) int {
	t.Helper()
	out, err := s3store.Raw(s).ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &server.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

func commit(t *testing.T, u bundle.Upload, content []byte) {
	t.Helper()
	if err := errors.Join(storetest.Write(t, u, content, 0, 2), u.Commit(t.Context()), u.Close()); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, s bundle.Store, want []byte) {
	t.Helper()
	if got := storetest.Read(t, s, "object"); !bytes.Equal(got, want) {
		t.Errorf("the object has %d other bytes", len(got))
	}
}

func TestPartSize(t *testing.T) {
	const mib = 1 << 20
	for size, want := range map[int64]int64{
		0: 8 * mib, 1: 8 * mib, 8 * mib: 8 * mib, 80_000 * mib: 8 * mib, 80_000*mib + 1: 9 * mib,
		90_000 * mib: 9 * mib, 1 << 40: 105 * mib, 5 << 40: 525 * mib,
	} {
		got := s3store.PartSize(size)
		if got != want {
			t.Errorf("parts of an object of %d bytes have %d, want %d", size, got, want)
		}
		if parts := (size + got - 1) / got; parts > 10_000 || got > 5<<30 || got < 5*mib {
			t.Errorf("%d bytes make %d parts of %d", size, parts, got)
		}
	}
	server := storetest.StartS3(t)
	s := newSmallStore(t, server, 525<<20/part+1, 1)
	if u, err := s.Create(t.Context(), "object", 5<<40+1); err == nil {
		u.Close()
		t.Error("Create of more than 5 TiB succeeds")
	}
	if _, err := s.Create(t.Context(), "object", 5<<40); err != nil {
		t.Errorf("Create of 5 TiB = %v", err)
	}
}

// What the server has already is not sent again (T50, I4); nothing is left
// when the object is finished (T48).
func TestResume(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(4*part+1000, 1)
	size := int64(len(content))
	u := storetest.Create(t, s, "object", size)
	// The parts 1, 2 and 4 arrive, 3 and 5 do not.
	err := errors.Join(u.WriteAt(t.Context(), content[:2*part+500], 0), u.WriteAt(t.Context(), content[3*part:4*part+500], 3*part), u.Close())
	if err != nil {
		t.Fatal(err)
	}
	if sent := server.Proxy.Sent("UploadPart"); sent != 3*part {
		t.Errorf("%d bytes of parts were sent, want %d", sent, 3*part)
	}

	server.Proxy.Reset()
	u = storetest.Create(t, s, "object", size)
	commit(t, u, content)
	if sent := server.Proxy.Sent("UploadPart"); sent != part+1000 {
		t.Errorf("the second run sent %d bytes of parts, want %d", sent, part+1000)
	}
	if n := len(server.Proxy.Requests("CreateMultipartUpload")); n != 0 {
		t.Errorf("the second run has begun %d uploads", n)
	}
	check(t, s, content)
	if n := unfinished(t, server, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// Only a part whose checksum is the same is left out.
func TestResumeOtherContent(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(3*part, 1)
	u := storetest.Create(t, s, "object", 3*part)
	if err := errors.Join(storetest.Write(t, u, content, 0, 2), u.Close()); err != nil {
		t.Fatal(err)
	}
	content[part+5] ^= 1
	server.Proxy.Reset()
	commit(t, storetest.Create(t, s, "object", 3*part), content)
	sent := server.Proxy.Requests("UploadPart")
	if len(sent) != 1 || sent[0].Query.Get("partNumber") != "2" {
		t.Errorf("%d parts were sent, want only part 2", len(sent))
	}
	check(t, s, content)
}

var listedETag = regexp.MustCompile("<ETag>[^<]*</ETag>")
var listedSum = regexp.MustCompile("<ChecksumCRC32C>[^<]*</ChecksumCRC32C>")

// A server that lists no checksums gets everything again (T43).
func TestResumeWithoutChecksums(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(2*part+1, 1)
	u := storetest.Create(t, s, "object", 2*part+1)
	if err := errors.Join(storetest.Write(t, u, content, 0, 2), u.Close()); err != nil {
		t.Fatal(err)
	}
	server.Proxy.Reset()
	listed := false
	server.Proxy.Add(storetest.Fault{Op: "ListParts", Times: -1, Body: func(p []byte) []byte {
		listed = listed || listedSum.Match(p)
		return listedSum.ReplaceAll(p, nil)
	}})
	commit(t, storetest.Create(t, s, "object", 2*part+1), content)
	if !listed {
		t.Error("there was no checksum to take away")
	}
	if sent := server.Proxy.Sent("UploadPart"); sent != 2*part+1 {
		t.Errorf("%d bytes of parts were sent, want all", sent)
	}
	check(t, s, content)
	if n := unfinished(t, server, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// Uploads that others have begun under the same name, in ways that do not fit,
// and older ones, are aborted; those of other names are left alone.
func TestLeftovers(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	begin := func(key string, checksum bool, parts ...int) string {
		in := &s3.CreateMultipartUploadInput{Bucket: &server.Bucket, Key: &key}
		if checksum {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32c
		}
		out, err := s3store.Raw(s).CreateMultipartUpload(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for i, size := range parts {
			up := &s3.UploadPartInput{Bucket: &server.Bucket, Key: &key, UploadId: out.UploadId, PartNumber: aws.Int32(int32(i + 1)),
				Body: bytes.NewReader(make([]byte, size))}
			if checksum {
				up.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32c
			}
			if _, err := s3store.Raw(s).UploadPart(t.Context(), up); err != nil {
				t.Fatal(err)
			}
		}
		return *out.UploadId
	}
	begin("p/object", true, part)            // fits, but is older
	time.Sleep(1100 * time.Millisecond)      // the server tells times in seconds
	fitting := begin("p/object", true, part) // fits, and is the newest that does
	time.Sleep(1100 * time.Millisecond)
	begin("p/object", false, part)                // has no checksum
	begin("p/object", true, 5<<20, part)          // parts of another size
	begin("p/object", true, part, part, 10, 11)   // too many
	begin("p/object", true, part, part-1)         // the last is too short
	begin("p/object", true)                       // none
	kept := []string{"p/object2", "p/objec", "p"} // other names
	for _, key := range kept {
		begin(key, true, part)
	}
	zeros := make([]byte, 2*part)
	server.Proxy.Reset()
	u := storetest.Create(t, s, "object", 2*part)
	if n := len(server.Proxy.Requests("AbortMultipartUpload")); n != 6 {
		t.Errorf("%d uploads were aborted, want 6", n)
	}
	commit(t, u, zeros)
	completed := server.Proxy.Requests("CompleteMultipartUpload")
	if len(completed) != 1 || completed[0].Query.Get("uploadId") != fitting {
		t.Errorf("not the upload that fits was finished: %v", completed)
	}
	if sent := server.Proxy.Sent("UploadPart"); sent != part {
		t.Errorf("%d bytes of parts were sent, want %d", sent, part)
	}
	check(t, s, zeros)
	if n := unfinished(t, server, s); n != len(kept) {
		t.Errorf("%d uploads are left, want those of %d other names", n, len(kept))
	}
	// Remove aborts, and touches no other name.
	begin("p/object", true, part)
	begin("p/object", true)
	if err := s.Remove(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	if n := unfinished(t, server, s); n != len(kept) {
		t.Errorf("after Remove %d uploads are left, want %d", n, len(kept))
	}
}

// However often a run is interrupted, one upload is left at most (T48).
func TestManyInterruptions(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(2*part, 1)
	for i := range 20 {
		u := storetest.Create(t, s, "object", 2*part)
		err := u.WriteAt(t.Context(), content[:part], 0)
		s3store.Settle(u)
		if i%3 > 0 { // or it is killed and closes nothing
			err = errors.Join(err, u.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(server.Proxy.Requests("UploadPart")); n != 1 {
		t.Errorf("the same part was sent %d times", n)
	}
	if n := unfinished(t, server, s); n != 1 {
		t.Errorf("%d uploads are left, want 1", n)
	}
	// An upload that has got nothing leaves nothing.
	if err := errors.Join(s.Remove(t.Context(), "object"), storetest.Create(t, s, "object", 2*part).Close()); err != nil {
		t.Fatal(err)
	}
	if n := unfinished(t, server, s); n != 0 {
		t.Errorf("%d uploads are left, want none", n)
	}
}

// Answers that are lost or late do not make a finished upload fail, or send
// wrong bytes.
func TestLostAnswers(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	for i, op := range []string{"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "ListMultipartUploads", "PutObject"} {
		for _, fault := range []storetest.Fault{
			{Op: op, Times: 2, LoseReply: true},
			{Op: op, Times: 3, Status: 503, Code: "SlowDown"},
		} {
			size := int64(2*part + 1)
			if op == "PutObject" {
				size = 0
			}
			content := storetest.Content(size, byte(i))
			server.Proxy.Reset()
			server.Proxy.Add(fault)
			commit(t, storetest.Create(t, s, "object", size), content)
			if n := len(server.Proxy.Requests(op)); n <= fault.Times {
				t.Errorf("%s: %d requests, want more than the %d lost ones", op, n, fault.Times)
			}
			check(t, s, content)
			if err := s.Remove(t.Context(), "object"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := unfinished(t, server, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	// An upload that somebody has aborted is no success, even where an
	// object of that size is.
	put(t, s, "object", make([]byte, 2*part))
	u := storetest.Create(t, s, "object", 2*part)
	if err := storetest.Write(t, u, storetest.Content(2*part, 9), 0, 2); err != nil {
		t.Fatal(err)
	}
	s3store.Settle(u)
	if err := newStore(t, server, "p").Remove(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "object", make([]byte, 2*part))
	checkError(t, "Commit", u.Commit(t.Context()), bundle.ErrChanged, "the object there is another one")
	server.Proxy.Reset()
	server.Proxy.Add(storetest.Fault{Op: "CompleteMultipartUpload", Times: 1, Status: 404, Code: "NoSuchUpload"})
	checkError(t, "Commit", u.Commit(t.Context()), nil, "NoSuchUpload")
}

// Parts that the server can not join are not kept: the next run begins anew.
func TestSpoiltParts(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(2*part, 1)
	u := storetest.Create(t, s, "object", 2*part)
	if err := errors.Join(storetest.Write(t, u, content, 0, 1), u.Close()); err != nil {
		t.Fatal(err)
	}
	server.Proxy.Add(storetest.Fault{Op: "ListParts", Times: -1, Body: func(p []byte) []byte {
		return listedETag.ReplaceAll(p, []byte("<ETag>d41d8cd98f00b204e9800998ecf8427e</ETag>"))
	}})
	u = storetest.Create(t, s, "object", 2*part)
	if err := storetest.Write(t, u, content, 0, 1); err != nil {
		t.Fatal(err)
	}
	checkError(t, "Commit", u.Commit(t.Context()), nil, "InvalidPart")
	u.Close()
	if n := unfinished(t, server, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	commit(t, storetest.Create(t, s, "object", 2*part), content)
	check(t, s, content)
}

// An answer that comes before the object does, and what is seen of it then.
func TestLateObject(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(2*part, 1)
	for _, fault := range []storetest.Fault{
		{Op: "HeadObject", Times: 5, Status: 404}, // T44
		{Op: "HeadObject", Times: 5, Rewrite: func(h http.Header) { h.Set("X-Amz-Checksum-Crc32c", "AAAAAA==-2") }},
		{Op: "HeadObject", Times: -1, Rewrite: func(h http.Header) { h.Del("X-Amz-Checksum-Crc32c") }},
		{Op: "HeadObject", Times: -1, Status: 403},
	} {
		server.Proxy.Reset()
		u := storetest.Create(t, s, "object", 2*part)
		server.Proxy.Add(fault)
		commit(t, u, content)
		server.Proxy.Reset()
		check(t, s, content)
	}
	for _, fault := range []storetest.Fault{
		{Op: "HeadObject", Times: -1, Status: 404},
		{Op: "HeadObject", Times: -1, Rewrite: func(h http.Header) { h.Set("X-Amz-Checksum-Crc32c", "AAAAAA==-2") }},
		{Op: "HeadObject", Times: -1, Rewrite: func(h http.Header) { h.Del("X-Amz-Checksum-Crc32c"); h.Set("ETag", `"old"`) }},
	} {
		server.Proxy.Reset()
		u := storetest.Create(t, s, "object", 2*part)
		if err := storetest.Write(t, u, content, 0, 1); err != nil {
			t.Fatal(err)
		}
		server.Proxy.Add(fault)
		checkError(t, "Commit", u.Commit(t.Context()), bundle.ErrChanged, "the object there is another one")
		u.Close()
	}
}

// A full bucket is ErrNoSpace, and the next run goes on (T49).
func TestFullBucket(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	content := storetest.Content(3*part, 1)
	u := storetest.Create(t, s, "object", 3*part)
	if err := u.WriteAt(t.Context(), content[:part], 0); err != nil {
		t.Fatal(err)
	}
	s3store.Settle(u)
	server.Proxy.Add(storetest.Fault{Op: "UploadPart", Times: 1, Status: 507, Code: "XMinioStorageFull"})
	if err := u.WriteAt(t.Context(), content[part:2*part], part); err != nil {
		t.Fatal(err)
	}
	s3store.Settle(u)
	for range 2 { // what the part came to is the error of all later calls
		checkError(t, "WriteAt", u.WriteAt(t.Context(), content[2*part:], 2*part), bundle.ErrNoSpace, "part 2", "s3://ferry-test/p/object")
	}
	if err := u.Commit(t.Context()); !errors.Is(err, bundle.ErrNoSpace) {
		t.Errorf("Commit = %v, want ErrNoSpace", err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	server.Proxy.Reset()
	commit(t, storetest.Create(t, s, "object", 3*part), content)
	if sent := server.Proxy.Sent("UploadPart"); sent != 2*part {
		t.Errorf("%d bytes were sent, want %d", sent, 2*part)
	}
	check(t, s, content)
}

// Who may write but not list uploads can write; only resuming is lost.
func TestNoRightToList(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	server.Proxy.Add(storetest.Fault{Op: "ListMultipartUploads", Times: -1, Status: 403, Code: "AccessDenied"})
	content := storetest.Content(part+1, 1)
	commit(t, storetest.Create(t, s, "object", part+1), content)
	check(t, s, content)
	checkError(t, "Remove", s.Remove(t.Context(), "object"), s3store.ErrDenied, "unfinished uploads")
}

// Bytes that come twice would make a part seem full that is not.
func TestWrittenTwice(t *testing.T) {
	server := storetest.StartS3(t)
	s := newStore(t, server, "p")
	for _, second := range []int64{0, 50, 99, part, 2*part - 1} {
		u := storetest.Create(t, s, "object", 3*part)
		p := make([]byte, part)
		err := errors.Join(u.WriteAt(t.Context(), p[:100], 0), u.WriteAt(t.Context(), p, part))
		if err != nil {
			t.Fatal(err)
		}
		if err := u.WriteAt(t.Context(), p[:1], second); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("writing byte %d twice = %v", second, err)
		}
		if err := u.WriteAt(t.Context(), p[:1], 200); err == nil {
			t.Error("the upload goes on after bytes came twice")
		}
		if err := u.Commit(t.Context()); err == nil {
			t.Error("Commit after bytes came twice succeeds")
		}
		u.Close()
	}
}
