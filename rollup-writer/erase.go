package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// runErase exits with 0 if nothing of the user is left, and with 1 if something is left
// or the command failed. Run the command again to finish an interrupted erasure.
func runErase(c *invocation, stdout io.Writer) (err error) {
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
	dep := erase.Dependencies{
		Logger: logger, SQL: shards[0], Shards: shards, Schema: c.cfg.ClickHouse.Schema(), Kafka: client, Codec: codec,
	}
	if cfg.Rejected {
		done, err := erase.StripRejected(ctx, cfg.App, dep)
		if err != nil {
			return err
		}
		if *script {
			return json.NewEncoder(stdout).Encode(done)
		}
		_, err = fmt.Fprintf(stdout, "app %s: %d of %d rejected events lost their bytes\n", done.App, done.Stripped, done.Looked)
		return err
	}
	receipt, err := erase.Run(ctx, cfg, dep)
	if receipt == nil {
		return err
	}
	write := receipt.WriteText
	if *script {
		write = receipt.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return err
}
