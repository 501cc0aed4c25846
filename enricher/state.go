package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/statefile"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// state exports or imports the compacted topics.
func state(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "export", "import":
	case "help", "-h", "-help", "--help":
		_, err := fmt.Fprintln(stdout, "Usage: enricher state export|import -file FILE [flags]\n\nFlags of a command: enricher state <command> -help")
		return err
	default:
		return fmt.Errorf("%w: state needs export or import (got %q)", process.ErrUsage, verb)
	}
	set := process.NewFlags("enricher state "+verb, "warn", stderr)
	k := kafka.DefaultConfig("uptake-state")
	k.Flags(set.FlagSet)
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
	var end *statefile.End
	if verb == "export" {
		end, err = exportState(*path, func(w io.Writer) (*statefile.End, error) { return statefile.Write(signals.Stop, client, w) })
	} else {
		var file *os.File
		if file, err = os.Open(*path); err != nil {
			return err
		}
		defer file.Close()
		var head *statefile.Header
		if head, end, err = statefile.Read(signals.Stop, client, file); err == nil {
			_, err = fmt.Fprintf(stdout, "state of %s\n", head.MadeAt.Format("2006-01-02 15:04:05 MST"))
		}
	}
	if err != nil {
		return err
	}
	for _, name := range statefile.Topics {
		if _, err := fmt.Fprintf(stdout, "%s: %d records\n", name, end.Records[name]); err != nil {
			return err
		}
	}
	return nil
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
