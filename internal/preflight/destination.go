package preflight

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"ferry/harbor"
	"ferry/internal/registry"
)

// Options say what is looked at. Registry, Host and Harbor are required.
type Options struct {
	Registry *registry.Client
	Host     string
	// Harbor returns a client of the Harbor at the base URL, with the login
	// for a repository of it, or for its host when the repository has no path.
	// The error is [ErrToken], beside a client without a login, when that is
	// a token, which Harbor's API does not take.
	Harbor func(ctx context.Context, base string, at registry.Repository) (*harbor.Client, error)
	// LoginAdvice says to who has no login where one can be given.
	LoginAdvice string
	// Unchecked says that the user wants the certificate of the host not to
	// be checked.
	Unchecked bool
	// CreateProjects says that missing projects will be created, as Project
	// says.
	CreateProjects bool
	Project        harbor.CreateOptions
	// Projects of a Harbor are looked at besides those of repositories.
	Projects []string
	// Ignore has the names of checks whose errors are warnings, of those in
	// [Ignorable].
	Ignore []string
	// Jobs is how many requests are made at once. Zero means 4.
	Jobs int
}

// ErrToken says that a login is a token, which Harbor's API does not take.
var ErrToken = errors.New("the login is a token")

// Destination is a registry that has been looked at.
type Destination struct {
	Report
	opts     Options
	at       registry.Repository // whose login is used
	user     string              // whose login that is; empty when nobody's
	token    bool                // it is a token
	harbor   *harbor.Client      // nil when it is no Harbor
	info     harbor.SystemInfo
	account  harbor.Account
	projects map[string]*project
}

// project is a project of a Harbor that something is to be pushed to.
type project struct {
	name     string
	missing  bool
	known    bool           // whether details are known
	details  harbor.Project // when they are
	probe    registry.Repository
	findings Report
}

// Look looks at a registry and at the projects of repositories, of which
// there may be none. Every check is in the report; what a check needs that
// has failed before is not in it.
func Look(ctx context.Context, repositories []registry.Repository, o Options) *Destination {
	d := &Destination{opts: o, projects: map[string]*project{}, at: registry.Repository{Host: o.Host}}
	d.ignore = o.Ignore
	switch {
	case len(repositories) > 0:
		d.at = repositories[0]
	case len(o.Projects) > 0:
		d.at.Path = o.Projects[0]
	}
	base, err := o.Registry.BaseURL(ctx, o.Host)
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		d.ok(Reach, o.Host, "answers")
		d.broken(TLS, o.Host, err)
		return d
	case errors.Is(err, registry.ErrUnavailable):
		d.fail(Reach, o.Host, "see host and port, and whether a firewall or a proxy is between", err, "%v", err)
		return d
	case err != nil:
		d.broken(Reach, o.Host, err)
		return d
	}
	d.ok(Reach, o.Host, "answers at %s", base)
	d.checkTLS(base)
	if !d.checkVersion(ctx, base) {
		return d
	}
	if d.harbor == nil {
		d.checkPlain(ctx, repositories)
		return d
	}
	if d.token {
		d.ok(Version, o.Host, "Harbor")
		d.warn(Login, o.Host, "give user and password to have the rest checked", "it is a token, which Harbor's API does not take: only rights are looked at")
		d.checkRepositories(ctx, repositories)
		d.harbor = nil
		return d
	}
	if !d.checkLogin(ctx) {
		return d
	}
	d.checkReadOnly()
	d.checkProjects(ctx, repositories)
	return d
}

func (d *Destination) checkTLS(base string) {
	switch {
	case !strings.HasPrefix(base, "https://") && registry.IsLoopback(d.opts.Host):
		d.ok(TLS, d.opts.Host, "none, on this machine")
	case !strings.HasPrefix(base, "https://"):
		d.warn(TLS, d.opts.Host, "have the registry served with TLS", "none: whoever is between can read and change everything")
	case d.opts.Unchecked:
		d.warn(TLS, d.opts.Host, "trust the site's CA with --ca-file CA.pem, and leave --insecure out", "the certificate is not checked")
	default:
		d.ok(TLS, d.opts.Host, "the certificate is valid")
	}
}

// checkVersion finds out whether the registry is a Harbor. It returns false
// when nothing more can be asked.
func (d *Destination) checkVersion(ctx context.Context, base string) bool {
	h, err := d.opts.Harbor(ctx, base, d.at)
	if d.token = errors.Is(err, ErrToken); err == nil || d.token {
		d.user = h.Username()
		err = h.Ping(ctx)
	}
	switch {
	case errors.Is(err, harbor.ErrUnavailable):
		d.warn(Version, d.opts.Host, "if it is a Harbor, see whether it is well", "whether it is a Harbor is not known, and nothing of that is looked at: %v", err)
		return true
	case errors.Is(err, harbor.ErrNotHarbor):
		d.ok(Version, d.opts.Host, "not a Harbor: there are no projects, quotas or rules to look at")
		return true
	case err != nil:
		d.broken(Version, d.opts.Host, err)
		return false
	}
	d.harbor = h
	return true
}

// checkPlain looks at a registry that is no Harbor.
func (d *Destination) checkPlain(ctx context.Context, repositories []registry.Repository) {
	err := d.opts.Registry.CheckLogin(ctx, d.at)
	needed := false
	if err == nil && d.user == "" && !d.token {
		needed, err = d.opts.Registry.NeedsLogin(ctx, d.opts.Host)
	}
	switch {
	case needed:
		d.fail(Login, d.opts.Host, d.opts.LoginAdvice, registry.ErrUnauthorized, "there is none for this host")
		return
	case errors.Is(err, registry.ErrUnauthorized):
		d.fail(Login, d.opts.Host, "user or password is wrong", err, "%q is not accepted", d.user)
		return
	case err != nil:
		d.broken(Login, d.opts.Host, err)
		return
	}
	d.ok(Login, d.opts.Host, "accepted, or not needed")
	if d.opts.CreateProjects {
		d.warn(Project, d.opts.Host, "leave --create-projects out", "there are no projects to create in what is not a Harbor")
	}
	d.checkRepositories(ctx, repositories)
}

// checkRepositories looks at the rights in each repository. The tokens that it
// gets are those that a push needs.
func (d *Destination) checkRepositories(ctx context.Context, repositories []registry.Repository) {
	found := make([]Report, len(repositories))
	d.atOnce(len(repositories), func(i int) {
		found[i].ignore = d.ignore
		d.checkRights(ctx, &found[i], repositories[i].Path, repositories[i])
	})
	for _, r := range found {
		d.Checks = append(d.Checks, r.Checks...)
	}
}

// atOnce calls do for all numbers below n, several at once.
func (d *Destination) atOnce(n int, do func(i int)) {
	var group errgroup.Group
	group.SetLimit(cmp.Or(d.opts.Jobs, 4))
	for i := range n {
		group.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = group.Wait() // what goes wrong is in the findings
}

// checkLogin returns false when nothing more can be asked.
func (d *Destination) checkLogin(ctx context.Context) bool {
	err := d.harbor.CheckLogin(ctx)
	if err != nil {
		d.ok(Version, d.opts.Host, "Harbor, which tells its version to nobody without a login")
	}
	switch {
	case errors.Is(err, harbor.ErrUnauthorized) && d.user == "":
		d.fail(Login, d.opts.Host, d.opts.LoginAdvice, harbor.ErrUnauthorized, "there is none for this host")
		return false
	case errors.Is(err, harbor.ErrUnauthorized):
		d.fail(Login, d.opts.Host, refusedAdvice(d.user), err, "%q is not accepted", d.user)
		return false
	}
	if err == nil {
		d.info, err = d.harbor.SystemInfo(ctx)
	}
	if err != nil {
		d.broken(Login, d.opts.Host, err)
		return false
	}
	d.ok(Version, d.opts.Host, "Harbor %s", d.info.Version)
	if d.account, err = d.harbor.Account(ctx); err != nil {
		d.warn(Login, d.opts.Host, "", "accepted, of %q, of whom Harbor tells nothing: %v", d.user, err)
		return true
	}
	who := "user"
	switch {
	case d.account.Robot:
		who = "robot"
	case d.account.Admin:
		who = "administrator"
	}
	d.ok(Login, d.opts.Host, "accepted, of %s %q", who, d.user)
	return true
}

// refusedAdvice says what a refused login can mean. Harbor does not tell.
func refusedAdvice(user string) string {
	if strings.Contains(user, "$") {
		return "the robot's secret is wrong, or the robot is disabled or has expired: Harbor does not tell which; see its state in Harbor, and write its name as it is there, with $ and +"
	}
	return "user or password is wrong; after a wrong password Harbor refuses the right one for 1.5 s, which was waited for"
}

func (d *Destination) checkReadOnly() {
	if d.info.ReadOnly {
		d.fail(ReadOnly, d.opts.Host, "wait until the administrator ends the read-only mode", harbor.ErrReadOnly, "nobody can push or create projects now")
		return
	}
	d.ok(ReadOnly, d.opts.Host, "no")
}

// checkProjects looks at all projects at once; the report has them by name.
func (d *Destination) checkProjects(ctx context.Context, repositories []registry.Repository) {
	for _, name := range d.opts.Projects {
		// Rights are those of a project, but are asked for by a repository.
		d.addProject(name, registry.Repository{Host: d.opts.Host, Path: name + "/any"})
	}
	for _, repo := range repositories {
		d.addProject(projectOf(repo), repo)
	}
	all := d.sorted()
	d.atOnce(len(all), func(i int) { d.checkProject(ctx, all[i]) })
	for _, p := range all {
		d.Checks = append(d.Checks, p.findings.Checks...)
	}
}

// addProject adds a project. A repository without one is what Harbor can not
// have.
func (d *Destination) addProject(name string, probe registry.Repository) {
	p := d.projects[name]
	if p == nil {
		p = &project{name: name, probe: probe, findings: Report{ignore: d.ignore}}
		d.projects[name] = p
	}
	if !strings.Contains(probe.Path, "/") {
		p.findings.fail(Project, name, "push to HOST/PROJECT/REPO: name a project in the destination, or with --map", harbor.ErrInvalidName,
			"it is the name of a project, and no repository in it is named")
	}
}

func (d *Destination) sorted() []*project {
	var all []*project
	for _, p := range d.projects {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *project) int { return strings.Compare(a.name, b.name) })
	return all
}

func (d *Destination) checkProject(ctx context.Context, p *project) {
	r := &p.findings
	if r.Err() != nil {
		return
	}
	there, err := d.harbor.ProjectExists(ctx, p.name)
	if err != nil {
		r.broken(Project, p.name, err)
		return
	}
	if !there {
		p.missing = true
		d.checkCreation(p)
		return
	}
	p.details, err = d.harbor.Project(ctx, p.name)
	p.known = err == nil
	switch {
	case errors.Is(err, harbor.ErrForbidden):
		advice := "have the user made a member of the project"
		if d.account.Robot {
			advice = "give the robot the rights project:read and quota:read to have these checked"
		}
		r.warn(Project, p.name, advice,
			"exists, but the login may not read it: whether it is a proxy cache, its quota and its retention are not known")
	case err != nil:
		r.broken(Project, p.name, err)
		return
	case p.details.ProxyCache:
		r.fail(Project, p.name, "choose another project, with --map or in the destination", harbor.ErrProxyCache, "a proxy cache takes no pushes")
		return
	case p.details.Public:
		r.ok(Project, p.name, "exists, public: anybody may pull")
	default:
		r.ok(Project, p.name, "exists, private")
	}
	d.checkRights(ctx, r, p.name, p.probe)
}

const createAdvice = "have the project created, or use a login that may: an administrator, or a system robot with the right project:create (a robot of one project never may)"

// checkCreation looks at whether a missing project can be created.
func (d *Destination) checkCreation(p *project) {
	r := &p.findings
	if !d.opts.CreateProjects {
		r.fail(Project, p.name, "--create-projects creates it; or see the spelling", ErrNoProject, "there is no such project")
		return
	}
	switch {
	case d.account.Robot && strings.Contains(d.user, "+"):
		r.fail(Project, p.name, createAdvice, harbor.ErrForbidden, "is missing, and the robot of one project can not create another")
	case d.account.Robot:
		r.ok(Project, p.name, "will be created, if the robot has the right project:create; that is found out before any image is sent")
	case d.info.ProjectCreation == "adminonly" && !d.account.Admin:
		r.fail(Project, p.name, createAdvice, harbor.ErrForbidden, "is missing, and only administrators may create projects here")
	case d.opts.Project.StorageLimit > 0 && !d.account.Admin:
		r.warn(Project, p.name, "have an administrator set the quota", "will be created; Harbor takes the quota from administrators and robots only")
	default:
		r.ok(Project, p.name, "will be created")
	}
}

const rightsAdvice = "have the login made developer or maintainer of the project; a robot needs repository:push and repository:pull"

// checkRights looks at what a token for the repository allows.
func (d *Destination) checkRights(ctx context.Context, r *Report, about string, repo registry.Repository) {
	rights, err := d.opts.Registry.Rights(ctx, repo)
	switch {
	case errors.Is(err, registry.ErrUnauthorized):
		r.fail(Rights, about, rightsAdvice, err, "%v", err)
	case err != nil:
		r.broken(Rights, about, err)
	case !rights.Known:
		r.ok(Rights, about, "not told before a push")
	case rights.Pull && rights.Push:
		r.ok(Rights, about, "pull and push")
	case rights.Pull:
		r.fail(Rights, about, rightsAdvice, registry.ErrUnauthorized, "pull, but not push")
	case rights.Push:
		r.fail(Rights, about, rightsAdvice, registry.ErrUnauthorized, "push, but not pull, which it takes to read back what was pushed")
	default:
		r.fail(Rights, about, rightsAdvice, registry.ErrUnauthorized, "neither pull nor push")
	}
}
