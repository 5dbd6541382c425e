package kubetest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends one request, over a connection of its own.
func ask(t *testing.T, s *Server, path string, header map[string]string, certs ...tls.Certificate) (int, http.Header, string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// TestStatuses compares whole bodies with those of a kube-apiserver.
func TestStatuses(t *testing.T) {
	s := New(t)
	s.AddUser("u", "tok")
	s.Allow(Rule{User: "u", Resource: "secrets", Namespace: "open"})
	s.Allow(Rule{User: "u", Resource: "configmaps", Namespace: "n", Name: "x"})
	s.SetHarborCluster("h", "harbor", "https://harbor.site")
	for _, c := range []struct {
		name, path, token string
		status            int
		body              string
	}{
		{"wrong token", "/api/v1/namespaces/n/secrets/x", "no", 401,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`},
		{"forbidden", "/api/v1/namespaces/n/secrets/x", "tok", 403,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"secrets \"x\" is forbidden: User \"u\" cannot get resource \"secrets\" in API group \"\" in the namespace \"n\"","reason":"Forbidden","details":{"name":"x","kind":"secrets"},"code":403}`},
		{"forbidden, by name", "/api/v1/namespaces/n/configmaps/y", "tok", 403,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"y\" is forbidden: User \"u\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"n\"","reason":"Forbidden","details":{"name":"y","kind":"configmaps"},"code":403}`},
		{"forbidden, custom", "/apis/goharbor.io/v1beta1/namespaces/h/harborclusters/harbor", "tok", 403,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"harborclusters.goharbor.io \"harbor\" is forbidden: User \"u\" cannot get resource \"harborclusters\" in API group \"goharbor.io\" in the namespace \"h\"","reason":"Forbidden","details":{"name":"harbor","group":"goharbor.io","kind":"harborclusters"},"code":403}`},
		{"anonymous", "/apis", "", 403,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"forbidden: User \"system:anonymous\" cannot get path \"/apis\"","reason":"Forbidden","details":{},"code":403}`},
		{"not found", "/api/v1/namespaces/open/secrets/x", "tok", 404,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"secrets \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"secrets"},"code":404}`},
		{"no such group", "/apis/example.org", "tok", 404, "404 page not found"},
	} {
		header := map[string]string{}
		if c.token != "" {
			header["Authorization"] = "Bearer " + c.token
		}
		status, _, body := ask(t, s, c.path, header)
		if status != c.status || strings.TrimSpace(body) != c.body {
			t.Errorf("%s: %d %s\nwant %d %s", c.name, status, body, c.status, c.body)
		}
	}
	for _, e := range s.Log() {
		if strings.Contains(e.User+e.Path+e.Query, "tok") {
			t.Errorf("the log has the token: %v", e)
		}
	}
	if got := s.Log(); len(got) != 7 || got[1].User != "u" || got[1].Status != 403 {
		t.Errorf("Log = %v", got)
	}
}

func TestObjects(t *testing.T) {
	s := New(t)
	s.AddUser("u", "tok")
	s.Allow(Rule{User: "u"})
	s.SetSite(Site{S3Secret: "k", AccessKey: "a", SecretKey: "b", Suffix: "site.example", HarborURL: "https://h", Password: "p"})
	for path, want := range map[string]struct{ kind, version, field, value string }{
		"/api/v1/namespaces/harbor-system/secrets/harbor-admin":                     {"Secret", "v1", "data", `{"secret":"cA=="}`},
		"/api/v1/namespaces/gpc-system/configmaps/dnssuffix":                        {"ConfigMap", "v1", "data", `{"dnsSuffix":"site.example"}`},
		"/apis/goharbor.io/v1alpha3/namespaces/harbor-system/harborclusters/harbor": {"HarborCluster", "goharbor.io/v1alpha3", "spec", `{"externalURL":"https://h","harborAdminPasswordRef":"harbor-admin","version":"2.5.0"}`},
		"/apis/goharbor.io/v1beta1/namespaces/harbor-system/harborclusters/harbor":  {"HarborCluster", "goharbor.io/v1beta1", "spec", `{"externalURL":"https://h","harborAdminPasswordRef":"harbor-admin","version":"2.5.0"}`},
		"/api/v1/namespaces/object-storage-access-keys/secrets/k":                   {"Secret", "v1", "data", `{"access-key-id":"YQ==","secret-access-key":"Yg=="}`},
	} {
		status, header, body := ask(t, s, path, map[string]string{"Authorization": "Bearer tok"})
		var doc map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", path, status, err, body)
			continue
		}
		if string(doc["kind"]) != `"`+want.kind+`"` || string(doc["apiVersion"]) != `"`+want.version+`"` || string(doc[want.field]) != want.value {
			t.Errorf("%s: %s, want %v", path, body, want)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	s := New(t)
	s.Allow(Rule{User: "operator"})
	s.SetConfigMap("n", "x", map[string]string{"a": "b"})
	pair := func(cert, key []byte) tls.Certificate {
		c, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if status, _, body := ask(t, s, "/api/v1/namespaces/n/configmaps/x", nil, pair(s.ClientCert(t, "operator"))); status != 200 {
		t.Errorf("right certificate: %d %s", status, body)
	}
	if status, _, body := ask(t, s, "/api/v1/namespaces/n/configmaps/x", nil, pair(s.ForeignClientCert(t, "operator"))); status != 401 {
		t.Errorf("foreign certificate: %d %s", status, body)
	}
}

func TestDiscovery(t *testing.T) {
	s := New(t)
	s.AddUser("u", "tok")
	s.SetHarborCluster("h", "harbor", "https://harbor.site")
	kinds := func(accept, path string) (kind, contentType string) {
		t.Helper()
		status, header, body := ask(t, s, path, map[string]string{"Authorization": "Bearer tok", "Accept": accept})
		var doc struct{ Kind string }
		if err := json.Unmarshal([]byte(body), &doc); err != nil || status != 200 {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		return doc.Kind, header.Get("Content-Type")
	}
	const v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for _, c := range []struct{ accept, path, kind, contentType string }{
		{"application/json", "/apis", "APIGroupList", "application/json"},
		{v2 + ",application/json", "/apis", "APIGroupDiscoveryList", v2},
		{"application/json", "/api", "APIVersions", "application/json"},
		{"application/json", "/api/v1", "APIResourceList", "application/json"},
		{"application/json", "/apis/goharbor.io", "APIGroup", "application/json"},
		{"application/json", "/apis/goharbor.io/v1beta1", "APIResourceList", "application/json"},
	} {
		kind, contentType := kinds(c.accept, c.path)
		if kind != c.kind || contentType != c.contentType {
			t.Errorf("%s as %s: %s %s", c.path, c.accept, kind, contentType)
		}
	}
	s.OldDiscovery()
	if kind, _ := kinds(v2+",application/json", "/apis"); kind != "APIGroupList" {
		t.Errorf("old server: %s", kind)
	}
	s.DenyDiscovery()
	if status, _, _ := ask(t, s, "/apis", map[string]string{"Authorization": "Bearer tok"}); status != 403 {
		t.Errorf("denied discovery: %d", status)
	}
}

func TestMisbehave(t *testing.T) {
	s := New(t)
	s.Misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) { w.WriteHeader(http.StatusTeapot) })
	if status, _, _ := ask(t, s, "/apis", nil); status != http.StatusTeapot {
		t.Errorf("status %d", status)
	}
	if got := s.Requests(); !reflect.DeepEqual(got, []string(nil)) {
		t.Errorf("Requests = %v", got)
	}
}
