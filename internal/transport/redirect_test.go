package transport

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// T64
func TestRedirectHeaders(t *testing.T) {
	var got http.Header
	target := func(w http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }
	other := serve(t, target)
	secure := serveTLS(t, target)
	var next string
	front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/start":
			w.Header().Set("Location", next)
			w.WriteHeader(http.StatusTemporaryRedirect)
		default:
			target(w, r)
		}
	})
	back := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, front.URL+"/end", http.StatusFound) })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	c := client(t, Options{CAFiles: []string{ca}})
	tests := []struct {
		name, to string
		keeps    bool
	}{
		{"same origin", front.URL + "/end", true},
		{"relative", "/end", true},
		{"other port", other.URL, false},
		{"same address, other name", strings.Replace(front.URL, "127.0.0.1", "localhost", 1) + "/end", false},
		{"other scheme", secure.URL, false},
		{"away and back again", back.URL, false},
		{"with a user of its own", strings.Replace(other.URL, "http://", "http://evil:pw@", 1), false},
	}
	secrets := []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Amz-Security-Token", "X-Registry-Auth"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, next = nil, tt.to
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/start?token=canary", nil)
			for _, s := range secrets {
				req.Header.Set(s, "canary")
			}
			req.Header.Set("Range", "bytes=3-")
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got.Get("Range") != "bytes=3-" || got.Get("User-Agent") != "ferry" {
				t.Errorf("headers after the redirect: %v", got)
			}
			if got.Get("Referer") != "" {
				t.Errorf("Referer %q was sent", got.Get("Referer"))
			}
			for _, s := range secrets {
				if kept := got.Get(s) != ""; kept != tt.keeps {
					t.Errorf("%s kept: %v, want %v", s, kept, tt.keeps)
				}
			}
		})
	}
}

// T64
func TestDowngrade(t *testing.T) {
	var hits atomic.Int32
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1) })
	secure := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) })
	_, _, err := get(t, client(t, Options{Insecure: []string{"127.0.0.1"}}), secure.URL)
	if !errors.Is(err, ErrDowngrade) || hits.Load() != 0 {
		t.Errorf("error %v and %d requests, want ErrDowngrade and none", err, hits.Load())
	}
}

// T64
func TestRedirectCount(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		if n > 0 {
			http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusPermanentRedirect)
		}
	})
	c := client(t, Options{})
	if status, _, err := get(t, c, s.URL+"/5"); err != nil || status != 200 {
		t.Errorf("5 redirects: %d, %v", status, err)
	}
	if _, _, err := get(t, c, s.URL+"/6"); !errors.Is(err, ErrRedirects) {
		t.Errorf("6 redirects: %v, want ErrRedirects", err)
	}
}

// T64: nothing but GET and HEAD goes where a server sends it.
func TestNoRedirectOfWrites(t *testing.T) {
	var hits atomic.Int32
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(map[string]int{"/302": 302, "/307": 307, "/308": 308}[r.URL.Path])
	})
	c := client(t, Options{})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		for _, code := range []int{302, 307, 308} {
			req, _ := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("%s/%d", s.URL, code), strings.NewReader("x"))
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != code || hits.Load() != 0 {
				t.Errorf("%s %d: status %d, %d requests elsewhere", method, code, resp.StatusCode, hits.Load())
			}
		}
	}
}

func TestSameOrigin(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"https://h/x", "https://H:443/y?z", true},
		{"http://h", "http://h:80", true},
		{"https://h", "http://h", false},
		{"https://h:80", "http://h:80", false},
		{"https://h", "https://h:8443", false},
		{"https://h", "https://sub.h", false},
		{"https://h.", "https://h", false},
		{"http://[::1]:80", "http://[::1]", true},
	}
	for _, tt := range tests {
		a, _ := url.Parse(tt.a)
		b, _ := url.Parse(tt.b)
		if got := SameOrigin(a, b); got != tt.want {
			t.Errorf("SameOrigin(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}
