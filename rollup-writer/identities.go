package main

import (
	"io"

	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// exportIdentities writes what ClickHouse knows of identities, for a Kafka that was
// lost.
func exportIdentities(c *invocation) error {
	set := c.flags("identity export")
	to := set.String("to", "", "`file` to write, gzipped, which must not exist; only its owner may read it. Default: standard output")
	without := set.Bool("without-erasures", false, "write the file although the topic of identity state, which alone knows who was erased, holds nothing")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	return intoFile(*to, c.stdout, func(w io.Writer) error {
		calls, err := repair.ExportIdentities(signals.Stop, c.cfg.Config, *without, logger, w)
		if err == nil {
			logger.Info("identities exported", "calls", calls, "to", *to)
		}
		return err
	})
}
