package s3store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// maxPages bounds the pages of a list of uploads or parts, 1,000 a page.
const maxPages = 1000

// leftover is a multipart upload that was begun and not finished.
type leftover struct {
	id    string
	begun time.Time
}

// leftovers returns the unfinished uploads of an object, newest first.
func (s *store) leftovers(ctx context.Context, name string) ([]leftover, error) {
	var left []leftover
	in := &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: s.key(name)}
	for page := 0; ; page++ {
		var out *s3.ListMultipartUploadsOutput
		err := s.call(ctx, "listing the unfinished uploads of", name, func() (err error) {
			out, err = s.client.ListMultipartUploads(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, u := range out.Uploads {
			if aws.ToString(u.Key) == *s.key(name) && u.UploadId != nil {
				left = append(left, leftover{*u.UploadId, aws.ToTime(u.Initiated)})
			}
		}
		if !aws.ToBool(out.IsTruncated) || page == maxPages || out.NextKeyMarker == nil ||
			aws.ToString(out.NextKeyMarker) == aws.ToString(in.KeyMarker) &&
				aws.ToString(out.NextUploadIdMarker) == aws.ToString(in.UploadIdMarker) {
			break
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
	slices.SortFunc(left, func(a, b leftover) int {
		return cmp.Or(b.begun.Compare(a.begun), cmp.Compare(a.id, b.id))
	})
	return left, nil
}

// abort gives up an unfinished upload; one that is gone is none.
func (s *store) abort(ctx context.Context, name, id string) error {
	err := s.call(ctx, "aborting an upload of", name, func() error {
		_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: s.key(name), UploadId: &id})
		return err
	})
	if hasCode(err, "NoSuchUpload") {
		return nil
	}
	return err
}

// parts returns the parts of an unfinished upload.
func (s *store) parts(ctx context.Context, name, id string) ([]types.Part, error) {
	var parts []types.Part
	in := &s3.ListPartsInput{Bucket: &s.bucket, Key: s.key(name), UploadId: &id}
	for page := 0; ; page++ {
		var out *s3.ListPartsOutput
		err := s.call(ctx, "listing the parts of", name, func() (err error) {
			out, err = s.client.ListParts(ctx, in)
			return err
		})
		if err != nil {
			return nil, err
		}
		parts = append(parts, out.Parts...)
		next := aws.ToString(out.NextPartNumberMarker)
		if !aws.ToBool(out.IsTruncated) || page == maxPages || next == "" || next == aws.ToString(in.PartNumberMarker) {
			return parts, nil
		}
		in.PartNumberMarker = &next
	}
}
