package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"ferry/internal/kubetest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Secrets that must be seen nowhere (I6, T54).
const (
	canaryToken    = "canary-token-4711"
	canaryAccess   = "canary-access"
	canarySecret   = "canary/secret+key"
	canaryPassword = "canary-password\n" // as "echo" makes them
	suffix         = "zone1.site.example"
)

var canaries = []string{"canary", "Y2FuYXJ5"} // plain, and in base64

// newSite returns a server with W1's objects and a user who may read just
// them.
func newSite(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.New(t)
	s.AddUser("operator", canaryToken)
	s.AllowSite("operator", "keys")
	s.SetSite(kubetest.Site{
		S3Secret: "keys", AccessKey: canaryAccess, SecretKey: canarySecret, Suffix: suffix + "\n",
		HarborURL: "https://Harbor." + suffix + "/", Password: canaryPassword,
	})
	return s
}

func open(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// openSite opens s with the operator's token.
func openSite(t *testing.T, s *kubetest.Server) *Cluster {
	t.Helper()
	return open(t, Options{Kubeconfig: s.TokenConfig(t, canaryToken), Timeout: 20 * time.Second})
}

var siteNames = Names{S3Secret: Object{Name: "keys"}}

const (
	getKeys    = "GET /api/v1/namespaces/object-storage-access-keys/secrets/keys"
	getDNS     = "GET /api/v1/namespaces/gpc-system/configmaps/dnssuffix"
	getAdmin   = "GET /api/v1/namespaces/harbor-system/secrets/harbor-admin"
	getCluster = "GET /apis/goharbor.io/v1beta1/namespaces/harbor-system/harborclusters/harbor"
	getGroups  = "GET /apis"
)

// expectRequests compares the requests since the last time.
func expectRequests(t *testing.T, s *kubetest.Server, want ...string) {
	t.Helper()
	if got := s.Requests(); !slices.Equal(got, want) {
		t.Errorf("requests were %q, want %q", got, want)
	}
	s.ResetLog()
}

// asError returns err as the package's own error.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error", err)
	}
	return e
}

// always answers every request in place of the server.
func always(status int, header map[string]string, body string) kubetest.Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func readAll(ctx context.Context, c *Cluster) error {
	_, s3 := c.S3(ctx, siteNames)
	_, harbor := c.Harbor(ctx, siteNames)
	return errors.Join(s3, harbor)
}

// checkText looks at all that an error shows (T40, T54).
func checkText(t *testing.T, name string, err error) {
	t.Helper()
	for _, text := range []string{err.Error(), fmt.Sprintf("%v %+v %#v", err, err, err)} {
		for _, canary := range canaries {
			if strings.Contains(text, canary) {
				t.Errorf("%s: a secret is in %q", name, text)
			}
		}
	}
	for _, r := range err.Error() {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Errorf("%s: %q is in %q", name, r, err.Error())
		}
	}
	if len(err.Error()) > 2*maxMessage {
		t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
	}
}
