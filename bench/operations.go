package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
)

// targetKind says what registry a trial writes to.
type targetKind int

const (
	noTarget targetKind = iota
	emptyTarget
	fullTarget
)

// operation is one thing to do that several contenders can.
type operation struct {
	name, title string
	target      targetKind
	contenders  []contender
	// check verifies the result of a trial; first is set the first time
	// that a contender did the operation.
	check func(ctx context.Context, l *lab, c contender, t trial, first bool) error
}

var (
	curlProgram   = inPath("curl", "sha256sum")
	skopeoProgram = inPath("skopeo")
	craneProgram  = inTools("crane")
	regctlProgram = inTools("regctl")
)

// operations returns all operations with all their contenders, in the order
// in which they are measured.
func operations() []operation {
	return []operation{
		{name: "export", title: "Export to a local volume", check: checkExport, contenders: []contender{
			{name: "ferry", kind: kindFerry, program: always, commands: func(l *lab, t trial) []command { return ferryExport(l, t.out) }},
			{name: "floor", kind: kindFloor, program: always, commands: func(l *lab, t trial) []command {
				return []command{l.floor("floor-export", "-from", l.source.host, "-file", filepath.Join(t.out, floorFile))}
			}},
			{name: "skopeo", kind: kindTool, program: skopeoProgram, commands: skopeoExport},
			{name: "crane", kind: kindTool, program: craneProgram, commands: craneExport},
			{name: "regctl", kind: kindTool, program: regctlProgram, commands: regctlExport},
			{name: "limit-curl", kind: kindLimit, program: curlProgram, commands: curlAndHash},
			{name: "limit-cp", kind: kindLimit, program: inPath("cp"), input: "floor", commands: copyFile},
		}},
		{name: "import", title: "Import into an empty registry", target: emptyTarget, check: checkTarget, contenders: slices.Concat(
			importers(), []contender{
				{name: "floor", kind: kindFloor, program: always, input: "floor", commands: floorImport(true)},
				{name: "floor-nohash", kind: kindFloor, program: always, input: "floor", commands: floorImport(false)},
			})},
		{name: "again", title: "Import again", target: fullTarget, check: checkTarget, contenders: slices.Concat(
			importers(), []contender{{name: "floor", kind: kindFloor, program: always, commands: floorAgain}})},
		{name: "copy", title: "Registry to registry, empty", target: emptyTarget, check: checkTarget, contenders: slices.Concat(
			copiers(), []contender{{name: "floor", kind: kindFloor, program: always, commands: func(l *lab, t trial) []command {
				return []command{l.floor("floor-copy", "-from", l.source.host, "-to", t.target)}
			}}})},
		{name: "copy-again", title: "Registry to registry, full", target: fullTarget, check: checkTarget, contenders: slices.Concat(
			copiers(), []contender{{name: "floor", kind: kindFloor, program: always, commands: floorAgain}})},
		{name: "s3-export", title: "Export into S3", check: checkBucket, contenders: []contender{
			{name: "ferry", kind: kindFerry, program: always, commands: func(l *lab, t trial) []command {
				return ferryExport(l, "s3://"+s3Bucket+"/"+t.prefix)
			}},
			{name: "floor", kind: kindFloor, program: always, commands: func(l *lab, t trial) []command {
				return []command{l.floor("floor-bucket", "-from", l.source.host, "-key", t.prefix+"/"+floorFile)}
			}},
		}},
		{name: "s3-import", title: "S3 to an empty registry", target: emptyTarget, check: checkTarget, contenders: []contender{
			{name: "ferry", kind: kindFerry, program: always, input: "bucket", commands: func(l *lab, t trial) []command {
				return ferryImport(l, bundleIn("s3://"+s3Bucket+"/"+t.input), t.target)
			}},
			{name: "get+skopeo", kind: kindTool, program: skopeoProgram, input: "skopeo", commands: afterGet(skopeoImport)},
			{name: "get+crane", kind: kindTool, program: craneProgram, input: "crane", commands: afterGet(craneImport)},
			{name: "get+regctl", kind: kindTool, program: regctlProgram, input: "regctl", commands: afterGet(regctlImport)},
		}},
	}
}

// importers push the local result of each tool. "ferry" is as users run it,
// "ferry-hash" hashes itself; for a ferry that always does, there is only the
// second.
func importers() []contender {
	return []contender{
		{name: "ferry", kind: kindFerry, program: knowsHash, input: "ferry", commands: func(l *lab, t trial) []command {
			return ferryImport(l, bundleIn(t.input), t.target)
		}},
		{name: "ferry-hash", kind: kindFerry, program: always, input: "ferry", commands: func(l *lab, t trial) []command {
			return ferryImport(l, bundleIn(t.input), t.target, hashAlways(l)...)
		}},
		{name: "skopeo", kind: kindTool, program: skopeoProgram, input: "skopeo", commands: skopeoImport},
		{name: "crane", kind: kindTool, program: craneProgram, input: "crane", commands: craneImport},
		{name: "regctl", kind: kindTool, program: regctlProgram, input: "regctl", commands: regctlImport},
	}
}

// copiers copy from registry to registry.
func copiers() []contender {
	return []contender{
		{name: "ferry", kind: kindFerry, program: always, commands: func(l *lab, t trial) []command {
			return []command{l.floor("engine-copy", "-from", l.source.host, "-to", t.target)}
		}},
		{name: "skopeo", kind: kindTool, program: skopeoProgram, commands: skopeoCopy},
		{name: "skopeo-sync", kind: kindTool, program: skopeoProgram, commands: skopeoSync},
		{name: "crane", kind: kindTool, program: craneProgram, commands: craneCopy},
		{name: "regctl", kind: kindTool, program: regctlProgram, commands: regctlCopy},
	}
}

// exporters make the local results that others read, by what input names.
var exporters = map[string]func(l *lab, t trial) []command{
	"ferry":  func(l *lab, t trial) []command { return ferryExport(l, t.out) },
	"bucket": func(l *lab, t trial) []command { return ferryExport(l, "s3://"+s3Bucket+"/"+t.prefix) },
	"skopeo": skopeoExport,
	"crane":  craneInput,
	"regctl": regctlExport,
	"floor": func(l *lab, t trial) []command {
		return []command{l.floor("floor-export", "-from", l.source.host, "-file", filepath.Join(t.out, floorFile))}
	},
}

func floorImport(hash bool) func(l *lab, t trial) []command {
	return func(l *lab, t trial) []command {
		flag := "-hash=true"
		if !hash {
			flag = "-hash=false"
		}
		return []command{l.floor("floor-import", "-to", t.target, "-file", filepath.Join(t.input, floorFile), flag)}
	}
}

func floorAgain(l *lab, t trial) []command {
	return []command{l.floor("floor-again", "-to", t.target)}
}

// afterGet copies the volumes out of the bucket first, and then pushes the
// tool's own local result, which is the same content: that spares the tool
// the work to unpack the volume.
func afterGet(push func(*lab, trial) []command) func(*lab, trial) []command {
	return func(l *lab, t trial) []command {
		return append([]command{l.getVolumes(t.out)}, push(l, t)...)
	}
}

func operationNames() []string {
	var names []string
	for _, o := range operations() {
		names = append(names, o.name)
	}
	return names
}

// families returns what contenders can be chosen by.
func families() []string {
	var names []string
	for _, o := range operations() {
		for _, c := range o.contenders {
			if f := family(c.name); !slices.Contains(names, f) {
				names = append(names, f)
			}
		}
	}
	return names
}

// family returns whose variant a contender is: floor of floor-nohash, skopeo
// of get+skopeo.
func family(contender string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(contender, "get+"), "-")
	return name
}
