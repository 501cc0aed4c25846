//go:build !linux

package embedded

import "os"

func scratchBase() string { return os.TempDir() }
