package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

const (
	database = "uptake"

	// Blocks as in production: so many rows, or what comes in so long.
	blockRows     = 50_000
	blockInterval = "5s"
)

// enrichedRecords fills enriched with events from first on. They go in runs of a
// thousand to partition after partition.
func (l *log) enrichedRecords(ctx context.Context, cfg Config, first int64, n int) error {
	codec := event.NewCodec()
	now := time.Now()
	return l.fill(ctx, n, func(i int) *kgo.Record {
		e := enrichedEvent(first+int64(i), now, cfg)
		return &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: int32(i/1000) % l.partitions, Value: codec.AppendEnriched(nil, &e)}
	})
}

// clickhouse starts a server with the tables, and begins the writer's group.
func (c *closers) clickhouse(ctx context.Context, r *runner, dir string, l *log, interval string, more ...string) (*embedded.Server, error) {
	server, err := embedded.Start(ctx, embedded.Config{DataDir: filepath.Join(dir, "clickhouse"), Logger: slog.New(slog.DiscardHandler), Progress: r.cfg.Progress})
	if err != nil {
		return nil, err
	}
	c.add(server.Stop)
	for _, command := range [][]string{
		{"migrate", "-clickhouse-addr", server.NativeAddr(), "-clickhouse-database", database},
		append([]string{"init", "-clickhouse-addr", server.NativeAddr(), "-clickhouse-database", database, "-kafka-brokers", l.brokers(), "-block-interval", interval}, more...),
	} {
		p, err := r.service(ctx, stack.Writer, dir, command...)
		if err != nil {
			return nil, err
		}
		<-p.done
		if p.err != nil {
			text, _ := os.ReadFile(p.log) // the error says where it is
			return nil, fmt.Errorf("rollup-writer %s: %w: %s", command[0], p.err, text)
		}
	}
	return server, nil
}

// writer starts a writer.
func (c *closers) writer(ctx context.Context, r *runner, dir string, l *log, server *embedded.Server, interval string) (*process, error) {
	return c.writerOf(ctx, stack.Build{}, dir, l, server, interval)
}

// writerOf is writer for a build of it.
func (c *closers) writerOf(ctx context.Context, b stack.Build, dir string, l *log, server *embedded.Server, interval string, more ...string) (*process, error) {
	binary, err := stack.Binary(ctx, stack.Writer, b)
	if err != nil {
		return nil, err
	}
	return c.serveBinary(ctx, stack.Writer, dir, binary, append([]string{
		"-kafka-brokers", l.brokers(), "-clickhouse-addr", server.NativeAddr(), "-clickhouse-database", database, "-block-interval", interval,
	}, more...)...)
}

func writer(ctx context.Context, r *runner) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	dir, err := r.dir("writer")
	if err != nil {
		return nil, err
	}
	server, err := c.clickhouse(ctx, r, dir, l, blockInterval)
	if err != nil {
		return nil, err
	}
	p, err := c.writer(ctx, r, dir, l, server, blockInterval)
	if err != nil {
		return nil, err
	}
	rows, closing := 0, 1000*r.cfg.Partitions
	round := func(ctx context.Context) (Sample, error) {
		n := r.cfg.WriterEvents
		sp, err := p.span()
		if err != nil {
			return Sample{}, err
		}
		ch, err := startSpan(server.Pid())
		if err != nil {
			return Sample{}, err
		}
		before, err := p.blocks(ctx)
		if err != nil {
			return Sample{}, err
		}
		if rows == 0 {
			// A thousand more for each partition: a full block is closed by the
			// record behind it, and else would wait for the end of its interval.
			if err := l.enrichedRecords(ctx, r.cfg, -int64(closing), closing); err != nil {
				return Sample{}, err
			}
		}
		if err := l.enrichedRecords(ctx, r.cfg, int64(rows), n); err != nil {
			return Sample{}, err
		}
		rows += n
		err = p.await(ctx, "the rows", func() (bool, error) {
			have, err := count(ctx, server, "uptake.events")
			return have >= rows, err
		})
		if err != nil {
			return Sample{}, err
		}
		s, err := sp.stop(n)
		if err != nil {
			return Sample{}, err
		}
		if err := merged(ctx, p, server); err != nil {
			return Sample{}, err
		}
		after, err := p.blocks(ctx)
		if err != nil {
			return Sample{}, err
		}
		s.Blocks = after.less(before)
		parts, err := ch.stop(n)
		s.Parts = []Part{{"clickhouse", parts.CPU, parts.PeakRSS}}
		if have, err := count(ctx, server, "uptake.events"); err != nil || have > rows+closing {
			return Sample{}, errors.Join(err, fmt.Errorf("events holds %d rows, %d were sent", have, rows+closing))
		}
		return s, err
	}
	return &load{round: round, close: c.close, pprofs: map[string]string{"writer": p.metrics}, server: server}, nil
}

func count(ctx context.Context, server *embedded.Server, table string) (int, error) {
	text, err := server.Query(ctx, "SELECT count() FROM "+table)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// merged waits until the server has merged what it will, while p runs.
func merged(ctx context.Context, p *process, server *embedded.Server) error {
	idle := 0
	return p.await(ctx, "the end of merges", func() (bool, error) {
		n, err := count(ctx, server, "system.merges")
		if idle++; n > 0 {
			idle = 0
		}
		return idle > 10, err // looks of 20 ms each
	})
}

// writerFloor consumes the same records and inserts as many rows of blocks built
// beforehand into a table that discards them.
func writerFloor(ctx context.Context, r *runner) (_ *load, err error) {
	var c closers
	defer c.failed(ctx, &err)
	l, err := c.log(ctx, r)
	if err != nil {
		return nil, err
	}
	dir, err := r.dir("writer-floor")
	if err != nil {
		return nil, err
	}
	server, err := c.clickhouse(ctx, r, dir, l, blockInterval)
	if err != nil {
		return nil, err
	}
	if err := l.enrichedRecords(ctx, r.cfg, 0, r.cfg.WriterEvents); err != nil {
		return nil, err
	}
	if err := sampleRows(ctx, server, r.cfg); err != nil {
		return nil, err
	}
	job := floorJob{
		Kind: "insert", Addr: server.NativeAddr(), Database: database, Brokers: l.Addrs(), Topic: topic.Unprefixed.Enriched,
		Partitions: l.partitions, Events: r.cfg.WriterEvents, BlockRows: blockRows,
	}
	return &load{round: func(ctx context.Context) (Sample, error) { return r.floor(ctx, job) }, close: c.close}, nil
}

// sampleRows makes the tables of the floor: bench_sample, whose rows have the
// columns of events with JSON as text, and bench_null, which discards them.
func sampleRows(ctx context.Context, server *embedded.Server, cfg Config) error {
	object := strings.ReplaceAll(string(propertiesJSON(nil, cfg.Properties, 0, 7)), "'", "''")
	for _, statement := range []string{
		`CREATE TABLE uptake_internal.bench_sample ENGINE = Memory AS
		 SELECT 'dev'::LowCardinality(String) AS app_id, 'track'::LowCardinality(String) AS kind,
		        ['Item Scanned','Item Invoiced','Item Bagged'][number % 3 + 1]::LowCardinality(String) AS event,
		        concat('bench-', leftPad(toString(number), 12, '0')) AS message_id,
		        concat('user-', leftPad(toString(number % 100000), 7, '0')) AS user_id, '' AS anonymous_id, '' AS previous_id,
		        user_id AS actor_id, 'user'::LowCardinality(String) AS actor_kind,
		        concat('account-', leftPad(toString(number % 5000), 5, '0')) AS account_id, 'event'::LowCardinality(String) AS account_source,
		        ''::LowCardinality(String) AS role, 'item_scanned'::LowCardinality(String) AS feature_id,
		        'billing'::LowCardinality(String) AS module_id, 'mypos_sales'::LowCardinality(String) AS product_id, 1::Int64 AS catalog_version,
		        now64(6, 'UTC') - toIntervalSecond(number % 259200) AS event_time, event_time AS timestamp, event_time AS sent_at,
		        now64(6, 'UTC') AS received_at, 1::Int64 AS quantity, '` + object + `' AS properties, '{}' AS traits, '' AS metric,
		        '{"groupId":"a","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"}' AS context,
		        '' AS conflicts, '' AS session_id, 'segment'::LowCardinality(String) AS protocol,
		        '@segment/analytics-node/3.1.0'::LowCardinality(String) AS library, '192.0.2.0' AS ip, 'bench/1.0' AS user_agent,
		        ''::LowCardinality(String) AS flags, number::Int64 AS raw_offset, 't'::LowCardinality(String) AS source_topic_id,
		        1::Int32 AS source_partition, number::Int64 AS source_offset
		 FROM numbers(` + strconv.Itoa(blockRows) + `)`,
		`CREATE TABLE uptake_internal.bench_null AS uptake_internal.bench_sample ENGINE = Null`,
	} {
		if _, err := server.Query(ctx, statement); err != nil {
			return fmt.Errorf("make the floor's tables: %w", err)
		}
	}
	return nil
}
