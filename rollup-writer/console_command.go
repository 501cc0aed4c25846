package main

import (
	"errors"

	"github.com/uptakehq/uptake/rollup-writer/console"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// serveConsole serves the pages until it is told to stop.
func serveConsole(c *invocation) (err error) {
	set := c.flags("console")
	cfg := console.DefaultConfig()
	cfg.Flags(set)
	metricsAddr := set.String("metrics-addr", "127.0.0.1:9104", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	check := set.Bool("check", false, "check the settings and exit")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return usageError(err)
	}
	if *check {
		return nil
	}
	logger.Info("settings in force", setting.Effective(set)...)
	signals, release := process.Notify()
	defer release()
	conn, err := clickhouse.OpenSQL(&c.cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	reg := ops.NewRegistry()
	var health ops.Health
	server, err := ops.Listen(*metricsAddr, ops.Handler(reg, &health), logger)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(signals.Kill) }() // only readers of metrics are cut off
	service, err := console.New(cfg, console.Dependencies{Logger: logger, Metrics: reg, Conn: conn})
	if err != nil {
		return err
	}
	logger.Info("console reachable", "url", service.URL())
	return service.Run(signals)
}
