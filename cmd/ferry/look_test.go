package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"ferry/bundle"
)

// A bundle.json that cannot be read is told, and the list goes on.
func TestListUnreadable(t *testing.T) {
	var talk strings.Builder
	a := newApp(process{stdout: io.Discard, stderr: &talk})
	gone := bundle.NewDir(t.TempDir())
	if state, err := a.stateOf(t.Context(), gone, nil); state != "unreadable" || err != nil || !strings.Contains(talk.String(), "warning: ") {
		t.Errorf("%q, %v, said %q", state, err, &talk)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if state, err := a.stateOf(ctx, gone, nil); state != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %q, %v", state, err)
	}
}
