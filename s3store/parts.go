package s3store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// castagnoli is the polynomial of CRC-32C, for which processors have an
// instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeSum returns a CRC-32C as S3 writes it.
func encodeSum(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// partSum returns the checksum of a part.
func partSum(content []byte) string { return encodeSum(crc32.Checksum(content, castagnoli)) }

// sumOfSums returns the checksum that S3 gives an object of these parts.
func sumOfSums(parts []types.CompletedPart) (string, error) {
	var all uint32
	for _, p := range parts {
		sum, err := base64.StdEncoding.DecodeString(aws.ToString(p.ChecksumCRC32C))
		if err != nil {
			return "", err
		}
		all = crc32.Update(all, castagnoli, sum)
	}
	return fmt.Sprintf("%s-%d", encodeSum(all), len(parts)), nil
}

// isSumOfSums tells the checksum of an object's parts from one of its bytes.
func isSumOfSums(sum *string) bool { return strings.Contains(aws.ToString(sum), "-") }

// exposed reports whether somebody may be between this machine and an
// endpoint, nil being Amazon's: without TLS, and on another machine.
func exposed(endpoint *string) bool {
	u, err := url.Parse(aws.ToString(endpoint))
	if err != nil || u.Scheme != "http" {
		return false
	}
	return u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback()
}

// unsigned is what stands for the digest in the signature of a request whose
// body is not signed.
const unsigned = "UNSIGNED-PAYLOAD"

// createMultipart begins an upload whose parts have that checksum, or none.
func (s *store) createMultipart(ctx context.Context, name string, sum types.ChecksumAlgorithm) (id string, err error) {
	err = s.call(ctx, "creating", name, func() error {
		out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: &s.bucket, Key: s.key(name), ChecksumAlgorithm: sum,
		})
		if err == nil {
			id = aws.ToString(out.UploadId)
		}
		return err
	})
	if err == nil && id == "" {
		err = &Error{Op: "creating", Key: s.url(name), Message: "the server gives the upload no id"}
	}
	return id, err
}

// uploadPart sends a part. The content is signed where the checksum does not
// do: without TLS, or when the server refuses such a request or does not say
// that it has checked the sum.
func (s *store) uploadPart(ctx context.Context, name, id string, p types.CompletedPart, content []byte) (etag *string, err error) {
	if !s.signs.Load() && p.ChecksumCRC32C != nil {
		out, err := s.putPart(ctx, name, id, p, content, unsigned)
		checked := err == nil && out.ChecksumCRC32C != nil
		if checked || err != nil && !refusesUnsigned(err) {
			return out.ETag, err
		}
	}
	sum := sha256.Sum256(content)
	out, err := s.putPart(ctx, name, id, p, content, hex.EncodeToString(sum[:]))
	if err == nil {
		s.signs.Store(true)
	}
	return out.ETag, err
}

// refusesUnsigned reports whether a server may have refused a request because
// its body was not signed: a bucket's policy can demand that.
func refusesUnsigned(err error) bool {
	return !hasCode(err, "BadDigest") &&
		(hasStatus(err, http.StatusBadRequest) || hasStatus(err, http.StatusForbidden) || hasStatus(err, http.StatusNotImplemented))
}

// putPart sends a part in a request that is signed with digest. The answer is
// empty when there is an error.
func (s *store) putPart(ctx context.Context, name, id string, p types.CompletedPart, content []byte, digest string) (answer s3.UploadPartOutput, err error) {
	err = s.call(ctx, fmt.Sprintf("writing part %d of", *p.PartNumber), name, func() error {
		out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.bucket, Key: s.key(name), UploadId: &id, PartNumber: p.PartNumber,
			Body: bytes.NewReader(content), ContentLength: aws.Int64(int64(len(content))), ChecksumCRC32C: p.ChecksumCRC32C,
		}, signWith(digest))
		if err == nil {
			answer = *out
		}
		return err
	})
	return answer, err
}
