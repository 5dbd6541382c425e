package bundle

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Found is a bundle that stands somewhere in a store. Nothing of it was
// verified.
type Found struct {
	Folder  string // in the store; "" is its root
	Pending bool   // it was begun and not finished
	// Untidy says that it is finished, and that documents of when it was
	// pending are still there (see [Tidy]).
	Untidy bool
	Bytes  int64 // size of its volumes that are there
}

// List returns the bundles in store, however deep, by folder.
func List(ctx context.Context, store Store) ([]Found, error) {
	objects, err := store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	found := map[string]*Found{}
	for _, o := range objects {
		folder, name := path.Split(o.Name)
		folder = strings.TrimSuffix(folder, "/")
		switch {
		case name == ManifestName:
			found[folder] = &Found{Folder: folder}
		case name == ManifestName+PendingSuffix && found[folder] == nil:
			found[folder] = &Found{Folder: folder, Pending: true}
		}
	}
	for _, o := range objects {
		if f := found[strings.TrimSuffix(path.Dir(o.Name), ".")]; f != nil && strings.HasSuffix(o.Name, ".tar") {
			f.Bytes += o.Size
		} else if f != nil && !f.Pending && strings.HasSuffix(o.Name, PendingSuffix) {
			f.Untidy = true
		}
	}
	list := make([]Found, 0, len(found))
	for _, f := range found {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Found) int { return strings.Compare(a.Folder, b.Folder) })
	return list, nil
}

// Sub returns the part of store below folder; "" is all of it.
func Sub(store Store, folder string) Store {
	if folder == "" {
		return store
	}
	return sub{store, folder + "/"}
}

type sub struct {
	store  Store
	prefix string
}

func (s sub) Open(ctx context.Context, name string) (Object, error) {
	return s.store.Open(ctx, s.prefix+name)
}

func (s sub) List(ctx context.Context, prefix string) ([]Info, error) {
	list, err := s.store.List(ctx, s.prefix+prefix)
	for i := range list {
		list[i].Name = strings.TrimPrefix(list[i].Name, s.prefix)
	}
	return list, err
}

func (s sub) Put(ctx context.Context, name string, content []byte) error {
	return s.store.Put(ctx, s.prefix+name, content)
}

func (s sub) PutNew(ctx context.Context, name string, content []byte) error {
	return s.store.PutNew(ctx, s.prefix+name, content)
}

func (s sub) Create(ctx context.Context, name string, size int64) (Upload, error) {
	return s.store.Create(ctx, s.prefix+name, size)
}

func (s sub) Remove(ctx context.Context, name string) error {
	return s.store.Remove(ctx, s.prefix+name)
}

func (s sub) String() string {
	return fmt.Sprintf("%s/%s", strings.TrimSuffix(s.store.String(), "/"), strings.TrimSuffix(s.prefix, "/"))
}
