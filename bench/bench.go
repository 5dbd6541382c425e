package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// measurement is one contender that did one operation once.
type measurement struct {
	Operation string `json:"operation"`
	Contender string `json:"contender"`
	Kind      kind   `json:"kind"`
	Round     int    `json:"round"` // from 1
	usage
	ServerSeconds float64 `json:"serverSeconds"` // CPU of the servers meanwhile
	Requests      int     `json:"requests"`      // that the registries answered
	DiskBytes     int64   `json:"diskBytes"`     // of the local result
}

// results is all that a run found out.
type results struct {
	Date         string        `json:"date"` // RFC 3339
	Machine      machine       `json:"machine"`
	Workload     workloadFacts `json:"workload"`
	Rounds       int           `json:"rounds"`
	Jobs         int           `json:"jobs"`
	Missing      []string      `json:"missing"` // programs that are not installed
	Measurements []measurement `json:"measurements"`
	Summary      []summary     `json:"summary"`
	Rules        []verdict     `json:"rules"`
}

type workloadFacts struct {
	Images int   `json:"images"` // tags
	Blobs  int   `json:"blobs"`
	Bytes  int64 `json:"bytes"` // of unique blobs
	materialFacts
}

// bench does everything, and removes it.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	l, err := openLab(ctx, o, stderr)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	r := results{
		Date: time.Now().UTC().Format(time.RFC3339), Machine: l.look(ctx), Rounds: o.rounds, Jobs: o.jobs,
		Workload: workloadFacts{len(l.plan.images()), len(l.plan.Blobs), l.plan.bytes(), l.made},
	}
	var failures []error
	for _, op := range operations() {
		if chosen(o.only, op.name) {
			failures = append(failures, l.rounds(ctx, op, &r))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r.Summary = summarize(r.Measurements)
	r.Rules = judge(r)
	failures = append(failures, writeTable(stdout, r), writeFiles(o, r))
	return errors.Join(failures...)
}

// rounds measures all contenders of an operation, in turn. One that fails is
// not asked again; the others go on.
func (l *lab) rounds(ctx context.Context, op operation, r *results) error {
	var failures []error
	list := l.contendersOf(op, r)
	for round := range l.options.rounds {
		for i := range list {
			c := list[(i+round)%len(list)]
			if c.commands == nil { // has failed
				continue
			}
			m, err := l.trial(ctx, op, c, round)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				err = fmt.Errorf("%s by %s: %w", op.name, c.name, err)
				l.say("%v", err)
				failures = append(failures, err)
				list[(i+round)%len(list)].commands = nil
				continue
			}
			l.say("%-10s %-13s round %d: %7.2f s, CPU %7.2f s, servers %7.2f s, %4d MiB, %4d requests", op.name, c.name, round+1,
				m.Seconds, m.UserSeconds+m.SysSeconds, m.ServerSeconds, m.PeakMemory>>20, m.Requests)
			r.Measurements = append(r.Measurements, m)
		}
	}
	return errors.Join(failures...)
}

// contendersOf returns those that are chosen and installed.
func (l *lab) contendersOf(op operation, r *results) []contender {
	var list []contender
	for _, c := range op.contenders {
		if !chosen(l.contenders, family(c.name)) {
			continue
		}
		if name, ok := c.program(l); !ok {
			if !slices.Contains(r.Missing, name) {
				r.Missing = append(r.Missing, name)
				l.say("left out, because this machine does not have it: %s", name)
			}
			continue
		}
		list = append(list, c)
	}
	return list
}

// trial measures one contender once, and verifies what it did.
func (l *lab) trial(ctx context.Context, op operation, c contender, round int) (m measurement, err error) {
	t, target, err := l.prepare(ctx, op, c)
	if err != nil {
		return m, err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(t.out), os.RemoveAll(filepath.Join(l.s3.folder, t.prefix)))
		if op.target == emptyTarget {
			err = errors.Join(err, target.remove())
		}
	}()
	if l.sync {
		settle()
	}
	commands := c.commands(l, t)
	requests, err := l.requests(ctx, target)
	if err != nil {
		return m, err
	}
	cpu := l.serverCPU(target)
	u, err := l.measure(ctx, commands)
	if err != nil {
		return m, err
	}
	m = measurement{Operation: op.name, Contender: c.name, Kind: c.kind, Round: round + 1, usage: u,
		ServerSeconds: (l.serverCPU(target) - cpu).Seconds(), DiskBytes: bytesBelow(t.out)}
	after, err := l.requests(ctx, target)
	if err != nil {
		return m, err
	}
	m.Requests = after - requests
	return m, op.check(ctx, l, c, t, round == 0)
}

// prepare makes what a trial needs. The target is nil for an operation that
// has none.
func (l *lab) prepare(ctx context.Context, op operation, c contender) (trial, *server, error) {
	t := trial{out: l.newFolder("out"), prefix: fmt.Sprintf("trial-%d", l.count)}
	var err error
	if c.input != "" {
		if t.input, err = l.inputOf(ctx, c.input); err != nil {
			return t, nil, err
		}
	}
	var target *server
	switch op.target {
	case emptyTarget:
		target, err = startRegistry(ctx, l.tool("registry"), l.newFolder("target"))
	case fullTarget:
		target, err = l.fullTarget(ctx)
	}
	if target != nil {
		t.target = target.host
	}
	return t, target, err
}

// inputOf returns the folder with the local result of a tool, or its prefix in
// the bucket, and makes it the first time.
func (l *lab) inputOf(ctx context.Context, name string) (string, error) {
	if place, ok := l.inputs[name]; ok {
		return place, nil
	}
	t := trial{out: l.newFolder("input-" + name), prefix: "input"}
	if _, err := l.measure(ctx, exporters[name](l, t)); err != nil {
		return "", fmt.Errorf("what is to be imported: %w", err)
	}
	l.inputs[name] = t.out
	if name == "bucket" {
		l.inputs[name] = t.prefix
	}
	return l.inputs[name], nil
}

// serverCPU returns the CPU time of all servers that a trial may use.
func (l *lab) serverCPU(target *server) time.Duration {
	return l.source.cpu() + l.s3.cpu() + target.cpu()
}

// requests returns how many requests the registries have answered so far.
func (l *lab) requests(ctx context.Context, target *server) (int, error) {
	source, err := l.source.requests(ctx)
	if err != nil {
		return 0, err
	}
	n, err := target.requests(ctx)
	return source + n, err
}
