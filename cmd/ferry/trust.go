package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/internal/ui"
	"ferry/verify"
)

func newTrustCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Make, sign and check a policy: whose bundles are imported",
		Long: `Make, sign, show and check a policy, trust.yaml: which keys, and how many of
them, sign bundles of which names, for which image paths, and for how long that
counts. It takes the place of --key at import, copy and wherever bundles are
verified. Who has one exporter with one key needs none.`,
		Example: `  ferry trust init trust.yaml --key alice.pub --key bob.pub --threshold 2
  ferry trust sign trust.yaml --key alice.key
  ferry trust show trust.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTrustInitCommand(a), newTrustAddKeyCommand(a), newTrustRotateCommand(a), newTrustSignCommand(a),
		newTrustShowCommand(a), newTrustCheckCommand(a), newTrustAcceptCommand(a))
	return cmd
}

func newTrustInitCommand(a *app) *cobra.Command {
	var keys []string
	var threshold int
	var expires string
	cmd := &cobra.Command{
		Use:   "init FILE",
		Short: "Write a first policy, to be signed",
		Long: `Write a policy to FILE, which must not be there: each of the keys may sign any
bundle, and --threshold of them together sign the policy itself. Edit it, then
have it signed with ferry trust sign.`,
		Example: `  ferry trust init trust.yaml --key alice.pub --key bob.pub --threshold 2`,
		Args:    wantArgs(1, 1, "a file"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.trustInit(args[0], keys, threshold, expires)
		},
	}
	listVar(cmd.Flags(), &keys, "key", "public key, named like its file (repeatable)")
	cmd.Flags().IntVar(&threshold, "threshold", 1, "how many of the keys sign the policy itself")
	cmd.Flags().StringVar(&expires, "expires", "", "when the policy stops to admit anything: a `TIME` (RFC 3339) or an age like 8760h")
	return cmd
}

// trustResult is what the verbs of ferry trust print that make or check a
// policy.
type trustResult struct {
	Policy  string `json:"policy"`
	Version int64  `json:"version"`
}

func (a *app) trustInit(name string, keys []string, threshold int, expires string) error {
	d := &verify.Draft{Version: 1}
	if expires != "" {
		lifetime, when, err := parseExpiry(expires, a.now())
		if err != nil {
			return err
		}
		if lifetime > 0 {
			when = a.now().Add(lifetime)
		}
		d.Expires = when.UTC().Format(time.RFC3339)
	}
	if len(keys) == 0 {
		return usagef("a policy needs a key: --key cosign.pub")
	}
	if threshold < 1 || threshold > len(keys) {
		return usagef("--threshold %d is not between 1 and the number of keys, %d", threshold, len(keys))
	}
	for _, file := range keys {
		key, err := draftKey(file, "")
		if err != nil {
			return err
		}
		d.Keys = append(d.Keys, key)
		d.Root.Keys = append(d.Root.Keys, key.Name)
	}
	d.Root.Threshold = threshold
	d.Roles = []verify.DraftRole{{Name: "bundles", DraftQuorum: verify.DraftQuorum{Keys: d.Root.Keys, Threshold: 1},
		Bundles: []string{"*"}, Targets: []string{"*"}}}
	return a.writeDraft(name, d)
}

// draftKey returns the public key in a file, by default with the file's name.
func draftKey(file, name string) (verify.DraftKey, error) {
	if _, err := readKeys([]string{file}); err != nil {
		return verify.DraftKey{}, err
	}
	pem, err := readFile(file, 64<<10)
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(file), ".pub")
	}
	return verify.DraftKey{Name: name, PEM: string(pem)}, err
}

// writeDraft writes a policy that nobody has signed to a new file.
func (a *app) writeDraft(name string, d *verify.Draft) error {
	raw, err := d.Encode(policyFiles(name))
	if err != nil {
		return err
	}
	if !missing(name) {
		return fmt.Errorf("%s: %w: it is not overwritten", name, bundle.ErrExists)
	}
	if err := writeNew(name, raw, 0o644); err != nil {
		return err
	}
	a.Say("wrote %s, version %d, which counts when it is signed: ferry trust sign", name, d.Version)
	return a.trusted(trustResult{name, d.Version})
}

func (a *app) trusted(r trustResult) error {
	return a.Result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n", ui.Escape(r.Policy))
		return err
	})
}

// policyFiles returns the folder of a policy, for the key files that it names.
func policyFiles(name string) fs.FS { return os.DirFS(filepath.Dir(name)) }

// keyFlags are those of a key that enters a policy.
type keyFlags struct{ file, name, notBefore, notAfter string }

func (k *keyFlags) add(f *pflag.FlagSet, nameUsage string) {
	f.StringVar(&k.file, "key", "", "the new public key (required)")
	f.StringVar(&k.name, "name", "", nameUsage)
	f.StringVar(&k.notBefore, "not-before", "", "`TIME` from which it counts (RFC 3339; default always)")
	f.StringVar(&k.notAfter, "not-after", "", "`TIME` from which it counts no more (RFC 3339; default never)")
}

func (k *keyFlags) draft() (verify.DraftKey, error) {
	if k.file == "" {
		return verify.DraftKey{}, usagef("--key is missing: the new public key")
	}
	key, err := draftKey(k.file, k.name)
	key.NotBefore, key.NotAfter = k.notBefore, k.notAfter
	return key, err
}

func newTrustAddKeyCommand(a *app) *cobra.Command {
	var k keyFlags
	var roles []string
	cmd := &cobra.Command{
		Use:   "add-key OLD NEW",
		Short: "Write the next version of a policy, with one more key",
		Long: `Write to NEW the version of the policy OLD that follows, with one more key in
each of the roles. It counts when the old root and its own have signed it.
Comments of OLD are not kept.`,
		Example: `  ferry trust add-key trust.yaml trust-2.yaml --key carol.pub --role bundles`,
		Args:    wantArgs(2, 2, "the policy and a new file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePolicy(cmd.Context(), args[0], args[1], func(d *verify.Draft) error { return addKey(d, k, roles) })
		},
	}
	k.add(cmd.Flags(), "name of the key in the policy (default that of its file)")
	listVar(cmd.Flags(), &roles, "role", "`ROLE` of the policy that the key enters, or root (repeatable; required)")
	return cmd
}

func addKey(d *verify.Draft, k keyFlags, roles []string) error {
	key, err := k.draft()
	if err != nil {
		return err
	}
	if len(roles) == 0 {
		return usagef("--role is missing: %s", strings.Join(roleNames(d), ", "))
	}
	d.Keys = append(d.Keys, key)
	for _, name := range roles {
		i := slices.IndexFunc(d.Roles, func(r verify.DraftRole) bool { return r.Name == name })
		switch {
		case name == "root":
			d.Root.Keys = append(d.Root.Keys, key.Name)
		case i < 0:
			return usagef("the policy has no role %q, only %s", name, strings.Join(roleNames(d), ", "))
		default:
			d.Roles[i].Keys = append(d.Roles[i].Keys, key.Name)
		}
	}
	return nil
}

func roleNames(d *verify.Draft) []string {
	names := []string{"root"}
	for _, r := range d.Roles {
		names = append(names, r.Name)
	}
	return names
}

func newTrustRotateCommand(a *app) *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{
		Use:   "rotate OLD NEW",
		Short: "Write the next version of a policy, with a key replaced",
		Long: `Write to NEW the version of the policy OLD that follows, with another key in the
place of the one with the name --name, in all of its roles. What only the old
key has signed is refused from then on. Comments of OLD are not kept.`,
		Example: `  ferry trust rotate trust.yaml trust-2.yaml --name alice --key alice-2027.pub`,
		Args:    wantArgs(2, 2, "the policy and a new file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changePolicy(cmd.Context(), args[0], args[1], func(d *verify.Draft) error { return rotateKey(d, k) })
		},
	}
	k.add(cmd.Flags(), "name of the key to replace (required)")
	return cmd
}

func rotateKey(d *verify.Draft, k keyFlags) error {
	i := slices.IndexFunc(d.Keys, func(key verify.DraftKey) bool { return key.Name == k.name })
	if i < 0 {
		return usagef("the policy has no key %q: --name says which one to replace", k.name)
	}
	var err error
	d.Keys[i], err = k.draft()
	return err
}

// changePolicy writes the next version of a policy. That has to be a signed
// one, so that nothing is built on what somebody else has changed.
func (a *app) changePolicy(ctx context.Context, from, to string, change func(*verify.Draft) error) error {
	file, err := readPolicy(from)
	if err != nil {
		return err
	}
	if _, err := a.openPolicy(ctx, file, &verify.Memory{}); err != nil {
		return err
	}
	d, err := verify.ParseDraft(file.raw)
	if err != nil {
		return err
	}
	d.Version++
	if err := change(d); err != nil {
		return err
	}
	return a.writeDraft(to, d)
}

func newTrustSignCommand(a *app) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a policy, beside the signatures that it has",
		Long: `Sign the policy FILE and write the signature beside it: to FILE.sigstore.json,
or when that is there to FILE.FINGERPRINT.sigstore.json. A next version has to
be signed by the root of the version before and by its own. Read it first.`,
		Example: `  ferry trust sign trust.yaml --key alice.key`,
		Args:    wantArgs(1, 1, "a policy"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.trustSign(cmd.Context(), args[0], key) },
	}
	cmd.Flags().StringVar(&key, "key", "", "private key to sign with (required)")
	return cmd
}

// readDraft reads a policy that need not be signed, with the fingerprints of
// its keys by their names.
func readDraft(name string) (policyFile, *verify.Draft, map[string]string, error) {
	file, err := readPolicy(name)
	if err != nil {
		return policyFile{}, nil, nil, err
	}
	d, err := verify.ParseDraft(file.raw)
	var prints map[string]string
	if err == nil {
		prints, err = d.Fingerprints(policyFiles(name))
	}
	if err != nil {
		return policyFile{}, nil, nil, fmt.Errorf("policy %s: %w", name, err)
	}
	return file, d, prints, nil
}

func (a *app) trustSign(ctx context.Context, name, keyFile string) error {
	if keyFile == "" {
		return usagef("--key is missing: the private key to sign with")
	}
	file, d, prints, err := readDraft(name) // with its keys, or else it could never be opened
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, keyFile)
	if err != nil {
		return err
	}
	to := name + policySignature
	if !missing(to) {
		to = name + "." + shortName(signer.Key()) + policySignature
	}
	result := struct {
		Policy      string `json:"policy"`
		Version     int64  `json:"version"`
		Signature   string `json:"signature"`
		Fingerprint string `json:"fingerprint"`
	}{name, d.Version, to, signer.Key().Fingerprint()}
	switch has, err := signedWith(ctx, file, signer.Key()); {
	case err != nil:
		return &policyError{file, 0, err}
	case has:
		a.Say("nothing to do: %s has a signature with this key", name)
		result.Signature = ""
	default:
		sig, err := signer.Sign(file.raw)
		if err != nil {
			return err
		}
		if err := writeNew(to, sig, 0o644); err != nil {
			return err
		}
		file.signatures, file.names = append(file.signatures, sig), append(file.names, to)
		a.Say("signed %s, version %d, with key %s", name, d.Version, fingerprints([]verify.Key{signer.Key()}))
	}
	if err := a.tellSigned(ctx, file, d, prints, signer.Key()); err != nil {
		return err
	}
	return a.Result(result, func(w io.Writer) error {
		if result.Signature == "" {
			return nil
		}
		_, err := fmt.Fprintf(w, "%s\n", ui.Escape(result.Signature))
		return err
	})
}

// tellSigned tells how many signatures a policy still lacks, and when that with
// key is none of them.
func (a *app) tellSigned(ctx context.Context, file policyFile, d *verify.Draft, prints map[string]string, key verify.Key) error {
	signers, err := d.RootSigners(ctx, file.raw, file.signatures, policyFiles(file.name), a.now())
	if err != nil {
		return &policyError{file, 0, err}
	}
	if !slices.ContainsFunc(d.Root.Keys, func(name string) bool { return prints[name] == key.Fingerprint() }) {
		a.Warn("key %s is none of the root of %s: it counts only where it is of the root of the version before", fingerprints([]verify.Key{key}), file.name)
	}
	a.Say("%s has %d of the %s that its own root needs", file.name, len(signers), count(d.Root.Threshold, "signature"))
	return nil
}

// shortName returns the beginning of a key's fingerprint as a part of a file's
// name.
func shortName(k verify.Key) string { return hex.EncodeToString([]byte(k.Fingerprint()[:8])) }

// signedWith reports whether a policy has a signature with a key. One that is
// damaged or over another text is an error.
func signedWith(ctx context.Context, p policyFile, key verify.Key) (bool, error) {
	_, err := verify.KeyPolicy(key).Open(ctx, p.raw, p.signatures, time.Time{}, func([]byte) (verify.Claims, error) { return verify.Claims{}, nil })
	if errors.Is(err, verify.ErrUnsigned) || errors.Is(err, verify.ErrWrongKey) {
		return false, nil
	}
	return err == nil, err
}

func newTrustShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a policy says, and whether it is signed",
		Long: `Show the keys and the roles of the policy FILE. Whether its own root has signed
it is said on stderr, with --format json also in "signed".`,
		Example: `  ferry trust show trust.yaml`,
		Args:    wantArgs(1, 1, "a policy"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.trustShow(cmd.Context(), args[0]) },
	}
}

// shownPolicy is a policy as ferry trust show prints it.
type shownPolicy struct {
	Policy  string      `json:"policy"`
	Version int64       `json:"version"`
	Expires string      `json:"expires,omitempty"`
	Signed  bool        `json:"signed"`
	Keys    []shownKey  `json:"keys"`
	Roles   []shownRole `json:"roles"` // root first
	Images  []shownRule `json:"images,omitempty"`
}

type shownKey struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	NotBefore   string `json:"notBefore,omitempty"`
	NotAfter    string `json:"notAfter,omitempty"`
}

type shownRole struct {
	Name      string   `json:"name"`
	Keys      []string `json:"keys"`
	Threshold int      `json:"threshold"`
	Bundles   []string `json:"bundles,omitempty"`
	Targets   []string `json:"targets,omitempty"`
	MaxAge    string   `json:"maxAge,omitempty"`
	MaxJump   int64    `json:"maxJump,omitempty"`
}

func (a *app) trustShow(ctx context.Context, name string) error {
	file, d, prints, err := readDraft(name)
	if err != nil {
		return err
	}
	if _, err = a.openPolicy(ctx, file, &verify.Memory{}); err != nil {
		a.Warn("%v", err)
	}
	p := shownPolicy{Policy: name, Version: d.Version, Expires: d.Expires, Signed: err == nil,
		Roles: []shownRole{{Name: "root", Keys: d.Root.Keys, Threshold: d.Root.Threshold}}}
	for _, k := range d.Keys {
		p.Keys = append(p.Keys, shownKey{k.Name, prints[k.Name], k.NotBefore, k.NotAfter})
	}
	for _, r := range d.Roles {
		p.Roles = append(p.Roles, shownRole{r.Name, r.Keys, r.Threshold, r.Bundles, r.Targets, r.MaxAge, r.MaxJump})
	}
	for _, i := range d.Images {
		p.Images = append(p.Images, newShownRule(i))
	}
	return a.Result(p, p.write)
}

func (p shownPolicy) write(w io.Writer) error {
	rows := [][]string{{"version", fmt.Sprint(p.Version)}, {"signed", map[bool]string{true: "yes", false: "no"}[p.Signed]}}
	if p.Expires != "" {
		rows = append(rows, []string{"expires", p.Expires})
	}
	for _, k := range p.Keys {
		text := k.Name + "  " + k.Fingerprint
		if k.NotBefore != "" {
			text += ", from " + k.NotBefore
		}
		if k.NotAfter != "" {
			text += ", until " + k.NotAfter
		}
		rows = append(rows, []string{"key", text})
	}
	for _, r := range p.Roles {
		text := fmt.Sprintf("%s  %d of %s", r.Name, r.Threshold, strings.Join(r.Keys, ", "))
		if r.Name == "root" {
			text += " sign this policy"
		} else {
			text += fmt.Sprintf(" for bundles %s to %s", strings.Join(r.Bundles, ", "), strings.Join(r.Targets, ", "))
		}
		if r.MaxAge != "" {
			text += ", at most " + r.MaxAge + " old"
		}
		if r.MaxJump > 0 {
			text += fmt.Sprintf(", sequence at most %d more", r.MaxJump)
		}
		rows = append(rows, []string{"role", text})
	}
	for _, i := range p.Images {
		rows = append(rows, []string{"images", i.String()})
	}
	return ui.Table(w, rows)
}

func newTrustCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE [NEW]",
		Short: "Check a policy, or whether another one may follow it",
		Long: `Check that the policy FILE is signed by its own root and has not expired. With
NEW, check that this one may take its place: its version is higher, and both
roots have signed it, the one of FILE and its own.`,
		Example: `  ferry trust check trust.yaml
  ferry trust check trust.yaml trust-2.yaml`,
		Args: wantArgs(1, 2, "a policy and perhaps the next"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.trustCheck(cmd.Context(), args[0], argument(args, 1))
		},
	}
}

func (a *app) trustCheck(ctx context.Context, name, next string) error {
	file, err := readPolicy(name)
	if err != nil {
		return err
	}
	policy, err := a.openPolicy(ctx, file, &verify.Memory{})
	if err != nil {
		return err
	}
	result := trustResult{name, policy.Version()}
	if next != "" {
		if policy, err = a.nextPolicy(ctx, policy, next); err != nil {
			return err
		}
		a.Say("%s, version %d, may take the place of %s, version %d", next, policy.Version(), name, result.Version)
		result = trustResult{next, policy.Version()}
	}
	if err := policy.Expired(a.now()); err != nil {
		return fmt.Errorf("policy %s: %w", result.Policy, err)
	}
	return a.trusted(result)
}

func (a *app) nextPolicy(ctx context.Context, policy *verify.Policy, name string) (*verify.Policy, error) {
	file, err := readPolicy(name)
	if err != nil {
		return nil, err
	}
	next, err := policy.Next(ctx, file.raw, file.signatures, policyFiles(name), a.now())
	if err != nil {
		return nil, &policyError{file, policy.Version(), err}
	}
	return next, nil
}

func newTrustAcceptCommand(a *app) *cobra.Command {
	var at stateFlag
	cmd := &cobra.Command{
		Use:   "accept FILE",
		Short: "Remember a policy as the site's",
		Long: `Remember the policy FILE in the trust state, when it is signed by its own root
and, where the state has a policy already, by the root of that. From then on no
older policy counts here, and none that these keys have not signed. What import
and extract accept they remember by themselves: this is for a version between
two that they have seen, or to set the first one when a site is set up.`,
		Example: `  ferry trust accept trust.yaml
  ferry trust accept trust-2.yaml --state /var/lib/ferry`,
		Args: wantArgs(1, 1, "a policy"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.trustAccept(cmd.Context(), args[0], at) },
	}
	at.add(cmd.Flags())
	return cmd
}

func (a *app) trustAccept(ctx context.Context, name string, at stateFlag) error {
	dir, err := a.wantStateDir(at)
	if err != nil {
		return err
	}
	file, err := readPolicy(name)
	if err != nil {
		return err
	}
	var policy *verify.Policy
	var before int64
	err = dir.Update(ctx, func(m *verify.Memory) (err error) {
		if m.Policy != nil {
			before = m.Policy.Version
		}
		if policy, err = a.openPolicy(ctx, file, m); err != nil {
			return err
		}
		if err := policy.Expired(a.now()); err != nil {
			return fmt.Errorf("policy %s: %w", name, err)
		}
		return m.AcceptPolicy(policy)
	})
	if err != nil {
		return err
	}
	switch before {
	case policy.Version():
		a.Say("nothing to do: version %d is in %s", before, dir)
	case 0:
		a.Say("version %d is the first policy in %s", policy.Version(), dir)
	default:
		a.Say("version %d follows version %d in %s", policy.Version(), before, dir)
	}
	return a.trusted(trustResult{name, policy.Version()})
}
