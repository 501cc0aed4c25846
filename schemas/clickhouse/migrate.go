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

// Statements returns the migration's SQL for a schema.
func (m Migration) Statements(schema Schema) ([]string, error) {
	t, err := template.New(m.Name).Option("missingkey=error").Parse(m.text)
	if err != nil {
		return nil, fmt.Errorf("migration %s: %w", m.Name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, dialect{Schema: schema}); err != nil {
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

const migrationsTable = "schema_migrations"

// migrationsDDL makes the table of applied migrations. In the cluster form every
// replica of every shard holds all of it.
func (s Schema) migrationsDDL() string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s%s
(
    version UInt32,
    name String,
    checksum String COMMENT 'SHA-256 of the file',
    form String COMMENT 'single, or the name of the cluster',
    applied_at DateTime64(3, 'UTC')
)
ENGINE = %s
ORDER BY version
COMMENT 'Migrations that were applied to this database'`, s.Table(migrationsTable), s.onCluster(), s.sharedEngine("MergeTree", ""))
}

// applied is a row of schema_migrations.
type applied struct {
	version              uint32
	name, checksum, form string
}

var (
	// ErrNoSchema is in the chain of Check's error on a database without tables.
	ErrNoSchema = errors.New("the database has no schema: run `rollup-writer migrate`")
	// ErrSchema is in the chain of errors about a database whose schema is not
	// this binary's.
	ErrSchema = errors.New("the schema of the database is not this binary's")
)

// ErrOldSchema is in the chain of errors about a database that a release before
// the baseline made, with all its tables in one database.
var ErrOldSchema = fmt.Errorf("%w: a release with the migrations 0001_events to 0012_block_plans made it, and no migration leads from those to this release's two databases: "+
	"choose a new database with -clickhouse-database, run `rollup-writer migrate`, and fill it from the log with `rollup-writer rebuild -from-log`", ErrSchema)

func (s Schema) readApplied(ctx context.Context, conn driver.Conn) (map[uint32]applied, error) {
	var tables, old uint64
	if err := conn.QueryRow(ctx, "SELECT countIf(database = ?), countIf(database = ?) FROM system.tables WHERE database IN (?, ?) AND name = ?",
		Internal(s.Database), s.Database, Internal(s.Database), s.Database, migrationsTable).Scan(&tables, &old); err != nil {
		return nil, fmt.Errorf("look for %s: %w", migrationsTable, err)
	}
	switch {
	case old > 0:
		return nil, ErrOldSchema
	case tables == 0:
		return nil, ErrNoSchema
	}
	done := map[uint32]applied{}
	err := Each(ctx, conn, func(a *applied) []any { return []any{&a.version, &a.name, &a.checksum, &a.form} }, func(a *applied) { done[a.version] = *a },
		"SELECT version, any(name), any(checksum), any(form) FROM "+s.Table(migrationsTable)+" GROUP BY version")
	if err != nil {
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

// Apply makes both databases what this binary needs. It may be run again at any
// time, also after it was cut short, and by two at once. It returns the names of
// the migrations and views that it carried out. conn may be one to any database.
func (s Schema) Apply(ctx context.Context, conn driver.Conn) (done []string, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Definer == "" {
		if err := conn.QueryRow(ctx, "SELECT currentUser()").Scan(&s.Definer); err != nil {
			return nil, fmt.Errorf("read current user: %w", err)
		}
	}
	ms, err := Migrations()
	if err != nil {
		return nil, err
	}
	had, err := s.readApplied(ctx, conn)
	if err != nil && !errors.Is(err, ErrNoSchema) {
		return nil, err
	}
	for _, a := range had {
		if a.form != s.Form.String() {
			return nil, fmt.Errorf("%w: it was made in the form %q, and this is to apply %q: tables cannot change their form; use another database",
				ErrSchema, a.form, s.Form)
		}
	}
	missing, err := compare(ms, had)
	if err != nil {
		return nil, err
	}
	for _, database := range []string{s.Database, Internal(s.Database)} {
		if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quote(database)+s.onCluster()); err != nil {
			return nil, fmt.Errorf("create database %s: %w", database, err)
		}
	}
	for _, ddl := range []string{s.migrationsDDL(), s.viewsDDL()} {
		if err := conn.Exec(ctx, ddl); err != nil {
			return nil, fmt.Errorf("create the tables of what was applied: %w", err)
		}
	}
	for _, m := range missing {
		if err := s.applyMigration(ctx, conn, m); err != nil {
			return done, err
		}
		done = append(done, m.Name)
	}
	views, err := s.applyViews(ctx, conn)
	return append(done, views...), err
}

func (s Schema) applyMigration(ctx context.Context, conn driver.Conn, m Migration) error {
	statements, err := m.Statements(s)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("migration %s: %w in:\n%s", m.Name, err, statement)
		}
	}
	err = conn.Exec(ctx, "INSERT INTO "+s.Table(migrationsTable)+" SETTINGS async_insert = 0 VALUES (?, ?, ?, ?, ?)",
		m.Version, m.Name, m.Checksum, s.Form.String(), time.Now().UTC())
	if err != nil {
		return fmt.Errorf("record migration %s: %w", m.Name, err)
	}
	return nil
}

// Check reports why the databases do not have the tables of this binary, and
// what to do; nil when they have. It does not look at views, which no service
// writes through: an older writer runs beside the views of a newer release.
func (s Schema) Check(ctx context.Context, conn driver.Conn) error {
	ms, err := Migrations()
	if err != nil {
		return err
	}
	done, err := s.readApplied(ctx, conn)
	if err != nil {
		return err
	}
	missing, err := compare(ms, done)
	if len(missing) > 0 {
		err = errors.Join(err, fmt.Errorf("%w: it lacks migration %s: run `rollup-writer migrate`", ErrSchema, missing[0].Name))
	}
	return err
}
