package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/relearn"
	"github.com/uptakehq/uptake/enricher/internal/statefile"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
)

// state are the commands that write the compacted topics to a file and read them from
// it.
func state(getenv func(string) (string, bool), stdout, stderr io.Writer) *process.Program {
	run := func(verb string) func([]string) error {
		return func(args []string) error { return runState(verb, args, getenv, stdout, stderr) }
	}
	return &process.Program{Commands: []process.Command{
		{Name: "export", Summary: "write the compacted topics (identities, who was erased, catalogs, types, known ids) to a file", Run: run("export")},
		{Name: "import", Summary: "put such a file into empty topics; enrichers must be stopped", Run: run("import")},
	}}
}

func runState(verb string, args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	var only setting.Strings
	flags := func(set *flag.FlagSet) {
		if verb == "import" {
			set.Var(&only, "topics", "comma-separated `names` of the topics to be imported, which were lost while others were not; empty: all that the file has")
		}
	}
	return withFile("state "+verb, args, getenv, stderr, flags, func(ctx context.Context, client *kgo.Client, names *topic.Names, path string) error {
		var end *statefile.End
		var err error
		if verb == "export" {
			end, err = exportState(path, func(w io.Writer) (*statefile.End, error) { return statefile.Write(ctx, client, names, w) })
		} else {
			end, err = importState(ctx, client, names, path, only, stdout)
		}
		if err != nil {
			return err
		}
		for _, name := range statefile.Topics(names) {
			n, ok := end.Records[names.Base(name)]
			if !ok && len(only) > 0 {
				continue
			}
			if _, err := fmt.Fprintf(stdout, "%s: %d records\n", name, n); err != nil {
				return err
			}
		}
		return nil
	})
}

func importState(ctx context.Context, client *kgo.Client, names *topic.Names, path string, only []string, stdout io.Writer) (*statefile.End, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	head, end, err := statefile.Read(ctx, client, names, file, only)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(stdout, "state of %s\n", head.MadeAt.Format("2006-01-02 15:04:05 MST"))
	return end, err
}

// learnAgain makes identity state of the calls that ClickHouse has.
func learnAgain(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	return withFile("identity import", args, getenv, stderr, func(*flag.FlagSet) {}, func(ctx context.Context, client *kgo.Client, names *topic.Names, path string) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		report, err := relearn.Into(ctx, client, names, file)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%d calls and %d lists of erased persons: %d records of %s\n", report.Calls, report.Erased, report.Records, names.EnricherState)
		return err
	})
}

// withFile runs a command that has a client and a file, and the flags that more adds.
func withFile(command string, args []string, getenv func(string) (string, bool), stderr io.Writer, more func(*flag.FlagSet), do func(context.Context, *kgo.Client, *topic.Names, string) error) error {
	set := process.NewFlags("enricher "+command, "warn", stderr)
	k := kafka.DefaultConfig("uptake-state")
	k.Flags(set.FlagSet)
	more(set.FlagSet)
	path := set.String("file", "", "`path` of the file; an export makes it, readable by its owner only")
	logger, err := set.Parse(args, getenv, k.Validate, func() error {
		if *path == "" {
			return errors.New("file must be named")
		}
		return nil
	})
	if err != nil {
		return err
	}
	opts, err := k.Options(logger, nil)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	signals, release := process.Notify()
	defer release()
	return do(signals.Stop, client, k.Names(), *path)
}

// exportState writes a new file, and removes it if it was not written to its end.
func exportState(path string, write func(io.Writer) (*statefile.End, error)) (end *statefile.End, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return write(file)
}
