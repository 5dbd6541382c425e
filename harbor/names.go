package harbor

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

const maxName = 255 // bytes, of a project and of a repository with its project

var (
	projectName    = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// CheckProjectName returns nil if Harbor can have a project of that name:
// lower-case letters and digits, with single dots, dashes or underscores
// between them. Errors: [ErrInvalidName].
func CheckProjectName(name string) error {
	if len(name) > maxName || !projectName.MatchString(name) {
		return fmt.Errorf("%w: project %q must be lower-case letters and digits, joined by single dots, dashes or underscores, at most %d",
			ErrInvalidName, shorten(name), maxName)
	}
	return nil
}

// CheckRepositoryName returns nil if Harbor can have a repository of that
// name in project; the name is without the project and may have slashes.
// Errors: [ErrInvalidName].
func CheckRepositoryName(project, name string) error {
	if err := CheckProjectName(project); err != nil {
		return err
	}
	if len(project)+1+len(name) > maxName || !repositoryName.MatchString(name) {
		return fmt.Errorf("%w: repository %q must be lower-case letters and digits, joined by dots, dashes or underscores, with slashes between the parts, at most %d with its project",
			ErrInvalidName, shorten(name), maxName)
	}
	return nil
}

// SplitRepository splits "project/repository" at its first slash, and checks
// both names. Errors: [ErrInvalidName].
func SplitRepository(path string) (project, repository string, err error) {
	project, repository, _ = strings.Cut(path, "/")
	return project, repository, CheckRepositoryName(project, repository)
}

func shorten(s string) string {
	if len(s) > 2*maxName {
		return s[:maxName] + "…"
	}
	return s
}

const apiRoot = "/api/v2.0"

func projectPath(project string) string { return apiRoot + "/projects/" + url.PathEscape(project) }

// repositoryPath escapes the slashes of a repository's name twice: Harbor's
// front proxy takes one escaping off.
func repositoryPath(project, repository string) string {
	return projectPath(project) + "/repositories/" + url.PathEscape(url.PathEscape(repository))
}
