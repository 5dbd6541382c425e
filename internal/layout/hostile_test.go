package layout

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ferry/bundle"
)

// rawEntry returns an entry with a header that archive/tar would not write.
func rawEntry(name string, kind byte, link string, size int64, content string) []byte {
	h := bundle.TarHeader("x", 0)
	clear(h[:100])
	copy(h[:100], name)
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	h[156] = kind
	copy(h[157:257], link)
	return append(sign(h), padded(content)...)
}

// sign writes the checksum of a header.
func sign(h []byte) []byte {
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h[:tarBlock] {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func padded(content string) []byte {
	return append([]byte(content), make([]byte, -len(content)&(tarBlock-1))...)
}

// paxEntry returns a PAX header of a kind with records of keys and values.
func paxEntry(kind byte, records ...string) []byte {
	var all string
	for i := 0; i < len(records); i += 2 {
		rest := " " + records[i] + "=" + records[i+1] + "\n"
		n := len(rest) + 2
		for n != len(fmt.Sprint(n))+len(rest) {
			n++
		}
		all += fmt.Sprint(n) + rest
	}
	return rawEntry("PaxHeaders/x", kind, "", int64(len(all)), all)
}

// What two readers of tar could take differently, or what leads elsewhere, is
// refused when the archive is opened (T07, T08, T10, T20, T33, T36, T38).
func TestHostileArchives(t *testing.T) {
	s := newSmall(t)
	end := make([]byte, 2*tarBlock)
	good := bytes.TrimSuffix(tarOf(t, s.layout(t)...), end)
	entry := func(name string, kind byte, link, content string) []byte {
		return rawEntry(name, kind, link, int64(len(content)), content)
	}
	hex := strings.Repeat("ab", 32)
	base256 := rawEntry("x", '0', "", 0, "")
	copy(base256[124:136], []byte{0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255})
	sign(base256)
	wrongSum := entry("x", '0', "", "")
	wrongSum[148] ^= 1
	for _, c := range []struct {
		name  string
		entry []byte
		want  string // in the error
	}{
		{"the same name again", entry(markerName, '0', "", marker), "twice"},
		{"the same blob with other content", entry(s.blobs()[0].name, '0', "", "x"), "twice"},
		{"the same name with ./", entry("./"+markerName, '0', "", marker), "twice"},
		{"a folder of the name", entry(markerName+"/", '5', "", ""), "twice"},
		{"a link of the name", entry(markerName, '2', "other", ""), "twice"},
		{"an absolute name", entry("/etc/passwd", '0', "", "x"), "not supported"},
		{"a name that climbs", entry("../x", '0', "", "x"), "not supported"},
		{"a name that climbs later", entry("a/../../x", '0', "", "x"), "not supported"},
		{"a name with two slashes", entry("a//x", '0', "", "x"), "not supported"},
		{"a name with . in it", entry("a/./x", '0', "", "x"), "not supported"},
		{"a name with ./ twice", entry("././x", '0', "", "x"), "not supported"},
		{"a file with / at its end", entry("blobs/", '0', "", "x"), "not supported"},
		{"a backslash", entry(`a\b`, '0', "", "x"), "not supported"},
		{"an escape", entry("a\x1b[2J", '0', "", "x"), "not supported"},
		{"a line end", entry("a\nb", '0', "", "x"), "not supported"},
		{"a name that is no UTF-8", entry("a\xff", '0', "", "x"), "not supported"},
		{"no name", entry("", '0', "", "x"), "not supported"},
		{"a file named .", entry(".", '0', "", "x"), "not supported"},
		{"a link named ./", entry("./", '2', "x", ""), "not supported"},
		{"a folder named ..", entry("../", '5', "", ""), "not supported"},
		{"a long name", append(paxEntry('x', "path", strings.Repeat("a/", 128)+"b"), entry("x", '0', "", "")...), "not supported"},
		{"a blob in upper case", entry("blobs/sha256/"+strings.ToUpper(hex), '0', "", "x"), "sha256 digest"},
		{"a blob with a short name", entry("blobs/sha256/"+hex[1:], '0', "", "x"), "sha256 digest"},
		{"a blob with an ending", entry("blobs/sha256/"+hex+".tmp", '0', "", "x"), "sha256 digest"},
		{"a blob below a blob", entry("blobs/sha256/"+hex+"/x", '0', "", "x"), "sha256 digest"},
		{"a blob of another digest", entry("blobs/sha512/"+hex, '0', "", "x"), "sha256 digest"},
		{"a blob of no digest", entry("blobs/x", '0', "", "x"), "sha256 digest"},
		{"a blob that is a link", entry("blobs/sha256/"+hex, '2', "../../x", ""), "link"},
		{"a hard link", entry("x", '1', markerName, ""), "type '1'"},
		{"a character device", entry("x", '3', "", ""), "type '3'"},
		{"a block device", entry("x", '4', "", ""), "type '4'"},
		{"a fifo", entry("x", '6', "", ""), "type '6'"},
		{"a contiguous file", entry("x", '7', "", "x"), "type '7'"},
		{"a type nobody knows", entry("x", 'Z', "", ""), "type 'Z'"},
		{"a PAX header for all", paxEntry('g', "path", "x"), "type 'g'"},
		{"a sparse file of GNU", entry("x", 'S', "", ""), "after 5 entries"},
		{"a sparse file of PAX", slices.Concat(paxEntry('x', "GNU.sparse.map", "0,1", "GNU.sparse.numblocks", "1"), entry("x", '0', "", "x")), "sparse"},
		{"a folder with content", rawEntry("d/", '5', "", 1, "x"), "1 bytes"},
		{"a link with content", rawEntry("l", '2', "x", 1, "x"), "1 bytes"},
		{"a link to nowhere", entry("l", '2', "", ""), "leads to"},
		{"a long link", append(paxEntry('x', "linkpath", strings.Repeat("a", 256)), entry("l", '2', "x", "")...), "leads to"},
		{"a file with a link", entry("x", '0', "y", ""), "leads to"},
		{"a size beyond the end", rawEntry("x", '0', "", 1<<32, "x"), "ends after"},
		{"a size of almost 8 EiB", base256, "ends after"},
		{"a size by PAX beyond the end", slices.Concat(paxEntry('x', "size", "99999999"), entry("x", '0', "", "x")), "ends after"},
		{"a negative size by PAX", slices.Concat(paxEntry('x', "size", "-1"), entry("x", '0', "", "x")), "after 5 entries"},
		{"a size that is no number", slices.Concat(paxEntry('x', "size", "1e9"), entry("x", '0', "", "x")), "after 5 entries"},
		{"a PAX header of nothing", paxEntry('x', "path", "x"), "something follows"},
		{"a wrong checksum", wrongSum, "after 5 entries"},
		{"one block of zeros in between", append(make([]byte, tarBlock), entry("x", '0', "", "x")...), "after 5 entries"},
	} {
		for where, content := range map[string][]byte{
			"last":  slices.Concat(good, c.entry, end),
			"first": slices.Concat(c.entry, good, end),
		} {
			want := c.want
			if where == "first" {
				want = "" // it may be what follows that is refused
			}
			src, err := tryOpen(t, write(t, content))
			if err == nil {
				src.Close()
			}
			if !errors.Is(err, ErrInvalid) && !(where == "first" && errors.Is(err, ErrUnknown)) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: Open = %v, want ErrInvalid with %q", c.name, where, err, want)
			}
			if err != nil && (strings.ContainsAny(err.Error(), "\x1b\n") || !utf8.ValidString(err.Error())) { // T40
				t.Errorf("%s: raw bytes in %q", c.name, err)
			}
		}
	}
}

// An archive is whole: cut anywhere it is refused, or a blob is missing; so is
// one that something is appended to (T03, T07).
func TestArchiveEnds(t *testing.T) {
	s := newSmall(t)
	whole := tarOf(t, s.layout(t)...)
	for n := range len(whole) {
		if n%tarBlock > 1 && n%tarBlock < tarBlock-1 {
			continue // the borders of blocks and their neighbours
		}
		src, err := tryOpen(t, write(t, whole[:n]))
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnknown) {
			t.Errorf("cut to %d of %d bytes: Open = %v", n, len(whole), err)
			src.Close()
		}
	}
	for name, c := range map[string]struct {
		more []byte
		ok   bool
	}{
		"nothing":              {nil, true},
		"zeros of GNU tar":     {make([]byte, 9<<10), true},
		"1 MiB of zeros":       {make([]byte, 1<<20), true},
		"too many zeros":       {make([]byte, 1<<20+1), false},
		"another archive":      {whole, false},
		"a byte":               {[]byte("x"), false},
		"a byte behind zeros":  {append(make([]byte, 4096), 1), false},
		"a header after zeros": {append(make([]byte, tarBlock), rawEntry("x", '0', "", 0, "")...), false},
	} {
		src, err := tryOpen(t, write(t, slices.Concat(whole, c.more)))
		if c.ok && err == nil {
			src.Close()
			continue
		}
		if c.ok || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s appended: Open = %v, want no error: %t", name, err, c.ok)
		}
	}
}

// headers is a tar archive of n empty files that is made while it is read,
// block by block.
type headers struct{ n int64 }

func (h headers) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if i := off / tarBlock; i < h.n {
		copy(p, emptyHeader[:])
		// The name, the number in 16 letters, and what it adds to the sum.
		sum := emptySum
		for k := range 16 {
			c := byte('a' + i>>(4*k)&15)
			p[k] = c
			sum += int64(c)
		}
		for k := range 6 {
			p[148+k] = byte('0' + sum>>(3*(5-k))&7)
		}
	}
	return len(p), nil
}

// emptyHeader is the header of an empty file without a name, and emptySum its
// checksum.
var emptyHeader, emptySum = func() (h [tarBlock]byte, sum int64) {
	copy(h[:], rawEntry("", '0', "", 0, ""))
	fmt.Sscanf(string(h[148:154]), "%o", &sum)
	return h, sum
}()

// The number of entries is bounded (T38).
func TestManyEntries(t *testing.T) {
	for _, n := range []int64{MaxEntries, MaxEntries + 1} {
		members, err := indexTar(t.Context(), io.NewSectionReader(headers{n}, 0, (n+2)*tarBlock))
		if n == MaxEntries && (err != nil || len(members) != MaxEntries) {
			t.Errorf("%d entries: %d, %v", n, len(members), err)
		}
		if n > MaxEntries && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "300000")) {
			t.Errorf("%d entries: %v, want ErrInvalid and the limit", n, err)
		}
	}
}

// FuzzArchive shows that whatever is in an archive, each file that is found
// lies in it, apart from the others.
func FuzzArchive(f *testing.F) {
	s := newSmall(f)
	f.Add(tarOf(f, s.layout(f)...))
	f.Add(slices.Concat(paxEntry('x', "size", "3"), rawEntry("x", '0', "", 0, "abc"), make([]byte, 2*tarBlock)))
	f.Add(slices.Concat(rawEntry("d/", '5', "", 0, ""), rawEntry("l", tar.TypeSymlink, "d/x", 0, ""), make([]byte, 2*tarBlock)))
	f.Fuzz(func(t *testing.T, content []byte) {
		members, err := indexTar(t.Context(), io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))))
		if err != nil {
			return
		}
		var places []place
		for name, m := range members {
			if _, err := cleanName(name, m.kind); err != nil {
				t.Errorf("entry %q: %v", name, err)
			}
			if m.kind == tar.TypeReg {
				places = append(places, m.place)
			}
		}
		slices.SortFunc(places, func(a, b place) int { return int(a.off - b.off) })
		at := int64(tarBlock)
		for _, p := range places {
			if p.off < at || p.size < 0 {
				t.Errorf("a file is at %d with %d bytes, want at %d or later", p.off, p.size, at)
			}
			at = p.off + p.size + tarBlock
		}
		if at > int64(len(content))-tarBlock {
			t.Errorf("a file ends at %d of %d bytes", at-tarBlock, len(content))
		}
	})
}
