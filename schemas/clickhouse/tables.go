package clickhouse

import (
	"slices"
	"strings"
)

// Kind says what a table is for.
type Kind int

// Kinds of tables.
const (
	// Fact: a row for each event, as the log has it.
	Fact Kind = iota + 1
	// Base: signed sums over facts and corrections, by every attribution.
	Base
	// Rollup: signed sums over the base by fewer columns.
	Rollup
	// Machinery: what the others are kept right with, or views for people read.
	Machinery
)

// Table declares a table: what the writer, audit, rebuild and erase know of it.
// The DDL is in the migrations; a test compares the two.
type Table struct {
	Name string
	Kind Kind
	// Key are the columns beside app_id by which a cell of sums is told apart.
	// Empty for tables that are not compared cell by cell.
	Key []string
	// Sums are the columns that are summed over the rows of a cell.
	Sums []string
	// From is the table that a Rollup is summed from. Plain rollups are views and
	// hold no rows of their own.
	From  string
	Plain bool
	// Day is the UTC day of a row, in SQL; empty where rows have none.
	Day string
	// Blocks: a block of this table's rows arrives, directly or through a
	// materialized view, so that the table has a dedup window.
	Blocks bool
}

// Attribution are the columns that a correction may match and set, in the order
// in which the rows of a plan are sorted within an hour.
var Attribution = []string{
	"account_id", "account_source", "actor_id", "actor_kind", "user_id", "anonymous_id",
	"feature_id", "module_id", "product_id", "role", "event",
}

var (
	signed  = []string{"events", "quantity"}
	baseKey = slices.Concat(Attribution, []string{"hour", "source_partition"})
)

// Tables are all that hold rows, and the plain rollups.
var Tables = []Table{
	{Name: "events", Kind: Fact, Day: "toDate(event_time)", Blocks: true},
	{Name: "rejected_events", Kind: Fact, Blocks: true},
	{Name: "usage_hourly", Kind: Base, Key: baseKey, Sums: signed, From: "events", Day: "toDate(hour)", Blocks: true},

	rollup("account_feature_daily", "account_id", "feature_id", "module_id", "product_id"),
	rollup("account_module_daily", "account_id", "module_id", "product_id"),
	rollup("account_product_daily", "account_id", "product_id"),
	rollup("user_feature_daily", "account_id", "actor_id", "actor_kind", "role", "feature_id", "module_id", "product_id"),
	plain("user_module_daily", "user_feature_daily", "account_id", "actor_id", "actor_kind", "role", "module_id", "product_id"),
	plain("user_product_daily", "user_feature_daily", "account_id", "actor_id", "actor_kind", "role", "product_id"),

	{
		Name: "corrections", Kind: Machinery, Sums: signed, Day: "toDate(hour)", Blocks: true,
		Key: slices.Concat(baseKey, []string{"part_from", "part_to", "source_topic_id", "source_offset", "control_id", "control_kind", "corrected_at", "block", "row"}),
	},
	{Name: "correction_plans", Kind: Machinery, Day: "toDate(hour)", Blocks: true},
	{Name: "audit_blocks", Kind: Machinery, Blocks: true},
	{Name: "replayed_events", Kind: Machinery},
	{Name: "identity_facts", Kind: Machinery},
	{Name: "identity_unlinks", Kind: Machinery},
	{Name: "metric_values", Kind: Machinery},
	{Name: "user_agents", Kind: Machinery},
	{Name: "insight_rules", Kind: Machinery},
	{Name: "signal_log", Kind: Machinery},
	{Name: "health_scores", Kind: Machinery},
	{Name: "notes", Kind: Machinery},
	{Name: "looks", Kind: Machinery},
	{Name: "behaviour_clusters", Kind: Machinery},
	{Name: "behaviour_cluster_members", Kind: Machinery},
	{Name: "catalog_features", Kind: Machinery},
	{Name: "catalog_features_history", Kind: Machinery},
	{Name: "catalog_metrics", Kind: Machinery},
	{Name: migrationsTable, Kind: Machinery},
	{Name: viewsTable, Kind: Machinery},
}

func rollup(name string, columns ...string) Table {
	return Table{Name: name, Kind: Rollup, Key: append(columns, "day"), Sums: signed, From: "usage_hourly", Day: "day", Blocks: true}
}

func plain(name, from string, columns ...string) Table {
	return Table{Name: name, Kind: Rollup, Key: append(columns, "day"), Sums: signed, From: from, Plain: true, Day: "day"}
}

// TableOf is the declaration of a table, which there must be.
func TableOf(name string) Table {
	for _, t := range Tables {
		if t.Name == name {
			return t
		}
	}
	panic("no table " + name + " is declared") // only this package's own names are asked for
}

// Select are the tables that keep returns true for, in their order.
func Select(keep func(*Table) bool) []Table {
	var list []Table
	for i := range Tables {
		if keep(&Tables[i]) {
			list = append(list, Tables[i])
		}
	}
	return list
}

// Rollups are those that hold rows.
func Rollups() []Table { return Select(func(t *Table) bool { return t.Kind == Rollup && !t.Plain }) }

// Names of tables.
func Names(list []Table) []string {
	var names []string
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names
}

// Columns of the key as SQL lists them.
func (t *Table) Columns() string { return strings.Join(t.Key, ", ") }

// Has reports whether a column is of the key.
func (t *Table) Has(column string) bool { return slices.Contains(t.Key, column) }
