package ui

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"time"
)

// Bytes returns n bytes in the largest binary unit that fits, with one
// decimal below 100: "512 B", "48.2 MiB", "1.4 GiB". It is at most 9 columns
// wide for numbers that are not negative.
func Bytes(n int64) string {
	if n < 0 {
		return "-" + strings.TrimPrefix(Bytes(-max(n, -math.MaxInt64)), "-")
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	// 1023.5 would be rounded to 1024 of the unit.
	for value >= 1023.5 && unit < len("KMGTPE") {
		value /= 1024
		unit++
	}
	if value < 99.95 {
		return fmt.Sprintf("%.1f %ciB", value, " KMGTPE"[unit])
	}
	return fmt.Sprintf("%.0f %ciB", value, " KMGTPE"[unit])
}

var (
	bytesPattern = regexp.MustCompile(`^([0-9]{1,19})(?:\.([0-9]{1,18}))? ?([A-Za-z]*)$`)
	byteUnits    = map[string]int64{
		"": 1, "b": 1,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	}
)

// ParseBytes returns the number of bytes that s says: digits, with a decimal
// fraction if there is a unit, and a unit in upper or lower case. kB, MB, GB,
// TB and PB are powers of 1000, KiB, MiB, GiB, TiB and PiB powers of 1024, B
// and no unit are bytes. What is not a whole number of bytes, or more than
// 2^63-1, is an error, and so is a lone K, M, G, T or P, which means either
// to some.
func ParseBytes(s string) (int64, error) {
	m := bytesPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q is not a number with a unit, such as 4.7GB or 512MiB", s)
	}
	factor, ok := byteUnits[strings.ToLower(m[3])]
	if !ok {
		if strings.Contains("KMGTP", strings.ToUpper(m[3])) && len(m[3]) == 1 {
			unit := strings.ToUpper(m[3])
			return 0, fmt.Errorf("size %q can mean two things (write %s%sB for powers of 1000, %s%siB for powers of 1024)",
				s, strings.TrimRight(s, " "+m[3]), unit, strings.TrimRight(s, " "+m[3]), unit)
		}
		return 0, fmt.Errorf("size %q has unknown unit %q (want B, kB, MB, GB, TB, PB, KiB, MiB, GiB, TiB or PiB)", s, m[3])
	}
	value, _ := new(big.Rat).SetString(m[1] + "." + m[2] + "0")
	value.Mul(value, new(big.Rat).SetInt64(factor))
	switch {
	case !value.IsInt():
		return 0, fmt.Errorf("size %q is not a whole number of bytes", s)
	case !value.Num().IsInt64():
		return 0, fmt.Errorf("size %q is more than %d bytes", s, int64(math.MaxInt64))
	}
	return value.Num().Int64(), nil
}

// Duration returns d as a person would say it, in at most two units: "0.4s",
// "31s", "2m03s", "1h05m", "3d04h". It is at most 6 columns wide below 1000
// days. A negative d is "0.0s".
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch tenths, s := d.Round(time.Second/10), int64(d.Round(time.Second)/time.Second); {
	case tenths < 10*time.Second:
		return fmt.Sprintf("%.1fs", tenths.Seconds())
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/(24*3600), s/3600%24)
	}
}
