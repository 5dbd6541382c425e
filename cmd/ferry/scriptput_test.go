package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"ferry/internal/storetest"
	"ferry/s3store"
)

// putCommand is "put PATH KEY": the file, or each file of the folder, becomes
// an object below $BUCKET, as a tool of AWS would store it.
func putCommand(s *scripted, ts *testscript.TestScript, args []string) error {
	store, err := s3store.New(s.Context(), s3store.Options{Bucket: s.s3.Bucket, Prefix: s.project, HTTP: storetest.Client(s.t)})
	if err != nil {
		return err
	}
	root := ts.MkAbs(args[0])
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return store.Put(s.Context(), path.Join(args[1], filepath.ToSlash(below)), content)
	})
}
