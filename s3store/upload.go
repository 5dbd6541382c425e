package s3store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"ferry/bundle"
)

const (
	// defaultPart, in bytes, is the size of a part. S3 takes 5 MiB to 5 GiB;
	// this is small enough to hold a few for each writer, and large enough
	// that a request's fixed cost does not count.
	defaultPart = 8 << 20
	// maxParts is how many parts S3 joins to an object.
	maxParts = 10_000
	// maxObject, in bytes, is the largest object that S3 servers in general
	// take.
	maxObject = 5 << 40
)

// partSize returns the size in bytes of the parts of an object of size bytes.
// It depends on nothing else, so that a later run cuts the same parts.
func partSize(size int64) int64 {
	const mib = 1 << 20
	least := (size + maxParts - 1) / maxParts
	return max(defaultPart, (least+mib-1)/mib*mib)
}

// upload gathers what is written into parts, and sends each when it is full. An
// object of one part is sent by Commit.
type upload struct {
	store    *store
	name     string
	size     int64 // bytes, of the whole object
	partSize int64 // bytes

	idLock sync.Mutex
	id     string // of the multipart upload, "" when none was begun

	mu        sync.Mutex
	there     map[int32]types.Part // what an earlier run has sent, by number
	gathering map[int32]*part      // parts that lack bytes, or wait for Commit
	done      map[int32]types.CompletedPart
	free      [][]byte // buffers of partSize bytes
	allocated int      // buffers in all
	closed    bool
	err       error // of the first WriteAt that failed
}

// part is one part in the making.
type part struct {
	content []byte
	written bundle.Spans
}

// Create implements [bundle.Store].
func (s *store) Create(ctx context.Context, name string, size int64) (bundle.Upload, error) {
	if err := cmp.Or(ctx.Err(), bundle.CheckName(name)); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, fmt.Errorf("creating %s: size %d: %w", s.url(name), size, fs.ErrInvalid)
	}
	if size > maxObject {
		return nil, fmt.Errorf("creating %s: %d bytes are more than the %d that an S3 object can have", s.url(name), size, int64(maxObject))
	}
	u := &upload{store: s, name: name, size: size, partSize: partSize(size),
		there: make(map[int32]types.Part), gathering: make(map[int32]*part), done: make(map[int32]types.CompletedPart)}
	if err := u.resume(ctx); err != nil {
		return nil, err
	}
	return u, nil
}

// resume takes up the newest upload that an earlier run has left, if its parts
// are cut like those of this one, and aborts all others.
func (u *upload) resume(ctx context.Context) error {
	s := u.store
	left, err := s.leftovers(ctx, u.name)
	if errors.Is(err, ErrDenied) || hasStatus(err, http.StatusNotImplemented) {
		return nil // who may write need not be allowed to list
	}
	if err != nil {
		return err
	}
	for _, l := range left {
		if u.id == "" && u.parts() > 1 {
			parts, err := s.parts(ctx, u.name, l.id)
			switch {
			case hasCode(err, "NoSuchUpload"):
				continue
			case err != nil:
				return err
			case u.fits(parts):
				u.id = l.id
				continue
			}
		}
		if err := s.abort(ctx, u.name, l.id); err != nil {
			return err
		}
	}
	return nil
}

// fits takes over the parts of an earlier run, unless there are none, or one
// can not be of this object or has no SHA-256: an upload that was begun with
// another checksum would refuse ours, and without one no part is of use.
func (u *upload) fits(parts []types.Part) bool {
	for _, p := range parts {
		n := aws.ToInt32(p.PartNumber)
		if n < 1 || int64(n) > u.parts() || aws.ToInt64(p.Size) != u.length(n) || p.ChecksumSHA256 == nil {
			clear(u.there)
			return false
		}
		u.there[n] = p
	}
	return len(parts) > 0
}

// parts returns how many parts the object has; an empty one has one.
func (u *upload) parts() int64 { return max(1, (u.size+u.partSize-1)/u.partSize) }

// length returns how many bytes part n has; parts are counted from 1 on.
func (u *upload) length(n int32) int64 { return min(u.partSize, u.size-int64(n-1)*u.partSize) }

// Kept implements [bundle.Upload]: S3 does not give back the bytes of parts.
func (u *upload) Kept() io.ReaderAt { return nil }

// WriteAt implements [bundle.Upload]. The call that fills a part sends it.
// After an error all further calls fail, Commit too; what was sent stays for
// the next Create.
func (u *upload) WriteAt(ctx context.Context, p []byte, off int64) error {
	err := cmp.Or(ctx.Err(), bundle.CheckRange(off, int64(len(p)), u.size))
	if err != nil {
		err = u.refuse(err)
	}
	for err == nil && len(p) > 0 {
		n := int32(off/u.partSize) + 1
		at := off % u.partSize
		head := p[:min(int64(len(p)), u.length(n)-at)]
		err = u.write(ctx, n, head, at)
		p, off = p[len(head):], off+int64(len(head))
	}
	if err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.err = cmp.Or(u.err, err)
	}
	return err
}

var errTwice = errors.New("the same bytes were written twice")

// refuse says of what the error err of the upload itself is.
func (u *upload) refuse(err error) error {
	return fmt.Errorf("writing %s: %w", u.store.url(u.name), err)
}

// write puts p into part n, and sends the part when that makes it full.
func (u *upload) write(ctx context.Context, n int32, p []byte, at int64) error {
	part, err := u.gather(n)
	if err != nil {
		return err
	}
	copy(part.content[at:], p) // ranges do not overlap, so nobody else is there
	u.mu.Lock()
	if !part.written.Add(at, int64(len(p))) {
		u.mu.Unlock()
		return u.refuse(errTwice)
	}
	full := part.written.Bytes() == int64(len(part.content))
	if !full || u.parts() == 1 {
		u.mu.Unlock()
		return nil
	}
	delete(u.gathering, n)
	u.done[n] = types.CompletedPart{} // on its way
	u.mu.Unlock()

	sent, err := u.send(ctx, n, newBody(part.content))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.free = append(u.free, part.content[:u.bufferSize()])
	if err == nil {
		u.done[n] = sent
	}
	return err
}

// bufferSize returns the size in bytes of a buffer for a part.
func (u *upload) bufferSize() int64 { return min(u.partSize, u.size) }

// gather returns part n, begun if it was not.
func (u *upload) gather(n int32) (*part, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, u.refuse(fs.ErrClosed)
	}
	if u.err != nil {
		return nil, u.err
	}
	if _, sent := u.done[n]; sent {
		return nil, u.refuse(errTwice)
	}
	if p := u.gathering[n]; p != nil {
		return p, nil
	}
	var buffer []byte
	if last := len(u.free) - 1; last >= 0 {
		buffer, u.free = u.free[last], u.free[:last]
	} else {
		buffer = make([]byte, u.bufferSize())
		u.allocated++
	}
	p := &part{content: buffer[:u.length(n)]}
	u.gathering[n] = p
	return p, nil
}

// send makes the server have part n, which it may have from an earlier run.
func (u *upload) send(ctx context.Context, n int32, b body) (types.CompletedPart, error) {
	s := u.store
	sent := types.CompletedPart{PartNumber: &n, ChecksumSHA256: aws.String(b.checksum())}
	u.mu.Lock()
	old := u.there[n]
	u.mu.Unlock()
	if aws.ToString(old.ChecksumSHA256) == b.checksum() && old.ETag != nil {
		sent.ETag = old.ETag
		return sent, nil
	}
	id, err := u.begin(ctx)
	if err != nil {
		return sent, err
	}
	err = s.call(ctx, fmt.Sprintf("writing part %d of", n), u.name, func() error {
		out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.bucket, Key: s.key(u.name), UploadId: &id, PartNumber: &n,
			Body: b.reader(), ContentLength: aws.Int64(int64(len(b.content))), ChecksumSHA256: sent.ChecksumSHA256,
		}, b.sign)
		if err == nil {
			sent.ETag = out.ETag
		}
		return err
	})
	return sent, err
}

// begin returns the id of the multipart upload, which it begins if need be.
func (u *upload) begin(ctx context.Context) (string, error) {
	u.idLock.Lock()
	defer u.idLock.Unlock()
	if u.id != "" {
		return u.id, nil
	}
	s := u.store
	err := s.call(ctx, "creating", u.name, func() error {
		out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
			Bucket: &s.bucket, Key: s.key(u.name), ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
		})
		if err == nil {
			u.id = aws.ToString(out.UploadId)
		}
		return err
	})
	if err == nil && u.id == "" {
		err = &Error{Op: "creating", Key: s.url(u.name), Message: "the server gives the upload no id"}
	}
	return u.id, err
}

// Commit implements [bundle.Upload].
func (u *upload) Commit(ctx context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock() // nobody writes during Commit, but a mistake must not corrupt
	if err := cmp.Or(u.ready(), ctx.Err()); err != nil {
		return fmt.Errorf("finishing %s: %w", u.store.url(u.name), err)
	}
	var err error
	if u.parts() == 1 {
		err = u.putWhole(ctx)
	} else {
		err = u.complete(ctx)
	}
	if err == nil {
		u.release()
	}
	return err
}

// ready returns why there can be no Commit.
func (u *upload) ready() error {
	if u.closed {
		return fs.ErrClosed
	}
	if u.err != nil {
		return fmt.Errorf("the upload has failed before: %w", u.err)
	}
	missing := u.size
	for n := range u.done {
		missing -= u.length(n)
	}
	for _, p := range u.gathering {
		missing -= p.written.Bytes()
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d bytes were not written", missing, u.size)
	}
	return nil
}

func (u *upload) putWhole(ctx context.Context) error {
	var content []byte
	if p := u.gathering[1]; p != nil {
		content = p.content
	}
	return u.store.putObject(ctx, u.name, newBody(content), nil)
}

// complete lets the server join the parts, and looks what became of them.
func (u *upload) complete(ctx context.Context) error {
	s := u.store
	parts := make([]types.CompletedPart, u.parts())
	for n, p := range u.done {
		parts[n-1] = p
	}
	var etag string
	err := s.call(ctx, "finishing", u.name, func() error {
		out, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.bucket, Key: s.key(u.name), UploadId: &u.id,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if err == nil {
			etag = aws.ToString(out.ETag)
		}
		return err
	})
	switch {
	case err == nil:
		return u.confirm(ctx, parts, etag)
	case hasCode(err, "NoSuchUpload") && u.confirm(ctx, parts, "") == nil:
		// The first answer was lost, and at the second attempt the upload
		// had become the object.
		return nil
	case hasCode(err, "InvalidPart") || hasCode(err, "InvalidPartOrder") || hasCode(err, "EntityTooSmall") || hasCode(err, "BadDigest"):
		// What the server has is not what it has said. The next run would
		// come to the same end, if this was kept.
		return errors.Join(err, s.abort(ctx, u.name, u.id))
	}
	return err
}

// looks bounds how often confirm looks for the object; with its pauses that
// takes a minute or more.
const looks = 10

// confirm checks that the object is the one that was uploaded. A second
// attempt to finish an upload is answered with success by versitygw while the
// first still joins the parts, and even when the upload was aborted, if there
// is an object of that name.
func (u *upload) confirm(ctx context.Context, parts []types.CompletedPart, etag string) error {
	s := u.store
	sum, err := sumOfSums(parts)
	if err != nil {
		return u.refuse(err)
	}
	for i := 1; ; i++ {
		head, err := s.head(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: s.key(u.name), ChecksumMode: types.ChecksumModeEnabled}, u.name)
		same := false
		switch {
		case err == nil && head.ChecksumSHA256 != nil:
			same = *head.ChecksumSHA256 == sum
		case err == nil:
			same = etag != "" && aws.ToString(head.ETag) == etag
		case errors.Is(err, ErrDenied) && etag != "":
			return nil // who may write need not be allowed to read
		case !errors.Is(err, bundle.ErrNotFound):
			return err
		}
		if same && aws.ToInt64(head.ContentLength) == u.size {
			return nil
		}
		if i == looks || etag == "" {
			return &Error{Op: "finishing", Key: s.url(u.name), kind: bundle.ErrChanged,
				Message: "the server has joined the parts, but the object there is another one, or none"}
		}
		if s.sleep(ctx, i) != nil {
			return s.fail(ctx, "finishing", u.name, ctx.Err())
		}
	}
}

// sumOfSums returns the checksum that S3 gives an object of these parts.
func sumOfSums(parts []types.CompletedPart) (string, error) {
	all := sha256.New()
	for _, p := range parts {
		sum, err := base64.StdEncoding.DecodeString(aws.ToString(p.ChecksumSHA256))
		if err != nil {
			return "", err
		}
		all.Write(sum)
	}
	return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(all.Sum(nil)), len(parts)), nil
}

// Close implements [bundle.Upload].
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.release()
	return nil
}

func (u *upload) release() {
	u.closed = true
	u.free, u.gathering, u.there = nil, nil, nil
}
