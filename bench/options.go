package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// options are the flags.
type options struct {
	size       int64    // bytes of unique compressed layers, at least
	rounds     int      // measurements of each contender in each operation
	jobs       int      // blobs under way at once, of ferry and the floors
	only       []string // names of operations; empty means all
	contenders []string // families of contenders; empty means all
	ferry      string   // path of the ferry to measure; empty builds one
	tools      string   // folder of the servers and tools
	temp       string   // where the temporary folder is made; empty is the system's
	sync       bool     // wait for the disk before each measurement
	json       string   // files to write; empty writes none
	svg        string
	markdown   string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{size: 1 << 30}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("size", "at least `SIZE` of unique compressed layers, like 64MiB (default 1GiB)", func(s string) (err error) {
		o.size, err = parseSize(s)
		return err
	})
	flags.IntVar(&o.rounds, "rounds", 5, "measure each contender `N` times")
	flags.IntVar(&o.jobs, "jobs", 4, "`N` blobs at once, for ferry and the floors")
	list := func(name, usage string, known []string, to *[]string) {
		flags.Func(name, usage+": "+strings.Join(known, ", ")+" (default all)", func(s string) error {
			for name := range strings.SplitSeq(s, ",") {
				if !slices.Contains(known, name) {
					return fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
				}
				*to = append(*to, name)
			}
			return nil
		})
	}
	list("only", "measure only these `OPERATIONS`", operationNames(), &o.only)
	list("contenders", "measure only these `CONTENDERS`", families(), &o.contenders)
	flags.StringVar(&o.ferry, "ferry", "", "measure this `PROGRAM` (default: build ./cmd/ferry)")
	flags.StringVar(&o.tools, "tools", ".tools/bin", "`FOLDER` of registry, versitygw, crane and regctl")
	flags.StringVar(&o.temp, "temp", "", "make the temporary folder in `FOLDER` (default the system's)")
	flags.BoolVar(&o.sync, "sync", true, "wait before each measurement until all that was written before is on the disk")
	flags.StringVar(&o.json, "json", "", "write every measurement to `FILE`")
	flags.StringVar(&o.svg, "svg", "", "write a picture to `FILE`")
	flags.StringVar(&o.markdown, "md", "", "write a page to `FILE`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1 || o.jobs < 1:
		return o, fmt.Errorf("-rounds and -jobs are at least 1")
	}
	return o, nil
}

// chosen reports whether name is in list, or all are.
func chosen(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, name)
}

// parseSize reads a size in bytes, with KiB, MiB or GiB behind it or nothing.
func parseSize(s string) (int64, error) {
	number, unit := s, int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = n, factor
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > 1<<50/unit {
		return 0, fmt.Errorf("%q is no size (want a number and KiB, MiB or GiB)", s)
	}
	return n * unit, nil
}
