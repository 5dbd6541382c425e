package ui

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBytes(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {1, "1 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"},
		{102348, "99.9 KiB"}, {102400, "100 KiB"},
		{1<<20 - 1, "1.0 MiB"}, {1023 << 10, "1023 KiB"}, {1<<20 - 513, "1023 KiB"}, {1 << 20, "1.0 MiB"},
		{1503238553, "1.4 GiB"}, {4_700_000_000, "4.4 GiB"}, {1 << 40, "1.0 TiB"}, {1 << 50, "1.0 PiB"},
		{math.MaxInt64, "8.0 EiB"}, {-1536, "-1.5 KiB"}, {-5, "-5 B"}, {math.MinInt64, "-8.0 EiB"},
	} {
		if got := Bytes(c.n); got != c.want {
			t.Errorf("Bytes(%d) = %q, want %q", c.n, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "n")
		if got := Bytes(n); len(got) > 9 || strings.HasPrefix(got, "1024") {
			t.Fatalf("Bytes(%d) = %q", n, got)
		}
	})
}

func TestParseBytes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"1", 1}, {"512", 512}, {"512B", 512}, {"200GB", 200e9}, {"4.7GB", 4_700_000_000}, {"4.7gb", 4_700_000_000},
		{"8MiB", 8 << 20}, {"8 MiB", 8 << 20}, {"1.5kB", 1500}, {"0.5KiB", 512}, {"1TB", 1e12}, {"2TiB", 2 << 40},
		{"1pb", 1e15}, {"1PiB", 1 << 50}, {"007", 7}, {"1.0B", 1}, {"9223372036854775807", math.MaxInt64}, {"9223.372036854775807PB", math.MaxInt64},
	} {
		if got, err := ParseBytes(c.in); got != c.want || err != nil {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", c.in, got, err, c.want)
		}
	}
	for _, c := range []struct{ in, want string }{
		{"", "not a number"}, {"GB", "not a number"}, {"-1", "not a number"}, {"+1", "not a number"}, {"1e9", "not a number"},
		{".5GB", "not a number"}, {"5.GB", "not a number"}, {"1,5GB", "not a number"}, {"1_000", "not a number"}, {"0x10", "not a number"},
		{" 1", "not a number"}, {"1 ", "unknown"}, {"1  GB", "not a number"}, {"1GB\n", "not a number"}, {"٣GB", "not a number"},
		{strings.Repeat("9", 20), "not a number"}, {"1.5", "whole number"}, {"1.0001kB", "whole number"}, {"0.1KiB", "whole number"},
		{"9223372036854775808", "more than"}, {"10000PB", "more than"},
		{"4G", "write 4GB for powers of 1000, 4GiB for powers of 1024"}, {"4 m", "write 4MB"},
		{"4Mb/s", "not a number"}, {"4Mbit", `unknown unit "Mbit"`}, {"1EB", "unknown unit"}, {"3KMB", "unknown unit"},
	} {
		got, err := ParseBytes(c.in)
		if c.in == "1 " {
			// A space is for the unit, which may be empty.
			if got != 1 || err != nil {
				t.Errorf("ParseBytes(%q) = %d, %v", c.in, got, err)
			}
			continue
		}
		if err == nil || got != 0 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseBytes(%q) = %d, %v, want an error with %q", c.in, got, err, c.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0.0s"}, {0, "0.0s"}, {350 * time.Millisecond, "0.4s"}, {349 * time.Millisecond, "0.3s"}, {9940 * time.Millisecond, "9.9s"},
		{9960 * time.Millisecond, "10s"}, {31 * time.Second, "31s"}, {59499 * time.Millisecond, "59s"}, {59500 * time.Millisecond, "1m00s"},
		{123 * time.Second, "2m03s"}, {3599 * time.Second, "59m59s"}, {3600 * time.Second, "1h00m"},
		{25*time.Hour + 59*time.Minute, "1d01h"}, {76 * time.Hour, "3d04h"},
	} {
		if got := Duration(c.d); got != c.want {
			t.Errorf("Duration(%v) = %q, want %q", c.d, got, c.want)
		}
	}
}
