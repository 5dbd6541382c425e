package harbor

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
)

const (
	// pageSize is the largest that Harbor takes; 101 is an error.
	pageSize = 100
	// maxPages bounds a list to 100,000 items: a repository with more is
	// beyond what Harbor itself can show, and a server may never end.
	maxPages = 1000
	// listTries is how often a list is read that changes meanwhile.
	listTries = 5
)

// list reads all pages of r. It counts the pages itself: the Link header of
// Harbor has lost the escaping of its query. Each item has a key of its own.
//
// What somebody pushes, deletes or tags between two pages can move an item
// from a page that we have not read to one that we have. So a list of several
// pages counts only when two readings in a row are the same.
func list[T any](ctx context.Context, c *Client, r request, key func(T) string) ([]T, error) {
	var last []T
	for range listTries {
		items, total, pages, err := listOnce(ctx, c, r, key)
		switch {
		case err != nil:
			return nil, err
		case total >= 0 && len(items) != total:
			last = nil
			continue
		case pages == 1, last != nil && reflect.DeepEqual(items, last):
			return items, nil
		}
		last = items
	}
	return nil, &Error{Op: r.op, Status: http.StatusOK, kind: ErrUnavailable,
		Message: fmt.Sprintf("the list was read %d times and was never the same or whole", listTries)}
}

// listOnce returns the items of all pages, each key once; how many the server
// says there are, or -1 when it does not say; and how many pages were read.
func listOnce[T any](ctx context.Context, c *Client, r request, key func(T) string) (items []T, total, page int, err error) {
	seen := map[string]bool{}
	for page = 1; page <= maxPages; page++ {
		query := url.Values{}
		maps.Copy(query, r.query)
		query.Set("page", strconv.Itoa(page))
		query.Set("page_size", strconv.Itoa(pageSize))
		ask := r
		ask.query = query
		var got []T
		a, err := c.getJSON(ctx, ask, &got)
		if err != nil {
			return nil, 0, 0, err
		}
		if total, err = totalOf(r.op, a); err != nil {
			return nil, 0, 0, err
		}
		before := len(items)
		for _, item := range got {
			if k := key(item); !seen[k] {
				seen[k] = true
				items = append(items, item)
			}
		}
		last := len(got) < pageSize && (total < 0 || len(items) == before)
		switch {
		case total >= 0 && len(items) >= total, last:
			return items, total, page, nil
		case len(items) == before:
			return nil, 0, 0, unexpected(r.op, a.status, "page %d repeats what was on the pages before it", page)
		}
	}
	return nil, 0, 0, unexpected(r.op, http.StatusOK, "the list has more than %d pages of %d", maxPages, pageSize)
}

// totalOf returns the X-Total-Count of a page, or -1 when it has none.
func totalOf(op string, a *answer) (int, error) {
	s := a.header.Get("X-Total-Count")
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, unexpected(op, a.status, "X-Total-Count %q is no number", clean(s))
	}
	if n > maxPages*pageSize {
		return 0, unexpected(op, a.status, "the list has %d items, more than %d", n, maxPages*pageSize)
	}
	return n, nil
}
