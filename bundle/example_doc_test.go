package bundle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferry/bundle"
	"ferry/internal/vectors"
	"ferry/verify"
)

// exampleVector is the bundle of the worked example in docs/format.md.
const exampleVector = "../testdata/vectors/good-one-volume.txtar"

// TestWorkedExample compares the worked example of the specification with the
// vector that it describes, and with what Layout computes.
func TestWorkedExample(t *testing.T) {
	section := exampleSection(t)
	objects := exampleObjects(t)
	raw, volume := objects[bundle.ManifestName], objects[bundle.VolumeName(0)]
	var m bundle.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	files := exampleFiles(t, &m, int64(len(raw)))

	rows := tableRows(section)
	if len(rows) != len(files)+1 {
		t.Fatalf("the table has %d rows, want %d files and a trailer", len(rows), len(files))
	}
	for i, f := range files {
		checkRow(t, rows[i], f.Path, f.Start, f.Content(), f.Size, f.Padding())
		if !bytes.HasPrefix(volume[f.Start:], f.Header()) {
			t.Errorf("%s: the vector has another header at %d", f.Path, f.Start)
		}
	}
	layout := m.Layout(int64(len(raw)))[0]
	checkRow(t, rows[len(files)], "trailer", -1, layout.Trailer(), layout.Size-layout.Trailer(), -1)
	if layout.Size != int64(len(volume)) {
		t.Errorf("Layout says %d bytes, the vector has %d", layout.Size, len(volume))
	}

	ociHeader := string(files[2].Header())
	for _, want := range []string{
		fmt.Sprintf("bundle.json has %s bytes", thousands(int64(len(raw)))),
		"`" + verify.DigestOf(raw).Hex() + "`",
		fmt.Sprintf("The volume has %s bytes", thousands(layout.Size)),
		fmt.Sprintf("the size is `%s` and the checksum `%s`", ociHeader[124:135], ociHeader[148:154]),
	} {
		if !strings.Contains(section, want) {
			t.Errorf("the example does not say %q", want)
		}
	}
	checkListing(t, section, raw)
}

// exampleSection returns the text of the worked example.
func exampleSection(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## Worked example\n")
	section, _, ended := strings.Cut(rest, "\n## ")
	if !found || !ended {
		t.Fatal("docs/format.md has no worked example with a section after it")
	}
	return section
}

func exampleObjects(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile(exampleVector)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vectors.Parse("example", text)
	if err != nil {
		t.Fatal(err)
	}
	return v.Objects
}

// exampleFiles returns all files of the example's one volume, those of its
// head too.
func exampleFiles(t *testing.T, m *bundle.Manifest, manifestSize int64) []bundle.File {
	t.Helper()
	layouts := m.Layout(manifestSize)
	if len(layouts) != 1 {
		t.Fatalf("the example has %d volumes", len(layouts))
	}
	manifest := bundle.File{Entry: bundle.Entry{Path: bundle.ManifestName, Size: manifestSize}}
	signature := bundle.File{Entry: bundle.Entry{Path: bundle.SignatureName, Size: bundle.SignatureSize}, Start: manifest.End()}
	if signature.End() != layouts[0].HeadSize {
		t.Fatalf("the head ends at %d, Layout says %d", signature.End(), layouts[0].HeadSize)
	}
	return append([]bundle.File{manifest, signature}, layouts[0].Files...)
}

// tableRows returns the cells of the table's rows, without its heading.
func tableRows(section string) [][]string {
	var rows [][]string
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		return nil
	}
	return rows[2:]
}

// checkRow compares a row with the name and numbers it must have; -1 is an
// empty cell.
func checkRow(t *testing.T, row []string, name string, numbers ...int64) {
	t.Helper()
	written := strings.Trim(row[0], "`")
	if short, cut := strings.CutSuffix(written, "…"); written != name && !(cut && len(short) >= 20 && strings.HasPrefix(name, short)) {
		t.Errorf("row %q, want %q", row[0], name)
	}
	var want []string
	for _, n := range numbers {
		want = append(want, thousands(n))
	}
	if got := row[1:5]; !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", row[0], got, want)
	}
}

// thousands returns n as the specification writes numbers: "37,888".
func thousands(n int64) string {
	if n < 0 {
		return ""
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// checkListing compares the listing of bundle.json, in which "…" stands for
// the rest of a digest, or in a line of its own for any number of lines.
func checkListing(t *testing.T, section string, raw []byte) {
	t.Helper()
	var whole bytes.Buffer
	if err := json.Indent(&whole, raw, "    ", "  "); err != nil {
		t.Fatal(err)
	}
	var pattern strings.Builder
	for line := range strings.Lines(section) {
		line = strings.TrimRight(line, "\n")
		switch {
		case !strings.HasPrefix(line, "    "):
			continue
		case strings.TrimSpace(line) == "…":
			pattern.WriteString(`(?:.+\n)+?`)
		default:
			pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", "[0-9a-f]{56}") + `\n`)
		}
	}
	re, err := regexp.Compile("^" + pattern.String() + "$")
	if err != nil {
		t.Fatal(err)
	}
	if text := "    " + whole.String() + "\n"; !re.MatchString(text) {
		t.Errorf("the listing is not what %s has:\n%s", path.Base(exampleVector), text)
	}
}
