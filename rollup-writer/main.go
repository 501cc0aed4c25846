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

const usage = `Usage: rollup-writer [command] [flags]

Commands:
  serve     write to ClickHouse until stopped (the default)
  migrate   create the databases, tables and views, or bring them up to date; with -roles also who may read and write them
  init      commit the start offsets of a new installation; run it once, after migrate
  rebuild   repair the tables of an app, with all writers stopped
  audit     account for every accepted event and compare events with every rollup; writers may run
  recount   store counts of the enrichers again that audit reports as lost; writers may run
  replay-rejected  send rejected events again, repaired by a patch, under their message ids
  retention  delete events after the retention of the privacy rules
  console   serve the web pages; reads only
  erase     delete a person's data and report what remains; enrichers and writers must run
  export    write all that is held of a person, as JSON lines; changes nothing
  backup    back up ClickHouse, with the offsets up to which it holds the log; writers pause meanwhile
  restore   put a backup into empty tables and apply the erasures since; writers must be stopped
  identity export  write the calls from which identities were learnt, for a Kafka that was lost
  alerts    evaluate segments and alerts, and deliver what they say
  insight   lint, plan, apply or show what views about usage go by: activity, exclusions, milestones

Flags of a command: rollup-writer <command> -help
Every flag can be given as UPTAKE_<FLAG> in the environment or in a -config file.
`

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	command, args := process.Command("rollup-writer", usage, args, stdout, stderr)
	c := &invocation{args: args, getenv: getenv, stderr: stderr}
	switch command {
	case "serve":
		return serve(c)
	case "migrate":
		return migrate(c, stdout)
	case "init":
		return initialize(c)
	case "rebuild":
		return rebuild(c, stdout)
	case "audit":
		return compare(c, stdout)
	case "recount":
		return recount(c)
	case "replay-rejected":
		return replayRejected(c, stdout)
	case "retention":
		return retain(c, stdout)
	case "erase":
		return runErase(c, stdout)
	case "export":
		return runExport(c, stdout)
	case "identity":
		return identities(c, stdout)
	case "backup":
		return backup(c, stdout)
	case "restore":
		return restore(c, stdout)
	case "console":
		return serveConsole(c)
	case "insight":
		return insights(c, stdout)
	case "alerts":
		return alerts(c, stdout)
	case "": // -help or -version was printed
		return nil
	}
	return fmt.Errorf("%w: unknown command %q\n%s", process.ErrUsage, command, usage)
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

// compare exits with 0 if the tables agree and with 1 if they differ. If it cannot read
// something, it exits with 1, prints the error on standard error, and prints no report.
func compare(c *invocation, stdout io.Writer) (err error) {
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
	report.Equal = report.Equal && report.Conservation.Balanced
	write := report.WriteText
	if *script {
		write = report.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if !report.Equal {
		return audit.ErrDifferent
	}
	return nil
}
