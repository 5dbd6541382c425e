package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Memory is what a site remembers of the bundles and the policy that it has
// accepted, so that nothing older is accepted again (T24). The zero Memory
// remembers nothing. It is not safe for concurrent use.
type Memory struct {
	Bundles map[string]KnownBundles `json:"bundles,omitempty"` // by name
	Format  int                     `json:"format"`            // see [MemoryFormat]
	Policy  *KnownPolicy            `json:"policy,omitempty"`

	witnesses map[string]KnownBundles // what receipts tell, which is not written
	witnessed int64                   // highest version of a policy that receipts tell of
}

// KnownBundles are the accepted bundles of a name: of each key that has signed
// some, by its fingerprint, the one with the highest sequence. Only what keys
// have signed that can sign now is compared with: nothing that others have
// signed can be replayed.
type KnownBundles map[string]KnownBundle

// KnownBundle is an accepted bundle.
type KnownBundle struct {
	Accepted string `json:"accepted"` // RFC 3339, UTC
	Digest   Digest `json:"digest"`   // of bundle.json
	Sequence int64  `json:"sequence"`
}

// KnownPolicy is the accepted policy of the highest version: what is needed to
// tell whether another may follow it.
type KnownPolicy struct {
	Digest    Digest     `json:"digest"` // of its text
	Keys      []KnownKey `json:"keys"`   // of its root
	Threshold int        `json:"threshold"`
	Version   int64      `json:"version"`
}

// KnownKey is a key of a policy's root.
type KnownKey struct {
	Name      string `json:"name"`
	NotAfter  string `json:"notAfter,omitempty"`  // RFC 3339
	NotBefore string `json:"notBefore,omitempty"` // RFC 3339
	PEM       string `json:"pem"`
}

const (
	// MemoryFormat is the version of the text of a memory that is read and
	// written.
	MemoryFormat = 1
	// MaxMemory, in bytes, bounds the text of a memory: about 10,000 names.
	MaxMemory = 4 << 20
	// maxJump is how far the sequence of a bundle may be ahead of the highest
	// one known, or of the clock in Unix seconds, which is what ferry export
	// counts in: whoever gets one bundle signed can lock out those that
	// follow for less than three hours (T25).
	maxJump = 10000
)

// ParseMemory returns the memory in a text that [Memory.Encode] has written.
// Any other text is an error: [ErrMemory].
func ParseMemory(text []byte) (*Memory, error) {
	damaged := func(err error) (*Memory, error) { return nil, fmt.Errorf("%w: %w", ErrMemory, err) }
	if len(text) > MaxMemory {
		return damaged(fmt.Errorf("more than %d bytes", MaxMemory))
	}
	m := &Memory{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return damaged(err)
	}
	if m.Format != MemoryFormat {
		return damaged(fmt.Errorf("format %d is not supported (want %d)", m.Format, MemoryFormat))
	}
	if again, err := m.Encode(); err != nil || !bytes.Equal(again, text) {
		return damaged(fmt.Errorf("it is not as it was written"))
	}
	for name, known := range m.Bundles {
		for _, b := range known {
			if !validSequence(b.Sequence) {
				return damaged(fmt.Errorf("sequence %d of %q is not between 0 and 2^53", b.Sequence, name))
			}
		}
	}
	if _, err := m.Policy.policy(); err != nil {
		return damaged(err)
	}
	return m, nil
}

func validSequence(n int64) bool { return n >= 0 && n <= maxInteger }

// Encode returns the one text of m.
func (m *Memory) Encode() ([]byte, error) {
	m.Format = MemoryFormat
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if len(text) >= MaxMemory {
		return nil, fmt.Errorf("the trust state has more than %d bytes", MaxMemory)
	}
	return append(text, '\n'), nil
}

// OpenPolicy returns the policy in raw as [OpenPolicy] does when it is the one
// that m knows, or may follow it (see [Policy.Next]), or m knows none.
// Errors: [ErrUntrusted], [ErrPolicy].
func (m *Memory) OpenPolicy(ctx context.Context, raw []byte, signatures [][]byte, files fs.FS, now time.Time) (*Policy, error) {
	known, err := m.Policy.policy()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMemory, err)
	}
	policy, err := OpenPolicy(ctx, raw, signatures, files, now)
	if err != nil || known == nil || m.Policy.Digest == policy.digest {
		return policy, err
	}
	switch {
	case policy.version == known.version:
		return nil, fmt.Errorf("%w, version %d: %s, this is %s", ErrPolicyFork, known.version, m.Policy.Digest, policy.digest)
	case policy.version < known.version:
		return nil, fmt.Errorf("%w: it is %d, and %d was accepted", ErrPolicyVersion, policy.version, known.version)
	}
	next, err := known.Next(ctx, raw, signatures, files, now)
	if err != nil {
		return nil, err
	}
	next.follows = m.Policy.Digest
	return next, nil
}

// policy returns the root of the policy that k tells of: nil for nil.
func (k *KnownPolicy) policy() (*Policy, error) {
	if k == nil {
		return nil, nil
	}
	if k.Version < 1 || k.Version > maxInteger {
		return nil, fmt.Errorf("policy version %d is not between 1 and 2^53", k.Version)
	}
	p := &Policy{version: k.Version}
	root := DraftQuorum{Threshold: k.Threshold}
	for _, key := range k.Keys {
		parsed, err := DraftKey{Name: key.Name, PEM: key.PEM, NotBefore: key.NotBefore, NotAfter: key.NotAfter}.key(nil)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key.Name, err)
		}
		p.keys = append(p.keys, parsed)
		root.Keys = append(root.Keys, key.Name)
	}
	var err error
	p.root, err = p.quorum("root", root)
	return p, err
}

// AcceptPolicy remembers p, which came from [Memory.OpenPolicy]. A policy of
// keys alone has no version, and is not remembered. Where another one was
// remembered meanwhile, or a receipt tells of a later one, that is an error:
// [ErrPolicyVersion].
func (m *Memory) AcceptPolicy(p *Policy) error {
	switch {
	case p.version == 0:
		return nil
	case p.version < m.witnessed:
		return fmt.Errorf("%w: it is %d, and %d was accepted, as a receipt tells", ErrPolicyVersion, p.version, m.witnessed)
	case m.Policy != nil && m.Policy.Digest == p.digest:
		return nil
	case m.Policy != nil && p.follows != m.Policy.Digest:
		return fmt.Errorf("%w: it is %d, and %d was accepted meanwhile", ErrPolicyVersion, p.version, m.Policy.Version)
	}
	known := &KnownPolicy{Digest: p.digest, Threshold: p.root.threshold, Version: p.version}
	for _, key := range p.root.keys {
		public, err := key.verifier.PublicKey()
		if err != nil {
			return err
		}
		pem, err := cryptoutils.MarshalPublicKeyToPEM(public)
		if err != nil {
			return err
		}
		known.Keys = append(known.Keys, KnownKey{Name: key.name, NotAfter: formatTime(key.notAfter), NotBefore: formatTime(key.notBefore), PEM: string(pem)})
	}
	m.Policy = known
	return nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// Recalling returns a policy like p that admits only what m allows as well:
// nothing with a sequence that is lower than the highest known, or the same
// with other content, or far ahead. With an override, the reason why a person
// has allowed such a bundle, it is admitted, and [Document.Overridden] tells.
func (p *Policy) Recalling(m *Memory, override string) *Policy {
	return p.with(func(q *Policy) { q.memory, q.override = m, override })
}

// Observing returns a policy like p whose documents are only looked at:
// [Document.Overridden] tells what [Policy.Recalling] would refuse, and no
// memory accepts them.
func (p *Policy) Observing(m *Memory) *Policy {
	return p.with(func(q *Policy) { q.memory, q.observes = m, true })
}

func (p *Policy) with(change func(*Policy)) *Policy {
	if p == nil {
		return nil
	}
	q := *p
	change(&q)
	return &q
}

var errObserved = errors.New("the document was opened to look at it, not to accept it")

// Accept remembers the document d and the policy that has admitted it. Since m
// may have changed since then, both are checked against it once more, and
// against what receipts tell; what the policy's override admits is told by
// [Document.Overridden] from now on. Errors: [ErrUntrusted].
func (m *Memory) Accept(d *Document, now time.Time) error {
	if d.policy.observes {
		return errObserved
	}
	refused := m.check(d, now)
	if refused != nil && d.policy.override == "" {
		return refused
	}
	if err := m.AcceptPolicy(d.policy); err != nil {
		return err
	}
	d.overridden = refused
	if m.Bundles == nil {
		m.Bundles = map[string]KnownBundles{}
	}
	known := m.Bundles[d.claims.Name]
	if known == nil {
		known = KnownBundles{}
		m.Bundles[d.claims.Name] = known
	}
	b := KnownBundle{Accepted: formatTime(now), Digest: DigestOf(d.raw), Sequence: d.claims.Sequence}
	for _, key := range d.signers {
		known.raise(key.fingerprint, b)
	}
	return nil
}

// raise remembers b unless something higher is known of the key.
func (known KnownBundles) raise(fingerprint string, b KnownBundle) bool {
	if have, ok := known[fingerprint]; ok && b.Sequence <= have.Sequence || !validSequence(b.Sequence) {
		return false
	}
	known[fingerprint] = b
	return true
}

// Witness has m count what a receipt tells of the bundles of a name, and of the
// version of the policy that admitted one, until m is forgotten: none of it is
// written. It reports whether that is news: that m was lost or is older.
func (m *Memory) Witness(name string, told KnownBundles, policy int64) bool {
	version := m.witnessed
	if m.Policy != nil {
		version = max(version, m.Policy.Version)
	}
	news := policy > version && policy <= maxInteger
	if news {
		m.witnessed = policy
	}
	if m.witnesses == nil {
		m.witnesses = map[string]KnownBundles{}
	}
	if m.witnesses[name] == nil {
		m.witnesses[name] = KnownBundles{}
	}
	for fingerprint, b := range told {
		raised := m.witnesses[name].raise(fingerprint, b)
		have, ok := m.Bundles[name][fingerprint]
		news = news || raised && (!ok || have.Sequence < b.Sequence)
	}
	return news
}

// Known returns what is known of the bundles of a name, with what receipts tell
// if they are to be believed. The caller may keep it.
func (m *Memory) Known(name string, believed bool) KnownBundles {
	all := KnownBundles{}
	for fingerprint, b := range m.Bundles[name] {
		all.raise(fingerprint, b)
	}
	if believed {
		for fingerprint, b := range m.witnesses[name] {
			all.raise(fingerprint, b)
		}
	}
	return all
}

// check returns why the sequence of d can not be accepted, or nil. A receipt
// counts like what m remembers.
func (m *Memory) check(d *Document, now time.Time) error {
	name, sequence := d.claims.Name, d.claims.Sequence
	highest := int64(-1)
	for _, all := range []map[string]KnownBundles{m.Bundles, m.witnesses} {
		for _, key := range d.role.keys {
			b, ok := all[name][key.fingerprint]
			switch {
			case !ok:
			case sequence < b.Sequence:
				return fmt.Errorf("%w: its sequence is %d, and %d of %q was accepted at %s, signed with key %s", ErrRollback, sequence, b.Sequence, name,
					b.Accepted, key.fingerprint[:12])
			case sequence == b.Sequence && b.Digest != DigestOf(d.raw):
				return fmt.Errorf("%w %d: %s, accepted at %s, and this, %s", ErrEquivocation, sequence, b.Digest, b.Accepted, DigestOf(d.raw))
			default:
				highest = max(highest, b.Sequence)
			}
		}
	}
	switch limit := max(highest, now.Unix(), 0) + maxJump; {
	case highest >= 0 && d.role.maxJump > 0 && sequence-highest > d.role.maxJump:
		return fmt.Errorf("%w: from %d to %d, more than the %d of role %q", ErrFastForward, highest, sequence, d.role.maxJump, d.role.name)
	case sequence > limit:
		return fmt.Errorf("%w: it is %d, more than %d ahead of what is known (%d) and of the clock (%d)", ErrFastForward, sequence, maxJump, max(highest, 0), now.Unix())
	}
	return nil
}
