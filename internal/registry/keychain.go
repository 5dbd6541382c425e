package registry

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Keychain returns the logins in authFile, a file of the form of docker's
// config.json, with the credential helpers that it names. That is what
// REGISTRY_AUTH_FILE means to other tools. When authFile is empty, docker's
// own configuration is read (the folder DOCKER_CONFIG or ~/.docker), and when
// there is none, podman's: what [authn.DefaultKeychain] does.
//
// In authFile a login may be for a host or for a part of it, as in podman's:
// of "host/a/b", "host/a" and "host" the longest that fits is used.
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
	file, err := config.LoadFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("login file %q: %w", k.name, err)
	}
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
	_, helped := file.CredentialHelpers[key]
	isPath := strings.Contains(key, "/") && !strings.Contains(key, "://")
	if helped || file.CredentialsStore != "" && !isPath { // a store knows hosts only
		var err error
		if a, err = file.GetAuthConfig(key); err != nil {
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
