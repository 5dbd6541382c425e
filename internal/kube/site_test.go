package kube

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/kubetest"
)

func TestS3(t *testing.T) {
	s := newSite(t)
	got, err := openSite(t, s).S3(t.Context(), siteNames)
	if err != nil {
		t.Fatal(err)
	}
	if got.Endpoint != "https://objectstorage."+suffix || got.AccessKey.Reveal() != canaryAccess || got.SecretKey.Reveal() != canarySecret {
		t.Errorf("S3 = %q %q %q", got.Endpoint, got.AccessKey.Reveal(), got.SecretKey.Reveal())
	}
	expectRequests(t, s, getDNS, getKeys)
}

func TestHarbor(t *testing.T) {
	s := newSite(t)
	c := openSite(t, s)
	got, err := c.Harbor(t.Context(), Names{})
	if err != nil {
		t.Fatal(err)
	}
	host := "harbor." + suffix
	if got.URL != "https://"+host || got.Host != host || got.Source != `harborcluster "harbor-system/harbor"` {
		t.Errorf("Address = %+v", got.Address)
	}
	// The newline is part of the password.
	if got.Username != "admin" || got.Password.Reveal() != canaryPassword || got.CA != nil {
		t.Errorf("Login = %q %q %q", got.Username, got.Password.Reveal(), got.CA)
	}
	expectRequests(t, s, getGroups, getCluster, getAdmin)

	if _, err := c.Address(t.Context(), Names{}); err != nil {
		t.Error(err)
	}
	expectRequests(t, s, getGroups, getCluster)
	if _, err := c.Login(t.Context(), Names{}); err != nil {
		t.Error(err)
	}
	expectRequests(t, s, getAdmin)
}

// TestDiscovery finds the resource wherever it is, with the fewest requests.
func TestDiscovery(t *testing.T) {
	const other = "artifacts.example.org"
	for _, c := range []struct {
		name     string
		names    Names
		setUp    func(s *kubetest.Server)
		requests []string
	}{
		{"group named", Names{HarborGroup: "goharbor.io"}, func(*kubetest.Server) {},
			[]string{"GET /apis/goharbor.io", "GET /apis/goharbor.io/v1beta1", getCluster}},
		{"version named", Names{HarborGroup: "goharbor.io/v1alpha3"}, func(*kubetest.Server) {},
			[]string{"GET /apis/goharbor.io/v1alpha3/namespaces/harbor-system/harborclusters/harbor"}},
		{"version named, discovery denied", Names{HarborGroup: "goharbor.io/v1beta1"}, func(s *kubetest.Server) { s.DenyDiscovery() },
			[]string{getCluster}},
		{"old server", Names{}, func(s *kubetest.Server) { s.OldDiscovery() },
			[]string{getGroups, "GET /apis/apps/v1", "GET /apis/autoscaling/v2", "GET /apis/autoscaling/v1", "GET /apis/goharbor.io/v1beta1", getCluster}},
		{"not in the preferred version", Names{}, func(s *kubetest.Server) {
			s.AddResource(kubetest.Resource{Group: "goharbor.io", Versions: []string{"v2"}, Plural: "harbors", Kind: "Harbor"})
			s.SetHarborCluster("harbor-system", "harbor", "https://harbor."+suffix)
		}, []string{getGroups, getCluster}},
		{"not in the preferred version, old server", Names{HarborGroup: "goharbor.io"}, func(s *kubetest.Server) {
			s.AddResource(kubetest.Resource{Group: "goharbor.io", Versions: []string{"v2"}, Plural: "harbors", Kind: "Harbor"})
			s.SetHarborCluster("harbor-system", "harbor", "https://harbor."+suffix)
		}, []string{"GET /apis/goharbor.io", "GET /apis/goharbor.io/v2", "GET /apis/goharbor.io/v1beta1", getCluster}},
		{"another group and resource", Names{HarborResource: "registries", Harbor: Object{"reg", "main", ".status.url"}}, func(s *kubetest.Server) {
			s.AddResource(kubetest.Resource{Group: other, Versions: []string{"v1"}, Plural: "registries", Kind: "Registry"})
			s.SetObject(other, "registries", "reg", "main", map[string]any{"status": map[string]any{"url": "https://harbor." + suffix}})
			s.Allow(kubetest.Rule{User: "operator", Group: other, Resource: "registries"})
		}, []string{getGroups, "GET /apis/" + other + "/v1/namespaces/reg/registries/main"}},
	} {
		s := newSite(t)
		c.setUp(s)
		got, err := openSite(t, s).Address(t.Context(), c.names)
		if err != nil || got.Host != "harbor."+suffix {
			t.Errorf("%s: Address = %v, %v", c.name, got, err)
		}
		if t.Failed() {
			t.Log(c.name)
		}
		expectRequests(t, s, c.requests...)
	}
}

// TestDiscoveryAmbiguous would send a password to whoever registers a
// resource of that name first.
func TestDiscoveryAmbiguous(t *testing.T) {
	for _, old := range []bool{false, true} {
		s := newSite(t)
		s.AddResource(kubetest.Resource{Group: "aaa.example.org", Versions: []string{"v1"}, Plural: "harborclusters", Kind: "HarborCluster"})
		if old {
			s.OldDiscovery()
		}
		c := openSite(t, s)
		_, err := c.Address(t.Context(), Names{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `"aaa.example.org"`) || !strings.Contains(err.Error(), `"goharbor.io"`) {
			t.Errorf("old %v: error is %v, want both groups", old, err)
		}
		if got, err := c.Address(t.Context(), Names{HarborGroup: "goharbor.io"}); err != nil || got.Host != "harbor."+suffix {
			t.Errorf("old %v: with its group: %v, %v", old, got, err)
		}
	}
}

// TestAddressFromSuffix has no harborcluster that tells.
func TestAddressFromSuffix(t *testing.T) {
	site := kubetest.Site{S3Secret: "keys", Suffix: suffix, Password: "p"}
	for _, c := range []struct {
		name  string
		names Names
		setUp func(s *kubetest.Server)
		host  string
	}{
		{"no such resource", Names{}, func(s *kubetest.Server) {}, "harbor." + suffix},
		{"no such resource, old server", Names{}, func(s *kubetest.Server) { s.OldDiscovery() }, "harbor." + suffix},
		{"no such group", Names{HarborGroup: "goharbor.io"}, func(s *kubetest.Server) {}, "harbor." + suffix},
		{"no such object", Names{}, func(s *kubetest.Server) { s.SetHarborCluster("other", "harbor", "https://x") }, "harbor." + suffix},
		{"no such field", Names{}, func(s *kubetest.Server) {
			s.SetHarborCluster("harbor-system", "harbor", "")
			s.SetObject("goharbor.io", "harborclusters", "harbor-system", "harbor", map[string]any{"spec": map[string]any{}})
		}, "harbor." + suffix},
		{"empty field", Names{}, func(s *kubetest.Server) { s.SetHarborCluster("harbor-system", "harbor", " ") }, "harbor." + suffix},
		{"none", Names{NoHarbor: true}, func(s *kubetest.Server) { s.SetHarborCluster("harbor-system", "harbor", "https://x") }, "harbor." + suffix},
		{"another host", Names{NoHarbor: true, HarborHost: "reg-%s:8443"}, func(s *kubetest.Server) {}, "reg-" + suffix + ":8443"},
		{"a whole host", Names{NoHarbor: true, HarborHost: "reg.example:8443"}, func(s *kubetest.Server) {}, "reg.example:8443"},
	} {
		s := kubetest.New(t)
		s.AddUser("operator", canaryToken)
		s.AllowSite("operator", "keys")
		s.SetSite(site)
		c.setUp(s)
		got, err := openSite(t, s).Address(t.Context(), c.names)
		if err != nil || got.Host != c.host || got.URL != "https://"+c.host {
			t.Errorf("%s: Address = %v, %v, want %s", c.name, got, err, c.host)
		}
		source := `configmap "gpc-system/dnssuffix"`
		if c.name == "a whole host" {
			source = "settings"
			expectRequests(t, s)
		}
		if got.Source != source {
			t.Errorf("%s: source is %q, want %q", c.name, got.Source, source)
		}
	}
}

// TestAddressDenied does not fall back on a guess.
func TestAddressDenied(t *testing.T) {
	s := kubetest.New(t)
	s.AddUser("operator", canaryToken)
	s.SetHarborCluster("harbor-system", "harbor", "https://x.example")
	s.SetConfigMap("gpc-system", "dnssuffix", map[string]string{"dnsSuffix": suffix})
	s.Allow(kubetest.Rule{User: "operator", Resource: "configmaps"})
	_, err := openSite(t, s).Address(t.Context(), Names{})
	e := asError(t, err)
	if !errors.Is(err, ErrDenied) || e.Group != "goharbor.io" || e.Resource != "harborclusters" || e.Object.Namespace != "harbor-system" {
		t.Errorf("error is %+v", e)
	}
	expectRequests(t, s, getGroups, getCluster)

	s.DenyDiscovery()
	_, err = openSite(t, s).Address(t.Context(), Names{})
	if e := asError(t, err); !errors.Is(err, ErrDenied) || e.Path != "" && !strings.Contains(e.Error(), `"/apis"`) || e.Status != 403 {
		t.Errorf("discovery denied: %+v", e)
	}
}

// TestAllNames gives each object and key another name.
func TestAllNames(t *testing.T) {
	s := kubetest.New(t)
	s.AddUser("operator", canaryToken)
	s.Allow(kubetest.Rule{User: "operator"})
	ca := string(s.CA())
	s.SetSecret("buckets", "b1", map[string]string{"id": "A", "key": "B"})
	s.SetConfigMap("net", "names", map[string]string{"suffix": "s.example"})
	s.SetHarborCluster("reg", "main", "https://reg.example:8443")
	s.SetSecret("reg", "pw", map[string]string{"word": " p w ", "root.pem": ca})
	s.SetConfigMap("trust", "site", map[string]string{"root": "# text\n" + ca + ca})
	s.SetSecret("trust", "site", map[string]string{"ca.crt": ca})
	settings := []string{
		"s3-secret=buckets/b1", "s3-secret.access-key=id", "s3-secret.secret-key=key", "dns=net/names:suffix",
		"s3-host=S3-%s:9000", "harbor=reg/main", "harbor-group=goharbor.io/v1alpha3",
		"harbor-admin=reg/pw:word", "harbor-user=robot$x+y", "harbor-admin.ca=root.pem",
	}
	names, err := ParseNames(settings)
	if err != nil {
		t.Fatal(err)
	}
	c := openSite(t, s)
	s3, err := c.S3(t.Context(), names)
	if err != nil || s3.Endpoint != "https://s3-s.example:9000" || s3.AccessKey.Reveal() != "A" || s3.SecretKey.Reveal() != "B" {
		t.Errorf("S3 = %v, %v", s3, err)
	}
	h, err := c.Harbor(t.Context(), names)
	if err != nil || h.URL != "https://reg.example:8443" || h.Username != "robot$x+y" || h.Password.Reveal() != " p w " || string(h.CA) != ca {
		t.Errorf("Harbor = %+v, %v", h, err)
	}
	expectRequests(t, s, "GET /api/v1/namespaces/net/configmaps/names", "GET /api/v1/namespaces/buckets/secrets/b1",
		"GET /apis/goharbor.io/v1alpha3/namespaces/reg/harborclusters/main", "GET /api/v1/namespaces/reg/secrets/pw")

	for setting, want := range map[string]string{"ca=configmap/trust/site:root": ca + ca, "ca=secret/trust/site": ca} {
		with := names
		if err := with.Set(setting); err != nil {
			t.Fatal(err)
		}
		if h, err := c.Login(t.Context(), with); err != nil || string(h.CA) != want {
			t.Errorf("%s: CA = %q, %v", setting, h.CA, err)
		}
		if got, err := c.CA(t.Context(), with); err != nil || string(got) != want {
			t.Errorf("%s: CA = %q, %v", setting, got, err)
		}
	}
	s.ResetLog()
	if got, err := c.CA(t.Context(), Names{}); got != nil || err != nil {
		t.Errorf("CA without a name = %q, %v", got, err)
	}
	expectRequests(t, s)
}

// TestLoginCA does not hand on what else is in the key.
func TestLoginCA(t *testing.T) {
	for _, c := range []struct{ name, ca, fault string }{
		{"a key beside it", "@-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", ""},
		{"no PEM", "hello", "no PEM certificate"},
		{"no certificate", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", "no PEM certificate"},
		{"malformed", "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n", "malformed certificate"},
	} {
		s := newSite(t)
		s.SetSecret("harbor-system", "harbor-admin", map[string]string{"secret": canaryPassword, "ca.crt": strings.Replace(c.ca, "@", string(s.CA()), 1)})
		got, err := openSite(t, s).Login(t.Context(), Names{})
		if c.fault == "" {
			if err != nil || string(got.CA) != string(s.CA()) {
				t.Errorf("%s: CA = %q, %v", c.name, got.CA, err)
			}
			continue
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.fault) || asError(t, err).Object.Key != "ca.crt" {
			t.Errorf("%s: error is %v", c.name, err)
		}
		if got.Password.Reveal() != "" {
			t.Errorf("%s: a password came with the error", c.name)
		}
	}
}

func TestMissingAndMalformed(t *testing.T) {
	secret := func(values map[string]any) func(*kubetest.Server) {
		return func(s *kubetest.Server) {
			s.SetObject("", "secrets", "harbor-system", "harbor-admin", map[string]any{"data": values})
		}
	}
	dns := func(value string) func(*kubetest.Server) {
		return func(s *kubetest.Server) {
			s.SetConfigMap("gpc-system", "dnssuffix", map[string]string{"dnsSuffix": value})
		}
	}
	cluster := func(url string) func(*kubetest.Server) {
		return func(s *kubetest.Server) { s.SetHarborCluster("harbor-system", "harbor", url) }
	}
	for _, c := range []struct {
		name  string
		setUp func(s *kubetest.Server)
		kind  error
		key   string
		text  string
	}{
		{"no such secret", func(s *kubetest.Server) {}, ErrNotFound, "", `reading secret "object-storage-access-keys/nokeys": 404 Not Found: secrets "nokeys" not found`},
		{"no key", secret(map[string]any{"other": "eA=="}), ErrNotFound, "secret", `secret "harbor-system/harbor-admin": key "secret": not found`},
		{"empty key", secret(map[string]any{"secret": ""}), ErrNotFound, "secret", `secret "harbor-system/harbor-admin": key "secret": is empty`},
		{"no base64", secret(map[string]any{"secret": "canary!"}), ErrInvalid, "secret", "is no base64"},
		{"no text", secret(map[string]any{"secret": 5}), ErrInvalid, "secret", "is no text"},
		{"no data", func(s *kubetest.Server) {
			s.SetObject("", "secrets", "harbor-system", "harbor-admin", map[string]any{"data": "canary"})
		}, ErrInvalid, "secret", "malformed"},
		{"suffix with a path", dns("a.example/b"), ErrInvalid, "dnsSuffix", `"a.example/b" is no DNS suffix`},
		{"suffix with a login", dns("a@b"), ErrInvalid, "dnsSuffix", ""},
		{"suffix with a port", dns("a.example:80"), ErrInvalid, "dnsSuffix", ""},
		{"suffix with a space", dns("a b"), ErrInvalid, "dnsSuffix", ""},
		{"suffix with controls", dns("a\x1b[2J\u202e"), ErrInvalid, "dnsSuffix", ""},
		{"suffix with a dot", dns(".a"), ErrInvalid, "dnsSuffix", ""},
		{"suffix with a percent sign", dns("%s"), ErrInvalid, "dnsSuffix", ""},
		{"suffix that is long", dns(strings.Repeat("a.", 130) + "a"), ErrInvalid, "dnsSuffix", ""},
		{"suffix that is empty", dns(" \n"), ErrInvalid, "dnsSuffix", ""},
		{"URL without scheme", cluster("harbor.example"), ErrInvalid, "spec.externalURL", "not https://HOST"},
		{"URL with a path", cluster("https://h.example/a"), ErrInvalid, "spec.externalURL", ""},
		{"URL with a query", cluster("https://h.example?a"), ErrInvalid, "spec.externalURL", ""},
		{"URL with an empty query", cluster("https://h.example?"), ErrInvalid, "spec.externalURL", ""},
		{"URL with a login", cluster("https://canary:canary@h.example"), ErrInvalid, "spec.externalURL", "must not hold a login"},
		{"URL without host", cluster("https://"), ErrInvalid, "spec.externalURL", ""},
		{"URL of another scheme", cluster("ftp://h.example"), ErrInvalid, "spec.externalURL", ""},
		{"URL with a bad port", cluster("https://h.example:0"), ErrInvalid, "spec.externalURL", ""},
		{"URL with controls", cluster("https://h.exa\x1bmple"), ErrInvalid, "spec.externalURL", ""},
		{"URL that is a list", func(s *kubetest.Server) {
			s.SetObject("goharbor.io", "harborclusters", "harbor-system", "harbor", map[string]any{"spec": map[string]any{"externalURL": []any{"x"}}})
		}, ErrInvalid, "spec.externalURL", "is no text"},
	} {
		s := newSite(t)
		c.setUp(s)
		k := openSite(t, s)
		names := Names{S3Secret: Object{Name: "keys"}}
		if c.name == "no such secret" {
			names.S3Secret.Name = "nokeys"
			s.AllowSite("operator", "nokeys")
		}
		_, err := k.S3(t.Context(), names)
		if err == nil {
			_, err = k.Harbor(t.Context(), names)
		}
		if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: error is %v, want %v, %q", c.name, err, c.kind, c.text)
			continue
		}
		e := asError(t, err)
		if e.Object.Key != c.key || e.Object.Name == "" || e.Kind == "" {
			t.Errorf("%s: error is about %q %v", c.name, e.Kind, e.Object)
		}
		checkText(t, c.name, err)
	}
}

// TestBothMissing says what was looked for.
func TestBothMissing(t *testing.T) {
	s := kubetest.New(t)
	s.AddUser("operator", canaryToken)
	s.AllowSite("operator", "keys")
	_, err := openSite(t, s).Address(t.Context(), Names{})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "harborclusters") || !strings.Contains(err.Error(), "dnssuffix") {
		t.Errorf("error is %v", err)
	}
}

// TestBadNames sends nothing.
func TestBadNames(t *testing.T) {
	s := newSite(t)
	c := openSite(t, s)
	for _, n := range []Names{
		{},
		{S3Secret: Object{Name: "../../x"}},
		{S3Secret: Object{Namespace: "a/b", Name: "x"}},
		{S3Secret: Object{Name: "x"}, S3AccessKey: "a/b"},
		{S3Secret: Object{Name: "x"}, S3Host: "a/b"},
		{S3Secret: Object{Name: "x"}, DNS: Object{Name: "."}},
	} {
		if _, err := c.S3(t.Context(), n); !errors.Is(err, ErrInvalid) {
			t.Errorf("S3(%+v) = %v", n, err)
		}
	}
	for _, n := range []Names{
		{Harbor: Object{Name: ".."}},
		{Harbor: Object{Key: "a..b"}},
		{HarborGroup: "../v1"},
		{HarborGroup: "a/../b"},
		{HarborResource: "a/b"},
		{NoHarbor: true, HarborHost: "%s%s"},
		{NoHarbor: true, HarborHost: "a b"},
	} {
		if _, err := c.Address(t.Context(), n); !errors.Is(err, ErrInvalid) {
			t.Errorf("Address(%+v) = %v", n, err)
		}
	}
	for _, n := range []Names{
		{HarborAdmin: Object{Namespace: "A"}},
		{HarborCAKey: "a b"},
		{HarborUser: "a:b"},
	} {
		if _, err := c.Login(t.Context(), n); !errors.Is(err, ErrInvalid) {
			t.Errorf("Login(%+v) = %v", n, err)
		}
	}
	for _, n := range []Names{{CAKind: "pod"}, {CAKind: "secret"}} {
		if _, err := c.CA(t.Context(), n); !errors.Is(err, ErrInvalid) {
			t.Errorf("CA(%+v) = %v", n, err)
		}
	}
	for _, r := range s.Requests() {
		if r == getDNS {
			continue // read before the template is filled in
		}
		t.Errorf("%s was sent", r)
	}
}
