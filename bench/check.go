package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkExport verifies a local result: a bundle with ferry, a layout by its
// blobs, their content the first time.
func checkExport(ctx context.Context, l *lab, c contender, t trial, first bool) error {
	switch c.kind {
	case kindFerry:
		return l.checkBundle(ctx, bundleIn(t.out))
	case kindTool:
		return l.checkLayout(t.out, first)
	case kindFloor:
		info, err := os.Stat(filepath.Join(t.out, floorFile))
		if err == nil && info.Size() != l.plan.bytes() {
			err = fmt.Errorf("%s has %d bytes, want %d", info.Name(), info.Size(), l.plan.bytes())
		}
		return err // it has hashed what it wrote
	}
	return nil
}

// checkBucket verifies a bundle in the bucket, or the object of the floor, its
// content the first time.
func checkBucket(ctx context.Context, l *lab, c contender, t trial, first bool) error {
	if c.kind == kindFloor {
		return l.checkRow(filepath.Join(l.s3.folder, t.prefix, floorFile), first)
	}
	return l.checkBundle(ctx, bundleIn("s3://"+s3Bucket+"/"+t.prefix))
}

// checkRow checks a file with all blobs in a row.
func (l *lab) checkRow(name string, hash bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() != l.plan.bytes() {
		err = fmt.Errorf("%s has %d bytes, want %d", name, info.Size(), l.plan.bytes())
	}
	if err != nil || !hash {
		return err
	}
	for _, b := range l.plan.Blobs {
		h := sha256.New()
		n, err := io.Copy(h, io.NewSectionReader(f, b.Offset, b.Size))
		if err := errors.Join(err, checkBlob(b, n, h)); err != nil {
			return err
		}
	}
	return nil
}

// checkBundle verifies a bundle and that it has all images.
func (l *lab) checkBundle(ctx context.Context, location string) error {
	if _, err := l.ferrySays(ctx, "verify", location, "--key", l.publicKey); err != nil {
		return err
	}
	said, err := l.ferrySays(ctx, "inspect", location, "--key", l.publicKey, "--format", "json")
	if err != nil {
		return err
	}
	for _, m := range l.plan.images() {
		if !strings.Contains(said, m.Digest) {
			return fmt.Errorf("%s does not have %s:%s@%s", location, m.Repository, m.Tag, m.Digest)
		}
	}
	return nil
}

func (l *lab) ferrySays(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.ferry, args...)
	cmd.Env = l.environment()
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ferry %s: %w\n%s", strings.Join(args, " "), err, tail(said.String()))
	}
	return string(out), nil
}

// checkLayout checks that an image layout has every blob and manifest.
func (l *lab) checkLayout(folder string, hash bool) error {
	for _, m := range l.plan.Manifests {
		if err := checkBlobFile(folder, m.Digest, int64(len(m.Data)), true); err != nil {
			return err
		}
	}
	for _, b := range l.plan.Blobs {
		if err := checkBlobFile(folder, b.Digest, b.Size, hash); err != nil {
			return err
		}
	}
	return nil
}

func checkBlobFile(folder, digest string, size int64, hash bool) error {
	f, err := os.Open(filepath.Join(folder, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("%s has %d bytes, want %d", f.Name(), info.Size(), size)
	}
	if !hash {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the content of %s", f.Name(), got)
	}
	return nil
}

// checkTarget asks the target for the digest of every manifest and, when the
// target was empty, for every blob; the first time it hashes them, too.
func checkTarget(ctx context.Context, l *lab, _ contender, t trial, first bool) error {
	c := newRegistryClient(t.target, l.jobs)
	defer c.http.CloseIdleConnections()
	err := each(ctx, l.jobs, l.plan.Manifests, func(ctx context.Context, m planManifest) error {
		digest, err := c.head(ctx, m)
		if err == nil && digest != m.Digest {
			err = fmt.Errorf("%s:%s is %s, want %s", m.Repository, m.Tag, digest, m.Digest)
		}
		return err
	})
	if err != nil {
		return err
	}
	return each(ctx, l.jobs, l.plan.Blobs, func(ctx context.Context, b planBlob) error {
		for _, repository := range b.Repositories {
			if err := c.hasBlob(ctx, repository, b.Digest, b.Size); err != nil {
				return err
			}
		}
		if !first {
			return nil
		}
		resp, err := c.blob(ctx, b.Repositories[0], b.Digest)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		h := sha256.New()
		n, err := copyBuffered(h, resp.Body)
		return errors.Join(err, checkBlob(b, n, h))
	})
}

// bytesBelow returns the size of all files in a folder, which may be missing.
func bytesBelow(folder string) int64 {
	var n int64
	filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
