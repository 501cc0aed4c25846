// Command standalone runs all of Uptake on one machine, for trying it out: the
// log, ClickHouse and the three services, with data that survives a restart.
package main

import (
	"io"
	"os"

	"github.com/uptakehq/uptake/deploy/standalone/machine"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func main() {
	embedded.ChildMain()
	os.Exit(process.Main(os.Stderr, "standalone", func() error {
		return run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	}))
}

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	if process.PrintVersion("standalone", args, stdout) {
		return nil
	}
	set := process.NewFlags("standalone", "info", stderr)
	cfg := machine.DefaultConfig()
	cfg.Flags(set.FlagSet)
	check := set.Bool("check", false, "check the settings and exit")
	logger, err := set.Parse(args, getenv)
	if err != nil {
		return err
	}
	m, err := machine.New(cfg, machine.Dependencies{Logger: logger, Out: stdout})
	if err != nil {
		return process.UsageError(err)
	}
	if *check {
		return nil
	}
	logger.Info("settings in force", setting.Effective(set.FlagSet)...)
	signals, release := process.Notify()
	defer release()
	return m.Run(signals)
}
