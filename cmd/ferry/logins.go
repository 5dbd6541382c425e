package main

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"ferry/internal/registry"
)

// logins returns where logins are looked for, the closest first: FERRY_USERNAME
// for the one host in FERRY_HOST, the cluster for its Harbor, the file in
// REGISTRY_AUTH_FILE, the text in DOCKER_AUTH_CONFIG, docker's and podman's own
// files. Names and passwords are
// taken as they are.
func (a *app) logins() (authn.Keychain, error) {
	var all []authn.Keychain
	fixed, err := a.fixedLogin()
	if err != nil {
		return nil, err
	}
	if fixed != (registry.Static{}) {
		all = append(all, fixed)
	}
	all = append(all, a.services.keychain())
	file := a.env("REGISTRY_AUTH_FILE")
	if file != "" {
		all = append(all, registry.Keychain(file))
	}
	if content := a.env("DOCKER_AUTH_CONFIG"); content != "" {
		keychain, err := registry.KeychainOf([]byte(content))
		if err != nil {
			return nil, usagef("DOCKER_AUTH_CONFIG: %w", err)
		}
		all = append(all, keychain)
	}
	if file == "" {
		all = append(all, registry.Keychain(""))
	}
	return authn.NewMultiKeychain(all...), nil
}

// fixedLogin returns the login in FERRY_HOST, FERRY_USERNAME and FERRY_PASSWORD
// or FERRY_PASSWORD_FILE, if there is one.
func (a *app) fixedLogin() (registry.Static, error) {
	password, hasPassword := a.lookupEnv("FERRY_PASSWORD")
	login := registry.Static{Host: a.env("FERRY_HOST"), Username: a.env("FERRY_USERNAME"), Password: password}
	file := a.env("FERRY_PASSWORD_FILE")
	if login == (registry.Static{}) && file == "" {
		return login, nil
	}
	if login.Host == "" || login.Username == "" || !hasPassword && file == "" {
		return registry.Static{}, usagef("FERRY_USERNAME and its password are for one host, which FERRY_HOST names: set all of them or none")
	}
	host, err := registry.ParseHost(login.Host)
	if err != nil {
		return registry.Static{}, usagef("FERRY_HOST: %w", err)
	}
	login.Host = host
	if file != "" {
		if login.Password != "" {
			return registry.Static{}, usagef("FERRY_PASSWORD and FERRY_PASSWORD_FILE are both set: which of them?")
		}
		content, err := readFile(file, 64<<10)
		if err != nil {
			return registry.Static{}, fmt.Errorf("FERRY_PASSWORD_FILE: %w", err)
		}
		// The line end is the editor's, not the password's.
		login.Password = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	}
	return login, nil
}
