package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// runErase exits with 0 if nothing of the user is left, and with 1 if something is left
// or the command failed. Run the command again to finish an interrupted erasure.
func runErase(c *invocation) error {
	set := c.flags("erase")
	cfg := erase.DefaultConfig()
	cfg.Flags(set)
	script := set.Bool("json", false, "write the receipt as JSON, for scripts")
	logger, err := c.parse(cfg.Validate)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	ctx := signals.Stop
	return c.persons(ctx, logger, func(dep erase.Dependencies) error {
		return eraseWith(ctx, cfg, dep, *script, c.stdout)
	})
}

func eraseWith(ctx context.Context, cfg erase.Config, dep erase.Dependencies, script bool, stdout io.Writer) error {
	if cfg.Rejected {
		done, err := erase.StripRejected(ctx, cfg.App, dep)
		if err != nil {
			return err
		}
		if script {
			return json.NewEncoder(stdout).Encode(done)
		}
		_, err = fmt.Fprintf(stdout, "app %s: %d of %d rejected events lost their bytes\n", done.App, done.Stripped, done.Looked)
		return err
	}
	if cfg.Again {
		erased, err := erase.ReadErasures(ctx, dep.Kafka, dep.Names, dep.Codec)
		if err != nil {
			return err
		}
		done, err := erase.Again(ctx, erased, []string{cfg.App}, dep, erase.Counted)
		if err != nil {
			return err
		}
		if len(done) == 0 {
			done = []erase.Repeated{{App: cfg.App}}
		}
		if script {
			return json.NewEncoder(stdout).Encode(done[0])
		}
		_, err = fmt.Fprintf(stdout, "app %s: %d users and %d anonymous ids that were erased before were in the tables, and are erased again\n", done[0].App, done[0].Users, done[0].AnonymousIDs)
		return err
	}
	receipt, err := erase.Run(ctx, cfg, dep)
	if receipt == nil {
		return err
	}
	write := receipt.WriteText
	if script {
		write = receipt.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return err
}

// runExport writes all that is held of a person.
func runExport(c *invocation) error {
	set := c.flags("export")
	cfg := erase.DefaultConfig()
	cfg.ExportFlags(set)
	to := set.String("to", "", "`file` to write, which must not exist; only its owner may read it. Default: standard output")
	logger, err := c.parse(cfg.Validate)
	if err != nil {
		return err
	}
	signals, release := process.Notify()
	defer release()
	return c.persons(signals.Stop, logger, func(dep erase.Dependencies) error {
		return intoFile(*to, c.stdout, func(w io.Writer) error {
			lines, err := erase.Export(signals.Stop, cfg, dep, w)
			if err == nil {
				logger.Info("exported", "app", cfg.App, "lines", lines, "to", *to)
			}
			return err
		})
	})
}

// intoFile has write write personal data to a new file that only its owner may read, or to
// standard output if path is empty. A file that was not written to its end is removed.
func intoFile(path string, stdout io.Writer, write func(io.Writer) error) (err error) {
	out := bufio.NewWriterSize(stdout, 1<<20)
	if path != "" {
		f, notMade := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if notMade != nil {
			return notMade
		}
		defer func() {
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				err = errors.Join(err, os.Remove(path))
			}
		}()
		out.Reset(f)
	}
	if err := write(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// persons opens what the commands about a person's data work with.
func (c *invocation) persons(ctx context.Context, logger *slog.Logger, do func(erase.Dependencies) error) (err error) {
	if err := c.database(ctx); err != nil {
		return err
	}
	var shards []driver.Conn
	defer func() {
		for _, conn := range shards {
			err = errors.Join(err, conn.Close())
		}
	}()
	for _, replicas := range c.cfg.ClickHouse.Shards() {
		one := c.cfg.ClickHouse
		one.Addr = strings.Join(replicas, ",")
		conn, err := clickhouse.OpenSQL(&one)
		if err != nil {
			return err
		}
		shards = append(shards, conn)
	}
	codec, err := c.cfg.Registry.Codec(ctx)
	if err != nil {
		return err
	}
	opts, err := c.cfg.Kafka.Options(logger, nil)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	return do(erase.Dependencies{
		Logger: logger, SQL: shards[0], Shards: shards, Schema: c.cfg.ClickHouse.Schema(), Kafka: client, Names: c.cfg.Kafka.Names(), Codec: codec,
	})
}
