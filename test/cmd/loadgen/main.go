// Command loadgen sends a seeded week of MyPOS traffic to a gateway and, asked
// to, compares what ClickHouse then holds with what has to be there.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/loadgen"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := process.Main(os.Stderr, "loadgen", func() error { return run(ctx, os.Args[1:], os.Stdout, os.Stderr) })
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	plan := loadgen.DefaultConfig(time.Now())
	sender := loadgen.Sender{WriteKey: "dev-write-key", Workers: 8}
	urls := setting.Strings{"http://127.0.0.1:8080"}
	set := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	set.SetOutput(stderr)
	plan.Flags(set)
	set.Var(&urls, "urls", "comma-separated `URLs` of gateways")
	set.StringVar(&sender.WriteKey, "write-key", sender.WriteKey, "write `key` of the app")
	set.IntVar(&sender.Workers, "workers", sender.Workers, "how many `requests` at a time")
	set.Float64Var(&sender.Rate, "rate", 0, "`events` a second; 0: as fast as they are acked")
	ledgerFile := set.String("ledger", "", "`file` that keeps what was acked, so that a run that was ended goes on where it was")
	from := set.Int("from", 0, "first `request` of the plan to send")
	to := set.Int("to", 0, "`request` of the plan to stop before; 0: its end")
	server := set.String("compare", "", "`host:port` of ClickHouse's native protocol, to compare with once all is sent")
	database := set.String("database", "uptake", "`database` to compare")
	app := set.String("app", "dev", "`app` to compare")
	wait := set.Duration("wait", time.Minute, "how long to wait for the last events before comparing")
	if _, err := setting.Parse(set, args, os.LookupEnv); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	sender.URLs = urls
	p, err := loadgen.New(plan)
	if err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	if *to == 0 {
		*to = len(p.Requests)
	}
	if *from < 0 || *from > *to || *to > len(p.Requests) {
		return fmt.Errorf("%w: from and to must be within the plan's 0 to %d requests (got %d and %d)", process.ErrUsage, len(p.Requests), *from, *to)
	}
	ledger := loadgen.NewLedger()
	if *ledgerFile != "" {
		if ledger, err = loadgen.OpenLedger(*ledgerFile, p); err != nil {
			return err
		}
		defer ledger.Close()
	}
	total := 0
	for _, r := range p.Requests[*from:*to] {
		total += len(r.Events)
	}
	sender.Progress = loadgen.NewProgress(stderr, "sending", total, time.Now)
	start := time.Now()
	err = sender.Run(ctx, p, ledger, *from, *to)
	oracle := loadgen.NewOracle(*app, loadgen.Resolved)
	oracle.Add(p, ledger)
	took := time.Since(start)
	fmt.Fprintf(stdout, "%d requests with %d events in %s; %d distinct events acked, %d of unknown fate\n",
		*to-*from, total, took.Round(time.Millisecond), oracle.Acked(), oracle.Unknown())
	if err != nil || *server == "" {
		return err
	}
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{*server}})
	if err != nil {
		return fmt.Errorf("open ClickHouse %s: %w", *server, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, *wait)
	defer cancel()
	d, err := loadgen.AwaitEqual(ctx, conn, *database, oracle)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, d)
	if !d.Equal() {
		return fmt.Errorf("ClickHouse does not hold what was sent")
	}
	return nil
}
