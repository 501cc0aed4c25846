package main

import (
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// recount exits with 0 when audit_blocks has all counts that the log has.
func recount(c *invocation) error {
	c.flags("recount")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	stored, err := repair.Recount(signals.Stop, c.cfg.Config, logger)
	if stored > 0 || err == nil {
		logger.Info("counts stored again", "records", stored)
	}
	return err
}
