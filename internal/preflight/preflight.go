// Package preflight hides how it is found out, before the first byte, what
// could go wrong with a push: is the registry there, is the login right, are
// the projects there and writable, is there room, may the tags be written.
//
// # What is asked
//
// Nothing that writes, and nothing that looks like the beginning of an
// upload. Of a registry that is no Harbor: whether it answers, whether it
// accepts the login, and, where its tokens say so, which rights that has. Of a
// Harbor also what its API tells; see the names of the checks. What the login
// may not read is a warning, not an error: a robot that may only push can
// still push.
//
// # What can not be known
//
// Another client may write in the meantime. Harbor tells nobody what blobs a
// project has: when there seems to be too little room, blobs that count as new
// are looked for in the project's other repositories, with 2,000 requests at
// most. Which rights a system robot will have in a
// project that is still to be created is known only afterwards.
//
// # Sources
//
// Harbor's API; the token specification of distribution, for the rights in a
// token; recordings of a real Harbor 2.16.0, in internal/harbortest/testdata.
package preflight

import (
	"errors"
	"fmt"
	"slices"
)

// Level is how bad what a check found is.
type Level string

// The levels, from good to bad.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
)

// Names of checks, in the order in which a [Report] has them.
const (
	Reach        = "reach"         // does the registry answer?
	TLS          = "tls"           // is its certificate checked?
	Version      = "version"       // is it a Harbor, and which?
	Login        = "login"         // is the login accepted?
	ReadOnly     = "read-only"     // is Harbor in read-only mode?
	Project      = "project"       // is a project there, and no proxy cache, or can it be created?
	Rights       = "rights"        // does the login give the right to pull and push?
	ManifestSize = "manifest-size" // does Harbor take manifests of that size?
	Quota        = "quota"         // has a project room for what is missing in it?
	Immutable    = "immutable"     // may the tags that would move be moved?
	Retention    = "retention"     // does a policy delete what is pushed?
	Plan         = "plan"          // can it be found out what is missing?
)

// Checks lists the names of all checks.
func Checks() []string {
	return []string{Reach, TLS, Version, Login, ReadOnly, Project, Rights, Plan, ManifestSize, Quota, Immutable, Retention}
}

// Ignorable lists the names of the checks that may be ignored: those that a
// registry may judge otherwise, or that may be mended meanwhile.
func Ignorable() []string {
	return []string{ReadOnly, Project, Rights, ManifestSize, Quota, Immutable}
}

// ErrNoProject says that a project is missing and is not to be created.
var ErrNoProject = errors.New("project is missing")

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"check"`
	About  string `json:"about"` // the host, project, repository or tag it is about
	Level  Level  `json:"level"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do; empty when nothing is to be done
	err    error  // what kind of error it is; nil unless Level is Error
	broken bool   // the check found nothing out
}

// Err returns the error of a check whose level is [Error], for its kind.
func (c Check) Err() error { return c.err }

// Report is what all checks found.
type Report struct {
	Checks []Check

	ignore []string
}

func (r *Report) add(c Check) {
	if c.Level == Error && !c.broken && slices.Contains(r.ignore, c.Name) {
		c.Level, c.err, c.Found, c.Advice = Warning, nil, c.Found+" (ignored)", ""
	}
	r.Checks = append(r.Checks, c)
}

func (r *Report) ok(name, about, format string, args ...any) {
	r.add(Check{Name: name, About: about, Level: OK, Found: fmt.Sprintf(format, args...)})
}

func (r *Report) warn(name, about, advice, format string, args ...any) {
	r.add(Check{Name: name, About: about, Level: Warning, Found: fmt.Sprintf(format, args...), Advice: advice})
}

// fail adds an error of a kind that callers know.
func (r *Report) fail(name, about, advice string, kind error, format string, args ...any) {
	r.add(Check{Name: name, About: about, Level: Error, Found: fmt.Sprintf(format, args...), Advice: advice, err: kind})
}

// broken adds an error that kept a check from finding out anything.
// It can not be ignored.
func (r *Report) broken(name, about string, err error) {
	r.add(Check{Name: name, About: about, Level: Error, Found: err.Error(), err: err, broken: true})
}

// Worst returns the worst level that there is.
func (r *Report) Worst() Level {
	switch {
	case r.Count(Error) > 0:
		return Error
	case r.Count(Warning) > 0:
		return Warning
	}
	return OK
}

// NoPlan adds that it could not be found out what is missing.
func (r *Report) NoPlan(about string, err error) { r.broken(Plan, about, err) }

// Count returns how many checks found something of a level.
func (r *Report) Count(level Level) int {
	n := 0
	for _, c := range r.Checks {
		if c.Level == level {
			n++
		}
	}
	return n
}

// Err returns nil if no check found an error, else a [*FailedError].
func (r *Report) Err() error {
	var failed FailedError
	for _, c := range r.Checks {
		if c.Level == Error {
			failed.Checks = append(failed.Checks, c)
		}
	}
	if len(failed.Checks) == 0 {
		return nil
	}
	return &failed
}

// FailedError says that a push would fail.
type FailedError struct {
	Checks []Check // those that found an error, at least one
}

func (e *FailedError) Error() string {
	first := e.Checks[0]
	text := fmt.Sprintf("%s of %s: %s", first.Name, first.About, first.Found)
	if n := len(e.Checks) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// Unwrap returns the error of the first check: checks stand in an order in
// which what comes first explains what follows.
func (e *FailedError) Unwrap() error { return e.Checks[0].err }
