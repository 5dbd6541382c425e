package s3store

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"ferry/bundle"
)

// Hurry makes the pauses between attempts short, unless Retry-After asks for
// longer ones.
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

// Buffers returns how many buffers an upload has ever had at once: it uses
// those again that are free.
func Buffers(u bundle.Upload) int {
	up := u.(*upload)
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.allocated
}
