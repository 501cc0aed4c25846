// Command enricher reads raw events, determines their actor, account and feature, and
// writes them to the enriched topic, each exactly once.
package main

import (
	"context"
	"flag"
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

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	identities := identitycli.Commands(getenv, stdout, stderr)
	identities.Commands = append(identities.Commands, process.Command{
		Name: "import", Summary: "make identity state of a file of `rollup-writer identity export`; enrichers must be stopped",
		Run: func(args []string) error { return learnAgain(args, getenv, stdout, stderr) },
	})
	program := process.Program{Name: "enricher", Default: "serve", Commands: append([]process.Command{
		{Name: "serve", Summary: "enrich events until stopped", Run: func(args []string) error { return serve(args, getenv, stderr) }},
		{Name: "topics", Group: topics(getenv, stdout, stderr)},
		{Name: "state", Group: state(getenv, stdout, stderr)},
		{Name: "identity", Group: identities},
	}, catalogcli.Commands(func() (context.Context, func()) {
		signals, release := process.Notify()
		return signals.Stop, release
	}, stdout, stderr, getenv)...)}
	return program.Run(args, stdout, stderr)
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
