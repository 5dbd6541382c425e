package verify

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
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
		"replay of all before": {{"n", 3, "x", nil, ""}, {"n", 2, "x", ErrRollback, `its sequence is 2, and 3 of "n" was accepted at 2026-11-21T12:00:00Z, signed with key `},
			{"n", 1, "x", ErrRollback, ""}, {"n", 0, "x", ErrRollback, ""}, {"n", 3, "x", nil, ""}},
		"other names":       {{"n", 3, "x", nil, ""}, {"m", 2, "x", nil, ""}, {"N", 1, "x", nil, ""}, {"n", 2, "x", ErrRollback, ""}},
		"from 0 on":         {{"n", 0, "x", nil, ""}, {"n", 0, "y", ErrEquivocation, ""}, {"n", 1, "x", nil, ""}},
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
		if got := s.highest("n"); got != tt.highest {
			t.Errorf("%s: the highest sequence is %d, want %d", name, got, tt.highest)
		}
		if _, err := s.offer("n", 3, "x", ""); !errors.Is(err, ErrRollback) {
			t.Errorf("%s: without an override: %v", name, err)
		}
		if tt.highest > 5 {
			continue
		}
		if _, err := s.offer("n", 5, "x", ""); err != nil {
			t.Errorf("%s: what was accepted first: %v", name, err)
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

// accept opens and accepts the policy of a version whose role has these keys.
func (s *site) accept(version int64, role string) {
	s.t.Helper()
	d := draft(s.t)
	d.Version = version
	d.Roles = []DraftRole{{Name: "all", DraftQuorum: DraftQuorum{strings.Split(role, ""), 1}, Bundles: []string{"*"}, Targets: []string{"*"}}}
	raw := encode(s.t, d)
	p, err := s.memory.OpenPolicy(s.t.Context(), raw, signAll(s.t, "ab", raw), nil, noon)
	if err == nil {
		err = s.memory.AcceptPolicy(p)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.policy = p
}

// highest returns the highest sequence that is known of a name, or -1.
func (s *site) highest(name string) int64 {
	highest := int64(-1)
	for _, b := range s.memory.Bundles[name] {
		highest = max(highest, b.Sequence)
	}
	return highest
}

// T24, T25: what a key has signed counts as long as that key can sign: a
// sequence that was too high ends with its key, and nothing of the other keys
// can be replayed for that.
func TestKeysThatChange(t *testing.T) {
	type step struct {
		by       string
		sequence int64
		want     error
	}
	for name, steps := range map[string]map[string][]step{
		"too high, then without the key": {
			"1 ab": {{"b", 7, nil}, {"a", 9000, nil}, {"b", 8, ErrRollback}},
			"2 ac": {{"c", 8, ErrRollback}},
			"3 bc": {{"b", 6, ErrRollback}, {"b", 8, nil}, {"c", 7, ErrRollback}, {"c", 9, nil}},
			"4 ab": {{"b", 10, ErrRollback}},
		},
		"the other key signed the last": {
			"1 ab": {{"a", 10, nil}, {"b", 11, nil}},
			"2 ac": {{"a", 9, ErrRollback}, {"c", 9, ErrRollback}, {"a", 12, nil}},
		},
		"there and back": {
			"1 a": {{"a", 10, nil}},
			"2 b": {{"b", 3, nil}},
			"3 a": {{"a", 9, ErrRollback}, {"a", 10, nil}, {"a", 11, nil}},
		},
	} {
		s := newTestSite(t)
		for _, policy := range slices.Sorted(maps.Keys(steps)) {
			version, keys, _ := strings.Cut(policy, " ")
			n, _ := strconv.ParseInt(version, 10, 64)
			s.accept(n, keys)
			for i, step := range steps[policy] {
				s.by = step.by
				if _, err := s.offer("n", step.sequence, "x", ""); !errors.Is(err, step.want) {
					t.Errorf("%s, policy %s, step %d: %v, want %v", name, policy, i+1, err, step.want)
				}
			}
		}
	}
	// A bundle that was taken with --key does not make the policy forget.
	s := newTestSite(t)
	s.accept(1, "a")
	for _, sequence := range []int64{1, 10} {
		if _, err := s.offer("n", sequence, "x", ""); err != nil {
			t.Fatal(err)
		}
	}
	policy := s.policy
	s.policy, s.by = KeyPolicy(testSigner(t, "b").Key()), "b"
	if _, err := s.offer("n", 11, "x", ""); err != nil {
		t.Fatal(err)
	}
	s.policy, s.by = policy, "a"
	if _, err := s.offer("n", 3, "x", ""); !errors.Is(err, ErrRollback) {
		t.Errorf("after a bundle of another key: %v", err)
	}
}

// What is only looked at is never accepted, and tells what would be refused.
func TestObserving(t *testing.T) {
	s := newTestSite(t)
	if _, err := s.offer("n", 5, "x", ""); err != nil {
		t.Fatal(err)
	}
	raw := []byte("n 4")
	doc, err := s.policy.Observing(s.memory).Open(t.Context(), raw, signAll(t, "a", raw), noon, func([]byte) (Claims, error) {
		return Claims{Name: "n", Sequence: 4}, nil
	})
	if err != nil || !errors.Is(doc.Overridden(), ErrRollback) || doc.Override() != "" {
		t.Fatalf("%v, %v", doc, err)
	}
	if err := s.memory.Accept(doc, noon); err == nil || s.highest("n") != 5 {
		t.Errorf("it was accepted: %v", err)
	}
	if err := (&Memory{}).Accept(doc, noon); err == nil {
		t.Error("it was accepted where nothing is against it")
	}
	if p := (*Policy)(nil); p.Observing(s.memory) != nil || p.Recalling(s.memory, "") != nil {
		t.Error("no policy becomes one")
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

// What receipts tell makes it stricter, never laxer, and is not written.
func TestWitness(t *testing.T) {
	a, b := testSigner(t, "a").Key().Fingerprint(), testSigner(t, "b").Key().Fingerprint()
	told := func(fingerprint string, sequence int64) KnownBundles {
		return KnownBundles{fingerprint: {Sequence: sequence, Accepted: clock(0), Digest: DigestOf([]byte("x"))}}
	}
	for name, tt := range map[string]struct {
		told     KnownBundles
		news     bool
		sequence int64 // is offered, by a, after 5
		want     error
	}{
		"older":                       {told(a, 4), false, 6, nil},
		"the same sequence":           {told(a, 5), false, 6, nil},
		"newer":                       {told(a, 7), true, 6, ErrRollback},
		"newer, and that is offered":  {told(a, 7), true, 7, ErrEquivocation},
		"newer, and newer is offered": {told(a, 7), true, 8, nil},
		"of another key":              {told(b, 7), true, 6, nil},
		"of no key":                   {KnownBundles{}, false, 6, nil},
		"negative":                    {told(a, -1), false, 6, nil},
		"too high":                    {told(a, 1<<53+1), false, 6, nil},
		"what a site knows better":    {told(a, 7), true, 4, ErrRollback},
	} {
		s := newTestSite(t)
		if _, err := s.offer("n", 5, "x", ""); err != nil {
			t.Fatal(err)
		}
		if got := s.memory.Witness("n", tt.told, 0); got != tt.news {
			t.Errorf("%s: news %t, want %t", name, got, tt.news)
		}
		if s.memory.Witness("n", tt.told, 0) && tt.told[b].Sequence == 0 && tt.told[a].Sequence <= 5 {
			t.Errorf("%s: it is news again", name)
		}
		if _, err := s.offer("n", tt.sequence, "x", ""); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		// An override admits it, and tells of it; what is kept is what was accepted.
		doc, err := s.offer("n", 3, "x", "ticket 12")
		if err != nil || !errors.Is(doc.Overridden(), ErrRollback) {
			t.Errorf("%s: overridden: %v, %v", name, doc, err)
		}
		if got, want := s.highest("n"), max(5, tt.sequence*int64(b2i(tt.want == nil))); got != want {
			t.Errorf("%s: %d is written, want %d", name, got, want)
		}
		believed, own := s.memory.Known("n", true)[a].Sequence, s.memory.Known("n", false)[a].Sequence
		if own != s.highest("n") || believed < own {
			t.Errorf("%s: known are %d and %d", name, own, believed)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
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
	if m := reread(t, s.memory); m.Bundles["apps"][testSigner(t, "c").Key().Fingerprint()].Sequence != 5 || m.Policy.Version != 1 {
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
	large := &Memory{Bundles: map[string]KnownBundles{strings.Repeat("n", MaxMemory): {}}}
	if _, err := large.Encode(); err == nil || errors.Is(err, ErrMemory) {
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

// What receipts tell of policies counts, too, where the state was lost.
func TestWitnessOfPolicy(t *testing.T) {
	for version, want := range map[int64]error{0: nil, 2: ErrPolicyVersion, 3: nil, 4: nil} {
		for _, known := range []bool{false, true} {
			d := draft(t)
			p := KeyPolicy()
			if version > 0 {
				d.Version = version
				p = policyOf(t, d)
			}
			m := &Memory{}
			if known {
				if err := m.AcceptPolicy(p); err != nil {
					t.Fatal(err)
				}
			}
			if news := m.Witness("n", nil, 3); news == (known && version >= 3) {
				t.Errorf("version %d, known %t: news %t", version, known, news)
			}
			if err := m.AcceptPolicy(p); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("version %d, known %t: %v, want %v", version, known, err, want)
			}
		}
	}
}

// Of two policies that were opened after the same one, the second has to be
// opened again: the first may have a root that has not signed it.
func TestPoliciesAtOnce(t *testing.T) {
	m := &Memory{}
	open := func(version int64, root, by string) *Policy {
		d := draft(t)
		d.Version, d.Root.Keys = version, strings.Split(root, "")
		raw := encode(t, d)
		p, err := m.OpenPolicy(t.Context(), raw, signAll(t, by, raw), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := m.AcceptPolicy(open(1, "ab", "ab")); err != nil {
		t.Fatal(err)
	}
	second, third := open(2, "bc", "abc"), open(3, "ab", "ab")
	if err := m.AcceptPolicy(second); err != nil {
		t.Fatal(err)
	}
	if err := m.AcceptPolicy(third); !errors.Is(err, ErrPolicyVersion) || m.Policy.Version != 2 {
		t.Errorf("%v, version %d", err, m.Policy.Version)
	}
	if err := m.AcceptPolicy(open(3, "ab", "abc")); err != nil || m.Policy.Version != 3 {
		t.Errorf("opened again: %v", err)
	}
}

func TestWitnessNews(t *testing.T) {
	told := KnownBundles{"x": {Sequence: 1}}
	m := &Memory{Bundles: map[string]KnownBundles{"n": {"x": {Sequence: 2}}}}
	for _, tt := range []struct {
		policy int64
		news   bool
	}{{0, false}, {3, true}, {3, false}, {maxInteger + 1, false}, {maxInteger, true}} {
		if got := m.Witness("n", told, tt.policy); got != tt.news {
			t.Errorf("policy %d: news %t", tt.policy, got)
		}
	}
}
