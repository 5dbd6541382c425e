package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"ferry/verify"
)

// trustFlags say whom to trust.
type trustFlags struct {
	keys   []string // files of public keys
	policy string   // file
	state  stateFlag
	// accepts says that what is opened is put to use, so that it counts as
	// accepted; override is for such verbs only.
	accepts  bool
	override overrideFlag
}

func (t *trustFlags) add(f *pflag.FlagSet, keyUsage string) {
	listVar(f, &t.keys, "key", keyUsage+" (repeatable)")
	f.StringVar(&t.policy, "policy", "", "`FILE` with a signed policy, such as trust.yaml, in place of --key")
	t.state.add(f)
}

// addAccepting adds the flags of a verb that puts to use what it opens.
func (t *trustFlags) addAccepting(f *pflag.FlagSet, keyUsage string) {
	t.accepts = true
	t.add(f, keyUsage)
	t.override.add(f)
}

// given reports whether any of the flags was.
func (t *trustFlags) given() bool { return len(t.keys) > 0 || t.policy != "" }

// policy returns what the flags say, with what the trust state remembers.
func (a *app) policy(ctx context.Context, t trustFlags) (*verify.Policy, error) {
	memory, err := a.recall(ctx, t.state)
	if err != nil {
		return nil, err
	}
	policy, err := a.policyWithout(ctx, t, memory)
	if !t.accepts {
		return policy.Observing(memory), err
	}
	return policy.Recalling(memory, t.override.reason), err
}

func (a *app) policyWithout(ctx context.Context, t trustFlags, memory *verify.Memory) (*verify.Policy, error) {
	if t.policy == "" {
		keys, err := readKeys(t.keys)
		return verify.KeyPolicy(keys...), err
	}
	if len(t.keys) > 0 {
		return nil, usagef("--key and --policy exclude each other: the policy has the keys")
	}
	file, err := readPolicy(t.policy)
	if err != nil {
		return nil, err
	}
	policy, err := a.openPolicy(ctx, file, memory)
	if err != nil {
		return nil, err
	}
	a.Say("policy %s, version %d", t.policy, policy.Version())
	return policy, nil
}

// policyFile is a policy as it was read. Nothing of it is trusted yet.
type policyFile struct {
	name       string
	raw        []byte
	signatures [][]byte // that stand beside it
	names      []string // of the files of signatures
}

// policySignature is what the names of a policy's signatures end with.
const policySignature = ".sigstore.json"

// readPolicy reads a policy and all FILE.sigstore.json and FILE.….sigstore.json
// beside it: regular files that are not the signature of another file, such as
// of FILE.old. It reads no more signatures than verify needs to see that there
// are too many.
func readPolicy(name string) (policyFile, error) {
	p := policyFile{name: name}
	var err error
	if p.raw, err = readFile(name, verify.MaxPolicy+1); err != nil { // what is too long verify refuses
		return p, fmt.Errorf("policy: %w", err)
	}
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		return p, fmt.Errorf("policy: %w", err)
	}
	for _, e := range entries {
		of, found := strings.CutSuffix(e.Name(), policySignature)
		if !found || !strings.HasPrefix(e.Name(), filepath.Base(name)+".") || len(p.signatures) > verify.MaxSignatures {
			continue
		}
		file := filepath.Join(filepath.Dir(name), e.Name())
		if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
			continue
		}
		if of != filepath.Base(name) && !missing(filepath.Join(filepath.Dir(name), of)) {
			continue
		}
		sig, err := readFile(file, verify.MaxSignature+1)
		if err != nil {
			return p, fmt.Errorf("policy: %w", err)
		}
		p.signatures, p.names = append(p.signatures, sig), append(p.names, file)
	}
	return p, nil
}

func (a *app) openPolicy(ctx context.Context, p policyFile, memory *verify.Memory) (*verify.Policy, error) {
	policy, err := memory.OpenPolicy(ctx, p.raw, p.signatures, policyFiles(p.name), a.now())
	if err != nil {
		var known int64
		if memory.Policy != nil {
			known = memory.Policy.Version
		}
		if errors.Is(err, verify.ErrUnsigned) {
			if _, no := verify.ParseDraft(p.raw); no != nil { // to sign it would be in vain
				err = no
			}
		}
		return nil, &policyError{p, known, err}
	}
	return policy, nil
}

// policyError says that a policy is refused.
type policyError struct {
	policyFile
	known int64 // version that it had to follow; 0 for none
	err   error
}

func (e *policyError) Unwrap() error { return e.err }

// Error names the files that the numbers of signatures stand for.
func (e *policyError) Error() string {
	text := fmt.Sprintf("policy %s: %v", e.name, e.err)
	if !errors.Is(e.err, verify.ErrSignature) || len(e.names) > verify.MaxSignatures {
		return text
	}
	var files []string
	for i, name := range e.names {
		files = append(files, fmt.Sprintf("%d is %s", i+1, name))
	}
	return fmt.Sprintf("%s (signature %s)", text, strings.Join(files, ", "))
}

// hint says what helps, or "".
func (e *policyError) hint() string {
	switch {
	case errors.Is(e.err, verify.ErrUnsigned):
		return fmt.Sprintf("ferry trust sign %s signs it; its signatures stand beside it, in files %s.….sigstore.json", e.name, e.name)
	case errors.Is(e.err, verify.ErrSignature):
		return "whoever has changed the policy removes the signatures of the older text (rm FILE) and then signs it again, with ferry trust sign; whoever has not gets it anew, with its signatures, from those who sign it"
	case errors.Is(e.err, verify.ErrThreshold), errors.Is(e.err, verify.ErrWrongKey):
		if d, err := verify.ParseDraft(e.raw); err == nil && e.known > 0 && d.Version > e.known+1 {
			return fmt.Sprintf("this is version %d, after version %d: take the versions between first, one after the other, with ferry trust accept", d.Version, e.known)
		}
	}
	return ""
}
