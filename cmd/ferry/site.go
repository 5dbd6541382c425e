package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferry/internal/kube"
	"ferry/internal/registry"
	"ferry/internal/ui"
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
	f.StringArrayVar(&s.settings, "site", nil, "`KEY=VALUE`: another name of an object in the cluster; ferry site --help lists them (repeatable)")
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
	if !a.flags.site.given() && cmd.Name() != "site" {
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
		if f.Name == "bundle" || f.Name == "base" {
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
	s.harbor.Address, err = s.cluster.Address(ctx, s.names)
	wanted := slices.ContainsFunc(locations, func(l string) bool { return strings.HasPrefix(l, harborScheme) })
	switch {
	case err != nil && wanted:
		return err
	case err != nil:
		a.Warn("%v: Harbor's login is not looked for in the cluster", err)
		return nil
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
	if strings.HasPrefix(s.harbor.URL, "http://") && !slices.Contains(a.flags.plain, s.harbor.Host) {
		// TLS may end before Harbor, which then knows nothing of it.
		a.Say("it is reached with TLS all the same, unless --plain-http %s is given", s.harbor.Host)
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

const siteHelp = `Show where a Kubernetes cluster says that S3 and Harbor are, and whether their
logins can be read there. Nothing secret is printed. Without --kubeconfig the
cluster is that of KUBECONFIG or ~/.kube/config.

Every other verb does the same when --kubeconfig, --context, --s3-secret or
--site is given, with the verb "get" and for what it needs only:

  for s3://...     the S3 endpoint, from the DNS suffix, and the keys, from the
                   secret that --s3-secret names
  for a registry   Harbor's address, and its administrator's password when the
                   location is there, with the site's CA where that is kept

harbor://PROJECT/REPO is a location in the Harbor that was found. Its login is
sent to no other host. Every name can be set with --site KEY=VALUE:
`

func newSiteCommand(a *app) *cobra.Command {
	var b strings.Builder
	b.WriteString(siteHelp)
	for _, s := range kube.Settings() {
		fmt.Fprintf(&b, "\n  %s=%s\n      %s", s.Key, s.Form, s.Meaning)
		if s.Default != "" {
			fmt.Fprintf(&b, "\n      default %s", s.Default)
		}
	}
	return &cobra.Command{
		Use:   "site",
		Short: "Show what a cluster tells about its S3 and Harbor",
		Long:  b.String(),
		Example: `  ferry site --kubeconfig site.yaml
  ferry site --kubeconfig site.yaml --s3-secret object-storage-key-std-user-ID
  ferry site --context prod --site ca=configmap/gpc-system/site-ca:ca.crt`,
		Args: wantArgs(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showSite(cmd.Context()) },
	}
}

type siteResult struct {
	Context string      `json:"context"`
	Server  string      `json:"server"`
	Harbor  harborThere `json:"harbor"`
	S3      *s3There    `json:"s3,omitempty"`
}

type harborThere struct {
	URL      string `json:"url"`
	Source   string `json:"source"`
	Username string `json:"username,omitempty"` // empty when its password may not be read
	CA       bool   `json:"ca"`
}

type s3There struct {
	Endpoint string `json:"endpoint"`
}

func (a *app) showSite(ctx context.Context) error {
	s := a.services
	if err := a.findHarbor(ctx, []string{harborScheme}); err != nil {
		return err
	}
	if s.names.S3Secret.Name != "" {
		if err := a.findS3(ctx); err != nil {
			return err
		}
	}
	r := siteResult{s.cluster.Context, s.cluster.Server, harborThere{s.harbor.URL, s.harbor.Source, s.harbor.Username, len(s.harbor.CA) > 0}, nil}
	rows := [][]string{{"context", r.Context}, {"server", r.Server}, {"harbor", r.Harbor.URL}, {"login", cmp.Or(r.Harbor.Username, "may not be read")},
		{"ca", map[bool]string{true: "found", false: "not in the cluster"}[r.Harbor.CA]}}
	if s.s3 != nil {
		r.S3 = &s3There{s.s3.Endpoint}
		rows = append(rows, []string{"s3", r.S3.Endpoint})
	}
	return a.Result(r, func(w io.Writer) error { return ui.Table(w, rows) })
}
