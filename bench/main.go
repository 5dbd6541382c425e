// Command bench measures ferry against the limit of this machine and against
// other tools, on the same work in the same run.
//
//	go run ./bench [-size 1GiB] [-rounds 5] [-only export,import] [-contenders ferry,floor]
//
// # Workload
//
// Images made of the files of this machine's Go: GOROOT and the module cache.
// Ten images on two shared bases, a multi-arch index, an image of thirty small
// layers, and a second version of each with 3% of its own files changed. It is
// the same each time as long as those files are. See [workload].
//
// # Operations
//
//	export       all images from a registry into one local volume or layout
//	import       the local result of each tool into an empty registry
//	again        the same import once more: everything is there
//	copy         from registry to registry, the target empty
//	copy-again   from registry to registry, everything is there
//	s3-export    all images from a registry into a bucket
//	s3-import    from the bucket into an empty registry; others first copy the
//	             volume to a file with a plain GET, then push the same content
//
// The servers are real: CNCF distribution twice, versitygw once, each its own
// process on the loopback interface. An empty target is a new process with a
// new folder at a new port, so that no tool remembers anything of it.
//
// # Contenders
//
// The floor is a process of this same program that does what cannot be left
// out, and nothing else: each blob is fetched, hashed and written once (import:
// read, hashed and sent once), as many at a time as -jobs says. The floor
// without hash sends from the file to the socket inside the kernel; "again" is
// one HEAD for each tag; into a bucket it sends parts of all blobs in a row,
// without a checksum, and has them joined. The limits are curl with sha256sum, and cp.
//
// Contenders of an operation alternate, and each round begins with another
// one. Wall, CPU and peak memory are those of the contender's processes, added
// up (memory: the largest); the servers' CPU is apart. Requests are those that
// the registries count. Every result is
// verified: the digest of each image, each blob's presence, and once for each
// contender all content.
//
// # Sources
//
// OCI Distribution 1.1.1, "Pulling blobs", "Pushing a blob monolithically";
// proc_pid_stat(5), getrusage(2).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 if every contender did what it must, whether
// or not it was fast.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return exitCode(ctx, part(ctx, args[1:]), stderr)
		}
	}
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	return exitCode(ctx, bench(ctx, o, stdout, stderr), stderr)
}

// parts are the processes that this program starts of itself.
var parts = map[string]func(ctx context.Context, args []string) error{
	"measure":      measurePart,
	"floor-export": floorExportPart,
	"floor-import": floorImportPart,
	"floor-again":  floorAgainPart,
	"floor-copy":   floorCopyPart,
	"floor-bucket": floorBucketPart,
	"engine-copy":  enginePart,
	"get":          getPart,
}

func exitCode(ctx context.Context, err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "bench: interrupted")
		return 130
	default:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
}
