package harbor

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"testing"

	"ferry/internal/harbortest"
)

// The quota of a project, as its members may read it. Recordings 10 and 11.
func TestQuota(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.AddProject("full", false, 1000)
	s.AddProject("free", false, -1)
	s.AddUser("dev", "Devpass123")
	s.SetRole(t, "full", "dev", harbortest.RoleDeveloper)
	s.AddRobot("robot$full+ci", "x", "full", "repository:push", "repository:pull")
	s.AddRobot("robot$full+reader", "x", "full", "repository:pull", "project:read", "quota:read")
	s.AddRobot("robot$full+half", "x", "full", "repository:pull", "project:read")
	s.push("full/app", "content", "1")
	admin := s.admin()
	q, err := admin.Quota(ctx, "full")
	if err != nil || q.Limit != 1000 || q.Used < 500 || q.Used > 900 || q.Room() != 1000-q.Used {
		t.Errorf("Quota = %+v, %v", q, err)
	}
	if q, err := admin.Quota(ctx, "free"); err != nil || q.Limit != -1 || q.Room() != math.MaxInt64 {
		t.Errorf("without a limit: %+v, %v", q, err)
	}
	for user, want := range map[string]error{"dev": nil, "robot$full+reader": nil, "robot$full+ci": ErrForbidden} {
		password := "x"
		if user == "dev" {
			password = "Devpass123"
		}
		if got, err := s.client(user, password).Quota(ctx, "full"); !errors.Is(err, want) || want == nil && got != q {
			t.Errorf("%s: %+v, %v, want %+v, %v", user, got, err, q, want)
		}
	}
	// Who may read the project but not the quota is told nothing of it, which
	// is not that there is no limit.
	if q, err := s.client("robot$full+half", "x").Quota(ctx, "full"); err != nil || q.Known {
		t.Errorf("without quota:read: %+v, %v", q, err)
	}
	if _, err := admin.Quota(ctx, "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such project: %v", err)
	}
	// A limit below what is used leaves no room, not less than none.
	if room := (Quota{Limit: 10, Used: 30}).Room(); room != 0 {
		t.Errorf("room = %d", room)
	}
}

// A project whose name is a number is not the one with that id. NOTES 9.
func TestQuotaOfNumber(t *testing.T) {
	s := newSite(t)
	s.AddProject("1", false, 77)
	if q, err := s.admin().Quota(t.Context(), "1"); err != nil || q.Limit != 77 {
		t.Errorf("Quota = %+v, %v", q, err)
	}
}

func TestQuotaAnswers(t *testing.T) {
	for body, want := range map[string]Quota{
		`{"repo_count":0}`: {Limit: -1},
		`{"quota":{"hard":{"storage":-1},"used":{"storage":5}}}`:                    {Limit: -1, Used: 5, Known: true},
		`{"quota":{"hard":{"storage":9223372036854775807},"used":{"storage":5}}}`:   {Limit: math.MaxInt64, Used: 5, Known: true},
		`{"quota":{"hard":{"storage":7,"count":3},"used":{"storage":5,"count":1}}}`: {Limit: 7, Used: 5, Known: true},
	} {
		c := answering(t, http.StatusOK, body)
		if q, err := c.Quota(t.Context(), "p"); err != nil || q != want {
			t.Errorf("%s: %+v, %v", body, q, err)
		}
	}
	for _, body := range []string{`{"quota":{"hard":{"storage":1},"used":{"storage":-5}}}`, `{"quota":{"hard":{"storage":1},"used":{"storage":"5"}}}`, `[]`} {
		if q, err := answering(t, http.StatusOK, body).Quota(t.Context(), "p"); err == nil {
			t.Errorf("%s: %+v", body, q)
		}
	}
}

// What projects get that are created without a quota. Recording 01.
func TestDefaultQuota(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	s.AddUser("dev", "Devpass123")
	if q, err := s.admin().DefaultQuota(ctx); err != nil || !q.Known || q.Limit != -1 {
		t.Errorf("%+v, %v", q, err)
	}
	s.Admin(t, http.MethodPut, "/api/v2.0/configurations", map[string]any{"storage_per_project": 4321})
	if q, err := s.admin().DefaultQuota(ctx); err != nil || !q.Known || q.Limit != 4321 {
		t.Errorf("%+v, %v", q, err)
	}
	if err := s.admin().CreateProject(ctx, "new", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if q, err := s.admin().Quota(ctx, "new"); err != nil || q.Limit != 4321 {
		t.Errorf("of a new project: %+v, %v", q, err)
	}
	if _, err := s.client("dev", "Devpass123").DefaultQuota(ctx); !errors.Is(err, ErrForbidden) {
		t.Errorf("who is no administrator: %v", err)
	}
	if q, err := answering(t, http.StatusOK, `{"quota_per_project_enable":{"value":false},"storage_per_project":{"value":5}}`).DefaultQuota(ctx); err != nil || q.Limit != -1 || !q.Known {
		t.Errorf("switched off: %+v, %v", q, err)
	}
}

// Robots are told apart from users, and administrators from others. NOTES 1.
func TestAccount(t *testing.T) {
	s := newSite(t)
	s.AddUser("dev", "Devpass123")
	s.AddRobot("robot$ci", "x", "*", "repository:pull")
	for _, c := range []struct {
		user, password string
		want           Account
		err            error
	}{
		{harbortest.AdminName, harbortest.AdminPassword, Account{Admin: true}, nil},
		{"dev", "Devpass123", Account{}, nil},
		{"robot$ci", "x", Account{Robot: true}, nil},
		{"robot$ci", "wrong", Account{}, ErrUnauthorized},
	} {
		if got, err := s.client(c.user, c.password).Account(t.Context()); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v, want %+v, %v", c.user, got, err, c.want, c.err)
		}
	}
}

func answering(t *testing.T, status int, body string) *Client {
	t.Helper()
	s := newSite(t)
	s.Misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if !json.Valid([]byte(body)) {
			t.Errorf("%s is no JSON", body)
		}
		_, _ = w.Write([]byte(body))
	})
	return s.admin()
}
