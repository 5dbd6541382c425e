package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestSendPart sends parts in the middle and at the end of a file: net/http
// asks for more after the part, and must not get it.
func TestSendPart(t *testing.T) {
	content := newMaterial(nil, nil).make(256 << 10).data
	name := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	client := newHTTPClient(1)
	defer client.CloseIdleConnections()
	for _, part := range [][2]int64{{0, 1}, {0, 100 << 10}, {5, 200 << 10}, {100 << 10, 156 << 10}, {0, 256 << 10}} {
		body, err := openPart(name, part[0], part[1])
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest(http.MethodPut, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = part[1]
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%v: %v", part, err)
		}
		resp.Body.Close()
		if want := content[part[0] : part[0]+part[1]]; string(got) != string(want) {
			t.Errorf("%v: %d other bytes came", part, len(got))
		}
	}
}
