package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// floorPart, in bytes, is what the floor sends to a bucket at once: as much as
// ferry does.
const floorPart = 8 << 20

// floorBucketPart fetches, hashes and sends each byte once: all blobs, one
// behind the other, as one object in parts, each of which is hashed as a whole.
// Nothing is signed or checked but the requests.
func floorBucketPart(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("floor-bucket", flag.ContinueOnError)
	planFile := flags.String("plan", "", "`FILE` that says what the workload is")
	from := flags.String("from", "", "`HOST` to read from")
	key := flags.String("key", "", "`KEY` of the object")
	jobs := flags.Int("jobs", 4, "parts at once")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p, err := readPlan(*planFile)
	if err != nil {
		return err
	}
	settings, err := config.LoadDefaultConfig(ctx, config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired))
	if err != nil {
		return err
	}
	b := &bucketFloor{plan: p, source: newRegistryClient(*from, *jobs), key: key, client: s3.NewFromConfig(settings, func(o *s3.Options) {
		o.UsePathStyle, o.HTTPClient = true, newHTTPClient(*jobs)
	})}
	return b.run(ctx, *jobs)
}

// bucketFloor sends one object.
type bucketFloor struct {
	plan   *plan
	source *registryClient
	client *s3.Client
	key    *string
	upload *string
	// digests are those of the parts: the work that a blob's digest is.
	digests [][sha256.Size]byte
}

func (b *bucketFloor) run(ctx context.Context, jobs int) error {
	begun, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(s3Bucket), Key: b.key})
	if err != nil {
		return err
	}
	b.upload = begun.UploadId
	parts := make([]types.CompletedPart, (b.plan.bytes()+floorPart-1)/floorPart)
	b.digests = make([][sha256.Size]byte, len(parts))
	numbers := make([]int32, len(parts))
	for i := range numbers {
		numbers[i] = int32(i) + 1
	}
	free := make(chan []byte, jobs)
	for range jobs {
		free <- make([]byte, floorPart)
	}
	err = each(ctx, jobs, numbers, func(ctx context.Context, n int32) error {
		buffer := <-free
		defer func() { free <- buffer }()
		etag, err := b.send(ctx, n, buffer)
		parts[n-1] = types.CompletedPart{PartNumber: &n, ETag: etag}
		return err
	})
	if err != nil {
		return err
	}
	_, err = b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(s3Bucket), Key: b.key, UploadId: b.upload, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

// send fills the buffer with part n and sends it.
func (b *bucketFloor) send(ctx context.Context, n int32, buffer []byte) (etag *string, err error) {
	from := int64(n-1) * floorPart
	to := min(from+floorPart, b.plan.bytes())
	for _, blob := range b.plan.Blobs {
		low, high := max(from, blob.Offset), min(to, blob.Offset+blob.Size)
		if low < high {
			if err := b.fetch(ctx, blob, low-blob.Offset, buffer[low-from:high-from]); err != nil {
				return nil, err
			}
		}
	}
	content := buffer[:to-from]
	b.digests[n-1] = sha256.Sum256(content)
	out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: aws.String(s3Bucket), Key: b.key, UploadId: b.upload, PartNumber: &n,
		Body: bytes.NewReader(content), ContentLength: aws.Int64(to - from)}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	if err != nil {
		return nil, err
	}
	return out.ETag, nil
}

// fetch fills p with the bytes of a blob from off on.
func (b *bucketFloor) fetch(ctx context.Context, blob planBlob, off int64, p []byte) error {
	req, err := b.source.request(ctx, http.MethodGet, blob.Repositories[0]+"/blobs/"+blob.Digest, nil)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if int64(len(p)) < blob.Size {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
		want = http.StatusPartialContent
	}
	resp, err := b.source.do(req, want)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, p)
	return err
}
