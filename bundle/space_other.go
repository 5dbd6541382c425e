//go:build !linux && !darwin && !windows

package bundle

import "errors"

// spaceOf does not know how to ask this system.
func spaceOf(string) (Space, error) { return Space{}, errors.ErrUnsupported }
