package s3store

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ferry/bundle"
)

// FuzzParseURL shows that a location that is taken has one meaning, that one
// that is not gives nothing, and that a login in it is not repeated (T54).
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"s3://bucket/prefix", "s3://bucket", "s3://bucket/", "s3:///x", "s3://b/x", "s3://bucket//x", "s3://bucket/../x", "s3://user:secret@bucket/x",
		"s3://bucket/x?versionId=1", "s3://bucket/x#y", "s3://bucket/a%2fb", "S3://bucket", "s3:/bucket", "s3://bücket/x", "s3://bucket/x\x1b", "s3://bucket/x/../y", "s3://bucket/x.partial"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		o, err := ParseURL(location)
		if err != nil {
			if o.Bucket != "" || o.Prefix != "" {
				t.Errorf("ParseURL(%q) = %q, %q, %v", location, o.Bucket, o.Prefix, err)
			}
			if rest, ok := strings.CutPrefix(location, "s3://"); ok {
				login, _, found := strings.Cut(rest, "@")
				if found && len(login) > 3 && !strings.Contains(login, "/") && strings.Contains(err.Error(), login) {
					t.Errorf("ParseURL(%q): %v", location, err)
				}
			}
			return
		}
		if strings.ContainsAny(o.Bucket, "/@:?# ") || strings.HasPrefix(o.Prefix, "/") || strings.HasSuffix(o.Prefix, "/") || o.Prefix != "" && bundle.CheckName(o.Prefix) != nil {
			t.Errorf("ParseURL(%q) = %q, %q", location, o.Bucket, o.Prefix)
		}
		text := (&store{bucket: o.Bucket, prefix: strings.TrimPrefix(o.Prefix+"/", "/")}).String()
		if again, err := ParseURL(text); err != nil || again.Bucket != o.Bucket || again.Prefix != o.Prefix {
			t.Errorf("ParseURL(%q) is %q, which is %q, %q, %v", location, text, again.Bucket, again.Prefix, err)
		}
	})
}

// FuzzParts shows that what an earlier run seems to have sent is taken over
// only when each part is one of the object (T48, T50).
func FuzzParts(f *testing.F) {
	f.Add(int64(3*defaultPart+5), []byte{1, 0, 1, 1, 2, 0, 1, 1, 4, 1, 1, 1})
	f.Add(int64(defaultPart), []byte{1, 0, 1, 1, 1, 0, 1, 1})
	f.Add(int64(0), []byte{0, 0, 0, 0})
	f.Add(int64(maxObject), []byte{255, 3, 1, 1, 1, 0, 0, 1})
	f.Add(int64(-1), []byte{1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, size int64, program []byte) {
		if size < 0 || size > maxObject {
			return // Create refuses it
		}
		u := &upload{size: size, partSize: partSize(size), there: map[int32]types.Part{}}
		var parts []types.Part
		for i := 0; i+4 <= len(program); i += 4 {
			n := int32(int8(program[i]))
			p := types.Part{PartNumber: &n}
			switch program[i+1] % 5 {
			case 0:
				p.Size = aws.Int64(u.partSize)
			case 1:
				p.Size = aws.Int64(size % u.partSize)
			case 2:
				p.Size = aws.Int64(int64(program[i+2]) - 1)
			case 3:
				p.PartNumber = nil
			}
			if program[i+3]&1 != 0 {
				p.ChecksumCRC32C = aws.String("AAAAAA==")
			}
			parts = append(parts, p)
		}
		fits := u.fits(parts)
		if fits == (len(u.there) == 0) {
			t.Errorf("fits %t with %d parts", fits, len(u.there))
		}
		var sum int64
		for n, p := range u.there {
			if first := int64(n-1) * u.partSize; n < 1 || first >= size || *p.Size != min(u.partSize, size-first) || p.ChecksumCRC32C == nil {
				t.Errorf("part %d of %d bytes in an object of %d", n, *p.Size, size)
			}
			sum += *p.Size
		}
		if sum > size {
			t.Errorf("%d bytes of %d", sum, size)
		}
	})
}

type lists func(*http.Request) (*http.Response, error)

func (f lists) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzLists shows that whatever a server lists, of objects, uploads or parts,
// it comes to an end, and only names that objects can have come of it (T43,
// T67).
func FuzzLists(f *testing.F) {
	const xml = `<?xml version="1.0" encoding="UTF-8"?>`
	uploads := xml + `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>p/object</Key><UploadId>u1</UploadId><Initiated>2026-11-21T00:00:00Z</Initiated></Upload></ListMultipartUploadsResult>`
	parts := xml + `<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber><ETag>"e"</ETag><Size>8388608</Size><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C></Part></ListPartsResult>`
	objects := xml + `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken><Contents><Key>p/a</Key><Size>5</Size></Contents><Contents><Key>p/../x</Key><Size>-5</Size></Contents></ListBucketResult>`
	f.Add([]byte(uploads), []byte(parts), []byte(objects))
	f.Add([]byte(strings.Replace(uploads, "false", "true", 1)), []byte(strings.Replace(parts, "false</IsTruncated>", "true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>", 1)), []byte(parts))
	f.Add([]byte("<html>"), []byte(""), []byte("{}"))
	f.Fuzz(func(t *testing.T, uploads, parts, objects []byte) {
		requests := 0
		client := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: aws.String("https://s3.site"), UsePathStyle: true,
			Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), RetryMaxAttempts: 1,
			HTTPClient: &http.Client{Transport: lists(func(r *http.Request) (*http.Response, error) {
				requests++
				q, status, body := r.URL.Query(), 204, []byte(nil)
				switch {
				case r.Method == http.MethodGet && q.Has("uploads"):
					status, body = 200, uploads
				case r.Method == http.MethodGet && q.Has("uploadId"):
					status, body = 200, parts
				case r.Method == http.MethodGet:
					status, body = 200, objects
				}
				return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/xml"}}, ContentLength: int64(len(body)),
					Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
			})}})
		s, err := New(t.Context(), Options{Bucket: "bucket", Prefix: "p", Client: client})
		if err != nil {
			t.Fatal(err)
		}
		s.(*store).pause = time.Nanosecond
		u, err := s.Create(t.Context(), "object", 2*defaultPart+1)
		if err == nil {
			for n, p := range u.(*upload).there {
				if n < 1 || n > 3 || aws.ToInt64(p.Size) != u.(*upload).length(n) {
					t.Errorf("part %d with %d bytes is taken over", n, aws.ToInt64(p.Size))
				}
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
		}
		found, err := s.List(t.Context(), "")
		if err != nil && found != nil {
			t.Errorf("%d objects, %v", len(found), err)
		}
		for _, o := range found {
			if bundle.CheckName(o.Name) != nil || o.Size < 0 {
				t.Errorf("the list has %q with %d bytes", o.Name, o.Size)
			}
		}
		most := 3 + bytes.Count(uploads, []byte("<U"))*4
		if most = max(most, 8); requests > most {
			t.Errorf("%d requests for three lists, want at most %d", requests, most)
		}
	})
}
