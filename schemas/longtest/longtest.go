// Package longtest separates the tests that `make test` runs from their long
// forms, which `make test-long` runs. A test that takes minutes calls [Only]; a
// test whose number of random cases can grow asks [Enabled] for the number.
package longtest

import (
	"os"
	"testing"
)

// Env enables the long forms when it is "1". `make test-long` sets it.
const Env = "UPTAKE_LONG"

// Enabled reports whether the long forms were asked for.
func Enabled() bool { return os.Getenv(Env) == "1" }

// Only skips t unless the long forms were asked for.
func Only(t testing.TB) {
	t.Helper()
	if !Enabled() {
		t.Skip("long test: `make test-long` runs it")
	}
}
