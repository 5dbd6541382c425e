package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/preflight"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
)

type doctorOptions struct {
	deliveryFlags
	bundle string
	trust  trustFlags
	maps   []string
}

func newDoctorCommand(a *app) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor DEST",
		Short: "Tell whether a push to a registry will go through",
		Long: `Look at DEST, host, host/project or host/project/repo, without writing anything:
does it answer, is its certificate valid, is the login accepted, is Harbor in
read-only mode, are the projects there and writable? With --bundle also: is
there room for what is missing, may the tags be written, will a retention
policy delete them? A bundle that an import would not trust is refused here,
too.

The exit code is that of the first error; warnings are none. ferry import and
ferry push look at the same before they write.`,
		Example: `  ferry doctor harbor.site.local/project
  ferry doctor harbor.site.local --bundle /media/usb --key cosign.pub --create-projects
  ferry doctor harbor.site.local --bundle s3://in/platform/2026.11 --key cosign.pub --format json`,
		Args: wantArgs(1, 1, "a destination"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.doctor(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.bundle, "bundle", "", "`SOURCE` of a bundle that is to be imported")
	o.trust.addAccepting(f, "public key of the exporter, such as cosign.pub")
	listVar(f, &o.maps, "map", "`PATH=PATH`: replace the beginning of image paths, as for import (repeatable)")
	o.add(f)
	return cmd
}

func (a *app) doctor(ctx context.Context, dest string, o doctorOptions) error {
	to, err := destination(dest, o.maps)
	if err != nil {
		return err
	}
	options, err := o.options(a, to.Host)
	if err != nil {
		return err
	}
	var looked *preflight.Destination
	project, _, hasRepository := strings.Cut(to.Prefix, "/")
	if o.bundle == "" {
		if o.trust.given() || o.trust.override.reason != "" || len(o.maps) > 0 {
			return usagef("--key, --policy, --override-sequence and --map are for --bundle")
		}
		var at []registry.Repository
		switch {
		case hasRepository:
			at = append(at, registry.Repository{Host: to.Host, Path: to.Prefix})
		case project != "":
			options.Projects = append(options.Projects, project)
		}
		looked = preflight.Look(ctx, at, options)
	} else if looked, err = a.doctorBundle(ctx, to, options, o); err != nil {
		return err
	}
	advise(ctx, &looked.Report)
	err = a.Result(struct {
		Destination string            `json:"destination"`
		Level       preflight.Level   `json:"level"` // the worst
		Checks      []preflight.Check `json:"checks"`
	}{dest, looked.Worst(), looked.Checks}, func(w io.Writer) error { return writeFindings(w, &looked.Report) })
	if err != nil {
		return err
	}
	return looked.Err()
}

// doctorBundle looks at a destination against what is missing there of a
// bundle.
func (a *app) doctorBundle(ctx context.Context, to transfer.Destination, options preflight.Options, o doctorOptions) (*preflight.Destination, error) {
	r, err := a.openBundle(ctx, o.bundle, o.trust)
	if err != nil {
		return nil, err
	}
	if _, err := a.verifyBundleImages(ctx, r); err != nil {
		return nil, err
	}
	deliveries, assumed, err := transfer.Deliveries(r, to)
	if err != nil {
		return nil, err
	}
	looked := preflight.Look(ctx, repositories(deliveries), options)
	if looked.Err() != nil {
		return looked, nil
	}
	push := transfer.PushOptions{Jobs: a.flags.jobs, Assumed: assumed, Absent: looked.Absent}
	plan, err := transfer.PlanPush(ctx, options.Registry, transfer.BundleSource(r), deliveries, push)
	if err != nil {
		looked.NoPlan(to.Host, err)
		return looked, nil
	}
	a.tellPush(plan)
	looked.CheckPlan(ctx, plan)
	return looked, nil
}

func writeFindings(w io.Writer, r *preflight.Report) error {
	rows := [][]string{{"CHECK", "RESULT", "ABOUT", "FOUND"}}
	for _, c := range r.Checks {
		rows = append(rows, []string{c.Name, string(c.Level), c.About, c.Found})
		if c.Advice != "" {
			rows = append(rows, []string{"", "", "", "-> " + c.Advice})
		}
	}
	return ui.Table(w, rows)
}
