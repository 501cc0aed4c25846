package clickhouse

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

var update = flag.Bool("update", false, "rewrite the golden DDL")

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// database returns a connection to a fresh database.
func database(t *testing.T) (driver.Conn, string) {
	t.Helper()
	addr, db := embedded.Database(t)
	return open(t, addr, db), db
}

func open(t testing.TB, addr, db string) driver.Conn {
	t.Helper()
	conn, err := clickhousego.Open(&clickhousego.Options{Addr: []string{addr}, Auth: clickhousego.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// installed is a connection to the database for people of a fresh installation.
type installed struct {
	driver.Conn
	machinery driver.Conn // to the internal database
	schema    Schema
}

func schema(t testing.TB) installed {
	t.Helper()
	addr, db := embedded.Installed(t, func(addr, db string) error {
		_, err := single(db).Apply(context.Background(), open(t, addr, db))
		return err
	})
	conn := installed{Conn: open(t, addr, db), schema: single(db)}
	conn.machinery = open(t, addr, Internal(db))
	return conn
}

func single(db string) Schema { return Schema{Database: db, Form: SingleForm()} }

// golden is the DDL of a form: migrations, then views in the order in which they
// are made.
func golden(t *testing.T, form Form) string {
	t.Helper()
	ms, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	s := Schema{Database: "uptake", Form: form, Definer: "uptake_views"}
	var b strings.Builder
	for _, m := range ms {
		statements, err := m.Statements(s)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "-- %s\n\n", m.Name)
		for _, s := range statements {
			fmt.Fprintf(&b, "%s;\n\n", s)
		}
	}
	views, err := Views()
	if err != nil {
		t.Fatal(err)
	}
	statements, order, err := s.ordered(views)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range order {
		fmt.Fprintf(&b, "-- view %s\n\n%s;\n\n", v.Name, statements[v.Name])
	}
	return b.String()
}

// The DDL of both forms is pinned as a whole: migrations never change once they
// are published, and a change of the code that expands the files shows here.
func TestStatementsAreGolden(t *testing.T) {
	for name, form := range map[string]Form{"single": SingleForm(), "cluster": ClusterForm("main")} {
		got, path := golden(t, form), filepath.Join("testdata", name+".sql")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("DDL of form %s differs from %s; got:\n%s", name, path, got)
		}
	}
}

func TestApplyIsRerunnableAndCheckAgrees(t *testing.T) {
	ctx := context.Background()
	conn, db := database(t)
	s := single(db)
	if err := s.Check(ctx, conn); !errors.Is(err, ErrNoSchema) {
		t.Errorf("check of an empty database: got %v, want %v", err, ErrNoSchema)
	}
	all, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	views, err := Views()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{len(all) + len(views), 0} {
		got, err := s.Apply(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != want {
			t.Errorf("run %d applied %d migrations and views, want %d: %q", i, len(got), want, got)
		}
	}
	if err := s.Check(ctx, conn); err != nil {
		t.Error(err)
	}
	windows, err := s.Windows(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range slices.Concat(EventTables, RejectedTables) {
		if got, want := windows[table], (Window{Entries: SingleForm().WindowEntries}); got != want {
			t.Errorf("window of %s: got %+v, want %+v", table, got, want)
		}
	}
	s.Form = ClusterForm("main")
	if _, err := s.Apply(ctx, conn); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "form") {
		t.Errorf("apply of another form: got %v", err)
	}
}

// A migration that died between two of its statements is run again.
func TestApplyResumes(t *testing.T) {
	ctx := context.Background()
	conn, db := database(t)
	s := single(db)
	all, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	statements, err := all[0].Statements(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(ctx, statements[0]); err != nil {
		t.Fatal(err)
	}
	got, err := s.Apply(ctx, conn)
	if err != nil || !slices.Contains(got, all[0].Name) {
		t.Errorf("applied %q: %v", got, err)
	}
}

// What releases before the baseline made is refused, by Apply before it changes
// anything and by Check, with what to do.
func TestOldSchemaIsRefused(t *testing.T) {
	ctx := context.Background()
	conn, db := database(t)
	exec(t, conn, "CREATE TABLE schema_migrations (version UInt32, name String, checksum String, form String, applied_at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY version")
	exec(t, conn, "INSERT INTO schema_migrations VALUES (1, '0001_events', 'x', 'single', now())")
	_, err := single(db).Apply(ctx, conn)
	for what, err := range map[string]error{"apply": err, "check": single(db).Check(ctx, conn)} {
		if !errors.Is(err, ErrOldSchema) || !strings.Contains(err.Error(), "rebuild -from-log") {
			t.Errorf("%s: got %v, want %v", what, err, ErrOldSchema)
		}
	}
	same(t, "what there is", table(t, conn, "SELECT name FROM system.tables WHERE startsWith(database, currentDatabase())"), "schema_migrations")
}

func TestCheckSaysWhatToDo(t *testing.T) {
	ctx := context.Background()
	conn := schema(t)
	all, _ := Migrations()
	last := all[len(all)-1]
	for _, tc := range []struct{ change, want string }{
		{fmt.Sprintf("DELETE FROM schema_migrations WHERE version = %d", last.Version), "it lacks migration " + last.Name + ": run `rollup-writer migrate`"},
		{"ALTER TABLE schema_migrations UPDATE checksum = 'x' WHERE version = 1", "migration 0001_events was applied with checksum x and is"},
		{"INSERT INTO schema_migrations VALUES (9001, '9001_later', 'y', 'single', now())", "it has migration 9001_later, which this binary does not know"},
	} {
		err := conn.machinery.Exec(clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{"mutations_sync": 1})), tc.change)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.schema.Check(ctx, conn); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("after %s: got %v, want %q", tc.change, err, tc.want)
		}
	}
	if _, err := conn.schema.Apply(ctx, conn); !errors.Is(err, ErrSchema) {
		t.Errorf("apply over a changed migration: got %v, want %v", err, ErrSchema)
	}
}

func TestWindowsNamesTablesWithoutOne(t *testing.T) {
	conn := schema(t)
	exec(t, conn.machinery, "ALTER TABLE user_feature_daily RESET SETTING non_replicated_deduplication_window")
	exec(t, conn, "DROP TABLE rejected_events")
	_, err := conn.schema.Windows(context.Background(), conn)
	for _, want := range []string{
		fmt.Sprintf("table `%s_internal`.`user_feature_daily` has no dedup window", conn.schema.Database),
		fmt.Sprintf("table `%s`.`rejected_events` does not exist", conn.schema.Database),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestFormValidate(t *testing.T) {
	for _, tc := range []struct {
		form Form
		want []string
	}{
		{SingleForm(), nil},
		{ClusterForm("main"), nil},
		{Form{WindowEntries: 10}, []string{"clickhouse-window-entries"}},
		{Form{Cluster: "a b", WindowEntries: 10, Window: time.Minute}, []string{"clickhouse-cluster", "clickhouse-window-entries", "clickhouse-window must"}},
	} {
		err := tc.form.Validate()
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%+v: got %v, want %v", tc.form, err, tc.want)
		}
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: got %v, want %q", tc.form, err, w)
			}
		}
	}
}

// Every statement of the cluster form parses; that it runs is for a cluster.
func TestClusterStatementsParse(t *testing.T) {
	ctx := context.Background()
	conn, _ := database(t)
	s := Schema{Database: "uptake", Form: ClusterForm("main")}
	statements := []string{s.migrationsDDL(), s.viewsDDL()}
	for _, part := range strings.Split(golden(t, s.Form), ";\n") {
		if part = trimComments(part); part != "" {
			statements = append(statements, part)
		}
	}
	for _, s := range statements {
		var out string
		if err := conn.QueryRow(ctx, "SELECT formatQuery(?)", s).Scan(&out); err != nil {
			t.Errorf("%v in\n%s", err, s)
		}
	}
}
