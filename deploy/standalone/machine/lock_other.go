//go:build !unix

package machine

import (
	"errors"
	"os"
)

var errLocked = errors.New("locked")

func tryLock(*os.File) error { return nil }
