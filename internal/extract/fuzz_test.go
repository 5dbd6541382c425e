package extract

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"
	"time"
)

// FuzzExtract extracts layers made of any bytes: as two layers, cut at split,
// whole, by path, or as an artifact. Whatever they are, nothing beside the
// destination changes, what is in it is harmless, and a failure leaves nothing.
func FuzzExtract(f *testing.F) {
	seed := func(stack ...[]byte) {
		f.Add(bytes.Join(stack, nil), uint32(len(stack[0])), byte(0))
		f.Add(bytes.Join(stack, nil), uint32(len(stack[0])), byte(7))
	}
	for _, c := range mergeCases {
		seed(archive(f, parse(c.layers)...))
	}
	seed(archive(f, link("l", ".."), file644("l/canary", "x")))
	seed(archive(f, link("l", "..")), archive(f, file644("l/canary", "x"), hardlink("h", "l")))
	seed(gz(archive(f, file644("../canary", "x"))), zst(archive(f, hardlink("h", "../canary"))))
	seed(archive(f, file644(".wh...", "")), archive(f, file644("d/.wh..wh..opq", "")))
	seed(raw(rawHeader("././@LongLink", "", 'L', octal(10)), []byte("../canary\x00"), rawHeader("f", "", '0', octal(1)), []byte("x")))
	seed(raw(rawHeader("c", "", '3', octal(0)), rawHeader("p", "", '6', octal(0)), rawHeader("s", "", 'S', octal(0))))

	f.Fuzz(func(t *testing.T, data []byte, split uint32, how byte) {
		parent := newField(t, memoryDir(t))
		cut := min(int(split), len(data))
		o := Options{MaxBytes: 1 << 20, MaxFiles: 2000, AbsoluteNames: how&1 != 0, Unpack: true, Links: LinkPolicy(how >> 1 & 3)}
		if how&8 != 0 {
			o.Path = "d"
		}
		lower, upper := fuzzLayer(data[:cut]), fuzzLayer(data[cut:])
		lower.Title, lower.Unpack = "d", true
		run := Image
		if how&16 != 0 {
			run = Artifact
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rep, err := run(ctx, []Layer{lower, upper}, parent.dest, o)
		parent.check(t)
		if _, serr := os.Lstat(parent.dest); (serr == nil) != (err == nil) {
			t.Errorf("Image = %v, and the destination: %v", err, serr)
		}
		if err == nil {
			checkReport(t, rep, parent.dest)
		}
	})
}

func fuzzLayer(b []byte) Layer {
	return Layer{Name: "sha256:f", Size: int64(len(b)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}
