package harbortest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pageOf cuts a list as page and page_size say, and sets the headers of a
// list. The Link has the query without its escaping, as Harbor sends it:
// following it may give a wrong page.
func pageOf[T any](w http.ResponseWriter, q url.Values, path string, all []T) []T {
	page, size := number(q, "page", 1), number(q, "page_size", 10)
	total := len(all)
	w.Header().Set("X-Total-Count", strconv.Itoa(total))
	link := func(page int, rel string) string {
		next := url.Values{}
		for k, v := range q {
			next[k] = v
		}
		next.Set("page", strconv.Itoa(page))
		next.Set("page_size", strconv.Itoa(size))
		text, _ := url.QueryUnescape(next.Encode())
		return fmt.Sprintf(`<%s?%s>; rel="%s"`, path, text, rel)
	}
	var links []string
	if size != 0 {
		if page > 1 && (page-1)*size < total {
			links = append(links, link(page-1, "prev"))
		}
		if page*size < total {
			links = append(links, link(page+1, "next"))
		}
	}
	if len(links) > 0 {
		w.Header().Set("Link", strings.Join(links, " , "))
	}
	if size <= 0 {
		return all
	}
	from := min(max(0, page-1)*size, total)
	return all[from:min(from+size, total)]
}

func number(q url.Values, key string, otherwise int) int {
	if n, err := strconv.Atoi(q.Get(key)); err == nil {
		return n
	}
	return otherwise
}

// checkPage refuses pages that are too large.
func checkPage(q url.Values) error {
	if number(q, "page_size", 10) > 100 {
		return unprocessable("page_size in query should be less than or equal to 100")
	}
	return nil
}

// term is one condition of a q parameter.
type term struct {
	key    string
	op     byte // '=' exact, '~' fuzzy, '[' range, '{' or-list, '(' and-list
	value  string
	lo, hi string
}

// parseQuery reads a q parameter, which Harbor unescapes once more.
func parseQuery(text string) ([]term, error) {
	if text == "" {
		return nil, nil
	}
	text, err := url.QueryUnescape(text)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	var terms []term
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || key == "" || value == "" {
			return nil, badRequest(`the query string must contain "=" and the key/value cannot be empty`)
		}
		t := term{key: key, op: '=', value: value}
		switch {
		case value[0] == '~':
			t.op, t.value = '~', value[1:]
		case value[0] == '[' && strings.HasSuffix(value, "]"):
			t.op = '['
			t.lo, t.hi, _ = strings.Cut(value[1:len(value)-1], "~")
		case value[0] == '{' || value[0] == '(':
			t.op = value[0]
		}
		terms = append(terms, t)
	}
	return terms, nil
}

// matchText reports whether a text meets the condition.
func (t term) matchText(s string) bool {
	if t.op == '~' {
		return strings.Contains(s, t.value)
	}
	return s == t.value
}

// matchTime reports whether a time lies in the range.
func (t term) matchTime(at time.Time) (bool, error) {
	if t.op != '[' {
		return true, nil
	}
	for _, bound := range []struct {
		text string
		sign int
	}{{t.lo, 1}, {t.hi, -1}} {
		if bound.text == "" {
			continue
		}
		limit, err := time.Parse("2006-01-02T15:04:05", bound.text)
		if err != nil {
			return false, errInternal
		}
		if at.Compare(limit)*bound.sign < 0 {
			return false, nil
		}
	}
	return true, nil
}

// matchNumber is for columns of numbers: anything else breaks the database's
// query.
func (t term) matchNumber(n int64) (bool, error) {
	want, err := strconv.ParseInt(t.value, 10, 64)
	if err != nil {
		return false, errInternal
	}
	return n == want, nil
}

var errInternal = errf(http.StatusInternalServerError, "UNKNOWN", "internal server error")

// sorted orders items by the sort parameter: keys by comma, "-" for
// descending. Unknown keys are ignored; without a known one, and among equal
// items, otherwise decides.
func sorted[T any](items []T, param string, keys map[string]func(a, b T) int, otherwise func(a, b T) int) {
	var order []func(a, b T) int
	for key := range strings.SplitSeq(param, ",") {
		name, down := strings.CutPrefix(key, "-")
		f := keys[name]
		if f == nil {
			continue
		}
		if down {
			order = append(order, func(a, b T) int { return f(b, a) })
		} else {
			order = append(order, f)
		}
	}
	if len(order) == 0 {
		order = append(order, otherwise)
	}
	slices.SortStableFunc(items, func(a, b T) int {
		for _, f := range order {
			if c := f(a, b); c != 0 {
				return c
			}
		}
		return 0
	})
}

// by orders items by one of their values.
func by[T any, K cmp.Ordered](value func(T) K) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(value(a), value(b)) }
}
