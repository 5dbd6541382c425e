package kube

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
)

// S3 is the site's object store.
type S3 struct {
	Endpoint  string // https://HOST[:PORT]
	AccessKey Secret
	SecretKey Secret
}

// Address is where the site's Harbor is.
type Address struct {
	URL    string // https://HOST[:PORT], or http:// when the object says so
	Host   string // HOST[:PORT] in lower case, as in the name of an image
	Source string // the object that tells, for people
}

// Login is what the site's Harbor lets its administrator in with.
type Login struct {
	Username string
	Password Secret
	CA       []byte // PEM certificates that Harbor's may be signed by; may be empty
}

// Harbor is all about the site's Harbor.
type Harbor struct {
	Address
	Login
}

// S3 reads where the object store is, and the keys for it. It reads the
// secret of n.S3Secret and, unless n.S3Host is a whole host, the config map of
// n.DNS.
func (c *Cluster) S3(ctx context.Context, n Names) (S3, error) {
	n = n.withDefaults()
	if n.S3Secret.Name == "" {
		return S3{}, namesError("the name of the secret with the S3 keys is not given")
	}
	if err := check(secrets, n.S3Secret, n.S3AccessKey, n.S3SecretKey); err != nil {
		return S3{}, err
	}
	host, err := c.host(ctx, n, n.S3Host)
	if err != nil {
		return S3{}, err
	}
	object, err := c.read(ctx, secrets, n.S3Secret)
	if err != nil {
		return S3{}, err
	}
	access, err := secretValue(object, n.S3Secret, n.S3AccessKey)
	if err != nil {
		return S3{}, err
	}
	secret, err := secretValue(object, n.S3Secret, n.S3SecretKey)
	if err != nil {
		return S3{}, err
	}
	return S3{Endpoint: "https://" + host, AccessKey: NewSecret(access), SecretKey: NewSecret(secret)}, nil
}

// Address reads where Harbor is: from the harborcluster or, when there is
// none or it does not tell, from the DNS suffix. A harborcluster that may not
// be read is an error.
func (c *Cluster) Address(ctx context.Context, n Names) (Address, error) {
	n = n.withDefaults()
	var missing error
	if !n.NoHarbor {
		address, err := c.harborCluster(ctx, n)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return address, err
		}
		missing = err
	}
	host, err := c.host(ctx, n, n.HarborHost)
	if err != nil {
		if missing != nil && errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w; %w", missing, err)
		}
		return Address{}, err
	}
	source := "settings"
	if usesSuffix(n.HarborHost) {
		source = configMaps.label(n.DNS)
	}
	return Address{URL: "https://" + host, Host: host, Source: source}, nil
}

// Login reads the password of Harbor's administrator, and the site's CA: from
// the object that n.CA names, or else from the key of n.HarborCAKey if the
// administrator's secret has it.
func (c *Cluster) Login(ctx context.Context, n Names) (Login, error) {
	n = n.withDefaults()
	if err := check(secrets, n.HarborAdmin, n.HarborAdmin.Key, n.HarborCAKey); err != nil {
		return Login{}, err
	}
	if !isUser(n.HarborUser) {
		return Login{}, namesError("%q is no name of a user", n.HarborUser)
	}
	object, err := c.read(ctx, secrets, n.HarborAdmin)
	if err != nil {
		return Login{}, err
	}
	password, err := secretValue(object, n.HarborAdmin, n.HarborAdmin.Key)
	if err != nil {
		return Login{}, err
	}
	login := Login{Username: n.HarborUser, Password: NewSecret(password)}
	if n.CAKind != "" {
		if login.CA, err = c.CA(ctx, n); err != nil {
			return Login{}, err
		}
		return login, nil
	}
	ca, err := secretValue(object, n.HarborAdmin, n.HarborCAKey)
	switch {
	case errors.Is(err, ErrNotFound):
		return login, nil
	case err == nil:
		login.CA, err = certificates(asked(secrets, n.HarborAdmin), n.HarborCAKey, ca)
	}
	if err != nil {
		return Login{}, err
	}
	return login, nil
}

// Harbor reads what Address and Login do.
func (c *Cluster) Harbor(ctx context.Context, n Names) (Harbor, error) {
	address, err := c.Address(ctx, n)
	if err != nil {
		return Harbor{}, err
	}
	login, err := c.Login(ctx, n)
	if err != nil {
		return Harbor{}, err
	}
	return Harbor{address, login}, nil
}

// CA returns the PEM certificates in the object that n.CA names, or nothing
// when n.CAKind is empty.
func (c *Cluster) CA(ctx context.Context, n Names) ([]byte, error) {
	n = n.withDefaults()
	var r resource
	switch n.CAKind {
	case "":
		return nil, nil
	case "configmap":
		r = configMaps
	case "secret":
		r = secrets
	default:
		return nil, namesError("%q is neither configmap nor secret", n.CAKind)
	}
	if err := check(r, n.CA, n.CA.Key); err != nil {
		return nil, err
	}
	object, err := c.read(ctx, r, n.CA)
	if err != nil {
		return nil, err
	}
	value := configMapValue
	if r == secrets {
		value = secretValue
	}
	ca, err := value(object, n.CA, n.CA.Key)
	if err != nil {
		return nil, err
	}
	return certificates(asked(r, n.CA), n.CA.Key, ca)
}

// host returns the host that template makes of the site's DNS suffix, which is
// read only if it is needed.
func (c *Cluster) host(ctx context.Context, n Names, template string) (string, error) {
	if !usesSuffix(template) {
		host, err := hostOf(template, "")
		if err != nil {
			return "", namesError("host %q: %v", template, err)
		}
		return host, nil
	}
	if err := check(configMaps, n.DNS, n.DNS.Key); err != nil {
		return "", err
	}
	object, err := c.read(ctx, configMaps, n.DNS)
	if err != nil {
		return "", err
	}
	suffix, err := configMapValue(object, n.DNS, n.DNS.Key)
	if err != nil {
		return "", err
	}
	suffix = strings.ToLower(strings.TrimSpace(suffix))
	if len(validation.IsDNS1123Subdomain(suffix)) > 0 {
		return "", about(asked(configMaps, n.DNS), n.DNS.Key, ErrInvalid, "%q is no DNS suffix", suffix)
	}
	host, err := hostOf(template, suffix)
	if err != nil {
		return "", about(asked(configMaps, n.DNS), n.DNS.Key, ErrInvalid, "host %q: %v", template, err)
	}
	return host, nil
}

// harborCluster reads Harbor's URL from the object that n.Harbor names. The
// error is of kind ErrNotFound when there is no such object, field or
// resource.
func (c *Cluster) harborCluster(ctx context.Context, n Names) (Address, error) {
	if err := n.Harbor.check(); err != nil {
		return Address{}, namesError("%v", err)
	}
	if !isField(n.Harbor.Key) || !isVersion(n.HarborResource) {
		return Address{}, namesError("%q of %q is no field", n.Harbor.Key, n.HarborResource)
	}
	r, err := c.harborResource(ctx, n)
	if err != nil {
		return Address{}, err
	}
	object, err := c.read(ctx, r, n.Harbor)
	if err != nil {
		return Address{}, err
	}
	ask := asked(r, n.Harbor)
	field := strings.Split(strings.TrimPrefix(n.Harbor.Key, "."), ".")
	value, found, err := unstructured.NestedString(object.Object, field...)
	value = strings.TrimSpace(value)
	switch {
	case err != nil:
		return Address{}, about(ask, n.Harbor.Key, ErrInvalid, "is no text")
	case !found || value == "":
		return Address{}, about(ask, n.Harbor.Key, ErrNotFound, "not found")
	}
	address, err := parseAddress(value)
	if err != nil {
		return Address{}, about(ask, n.Harbor.Key, ErrInvalid, "%v", err)
	}
	address.Source = r.label(n.Harbor)
	return address, nil
}

// harborResource returns where Harbor's kind is.
func (c *Cluster) harborResource(ctx context.Context, n Names) (resource, error) {
	group, version, hasVersion := strings.Cut(n.HarborGroup, "/")
	if group != "" && !isGroup(group) || hasVersion && !isVersion(version) {
		return resource{}, namesError("%q is no API group", n.HarborGroup)
	}
	if hasVersion {
		return custom(group, version, n.HarborResource), nil
	}
	r, err := c.discover(ctx, group, n.HarborResource)
	if errors.Is(err, errNoResource) {
		return resource{}, discovery(n.HarborResource).fail(ErrNotFound, "no API group of the cluster has it")
	}
	return r, err
}

// parseAddress parses the URL of a Harbor. Its errors do not quote a login.
func parseAddress(s string) (Address, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Address{}, errors.New("is not a URL")
	case u.User != nil:
		return Address{}, errors.New("the URL must not hold a login")
	case u.Scheme != "https" && u.Scheme != "http", strings.Trim(u.Path, "/") != "",
		u.RawQuery != "", u.ForceQuery, u.Fragment != "", u.Opaque != "":
		return Address{}, fmt.Errorf("%q is not https://HOST[:PORT]", s)
	}
	host, err := parseHost(u.Host)
	if err != nil {
		return Address{}, err
	}
	return Address{URL: u.Scheme + "://" + host, Host: host}, nil
}

// check returns an error when an object can not have that name, or those keys.
func check(r resource, o Object, keys ...string) error {
	if err := o.check(); err != nil {
		return namesError("%s: %v", r.word(), err)
	}
	for _, key := range keys {
		if !isKey(key) {
			return namesError("%s: %q is no key", r.label(o), key)
		}
	}
	return nil
}

// asked is the request that read o, for errors.
func asked(r resource, o Object) request {
	return request{op: r.label(o), kind: r.word(), object: o, verb: "get", group: r.Group, resource: r.Resource}
}

// about returns an error about a value.
func about(r request, key string, kind error, format string, args ...any) *Error {
	e := r.fail(kind, format, args...)
	e.Object.Key = key
	return e
}

// secretValue returns the decoded value of a secret's key, verbatim.
func secretValue(object *unstructured.Unstructured, o Object, key string) (string, error) {
	encoded, err := dataValue(secrets, object, o, key)
	if err != nil {
		return "", err
	}
	value, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", about(asked(secrets, o), key, ErrInvalid, "is no base64")
	}
	return string(value), nil
}

// configMapValue returns the value of a config map's key.
func configMapValue(object *unstructured.Unstructured, o Object, key string) (string, error) {
	return dataValue(configMaps, object, o, key)
}

// dataValue returns what is at .data[key]. An empty value is as good as none.
func dataValue(r resource, object *unstructured.Unstructured, o Object, key string) (string, error) {
	data, _, err := unstructured.NestedFieldNoCopy(object.Object, "data")
	values, ok := data.(map[string]any)
	if err != nil || data != nil && !ok {
		return "", about(asked(r, o), key, ErrInvalid, "the data of the object are malformed")
	}
	value, found := values[key]
	text, ok := value.(string)
	switch {
	case !found || text == "" && ok:
		return "", about(asked(r, o), key, ErrNotFound, "%s", missing(found))
	case !ok:
		return "", about(asked(r, o), key, ErrInvalid, "is no text")
	}
	return text, nil
}

func missing(isEmpty bool) string {
	if isEmpty {
		return "is empty"
	}
	return "not found"
}

// certificates returns the PEM certificates in text, without what else is
// there. It fails when there is none, or one can not be parsed.
func certificates(r request, key, text string) ([]byte, error) {
	var found []byte
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, about(r, key, ErrInvalid, "holds a malformed certificate")
		}
		found = append(found, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
	}
	if found == nil {
		return nil, about(r, key, ErrInvalid, "holds no PEM certificate")
	}
	return found, nil
}
