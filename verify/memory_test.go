package verify

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// memoryRefusals are those of a [Memory].
var memoryRefusals = []error{ErrRollback, ErrEquivocation, ErrFastForward, ErrMemory, ErrPolicyFork, ErrPolicyVersion}

// site is a trust state, with the policy that the next bundles are opened with.
type site struct {
	t      *testing.T
	memory *Memory
	policy *Policy
	by     string // who signs the next bundles
	now    time.Time
}

// offer brings the bundle of a sequence to the site, which accepts it or not.
// The content makes another bundle of it.
func (s *site) offer(name string, sequence int64, content, override string) (*Document, error) {
	s.t.Helper()
	raw := fmt.Appendf(nil, "%s %d %s", name, sequence, content)
	doc, err := s.policy.Recalling(s.memory, override).Open(s.t.Context(), raw, signAll(s.t, s.by, raw), s.now, func([]byte) (Claims, error) {
		return Claims{Name: name, Sequence: sequence, Targets: []string{"team"}, Created: s.now}, nil
	})
	if err != nil {
		return nil, err
	}
	return doc, s.memory.Accept(doc, s.now)
}

func newTestSite(t *testing.T) *site {
	return &site{t: t, memory: &Memory{}, policy: KeyPolicy(testSigner(t, "a").Key()), by: "a", now: noon}
}

// T24, T25: what is accepted after what, and what stays remembered.
func TestMemory(t *testing.T) {
	now := noon.Unix()
	type offered struct {
		name     string
		sequence int64
		content  string
		want     error
		says     string
	}
	for name, steps := range map[string][]offered{
		"grows": {{"n", 1, "x", nil, ""}, {"n", 2, "x", nil, ""}, {"n", now, "x", nil, ""}, {"n", now + 1, "x", nil, ""}},
		"again": {{"n", 5, "x", nil, ""}, {"n", 5, "x", nil, ""}},
		"replay of all before": {{"n", 3, "x", nil, ""}, {"n", 2, "x", ErrRollback, "its sequence is 2, and 3 was accepted at 2026-11-21T12:00:00Z"},
			{"n", 1, "x", ErrRollback, ""}, {"n", 0, "x", ErrRollback, ""}, {"n", 3, "x", nil, ""}},
		"other names":       {{"n", 3, "x", nil, ""}, {"m", 2, "x", nil, ""}, {"N", 1, "x", nil, ""}, {"n", 2, "x", ErrRollback, ""}},
		"other content":     {{"n", 3, "x", nil, ""}, {"n", 3, "y", ErrEquivocation, " 3: sha256:"}, {"n", 3, "x", nil, ""}, {"n", 4, "y", nil, ""}},
		"first at the end":  {{"n", now + maxJump, "x", nil, ""}, {"n", now + maxJump + 1, "x", nil, ""}},
		"first too far":     {{"n", now + maxJump + 1, "x", ErrFastForward, "more than 10000 ahead of what is known (0) and of the clock"}, {"n", 1, "x", nil, ""}},
		"far":               {{"n", 7, "x", nil, ""}, {"n", now + maxJump + 1, "x", ErrFastForward, "what is known (7)"}, {"n", 8, "x", nil, ""}},
		"last":              {{"n", 7, "x", nil, ""}, {"n", 1 << 53, "x", ErrFastForward, ""}, {"n", math.MaxInt64, "x", ErrFastForward, ""}},
		"ahead of the time": {{"n", now + maxJump, "x", nil, ""}, {"n", now + 2*maxJump, "x", nil, ""}, {"n", now + 3*maxJump + 1, "x", ErrFastForward, ""}},
	} {
		s := newTestSite(t)
		for i, step := range steps {
			before, _ := s.memory.Encode()
			doc, err := s.offer(step.name, step.sequence, step.content, "")
			if !errors.Is(err, step.want) || step.want != nil && !strings.Contains(err.Error(), step.says) {
				t.Errorf("%s, step %d: %v, want %v with %q", name, i+1, err, step.want, step.says)
			}
			if step.want == nil {
				continue
			}
			if after, _ := s.memory.Encode(); doc != nil || !bytes.Equal(after, before) || !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s, step %d: it was refused (%v) and left %s", name, i+1, doc, after)
			}
			for _, other := range memoryRefusals {
				if other != step.want && errors.Is(err, other) {
					t.Errorf("%s, step %d: it is also %v", name, i+1, other)
				}
			}
		}
	}
}

// An override admits one bundle, and tells why it would have been refused; the
// highest sequence stays.
func TestOverride(t *testing.T) {
	for name, tt := range map[string]struct {
		sequence int64
		content  string
		want     error
		highest  int64
	}{
		"older":   {4, "x", ErrRollback, 5},
		"other":   {5, "y", ErrEquivocation, 5},
		"jump":    {1 << 53, "x", ErrFastForward, 1 << 53},
		"nothing": {6, "x", nil, 6},
	} {
		s := newTestSite(t)
		if _, err := s.offer("n", 5, "x", ""); err != nil {
			t.Fatal(err)
		}
		doc, err := s.offer("n", tt.sequence, tt.content, "ticket 12")
		if err != nil || !errors.Is(doc.Overridden(), tt.want) || (doc.Overridden() == nil) != (tt.want == nil) || doc.Override() != "ticket 12" {
			t.Errorf("%s: %v, overridden %v", name, err, doc.Overridden())
		}
		if got := s.memory.Bundles["n"].Sequence; got != tt.highest {
			t.Errorf("%s: the highest sequence is %d, want %d", name, got, tt.highest)
		}
		if _, err := s.offer("n", 3, "x", ""); !errors.Is(err, ErrRollback) {
			t.Errorf("%s: without an override: %v", name, err)
		}
	}
}

// What was accepted between opening and accepting counts (T52).
func TestAcceptChecksAgain(t *testing.T) {
	s := newTestSite(t)
	raw := []byte("n 4")
	open := func(override string) *Document {
		doc, err := s.policy.Recalling(&Memory{}, override).Open(t.Context(), raw, signAll(t, "a", raw), noon, func([]byte) (Claims, error) {
			return Claims{Name: "n", Sequence: 4}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	plain, forced := open(""), open("ticket 12")
	if _, err := s.offer("n", 5, "x", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.memory.Accept(plain, noon); !errors.Is(err, ErrRollback) {
		t.Errorf("accepted: %v", err)
	}
	if err := s.memory.Accept(forced, noon); err != nil || !errors.Is(forced.Overridden(), ErrRollback) {
		t.Errorf("with an override: %v, overridden %v", err, forced.Overridden())
	}
}

// T25: a sequence that is too high ends with the keys that have signed it, when
// a newer policy has none of them.
func TestFastForwardRecovery(t *testing.T) {
	s := newTestSite(t)
	accept := func(version int64, role, root string) {
		t.Helper()
		d := draft(t)
		d.Version, d.Root.Keys = version, strings.Split(root, "")
		d.Roles = []DraftRole{{Name: "all", DraftQuorum: DraftQuorum{strings.Split(role, ""), 1}, Bundles: []string{"*"}, Targets: []string{"*"}}}
		raw := encode(t, d)
		p, err := s.memory.OpenPolicy(t.Context(), raw, signAll(t, "abc", raw), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		s.policy = p
	}
	accept(1, "ab", "ab")
	if _, err := s.offer("n", 1<<53, "x", "by mistake"); err != nil {
		t.Fatal(err)
	}
	accept(2, "ac", "ab") // a has signed it, and is still there
	if _, err := s.offer("n", 5, "x", ""); !errors.Is(err, ErrRollback) {
		t.Errorf("with one key of the same: %v", err)
	}
	accept(2, "bc", "ab")
	s.by = "b"
	if _, err := s.offer("n", 5, "x", ""); err != nil {
		t.Errorf("with other keys: %v", err)
	}
	if _, err := s.offer("n", 4, "x", ""); !errors.Is(err, ErrRollback) {
		t.Errorf("the new sequence does not count: %v", err)
	}
}

func TestMaxJump(t *testing.T) {
	d := draft(t)
	d.Roles[1].MaxJump = 3
	s := newTestSite(t)
	s.policy, s.by = policyOf(t, d), "c"
	for _, step := range []struct {
		sequence int64
		want     error
	}{{100, nil}, {104, ErrFastForward}, {103, nil}, {106, nil}, {110, ErrFastForward}, {102, ErrRollback}} {
		if _, err := s.offer("apps", step.sequence, "x", ""); !errors.Is(err, step.want) {
			t.Errorf("%d: %v, want %v", step.sequence, err, step.want)
		}
	}
}

// T24: no policy but one that the known root has signed, and of a higher
// version, takes the place of the known one.
func TestMemoryOfPolicy(t *testing.T) {
	text := func(version int64, keys string, change func(*Draft)) []byte {
		d := draft(t)
		d.Version, d.Root = version, DraftQuorum{strings.Split(keys, ""), 2}
		if change != nil {
			change(d)
		}
		return encode(t, d)
	}
	second := text(2, "ab", func(d *Draft) { d.Keys[0].NotAfter, d.Keys[1].NotBefore = clock(time.Hour), clock(-time.Hour) })
	for name, tt := range map[string]struct {
		raw  []byte
		by   string
		want error
	}{
		"the same":                       {second, "ab", nil},
		"the same, with one signature":   {second, "a", ErrThreshold},
		"the next":                       {text(3, "ab", nil), "ab", nil},
		"the next with another root":     {text(3, "bc", nil), "abc", nil},
		"a later one":                    {text(9, "ab", nil), "ab", nil},
		"older":                          {text(1, "ab", nil), "ab", ErrPolicyVersion},
		"older, of another root":         {text(1, "bc", nil), "bc", ErrPolicyVersion},
		"other of the same version":      {text(2, "ab", nil), "ab", ErrPolicyFork},
		"of a stranger":                  {text(3, "bc", nil), "bc", ErrThreshold},
		"unsigned other of that version": {text(2, "ab", nil), "", ErrUnsigned},
		"not a policy":                   {[]byte("version: 3\n"), "ab", ErrPolicy},
	} {
		m := &Memory{}
		p, err := m.OpenPolicy(t.Context(), second, signAll(t, "ab", second), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.AcceptPolicy(p); err != nil {
			t.Fatal(err)
		}
		m = reread(t, m)
		p, err = m.OpenPolicy(t.Context(), tt.raw, signAll(t, tt.by, tt.raw), nil, noon)
		if !errors.Is(err, tt.want) || (p == nil) != (tt.want != nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if err != nil {
			continue
		}
		if err := m.AcceptPolicy(p); err != nil || m.Policy.Version != p.Version() || m.Policy.Digest != DigestOf(tt.raw) {
			t.Errorf("%s: accepting: %v, %+v", name, err, m.Policy)
		}
	}
	// Of two that were opened, the one that comes later does not go back.
	m := &Memory{}
	older, newer := policyOf(t, draft(t)), text(2, "ab", nil)
	p, err := m.OpenPolicy(t.Context(), newer, signAll(t, "ab", newer), nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.AcceptPolicy(p), m.AcceptPolicy(KeyPolicy())); err != nil {
		t.Fatal(err)
	}
	if err := m.AcceptPolicy(older); !errors.Is(err, ErrPolicyVersion) || m.Policy.Version != 2 {
		t.Errorf("going back: %v, %+v", err, m.Policy)
	}
}

// reread returns m as it comes back from its text.
func reread(t *testing.T, m *Memory) *Memory {
	t.Helper()
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseMemory(text)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestWitness(t *testing.T) {
	s := newTestSite(t)
	receipt := func(sequence int64) KnownBundle {
		return KnownBundle{Sequence: sequence, Accepted: clock(0), Digest: DigestOf([]byte("x"))}
	}
	if _, err := s.offer("n", 5, "x", ""); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		sequence int64
		news     bool
	}{{"n", 4, false}, {"n", 5, false}, {"n", 6, true}, {"n", 6, false}, {"m", 1, true}, {"m", -1, false}, {"m", 1<<53 + 1, false}} {
		if got := s.memory.Witness(tt.name, receipt(tt.sequence)); got != tt.news {
			t.Errorf("%s %d: %v, want %v", tt.name, tt.sequence, got, tt.news)
		}
	}
	if _, err := s.offer("n", 5, "x", ""); !errors.Is(err, ErrRollback) {
		t.Errorf("what a receipt tells does not count: %v", err)
	}
	if m := (&Memory{}); !m.Witness("n", receipt(1)) || m.Bundles["n"].Sequence != 1 {
		t.Error("a lost state learns nothing")
	}
}

// No bit of a state can change, and it can not be cut, without notice, but for
// values that stay valid.
func TestParseMemory(t *testing.T) {
	s := newTestSite(t)
	s.policy, s.by = policyOf(t, draft(t)), "c"
	if _, err := s.offer("apps", 5, "x", ""); err != nil {
		t.Fatal(err)
	}
	text, err := s.memory.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if m := reread(t, s.memory); m.Bundles["apps"].Sequence != 5 || m.Policy.Version != 1 {
		t.Errorf("%+v", m)
	}
	for n := range text {
		if _, err := ParseMemory(text[:n]); !errors.Is(err, ErrMemory) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for _, tt := range []struct{ from, to string }{
		{`"sequence": 5`, `"sequence": 5.0`},
		{`"sequence": 5`, `"sequence": 5, "sequence": 4`},
		{`"sequence": 5`, `"Sequence": 5`},
		{`"sequence": 5`, `"sequence": "5"`},
		{`"sequence": 5`, `"sequence": -5`},
		{`"sequence": 5`, `"sequence": 9007199254740993`},
		{`"format": 1`, `"format": 2`},
		{`"threshold": 2`, `"threshold": 0`},
		{`"threshold": 2`, `"threshold": 3`},
		{`"digest": "sha256:`, `"digest": "sha512:`},
		{`BEGIN PUBLIC KEY`, `BEGIN PRIVATE KEY`},
		{`"version": 1`, `"version": 0`},
		{`"version": 1`, `"version": 1, "new": 1`},
		{"}\n", "}\n\n"},
		{"}\n", "}\n{}"},
		{string(text), ""},
		{string(text), "null\n"},
		{string(text), "{}\n"},
	} {
		changed := strings.Replace(string(text), tt.from, tt.to, 1)
		if tt.from == "}\n" {
			changed = strings.TrimSuffix(string(text), tt.from) + tt.to
		}
		if changed == string(text) {
			t.Fatalf("%q is not in %s", tt.from, text)
		}
		if m, err := ParseMemory([]byte(changed)); !errors.Is(err, ErrMemory) || m != nil {
			t.Errorf("%q in place of %q: %v", tt.to, tt.from, err)
		}
	}
	if _, err := ParseMemory(bytes.Repeat([]byte(" "), MaxMemory+1)); !errors.Is(err, ErrMemory) {
		t.Errorf("too long: %v", err)
	}
	large := &Memory{Bundles: map[string]KnownBundle{strings.Repeat("n", MaxMemory): {}}}
	if _, err := large.Encode(); !errors.Is(err, ErrMemory) {
		t.Errorf("too long to write: %v", err)
	}
	broken := &Memory{Policy: &KnownPolicy{}}
	if _, err := broken.OpenPolicy(t.Context(), nil, nil, nil, noon); !errors.Is(err, ErrMemory) {
		t.Errorf("with a broken policy: %v", err)
	}
}

// A policy that was opened before a newer one was accepted admits nothing any
// more.
func TestAcceptChecksThePolicyAgain(t *testing.T) {
	m := &Memory{}
	open := func(version int64) *Policy {
		d := draft(t)
		d.Version = version
		raw := encode(t, d)
		p, err := m.OpenPolicy(t.Context(), raw, signAll(t, "ab", raw), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	raw := []byte("apps 1")
	doc, err := open(1).Recalling(m, "").Open(t.Context(), raw, signAll(t, "c", raw), noon, func([]byte) (Claims, error) {
		return Claims{Name: "apps", Sequence: 1, Targets: []string{"team"}, Created: noon}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AcceptPolicy(open(2)); err != nil {
		t.Fatal(err)
	}
	if err := m.Accept(doc, noon); !errors.Is(err, ErrPolicyVersion) || len(m.Bundles) != 0 || m.Policy.Version != 2 {
		t.Errorf("%v, %+v", err, m)
	}
}
