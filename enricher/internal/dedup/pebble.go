package dedup

import (
	"fmt"
	"log/slog"
	"os"
)

// pebbleLogger passes Pebble's log to the service's. Pebble calls Fatalf where it
// cannot continue, for example when its manifest cannot be written because the disk is
// full. The process then ends, and the next one reads the log from the last offset on
// disk. Continuing would not help: Pebble holds its locks forever in that state, and a
// process that ends frees its partitions for an instance with another disk.
type pebbleLogger struct{ l *slog.Logger }

func (p pebbleLogger) Infof(format string, args ...any) {
	p.l.Debug("pebble", "text", fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.Error("pebble failed", "text", fmt.Sprintf(format, args...))
}

func (p pebbleLogger) Fatalf(format string, args ...any) {
	p.l.Error("pebble failed; ending the process", "text", fmt.Sprintf(format, args...))
	os.Exit(1)
}
