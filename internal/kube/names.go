package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Object names an object and a value in it. What is empty means what the
// field of [Names] says.
type Object struct {
	Namespace string
	Name      string
	Key       string
}

func (o Object) or(d Object) Object {
	return Object{cmp.Or(o.Namespace, d.Namespace), cmp.Or(o.Name, d.Name), cmp.Or(o.Key, d.Key)}
}

// check returns an error when o can not be the name of an object.
func (o Object) check() error {
	switch {
	case len(validation.IsDNS1123Label(o.Namespace)) > 0:
		return fmt.Errorf("%q is no name of a namespace", o.Namespace)
	case len(validation.IsDNS1123Subdomain(o.Name)) > 0:
		return fmt.Errorf("%q is no name of an object", o.Name)
	}
	return nil
}

// Names say under which names a cluster has what [Cluster] reads. The zero
// Names are those in the package comment; only S3Secret.Name has no such
// name, and must be set before [Cluster.S3].
type Names struct {
	S3Secret    Object // namespace object-storage-access-keys; its Key is not used
	S3AccessKey string // key in S3Secret; empty means access-key-id
	S3SecretKey string // key in S3Secret; empty means secret-access-key

	DNS Object // config map gpc-system/dnssuffix, key dnsSuffix

	// S3Host and HarborHost are HOST[:PORT] with "%s" where the DNS suffix
	// goes. Without a "%s" the suffix is not read. Empty means
	// "objectstorage.%s" and "harbor.%s".
	S3Host, HarborHost string

	// Harbor is the object with Harbor's URL: harbor-system/harbor; Key is the
	// path of the field, spec.externalURL.
	Harbor Object
	// NoHarbor says that there is no such object; then HarborHost is used.
	NoHarbor bool
	// HarborGroup is the API group of Harbor, as GROUP or GROUP/VERSION.
	// Empty means the only group that has HarborResource. Nothing needs to be
	// discovered when there is a version.
	HarborGroup string
	// HarborResource is the plural of Harbor's kind; empty means
	// harborclusters.
	HarborResource string

	HarborAdmin Object // secret harbor-system/harbor-admin, key secret
	HarborUser  string // empty means admin
	HarborCAKey string // key in HarborAdmin that may be missing; empty means ca.crt

	// CA is an object that has the site's authority, key ca.crt: of the kind
	// CAKind, "configmap" or "secret". None is read when CAKind is empty.
	CA     Object
	CAKind string
}

// withDefaults returns n without empty fields, but for those that have no
// default.
func (n Names) withDefaults() Names {
	n.S3Secret = n.S3Secret.or(Object{Namespace: "object-storage-access-keys"})
	n.S3AccessKey = cmp.Or(n.S3AccessKey, "access-key-id")
	n.S3SecretKey = cmp.Or(n.S3SecretKey, "secret-access-key")
	n.DNS = n.DNS.or(Object{"gpc-system", "dnssuffix", "dnsSuffix"})
	n.S3Host = cmp.Or(n.S3Host, "objectstorage.%s")
	n.HarborHost = cmp.Or(n.HarborHost, "harbor.%s")
	n.Harbor = n.Harbor.or(Object{"harbor-system", "harbor", "spec.externalURL"})
	n.HarborResource = cmp.Or(n.HarborResource, "harborclusters")
	n.HarborAdmin = n.HarborAdmin.or(Object{"harbor-system", "harbor-admin", "secret"})
	n.HarborUser = cmp.Or(n.HarborUser, "admin")
	n.HarborCAKey = cmp.Or(n.HarborCAKey, "ca.crt")
	n.CA = n.CA.or(Object{Key: "ca.crt"})
	return n
}

// Setting describes one of the settings of [Names.Set], for help.
type Setting struct {
	Key     string // as in KEY=VALUE
	Form    string // of the value
	Default string // may be empty
	Meaning string
}

// setting is a Setting that can be set.
type setting struct {
	Setting
	set func(n *Names, value string) error
}

// Settings returns all settings, in the order of a help text.
func Settings() []Setting {
	var all []Setting
	for _, s := range settings() {
		all = append(all, s.Setting)
	}
	return all
}

func settings() []setting {
	return []setting{
		{Setting{"s3-secret", "[NAMESPACE/]NAME", "object-storage-access-keys/NAME", "secret with the keys of the bucket"},
			func(n *Names, v string) error { return setObject(&n.S3Secret, v, nil) }},
		{Setting{"s3-secret.access-key", "KEY", "access-key-id", "key of the access key in it"},
			func(n *Names, v string) error { return setKey(&n.S3AccessKey, v) }},
		{Setting{"s3-secret.secret-key", "KEY", "secret-access-key", "key of the secret key in it"},
			func(n *Names, v string) error { return setKey(&n.S3SecretKey, v) }},
		{Setting{"dns", "[NAMESPACE/]NAME[:KEY]", "gpc-system/dnssuffix:dnsSuffix", "config map with the site's DNS suffix"},
			func(n *Names, v string) error { return setObject(&n.DNS, v, isKey) }},
		{Setting{"s3-host", "HOST[:PORT]", "objectstorage.%s", "host of the S3 store; %s is the DNS suffix"},
			func(n *Names, v string) error { return setHost(&n.S3Host, v) }},
		{Setting{"harbor-host", "HOST[:PORT]", "harbor.%s", "host of Harbor if no harborcluster tells; %s is the DNS suffix"},
			func(n *Names, v string) error { return setHost(&n.HarborHost, v) }},
		{Setting{"harbor", "[NAMESPACE/]NAME[:FIELD]|none", "harbor-system/harbor:spec.externalURL", "harborcluster with Harbor's URL, or none to use harbor-host"},
			setHarbor},
		{Setting{"harbor-group", "GROUP[/VERSION]", "", "API group of harborclusters, when several have them"},
			setGroup},
		{Setting{"harbor-resource", "PLURAL", "harborclusters", "resource that is read as the harborcluster"},
			setResource},
		{Setting{"harbor-admin", "[NAMESPACE/]NAME[:KEY]", "harbor-system/harbor-admin:secret", "secret with Harbor's password"},
			func(n *Names, v string) error { return setObject(&n.HarborAdmin, v, isKey) }},
		{Setting{"harbor-admin.ca", "KEY", "ca.crt", "key of the site's CA in it, if it has one"},
			func(n *Names, v string) error { return setKey(&n.HarborCAKey, v) }},
		{Setting{"harbor-user", "USER", "admin", "user whose password that is"},
			setUser},
		{Setting{"ca", "configmap|secret/NAMESPACE/NAME[:KEY]", "", "object with the site's CA; KEY is ca.crt unless named"},
			setCA},
	}
}

// ParseNames returns the Names that settings of the form KEY=VALUE make. A key
// may be given once.
func ParseNames(values []string) (Names, error) {
	var n Names
	var seen []string
	for _, v := range values {
		key, _, _ := strings.Cut(v, "=")
		if slices.Contains(seen, key) {
			return Names{}, namesError("%q is given twice", key)
		}
		seen = append(seen, key)
		if err := n.Set(v); err != nil {
			return Names{}, err
		}
	}
	return n, nil
}

// Set changes what a setting of the form KEY=VALUE says; the keys are those of
// [Settings]. The error is an [*Error] of kind [ErrInvalid]; for an unknown
// key it lists the known ones.
func (n *Names) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return namesError("%q is not KEY=VALUE", s)
	}
	var keys []string
	for _, known := range settings() {
		if known.Key == key {
			changed := *n
			if err := known.set(&changed, value); err != nil {
				return namesError("%s=%q: %v (want %s)", key, value, err, known.Form)
			}
			*n = changed
			return nil
		}
		keys = append(keys, known.Key)
	}
	return namesError("%q is not known; there are %s", key, strings.Join(keys, ", "))
}

func namesError(format string, args ...any) *Error {
	return &Error{Op: "site setting", Message: printable(fmt.Sprintf(format, args...)), kind: ErrInvalid}
}

// setObject parses [NAMESPACE/]NAME and, if isKey is not nil, [:KEY].
func setObject(o *Object, v string, isKey func(string) bool) error {
	var next Object
	names, key, hasKey := strings.Cut(v, ":")
	if hasKey && (isKey == nil || !isKey(key)) {
		return fmt.Errorf("%q is no key", key)
	}
	next.Key = key
	namespace, name, ok := strings.Cut(names, "/")
	if !ok {
		namespace, name = "", names
	} else if len(validation.IsDNS1123Label(namespace)) > 0 {
		return fmt.Errorf("%q is no name of a namespace", namespace)
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return fmt.Errorf("%q is no name of an object", name)
	}
	next.Namespace, next.Name = namespace, name
	*o = next
	return nil
}

func setKey(key *string, v string) error {
	if !isKey(v) {
		return fmt.Errorf("%q is no key", v)
	}
	*key = v
	return nil
}

// setHost parses a host with "%s" in it, or without.
func setHost(host *string, v string) error {
	if _, err := hostOf(v, "suffix.example"); err != nil {
		return err
	}
	*host = v
	return nil
}

func setHarbor(n *Names, v string) error {
	if v == "none" {
		n.NoHarbor = true
		return nil
	}
	n.NoHarbor = false
	return setObject(&n.Harbor, v, isField)
}

func setGroup(n *Names, v string) error {
	group, version, hasVersion := strings.Cut(v, "/")
	if !isGroup(group) || hasVersion && !isVersion(version) {
		return errors.New("is no API group")
	}
	n.HarborGroup = v
	return nil
}

func setResource(n *Names, v string) error {
	if len(validation.IsDNS1123Label(v)) > 0 {
		return errors.New("is no resource")
	}
	n.HarborResource = v
	return nil
}

func setUser(n *Names, v string) error {
	if !isUser(v) {
		return errors.New("is no name of a user")
	}
	n.HarborUser = v
	return nil
}

func setCA(n *Names, v string) error {
	kind, rest, _ := strings.Cut(v, "/")
	if kind != "configmap" && kind != "secret" {
		return fmt.Errorf("%q is neither configmap nor secret", kind)
	}
	var o Object
	if err := setObject(&o, rest, isKey); err != nil {
		return err
	}
	if o.Namespace == "" {
		return errors.New("has no namespace")
	}
	n.CA, n.CAKind = o, kind
	return nil
}

// isKey reports whether s can be a key of a secret or a config map.
func isKey(s string) bool { return len(validation.IsConfigMapKey(s)) == 0 }

var fieldPath = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*$`)

// isField reports whether s is a path of fields, such as "spec.externalURL".
func isField(s string) bool {
	return len(s) <= 253 && fieldPath.MatchString(strings.TrimPrefix(s, "."))
}

// isGroup reports whether s can be an API group outside of the core.
func isGroup(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// isVersion reports whether s can be an API version.
func isVersion(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isUser reports whether s can be a user of HTTP Basic.
func isUser(s string) bool {
	return s != "" && !strings.Contains(s, ":") && !strings.ContainsFunc(s, unicode.IsControl)
}

// hostOf returns the host, with its port if it has one, that template makes of
// suffix.
func hostOf(template, suffix string) (string, error) {
	if strings.Count(template, "%") > 1 || strings.Count(template, "%") != strings.Count(template, "%s") {
		return "", errors.New(`has a "%" that is no single "%s"`)
	}
	return parseHost(strings.Replace(template, "%s", suffix, 1))
}

// usesSuffix reports whether template needs the DNS suffix.
func usesSuffix(template string) bool { return strings.Contains(template, "%s") }

// parseHost returns HOST[:PORT] in lower case. HOST is a DNS name or an
// address, an IPv6 one in brackets.
func parseHost(s string) (string, error) {
	s = strings.ToLower(s)
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("%q has no port of 1 to 65535", s)
		}
	}
	if inside, ok := strings.CutPrefix(host, "["); ok {
		inside, ok = strings.CutSuffix(inside, "]")
		if ip, err := netip.ParseAddr(inside); !ok || err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", fmt.Errorf("%q is no host", s)
		}
	} else if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 || strings.Contains(host, ":") {
		return "", fmt.Errorf("%q is no host", s)
	}
	return s, nil
}
