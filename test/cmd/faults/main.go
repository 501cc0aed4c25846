// Command faults breaks an installation of its own in seeded ways under traffic,
// recounts after each round, and prints what each kind of fault did.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/test/faults"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func main() {
	embedded.ChildMain()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := process.Main(os.Stderr, "faults", func() error {
		err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		return errors.Join(err, stack.Cleanup())
	})
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c := faults.Config{Seed: uint64(time.Now().Unix()), Faults: 500, Out: stderr}
	var kinds setting.Strings
	set := flag.NewFlagSet("faults", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.IntVar(&c.Faults, "n", c.Faults, "how many `faults`")
	set.Uint64Var(&c.Seed, "seed", c.Seed, "`seed` of the run, to run it again; by default the time")
	set.IntVar(&c.PerRound, "per-round", 10, "`faults` between two recounts")
	set.IntVar(&c.Round, "round", 0, "only this `round` of the seed; 0: all")
	set.BoolVar(&c.Inside, "inside", false, "run the services inside this process: faster, and killed at single requests")
	set.BoolVar(&c.Classic, "classic", false, "speak the protocol of Kafka 3.7, whose transactions take more requests")
	set.DurationVar(&c.MaxPause, "max-pause", time.Minute, "longest `duration` that a zombie sleeps; the shortest is a second")
	set.IntVar(&c.Brokers, "brokers", 0, "3 for real Kafka; 0 for kfake in this process")
	set.Var(&kinds, "kinds", "comma-separated beginnings of `names`: only such faults")
	set.StringVar(&c.Control, "control", "", "`mistake` to switch on in the writers, which the recount has to see")
	set.DurationVar(&c.Time, "time", 0, "begin no further round after this `duration`; 0: do all")
	set.BoolVar(&c.KeepGoing, "keep-going", false, "run all rounds although one was found wrong")
	set.StringVar(&c.Dir, "dir", "", "`directory` for data and logs, kept; empty: a temporary one, kept when something is wrong")
	out := set.String("out", "", "`file` to write the report to after each round, as JSON, for -sum")
	sum := set.Bool("sum", false, "run nothing: print one table of the reports in the files that follow")
	ledger := set.String("ledger", "", "`file` to append the run to as a line, from the root of the repository: docs/faults.jsonl")
	page := set.String("page", "", "`page` whose table is made from docs/faults.jsonl: docs/faults.md; without -ledger nothing is run")
	list := set.Bool("list", false, "list the kinds of faults and exit")
	rest, err := setting.Parse(set, args, os.LookupEnv)
	if err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	if *sum {
		return total(stdout, rest)
	}
	if *page != "" && *ledger == "" {
		return table(*page, "docs/faults.jsonl")
	}
	if *ledger != "" && c.Control != "" {
		return fmt.Errorf("%w: a run with a mistake has no place in the ledger", process.ErrUsage)
	}
	c.Kinds = kinds
	if *list {
		for _, name := range faults.Names() {
			fmt.Fprintln(stdout, name)
		}
		return nil
	}
	temporary := c.Dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "uptake-faults-")
		if err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		c.Dir = dir
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	if *out != "" {
		c.Each = func(r *faults.Report) error { return save(*out, r) }
	}
	fmt.Fprintf(stderr, "seed %d, data and logs in %s\n", c.Seed, c.Dir)
	report, err := faults.Run(ctx, c)
	if report != nil {
		fmt.Fprintf(stdout, "\n%s", report)
		if *out != "" {
			err = errors.Join(err, save(*out, report)) // with what the last look back found
		}
		if *ledger != "" && report.Faults > 0 {
			err = errors.Join(err, record(ctx, report, *ledger, *page))
		}
	}
	if err != nil {
		return err
	}
	if !report.Clean() {
		return fmt.Errorf("events were lost or doubled, or did not come: data and logs are in %s", c.Dir)
	}
	if temporary {
		return os.RemoveAll(c.Dir)
	}
	return nil
}

// record appends a report to the ledger and makes the page's table again.
func record(ctx context.Context, r *faults.Report, ledger, page string) error {
	hash, err := faults.CodeHash(".")
	if err != nil {
		return err
	}
	commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return fmt.Errorf("ask git for the commit: %w", err)
	}
	if err := faults.AppendRow(ledger, faults.NewRow(r, strings.TrimSpace(string(commit)), hash, time.Now())); err != nil || page == "" {
		return err
	}
	return faults.WriteTable(page, ledger, hash)
}

func table(page, ledger string) error {
	hash, err := faults.CodeHash(".")
	if err != nil {
		return err
	}
	return faults.WriteTable(page, ledger, hash)
}

func save(path string, r *faults.Report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// total prints one table of several reports.
func total(stdout io.Writer, paths []string) error {
	var all []*faults.Report
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		var r faults.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("read report %s: %w", path, err)
		}
		all = append(all, &r)
	}
	fmt.Fprint(stdout, faults.Sum(all...))
	return nil
}
