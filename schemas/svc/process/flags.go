package process

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// Flags are the flags of one command. Those of the log are defined already; the command
// adds its own before Parse.
type Flags struct {
	*flag.FlagSet
	stderr        io.Writer
	format, level *string
}

// NewFlags returns the flags of a command, such as "enricher serve". level is the
// default log level: info, or warn for a command whose result on standard output is
// what people read. Help and the log go to stderr.
func NewFlags(name, level string, stderr io.Writer) *Flags {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stderr)
	return &Flags{
		FlagSet: set, stderr: stderr,
		format: set.String("log-format", "text", "`format` of log lines: text or json"),
		level:  set.String("log-level", level, "lowest `level` that is logged: debug, info, warn or error"),
	}
}

// Parse reads the settings from args, the environment and the file of -config,
// validates them, and returns the configured logger. It accepts no arguments after the
// flags. Faults are ErrUsage; flag.ErrHelp is returned unchanged.
func (f *Flags) Parse(args []string, getenv func(string) (string, bool), validate ...func() error) (*slog.Logger, error) {
	rest, err := setting.Parse(f.FlagSet, args, getenv)
	if err != nil {
		return nil, UsageError(err)
	}
	logger, err := NewLogger(f.stderr, *f.format, *f.level)
	faults := []error{err}
	if len(rest) > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q", rest[0]))
	}
	for _, v := range validate {
		faults = append(faults, v())
	}
	return logger, UsageError(errors.Join(faults...))
}

// UsageError marks err as one about the command line or the settings, unless help
// was asked for. It returns nil for nil.
func UsageError(err error) error {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUsage, err)
}
