package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/internal/transport"
	"ferry/s3store"
	"ferry/verify"
)

// place is where a bundle is: a store, and in it a folder or a volume.
type place struct {
	store  bundle.Store
	volume string // a volume that was named itself, or ""
}

// store returns the store that a location names, a path or s3://bucket/prefix.
func (a *app) store(ctx context.Context, location string) (bundle.Store, error) {
	if location == "-" {
		return nil, usagef("%q: a bundle can not come from or go to a pipe: give a folder, a .tar or s3://bucket/prefix", location)
	}
	if !strings.HasPrefix(location, "s3://") {
		if scheme, _, found := strings.Cut(location, "://"); found {
			return nil, usagef("location %q: %s:// is not supported, only paths and s3://bucket/prefix", location, scheme)
		}
		return bundle.NewDir(location), nil
	}
	o, err := s3store.ParseURL(location)
	if err != nil {
		return nil, usageError{err}
	}
	// The buffers of parts are the most of what is in memory. By default as
	// much again would be left lying about before it is collected.
	debug.SetGCPercent(50)
	// The SDK does the retries; to join the parts of a large object takes a
	// server minutes.
	o.Endpoint, o.Memory, o.Parallel = a.flags.s3Endpoint, a.partsMemory(), min(a.flags.jobs, cmp.Or(a.flags.hostJobs, a.flags.jobs))
	if id, secret := cmp.Or(a.env("AWS_ACCESS_KEY_ID"), a.env("AWS_ACCESS_KEY")), cmp.Or(a.env("AWS_SECRET_ACCESS_KEY"), a.env("AWS_SECRET_KEY")); id != "" && secret != "" {
		o.Credentials = credentials.NewStaticCredentialsProvider(id, secret, a.env("AWS_SESSION_TOKEN"))
	}
	if a.services != nil && a.services.s3 != nil {
		found := a.services.s3
		o.Endpoint = cmp.Or(o.Endpoint, found.Endpoint)
		o.Credentials = credentials.NewStaticCredentialsProvider(found.AccessKey.Reveal(), found.SecretKey.Reveal(), "")
	}
	if o.HTTP, err = a.newClient(transport.Options{Retries: -1, Idle: 10 * time.Minute, Observe: a.gate.ObserveBucket}); err != nil {
		return nil, err
	}
	return s3store.New(ctx, o)
}

// find returns the one bundle that a location leads to: the folder of a
// bundle, a volume of it, or a place with one bundle somewhere below.
func (a *app) find(ctx context.Context, location string) (place, error) {
	if dir, name := splitLast(location); strings.HasSuffix(name, ".tar") && !isFolder(location) {
		store, err := a.store(ctx, dir)
		return place{store, name}, err
	}
	if !strings.HasPrefix(location, "s3://") && location != "-" {
		if _, err := os.Stat(location); err != nil {
			return place{}, err
		}
	}
	store, err := a.store(ctx, location)
	if err != nil {
		return place{}, err
	}
	found, err := bundle.List(ctx, store)
	if err != nil {
		return place{}, err
	}
	var whole, pending []string
	for _, f := range found {
		if f.Folder == "" && !f.Pending {
			return place{store, ""}, nil
		}
		if f.Pending {
			pending = append(pending, f.Folder)
		} else {
			whole = append(whole, f.Folder)
		}
	}
	switch {
	case len(whole) == 1:
		return place{bundle.Sub(store, whole[0]), ""}, nil
	case len(whole) > 1:
		return place{}, usagef("%s has %d bundles: name one of %s", store, len(whole), strings.Join(quoted(store, whole), ", "))
	case len(pending) > 0:
		return place{}, fmt.Errorf("%w: the export to %s was not finished: run it again", bundle.ErrIncomplete, strings.Join(quoted(store, pending), ", "))
	}
	// Volumes that were carried without the files beside them.
	objects, err := store.List(ctx, "")
	if err != nil {
		return place{}, err
	}
	for _, o := range objects {
		if strings.HasSuffix(o.Name, ".tar") && !strings.Contains(o.Name, "/") && bundle.IsVolume(ctx, store, o.Name) {
			return place{store, o.Name}, nil
		}
	}
	return place{}, fmt.Errorf("%w: there is no bundle in %s", fs.ErrNotExist, store)
}

func quoted(store bundle.Store, folders []string) []string {
	var names []string
	for _, f := range folders {
		names = append(names, bundle.Sub(store, f).String())
	}
	return names
}

func isFolder(location string) bool {
	info, err := os.Stat(location)
	return err == nil && info.IsDir()
}

// splitLast splits a location at its last element.
func splitLast(location string) (dir, name string) {
	if rest, ok := strings.CutPrefix(location, "s3://"); ok {
		i := strings.LastIndex(rest, "/")
		if i < 0 {
			return location, "" // a bucket, whatever it is called
		}
		return "s3://" + rest[:i], rest[i+1:]
	}
	return filepath.Dir(location), filepath.Base(location)
}

// openBundle opens and verifies the bundle at a location.
func (a *app) openBundle(ctx context.Context, location string, trust trustFlags) (*bundle.Reader, error) {
	policy, err := a.policy(ctx, trust)
	if err != nil {
		return nil, err
	}
	at, err := a.find(ctx, location)
	if err != nil {
		return nil, err
	}
	r, err := bundle.OpenReader(ctx, at.store, at.volume, bundle.ReadOptions{Policy: policy, Now: a.now()})
	if err != nil {
		return nil, err
	}
	a.onClose(func() { r.Close() })
	a.tellOverridden(r, trust.accepts)
	m := r.Manifest()
	a.Say("verified %s %s: signed with key %s, %s", m.Name, m.Version, fingerprints(r.Signers()), count(len(m.Images), "image"))
	return r, nil
}

// fingerprints returns as much of each key's fingerprint as people compare.
func fingerprints(keys []verify.Key) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Fingerprint()[:12])
	}
	return strings.Join(list, ", ")
}

// isBundle reports whether a path is a bundle, not an image layout or archive.
func isBundle(ctx context.Context, path string) bool {
	if isFolder(path) {
		if _, err := os.Stat(filepath.Join(path, "index.json")); err == nil {
			return false
		}
		found, err := bundle.List(ctx, bundle.NewDir(path))
		return err == nil && len(found) > 0 || hasVolume(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return startsVolume(f)
}

func hasVolume(dir string) bool {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.tar"))
	return err == nil && len(names) > 0
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// volumeStart is what every volume begins with: the name of its first entry.
const volumeStart = bundle.ManifestName + "\x00"

func startsVolume(f *os.File) bool {
	begin := make([]byte, len(volumeStart))
	_, err := f.ReadAt(begin, 0)
	return err == nil && string(begin) == volumeStart
}

// isRegistry reports whether a destination is in a registry: it begins with
// what can only be a host. A path that looks like one is written with ./ or
// oci: before it.
func isRegistry(location string) bool {
	if strings.HasPrefix(location, "docker://") || strings.HasPrefix(location, "oci://") || strings.HasPrefix(location, "https://") {
		return true
	}
	if strings.HasPrefix(location, ".") || strings.HasPrefix(location, "/") || strings.HasPrefix(location, "oci:") {
		return false
	}
	host, _, _ := strings.Cut(location, "/")
	return strings.ContainsAny(host, ".:") || host == "localhost"
}

// splitDestination splits "host" or "host/prefix".
func splitDestination(s string) (host, prefix string, err error) {
	s = trimScheme(s)
	host, prefix, _ = strings.Cut(s, "/")
	if host, err = registry.ParseHost(host); err != nil {
		return "", "", usageError{err}
	}
	prefix = strings.Trim(prefix, "/")
	if prefix != "" && !bundle.ValidTarget(prefix) {
		return "", "", usagef("destination %q is not host, host/project or host/project/path", s)
	}
	return host, prefix, nil
}

// missing reports whether nothing is at a path.
func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
