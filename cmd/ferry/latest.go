package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ferry/harbor"
	"ferry/internal/registry"
	"ferry/internal/ui"
)

func newLatestCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "latest REPO",
		Short: "Print the newest tag of a Harbor repository, and why",
		Long: `Print the tag of REPO, host/project/repo, that was pushed or moved last.
Harbor's own sorting goes by when a digest first came, which is wrong after a
tag was moved back; ferry reads all pages and compares the times of the tags.
Signature, attestation and SBOM tags are left out. The reason goes to stderr.`,
		Example: `  ferry latest harbor.site.local/project/repo
  ferry pull harbor.site.local/project/repo:$(ferry latest harbor.site.local/project/repo) ./repo`,
		Args: wantArgs(1, 1, "a repository"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.latest(cmd.Context(), args[0]) },
	}
}

func (a *app) latest(ctx context.Context, location string) error {
	repo, err := parseRepository(location)
	if err != nil {
		return err
	}
	artifacts, err := a.artifacts(ctx, a.registry(), repo)
	if errors.Is(err, harbor.ErrNotHarbor) {
		return fmt.Errorf("%s has no times of pushes, so no tag is known to be the latest: %w", repo.Host, err)
	}
	if err != nil {
		return err
	}
	choice, err := harbor.Latest(artifacts, harbor.LatestRule{})
	if err != nil {
		return fmt.Errorf("%s: %w", repo, err)
	}
	a.Say("%s: %s", choice.Tag, choice.Reason)
	return a.Result(struct {
		Repository string    `json:"repository"`
		Tag        string    `json:"tag"`
		Digest     string    `json:"digest"`
		PushTime   time.Time `json:"pushTime"`
		Reason     string    `json:"reason"`
	}{repo.String(), choice.Tag, choice.Digest.String(), choice.PushTime, choice.Reason}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n", ui.Escape(choice.Tag))
		return err
	})
}

func parseRepository(location string) (registry.Repository, error) {
	repo, err := registry.ParseRepository(trimScheme(location))
	if err != nil {
		return repo, usagef("%q is not a repository, like host/project/repo: %w", location, err)
	}
	return repo, nil
}

// artifacts asks Harbor for all artifacts of a repository.
func (a *app) artifacts(ctx context.Context, client *registry.Client, repo registry.Repository) ([]harbor.Artifact, error) {
	project, name, err := harbor.SplitRepository(repo.Path)
	if err != nil {
		return nil, usageError{err}
	}
	h, err := a.harbor(ctx, client, repo)
	if err != nil {
		return nil, err
	}
	if err := h.Ping(ctx); err != nil {
		return nil, err
	}
	return h.Artifacts(ctx, project, name)
}

func newTagsCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "tags REPO",
		Short: "List the tags of a repository, the newest first",
		Long: `List the tags of REPO, host/project/repo. From a Harbor they come with digests
and push times, the newest first; from another registry by name only. Signature,
attestation and SBOM tags are left out unless --all is given.`,
		Example: `  ferry tags harbor.site.local/project/repo
  ferry tags harbor.site.local/project/repo --all --format json`,
		Args: wantArgs(1, 1, "a repository"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.tags(cmd.Context(), args[0], all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "list signature, attestation and SBOM tags too")
	return cmd
}

type listedTag struct {
	Tag      string     `json:"tag"`
	Digest   string     `json:"digest,omitempty"`
	PushTime *time.Time `json:"pushTime,omitempty"`
}

func (a *app) tags(ctx context.Context, location string, all bool) error {
	repo, err := parseRepository(location)
	if err != nil {
		return err
	}
	client := a.registry()
	var list []listedTag
	artifacts, err := a.artifacts(ctx, client, repo)
	switch {
	case errors.Is(err, harbor.ErrNotHarbor):
		a.Say("%s is not a Harbor: listing the tags by name, without times", repo.Host)
		names, err := client.Tags(ctx, repo)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			list = append(list, listedTag{Tag: n})
		}
	case err != nil:
		return err
	default:
		for _, t := range harbor.Tags(artifacts) {
			list = append(list, listedTag{t.Tag.Name, t.Artifact.Digest.String(), &t.Tag.PushTime})
		}
	}
	if !all {
		list = slices.DeleteFunc(list, func(t listedTag) bool { return harbor.IsSignatureTag(t.Tag) })
	}
	return a.Result(struct {
		Repository string      `json:"repository"`
		Tags       []listedTag `json:"tags"`
	}{repo.String(), append([]listedTag{}, list...)}, func(w io.Writer) error {
		var rows [][]string
		for _, t := range list {
			row := []string{t.Tag}
			if t.PushTime != nil {
				row = append(row, t.Digest, t.PushTime.UTC().Format(time.RFC3339), a.age(*t.PushTime))
			}
			rows = append(rows, row)
		}
		return ui.Table(w, rows)
	})
}
