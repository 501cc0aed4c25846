package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/rollup-writer/console"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// serveConsole serves the console's pages until the process is asked to stop. It has
// its own settings, and connects to Kafka only with console-feedback, console-notes and
// console-live.
func serveConsole(c *invocation) error {
	set := process.NewFlags("rollup-writer console", "info", c.stderr)
	cfg := console.DefaultConfig()
	cfg.Flags(set.FlagSet)
	feedback := set.Bool("console-feedback", false, "take feedback on alerts: writes to the alerts log in Kafka, with the kafka-* settings")
	metricsAddr := set.String("metrics-addr", "127.0.0.1:9104", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	check := set.Bool("check", false, "check the settings and exit")
	logger, err := set.Parse(c.args, c.getenv, cfg.Validate, cfg.Kafka.Validate)
	if err != nil {
		return err
	}
	reg := ops.NewRegistry()
	deps := console.Dependencies{Logger: logger, Metrics: reg}
	if *feedback {
		opts, err := cfg.Kafka.Options(logger, nil)
		if err != nil {
			return err
		}
		deps.Acknowledge = alert.Acknowledger(opts, cfg.Kafka.Names())
	}
	if *check {
		return nil
	}
	logger.Info("settings in force", setting.Effective(set.FlagSet)...)
	return untilStopped(*metricsAddr, reg, &ops.Health{}, logger, func(signals process.Signals) error {
		service, err := console.New(cfg, deps)
		if err != nil {
			return err
		}
		logger.Info("console reachable", "url", service.URL())
		return service.Run(signals)
	})
}

// untilStopped runs a process beside the writer, with its metrics at addr, until the
// process ends or is asked to stop.
func untilStopped(addr string, reg *prometheus.Registry, health *ops.Health, logger *slog.Logger, run func(process.Signals) error) error {
	signals, release := process.Notify()
	defer release()
	server, err := ops.Listen(addr, ops.Handler(reg, health), logger)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(signals.Kill) }() // cuts off only scrapes of metrics
	return run(signals)
}
