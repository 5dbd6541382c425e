package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ErrPolicy says that a text is not a policy.
var ErrPolicy = errors.New("invalid policy")

const (
	// MaxPolicy, in bytes, bounds a policy; one with 100 inline keys has
	// about 30,000.
	MaxPolicy = 64 << 10
	// maxPolicyDepth is one more than a policy nests: the subject of one of the
	// identities in one of the rules for images.
	maxPolicyDepth = 7
	// maxInteger is the largest number that every JSON reader knows exactly.
	maxInteger = 1 << 53
)

// Draft is the text of a policy, which nobody needs to have signed: to look at
// and to change, but not to verify with.
type Draft struct {
	Version int64        `yaml:"version"`
	Expires string       `yaml:"expires,omitempty"` // RFC 3339; empty means never
	Keys    []DraftKey   `yaml:"keys"`
	Root    DraftQuorum  `yaml:"root"` // who signs the policy itself
	Roles   []DraftRole  `yaml:"roles"`
	Images  []DraftImage `yaml:"images,omitempty"` // the first that fits a repository decides
}

// DraftKey is a public key: its PEM, or a file beside the policy, with a
// fingerprint since the policy's signatures do not cover the file.
type DraftKey struct {
	Name        string `yaml:"name"`
	PEM         string `yaml:"pem,omitempty"`
	File        string `yaml:"file,omitempty"`        // relative to the policy, with slashes, nowhere above it
	Fingerprint string `yaml:"fingerprint,omitempty"` // required with a file
	NotBefore   string `yaml:"notBefore,omitempty"`   // RFC 3339; empty means no limit
	NotAfter    string `yaml:"notAfter,omitempty"`    // RFC 3339; the key does not count from then on
}

// DraftQuorum is how many of which keys have to sign.
type DraftQuorum struct {
	Keys      []string `yaml:"keys,flow"` // names
	Threshold int      `yaml:"threshold"`
}

// DraftRole is who signs which bundles.
type DraftRole struct {
	Name        string `yaml:"name"`
	DraftQuorum `yaml:",inline"`
	Bundles     []string `yaml:"bundles,flow"`      // patterns of names: *, ?, [a-c]
	Targets     []string `yaml:"targets,flow"`      // repository paths, each with what is below it; "*" is any
	MaxAge      string   `yaml:"maxAge,omitempty"`  // like 720h; empty means no limit
	MaxJump     int64    `yaml:"maxJump,omitempty"` // how much the sequence may grow at once; 0 means no limit of its own
}

// DraftImage is which signatures of their own the images of some repositories
// must carry. What no entry fits needs none.
type DraftImage struct {
	// Repositories are patterns of whole repository paths as they stand in the
	// bundle: *, ? and [a-c] stand for a part of one name between slashes, and
	// ** as the last name for one name or more.
	Repositories []string        `yaml:"repositories,flow"`
	Keys         []string        `yaml:"keys,flow,omitempty"` // names
	Identities   []DraftIdentity `yaml:"identities,omitempty"`
	// Threshold is how many of the keys and identities have to sign: the image,
	// and each of the attestations.
	Threshold    int        `yaml:"threshold"`
	TrustedRoot  *DraftFile `yaml:"trustedRoot,omitempty"`  // of Sigstore; required with identities
	Attestations []string   `yaml:"attestations,omitempty"` // predicate types that must be there
	SBOM         bool       `yaml:"sbom,omitempty"`         // an attestation with an SPDX or CycloneDX predicate must be there
}

// DraftIdentity is who has asked for the short-lived certificate of a keyless
// signature. A regular expression has to match the whole.
type DraftIdentity struct {
	Issuer        string `yaml:"issuer,omitempty"`
	IssuerRegexp  string `yaml:"issuerRegexp,omitempty"`
	Subject       string `yaml:"subject,omitempty"`
	SubjectRegexp string `yaml:"subjectRegexp,omitempty"`
}

// DraftFile is a file beside the policy, with its digest since the policy's
// signatures do not cover it.
type DraftFile struct {
	File   string `yaml:"file"`   // relative to the policy, with slashes, nowhere above it
	SHA256 string `yaml:"sha256"` // 64 lower-case hex digits
}

// ParseDraft returns the policy in a YAML text. Unknown, misspelt and duplicate
// keys, anchors, aliases, explicit tags, nulls, empty lists, numbers that are
// not decimal integers, and a second document are errors (T11). Errors:
// [ErrPolicy].
func ParseDraft(raw []byte) (*Draft, error) {
	if len(raw) > MaxPolicy {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrPolicy, MaxPolicy)
	}
	// The library reads UTF-16 as well, and passes over a byte order mark.
	if !utf8.Valid(raw) || bytes.HasPrefix(raw, []byte("\ufeff")) {
		return nil, fmt.Errorf("%w: it is not UTF-8, or begins with a byte order mark", ErrPolicy)
	}
	nodes := yaml.NewDecoder(bytes.NewReader(raw))
	var document, second yaml.Node
	if err := nodes.Decode(&document); err == io.EOF {
		return nil, fmt.Errorf("%w: it is empty", ErrPolicy)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrPolicy, yamlText(err))
	}
	if err := nodes.Decode(&second); err != io.EOF {
		return nil, fmt.Errorf("%w: there is more after the first document", ErrPolicy)
	}
	if err := plain(&document, 0, ""); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	var d Draft
	strict := yaml.NewDecoder(bytes.NewReader(raw))
	strict.KnownFields(true)
	if err := strict.Decode(&d); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrPolicy, yamlText(err))
	}
	return &d, nil
}

var (
	unknownKey = regexp.MustCompile(`(?s)^(line \d+): field (.*) not found in type \S+$`)
	wrongKind  = regexp.MustCompile("(?s)^(line \\d+): cannot unmarshal !!([a-z]+)(?: `(.*)`)? into (\\S+)$")
)

// yamlText returns, on one line and without types of Go, what the library
// found wrong first.
func yamlText(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var all *yaml.TypeError
	if errors.As(err, &all) && len(all.Errors) > 0 {
		text = all.Errors[0]
	}
	if m := unknownKey.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s: unknown key %q", m[1], m[2])
	} else if m := wrongKind.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s: want %s, not %s", m[1], wantedKind(m[4]), cmp.Or(map[string]string{"seq": "a list", "map": "keys with values"}[m[2]], fmt.Sprintf("%q", m[3])))
	}
	if all != nil && len(all.Errors) > 1 {
		text += fmt.Sprintf("; and %d more", len(all.Errors)-1)
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// wantedKind returns what of YAML goes into a type of Go.
func wantedKind(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "int"):
		return "an integer"
	case goType == "string":
		return "a text"
	case goType == "bool":
		return "true or false"
	}
	return "keys with values"
}

var decimal = regexp.MustCompile(`^(0|[1-9][0-9]{0,15})$`)

// plain refuses the parts of YAML that a policy has no use for. The key is that
// whose value n is, or "".
func plain(n *yaml.Node, depth int, key string) error {
	refuse := func(what string) error { return fmt.Errorf("line %d: %s", n.Line, what) }
	switch {
	case depth > maxPolicyDepth:
		return refuse("it nests too deep")
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return refuse("anchors and aliases are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		return refuse("tags are not allowed")
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		return refuse("a list has nothing in it")
	}
	if n.Kind == yaml.ScalarNode {
		switch tag := n.ShortTag(); {
		case key == "sbom":
			// The library takes "yes" and "on" for a truth, and others a text.
			if n.Style != 0 || n.Value != "true" && n.Value != "false" {
				return refuse(fmt.Sprintf("%q is neither true nor false", n.Value))
			}
		case tag == "!!str", tag == "!!timestamp":
		case tag == "!!int":
			if !decimal.MatchString(n.Value) {
				return refuse(fmt.Sprintf("%q is not a decimal integer; a text that looks like a number needs quotes", n.Value))
			}
		default:
			return refuse(fmt.Sprintf("%q is neither a text nor an integer; a text needs quotes", n.Value))
		}
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.Kind == yaml.ScalarNode && child.ShortTag() != "!!str" {
			return fmt.Errorf("line %d: key %q is not a text", child.Line, child.Value)
		}
		key := ""
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			key = n.Content[i-1].Value
		}
		if err := plain(child, depth+1, key); err != nil {
			return err
		}
	}
	return nil
}

// Encode returns the YAML text of the policy, after checking it; files has the
// key files. Errors: [ErrPolicy].
func (d *Draft) Encode(files fs.FS) ([]byte, error) {
	if _, err := d.policy(files); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(d), enc.Close()); err != nil {
		return nil, fmt.Errorf("encoding the policy: %w", err)
	}
	if b.Len() > MaxPolicy {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrPolicy, MaxPolicy)
	}
	return b.Bytes(), nil
}

// Fingerprints returns those of the keys by their names, after checking the
// policy; files has the key files. Errors: [ErrPolicy].
func (d *Draft) Fingerprints(files fs.FS) (map[string]string, error) {
	p, err := d.policy(files)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, k := range p.keys {
		all[k.name] = k.fingerprint
	}
	return all, nil
}

// RootSigners returns the keys of the root that have signed raw and count at
// the time now, each once: those that its threshold asks for. files has the
// key files. Errors: [ErrPolicy], [ErrSignature].
func (d *Draft) RootSigners(ctx context.Context, raw []byte, signatures [][]byte, files fs.FS, now time.Time) ([]Key, error) {
	p, err := d.policy(files)
	if err != nil {
		return nil, err
	}
	made, err := check(ctx, raw, signatures, p.root.keys)
	if errors.Is(err, ErrUnsigned) || errors.Is(err, ErrWrongKey) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signers, _ := quorum{keys: p.root.keys}.meet(made, now) // any number is enough for the threshold 0
	return signers, nil
}

// policy returns the policy that d means. Errors: [ErrPolicy].
func (d *Draft) policy(files fs.FS) (*Policy, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrPolicy, fmt.Errorf(format, args...))
	}
	if d.Version < 1 || d.Version > maxInteger {
		return nil, invalid("version %d is not between 1 and 2^53", d.Version)
	}
	p := &Policy{version: d.Version}
	var err error
	if p.expires, err = parseTime(d.Expires); err != nil {
		return nil, invalid("expires: %w", err)
	}
	for _, text := range d.Keys {
		key, err := text.key(files)
		if err != nil {
			return nil, invalid("key %q: %w", text.Name, err)
		}
		if p.named(key.name) != nil {
			return nil, invalid("key %q is there twice", key.name)
		}
		if same := p.key(key.fingerprint); same != nil { // else it would count twice (T22)
			return nil, invalid("keys %q and %q are the same key", same.name, key.name)
		}
		p.keys = append(p.keys, key)
	}
	if p.root, err = p.quorum("root", d.Root); err != nil {
		return nil, invalid("root: %w", err)
	}
	if len(d.Roles) == 0 {
		return nil, invalid("there are no roles")
	}
	seen := map[string]bool{"root": true}
	for _, text := range d.Roles {
		r, err := p.newRole(text)
		if err == nil && seen[r.name] {
			err = errors.New("the name is taken")
		}
		if err != nil {
			return nil, invalid("role %q: %w", text.Name, err)
		}
		seen[r.name] = true
		p.roles = append(p.roles, r)
	}
	for i, text := range d.Images {
		r, err := p.newImageRule(text, files)
		if err != nil {
			return nil, invalid("images %d, %q: %w", i+1, text.Repositories, err)
		}
		p.images = append(p.images, r)
	}
	return p, nil
}

func (p *Policy) named(name string) *policyKey {
	for _, k := range p.keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

var policyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return t, fmt.Errorf("%q is not a time like 2026-11-21T00:00:00Z", s)
	}
	return t.UTC(), nil
}

func (d DraftKey) key(files fs.FS) (*policyKey, error) {
	if !policyName.MatchString(d.Name) {
		return nil, errors.New("the name is not of letters, digits and . _ @ + -")
	}
	k := &policyKey{name: d.Name}
	pem, err := d.content(files)
	if err != nil {
		return nil, err
	}
	if k.Key, err = ParseKey(pem); err != nil {
		return nil, err
	}
	if d.Fingerprint != "" && d.Fingerprint != k.fingerprint {
		return nil, fmt.Errorf("its fingerprint is %s, not %q", k.fingerprint, d.Fingerprint)
	}
	if k.notBefore, err = parseTime(d.NotBefore); err != nil {
		return nil, fmt.Errorf("notBefore: %w", err)
	}
	if k.notAfter, err = parseTime(d.NotAfter); err != nil {
		return nil, fmt.Errorf("notAfter: %w", err)
	}
	if !k.notAfter.IsZero() && !k.notBefore.Before(k.notAfter) {
		return nil, errors.New("notAfter is not after notBefore")
	}
	return k, nil
}

// content returns the PEM of the key.
func (d DraftKey) content(files fs.FS) ([]byte, error) {
	switch {
	case (d.PEM == "") == (d.File == ""):
		return nil, errors.New("want one of pem and file")
	case d.PEM != "":
		return []byte(d.PEM), nil
	case d.Fingerprint == "":
		return nil, errors.New("a file needs the key's fingerprint, for the policy's signature does not cover it")
	case files == nil:
		return nil, errors.New("there are no files beside this policy")
	}
	f, err := files.Open(d.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKey+1)) // ParseKey refuses more than maxKey
}

func (p *Policy) quorum(name string, d DraftQuorum) (quorum, error) {
	q := quorum{name: name, threshold: d.Threshold}
	var err error
	if q.keys, err = p.allNamed(d.Keys); err != nil {
		return q, err
	}
	if q.threshold < 1 || q.threshold > len(q.keys) {
		return q, fmt.Errorf("threshold %d is not between 1 and its %d keys", q.threshold, len(q.keys))
	}
	return q, nil
}

// allNamed returns the keys of those names, each once.
func (p *Policy) allNamed(names []string) (keys []*policyKey, err error) {
	for _, name := range names {
		key := p.named(name)
		if key == nil {
			return nil, fmt.Errorf("there is no key %q", name)
		}
		if slices.Contains(keys, key) {
			return nil, fmt.Errorf("key %q is there twice", name) // T22
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (p *Policy) newRole(d DraftRole) (role, error) {
	r := role{bundles: d.Bundles, targets: d.Targets}
	if !policyName.MatchString(d.Name) {
		return r, errors.New("the name is not of letters, digits and . _ @ + -")
	}
	var err error
	if r.quorum, err = p.quorum(d.Name, d.DraftQuorum); err != nil {
		return r, err
	}
	if len(d.Bundles) == 0 || len(d.Targets) == 0 {
		return r, errors.New(`bundles or targets are missing; "*" is all`)
	}
	for _, pattern := range d.Bundles {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return r, fmt.Errorf("%q is not a pattern of bundle names", pattern)
		}
	}
	for _, target := range d.Targets {
		if target != "*" && (target != path.Clean(target) || strings.HasPrefix(target, "/") || strings.ContainsAny(target, `*?[\:@`) || strings.HasPrefix(target, ".")) {
			return r, fmt.Errorf(`target %q is neither "*" nor the beginning of a repository path, like team/app`, target)
		}
	}
	if r.maxJump = d.MaxJump; r.maxJump < 0 || r.maxJump > maxInteger {
		return r, fmt.Errorf("maxJump %d is not between 1 and 2^53", d.MaxJump)
	}
	if d.MaxAge == "" {
		return r, nil
	}
	if r.maxAge, err = time.ParseDuration(d.MaxAge); err != nil || r.maxAge <= 0 {
		return r, fmt.Errorf("maxAge %q is not a time like 720h", d.MaxAge)
	}
	return r, nil
}
