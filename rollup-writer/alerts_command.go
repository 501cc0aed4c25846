package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
)

func serveAlerts(c *invocation) error {
	set := process.NewFlags("rollup-writer alerts", "info", c.stderr)
	cfg := alert.DefaultConfig()
	cfg.Flags(set.FlagSet)
	metricsAddr := set.String("metrics-addr", "127.0.0.1:9105", "`host:port` of /metrics, /healthz, /readyz and /debug/pprof; empty for none")
	check := set.Bool("check", false, "check the settings and the files that they name, and exit")
	logger, err := set.Parse(c.args, c.getenv, cfg.Validate)
	if err != nil {
		return err
	}
	reg := ops.NewRegistry()
	var health ops.Health
	service, err := alert.New(cfg, alert.Dependencies{Logger: logger, Metrics: reg, Health: &health, Now: failpoint.Now})
	if err != nil || *check {
		return err
	}
	logger.Info("settings in force", setting.Effective(set.FlagSet)...)
	return untilStopped(*metricsAddr, reg, &health, logger, service.Run)
}

// withLog parses the flags of a command that needs only Kafka, opens a client and runs
// do.
func withLog(c *invocation, command string, flags func(set *process.Flags), validate func() error, do func(ctx context.Context, opts []kgo.Opt, names *topic.Names) error) error {
	set := process.NewFlags("rollup-writer alerts "+command, "warn", c.stderr)
	cfg := alert.DefaultConfig()
	cfg.Kafka.Flags(set.FlagSet)
	flags(set)
	logger, err := set.Parse(c.args, c.getenv, cfg.Kafka.Validate, validate)
	if err != nil {
		return err
	}
	opts, err := cfg.Kafka.Options(logger, nil)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	return do(signals.Stop, opts, cfg.Kafka.Names())
}

func listAlerts(c *invocation) error {
	var app *string
	var script *bool
	return withLog(c, "list", func(set *process.Flags) {
		app = set.String("app", "", "`id` of an app; empty: all")
		script = set.Bool("json", false, "write the records as JSON, one per line")
	}, func() error { return nil }, func(ctx context.Context, opts []kgo.Opt, names *topic.Names) error {
		log, err := alert.ReadLog(ctx, opts, names)
		if err != nil {
			return err
		}
		out := json.NewEncoder(c.stdout)
		for _, r := range log {
			switch {
			case *app != "" && r.App != *app:
			case *script:
				if err := out.Encode(r); err != nil {
					return err
				}
			default:
				fmt.Fprintf(c.stdout, "%s  %-12s %s %s %q: %s (%s, owner %s)\n", r.Written.Format(time.RFC3339), r.State, r.Signal, r.Level, r.Subject, r.Reason, r.AlertID, r.Owner)
			}
		}
		return nil
	})
}

func acknowledge(c *invocation) error {
	var id, by, feedback, note *string
	return withLog(c, "ack", func(set *process.Flags) {
		id = set.String("alert", "", "`id` of the alert, as list prints it")
		by = set.String("by", os.Getenv("USER"), "`name` of the person who acknowledges it")
		feedback = set.String("feedback", "", "useful, false_positive or empty")
		note = set.String("note", "", "`comment` on the alert, kept with it")
	}, func() error {
		if *id == "" || (*feedback != "" && *feedback != signal.Useful && *feedback != signal.FalsePositive) {
			return errors.New("alert must name an alert, and feedback must be useful, false_positive or empty")
		}
		return nil
	}, func(ctx context.Context, opts []kgo.Opt, names *topic.Names) error {
		if err := alert.Acknowledger(opts, names)(ctx, signal.Acknowledgement{AlertID: *id, By: *by, Feedback: *feedback, Note: *note}); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "alert %s is acknowledged\n", *id)
		return nil
	})
}

func redeliver(c *invocation) error {
	var id, target *string
	return withLog(c, "redeliver", func(set *process.Flags) {
		id = set.String("message", "", "`id` of the message, as received by the target or logged by the process")
		target = set.String("target", "", "`name` of the target")
	}, func() error {
		if *id == "" || *target == "" {
			return errors.New("message and target must be given")
		}
		return nil
	}, func(ctx context.Context, opts []kgo.Opt, names *topic.Names) error {
		if err := alert.Redeliver(ctx, opts, names, *id, *target, time.Now()); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "message %s will be sent to %s again\n", *id, *target)
		return nil
	})
}
