package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// columns are the head of both tables, that of the terminal and that of the
// page.
var columns = []string{"contender", "wall s", "min–max", "CPU s", "servers s", "requests", "peak MiB", "disk MiB", "× floor", "× tool"}

// cells returns a summary as it stands in the tables.
func (s summary) cells() []string {
	return []string{s.Contender, fmt.Sprintf("%.2f", s.Seconds), fmt.Sprintf("%.2f–%.2f", s.MinSeconds, s.MaxSeconds),
		fmt.Sprintf("%.2f", s.CPUSeconds), fmt.Sprintf("%.2f", s.ServerSeconds), fmt.Sprint(s.Requests), mebibytes(s.PeakMemory), mebibytes(s.DiskBytes),
		times(s.ToFloor), times(s.ToTool)}
}

func mebibytes(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint((n + 1<<19) >> 20)
}

func times(r float64) string {
	if r == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r)
}

// rows returns the summaries of an operation.
func (r results) rows(operation string) []summary {
	var list []summary
	for _, s := range r.Summary {
		if s.Operation == operation {
			list = append(list, s)
		}
	}
	return list
}

// writeTable prints everything for people.
func writeTable(w io.Writer, r results) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(t, "%s\t", c)
		}
		fmt.Fprintln(t)
	}
	for _, fact := range r.facts() {
		fmt.Fprintf(w, "%s: %s\n", fact[0], fact[1])
	}
	for _, op := range operations() {
		rows := r.rows(op.name)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(t, "\n%s (%s)\n", op.title, op.name)
		line(columns)
		for _, s := range rows {
			line(s.cells())
		}
	}
	fmt.Fprintln(t)
	line([]string{"what must hold", "measured", "at most", ""})
	for _, v := range r.Rules {
		line([]string{v.Rule, times(v.Value), times(v.Limit), v.State})
	}
	return t.Flush()
}

// writeFiles writes what the flags ask for.
func writeFiles(o options, r results) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var failures []error
	for _, f := range []struct {
		name    string
		content []byte
	}{{o.json, append(data, '\n')}, {o.svg, []byte(picture(r))}, {o.markdown, []byte(page(r))}} {
		if f.name != "" {
			failures = append(failures, os.WriteFile(f.name, f.content, 0o644))
		}
	}
	return errors.Join(failures...)
}
