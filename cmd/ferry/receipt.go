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
	// read returns the receipts there about bundles of a name, and others
	// where the place can not tell.
	read(ctx context.Context, name string) ([]storedReceipt, error)
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
	stored, err := r.place.read(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	var list []transfer.Witness
	for _, s := range stored {
		about, w, err := transfer.ParseWitness(s.content, s.where)
		if err != nil {
			return nil, err
		}
		if about != name {
			continue
		}
		if err := r.signed(ctx, s); err != nil {
			a.Warn("receipt %s does not count: %v", s.where, err)
			continue
		}
		list = append(list, w)
	}
	return list, nil
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

func (f receiptFile) read(_ context.Context, _ string) ([]storedReceipt, error) {
	info, err := os.Stat(string(f))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, nil // nothing, or such as /dev/stdout
	}
	s, err := readReceipt(string(f))
	return []storedReceipt{s}, err
}

// readReceipt reads a receipt and its signature.
func readReceipt(name string) (s storedReceipt, err error) {
	s.where = name
	if s.content, err = readFile(name, transfer.MaxReceipt); err != nil {
		return s, err
	}
	s.signature, err = readFile(name+policySignature, verify.MaxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return s, err
}

func (f receiptFile) write(ctx context.Context, _ *transfer.Receipt, content, signature []byte) error {
	return writeReceipt(ctx, string(f), content, signature)
}

// writeReceipt replaces a receipt: the signature first, so that a file whose
// content is new is never beside the signature of the old.
func writeReceipt(ctx context.Context, name string, content, signature []byte) error {
	if signature != nil {
		if err := writeFile(ctx, name+policySignature, signature); err != nil {
			return err
		}
	}
	return writeFile(ctx, name, content)
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

func (f receiptFolder) read(ctx context.Context, name string) (list []storedReceipt, err error) {
	infos, err := bundle.NewDir(filepath.Join(string(f), name)).List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if !strings.HasSuffix(info.Name, ".json") || strings.HasSuffix(info.Name, policySignature) || strings.Contains(info.Name, "/") {
			continue
		}
		s, err := readReceipt(filepath.Join(string(f), name, info.Name))
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func (f receiptFolder) write(ctx context.Context, r *transfer.Receipt, content, signature []byte) error {
	file := fmt.Sprintf("%s-%s.json", r.Bundle.Version, r.Finished.UTC().Format("20060102T150405Z"))
	return writeReceipt(ctx, filepath.Join(string(f), r.Bundle.Name, file), content, signature)
}

// receiptRepository is a repository, with a tag for each bundle's name.
type receiptRepository struct {
	client *registry.Client
	at     registry.Repository
}

func (p receiptRepository) read(ctx context.Context, name string) ([]storedReceipt, error) {
	s := storedReceipt{where: p.at.String()}
	var err error
	s.content, s.signature, err = transfer.GetReceipt(ctx, p.client, p.at, name)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	return []storedReceipt{s}, err
}

func (p receiptRepository) write(ctx context.Context, r *transfer.Receipt, content, signature []byte) error {
	return transfer.PutReceipt(ctx, p.client, p.at, r.Bundle.Name, content, signature)
}
