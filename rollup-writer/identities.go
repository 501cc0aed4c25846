package main

import (
	"fmt"
	"io"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// identities writes what ClickHouse knows of identities, for a Kafka that was lost.
func identities(c *invocation, stdout io.Writer) error {
	if len(c.args) == 0 || c.args[0] != "export" {
		return fmt.Errorf("%w: identity needs export", process.ErrUsage)
	}
	c.args = c.args[1:]
	set := c.flags("identity export")
	to := set.String("to", "", "`file` to write, gzipped, which must not exist; only its owner may read it. Default: standard output")
	without := set.Bool("without-erasures", false, "write the file although the topic of identity state, which alone knows who was erased, holds nothing")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	return intoFile(*to, stdout, func(w io.Writer) error {
		calls, err := repair.ExportIdentities(signals.Stop, c.cfg.Config, *without, logger, w)
		if err == nil {
			logger.Info("identities exported", "calls", calls, "to", *to)
		}
		return err
	})
}
