package verify

import (
	"context"
	"fmt"
	"io/fs"
	"time"
)

// OpenPolicy returns the policy in raw, a YAML text, when the threshold of its
// own root has signed it, with keys that are valid at the time now. That it is
// the right policy is for the caller to know: whoever chooses the file chooses
// the keys, as with a key file. files has the key files that stand beside it;
// it may be nil.
//
// A policy that has expired opens; it admits nothing. Errors: [ErrUntrusted],
// [ErrPolicy].
func OpenPolicy(ctx context.Context, raw []byte, signatures [][]byte, files fs.FS, now time.Time) (*Policy, error) {
	if len(signatures) == 0 {
		return nil, ErrUnsigned
	}
	draft, err := ParseDraft(raw)
	if err != nil {
		return nil, err
	}
	p, err := draft.policy(files)
	if err != nil {
		return nil, err
	}
	if err := p.signed(ctx, raw, signatures, now); err != nil {
		return nil, err
	}
	p.digest = DigestOf(raw)
	return p, nil
}

// Next returns the policy in raw as [OpenPolicy] does when its version is
// higher than p's, and the threshold of p's root has signed it as well (T23).
// That p has expired does not matter: it can be renewed.
func (p *Policy) Next(ctx context.Context, raw []byte, signatures [][]byte, files fs.FS, now time.Time) (*Policy, error) {
	if err := p.signed(ctx, raw, signatures, now); err != nil {
		return nil, fmt.Errorf("by version %d: %w", p.version, err)
	}
	next, err := OpenPolicy(ctx, raw, signatures, files, now)
	if err != nil {
		return nil, err
	}
	if next.version <= p.version {
		return nil, fmt.Errorf("%w: it is %d, after %d", ErrPolicyVersion, next.version, p.version)
	}
	return next, nil
}

// signed returns an error unless the threshold of p's root has signed raw.
func (p *Policy) signed(ctx context.Context, raw []byte, signatures [][]byte, now time.Time) error {
	made, err := check(ctx, raw, signatures, p.keys)
	if err != nil {
		return err
	}
	_, err = p.root.meet(made, now)
	return err
}
