package s3store

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ferry/bundle"
)

// Hurry makes the pauses between attempts a thousand times shorter.
func Hurry(s bundle.Store) {
	st := s.(*store)
	st.pause = time.Millisecond
	st.client = s3.New(st.client.Options(), func(o *s3.Options) {
		o.Retryer = hurried{o.Retryer}
	})
}

type hurried struct{ aws.Retryer }

func (h hurried) RetryDelay(attempt int, err error) (time.Duration, error) {
	pause, failed := h.Retryer.RetryDelay(attempt, err)
	return pause / 1000, failed
}

// NewRetryer is what decides over attempts.
func NewRetryer() aws.Retryer { return newRetryer() }

// PartSize returns the size in bytes of the parts of an object.
func PartSize(size int64) int64 { return partSize(size) }

// Peak returns the most bytes that the buffers of a store have ever had.
func Peak(s bundle.Store) int64 {
	m := s.(*store).memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peak
}

// InUse returns how many bytes are in buffers of parts.
func InUse(s bundle.Store) int64 {
	m := s.(*store).memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Settle waits until an upload has sent what is full.
func Settle(u bundle.Upload) { u.(*upload).sending.Wait() }

// Exposed reports whether content that goes to an endpoint is signed.
func Exposed(endpoint string) bool { return exposed(&endpoint) }

// Raw returns the client of a store, to look at what the store has done.
func Raw(s bundle.Store) *s3.Client { return s.(*store).client }

// Address returns the host and path that an object is asked for at.
func Address(t *testing.T, o Options, name string) (address string) {
	o.HTTP.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		address = r.URL.Host + r.URL.Path
		return nil, errors.New("seen enough")
	})
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	Hurry(s)
	s.Open(t.Context(), name)
	return address
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
