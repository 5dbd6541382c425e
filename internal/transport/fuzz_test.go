package transport

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzRetryAfter shows that a server that asks to wait is heeded, and that no
// answer makes ferry wait longer than it ever does (T42).
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"0", "1", "120", "-1", "+5", "1.5", "99999999999999999999", "2147483648", "Sat, 21 Nov 2026 12:00:00 GMT", "Sat, 21 Nov 9999 12:00:00 GMT", "", " 7 ", "0x10"} {
		f.Add(s, http.StatusServiceUnavailable)
		f.Add(s, http.StatusOK)
	}
	f.Fuzz(func(t *testing.T, s string, status int) {
		wait, asked := retryAfter(&http.Response{StatusCode: status, Header: http.Header{"Retry-After": {s}}})
		if wait < 0 || wait > maxWait || !asked && wait != 0 {
			t.Errorf("Retry-After %q: %v, %t", s, wait, asked)
		}
		if status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
			if asked {
				t.Errorf("Retry-After %q counts with status %d", s, status)
			}
			return
		}
		digits := strings.TrimSpace(s)
		n, err := strconv.Atoi(digits)
		if err != nil || n > math.MaxInt32 || strings.Trim(digits, "0123456789") != "" {
			return // no number, or none that anybody means
		}
		want := min(time.Duration(n)*time.Second, maxWait)
		if !asked || wait != want {
			t.Errorf("Retry-After %q: %v, %t, want %v", s, wait, asked, want)
		}
	})
}
