package transfer_test

import (
	"testing"

	"ferry/bundle"
	"ferry/internal/storetest"
)

func newS3(t *testing.T) bundle.Store { return &storetest.Mem{} }
