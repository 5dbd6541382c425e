//go:build !linux

package bundle

import "os"

// reserve and beginWriteback do nothing where the system has no such thing.
func reserve(*os.File, int64) error { return nil }
func beginWriteback(*os.File)       {}
