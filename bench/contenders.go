package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// kind says what a contender is compared as.
type kind string

const (
	kindFerry kind = "ferry"
	kindTool  kind = "tool"  // another tool, which rules compare ferry with
	kindFloor kind = "floor" // the least that has to be done
	kindLimit kind = "limit" // shown, and no part of a rule
)

// contender is one way to do an operation. To add one, add a line to a table
// in operations.go.
type contender struct {
	name string
	kind kind
	// commands returns what is measured.
	commands func(l *lab, t trial) []command
	// input names whose local result the trial reads, or nothing.
	input string
	// program is what must be installed; without it the contender is left
	// out, and the output says so.
	program func(l *lab) (name string, ok bool)
}

// trial is where one measurement happens.
type trial struct {
	out    string // a folder that is not there yet, for the local result
	target string // host of the target registry
	input  string // folder with the contender's local result
	prefix string // new, in the bucket
}

// always is for contenders that are part of this program.
func always(*lab) (string, bool) { return "", true }

// inTools looks for a program that "make tools" installs.
func inTools(name string) func(*lab) (string, bool) {
	return func(l *lab) (string, bool) {
		_, err := os.Stat(l.tool(name))
		return name, err == nil
	}
}

// inPath looks for programs of the system.
func inPath(names ...string) func(*lab) (string, bool) {
	return func(*lab) (string, bool) {
		for _, name := range names {
			if _, err := exec.LookPath(name); err != nil {
				return name, false
			}
		}
		return strings.Join(names, " "), true
	}
}

// forEach returns a command for each image: a tool that takes one image at a
// time is run once for each, in the order of the workload.
func (l *lab) forEach(make func(reference, name string) command) []command {
	var list []command
	for _, m := range l.plan.images() {
		reference := m.Repository + ":" + m.Tag
		list = append(list, make(reference, strings.NewReplacer("/", "-", ":", "-").Replace(reference)))
	}
	return list
}

// sources returns the references of all images in the source.
func (l *lab) sources() []string {
	var list []string
	for _, m := range l.plan.images() {
		list = append(list, fmt.Sprintf("%s/%s:%s", l.source.host, m.Repository, m.Tag))
	}
	return list
}

// --- ferry ---

const bundleName, bundleVersion = "bench", "1"

func ferryExport(l *lab, destination string) []command {
	return []command{slices.Concat(
		command{l.ferry, "export"}, l.sources(), command{destination, "--name", bundleName, "--version", bundleVersion,
			"--key", l.secretKey, "--progress", "none", "--jobs", fmt.Sprint(l.jobs)})}
}

func ferryImport(l *lab, source, target string, more ...string) []command {
	return []command{append(command{l.ferry, "import", source, target,
		"--key", l.publicKey, "--progress", "none", "--jobs", fmt.Sprint(l.jobs)}, more...)}
}

func bundleIn(place string) string { return place + "/" + bundleName + "/" + bundleVersion }

// hashAlways returns the flag that makes ferry hash what it sends. A ferry
// that does not know the flag always does.
func hashAlways(l *lab) []string {
	if l.ferryHash {
		return []string{"--hash", "always"}
	}
	return nil
}

// knowsHash is for the contender that leaves the hash to the registry.
func knowsHash(l *lab) (string, bool) { return "ferry import --hash", l.ferryHash }

// hasFlag reports whether the help of a command describes a flag.
func hasFlag(help, flag string) bool {
	return slices.ContainsFunc(strings.Fields(help), func(word string) bool { return word == flag })
}

// --- skopeo ---

func skopeo(args ...string) command { return append(command{"skopeo", "--insecure-policy"}, args...) }

func skopeoExport(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return skopeo("copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false",
			"docker://"+l.source.host+"/"+reference, "oci:"+t.out+":"+name)
	})
}

func skopeoImport(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return skopeo("copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false",
			"oci:"+t.input+":"+name, "docker://"+t.target+"/"+reference)
	})
}

func skopeoCopy(l *lab, t trial) []command {
	return l.forEach(func(reference, _ string) command {
		return skopeo("copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
			"docker://"+l.source.host+"/"+reference, "docker://"+t.target+"/"+reference)
	})
}

// skopeoSync copies all images in one process, which reads what to copy from
// a file.
func skopeoSync(l *lab, t trial) []command {
	images := make(map[string][]string)
	for _, m := range l.plan.images() {
		images[m.Repository] = append(images[m.Repository], m.Tag)
	}
	list, err := json.Marshal(map[string]any{l.source.host: map[string]any{"images": images, "tls-verify": false}}) // is YAML
	file := filepath.Join(l.dir, "sync.yaml")
	if err := errors.Join(err, os.WriteFile(file, list, 0o600)); err != nil {
		l.say("%v", err) // skopeo will miss it
	}
	// What is copied keeps only the last element of its name.
	return []command{skopeo("sync", "--all", "--preserve-digests", "--dest-tls-verify=false", "--src", "yaml", "--dest", "docker",
		file, t.target+"/"+path.Dir(l.plan.images()[0].Repository))}
}

// --- crane ---

func craneExport(l *lab, t trial) []command {
	return []command{slices.Concat(command{l.tool("crane"), "pull", "--format=oci", "--annotate-ref"}, l.sources(), command{t.out})}
}

// craneInput pulls each image into a layout of its own, for crane can not push
// one out of several.
func craneInput(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return command{l.tool("crane"), "pull", "--format=oci", l.source.host + "/" + reference, filepath.Join(t.out, name)}
	})
}

func craneImport(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return command{l.tool("crane"), "push", filepath.Join(t.input, name), t.target + "/" + reference}
	})
}

func craneCopy(l *lab, t trial) []command {
	return l.forEach(func(reference, _ string) command {
		return command{l.tool("crane"), "copy", l.source.host + "/" + reference, t.target + "/" + reference}
	})
}

// --- regctl ---

func (l *lab) regctl(args ...string) command {
	return append(command{l.tool("regctl")}, args...)
}

// plainHTTP is the flag with which regctl reaches a host without TLS.
func plainHTTP(host string) string { return "--host=reg=" + host + ",tls=disabled" }

func regctlExport(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return l.regctl("image", "copy", plainHTTP(l.source.host), l.source.host+"/"+reference, "ocidir://"+t.out+":"+name)
	})
}

func regctlImport(l *lab, t trial) []command {
	return l.forEach(func(reference, name string) command {
		return l.regctl("image", "copy", plainHTTP(t.target), "ocidir://"+t.input+":"+name, t.target+"/"+reference)
	})
}

func regctlCopy(l *lab, t trial) []command {
	return l.forEach(func(reference, _ string) command {
		return l.regctl("image", "copy", plainHTTP(l.source.host), plainHTTP(t.target), l.source.host+"/"+reference, t.target+"/"+reference)
	})
}

// --- limits ---

// curlAndHash fetches every blob with one curl, and hashes all of them.
func curlAndHash(l *lab, t trial) []command {
	fetch := command{"curl", "-sSf", "--create-dirs"}
	hash := command{"sha256sum"}
	for i, b := range l.plan.Blobs {
		name := filepath.Join(t.out, fmt.Sprint(i))
		fetch = append(fetch, "-o", name, "http://"+l.source.host+"/v2/"+b.Repositories[0]+"/blobs/"+b.Digest)
		hash = append(hash, name)
	}
	return []command{fetch, hash}
}

func copyFile(_ *lab, t trial) []command {
	return []command{{"mkdir", t.out}, {"cp", filepath.Join(t.input, floorFile), t.out}}
}
