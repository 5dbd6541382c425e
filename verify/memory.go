package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Memory is what a site remembers of the bundles and the policy that it has
// accepted, so that nothing older is accepted again (T24). The zero Memory
// remembers nothing. It is not safe for concurrent use.
type Memory struct {
	Bundles map[string]KnownBundle `json:"bundles,omitempty"` // by name
	Format  int                    `json:"format"`            // see [MemoryFormat]
	Policy  *KnownPolicy           `json:"policy,omitempty"`
}

// KnownBundle is the accepted bundle of a name that has the highest sequence.
type KnownBundle struct {
	Accepted string   `json:"accepted"` // RFC 3339, UTC
	Digest   Digest   `json:"digest"`   // of bundle.json
	Policy   int64    `json:"policy"`   // version of the policy that admitted it
	Sequence int64    `json:"sequence"`
	Signers  []string `json:"signers"` // fingerprints
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
	for name, b := range m.Bundles {
		if !validSequence(b.Sequence) {
			return damaged(fmt.Errorf("sequence %d of %q is not between 0 and 2^53", b.Sequence, name))
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
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMemory, MaxMemory)
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
	return known.Next(ctx, raw, signatures, files, now)
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
// keys alone has no version, and is not remembered. A version lower than that
// which was remembered meanwhile is an error, [ErrPolicyVersion].
func (m *Memory) AcceptPolicy(p *Policy) error {
	switch {
	case p.version == 0 || m.Policy != nil && m.Policy.Digest == p.digest:
		return nil
	case m.Policy != nil && p.version <= m.Policy.Version:
		return fmt.Errorf("%w: it is %d, and %d was accepted", ErrPolicyVersion, p.version, m.Policy.Version)
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
	if p == nil {
		return nil
	}
	q := *p
	q.memory, q.override = m, override
	return &q
}

// Accept remembers the document d and the policy that has admitted it. Since m
// may have changed since then, both are checked against it once more; what the
// policy's override admits is told by [Document.Overridden] from now on.
// Errors: [ErrUntrusted].
func (m *Memory) Accept(d *Document, now time.Time) error {
	refused := m.check(d, now)
	if refused != nil && d.policy.override == "" {
		return refused
	}
	if err := m.AcceptPolicy(d.policy); err != nil {
		return err
	}
	d.overridden = refused
	known, ok := m.Bundles[d.claims.Name]
	if ok && d.claims.Sequence <= known.Sequence && !d.replaces(known) {
		return nil // the highest stays
	}
	if m.Bundles == nil {
		m.Bundles = map[string]KnownBundle{}
	}
	b := KnownBundle{Accepted: formatTime(now), Digest: DigestOf(d.raw), Policy: d.policy.version, Sequence: d.claims.Sequence, Signers: []string{}}
	for _, key := range d.signers {
		b.Signers = append(b.Signers, key.fingerprint)
	}
	m.Bundles[d.claims.Name] = b
	return nil
}

// Witness remembers that the bundle of a name was accepted, as a receipt says,
// and reports whether that is news: that m was lost or is older.
func (m *Memory) Witness(name string, b KnownBundle) bool {
	known, ok := m.Bundles[name]
	if ok && b.Sequence <= known.Sequence || !validSequence(b.Sequence) {
		return false
	}
	if m.Bundles == nil {
		m.Bundles = map[string]KnownBundle{}
	}
	m.Bundles[name] = b
	return true
}

// check returns why the sequence of d can not be accepted, or nil.
func (m *Memory) check(d *Document, now time.Time) error {
	sequence := d.claims.Sequence
	known, ok := m.Bundles[d.claims.Name]
	if ok && d.replaces(known) {
		ok = false
	}
	switch {
	case ok && sequence < known.Sequence:
		return fmt.Errorf("%w: its sequence is %d, and %d was accepted at %s", ErrRollback, sequence, known.Sequence, known.Accepted)
	case ok && sequence == known.Sequence && known.Digest != DigestOf(d.raw):
		return fmt.Errorf("%w %d: %s, accepted at %s, and this, %s", ErrEquivocation, sequence, known.Digest, known.Accepted, DigestOf(d.raw))
	case ok && d.role.maxJump > 0 && sequence-known.Sequence > d.role.maxJump:
		return fmt.Errorf("%w: from %d to %d, more than the %d of role %q", ErrFastForward, known.Sequence, sequence, d.role.maxJump, d.role.name)
	case sequence > max(known.Sequence, now.Unix())+maxJump:
		return fmt.Errorf("%w: it is %d, more than %d ahead of what is known (%d) and of the clock (%d)", ErrFastForward, sequence, maxJump, known.Sequence, now.Unix())
	}
	return nil
}

// replaces reports whether d makes what is known of its name void: a newer
// policy has none of the keys any more that have signed that, so nothing of
// that time can be replayed, and a sequence that was too high does no harm.
func (d *Document) replaces(known KnownBundle) bool {
	return d.policy.version > known.Policy && !slices.ContainsFunc(d.role.keys, func(k *policyKey) bool {
		return slices.Contains(known.Signers, k.fingerprint)
	})
}
