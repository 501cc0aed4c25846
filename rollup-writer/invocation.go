package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// invocation is one run of a command, with its settings.
type invocation struct {
	args   []string
	getenv func(string) (string, bool)
	stdout io.Writer
	stderr io.Writer

	set *process.Flags
	cfg rollup.Config
}

// flags returns a flag set with the flags that every command has.
func (c *invocation) flags(command string) *flag.FlagSet {
	c.set = process.NewFlags("rollup-writer "+command, "info", c.stderr)
	c.cfg = rollup.DefaultConfig()
	c.cfg.Flags(c.set.FlagSet)
	return c.set.FlagSet
}

// parse reads the settings (those of the writer, and those that validate checks) and
// returns the configured logger.
func (c *invocation) parse(validate ...func() error) (*slog.Logger, error) {
	return c.set.Parse(c.args, c.getenv, append(validate, c.cfg.Validate)...)
}

// database returns an error if the database does not exist.
func (c *invocation) database(ctx context.Context) error {
	has, err := clickhouse.HasDatabase(ctx, &c.cfg.ClickHouse)
	if err != nil || has {
		return err
	}
	return fmt.Errorf("no database %s: see `rollup-writer migrate`", c.cfg.ClickHouse.Database)
}
