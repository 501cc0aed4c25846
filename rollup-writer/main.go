// Command rollup-writer writes enriched and rejected events into ClickHouse, each
// exactly once into every table.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func main() {
	os.Exit(process.Main(os.Stderr, "rollup-writer", func() error {
		return run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	}))
}

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	command := func(name, summary string, do func(c *invocation) error) process.Command {
		return process.Command{Name: name, Summary: summary, Run: func(args []string) error {
			return do(&invocation{args: args, getenv: getenv, stdout: stdout, stderr: stderr})
		}}
	}
	program := process.Program{Name: "rollup-writer", Default: "serve", Commands: []process.Command{
		command("serve", "write to ClickHouse until stopped", serve),
		command("migrate", "create the databases, tables and views, or bring them up to date; with -roles also who may read and write them", migrate),
		command("init", "commit the start offsets of a new installation; run it once, after migrate", initialize),
		command("rebuild", "repair the tables of an app, with all writers stopped", rebuild),
		command("audit", "account for every accepted event and compare events with every rollup; writers may run", compare),
		command("recount", "store counts of the enrichers again that audit reports as lost; writers may run", recount),
		command("replay-rejected", "send rejected events again, repaired by a patch, under their message ids", replayRejected),
		command("retention", "delete events after the retention of the privacy rules", retain),
		command("cluster", "group users or accounts by how they use the product, and store what sets each group apart", cluster),
		command("console", "serve the web pages; only reads ClickHouse", serveConsole),
		command("annotate", "put a release or another event on the time axes of an app's charts", annotate),
		command("erase", "delete a person's data and report what remains; enrichers and writers must run", runErase),
		command("export", "write all that is held of a person, as JSON lines; changes nothing", runExport),
		command("backup", "back up ClickHouse, with the offsets up to which it holds the log; writers pause meanwhile", backup),
		command("restore", "put a backup into empty tables and apply the erasures since; writers must be stopped", restore),
		{Name: "identity", Group: &process.Program{Commands: []process.Command{
			command("export", "write the calls from which identities were learnt, for a Kafka that was lost", exportIdentities),
		}}},
		{Name: "alerts", Group: &process.Program{
			Default: "serve",
			Commands: []process.Command{
				command("serve", "evaluate segments and alerts and deliver what they say, until stopped", serveAlerts),
				command("list", "print the alerts log: what fired, why, and what became of it", listAlerts),
				command("ack", "acknowledge an alert, with feedback", acknowledge),
				command("redeliver", "send a message again, also one that was given up", redeliver),
			},
			Notes: "docs/signals.md describes definitions, targets and commands.\n",
		}},
		{Name: "insight", Group: &process.Program{
			Commands: []process.Command{
				command("lint", "check a file, and with -catalog-file what it names", lintInsight),
				command("plan", "show what an apply would change, and whom it would touch today", planInsight),
				command("apply", "make a file the definitions in force", applyInsight),
				command("show", "print the file in force", showInsight),
				command("backtest", "show when an alert would have fired, on history as now known", backtest),
			},
			Notes: "docs/insights.md describes the format.\n",
		}},
	}}
	return program.Run(args, stdout, stderr)
}

func serve(c *invocation) error {
	metricsAddr := c.flags("serve").String("metrics-addr", "127.0.0.1:9103", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	check := c.set.Bool("check", false, "check the settings and exit")
	logger, err := c.parse()
	if err != nil || *check {
		return err
	}
	logger.Info("settings in force", setting.Effective(c.set.FlagSet)...)

	signals, release := process.Notify()
	defer release()
	reg := ops.NewRegistry()
	var health ops.Health
	server, err := ops.Listen(*metricsAddr, ops.Handler(reg, &health), logger)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(signals.Kill) }() // cuts off only scrapes of metrics
	service, err := rollup.New(c.cfg, rollup.Dependencies{Logger: logger, Metrics: reg, Health: &health, Now: failpoint.Now})
	if err != nil {
		return err
	}
	return service.Run(signals)
}

func initialize(c *invocation) error {
	set := c.flags("init")
	without := set.Bool("without-identities", false, "begin although ClickHouse knows identities and the topic of identity state does not: links and memberships are learnt again, and erasures are not known")
	reset := set.Bool("reset", false, "commit the offsets after the newest rows in ClickHouse, replacing existing commits; all writers must be stopped; rows that this skips come back with rebuild -from-log")
	logger, err := c.parse()
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	if *reset {
		return repair.Reset(signals.Stop, c.cfg.Config, *without, logger)
	}
	return repair.Init(signals.Stop, c.cfg.Config, *without, logger)
}

// compare exits with 0 if the tables agree and with 1 if they differ, or if Kafka was to
// be asked what is in flight and did not say. If it cannot read something else, it exits
// with 1, prints the error on standard error, and prints no report.
func compare(c *invocation) (err error) {
	set := c.flags("audit")
	cfg := audit.DefaultConfig()
	cfg.Flags(set)
	script := set.Bool("json", false, "write JSON, for scripts")
	inFlight := set.Int("in-flight-records", 1_000_000, "read at most this many `records` of the log to count events in flight; 0: do not read Kafka")
	logger, err := c.parse(cfg.Validate)
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
	schema := c.cfg.ClickHouse.Schema()
	report, err := audit.Run(signals.Stop, conn, schema, cfg)
	if err != nil {
		return err
	}
	var tail audit.Log
	if *inFlight > 0 {
		tail = repair.NewTail(c.cfg.Config, logger, *inFlight)
	}
	if report.Conservation, err = audit.Conserve(signals.Stop, conn, schema, cfg, tail); err != nil {
		return err
	}
	tables := report.Equal
	report.Equal = report.Equal && report.Conservation.Balanced
	write := report.WriteText
	if *script {
		write = report.WriteJSON
	}
	if err := write(c.stdout); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	switch {
	case report.Equal:
		return nil
	case tables && len(report.Conservation.Findings) == 0 && report.Conservation.InFlight != "":
		return audit.ErrUnknown
	}
	return audit.ErrDifferent
}
