// Package audit compares what ClickHouse holds with itself, cell by cell: events and
// corrections with usage_hourly, usage_hourly with every rollup over it, and corrections with
// the plans that ordered them; and it looks for events that exist twice. It also compares the
// enrichers' counts, by app and hour of receipt, with the rows in ClickHouse (conservation.go).
// `rollup-writer audit` prints the findings and sets the exit status.
//
// It only reads, with a setting that makes ClickHouse refuse anything else.
// `rollup-writer rebuild` repairs.
//
// # Conservation
//
//	accepted = stored + duplicates + rejected + opted out + in flight
//
// accepted, duplicates and opted out are the enrichers' counts, which are in their
// transactions; stored and rejected are the rows of events and of rejected_events, up to where
// the counts of their partition reach. So they can be compared while everything runs. The
// ranges of raw offsets that blocks count must adjoin, and contain as many events as were
// accepted: that detects a record of raw that was skipped or taken twice. Events in flight are
// read from the log after the counted offsets. Events that a gateway rejected were not
// accepted: they are listed as refused, and are only in rejected_events. If the counts of the
// last blocks of a partition were lost, their events are reported as in flight until the next
// block.
//
// # Checks, per app
//
//	usage_hourly against events + corrections   by every column of its key
//	account_*_daily, user_*_daily               against usage_hourly
//	corrections against correction_plans        by control record and key
//	events, record                              a record of the log exists once
//	events, message                             a message id exists once within the dedup window
//	identity_facts, metric_values, user_agents  against what their views select from events
//	identity_unlinks                            against what its view selects from correction_plans
//
// Each cell's sums are compared inside ClickHouse; only counts, sums and the first different
// cells come here. An app is read in runs of days of up to Config.ChunkRows rows; what does not
// fit into memory even then (a single day is never split), ClickHouse spills to its disk. With
// From and To the hourly tables are compared in those hours, the daily ones in the whole days
// that they touch. Message ids are read in shares by their hash, since a repeat may carry
// another event time.
//
// # Running writers
//
// Writers need not stop. usage_hourly does not say which offset a row came from, so both sides
// cannot be cut at one offset; and an insert becomes visible in events a moment before or after
// it does in its rollups. So a cell that differs is looked at again, up to Config.Settle times
// with a pause in between, and counts as different only if it differed every time. A block in
// progress is done by then. A busy cell may differ at each look because of other blocks; the
// probability falls exponentially with the number of looks. The opposite error, a lost row that
// a block in progress hides, is found by the next audit. A block that a writer keeps repeating,
// because a view throws, stays different, as its tables are, until the writer succeeds. Days
// and apps are listed at the start: later ones are not looked at.
//
// # What it cannot detect
//
// Events of kinds that count nothing (identify, group, alias, metric) are in no rollup: a lost
// part of events with only such rows is found by the tables of identity and metrics (derived.go)
// and by the counts. A block that is in no table at all is found by its counts alone. Events
// deleted by a TTL or an operator look like a lost part: start after them with From.
package audit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic"
)

// ErrDifferent means that the audit was completed and found differences.
var ErrDifferent = errors.New("tables differ")

// ErrUnknown means that nothing was found to be different, and that the log, which was to
// be asked, did not say what is in flight: events that were lost between the gateways and
// ClickHouse would not be found.
var ErrUnknown = errors.New("it is not known whether anything is missing: the log did not say what is in flight; " +
	"run the audit again when Kafka can be reached, or compare the tables alone with -in-flight-records 0")

const (
	// maxHeld bounds the hashes of different cells that are kept between two looks, 8
	// bytes each, per chunk and in total. If there are more, the next look is at the
	// whole chunk.
	maxHeld    = 20_000
	maxHeldAll = 1_000_000
)

// Config holds what to compare, and how often to look again.
type Config struct {
	App         string    // empty: every app
	From, To    time.Time // whole hours of event time, To excluded; zero: no bound
	Cells       int       // different cells to list per app and check
	Settle      int       // looks again at a cell that differs
	SettleWait  time.Duration
	ChunkRows   int
	DedupWindow time.Duration
}

// DefaultConfig compares everything.
func DefaultConfig() Config {
	return Config{Cells: 20, Settle: 5, SettleWait: 2 * time.Second, ChunkRows: 5_000_000, DedupWindow: topic.DedupWindow}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.App, "app", c.App, "compare only the app with this `id`")
	set.Var((*instant)(&c.From), "from", "compare from this `hour` of event time on, and of receipt where events are counted: 2026-11-21 or 2026-11-21T15:00:00Z")
	set.Var((*instant)(&c.To), "to", "compare before this `hour` of event time, and of receipt")
	set.IntVar(&c.Cells, "cells", c.Cells, "list up to this many different cells per app and check")
	set.IntVar(&c.Settle, "settle", c.Settle, "look again up to this many times at differences before reporting them: blocks may be in progress")
	set.DurationVar(&c.SettleWait, "settle-wait", c.SettleWait, "pause before each of these looks")
	set.IntVar(&c.ChunkRows, "chunk-rows", c.ChunkRows, "compare days together up to this many rows")
	set.DurationVar(&c.DedupWindow, "dedup-window", c.DedupWindow, "how long the enrichers remember a message id: their setting of the same name")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	for name, t := range map[string]time.Time{"from": c.From, "to": c.To} {
		if !t.Equal(t.Truncate(time.Hour)) {
			errs = append(errs, fmt.Errorf("%s must be a whole hour (got %s)", name, t.Format(time.RFC3339)))
		}
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To) {
		errs = append(errs, fmt.Errorf("from must be before to (got %s and %s)", c.From.Format(time.RFC3339), c.To.Format(time.RFC3339)))
	}
	if c.Cells < 0 || c.Cells > 100_000 {
		errs = append(errs, fmt.Errorf("cells must be 0 to 100000 (got %d)", c.Cells))
	}
	if c.Settle < 0 || c.Settle > 1000 {
		errs = append(errs, fmt.Errorf("settle must be 0 to 1000 (got %d)", c.Settle))
	}
	if c.SettleWait < 0 {
		errs = append(errs, fmt.Errorf("settle-wait must be >= 0 (got %s)", c.SettleWait))
	}
	if c.ChunkRows < 1 {
		errs = append(errs, fmt.Errorf("chunk-rows must be > 0 (got %d)", c.ChunkRows))
	}
	if c.DedupWindow <= 0 {
		errs = append(errs, fmt.Errorf("dedup-window must be > 0 (got %s)", c.DedupWindow))
	}
	return errors.Join(errs...)
}

// instant is a time as a flag.
type instant time.Time

func (i *instant) String() string {
	if time.Time(*i).IsZero() {
		return ""
	}
	return time.Time(*i).UTC().Format(time.RFC3339)
}

func (i *instant) Set(s string) error {
	if s == "" {
		*i = instant{}
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			*i = instant(t.UTC())
			return nil
		}
	}
	return errors.New("want a date or a time with its zone, 2026-11-21 or 2026-11-21T15:00:00Z")
}

// settings of every query. readonly prevents the audit from changing anything.
var settings = clickhousego.Settings{
	"readonly":                           2,
	"max_bytes_before_external_group_by": 1 << 30,
	"max_bytes_before_external_sort":     1 << 30,
	"max_query_size":                     4 << 20, // hashes of cells to look at again
	"max_execution_time":                 0,
}

// auditor is one run of the audit.
type auditor struct {
	conn   driver.Conn
	schema tables.Schema
	cfg    Config
	wait   func(context.Context, time.Duration) error
}

// Run compares what cfg, which is valid, asks for. It returns an error if it could not
// compare; differences are in the report.
func Run(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg Config) (*Report, error) {
	a := &auditor{conn: conn, schema: schema, cfg: cfg, wait: backoff.Sleep}
	return a.run(ctx)
}

func (a *auditor) run(ctx context.Context) (*Report, error) {
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(settings))
	report := &Report{Equal: true, From: bound(a.cfg.From), To: bound(a.cfg.To)}
	apps, err := a.apps(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range apps {
		one, err := a.app(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("audit app %s: %w", name, err)
		}
		for _, c := range one.Checks {
			report.Equal = report.Equal && c.Different == 0
		}
		for _, d := range one.Derived {
			report.Equal = report.Equal && d.Less+d.More == 0
		}
		report.Apps = append(report.Apps, one)
	}
	return report, nil
}

func bound(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// open is a chunk of a check that differed at the last look.
type open struct {
	result *Check
	check  *check
	chunk  chunk
	held   []uint64 // hashes of the cells that differ; nil: all of the chunk
	last   summary
}

func (a *auditor) app(ctx context.Context, name string) (*App, error) {
	chunks, rows, err := a.chunks(ctx, name)
	if err != nil {
		return nil, err
	}
	report := &App{ID: name}
	var pending []*open
	held := 0
	for i := range checks {
		k := &checks[i]
		result := &Check{Table: k.table, Against: k.against}
		report.Checks = append(report.Checks, result)
		parts := chunks
		if k.shares {
			parts = a.shares(name, rows)
		}
		for _, c := range parts {
			s, err := a.look(ctx, k, c, nil)
			if err != nil {
				return nil, err
			}
			result.Cells += s.cells
			result.Want.add(s.want)
			result.Got.add(s.want) // what stays different is added at the end
			if s.different > 0 {
				o := &open{result: result, check: k, chunk: c, last: s}
				o.hold(&held)
				pending = append(pending, o)
			}
		}
	}
	for range a.cfg.Settle {
		if len(pending) == 0 {
			break
		}
		if err := a.wait(ctx, a.cfg.SettleWait); err != nil {
			return nil, err
		}
		var still []*open
		for _, o := range pending {
			held -= len(o.held)
			if o.last, err = a.look(ctx, o.check, o.chunk, o.held); err != nil {
				return nil, err
			}
			o.held = nil
			if o.last.different > 0 {
				o.hold(&held)
				still = append(still, o)
			}
		}
		pending = still
	}
	for _, o := range pending {
		if err := a.report(ctx, name, o); err != nil {
			return nil, err
		}
	}
	report.Findings = findings(report, a.cfg)
	if report.Derived, err = a.derived(ctx, name); err != nil {
		return nil, err
	}
	lost := slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Table == "events" })
	report.Findings = append(report.Findings, derivedFindings(report.Derived, lost)...)
	return report, nil
}

// hold keeps the hashes of the cells that differed, if there is room.
func (o *open) hold(all *int) {
	if o.last.different > uint64(len(o.last.hashes)) || *all+len(o.last.hashes) > maxHeldAll {
		o.held = nil
	} else {
		o.held = o.last.hashes
		*all += len(o.held)
	}
	o.last.hashes = nil
}

// report adds what stayed different in a chunk to its check's result.
func (a *auditor) report(ctx context.Context, app string, o *open) error {
	r, s := o.result, o.last
	r.Different += s.different
	r.Missing.add(s.missing)
	r.Surplus.add(s.surplus)
	r.Got.add(s.surplus)
	r.Got.sub(s.missing)
	if n := a.cfg.Cells - len(r.First); n > 0 {
		cells, err := a.list(ctx, o.check, o.chunk, o.held, n)
		if err != nil {
			return err
		}
		r.First = append(r.First, cells...)
	}
	if o.check.table != "usage_hourly" {
		return nil
	}
	parts, err := a.partitions(ctx, app, o)
	if err != nil {
		return err
	}
	r.Partitions = mergePartitions(r.Partitions, parts)
	return nil
}
