// Command import sends an export of Segment, PostHog, Mixpanel or Amplitude, or CSV,
// to a gateway: go run ./deploy/import -from posthog events.jsonl -gateway URL -key KEY
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/uptakehq/uptake/deploy/importer"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// keyEnv holds the write key for those who do not want it among the arguments.
const keyEnv = "UPTAKE_WRITE_KEY"

func main() {
	os.Exit(process.Main(os.Stderr, "import", func() error {
		return run(os.Args[1:], os.Getenv, os.Stderr)
	}))
}

func run(args []string, getenv func(string) string, stderr io.Writer) error {
	cfg := importer.DefaultConfig()
	set := flag.NewFlagSet("import", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&cfg.From, "from", "", "what the export is of: "+strings.Join(importer.Sources(), ", "))
	set.StringVar(&cfg.Gateway, "gateway", cfg.Gateway, "`URL` of the gateway")
	set.StringVar(&cfg.Key, "key", "", "write `key` of the app; better in "+keyEnv)
	set.StringVar(&cfg.State, "state", "", "`file` that says how far the import is; FILE.import-state.json if empty")
	set.Func("map", "of csv: columns of `FIELD=COLUMN,...`, such as event=Action,userId=Email,timestamp=When; the others are properties", func(s string) error {
		if cfg.Map == nil {
			cfg.Map = map[string]string{}
		}
		for pair := range strings.SplitSeq(s, ",") {
			field, column, ok := strings.Cut(pair, "=")
			if !ok || column == "" {
				return fmt.Errorf("want FIELD=COLUMN (got %q)", pair)
			}
			cfg.Map[field] = column
		}
		return nil
	})
	set.StringVar(&cfg.Zone, "zone", "", "IANA `name` of the time zone of times that name none, such as those of Mixpanel projects made before 2023; UTC if empty")
	set.DurationVar(&cfg.MaxAge, "max-age", cfg.MaxAge, "the enricher's time-max-age; an export with older events is refused before anything is sent")
	set.BoolVar(&cfg.History, "history", false, "events count at their time however old they are")
	set.IntVar(&cfg.BatchEvents, "batch-events", cfg.BatchEvents, "events of one request")
	set.IntVar(&cfg.BatchBytes, "batch-bytes", cfg.BatchBytes, "`bytes` of one request before packing")
	set.IntVar(&cfg.MaxLineBytes, "max-line-bytes", cfg.MaxLineBytes, "`bytes` of a line; longer ones are skipped")
	set.DurationVar(&cfg.Progress, "progress", cfg.Progress, "between lines of progress")
	set.DurationVar(&cfg.RetryMin, "retry-min", cfg.RetryMin, "pause before sending again, doubled each time")
	set.DurationVar(&cfg.RetryMax, "retry-max", cfg.RetryMax, "longest pause")
	set.DurationVar(&cfg.Timeout, "timeout", cfg.Timeout, "of one request")
	set.Usage = func() {
		fmt.Fprintf(stderr, "Usage: import -from SOURCE FILE [flags]\n\nSends a file of JSON lines, a JSON array or CSV, plain, gzip or zip, to a gateway. Interrupted, it goes on where it ended.\n\n")
		set.PrintDefaults()
	}
	// The file may stand between the flags.
	for rest := args; ; {
		if err := set.Parse(rest); err != nil {
			if err == flag.ErrHelp { //nolint:errorlint // the flag package returns it bare
				return err
			}
			return fmt.Errorf("%w: %w", process.ErrUsage, err)
		}
		if set.NArg() == 0 {
			break
		}
		if cfg.File != "" {
			return fmt.Errorf("%w: one file at a time (got %q and %q)", process.ErrUsage, cfg.File, set.Arg(0))
		}
		cfg.File, rest = set.Arg(0), set.Args()[1:]
	}
	if cfg.Key == "" {
		cfg.Key = getenv(keyEnv)
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%w: %w", process.ErrUsage, err)
	}
	logger, err := process.NewLogger(stderr, "text", "info")
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	_, err = importer.Run(signals.Stop, cfg, importer.Dependencies{Logger: logger})
	return err
}
