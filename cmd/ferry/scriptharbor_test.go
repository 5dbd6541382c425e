package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// Commands of scripts about what a Harbor allows; see scriptCommands.
func init() {
	// report N COMMAND ARG…: the command ends with the exit code N, and
	// answers on stdout all the same, as ferry doctor does.
	scriptCommands["report"] = command(func(s *scripted, ts *testscript.TestScript, args []string) error {
		want, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		got := 0
		var exit *exec.ExitError
		if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			return err
		}
		stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
		if stdout == "" {
			err = errors.New("stdout has nothing")
		}
		// The report has the advice, so that stderr needs none.
		return errors.Join(err, s.checkTalk(0, stdout, ""), s.checkTalk(min(want, exitError), "", stderr), checkCode(got, want))
	})
	// policy KIND …: change the rules of the script's Harbor:
	//
	//	policy cache PROJECT           it mirrors another registry
	//	policy retain PROJECT PATTERN  it deletes tags that do not fit
	//	policy readonly true|false
	//	policy creation everyone|adminonly
	//	policy user NAME PASSWORD [PROJECT ROLE]
	scriptCommands["policy"] = command((*scripted).setPolicy)
	// project NAME public=BOOL quota=BYTES: the script's Harbor has that
	// project, with a quota of -1 for none.
	scriptCommands["project"] = command(func(s *scripted, _ *testscript.TestScript, args []string) error {
		var project struct{ Metadata struct{ Public string } }
		var summary struct {
			Quota struct{ Hard struct{ Storage int64 } }
		}
		for target, doc := range map[string]any{"": &project, "/summary": &summary} {
			r := s.harbor.Admin(s, http.MethodGet, "/api/v2.0/projects/"+args[0]+target, nil, "X-Is-Resource-Name", "true")
			err := json.NewDecoder(r.Body).Decode(doc)
			if r.Body.Close(); err != nil {
				return err
			}
		}
		for i, got := range []string{"public=" + project.Metadata.Public, fmt.Sprintf("quota=%d", summary.Quota.Hard.Storage)} {
			if got != args[1+i] {
				return fmt.Errorf("project %s has %s, want %s", args[0], got, args[1+i])
			}
		}
		return nil
	})
}

func (s *scripted) setPolicy(_ *testscript.TestScript, args []string) error {
	set := func(method, target string, doc any) { s.harbor.Admin(s, method, target, doc).Body.Close() }
	switch args[0] {
	case "cache":
		s.harbor.AddProxyCache(args[1])
	case "retain":
		var project struct {
			ID int64 `json:"project_id"`
		}
		r := s.harbor.Admin(s, http.MethodGet, "/api/v2.0/projects/"+args[1], nil)
		err := json.NewDecoder(r.Body).Decode(&project)
		if r.Body.Close(); err != nil {
			return err
		}
		set(http.MethodPost, "/api/v2.0/retentions", map[string]any{
			"algorithm": "or", "scope": map[string]any{"level": "project", "ref": project.ID},
			"trigger": map[string]any{"kind": "Schedule", "settings": map[string]string{"cron": "0 0 0 * * *"}},
			"rules": []any{map[string]any{"action": "retain", "template": "always", "params": map[string]any{},
				"tag_selectors":   []any{map[string]string{"kind": "doublestar", "decoration": "matches", "pattern": args[2]}},
				"scope_selectors": map[string]any{"repository": []any{map[string]string{"kind": "doublestar", "decoration": "repoMatches", "pattern": "**"}}}}},
		})
	case "readonly":
		set(http.MethodPut, "/api/v2.0/configurations", map[string]bool{"read_only": args[1] == "true"})
	case "creation":
		set(http.MethodPut, "/api/v2.0/configurations", map[string]string{"project_creation_restriction": args[1]})
	case "user":
		s.harbor.AddUser(args[1], args[2])
		if len(args) > 4 {
			role, err := strconv.Atoi(args[4])
			if err != nil {
				return err
			}
			s.harbor.SetRole(s, args[3], args[1], role)
		}
	default:
		return fmt.Errorf("unknown policy %q", args[0])
	}
	return nil
}
