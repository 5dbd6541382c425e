package main

import (
	"errors"
	"testing"
	"time"

	"ferry/bundle"
	"ferry/internal/transfer"
)

func TestEstimateText(t *testing.T) {
	m := transfer.Measured{ReadRate: 100 << 20, WriteRate: 20 << 20, Latency: 1500 * time.Microsecond}
	for _, test := range []struct {
		m    transfer.Measured
		e    transfer.Estimate
		want string
	}{
		{m, transfer.Estimate{Least: time.Minute, Most: 2 * time.Minute}, "1m00s to 2m00s (measured: reads 100 MiB/s, writes 20.0 MiB/s, a request takes 1.5 ms)"},
		{m, transfer.Estimate{Least: 100 * time.Second, Most: 120 * time.Second}, "about 2m00s (measured: reads 100 MiB/s, writes 20.0 MiB/s, a request takes 1.5 ms)"},
		{transfer.Measured{ReadRate: 1 << 20}, transfer.Estimate{Least: time.Hour}, "at least 1h00m (measured: reads 1.0 MiB/s)"},
	} {
		e := estimatePlan{ReadRate: test.m.ReadRate, WriteRate: test.m.WriteRate, Measured: test.m, Estimate: test.e}
		if got := e.String(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.e, got, test.want)
		}
	}
}

// What fits, and what can not be told, goes on.
func TestCheckRoom(t *testing.T) {
	for _, room := range []*bundle.Room{nil, {Space: bundle.Space{Free: 10}, Needed: 10}, {Space: bundle.Space{Free: -1}, Needed: 10}} {
		if err := checkRoom("there", room); err != nil {
			t.Errorf("%+v: %v", room, err)
		}
	}
	err := checkRoom("usb/n/1", &bundle.Room{Space: bundle.Space{Folder: "/media/usb", Free: 2048}, Needed: 5000})
	const want = "usb/n/1: no space left: 5000 bytes (4.9 KiB) are needed, 2048 (2.0 KiB) are free on the file system of /media/usb"
	if err == nil || err.Error() != want || !errors.Is(err, bundle.ErrNoSpace) || exitCode(t.Context(), err) != exitNoSpace {
		t.Errorf("%v, want %s", err, want)
	}
	const hint = "make room for 2952 more bytes (2.9 KiB) there, or choose a place on a larger file system; nothing was written, and what was there is as it was"
	if got := hintFor(err, exitNoSpace); got != hint { // of any command, so without a flag of one
		t.Errorf("hint %q, want %q", got, hint)
	}
}
