package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

const rootHelp = `ferry moves container images and other OCI content across an air gap.

Outside, it packs images into signed tar volumes, in a folder or an S3 bucket.
Inside, it verifies the signature without a network, pushes what is missing to
a registry such as Harbor, and extracts content to disk.`

const rootExample = `  # outside, once: a key pair; cosign.pub goes to the site
  ferry keygen

  # outside: images with their signatures, as one signed bundle
  ferry export nginx:1.27 ghcr.io/org/app:v2 /media/usb --name demo --version 1 --key cosign.key

  # inside: verify, then push what is missing
  ferry import /media/usb harbor.site.local/project --key cosign.pub --create-projects

  # inside: which tag is the newest, and what is in it
  ferry latest harbor.site.local/project/org/app
  ferry extract harbor.site.local/project/org/app:v2 ./app`

func newRootCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "ferry",
		Short:         "Move container images across an air gap",
		Long:          rootHelp + "\n\n" + exitCodesHelp,
		Example:       rootExample,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
		PersistentPreRunE: a.start,
	}
	cmd.SetIn(a.stdin)
	cmd.SetOut(a.stdout)
	cmd.SetErr(a.stderr)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.SetUsageTemplate(strings.ReplaceAll(cmd.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped 80 "))
	cmd.SetVersionTemplate("ferry {{.Version}}\n")
	a.addFlags(cmd)
	cmd.AddGroup(&cobra.Group{ID: "move", Title: "Moving:"}, &cobra.Group{ID: "look", Title: "Looking:"}, &cobra.Group{ID: "other", Title: "Other:"})
	cmd.SetHelpCommandGroupID("other")
	cmd.SetCompletionCommandGroupID("other")
	add := func(group string, subs ...*cobra.Command) {
		for _, sub := range subs {
			sub.GroupID = group
			cmd.AddCommand(sub)
		}
	}
	add("move", newExportCommand(a), newImportCommand(a), newCopyCommand(a), newPullCommand(a), newPushCommand(a), newExtractCommand(a),
		newLoadCommand(a), newSaveCommand(a), newCpCommand(a))
	add("look", newDoctorCommand(a), newListCommand(a), newVerifyCommand(a), newInspectCommand(a), newTreeCommand(a), newLatestCommand(a), newTagsCommand(a), newSiteCommand(a),
		newDiscoverCommand(a))
	add("other", newKeygenCommand(a), newTrustCommand(a), newVersionCommand(a))
	cmd.SuggestionsMinimumDistance = 2
	for flag, values := range map[string][]string{"progress": {"auto", "plain", "json", "none"}, "format": {"text", "json"}} {
		// It fails only for a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		err := fmt.Errorf("unknown command %q", args[0])
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(like, " or "))
		}
		return usageError{err}
	}
	return nil
}

// wantArgs returns a check that there are from low to high arguments; high -1
// means any number.
func wantArgs(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || high >= 0 && len(args) > high {
			return usagef("%s wants %s, got %d arguments", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// buildVersion is set by make release.
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which ferry this is",
		Args:  wantArgs(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.Result(v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "ferry %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				return err
			})
		},
	}
}
