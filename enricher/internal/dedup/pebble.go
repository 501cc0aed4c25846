package dedup

import (
	"fmt"
	"log/slog"
	"os"
)

// pebbleLogger puts Pebble's log into the service's. Pebble calls Fatalf where
// it cannot go on, for example when its manifest cannot be written since the disk
// is full. The process ends then, and the next one reads the log from the last
// offset on disk. To outlive it would help nobody: Pebble holds its locks there
// for good, and a process that ends gives its partitions to another one's disk.
type pebbleLogger struct{ l *slog.Logger }

func (p pebbleLogger) Infof(format string, args ...any) {
	p.l.Debug("pebble", "text", fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.Error("pebble failed", "text", fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Fatalf(format string, args ...any) {
	p.l.Error("pebble cannot go on, the process ends", "text", fmt.Sprintf(format, args...))
	os.Exit(1)
}
