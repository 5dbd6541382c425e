package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestParseNames(t *testing.T) {
	for setting, want := range map[string]Names{
		"s3-secret=keys": {S3Secret: Object{Name: "keys"}},
		"s3-secret=ns/object-storage-key-std-user-1": {S3Secret: Object{Namespace: "ns", Name: "object-storage-key-std-user-1"}},
		"s3-secret.access-key=AWS_ACCESS_KEY_ID":     {S3AccessKey: "AWS_ACCESS_KEY_ID"},
		"s3-secret.secret-key=.a":                    {S3SecretKey: ".a"},
		"dns=a/b:c":                                  {DNS: Object{"a", "b", "c"}},
		"dns=b:c":                                    {DNS: Object{"", "b", "c"}},
		"s3-host=s3.example:9000":                    {S3Host: "s3.example:9000"},
		"s3-host=[::1]:9000":                         {S3Host: "[::1]:9000"},
		"harbor-host=h.%s":                           {HarborHost: "h.%s"},
		"harbor-host=%s:8443":                        {HarborHost: "%s:8443"},
		"harbor=none":                                {NoHarbor: true},
		"harbor=a/none":                              {Harbor: Object{"a", "none", ""}},
		"harbor=a/b:.status.url":                     {Harbor: Object{"a", "b", ".status.url"}},
		"harbor-group=goharbor.io":                   {HarborGroup: "goharbor.io"},
		"harbor-group=goharbor.io/v1beta1":           {HarborGroup: "goharbor.io/v1beta1"},
		"harbor-resource=registries":                 {HarborResource: "registries"},
		"harbor-admin=x":                             {HarborAdmin: Object{Name: "x"}},
		"harbor-admin.ca=root":                       {HarborCAKey: "root"},
		"harbor-user=robot$a+b=c":                    {HarborUser: "robot$a+b=c"},
		"ca=secret/a/b":                              {CA: Object{"a", "b", ""}, CAKind: "secret"},
		"ca=configmap/a/b:c.pem":                     {CA: Object{"a", "b", "c.pem"}, CAKind: "configmap"},
	} {
		if got, err := ParseNames([]string{setting}); err != nil || got != want {
			t.Errorf("ParseNames(%q) = %+v, %v, want %+v", setting, got, err, want)
		}
	}
}

func TestParseNamesRefuses(t *testing.T) {
	for _, setting := range []string{
		"", "s3-secret", "=x", "s3-secret=", "s3-secret=a/b/c", "s3-secret=/b", "s3-secret=a/", "s3-secret=a:b", "s3-secret=../b",
		"s3-secret=A", "s3-secret=a b", "s3-secret.access-key=", "s3-secret.access-key=a/b", "s3-secret.secret-key=..",
		"dns=a/b:", "dns=a/b:c:d", "s3-host=", "s3-host=%s%s", "s3-host=%d", "s3-host=%", "s3-host=https://a", "s3-host=a/b", "s3-host=a@b",
		"s3-host=a:0", "s3-host=a:65536", "s3-host=a:b", "s3-host=::1", "s3-host=[::1", "s3-host=[a]", "s3-host=[fe80::1%25eth0]",
		"harbor-host=a b", "harbor=", "harbor=a/b:", "harbor=a/b:c..d", "harbor=a/b:c[0]", "harbor-group=", "harbor-group=a/", "harbor-group=a/v1/x",
		"harbor-group=/v1", "harbor-group=..", "harbor-resource=a/b", "harbor-resource=", "harbor-user=", "harbor-user=a:b", "harbor-user=a\nb",
		"ca=a/b", "ca=pod/a/b", "ca=secret/b", "ca=secret", "ca=", "ca=secret/a/b:", "unknown=x", "S3-SECRET=x",
	} {
		got, err := ParseNames([]string{setting})
		if !errors.Is(err, ErrInvalid) || got != (Names{}) {
			t.Errorf("ParseNames(%q) = %+v, %v", setting, got, err)
			continue
		}
		checkText(t, setting, err)
	}
	_, err := ParseNames([]string{"unknown=x"})
	for _, s := range Settings() {
		if !strings.Contains(err.Error(), s.Key) {
			t.Errorf("%v does not list %s", err, s.Key)
		}
	}
	if _, err := ParseNames([]string{"dns=a", "ca=secret/a/b", "dns=b"}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `"dns" is given twice`) {
		t.Errorf("twice: %v", err)
	}
}

// TestSettings checks the help against what the settings do: each default,
// given as a value, changes nothing.
func TestSettings(t *testing.T) {
	for _, s := range Settings() {
		if s.Key == "" || s.Form == "" || s.Meaning == "" {
			t.Errorf("%+v is incomplete", s)
		}
		if s.Default == "" {
			continue
		}
		names, err := ParseNames([]string{s.Key + "=" + strings.ReplaceAll(s.Default, "NAME", "keys")})
		if err != nil {
			t.Errorf("%s: %v", s.Key, err)
			continue
		}
		want := Names{}
		if s.Key == "s3-secret" {
			want.S3Secret.Name = "keys"
		}
		if names.withDefaults() != want.withDefaults() {
			t.Errorf("%s=%s changes the names to %+v", s.Key, s.Default, names)
		}
		if names == (Names{}) {
			t.Errorf("%s sets nothing", s.Key)
		}
	}
}

// TestSecret shows what holds secrets in every way there is (I6).
func TestSecret(t *testing.T) {
	secret := NewSecret(canaryPassword)
	if secret.Reveal() != canaryPassword || (Secret{}).Reveal() != "" {
		t.Errorf("Reveal = %q, %q", secret.Reveal(), Secret{}.Reveal())
	}
	s3 := S3{"https://s3", NewSecret(canaryAccess), NewSecret(canarySecret)}
	harbor := Harbor{Address{"https://h", "h", "s"}, Login{"admin", secret, nil}}
	type deep struct{ inner any }
	type hiddenField struct {
		s3     S3
		harbor *Harbor
		all    []Secret
	}
	for _, v := range []any{
		secret, &secret, s3, &s3, harbor, &harbor, harbor.Login, []any{s3, harbor}, map[string]any{"a": s3},
		hiddenField{s3, &harbor, []Secret{secret}}, &hiddenField{s3, &harbor, nil}, deep{deep{s3}}, errors.New(fmt.Sprint(s3)),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%10v", "%e", "%o", "%U", "%b", "%c", "%w"} {
			text := fmt.Sprintf(verb, v)
			for _, canary := range append(canaries, fmt.Sprintf("%x", "canary"), fmt.Sprintf("%X", "canary")) {
				if strings.Contains(text, canary) {
					t.Errorf("%s of %T is %s", verb, v, text)
				}
			}
		}
		doc, err := json.Marshal(v)
		if err != nil || strings.Contains(string(doc), "canary") {
			t.Errorf("JSON of %T is %s, %v", v, doc, err)
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		if strings.Contains(log.String(), "canary") {
			t.Errorf("log of %T is %s", v, log.String())
		}
	}
	if text := fmt.Sprintf("%v", s3); !strings.Contains(text, hidden) || !strings.Contains(text, "https://s3") {
		t.Errorf("%%v is %s", text)
	}
	if secret.String() != hidden || secret.GoString() != hidden {
		t.Error("a method shows the secret")
	}
}
