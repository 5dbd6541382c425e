package extract

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// stage lets fill work in a directory that becomes dest when fill is done.
//
// The staging directory is private (0700, a random name) and stands beside
// dest, so that one rename puts the tree in place. It holds the new tree, and
// for a moment the old content of dest.
func stage(dest string, replace bool, fill func(*os.Root) (*Report, error)) (rep *Report, err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return nil, err
	}
	old, err := checkDest(dest, replace)
	if err != nil {
		return nil, err
	}
	staging, err := os.MkdirTemp(filepath.Dir(dest), ".ferry-extract-*")
	if err != nil {
		return nil, fmt.Errorf("making a folder beside %q: %w", dest, noSpaceError(err))
	}
	defer func() {
		if rerr := os.RemoveAll(staging); rerr != nil {
			rep, err = nil, errors.Join(err, fmt.Errorf("removing what is left in %q: %w", staging, rerr))
		}
	}()
	tree := filepath.Join(staging, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return nil, noSpaceError(err)
	}
	if rep, err = fillAndSync(tree, old, fill); err != nil {
		return nil, err
	}
	if err := commit(tree, dest, staging, old, replace); err != nil {
		return nil, err
	}
	return rep, nil
}

// checkDest reports what is at dest, nil for nothing, and refuses what can not
// be replaced. The renames of commit check again.
func checkDest(dest string, replace bool) (fs.FileInfo, error) {
	fi, err := os.Lstat(dest)
	parent, perr := os.Stat(filepath.Dir(dest))
	switch {
	case perr != nil:
		return nil, fmt.Errorf("parent of the destination: %w", perr)
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case filepath.Dir(dest) == dest:
		return nil, fmt.Errorf("%w: %q is a root", ErrDestination, dest)
	case fi.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%w: %q is a symbolic link", ErrDestination, dest)
	case !fi.IsDir():
		return nil, fmt.Errorf("%w: %q is not a directory", ErrDestination, dest)
	case isMount(fi, parent):
		return nil, mountError(dest)
	case replace:
		return fi, nil
	}
	d, err := os.Open(dest)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); err != io.EOF {
		return nil, errors.Join(fmt.Errorf("%w: %q", ErrNotEmpty, dest), err)
	}
	return fi, nil
}

func mountError(dest string) error {
	return fmt.Errorf("%w: %q is a mount point, name a new folder in it", ErrDestination, dest)
}

// fillAndSync fills tree and brings it to stable storage. A directory that is
// replaced keeps its permissions.
func fillAndSync(tree string, old fs.FileInfo, fill func(*os.Root) (*Report, error)) (*Report, error) {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rep, err := fill(root)
	if err != nil {
		return nil, err
	}
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if old != nil {
		if err := d.Chmod(old.Mode().Perm()); err != nil {
			return nil, err
		}
	}
	if err := syncTree(d); err != nil {
		return nil, fmt.Errorf("syncing: %w", noSpaceError(err))
	}
	return rep, nil
}

// commit gives tree the name dest. What was at dest before ends up in staging.
func commit(tree, dest, staging string, old fs.FileInfo, replace bool) error {
	var err error
	if old == nil || !replace {
		err = renameDir(tree, dest)
	} else if err = swap(tree, dest); errors.Is(err, errNoSwap) {
		err = renameTwice(tree, dest, filepath.Join(staging, "old"))
	}
	switch {
	case errors.Is(err, fs.ErrExist): // also ENOTEMPTY
		return fmt.Errorf("%w: %q was filled meanwhile", ErrNotEmpty, dest)
	case isBusy(err):
		return mountError(dest)
	case err != nil:
		return fmt.Errorf("renaming to %q: %w", dest, noSpaceError(err))
	}
	if err := syncDir(filepath.Dir(dest)); err != nil {
		return fmt.Errorf("%q is complete, but syncing the folder it is in: %w", dest, err)
	}
	return nil
}

// renameTwice replaces dest where the system can not swap two names. It is not
// atomic: when the process dies in between, dest is missing, and the old and
// the new content are both in the staging directory.
func renameTwice(tree, dest, aside string) error {
	if err := os.Rename(dest, aside); err != nil {
		return err
	}
	if err := renameDir(tree, dest); err != nil {
		return errors.Join(err, os.Rename(aside, dest))
	}
	return nil
}

func noSpaceError(err error) error {
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
