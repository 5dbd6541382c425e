package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const (
	// maxConfig, in bytes, bounds a kubeconfig; one with a hundred clusters
	// has about 1 MiB.
	maxConfig = 16 << 20
	// maxListed is how many contexts an error lists.
	maxListed = 20
)

// loaded is what a kubeconfig says about one context.
type loaded struct {
	files    []string
	context  string
	server   string
	config   *rest.Config
	warnings []string
}

// invalid returns an error about the kubeconfig.
func (l *loaded) invalid(err error) error {
	e := configError(l.files, "context %q: %v", l.context, err)
	if errors.Is(err, fs.ErrNotExist) {
		e.cause = fs.ErrNotExist
	}
	return e
}

func configError(files []string, format string, args ...any) *Error {
	var quoted []string
	for _, f := range files {
		quoted = append(quoted, fmt.Sprintf("%q", f))
	}
	op := strings.TrimSpace("kubeconfig " + strings.Join(quoted, ", "))
	return &Error{Op: op, Message: printable(fmt.Sprintf(format, args...)), kind: ErrInvalid}
}

// loadConfig reads the kubeconfig that o names, and what it says about the
// context.
func loadConfig(o Options) (*loaded, error) {
	files, err := configFiles(o)
	if err != nil {
		return nil, err
	}
	merged, err := readConfig(files)
	if err != nil {
		return nil, err
	}
	l := &loaded{files: files, context: o.Context}
	if l.context == "" {
		l.context = merged.CurrentContext
	}
	chosen, ok := merged.Contexts[l.context]
	switch {
	case l.context == "":
		return nil, configError(files, "no context is named, and none is current; there are %s", listed(merged))
	case !ok:
		return nil, configError(files, "no context %q; there are %s", l.context, listed(merged))
	}
	cluster := merged.Clusters[chosen.Cluster]
	switch {
	case cluster == nil:
		return nil, l.invalid(fmt.Errorf("there is no cluster %q", chosen.Cluster))
	case merged.AuthInfos[chosen.AuthInfo] == nil && chosen.AuthInfo != "":
		// client-go would go on as nobody.
		return nil, l.invalid(fmt.Errorf("there is no user %q", chosen.AuthInfo))
	}
	if err := l.check(cluster); err != nil {
		return nil, l.invalid(err)
	}
	l.config, err = clientcmd.NewNonInteractiveClientConfig(*merged, l.context, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, l.invalid(err)
	}
	// With contents in place of names client-go does not watch the files,
	// for which it would start a goroutine that never ends.
	if err := rest.LoadTLSFiles(l.config); err != nil {
		return nil, l.invalid(err)
	}
	l.config.CertFile, l.config.KeyFile, l.config.CAFile = "", "", ""
	return l, nil
}

// configFiles returns the files to read, of which there is at least one.
func configFiles(o Options) ([]string, error) {
	var names []string
	switch {
	case o.Kubeconfig != "":
		names = []string{o.Kubeconfig}
	case o.KubeconfigList != "":
		for _, name := range filepath.SplitList(o.KubeconfigList) {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	case o.Home != "":
		names = []string{filepath.Join(o.Home, ".kube", "config")}
	}
	if len(names) == 0 {
		return nil, configError(nil, "none is named")
	}
	var there []string
	for _, name := range names {
		info, err := os.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, configError([]string{name}, "%v", pathCause(err))
		case info.IsDir():
			return nil, configError([]string{name}, "is a directory")
		case info.Mode().IsRegular() && info.Size() > maxConfig:
			return nil, configError([]string{name}, "is longer than %d bytes", maxConfig)
		}
		there = append(there, name)
	}
	if len(there) == 0 {
		e := configError(names, "no such file")
		e.cause = fs.ErrNotExist
		return nil, e
	}
	return there, nil
}

// readConfig merges files as kubectl does.
func readConfig(files []string) (*api.Config, error) {
	merged, err := (&clientcmd.ClientConfigLoadingRules{Precedence: files}).Load()
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, configError(files, "%v", pathCause(err))
		}
		return nil, configError(files, "%s", syntaxMessage(err))
	}
	return merged, nil
}

// pathCause returns an error of a file without the file's name.
func pathCause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// safeSyntax matches the parts of a parser's message that quote nothing of a
// file, which has secrets in it.
var safeSyntax = regexp.MustCompile(`\bline \d+|illegal base64 data at input byte \d+|permission denied|is a directory`)

// syntaxMessage returns what may be said about a malformed kubeconfig.
func syntaxMessage(err error) string {
	return strings.Join(append([]string{"is malformed"}, slices.Compact(safeSyntax.FindAllString(err.Error(), 3))...), ": ")
}

// listed names the contexts of c.
func listed(c *api.Config) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		names = append(names, fmt.Sprintf("%q", name))
	}
	switch more := len(names) - maxListed; {
	case len(names) == 0:
		return "none"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxListed], ", "), more)
	}
	return strings.Join(names, ", ")
}

// check looks at what client-go would quote in its errors, or lets pass.
func (l *loaded) check(cluster *api.Cluster) error {
	server, err := url.Parse(cluster.Server)
	switch {
	case err != nil:
		return errors.New("the server is not a URL")
	case server.User != nil:
		return errors.New("the server's URL must not hold a login")
	case server.Scheme != "https" && server.Scheme != "http", server.Host == "", server.RawQuery != "", server.Fragment != "":
		return errors.New("the server is not https://HOST[:PORT][/PATH]")
	}
	l.server = server.String()
	if cluster.ProxyURL != "" {
		proxy, err := url.Parse(cluster.ProxyURL)
		if err != nil || proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, proxy.Scheme) {
			return errors.New("proxy-url is not a URL of scheme http, https or socks5")
		}
	}
	if cluster.InsecureSkipTLSVerify {
		l.warnings = append(l.warnings, fmt.Sprintf("the certificate of the API server %q is not checked: its kubeconfig has insecure-skip-tls-verify", server.Host))
	}
	if server.Scheme == "http" && !isLoopback(server.Hostname()) {
		l.warnings = append(l.warnings, fmt.Sprintf("the API server %q is asked for secrets without TLS", server.Host))
	}
	return nil
}

// isLoopback reports whether host is this machine, where "kubectl proxy" runs.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
