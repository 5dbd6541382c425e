package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/pflag"

	"ferry/bundle"
	"ferry/internal/state"
	"ferry/internal/transfer"
	"ferry/verify"
)

// stateFlag says where the trust state is.
type stateFlag struct{ dir string }

func (s *stateFlag) add(f *pflag.FlagSet) {
	f.StringVar(&s.dir, "state", "", "`DIR` of what was accepted before (default $XDG_STATE_HOME/ferry or ~/.local/state/ferry)")
}

// stateDir returns the folder of the trust state, or "" when there is no place
// for one.
func (a *app) stateDir(s stateFlag) state.Dir {
	switch {
	case s.dir != "":
		return state.Dir(s.dir)
	case filepath.IsAbs(a.env("XDG_STATE_HOME")): // the specification ignores others
		return state.Dir(filepath.Join(a.env("XDG_STATE_HOME"), "ferry"))
	case a.env("HOME") != "":
		return state.Dir(filepath.Join(a.env("HOME"), ".local", "state", "ferry"))
	case filepath.IsAbs(a.env("LOCALAPPDATA")): // on Windows
		return state.Dir(filepath.Join(a.env("LOCALAPPDATA"), "ferry"))
	}
	return ""
}

// wantStateDir returns the folder of the trust state, for verbs that write to it.
func (a *app) wantStateDir(s stateFlag) (state.Dir, error) {
	dir := a.stateDir(s)
	if dir == "" {
		return "", usagef("there is no place for the trust state, for neither XDG_STATE_HOME nor HOME is set: give one with --state DIR")
	}
	return dir, nil
}

// recall returns what the trust state remembers, nothing where there is none.
func (a *app) recall(ctx context.Context, s stateFlag) (*verify.Memory, error) {
	if dir := a.stateDir(s); dir != "" {
		return dir.Load(ctx)
	}
	return &verify.Memory{}, nil
}

// overrideFlag is why a bundle is accepted whose sequence is not.
type overrideFlag struct{ reason string }

func (o *overrideFlag) add(f *pflag.FlagSet) {
	f.Func("override-sequence", "`REASON` to accept a bundle although a newer one, or another of its sequence, was accepted, or its sequence jumps", func(s string) error {
		if strings.TrimSpace(s) == "" || len(s) > maxReason || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("want a reason in one line of at most %d bytes", maxReason)
		}
		o.reason = s
		return nil
	})
}

// maxReason, in bytes, bounds what a receipt repeats.
const maxReason = 1024

// acceptance is how a bundle is accepted.
type acceptance struct {
	state     stateFlag
	witnesses []transfer.Witness // receipts of imports
	believed  bool               // whether a key vouches for them
	dryRun    bool               // only look at whether it could be accepted
}

// accept remembers the bundle and the policy that has admitted it, so that
// nothing older is accepted after this. It returns what is known of its name.
func (a *app) accept(ctx context.Context, r *bundle.Reader, how acceptance) (verify.KnownBundles, error) {
	dir, err := a.wantStateDir(how.state)
	if err != nil {
		return nil, err
	}
	name, overridden := r.Manifest().Name, r.Document().Overridden()
	isNew := false
	var known verify.KnownBundles
	update := dir.Update
	if how.dryRun {
		update = dir.Try
	}
	err = update(ctx, func(m *verify.Memory) error {
		isNew = len(m.Bundles) == 0 && m.Policy == nil
		for _, w := range how.witnesses {
			if m.Witness(name, w.Known, w.Policy) {
				a.Warn("the trust state in %s is lost or old: the receipt %s tells of sequence %d of %s%s", dir, w.Receipt, w.Sequence, name, ofPolicy(w.Policy))
			}
		}
		if m.Policy != nil && r.Document().Policy().Version() == 0 {
			a.Warn("this site has a policy, version %d, and --key goes around it", m.Policy.Version)
		}
		if err := m.Accept(r.Document(), a.now()); err != nil {
			return err
		}
		known = m.Known(name, how.believed)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", bundle.ManifestName, r.Store(), err)
	}
	if isNew {
		a.Warn("there is no trust state in %s yet, so nothing older could be noticed; what is accepted is remembered there", dir)
	}
	if now := r.Document().Overridden(); now != nil && (overridden == nil || now.Error() != overridden.Error()) {
		a.Warn("accepted by --override-sequence: %v", now)
	}
	return known, nil
}

func ofPolicy(version int64) string {
	if version == 0 {
		return ""
	}
	return fmt.Sprintf(", by version %d of the policy", version)
}

// tellOverridden tells what an override admits.
func (a *app) tellOverridden(r *bundle.Reader, accepts bool) {
	var refused error
	switch refused = r.Document().Overridden(); {
	case refused == nil:
	case accepts:
		a.Warn("accepted by --override-sequence: %v", refused)
	default:
		a.Warn("an import here would refuse this bundle: %v", refused)
	}
}

// stateHint returns what to do about a refusal of the trust state, or "".
func stateHint(err error) string {
	switch {
	case errors.Is(err, state.ErrUnwritable):
		return "give another folder for what was accepted before with --state DIR"
	case errors.Is(err, verify.ErrMemory):
		return "put the file back from a backup, or move it away: what was accepted is then known from receipts only, which --receipt names"
	case errors.Is(err, verify.ErrEquivocation):
		return "somebody with the key has signed both: ask who exports, before anything of either is used"
	case errors.Is(err, verify.ErrRollback):
		return "get the newest bundle; or give destinations that get other versions a state each, with --state DIR, and unrelated bundles a name each, with export --name; or, to go back on purpose, say why with --override-sequence REASON, which the receipt repeats"
	case errors.Is(err, verify.ErrFastForward):
		return "see that this machine's clock is right; then ask who exports: if the sequence is meant, say so with --override-sequence REASON"
	case errors.Is(err, verify.ErrPolicyFork), errors.Is(err, verify.ErrPolicyVersion):
		return "get the newest policy from those who sign it; ferry trust accept takes it. Policies that have nothing to do with each other want a state each, with --state DIR"
	}
	return ""
}
