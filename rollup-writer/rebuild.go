package main

import (
	"errors"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// rebuild exits with 0 when the tables are correct; a dry run also exits with 0 when
// they are not. The report lists what was or would be changed.
func rebuild(c *invocation) error {
	set := c.flags("rebuild")
	what := repair.DefaultRebuildConfig()
	what.Flags(set)
	logger, err := c.parse(what.Validate)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	report, err := repair.Rebuild(signals.Stop, c.cfg.Config, what, logger)
	if report != nil && (err == nil || len(report.Changes) > 0) {
		err = errors.Join(report.WriteText(c.stdout), err)
	}
	return err
}
