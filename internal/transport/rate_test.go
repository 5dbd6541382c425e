package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that goes on by waiting only.
type clock struct {
	mu      sync.Mutex
	at      time.Time
	waited  time.Duration
	longest time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pause(_ context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	c.waited += d
	c.longest = max(c.longest, d)
	return nil
}

// slow returns a Rate with a clock of its own.
func slow(perSecond int64) (*Rate, *clock) {
	r, c := NewRate(perSecond), &clock{at: time.Unix(1e9, 0)}
	r.now, r.pause = c.now, c.pause
	return r, c
}

// Bodies of requests and responses wait as long as their bytes need at the
// rate, but for one burst, however often they are sent.
func TestRate(t *testing.T) {
	const sent, received = 300_000, 500_000
	tests := []struct {
		name     string
		rate     int64
		status   []int // of the answers; the last for all further ones
		bytes    int64 // that go over the wire
		attempts int
	}{
		{"lowest", MinRate, []int{200}, sent + received, 1},
		{"lower than the lowest", 1, []int{200}, sent + received, 1},
		{"faster", 4e6, []int{200}, sent + received, 1},
		{"sent three times", 1 << 20, []int{503, 429, 200}, 3*sent + received, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, body := 0, bytes.Repeat([]byte("ferry"), sent/5)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes came, %v", len(got), err)
				}
				status := tt.status[min(n, len(tt.status)-1)]
				n++
				w.WriteHeader(status)
				if status == 200 {
					w.Write(make([]byte, received))
				}
			})
			r, c := slow(tt.rate)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL, bytes.NewReader(body))
			resp, err := client(t, Options{Rate: r}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || len(got) != received {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			want := time.Duration(float64(tt.bytes-int64(r.burst())) / float64(r.perSecond) * float64(time.Second))
			if d := c.waited - want; d < -time.Millisecond || d > time.Millisecond || n != tt.attempts {
				t.Errorf("%d attempts waited %s, want %d and %s", n, c.waited, tt.attempts, want)
			}
			if most := time.Second / 10; c.longest > most {
				t.Errorf("one wait was %s, more than %s", c.longest, most)
			}
		})
	}
}

// Each host has the whole rate, which all clients share.
func TestRateTakes(t *testing.T) {
	r := NewRate(1 << 20)
	for n, want := range map[int64]time.Duration{0: 0, 1: 0, 1 << 16: 0, 1<<20 + 1<<16: time.Second, 60<<20 + 1<<16: time.Minute} {
		if got := r.Takes(n); got != want {
			t.Errorf("%d bytes take %s, want %s", n, got, want)
		}
	}
}

func TestRateByHost(t *testing.T) {
	const size = 1 << 20
	handler := func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) }
	one, other := serve(t, handler), serve(t, handler)
	r, c := slow(size) // a second for each body, but for the burst
	clients := []*http.Client{client(t, Options{Rate: r}), client(t, Options{Rate: r})}
	burst := time.Second / 16
	for i, step := range []struct {
		from string
		want time.Duration // waited since the beginning
	}{
		{one.URL, time.Second - burst},
		{other.URL, 2 * (time.Second - burst)},
		{one.URL, 3 * (time.Second - burst)}, // the burst has come back meanwhile
	} {
		if _, body, err := get(t, clients[i%2], step.from); err != nil || len(body) != size {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
		if d := c.waited - step.want; d < -time.Millisecond || d > time.Millisecond {
			t.Errorf("after body %d: waited %s, want %s", i, c.waited, step.want)
		}
	}
}

// To wait for the rate is not to be idle: waits longer than Idle, in which less
// than a KiB comes, end neither a request's body nor a response's.
func TestRateIsNotIdle(t *testing.T) {
	const idle = 400 * time.Millisecond
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for range 3 {
			io.WriteString(w, "a little")
			w.(http.Flusher).Flush()
		}
	})
	r, c := slow(MinRate)
	var seen observations
	r.pause = func(ctx context.Context, d time.Duration) error {
		c.pause(ctx, d)
		return sleep(ctx, idle*3/2)
	}
	r.host(strings.TrimPrefix(s.URL, "http://")).ReserveN(c.now(), r.burst()) // so that every byte waits
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL, strings.NewReader("a little"))
	resp, err := client(t, Options{Rate: r, Idle: idle, Retries: -1, Observe: seen.note}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != strings.Repeat("a little", 3) || c.waited == 0 {
		t.Errorf("%q after %s, %v", body, c.waited, err)
	}
	if got := seen.outcomes(); len(got) != 1 || got[0] != Accepted {
		t.Errorf("the observer was told %v", got)
	}
}

// The context of the request ends a wait, and so does closing the body.
func TestRateEnds(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(make([]byte, 1<<20))
	})
	for _, how := range []string{"cancel while receiving", "cancel while sending", "close"} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, _ := slow(MinRate)
			waits := make(chan struct{}, 1)
			r.pause = func(ctx context.Context, _ time.Duration) error {
				select {
				case waits <- struct{}{}:
				default:
				}
				<-ctx.Done()
				return ctx.Err()
			}
			var body io.Reader
			if how == "cancel while sending" {
				body = bytes.NewReader(make([]byte, 1<<20))
				go func() { <-waits; cancel() }()
			}
			req, _ := http.NewRequestWithContext(ctx, http.MethodPut, s.URL, body)
			resp, err := client(t, Options{Rate: r}).Do(req)
			if err == nil {
				defer resp.Body.Close()
				go func() {
					<-waits
					if how == "close" {
						resp.Body.Close()
					} else {
						cancel()
					}
				}()
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Bodies that no rate bounds reach net/http as they are, so that it can send
// files without copying.
func TestNoRateNoWrapping(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate *Rate
		same bool
	}{{"no rate", nil, true}, {"rate", NewRate(MinRate), false}} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, Options{Rate: tt.rate})
			var sent io.ReadCloser
			c.Transport.(*retrier).strict.RegisterProtocol("http", roundTrip(func(r *http.Request) (*http.Response, error) {
				// net/http puts a struct around it that it takes off again.
				sent = reflect.ValueOf(r.Body).Elem().FieldByName("ReadCloser").Interface().(io.ReadCloser)
				r.Body.Close()
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}))
			body := io.NopCloser(strings.NewReader("x"))
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://host.invalid/", body)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if (sent == body) != tt.same {
				t.Errorf("the body arrived as %T", sent)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
