package verify

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Policy says whose signatures count, for which bundles, and when. It is made
// by [KeyPolicy] or [OpenPolicy], and is never changed. The nil Policy admits
// nothing.
type Policy struct {
	version  int64
	digest   Digest    // of its text
	expires  time.Time // zero means never
	keys     []*policyKey
	root     quorum
	roles    []role
	images   []*ImageRule
	follows  Digest  // of the policy that it was opened after, or zero
	memory   *Memory // or nil
	override string  // reason to admit what memory would not
	observes bool    // what it admits is only looked at
}

// policyKey is a key with the time in which its signatures count.
type policyKey struct {
	Key
	name                string
	notBefore, notAfter time.Time // zero means no limit
}

// quorum is how many of which keys have to sign.
type quorum struct {
	name      string // of the role, for messages
	keys      []*policyKey
	threshold int
}

// role is who may sign which bundles.
type role struct {
	quorum
	bundles []string // patterns of path.Match
	targets []string // prefixes of repository paths, or "*"
	maxAge  time.Duration
	maxJump int64 // of sequences; 0 means no limit of the role's own
}

// KeyPolicy returns the policy that admits whatever one of the keys has
// signed, at any time.
func KeyPolicy(keys ...Key) *Policy {
	p := &Policy{}
	for _, key := range keys {
		if p.key(key.fingerprint) == nil {
			p.keys = append(p.keys, &policyKey{Key: key, name: key.fingerprint[:12]})
		}
	}
	p.roles = []role{{quorum: quorum{"key", p.keys, 1}, bundles: []string{"*"}, targets: []string{"*"}}}
	return p
}

// Version returns the version of the policy; it is 0 for a [KeyPolicy].
func (p *Policy) Version() int64 { return p.version }

// Expired returns an error that is [ErrPolicyExpired] when the policy has a
// time of expiry that is not after now.
func (p *Policy) Expired(now time.Time) error {
	if p.expires.IsZero() || now.Before(p.expires) {
		return nil
	}
	return fmt.Errorf("%w, at %s", ErrPolicyExpired, p.expires.Format(time.RFC3339))
}

func (p *Policy) key(fingerprint string) *policyKey {
	for _, k := range p.keys {
		if k.fingerprint == fingerprint {
			return k
		}
	}
	return nil
}

// Claims are what a document says of itself that a policy has a say in.
type Claims struct {
	Name     string    // of the bundle
	Sequence int64     // grows with every bundle of that name
	Targets  []string  // repository paths, without a host, of all that it touches
	Created  time.Time // as its author says
}

// Open returns the document in raw if the policy admits it at the time now,
// and is the only way to get one. describe tells what the document claims; it
// is called for no bytes but those that a key of the policy has signed.
//
// A signature with a key that is not in the policy counts for nothing; one
// that is damaged, or names a key of the policy and is wrong, is an error even
// beside a good one. The first role that covers the name decides. A key counts
// once, however often it has signed, and only while it is valid: when a
// signature was made nobody can tell without a network, so now is what counts.
//
// Errors: [ErrUntrusted], as one of the refusals above; those of describe.
func (p *Policy) Open(ctx context.Context, raw []byte, signatures [][]byte, now time.Time, describe func(raw []byte) (Claims, error)) (*Document, error) {
	if p == nil || len(p.keys) == 0 {
		return nil, ErrNoKey
	}
	if err := p.Expired(now); err != nil {
		return nil, err
	}
	raw = bytes.Clone(raw)
	made, err := check(ctx, raw, signatures, p.keys)
	if err != nil {
		return nil, err
	}
	if _, err := (quorum{keys: p.keys, threshold: 1}).meet(made, now); err != nil {
		return nil, err
	}
	claims, err := describe(raw)
	if err != nil {
		return nil, err
	}
	role, err := p.role(claims.Name)
	if err != nil {
		return nil, err
	}
	signers, err := role.meet(made, now)
	if err != nil {
		return nil, fmt.Errorf("%w for bundle %q", err, claims.Name)
	}
	if err := role.admit(claims, now); err != nil {
		return nil, err
	}
	d := &Document{raw: raw, signers: signers, claims: claims, policy: p, role: role}
	if p.memory == nil {
		return d, nil
	}
	if d.overridden = p.memory.check(d, now); d.overridden != nil && p.override == "" && !p.observes {
		return nil, d.overridden
	}
	return d, nil
}

// role returns the first role that covers a bundle's name.
func (p *Policy) role(bundle string) (*role, error) {
	for i, r := range p.roles {
		for _, pattern := range r.bundles {
			if ok, err := path.Match(pattern, bundle); ok && err == nil {
				return &p.roles[i], nil
			}
		}
	}
	return nil, fmt.Errorf("%w, %q", ErrName, bundle)
}

// admit checks what is not about signatures.
func (r *role) admit(c Claims, now time.Time) error {
	for _, target := range c.Targets {
		if !r.allows(target) {
			return fmt.Errorf("%w %q: role %q may write %s", ErrTarget, target, r.name, strings.Join(r.targets, ", "))
		}
	}
	age := now.Sub(c.Created)
	switch {
	case r.maxAge == 0:
	case age > r.maxAge:
		return fmt.Errorf("%w: made at %s, %s ago, more than the %s of role %q", ErrTooOld, c.Created.Format(time.RFC3339), age.Round(time.Second), r.maxAge, r.name)
	case age < -r.maxAge:
		return fmt.Errorf("%w: made at %s, by a clock that is %s ahead of this one", ErrFuture, c.Created.Format(time.RFC3339), -age.Round(time.Second))
	}
	return nil
}

// allows reports whether target is one of the role's prefixes or below it.
func (r *role) allows(target string) bool {
	return slices.ContainsFunc(r.targets, func(prefix string) bool {
		return prefix == "*" || target == prefix || strings.HasPrefix(target, prefix+"/")
	})
}

// meet returns the keys that count at the time now among those that have made
// a signature each, in that order, or an error when they are fewer than the
// threshold.
func (q quorum) meet(made []*policyKey, now time.Time) ([]Key, error) {
	var signers []Key
	var counted []*policyKey
	var early, late, again *policyKey
	var others []string
	for _, k := range made {
		switch {
		case !slices.Contains(q.keys, k):
			others = append(others, k.name)
		case !k.notBefore.IsZero() && now.Before(k.notBefore):
			early = k
		case !k.notAfter.IsZero() && !now.Before(k.notAfter):
			late = k
		case slices.Contains(counted, k):
			again = k
		default:
			counted, signers = append(counted, k), append(signers, k.Key)
		}
	}
	if len(signers) >= q.threshold {
		return signers, nil
	}
	short := fmt.Sprintf("%d of the %d keys that are needed", len(signers), q.threshold)
	if q.name != "" {
		short += fmt.Sprintf(" of role %q", q.name)
	}
	switch {
	case late != nil:
		return nil, fmt.Errorf("%w: %q counted until %s; %s", ErrKeyExpired, late.name, late.notAfter.Format(time.RFC3339), short)
	case early != nil:
		return nil, fmt.Errorf("%w: %q counts from %s; %s", ErrKeyNotYetValid, early.name, early.notBefore.Format(time.RFC3339), short)
	case again != nil:
		return nil, fmt.Errorf("%w: %q counts once; %s", ErrSameKey, again.name, short)
	case len(signers) == 0:
		return nil, fmt.Errorf("%w: %q; %s", ErrWrongKey, others, short)
	}
	return nil, fmt.Errorf("%w: %s", ErrThreshold, short)
}
