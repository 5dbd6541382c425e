package s3store

import (
	"fmt"
	"testing"

	"ferry/internal/storetest"
)

// Requests are those that the server sees.
func TestRequests(t *testing.T) {
	server := storetest.StartS3(t)
	s, err := New(t.Context(), Options{Bucket: server.Bucket, Prefix: "count", HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, defaultPart, defaultPart + 1, 3*defaultPart + 5} {
		server.Proxy.Reset()
		u := storetest.Create(t, s, "object", int64(size))
		if err := u.WriteAt(t.Context(), make([]byte, size), 0); err != nil {
			t.Fatal(err)
		}
		if err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := len(server.Proxy.Requests("")), s.(*store).Requests(int64(size)); got != want {
			var seen []string
			for _, r := range server.Proxy.Requests("") {
				seen = append(seen, fmt.Sprintf("%s %s?%s: %d", r.Method, r.Path, r.Query.Encode(), r.Status))
			}
			t.Errorf("%d bytes: %d requests, want %d: %q", size, got, want, seen)
		}
	}
}
