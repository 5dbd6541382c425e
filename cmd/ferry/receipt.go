package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/verify"
)

// receiptFlags say where the receipt goes, and who signs it.
type receiptFlags struct{ where, key string }

func (r *receiptFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.where, "receipt", "", "write the receipt to `WHERE` too: a file, a folder (one file each), or oci://HOST/PROJECT/REPO")
	f.StringVar(&r.key, "receipt-key", "", "private key to sign the receipt with: FILE.sigstore.json; only receipts signed with it count")
}

// receiptPlace is where receipts are kept.
type receiptPlace interface {
	// read calls each with the receipts there about bundles of a name, one at a
	// time, and with others where the place can not tell.
	read(ctx context.Context, name string, each func(storedReceipt) error) error
	write(ctx context.Context, receipt *transfer.Receipt, content, signature []byte) error
}

// storedReceipt is a receipt as it was read. Nothing of it is trusted yet.
type storedReceipt struct {
	where              string
	content, signature []byte // signature is nil without one
}

// receipts keeps the receipts of one command. The nil receipts keeps none.
type receipts struct {
	place  receiptPlace
	signer *verify.Signer // or nil
}

func (a *app) receipts(ctx context.Context, flags receiptFlags) (*receipts, error) {
	if flags.where == "" {
		if flags.key != "" {
			return nil, usagef("--receipt-key wants --receipt WHERE")
		}
		return nil, nil
	}
	r := &receipts{}
	var err error
	info, missing := os.Stat(flags.where)
	switch {
	case strings.HasPrefix(flags.where, "oci://"):
		at, err := registry.ParseRepository(trimScheme(flags.where))
		if err != nil {
			return nil, usageError{err}
		}
		r.place = receiptRepository{a.registry(), at}
	case strings.HasSuffix(flags.where, "/") || missing == nil && info.IsDir():
		r.place = receiptFolder(filepath.Clean(flags.where))
	case isRegistry(flags.where) && strings.Contains(strings.SplitN(flags.where, "/", 2)[0], ":"):
		return nil, usagef("--receipt %q: is that a place in a registry? Then it is oci://%s", flags.where, flags.where)
	default:
		r.place = receiptFile(flags.where)
	}
	if flags.key != "" {
		r.signer, err = a.signer(ctx, flags.key)
	}
	return r, err
}

// witnesses returns what the receipts tell of bundles of a name. With a key,
// those that it has not signed are told, and count for nothing.
func (r *receipts) witnesses(ctx context.Context, a *app, name string) ([]transfer.Witness, error) {
	if r == nil {
		return nil, nil
	}
	var list []transfer.Witness
	err := r.place.read(ctx, name, func(s storedReceipt) error {
		if err := r.signed(ctx, s); err != nil {
			a.Warn("receipt %s does not count: %v", s.where, err)
			return nil
		}
		w, err := transfer.ParseWitness(s.content, s.where)
		if err == nil && w.Name == name {
			list = append(list, w)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	return list, nil
}

// believed reports whether a key vouches for what the receipts tell.
func (r *receipts) believed() bool { return r != nil && r.signer != nil }

// isAt reports whether the receipts are kept in a repository.
func (r *receipts) isAt(repo registry.Repository) bool {
	if r == nil {
		return false
	}
	at, ok := r.place.(receiptRepository)
	return ok && at.at == repo
}

// signed returns an error unless the site's key, if there is one, has signed a
// receipt.
func (r *receipts) signed(ctx context.Context, s storedReceipt) error {
	if r.signer == nil {
		return nil
	}
	var signatures [][]byte
	if s.signature != nil {
		signatures = [][]byte{s.signature}
	}
	_, err := verify.KeyPolicy(r.signer.Key()).Open(ctx, s.content, signatures, time.Time{}, func([]byte) (verify.Claims, error) { return verify.Claims{}, nil })
	return err
}

// save writes a receipt with its signature.
func (r *receipts) save(ctx context.Context, receipt *transfer.Receipt) error {
	if r == nil {
		return nil
	}
	content, err := json.MarshalIndent(receipt, "", "  ")
	if err != nil {
		return err
	}
	content = append(content, '\n')
	var signature []byte
	if r.signer != nil {
		if signature, err = r.signer.Sign(content); err != nil {
			return err
		}
	}
	if err := r.place.write(ctx, receipt, content, signature); err != nil {
		return fmt.Errorf("all is imported, but the receipt was not written: %w", err)
	}
	return nil
}

// receiptFile is a file, for one receipt.
type receiptFile string

func (f receiptFile) read(_ context.Context, _ string, each func(storedReceipt) error) error {
	info, err := os.Stat(string(f))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil // nothing, or such as /dev/stdout
	}
	return readReceipt(string(f), each)
}

// readReceipt calls each with a receipt and its signature.
func readReceipt(name string, each func(storedReceipt) error) (err error) {
	s := storedReceipt{where: name}
	if s.content, err = readFile(name, transfer.MaxReceipt); err != nil {
		return err
	}
	s.signature, err = readFile(name+policySignature, verify.MaxSignature)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return each(s)
}

func (f receiptFile) write(ctx context.Context, _ *transfer.Receipt, content, signature []byte) error {
	return writeReceipt(ctx, string(f), content, signature)
}

// writeReceipt replaces a receipt, and its signature; without one none stays.
func writeReceipt(ctx context.Context, name string, content, signature []byte) error {
	if err := writeFile(ctx, name, content); err != nil {
		return err
	}
	if signature != nil {
		return writeFile(ctx, name+policySignature, signature)
	}
	if err := os.Remove(name + policySignature); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile replaces a file whole.
func writeFile(ctx context.Context, name string, content []byte) error {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(name, content, 0o644) // such as /dev/stdout
	}
	return bundle.NewDir(dir).Put(ctx, base, content)
}

// receiptFolder is a folder with a folder for each bundle's name in it, and in
// that a file VERSION-TIME.json for each import.
type receiptFolder string

func (f receiptFolder) read(ctx context.Context, name string, each func(storedReceipt) error) error {
	infos, err := bundle.NewDir(filepath.Join(string(f), name)).List(ctx, "")
	if err != nil {
		return err
	}
	for _, info := range infos {
		if !strings.HasSuffix(info.Name, ".json") || strings.HasSuffix(info.Name, policySignature) || strings.Contains(info.Name, "/") {
			continue
		}
		if err := readReceipt(filepath.Join(string(f), name, info.Name), each); err != nil {
			return err
		}
	}
	return nil
}

func (f receiptFolder) write(ctx context.Context, r *transfer.Receipt, content, signature []byte) error {
	dir := bundle.NewDir(filepath.Join(string(f), r.Bundle.Name))
	base := fmt.Sprintf("%s-%s", r.Bundle.Version, r.Finished.UTC().Format("20060102T150405Z"))
	for n := 1; ; n++ {
		file := base + ".json"
		if n > 1 { // several in one second
			file = fmt.Sprintf("%s-%d.json", base, n)
		}
		err := dir.PutNew(ctx, file, content)
		if errors.Is(err, bundle.ErrExists) {
			continue
		}
		if err != nil || signature == nil {
			return err
		}
		return dir.Put(ctx, file+policySignature, signature)
	}
}

// receiptRepository is a repository, with a tag for each bundle's name.
type receiptRepository struct {
	client *registry.Client
	at     registry.Repository
}

func (p receiptRepository) read(ctx context.Context, name string, each func(storedReceipt) error) error {
	content, signature, err := transfer.GetReceipt(ctx, p.client, p.at, name)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return each(storedReceipt{p.at.String(), content, signature})
}

func (p receiptRepository) write(ctx context.Context, r *transfer.Receipt, content, signature []byte) error {
	return transfer.PutReceipt(ctx, p.client, p.at, r.Bundle.Name, content, signature)
}
