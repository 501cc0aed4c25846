//go:build !linux

package embedded

import (
	"errors"
	"os"
)

// confinement returns why a child cannot be confined on this machine.
func confinement() error {
	return errors.New("it can be confined on Linux only: here it can read the files of this user and run programs")
}

func confine(string, string) error { return nil } // the parent reports it

func childEnviron() []string { return os.Environ() }
