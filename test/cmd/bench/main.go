// Command bench measures the CPU cost of an event in each service, beside its
// floor, and writes the figures to docs/performance.json and as a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/bench"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func main() {
	embedded.ChildMain()
	bench.FloorMain()
	os.Exit(process.Main(os.Stderr, "bench", run))
}

func run() (err error) {
	cfg := bench.DefaultConfig()
	cfg.Progress = os.Stderr
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "`rounds` of each stage")
	set.IntVar(&cfg.SingleRequests, "single-requests", cfg.SingleRequests, "requests of one event, per round")
	set.IntVar(&cfg.BatchRequests, "batch-requests", cfg.BatchRequests, "requests of batch-events, per round")
	set.IntVar(&cfg.BatchEvents, "batch-events", cfg.BatchEvents, "events of a batch request")
	set.IntVar(&cfg.Connections, "connections", cfg.Connections, "connections to the gateway")
	set.IntVar(&cfg.EnricherEvents, "enricher-events", cfg.EnricherEvents, "events through the enricher, per round")
	set.IntVar(&cfg.KnownIDs, "known-ids", cfg.KnownIDs, "message ids that the enricher knows beforehand")
	set.IntVar(&cfg.Properties, "properties", cfg.Properties, "properties of an event of enricher and writer")
	set.IntVar(&cfg.WriterEvents, "writer-events", cfg.WriterEvents, "events through the writer, per round")
	set.Var((*setting.Strings)(&cfg.Stages), "stages", "comma-separated stages of "+strings.Join(bench.StageNames(), ", ")+"; empty: all")
	out := set.String("out", "", "`file` for the figures as JSON, such as docs/performance.json")
	if err := set.Parse(os.Args[1:]); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if cfg.Dir, err = os.MkdirTemp("", "uptake-bench-"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, stack.Cleanup())
		if err == nil {
			err = os.RemoveAll(cfg.Dir) // else the logs in it say more
		}
	}()
	figures, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n%s", bench.Machine(), bench.Table(figures))
	if *out == "" {
		return nil
	}
	text, err := bench.JSON(figures, commit(), time.Now())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(*out), text, 0o644)
}

// commit names what was measured.
func commit() string {
	hash, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	dirty, err := exec.Command("git", "status", "--porcelain", "-uno").Output()
	if err != nil || len(dirty) > 0 {
		return strings.TrimSpace(string(hash)) + "+changes"
	}
	return strings.TrimSpace(string(hash))
}
