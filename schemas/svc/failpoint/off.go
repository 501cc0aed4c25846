//go:build !failpoints

package failpoint

import (
	"errors"
	"time"
)

// Enabled tells whether this build has failpoints.
const Enabled = false

// Hit does nothing in this build.
func Hit(string) error { return nil }

// Reach does nothing in this build.
func Reach(string) {}

// On is false in this build.
func On(string) bool { return false }

// Set fails in this build: a test that relies on a plan must not pass without.
func Set(string) error {
	return errors.New("this build has no failpoints: build with -tags failpoints")
}

// Hits is 0 in this build.
func Hits(string) int { return 0 }

// Now is time.Now in this build.
func Now() time.Time { return time.Now() }
