package lists

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	const list = "\ufeffubuntu:18.04 debian:buster\r\n\r\n# comment\njupyter/tensorflow-notebook # and this\n\tghcr.io/a/b@sha256:00\n a:1=mine/a:2"
	got, err := Read(strings.NewReader(list), "images.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{"ubuntu:18.04", "", "images.txt:1"},
		{"debian:buster", "", "images.txt:1"},
		{"jupyter/tensorflow-notebook", "", "images.txt:4"},
		{"ghcr.io/a/b@sha256:00", "", "images.txt:5"},
		{"a:1", "mine/a:2", "images.txt:6"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("Read = %q\nwant %q", got, want)
	}
}

func TestReadErrors(t *testing.T) {
	for _, tt := range []struct{ list, want string }{
		{"", "has no images"},
		{"# nothing\n\n", "has no images"},
		{"a\xff", "not UTF-8"},
		{strings.Repeat("a ", MaxList), "more than"},
	} {
		if _, err := Read(strings.NewReader(tt.list), "x"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Read(%.10q…) = %v, want %q", tt.list, err, tt.want)
		}
	}
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken), "x"); !errors.Is(err, broken) {
		t.Errorf("a broken list gives %v", err)
	}
}
