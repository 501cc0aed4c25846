package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// invocation is one command with its settings.
type invocation struct {
	args   []string
	getenv func(string) (string, bool)
	stderr io.Writer

	set                 *flag.FlagSet
	cfg                 rollup.Config
	logFormat, logLevel *string
}

// flags makes the flag set that every command has.
func (c *invocation) flags(command string) *flag.FlagSet {
	c.set = flag.NewFlagSet("rollup-writer "+command, flag.ContinueOnError)
	c.set.SetOutput(c.stderr)
	c.cfg = rollup.DefaultConfig()
	c.cfg.Flags(c.set)
	c.logFormat = c.set.String("log-format", "text", "text or json")
	c.logLevel = c.set.String("log-level", "info", "debug, info, warn or error")
	return c.set
}

// parse reads the settings and returns the logger they ask for.
func (c *invocation) parse() (*slog.Logger, error) {
	rest, err := setting.Parse(c.set, c.args, c.getenv)
	if err != nil {
		return nil, usageError(err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: unexpected argument %q", process.ErrUsage, rest[0])
	}
	logger, err := process.NewLogger(c.stderr, *c.logFormat, *c.logLevel)
	if err != nil {
		return nil, usageError(err)
	}
	if err := c.cfg.Validate(); err != nil {
		return nil, usageError(err)
	}
	return logger, nil
}
