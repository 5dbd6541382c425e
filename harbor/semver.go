package harbor

import (
	"cmp"
	"regexp"
	"strings"
)

// version is a tag read as a semantic version.
type version struct {
	core       [3]string // major, minor, patch: digits without leading zeros
	prerelease []string
}

// versionTag is more generous than Semantic Versioning 2.0.0, as tags are: a
// "v" may stand before it; minor and patch may be missing, and are 0 then;
// numbers may have leading zeros, as in 2026.01; and "_" stands for "+", which
// no tag can have. Four numbers are no version.
var versionTag = regexp.MustCompile(`^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:_[0-9A-Za-z._-]+)?$`)

// maxLoneNumber is how many digits a major version has at most that stands
// alone: 20261121 or 4711815 is a date, a build or a commit.
const maxLoneNumber = 6

// parseVersion reports whether tag is a version, and which.
func parseVersion(tag string) (v version, ok bool) {
	m := versionTag.FindStringSubmatch(tag)
	if m == nil || m[2] == "" && len(m[1]) > maxLoneNumber {
		return v, false
	}
	for i := range v.core {
		v.core[i] = strings.TrimLeft(m[i+1], "0")
	}
	if m[4] != "" {
		v.prerelease = strings.Split(m[4], ".")
	}
	return v, true
}

// compareVersions orders by precedence as Semantic Versioning 2.0.0, section
// 11, has it.
func compareVersions(a, b version) int {
	for i := range a.core {
		if c := compareNumbers(a.core[i], b.core[i]); c != 0 {
			return c
		}
	}
	switch {
	case len(a.prerelease) == 0 || len(b.prerelease) == 0:
		return cmp.Compare(len(b.prerelease), len(a.prerelease)) // a release comes after its previews
	}
	for i := range min(len(a.prerelease), len(b.prerelease)) {
		if c := compareIdentifiers(a.prerelease[i], b.prerelease[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a.prerelease), len(b.prerelease))
}

// compareNumbers compares digits without leading zeros, however many.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func compareIdentifiers(a, b string) int {
	an, bn := strings.Trim(a, "0123456789") == "", strings.Trim(b, "0123456789") == ""
	switch {
	case an && bn:
		return compareNumbers(strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0"))
	case an:
		return -1 // numbers come before words
	case bn:
		return 1
	}
	return strings.Compare(a, b)
}
