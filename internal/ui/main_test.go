package ui

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newUI returns a UI with buffers for its stdout and stderr.
func newUI(t *testing.T, o Options) (u *UI, out, err *buffer) {
	t.Helper()
	out, err = new(buffer), new(buffer)
	o.Stdout, o.Stderr = out, err
	u, problem := New(o)
	if problem != nil {
		t.Fatal(problem)
	}
	return u, out, err
}

// forbidden returns what a terminal must not receive of s, as "" when there
// is nothing. It states the rule of T40 on its own, not by what Escape uses.
func forbidden(s string) string {
	for i, r := range s {
		bad := r < 0x20 && r != '\n' ||
			r >= 0x7f && r < 0xa0 || // DEL, C1
			r == 0x61c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || // bidi
			r >= 0x200b && r <= 0x200d || r == 0x2060 || r == 0xfeff || r == 0xad || // zero width, soft hyphen
			r == 0x2028 || r == 0x2029 ||
			r >= 0xe0000 && r <= 0xe007f // tags
		if _, n := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && n == 1 {
			bad = true
		}
		if bad {
			return fmt.Sprintf("%q at byte %d of %q", r, i, s)
		}
	}
	return ""
}

// screen is a small terminal: printable characters, line ends, cursor up and
// erase line, which is all that may come.
type screen struct {
	mu            sync.Mutex
	width, height int
	rows          [][]rune // all, also those that have scrolled away
	top           int      // of the rows, the first that is visible
	x, y          int      // of the cursor, in columns and rows
	cell          int      // of rows[y], which has one rune for each
	wraps         int      // lines that went on in the next row
	strange       string
}

func newScreen(width, height int) *screen {
	return &screen{width: width, height: height, rows: [][]rune{nil}}
}

func (s *screen) down() {
	s.x, s.cell = 0, 0
	s.y++
	if s.y == len(s.rows) {
		s.rows = append(s.rows, nil)
	}
	s.top = max(s.top, len(s.rows)-s.height)
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(p)
	for text != "" {
		var up int
		if _, err := fmt.Sscanf(text, "\x1b[%dA", &up); err == nil {
			text = strings.TrimPrefix(text, fmt.Sprintf("\x1b[%dA", up))
			s.y = max(s.y-up, s.top)
			continue
		}
		if rest, ok := strings.CutPrefix(text, "\x1b[2K"); ok {
			text = rest
			s.rows[s.y] = nil
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		switch {
		case r == '\n':
			s.down() // the terminal driver adds the carriage return
		case r == '\r':
			s.x, s.cell = 0, 0
		case forbidden(string(r)) != "", r == utf8.RuneError && n == 1:
			s.strange += fmt.Sprintf("%q ", r)
		default:
			if s.x+columns(r) > s.width {
				s.wraps++
				s.down()
			}
			// What was written over without being erased remains as it was.
			row := s.rows[s.y]
			for len(row) < s.cell {
				row = append(row, ' ')
			}
			s.rows[s.y] = append(row[:s.cell:s.cell], append([]rune{r}, row[min(s.cell+1, len(row)):]...)...)
			s.cell++
			s.x += columns(r)
		}
	}
	return len(p), nil
}

// String returns what the screen and all above it shows.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}
