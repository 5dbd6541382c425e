package s3store

import (
	"cmp"
	"context"
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

// upload gathers what is written into parts, and sends each when it is full,
// while others are written.
type upload struct {
	store    *store
	name     string
	size     int64           // bytes, of the whole object
	partSize int64           // bytes
	ctx      context.Context // of Create, for what is sent between two calls
	cancel   context.CancelFunc
	sending  sync.WaitGroup

	idLock sync.Mutex
	id     string // of the multipart upload, "" when none was begun
	plain  bool   // the server takes no checksums

	// The lock of store.memory guards what follows.
	there     map[int32]types.Part // what an earlier run has sent, by number
	gathering map[int32]*part      // parts that lack bytes
	done      map[int32]types.CompletedPart
	lowest    int32 // the first part that is not in done
	closed    bool
	err       error // the first: of a WriteAt, or of a part that was sent
}

// part is one part in the making.
type part struct {
	content []byte
	written bundle.Spans
}

// ErrMemory says that not even one part of an object fits into the memory that
// is set aside for parts.
var ErrMemory = errors.New("its parts are larger than the memory for them")

// Create implements [bundle.Store]. The end of ctx ends the upload. Errors:
// [ErrMemory].
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
	u := &upload{store: s, name: name, size: size, partSize: partSize(size), lowest: 1,
		there: make(map[int32]types.Part), gathering: make(map[int32]*part), done: make(map[int32]types.CompletedPart)}
	if u.bufferSize() > s.memory.limit {
		return nil, fmt.Errorf("creating %s: %w: an object of %d bytes has parts of %d MiB, the memory is %d MiB",
			s.url(name), ErrMemory, size, u.bufferSize()>>20, s.memory.limit>>20)
	}
	if err := u.resume(ctx); err != nil {
		return nil, err
	}
	u.ctx, u.cancel = context.WithCancel(ctx)
	s.memory.admit(u)
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
		if u.id == "" {
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
// can not be of this object or has no CRC-32C: an upload that was begun with
// another checksum would refuse ours, and without one no part is of use.
func (u *upload) fits(parts []types.Part) bool {
	for _, p := range parts {
		n := aws.ToInt32(p.PartNumber)
		if n < 1 || int64(n) > u.parts() || aws.ToInt64(p.Size) != u.length(n) || p.ChecksumCRC32C == nil {
			clear(u.there)
			return false
		}
		u.there[n] = p
	}
	return len(parts) > 0
}

// parts returns how many parts the object has; an empty one has none.
func (u *upload) parts() int64 { return (u.size + u.partSize - 1) / u.partSize }

// length returns how many bytes part n has; parts are counted from 1 on.
func (u *upload) length(n int32) int64 { return min(u.partSize, u.size-int64(n-1)*u.partSize) }

// Kept implements [bundle.Upload]: S3 does not give back the bytes of parts.
func (u *upload) Kept() io.ReaderAt { return nil }

// WriteAt implements [bundle.Upload]. A part that it fills is sent while others
// are written; what fails then is the error of a later call. After an error
// all further calls fail, Commit too; what was sent stays for the next Create.
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
		u.failed(err)
	}
	return err
}

// failed notes that the upload can not go on, for err.
func (u *upload) failed(err error) {
	m := u.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	u.err = cmp.Or(u.err, err)
	m.wake()
}

var errTwice = errors.New("the same bytes were written twice")

// refuse says of what the error err of the upload itself is.
func (u *upload) refuse(err error) error {
	return fmt.Errorf("writing %s: %w", u.store.url(u.name), err)
}

// write puts p into part n, and has the part sent when that makes it full.
func (u *upload) write(ctx context.Context, n int32, p []byte, at int64) error {
	part, err := u.gather(ctx, n)
	if err != nil {
		return err
	}
	copy(part.content[at:], p) // ranges do not overlap, so nobody else is there
	if full, err := u.fill(n, part, at, int64(len(p))); !full {
		return err
	}
	if err := u.launch(ctx, n, part); err != nil {
		m := u.store.memory
		m.mu.Lock()
		defer m.mu.Unlock()
		m.release(part)
		return err
	}
	return nil
}

// fill notes that n bytes at offset at of a part were written, and reports
// whether it is full and to be sent.
func (u *upload) fill(number int32, p *part, at, n int64) (full bool, err error) {
	m := u.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.written.Add(at, n) {
		return false, u.refuse(errTwice)
	}
	if p.written.Bytes() < int64(len(p.content)) {
		return false, nil
	}
	delete(u.gathering, number)
	u.done[number] = types.CompletedPart{} // on its way
	for _, done := u.done[u.lowest]; done; _, done = u.done[u.lowest] {
		u.lowest++
	}
	m.wake()
	return true, nil
}

// launch has a part sent in the background, when fewer than the most are.
func (u *upload) launch(ctx context.Context, n int32, p *part) error {
	select {
	case u.store.sends <- struct{}{}:
	case <-ctx.Done():
		return u.refuse(ctx.Err())
	case <-u.ctx.Done():
		return u.refuse(u.ctx.Err())
	}
	m := u.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.closed {
		<-u.store.sends
		return u.refuse(fs.ErrClosed)
	}
	// The part is sent for the caller, but may take longer than its call.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(u.ctx, cancel)
	u.sending.Go(func() {
		defer cancel()
		defer stop()
		sent, err := u.send(ctx, n, p.content)
		<-u.store.sends
		m.mu.Lock()
		defer m.mu.Unlock()
		m.release(p)
		u.err = cmp.Or(u.err, err)
		u.done[n] = sent
	})
	return nil
}

// bufferSize returns the size in bytes of a buffer for a part.
func (u *upload) bufferSize() int64 { return min(u.partSize, u.size) }

// gather returns part n, begun if it was not. It waits for memory.
func (u *upload) gather(ctx context.Context, n int32) (*part, error) {
	for {
		p, changed, err := u.find(n)
		if p != nil || err != nil {
			return p, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, u.refuse(ctx.Err())
		case <-u.ctx.Done():
			return nil, u.refuse(u.ctx.Err())
		}
	}
}

// find is gather without waiting: when there is no memory now, it returns no
// part, and a channel that is closed when it is time to ask again.
func (u *upload) find(n int32) (*part, <-chan struct{}, error) {
	m := u.store.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.closed {
		return nil, nil, u.refuse(fs.ErrClosed)
	}
	if u.err != nil {
		return nil, nil, u.err
	}
	if _, sent := u.done[n]; sent {
		return nil, nil, u.refuse(errTwice)
	}
	if p := u.gathering[n]; p != nil {
		return p, nil, nil
	}
	buffer := m.take(u.bufferSize(), m.first() == u && u.lowest == n)
	if buffer == nil {
		return nil, m.changed, nil
	}
	p := &part{content: buffer[:u.length(n)]}
	u.gathering[n] = p
	return p, nil, nil
}

// send makes the server have part n, which it may have from an earlier run.
func (u *upload) send(ctx context.Context, n int32, content []byte) (types.CompletedPart, error) {
	sent := types.CompletedPart{PartNumber: &n, ChecksumCRC32C: aws.String(partSum(content))}
	u.store.memory.mu.Lock()
	old := u.there[n]
	u.store.memory.mu.Unlock()
	if aws.ToString(old.ChecksumCRC32C) == *sent.ChecksumCRC32C && old.ETag != nil {
		sent.ETag = old.ETag
		return sent, nil
	}
	id, plain, err := u.begin(ctx)
	if err != nil {
		return sent, err
	}
	if plain {
		sent.ChecksumCRC32C = nil
	}
	sent.ETag, err = u.store.uploadPart(ctx, u.name, id, sent, content)
	return sent, err
}

// begin returns the id of the multipart upload, which it begins if need be,
// and whether it is plain: without checksums, which the server does not take.
func (u *upload) begin(ctx context.Context) (id string, plain bool, err error) {
	u.idLock.Lock()
	defer u.idLock.Unlock()
	if u.id != "" {
		return u.id, u.plain, nil
	}
	u.id, err = u.store.createMultipart(ctx, u.name, types.ChecksumAlgorithmCrc32c)
	if hasStatus(err, http.StatusBadRequest) || hasStatus(err, http.StatusNotImplemented) {
		u.plain = true
		u.id, err = u.store.createMultipart(ctx, u.name, "")
	}
	return u.id, u.plain, err
}

// Commit implements [bundle.Upload].
func (u *upload) Commit(ctx context.Context) error {
	defer context.AfterFunc(ctx, u.cancel)()
	u.sending.Wait()
	if err := cmp.Or(ctx.Err(), u.ready()); err != nil {
		return fmt.Errorf("finishing %s: %w", u.store.url(u.name), err)
	}
	var err error
	if u.size == 0 { // an upload has at least one part
		err = u.store.putObject(ctx, u.name, newBody(nil), nil)
	} else {
		err = u.complete(ctx)
	}
	if err != nil {
		return err
	}
	return u.Close()
}

// ready returns why there can be no Commit.
func (u *upload) ready() error {
	u.store.memory.mu.Lock()
	defer u.store.memory.mu.Unlock()
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
		case err == nil && !u.plain && isSumOfSums(head.ChecksumCRC32C):
			same = *head.ChecksumCRC32C == sum
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

// Close implements [bundle.Upload]. It waits for the parts that are being sent.
func (u *upload) Close() error {
	m := u.store.memory
	m.mu.Lock()
	u.closed = true
	m.wake()
	m.mu.Unlock()
	u.sending.Wait()
	u.cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dismiss(u)
	return nil
}
