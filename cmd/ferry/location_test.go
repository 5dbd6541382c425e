package main

import "testing"

func TestSplitLast(t *testing.T) {
	for _, tt := range []struct{ location, dir, name string }{
		{"s3://bucket/a/volume-001.tar", "s3://bucket/a", "volume-001.tar"},
		{"s3://bucket/volume-001.tar", "s3://bucket", "volume-001.tar"},
		{"s3://bucket.tar", "s3://bucket.tar", ""},
		{"s3://bucket.tar/", "s3://bucket.tar", ""},
		{"usb/volume-001.tar", "usb", "volume-001.tar"},
		{"volume-001.tar", ".", "volume-001.tar"},
		{"/volume-001.tar", "/", "volume-001.tar"},
	} {
		if dir, name := splitLast(tt.location); dir != tt.dir || name != tt.name {
			t.Errorf("splitLast(%q) = %q, %q, want %q, %q", tt.location, dir, name, tt.dir, tt.name)
		}
	}
}
