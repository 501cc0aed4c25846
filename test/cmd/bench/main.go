// Command bench measures the CPU cost of an event in each service, beside its
// floor, and of the hot parts as Go benchmarks, and writes the figures to
// docs/performance.json and as tables into docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
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

// invocation is what the command line says beside the load.
type invocation struct {
	commit    string // what is measured
	json, doc string
	benchtime string
	rollups   time.Duration // measure layouts of the rollups, not the stages
	columns   bool          // layouts by column, not by view
	layouts   setting.Strings
	protocol  bool // measure what exactly-once costs, not the stages
	growth    bool // measure stages as what they know grows
	settings  bool // measure the enricher under other settings
	match     string
}

func run() (err error) {
	cfg, inv, err := parse(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var micro []bench.Micro
	if inv.benchtime != "" {
		if micro, err = bench.MicroRun(ctx, inv.benchtime, os.Stderr); err != nil {
			return err
		}
	}
	if cfg.Dir, err = os.MkdirTemp("", "uptake-bench-"); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, stack.Cleanup())
		if err == nil {
			err = os.RemoveAll(cfg.Dir) // else the logs in it say more
		}
	}()
	if inv.growth {
		grown, err := bench.Growth(ctx, cfg, inv.match)
		table := bench.GrowthTable(grown)
		fmt.Print(table)
		if inv.match == "" && err == nil { // the document has the whole
			err = inv.splice("growth", table)
		}
		return errors.Join(inv.merge(bench.GrowthValues(grown)), err)
	}
	if inv.settings {
		measured, err := bench.Settings(ctx, cfg, inv.match)
		return errors.Join(bench.WriteSettings(os.Stdout, measured), err)
	}
	if inv.protocol {
		costs, audit, err := bench.Protocol(ctx, cfg)
		if err != nil {
			return err
		}
		table := bench.ProtocolTable(costs, audit)
		fmt.Print(table)
		return errors.Join(inv.merge(bench.ProtocolValues(costs, audit)), inv.splice("protocol", table))
	}
	if inv.rollups > 0 {
		costs, err := bench.Rollups(ctx, cfg, inv.columns, inv.layouts, inv.rollups)
		if err != nil {
			return err
		}
		if !inv.columns {
			err = inv.merge(bench.RollupValues(costs))
		}
		return errors.Join(bench.WriteRollups(os.Stdout, costs), err)
	}
	figures, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n%s", bench.Machine(), bench.Table(figures))
	return inv.write(figures, micro)
}

func parse(args []string) (bench.Config, invocation, error) {
	cfg := bench.DefaultConfig()
	for _, a := range args {
		if a == "-full" || a == "--full" {
			cfg = bench.FullConfig() // before the flags that change it
		}
	}
	cfg.Progress = os.Stderr
	inv := invocation{commit: commit()} // before files change
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.Bool("full", false, "the load of docs/performance.md, as make bench has it: 9 million known message ids, 1 million identities")
	set.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "`rounds` of each stage")
	set.IntVar(&cfg.Partitions, "partitions", cfg.Partitions, "partitions of the topics")
	set.IntVar(&cfg.SingleRequests, "single-requests", cfg.SingleRequests, "requests of one event, per round")
	set.IntVar(&cfg.BatchRequests, "batch-requests", cfg.BatchRequests, "requests of batch-events, per round")
	set.IntVar(&cfg.BatchEvents, "batch-events", cfg.BatchEvents, "events of a batch request")
	set.IntVar(&cfg.Connections, "connections", cfg.Connections, "connections to the gateway")
	set.Var((*setting.Strings)(&cfg.GatewayArgs), "gateway-args", "comma-separated further `arguments` of the gateway of the first two stages, such as -linger,5ms")
	set.IntVar(&cfg.EnricherEvents, "enricher-events", cfg.EnricherEvents, "events through the enricher, per round")
	set.IntVar(&cfg.KnownIDs, "known-ids", cfg.KnownIDs, "message ids that the enricher knows beforehand")
	set.IntVar(&cfg.KnownIdentities, "known-identities", cfg.KnownIdentities, "users, each with an anonymous id, that the enricher knows beforehand")
	set.IntVar(&cfg.Features, "features", cfg.Features, "features of the catalog")
	set.IntVar(&cfg.RuleFeatures, "rule-features", cfg.RuleFeatures, "of these, found by a rule")
	set.IntVar(&cfg.Properties, "properties", cfg.Properties, "properties of an event of enricher and writer")
	set.IntVar(&cfg.Accounts, "accounts", cfg.Accounts, "accounts that events name")
	set.IntVar(&cfg.WriterEvents, "writer-events", cfg.WriterEvents, "events through the writer, per round")
	set.IntVar(&cfg.PathRate, "path-rate", cfg.PathRate, "events per second through the whole path")
	set.IntVar(&cfg.PathSeconds, "path-seconds", cfg.PathSeconds, "seconds of the whole path, per round")
	set.Var((*setting.Strings)(&cfg.Stages), "stages", "comma-separated stages of "+strings.Join(bench.StageNames(), ", ")+"; empty: all")
	set.StringVar(&cfg.ProfileDir, "profile", "", "`folder` for a CPU profile of each process")
	set.StringVar(&inv.benchtime, "benchtime", "", "run the Go benchmarks of the hot parts too, each for this `time`, such as 200ms")
	set.DurationVar(&inv.rollups, "rollups", 0, "instead of the stages: insert under each layout of the rollups in turns, for this `time`")
	set.BoolVar(&inv.columns, "rollup-columns", false, "with -rollups: layouts by column of usage_hourly's key")
	set.Var(&inv.layouts, "rollup-layouts", "with -rollups: comma-separated layouts of "+strings.Join(bench.LayoutNames(false), ", ")+"; with -rollup-columns of "+strings.Join(bench.LayoutNames(true), ", ")+"; empty: all of them")
	set.BoolVar(&inv.protocol, "protocol", false, "instead of the stages: a writer with and without tokens, windows and counts")
	set.BoolVar(&inv.growth, "growth", false, "instead of the stages: enricher, writer and gateway at 1, 10 and 100 times what they know")
	set.BoolVar(&inv.settings, "settings", false, "instead of the stages: the enricher under other settings, in turns")
	set.StringVar(&inv.match, "growth-of", "", "with -growth and -settings: only what has this `text` in its stage or name, such as \"writer partitions\"")
	set.IntVar(&cfg.Keys, "keys", cfg.Keys, "different property keys over all events; up to properties: the same in each")
	set.StringVar(&inv.json, "out", "", "`file` for the figures as JSON, such as docs/performance.json; what is not measured keeps its value")
	set.StringVar(&inv.doc, "doc", "", "Markdown `file` whose tables are replaced, such as docs/performance.md")
	if err := set.Parse(args); err != nil {
		return cfg, inv, err
	}
	if err := cfg.Validate(); err != nil {
		return cfg, inv, fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	return cfg, inv, nil
}

// merge puts values into the file with the figures.
func (i invocation) merge(values map[string]any) error {
	if i.json == "" || len(values) == 0 {
		return nil
	}
	previous, err := i.previous()
	if err != nil {
		return err
	}
	text, err := bench.Merge(previous, values)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(i.json), text, 0o644)
}

func (i invocation) previous() ([]byte, error) {
	text, err := os.ReadFile(filepath.Clean(i.json))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (i invocation) write(figures []bench.Figure, micro []bench.Micro) error {
	if i.json != "" {
		previous, err := i.previous()
		if err != nil {
			return err
		}
		text, err := bench.JSON(previous, figures, micro, i.commit, time.Now())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Clean(i.json), text, 0o644); err != nil {
			return err
		}
	}
	var errs []error
	if len(figures) > 0 {
		errs = append(errs, i.splice("stages", bench.Table(figures)))
	}
	if len(micro) > 0 {
		errs = append(errs, i.splice("benchmarks", bench.MicroTable(micro)))
	}
	return errors.Join(errs...)
}

// splice puts a table into the document, if there is one, and says above it
// where it comes from.
func (i invocation) splice(name, table string) error {
	if i.doc == "" {
		return nil
	}
	doc, err := os.ReadFile(filepath.Clean(i.doc))
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%s; commit %s; %s.\n\n", bench.Machine(), i.commit, time.Now().UTC().Format(time.DateOnly))
	text, err := bench.Splice(string(doc), name, head+table)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Clean(i.doc), []byte(text), 0o644)
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
