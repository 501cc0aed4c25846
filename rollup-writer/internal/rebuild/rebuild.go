// Package rebuild repairs the tables of one app and a range of days: usage_hourly from
// events and corrections, the rollups from usage_hourly, corrections from their plans,
// and events from what the caller found in the log. `rollup-writer rebuild` is the
// command.
//
// It owns the SQL. Package repair makes sure that no writer runs and no block is open,
// reads the log, and sets the generation of tokens afterwards. The caller who opens a
// Shard closes it.
//
// # Differences, not copies
//
// Rollups and corrections are signed sums. So a table is repaired by adding, for every cell
// that differs, one row with the difference. Nothing is removed from the tables, readers see
// either the old or the new sum, the dedup windows do not change, and it works in the same way
// on one machine and in the cluster form, where it runs on each shard with the rows of that
// shard.
//
// Added rows must not pass through the views: typically one table lost a part and all
// others have counted it, since a repeated block fills every table except the one whose
// window already has its token. So each table is repaired by itself. Rows for events,
// corrections and usage_hourly are written into a table of the same structure without
// views, and their parts are attached. Records that events has twice are removed by
// replacing the partition of their month with a copy that has them once.
//
// # Interruptions
//
// Every step checks the present state and does what is missing. An interrupted step
// leaves less to do for the next run. Only statements that a server still executes must
// end before the state is checked; Quiet waits for them.
//
// # What it does not remove
//
// An event that a rollup counted and that events does not have was lost from events, or
// has expired, or was deleted; or it was counted twice. Only the operator can tell. So
// a rebuild that would remove more than it adds, in any hour, partition and event name
// (of a rollup: in any day), fails with ErrShrink unless shrinking is allowed.
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
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// ErrShrink means that counts would be removed that nothing else accounts for.
var ErrShrink = errors.New("rollups count more than events holds")

// Range is what is rebuilt: an app's events of whole UTC days, End excluded.
type Range struct {
	App        string
	First, End time.Time // zero: no bound

	condition string // of rows besides; empty: none
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

// Holds reports whether an event of the app at t belongs to the range.
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
	if r.condition != "" {
		w += " AND " + r.condition
	}
	return w
}

// Change is what a table lacked or had in surplus.
type Change struct {
	Shard int
	Table string
	// Cells that differ, and the sums that are added and removed. For events they are
	// records: missing and surplus.
	Cells   uint64
	Added   int64
	Removed int64
}

// settings of every statement. Rows that repair are never repeats, even if the same
// rows were added before; and errors of views must not be ignored.
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
	FromLog   bool // what the log has of events and corrections is restored
	ChunkRows int  // days are taken together up to this many rows
	// Step, if set, is called before each statement that changes something; an error
	// ends the run like a crash at that point.
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

// Open connects to the first replica of a shard that answers: rows written aside exist
// only there.
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

// Sync waits until this replica has everything written through other replicas, and
// fails if it has parts that will be removed.
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

// Quiet waits until no server executes a statement of a writer or of an earlier
// rebuild: a killed one leaves its last statement running.
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
		if backoff.Sleep(ctx, quietPause) != nil {
			return ctx.Err()
		}
	}
}
