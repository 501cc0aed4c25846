package clickhouse

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed migrations/*.sql
var files embed.FS

// Migration is one file.
type Migration struct {
	Version  uint32
	Name     string // "0001_events"
	Checksum string // SHA-256 of the file, hex
	text     string
}

// Migrations returns all there are, in order.
func Migrations() ([]Migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var ms []Migration
	for i, path := range names {
		text, err := files.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil || int(version) != i+1 {
			return nil, fmt.Errorf("migration %s: want number %04d", name, i+1)
		}
		sum := sha256.Sum256(text)
		ms = append(ms, Migration{Version: uint32(version), Name: name, Checksum: hex.EncodeToString(sum[:]), text: string(text)})
	}
	return ms, nil
}

// Statements returns the migration's SQL for a form and a database.
func (m Migration) Statements(form Form, database string) ([]string, error) {
	t, err := template.New(m.Name).Option("missingkey=error").Parse(m.text)
	if err != nil {
		return nil, fmt.Errorf("migration %s: %w", m.Name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, dialect{form, database}); err != nil {
		return nil, fmt.Errorf("migration %s: %w", m.Name, err)
	}
	var statements []string
	for _, s := range strings.Split(b.String(), ";\n") {
		if s = trimComments(s); s != "" {
			statements = append(statements, s)
		}
	}
	return statements, nil
}

// trimComments drops whole-line comments and the white space around s.
func trimComments(s string) string {
	var lines []string
	for _, line := range strings.Split(s, "\n") {
		if !strings.HasPrefix(line, "--") && strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// dialect is what the templates call.
type dialect struct {
	form     Form
	database string
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func (d dialect) onCluster() string {
	if d.form.Cluster == "" {
		return ""
	}
	return " ON CLUSTER " + quote(d.form.Cluster)
}

// OnCluster is the clause of a statement that every server is to carry out.
func (d dialect) OnCluster() string { return d.onCluster() }

// DropLocal drops the table of name's rows, in the cluster form, where it is
// another one than name.
func (d dialect) DropLocal(name string) string {
	if d.form.Cluster == "" {
		return ""
	}
	return "DROP TABLE IF EXISTS " + d.Local(name) + d.onCluster() + " SYNC"
}

// Local is the qualified name of the table that holds name's rows.
func (d dialect) Local(name string) string {
	return quote(d.database) + "." + quote(d.form.Local(name))
}

// Table is the qualified name under which name is read.
func (d dialect) Table(name string) string { return quote(d.database) + "." + quote(name) }

// CreatePlainView starts the statement of a view that is only read.
func (d dialect) CreatePlainView(name string) string {
	return "CREATE VIEW IF NOT EXISTS " + d.Table(name) + d.onCluster()
}

// CreateDictionary starts the statement of a dictionary.
func (d dialect) CreateDictionary(name string) string {
	return "CREATE DICTIONARY IF NOT EXISTS " + d.Table(name) + d.onCluster()
}

// CreateTable starts the statement that makes the table of name's rows.
func (d dialect) CreateTable(name string) string {
	return "CREATE TABLE IF NOT EXISTS " + d.Local(name) + d.onCluster()
}

// AddColumn adds a column to the table of name's rows, and to what it is read by.
func (d dialect) AddColumn(name, column, declaration string) string {
	add := func(table string) string {
		return fmt.Sprintf("ALTER TABLE %s%s ADD COLUMN IF NOT EXISTS %s %s", table, d.onCluster(), quote(column), declaration)
	}
	if d.form.Cluster == "" {
		return add(d.Local(name))
	}
	return add(d.Local(name)) + ";\n" + add(d.Table(name))
}

// CreateDistributed makes name over the shards, in the cluster form. It has no
// sharding key: the writer inserts on the shard that a log partition belongs to.
func (d dialect) CreateDistributed(name string) string {
	if d.form.Cluster == "" {
		return ""
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s%s AS %s ENGINE = Distributed(%s, %s, %s)",
		quote(d.database), quote(name), d.onCluster(), d.Local(name),
		quote(d.form.Cluster), quote(d.database), quote(d.form.Local(name)))
}

// CreateView starts the statement of a materialized view into target.
func (d dialect) CreateView(name, target string) string {
	return fmt.Sprintf("CREATE MATERIALIZED VIEW IF NOT EXISTS %s.%s%s TO %s",
		quote(d.database), quote(name), d.onCluster(), d.Local(target))
}

func (d dialect) engine(name, args string) string {
	if d.form.Cluster != "" {
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

// AccountRollups are the rollups by account, for views over each.
func (d dialect) AccountRollups() []string {
	return Names(Select(func(t *Table) bool { return t.Kind == Rollup && !t.Plain && !t.Has("actor_id") }))
}

// grain is a unit of time that views sum by.
type grain struct{ Name, Column, function string }

// Of is the start of the unit that an instant is in.
func (g grain) Of(instant string) string { return g.function + "(" + instant + ")" }

// Grains are the units that metrics are summed by.
func (d dialect) Grains() []grain {
	return []grain{{"hourly", "hour", "toStartOfHour"}, {"daily", "day", "toDate"}, {"monthly", "month", "toStartOfMonth"}}
}

func (d dialect) ReplacingMergeTree(args string) string { return d.engine("ReplacingMergeTree", args) }

// PartitionByMonth partitions a table that views feed, by the month of column,
// in the cluster form. A single server is not asked for a version in which
// ClickHouse #112649 is fixed: on others such tables must not be partitioned.
func (d dialect) PartitionByMonth(column string) string {
	if d.form.Cluster == "" {
		return ""
	}
	return "PARTITION BY toYYYYMM(" + column + ")"
}

// Window is the settings of a table that blocks reach.
func (d dialect) Window() string { return d.form.windowSettings() }

func (f Form) windowSettings() string {
	if f.Cluster == "" {
		return fmt.Sprintf("non_replicated_deduplication_window = %d", f.WindowEntries)
	}
	return fmt.Sprintf("replicated_deduplication_window = %d, replicated_deduplication_window_seconds = %d",
		f.WindowEntries, int64(f.Window.Seconds()))
}

const migrationsTable = "schema_migrations"

// migrationsDDL makes the table of applied migrations. In the cluster form every
// replica of every shard holds all of it.
func (d dialect) migrationsDDL() string {
	engine := "MergeTree"
	if d.form.Cluster != "" {
		engine = "ReplicatedMergeTree('/clickhouse/tables/{uuid}/all', '{shard}-{replica}')"
	}
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s.%s%s
(
    version UInt32,
    name String,
    checksum String COMMENT 'SHA-256 of the file',
    form String COMMENT 'single, or the name of the cluster',
    applied_at DateTime64(3, 'UTC')
)
ENGINE = %s
ORDER BY version
COMMENT 'Migrations that were applied to this database'`, quote(d.database), quote(migrationsTable), d.onCluster(), engine)
}

// applied is a row of schema_migrations.
type applied struct {
	name, checksum, form string
}

var (
	// ErrNoSchema is in the chain of Check's error on a database without tables.
	ErrNoSchema = errors.New("the database has no schema: run `rollup-writer migrate`")
	// ErrSchema is in the chain of errors about a database whose schema is not
	// this binary's.
	ErrSchema = errors.New("the schema of the database is not this binary's")
)

func readApplied(ctx context.Context, conn driver.Conn) (map[uint32]applied, error) {
	var tables uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = ?", migrationsTable).Scan(&tables); err != nil {
		return nil, fmt.Errorf("look for %s: %w", migrationsTable, err)
	}
	if tables == 0 {
		return nil, ErrNoSchema
	}
	rows, err := conn.Query(ctx, "SELECT version, any(name), any(checksum), any(form) FROM "+migrationsTable+" GROUP BY version")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", migrationsTable, err)
	}
	defer rows.Close()
	done := map[uint32]applied{}
	for rows.Next() {
		var v uint32
		var a applied
		if err := rows.Scan(&v, &a.name, &a.checksum, &a.form); err != nil {
			return nil, fmt.Errorf("read %s: %w", migrationsTable, err)
		}
		done[v] = a
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", migrationsTable, err)
	}
	if len(done) == 0 {
		return nil, ErrNoSchema
	}
	return done, nil
}

// compare reports what makes done not a beginning of ms, and what is missing.
func compare(ms []Migration, done map[uint32]applied) (missing []Migration, err error) {
	var errs []error
	for _, m := range ms {
		a, ok := done[m.Version]
		switch {
		case !ok:
			missing = append(missing, m)
		case a.checksum != m.Checksum:
			errs = append(errs, fmt.Errorf("%w: migration %s was applied with checksum %.12s and is %.12s here: "+
				"a published migration never changes; use the release that applied it, or one after it", ErrSchema, m.Name, a.checksum, m.Checksum))
		}
	}
	for v, a := range done {
		if int(v) > len(ms) {
			errs = append(errs, fmt.Errorf("%w: it has migration %s, which this binary does not know: use a newer release of rollup-writer", ErrSchema, a.name))
		}
	}
	return missing, errors.Join(errs...)
}

// Apply makes the tables of conn's database what this binary needs. It may be
// run again at any time, also after it was cut short, and by two at once.
// It returns the migrations that it carried out.
func Apply(ctx context.Context, conn driver.Conn, form Form) ([]Migration, error) {
	if err := form.Validate(); err != nil {
		return nil, err
	}
	ms, err := Migrations()
	if err != nil {
		return nil, err
	}
	var database string
	if err := conn.QueryRow(ctx, "SELECT currentDatabase()").Scan(&database); err != nil {
		return nil, fmt.Errorf("read current database: %w", err)
	}
	done, err := readApplied(ctx, conn)
	if err != nil && !errors.Is(err, ErrNoSchema) {
		return nil, err
	}
	for _, a := range done {
		if a.form != form.String() {
			return nil, fmt.Errorf("%w: it was made in the form %q, and this is to apply %q: tables cannot change their form; use another database",
				ErrSchema, a.form, form)
		}
	}
	missing, err := compare(ms, done)
	if err != nil {
		return nil, err
	}
	d := dialect{form, database}
	if err := conn.Exec(ctx, d.migrationsDDL()); err != nil {
		return nil, fmt.Errorf("create %s: %w", migrationsTable, err)
	}
	for i, m := range missing {
		statements, err := m.Statements(form, database)
		if err != nil {
			return missing[:i], err
		}
		for _, s := range statements {
			if err := conn.Exec(ctx, s); err != nil {
				return missing[:i], fmt.Errorf("migration %s: %w in:\n%s", m.Name, err, s)
			}
		}
		err = conn.Exec(ctx, "INSERT INTO "+migrationsTable+" SETTINGS async_insert = 0 VALUES (?, ?, ?, ?, ?)",
			m.Version, m.Name, m.Checksum, form.String(), time.Now().UTC())
		if err != nil {
			return missing[:i], fmt.Errorf("record migration %s: %w", m.Name, err)
		}
	}
	return missing, nil
}

// Check reports why conn's database does not have the schema of this binary,
// and what to do; nil when it has. It returns the form that the tables have.
func Check(ctx context.Context, conn driver.Conn) error {
	ms, err := Migrations()
	if err != nil {
		return err
	}
	done, err := readApplied(ctx, conn)
	if err != nil {
		return err
	}
	missing, err := compare(ms, done)
	if len(missing) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: it lacks migration %s: run `rollup-writer migrate`", ErrSchema, missing[0].Name))
	}
	return err
}

// CreateDatabase makes the database; conn is one to any other, such as default.
func CreateDatabase(ctx context.Context, conn driver.Conn, database string, form Form) error {
	err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quote(database)+dialect{form: form}.onCluster())
	if err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return nil
}
