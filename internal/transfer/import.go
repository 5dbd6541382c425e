package transfer

import (
	"fmt"
	"strings"

	"ferry/bundle"
	"ferry/internal/registry"
	"ferry/verify"
)

// Destination is a place in a registry that images are imported to.
type Destination struct {
	Host   string // of the registry
	Prefix string // path before the images' own, without slashes at its ends; may be ""
	Maps   []Map
}

// Map replaces the beginning of an image's path.
type Map struct{ From, To string }

// ParseMap parses "A=B": paths that are A, or begin with "A/", begin with B.
func ParseMap(s string) (Map, error) {
	from, to, found := strings.Cut(s, "=")
	if !found || !bundle.ValidTarget(from) || !bundle.ValidTarget(to) {
		return Map{}, fmt.Errorf("map %q is not PATH=PATH, like library/nginx=proxy/nginx", s)
	}
	return Map{from, to}, nil
}

// Repository returns where an image with the path target goes. Of several
// maps the longest that fits counts. Errors: the path is not valid.
func (d Destination) Repository(target string) (registry.Repository, error) {
	path := target
	var best Map
	for _, m := range d.Maps {
		if len(m.From) > len(best.From) && (target == m.From || strings.HasPrefix(target, m.From+"/")) {
			best = m
			path = m.To + strings.TrimPrefix(target, m.From)
		}
	}
	if d.Prefix != "" {
		path = d.Prefix + "/" + path
	}
	if !bundle.ValidTarget(path) {
		return registry.Repository{}, fmt.Errorf("image path %q is not valid or has more than 255 bytes: give another place with --map", path)
	}
	return registry.Repository{Host: d.Host, Path: path}, nil
}

// Deliveries returns the images of a bundle with the repositories they go to,
// and where the blobs of its base must be. Errors: [ErrConflict] when maps
// bring two different images to one name.
func Deliveries(r *bundle.Reader, d Destination) ([]Delivery, map[verify.Digest]registry.Repository, error) {
	list, err := deliveriesOf(r.Manifest().Images, d)
	if err != nil {
		return nil, nil, err
	}
	assumed := map[verify.Digest]registry.Repository{}
	if base := r.Manifest().Base; base != nil {
		for _, b := range base.Blobs {
			repo, err := d.Repository(b.Target)
			if err != nil {
				return nil, nil, err
			}
			assumed[b.Digest] = repo
		}
	}
	return list, assumed, nil
}

func deliveriesOf(images []bundle.Image, d Destination) ([]Delivery, error) {
	var list []Delivery
	tagged := map[string]verify.Digest{}
	for i, item := range itemsOf(images) {
		repo, err := d.Repository(images[i].Target)
		if err != nil {
			return nil, err
		}
		for tag, digest := range item.allTags() {
			at := repo.Tag(tag).String()
			if other, ok := tagged[at]; ok && other != digest {
				return nil, fmt.Errorf("%w: two images or their signatures would be %s", ErrConflict, at)
			}
			tagged[at] = digest
		}
		list = append(list, Delivery{item, repo})
	}
	return list, nil
}
