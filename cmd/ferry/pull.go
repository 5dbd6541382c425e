package main

import (
	"context"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/layout"
	"ferry/internal/lists"
	"ferry/internal/oci"
	"ferry/internal/registry"
	"ferry/internal/transfer"
	"ferry/internal/ui"
	"ferry/verify"
)

type pullOptions struct {
	newest    latestRule
	given     string // a flag of newest, if there was one
	platforms []string
}

func newPullCommand(a *app) *cobra.Command {
	var o pullOptions
	var single bool
	cmd := &cobra.Command{
		Use:   "pull REF [DEST]",
		Short: "Pull an image with its signatures into an OCI image layout",
		Long: `Pull an image or artifact, with signatures and other referrers, into DEST: a
folder, which becomes an OCI image layout, or a .tar, which becomes an OCI
archive. Into a folder that is a layout already, what is missing is added.
Without DEST it is the folder REPO-TAG.

With the tag @latest, as in harbor.site.local/project/repo:@latest, it is the
tag that ferry latest chooses, pulled by its digest: what is pulled is what was
chosen, even when the tag moves meanwhile.`,
		Example: `  ferry pull harbor.site.local/project/repo:v1 ./repo-v1
  ferry pull harbor.site.local/project/repo:v1 repo-v1.tar --platform linux/amd64
  ferry pull harbor.site.local/project/repo:@latest --by semver --match 'v1.*'`,
		Args: wantArgs(1, 2, "a reference and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if single {
				a.Say("--single-manifest-repo is not needed: an image is pulled with all that belongs to it")
			}
			o.given = o.newest.given(cmd.Flags())
			return a.pull(cmd.Context(), args[0], argument(args, 1), o)
		},
	}
	f := cmd.Flags()
	listVar(f, &o.platforms, "platform", "take only this `OS/ARCH` (repeatable; default all)")
	f.BoolVar(&single, "single-manifest-repo", false, "accepted for those who are used to it; changes nothing")
	o.newest.addFlags(f, "push-time, semver or created", "with :@latest, ")
	return cmd
}

// pulledResult is what pull prints as JSON.
type pulledResult struct {
	savedResult
	Size      int64 `json:"size"`      // bytes of all blobs, those that were there too
	Referrers int   `json:"referrers"` // signatures and the like
}

func (a *app) pull(ctx context.Context, ref, dest string, o pullOptions) error {
	var chosen []oci.Platform
	for _, s := range o.platforms {
		p, err := transfer.ParsePlatform(s)
		if err != nil {
			return usageError{err}
		}
		chosen = append(chosen, p)
	}
	request, err := a.pullRequest(ctx, ref, o.newest, o.given)
	if err != nil {
		return err
	}
	src, item, err := transfer.Fetch(ctx, a.registry(), request, chosen)
	if err != nil {
		return err
	}
	archive := strings.HasSuffix(dest, ".tar")
	if dest = strings.TrimPrefix(dest, "oci:"); dest == "" {
		dest = folderFor(request.Reference)
	}
	plan, room, err := planSave(ctx, src, []transfer.Item{item}, dest, archive)
	if err != nil {
		return err
	}
	if err := checkRoom(dest, room); err != nil {
		return err
	}
	sink, err := newLayout(dest, archive)
	if err != nil {
		return err
	}
	defer sink.Close()
	done, err := a.save(ctx, "pulling", plan, sink, dest)
	if err != nil {
		return err
	}
	if n := len(item.Referrers); n > 0 {
		a.Say("pulled with it: %s (signatures and the like)", count(n, "referrer"))
	}
	return a.pulled(request.Reference, dest, item, done)
}

// pulled answers what was pulled.
func (a *app) pulled(ref registry.Reference, dest string, item transfer.Item, done transfer.Totals) error {
	name := ref.Repo().String()
	result := pulledResult{savedResult{Location: dest, Blobs: done.Items, Bytes: done.Bytes, SkippedBlobs: done.SkippedItems,
		Images: []savedImage{{name, item.Root.Digest.String(), item.Tags}}}, done.Bytes + done.SkippedBytes, len(item.Referrers)}
	return a.Result(result, func(w io.Writer) error {
		if len(item.Tags) > 0 {
			name += ":" + strings.Join(item.Tags, ",")
		}
		return ui.Table(w, [][]string{{name, item.Root.Digest.String(), ui.Bytes(result.Size), dest}})
	})
}

// newLayout makes or opens a folder that is an image layout, or makes an
// archive of one.
func newLayout(dest string, archive bool) (layoutSink, error) {
	if archive {
		return layout.NewArchive(dest)
	}
	return layout.NewFolder(dest)
}

type layoutSink interface {
	transfer.Sink
	io.Closer
}

// atLatest stands for the tag that ferry latest chooses. No tag can be
// "@latest", so it is never one.
const atLatest = ":@latest"

// pullRequest returns what a reference asks for. One that ends in :@latest
// becomes the tag and the digest that the rule chooses; given is a flag of the
// rule that was given, which is for nothing else.
func (a *app) pullRequest(ctx context.Context, ref string, newest latestRule, given string) (transfer.Request, error) {
	name, ok := strings.CutSuffix(trimScheme(ref), atLatest)
	if !ok {
		if given != "" {
			return transfer.Request{}, usagef("%s is for references that end in %s, and %q does not", given, atLatest, ref)
		}
		request, err := newRequest(lists.Entry{Source: ref})
		if err != nil {
			return request, usageError{err}
		}
		return request, nil
	}
	if newest.by == byBundle {
		return transfer.Request{}, usagef("--by bundle is for ferry latest: it does not say what the registry has")
	}
	rule, err := newest.rule()
	if err != nil {
		return transfer.Request{}, err
	}
	repo, err := parseHosted(name)
	if err != nil {
		return transfer.Request{}, err
	}
	latest, err := a.latestByRule(ctx, repo, rule)
	if err != nil {
		return transfer.Request{}, err
	}
	a.tellLatest(latest)
	exact := repo.Tag(latest.Tag)
	if exact.Digest, err = verify.ParseDigest(latest.Digest); err != nil {
		return transfer.Request{}, err
	}
	return transfer.Request{Reference: exact, Source: exact.String()}, nil
}

// folderFor returns the name of a folder for what a reference names: the last
// element of its repository, and its tag or the beginning of its digest.
func folderFor(ref registry.Reference) string {
	which := ref.Tag
	if which == "" {
		which = ref.Digest.Hex()[:12]
	}
	return path.Base(ref.Repository) + "-" + which
}

// argument returns the argument at i, or "" when there are not so many.
func argument(args []string, i int) string {
	if i >= len(args) {
		return ""
	}
	return args[i]
}
