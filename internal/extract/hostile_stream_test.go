package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"ferry/verify"
)

func streamCases(t *testing.T) []hostile {
	zeros := string(make([]byte, 100<<20))
	bomb := archive(t, file644("b", zeros))
	tarball := archive(t, file644("f", "x"))
	flipped := bytes.Clone(gz(tarball))
	flipped[len(flipped)-5] ^= 1
	window := append([]byte("\x28\xb5\x2f\xfd\x00\xa8"), 1, 0, 0) // 2 GiB, one empty last block
	members := append(bytes.Repeat(gz(nil), 50_000), gz(tarball)...)
	lying := func(change func([]byte) []byte, compress func([]byte) []byte) func(*testing.T, string) []Layer {
		return func(t *testing.T, _ string) []Layer {
			good := compress(archive(t, file644("f", strings.Repeat("x", 5000))))
			l := blob(good)
			bad := change(bytes.Clone(good))
			l.Open = func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(verify.NewReader(bytes.NewReader(bad), verify.DigestOf(good), int64(len(good)))), nil
			}
			return []Layer{l}
		}
	}
	same := func(b []byte) []byte { return b }
	flip := func(at int) func([]byte) []byte { return func(b []byte) []byte { b[at] ^= 1; return b } }
	failing := func(open func(context.Context) (io.ReadCloser, error)) func(*testing.T, string) []Layer {
		return func(*testing.T, string) []Layer { return []Layer{{Name: "sha256:x", Open: open}} }
	}
	odd := func(mediaType string, b []byte) func(*testing.T, string) []Layer {
		return func(*testing.T, string) []Layer {
			l := blob(b)
			l.MediaType = mediaType
			return []Layer{l}
		}
	}
	return []hostile{
		{name: "gzip bomb", threat: "T19", layers: content(gz(bomb)), err: ErrLimit},
		{name: "zstd bomb", threat: "T19", layers: content(zst(bomb)), err: ErrLimit},
		{name: "gzip bomb outside Path", threat: "T19", o: Options{Path: "f"}, layers: content(gz(bomb)), err: ErrLimit},
		{name: "gzip bomb, hidden", threat: "T19", layers: func(t *testing.T, _ string) []Layer {
			return []Layer{blob(gz(bomb)), blob(archive(t, file644("b", "1")))}
		}, err: ErrLimit},
		{name: "gzip bomb behind the archive", threat: "T19", layers: content(gz(append(bytes.Clone(tarball), zeros...))), err: ErrLimit},
		{name: "gzip bomb in a gzip", threat: "T19", layers: content(gz(archive(t, file644("b.gz", string(gz(bomb)))))), tree: []string{"b.gz=" + fmt.Sprintf("%x", sha(gz(bomb)))}},
		{name: "gzip twice", threat: "T19", layers: content(gz(gz(tarball))), err: ErrInvalid},
		{name: "many empty gzip members", threat: "T19", layers: content(members), tree: []string{"f=x"}},
		{name: "zstd window of 2 GiB", threat: "T19", layers: content(window), err: ErrLimit},
		{name: "zstd size of 8 EiB", threat: "T19", layers: content([]byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x00\x00")), err: ErrLimit},
		{name: "gzip in members", threat: "T19", layers: content(append(gz(tarball[:700]), gz(tarball[700:])...)), tree: []string{"f=x"}},
		{name: "zstd in frames", threat: "T19", layers: content(append(zst(tarball[:700]), zst(tarball[700:])...)), tree: []string{"f=x"}},
		{name: "zstd with a skippable frame", threat: "T19", layers: content(append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00hi"), zst(tarball)...)), tree: []string{"f=x"}},
		{name: "gzip cut", threat: "T03", layers: content(gz(tarball)[:60]), err: ErrInvalid},
		{name: "gzip cut in its end", threat: "T03", layers: content(gz(tarball)[:len(gz(tarball))-3]), err: ErrInvalid},
		{name: "gzip header only", threat: "T03", layers: content(gz(tarball)[:6]), err: ErrInvalid},
		{name: "gzip checksum wrong", threat: "T03", layers: content(flipped), err: ErrInvalid},
		{name: "gzip with data behind", threat: "T07", layers: content(append(gz(tarball), "garbage behind"...)), err: ErrInvalid},
		{name: "gzip with archive behind", threat: "T07", layers: content(append(gz(tarball), gz(archive(t, file644("g", "x")))...)), err: ErrInvalid},
		{name: "zstd cut", threat: "T03", layers: content(zst(tarball)[:40]), err: ErrInvalid},
		{name: "zstd with data behind", threat: "T07", layers: content(append(zst(tarball), "garbage behind"...)), err: ErrInvalid},
		{name: "bzip2", threat: "T14", layers: content([]byte("BZh91AY&SY")), err: ErrInvalid},
		{name: "xz", threat: "T14", layers: content([]byte("\xfd7zXZ\x00\x00\x04")), err: ErrInvalid},
		{name: "encrypted", threat: "T14", layers: odd("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", tarball), err: ErrInvalid},
		{name: "gzip that says it is plain", threat: "T14", layers: odd("application/vnd.oci.image.layer.v1.tar", gz(tarball)), tree: []string{"f=x"}},
		{name: "zstd that says it is gzip", threat: "T14", layers: odd("application/vnd.docker.image.rootfs.diff.tar.gzip", zst(tarball)), tree: []string{"f=x"}},
		{name: "plain that says it is zstd", threat: "T14", layers: odd("application/vnd.oci.image.layer.v1.tar+zstd", tarball), tree: []string{"f=x"}},
		{name: "one bit of content", threat: "T01", layers: lying(flip(3000), same), err: verify.ErrMismatch},
		{name: "one bit of a header", threat: "T01", layers: lying(flip(3), same), err: verify.ErrMismatch},
		{name: "one bit of padding", threat: "T01", layers: lying(flip(6500), same), err: verify.ErrMismatch},
		{name: "one bit of a gzip", threat: "T01", layers: lying(flip(20), gz), err: verify.ErrMismatch},
		{name: "one bit of a gzip's time", threat: "T01", layers: lying(flip(4), gz), err: verify.ErrMismatch},
		{name: "one bit of a zstd", threat: "T01", layers: lying(flip(30), zst), err: verify.ErrMismatch},
		{name: "stream too short", threat: "T13", layers: lying(func(b []byte) []byte { return b[:len(b)-1] }, same), err: verify.ErrMismatch},
		{name: "stream too long", threat: "T13", layers: lying(func(b []byte) []byte { return append(b, 0) }, same), err: verify.ErrMismatch},
		{name: "gzip stream too long", threat: "T13", layers: lying(func(b []byte) []byte { return append(b, gz(nil)...) }, gz), err: verify.ErrMismatch},
		{name: "open fails", threat: "T41", layers: failing(func(context.Context) (io.ReadCloser, error) { return nil, errTest }), err: errTest},
		{name: "read fails", threat: "T41", layers: failing(func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(gz(tarball)[:50]), failingReader{})), nil
		}), err: errTest},
		{name: "read fails at the end", threat: "T41", layers: failing(func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(zst(tarball)), failingReader{})), nil
		}), err: errTest},
		{name: "close fails", threat: "T41", layers: failing(func(context.Context) (io.ReadCloser, error) {
			return failingCloser{bytes.NewReader(tarball)}, nil
		}), err: errTest},
	}
}

var errTest = errors.New("as the test wants")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errTest }

type failingCloser struct{ io.Reader }

func (failingCloser) Close() error { return errTest }

func limitCases() []hostile {
	deep := func(n int) string { return strings.TrimSuffix(strings.Repeat("d/", n), "/") }
	wide := strings.Repeat("n", 255)
	long := strings.Repeat(wide+"/", 8) // 2048 bytes
	ladder := func(n int) []string {
		var tree []string
		for i := 1; i <= n; i++ {
			tree = append(tree, deep(i)+"/")
		}
		return tree
	}
	var longTree []string
	for i := 1; i <= 8; i++ {
		longTree = append(longTree, strings.Repeat(wide+"/", i))
	}
	repeated := func(n int) func(*testing.T, string) []Layer { // n headers of one directory
		return func(*testing.T, string) []Layer {
			return []Layer{streamed(func() io.Reader {
				return io.MultiReader(&repeat{block: rawHeader("d/", "", '5', octal(0)), n: n}, bytes.NewReader(make([]byte, 1024)))
			})}
		}
	}
	three := ents{file644("a", "12345"), file644("b", "12345"), file644("c", "12345")}
	return []hostile{
		{name: "10,000 levels", threat: "T38", layers: one(ents{file644(deep(10_000), "")}), err: ErrLimit},
		{name: "257 levels", threat: "T38", layers: one(ents{dir(deep(257))}), err: ErrLimit},
		{name: "256 levels", threat: "T38", layers: one(ents{dir(deep(256))}), tree: ladder(256)},
		{name: "257 levels as link", threat: "T38", layers: one(ents{link(deep(257), "x")}), err: ErrLimit},
		{name: "257 levels as hard link target", threat: "T38", layers: one(ents{hardlink("h", deep(257))}), err: ErrLimit},
		{name: "element of 256 bytes", threat: "T38", layers: one(ents{file644(wide+"n", "")}), err: ErrLimit},
		{name: "element of 255 bytes", threat: "T38", layers: one(ents{file644(wide, "")}), tree: []string{wide + "="}},
		{name: "path of 4,097 bytes", threat: "T38", layers: one(ents{file644(long+long+"x", "")}), err: ErrLimit},
		{name: "path of 2,049 bytes", threat: "T38", layers: one(ents{dir(long + "x")}), err: ErrLimit},
		{name: "path of 2,048 bytes", threat: "T38", layers: one(ents{dir(long)}), tree: longTree},
		{name: "1,000,001 entries", threat: "T38", layers: repeated(1_000_001), err: ErrLimit},
		{name: "entries over MaxFiles", threat: "T38", o: Options{MaxFiles: 2}, layers: one(three), err: ErrLimit},
		{name: "entries at MaxFiles", threat: "T38", o: Options{MaxFiles: 3}, layers: one(three), tree: []string{"a=12345", "b=12345", "c=12345"}},
		{name: "entries of layers over MaxFiles", threat: "T38", o: Options{MaxFiles: 5}, layers: one(three, three), err: ErrLimit},
		{name: "implied directories over MaxFiles", threat: "T38", o: Options{MaxFiles: 3}, layers: one(ents{file644("a/b/c/d", "")}), err: ErrLimit},
		{name: "whiteouts over MaxFiles", threat: "T38", o: Options{MaxFiles: 3}, layers: one(ents{file644("a/b/c/.wh.d", "")}), err: ErrLimit},
		{name: "bytes over MaxBytes", threat: "T19", o: Options{MaxBytes: 14}, layers: one(three), err: ErrLimit},
		{name: "bytes at MaxBytes", threat: "T19", o: Options{MaxBytes: 15}, layers: one(three), tree: []string{"a=12345", "b=12345", "c=12345"}},
		{name: "bytes of layers over MaxBytes", threat: "T19", o: Options{MaxBytes: 9}, layers: one(ents{file644("a", "12345")}, ents{file644("b", "12345")}), err: ErrLimit},
		{name: "hidden bytes do not count", threat: "T19", o: Options{MaxBytes: 5}, layers: one(ents{file644("a", "123456")}, ents{file644("a", "12345")}), tree: []string{"a=12345"}},
		{name: "bytes written twice count twice", threat: "T19", o: Options{MaxBytes: 9}, layers: one(ents{file644("a", "12345"), file644("a", "12345")}), err: ErrLimit},
		{name: "file over MaxFileBytes", threat: "T19", o: Options{MaxFileBytes: 4}, layers: one(three), err: ErrLimit},
		{name: "ratio by request", threat: "T19", o: Options{MaxRatio: 2000}, layers: func(t *testing.T, _ string) []Layer {
			return []Layer{blob(gz(archive(t, file644("b", string(make([]byte, 65<<20))))))}
		}, tree: []string{"b=" + fmt.Sprintf("%x", sha(make([]byte, 65<<20)))}},
	}
}

// repeat is a block n times.
type repeat struct {
	block []byte
	n     int
	rest  []byte
}

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.n == 0 {
				return n, io.EOF
			}
			r.n--
			r.rest = r.block
		}
		k := copy(p[n:], r.rest)
		r.rest, n = r.rest[k:], n+k
	}
	return n, nil
}

// TestNamesOverMemory reads links with long targets without end: they are
// refused for their bytes, long before their number.
func TestNamesOverMemory(t *testing.T) { // T38
	names := &manyNames{}
	f := newField(t, t.TempDir())
	_, err := Image(t.Context(), []Layer{streamed(func() io.Reader { return names })}, f.dest, Options{})
	if !errors.Is(err, ErrLimit) || names.n > 100_000 {
		t.Errorf("Image = %v after %d links, want %v", err, names.n, ErrLimit)
	}
	f.check(t)
}

// manyNames is an endless archive of links with long targets, none of which is
// ever made.
type manyNames struct {
	n    int
	rest []byte
}

func (m *manyNames) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		m.n++
		target := append(rawHeader("././@LongLink", "", 'K', octal(4096)), bytes.Repeat([]byte("t"), 4096)...)
		m.rest = append(target, rawHeader(fmt.Sprintf("l%d", m.n), "", '2', octal(0))...)
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}
