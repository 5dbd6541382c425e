package extract

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	maxWindow  = 128 << 20 // bytes of a zstd window; what "zstd -d" accepts
	ratioFloor = 64 << 20  // bytes a layer may unpack to whatever its ratio
)

// visitor is given each entry of a layer; r is its content.
type visitor func(h *tar.Header, r io.Reader) error

// scan reads a layer once, to its verified end, and calls visit for each entry.
func scan(ctx context.Context, l Layer, maxRatio int64, visit visitor) error {
	return l.read(ctx, func(src *source) error { return readTar(src, l.MediaType, maxRatio, nil, visit) })
}

// read calls do with the stream of a layer, of which nothing is left unread
// when it was right.
func (l Layer) read(ctx context.Context, do func(*source) error) (err error) {
	rc, err := l.Open(ctx)
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	defer func() {
		if cerr := rc.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("layer %q: %w", l.Name, cerr)
		}
	}()
	src := &source{ctx: ctx, r: rc}
	err = do(src)
	if err == nil || errors.Is(err, ErrInvalid) {
		// What the stream itself says, a wrong digest above all, is the
		// better reason for content that can not be read.
		io.Copy(io.Discard, io.LimitReader(src, max(l.Size-src.n, 0)+1))
	}
	if src.err != nil {
		err = src.err
	}
	if err != nil {
		return fmt.Errorf("layer %q: %w", l.Name, err)
	}
	return nil
}

// readTar reads an archive to its end. What was unpacked is written to unpacked
// as well, unless that is nil.
func readTar(src *source, mediaType string, maxRatio int64, unpacked io.Writer, visit visitor) error {
	in := bufio.NewReaderSize(src, 256<<10)
	plain, err := decompress(in, mediaType)
	if err != nil {
		return err
	}
	defer plain.Close()
	var content io.Reader = &ratioReader{r: plain, src: src, max: maxRatio}
	if unpacked != nil {
		content = io.TeeReader(content, unpacked)
	}
	tr := tar.NewReader(content)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		// ErrInsecurePath, which a GODEBUG setting asks for, comes with a
		// header: its name is judged here, and not by that setting.
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return invalid(err)
		}
		if err := src.ctx.Err(); err != nil {
			return err
		}
		if err := visit(h, tr); err != nil {
			return err
		}
	}
	return zerosOnly(content)
}

// decompress returns what in holds. It goes by the first bytes, as all
// runtimes do, because media types are often wrong about compression.
func decompress(in *bufio.Reader, mediaType string) (io.ReadCloser, error) {
	if strings.HasSuffix(mediaType, "+encrypted") {
		return nil, fmt.Errorf("%w: it is encrypted (%q)", ErrInvalid, mediaType)
	}
	magic, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, invalid(err)
	}
	begins := func(s string) bool { return bytes.HasPrefix(magic, []byte(s)) }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, invalid(err)
		}
		return z, nil
	case begins("\x28\xb5\x2f\xfd"), len(magic) >= 4 && magic[0]&0xf0 == 0x50 && begins(string(magic[:1])+"\x2a\x4d\x18"):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, invalid(err)
		}
		return z.IOReadCloser(), nil
	case begins("BZh"), begins("\xfd7zXZ\x00"):
		return nil, fmt.Errorf("%w: its compression (bzip2 or xz) is not one of a layer", ErrInvalid)
	}
	return io.NopCloser(in), nil
}

// zerosOnly reads r to its end, behind an archive, where only padding may be.
func zerosOnly(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return fmt.Errorf("%w: data behind the end of the archive", ErrInvalid)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return invalid(err)
		}
	}
}

// invalid makes an error of a decoder one of this package.
func invalid(err error) error {
	switch {
	case errors.Is(err, ErrLimit), errors.Is(err, ErrInvalid):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: zstd window over %d bytes", ErrLimit, maxWindow)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// source is a layer's stream. It counts, ends with its context, and keeps the
// error that it ended with, which decoders are free to disguise.
type source struct {
	ctx context.Context // of the one call that reads
	r   io.Reader
	n   int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.err = s.ctx.Err(); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// ratioReader passes on what a decoder makes of src, while that is in
// proportion.
type ratioReader struct {
	r   io.Reader
	src *source
	n   int64
	max int64
}

func (r *ratioReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	if r.n > ratioFloor && r.n/r.max > r.src.n {
		return 0, fmt.Errorf("%w: %d bytes unpack to %d or more, over %d to one", ErrLimit, r.src.n, r.n, r.max)
	}
	return n, err
}
