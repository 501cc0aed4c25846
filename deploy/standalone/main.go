// Command standalone runs all of Uptake on one machine, for trying it out: the
// log, ClickHouse and the three services, with data that survives a restart.
package main

import (
	"flag"
	"fmt"
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
	set := flag.NewFlagSet("standalone", flag.ContinueOnError)
	set.SetOutput(stderr)
	cfg := machine.DefaultConfig()
	cfg.Flags(set)
	logFormat := set.String("log-format", "text", "text or json")
	logLevel := set.String("log-level", "info", "debug, info, warn or error")
	check := set.Bool("check", false, "check the settings and exit")
	rest, err := setting.Parse(set, args, getenv)
	if err != nil {
		return usageError(err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: unexpected argument %q", process.ErrUsage, rest[0])
	}
	logger, err := process.NewLogger(stderr, *logFormat, *logLevel)
	if err != nil {
		return usageError(err)
	}
	m, err := machine.New(cfg, machine.Dependencies{Logger: logger, Out: stdout})
	if err != nil {
		return usageError(err)
	}
	if *check {
		return nil
	}
	logger.Info("settings in force", setting.Effective(set)...)
	signals, release := process.Notify()
	defer release()
	return m.Run(signals)
}

// usageError marks err as one about the command line, unless help was asked for.
func usageError(err error) error {
	if err == flag.ErrHelp { //nolint:errorlint // the flag package returns it bare
		return err
	}
	return fmt.Errorf("%w: %w", process.ErrUsage, err)
}
