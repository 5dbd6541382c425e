package main

import (
	"context"
	"strings"

	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/transport"
)

// enginePart copies the workload from registry to registry with ferry's
// engine, as the verb that will do so would.
func enginePart(ctx context.Context, args []string) error {
	a, err := parseFloor("engine-copy", args)
	if err != nil {
		return err
	}
	h, err := transport.New(transport.Options{})
	if err != nil {
		return err
	}
	defer h.CloseIdleConnections()
	client := registry.New(registry.Options{HTTP: h})
	var requests []transfer.Request
	for _, m := range a.plan.Manifests {
		if m.Tag == "" {
			continue
		}
		source := strings.Join([]string{a.from, m.Repository}, "/") + ":" + m.Tag
		ref, err := registry.ParseReference(source)
		if err != nil {
			return err
		}
		requests = append(requests, transfer.Request{Reference: ref, Source: source})
	}
	selection, err := transfer.Resolve(ctx, client, requests, nil, a.jobs)
	if err != nil {
		return err
	}
	deliveries, err := selection.Deliveries(transfer.Destination{Host: a.to})
	if err != nil {
		return err
	}
	src, o := selection.Source(client), transfer.PushOptions{Jobs: a.jobs, Progress: transfer.Silent{}}
	plan, err := transfer.PlanPush(ctx, client, src, deliveries, o)
	if err != nil {
		return err
	}
	_, err = transfer.Push(ctx, client, src, plan, o)
	return err
}
