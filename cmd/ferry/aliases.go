package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ferry/bundle"
	"ferry/internal/lists"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

// Names by which other tools know what ferry does. They are not in the list of
// commands; ferry help NAME and docs/cli.md have them.

// newLoadCommand is push by the name of docker load.
func newLoadCommand(a *app) *cobra.Command {
	cmd := newPushCommand(a)
	cmd.Use, cmd.Hidden = "load FILE|FOLDER REF", true
	cmd.Short = "Push an archive to a registry, the same as ferry push"
	cmd.Long = `The same as ferry push: push the image in an archive to REF in a registry. Where
docker load fills the store of a daemon, ferry has none.`
	cmd.Example = `  ferry load oracle_db.tar harbor.site.local/project/oracle_db --allow-unsigned
  ferry load -i oracle_db.tar harbor.site.local/project/oracle_db --allow-unsigned`
	withFileFlag(cmd, "input", "i", "`FILE` to push, as docker load takes it", func(file string, args []string) []string {
		return append([]string{file}, args...)
	})
	return cmd
}

// newSaveCommand is pull by the name of docker save.
func newSaveCommand(a *app) *cobra.Command {
	cmd := newPullCommand(a)
	cmd.Use, cmd.Hidden = "save REF FILE.tar", true
	cmd.Short = "Pull an image into an OCI archive, the same as ferry pull"
	cmd.Long = `The same as ferry pull with a .tar: pull the image that REF names in a registry,
with its signatures, into an OCI archive. ferry pull also makes folders.`
	cmd.Example = `  ferry save harbor.site.local/project/repo:v1 repo-v1.tar
  ferry save -o repo-v1.tar harbor.site.local/project/repo:v1`
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file := args[1]; !strings.HasSuffix(file, ".tar") {
			return usagef("ferry save writes an archive, and %q does not end in .tar: ferry pull makes folders", file)
		}
		return run(cmd, args)
	}
	withFileFlag(cmd, "output", "o", "`FILE` to write, as docker save takes it", func(file string, args []string) []string {
		return append(args[:len(args):len(args)], file)
	})
	return cmd
}

// withFileFlag lets a flag stand for one of the two arguments of cmd; join
// puts it among the others.
func withFileFlag(cmd *cobra.Command, name, short, usage string, join func(file string, args []string) []string) {
	var file string
	cmd.Flags().StringVarP(&file, name, short, "", usage)
	want := wantArgs(2, 2, "a file and a reference")
	run := cmd.RunE
	all := func(args []string) []string {
		if file == "" {
			return args
		}
		return join(file, args)
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error { return want(cmd, all(args)) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd, all(args)) }
}

// newCpCommand is copy by the name of crane cp, but for bundles only.
func newCpCommand(a *app) *cobra.Command {
	cmd := newCopyCommand(a)
	cmd.Use, cmd.Hidden = "cp SOURCE DEST", true
	cmd.Short = "Copy a bundle from store to store, the same as ferry copy"
	cmd.Long = `The same as ferry copy: copy the bundle at SOURCE to DEST/NAME/VERSION, between
folders and buckets. It does not copy images from registry to registry, as crane
cp does. A folder whose name looks like a host is written ./name.`
	cmd.Example = `  ferry cp /media/usb s3://in/bundles --key cosign.pub`
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, to := inRegistry(args[0]), inRegistry(args[1])
		switch {
		case from && to:
			return usagef("ferry cp copies bundles, not images from registry to registry as crane cp does: ferry export %s and ferry import to %s do it by way of a bundle", args[0], args[1])
		case from:
			return usagef("ferry cp copies bundles, and %q looks like a reference: ferry pull and ferry export take it", args[0])
		case to:
			return usagef("ferry cp copies bundles to folders and buckets, and %q looks like a registry: ferry import goes there; a folder of that name is ./%s", args[1], args[1])
		}
		return run(cmd, args)
	}
	return cmd
}

// inRegistry reports whether a location can only be meant as one in a
// registry, when places for bundles are asked for.
func inRegistry(location string) bool {
	return !strings.HasPrefix(location, "s3://") && missing(location) && isRegistry(location)
}

func newDiscoverCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "discover REF",
		Short: "Show signatures, attestations and other referrers of an image",
		Long: `Show what refers to the image or artifact that REF names in a registry, and to
the images in it, as a tree: by the referrers API, by cosign's tags and by the
referrers tag. These travel with it in ferry pull and ferry export. Nothing is
verified.`,
		Example: `  ferry discover harbor.site.local/project/repo:v1
  ferry discover harbor.site.local/project/repo:v1 --format json | jq '.referrers[].artifactType'`,
		Args: wantArgs(1, 1, "a reference"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.discover(cmd.Context(), args[0]) },
	}
}

func (a *app) discover(ctx context.Context, ref string) error {
	request, err := newRequest(lists.Entry{Source: ref})
	if err != nil {
		return usageError{err}
	}
	_, item, err := transfer.Fetch(ctx, a.registry(), request, nil)
	if err != nil {
		return err
	}
	if len(item.Referrers) == 0 {
		a.Say("nothing refers to %s: no signature, no attestation", request.Reference)
	}
	return a.Result(struct {
		Reference string            `json:"reference"`
		Digest    string            `json:"digest"`
		MediaType string            `json:"mediaType"`
		Referrers []bundle.Referrer `json:"referrers"`
	}{request.Reference.String(), item.Root.Digest.String(), item.Root.MediaType, append([]bundle.Referrer{}, item.Referrers...)}, func(w io.Writer) error {
		return writeReferrers(w, request.Reference.String(), item)
	})
}

// writeReferrers writes the tree of what refers to an image: below each
// manifest what refers to it, and below an index the children that have some.
func writeReferrers(w io.Writer, name string, item transfer.Item) error {
	bySubject := map[verify.Digest][]bundle.Referrer{}
	inTree := map[verify.Digest]bool{item.Root.Digest: true}
	for _, r := range item.Referrers {
		bySubject[r.Subject] = append(bySubject[r.Subject], r)
		inTree[r.Digest] = true
	}
	var write func(subject verify.Digest, indent string)
	write = func(subject verify.Digest, indent string) {
		found := bySubject[subject]
		delete(bySubject, subject) // once, whatever refers to whatever
		for _, r := range found {
			kind := r.ArtifactType
			if kind == "" {
				kind = r.MediaType
			}
			line := fmt.Sprintf("%s%s  %s", indent, ui.Escape(kind), r.Digest)
			if r.Tag != "" {
				line += "  tag " + ui.Escape(shortTag(r.Tag))
			}
			fmt.Fprintln(w, line)
			write(r.Digest, indent+"  ")
		}
	}
	fmt.Fprintf(w, "%s  %s\n", ui.Escape(name), item.Root.Digest)
	write(item.Root.Digest, "  ")
	for _, r := range item.Referrers {
		if _, left := bySubject[r.Subject]; left && !inTree[r.Subject] {
			fmt.Fprintf(w, "  of its child  %s\n", r.Subject)
			write(r.Subject, "    ")
		}
	}
	return nil
}

// shortTag returns a tag that names a digest with as much of it as people
// compare.
func shortTag(tag string) string {
	if hex, ok := strings.CutPrefix(tag, "sha256-"); ok && len(hex) >= 64 {
		return "sha256-" + hex[:12] + "…" + hex[64:]
	}
	return tag
}
