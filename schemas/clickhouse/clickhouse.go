// Package clickhouse owns the tables that rollup-writer fills and analysts read:
// ordered SQL migrations, how they are applied to a single server or a cluster,
// and the check that a database has the schema this binary was built with.
//
// It does not own what is written into the tables (rollup-writer), nor the
// server (package embedded runs one for tests and for one machine).
//
// # Two databases
//
// [Schema.Database] is what people use: events, rejected_events and views, each
// with comments, each with right answers in a plain SELECT. [Internal] of it
// holds the machinery. [Schema] qualifies the names of both.
//
// # Migrations
//
// Tables and materialized views are made by migrations, files
// migrations/NNNN_name.sql: a text/template whose statements end with a semicolon
// at the end of a line. Every statement can be run again, since ClickHouse has no
// transactions around DDL: when Apply died half way, the next one starts with the
// first statement of that file. A published file is never edited; its checksum is
// in schema_migrations.
//
// # Views
//
// A plain view is a file views/name.sql (views/internal/name.sql for those that
// only programs read), which is edited in place: Apply carries it out again when
// its statement differs from the checksum in schema_views, and drops a view whose
// file is gone. It begins with {{.Create}}, the list of its columns with types and
// comments, {{.Definer}} and a comment, and names what it reads by {{.Table}} (stored
// rows) or {{.View}} (another view, which is made first). views/shared has
// templates that several views share. Parameterized views declare their columns
// in the same way; ClickHouse does not list those in system.columns, the tests do.
//
// # Dedup windows
//
// Every table that a block reaches remembers the tokens of the last blocks: that
// is what makes a repeated block harmless. What a window counts is *entries*,
// one for each part that an insert makes, so one for each partition that the
// block touches in that table; a block of one insert makes the parts of all its
// views, each in its own table's window.
//
//	entries/s of a table = busy log partitions × blocks/s × table partitions/block
//
// One machine, T = 1 s: 5 busy log partitions (4 of enriched, 1 of rejected),
// each at most 1 block/s when it keeps up, and on tables that are not
// partitioned (events has one month in a block, at the turn of a month two):
// 5 entries/s. A block with moves takes one more entry for its plan, and in the
// rollups one more for each chunk of corrections, as a rule one: 10 entries/s.
// 20,000 entries are more than half an hour. While it catches up, some 40 blocks/s
// were seen, 250 s.
//
// Cluster, T = 5 s, 12 log partitions on one shard, late events of two or three
// months in a block: 12/5 × 3 = 7 entries/s, with moves in every block 14.
// 200,000 entries are four hours, and at ten times that rate, catching up, 24
// minutes. The window in seconds is
// a week, so that the count is what bounds it; its age is relative to the newest
// entry, so a cluster that stood still forgets nothing.
//
// A block is only ever repeated by the writer that sent it, until it has an
// answer, or by its successor, which starts with it. So what must not happen is
// that other partitions write a whole window of entries while one block stays
// open: rollup-writer stops at a quarter of it.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Form is how the tables are laid out.
type Form struct {
	// Cluster names the ClickHouse cluster: tables are Replicated, made ON
	// CLUSTER as <table>_local in the internal database, with a Distributed
	// <table> over them, and rollups are partitioned by month. Empty: a single
	// server.
	Cluster string
	// WindowEntries is how many entries the dedup window of each table holds.
	WindowEntries int
	// Window is how long entries are kept in the cluster form; a single server
	// keeps them until there are too many.
	Window time.Duration
}

// SingleForm is one server.
func SingleForm() Form { return Form{WindowEntries: 20_000} }

// ClusterForm is the cluster of that name.
func ClusterForm(cluster string) Form {
	return Form{Cluster: cluster, WindowEntries: 200_000, Window: 7 * 24 * time.Hour}
}

var identifier = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]*$`)

// Validate reports all faults of f.
func (f Form) Validate() error {
	var errs []error
	if f.Cluster != "" && !identifier.MatchString(f.Cluster) {
		errs = append(errs, fmt.Errorf("clickhouse-cluster must be a plain name (got %q)", f.Cluster))
	}
	if f.WindowEntries < 1000 {
		errs = append(errs, fmt.Errorf("clickhouse-window-entries must be at least 1000 (got %d)", f.WindowEntries))
	}
	if f.Cluster != "" && f.Window < time.Hour {
		errs = append(errs, fmt.Errorf("clickhouse-window must be at least 1h (got %s)", f.Window))
	}
	return errors.Join(errs...)
}

func (f Form) String() string {
	if f.Cluster == "" {
		return "single"
	}
	return "cluster " + f.Cluster
}

// Local is the name of the table that holds the rows on each server: name, or
// in the cluster form name_local.
func (f Form) Local(name string) string {
	if f.Cluster == "" {
		return name
	}
	return name + "_local"
}

// Tables that writers insert into, and all that a block of theirs reaches.
// Every one has a dedup window.
var (
	// RejectedTables are reached by a block of rejected events.
	RejectedTables = []string{"rejected_events"}
	// EventTables are reached by a block of enriched events, with what was counted
	// of them, or of a correction.
	EventTables = Names(Select(func(t *Table) bool { return t.Blocks && t.Name != RejectedTables[0] }))
)

// Window is the dedup window of a table as the server has it; Entries 0 is none.
type Window struct {
	Entries int
	Age     time.Duration // cluster form only
}

var (
	singleWindow  = regexp.MustCompile(`non_replicated_deduplication_window = (\d+)`)
	clusterWindow = regexp.MustCompile(`[^_]replicated_deduplication_window = (\d+)`)
	clusterAge    = regexp.MustCompile(`[^_]replicated_deduplication_window_seconds = (\d+)`)
)

// Windows reads the dedup windows of the tables that blocks reach. It fails with
// the tables that are missing or have none.
func (s Schema) Windows(ctx context.Context, conn driver.Conn) (map[string]Window, error) {
	names := slices.Concat(EventTables, RejectedTables)
	local := map[string]string{}
	for _, n := range names {
		local[s.Local(n)] = n
	}
	type table struct{ database, name, engine string }
	windows := map[string]Window{}
	err := Each(ctx, conn, func(t *table) []any { return []any{&t.database, &t.name, &t.engine} }, func(t *table) {
		if n, ok := local[quote(t.database)+"."+quote(t.name)]; ok {
			windows[n] = windowOf(s.Form, t.engine)
		}
	}, "SELECT database, name, engine_full FROM system.tables WHERE database IN (?, ?) AND engine LIKE '%MergeTree'", s.Database, Internal(s.Database))
	if err != nil {
		return nil, fmt.Errorf("read dedup windows: %w", err)
	}
	var errs []error
	for _, n := range names {
		w, ok := windows[n]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("table %s does not exist", s.Local(n)))
		case w.Entries == 0:
			errs = append(errs, fmt.Errorf("table %s has no dedup window, so that a repeated block would count twice in it: "+
				"%s MODIFY SETTING %s with all writers stopped", s.Local(n), s.Alter(n), s.Form.windowSettings()))
		}
	}
	return windows, errors.Join(errs...)
}

func windowOf(form Form, engine string) Window {
	number := func(re *regexp.Regexp) int {
		m := re.FindStringSubmatch(" " + engine)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(m[1]) // digits; too many of them read as none
		return n
	}
	if form.Cluster == "" {
		return Window{Entries: number(singleWindow)}
	}
	return Window{Entries: number(clusterWindow), Age: time.Duration(number(clusterAge)) * time.Second}
}
