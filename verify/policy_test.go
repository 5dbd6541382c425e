package verify

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// noon is the time that the policies of these tests are about.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func clock(after time.Duration) string { return noon.Add(after).Format(time.RFC3339) }

// draft is a policy of the keys a, b and c: a and b together are its root, two
// of the three sign what is called platform-…, c alone signs apps for team/.
func draft(t *testing.T) *Draft {
	t.Helper()
	d := &Draft{Version: 1, Root: DraftQuorum{[]string{"a", "b"}, 2}, Roles: []DraftRole{
		{Name: "platform", DraftQuorum: DraftQuorum{[]string{"a", "b", "c"}, 2}, Bundles: []string{"platform-*"}, Targets: []string{"*"}},
		{Name: "apps", DraftQuorum: DraftQuorum{[]string{"c"}, 1}, Bundles: []string{"apps", "app-?"}, Targets: []string{"team", "library/nginx"}, MaxAge: "24h"},
	}}
	for _, name := range []string{"a", "b", "c"} {
		d.Keys = append(d.Keys, DraftKey{Name: name, PEM: string(publicPEM(t, name))})
	}
	return d
}

func publicPEM(t *testing.T, name string) []byte {
	t.Helper()
	testSigner(t, name)
	return testPublic[name]
}

func encode(t *testing.T, d *Draft) []byte {
	t.Helper()
	raw, err := d.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// signAll returns a signature of each of the names, "aab" for a twice and b.
func signAll(t *testing.T, names string, raw []byte) (sigs [][]byte) {
	t.Helper()
	for _, name := range names {
		sigs = append(sigs, sign(t, string(name), raw))
	}
	return sigs
}

func policyOf(t *testing.T, d *Draft) *Policy {
	t.Helper()
	return policyAt(t, d, noon)
}

// Each refusal has its own error, and all are ErrUntrusted.
func TestPolicy(t *testing.T) {
	raw := []byte("the document")
	platform := Claims{Name: "platform-1", Targets: []string{"any/thing"}, Created: noon.Add(-9000 * time.Hour)}
	apps := Claims{Name: "apps", Targets: []string{"team/web", "team", "library/nginx"}, Created: noon.Add(-24 * time.Hour)}
	with := func(c Claims, change func(*Claims)) Claims { change(&c); return c }
	for _, tt := range []struct {
		name   string
		change func(*Draft)
		by     string
		claims Claims
		want   error
		says   string
	}{
		{"two of three", nil, "ab", platform, nil, ""},
		{"other two of three", nil, "cb", platform, nil, ""},
		{"all three", nil, "abc", platform, nil, ""},
		{"one role's key", nil, "c", apps, nil, ""},
		{"more keys than needed", nil, "ac", apps, nil, ""},
		{"a second name", nil, "c", with(apps, func(c *Claims) { c.Name = "app-1" }), nil, ""},
		{"stripped", nil, "", platform, ErrUnsigned, "there is no signature"},                                                // T21
		{"unknown key", nil, "d", platform, ErrWrongKey, "none of the trusted keys"},                                         // T22
		{"key of another role", nil, "a", apps, ErrWrongKey, `["a"]; 0 of the 1 keys that are needed of role "apps"`},        // T22
		{"one short", nil, "a", platform, ErrThreshold, `1 of the 2 keys that are needed of role "platform" for bundle "pl`}, // T22
		{"one short beside an unknown key", nil, "ad", platform, ErrThreshold, "1 of the 2"},
		{"same key twice", nil, "aa", platform, ErrSameKey, `"a" counts once; 1 of the 2`}, // T22
		{"same key twice, and enough", nil, "aab", platform, nil, ""},
		{"no role", nil, "abc", with(platform, func(c *Claims) { c.Name = "platform" }), ErrName, `"platform"`},
		{"no role for the empty name", nil, "abc", with(platform, func(c *Claims) { c.Name = "" }), ErrName, `""`},
		{"another target", nil, "c", with(apps, func(c *Claims) { c.Targets = []string{"team", "platform/etcd"} }), ErrTarget, `"platform/etcd": role "apps" may write team, library/nginx`}, // T29
		{"a target that begins alike", nil, "c", with(apps, func(c *Claims) { c.Targets = []string{"teams/web"} }), ErrTarget, `"teams/web"`},                                                // T29
		{"the parent of a target", nil, "c", with(apps, func(c *Claims) { c.Targets = []string{"library"} }), ErrTarget, `"library"`},                                                        // T29
		{"too old", nil, "c", with(apps, func(c *Claims) { c.Created = noon.Add(-24*time.Hour - time.Second) }), ErrTooOld, "24h0m1s ago, more than the 24h0m0s"},                            // T26
		{"from the future", nil, "c", with(apps, func(c *Claims) { c.Created = noon.Add(24*time.Hour + time.Second) }), ErrFuture, "24h0m1s ahead"},
		{"policy expires", func(d *Draft) { d.Expires = clock(time.Second) }, "c", apps, nil, ""},
		{"policy expired", func(d *Draft) { d.Expires = clock(0) }, "c", apps, ErrPolicyExpired, clock(0)},                                                        // T23
		{"key expired", func(d *Draft) { d.Keys[2].NotAfter = clock(0) }, "c", apps, ErrKeyExpired, `"c" counted until ` + clock(0)},                              // T23
		{"key not yet valid", func(d *Draft) { d.Keys[2].NotBefore = clock(time.Second) }, "c", apps, ErrKeyNotYetValid, `"c" counts from ` + clock(time.Second)}, // T23
		{"one of two expired", func(d *Draft) { d.Keys[2].NotAfter = clock(0) }, "ac", platform, ErrKeyExpired, "1 of the 2"},
		{"one of three expired", func(d *Draft) { d.Keys[2].NotAfter = clock(0) }, "abc", platform, nil, ""},
		{"the first role decides", func(d *Draft) { d.Roles[0].Bundles = []string{"*"} }, "c", apps, ErrThreshold, `role "platform"`},
	} {
		d := draft(t)
		if tt.change != nil {
			tt.change(d)
		}
		doc, err := policyOf(t, d).Open(t.Context(), raw, signAll(t, tt.by, raw), noon, func([]byte) (Claims, error) { return tt.claims, nil })
		if tt.want == nil {
			if err != nil || !bytes.Equal(doc.Bytes(), raw) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if doc != nil || !errors.Is(err, tt.want) || !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.says)
		}
		for _, other := range refusals {
			if other != tt.want && errors.Is(err, other) {
				t.Errorf("%s: it is also %v", tt.name, other)
			}
		}
	}
}

var refusals = []error{ErrNoKey, ErrUnsigned, ErrSignature, ErrWrongKey, ErrSameKey, ErrThreshold, ErrKeyNotYetValid, ErrKeyExpired, ErrName, ErrTarget, ErrTooOld,
	ErrFuture, ErrPolicyExpired, ErrPolicyVersion}

// T23: what counts is the time of the import, to the second.
func TestValidity(t *testing.T) {
	d := draft(t)
	d.Keys[2].NotBefore, d.Keys[2].NotAfter, d.Roles[1].MaxAge = clock(-time.Hour), clock(time.Hour), ""
	p := policyOf(t, d)
	raw := []byte("the document")
	sigs := signAll(t, "c", raw)
	for _, created := range []time.Duration{-2 * time.Hour, -time.Hour, 0, time.Hour, 2 * time.Hour} {
		for at, want := range map[time.Duration]error{-2 * time.Hour: ErrKeyNotYetValid, -time.Hour - time.Second: ErrKeyNotYetValid,
			-time.Hour: nil, time.Hour - time.Second: nil, time.Hour: ErrKeyExpired, 2 * time.Hour: ErrKeyExpired} {
			_, err := p.Open(t.Context(), raw, sigs, noon.Add(at), func([]byte) (Claims, error) {
				return Claims{Name: "apps", Created: noon.Add(created)}, nil
			})
			if !errors.Is(err, want) {
				t.Errorf("made at %s, imported at %s: %v, want %v", created, at, err, want)
			}
		}
	}
}

// Nobody looks into what no trusted key has signed, and a policy that does not
// exist admits nothing.
func TestOpenBeforeParsing(t *testing.T) {
	raw := []byte("the document")
	expired := draft(t)
	expired.Keys[0].NotAfter = clock(0)
	old := draft(t)
	old.Expires = clock(0)
	for name, open := range map[string]func(describe func([]byte) (Claims, error)) (*Document, error){
		"no policy": func(describe func([]byte) (Claims, error)) (*Document, error) {
			var none *Policy
			return none.Open(t.Context(), raw, signAll(t, "a", raw), noon, describe)
		},
		"no keys": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return KeyPolicy().Open(t.Context(), raw, signAll(t, "a", raw), noon, describe)
		},
		"zero policy": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return (&Policy{}).Open(t.Context(), raw, signAll(t, "a", raw), noon, describe)
		},
		"stranger": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return policyOf(t, draft(t)).Open(t.Context(), raw, signAll(t, "d", raw), noon, describe)
		},
		"other content": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return policyOf(t, draft(t)).Open(t.Context(), []byte("another"), signAll(t, "ab", raw), noon, describe)
		},
		"only an expired key": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return policyAt(t, expired, noon.Add(-time.Hour)).Open(t.Context(), raw, signAll(t, "a", raw), noon, describe)
		},
		"policy expired": func(describe func([]byte) (Claims, error)) (*Document, error) {
			return policyOf(t, old).Open(t.Context(), raw, signAll(t, "abc", raw), noon, describe)
		},
	} {
		doc, err := open(func(raw []byte) (Claims, error) {
			t.Errorf("%s: %q is parsed", name, raw)
			return Claims{Name: "platform-1"}, nil
		})
		if doc != nil || !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := errors.New("not a manifest")
	_, err := policyOf(t, draft(t)).Open(t.Context(), raw, signAll(t, "ab", raw), noon, func([]byte) (Claims, error) { return Claims{Name: "platform-1"}, wrong })
	if err != wrong {
		t.Errorf("what can not be parsed gives %v", err)
	}
}

func policyAt(t *testing.T, d *Draft, now time.Time) *Policy {
	t.Helper()
	raw := encode(t, d)
	p, err := OpenPolicy(t.Context(), raw, signAll(t, "ab", raw), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The text of a policy has one meaning, or none (T11).
func TestParseDraft(t *testing.T) {
	good := string(encode(t, draft(t)))
	if _, err := ParseDraft([]byte("# a comment\n" + good + "\n# and another\n")); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q in\n%s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, tt := range map[string]struct{ text, says string }{
		"empty":               {"", "it is empty"},
		"only a comment":      {"# nothing", "it is empty"},
		"a list":              {"- version: 1", "line 1: want keys with values, not a list"},
		"a text":              {"version", `line 1: want keys with values, not "version"`},
		"not YAML":            {"version: [", "did not find"},
		"NUL":                 {good + "\x00", "control characters"},
		"UTF-16":              {"\xff\xfev\x00e\x00", "not UTF-8"},
		"byte order mark":     {"\ufeff" + good, "byte order mark"},
		"too long":            {good + strings.Repeat("#", MaxPolicy), "more than 65536 bytes"},
		"unknown field":       {good + "vesion: 2\n", `: unknown key "vesion"`},
		"other case":          {replace("version:", "Version:"), `: unknown key "Version"`},
		"unknown inner field": {replace("threshold: 2", "threshold: 2\n  keyes: [a]"), `: unknown key "keyes"`},
		"two of them":         {good + "vesion: 2\nrots: 1\n", `: unknown key "vesion"; and 1 more`},
		"wrong kind of truth": {good + "images: [{repositories: [a], threshold: 1, sbom: {a: b}}]\n", "want true or false, not keys with values"},
		"lines in a key":      {good + "\"a\\nb\": 2\n", `: unknown key "a\nb"`},
		"duplicate":           {good + "version: 2\n", "already defined"},
		"inner duplicate":     {replace("threshold: 2", "threshold: 2\n  threshold: 1"), "already defined"},
		"second document":     {good + "---\nversion: 2\n", "more after the first"},
		"empty second one":    {good + "---\n", "more after the first"},
		"broken second one":   {good + "---\n[", "more after the first"},
		"anchor":              {replace("keys: [a, b]", "keys: &x [a, b]"), "anchors and aliases"},
		"alias":               {replace("name: a\n", "name: &n a\n") + "expires: *n\n", "anchors and aliases"},
		"merge":               {replace("root:\n", "root:\n  <<: {threshold: 1}\n"), "not a text"},
		"tag":                 {replace("version: 1", "version: !!int \"1\""), "tags are not allowed"},
		"binary":              {replace("name: a\n", "name: !!binary YQ==\n"), "tags are not allowed"},
		"own tag":             {replace("name: a\n", "name: !secret a\n"), "tags are not allowed"},
		"null":                {replace("version: 1", "version: null"), "neither a text nor an integer"},
		"tilde":               {replace("version: 1", "version: ~"), "neither a text nor an integer"},
		"nothing":             {replace("version: 1", "version:"), "neither a text nor an integer"},
		"boolean":             {replace("name: a\n", "name: true\n"), "neither a text nor an integer"},
		"float":               {replace("version: 1", "version: 1.0"), "neither a text nor an integer"},
		"exponent":            {replace("version: 1", "version: 1e0"), "neither a text nor an integer"},
		"hexadecimal":         {replace("version: 1", "version: 0x1"), "not a decimal integer"},
		"octal":               {replace("version: 1", "version: 01"), "not a decimal integer"},
		"underscore":          {replace("version: 1", "version: 1_0"), "not a decimal integer"},
		"sign":                {replace("version: 1", "version: +1"), "not a decimal integer"},
		"negative":            {replace("version: 1", "version: -1"), "not a decimal integer"},
		"too large":           {replace("version: 1", "version: 99999999999999999"), "not a decimal integer"},
		"text for a number":   {replace("version: 1", "version: \"1\""), `line 1: want an integer, not "1"`},
		"empty list":          {replace("keys: [a, b]", "keys: []"), "nothing in it"},
		"number for a list":   {replace("keys: [a, b]", "keys: 1"), `want a list, not "1"`},
		"text for a list":     {replace("keys: [a, b]", "keys: a"), `want a list, not "a"`},
		"key of a map":        {good + "1: 2\n", "not a text"},
		"map as a key":        {good + "? {a: b}\n: c\n", "want a text, not keys with values"},
		"deep":                {good + "x: " + strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "too deep"},
	} {
		d, err := ParseDraft([]byte(tt.text))
		if err != nil && (strings.ContainsAny(err.Error(), "\n!") || strings.Contains(err.Error(), "Draft")) {
			t.Errorf("%s: not on one line, or of Go: %q", name, err)
		}
		if d != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

// What a policy must not mean.
func TestDraftRefused(t *testing.T) {
	other := string(publicPEM(t, "b"))
	files := fstest.MapFS{"a.pub": {Data: publicPEM(t, "a")}, "b.pub": {Data: publicPEM(t, "b")}, "large.pub": {Data: make([]byte, maxKey+1)}}
	print := testSigner(t, "a").Key().Fingerprint()
	if _, err := (&Draft{Version: 1, Keys: []DraftKey{{Name: "a", File: "a.pub", Fingerprint: print}}, Root: DraftQuorum{[]string{"a"}, 1},
		Roles: []DraftRole{{Name: "all", DraftQuorum: DraftQuorum{[]string{"a"}, 1}, Bundles: []string{"*"}, Targets: []string{"*"}}}}).Encode(files); err != nil {
		t.Errorf("a key in a file: %v", err)
	}
	for name, tt := range map[string]struct {
		change func(*Draft)
		says   string
	}{
		"version 0":              {func(d *Draft) { d.Version = 0 }, "version 0"},
		"version too large":      {func(d *Draft) { d.Version = 1<<53 + 1 }, "version 9007199254740993"},
		"expires never":          {func(d *Draft) { d.Expires = "never" }, `expires: "never"`},
		"expires on a day":       {func(d *Draft) { d.Expires = "2026-11-21" }, `expires: "2026-11-21"`},
		"no keys":                {func(d *Draft) { d.Keys = nil }, `there is no key "a"`},
		"key without a name":     {func(d *Draft) { d.Keys[0].Name = "" }, "the name is not"},
		"key with a hard name":   {func(d *Draft) { d.Keys[0].Name = "a\x1b[m" }, "the name is not"},
		"two keys of a name":     {func(d *Draft) { d.Keys[0].Name = "b" }, `key "b" is there twice`},
		"one key by two names":   {func(d *Draft) { d.Keys[0].PEM = other }, `keys "a" and "b" are the same key`}, // T22
		"no PEM":                 {func(d *Draft) { d.Keys[0].PEM = "" }, "want one of pem and file"},
		"PEM and file":           {func(d *Draft) { d.Keys[0].File = "a.pub" }, "want one of pem and file"},
		"junk":                   {func(d *Draft) { d.Keys[0].PEM = "junk" }, `key "a": public key`},
		"other fingerprint":      {func(d *Draft) { d.Keys[0].Fingerprint = "x" }, "its fingerprint is"},
		"file, no fingerprint":   {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "a.pub"} }, "needs the key's fingerprint"},
		"another file":           {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "b.pub", Fingerprint: print} }, "its fingerprint is"},
		"no such file":           {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "c.pub", Fingerprint: print} }, "c.pub"},
		"file above":             {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "../a.pub", Fingerprint: print} }, "../a.pub"},
		"file at the root":       {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "/a.pub", Fingerprint: print} }, "/a.pub"},
		"large file":             {func(d *Draft) { d.Keys[0] = DraftKey{Name: "a", File: "large.pub", Fingerprint: print} }, "more than 65536 bytes"},
		"notBefore":              {func(d *Draft) { d.Keys[0].NotBefore = "x" }, `notBefore: "x"`},
		"notAfter":               {func(d *Draft) { d.Keys[0].NotAfter = "x" }, `notAfter: "x"`},
		"never valid":            {func(d *Draft) { d.Keys[0].NotBefore, d.Keys[0].NotAfter = clock(0), clock(0) }, "not after notBefore"},
		"no root":                {func(d *Draft) { d.Root = DraftQuorum{} }, "root: threshold 0"},
		"threshold 0":            {func(d *Draft) { d.Root.Threshold = 0 }, "root: threshold 0"},
		"threshold -1":           {func(d *Draft) { d.Roles[0].Threshold = -1 }, "threshold -1"},
		"threshold out of reach": {func(d *Draft) { d.Roles[1].Threshold = 2 }, `role "apps": threshold 2`},
		"unknown key":            {func(d *Draft) { d.Roles[1].Keys = []string{"x"} }, `there is no key "x"`},
		"key twice in a role":    {func(d *Draft) { d.Roles[1].Keys = []string{"c", "c"} }, `key "c" is there twice`}, // T22
		"no roles":               {func(d *Draft) { d.Roles = nil }, "there are no roles"},
		"role without a name":    {func(d *Draft) { d.Roles[0].Name = "" }, "the name is not"},
		"two roles of a name":    {func(d *Draft) { d.Roles[0].Name = "apps" }, "the name is taken"},
		"role root":              {func(d *Draft) { d.Roles[0].Name = "root" }, "the name is taken"},
		"no bundles":             {func(d *Draft) { d.Roles[0].Bundles = nil }, "bundles or targets are missing"},
		"no targets":             {func(d *Draft) { d.Roles[0].Targets = nil }, "bundles or targets are missing"},
		"bad pattern":            {func(d *Draft) { d.Roles[0].Bundles = []string{"["} }, `"[" is not a pattern`},
		"empty pattern":          {func(d *Draft) { d.Roles[0].Bundles = []string{""} }, `"" is not a pattern`},
		"empty target":           {func(d *Draft) { d.Roles[0].Targets = []string{""} }, `target ""`},
		"target with a slash":    {func(d *Draft) { d.Roles[0].Targets = []string{"team/"} }, `target "team/"`},
		"target at the root":     {func(d *Draft) { d.Roles[0].Targets = []string{"/team"} }, `target "/team"`},
		"target above":           {func(d *Draft) { d.Roles[0].Targets = []string{"../team"} }, `target "../team"`},
		"pattern as a target":    {func(d *Draft) { d.Roles[0].Targets = []string{"team/*"} }, `target "team/*"`},
		"target with a tag":      {func(d *Draft) { d.Roles[0].Targets = []string{"team/app:v1"} }, `target "team/app:v1"`},
		"age without a unit":     {func(d *Draft) { d.Roles[0].MaxAge = "24" }, `maxAge "24"`},
		"age 0":                  {func(d *Draft) { d.Roles[0].MaxAge = "0h" }, `maxAge "0h"`},
		"too many keys":          {func(d *Draft) { d.Keys[0].PEM += strings.Repeat("\n", MaxPolicy) }, "more than 65536 bytes"},
	} {
		d := draft(t)
		tt.change(d)
		raw, err := d.Encode(files)
		if raw != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

// T02: no bit of a policy or of its signatures can change.
func TestEveryBitOfPolicy(t *testing.T) {
	d := draft(t)
	d.Keys, d.Root, d.Roles = d.Keys[:1], DraftQuorum{[]string{"a"}, 1}, []DraftRole{{"all", DraftQuorum{[]string{"a"}, 1}, []string{"*"}, []string{"*"}, "", 0}}
	raw := encode(t, d)
	sig := signAll(t, "a", raw)[0]
	open := func(raw, sig []byte) error {
		_, err := OpenPolicy(t.Context(), raw, [][]byte{sig}, nil, noon)
		return err
	}
	if err := open(raw, sig); err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		raw[i/8] ^= 1 << (i % 8)
		if err := open(raw, sig); !errors.Is(err, ErrUntrusted) && !errors.Is(err, ErrPolicy) {
			t.Errorf("bit %d changed: %v", i, err)
		}
		raw[i/8] ^= 1 << (i % 8)
	}
	for n := range raw {
		if open(raw[:n], sig) == nil {
			t.Errorf("it opens when cut to %d bytes", n)
		}
	}
}

// T23: three versions, with new keys each time. Each is accepted after the one
// before it and no other way.
func TestRotation(t *testing.T) {
	roots := []string{"ab", "bc", "cd"}
	var texts [][]byte
	for i, names := range roots {
		d := draft(t)
		d.Version, d.Keys = int64(i+1), nil
		for _, name := range names {
			d.Keys = append(d.Keys, DraftKey{Name: string(name), PEM: string(publicPEM(t, string(name)))})
		}
		d.Root = DraftQuorum{strings.Split(names, ""), 2}
		d.Roles = []DraftRole{{"all", DraftQuorum{d.Root.Keys, 1}, []string{"*"}, []string{"*"}, "", 0}}
		texts = append(texts, encode(t, d))
	}
	open := func(i int) *Policy {
		p, err := OpenPolicy(t.Context(), texts[i], signAll(t, roots[i], texts[i]), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		from, to int
		by       string
		want     error
	}{
		{0, 1, "abc", nil},
		{1, 2, "bcd", nil},
		{0, 1, "bc", ErrThreshold}, // a, of the old root, is missing
		{0, 1, "ab", ErrThreshold}, // c, of the new root, is missing
		{0, 1, "bbcc", ErrSameKey}, // T22
		{0, 1, "", ErrUnsigned},    // T21
		{0, 2, "cd", ErrWrongKey},  // no version is passed over
		{0, 2, "abcd", nil},        // unless the old root agrees
		{0, 0, "ab", ErrPolicyVersion},
		{1, 0, "abc", ErrPolicyVersion}, // T24
		{2, 1, "bcd", ErrPolicyVersion},
		{2, 0, "abcd", ErrPolicyVersion},
	} {
		raw := texts[tt.to]
		p, err := open(tt.from).Next(t.Context(), raw, signAll(t, tt.by, raw), nil, noon)
		if !errors.Is(err, tt.want) || err == nil && p.Version() != int64(tt.to+1) || err != nil && p != nil {
			t.Errorf("from version %d to %d, signed by %q: %v, want %v", tt.from+1, tt.to+1, tt.by, err, tt.want)
		}
	}
	old := draft(t)
	old.Expires = clock(-time.Hour)
	raw := texts[1]
	if _, err := policyOf(t, old).Next(t.Context(), raw, signAll(t, "abc", raw), nil, noon); err != nil {
		t.Errorf("a policy that has expired can not be renewed: %v", err)
	}
	late := draft(t)
	late.Keys[0].NotAfter = clock(0)
	if _, err := policyAt(t, late, noon.Add(-time.Hour)).Next(t.Context(), raw, signAll(t, "abc", raw), nil, noon); !errors.Is(err, ErrKeyExpired) {
		t.Errorf("a key that has expired renews a policy: %v", err)
	}
}

// The same key given twice is one key.
func TestKeyPolicy(t *testing.T) {
	raw := []byte("the document")
	a := testSigner(t, "a").Key()
	doc, err := KeyPolicy(a, a).Open(t.Context(), raw, signAll(t, "aa", raw), time.Time{}, func([]byte) (Claims, error) {
		return Claims{Name: "any", Targets: []string{"any/thing"}}, nil
	})
	if err != nil || len(doc.Signers()) != 1 || doc.Signers()[0].Fingerprint() != a.Fingerprint() {
		t.Errorf("%v, %v", doc, err)
	}
}
