package s3store_test

import (
	"context"
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
	"ferry/s3store"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStore returns a store under a prefix in the server's bucket.
func newStore(t *testing.T, server *storetest.S3, prefix string) bundle.Store {
	t.Helper()
	s, err := s3store.New(t.Context(), s3store.Options{Bucket: server.Bucket, Prefix: prefix, HTTP: storetest.Client(t)})
	if err != nil {
		t.Fatal(err)
	}
	s3store.Hurry(s)
	return s
}

// TestS3 runs the suite of all stores against a real server.
func TestS3(t *testing.T) {
	server := storetest.StartS3(t)
	storetest.Run(t, func(t *testing.T) bundle.Store { return newStore(t, server, t.Name()+"/deep") })
}

var _ = context.Background
