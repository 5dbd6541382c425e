package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	dockercreds "github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// maxLogins, in bytes, bounds a file of logins; real ones have a few KiB.
const maxLogins = 1 << 20

// Keychain returns the logins in authFile, a file of the form of docker's
// config.json, with the credential helpers that it names. That is what
// REGISTRY_AUTH_FILE means to other tools. When authFile is empty, docker's
// own configuration is read (the folder DOCKER_CONFIG or ~/.docker), and when
// there is none, podman's: what [authn.DefaultKeychain] does.
//
// In authFile a login may be for a host or for a part of it, as in podman's:
// of "host/a/b", "host/a" and "host" the longest that fits is used. The file
// may also be image-syncer's auth.json, an object of such names with
// "username" and "password"; its "insecure" is passed over, and "$NAME" in it
// stands for itself.
//
// Names and passwords are taken as they are: nothing in them is expanded or
// escaped. docker's own "auth" can hold neither a name with a colon nor a
// password that begins or ends with a zero byte.
func Keychain(authFile string) authn.Keychain {
	if authFile == "" {
		return authn.DefaultKeychain
	}
	return &fileKeychain{name: authFile}
}

type fileKeychain struct {
	name string
	mu   sync.Mutex // as helpers may ask for a password
}

// Resolve implements [authn.Keychain]. The file is read each time, so that a
// login made meanwhile counts.
func (k *fileKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements [authn.ContextKeychain].
func (k *fileKeychain) ResolveContext(_ context.Context, r authn.Resource) (authn.Authenticator, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, err := os.Open(k.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxLogins+1))
	if err != nil {
		return nil, err
	}
	file, err := parseLogins(content)
	if err != nil {
		return nil, fmt.Errorf("login file %q: %w", k.name, err)
	}
	return resolve(file, r)
}

// KeychainOf returns the logins in content, which has a form that [Keychain]
// reads: what DOCKER_AUTH_CONFIG holds, or a Kubernetes pull secret. Errors
// hold nothing of content but the names of hosts.
func KeychainOf(content []byte) (authn.Keychain, error) {
	file, err := parseLogins(content)
	if err != nil {
		return nil, fmt.Errorf("logins: %w", err)
	}
	return &contentKeychain{file: file}, nil
}

type contentKeychain struct {
	file *configfile.ConfigFile
	mu   sync.Mutex // as helpers may ask for a password
}

// Resolve implements [authn.Keychain].
func (k *contentKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return resolve(k.file, r)
}

// Static is a keychain of one login, for exactly one host and port as they
// stand in references: "harbor.site" is not "harbor.site:8443", and not
// "a.harbor.site". The zero Static has none. Several keychains become one,
// whose first login counts, with [authn.NewMultiKeychain].
type Static struct{ Host, Username, Password string }

// Resolve implements [authn.Keychain].
func (s Static) Resolve(r authn.Resource) (authn.Authenticator, error) {
	isNone := s.Host == "" || s.Username == "" && s.Password == ""
	if isNone || normalHost(s.Host) != normalHost(r.RegistryStr()) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: s.Username, Password: s.Password}), nil
}

// String returns s without the password.
func (s Static) String() string { return fmt.Sprintf("login for %q as %q", s.Host, s.Username) }

// GoString is [Static.String], so that no format shows the password.
func (s Static) GoString() string { return s.String() }

// parseLogins parses logins, in docker's form or image-syncer's.
func parseLogins(content []byte) (*configfile.ConfigFile, error) {
	if len(content) > maxLogins {
		return nil, fmt.Errorf("more than %d bytes", maxLogins)
	}
	if auths, ok := parseSyncer(content); ok {
		file := configfile.New("")
		file.AuthConfigs = auths
		return file, nil
	}
	return config.LoadFromReader(bytes.NewReader(content))
}

// parseSyncer parses the auth.json of image-syncer, and reports whether
// content is one: an object of hosts, with or without a path, and nothing but
// logins. docker's form has other members, "auths" before all.
func parseSyncer(content []byte) (map[string]types.AuthConfig, bool) {
	var doc map[string]json.RawMessage
	if json.Unmarshal(content, &doc) != nil || len(doc) == 0 {
		return nil, false
	}
	auths := make(map[string]types.AuthConfig)
	for key, value := range doc {
		var login struct {
			Username, Password string
			Insecure           bool
		}
		d := json.NewDecoder(bytes.NewReader(value))
		d.DisallowUnknownFields()
		host, _, _ := strings.Cut(key, "/")
		isHost := strings.ContainsAny(host, ".:") || host == "localhost"
		if !isHost || !bytes.HasPrefix(value, []byte("{")) || d.Decode(&login) != nil {
			return nil, false
		}
		auths[key] = types.AuthConfig{Username: login.Username, Password: login.Password}
	}
	return auths, true
}

// resolve returns the login that file has for r.
func resolve(file *configfile.ConfigFile, r authn.Resource) (authn.Authenticator, error) {
	for _, key := range loginKeys(r.String()) {
		a, err := getLogin(file, key)
		if err != nil {
			return nil, err
		}
		if a != (authn.AuthConfig{}) {
			return authn.FromConfig(a), nil
		}
	}
	return authn.Anonymous, nil
}

// loginKeys returns the keys under which a login for resource, "host/path",
// may be kept, the closest first.
func loginKeys(resource string) []string {
	var keys []string
	for s := resource; ; {
		if host, path, _ := strings.Cut(s, "/"); host == dockerHubKey {
			keys = append(keys, strings.TrimSuffix(dockerHub+"/"+path, "/"))
		} else {
			keys = append(keys, s)
		}
		i := strings.LastIndexByte(s, '/')
		if i < 0 {
			break
		}
		s = s[:i]
	}
	if keys[len(keys)-1] == dockerHub {
		keys = append(keys, authn.DefaultAuthKey, dockerHubKey)
	}
	return keys
}

// getLogin returns the login that file keeps under key, from a helper or
// itself, and the zero AuthConfig when there is none.
func getLogin(file *configfile.ConfigFile, key string) (authn.AuthConfig, error) {
	var a types.AuthConfig
	helper, helped := file.CredentialHelpers[key]
	isPath := strings.Contains(key, "/") && !strings.Contains(key, "://")
	if helped || file.CredentialsStore != "" && !isPath { // a store knows hosts only
		// The lookup of docker's library would also read the environment.
		var err error
		if a, err = dockercreds.NewNativeStore(file, cmp.Or(helper, file.CredentialsStore)).Get(key); err != nil {
			return authn.AuthConfig{}, err
		}
	} else {
		// The lookup of docker's library would find "host/a" for "host".
		for _, form := range []string{"%s", "https://%s", "https://%s/", "https://%s/v1/", "https://%s/v2/", "http://%s"} {
			var ok bool
			if a, ok = file.AuthConfigs[fmt.Sprintf(form, key)]; ok {
				break
			}
		}
	}
	return authn.AuthConfig{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}, nil
}
