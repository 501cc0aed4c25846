// Command ingest-gateway receives product events over HTTP and writes them to Kafka.
// Events that it acks are durable.
package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/gateway"
	"github.com/uptakehq/uptake/ingest-gateway/geo"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

func main() {
	os.Exit(process.Main(os.Stderr, "ingest-gateway", func() error {
		return run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr)
	}))
}

func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	program := process.Program{Name: "ingest-gateway", Default: "serve", Commands: []process.Command{
		{Name: "serve", Summary: "accept events until stopped", Run: func(args []string) error { return serve(args, getenv, stderr) }},
		{Name: "key", Group: keyCommands(getenv, stdout, stderr, time.Now())},
	}}
	return program.Run(args, stdout, stderr)
}

// options are the settings of the process beside the gateway's.
type options struct {
	metricsAddr string
	check       bool
}

// flags defines all settings.
func flags(set *flag.FlagSet, cfg *gateway.Config) *options {
	var o options
	cfg.Flags(set)
	set.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9101", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	set.BoolVar(&o.check, "check", false, "check the settings, the key file, the privacy rules and the database of countries, and exit")
	return &o
}

func serve(args []string, getenv func(string) (string, bool), stderr io.Writer) error {
	set := process.NewFlags("ingest-gateway serve", "info", stderr)
	cfg := gateway.DefaultConfig()
	o := flags(set.FlagSet, &cfg)
	logger, err := set.Parse(args, getenv, cfg.Validate)
	if err != nil {
		return err
	}
	if o.check {
		_, err := keys.Load(cfg.Keys)
		if cfg.PrivacyFile != "" {
			_, bad := privacy.Load(cfg.PrivacyFile)
			err = errors.Join(err, bad)
		}
		_, bad := geo.Open(cfg.GeoFile)
		err = errors.Join(err, bad)
		return err
	}
	logger.Info("settings in force", setting.Effective(set.FlagSet)...)

	signals, release := process.Notify()
	defer release()
	reload, releaseReload := hangups()
	defer releaseReload()
	reg := ops.NewRegistry()
	var health ops.Health
	service, err := gateway.New(cfg, gateway.Dependencies{Logger: logger, Metrics: reg, Health: &health, Reload: reload, Now: failpoint.Now})
	if err != nil {
		return err
	}
	server, err := ops.Listen(o.metricsAddr, ops.Handler(reg, &health), logger)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(signals.Kill) }() // cuts off only scrapes of metrics
	return service.Run(signals)
}
