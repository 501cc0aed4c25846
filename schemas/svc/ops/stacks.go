package ops

import (
	"errors"
	"os"
	"runtime"
)

// maxStacks bounds the bytes of all stacks.
const maxStacks = 4 << 20

// Stacks writes the stacks of all goroutines to a new temporary file, whose name has the
// given pattern, and returns its path, or why there is none. They show what a service that
// makes no progress waits for.
func Stacks(pattern string) string {
	stacks := make([]byte, maxStacks)
	stacks = stacks[:runtime.Stack(stacks, true)]
	f, err := os.CreateTemp("", pattern)
	if err != nil {
		return "not written: " + err.Error()
	}
	_, err = f.Write(stacks)
	if err = errors.Join(err, f.Close()); err != nil {
		return "not written: " + err.Error()
	}
	return f.Name()
}
