package harbor

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

const (
	// pageSize is the largest that Harbor takes; 101 is an error.
	pageSize = 100
	// maxPages bounds a list to 100,000 items: a repository with more is
	// beyond what Harbor itself can show, and a server may never end.
	maxPages = 1000
	// listTries is how often a list is read that changes meanwhile.
	listTries = 3
)

// list reads all pages of r. It counts the pages itself: the Link header of
// Harbor has lost the escaping of its query. Each item has a key of its own.
//
// Somebody may push or delete while we read, and so move an item from a page
// that we have not seen to one that we have: then the number of items is not
// what the server said, and everything is read again. The same is done when
// whole says that the items can not all have been there at one time.
func list[T any](ctx context.Context, c *Client, r request, key func(T) string, whole func([]T) bool) ([]T, error) {
	var total int
	var items []T
	for range listTries {
		var err error
		if items, total, err = listOnce(ctx, c, r, key); err != nil {
			return nil, err
		}
		if (total < 0 || len(items) == total) && whole(items) {
			return items, nil
		}
	}
	return nil, &Error{Op: r.op, Status: http.StatusOK, kind: ErrUnavailable,
		Message: fmt.Sprintf("the list changed while it was read, %d times: %d different items of %d", listTries, len(items), total)}
}

// listOnce returns the items of all pages, each key once, and how many the
// server says there are, or -1 when it does not say.
func listOnce[T any](ctx context.Context, c *Client, r request, key func(T) string) (items []T, total int, err error) {
	seen := map[string]bool{}
	for page := 1; page <= maxPages; page++ {
		r.query = maps.Clone(r.query)
		if r.query == nil {
			r.query = url.Values{}
		}
		r.query.Set("page", strconv.Itoa(page))
		r.query.Set("page_size", strconv.Itoa(pageSize))
		var got []T
		a, err := c.getJSON(ctx, r, &got)
		if err != nil {
			return nil, 0, err
		}
		if total, err = totalOf(r.op, a); err != nil {
			return nil, 0, err
		}
		before := len(items)
		for _, item := range got {
			if k := key(item); !seen[k] {
				seen[k] = true
				items = append(items, item)
			}
		}
		switch {
		case total >= 0 && len(items) >= total, total < 0 && len(got) < pageSize:
			return items, total, nil
		case len(items) == before && total >= 0:
			// An empty page, or one that was there before: nothing can follow.
			return items, total, nil
		case len(items) == before:
			return nil, 0, unexpected(r.op, a.status, "page %d repeats what was on the pages before", page)
		}
	}
	return nil, 0, unexpected(r.op, http.StatusOK, "the list has more than %d pages of %d", maxPages, pageSize)
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
