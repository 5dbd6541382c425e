package main

import (
	"fmt"
	"strings"
)

// page returns the results as a page of the documentation.
func page(r results) string {
	var b strings.Builder
	b.WriteString(`# Benchmarks

Written by ` + "`make bench`" + `: the same work by ferry, by other tools and by a floor, in one run on one machine. The
floor is a program that does what cannot be left out, and nothing else: it fetches, hashes and writes each blob once
(import: reads, hashes and sends). Times are medians; "× floor" and "× tool" compare with the floor and with the
fastest other tool. CPU is that of the contender's processes, "servers" that of the registries and the S3 server.

![wall times](benchmarks.svg)

`)
	for _, fact := range r.facts() {
		fmt.Fprintf(&b, "- %s: %s\n", fact[0], cell(fact[1]))
	}
	for _, op := range operations() {
		rows := r.rows(op.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", op.title)
		writeRow(&b, columns)
		writeRow(&b, strings.Split("---"+strings.Repeat(" ---:", len(columns)-1), " "))
		for _, s := range rows {
			writeRow(&b, s.cells())
		}
	}
	b.WriteString("\n## What must hold\n\n")
	writeRow(&b, []string{"rule", "measured", "at most", "state"})
	writeRow(&b, []string{"---", "---:", "---:", "---"})
	for _, v := range r.Rules {
		writeRow(&b, []string{v.Rule, times(v.Value), times(v.Limit), v.State})
	}
	b.WriteString(repeat)
	return b.String()
}

// repeat ends the page.
const repeat = `
## How to repeat this

    make bench ARGS='-json bench.json -svg docs/benchmarks.svg -md docs/benchmarks.md'

on a machine that does nothing else. It needs Go, curl, skopeo, and room for about ten times the workload in the
temporary folder (` + "`-temp`" + `). ` + "`-size 64MiB -rounds 1`" + ` is a quick look, ` + "`-help`" + ` shows the other flags.
The package comment of ` + "`bench/`" + ` says what is measured, and how.

- The workload is made of this machine's Go files: another machine has other bytes, and ratios compare better than times.
- skopeo, crane and regctl take one image at a time and are run once for each. crane's import reads one layout for each
  image, as it can not push one out of several.
- "get" is one plain GET of the volume to a file. The tool then pushes its own layout of the same content, which spares
  it unpacking the volume.

## What the figures do not show

- Everything goes over plain HTTP on one machine, whose cores the servers need too. Over TLS a client can not leave it to
  the kernel to send a file, and a real network hides what costs here.
- ferry waits until its volume is on the disk; the floor, cp and the other tools do not.
- An import of ferry asks for each blob before and after it was sent, pushes manifests by digest, reads them back, and
  writes tags last (threats.md, T30, T62). The floor does none of that: the registry's time for these requests is most of
  what is above it.
- In "import again" most of the time is that of starting a program and asking once for each tag: see the floor.
- What a bucket costs is the S3 server's work: see the floor of "Export into S3", which sends the same parts and no more.
`

func writeRow(b *strings.Builder, cells []string) {
	b.WriteString("|")
	for _, c := range cells {
		fmt.Fprintf(b, " %s |", cell(c))
	}
	b.WriteString("\n")
}

// cell returns text that can not end a cell of a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
