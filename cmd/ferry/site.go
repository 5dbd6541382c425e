package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/internal/kube"
	"ferry/internal/registry"
)

// harborScheme begins a location in the Harbor of the cluster.
const harborScheme = "harbor://"

// siteFlags name a Kubernetes cluster that knows the site's services.
type siteFlags struct {
	kubeconfig, context, s3Secret string
	settings                      []string
}

func (s *siteFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "find S3 endpoint and keys, Harbor and its login in the cluster of this `FILE`")
	f.StringVar(&s.context, "context", "", "context of the kubeconfig (default its current one)")
	f.StringVar(&s.s3Secret, "s3-secret", "", "`NAME` of the secret with the bucket's keys, in object-storage-access-keys or as NAMESPACE/NAME")
	f.StringArrayVar(&s.settings, "site", nil, "`KEY=VALUE`: another name of an object in the cluster; ferry help site lists them (repeatable)")
}

func (s *siteFlags) given() bool {
	return s.kubeconfig != "" || s.context != "" || s.s3Secret != "" || len(s.settings) > 0
}

// services is what the cluster has told.
type services struct {
	cluster *kube.Cluster
	names   kube.Names
	harbor  kube.Harbor
	s3      *kube.S3
}

// openSite asks the cluster for what the command needs: the S3 store for
// locations s3://…, Harbor for those in a registry. In args harbor://… becomes
// a location at Harbor's host.
func (a *app) openSite(ctx context.Context, cmd *cobra.Command, args []string) error {
	if !a.flags.site.given() {
		for _, arg := range args {
			if strings.HasPrefix(arg, harborScheme) {
				return usagef("%q: harbor:// is the Harbor of a cluster: --kubeconfig names it", arg)
			}
		}
		return nil
	}
	s := &services{}
	for _, setting := range a.flags.site.settings {
		if err := s.names.Set(setting); err != nil {
			return usagef("--site: %w", err)
		}
	}
	if name := a.flags.site.s3Secret; name != "" {
		if err := s.names.Set("s3-secret=" + name); err != nil {
			return usagef("--s3-secret: %w", err)
		}
	}
	var err error
	s.cluster, err = kube.Open(kube.Options{Kubeconfig: a.flags.site.kubeconfig, KubeconfigList: a.env("KUBECONFIG"), Home: a.env("HOME"),
		Context: a.flags.site.context, UserAgent: "ferry/" + version()})
	if err != nil {
		return err
	}
	a.onClose(s.cluster.Close)
	for _, warning := range s.cluster.Warnings {
		a.Warn("%s", warning)
	}
	a.services = s
	locations := locationsOf(cmd, args)
	if slices.ContainsFunc(locations, func(l string) bool { return strings.HasPrefix(l, "s3://") }) {
		if err := a.findS3(ctx); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(locations, func(l string) bool { return strings.HasPrefix(l, harborScheme) || isRegistry(l) }) {
		if err := a.findHarbor(ctx, locations); err != nil {
			return err
		}
		for i, arg := range args {
			if rest, ok := strings.CutPrefix(arg, harborScheme); ok {
				args[i] = s.harbor.Host + "/" + rest
			}
		}
	}
	if s.harbor.CA == nil {
		s.harbor.CA, err = s.cluster.CA(ctx, s.names)
	}
	return err
}

// locationsOf returns what may be a location in the arguments and flags.
func locationsOf(cmd *cobra.Command, args []string) []string {
	locations := append([]string{}, args...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "bundle" {
			locations = append(locations, f.Value.String())
		}
	})
	return locations
}

func (a *app) findS3(ctx context.Context) error {
	s := a.services
	if s.names.S3Secret.Name == "" {
		return usagef("--s3-secret names the secret with the bucket's keys, such as object-storage-key-std-user-ID")
	}
	found, err := s.cluster.S3(ctx, s.names)
	if err != nil {
		return err
	}
	s.s3 = &found
	a.Say("cluster: the S3 store is at %s", found.Endpoint)
	return nil
}

// findHarbor finds Harbor, and its login if one of the locations is there. Who
// may not read that may have another.
func (a *app) findHarbor(ctx context.Context, locations []string) error {
	s := a.services
	var err error
	if s.harbor.Address, err = s.cluster.Address(ctx, s.names); err != nil {
		return err
	}
	there := func(l string) bool {
		host, _, _ := strings.Cut(trimScheme(l), "/")
		return strings.HasPrefix(l, harborScheme) || strings.EqualFold(host, s.harbor.Host)
	}
	if !slices.ContainsFunc(locations, there) {
		a.Say("cluster: Harbor is at %s, which is not asked", s.harbor.URL)
		return nil
	}
	a.Say("cluster: Harbor is at %s, as %s says", s.harbor.URL, s.harbor.Source)
	if strings.HasPrefix(s.harbor.URL, "http://") {
		a.Warn("%s is reached without TLS, as %s says", s.harbor.Host, s.harbor.Source)
		a.flags.plain = append(a.flags.plain, s.harbor.Host)
	}
	s.harbor.Login, err = s.cluster.Login(ctx, s.names)
	if errors.Is(err, kube.ErrDenied) {
		a.Warn("%v: another login for %s is looked for", err, s.harbor.Host)
		return nil
	}
	return err
}

// keychain returns the login for the cluster's Harbor, if there is one.
func (s *services) keychain() authn.Keychain {
	if s == nil || s.harbor.Username == "" {
		return registry.Static{}
	}
	return registry.Static{Host: s.harbor.Host, Username: s.harbor.Username, Password: s.harbor.Password.Reveal()}
}

// authorities returns the PEM certificates of the site's own authority.
func (s *services) authorities() []byte {
	if s == nil {
		return nil
	}
	return s.harbor.CA
}

func newSiteHelp() *cobra.Command {
	var b strings.Builder
	b.WriteString(`With --kubeconfig ferry finds in a Kubernetes cluster, with the verb get only:

  for s3://…          the S3 endpoint, from the DNS suffix, and the keys, from
                      the secret that --s3-secret names
  for a registry      Harbor's address, its administrator's password, and the
                      site's CA where that is kept

harbor://PROJECT/REPO is a location in the Harbor that was found. Its login is
sent to no other host. Nothing of it is printed.

Every name can be set with --site KEY=VALUE:

`)
	for _, s := range kube.Settings() {
		fmt.Fprintf(&b, "  %s=%s\n      %s", s.Key, s.Form, s.Meaning)
		if s.Default != "" {
			fmt.Fprintf(&b, " (default %s)", s.Default)
		}
		b.WriteString("\n")
	}
	return &cobra.Command{Use: "site", Short: "How services are found in a cluster", Long: b.String()}
}
