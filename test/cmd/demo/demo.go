package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// What the demo ends with when ClickHouse is wrong, and when events are missing
// that may still come.
var (
	errDifferent   = errors.New("what ClickHouse holds is not what was sent")
	errLate        = errors.New("the pipeline is late")
	errNotCompared = errors.New("the tables were not compared")
)

type settings struct {
	plan       loadgen.Config
	gateway    string // URL of a running one; empty: start a standalone
	clickhouse string
	user       string
	password   setting.Secret
	database   string
	app        string
	writeKey   string
	dir        string
	restart    bool
	wait       time.Duration
}

func run(ctx context.Context, args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) (err error) {
	s := settings{
		plan: loadgen.DefaultConfig(time.Now()), clickhouse: "127.0.0.1:9000", user: "uptake_reader",
		database: "uptake", app: "dev", writeKey: "dev-write-key", wait: 2 * time.Minute,
	}
	s.plan.Stories = true
	set := flag.NewFlagSet("demo", flag.ContinueOnError)
	set.SetOutput(stderr)
	s.plan.Flags(set)
	set.StringVar(&s.gateway, "gateway-url", "", "`URL` of a running gateway, such as http://127.0.0.1:8080; empty: the demo starts a standalone of its own")
	set.StringVar(&s.clickhouse, "clickhouse-addr", s.clickhouse, "`host:port` of the native protocol of its ClickHouse")
	set.StringVar(&s.user, "clickhouse-user", s.user, "`name` of a user who may read the database")
	set.Var(&s.password, "clickhouse-password", "`password` of that user, or file:PATH")
	set.StringVar(&s.database, "database", s.database, "ClickHouse `database`")
	set.StringVar(&s.app, "app", s.app, "`app` that the write key belongs to")
	set.StringVar(&s.writeKey, "write-key", s.writeKey, "write `key`")
	set.StringVar(&s.dir, "data", "", "`directory` of the own standalone, which is kept; empty: a temporary one, which is not")
	set.BoolVar(&s.restart, "restart", false, "stop the own standalone and start it again in the middle of the week")
	set.DurationVar(&s.wait, "wait", s.wait, "how long to wait for events when nothing moves")
	if _, err := setting.Parse(set, args, getenv); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	if s.restart && s.gateway != "" {
		return fmt.Errorf("%w: restart is for a standalone of the demo's own, not with gateway-url", process.ErrUsage)
	}
	// Two demos on one installation must not share ids: a message id that was
	// seen is a duplicate, rightly.
	if s.gateway != "" && s.plan.IDPrefix == "" {
		s.plan.IDPrefix = fmt.Sprintf("d%d-", time.Now().Unix())
	}
	p, err := loadgen.New(s.plan)
	if err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}

	var own *stack.Standalone
	if s.gateway == "" {
		if own, err = startOwn(ctx, &s, stderr); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, own.Close()) }()
		s.gateway, s.clickhouse = "http://"+own.Gateway, own.ClickHouse
	}
	ledger := loadgen.NewLedger()
	if err := send(ctx, s, p, ledger, own, stderr); err != nil {
		return err
	}
	oracle := loadgen.NewOracle(s.app, loadgen.Resolved)
	oracle.Add(p, ledger)
	fmt.Fprintf(stderr, "%d distinct events were acked; waiting until ClickHouse shows them\n", oracle.Acked())
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{s.clickhouse}, Auth: clickhouse.Auth{Username: s.user, Password: s.password.Reveal()}})
	if err != nil {
		return fmt.Errorf("open ClickHouse %s: %w", s.clickhouse, err)
	}
	defer conn.Close()
	if err := awaitAll(ctx, s, conn, oracle, stderr); err != nil {
		return err
	}
	return show(ctx, s, conn, oracle, p, stdout)
}

func startOwn(ctx context.Context, s *settings, stderr io.Writer) (*stack.Standalone, error) {
	keep := s.dir != ""
	if !keep {
		dir, err := os.MkdirTemp("", "uptake-demo-")
		if err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
		s.dir = dir
	}
	fmt.Fprintln(stderr, "building and starting a standalone in", s.dir)
	if !keep {
		fmt.Fprintln(stderr, "this directory is removed at the end; -data DIR keeps one, also with make demo ARGS='-data DIR'")
	}
	own, err := stack.StartStandalone(ctx, stack.StandaloneConfig{Dir: s.dir, Keep: keep, Progress: stderr})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(stderr, "gateway http://%s, ClickHouse %s and http://%s/play\n", own.Gateway, own.ClickHouse, own.ClickHouseHTTP)
	return own, nil
}

// send sends the whole plan; with restart, standalone is stopped in the middle
// of it, under load, and started again. What clients get meanwhile they retry.
func send(ctx context.Context, s settings, p *loadgen.Plan, ledger *loadgen.Ledger, own *stack.Standalone, stderr io.Writer) error {
	total := 0
	for _, r := range p.Requests {
		total += len(r.Events)
	}
	sender := loadgen.Sender{
		URLs: []string{s.gateway}, WriteKey: s.writeKey,
		Progress: loadgen.NewProgress(stderr, "sending", total, time.Now),
	}
	if !s.restart {
		return sender.Run(ctx, p, ledger, 0, len(p.Requests))
	}
	half := len(p.Requests) / 2
	if err := sender.Run(ctx, p, ledger, 0, half); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- sender.Run(ctx, p, ledger, half, len(p.Requests)) }() // waited for below
	restart := func() error {
		if err := own.Stop(ctx); err != nil {
			return err
		}
		return own.Start(ctx)
	}
	err := restart()
	if err != nil {
		return errors.Join(err, <-done)
	}
	return <-done
}

// awaitAll waits for as long as the pipeline is moving, and says how far behind it
// is. What has not arrived when nothing moved for s.wait is late, which is not to
// say that anything is wrong.
func awaitAll(ctx context.Context, s settings, conn driver.Conn, oracle *loadgen.Oracle, stderr io.Writer) error {
	last, moved, said := loadgen.Arrived{}, time.Now(), time.Now()
	for {
		got, err := loadgen.Arrival(ctx, conn, s.database, oracle)
		if err == nil && got.All() {
			return nil
		}
		now := time.Now()
		if err == nil && got != last {
			last, moved = got, now
		}
		if now.Sub(moved) >= s.wait {
			return fmt.Errorf("%w: nothing moved for %s (-wait): %s: %w", errLate, s.wait, last, cmp.Or(err, errNotCompared))
		}
		if now.Sub(said) >= 5*time.Second {
			said = now
			fmt.Fprintln(stderr, last)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func show(ctx context.Context, s settings, conn driver.Conn, oracle *loadgen.Oracle, p *loadgen.Plan, stdout io.Writer) error {
	// All events are in ClickHouse; their last block may still be on its way through
	// the rollups.
	waitCtx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	d, err := loadgen.AwaitEqual(waitCtx, conn, s.database, oracle)
	if err != nil {
		return err
	}
	for _, r := range reports(p) {
		if err := r.print(ctx, conn, s.database, s.app, stdout); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "\nCompared with what was sent, cell by cell (seed %d):\n\n%s\n", s.plan.Seed, d)
	if !d.Equal() {
		return errDifferent
	}
	fmt.Fprintln(stdout, "Every table holds exactly what was sent.")
	return nil
}
