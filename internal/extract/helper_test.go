package extract

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ferry/verify"
)

// ent is an entry of a test layer.
type ent struct {
	name, body, link string
	typ              byte
	mode             int64
	mtime            time.Time
	pax              map[string]string
	major, minor     int64
}

func file644(name, body string) ent    { return ent{name: name, body: body, typ: tar.TypeReg} }
func dir(name string) ent              { return ent{name: name, typ: tar.TypeDir} }
func link(name, target string) ent     { return ent{name: name, link: target, typ: tar.TypeSymlink} }
func hardlink(name, target string) ent { return ent{name: name, link: target, typ: tar.TypeLink} }

// archive returns the entries as a tar archive.
func archive(t testing.TB, ents ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range ents {
		if e.mode == 0 {
			e.mode = 0o644
		}
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Mode: e.mode, Linkname: e.link, ModTime: e.mtime,
			Size: int64(len(e.body)), PAXRecords: e.pax, Devmajor: e.major, Devminor: e.minor}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rawHeader returns one ustar header with these fields as they are, which
// archive/tar would not write, and a right checksum.
func rawHeader(name, linkname string, typ byte, size string) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[157:], linkname)
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// octal returns n as a size field.
func octal(n int) string { return fmt.Sprintf("%011o\x00", n) }

// raw returns an archive of raw headers and bodies, padded and ended.
func raw(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
		b = append(b, make([]byte, -len(p)&511)...)
	}
	return append(b, make([]byte, 1024)...)
}

func gz(content []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(content)
	w.Close()
	return buf.Bytes()
}

func zst(content []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(content, nil)
}

// blob returns a layer with this content, which its stream verifies.
func blob(content []byte) Layer {
	d := verify.DigestOf(content)
	return Layer{
		Name:      d.String(),
		MediaType: "application/vnd.oci.image.layer.v1.tar",
		Size:      int64(len(content)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(verify.NewReader(bytes.NewReader(content), d, int64(len(content)))), nil
		},
	}
}

// streamed returns a layer whose content is too large to hold.
func streamed(open func() io.Reader) Layer {
	return Layer{Name: "sha256:streamed", Size: 1, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(open()), nil
	}}
}

// list returns what is below a directory: a line for each name, as in the
// layers of parse, sorted. With modes, it has everything that could change.
func list(t testing.TB, top string, modes bool) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == top && !modes {
			return err
		}
		name, _ := filepath.Rel(top, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		line := ""
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(b) > 40 {
				b = fmt.Appendf(nil, "%x", sha256.Sum256(b))
			}
			line = name + "=" + string(b)
		case fi.IsDir():
			line = name + "/"
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line = name + "->" + target
		default:
			line = name + " is " + fi.Mode().String()
		}
		if modes {
			line += fmt.Sprintf(" %v %d", fi.Mode(), fi.ModTime().UnixNano())
			if fi.IsDir() {
				line = fmt.Sprintf("%s %v", line[:strings.LastIndex(line, " ")], name)
			}
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// field is a parent folder with neighbours that no extraction may touch.
type field struct {
	parent, dest string
	before       []string
}

func newField(t testing.TB, parent string) field {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(parent, "canary"), []byte("alive"), 0o600))
	must(os.MkdirAll(filepath.Join(parent, "sibling", "deep"), 0o700))
	must(os.WriteFile(filepath.Join(parent, "sibling", "deep", "file"), []byte("quiet"), 0o640))
	must(os.Symlink("canary", filepath.Join(parent, "pointer")))
	f := field{parent: parent, dest: filepath.Join(parent, "dest")}
	f.before = list(t, parent, true)
	return f
}

// check compares the neighbours with what they were, and looks for anything
// in the destination that must never be there.
func (f field) check(t testing.TB) {
	t.Helper()
	after := slices.DeleteFunc(list(t, f.parent, true), func(line string) bool {
		return strings.HasPrefix(line, "dest/") || strings.HasPrefix(line, "dest=") || strings.HasPrefix(line, "dest->")
	})
	if !slices.Equal(after, f.before) {
		t.Errorf("neighbours are now %q, were %q", after, f.before)
	}
	if _, err := os.Lstat(f.dest); err == nil {
		checkHarmless(t, f.dest)
	}
}

// checkHarmless fails when a directory has something that is dangerous to
// have or to follow.
func checkHarmless(t testing.TB, top string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(top)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			if to, err := filepath.EvalSymlinks(p); err == nil && to != real && !strings.HasPrefix(to, real+"/") {
				t.Errorf("link %q leads to %q", p, to)
			}
		case fi.Mode()&fs.ModeType&^fs.ModeDir != 0, fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0, fi.Mode().Perm()&0o022 != 0:
			t.Errorf("%q has mode %v", p, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// memoryDir returns a temporary directory, in memory where there is a usual
// place for that: tests that extract thousands of times wait for no disk.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shm(), "ferry-extract-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// shm returns the usual place for files in memory, or "" where there is none.
func shm() string {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func sha(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// checkReport compares the numbers of a report with what is there.
func checkReport(t interface{ Errorf(string, ...any) }, rep *Report, dest string) {
	files, dirs, links := 0, -1, 0 // the destination is not counted
	err := filepath.WalkDir(dest, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs++
		case d.Type()&fs.ModeSymlink != 0:
			links++
		default:
			files++
		}
		return nil
	})
	if err != nil || rep.Files != files || rep.Dirs != dirs || rep.Links != links {
		t.Errorf("report has %d files, %d directories, %d links, want %d, %d, %d (%v)", rep.Files, rep.Dirs, rep.Links, files, dirs, links, err)
	}
}
