// Command enricher reads raw events, determines their actor, account and feature, and
// writes them to the enriched topic, each exactly once.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/uptakehq/uptake/enricher/enrich"
	"github.com/uptakehq/uptake/enricher/internal/catalogcli"
	"github.com/uptakehq/uptake/enricher/internal/identitycli"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func main() {
	os.Exit(process.Main(os.Stderr, "enricher", func() error {
		return run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	}))
}

const usage = `Usage: enricher [command] [flags]

Commands:
  serve           enrich events until stopped (the default)
  topics apply    create the topics that do not exist
  topics check    check the settings of the topics
  state export    write the compacted topics (identities, who was erased, catalogs, types, known ids) to a file
  state import    put such a file into empty topics; enrichers must be stopped
  identity show   show what is known about an id and from which record
  identity import make identity state of a file of 'rollup-writer identity export'; enrichers must be stopped
  identity unlink undo a wrong link and move back what it moved
` + catalogcli.Usage + `
Flags of a command: enricher <command> -help
Every flag can be given as UPTAKE_<FLAG> in the environment or in a -config file.
`

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	command, args := process.Command("enricher", usage, args, stdout, stderr)
	switch command {
	case "serve":
		return serve(args, getenv, stderr)
	case "topics":
		return topics(args, getenv, stdout, stderr)
	case "state":
		return state(args, getenv, stdout, stderr)
	case "identity":
		if len(args) > 0 && args[0] == "import" {
			return learnAgain(args[1:], getenv, stdout, stderr)
		}
		return identitycli.Run(args, getenv, stdout, stderr)
	case "catalog", "metadata":
		signals, release := process.Notify()
		defer release()
		return catalogcli.Main(signals.Stop, append([]string{command}, args...), stdout, stderr, getenv)
	case "": // -help or -version was printed
		return nil
	}
	return fmt.Errorf("%w: unknown command %q\n%s", process.ErrUsage, command, usage)
}

func serve(args []string, getenv func(string) (string, bool), stderr io.Writer) error {
	set := process.NewFlags("enricher serve", "info", stderr)
	f := newServeFlags(set.FlagSet)
	logger, err := set.Parse(args, getenv, f.cfg.Validate)
	if err != nil {
		return err
	}
	if f.check {
		return nil
	}
	logger.Info("settings in force", setting.Effective(set.FlagSet)...)

	signals, release := process.Notify()
	defer release()
	reg := ops.NewRegistry()
	var health ops.Health
	server, err := ops.Listen(f.metricsAddr, ops.Handler(reg, &health), logger)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(signals.Kill) }() // cuts off only scrapes of metrics
	service, err := enrich.New(f.cfg, enrich.Dependencies{Logger: logger, Metrics: reg, Health: &health, Now: failpoint.Now})
	if err != nil {
		return err
	}
	return service.Run(signals)
}

// serveFlags are the settings of serve.
type serveFlags struct {
	cfg         enrich.Config
	metricsAddr string
	check       bool
}

func newServeFlags(set *flag.FlagSet) *serveFlags {
	f := &serveFlags{cfg: enrich.DefaultConfig()}
	f.cfg.Flags(set)
	set.StringVar(&f.metricsAddr, "metrics-addr", "127.0.0.1:9102", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	set.BoolVar(&f.check, "check", false, "check the settings and exit")
	return f
}
