package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// floorBuffer, in bytes, is what the floors read at once.
const floorBuffer = 256 << 10

// floorFile is the name of the file that the export floor writes.
const floorFile = "volume"

// buffers keeps the floors from asking for new memory with each blob.
var buffers = sync.Pool{New: func() any { return new([floorBuffer]byte) }}

// floorArgs are the flags of the floors.
type floorArgs struct {
	plan     *plan
	from, to string // hosts of registries
	file     string
	jobs     int
	hash     bool
}

func parseFloor(name string, args []string) (floorArgs, error) {
	var a floorArgs
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	planFile := flags.String("plan", "", "`FILE` that says what the workload is")
	flags.StringVar(&a.from, "from", "", "`HOST` to read from")
	flags.StringVar(&a.to, "to", "", "`HOST` to write to")
	flags.StringVar(&a.file, "file", "", "`FILE` with all blobs")
	flags.IntVar(&a.jobs, "jobs", 4, "blobs at once")
	flags.BoolVar(&a.hash, "hash", true, "hash what is sent")
	if err := flags.Parse(args); err != nil {
		return a, err
	}
	p, err := readPlan(*planFile)
	a.plan = p
	return a, err
}

// floorExportPart fetches, hashes and writes each blob once.
func floorExportPart(ctx context.Context, args []string) error {
	a, err := parseFloor("floor-export", args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(a.file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(a.file)
	if err != nil {
		return err
	}
	c := newRegistryClient(a.from, a.jobs)
	err = each(ctx, a.jobs, a.plan.Blobs, func(ctx context.Context, b planBlob) error {
		resp, err := c.blob(ctx, b.Repositories[0], b.Digest)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		h := sha256.New()
		n, err := copyBuffered(io.MultiWriter(h, io.NewOffsetWriter(f, b.Offset)), resp.Body)
		return errors.Join(err, checkBlob(b, n, h))
	})
	return errors.Join(err, f.Close())
}

// copyBuffered copies with one of the buffers.
func copyBuffered(w io.Writer, r io.Reader) (int64, error) {
	buffer := buffers.Get().(*[floorBuffer]byte)
	defer buffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buffer[:])
}

func checkBlob(b planBlob, n int64, h hash.Hash) error {
	if got := digestOf(h); n != b.Size || got != b.Digest {
		return fmt.Errorf("%s of %d bytes is %s of %d", b.Digest, b.Size, got, n)
	}
	return nil
}

// floorImportPart reads, hashes (or not) and sends each blob once.
func floorImportPart(ctx context.Context, args []string) error {
	a, err := parseFloor("floor-import", args)
	if err != nil {
		return err
	}
	send := sendPart(func(b planBlob) (*filePart, error) { return openPart(a.file, b.Offset, b.Size) })
	if a.hash {
		f, err := os.Open(a.file)
		if err != nil {
			return err
		}
		defer f.Close()
		send = func(ctx context.Context, c *registryClient, b planBlob) error {
			return sendHashed(ctx, c, b, io.NewSectionReader(f, b.Offset, b.Size))
		}
	}
	return pushAll(ctx, newRegistryClient(a.to, a.jobs), a.plan, a.jobs, send)
}

// sendHashed sends a blob, hashed on the way.
func sendHashed(ctx context.Context, c *registryClient, b planBlob, r io.Reader) error {
	h := sha256.New()
	body := &hashed{r: r, h: h}
	if err := c.putBlob(ctx, b.Repositories[0], b.Digest, b.Size, body); err != nil {
		return err
	}
	return checkBlob(b, body.n, h)
}

// hashed hashes and counts what is read.
type hashed struct {
	r io.Reader
	h hash.Hash
	n int64
}

func (b *hashed) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.h.Write(p[:n])
	b.n += int64(n)
	return n, err
}

// floorAgainPart asks once for each tag.
func floorAgainPart(ctx context.Context, args []string) error {
	a, err := parseFloor("floor-again", args)
	if err != nil {
		return err
	}
	c := newRegistryClient(a.to, a.jobs)
	return each(ctx, a.jobs, a.plan.images(), func(ctx context.Context, m planManifest) error {
		digest, err := c.head(ctx, m)
		if err == nil && digest != m.Digest {
			err = fmt.Errorf("%s:%s is %s, want %s", m.Repository, m.Tag, digest, m.Digest)
		}
		return err
	})
}

// floorCopyPart fetches, hashes and sends each blob once.
func floorCopyPart(ctx context.Context, args []string) error {
	a, err := parseFloor("floor-copy", args)
	if err != nil {
		return err
	}
	from := newRegistryClient(a.from, a.jobs)
	return pushAll(ctx, newRegistryClient(a.to, a.jobs), a.plan, a.jobs, func(ctx context.Context, c *registryClient, b planBlob) error {
		resp, err := from.blob(ctx, b.Repositories[0], b.Digest)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return sendHashed(ctx, c, b, resp.Body)
	})
}

// getPart writes what is at each URL to the file that is named after it.
func getPart(ctx context.Context, args []string) error {
	client := newHTTPClient(1)
	for ; len(args) >= 2; args = args[2:] {
		if err := get(ctx, client, args[0], args[1]); err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET of what becomes %s: %s", name, resp.Status)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body) // splice, where the kernel can
	return errors.Join(err, f.Close())
}
