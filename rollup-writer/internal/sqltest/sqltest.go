// Package sqltest gives tests the tables of an installation by SQL.
package sqltest

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// conn is a connection to the database for people. In statements it qualifies the
// names that are in the internal database alone, and those that a statement writes
// to: FROM usage_hourly is the view, INSERT INTO usage_hourly the stored rollup.
// What a statement asks of the current database it asks of both.
type conn struct {
	driver.Conn
	internal string
	both     string          // instead of database = currentDatabase()
	hidden   map[string]bool // true: the name is in the internal database alone
}

var names = regexp.MustCompile(`\b(TABLE [a-z_0-9]+ AS|FROM|JOIN|INTO|TO|TABLE|VIEW|MERGES) ([a-z_0-9]+)\b([^.(]|$)`)

func (c *conn) qualify(query string) string {
	query = strings.NewReplacer(
		"system.tables WHERE database = currentDatabase()", "system.tables WHERE engine != 'View' AND "+c.both,
		"database = currentDatabase()", c.both,
	).Replace(query)
	return names.ReplaceAllStringFunc(query, func(s string) string {
		m := names.FindStringSubmatch(s)
		alone, there := c.hidden[m[2]]
		if !there || (!alone && (m[1] == "FROM" || m[1] == "JOIN")) {
			return s
		}
		return m[1] + " " + c.internal + "." + m[2] + m[3]
	})
}

func (c *conn) Exec(ctx context.Context, query string, args ...any) error {
	return c.Conn.Exec(ctx, c.qualify(query), args...)
}

func (c *conn) Query(ctx context.Context, query string, args ...any) (driver.Rows, error) {
	return c.Conn.Query(ctx, c.qualify(query), args...)
}

func (c *conn) QueryRow(ctx context.Context, query string, args ...any) driver.Row {
	return c.Conn.QueryRow(ctx, c.qualify(query), args...)
}

// Database returns the address and the name of a database with the tables and
// views of this release, on the server of the test binary, until the test ends.
// change is made to the configuration that they are made by.
func Database(t testing.TB, change ...func(*clickhouse.Config)) (addr, db string) {
	t.Helper()
	return embedded.Installed(t, func(addr, db string) (err error) {
		cfg := clickhouse.DefaultConfig()
		cfg.Addr, cfg.Database = addr, db
		for _, c := range change {
			c(&cfg)
		}
		sql, err := clickhousego.Open(&clickhousego.Options{Addr: []string{addr}, Auth: clickhousego.Auth{Database: db}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sql.Close()) }()
		_, err = cfg.Schema().Apply(context.Background(), sql)
		return err
	})
}

// Open makes what is missing of cfg's schema and returns a connection by which
// tests name its tables and views without databases. It is closed when the test
// ends.
func Open(t testing.TB, cfg *clickhouse.Config) driver.Conn {
	t.Helper()
	ctx := context.Background()
	sql, err := clickhousego.Open(&clickhousego.Options{Addr: []string{cfg.Addr}, Auth: clickhousego.Auth{Database: cfg.Database}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sql.Close() })
	schema := cfg.Schema()
	if _, err := schema.Apply(ctx, sql); err != nil {
		t.Fatal(err)
	}
	return Named(t, sql, cfg)
}

// Named is Open over a connection to the database for people of an installation.
func Named(t testing.TB, sql driver.Conn, cfg *clickhouse.Config) driver.Conn {
	t.Helper()
	c := &conn{Conn: sql, internal: tables.Internal(cfg.Database)}
	c.both = "database IN ('" + cfg.Database + "', '" + c.internal + "')"
	var err error
	c.hidden, err = tables.CollectMap[string, bool](context.Background(), sql, "SELECT name, count() = 1 FROM system.tables WHERE database IN (?, ?) GROUP BY name HAVING has(groupArray(database), ?)",
		cfg.Database, c.internal, c.internal)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
