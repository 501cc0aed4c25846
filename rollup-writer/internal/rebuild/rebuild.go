// Package rebuild repairs the tables of one app and a range of days: it makes
// usage_hourly what events and corrections say, the rollups what usage_hourly
// says, corrections what their plans say, and events what the caller found in
// the log. `rollup-writer rebuild` is the command.
//
// It owns the SQL. That no writer runs and nothing is open, what the log holds,
// and the generation of tokens afterwards are for package rollup. Whoever opens
// a Shard closes it.
//
// # Differences, not copies
//
// Rollups and corrections are signed sums. So a table is repaired by adding, for
// every cell that differs, one row with the difference. Nothing is taken out of
// the tables, readers see either sum, the dedup windows stay as they are, and it
// is the same on one machine and in the cluster form, where it runs on each shard
// with the rows of that shard.
//
// What is added must not pass through the views: as a rule one table lost a part
// and all others have counted it, since a block that is repeated fills every
// table but the one that believes to have it. So each table is repaired for itself.
// Rows for events, corrections and usage_hourly are written into a table of the
// same structure that nothing hangs on, and their parts are attached. Records
// that events holds twice are taken out by replacing the partition of their month
// with a copy that has them once.
//
// # What ends half way
//
// Every step looks at what is there, and does what is missing from it. A step
// that was cut short leaves less to do for the next run. The one thing that must
// be over before anybody looks is a statement that a server still works on; Quiet
// waits for it.
//
// # What it does not take out
//
// An event that a rollup counted and that events does not hold was lost in
// events, or has expired, or was deleted; or it was counted twice. Only the
// first three are known to whoever runs it. So a rebuild that would take out
// more than it adds, in any hour, partition and event name (of a rollup: in any
// day), fails with ErrShrink unless it is told to shrink.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// ErrShrink says that counts would be taken out that nothing else accounts for.
var ErrShrink = errors.New("rollups count more than events holds")

// Range is what is rebuilt: an app's events of whole UTC days, End excluded.
type Range struct {
	App        string
	First, End time.Time // zero: no bound
}

// NewRange widens a range of instants to the days that it touches.
func NewRange(app string, from, to time.Time) Range {
	r := Range{App: app}
	if !from.IsZero() {
		r.First = day(from)
	}
	if !to.IsZero() {
		if r.End = day(to); r.End.Before(to) {
			r.End = r.End.AddDate(0, 0, 1)
		}
	}
	return r
}

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Holds tells whether an event of the app at t belongs to the range.
func (r Range) Holds(t time.Time) bool {
	return (r.First.IsZero() || !t.Before(r.First)) && (r.End.IsZero() || t.Before(r.End))
}

// where selects the range's rows by a column or expression that is a date.
func (r Range) where(date string) string {
	w := "app_id = " + clickhouse.Quote(r.App)
	if !r.First.IsZero() {
		w += " AND " + date + " >= '" + r.First.Format(time.DateOnly) + "'"
	}
	if !r.End.IsZero() {
		w += " AND " + date + " < '" + r.End.Format(time.DateOnly) + "'"
	}
	return w
}

// Change is what a table lacked or had too much.
type Change struct {
	Shard int
	Table string
	// Cells that differ, and the sums of what is added to and taken out of them.
	// Of events they are records: missing and surplus.
	Cells   uint64
	Added   int64
	Removed int64
}

// settings of every statement. Rows that repair are no repeats of anything, even
// if the same was repaired before; and what the views do must not be ignored.
var settings = clickhousego.Settings{
	"async_insert":       0,
	"insert_deduplicate": 0,
	"deduplicate_insert": "disable",
	"deduplicate_blocks_in_dependent_materialized_views": 0,
	"materialized_views_ignore_errors":                   0,
	"parallel_view_processing":                           0,
	"optimize_on_insert":                                 1,
	"max_partitions_per_insert_block":                    0,
	"max_bytes_before_external_group_by":                 1 << 30,
	"max_bytes_before_external_sort":                     1 << 30,
	"max_execution_time":                                 0,
	"max_query_size":                                     1 << 20,
}

// Config of a run.
type Config struct {
	Shrink    bool
	ChunkRows int // days are taken together up to this many rows
	// Step, where it is set, is called before each statement that changes
	// something; an error ends the run as a crash at that place would.
	Step func(what string) error
}

// Shard is one shard's replica.
type Shard struct {
	Number int
	cfg    Config
	ch     clickhouse.Config // of that replica alone
	schema tables.Schema
	conn   driver.Conn
}

// Open connects to the first replica of a shard that answers: rows that are
// written to the side are there and nowhere else.
func Open(ctx context.Context, cfg Config, ch clickhouse.Config, shard int) (*Shard, error) {
	var errs []error
	for _, addr := range ch.Shards()[shard] {
		one := ch
		one.Addr = addr
		conn, err := clickhouse.OpenSQL(&one)
		if err != nil {
			return nil, err
		}
		if err := conn.Ping(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err), conn.Close())
			continue
		}
		return &Shard{Number: shard, cfg: cfg, ch: one, schema: ch.Schema(), conn: conn}, nil
	}
	return nil, fmt.Errorf("connect to shard %d: %w", shard, errors.Join(errs...))
}

// Close closes the connection.
func (s *Shard) Close() error { return s.conn.Close() }

func (s *Shard) local(table string) string { return s.schema.Local(table) }

func with(ctx context.Context) context.Context {
	return clickhousego.Context(ctx, clickhousego.WithSettings(settings))
}

// exec runs a statement that changes something.
func (s *Shard) exec(ctx context.Context, what, statement string) error {
	if s.cfg.Step != nil {
		if err := s.cfg.Step(what); err != nil {
			return err
		}
	}
	if err := s.conn.Exec(with(ctx), statement); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Sync waits until this replica has what was written through any other, and fails
// if it has what will be taken out of it again.
func (s *Shard) Sync(ctx context.Context) error {
	if s.schema.Form.Cluster == "" {
		return nil
	}
	conn, err := clickhouse.NewConn(&s.ch, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, t := range tables.EventTables {
		if err := s.conn.Exec(ctx, "SYSTEM SYNC REPLICA "+s.local(t)); err != nil {
			return fmt.Errorf("sync replica of %s: %w", t, err)
		}
		if err := conn.AllKnown(ctx, t, "1"); err != nil {
			return err
		}
	}
	return nil
}

// quietPause is the pause between two looks at what servers work on.
const quietPause = 200 * time.Millisecond

// Quiet waits until no server works on a statement of a writer or of an earlier
// rebuild: one that was killed leaves its last one behind.
func (s *Shard) Quiet(ctx context.Context, waiting func(statements uint64)) error {
	from := "system.processes"
	if s.schema.Form.Cluster != "" {
		from = "clusterAllReplicas(" + clickhouse.Quote(s.schema.Form.Cluster) + ", system.processes)"
	}
	for said := false; ; {
		var n uint64
		err := s.conn.QueryRow(ctx, "SELECT count() FROM "+from+" WHERE client_name LIKE '%uptake-rollup-writer%' AND query_kind NOT IN ('Select', 'System', '')").Scan(&n)
		if err != nil {
			return fmt.Errorf("look for running inserts: %w", err)
		}
		if n == 0 {
			return nil
		}
		if !said {
			said = true
			waiting(n)
		}
		select {
		case <-time.After(quietPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
