package main

import (
	"context"
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
}

// policySignature is what the names of a policy's signatures end with.
const policySignature = ".sigstore.json"

// readPolicy reads a policy and all FILE.sigstore.json and FILE.….sigstore.json
// beside it.
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
		if !strings.HasPrefix(e.Name(), filepath.Base(name)+".") || !strings.HasSuffix(e.Name(), policySignature) {
			continue
		}
		sig, err := readFile(filepath.Join(filepath.Dir(name), e.Name()), verify.MaxSignature+1)
		if err != nil {
			return p, fmt.Errorf("policy: %w", err)
		}
		p.signatures = append(p.signatures, sig)
	}
	return p, nil
}

func (a *app) openPolicy(ctx context.Context, p policyFile, memory *verify.Memory) (*verify.Policy, error) {
	policy, err := memory.OpenPolicy(ctx, p.raw, p.signatures, policyFiles(p.name), a.now())
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", p.name, err)
	}
	return policy, nil
}
