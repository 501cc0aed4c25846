package clickhouse

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Schema says where the tables of an installation are.
//
// There are two databases. Database is what people use: the tables events and
// rejected_events, and views. [Internal] of it holds the machinery: every other
// table, the materialized views, and views that only programs read. A table and
// a view may have the same name: usage_hourly in the second one is the stored
// rollup, in the first one the view over it that hides what merges have yet to
// remove.
type Schema struct {
	Database string
	Form     Form
	// Definer is the user that the views in Database run as. It needs SELECT on
	// both databases and nothing else. Empty: the user that applies the schema.
	Definer string
}

// Internal is the name of the database that holds the machinery of database.
func Internal(database string) string { return database + "_internal" }

// peopleTables are the tables whose stored rows are what people read: one row
// for each event, never corrected and never merged. events is not behind a view
// because ClickHouse reads whole JSON columns through one: properties.key read
// 16 times the bytes.
var peopleTables = Names(Select(func(t *Table) bool { return t.Kind == Fact }))

// homes are the names that are not in the internal database: those of people's
// tables, and of rollups that are views.
var homes = Names(Select(func(t *Table) bool { return t.Kind == Fact || t.Plain }))

// Validate reports all faults of s.
func (s Schema) Validate() error {
	var errs []error
	if s.Database == "" {
		errs = append(errs, errors.New("clickhouse-database must not be empty"))
	}
	return errors.Join(append(errs, s.Form.Validate())...)
}

// home is the database of the table that is read as name. It is the only place
// that knows.
func (s Schema) home(name string) string {
	if slices.Contains(homes, name) {
		return s.Database
	}
	return Internal(s.Database)
}

// localHome is the database of the table that holds name's rows.
func (s Schema) localHome(name string) string {
	if s.Form.Cluster == "" {
		return s.home(name)
	}
	return Internal(s.Database)
}

func quote(name string) string {
	return "`" + strings.NewReplacer("`", "``", `\`, `\\`).Replace(name) + "`"
}

// Local is the qualified name of the table that holds name's rows on each
// server: name, or in the cluster form name_local.
func (s Schema) Local(name string) string {
	return quote(s.localHome(name)) + "." + quote(s.Form.Local(name))
}

// Table is the qualified name under which the stored rows of name are read, of
// all shards.
func (s Schema) Table(name string) string { return quote(s.home(name)) + "." + quote(name) }

// View is the qualified name of a view for people.
func (s Schema) View(name string) string { return quote(s.Database) + "." + quote(name) }

// Where is the condition on system tables by which the rows of the tables that
// hold names' rows are found: database and table are the columns' names.
func (s Schema) Where(database, table string, names ...string) string {
	terms := make([]string, len(names))
	for i, n := range names {
		terms[i] = fmt.Sprintf("(%s = '%s' AND %s = '%s')", database, s.localHome(n), table, s.Form.Local(n))
	}
	return "(" + strings.Join(terms, " OR ") + ")"
}

func (s Schema) onCluster() string {
	if s.Form.Cluster == "" {
		return ""
	}
	return " ON CLUSTER " + quote(s.Form.Cluster)
}

// CreateShared returns the statement that makes a small table of which, in the
// cluster form, every replica of every shard holds all rows: what is inserted
// anywhere is soon everywhere. It is for lists that a command joins with, and
// that it drops when it is done. columns and order are SQL.
func (s Schema) CreateShared(name, columns, order string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s (%s) ENGINE = %s ORDER BY %s", s.Table(name), s.onCluster(), columns, s.sharedEngine("MergeTree", ""), order)
}

// sharedEngine is the engine of a table that every replica of every shard holds
// all rows of.
func (s Schema) sharedEngine(name, args string) string {
	if s.Form.Cluster == "" {
		return name + "(" + args + ")"
	}
	if args != "" {
		args = ", " + args
	}
	return "Replicated" + name + "('/clickhouse/tables/{uuid}/all', '{shard}-{replica}'" + args + ")"
}

// DropShared returns the statement that drops it.
func (s Schema) DropShared(name string) string {
	return fmt.Sprintf("DROP TABLE IF EXISTS %s%s SYNC", s.Table(name), s.onCluster())
}

// Alter starts an ALTER of the tables that hold name's rows, on every shard.
func (s Schema) Alter(name string) string { return "ALTER TABLE " + s.Local(name) + s.onCluster() }

// dialect is what the templates call.
type dialect struct {
	Schema
	// view is the file that is expanded, uses the views that it names so far.
	view View
	uses *[]string
}

// OnCluster is the clause of a statement that every server is to carry out.
func (d dialect) OnCluster() string { return d.onCluster() }

// CreateTable starts the statement that makes the table of name's rows.
func (d dialect) CreateTable(name string) string {
	return "CREATE TABLE IF NOT EXISTS " + d.Local(name) + d.onCluster()
}

// CreateDistributed makes name over the shards, in the cluster form. It has no
// sharding key: the writer inserts on the shard that a log partition belongs to.
// comment is for tables that people read.
func (d dialect) CreateDistributed(name string, comment ...string) string {
	if d.Form.Cluster == "" {
		return ""
	}
	ddl := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s ENGINE = Distributed(%s, %s, %s)",
		d.Table(name), d.onCluster(), d.Local(name), quote(d.Form.Cluster), quote(d.localHome(name)), quote(d.Form.Local(name)))
	for _, c := range comment {
		ddl += "\nCOMMENT '" + strings.ReplaceAll(c, "'", "''") + "'"
	}
	return ddl
}

// CreateView starts the statement of a materialized view into target. It is in
// the internal database.
func (d dialect) CreateView(name, target string) string {
	return fmt.Sprintf("CREATE MATERIALIZED VIEW IF NOT EXISTS %s%s TO %s", d.Table(name), d.onCluster(), d.Local(target))
}

// AlterView starts the statement that gives a materialized view another query. It
// is carried out at once: no block finds the view missing.
func (d dialect) AlterView(name string) string { return d.alterView(name) }

func (s Schema) alterView(name string) string {
	return "ALTER TABLE " + s.Table(name) + s.onCluster() + " MODIFY QUERY"
}

func (d dialect) engine(name, args string) string {
	if d.Form.Cluster != "" {
		name = "Replicated" + name
	}
	if args == "" {
		return name
	}
	return name + "(" + args + ")"
}

// replicated engines take path and replica before their own arguments, or
// neither: with {uuid} in the server's default path a table that is dropped and
// made again does not meet its own past.

func (d dialect) MergeTree() string { return d.engine("MergeTree", "") }

func (d dialect) SummingMergeTree(columns string) string {
	return d.engine("SummingMergeTree", "("+columns+")")
}

func (d dialect) AggregatingMergeTree() string { return d.engine("AggregatingMergeTree", "") }

// SharedMergeTree is the engine of a small table of which every replica of every
// shard holds all rows.
func (d dialect) SharedMergeTree() string { return d.sharedEngine("MergeTree", "") }

func (d dialect) ReplacingMergeTree(args string) string { return d.engine("ReplacingMergeTree", args) }

// PartitionByMonth partitions a table that views feed, by the month of column,
// in the cluster form. A single server is not asked for a version in which
// ClickHouse #112649 is fixed: on others such tables must not be partitioned.
func (d dialect) PartitionByMonth(column string) string {
	if d.Form.Cluster == "" {
		return ""
	}
	return "PARTITION BY toYYYYMM(" + column + ")"
}

// Window is the settings of a table that blocks reach.
func (d dialect) Window() string { return d.Form.windowSettings() }

func (f Form) windowSettings() string {
	if f.Cluster == "" {
		return fmt.Sprintf("non_replicated_deduplication_window = %d", f.WindowEntries)
	}
	return fmt.Sprintf("replicated_deduplication_window = %d, replicated_deduplication_window_seconds = %d",
		f.WindowEntries, int64(f.Window.Seconds()))
}
