package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/uptakehq/uptake/rollup-writer/internal/replay"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// replayRejected exits with 0 when everything that can be sent was sent, even if some
// of the selected events are skipped: the report (on standard error in a dry run) gives
// the reason.
func replayRejected(c *invocation) error {
	set := c.flags("replay-rejected")
	what := replay.DefaultConfig()
	what.Flags(set)
	script := set.Bool("json", false, "write the report as JSON, for scripts")
	logger, err := c.parse(what.Validate)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	report, err := repair.ReplayRejected(signals.Stop, c.cfg.Config, what, logger, c.stdout)
	if report == nil {
		return err
	}
	to := c.stdout
	if what.DryRun {
		to = c.stderr
	}
	write := report.WriteText
	if *script {
		write = func(w io.Writer) error { return json.NewEncoder(w).Encode(report) }
	}
	if fault := write(to); fault != nil {
		err = errors.Join(err, fmt.Errorf("write report: %w", fault))
	}
	return err
}
