package main

import (
	"errors"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/behaviour"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// cluster groups users or accounts by behaviour, and prints and stores the clusters.
func cluster(c *invocation) (err error) {
	set := c.flags("cluster")
	cfg := behaviour.DefaultConfig()
	cfg.Flags(set)
	logger, err := c.parse(func() error { return cfg.Validate(time.Now()) })
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	if err := c.database(signals.Stop); err != nil {
		return err
	}
	conn, err := clickhouse.OpenSQL(&c.cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	grouped, err := behaviour.Run(signals.Stop, conn, c.cfg.ClickHouse.Schema(), &cfg, logger)
	if grouped != nil {
		err = errors.Join(err, grouped.WriteText(c.stdout, &cfg))
	}
	return err
}
