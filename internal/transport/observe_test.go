package transport

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// observations keeps what an observer is told.
type observations struct {
	mu   sync.Mutex
	list []observation
}

type observation struct {
	host    string
	outcome Outcome
}

func (o *observations) note(_ context.Context, host string, outcome Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, observation{host, outcome})
}

func (o *observations) outcomes() []Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []Outcome
	for _, x := range o.list {
		all = append(all, x.outcome)
	}
	return all
}

// T42: the observer is told of each attempt what it tells about the host.
func TestObserve(t *testing.T) {
	released := make(chan struct{})
	t.Cleanup(func() { close(released) }) // when all that is parallel has ended
	hang := func(r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-released:
		}
	}
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		want    []Outcome
	}{
		{"found", []http.HandlerFunc{answer(200)}, []Outcome{Accepted}},
		{"not found", []http.HandlerFunc{answer(404)}, []Outcome{Accepted}},
		{"login wanted", []http.HandlerFunc{answer(401)}, []Outcome{Accepted}},
		{"busy twice", []http.HandlerFunc{answer(503), answer(429), answer(200)}, []Outcome{Overloaded, Overloaded, Accepted}},
		{"broken", []http.HandlerFunc{answer(500), answer(502), answer(504), answer(200)}, []Outcome{Accepted}},
		{"reset", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { reset(w) }, answer(200)}, []Outcome{Accepted}},
		{"no headers", []http.HandlerFunc{func(_ http.ResponseWriter, r *http.Request) { hang(r) }, answer(200)}, []Outcome{TimedOut, Accepted}},
		{"half a body", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			hang(r)
		}}, []Outcome{Accepted, TimedOut}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			n := 0
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				handle := tt.answers[min(n, len(tt.answers)-1)]
				n++
				mu.Unlock()
				handle(w, r)
			})
			var seen observations
			get(t, client(t, Options{Idle: 3 * time.Second, Observe: seen.note}), s.URL)
			if got := seen.outcomes(); !slices.Equal(got, tt.want) {
				t.Errorf("told %v, want %v", got, tt.want)
			}
		})
	}
}

// What happens behind a redirect is told of the host that was asked.
func TestObserveRedirect(t *testing.T) {
	busy := true
	storage := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if busy {
			w.WriteHeader(503)
		}
		busy = false
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL, http.StatusTemporaryRedirect)
	})
	var seen observations
	if status, _, err := get(t, client(t, Options{Observe: seen.note}), s.URL); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	host := strings.TrimPrefix(s.URL, "http://")
	want := []observation{{host, Accepted}, {host, Overloaded}, {host, Accepted}}
	if !slices.Equal(seen.list, want) {
		t.Errorf("told %v, want %v", seen.list, want)
	}
}

// A request that its caller gives up says nothing of the host.
func TestObserveCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var seen observations
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if resp, err := client(t, Options{Observe: seen.note}).Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("it was answered")
	}
	if len(seen.list) > 0 {
		t.Errorf("told %v", seen.list)
	}
}
